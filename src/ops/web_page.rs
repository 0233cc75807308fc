//! Keeps web pages that a browser on this host shows away from an endpoint on a loopback port.

use std::net::IpAddr;

use hyper::Request;
use hyper::header::{HOST, ORIGIN};
use hyper::http::uri::Authority;

/// A page of any site may send requests to a port on loopback: browsers mark them with Origin, and by the name under which the page
/// got a loopback address (DNS rebinding) in Host.
pub(super) fn refuse_web_pages<B>(request: &Request<B>) -> Result<(), &'static str> {
    if request.headers().contains_key(ORIGIN) {
        return Err("requests of web pages (with an Origin header) are refused");
    }
    let mut hosts = request.headers().get_all(HOST).into_iter();
    let host = hosts.next().and_then(|host| host.to_str().ok()?.parse::<Authority>().ok());
    let is_local = host.is_some_and(|host| is_loopback(host.host()));
    let target_is_local = request.uri().host().is_none_or(is_loopback);
    match is_local && target_is_local && hosts.next().is_none() {
        true => Ok(()),
        false => Err("the Host header names no loopback address; expected localhost, 127.0.0.1 or [::1]"),
    }
}

fn is_loopback(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_refused(headers: &[(&str, &str)]) -> bool {
        let builder =
            headers.iter().fold(Request::get("/v1/status"), |builder, (name, value)| builder.header(*name, *value));
        refuse_web_pages(&builder.body(()).unwrap()).is_err()
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
        assert!(refuse_web_pages(&absolute).is_err());
    }
}
