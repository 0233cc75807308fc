//! One of several realms (RFC 8489 section 9.2): who may allocate in it, and how much.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::auth::Credentials;
use crate::policy::{BandwidthLimits, PolicyName, QuotaLimits};
use crate::user::{RealmId, User};

/// What becomes of an allocation when the credential that made it expires.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnExpiry {
    /// It lives on and can be refreshed, as with coturn.
    #[default]
    Keep,
    /// It lives until its lifetime ends; Refresh is refused with 401.
    NoRefresh,
    /// It ends at the moment of expiry.
    Cut,
}

/// A realm beside the default one, which is that of the [`Settings`](super::Settings) themselves. Nothing of one realm is known in another:
/// neither users nor secrets, nonces, quotas, bandwidth, reserved ports or allocations.
#[derive(Clone, Debug)]
pub struct Realm {
    pub(super) credentials: Arc<Credentials>,
    pub(super) quota: QuotaLimits,
    pub(super) bandwidth: BandwidthLimits,
    pub(super) on_expiry: OnExpiry,
    pub(super) peer_policy: Option<PolicyName>,
    pub(super) server_names: Vec<String>,
    pub(super) counts: Arc<RealmCounts>,
}

/// What has become of the requests in a realm, on all workers.
#[derive(Debug, Default)]
pub struct RealmCounts {
    allocated: AtomicU64,
    refused: AtomicU64,
}

impl RealmCounts {
    /// Allocations made.
    pub fn allocated(&self) -> u64 {
        self.allocated.load(Ordering::Relaxed)
    }

    /// Requests refused after their nonce had been found fresh.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    pub(super) fn allocate(&self) {
        self.allocated.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn refuse(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }
}

impl Realm {
    /// The realm of these credentials. Without limits of its own it has none.
    pub fn new(credentials: Credentials) -> Self {
        Self {
            credentials: Arc::new(credentials.beside_the_default_realm()),
            quota: QuotaLimits::default(),
            bandwidth: BandwidthLimits::default(),
            on_expiry: OnExpiry::default(),
            peer_policy: None,
            server_names: Vec::new(),
            counts: Arc::default(),
        }
    }

    /// Its quotas. That of the whole server is the settings'.
    #[must_use]
    pub fn quota(mut self, quota: QuotaLimits) -> Self {
        self.quota = quota;
        self
    }

    /// Its bandwidth caps.
    #[must_use]
    pub fn bandwidth(mut self, bandwidth: BandwidthLimits) -> Self {
        self.bandwidth = bandwidth;
        self
    }

    /// What becomes of its allocations whose credential has expired.
    #[must_use]
    pub fn on_expiry(mut self, on_expiry: OnExpiry) -> Self {
        self.on_expiry = on_expiry;
        self
    }

    /// The peer policy of its users, one of those of the settings; the default one if it has none. By a name that the settings do not have,
    /// no peer can be reached.
    #[must_use]
    pub fn peer_policy(mut self, name: Option<PolicyName>) -> Self {
        self.peer_policy = name;
        self
    }

    /// The server names by which clients over TLS come in; see [`Settings::realm_by_server_name`](super::Settings::realm_by_server_name).
    #[must_use]
    pub fn server_names(mut self, names: Vec<String>) -> Self {
        self.server_names = names;
        self
    }

    /// Its credentials.
    pub fn credentials(&self) -> &Arc<Credentials> {
        &self.credentials
    }

    /// What was counted in it.
    pub fn counts(&self) -> &RealmCounts {
        &self.counts
    }

    /// What clients and nonces know it by.
    pub fn id(&self) -> RealmId {
        self.credentials.id()
    }

    pub(super) fn is_of(&self, user: &User) -> bool {
        self.credentials.label() == user.realm()
    }
}
