//! When memory is worth giving back that a peak of allocations or connections has left.

/// Slots below which it is not.
pub(super) const SLOTS_MIN: usize = 1024;

/// The most that were in use since memory was last given back.
#[derive(Default)]
pub(super) struct Peak(usize);

impl Peak {
    /// Takes note of how many are in use.
    pub(super) fn note(&mut self, used: usize) {
        self.0 = self.0.max(used);
    }

    /// Whether a peak is over, of which `slots` are left for the `used` that are in use; it is forgotten.
    pub(super) fn is_over(&mut self, slots: usize, used: usize) -> bool {
        let is_over = slots >= SLOTS_MIN && used <= self.0 / 4 && used < self.0;
        if is_over {
            self.0 = used;
        }
        is_over
    }
}
