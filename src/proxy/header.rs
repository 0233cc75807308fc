//! What a header says, and why one is refused.

use std::net::SocketAddr;

/// The longest header that is read. The addresses take 52 bytes; a proxy may add what it knows of the client's TLS.
pub const HEADER_MAX: usize = 4096;

/// What a header must be about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carried {
    /// A connection.
    Stream,
    /// A datagram, which has the whole header in front of its payload.
    Datagram,
}

/// A header, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Its bytes; what follows is the client's.
    pub len: usize,
    /// Whose connection it is. Nothing where the proxy speaks for itself, as a health check does (LOCAL), or does not know
    /// (UNKNOWN, AF_UNSPEC): then the ends of the proxy's own connection count.
    pub ends: Option<Ends>,
    /// The server name that the client has asked for, if the proxy has ended its TLS and says so (PP2_TYPE_AUTHORITY).
    pub server_name: Option<Box<str>>,
}

/// The two ends of what a proxy has accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ends {
    /// Who has connected to the proxy.
    pub client: SocketAddr,
    /// Where.
    pub server: SocketAddr,
}

impl Ends {
    /// Of what a header says. A proxy whose listener takes both families writes IPv4 as mapped IPv6: here it is IPv4 again.
    pub(super) fn of(client: SocketAddr, server: SocketAddr) -> Self {
        let plain = |end: SocketAddr| SocketAddr::new(end.ip().to_canonical(), end.port());
        Self { client: plain(client), server: plain(server) }
    }
}

/// Why a header is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// The first bytes are those of no header.
    #[error("no header in front")]
    Missing,
    /// It is longer than any proxy makes it.
    #[error("the header is too long")]
    TooLong,
    /// It is not written as the protocol says.
    #[error("{0}")]
    Malformed(&'static str),
    /// It is about something else than this listener serves.
    #[error("{0}")]
    Unsupported(&'static str),
    /// Its bytes have changed on the way.
    #[error("the checksum is wrong")]
    Checksum,
}
