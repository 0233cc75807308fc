//! The three kinds of transport address of RFC 8656, as types that cannot be swapped, and the transports.

mod logged;
mod reach;
mod transport;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

pub use logged::{Logged, LoggedAddresses, LoggedIp, NotAChoice};
pub use reach::Reach;
pub use transport::{Framing, SocketKind, Transport};

/// An IP address family (RFC 8656 section 18.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4, wire value 0x01.
    V4,
    /// IPv6, wire value 0x02.
    V6,
}

impl Family {
    /// Both, for metrics that start at zero.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The family of an IP address.
    pub fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// The wire value: 0x01 or 0x02.
    pub fn to_wire(self) -> u8 {
        match self {
            Self::V4 => 1,
            Self::V6 => 2,
        }
    }

    /// The family of a wire value, if it is one of the two.
    pub fn from_wire(value: u8) -> Option<Self> {
        match value {
            1 => Some(Self::V4),
            2 => Some(Self::V6),
            _ => None,
        }
    }

    /// The name used in logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::V4 => "ipv4",
            Self::V6 => "ipv6",
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A client's transport address as the server sees it (RFC 8489: reflexive transport address).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientAddr(SocketAddr);

impl ClientAddr {
    /// Takes the source address of a datagram or connection; an IPv4-mapped address becomes IPv4. A link-local address
    /// keeps its scope, because answers must leave by the same interface.
    pub fn new(addr: SocketAddr) -> Self {
        match addr {
            SocketAddr::V6(v6) if v6.ip().is_unicast_link_local() => Self(addr),
            _ => Self(plain(addr)),
        }
    }

    /// The address.
    pub fn get(self) -> SocketAddr {
        self.0
    }
}

impl fmt::Display for ClientAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A peer's transport address. It never holds an IPv4-mapped IPv6 address, flow label or scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerAddr(SocketAddr);

/// A peer was named by an IPv4-mapped IPv6 address, a form that no peer has (RFC 8656 peers use family 1 for IPv4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MappedPeer;

impl PeerAddr {
    /// Takes an address from XOR-PEER-ADDRESS or from a relay socket.
    ///
    /// # Errors
    /// [`MappedPeer`] when the address is `::ffff:a.b.c.d`.
    pub fn new(addr: SocketAddr) -> Result<Self, MappedPeer> {
        match addr {
            SocketAddr::V6(v6) if v6.ip().to_ipv4_mapped().is_some() => Err(MappedPeer),
            SocketAddr::V6(v6) => Ok(Self(SocketAddr::new(IpAddr::V6(*v6.ip()), v6.port()))),
            SocketAddr::V4(_) => Ok(Self(addr)),
        }
    }

    /// The address.
    pub fn get(self) -> SocketAddr {
        self.0
    }

    /// The IP address, the part a permission is about (RFC 8656 section 9).
    pub fn ip(self) -> IpAddr {
        self.0.ip()
    }

    /// The port.
    pub fn port(self) -> u16 {
        self.0.port()
    }

    /// The address family.
    pub fn family(self) -> Family {
        Family::of(self.0.ip())
    }
}

impl fmt::Display for PeerAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A relayed transport address as clients and peers see it: after `external-ip` mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RelayedAddr(SocketAddr);

impl RelayedAddr {
    /// Takes the address that XOR-RELAYED-ADDRESS will carry.
    pub fn new(addr: SocketAddr) -> Self {
        Self(addr)
    }

    /// The address.
    pub fn get(self) -> SocketAddr {
        self.0
    }

    /// The address family.
    pub fn family(self) -> Family {
        Family::of(self.0.ip())
    }

    /// The same address seen from another allocation, whose peer it is.
    pub fn as_peer(self) -> PeerAddr {
        PeerAddr(plain(self.0))
    }
}

impl fmt::Display for RelayedAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A client connection's identity (RFC 8656 section 2): client address, server address, transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FiveTuple {
    /// The transport between client and server.
    pub transport: Transport,
    /// The client's address and port.
    pub client: ClientAddr,
    /// The server's address and port that the client sent to.
    pub server: SocketAddr,
}

fn plain(addr: SocketAddr) -> SocketAddr {
    match addr {
        SocketAddr::V4(_) => addr,
        SocketAddr::V6(v6) => match v6.ip().to_ipv4_mapped() {
            Some(v4) => SocketAddr::new(IpAddr::V4(v4), v6.port()),
            None => SocketAddr::new(IpAddr::V6(*v6.ip()), v6.port()),
        },
    }
}

/// The unspecified address of a family, port 0.
pub fn unspecified(family: Family) -> SocketAddr {
    match family {
        Family::V4 => SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
        Family::V6 => SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0),
    }
}
