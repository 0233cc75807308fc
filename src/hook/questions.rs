//! Questions that wait for their turn: each network's clients in turn, and of these whoever came first. When one was not answered, for a while half
//! of the places and half of the room are for names that had an answer of late, and of the others one network has half: whoever knows names on
//! which the application hangs, or makes them up, takes a part of it from everybody.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::turns::{ByNetwork, Known};

/// Questions that wait.
const WAITING_MAX: usize = 1024;
/// While names that are known, or those that are not, take half of their room, one network may have so many of them.
const OF_NETWORK_MAX: usize = WAITING_MAX / 32;
/// How long one without an answer is held against those of nobody who is known.
const HELD_AGAINST: Duration = Duration::from_secs(60);

/// A username, in a realm.
pub(super) type Name = (Arc<str>, Arc<str>);

/// Whose a question is.
#[derive(Debug)]
pub(super) struct Whose {
    /// That of the client who asks first.
    pub(super) network: IpAddr,
    /// Who is asked about.
    pub(super) name: Option<Name>,
}

/// What has come of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It was answered by a credential.
    Known,
    /// It was answered by something else.
    Unknown,
    /// There was no answer.
    Unanswered,
    /// Nobody was asked.
    NotAsked,
}

/// What a question that is being asked takes.
#[derive(Debug)]
pub(super) struct Place {
    of: Whose,
    is_known: bool,
}

/// All of them.
pub(super) struct Questions<T> {
    known: ByNetwork<(Whose, T)>,
    others: ByNetwork<(Whose, T)>,
    names: Known<Name>,
    /// How many wait, and how many of these have a name that is not known.
    waiting: usize,
    others_waiting: usize,
    /// Such questions that are being asked, by network.
    others_asked: HashMap<IpAddr, usize>,
    /// The last one was of a name that is known.
    was_known: bool,
    unanswered: Option<Instant>,
}

impl<T> Default for Questions<T> {
    fn default() -> Self {
        Self {
            known: ByNetwork::default(),
            others: ByNetwork::default(),
            names: Known::default(),
            waiting: 0,
            others_waiting: 0,
            others_asked: HashMap::new(),
            was_known: false,
            unanswered: None,
        }
    }
}

impl<T> Questions<T> {
    /// Adds one, or gives it back where there is no room for it.
    pub(super) fn push(&mut self, of: Whose, question: T, now: Instant) -> Result<(), T> {
        let is_known = of.name.as_ref().is_some_and(|name| self.names.has(name));
        let (like_it, like_it_waiting, most) = match is_known {
            true => (&self.known, self.waiting - self.others_waiting, WAITING_MAX),
            false => (&self.others, self.others_waiting, self.share_of(WAITING_MAX, now)),
        };
        let has_share = like_it_waiting < most / 2 || like_it.len_of(of.network) < OF_NETWORK_MAX;
        if self.waiting >= WAITING_MAX || like_it_waiting >= most || !has_share {
            return Err(question);
        }
        self.waiting += 1;
        self.others_waiting += usize::from(!is_known);
        let like_it = if is_known { &mut self.known } else { &mut self.others };
        like_it.push(of.network, (of, question));
        Ok(())
    }

    /// The next one to be asked, where so many may be asked at once.
    pub(super) fn next(&mut self, at_once: usize, now: Instant) -> Option<(Place, T)> {
        // They take turns; where there is but one place, nobody waits for one without an answer who would have one.
        let may_wait = at_once > 1 || !self.is_held(now);
        let other_first = (self.was_known && may_wait).then(|| self.next_other(at_once, now)).flatten();
        let next = other_first.or_else(|| self.next_known()).or_else(|| self.next_other(at_once, now));
        self.waiting -= usize::from(next.is_some());
        next
    }

    fn next_known(&mut self) -> Option<(Place, T)> {
        let (of, question) = self.known.pop(|_| true)?;
        self.was_known = true;
        Some((Place { of, is_known: true }, question))
    }

