//! The URLs clients use (RFC 7065), and the `iceServers` that browsers take (W3C WebRTC, RTCIceServer).

use std::net::{IpAddr, SocketAddr};

use serde_json::{Value, json};

use crate::addr::{Family, Transport};
use crate::config::{Config, Listener, RealmConfig, Relay, WaysIn};

/// The URLs at which credentials of a realm are good; `None` is that of `[auth]`. They are what the configuration says, or those of the
/// listeners by which clients come into the realm. `bound` has the listeners' real addresses, in their order.
pub(crate) fn realm_urls(
    ways: &WaysIn<'_>,
    bound: &[(Transport, SocketAddr)],
    realm: Option<&RealmConfig>,
) -> Vec<String> {
    let config = ways.config;
    let given = realm.map_or(&config.auth.urls, |realm| &realm.urls);
    if !given.is_empty() {
        return given.clone();
    }
    let hosts = hosts(config, realm);
    let name = realm.map(|realm| &realm.name);
    let leads_here = |listener: &Listener, host: Option<&str>| ways.realm_at(listener, host).map(|at| &at.name) == name;
    let mut urls = Vec::new();
    for (listener, (transport, address)) in config.listeners.iter().zip(bound) {
        if !is_printed(config, listener) || address.port() == 0 {
            continue;
        }
        let named = hosts.iter().find(|host| leads_here(listener, Some(host))).map(|host| (*host).to_owned());
        let by_address = || host_of(address.ip(), &config.relay).filter(|_| leads_here(listener, None));
        let Some(host) = named.or_else(by_address) else { continue };
        let url = turn_url(*transport, &host, address.port());
        if !urls.contains(&url) {
            urls.push(url);
        }
    }
    urls
}

/// Those of [`realm_urls`] that clients are given: what the configuration says, or few enough for a browser.
pub(crate) fn offered_urls(
    ways: &WaysIn<'_>,
    bound: &[(Transport, SocketAddr)],
    realm: Option<&RealmConfig>,
) -> Vec<String> {
    let are_given = !realm.map_or(&ways.config.auth.urls, |realm| &realm.urls).is_empty();
    let urls = realm_urls(ways, bound, realm);
    if are_given { urls } else { few(urls, URLS_MAX) }
}

/// The same for the listeners as they are written.
pub(crate) fn written_urls(ways: &WaysIn<'_>, realm: Option<&RealmConfig>) -> Vec<String> {
    let listeners = ways.config.listeners.iter().map(|listener| (listener.transport, listener.address));
    offered_urls(ways, &listeners.collect::<Vec<_>>(), realm)
}

/// A browser asks each of them for a relay; Firefox warns from the fifth on that they slow discovery down.
pub(super) const URLS_MAX: usize = 4;

/// Leaves URLs out until there are no more than `max`, but none that no other one stands in for: who gets through by TCP does by TLS, and
/// browsers make TLS of what is meant for DTLS. Hosts do not stand in for each other: they may be of two address families.
pub(super) fn few(mut urls: Vec<String>, max: usize) -> Vec<String> {
    const STANDS_IN: [fn(&Way<'_>, &Way<'_>) -> bool; 4] = [
        |way, other| way.is(Transport::Tcp) && other.is(Transport::Tls) && way.authority == other.authority,
        |way, other| way.is(Transport::Dtls) && other.is(Transport::Tls) && way.authority == other.authority,
        |way, other| way.is(Transport::Tcp) && other.is(Transport::Tls) && way.host() == other.host(),
        |way, other| way.transport == other.transport && way.host() == other.host(),
    ];
    for stands_in in STANDS_IN {
        while urls.len() > max {
            let ways: Vec<_> = urls.iter().map(|url| Way::of(url)).collect();
            let has_other = |at: usize, way: &Way<'_>| {
                ways.iter().enumerate().any(|(index, other)| index != at && stands_in(way, other))
            };
            // The last one: what is more important is written first.
            let Some((at, _)) = ways.iter().enumerate().rfind(|(at, way)| has_other(*at, way)) else { break };
            urls.remove(at);
        }
    }
    urls
}

