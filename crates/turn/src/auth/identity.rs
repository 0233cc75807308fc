//! Who is authenticated.

use std::sync::Arc;

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
    /// When the credential expires (seconds since the Unix epoch); `None` for a static user.
    pub expires_unix: Option<u64>,
    /// What the username asks for beside a name; `None` where it asks for nothing, or where nobody reads it.
    pub limits: Option<Arc<UsernameLimits>>,
}

impl Identity {
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
