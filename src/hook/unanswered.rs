//! Users whose last event had no answer. The application may hang on them and on nobody else, so they rest, each for itself, and share a part
//! of what is told at once.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use crate::user::User;

/// A user rests so long, and twice as long each time.
const REST_MIN: Duration = Duration::from_millis(500);
const REST_MAX: Duration = Duration::from_secs(8);
/// One that has nothing to be told is forgotten after so long.
const KEPT: Duration = Duration::from_secs(60);
/// Between one look for those and the next.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);

/// Whose an event is; `None` is the server's own.
pub(super) type Of = Option<User>;

/// All of these users.
#[derive(Debug, Default)]
pub(super) struct Unanswered {
    users: HashMap<Of, Rest>,
    /// When each has rested; with a number, since two may be at the same time.
    ends: BTreeMap<(Instant, u64), Of>,
    swept: Option<Instant>,
}

#[derive(Debug)]
struct Rest {
    in_a_row: u32,
    /// Nothing is told of the user until then.
    until: Option<Instant>,
    noted: Instant,
}

impl Unanswered {
    /// Whether there has been none for a while.
    pub(super) fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// Whether nothing is to be told of this user yet.
    pub(super) fn rests(&self, of: &Of) -> bool {
        self.users.get(of).is_some_and(|rest| rest.until.is_some())
    }

    /// Notes that an event had no answer. Returns whether the one before had. `number` is another one for each event.
    pub(super) fn note(&mut self, of: &Of, number: u64, now: Instant) -> bool {
        let is_first = !self.users.contains_key(of);
        let rest = self.users.entry(of.clone()).or_insert(Rest { in_a_row: 0, until: None, noted: now });
        rest.noted = now;
        // Of those that were under way already, none makes it longer.
        if rest.until.is_none() {
            let until = now + REST_MIN.saturating_mul(1 << rest.in_a_row.min(6)).min(REST_MAX);
            rest.in_a_row = rest.in_a_row.saturating_add(1);
            rest.until = Some(until);
            self.ends.insert((until, number), of.clone());
        }
        is_first
    }

    /// Notes that an event had an answer, whatever that was.
    pub(super) fn forget(&mut self, of: &Of) {
        self.users.remove(of);
    }

    /// One that has rested by now.
    pub(super) fn rested(&mut self, now: Instant) -> Option<Of> {
        while let Some(first) = self.ends.first_entry().filter(|first| first.key().0 <= now) {
            let of = first.remove();
            // It may have been forgotten, and noted again, meanwhile.
            if let Some(rest) = self.users.get_mut(&of).filter(|rest| rest.until.is_some_and(|until| until <= now)) {
                rest.until = None;
                return Some(of);
            }
        }
        None
    }

    /// When the next one has rested.
    pub(super) fn due(&self) -> Option<Instant> {
        self.ends.first_key_value().map(|((at, _), _)| *at)
    }

    /// Forgets who has had nothing to be told for a while.
    pub(super) fn sweep(&mut self, now: Instant, has_events: impl Fn(&Of) -> bool) {
        if self.swept.is_none_or(|swept| now.saturating_duration_since(swept) >= SWEEP_INTERVAL) {
            self.swept = Some(now);
            self.users.retain(|of, rest| has_events(of) || now.saturating_duration_since(rest.noted) < KEPT);
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.users.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_rests_longer_each_time_and_is_forgotten_in_the_end() {
        let (mut unanswered, start) = (Unanswered::default(), Instant::now());
        let ann = Some(User::fixed("ann"));
        let mut now = start;
        let mut number = 0;
        let rests: Vec<_> = (0..7)
            .map(|n| {
                number += 2;
                assert_eq!(unanswered.note(&ann, number, now), n == 0);
                // Another one that was under way.
                assert!(!unanswered.note(&ann, number + 1, now));
                assert!(unanswered.rests(&ann) && unanswered.rested(now).is_none());
                let due = unanswered.due().unwrap();
                let rest = due - now;
                now = due;
                assert_eq!(unanswered.rested(now), Some(ann.clone()));
                assert!(!unanswered.rests(&ann) && unanswered.rested(now).is_none());
                rest.as_millis()
            })
            .collect();
        assert_eq!(rests, [500, 1000, 2000, 4000, 8000, 8000, 8000]);
        unanswered.sweep(now + KEPT, |_| true);
        assert_eq!(unanswered.len(), 1);
        unanswered.sweep(now + KEPT + SWEEP_INTERVAL, |_| false);
        assert_eq!(unanswered.len(), 0);
        // Of one that was answered meanwhile, the rest is over, and begins anew.
        unanswered.note(&ann, 100, now);
        unanswered.forget(&ann);
        assert!(!unanswered.rests(&ann));
        let later = now + REST_MIN / 2;
        unanswered.note(&ann, 101, later);
        assert_eq!(unanswered.rested(now + REST_MIN), None);
        assert_eq!(unanswered.rested(later + REST_MIN), Some(ann));
    }
}
