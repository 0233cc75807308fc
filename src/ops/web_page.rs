//! Keeps web pages that a browser on this host shows away from an endpoint on a loopback port.

use std::net::IpAddr;

use hyper::Request;
use hyper::header::{HOST, HeaderValue, ORIGIN};
use hyper::http::uri::Authority;

/// Where an endpoint shows a page of its own, that page may send requests, and no other. Browsers mark what pages send with the page's
/// Origin, unless it is a GET to where the page came from, and with their relation (Sec-Fetch-Site). `is_document` is whether the answer is
/// a page that people open, by a link of another site, too.
pub(super) fn refuse_other_pages<B>(request: &Request<B>, is_document: bool) -> Result<(), &'static str> {
    let headers = request.headers();
    check_host(request)?;
    let host = headers.get(HOST).map(|host| host.as_bytes()).unwrap_or_default();
    let is_own = |origin: &HeaderValue| {
        origin.as_bytes().strip_prefix(b"http://").is_some_and(|origin| origin.eq_ignore_ascii_case(host))
    };
    if !headers.get_all(ORIGIN).into_iter().all(is_own) {
        return Err("requests of other web pages (with another Origin) are refused");
    }
    let fetch = |name: &str, values: &[&str]| headers.get(name).is_none_or(|value| values.iter().any(|of| value == of));
    let is_opened = is_document && fetch("sec-fetch-mode", &["navigate"]) && fetch("sec-fetch-dest", &["document"]);
    match is_opened || fetch("sec-fetch-site", &["same-origin", "none"]) {
        true => Ok(()),
        false => Err("requests of other web pages (with another Sec-Fetch-Site) are refused"),
    }
}

/// A page of any site may send requests to a port on loopback: browsers mark them with Origin, and by the name under which the page
/// got a loopback address (DNS rebinding) in Host.
pub(super) fn refuse_web_pages<B>(request: &Request<B>) -> Result<(), &'static str> {
    if request.headers().contains_key(ORIGIN) {
        return Err("requests of web pages (with an Origin header) are refused");
    }
    check_host(request)
}

fn check_host<B>(request: &Request<B>) -> Result<(), &'static str> {
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
        assert!(refuse_other_pages(&absolute, false).is_err());
    }

    #[test]
    fn a_page_of_its_own_may_ask_and_one_of_another_port_or_site_may_not() {
        let may = |is_document: bool, headers: &[(&str, &str)]| {
            let host = ("host", "localhost:9642");
            let builder = headers
                .iter()
                .chain([&host])
                .fold(Request::get("/"), |builder, (name, value)| builder.header(*name, *value));
            refuse_other_pages(&builder.body(()).unwrap(), is_document).is_ok()
        };
        let (own, site) = (("origin", "http://localhost:9642"), "sec-fetch-site");
        assert!(may(false, &[]) && may(false, &[own]) && may(false, &[own, (site, "same-origin")]));
        assert!(may(false, &[(site, "none")]));
        for origin in [
            "http://localhost:3000",
            "http://localhost",
            "http://127.0.0.1:9642",
            "https://localhost:9642",
            "http://localhost:9642.evil.example",
            "http://evil.example",
            "null",
            "",
        ] {
            assert!(!may(false, &[("origin", origin)]) && !may(true, &[("origin", origin)]), "{origin}");
        }
        assert!(!may(false, &[own, ("origin", "http://evil.example")]));
        // A link elsewhere opens the page; an image, a frame or a script elsewhere gets nothing.
        let (mode, dest) = ("sec-fetch-mode", "sec-fetch-dest");
        for relation in ["cross-site", "same-site"] {
            let link = [(site, relation), (mode, "navigate"), (dest, "document")];
            assert!(may(true, &link) && !may(false, &link), "{relation}");
            for (mode_of, dest_of) in [("no-cors", "image"), ("navigate", "iframe"), ("cors", "empty")] {
                let part = [(site, relation), (mode, mode_of), (dest, dest_of)];
                assert!(!may(true, &part) && !may(false, &part), "{relation} {mode_of} {dest_of}");
            }
        }
        let elsewhere = Request::get("/").header("host", "evil.example").body(()).unwrap();
        assert!(refuse_other_pages(&elsewhere, true).is_err());
    }
}
