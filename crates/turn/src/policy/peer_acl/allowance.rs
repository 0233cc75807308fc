//! Names what lets a peer be reached, for people: the counterpart of `explain`, which names what denies one.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::PeerAcl;
use super::compile::{Claim, Effect, claims};
use super::defaults::Lifted;
use super::explain::told_of;
use super::own_service::OwnService;
use super::range_map::Class;
use super::rule::AddrRange;
use crate::policy_name::PolicyName;

/// Why a peer that nothing denies may be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Allowance {
    /// Nothing denies it; of an address without a port, these ports are denied nevertheless.
    NotDenied(Vec<u16>),
    /// A rule of `allowed` covers it.
    Rule {
        /// The rule as written.
        rule: String,
        /// The denial that the rule lifts: a default one, or a rule of `denied`.
        lifts: Option<String>,
    },
    /// It is an address of this server, of which only some ports may be reached.
    Own {
        /// The relay ports, if it is a relay address.
        relay_ports: Option<(u16, u16)>,
        /// The services there that [`super::PeerRules::own_services`] names.
        services: Vec<OwnService>,
    },
    /// A loopback address, with `serve --dev`.
    Loopback,
}

impl Allowance {
    /// The text for people, of the policy of this name.
    pub fn told(&self, policy: Option<PolicyName>) -> String {
        told_of(self, policy)
    }
}

impl fmt::Display for Allowance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotDenied(ports) if ports.is_empty() => f.write_str("no rule denies it"),
            Self::NotDenied(ports) => {
                let ports: Vec<_> = ports.iter().map(u16::to_string).collect();
                write!(f, "no rule denies it, except its ports in [peers] denied-ports ({})", ports.join(", "))
            }
            Self::Rule { rule, lifts: Some(denial) } => {
                write!(f, "the rule {rule:?} in [peers] allowed lifts the denial of {denial}")
            }
            Self::Rule { rule, lifts: None } => write!(f, "the rule {rule:?} in [peers] allowed covers it"),
            Self::Own { relay_ports, services } => {
                f.write_str("an address of this server, of which only these ports are reachable:")?;
                if let Some((first, last)) = relay_ports {
                    write!(f, " {first}-{last} ([relay] ports)")?;
                }
                for (at, service) in services.iter().enumerate() {
                    let comma = if at > 0 || relay_ports.is_some() { "," } else { "" };
                    write!(f, "{comma} {service} ([peers] own-services)")?;
                }
                Ok(())
            }
            Self::Loopback => f.write_str("serve --dev allows peers on loopback"),
        }
    }
}

impl PeerAcl {
    /// What lets an address be reached, of which [`Self::explain_ip`] has found no denial.
    pub fn allowance_of_ip(&self, ip: IpAddr) -> Allowance {
        if self.is_open_loopback(ip) {
            return Allowance::Loopback;
        }
        let services: Vec<_> = self.own_services.iter().filter(|service| service.ip == ip).copied().collect();
        let is_relay = self.class_of(ip) == Class::Relay && !self.deny_relays;
        if is_relay || !services.is_empty() {
            return Allowance::Own { relay_ports: is_relay.then_some(self.relay_ports), services };
        }
        match self.allowance(ip) {
            Allowance::NotDenied(_) => Allowance::NotDenied(self.denied_ports.to_vec()),
            allowance => allowance,
        }
    }

    /// What lets an address and port be reached, of which [`Self::explain`] has found no denial.
    pub fn allowance_of(&self, peer: SocketAddr) -> Allowance {
        let (ip, port) = (peer.ip(), peer.port());
        if self.is_open_loopback(ip) {
            return Allowance::Loopback;
        }
        let services: Vec<_> = self.own_services.iter().filter(|service| service.has(ip, port)).copied().collect();
        let is_relay = services.is_empty() && self.class_of(ip) == Class::Relay && !self.deny_relays;
        if is_relay || !services.is_empty() {
            return Allowance::Own { relay_ports: is_relay.then_some(self.relay_ports), services };
        }
        self.allowance(ip)
    }

    /// The rule that covers the address, or an IPv4 address inside of it.
    fn allowance(&self, ip: IpAddr) -> Allowance {
        // What has been compiled once reads again.
        let Ok((claims, _)) = claims(&self.rules) else { return Allowance::NotDenied(Vec::new()) };
        let inner = match ip {
            IpAddr::V4(_) => Vec::new(),
            IpAddr::V6(v6) => self.inner_addresses(v6.to_bits()),
        };
        let mut addresses = std::iter::once(ip).chain(inner.into_iter().map(IpAddr::V4));
        let found = addresses.find_map(|ip| self.rule_for(&claims, AddrRange::single(ip)));
        found.unwrap_or(Allowance::NotDenied(Vec::new()))
    }

