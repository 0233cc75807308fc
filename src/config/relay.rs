//! `[relay]`: where relayed addresses come from, and whether anybody reaches them.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::addr::{Reach, SocketKind};
use crate::policy::PeerRules;

use super::error::{Located, Place, ValueError};
use super::reader::{Document, Section, or_default};
use super::snapshot::{AutoRelay, Listener, Relay, RelayAddress};
use super::source::Surroundings;
use super::units;

enum RelayChoice {
    Auto,
    Off,
    Address(IpAddr),
}

pub(super) fn read_relay(
    document: &Document<'_>,
    root: &Section<'_, '_>,
    turn: bool,
    around: &Surroundings<'_>,
) -> Located<Relay> {
    let section = root.section("relay");
    let ipv4 = section.text("ipv4", |text| parse_relay(text, IpAddr::is_ipv4));
    let ipv6 = section.text("ipv6", |text| parse_relay(text, IpAddr::is_ipv6));
    let external = section.texts("external-ip", parse_external);
    let ports = section.text("ports", |text| match units::parse_ports(text)? {
        (low, _) if low < 1024 => Err(ValueError::WellKnownPorts(text.to_owned())),
        ports => Ok(ports),
    });
    let ports_place = if section.has("ports") { ports.as_ref().map(|ports| ports.place.clone()) } else { None };
    let mut used_external = BTreeSet::new();
    let mut address = |choice: Option<Located<RelayChoice>>, found: Option<IpAddr>, is: fn(&IpAddr) -> bool| {
        let place = choice.as_ref().map_or_else(|| section.place(), |choice| choice.place.clone());
        let (bind, is_auto) = match choice.map(|choice| choice.value) {
            None | Some(RelayChoice::Auto) => (found, true),
            Some(RelayChoice::Off) => return (None, None),
            Some(RelayChoice::Address(ip)) => (Some(ip), false),
        };
        let mut mapped = external.iter().enumerate().filter(|(_, external)| is(&external.value));
        let first = mapped.next();
        if let Some((_, second)) = mapped.next() {
            let message = format!("a second external-ip of one family; expected {}", section.expected("external-ip"));
            document.problem(second.place.clone(), message);
        }
        used_external.extend(first.map(|(index, _)| index));
        let auto = AutoRelay { external: first.map(|(_, external)| external.value) };
        let relay = bind.map(|bind| auto.at(bind));
        if let Some(relay) = relay {
            warn_if_unreachable(document, place, relay, around.dev);
        } else if let Some((_, external)) = first {
            let message = format!(
                "external-ip {} has no relay address of its family to stand for yet: this host has no way to the outside there",
                external.value
            );
            document.warning(external.place.clone(), message);
        }
        (relay, is_auto.then_some(auto))
    };
    let (ipv4, auto_ipv4) = address(ipv4, around.host.ipv4.map(IpAddr::V4), IpAddr::is_ipv4);
    let (ipv6, auto_ipv6) = address(ipv6, around.host.ipv6.map(IpAddr::V6), IpAddr::is_ipv6);
    let mut relay = Relay { ipv4, ipv6, auto_ipv4, auto_ipv6, ports: or_default(ports) };
    for (_, external) in external.iter().enumerate().filter(|(index, _)| !used_external.contains(index)) {
        if relay_family_is_off(&relay, external.value) {
            let message = format!("external-ip {} has no relay address of its family to stand for", external.value);
            document.problem(external.place.clone(), message);
        }
    }
    if relay.ipv4.is_none() && relay.ipv6.is_none() && around.dev {
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        relay.ipv4 = Some(RelayAddress { bind: loopback, external: loopback });
        relay.auto_ipv4 = None;
    } else if relay.ipv4.is_none() && relay.ipv6.is_none() && turn && !document.has_problems() {
        if relay.auto_ipv4.is_some() || relay.auto_ipv6.is_some() {
            let message = "no relay address yet: this host has no way to the outside; the server will wait for one";
            document.warning(section.place(), message);
        } else {
            let message = "no relay address: ipv4 and ipv6 are off; expected \"auto\" or an address for one of them";
            document.problem(section.place(), message);
        }
    }
    section.report_unknown_keys();
    Located { value: relay, place: ports_place.unwrap_or_else(|| document.whole()) }
}