/// What one of our own TURN URLs says.
struct Way<'u> {
    transport: Transport,
    authority: &'u str,
}

impl<'u> Way<'u> {
    fn of(url: &'u str) -> Self {
        let rest = url.split_once(':').map_or(url, |(_, rest)| rest);
        Self { transport: transport_of(url), authority: rest.split('?').next().unwrap_or(rest) }
    }

    fn is(&self, transport: Transport) -> bool {
        self.transport == transport
    }

    fn host(&self) -> &'u str {
        self.authority.rsplit_once(':').map_or(self.authority, |(host, _)| host)
    }
}

/// Clients reach a listener behind proxies at an address of these, which nobody knows here. One that `[nat-discovery]` has added is for
/// that, unless there is no other for UDP.
fn is_printed(config: &Config, listener: &Listener) -> bool {
    let is_own = |listener: &Listener| !listener.options.is_for_discovery && listener.options.proxy_from.is_empty();
    let has_udp = || config.listeners.iter().any(|other| other.transport == Transport::Udp && is_own(other));
    is_own(listener) || listener.options.is_for_discovery && !has_udp()
}

/// The names of this server that its clients may know it by, the best one first.
fn hosts<'c>(config: &'c Config, realm: Option<&'c RealmConfig>) -> Vec<&'c str> {
    let auth = &config.auth;
    let (own, names, other) = match realm {
        None => (&auth.public_host, &auth.server_names, None),
        Some(realm) => (&realm.public_host, &realm.server_names, auth.public_host.as_deref()),
    };
    let names = names.iter().map(String::as_str).filter(|name| !name.starts_with("*."));
    own.as_deref().into_iter().chain(names).chain(other).collect()
}

/// The TURN URLs of listeners, whatever realm they lead into. A wildcard listener is reached at the relay address of its family, and a
/// relay address at what stands for it outside; `public_host` goes before both.
pub(crate) fn turn_urls(
    listeners: impl IntoIterator<Item = (Transport, SocketAddr)>,
    relay: &Relay,
    public_host: Option<&str>,
) -> Vec<String> {
    let mut urls = Vec::new();
    for (transport, address) in listeners {
        let host = public_host.map(str::to_owned).or_else(|| host_of(address.ip(), relay));
        let Some(host) = host.filter(|_| address.port() != 0) else { continue };
        let url = turn_url(transport, &host, address.port());
        if !urls.contains(&url) {
            urls.push(url);
        }
    }
    urls
}

/// A line of JavaScript for a page, whole as it stands: a connection that uses nothing but the relay.
pub(crate) fn peer_connection(urls: &[String], username: &str, password: &str) -> String {
    let mut config = ice_servers(urls, username, password);
    if let Value::Object(fields) = &mut config {
        fields.insert("iceTransportPolicy".to_owned(), "relay".into());
    }
    format!("const pc = new RTCPeerConnection({config});")
}

/// What goes between the parentheses of `new RTCPeerConnection(...)`.
pub(crate) fn ice_servers(urls: &[String], username: &str, password: &str) -> Value {
    let (stun, turn): (Vec<_>, Vec<_>) = urls.iter().partition(|url| is_stun(url));
    let mut servers = Vec::new();
    if !stun.is_empty() {
        servers.push(json!({ "urls": stun }));
    }
    servers.push(json!({ "urls": turn, "username": username, "credential": password }));
    json!({ "iceServers": servers })
}

/// By what a client comes that uses a TURN URL (RFC 7065 section 3.1: UDP, and TCP with TLS, where it does not say).
pub(crate) fn transport_of(url: &str) -> Transport {
    match (url.starts_with("turns:"), url.split_once("?transport=").map(|(_, transport)| transport)) {
        (true, Some("udp")) => Transport::Dtls,
        (true, _) => Transport::Tls,
        (false, Some("tcp")) => Transport::Tcp,
        (false, _) => Transport::Udp,
    }
}

/// Whether a URL is of STUN alone (RFC 7064), and needs no credential.
pub(crate) fn is_stun(url: &str) -> bool {
    url.starts_with("stun:") || url.starts_with("stuns:")
}

