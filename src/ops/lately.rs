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
}

/// The totals of the last minute, one for each second.
#[derive(Default)]
pub(super) struct Minute(VecDeque<u64>);

impl Minute {
    /// A second has passed.
    pub(super) fn tick(&mut self, workers: &[Arc<Counters>], lately: &Lately) {
        let total = refused(workers);
        if self.0.len() > SECS {
            self.0.pop_front();
        }
        self.0.push_back(total);
        let before = self.0.front().copied().unwrap_or(total);
        lately.refused.store(total.saturating_sub(before), Ordering::Relaxed);
    }
}

/// Whether a refusal is a step that clients go through in good health: to be challenged, to need a newer nonce, to be sent elsewhere.
pub(super) fn is_usual(reason: Reason) -> bool {
    matches!(reason, Reason::MissingIntegrity | Reason::StaleNonce | Reason::Redirected)
}

fn refused(workers: &[Arc<Counters>]) -> u64 {
    let of = |reason: &Reason| counters::sum_at(workers, |counters| &counters.refused, *reason as usize);
    Reason::ALL.iter().filter(|reason| !is_usual(**reason)).map(of).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_count_for_a_minute_and_those_that_are_usual_not_at_all() {
        let counters = vec![Arc::new(Counters::default())];
        let (mut minute, lately) = (Minute::default(), Lately::default());
        minute.tick(&counters, &lately);
        let count = |reason: Reason| counters[0].refused[reason as usize].add(3);
        count(Reason::MissingIntegrity);
        count(Reason::StaleNonce);
        count(Reason::Redirected);
        count(Reason::WrongPassword);
        minute.tick(&counters, &lately);
        assert_eq!(lately.refused_last_minute(), 3);
        (0..59).for_each(|_| minute.tick(&counters, &lately));
        assert_eq!(lately.refused_last_minute(), 3);
        minute.tick(&counters, &lately);
        assert_eq!(lately.refused_last_minute(), 0);
    }
}
