//! How the last allocations of one worker ended, for whoever asks what became of a user's sessions.

use std::sync::Arc;

use super::ring::Ring;
use crate::addr::{ClientAddr, Transport};
use crate::turn::{AllocationSummary, EndReason, is_told_alone};
use crate::user::User;

/// The end of an allocation, or of several of one user, one right after the other and for the same reason.
#[derive(Clone, Debug)]
pub struct LastEnd {
    /// When, by the clock of the worker; of several, the last.
    pub at_micros: u64,
    /// Why.
    pub reason: EndReason,
    /// Of several, the last one's.
    pub client: ClientAddr,
    /// Likewise.
    pub transport: Transport,
    /// Likewise, the whole username.
    pub username: Arc<str>,
    /// Whose they were.
    pub user: User,
    /// How many there were.
    pub times: u64,
}

/// The last ends. Those that this server wanted are kept apart: clients that come and go push them out no sooner.
pub(super) struct LastEnds {
    by_server: Ring<LastEnd>,
    by_client: Ring<LastEnd>,
}

impl LastEnds {
    pub(super) fn new() -> Self {
        Self { by_server: Ring::new(), by_client: Ring::new() }
    }

    pub(super) fn note(&mut self, at_micros: u64, summary: &AllocationSummary) {
        let ring = match is_by_client(summary.reason) {
            true if !is_told_alone(summary.is_frequent, summary.to_peers, summary.to_client) => return,
            true => &mut self.by_client,
            false => &mut self.by_server,
        };
        let AllocationSummary { five_tuple, username, user, reason, .. } = summary;
        let (client, transport) = (five_tuple.client, five_tuple.transport);
        match ring.newest_mut() {
            Some(newest) if newest.reason == *reason && newest.user == *user => {
                let times = newest.times.saturating_add(1);
                *newest =
                    LastEnd { at_micros, client, transport, username: Arc::clone(username), times, ..newest.clone() };
            }
            _ => ring.push(LastEnd {
                at_micros,
                reason: *reason,
                client,
                transport,
                username: Arc::clone(username),
                user: user.clone(),
                times: 1,
            }),
        }
    }

    /// In no order.
    pub(super) fn all(&self) -> Vec<LastEnd> {
        [&self.by_server, &self.by_client].into_iter().flat_map(Ring::oldest_first).collect()
    }
}

/// Whether the client ended it, or let it end.
fn is_by_client(reason: EndReason) -> bool {
    match reason {
        EndReason::Released | EndReason::Expired | EndReason::ClientGone => true,
        EndReason::CredentialExpired
        | EndReason::MoveFailed
        | EndReason::Kicked
        | EndReason::Revoked
        | EndReason::HookRefused
        | EndReason::RealmRemoved
        | EndReason::Shutdown => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::ring::KEPT;
    use super::*;
    use crate::addr::FiveTuple;
    use crate::traffic::Traffic;
    use crate::turn::AllocationIds;

    fn summary(user: &str, reason: EndReason, is_frequent: bool) -> AllocationSummary {
        let address = ([127, 0, 0, 1], 1).into();
        AllocationSummary {
            id: AllocationIds::of_worker(0).next(),
            five_tuple: FiveTuple { transport: Transport::Udp, client: ClientAddr::new(address), server: address },
            username: format!("1700000000:{user}").into(),
            user: User::time_limited(user),
            is_frequent,
            relayed: Vec::new(),
            duration_micros: 1,
            to_peers: Traffic::default(),
            to_client: Traffic::default(),
            throttled: 0,
            reason,
        }
    }

    #[test]
    fn ends_of_a_kind_are_one_entry_and_those_that_the_server_wanted_stay() {
        let mut ends = LastEnds::new();
        for at_micros in 0..6 {
            ends.note(at_micros, &summary("alice", EndReason::Revoked, true));
        }
        for number in 0..2 * KEPT {
            ends.note(7, &summary(&format!("guest-{number}"), EndReason::Expired, false));
            ends.note(8, &summary("mallory", EndReason::Released, true));
        }
        let all = ends.all();
        assert_eq!(all.len(), 1 + KEPT, "who makes very many that carry nothing pushes out nobody");
        assert_eq!((all[0].user.name().as_ref(), all[0].times, all[0].at_micros), ("alice", 6, 5));
        ends.note(9, &summary("alice", EndReason::Kicked, false));
        ends.note(9, &summary("bob", EndReason::Kicked, false));
        assert_eq!(ends.all().len(), 3 + KEPT);
    }
}