/// The STUN URL of the first udp listener of each host among those of [`realm_urls`]: another port of it has the same to say.
pub(crate) fn stun_urls(urls: &[String]) -> Vec<String> {
    let mut ways: Vec<Way<'_>> = Vec::new();
    for way in urls.iter().map(|url| Way::of(url)).filter(|way| way.is(Transport::Udp)) {
        if ways.iter().all(|known| known.host() != way.host()) {
            ways.push(way);
        }
    }
    ways.iter().map(|way| format!("stun:{}", way.authority)).collect()
}

fn turn_url(transport: Transport, host: &str, port: u16) -> String {
    match transport {
        Transport::Udp => format!("turn:{host}:{port}?transport=udp"),
        Transport::Tcp => format!("turn:{host}:{port}?transport=tcp"),
        Transport::Tls => format!("turns:{host}:{port}?transport=tcp"),
        Transport::Dtls => format!("turns:{host}:{port}?transport=udp"),
    }
}

/// Where clients reach the server, as it is known here: the addresses of what URLs are of.
pub(crate) fn client_addresses(config: &Config, bound: &[(Transport, SocketAddr)]) -> Vec<(Transport, SocketAddr)> {
    let mut found: Vec<(Transport, SocketAddr)> = Vec::new();
    for (listener, (transport, address)) in config.listeners.iter().zip(bound) {
        let ip = ip_of(address.ip(), &config.relay).filter(|_| is_printed(config, listener) && address.port() != 0);
        let at = ip.map(|ip| (*transport, SocketAddr::new(ip, address.port())));
        found.extend(at.filter(|at| !found.contains(at)));
    }
    found
}

fn host_of(listener: IpAddr, relay: &Relay) -> Option<String> {
    Some(match ip_of(listener, relay)? {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("[{v6}]"),
    })
}

fn ip_of(listener: IpAddr, relay: &Relay) -> Option<IpAddr> {
    let mut of_family = relay.of(Family::of(listener));
    match of_family.find(|relay| listener.is_unspecified() || listener == relay.bind) {
        Some(relay) => Some(relay.external),
        // Nobody outside reaches the private one.
        None if listener.is_unspecified() || relay.waiting.contains(&listener) => None,
        _ => Some(listener),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(urls: &str, max: usize) -> String {
        few(urls.split(' ').map(str::to_owned).collect(), max).join(" ")
    }

    #[test]
    fn of_many_urls_those_are_left_that_no_other_one_stands_in_for() {
        let four =
            "turn:a:3478?transport=udp turn:a:3478?transport=tcp turn:a:443?transport=udp turns:a:443?transport=tcp";
        assert_eq!(left(four, 4), four);
        let with_tcp = four.replace("=udp turns:", "=udp turn:a:443?transport=tcp turns:");
        assert_eq!(left(&with_tcp, 4), four, "TLS is at the same port");
        assert_eq!(left(&format!("{with_tcp} turns:a:443?transport=udp"), 4), four, "browsers use no DTLS");
        assert_eq!(left(four, 3), four.replace("turn:a:3478?transport=tcp ", ""));
        assert_eq!(left(four, 2), "turn:a:3478?transport=udp turns:a:443?transport=tcp");
        assert_eq!(left(four, 1), left(four, 2), "neither stands in for the other");
        let families = "turn:1.2.3.4:3478?transport=udp turn:1.2.3.4:3478?transport=tcp turn:[::1]:3478?transport=udp \
                        turn:[::1]:3478?transport=tcp turn:9.9.9.9:1?transport=udp";
        assert_eq!(left(families, 4), families);
    }

    #[test]
    fn each_host_is_asked_once_for_ones_own_address() {
        let urls = [
            "turn:a:1?transport=udp",
            "turn:a:2?transport=udp",
            "turns:a:2?transport=udp",
            "turn:[::1]:1?transport=udp",
        ];
        assert_eq!(stun_urls(&urls.map(str::to_owned)), ["stun:a:1", "stun:[::1]:1"]);
    }
}
