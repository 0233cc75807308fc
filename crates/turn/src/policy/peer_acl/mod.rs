//! The one choke point for peer addresses: CreatePermission, ChannelBind, Send and inbound packets all ask here.
//!
//! [`PeerAcl::compile`] turns every rule, the defaults and the server's own addresses into one sorted table per address
//! family; a judgement is one binary search in it, plus one for each IPv4 address embedded in an IPv6 address.

mod allowance;
mod compile;
mod defaults;
mod embedded;
mod error;
mod explain;
mod own_service;
mod peer_rules;
mod range_map;
mod rule;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::addr::PeerAddr;
use crate::reject::Reason;

pub use allowance::Allowance;
pub use error::{AclError, NoEffect, RuleProblem};
pub use explain::Denial;
pub use own_service::{OwnService, OwnServiceError};
pub use peer_rules::PeerRules;

use compile::compile_tables;
use embedded::{Nat64Inner, Nat64Prefix, embedded_ipv4};
use range_map::{Class, RangeMap};

/// The ranges that are denied without any rule: first and last address, and whether an `allowed` rule marked `override`
/// can lift it. Ranges may lie within one another.
pub fn default_denials() -> impl Iterator<Item = (IpAddr, IpAddr, bool)> {
    defaults::default_denials().map(|denial| {
        let address = |bits| rule::from_bits(denial.range.family, bits);
        (address(denial.range.first), address(denial.range.last), denial.lifted == defaults::Lifted::ByOverride)
    })
}

/// A peer that may be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A peer elsewhere.
    Peer,
    /// One of our own relayed addresses: reachable only within the relay port range, and routed in process.
    OwnRelay,
}

/// The compiled rules.
#[derive(Debug)]
pub struct PeerAcl {
    ipv4: RangeMap<u32>,
    ipv6: RangeMap<u128>,
    nat64_prefixes: Box<[Nat64Prefix]>,
    own_endpoints: OwnEndpoints,
    own_services: Box<[OwnService]>,
    denied_ports: Box<[u16]>,
    relay_ports: (u16, u16),
    allow_loopback: bool,
    deny_relays: bool,
    /// What was compiled, to name a denial with.
    rules: Box<PeerRules>,
}

impl PeerAcl {
    /// Compiles the rules.
    ///
    /// # Errors
    /// [`AclError`] names the first rule that is malformed or can have no effect. A rule is never skipped.
    pub fn compile(rules: &PeerRules) -> Result<Self, AclError> {
        let (acl, without_effect) = Self::compile_anew(rules)?;
        without_effect.map_or(Ok(acl), Err)
    }

    /// Compiles rules that have been in force with other own addresses. That a rule can have no effect with these ones is no
    /// reason to go on with the old ones; it is returned as a remark.
    ///
    /// # Errors
    /// [`AclError`] names the first rule that is malformed.
    pub fn compile_anew(rules: &PeerRules) -> Result<(Self, Option<AclError>), AclError> {
        let (first_port, last_port) = rules.relay_ports;
        if first_port > last_port {
            return Err(AclError::new(&format!("{first_port}-{last_port}"), RuleProblem::ReversedPorts));
        }
        let (tables, without_effect) = compile_tables(rules)?;
        let acl = Self {
            ipv4: tables.ipv4,
            ipv6: tables.ipv6,
            nat64_prefixes: tables.nat64_prefixes,
            own_endpoints: OwnEndpoints::new(&rules.own_endpoints),
            own_services: rules.own_services.clone().into_boxed_slice(),
            denied_ports: sorted(rules.denied_ports.iter().copied()),
            relay_ports: rules.relay_ports,
            allow_loopback: rules.allow_loopback,
            deny_relays: rules.deny_relays,
            rules: Box::new(rules.clone()),
        };
        Ok((acl, without_effect))
    }

    /// What was compiled.
    pub fn rules(&self) -> &PeerRules {
        &self.rules
    }

    /// Judges an IP address, for a permission (RFC 8656 section 9: permissions have no port).
    ///
    /// A relay address, or one with an own service, yields [`Verdict::OwnRelay`]; which of its ports may be reached is for
    /// [`Self::judge`] to say, on each packet.
    ///
    /// # Errors
    /// The reason, answered with 403.
    pub fn judge_ip(&self, ip: IpAddr) -> Result<Verdict, Reason> {
        match self.judge_address(ip) {
            Ok(Verdict::OwnRelay) if !self.deny_relays || self.is_open_loopback(ip) => Ok(Verdict::OwnRelay),
            Ok(Verdict::Peer) => Ok(Verdict::Peer),
            _ if self.own_services.iter().any(|service| service.ip == ip) => Ok(Verdict::OwnRelay),
            Ok(Verdict::OwnRelay) => Err(Reason::PeerDenied),
            Err(reason) => Err(reason),
        }
    }

    /// Judges an address and port, for a channel, a Send indication or an inbound packet.
    ///
    /// # Errors
    /// The reason, answered with 403 where there is an answer.
    pub fn judge(&self, peer: PeerAddr) -> Result<Verdict, Reason> {
        let (ip, port) = (peer.ip(), peer.port());
        if port == 0 {
            return Err(Reason::PeerForm);
        }
        if self.own_endpoints.has_port(port) && self.is_own_endpoint(ip, port) {
            return Err(Reason::PeerIsServer);
        }
        if self.own_services.iter().any(|service| service.has(ip, port)) {
            return Ok(Verdict::Peer);
        }
        match self.judge_address(ip)? {
            Verdict::OwnRelay if self.is_relay_port(port) && self.deny_relays => Err(Reason::PeerDenied),
            Verdict::OwnRelay if self.is_relay_port(port) => Ok(Verdict::OwnRelay),
            Verdict::OwnRelay if !(self.allow_loopback && ip.is_loopback()) => Err(Reason::PeerIsServer),
            _ if self.denied_ports.binary_search(&port).is_ok() => Err(Reason::PeerPortDenied),
            _ => Ok(Verdict::Peer),
        }
    }

