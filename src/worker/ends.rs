//! The log line of each allocation that ends; those that a user makes by the thousand, and that carry next to nothing, are
//! summed up, and so are moves by the thousand.

use super::log;
use crate::clock::SECOND;
use crate::turn::{AllocationSummary, is_told_alone};

/// How often the sum is logged.
const SUM_MICROS: u64 = 60 * SECOND;

/// What has ended or moved without a line of its own.
#[derive(Default)]
pub(super) struct Ends {
    without_line: u64,
    moves: u64,
    /// When the sum is logged; 0 while there is none.
    due_micros: u64,
}

impl Ends {
    pub(super) fn log(&mut self, now_micros: u64, summary: &AllocationSummary) {
        if is_told_alone(summary.is_frequent, summary.to_peers, summary.to_client) {
            log::ended(summary);
            return;
        }
        self.begin(now_micros);
        self.without_line += 1;
    }

    /// A move that gets no line.
    pub(super) fn note_move(&mut self, now_micros: u64) {
        self.begin(now_micros);
        self.moves += 1;
    }

    fn begin(&mut self, now_micros: u64) {
        if self.is_empty() {
            self.due_micros = now_micros + SUM_MICROS;
        }
    }

    fn is_empty(&self) -> bool {
        self.without_line == 0 && self.moves == 0
    }

    /// Logs the sum when it is time, or at the end.
    pub(super) fn sum_up(&mut self, now_micros: u64, is_end: bool) {
        if self.is_empty() || !is_end && now_micros < self.due_micros {
            return;
        }
        let allocations = std::mem::take(&mut self.without_line);
        if allocations > 0 {
            tracing::info!(
                target: "turnstone::worker",
                allocations,
                "allocations ended that users with very many had made, and that carried next to nothing: no line each"
            );
        }
        let moves = std::mem::take(&mut self.moves);
        if moves > 0 {
            tracing::info!(
                target: "turnstone::worker",
                moves,
                "allocations moved of users whose allocations move very often: no line each"
            );
        }
    }

    /// When [`Self::sum_up`] has something to do.
    pub(super) fn due(&self) -> Option<u64> {
        (!self.is_empty()).then_some(self.due_micros)
    }
}
