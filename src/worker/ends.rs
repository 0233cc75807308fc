//! The log line of each allocation that ends; those that a user makes by the thousand, and that carry next to nothing, are
//! summed up.

use super::log;
use crate::clock::SECOND;
use crate::turn::{AllocationSummary, is_told_alone};

/// How often the sum is logged.
const SUM_MICROS: u64 = 60 * SECOND;

/// What has ended without a line of its own.
#[derive(Default)]
pub(super) struct Ends {
    without_line: u64,
    /// When the sum is logged; 0 while there is none.
    due_micros: u64,
}

impl Ends {
    pub(super) fn log(&mut self, now_micros: u64, summary: &AllocationSummary) {
        if is_told_alone(summary.is_frequent, summary.to_peers, summary.to_client) {
            log::ended(summary);
            return;
        }
        if self.without_line == 0 {
            self.due_micros = now_micros + SUM_MICROS;
        }
        self.without_line += 1;
    }

    /// Logs the sum when it is time, or at the end.
    pub(super) fn sum_up(&mut self, now_micros: u64, is_end: bool) {
        if self.without_line > 0 && (is_end || now_micros >= self.due_micros) {
            let allocations = std::mem::take(&mut self.without_line);
            tracing::info!(
                target: "turnstone::worker",
                allocations,
                "allocations ended that users with very many had made, and that carried next to nothing: no line each"
            );
        }
    }

    /// When [`Self::sum_up`] has something to do.
    pub(super) fn due(&self) -> Option<u64> {
        (self.without_line > 0).then_some(self.due_micros)
    }
}
