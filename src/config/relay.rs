//! `[relay]`: where relayed addresses come from, and whether anybody reaches them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::addr::{Family, Reach, SocketKind};
use crate::policy::PeerRules;

use super::error::{Located, Place, ValueError};
use super::keys::{DEFAULT_FAMILIES, RELAY_CHOICES};
use super::public_address;
use super::reader::{Document, Section, or_default};
use super::snapshot::{ExternalIp, Listener, RELAY_ADDRESSES_MAX, Relay, RelayAddress};
use super::source::Surroundings;
use super::units;
use super::value::choose;

/// Where so many ports can be opened, each allocation can have its own.
const SHARED_PORTS_MAX: u16 = 1024;

enum Chosen {
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
    let chosen = [
        section.texts("ipv4", |text| parse_relay(text, IpAddr::is_ipv4)),
        section.texts("ipv6", |text| parse_relay(text, IpAddr::is_ipv6)),
    ];
    let written = section.texts("external-ip", |text| public_address::parse_external(text, parse_external));
    let (externals, found_by) = public_address::split(document, written);
    let interval = or_default(section.duration("external-ip-interval"));
    let finding = public_address::read_finding(document, &section, found_by.as_ref(), !externals.is_empty(), interval);
    let choice = section.text("choice", |text| choose(RELAY_CHOICES, text, "a choice of address"));
    let default_family = section.text("address-family", |text| choose(DEFAULT_FAMILIES, text, "a choice of family"));
    let ports = section.text("ports", parse_relay_ports);
    let ports_place = if section.has("ports") { ports.as_ref().map(|ports| ports.place.clone()) } else { None };
    let ports = or_default(ports);
    let mut relay = Relay {
        externals: externals.iter().map(|external| external.value).collect(),
        finding,
        choice: or_default(choice),
        default_family: or_default(default_family),
        ports: ports.range,
        shared: ports.shared,
        ..Relay::default()
    };
    let found = [around.host.ipv4.map(IpAddr::V4), around.host.ipv6.map(IpAddr::V6)];
    for ((key, family), (chosen, found)) in
        [("ipv4", Family::V4), ("ipv6", Family::V6)].into_iter().zip(chosen.into_iter().zip(found))
    {
        let binds = read_family(&section, key, family, chosen, found, &mut relay);
        for Located { value: bind, place } in binds {
            if relay.binds(family).any(|other| other == bind) {
                section.problem(key, place, format!("{bind} is written twice"));
                continue;
            }
            let Some(address) = relay.at(bind) else {
                relay.waiting.push(bind);
                continue;
            };
            warn_if_unreachable(document, place, address, around.dev);
            relay.addresses.push(address);
        }
    }
    check_externals(document, &section, &externals, &relay);
    found_by.iter().for_each(|by| public_address::check_found(document, by, &relay));
    if !relay.waiting.is_empty() {
        // They are found when the server runs.
    } else if relay.addresses.is_empty() && around.dev {
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        relay.addresses.push(RelayAddress { bind: loopback, external: loopback });
        relay.auto.retain(|family| *family != Family::V4);
    } else if relay.addresses.is_empty() && turn && !document.has_problems() {
        if relay.auto.is_empty() {
            let message = "no relay address: ipv4 and ipv6 are off; expected \"auto\" or an address for one of them";
            document.problem(section.place(), message);
        } else {
            let message = "no relay address yet: this host has no way to the outside; the server will wait for one";
            document.warning(section.place(), message);
        }
    }
    section.report_unknown_keys();
    Located { value: relay, place: ports_place.unwrap_or_else(|| document.whole()) }
}

/// The addresses of one family that relays are bound to.
fn read_family(
    section: &Section<'_, '_>,
    key: &'static str,
    family: Family,
    chosen: Vec<Located<Chosen>>,
    found: Option<IpAddr>,
    relay: &mut Relay,
) -> Vec<Located<IpAddr>> {
    let several = chosen.len() > 1;
    if let Some(beyond) = chosen.get(RELAY_ADDRESSES_MAX) {
        section.problem(key, beyond.place.clone(), format!("more than {RELAY_ADDRESSES_MAX} addresses of one family"));
    }
    let mut binds = Vec::new();
    let mut auto = |place: Place| {
        relay.auto.push(family);
        found.map(|value| Located { value, place })
    };
    if chosen.is_empty() && !section.has(key) {
        binds.extend(auto(section.place()));
    }
    for Located { value, place } in chosen {
        match value {
            Chosen::Auto | Chosen::Off if several => {
                section.problem(key, place, "\"auto\" and \"off\" stand alone");
            }
            Chosen::Auto => binds.extend(auto(place)),
            Chosen::Off => {}
            Chosen::Address(value) => binds.push(Located { value, place }),
        }
    }
    binds
}

