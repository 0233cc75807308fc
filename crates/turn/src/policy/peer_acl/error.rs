//! Why rules about peers are refused.

use std::net::IpAddr;

use crate::addr::Family;

/// A rule that cannot be understood or can have no effect; it stops the start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("peer rule `{rule}`: {problem}")]
pub struct AclError {
    /// The rule as written.
    pub rule: String,
    /// What is wrong with it.
    pub problem: RuleProblem,
}

impl AclError {
    pub(super) fn new(rule: &str, problem: RuleProblem) -> Self {
        Self { rule: rule.trim().to_owned(), problem }
    }
}

/// What is wrong with a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RuleProblem {
    /// An address that is none.
    #[error("`{0}` is not an IP address")]
    NotAnAddress(String),
    /// IPv4 in IPv6, ::ffff:0:0/96.
    #[error("IPv4-mapped addresses are always denied; write the IPv4 address or network itself")]
    Mapped,
    /// A prefix length that its family has not.
    #[error("the prefix length of an {family} network is a number from 0 to {width}, not `{length}`")]
    Length {
        /// The family of the network.
        family: Family,
        /// The bits of its addresses.
        width: u8,
        /// The length as written.
        length: String,
    },
    /// A network whose address is not the first one of it.
    #[error(
        "the address has bits set beyond the prefix; write `{network}/{length}` for the network or `{address}` for the address"
    )]
    HostBits {
        /// The address as written.
        address: IpAddr,
        /// The first address of the network.
        network: IpAddr,
        /// The length of the prefix.
        length: u8,
    },
    /// A range from one family to the other.
    #[error("a range must begin and end with addresses of one family")]
    TwoFamilies,
    /// A range whose ends are swapped.
    #[error("the range ends before it starts; write `{last}-{first}`")]
    Reversed {
        /// As written in front.
        first: IpAddr,
        /// As written behind.
        last: IpAddr,
    },
    /// `override` where there is nothing to lift.
    #[error("only rules of `allowed` can be marked `override`")]
    OverrideOfDenial,
    /// A NAT64 prefix without its length.
    #[error("this must be a prefix with its length, such as `64:ff9b::/96`")]
    NotAPrefix,
    /// A NAT64 prefix of IPv4.
    #[error("this must be an IPv6 prefix")]
    NotIpv6,
    /// A NAT64 prefix of a length that RFC 6052 section 2.2 does not define.
    #[error("a NAT64 prefix is 32, 40, 48, 56, 64 or 96 bits long (RFC 6052)")]
    Nat64Length,
    /// A NAT64 prefix with bits where RFC 6052 section 2.2 has none.
    #[error("bits 64 to 71 of a NAT64 prefix are zero (RFC 6052)")]
    Nat64Bits,
    /// A NAT64 prefix in a range that is denied for good: what that is.
    #[error("a NAT64 prefix cannot lie in {0}")]
    Nat64In(String),
    /// The address of a relay that no host can have.
    #[error("a relay address is the address of one host")]
    NotOneHost,
    /// Relay ports whose ends are swapped.
    #[error("the relay port range ends before it starts")]
    ReversedPorts,
    /// It would change nothing.
    #[error("has no effect{0}")]
    NoEffect(NoEffect),
}

/// Why a rule of `allowed` changes nothing, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoEffect {
    /// Peers are allowed unless something denies them.
    #[error(
        ", because peers that nothing denies are allowed anyway, and what is denied, as private networks are, stays so; write \
         `{0} override` to lift that, or set `mode = \"sfu\"` to reach allowed peers only"
    )]
    AllowedAnyway(String),
    /// The server's own address: what that is.
    #[error(": it is {0}, which no rule can allow")]
    Own(String),
    /// A range that is denied for good: what that is.
    #[error(": no rule can allow {0}")]
    Never(String),
    /// A form of NAT64: what that is.
    #[error(" on {0}; list the NAT64 prefix itself, so that the inner IPv4 addresses are judged")]
    Nat64(String),
    /// A denial wins.
    #[error(", because deny wins over allow and this is denied: {by}; write `{rule} override` to lift that")]
    Denied {
        /// The rule as written.
        rule: String,
        /// What denies.
        by: String,
    },
    /// A denial of fewer addresses wins: what denies.
    #[error(", because deny wins over an allow rule that is not more specific: {0}; write smaller ranges")]
    Wider(String),
    /// There is nothing to lift.
    #[error(": nothing denies these peers, so there is nothing to override")]
    NothingToLift,
}
