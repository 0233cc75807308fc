//! The URLs clients use (RFC 7065), and the `iceServers` that browsers take (W3C WebRTC, RTCIceServer).

use std::net::{IpAddr, SocketAddr};

use serde_json::{Value, json};

use crate::addr::{Family, Transport};
use crate::config::Relay;

/// The TURN URLs of listeners. A wildcard listener is reached at the relay address of its family, and a relay address at
/// what stands for it outside; `public_host` goes before both.
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

/// Whether a URL is of STUN alone (RFC 7064), and needs no credential.
pub(crate) fn is_stun(url: &str) -> bool {
    url.starts_with("stun:") || url.starts_with("stuns:")
}

/// The STUN URLs of the udp listeners, reached as [`turn_urls`] has it.
pub(crate) fn stun_urls(
    listeners: impl IntoIterator<Item = (Transport, SocketAddr)>,
    relay: &Relay,
    public_host: Option<&str>,
) -> Vec<String> {
    let udp = listeners.into_iter().filter(|(transport, _)| *transport == Transport::Udp);
    let turn = turn_urls(udp, relay, public_host);
    let stun = turn.iter().filter_map(|url| url.strip_prefix("turn:")?.split('?').next());
    stun.map(|authority| format!("stun:{authority}")).collect()
}

fn turn_url(transport: Transport, host: &str, port: u16) -> String {
    match transport {
        Transport::Udp => format!("turn:{host}:{port}?transport=udp"),
        Transport::Tcp => format!("turn:{host}:{port}?transport=tcp"),
        Transport::Tls => format!("turns:{host}:{port}?transport=tcp"),
        Transport::Dtls => format!("turns:{host}:{port}?transport=udp"),
    }
}

fn host_of(listener: IpAddr, relay: &Relay) -> Option<String> {
    let mut of_family = relay.of(Family::of(listener));
    let ip = match of_family.find(|relay| listener.is_unspecified() || listener == relay.bind) {
        Some(relay) => relay.external,
        None if listener.is_unspecified() => return None,
        _ => listener,
    };
    Some(match ip {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("[{v6}]"),
    })
}
