//! The header by which a proxy says whose connection, or datagram, it passes on: the PROXY protocol, versions 1 and 2
//! (haproxy's `proxy-protocol.txt`). Bytes in, addresses out; nothing here reads a socket.
//!
//! A header is expected from the proxies that the configuration names, and from nobody else: what comes first is never guessed.

mod binary;
mod crc32c;
mod header;
mod text;
mod tlv;

pub use header::{Ends, HEADER_MAX, Header, HeaderError};

use header::Carried;

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

/// The header that says whose connection is passed on, in version 2.
pub fn stream_header(ends: Ends) -> Vec<u8> {
    binary::write(ends)
}

/// Whether bytes are as much of a signature as they can be.
fn may_begin(bytes: &[u8], signature: &[u8]) -> bool {
    bytes.iter().zip(signature).all(|(byte, expected)| byte == expected)
}

#[cfg(test)]
mod tests;
