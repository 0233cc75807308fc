//! Finds out what defaults depend on: the cores, and the addresses that packets to the outside leave from.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use crate::config::Host;

/// Asks the machine. No packet is sent: connecting a UDP socket only makes the kernel choose a source address.
pub fn detect() -> Host {
    let ipv4 = match source_towards((Ipv4Addr::UNSPECIFIED, 0).into(), (Ipv4Addr::new(192, 0, 2, 1), 9).into()) {
        Some(IpAddr::V4(ip)) => Some(ip),
        _ => None,
    };
    let documentation = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
    let ipv6 = match source_towards((Ipv6Addr::UNSPECIFIED, 0).into(), (documentation, 9).into()) {
        Some(IpAddr::V6(ip)) if !ip.is_unicast_link_local() => Some(ip),
        _ => None,
    };
    Host {
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        ipv4,
        ipv6,
        has_ipv6: UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok(),
    }
}

fn source_towards(bind: SocketAddr, towards: SocketAddr) -> Option<IpAddr> {
    let socket = UdpSocket::bind(bind).ok()?;
    socket.connect(towards).ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_unspecified() && !ip.is_loopback()).then_some(ip)
}
