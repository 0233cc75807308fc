//! Allocation quotas per user and in total, held by a guard that gives them back when dropped.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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
///
/// Every allocation is counted, limited or not, so that a limit set at reload knows what is live. A lowered limit ends
/// nothing; it refuses new allocations until enough old ones are gone. The lock is taken only when an allocation is made
/// or ends.
#[derive(Debug, Default)]
pub struct Quotas {
    /// Live allocations per user; a user without any has no entry.
    users: Mutex<HashMap<Arc<str>, u32>>,
    /// The sum over `users`, written only while they are locked.
    total: AtomicU32,
}

impl Quotas {
    /// Counts one allocation for `user`.
    ///
    /// # Errors
    /// [`Reason::UserQuota`] or [`Reason::TotalQuota`], the user's being named when both are reached; nothing is counted
    /// then.
    pub fn reserve(self: &Arc<Self>, limits: QuotaLimits, user: &Arc<str>) -> Result<Reservation, Reason> {
        let mut users = self.lock();
        let total = self.total.load(Ordering::Relaxed);
        let count = users.get(user).copied().unwrap_or(0);
        if limits.per_user.is_some_and(|limit| count >= limit) {
            return Err(Reason::UserQuota);
        }
        if total >= limits.total.unwrap_or(u32::MAX) {
            return Err(Reason::TotalQuota);
        }
        match users.get_mut(user) {
            Some(count) => *count += 1,
            None => {
                users.insert(Arc::clone(user), 1);
            }
        }
        self.total.store(total + 1, Ordering::Relaxed);
        Ok(Reservation { quotas: Arc::clone(self), user: Arc::clone(user) })
    }

    /// Live allocations in total.
    pub fn in_use(&self) -> u32 {
        self.total.load(Ordering::Relaxed)
    }

    /// Live allocations of one user.
    pub fn in_use_by(&self, user: &str) -> u32 {
        self.lock().get(user).copied().unwrap_or(0)
    }

    /// Users with at least one live allocation.
    pub fn users(&self) -> usize {
        self.lock().len()
    }

    fn release(&self, user: &str) {
        let mut users = self.lock();
        if let Some(count) = users.get_mut(user) {
            *count -= 1;
            if *count == 0 {
                users.remove(user);
            }
            self.total.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// The counts are whole numbers changed in one step, so that a panic elsewhere cannot have left them half-way.
    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, u32>> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One counted allocation; dropping it gives the count back.
#[derive(Debug)]
#[must_use = "dropping the reservation gives the count back at once"]
pub struct Reservation {
    quotas: Arc<Quotas>,
    user: Arc<str>,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.quotas.release(&self.user);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> Arc<str> {
        Arc::from(name)
    }

    #[test]
    fn a_user_at_the_limit_is_refused_while_others_are_served() {
        let quotas = Arc::new(Quotas::default());
        let limits = QuotaLimits { per_user: Some(2), total: None };
        let first = quotas.reserve(limits, &user("ann")).unwrap();
        let _second = quotas.reserve(limits, &user("ann")).unwrap();
        assert_eq!(quotas.reserve(limits, &user("ann")).unwrap_err(), Reason::UserQuota);
        let _other = quotas.reserve(limits, &user("bob")).unwrap();
        drop(first);
        let _third = quotas.reserve(limits, &user("ann")).unwrap();
        assert_eq!((quotas.in_use(), quotas.in_use_by("ann"), quotas.users()), (3, 2, 2));
    }

    #[test]
    fn a_refusal_counts_nothing_and_leaves_no_entry() {
        let quotas = Arc::new(Quotas::default());
        let limits = QuotaLimits { per_user: Some(5), total: Some(1) };
        let held = quotas.reserve(limits, &user("ann")).unwrap();
        assert_eq!(quotas.reserve(limits, &user("bob")).unwrap_err(), Reason::TotalQuota);
        assert_eq!((quotas.in_use(), quotas.in_use_by("bob"), quotas.users()), (1, 0, 1));
        drop(held);
        assert_eq!((quotas.in_use(), quotas.users()), (0, 0));
    }

    #[test]
    fn a_limit_of_zero_refuses_everyone() {
        let quotas = Arc::new(Quotas::default());
        let nobody = QuotaLimits { per_user: Some(0), total: None };
        assert_eq!(quotas.reserve(nobody, &user("ann")).unwrap_err(), Reason::UserQuota);
        let none = QuotaLimits { per_user: None, total: Some(0) };
        assert_eq!(quotas.reserve(none, &user("ann")).unwrap_err(), Reason::TotalQuota);
    }

    #[test]
    fn what_was_unlimited_counts_when_a_limit_is_set() {
        let quotas = Arc::new(Quotas::default());
        let _held = quotas.reserve(QuotaLimits::default(), &user("ann")).unwrap();
        let limits = QuotaLimits { per_user: Some(1), total: None };
        assert_eq!(quotas.reserve(limits, &user("ann")).unwrap_err(), Reason::UserQuota);
    }
}
