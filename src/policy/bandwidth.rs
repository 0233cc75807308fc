//! Bandwidth caps: token buckets per allocation (worker-local) and per user (shared, atomic). Each direction has its own.

use std::sync::Arc;

/// Caps in bytes per second and direction; `None` is unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BandwidthLimits {
    /// Per allocation.
    pub per_allocation: Option<u64>,
    /// Per user, over all of the user's allocations on all workers.
    pub per_user: Option<u64>,
}

/// The users' shared buckets; an entry lives as long as one of the user's allocations.
#[derive(Debug, Default)]
pub struct UserBandwidths {}

/// What one allocation is metered by; kept in the allocation.
#[derive(Debug)]
pub struct Meter {}

impl Meter {
    /// The meter of a new allocation of `user`. Costs no memory beyond itself when nothing is limited.
    pub fn new(limits: BandwidthLimits, users: &Arc<UserBandwidths>, user: &Arc<str>, now_micros: u64) -> Self {
        let _ = (limits, users, user, now_micros);
        todo!()
    }

    /// Whether `bytes` of payload from client to peer may pass; takes them from the buckets if so.
    pub fn admit_to_peer(&mut self, now_micros: u64, bytes: usize) -> bool {
        let _ = (now_micros, bytes);
        todo!()
    }

    /// Whether `bytes` of payload from peer to client may pass.
    pub fn admit_to_client(&mut self, now_micros: u64, bytes: usize) -> bool {
        let _ = (now_micros, bytes);
        todo!()
    }
}
