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
    json!({ "iceServers": [{ "urls": urls, "username": username, "credential": password }] })
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
