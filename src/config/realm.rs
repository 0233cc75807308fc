//! `[[realm]]`: what a tenant of the server has for itself.

use std::sync::Arc;

use crate::auth::{SharedSecret, Users};
use crate::policy::{AllocationRate, BandwidthLimits, PolicyName, QuotaLimits};
use crate::turn::OnExpiry;

/// A realm beside that of `[auth]`: nothing of one is known in another.
#[derive(Clone, Debug)]
pub struct RealmConfig {
    /// Its name, which clients are challenged with.
    pub name: String,
    /// The server names (SNI) that lead into it.
    pub server_names: Vec<String>,
    /// The host in the URLs of its credentials, before its server names and that of `[auth]`.
    pub public_host: Option<String>,
    /// The URLs of its credentials, in place of what follows from the listeners.
    pub urls: Vec<String>,
    /// Shared secrets of time-limited credentials.
    pub secrets: Vec<SharedSecret>,
    /// Static users.
    pub users: Arc<Users>,
    /// What becomes of allocations whose credential expired; as in `[auth]` if it does not say.
    pub on_expiry: Option<OnExpiry>,
    /// Whether limits in time-limited usernames are read; as in `[auth]` if it does not say.
    pub username_limits: Option<bool>,
    /// The peer policy of its users; that of `[peers]` if it names none.
    pub peers: Option<PolicyName>,
    /// Where its quotas differ.
    pub quota: QuotaChanges,
    /// Its bandwidth caps.
    pub bandwidth: BandwidthLimits,
}

/// Quotas of a realm that differ from those of `[quota]`; a field that is `None` does not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QuotaChanges {
    /// Live allocations per user.
    pub per_user: Option<Option<u32>>,
    /// The same on all servers of the fleet.
    pub fleet_per_user: Option<Option<u32>>,
    /// Live allocations of all users of the realm.
    pub of_realm: Option<u32>,
    /// How often a user may allocate.
    pub rate: Option<Option<AllocationRate>>,
    /// Reserved ports per user.
    pub reservations: Option<Option<u32>>,
}

impl QuotaChanges {
    /// The realm's quotas.
    pub fn of(self, quota: QuotaLimits) -> QuotaLimits {
        QuotaLimits {
            per_user: self.per_user.unwrap_or(quota.per_user),
            fleet_per_user: self.fleet_per_user.unwrap_or(quota.fleet_per_user),
            of_realm: self.of_realm,
            rate: self.rate.unwrap_or(quota.rate),
            reservations_per_user: self.reservations.unwrap_or(quota.reservations_per_user),
            ..quota
        }
    }
}
