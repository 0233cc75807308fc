//! Servers for a local network: their relay address is private, and so are their peers, which are denied unless somebody says
//! otherwise.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::policy::PeerRules;

use super::Relay;
use super::reader::{Document, Section};

/// Warns where no peer can be reached: those outside cannot send to a private relay address, those inside get 403.
pub(super) fn warn_about_peers(document: &Document<'_>, root: &Section<'_, '_>, relay: &Relay, peers: &PeerRules) {
    let says_otherwise = peers.default_deny_all
        || peers.allow_loopback
        || !peers.own_services.is_empty()
        || peers.allowed.iter().any(|rule| rule.trim_end().ends_with(" override"));
    if says_otherwise || document.has_problems() {
        return;
    }
    for relay in [relay.ipv4, relay.ipv6].into_iter().flatten().filter(|relay| is_of_lan(relay.external)) {
        let message = format!(
            "peers in the network of the relay address {} are denied (403), as all private ones: where they are to be \
             reached, as by a server for a LAN or in front of an SFU there, expected allowed = [\"{} override\"] in [peers]",
            relay.external,
            network_of(relay.external)
        );
        document.warning(root.section("peers").place(), message);
    }
}

/// Whether hosts of a local network have such an address. Link-local ones are not: the cloud's metadata service has one.
pub(crate) fn is_of_lan(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_private() || matches!(ip.octets(), [100, second, ..] if second & 0xc0 == 64),
        IpAddr::V6(ip) => ip.is_unique_local(),
    }
}

/// The network that such an address is likely to be in.
pub(crate) fn network_of(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => format!("{}/24", Ipv4Addr::from_bits(ip.to_bits() & 0xffff_ff00)),
        IpAddr::V6(ip) => format!("{}/64", Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << 64))),
    }
}
