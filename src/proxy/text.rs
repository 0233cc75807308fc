//! Version 1: one line of text (section 2.1).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::header::{Ends, Header, HeaderError};

pub(super) const SIGNATURE: &[u8] = b"PROXY ";

/// The longest line, its end included.
const LINE_MAX: usize = 107;

pub(super) fn read(bytes: &[u8]) -> Result<Option<Header>, HeaderError> {
    let Some(end) = bytes.iter().take(LINE_MAX).position(|byte| *byte == b'\n') else {
        return if bytes.len() < LINE_MAX { Ok(None) } else { Err(HeaderError::TooLong) };
    };
    let line = bytes.get(..end).and_then(|line| line.strip_suffix(b"\r")).ok_or(MALFORMED_END)?;
    let line = std::str::from_utf8(line).map_err(|_| HeaderError::Malformed("the line is not text"))?;
    let ends = read_line(line.strip_prefix("PROXY ").ok_or(HeaderError::Missing)?)?;
    Ok(Some(Header { len: end + 1, ends, server_name: None }))
}

const MALFORMED_END: HeaderError = HeaderError::Malformed("the line does not end with CR LF");

fn read_line(line: &str) -> Result<Option<Ends>, HeaderError> {
    let mut words = line.split(' ');
    let family = words.next().unwrap_or_default();
    let ip: fn(&str) -> Option<IpAddr> = match family {
        // What follows is to be ignored.
        "UNKNOWN" => return Ok(None),
        "TCP4" => |text| text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        "TCP6" => |text| text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        _ => return Err(HeaderError::Unsupported("the line names neither TCP4, TCP6 nor UNKNOWN")),
    };
    let mut address = || ip(words.next()?);
    let addresses = address().zip(address()).ok_or(HeaderError::Malformed("an address is not one of its family"))?;
    let mut port = || read_port(words.next()?);
    let ports = port().zip(port()).ok_or(HeaderError::Malformed("a port is not one"))?;
    if words.next().is_some() {
        return Err(HeaderError::Malformed("the line has more than two addresses and two ports"));
    }
    let client = SocketAddr::new(addresses.0, ports.0);
    let server = SocketAddr::new(addresses.1, ports.1);
    Ok(Some(Ends::of(client, server)))
}

/// Digits, without a sign or a zero in front.
fn read_port(text: &str) -> Option<u16> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| is_plain)
}
