//! `[nat-discovery]`: the addresses and ports between which clients find out how their NAT behaves (RFC 5780).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::addr::{Family, Reach, SocketKind, Transport};
use crate::turn::NatDiscovery;

use super::error::{Located, ValueError};
use super::reader::{Document, Section};
use super::snapshot::{ListenOptions, Listener};

const PORTS: [u16; 2] = [3478, 3479];

/// Reads the pairs of addresses, and adds the listeners that they lack: each needs one on either port.
pub(super) fn read_nat_discovery(
    document: &Document<'_>,
    root: &Section<'_, '_>,
    listeners: &mut Vec<Located<Listener>>,
    dev: bool,
) -> Vec<NatDiscovery> {
    let section = root.section("nat-discovery");
    let addresses = section.texts("addresses", parse_address);
    let external = section.texts("external-addresses", parse_address);
    let ports = section.numbers("ports").into_iter().filter_map(|port| u16::try_from(port).ok()).collect::<Vec<_>>();
    section.report_unknown_keys();
    let ports = match *ports {
        [] => PORTS,
        [one, other] if one != other => [one, other],
        _ => {
            let message = format!("not two different ports; expected {}", section.expected("ports"));
            section.problem("ports", section.place(), message);
            return Vec::new();
        }
    };
    let Some(first) = addresses.first() else {
        if let Some(external) = external.first() {
            section.problem("external-addresses", external.place.clone(), "there are no addresses to stand for");
        }
        return Vec::new();
    };
    let of = |list: &[Located<IpAddr>], family| -> Vec<IpAddr> {
        list.iter().map(|ip| ip.value).filter(|ip| Family::of(*ip) == family).collect()
    };
    let mut pairs = Vec::new();
    for family in Family::ALL {
        let external = of(&external, family);
        let addresses = match *of(&addresses, family) {
            [] if external.is_empty() => continue,
            [one, other] if one != other => [one, other],
            _ => {
                let expected = section.expected("addresses");
                let message = format!("not two different addresses of {family}; expected {expected}");
                section.problem("addresses", first.place.clone(), message);
                continue;
            }
        };
        let external = match *external {
            [] => addresses,
            [one, other] if one != other => [one, other],
            _ => {
                let message = format!("not two different addresses of {family}");
                section.problem("external-addresses", first.place.clone(), message);
                continue;
            }
        };
        if let Some(private) = external.iter().find(|ip| !dev && Reach::of(**ip) != Reach::Public) {
            // RFC 5780 erratum 7971: clients take an address that they do not reach for a NAT that filters.
            let message = format!(
                "clients elsewhere do not reach {private}, and would take that for a property of their NAT; set external-addresses \
                 in [nat-discovery] if this host is behind 1:1 NAT"
            );
            document.warning(first.place.clone(), message);
        }
        pairs.push(NatDiscovery { addresses, external, ports });
    }
    for endpoint in pairs.iter().flat_map(NatDiscovery::endpoints) {
        let there = listeners.iter().filter(|listener| covers(&listener.value, endpoint));
        let transports: Vec<_> = there.map(|listener| listener.value.transport).collect();
        if transports.is_empty() {
            let options = Arc::new(ListenOptions { is_for_discovery: true, ..ListenOptions::default() });
            let value = Listener { address: endpoint, transport: Transport::Udp, options };
            listeners.push(Located { value, place: first.place.clone() });
        } else if !transports.contains(&Transport::Udp) {
            let message = format!("the listener at {endpoint} has no udp, by which clients ask");
            section.problem("addresses", first.place.clone(), message);
        }
    }
    pairs
}

/// Whether a listener has the socket that datagrams to an address come to.
fn covers(listener: &Listener, endpoint: SocketAddr) -> bool {
    let address = listener.address;
    listener.transport.socket_kind() == SocketKind::Udp
        && address.port() == endpoint.port()
        && address.is_ipv4() == endpoint.is_ipv4()
        && (address.ip() == endpoint.ip() || address.ip().is_unspecified())
}

fn parse_address(text: &str) -> Result<IpAddr, ValueError> {
    let ip: IpAddr = text.parse().map_err(|_| ValueError::is_not(text, "an address"))?;
    match ip {
        _ if ip.is_unspecified() => Err(ValueError::unfit(text, "a wildcard, but clients are told these addresses")),
        _ if ip.is_multicast() => Err(ValueError::is_not(text, "a unicast address")),
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => {
            Err(ValueError::unfit(text, "an IPv4-mapped address; write it as IPv4"))
        }
        _ => Ok(ip),
    }
}
