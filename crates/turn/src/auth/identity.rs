//! Who is authenticated.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::policy::{BandwidthLimits, QuotaLimits};
use crate::policy_name::PolicyName;
use crate::user::{User, UserKind};

use super::username_limits::UsernameLimits;

/// Who sent an authenticated request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The whole username, as in USERNAME.
    pub username: Arc<str>,
    /// What quotas and bandwidth count on: the user part of a time-limited username, else the username. A time-limited
    /// username without a user part counts as a whole, so that strangers do not share one quota.
    pub user: User,
    /// What the username asks for beside a name; `None` where it asks for nothing, or where nobody reads it.
    pub limits: Option<Arc<UsernameLimits>>,
    /// Or [`NEVER`].
    expires_unix: u64,
    origin: Origin,
}

const NEVER: u64 = u64::MAX;

/// What is known of a credential's making beside its username, in eight bytes: every allocation has one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Origin(u64);

/// The id of a shared secret or of a key of access tokens, as a number that is the same in every process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct KeyId(u64);

impl KeyId {
    /// Seconds of calendar time have fewer bits, and are told from ids by that.
    const BIT: u64 = 1 << 63;

    /// The key of this id.
    pub(super) fn of(id: &str) -> Self {
        let digest: [u8; 32] = Sha256::digest(id).into();
        Self(digest.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes)) | Self::BIT)
    }
}

impl Origin {
    /// It is time-limited, and was made with the shared secret of this id.
    pub(super) fn secret(id: KeyId) -> Self {
        Self(id.0)
    }

    /// It is an access token, whose key its username names, and was made at this time.
    pub(super) fn token(made_unix: u64) -> Self {
        Self(made_unix & !KeyId::BIT)
    }
}

impl Identity {
    /// Who has this username, and counts as this user; by a credential that never expires and of which nothing more is known.
    pub fn new(username: Arc<str>, user: User) -> Self {
        Self { username, user, limits: None, expires_unix: NEVER, origin: Origin::default() }
    }

    /// Who has a time-limited credential that was made with the shared secret of this id.
    pub fn of_time_limited(username: Arc<str>, user: User, expires_unix: u64, secret_id: &str) -> Self {
        Self::new(username, user).expiring(expires_unix).made_by(Origin::secret(KeyId::of(secret_id)))
    }

    /// The same by a credential that expires at this moment, in Unix seconds.
    #[must_use]
    pub fn expiring(self, expires_unix: u64) -> Self {
        Self { expires_unix: expires_unix.min(NEVER - 1), ..self }
    }

    /// The same with what the username asks for beside a name.
    #[must_use]
    pub(super) fn limited_to(self, limits: Option<Arc<UsernameLimits>>) -> Self {
        Self { limits, ..self }
    }

    /// The same by a credential that was made so.
    #[must_use]
    pub(super) fn made_by(self, origin: Origin) -> Self {
        Self { origin, ..self }
    }

    /// When the credential expires (seconds since the Unix epoch); `None` for a static user.
    pub fn expires_unix(&self) -> Option<u64> {
        Some(self.expires_unix).filter(|expires| *expires < NEVER)
    }

    /// The key that the credential was made with, of those that there may be several of.
    pub(super) fn key_id(&self) -> Option<KeyId> {
        match (self.origin.0, self.is_token()) {
            (_, true) => Some(KeyId::of(&self.username)),
            (id, false) => Some(KeyId(id)).filter(|_| id & KeyId::BIT != 0),
        }
    }

    /// When it was issued, if it says so.
    pub(super) fn issued_unix(&self) -> Option<u64> {
        Some(self.origin.0).filter(|_| self.is_token())
    }

    /// The peer policy that must allow a peer as well.
    pub(crate) fn peer_policy(&self) -> Option<PolicyName> {
        self.limits.as_ref()?.peers
    }

    /// The quotas of this credential: those of the configuration, or stricter ones.
    pub(crate) fn quota(&self, quota: QuotaLimits) -> QuotaLimits {
        self.limits.as_ref().map_or(quota, |limits| limits.tighten_quota(quota))
    }

    /// The bandwidth caps of this credential, in the same way.
    pub(crate) fn bandwidth(&self, bandwidth: BandwidthLimits) -> BandwidthLimits {
        self.limits.as_ref().map_or(bandwidth, |limits| limits.tighten_bandwidth(bandwidth))
    }
}

impl Identity {
    /// Whether another request, which is authenticated as well, may be about what this identity has made: only its username tells
    /// (RFC 8656 section 7.2). With access tokens it names a key and nobody's client. A client refreshes with a new token, of a new key
    /// once the old one is retired (RFC 7635 section 9); that it is the same client, only its 5-tuple says.
    pub(crate) fn may_be_used_by(&self, other: &Self) -> bool {
        let is_same_name = self.username == other.username && self.is_token() == other.is_token()
            || self.is_token() && other.is_token();
        is_same_name && self.user.realm() == other.user.realm()
    }

    /// Whether it is of an access token.
    pub(crate) fn is_token(&self) -> bool {
        self.user.kind() == UserKind::Token
    }
}
