//! What the server has done of late: how much it relays, and how often it has refused within a minute.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::counters::{self, Counters};
use crate::reject::Reason;
use std::sync::Arc;

const SECS: usize = 60;

/// Written once a second by the supervisor, read by the endpoints.
#[derive(Debug, Default)]
pub(super) struct Lately {
    bytes_per_sec: AtomicU64,
    refused: AtomicU64,
    redirected: AtomicU64,
}

impl Lately {
    /// The mean of the last seconds, both directions together.
    pub(super) fn bytes_per_sec(&self) -> u64 {
        self.bytes_per_sec.load(Ordering::Relaxed)
    }

    pub(super) fn set_bytes_per_sec(&self, bytes_per_sec: u64) {
        self.bytes_per_sec.store(bytes_per_sec, Ordering::Relaxed);
    }

    /// Requests refused within a minute.
    pub(super) fn refused_last_minute(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Newcomers sent to other servers within a minute.
    pub(super) fn redirected_last_minute(&self) -> u64 {
        self.redirected.load(Ordering::Relaxed)
    }
}

/// The totals of the last minute, one for each second.
#[derive(Default)]
pub(super) struct Minute(VecDeque<Totals>);

#[derive(Clone, Copy)]
struct Totals {
    refused: u64,
    redirected: u64,
}

impl Minute {
    /// A second has passed.
    pub(super) fn tick(&mut self, workers: &[Arc<Counters>], lately: &Lately) {
        let of = |reason: &Reason| counters::sum_at(workers, |counters| &counters.refused, *reason as usize);
        let refused = Reason::ALL.iter().filter(|reason| !is_usual(**reason)).map(of).sum();
        let totals = Totals { refused, redirected: of(&Reason::Redirected) };
        if self.0.len() > SECS {
            self.0.pop_front();
        }
        self.0.push_back(totals);
        let before = self.0.front().copied().unwrap_or(totals);
        lately.refused.store(totals.refused.saturating_sub(before.refused), Ordering::Relaxed);
        lately.redirected.store(totals.redirected.saturating_sub(before.redirected), Ordering::Relaxed);
    }
}

/// Whether a refusal is a step that clients go through in good health: to be challenged, to need a newer nonce, to be sent elsewhere.
pub(super) fn is_usual(reason: Reason) -> bool {
    matches!(reason, Reason::MissingIntegrity | Reason::StaleNonce | Reason::Redirected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_and_redirects_count_for_a_minute_and_other_usual_steps_not_at_all() {
        let counters = vec![Arc::new(Counters::default())];
        let (mut minute, lately) = (Minute::default(), Lately::default());
        minute.tick(&counters, &lately);
        let count = |reason: Reason| counters[0].refused[reason as usize].add(3);
        count(Reason::MissingIntegrity);
        count(Reason::StaleNonce);
        count(Reason::Redirected);
        count(Reason::WrongPassword);
        minute.tick(&counters, &lately);
        let counted = || (lately.refused_last_minute(), lately.redirected_last_minute());
        assert_eq!(counted(), (3, 3));
        (0..59).for_each(|_| minute.tick(&counters, &lately));
        assert_eq!(counted(), (3, 3));
        minute.tick(&counters, &lately);
        assert_eq!(counted(), (0, 0));
    }
}