    fn next_other(&mut self, at_once: usize, now: Instant) -> Option<(Place, T)> {
        let most = self.share_of(at_once, now);
        if self.others_asked.values().sum::<usize>() >= most {
            return None;
        }
        let (of_network_max, asked) = (self.share_of(most, now), &self.others_asked);
        let may = |network| asked.get(&network).is_none_or(|asked| *asked < of_network_max);
        let (of, question) = self.others.pop(may)?;
        self.was_known = false;
        self.others_waiting -= 1;
        *self.others_asked.entry(of.network).or_default() += 1;
        Some((Place { of, is_known: false }, question))
    }

    /// One that was being asked is no more.
    pub(super) fn done(&mut self, place: Place, end: End, now: Instant) {
        let Place { of, is_known } = place;
        if !is_known && let Some(asked) = self.others_asked.get_mut(&of.network) {
            *asked -= 1;
            if *asked == 0 {
                self.others_asked.remove(&of.network);
            }
        }
        match (end, of.name) {
            (End::Known, Some(name)) => self.names.note(name),
            (End::Unanswered, name) => {
                self.unanswered = Some(now);
                if let Some(name) = name {
                    self.names.forget(&name);
                }
            }
            _ => {}
        }
    }

    /// How many of so many one kind may have.
    fn share_of(&self, all: usize, now: Instant) -> usize {
        if self.is_held(now) { (all / 2).max(1) } else { all }
    }

