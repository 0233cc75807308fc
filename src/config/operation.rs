//! The sections for whoever runs the server: `[metrics]` and `[drain]`.

use std::net::SocketAddr;
use std::time::Duration;

use crate::addr::Transport;
use crate::turn::{AlternateServer, Alternates};

use super::error::Located;
use super::file::{Source, overlap, parse_path, parse_transport};
use super::reader::{Document, Section};
use super::sections::duration;
use super::{Drain, Endpoint, Listener, Metrics};

const ENDPOINT: &str = r#"ADDRESS:PORT such as "127.0.0.1:9641", or "unix:/run/turnstone/metrics.sock""#;
const ALTERNATE: &str =
    r#"servers such as "203.0.113.6:3478", or "tls://203.0.113.6:443" for the clients of one transport"#;
const DOMAIN: &str = r#"the name in the certificate of the alternate servers, such as "turn2.example.org""#;
const DAY: Duration = Duration::from_secs(86_400);
/// What a socket's path may have (`sun_path` of unix(7)).
const SOCKET_PATH_BYTES_MAX: usize = 107;

pub(super) fn read_metrics(
    document: &Document<'_>,
    root: &Section<'_, '_>,
    source: &Source,
    listeners: &[Located<Listener>],
) -> Option<Metrics> {
    let section = root.section("metrics");
    let listen = section.text("listen", ENDPOINT, |text| parse_endpoint(text, source));
    let allow_remote = section.boolean("allow-remote").is_some_and(|allow| allow.value);
    section.report_unknown_keys();
    let listen = listen?;
    if let Endpoint::Tcp(address) = listen.value {
        if !allow_remote && !address.ip().is_loopback() {
            let message = format!(
                "listen in [metrics]: {address} is not a loopback address, and whoever reaches it reads the metrics; put \
                 a proxy or a firewall in front and set allow-remote = true, or listen on 127.0.0.1"
            );
            document.problem(listen.place.clone(), message);
        }
        let this = Listener { address, transport: Transport::Tcp };
        if let Some(listener) = listeners.iter().find(|listener| overlap(listener.value, this)) {
            let message = format!(
                "listen in [metrics]: {address} overlaps the listener {} {} at {}",
                listener.value.transport, listener.value.address, listener.place
            );
            document.problem(listen.place, message);
        }
    }
    Some(Metrics { listen: listen.value, allow_remote })
}

pub(super) fn parse_endpoint(text: &str, source: &Source) -> Result<Endpoint, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        let path = parse_path(path, &source.directory)?;
        return match path.as_os_str().len() {
            0..=SOCKET_PATH_BYTES_MAX => Ok(Endpoint::Unix(path)),
            _ => {
                Err(format!("{text:?} is longer than the {SOCKET_PATH_BYTES_MAX} bytes that a socket's path may have"))
            }
        };
    }
    match text.parse::<SocketAddr>() {
        Ok(address) if address.ip().is_multicast() => Err(format!("{text:?} is a multicast address")),
        Ok(address) => Ok(Endpoint::Tcp(address)),
        Err(_) => Err(format!("{text:?} is not an address and port")),
    }
}

pub(super) fn read_drain(document: &Document<'_>, root: &Section<'_, '_>, listeners: &[Located<Listener>]) -> Drain {
    let section = root.section("drain");
    let deadline = duration(&section, "deadline", Duration::ZERO..=DAY);
    let alternates = section.texts("alternate-server", ALTERNATE, parse_alternate).unwrap_or_default();
    let domain = section.text("alternate-domain", DOMAIN, parse_domain);
    section.report_unknown_keys();
    if let Some(domain) = domain.as_ref().filter(|_| !alternates.iter().any(|alternate| is_for_tls(&alternate.value))) {
        let message = "alternate-domain in [drain]: it is for clients over TLS, and no alternate-server is for them";
        document.problem(domain.place.clone(), message);
    }
    for (index, later) in alternates.iter().enumerate() {
        let AlternateServer { transport, address } = later.value;
        let same = |earlier: &&Located<AlternateServer>| {
            earlier.value.transport == transport && earlier.value.address.is_ipv4() == address.is_ipv4()
        };
        if alternates.iter().take(index).any(|earlier| same(&earlier)) {
            let message = format!("alternate-server in [drain]: {address} is a second one of its transport and family");
            document.problem(later.place.clone(), message);
        }
        if listeners.iter().any(|listener| listener.value.address == address) {
            let message = format!("alternate-server in [drain]: {address} is this server itself");
            document.problem(later.place.clone(), message);
        }
    }
    Drain {
        deadline: deadline.map_or(Duration::ZERO, |deadline| deadline.value),
        alternates: Alternates {
            servers: alternates.into_iter().map(|alternate| alternate.value).collect(),
            domain: domain.map(|domain| domain.value),
        },
    }
}

fn is_for_tls(alternate: &AlternateServer) -> bool {
    alternate.transport.is_none_or(Transport::is_encrypted)
}

/// RFC 8489 section 14.16 wants a DNS name in ASCII, RFC 6125 one that a certificate can have.
fn parse_domain(text: &str) -> Result<String, String> {
    let label = |label: &str| {
        matches!(label.len(), 1..=63)
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let is_address = text.parse::<std::net::IpAddr>().is_ok();
    match text.len() <= 253 && text.split('.').all(label) && !is_address {
        true => Ok(text.to_owned()),
        false => Err(format!("{text:?} is not a host name in ASCII")),
    }
}

fn parse_alternate(text: &str) -> Result<AlternateServer, String> {
    let (transport, address) = match text.split_once("://") {
        Some((transport, address)) => (Some(parse_transport(transport)?), address),
        None => (None, text),
    };
    let address: SocketAddr = address.parse().map_err(|_| format!("{text:?} is not an address and port"))?;
    if address.ip().is_unspecified() || address.ip().is_multicast() || address.port() == 0 {
        return Err(format!("{text:?} is not an address that a client can go to"));
    }
    Ok(AlternateServer { transport, address })
}
