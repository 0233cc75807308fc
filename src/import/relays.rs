//! Which addresses and ports the relays have: from relay-ip, external-ip and listening-ip to `[relay]`.

use std::net::IpAddr;

use super::conf::{At, Conf};
use super::findings::{FindingKind, Grade};

const RELAY_PORTS: (u16, u16) = (49152, 65535);
/// As many shared ports as coturn has with four threads.
const SHARED_PORTS: u64 = 8;
/// What `[relay]` takes of each family.
const RELAY_ADDRESSES_MAX: usize = 16;

/// The relay addresses of one family.
pub(super) struct Relay {
    pub(super) bind: Bind,
    /// What clients are told in place of an address: the public one, and which it stands for if there are several.
    pub(super) externals: Vec<(IpAddr, Option<IpAddr>)>,
    /// Whether a client gets the address that it has reached.
    pub(super) is_reached: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Bind {
    Auto,
    Off,
    Addresses(Vec<IpAddr>),
}

impl Relay {
    /// The addresses of the host, as far as the file says them.
    pub(super) fn binds(&self) -> &[IpAddr] {
        match &self.bind {
            Bind::Auto | Bind::Off => &[],
            Bind::Addresses(binds) => binds,
        }
    }

    /// The addresses that clients and peers see, as far as the file says them.
    pub(super) fn told(&self) -> Vec<IpAddr> {
        let has_one = self.binds().len() < 2;
        let is_mapped = |bind: &IpAddr| {
            self.externals.iter().any(|(_, private)| private.map_or(has_one, |private| private == *bind))
        };
        let plain = self.binds().iter().copied().filter(|bind| !is_mapped(bind));
        self.externals.iter().map(|(public, _)| *public).chain(plain).collect()
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
        let mut seen = Vec::new();
        let is_new = |at: &&At<IpAddr>| {
            !seen.contains(&at.value) && {
                seen.push(at.value);
                true
            }
        };
        ips.iter().filter(usable).filter(is_new).cloned().collect()
    };
    let privates: Vec<_> = externals.iter().filter_map(|at| Some(At { spot: at.spot, value: at.value.1? })).collect();
    let (relay_ips, listening_ips) = (of_family(&conf.relay_ips), of_family(&conf.listening_ips));
    let on_loopback = listening_ips.iter().all(|at| at.value.is_loopback());
    let listening: Vec<_> = listening_ips.iter().filter(|at| on_loopback || !at.value.is_loopback()).cloned().collect();
    let is_off = conf.names_listening_ip
        && !conf.listening_ips.is_empty()
        && conf.listening_ips.iter().all(|at| !at.value.is_unspecified());
    let (directive, named) = match () {
        () if !conf.relay_ips.is_empty() => ("relay-ip", relay_ips),
        () if !privates.is_empty() => ("external-ip", of_family(&privates)),
        () => ("listening-ip", listening),
    };
    // coturn relays from its listening addresses only.
    let is_off = !conf.relay_ips.is_empty() || (externals.is_empty() && is_off);
    if named.is_empty() {
        let unpaired = || externals.iter().filter(|at| at.value.1.is_none());
        let external = if is_off { None } else { unpaired().next() };
        let externals = external.map(|at| (at.value.0, None)).into_iter().collect();
        let spare = conf.external_ips.iter().filter(|at| at.value.0.is_ipv4() == is_ipv4);
        let spare: Vec<_> = spare.filter(|at| external.is_none_or(|taken| taken.spot != at.spot)).cloned().collect();
        lose_externals(conf, family, is_off, &spare);
        return Relay { bind: if is_off { Bind::Off } else { Bind::Auto }, externals, is_reached: false };
    }
    let mut relay =
        Relay { bind: Bind::Off, externals: Vec::new(), is_reached: directive != "relay-ip" && named.len() > 1 };
    let (mut binds, mut taken) = (Vec::new(), Vec::new());
    let mut unpaired = externals.iter().find(|at| at.value.1.is_none());
    let has_unpaired = unpaired.is_some();
    for At { spot, value: bind } in named {
        let paired = externals.iter().find(|at| at.value.1 == Some(bind));
        let external = paired.or_else(|| unpaired.take());
        if binds.len() >= RELAY_ADDRESSES_MAX || (external.is_none() && has_unpaired) {
            let message = match external {
                Some(_) => format!("beyond the {RELAY_ADDRESSES_MAX} {family} relay addresses that a server may have"),
                None => {
                    "the public address stands for one of them; write external-ip as PUBLIC/PRIVATE for each".to_owned()
                }
            };
            conf.find(Some(spot), directive, FindingKind::NotConverted, Grade::Clients, &message);
            continue;
        }
        binds.push(bind);
        if let Some(external) = external {
            taken.push(external.spot);
            relay.externals.push((external.value.0, Some(bind)));
        }
    }
    if let ([_], [(_, private)]) = (&*binds, &mut *relay.externals) {
        *private = None;
    }
    relay.bind = Bind::Addresses(binds);
    let spare: Vec<_> = externals.iter().filter(|at| !taken.contains(&at.spot)).cloned().collect();
    lose_externals(conf, family, false, &spare);
    relay
}

/// Public addresses that stand for nothing.
fn lose_externals(conf: &mut Conf, family: &str, is_off: bool, spare: &[At<(IpAddr, Option<IpAddr>)>]) {
    let message = match is_off {
        true => format!("no {family} relay address is left to stand for"),
        false => format!("it is not the public address of an {family} relay address"),
    };
    for other in spare {
        conf.find(Some(other.spot), "external-ip", FindingKind::NotConverted, Grade::Clients, &message);
    }
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

/// The relay ports that allocations share. coturn has two for each of its threads, of which each family uses one; here each port is
/// for both families.
pub(super) fn shared_ports(conf: &mut Conf, udp_ports: &[u16]) -> (u16, u16) {
    if conf.tcp_relay == Some(true) {
        conf.tcp_relay = Some(false);
        let message = "TCP relays (RFC 6062) need a port for each allocation, and are not to be had with multiplex-peer: left out";
        conf.find(None, "[relay]", FindingKind::NotConverted, Grade::Clients, message);
    }
    if conf.mobility == Some(true) && conf.workers != Some(1) {
        conf.mobility = Some(false);
        let message = "an allocation cannot move to another worker (mobility) where ports are shared (multiplex-peer): left out; with workers = 1 \
                       both are to be had";
        conf.find(None, "mobility", FindingKind::NotConverted, Grade::Clients, message);
    }
    const COTURN_PORT: u16 = 3480;
    let wanted = conf.multiplex_port.as_ref().map_or(COTURN_PORT, |port| port.value).max(1024);
    let count = u16::try_from(conf.workers.unwrap_or(SHARED_PORTS / 2) * 2).unwrap_or(u16::MAX);
    let clear = longest_gap((wanted, wanted.saturating_add(count.saturating_sub(1))), udp_ports);
    if let Some((low, high)) = clear.filter(|(low, high)| high - low >= count.saturating_sub(1)) {
        return (low, high);
    }
    let spot = conf.multiplex_port.as_ref().map(|port| port.spot);
    let message = "a UDP listener's port cannot be a relay port; ports elsewhere are taken";
    conf.find(spot, "multiplex-peer-port", FindingKind::Note, Grade::Operation, message);
    let elsewhere = longest_gap((COTURN_PORT, u16::MAX), udp_ports);
    elsewhere.map_or(RELAY_PORTS, |(low, high)| (low, high.min(low.saturating_add(count.saturating_sub(1)))))
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
