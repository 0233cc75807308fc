//! `[quota]`: how many allocations and reservations, and how often; what is not given follows from the relay ports.

use crate::policy::{AllocationRate, QuotaLimits};

use super::Relay;
use super::reader::Section;

pub(super) fn read_quota(root: &Section<'_, '_>, relay: &Relay) -> (QuotaLimits, QuotaShares) {
    const RATE: &str = r#"a whole number from 1 to 1000000, or "unlimited""#;
    let section = root.section("quota");
    let narrow = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    let limit = |key, expected, from| {
        let limit = section.limit(key, expected, from..=u64::from(u32::MAX));
        limit.map(|limit| limit.value.map(narrow))
    };
    let from_one = r#"a whole number from 1, or "unlimited""#;
    let per_user = limit("allocations-per-user", from_one, 1);
    let total = limit("allocations-total", from_one, 1).flatten();
    let reservations = limit("reservations-per-user", r#"a whole number, or "unlimited""#, 0);
    let per_second = section.limit("allocations-per-user-per-second", RATE, 1..=1_000_000);
    let burst = section.number("allocations-per-user-burst", "a whole number from 1 to 1000000", 1..=1_000_000);
    section.report_unknown_keys();
    let default = AllocationRate::default();
    let per_second = per_second.map_or(Some(default.per_second), |limit| limit.value.map(narrow));
    let burst = burst.map(|burst| narrow(burst.value));
    let rate = per_second
        .map(|per_second| AllocationRate { per_second, burst: burst.unwrap_or_else(|| per_second.max(default.burst)) });
    let shares = QuotaShares { per_user: per_user.is_none(), reservations: reservations.is_none() };
    let mut quota =
        QuotaLimits { per_user: per_user.flatten(), total, rate, reservations_per_user: reservations.flatten() };
    shares.apply(&mut quota, relay);
    (quota, shares)
}

/// Which quotas of one user are shares of the relay ports ([`QuotaLimits::for_ports`]), because nobody has said otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QuotaShares {
    /// Allocations.
    pub per_user: bool,
    /// Reserved ports.
    pub reservations: bool,
}

impl QuotaShares {
    /// Whether this key of the configuration is one of them.
    pub(super) fn has(self, key: &str) -> bool {
        match key {
            "quota.allocations-per-user" => self.per_user,
            "quota.reservations-per-user" => self.reservations,
            _ => false,
        }
    }

    /// Works out those that are shares.
    pub(super) fn apply(self, quota: &mut QuotaLimits, relay: &Relay) {
        let (low, high) = relay.ports;
        let shares = QuotaLimits::for_ports(u32::from(high.saturating_sub(low)) + 1);
        if self.per_user {
            quota.per_user = shares.per_user;
        }
        if self.reservations {
            quota.reservations_per_user = shares.reservations_per_user;
        }
    }
}