    fn judge_address(&self, ip: IpAddr) -> Result<Verdict, Reason> {
        match ip {
            IpAddr::V4(v4) => verdict(self.ipv4.class(v4.to_bits())),
            IpAddr::V6(v6) => self.judge_ipv6(v6.to_bits()),
        }
    }

    fn judge_ipv6(&self, ip: u128) -> Result<Verdict, Reason> {
        let outer_class = self.ipv6.class(ip);
        let outer = verdict(outer_class)?;
        if outer == Verdict::OwnRelay {
            return Ok(outer);
        }
        for inner in embedded_ipv4(ip).into_iter().flatten() {
            self.judge_inner(inner, false)?;
        }
        for prefix in &self.nat64_prefixes {
            match prefix.inner(ip) {
                Nat64Inner::NotInPrefix => {}
                Nat64Inner::Malformed => return Err(Reason::PeerForm),
                Nat64Inner::Ipv4(inner) => self.judge_inner(inner, outer_class == Class::Translated)?,
            }
        }
        Ok(Verdict::Peer)
    }

    /// Judges an embedded address. Our own addresses are never reached through a translator. When the outer form is listed
    /// itself, `must_be_listed` is false: the inner address must then only not be denied.
    fn judge_inner(&self, ipv4: u32, must_be_listed: bool) -> Result<(), Reason> {
        match self.ipv4.class(ipv4) {
            Class::Unlisted if !must_be_listed => Ok(()),
            Class::Relay => Err(Reason::PeerIsServer),
            class => verdict(class).map(|_| ()),
        }
    }

    fn is_open_loopback(&self, ip: IpAddr) -> bool {
        self.allow_loopback && ip.is_loopback()
    }

    fn class_of(&self, ip: IpAddr) -> Class {
        match ip {
            IpAddr::V4(v4) => self.ipv4.class(v4.to_bits()),
            IpAddr::V6(v6) => self.ipv6.class(v6.to_bits()),
        }
    }

    fn is_relay_port(&self, port: u16) -> bool {
        (self.relay_ports.0..=self.relay_ports.1).contains(&port)
    }

    /// Whether the address, or one embedded in it, is an endpoint of this server. Off the fast path: asked only when the
    /// port is an endpoint's.
    #[cold]
    fn is_own_endpoint(&self, ip: IpAddr, port: u16) -> bool {
        let is_own = |ip: IpAddr| {
            let class = match ip {
                IpAddr::V4(v4) => self.ipv4.class(v4.to_bits()),
                IpAddr::V6(v6) => self.ipv6.class(v6.to_bits()),
            };
            self.own_endpoints.contains(ip, port, matches!(class, Class::Relay | Class::Server))
        };
        if is_own(ip) {
            return true;
        }
        let IpAddr::V6(v6) = ip else { return false };
        let outer = v6.to_bits();
        let translated = self.nat64_prefixes.iter().filter_map(|prefix| match prefix.inner(outer) {
            Nat64Inner::Ipv4(inner) => Some(inner),
            _ => None,
        });
        embedded_ipv4(outer)
            .into_iter()
            .flatten()
            .chain(translated)
            .any(|inner| is_own(IpAddr::V4(Ipv4Addr::from_bits(inner))))
    }
}

fn verdict(class: Class) -> Result<Verdict, Reason> {
    match class {
        Class::Open | Class::Translated => Ok(Verdict::Peer),
        Class::Relay => Ok(Verdict::OwnRelay),
        Class::Unlisted | Class::Configured => Err(Reason::PeerDenied),
        Class::Default => Err(Reason::PeerDeniedByDefault),
        Class::Form => Err(Reason::PeerForm),
        Class::Server => Err(Reason::PeerIsServer),
    }
}

/// The sockets this server listens on.
#[derive(Debug)]
struct OwnEndpoints {
    /// Ports of all endpoints: the quick first question.
    ports: Box<[u16]>,
    /// Ports of endpoints on an unspecified IP.
    ports_on_every_address: Box<[u16]>,
    exact: Box<[(IpAddr, u16)]>,
}

impl OwnEndpoints {
    fn new(endpoints: &[SocketAddr]) -> Self {
        let endpoints: Vec<(IpAddr, u16)> =
            endpoints.iter().map(|endpoint| (endpoint.ip().to_canonical(), endpoint.port())).collect();
        let on_every_address = endpoints.iter().filter(|(ip, _)| ip.is_unspecified());
        Self {
            ports: sorted(endpoints.iter().map(|(_, port)| *port)),
            ports_on_every_address: sorted(on_every_address.map(|(_, port)| *port)),
            exact: sorted(endpoints.iter().copied().filter(|(ip, _)| !ip.is_unspecified())),
        }
    }

    fn has_port(&self, port: u16) -> bool {
        self.ports.binary_search(&port).is_ok()
    }

    fn contains(&self, ip: IpAddr, port: u16, is_own_address: bool) -> bool {
        if self.exact.binary_search(&(ip, port)).is_ok() {
            return true;
        }
        let is_own_address = is_own_address || ip.is_loopback() || self.exact.iter().any(|(own, _)| *own == ip);
        is_own_address && self.ports_on_every_address.binary_search(&port).is_ok()
    }
}

fn sorted<T: Ord>(items: impl Iterator<Item = T>) -> Box<[T]> {
    let mut items: Vec<T> = items.collect();
    items.sort_unstable();
    items.dedup();
    items.into_boxed_slice()
}

#[cfg(test)]
mod tests;
