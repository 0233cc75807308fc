//! The ends of allocations that a user makes by the thousand and that carry next to nothing, summed up in one record a minute
//! and user: such a user must not push others' records out of the files that are kept. What is billed by is in the sums.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::user::User;

use super::record::Session;

/// How long sums grow before they are written.
const SUM_FOR: Duration = Duration::from_secs(60);
/// Users there are sums of at most; when there are more, all are written.
const USERS_MAX: usize = 1024;

/// The sums.
#[derive(Default)]
pub(super) struct Merged {
    of_users: HashMap<User, Sum>,
    since: Option<Instant>,
    /// Records written so far: each needs a name.
    written: u64,
}

struct Sum {
    /// The last one that ended, with the figures of all.
    session: Session,
    sessions: u64,
}

impl Merged {
    /// Adds an allocation that has ended.
    pub(super) fn add(&mut self, now: Instant, session: Session) {
        self.since.get_or_insert(now);
        match self.of_users.get_mut(&session.user) {
            Some(sum) => sum.add(session),
            None => drop(self.of_users.insert(session.user.clone(), Sum { session, sessions: 1 })),
        }
    }

    /// When the sums are to be written.
    pub(super) fn due(&self) -> Option<Instant> {
        self.since.map(|since| since + SUM_FOR)
    }

    /// Takes the sums out, if it is time or there are too many: each as the number of its record, what it stands for, and how
    /// many that are.
    pub(super) fn take(&mut self, now: Instant, is_end: bool) -> Vec<(u64, Session, u64)> {
        let is_due = self.due().is_some_and(|due| now >= due);
        if !(is_due || is_end || self.of_users.len() >= USERS_MAX) {
            return Vec::new();
        }
        self.since = None;
        let sums = std::mem::take(&mut self.of_users).into_values();
        sums.map(|sum| {
            self.written += 1;
            (self.written, sum.session, sum.sessions)
        })
        .collect()
    }
}

impl Sum {
    /// The time runs from the first one's beginning to the last one's end.
    fn add(&mut self, last: Session) {
        let before = &self.session;
        let (mut to_peers, mut to_client) = (before.to_peers, before.to_client);
        to_peers += last.to_peers;
        to_client += last.to_client;
        let apart = last.at.duration_since(before.at).unwrap_or_default();
        let since_first = before.age_micros.saturating_add(u64::try_from(apart.as_micros()).unwrap_or(u64::MAX));
        self.session = Session {
            age_micros: last.age_micros.max(since_first),
            to_peers,
            to_client,
            throttled: before.throttled.saturating_add(last.throttled),
            ..last
        };
        self.sessions += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::super::record::Kind;
    use super::*;
    use crate::addr::{ClientAddr, FiveTuple, Transport};
    use crate::traffic::Traffic;
    use crate::turn::{AllocationId, EndReason};

    fn ended(user: User, id: u64, at: SystemTime) -> Session {
        let address = "127.0.0.1:3478".parse().unwrap();
        Session {
            kind: Kind::Stop(EndReason::Released),
            at,
            id: AllocationId::new(0, id).unwrap(),
            five_tuple: FiveTuple { transport: Transport::Udp, client: ClientAddr::new(address), server: address },
            username: user.name().as_ref().into(),
            user,
            relayed: Vec::new(),
            age_micros: 1_000_000,
            to_peers: Traffic { packets: 2, bytes: 300 },
            to_client: Traffic { packets: 1, bytes: 70 },
            throttled: 1,
        }
    }

    #[test]
    fn a_minute_of_a_user_is_one_record_with_the_sums_of_all() {
        let (mut merged, start, at) = (Merged::default(), Instant::now(), SystemTime::now());
        assert_eq!(merged.due(), None);
        for n in 0..50_000 {
            merged.add(start, ended(User::fixed("ann"), n, at + Duration::from_millis(n)));
        }
        merged.add(start, ended(User::time_limited("ann"), 1, at));
        assert_eq!(merged.due(), Some(start + SUM_FOR));
        assert!(merged.take(start + SUM_FOR - Duration::from_millis(1), false).is_empty());
        let mut taken = merged.take(start + SUM_FOR, false);
        taken.sort_by_key(|(_, _, sessions)| *sessions);
        let [(_, other, 1), (_, sum, 50_000)] = taken.as_slice() else { panic!("{taken:?}") };
        assert_eq!(other.to_peers, Traffic { packets: 2, bytes: 300 });
        let sums = [sum.to_peers, sum.to_client].map(|traffic| (traffic.packets, traffic.bytes));
        assert_eq!((sums, sum.throttled), ([(100_000, 15_000_000), (50_000, 3_500_000)], 50_000));
        assert_eq!((sum.id, sum.age_micros), (AllocationId::new(0, 49_999).unwrap(), 1_000_000 + 49_999_000));
        assert_eq!(merged.due(), None);
        assert!(merged.take(start + SUM_FOR * 2, true).is_empty());
    }

    #[test]
    fn many_users_are_written_early_and_the_rest_at_the_end() {
        let (mut merged, now, at) = (Merged::default(), Instant::now(), SystemTime::now());
        for n in 0..USERS_MAX as u64 {
            assert!(merged.take(now, false).is_empty());
            merged.add(now, ended(User::fixed(n.to_string()), n, at));
        }
        let mut numbers: Vec<u64> = merged.take(now, false).iter().map(|(number, ..)| *number).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (1..=USERS_MAX as u64).collect::<Vec<_>>());
        merged.add(now, ended(User::fixed("last"), 1, at));
        assert_eq!(merged.take(now, true).len(), 1);
    }
}
