//! What the configuration needs to know of the machine: cores, and the addresses it reaches the outside with.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// The machine, as far as defaults depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host {
    /// Cores this process may use (affinity and cgroup limits included).
    pub cores: usize,
    /// The IPv4 address that packets to the outside leave from.
    pub ipv4: Option<Ipv4Addr>,
    /// The IPv6 address that packets to the outside leave from.
    pub ipv6: Option<Ipv6Addr>,
    /// Whether IPv6 sockets can be opened at all.
    pub has_ipv6: bool,
}

impl Host {
    /// Asks the machine. No packet is sent: connecting a UDP socket only makes the kernel choose a source address.
    pub fn detect() -> Self {
        let ipv4 = match source_towards((Ipv4Addr::UNSPECIFIED, 0).into(), (Ipv4Addr::new(192, 0, 2, 1), 9).into()) {
            Some(IpAddr::V4(ip)) => Some(ip),
            _ => None,
        };
        let documentation = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
        let ipv6 = match source_towards((Ipv6Addr::UNSPECIFIED, 0).into(), (documentation, 9).into()) {
            Some(IpAddr::V6(ip)) if !ip.is_unicast_link_local() => Some(ip),
            _ => None,
        };
        Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            ipv4,
            ipv6,
            has_ipv6: UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok(),
        }
    }
}

fn source_towards(bind: SocketAddr, towards: SocketAddr) -> Option<IpAddr> {
    let socket = UdpSocket::bind(bind).ok()?;
    socket.connect(towards).ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_unspecified() && !ip.is_loopback()).then_some(ip)
}
