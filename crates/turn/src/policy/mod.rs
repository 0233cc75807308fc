//! What an authenticated client may do: which peers, how many allocations, how much bandwidth; what is abuse; and how often strangers are answered.

mod bandwidth;
mod buckets;
mod guard;
mod peer_acl;
mod peer_policies;
mod places;
mod quota;
mod rate_limit;

pub use bandwidth::{BandwidthLimits, Meter, MeterState, UserBandwidths};
pub use buckets::Paid;
pub use guard::{Guard, GuardLimits, Suspension, SuspensionLimits};
pub use ipnet::IpNet;
pub use peer_acl::{
    AclError, Allowance, Denial, NoEffect, OwnService, OwnServiceError, PeerAcl, PeerRules, RuleProblem, Verdict,
    default_denials,
};
pub use peer_policies::{PeerPolicies, PolicyChoice};
pub(crate) use places::{Place, Places};
pub(crate) use quota::NotReserved;
pub use quota::{AllocationRate, QuotaLimits, Quotas, Reservation, Share, ShareTotals, ShareUse, WithoutShare};
pub(crate) use rate_limit::networks;
pub use rate_limit::{AnswerBudgets, RateLimit, RateLimiter};

pub use crate::policy_name::{PolicyName, PolicyNameError};
pub use crate::reject::DeniedPeer;
