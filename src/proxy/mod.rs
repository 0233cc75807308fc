//! The header by which a proxy says whose connection, or datagram, it passes on: the PROXY protocol, versions 1 and 2
//! (haproxy's `proxy-protocol.txt`). Bytes in, addresses out; nothing here reads a socket.
//!
//! A header is expected from the proxies that the configuration names, and from nobody else: what comes first is never guessed.

mod binary;
mod crc32c;
mod text;
mod tlv;

use std::net::SocketAddr;

/// The longest header that is read. The addresses take 52 bytes; a proxy may add what it knows of the client's TLS.
pub const HEADER_MAX: usize = 4096;

/// What a header must be about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carried {
    /// A connection.
    Stream,
    /// A datagram, which has the whole header in front of its payload.
    Datagram,
}

/// A header, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Its bytes; what follows is the client's.
    pub len: usize,
    /// Whose connection it is. Nothing where the proxy speaks for itself, as a health check does (LOCAL), or does not know
    /// (UNKNOWN, AF_UNSPEC): then the ends of the proxy's own connection count.
    pub ends: Option<Ends>,
}

/// The two ends of what a proxy has accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ends {
    /// Who has connected to the proxy.
    pub client: SocketAddr,
    /// Where.
    pub server: SocketAddr,
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

/// Reads the header in front of a connection's bytes; nothing while it is incomplete.
///
/// # Errors
/// [`HeaderError`], as soon as it can be known.
pub fn read_stream_header(bytes: &[u8]) -> Result<Option<Header>, HeaderError> {
    if may_begin(bytes, binary::SIGNATURE) {
        binary::read(bytes, Carried::Stream)
    } else if may_begin(bytes, text::SIGNATURE) {
        text::read(bytes)
    } else {
        Err(HeaderError::Missing)
    }
}

/// Reads the header in front of a datagram's payload: it is there as a whole, and of version 2.
///
/// # Errors
/// [`HeaderError`].
pub fn read_datagram_header(bytes: &[u8]) -> Result<Header, HeaderError> {
    if bytes.len() < binary::SIGNATURE.len() || !may_begin(bytes, binary::SIGNATURE) {
        return Err(HeaderError::Missing);
    }
    binary::read(bytes, Carried::Datagram)?.ok_or(HeaderError::Malformed("the header is cut off"))
}

/// Whether bytes are as much of a signature as they can be.
fn may_begin(bytes: &[u8], signature: &[u8]) -> bool {
    bytes.iter().zip(signature).all(|(byte, expected)| byte == expected)
}

#[cfg(test)]
mod tests;
