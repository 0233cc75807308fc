//! Version 2: binary (section 2.2).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::header::{Carried, Ends, HEADER_MAX, Header, HeaderError};
use super::tlv;
use crate::addr::Family;

pub(super) const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Signature, version and command, family and protocol, length.
const FIXED: usize = 16;

const LOCAL: u8 = 0;
const PROXY: u8 = 1;

pub(super) fn read(bytes: &[u8], carried: Carried) -> Result<Option<Header>, HeaderError> {
    let Some((&[version, family, high, low], rest)) = bytes.get(SIGNATURE.len()..).and_then(<[u8]>::split_first_chunk)
    else {
        return Ok(None);
    };
    if version >> 4 != 2 {
        return Err(HeaderError::Unsupported("the version is not 2"));
    }
    let rest_len = usize::from(u16::from_be_bytes([high, low]));
    let len = FIXED + rest_len;
    if len > HEADER_MAX {
        return Err(HeaderError::TooLong);
    }
    let family_of_ends = match (version & 0xF, family >> 4) {
        // What LOCAL and AF_UNSPEC bring along is to be skipped, whatever it is.
        (LOCAL, _) | (PROXY, 0) => None,
        (PROXY, 1) => Some(Family::V4),
        (PROXY, 2) => Some(Family::V6),
        (PROXY, 3) => return Err(HeaderError::Unsupported("the client is a process of the proxy's host (AF_UNIX)")),
        (PROXY, _) => return Err(HeaderError::Unsupported("the address family is none")),
        _ => return Err(HeaderError::Unsupported("the command is neither LOCAL nor PROXY")),
    };
    match (family_of_ends, family & 0xF, carried) {
        (None, ..) | (_, 1, Carried::Stream) | (_, 2, Carried::Datagram) => {}
        (_, 2, Carried::Stream) => return Err(HeaderError::Unsupported("it is about a datagram")),
        (_, 1, Carried::Datagram) => return Err(HeaderError::Unsupported("it is about a connection")),
        _ => return Err(HeaderError::Unsupported("it is about neither a connection nor a datagram")),
    }
    if family_of_ends.is_some_and(|family| rest_len < ends_len(family)) {
        return Err(TOO_SHORT);
    }
    let (Some(header), Some(rest)) = (bytes.get(..len), rest.get(..rest_len)) else { return Ok(None) };
    let Some(family) = family_of_ends else { return Ok(Some(Header { len, ends: None, server_name: None })) };
    let ends = match family {
        Family::V4 => rest.first_chunk().map(ends_of_v4),
        Family::V6 => rest.first_chunk().map(ends_of_v6),
    };
    let server_name = tlv::read(header, FIXED + ends_len(family))?;
    Ok(Some(Header { len, ends: Some(ends.ok_or(TOO_SHORT)?), server_name }))
}

/// A header for a connection. If its ends are of two families, both are written as IPv6.
pub(super) fn write(Ends { client, server }: Ends) -> Vec<u8> {
    let (family, ips) = match (client.ip(), server.ip()) {
        (IpAddr::V4(client), IpAddr::V4(server)) => (0x11, [client.octets(), server.octets()].concat()),
        (client, server) => (0x21, [client, server].map(|ip| to_v6(ip).octets()).concat()),
    };
    let ports = [client, server].map(|end| end.port().to_be_bytes()).concat();
    // 12 or 36.
    let len = (ips.len() + ports.len()) as u8;
    [SIGNATURE, &[0x20 | PROXY, family, 0, len], &ips, &ports].concat()
}

fn to_v6(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}

const TOO_SHORT: HeaderError = HeaderError::Malformed("it is too short for its addresses");

/// Two addresses and two ports.
fn ends_len(family: Family) -> usize {
    match family {
        Family::V4 => 2 * (4 + 2),
        Family::V6 => 2 * (16 + 2),
    }
}

fn ends_of_v4(bytes: &[u8; 12]) -> Ends {
    let &[a, b, c, d, e, f, g, h, i, j, k, l] = bytes;
    let client = SocketAddr::from((Ipv4Addr::new(a, b, c, d), u16::from_be_bytes([i, j])));
    let server = SocketAddr::from((Ipv4Addr::new(e, f, g, h), u16::from_be_bytes([k, l])));
    Ends::of(client, server)
}

fn ends_of_v6(bytes: &[u8; 36]) -> Ends {
    let (mut client, mut server, mut ports) = ([0; 16], [0; 16], [0; 4]);
    let mut bytes = bytes.iter();
    let into = client.iter_mut().chain(&mut server).chain(&mut ports);
    into.zip(&mut bytes).for_each(|(to, from)| *to = *from);
    let [a, b, c, d] = ports;
    let client = SocketAddr::from((Ipv6Addr::from(client), u16::from_be_bytes([a, b])));
    let server = SocketAddr::from((Ipv6Addr::from(server), u16::from_be_bytes([c, d])));
    Ends::of(client, server)
}
