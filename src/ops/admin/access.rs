//! Who may use the API. On a port, a web page that the operator's browser shows must not reach it either.

use std::net::IpAddr;

use hyper::Request;
use hyper::header::{AUTHORIZATION, HOST, ORIGIN};
use hyper::http::uri::Authority;

use super::error::Refused;
use crate::config::AdminToken;

/// Checks where a request comes from, and its token if one is configured.
pub(super) fn check<B>(request: &Request<B>, is_port: bool, token: Option<&AdminToken>) -> Result<(), Refused> {
    if is_port {
        check_host(request)?;
    }
    let Some(token) = token else { return Ok(()) };
    let Some(given) = request.headers().get(AUTHORIZATION) else {
        return Err(Refused::unauthorized("expected the header Authorization: Bearer TOKEN"));
    };
    match bearer(given.as_bytes()) {
        Some(given) if token.is(given) => Ok(()),
        Some(_) => Err(Refused::unauthorized("the token is wrong")),
        None => Err(Refused::unauthorized("the header Authorization is not Bearer TOKEN")),
    }
}

/// A page of any site may send requests to a port on loopback: browsers mark them with Origin, and by the name under which the page
/// got a loopback address (DNS rebinding) in Host.
fn check_host<B>(request: &Request<B>) -> Result<(), Refused> {
    if request.headers().contains_key(ORIGIN) {
        return Err(Refused::forbidden("requests of web pages (with an Origin header) are refused"));
    }
    let mut hosts = request.headers().get_all(HOST).into_iter();
    let host = hosts.next().and_then(|host| host.to_str().ok()?.parse::<Authority>().ok());
    let is_local = host.is_some_and(|host| is_loopback(host.host()));
    let target_is_local = request.uri().host().is_none_or(is_loopback);
    match is_local && target_is_local && hosts.next().is_none() {
        true => Ok(()),
        false => {
            Err(Refused::forbidden("the Host header names no loopback address; expected localhost, 127.0.0.1 or [::1]"))
        }
    }
}

fn is_loopback(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn bearer(header: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = header.split_at_checked(6)?;
    let token = token.strip_prefix(b" ")?;
    scheme.eq_ignore_ascii_case(b"Bearer").then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_refused(headers: &[(&str, &str)]) -> bool {
        let builder =
            headers.iter().fold(Request::get("/v1/status"), |builder, (name, value)| builder.header(*name, *value));
        check(&builder.body(()).unwrap(), true, None).is_err()
    }

    #[test]
    fn only_loopback_names_are_this_host() {
        for host in ["localhost", "LocalHost:9642", "127.0.0.1", "127.1.2.3:9642", "[::1]", "[::1]:9642"] {
            assert!(!is_refused(&[("host", host)]), "{host}");
        }
        for host in
            ["evil.example", "localhost.evil.example", "192.0.2.1", "[2001:db8::1]:9642", "", "localhost@evil.example"]
        {
            assert!(is_refused(&[("host", host)]), "{host}");
        }
        assert!(is_refused(&[]));
        assert!(is_refused(&[("host", "localhost"), ("host", "evil.example")]));
        assert!(is_refused(&[("host", "localhost"), ("origin", "http://localhost")]));
        let absolute = Request::get("http://evil.example/v1/status").header("host", "localhost").body(()).unwrap();
        assert!(check(&absolute, true, None).is_err());
    }

    #[test]
    fn a_bearer_token_is_all_that_follows_the_space() {
        assert_eq!(bearer(b"Bearer abc"), Some(b"abc".as_slice()));
        assert_eq!(bearer(b"bearer abc "), Some(b"abc ".as_slice()));
        for header in ["", "Bearer", "Basic abc", "Bearerabc", "Token abc"] {
            assert_eq!(bearer(header.as_bytes()), None, "{header}");
        }
    }
}
