//! Names what denies a peer, for people. It reads the rules anew when it is asked; the tables of the packet path know only verdicts.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::addr::PeerAddr;
use crate::reject::Reason;

use super::compile::{Effect, claims};
use super::defaults::Lifted;
use super::embedded::{Nat64Inner, embedded_ipv4};
use super::range_map::Class;
use super::rule::AddrRange;
use super::{PeerAcl, verdict};
use crate::policy_name::PolicyName;

/// Why a peer is denied.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Denial {
    /// It lies in a range that is denied by default, such as `10.0.0.0/8, private use`.
    Default {
        /// The address that lies there: the peer's own, or an IPv4 address inside of it.
        ip: IpAddr,
        /// The range and what it is.
        range: String,
    },
    /// A rule of `denied` covers it.
    Rule {
        /// The address that is covered: the peer's own, or an IPv4 address inside of it.
        ip: IpAddr,
        /// The rule as written.
        rule: String,
    },
    /// `mode = "sfu"`, and no rule of `allowed` covers it.
    Unlisted,
    /// It is a relayed address of this server, and `relays = false`.
    Relay,
    /// It is this server itself, or another program on this host.
    Server,
    /// Its port is denied.
    Port(u16),
    /// No peer has such an address.
    Form,
}

/// Where the default policy is written.
const SECTION: &str = "[peers]";

impl Denial {
    /// The text for people, of the policy of this name.
    pub fn told(&self, policy: Option<PolicyName>) -> String {
        told_of(self, policy)
    }
}

/// A text about the default policy as one about the policy of this name.
pub(super) fn told_of(told: &impl fmt::Display, policy: Option<PolicyName>) -> String {
    let text = told.to_string();
    match policy {
        // No rule has brackets in it.
        Some(name) => text.replace(SECTION, &format!("[[peers.policy]] {name:?}")),
        None => text,
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default { range, .. } => f.write_str(range),
            Self::Rule { rule, .. } => write!(f, "the rule {rule:?} in {SECTION} denied"),
            Self::Unlisted => write!(f, "no rule in {SECTION} allowed covers it, and mode is \"sfu\""),
            Self::Relay => write!(f, "relayed addresses of this server, which {SECTION} relays = false denies"),
            Self::Server => f.write_str("an address of this server"),
            Self::Port(port) => write!(f, "port {port} is in {SECTION} denied-ports"),
            Self::Form => f.write_str("no peer has an address of this form"),
        }
    }
}

impl PeerAcl {
    /// What denies an address, or `None` if a permission for it may be had.
    pub fn explain_ip(&self, ip: IpAddr) -> Option<Denial> {
        let reason = self.judge_ip(ip).err()?;
        Some(self.denial(ip, 0, reason))
    }

    /// What denies an address and port, or `None` if it may be reached.
    pub fn explain(&self, peer: SocketAddr) -> Option<Denial> {
        let Ok(named) = PeerAddr::new(peer) else { return self.explain_ip(peer.ip()).or(Some(Denial::Form)) };
        let reason = self.judge(named).err()?;
        Some(self.denial(named.ip(), named.port(), reason))
    }

    fn denial(&self, ip: IpAddr, port: u16, reason: Reason) -> Denial {
        match reason {
            Reason::PeerIsServer => Denial::Server,
            Reason::PeerPortDenied => Denial::Port(port),
            Reason::PeerDenied if self.class_of(ip) == Class::Relay => Denial::Relay,
            _ => self.named(ip).unwrap_or(Denial::Form),
        }
    }

    /// The first denial among those of the address and of the IPv4 addresses inside of it, in the order of judgement.
    fn named(&self, ip: IpAddr) -> Option<Denial> {
        let inner = match ip {
            IpAddr::V4(_) => Vec::new(),
            IpAddr::V6(v6) => self.inner_addresses(v6.to_bits()),
        };
        std::iter::once(ip).chain(inner.into_iter().map(IpAddr::V4)).find_map(|ip| self.named_alone(ip))
    }

    pub(super) fn inner_addresses(&self, ip: u128) -> Vec<Ipv4Addr> {
        let translated = self.nat64_prefixes.iter().filter_map(|prefix| match prefix.inner(ip) {
            Nat64Inner::Ipv4(inner) => Some(inner),
            _ => None,
        });
        embedded_ipv4(ip).into_iter().flatten().chain(translated).map(Ipv4Addr::from_bits).collect()
    }

    fn named_alone(&self, ip: IpAddr) -> Option<Denial> {
        let class = match ip {
            IpAddr::V4(v4) => self.ipv4.class(v4.to_bits()),
            IpAddr::V6(v6) => self.ipv6.class(v6.to_bits()),
        };
        verdict(class).err()?;
        if class == Class::Unlisted {
            return Some(Denial::Unlisted);
        }
        // What has been compiled once reads again.
        let (claims, _) = claims(&self.rules).ok()?;
        let this = AddrRange::single(ip);
        let rank = |effect: Effect| match (class, effect) {
            (Class::Configured, Effect::Configured) | (Class::Form, Effect::Default(Lifted::NeverForm)) => Some(0),
            (Class::Default, Effect::Default(Lifted::Never | Lifted::ByLoopback)) => Some(0),
            (Class::Default, Effect::Default(Lifted::ByNat64Prefix)) => Some(1),
            (Class::Default, Effect::Default(Lifted::ByOverride)) => Some(2),
            _ => None,
        };
        let covering = claims.iter().filter(|claim| claim.range.contains(&this));
        let ranked = covering.filter_map(|claim| Some((rank(claim.effect)?, claim.range.size(), claim)));
        let (_, _, claim) = ranked.min_by_key(|(rank, size, _)| (*rank, *size))?;
        let name = claim.name.to_owned();
        Some(match class {
            Class::Configured => Denial::Rule { ip, rule: name },
            _ => Denial::Default { ip, range: name },
        })
    }
}