    /// Whether there was one without an answer of late.
    fn is_held(&self, now: Instant) -> bool {
        self.unanswered.is_some_and(|at| now.saturating_duration_since(at) < HELD_AGAINST)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(2);

    fn whose(network: &str, name: &str) -> Whose {
        Whose { network: network.parse().unwrap(), name: Some(("realm".into(), name.into())) }
    }

    /// An application in virtual time that hangs on every name but those that begin with `good`. Each second, these are asked about. Returns how
    /// late each question of a good one was asked, and how many of these were not.
    fn play(at_once: usize, secs: u64, each_second: impl Fn(u64) -> Vec<(String, String)>) -> (Vec<u64>, usize) {
        let (start, mut questions) = (Instant::now(), Questions::default());
        let (mut hanging, mut lags, mut good) = (VecDeque::new(), Vec::new(), 0);
        for at in (0..secs * 1000).step_by(50) {
            let now = start + Duration::from_millis(at);
            if at % 1000 == 0 {
                for (network, name) in each_second(at / 1000) {
                    good += usize::from(name.starts_with("good"));
                    let _ = questions.push(whose(&network, &name), (name, at), now);
                }
            }
            while let Some((_, place)) = hanging.pop_front_if(|(since, _)| *since + TIMEOUT <= now) {
                questions.done(place, End::Unanswered, now);
            }
            while hanging.len() < at_once
                && let Some((place, (name, made))) = questions.next(at_once, now)
            {
                if name.starts_with("good") {
                    lags.push(at - made);
                    questions.done(place, End::Known, now);
                } else {
                    hanging.push_back((now, place));
                }
            }
        }
        let lost = good - lags.len();
        (lags, lost)
    }

    #[test]
    fn new_names_on_which_the_application_hangs_delay_no_name_that_it_knows_and_nobody_of_another_network() {
        for (at_once, networks, a_second) in [(16, 1, 20), (16, 4, 20), (16, 4, 500), (4, 4, 100), (1, 4, 20)] {
            let flood = |second: u64| {
                let evil = move |n| (format!("192.0.{}.0", n % networks), format!("evil {second} {n}"));
                (0..a_second).map(evil)
            };
            let what = format!("{a_second} a second from {networks} networks, {at_once} at once");
            // One name, known from its first answer on, in one of these networks.
            let known = |second: u64| (second < 57).then(|| ("192.0.0.0".to_owned(), "good".to_owned()));
            let (lags, lost) = play(at_once, 60, |second| known(second).into_iter().chain(flood(second)).collect());
            assert_eq!(lost, 0, "{what}: {lags:?}");
            let most = if at_once == 1 { 2000 } else { 0 };
            assert!(lags.iter().skip(3).all(|lag| *lag <= most), "{what}: {lags:?}");
            // New names in another network, no faster than its turns come where there is but one place.
            let new = |second: u64| {
                (second < 60 && second % 10 == 5).then(|| ("203.0.113.0".to_owned(), format!("good {second}")))
            };
            let (lags, lost) = play(at_once, 70, |second| flood(second).chain(new(second)).collect());
            assert_eq!(lost, 0, "{what}: {lags:?}");
            let most = if at_once == 16 { 2000 } else { 10_000 };
            assert!(lags.iter().all(|lag| *lag <= most), "{what}: {lags:?}");
        }
    }

    /// An application that needs 300 ms for each, 16 at once, and has answered all of these names before. The crowd asks about so many a second.
    #[test]
    fn many_names_that_are_known_in_one_network_delay_none_that_is_known_in_another_one() {
        const TAKES: Duration = Duration::from_millis(300);
        for a_second in [100, 180, 2000] {
            let (start, mut questions) = (Instant::now(), Questions::default());
            let name = |network: &str, n: u64| whose(network, &format!("{network} {n}"));
            let crowd = |n| name("192.0.2.0", n % 800);
            let lone = || name("203.0.113.0", 0);
            for of in (0..800).map(crowd).chain([lone()]) {
                assert_eq!(questions.push(of, None, start), Ok(()));
                let (place, _) = questions.next(16, start).unwrap();
                questions.done(place, End::Known, start);
            }
            let (mut asked, mut lags, mut came) = (VecDeque::new(), Vec::new(), 0);
            for at in (0..20_000).step_by(10) {
                let now = start + Duration::from_millis(at);
                while came * 1000 < at * a_second {
                    let _ = questions.push(crowd(came), None, now);
                    came += 1;
                }
                if at % 1000 == 500 {
                    assert_eq!(questions.push(lone(), Some(at), now), Ok(()), "{a_second} a second");
                }
                while let Some((_, place)) = asked.pop_front_if(|(since, _)| *since + TAKES <= now) {
                    questions.done(place, End::Known, now);
                }
                while asked.len() < 16
                    && let Some((place, made)) = questions.next(16, now)
                {
                    lags.extend(made.map(|made| at - made));
                    asked.push_back((now, place));
                }
            }
            // As long as it takes until one of the sixteen is answered.
            assert!(lags.len() == 20 && lags.iter().all(|lag| *lag <= 300), "{a_second} a second: {lags:?}");
        }
    }

    #[test]
    fn there_is_room_for_names_that_are_known_and_for_each_network() {
        let (now, mut questions) = (Instant::now(), Questions::default());
        for network in ["192.0.2.0", "203.0.113.0"] {
            for n in 0..2 * WAITING_MAX {
                let _ = questions.push(whose(network, &n.to_string()), n, now);
            }
        }
        assert_eq!(questions.waiting, WAITING_MAX / 2 + OF_NETWORK_MAX);
        let (hangs, _) = questions.next(4, now).unwrap();
        let (known, _) = questions.next(4, now).unwrap();
        let Some((_, name)) = known.of.name.clone() else { panic!() };
        questions.done(hangs, End::Unanswered, now);
        questions.done(known, End::Known, now);
        assert_eq!(questions.push(whose("198.51.100.0", "new"), 7, now), Err(7));
        assert_eq!(questions.push(whose("198.51.100.0", &name), 7, now), Ok(()));
        assert_eq!(questions.next(4, now).unwrap().1, 7);
        // Nothing is held against anybody for ever.
        assert_eq!(questions.push(whose("198.51.100.0", "new"), 7, now + HELD_AGAINST), Ok(()));
        let later = now + HELD_AGAINST;
        let mut places = Vec::new();
        while let Some((place, _)) = questions.next(4, later).filter(|_| places.len() < 8) {
            places.push(place);
        }
        places.into_iter().for_each(|place| questions.done(place, End::Unknown, later));
        while let Some((place, _)) = questions.next(4, later) {
            questions.done(place, End::NotAsked, later);
        }
        assert_eq!((questions.waiting, questions.others_waiting), (0, 0));
        assert!(questions.others.is_empty() && questions.others_asked.is_empty());
    }
}
