//! The configuration snapshot the core works by, and what all workers share.

use std::sync::Arc;

use crate::auth::Credentials;
use crate::policy::{AnswerBudgets, BandwidthLimits, PeerAcl, QuotaLimits, Quotas, RateLimit, UserBandwidths};

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

/// Lifetimes in seconds (RFC 8656 sections 7.2, 9 and 12).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    /// Allocation lifetime when the client asks for none or less. Default 600.
    pub allocation_default_secs: u32,
    /// The longest allocation lifetime granted. Default 3600.
    pub allocation_max_secs: u32,
    /// Permission lifetime, 300 by the RFC.
    pub permission_secs: u32,
    /// Channel binding lifetime, 600 by the RFC.
    pub channel_secs: u32,
}

impl Default for Lifetimes {
    fn default() -> Self {
        Self { allocation_default_secs: 600, allocation_max_secs: 3600, permission_secs: 300, channel_secs: 600 }
    }
}

/// One immutable snapshot; reload builds a new one and hands it to every worker.
#[derive(Clone)]
pub struct Settings {
    /// Who may allocate.
    pub credentials: Arc<Credentials>,
    /// Which peers may be reached.
    pub peer_acl: Arc<PeerAcl>,
    /// Lifetimes.
    pub lifetimes: Lifetimes,
    /// What becomes of allocations whose credential expired.
    pub on_expiry: OnExpiry,
    /// Allocation quotas.
    pub quota: QuotaLimits,
    /// Bandwidth caps.
    pub bandwidth: BandwidthLimits,
    /// Budget for answers to unauthenticated UDP requests per /24 and /64, over all workers; `None` is unlimited.
    pub unauthenticated: Option<RateLimit>,
    /// Permissions and channel bindings one allocation may have (each).
    pub max_peers_per_allocation: usize,
    /// Whether ChannelBind may name a channel of RFC 5766's wider range (0x4000-0x7FFE) and not only RFC 8656's.
    pub rfc5766_channel_numbers: bool,
    /// SOFTWARE in responses; none by default.
    pub software: Option<String>,
    /// Whether TURN is offered, or only STUN Binding.
    pub turn: bool,
}

/// What the workers share: counters that must hold over all of them.
#[derive(Clone, Default)]
pub struct Shared {
    /// Live allocations per user and in total.
    pub quotas: Arc<Quotas>,
    /// Users' bandwidth buckets.
    pub user_bandwidths: Arc<UserBandwidths>,
    /// What strangers have been answered.
    pub answer_budgets: Arc<AnswerBudgets>,
}