/// Every public address stands for one relay address, and each stands alone.
fn check_externals(
    document: &Document<'_>,
    section: &Section<'_, '_>,
    externals: &[Located<ExternalIp>],
    relay: &Relay,
) {
    for (index, Located { value: external, place }) in externals.iter().enumerate() {
        let problem = |message: String| document.problem(place.clone(), message);
        let family = Family::of(external.ip);
        let mut earlier = externals.iter().take(index).map(|earlier| earlier.value);
        let is_auto = relay.is_auto(family);
        let stands_for = relay.addresses.iter().filter(|address| address.external == external.ip).count();
        if external.bind.is_none() && relay.of(family).count() > 1 {
            let which = format!("which of the {family} addresses does {} stand for?", external.ip);
            problem(format!("{which} expected PUBLIC/PRIVATE"));
        } else if stands_for > 1 || earlier.clone().any(|earlier| earlier.ip == external.ip) {
            problem(format!(
                "external-ip {} stands for two addresses: peers could not tell their ports apart",
                external.ip
            ));
        } else if earlier.any(|other| other.bind == external.bind && Family::of(other.ip) == family) {
            let message = match external.bind {
                Some(bind) => format!("{bind} has a public address already"),
                None => format!("a second external-ip of one family; expected {}", section.expected("external-ip")),
            };
            problem(message);
        } else if relay.of(family).next().is_none() {
            let message = format!("external-ip {} has no relay address of its family to stand for", external.ip);
            match is_auto {
                true => document.warning(place.clone(), message + " yet: this host has no way to the outside there"),
                false => problem(message),
            }
        } else if let Some(bind) = external.bind.filter(|_| !is_auto)
            && relay.of(family).all(|address| address.bind != bind)
        {
            problem(format!("{bind} is no relay address; name it in {family}"));
        }
    }
}

#[derive(Clone, Copy, Default)]
struct RelayPortRange {
    range: (u16, u16),
    shared: bool,
}

/// `49152-65535`, or `shared:3480-3487`.
fn parse_relay_ports(text: &str) -> Result<RelayPortRange, ValueError> {
    let (shared, written) = text.strip_prefix("shared:").map_or((false, text), |rest| (true, rest));
    let single = if shared { written.parse::<u16>().ok() } else { None };
    let range = single.map_or_else(|| units::parse_ports(written), |port| Ok((port, port)))?;
    match range {
        (low, _) if low < 1024 => Err(ValueError::WellKnownPorts(text.to_owned())),
        (low, high) if shared && high - low >= SHARED_PORTS_MAX => Err(ValueError::unfit(
            text,
            "more than 1024 shared ports; leave out \"shared:\" where so many can be opened",
        )),
        range => Ok(RelayPortRange { range, shared }),
    }
}

fn parse_relay(text: &str, is_family: fn(&IpAddr) -> bool) -> Result<Chosen, ValueError> {
    match text {
        "auto" => return Ok(Chosen::Auto),
        "off" => return Ok(Chosen::Off),
        _ => {}
    }
    let ip: IpAddr = text.parse().map_err(|_| ValueError::is_not(text, "an address"))?;
    if !is_family(&ip) {
        return Err(ValueError::unfit(text, "of the other family"));
    }
    if ip.is_unspecified() {
        return Err(ValueError::unfit(text, "a wildcard, but clients are told the relay address"));
    }
    unicast(ip, text).map(Chosen::Address)
}

/// `203.0.113.5`, or `203.0.113.5/10.0.0.5`: public, then private, as coturn has it.
fn parse_external(text: &str) -> Result<ExternalIp, ValueError> {
    let address = |part: &str| {
        let ip: IpAddr = part.parse().map_err(|_| ValueError::is_not(text, "an address"))?;
        unicast(ip, text)
    };
    let Some((public, private)) = text.split_once('/') else {
        return Ok(ExternalIp { ip: address(text)?, bind: None });
    };
    let (ip, bind) = (address(public)?, address(private)?);
    if ip.is_ipv4() != bind.is_ipv4() {
        return Err(ValueError::unfit(text, "a pair of two families"));
    }
    Ok(ExternalIp { ip, bind: Some(bind) })
}

fn unicast(ip: IpAddr, text: &str) -> Result<IpAddr, ValueError> {
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

/// What a listener's clients are relayed from must be relay addresses.
pub(super) fn check_listener_relays(document: &Document<'_>, relay: &Relay, listeners: &[Located<Listener>]) {
    for Located { value: listener, place } in listeners {
        for ip in &listener.options.relay {
            let family = Family::of(*ip);
            let is_known = relay.of(family).any(|address| [address.bind, address.external].contains(ip));
            // One that is found may be another one tomorrow; what stands for it outside stays.
            let stays = !relay.is_auto(family) || relay.externals.iter().any(|external| external.ip == *ip);
            if !stays {
                let message = format!(
                    "relay in [[listen]]: {ip} is not written in [relay], whose {family} is \"auto\": write all relay addresses there, \
                     such as {family} = [\"{ip}\"]"
                );
                document.problem(place.clone(), message);
            } else if !is_known {
                document.problem(place.clone(), format!("relay in [[listen]]: {ip} is no address of [relay]"));
            }
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
    for relay in relay.addresses.iter().filter(|relay| Reach::of(relay.external).is_of_lan()) {
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
