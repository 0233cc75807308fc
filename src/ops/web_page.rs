//! Keeps web pages that a browser on this host shows away from an endpoint on a loopback port.

use std::net::IpAddr;

use hyper::Request;
use hyper::header::{HOST, HeaderValue, ORIGIN};
use hyper::http::uri::Authority;

/// Where an endpoint shows a page of its own, that page may send requests, and no other. Browsers mark what pages send with the page's
/// Origin, unless it is a GET to where the page came from, and with their relation (Sec-Fetch-Site). `is_document` is whether the answer is
/// a page that people open, by a link of another site, too. `origins` is where a proxy shows it; whether the proxy leaves its own Host
/// or ours makes no difference.
pub(super) fn refuse_other_pages<B>(
    request: &Request<B>,
    origins: &[String],
    is_document: bool,
) -> Result<(), &'static str> {
    let headers = request.headers();
    let is_known = |host: &str| is_loopback(host) || origins.iter().any(|origin| host_of(origin) == Some(host));
    check_host(request, is_known).map_err(|_| {
        "the Host header names no loopback address (localhost, 127.0.0.1 or [::1]), nor one of page-origins in [admin]"
    })?;
    let host = headers.get(HOST).map(|host| host.as_bytes()).unwrap_or_default();
    // In the clear only where nobody is in between.
    let is_here = headers.get(HOST).and_then(host_in).is_some_and(|host| is_loopback(&host));
    let is_own = |origin: &HeaderValue| {
        let here = origin.as_bytes().strip_prefix(b"http://").filter(|_| is_here);
        here.is_some_and(|origin| origin.eq_ignore_ascii_case(host))
            || origins.iter().any(|known| known.as_bytes() == origin.as_bytes())
    };
    if !headers.get_all(ORIGIN).into_iter().all(is_own) {
        return Err(
            "requests of other web pages (with another Origin, which is not in page-origins in [admin]) are refused",
        );
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
    check_host(request, is_loopback)
}

fn check_host<B>(request: &Request<B>, is_known: impl Fn(&str) -> bool) -> Result<(), &'static str> {
    let mut hosts = request.headers().get_all(HOST).into_iter();
    let host = hosts.next().and_then(host_in);
    let is_local = host.is_some_and(|host| is_known(&host));
    let target_is_local = request.uri().host().is_none_or(|host| is_known(&host.to_ascii_lowercase()));
    match is_local && target_is_local && hosts.next().is_none() {
        true => Ok(()),
        false => Err("the Host header names no loopback address; expected localhost, 127.0.0.1 or [::1]"),
    }
}

/// The host in a Host header, in small letters, without a port.
fn host_in(header: &HeaderValue) -> Option<String> {
    let authority: Authority = header.to_str().ok()?.parse().ok()?;
    Some(authority.host().to_ascii_lowercase())
}

/// The same of an origin of https.
fn host_of(origin: &str) -> Option<&str> {
    let authority = origin.strip_prefix("https://")?;
    let port =
        authority.rfind(':').filter(|port| !authority.ends_with(']') && *port > authority.rfind(']').unwrap_or(0));
    Some(port.map_or(authority, |port| authority.get(..port).unwrap_or_default()))
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
        assert!(refuse_other_pages(&absolute, &[], false).is_err());
    }

    #[test]
    fn a_page_of_its_own_may_ask_and_one_of_another_port_or_site_may_not() {
        let may = |is_document: bool, headers: &[(&str, &str)]| {
            let host = ("host", "localhost:9642");
            let builder = headers
                .iter()
                .chain([&host])
                .fold(Request::get("/"), |builder, (name, value)| builder.header(*name, *value));
            refuse_other_pages(&builder.body(()).unwrap(), &[], is_document).is_ok()
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
        assert!(refuse_other_pages(&elsewhere, &[], true).is_err());
    }

    #[test]
    fn a_proxy_shows_the_page_at_its_own_origin_and_nowhere_else() {
        let origins =
            ["https://ops.example.org", "https://ops.example.net:8443", "https://[2001:db8::1]"].map(str::to_owned);
        let may = |host: &str, headers: &[(&str, &str)]| {
            let builder = headers
                .iter()
                .fold(Request::get("/").header("host", host), |builder, (name, value)| builder.header(*name, *value));
            refuse_other_pages(&builder.body(()).unwrap(), &origins, false).is_ok()
        };
        let origin = |origin| [("origin", origin), ("sec-fetch-site", "same-origin")];
        for host in [
            "ops.example.org",
            "OPS.example.org:443",
            "127.0.0.1:9642",
            "localhost",
            "ops.example.net",
            "[2001:db8::1]",
        ] {
            assert!(may(host, &[]), "{host}");
            assert!(may(host, &origin("https://ops.example.org")), "{host}");
            for other in ["http://ops.example.org", "https://evil.example", "https://ops.example.org:444", "null"] {
                assert!(!may(host, &origin(other)), "{host} {other}");
            }
        }
        assert!(may("127.0.0.1:9642", &origin("http://127.0.0.1:9642")));
        for host in ["evil.example", "ops.example.org.evil.example", "example.org", "192.0.2.1", ""] {
            assert!(!may(host, &[]) && !may(host, &origin("https://ops.example.org")), "{host}");
        }
        assert!(!may("ops.example.org", &[("sec-fetch-site", "cross-site")]));
    }
}
