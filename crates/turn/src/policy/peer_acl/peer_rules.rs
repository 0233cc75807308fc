//! The rules about peers, as they are written, and what they mean.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::own_service::OwnService;

/// What the operator configured, as text, plus what the server knows of itself.
///
/// A rule is a CIDR (`10.0.0.0/8`), a single address or a range (`10.0.0.1-10.0.0.9`). The order of rules does not matter.
/// A peer is judged like this, the first line that applies being the answer:
///
/// 1. A relay address of this server is reachable on the relay ports, unless one of the server's own endpoints has that
///    port, or [`Self::deny_relays`] is set; `own_services` are reachable too; every other port of the server's own addresses is denied.
/// 2. 0.0.0.0/8, `::`, loopback, multicast, broadcast, Teredo, 6to4 and IPv4 in IPv6 clothing (mapped, compatible, SIIT)
///    are denied, and no rule lifts that. NAT64 forms (64:ff9b::/96, 64:ff9b:1::/48) are denied unless `nat64_prefixes`
///    has them.
/// 3. A `denied` rule denies, unless an `allowed` rule marked `override` covers the peer with *fewer* addresses than every
///    `denied` rule that covers it.
/// 4. A range denied by default (private, link-local, reserved, ...) is denied, unless an `allowed` rule marked `override`
///    covers the peer and is *no larger* than that range.
/// 5. With [`Self::default_deny_all`], what no `allowed` rule covers is denied; without it, everything else is allowed.
/// 6. `denied_ports` are denied for every peer but the server's own relay addresses; port 0 is denied always.
///
/// An `allowed` rule without `override` therefore means something only with `default_deny_all`, the pattern for a server
/// in front of an SFU. Unlike in coturn, `allowed` never wins over `denied` by itself. An `allowed` rule that can have no
/// effect is an error, so that nothing an operator writes is silently ignored.
///
/// An IPv4 address embedded in an IPv6 address is judged by the IPv4 rules, and the IPv6 address by the IPv6 rules; both
/// must pass. With [`Self::default_deny_all`], an address in a listed NAT64 prefix counts as allowed when an `allowed` rule
/// covers either of the two.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerRules {
    /// Networks (CIDR), single addresses or `a-b` ranges that are denied.
    pub denied: Vec<String>,
    /// What is allowed, in the same forms; a trailing ` override` lets the rule win over a larger denial.
    pub allowed: Vec<String>,
    /// `mode = "sfu"`: only peers that `allowed` covers are reachable.
    pub default_deny_all: bool,
    /// `relays = false`: relayed addresses of this server are no peers, so that two clients cannot reach one another through it.
    pub deny_relays: bool,
    /// Operator NAT64 prefixes (RFC 6052), whose inner IPv4 address is judged. Listing one lifts the default denial of the
    /// IPv6 form, not that of the inner address and not a `denied` rule.
    pub nat64_prefixes: Vec<String>,
    /// Whether loopback peers are allowed, with default denials and `default_deny_all` set aside for them (`serve --dev`
    /// only).
    pub allow_loopback: bool,
    /// Peer ports that are denied, e.g. reflectors.
    pub denied_ports: Vec<u16>,
    /// Listener, admin and metrics addresses; an unspecified IP, of either family, stands for every own address.
    pub own_endpoints: Vec<SocketAddr>,
    /// The host's interface addresses and the private halves of `external-ip`.
    pub own_addresses: Vec<IpAddr>,
    /// Networks of which every address is this host's, as AnyIP routes make them.
    pub own_networks: Vec<IpNet>,
    /// Programs on this host that may be reached, whatever the other rules say but not on an endpoint's port.
    pub own_services: Vec<OwnService>,
    /// Relay addresses as peers see them (after `external-ip`); reachable on `relay_ports` whatever the rules say.
    pub relay_addresses: Vec<IpAddr>,
    /// The relay port range, inclusive.
    pub relay_ports: (u16, u16),
}

impl PeerRules {
    /// Those of a server that listens at `endpoint` and relays on the same address: its service is no peer, its relays are. A host with
    /// more addresses names them in [`Self::own_addresses`], or whatever listens there can be reached.
    pub fn of_server(endpoint: SocketAddr, relay_ports: (u16, u16)) -> Self {
        Self { own_endpoints: vec![endpoint], relay_addresses: vec![endpoint.ip()], relay_ports, ..Self::default() }
    }
}
