//! The one choke point for peer addresses: CreatePermission, ChannelBind, Send and inbound packets all ask here.

use std::net::{IpAddr, SocketAddr};

use crate::addr::PeerAddr;
use crate::reject::Reason;

/// What the operator configured, as text, plus what the server knows of itself.
#[derive(Clone, Debug, Default)]
pub struct PeerRules {
    /// `denied-peers`: CIDR, single addresses or `a-b` ranges.
    pub denied: Vec<String>,
    /// `allowed-peers`: the same forms; a trailing ` override` lets the rule win over a default denial.
    pub allowed: Vec<String>,
    /// Operator NAT64 prefixes (RFC 6052), whose inner IPv4 address is judged.
    pub nat64_prefixes: Vec<String>,
    /// Whether loopback peers are allowed (`serve --dev` only).
    pub allow_loopback: bool,
    /// Peer ports that are denied, e.g. reflectors.
    pub denied_ports: Vec<u16>,
    /// Listener, admin and metrics addresses; an unspecified IP stands for every own address.
    pub own_endpoints: Vec<SocketAddr>,
    /// The host's interface addresses and the private halves of `external-ip`.
    pub own_addresses: Vec<IpAddr>,
    /// Relay addresses as peers see them (after `external-ip`); reachable on `relay_ports` whatever the rules say.
    pub relay_addresses: Vec<IpAddr>,
    /// The relay port range, inclusive.
    pub relay_ports: (u16, u16),
}

/// A rule that cannot be understood; it stops the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AclError {
    /// The rule as written.
    pub rule: String,
    /// What is wrong with it.
    pub problem: String,
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
pub struct PeerAcl {}

impl PeerAcl {
    /// Compiles the rules.
    ///
    /// # Errors
    /// [`AclError`] names the first rule that is malformed. A rule is never skipped.
    pub fn compile(rules: &PeerRules) -> Result<Self, AclError> {
        let _ = rules;
        todo!()
    }

    /// Judges an IP address, for a permission (RFC 8656 section 9: permissions have no port).
    ///
    /// # Errors
    /// The reason, answered with 403.
    pub fn judge_ip(&self, ip: IpAddr) -> Result<Verdict, Reason> {
        let _ = ip;
        todo!()
    }

    /// Judges an address and port, for a channel, a Send indication or an inbound packet.
    ///
    /// # Errors
    /// The reason, answered with 403 where there is an answer.
    pub fn judge(&self, peer: PeerAddr) -> Result<Verdict, Reason> {
        let _ = peer;
        todo!()
    }
}
