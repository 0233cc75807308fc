//! How an application does, as its developer and the operator want to know it: since when it says nothing, and what was wrong with what it has
//! said of late.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::net::sys::clocks;

/// So many problems of questions are remembered, to explain refusals by.
const PROBLEMS_KEPT: usize = 256;
/// A refusal and the problem that it comes from are noted so many seconds apart at most.
const APART_SECS: u64 = 5;
/// So much is kept of the text of one.
const TEXT_CHARS_MAX: usize = 300;

/// What is known of an application.
#[derive(Clone, Debug, Default)]
pub struct HealthView {
    /// Where it is, without what is not shown.
    pub url: String,
    /// When it last had anything to say, in Unix seconds.
    pub answered_unix: Option<u64>,
    /// The first that it has not answered since then, and how many there were.
    pub silent_since_unix: Option<u64>,
    /// How many in a row.
    pub unanswered: u64,
    /// What was wrong last.
    pub problem: Option<HookProblem>,
}

/// What was wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookProblem {
    /// When, in Unix seconds.
    pub at_unix: u64,
    /// Who was asked about, or whose allocation was told of.
    pub username: Option<Arc<str>>,
    /// What.
    pub text: String,
}

/// The same, as it is noted.
#[derive(Debug, Default)]
pub struct Health(Mutex<Noted>);

#[derive(Debug, Default)]
struct Noted {
    view: Option<HealthView>,
    problems: VecDeque<HookProblem>,
}

impl Health {
    /// It is asked, or told, there from now on.
    pub(super) fn begin(&self, url: String) {
        *self.noted() = Noted { view: Some(HealthView { url, ..HealthView::default() }), problems: VecDeque::new() };
    }

    /// It has answered as it should.
    pub(super) fn is_well(&self) {
        self.answered(None);
    }

    /// It has answered something else, or nothing.
    pub(super) fn has_failed(&self, is_an_answer: bool, username: Option<&Arc<str>>, text: &str) {
        let problem = HookProblem::now(username, text);
        match is_an_answer {
            true => self.answered(Some(problem)),
            false => {
                let mut noted = self.noted();
                if let Some(view) = &mut noted.view {
                    view.silent_since_unix.get_or_insert(problem.at_unix);
                    view.unanswered = view.unanswered.saturating_add(1);
                    view.problem = Some(problem.clone());
                }
                noted.keep(problem);
            }
        }
    }

    /// It was not asked about somebody.
    pub(super) fn was_not_asked(&self, username: Option<&Arc<str>>, text: &str) {
        self.noted().keep(HookProblem::now(username, text));
    }

    fn answered(&self, problem: Option<HookProblem>) {
        let mut noted = self.noted();
        if let Some(view) = &mut noted.view {
            view.answered_unix = Some(clocks().1);
            view.silent_since_unix = None;
            view.unanswered = 0;
            view.problem = problem.clone().or(view.problem.take());
        }
        problem.into_iter().for_each(|problem| noted.keep(problem));
    }

    /// What is known, if there is an application.
    pub fn view(&self) -> Option<HealthView> {
        self.noted().view.clone()
    }

    /// Why nobody could say at that time who this user is, as far as it is remembered.
    pub fn problem_with(&self, username: &str, at_unix: u64) -> Option<String> {
        let noted = self.noted();
        let of_name = noted.problems.iter().rev().filter(|problem| problem.username.as_deref() == Some(username));
        let nearest = of_name.min_by_key(|problem| problem.at_unix.abs_diff(at_unix))?;
        (nearest.at_unix.abs_diff(at_unix) <= APART_SECS).then(|| nearest.text.clone())
    }

    fn noted(&self) -> MutexGuard<'_, Noted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Noted {
    fn keep(&mut self, problem: HookProblem) {
        if self.problems.len() >= PROBLEMS_KEPT {
            self.problems.pop_front();
        }
        self.problems.push_back(problem);
    }
}

impl HookProblem {
    fn now(username: Option<&Arc<str>>, text: &str) -> Self {
        Self { at_unix: clocks().1, username: username.cloned(), text: text.chars().take(TEXT_CHARS_MAX).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_wrong_is_known_by_name_and_an_answer_ends_a_silence() {
        let health = Health::default();
        assert!(health.view().is_none());
        health.begin("http://127.0.0.1/".to_owned());
        let [ann, bob] = ["ann", "bob"].map(Arc::<str>::from);
        for _ in 0..3 {
            health.has_failed(false, Some(&ann), "no answer");
        }
        let view = health.view().unwrap();
        assert!(view.silent_since_unix.is_some() && view.unanswered == 3 && view.answered_unix.is_none());
        health.has_failed(true, Some(&bob), "HTTP status 401");
        health.is_well();
        let view = health.view().unwrap();
        assert!(view.silent_since_unix.is_none() && view.unanswered == 0 && view.answered_unix.is_some());
        assert_eq!(view.problem.unwrap().text, "HTTP status 401", "it is said for a while");
        let now = clocks().1;
        assert_eq!(health.problem_with("ann", now).as_deref(), Some("no answer"));
        assert_eq!(health.problem_with("ann", now - 60), None);
        assert_eq!(health.problem_with("carl", now), None);
        for _ in 0..2 * PROBLEMS_KEPT {
            health.was_not_asked(Some(&bob), &"long".repeat(1000));
        }
        assert_eq!(health.problem_with("ann", now), None);
        assert!(health.noted().problems.len() == PROBLEMS_KEPT);
        assert_eq!(health.problem_with("bob", now).unwrap().len(), TEXT_CHARS_MAX);
    }
}
