//! URLs of STUN and TURN servers, and the hosts in them.

use super::error::ValueError;

/// A URL of RFC 7064 or RFC 7065.
pub(super) fn parse_url(text: &str) -> Result<String, ValueError> {
    let wrong = || ValueError::is_not(text, "a URL of a STUN or TURN server");
    let (scheme, rest) = text.split_once(':').ok_or_else(wrong)?;
    let (authority, query) = rest.split_once('?').map_or((rest, None), |(authority, query)| (authority, Some(query)));
    let query_is_fit = match scheme {
        "stun" | "stuns" => query.is_none(),
        "turn" | "turns" => matches!(query, None | Some("transport=udp" | "transport=tcp")),
        _ => false,
    };
    let (host, _) = split_port(authority).filter(|_| query_is_fit).ok_or_else(wrong)?;
    parse_host(host)?;
    Ok(text.to_owned())
}

/// Host and port; an IPv6 address is in brackets.
pub(super) fn split_port(authority: &str) -> Option<(&str, Option<u16>)> {
    let end = authority.rfind(']').unwrap_or(0);
    match authority.get(end..)?.find(':') {
        None => Some((authority, None)),
        Some(at) => {
            let (host, port) = authority.split_at_checked(end + at)?;
            let port = port.get(1..)?.parse().ok().filter(|port| *port > 0)?;
            Some((host, Some(port)))
        }
    }
}

/// A host name, or an address as URLs have it.
pub(crate) fn parse_host(text: &str) -> Result<String, ValueError> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    if bare.parse::<std::net::Ipv6Addr>().is_ok() {
        return Ok(format!("[{bare}]"));
    }
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    if text.len() > 253 || !text.strip_suffix('.').unwrap_or(text).split('.').all(label) {
        return Err(ValueError::is_not(text, "a host name"));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_of_stun_and_turn_servers() {
        for good in [
            "turn:turn.example.org",
            "turn:turn.example.org:3478?transport=udp",
            "turns:203.0.113.5:443?transport=tcp",
            "turn:[2001:db8::5]:3478",
            "stun:turn.example.org:3478",
        ] {
            assert_eq!(parse_url(good).as_deref(), Ok(good));
        }
        for bad in [
            "",
            "turn.example.org",
            "turn:",
            "turn://a",
            "http://a",
            "stun:a?transport=udp",
            "turn:a?transport=tls",
            "turn:a:99999",
            "turn:[::1",
        ] {
            assert!(parse_url(bad).is_err(), "{bad}");
        }
    }
}
