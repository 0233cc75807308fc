//! Allocation quotas per user and in total, held by a guard that gives them back when dropped.

use std::sync::Arc;

use crate::reject::Reason;

/// Limits on live allocations; `None` is unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QuotaLimits {
    /// Allocations per user.
    pub per_user: Option<u32>,
    /// Allocations of the whole server.
    pub total: Option<u32>,
}

/// The counts of live allocations, shared by all workers.
#[derive(Debug, Default)]
pub struct Quotas {}

impl Quotas {
    /// Counts one allocation for `user`.
    ///
    /// # Errors
    /// [`Reason::UserQuota`] or [`Reason::TotalQuota`]; nothing is counted then.
    pub fn reserve(self: &Arc<Self>, limits: QuotaLimits, user: &Arc<str>) -> Result<Reservation, Reason> {
        let _ = (limits, user);
        todo!()
    }

    /// Live allocations in total.
    pub fn in_use(&self) -> u32 {
        todo!()
    }
}

/// One counted allocation; dropping it gives the count back.
#[derive(Debug)]
pub struct Reservation {}
