//! Which addresses and ports the relays have: from relay-ip, external-ip and listening-ip to `[relay]`.

use std::net::IpAddr;

use super::conf::{At, Conf};
use super::findings::{FindingKind, Grade};

const RELAY_PORTS: (u16, u16) = (49152, 65535);

/// The relay of one family.
pub(super) struct Relay {
    pub(super) bind: Bind,
    /// What clients are told in its place.
    pub(super) external: Option<IpAddr>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bind {
    Auto,
    Off,
    Address(IpAddr),
}

impl Relay {
    /// The address that clients and peers see, as far as the file says it.
    pub(super) fn told(&self) -> Option<IpAddr> {
        match (self.bind, self.external) {
            (Bind::Off, _) => None,
            (_, Some(external)) => Some(external),
            (Bind::Address(ip), None) => Some(ip),
            (Bind::Auto, None) => None,
        }
    }
}

pub(super) fn relays(conf: &mut Conf) -> [Relay; 2] {
    [true, false].map(|is_ipv4| relay(conf, is_ipv4))
}

/// coturn relays from relay-ip; without one from the address that the client reached, which is a listening-ip, or the
/// private half of an external-ip.
fn relay(conf: &mut Conf, is_ipv4: bool) -> Relay {
    let family = if is_ipv4 { "IPv4" } else { "IPv6" };
    let externals: Vec<_> = conf.external_ips.iter().filter(|at| at.value.0.is_ipv4() == is_ipv4).cloned().collect();
    let of_family = |ips: &[At<IpAddr>]| -> Vec<At<IpAddr>> {
        let usable = |at: &&At<IpAddr>| at.value.is_ipv4() == is_ipv4 && !at.value.is_unspecified();
        ips.iter().filter(usable).cloned().collect()
    };
    let (relay_ips, listening_ips) = (of_family(&conf.relay_ips), of_family(&conf.listening_ips));
    let mut bind = Bind::Auto;
    if let Some(first) = relay_ips.first() {
        bind = Bind::Address(first.value);
        let message =
            format!("one {family} relay address per server: the first is taken; run a second server for the other");
        for other in relay_ips.iter().skip(1).filter(|other| other.value != first.value) {
            conf.find(Some(other.spot), "relay-ip", FindingKind::NotConverted, Grade::Clients, &message);
        }
    } else if !conf.relay_ips.is_empty() {
        bind = Bind::Off;
    } else if let Some(private) = externals.iter().find_map(|at| at.value.1) {
        bind = Bind::Address(private);
    } else if let Some(first) = listening_ips.iter().find(|at| !at.value.is_loopback()).or(listening_ips.first()) {
        bind = Bind::Address(first.value);
        for other in listening_ips.iter().filter(|other| other.value != first.value && !other.value.is_loopback()) {
            let message = format!(
                "coturn relays from the address that the client reached, this server from {} always",
                first.value
            );
            conf.find(Some(other.spot), "listening-ip", FindingKind::Note, Grade::Clients, &message);
        }
    } else if externals.is_empty() && conf.names_listening_ip {
        // coturn relays from its listening addresses only.
        let is_named = !conf.listening_ips.is_empty();
        if is_named && conf.listening_ips.iter().all(|at| !at.value.is_unspecified()) {
            bind = Bind::Off;
        }
    }
    let external = match bind {
        Bind::Off => None,
        Bind::Auto => externals.iter().find(|at| at.value.1.is_none()),
        Bind::Address(ip) => {
            let mapped = externals.iter().find(|at| at.value.1 == Some(ip));
            mapped.or_else(|| externals.iter().find(|at| at.value.1.is_none()))
        }
    };
    for other in externals.iter().filter(|other| external.is_none_or(|taken| taken.spot != other.spot)) {
        let message = match bind {
            Bind::Off => format!("no {family} relay address is left to stand for"),
            _ => format!(
                "one {family} relay address per server, and this is not its public address; run a second server"
            ),
        };
        conf.find(Some(other.spot), "external-ip", FindingKind::NotConverted, Grade::Clients, &message);
    }
    Relay { bind, external: external.map(|at| at.value.0) }
}

/// The relay ports, clear of well-known ports and of the ports of UDP listeners.
pub(super) fn relay_ports(conf: &mut Conf, udp_ports: &[u16]) -> (u16, u16) {
    let spot = conf.min_port.as_ref().or(conf.max_port.as_ref()).map(|port| port.spot);
    let low = conf.min_port.as_ref().map_or(RELAY_PORTS.0, |port| port.value);
    let high = conf.max_port.as_ref().map_or(RELAY_PORTS.1, |port| port.value);
    let wanted = (low.max(1024), high);
    if low > high || wanted.0 > wanted.1 {
        let message = "the range is empty, or below 1024 altogether; 49152-65535 is taken";
        conf.find(spot, "min-port", FindingKind::Invalid, Grade::Clients, message);
    } else if low < 1024 {
        conf.find(spot, "min-port", FindingKind::Note, Grade::Operation, "relay ports begin at 1024 here");
    }
    let range = if wanted.0 > wanted.1 || low > high { RELAY_PORTS } else { wanted };
    let clear = longest_gap(range, udp_ports);
    if clear != Some(range) {
        let message =
            "a UDP listener's port cannot be a relay port; the longest part of the range without one is taken";
        conf.find(spot, "min-port", FindingKind::Note, Grade::Operation, message);
    }
    clear.or_else(|| longest_gap((1024, u16::MAX), udp_ports)).unwrap_or(RELAY_PORTS)
}

fn longest_gap((low, high): (u16, u16), taken: &[u16]) -> Option<(u16, u16)> {
    let mut taken: Vec<u32> =
        taken.iter().filter(|port| (low..=high).contains(port)).map(|port| u32::from(*port)).collect();
    taken.sort_unstable();
    taken.push(u32::from(high) + 1);
    let mut first = u32::from(low);
    let mut best: Option<(u32, u32)> = None;
    for port in taken {
        if port > first && best.is_none_or(|(low, high)| port - first > high - low + 1) {
            best = Some((first, port - 1));
        }
        first = port + 1;
    }
    let (low, high) = best?;
    Some((u16::try_from(low).ok()?, u16::try_from(high).ok()?))
}

pub(super) fn own_addresses(conf: &Conf) -> Vec<IpAddr> {
    let named = conf.listening_ips.iter().chain(&conf.relay_ips).map(|at| at.value);
    let external = conf.external_ips.iter().flat_map(|at| [Some(at.value.0), at.value.1]).flatten();
    let extra = conf.extra_listeners.iter().map(|at| at.value.ip);
    named.chain(extra).chain(external).filter(|ip| !ip.is_unspecified()).collect()
}