    fn rule_for(&self, claims: &[Claim<'_>], address: AddrRange) -> Option<Allowance> {
        let smallest = |wanted: &dyn Fn(Effect) -> bool| {
            let covering = claims.iter().filter(|claim| wanted(claim.effect) && claim.range.contains(&address));
            covering.min_by_key(|claim| claim.range.size())
        };
        let denial = smallest(&|effect| matches!(effect, Effect::Configured | Effect::Default(Lifted::ByOverride)));
        if let (Some(rule), Some(denial)) = (smallest(&|effect| effect == Effect::Override), denial) {
            let lifts = match denial.effect {
                Effect::Configured => format!("the rule {:?} in [peers] denied", denial.name),
                _ => denial.name.to_owned(),
            };
            return Some(Allowance::Rule { rule: rule.name.to_owned(), lifts: Some(lifts) });
        }
        if !self.rules.default_deny_all {
            return None;
        }
        let rule = smallest(&|effect| matches!(effect, Effect::Override | Effect::Allow))?;
        Some(Allowance::Rule { rule: rule.name.to_owned(), lifts: None })
    }
}

#[cfg(test)]
mod tests {
    use super::super::PeerRules;
    use super::*;

    fn acl(rules: PeerRules) -> PeerAcl {
        PeerAcl::compile(&rules).unwrap()
    }

    fn texts(rules: &[&str]) -> Vec<String> {
        rules.iter().map(|rule| (*rule).to_owned()).collect()
    }

    #[test]
    fn an_override_that_lifts_a_denial_is_named_with_it() {
        let acl = acl(PeerRules {
            denied: texts(&["9.9.0.0/16"]),
            allowed: texts(&["10.1.2.0/24 override", "9.9.9.0/24 override"]),
            ..PeerRules::default()
        });
        let told = |ip: &str| acl.allowance_of_ip(ip.parse().unwrap()).to_string();
        let lifted = "the rule \"10.1.2.0/24 override\" in [peers] allowed lifts the denial of 10.0.0.0/8, private use";
        assert_eq!(told("10.1.2.3"), lifted);
        assert_eq!(acl.allowance_of("10.1.2.3:5000".parse().unwrap()).to_string(), lifted);
        let lifted = "the rule \"9.9.9.0/24 override\" in [peers] allowed lifts the denial of \
                      the rule \"9.9.0.0/16\" in [peers] denied";
        assert_eq!(told("9.9.9.9"), lifted);
        assert_eq!(told("8.8.8.8"), "no rule denies it");
    }

    #[test]
    fn with_only_listed_peers_the_rule_that_lists_one_is_named() {
        let rules = PeerRules {
            allowed: texts(&["198.18.0.0/15 override", "8.8.0.0/16", "8.8.8.0/24"]),
            ..PeerRules::default()
        };
        let acl = acl(PeerRules { default_deny_all: true, ..rules });
        let told = |ip: &str| acl.allowance_of_ip(ip.parse().unwrap()).to_string();
        assert_eq!(told("8.8.8.8"), "the rule \"8.8.8.0/24\" in [peers] allowed covers it");
        assert_eq!(told("8.8.4.4"), "the rule \"8.8.0.0/16\" in [peers] allowed covers it");
        assert!(
            told("198.18.0.1").contains("\"198.18.0.0/15 override\" in [peers] allowed lifts"),
            "{}",
            told("198.18.0.1")
        );
    }

    #[test]
    fn an_address_of_this_server_is_reachable_at_named_ports_only_and_denied_ports_are_told() {
        let own: IpAddr = "203.0.113.7".parse().unwrap();
        let acl = acl(PeerRules {
            own_addresses: vec![own],
            relay_addresses: vec![own],
            relay_ports: (50_000, 50_099),
            own_services: vec!["203.0.113.7:10000".parse().unwrap()],
            denied_ports: vec![53, 161],
            ..PeerRules::default()
        });
        assert_eq!(
            acl.allowance_of_ip(own).to_string(),
            "an address of this server, of which only these ports are reachable: 50000-50099 ([relay] ports), \
             203.0.113.7:10000 ([peers] own-services)"
        );
        assert!(acl.allowance_of(SocketAddr::new(own, 50_001)).to_string().ends_with(": 50000-50099 ([relay] ports)"));
        assert!(acl.allowance_of(SocketAddr::new(own, 10_000)).to_string().contains("reachable: 203.0.113.7:10000 ("));
        let other = acl.allowance_of_ip("8.8.8.8".parse().unwrap()).to_string();
        assert_eq!(other, "no rule denies it, except its ports in [peers] denied-ports (53, 161)");
        assert_eq!(acl.allowance_of("8.8.8.8:80".parse().unwrap()), Allowance::NotDenied(Vec::new()));
    }

    #[test]
    fn loopback_is_allowed_by_dev() {
        let acl = acl(PeerRules { allow_loopback: true, ..PeerRules::default() });
        assert_eq!(acl.allowance_of_ip("127.0.0.1".parse().unwrap()), Allowance::Loopback);
    }
}