fn relay_family_is_off(relay: &Relay, external: IpAddr) -> bool {
    if external.is_ipv4() { relay.ipv4.is_none() } else { relay.ipv6.is_none() }
}

fn parse_relay(text: &str, is_family: fn(&IpAddr) -> bool) -> Result<RelayChoice, ValueError> {
    match text {
        "auto" => return Ok(RelayChoice::Auto),
        "off" => return Ok(RelayChoice::Off),
        _ => {}
    }
    let ip: IpAddr = text.parse().map_err(|_| ValueError::is_not(text, "an address"))?;
    if !is_family(&ip) {
        return Err(ValueError::unfit(text, "of the other family"));
    }
    if ip.is_unspecified() {
        return Err(ValueError::unfit(text, "a wildcard, but clients are told the relay address"));
    }
    if ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST) {
        return Err(ValueError::is_not(text, "a unicast address"));
    }
    Ok(RelayChoice::Address(ip))
}

fn parse_external(text: &str) -> Result<IpAddr, ValueError> {
    let ip: IpAddr = text.parse().map_err(|_| ValueError::is_not(text, "an address"))?;
    if ip.is_unspecified() || ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST) {
        return Err(ValueError::is_not(text, "a unicast address"));
    }
    Ok(ip)
}

fn warn_if_unreachable(document: &Document<'_>, place: Place, relay: RelayAddress, dev: bool) {
    if !dev && relay.bind == relay.external && Reach::of(relay.bind) != Reach::Public {
        let message = format!(
            "relay address {} is private: peers elsewhere do not reach it; set external-ip in [relay] if this host is \
             behind 1:1 NAT",
            relay.bind
        );
        document.warning(place, message);
    }
}

/// A UDP listener on a relay port would take the port from an allocation.
pub(super) fn check_relay_ports(document: &Document<'_>, relay: &Located<Relay>, listeners: &[Located<Listener>]) {
    let (low, high) = relay.value.ports;
    for listener in listeners.iter().filter(|listener| listener.value.transport.socket_kind() == SocketKind::Udp) {
        let port = listener.value.address.port();
        if (low..=high).contains(&port) {
            let message = format!("port {port} of this udp listener is one of the relay ports {low}-{high}");
            let place = match &relay.place {
                at @ Place::At { .. } if matches!(listener.place, Place::Source(_)) => at.clone(),
                _ => listener.place.clone(),
            };
            document.problem(place, message);
        }
    }
}

/// Warns where no peer can be reached: those outside cannot send to a private relay address, those inside get 403.
pub(super) fn warn_about_peers(document: &Document<'_>, root: &Section<'_, '_>, relay: &Relay, peers: &PeerRules) {
    let says_otherwise = peers.default_deny_all
        || peers.allow_loopback
        || !peers.own_services.is_empty()
        || peers.allowed.iter().any(|rule| rule.trim_end().ends_with(" override"));
    if says_otherwise || document.has_problems() {
        return;
    }
    for relay in [relay.ipv4, relay.ipv6].into_iter().flatten().filter(|relay| Reach::of(relay.external).is_of_lan()) {
        let message = format!(
            "peers in the network of the relay address {} are denied (403), as all private ones: where they are to be \
             reached, as by a server for a LAN or in front of an SFU there, expected allowed = [\"{} override\"] in [peers]",
            relay.external,
            network_of(relay.external)
        );
        document.warning(root.section("peers").place(), message);
    }
}

/// The network that an address of a local one is likely to be in.
pub(crate) fn network_of(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => format!("{}/24", Ipv4Addr::from_bits(ip.to_bits() & 0xffff_ff00)),
        IpAddr::V6(ip) => format!("{}/64", Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << 64))),
    }
}
