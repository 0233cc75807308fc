//! Finds out what defaults depend on: the cores, and the addresses that packets to the outside leave from.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use crate::addr::{Family, unspecified};
use crate::config::Host;

/// Addresses elsewhere, none of which a packet is sent to. The first ones are for documentation; a host may have a route of its
/// own for them, that leads nowhere, but hardly for all.
const ELSEWHERE_IPV4: [Ipv4Addr; 3] =
    [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(203, 0, 113, 1), Ipv4Addr::new(198, 41, 0, 4)];
const ELSEWHERE_IPV6: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), Ipv6Addr::new(0x2001, 0x503, 0xba3e, 0, 0, 0, 2, 0x30)];

/// Asks the machine. No packet is sent: connecting a UDP socket only makes the kernel choose a source address.
pub fn detect() -> Host {
    let ipv4 = match way_out(Family::V4) {
        Some(IpAddr::V4(ip)) => Some(ip),
        _ => None,
    };
    let ipv6 = match way_out(Family::V6) {
        Some(IpAddr::V6(ip)) => Some(ip),
        _ => None,
    };
    Host {
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        ipv4,
        ipv6,
        // Not whether there is an IPv6 address: one may come later.
        has_ipv6: can_bind(IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
    }
}

/// The address of a family that packets to the outside leave from.
pub(crate) fn way_out(family: Family) -> Option<IpAddr> {
    let from = |ip: IpAddr| source_towards(unspecified(family), SocketAddr::new(ip, 9));
    match family {
        Family::V4 => ELSEWHERE_IPV4.into_iter().find_map(|ip| from(IpAddr::V4(ip))),
        Family::V6 => ELSEWHERE_IPV6.into_iter().find_map(|ip| from(IpAddr::V6(ip))),
    }
}

/// Whether a socket can be bound to an address.
pub(crate) fn can_bind(ip: IpAddr) -> bool {
    UdpSocket::bind(SocketAddr::new(ip, 0)).is_ok()
}

fn source_towards(bind: SocketAddr, towards: SocketAddr) -> Option<IpAddr> {
    let socket = UdpSocket::bind(bind).ok()?;
    socket.connect(towards).ok()?;
    let ip = socket.local_addr().ok()?.ip();
    let is_link_local = matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local());
    (!ip.is_unspecified() && !ip.is_loopback() && !is_link_local).then_some(ip)
}
