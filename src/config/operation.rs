//! The sections for whoever runs the server: `[metrics]`, `[drain]` and `[redirect]`.

use std::net::{IpAddr, SocketAddr};

use crate::addr::Transport;
use crate::turn::{AlternateServer, Alternates, Redirect};

use super::access::parse_path;
use super::endpoint::Endpoint;
use super::error::{Located, ValueError};
use super::listen::{check_endpoint, parse_transport};
use super::reader::{Section, or_default};
use super::snapshot::{Drain, ExternalIp, Listener, Metrics, Relay};
use super::source::{Source, Surroundings};

/// What a socket's path may have (`sun_path` of unix(7)).
const SOCKET_PATH_BYTES_MAX: usize = 107;

pub(super) fn read_metrics(
    root: &Section<'_, '_>,
    source: &Source,
    listeners: &[Located<Listener>],
) -> Option<Metrics> {
    let section = root.section("metrics");
    let listen = section.text("listen", |text| parse_endpoint(text, source));
    let allow_remote = section.boolean("allow-remote");
    section.report_unknown_keys();
    let listen = listen?;
    if let Endpoint::Tcp(address) = listen.value {
        if !allow_remote && !address.ip().is_loopback() {
            let message = format!(
                "{address} is not a loopback address, and whoever reaches it reads the metrics; put a proxy or a firewall in \
                 front and set allow-remote = true, or listen on 127.0.0.1"
            );
            section.problem("listen", listen.place.clone(), message);
        }
        check_endpoint(&section, address, &listen.place, listeners);
    }
    Some(Metrics { listen: listen.value, allow_remote })
}

pub(super) fn parse_endpoint(text: &str, source: &Source) -> Result<Endpoint, ValueError> {
    if let Some(path) = text.strip_prefix("unix:") {
        let path = parse_path(path, &source.directory)?;
        return match path.as_os_str().len() {
            0..=SOCKET_PATH_BYTES_MAX => Ok(Endpoint::Unix(path)),
            _ => Err(ValueError::unfit(text, "longer than the 107 bytes that a socket's path may have")),
        };
    }
    match text.parse::<SocketAddr>() {
        Ok(address) if address.ip().is_multicast() => Err(ValueError::unfit(text, "a multicast address")),
        Ok(address) => Ok(Endpoint::Tcp(address)),
        Err(_) => Err(ValueError::is_not(text, "an address and port")),
    }
}

pub(super) fn read_drain(
    root: &Section<'_, '_>,
    listeners: &[Located<Listener>],
    relay: &Relay,
    around: &Surroundings<'_>,
) -> Drain {
    let section = root.section("drain");
    let alternates = read_alternates(&section, (listeners, relay), around, false);
    section.report_unknown_keys();
    Drain { deadline: or_default(section.duration("deadline")), alternates }
}

pub(super) fn read_redirect(
    root: &Section<'_, '_>,
    listeners: &[Located<Listener>],
    relay: &Relay,
    around: &Surroundings<'_>,
) -> Option<Redirect> {
    let section = root.section("redirect");
    let alternates = read_alternates(&section, (listeners, relay), around, true);
    let (share, from) = (section.number("share"), section.number("from-allocations"));
    let from_bandwidth = section.rate("from-bandwidth");
    let by_load = section.boolean("fleet");
    section.report_unknown_keys();
    if by_load {
        check_by_load(root, &section, (from.as_ref(), from_bandwidth.as_ref()));
    }
    if alternates.servers.is_empty() && !by_load {
        let set = |value: Option<Located<u64>>, default| Some(value.filter(|value| value.value != default)?.place);
        let set = [
            ("share", set(share, 100)),
            ("from-allocations", set(from, 0)),
            ("from-bandwidth", from_bandwidth.filter(|rate| rate.value.is_some()).map(|rate| rate.place)),
        ];
        for (key, place) in set {
            if let Some(place) = place {
                section.problem(key, place, "neither alternate-server nor fleet = true says where clients are sent");
            }
        }
        return None;
    }
    Some(Redirect {
        alternates,
        by_load,
        share_percent: or_default(share).try_into().unwrap_or(100),
        from_allocations: or_default(from).try_into().unwrap_or(u32::MAX),
        from_bytes_per_sec: from_bandwidth.and_then(|rate| rate.value),
    })
}

/// What is needed to know who has less to do.
fn check_by_load(
    root: &Section<'_, '_>,
    section: &Section<'_, '_>,
    (allocations, bandwidth): (Option<&Located<u64>>, Option<&Located<Option<u64>>>),
) {
    let problem = |message: &str| section.problem("fleet", section.place(), message);
    if allocations.is_none_or(|from| from.value == 0) && bandwidth.is_none_or(|from| from.value.is_none()) {
        problem("nothing says how much is too much for this node; expected from-allocations or from-bandwidth");
    }
    let fleet = root.section("fleet");
    if !fleet.has("nodes") || !fleet.has("listen") {
        problem("the nodes ask each other for their load; expected nodes and listen in [fleet]");
    }
}

/// Servers that clients are sent to; none of them is this one, or a client would go round in a circle.
fn read_alternates(
    section: &Section<'_, '_>,
    (listeners, relay): (&[Located<Listener>], &Relay),
    around: &Surroundings<'_>,
    may_share: bool,
) -> Alternates {
    let alternates = section.texts("alternate-server", parse_alternate);
    let domain = section.text("alternate-domain", parse_domain);
    // Those of the fleet are for clients over TLS, too.
    let has_fleet = may_share && section.boolean("fleet");
    if let Some(domain) =
        domain.as_ref().filter(|_| !has_fleet && !alternates.iter().any(|alternate| is_for_tls(&alternate.value)))
    {
        let message = "it is for clients over TLS, and no alternate-server is for them";
        section.problem("alternate-domain", domain.place.clone(), message);
    }
    for (index, later) in alternates.iter().enumerate() {
        let AlternateServer { transport, address } = later.value;
        let same = |earlier: &&Located<AlternateServer>| {
            earlier.value.transport == transport && earlier.value.address.is_ipv4() == address.is_ipv4()
        };
        if !may_share && alternates.iter().take(index).any(|earlier| same(&earlier)) {
            let message = format!("{address} is a second one of its transport and family");
            section.problem("alternate-server", later.place.clone(), message);
        }
        if listeners.iter().any(|listener| is_at(listener.value.address, address, relay, around)) {
            section.problem("alternate-server", later.place.clone(), format_args!("{address} is this server itself"));
        }
    }
    Alternates {
        servers: alternates.into_iter().map(|alternate| alternate.value).collect(),
        domain: domain.map(|domain| domain.value),
    }
}

/// Whether a listener answers at an address; one at a wildcard does at the host's own, and each at the public one that stands for its own.
/// Other addresses of the host are known once the server runs: see [`Config::alternates_but_own`](super::Config::alternates_but_own).
fn is_at(listener: SocketAddr, address: SocketAddr, relay: &Relay, around: &Surroundings<'_>) -> bool {
    let own = [around.host.ipv4.map(IpAddr::V4), around.host.ipv6.map(IpAddr::V6)];
    let (bound, ip) = (listener.ip(), address.ip());
    let is_host = ip.is_loopback() || own.contains(&Some(ip)) || relay.addresses.iter().any(|relay| relay.bind == ip);
    let is_of = |external: &ExternalIp| external.bind.is_none_or(|bind| bound.is_unspecified() || bound == bind);
    let is_public = relay.externals.iter().any(|external| external.ip == ip && is_of(external));
    let same_port = listener.port() == address.port();
    listener == address || same_port && (bound.is_unspecified() && is_host || is_public && !bound.is_loopback())
}

fn is_for_tls(alternate: &AlternateServer) -> bool {
    alternate.transport.is_none_or(Transport::is_encrypted)
}

/// RFC 8489 section 14.16 wants a DNS name in ASCII, RFC 6125 one that a certificate can have.
fn parse_domain(text: &str) -> Result<String, ValueError> {
    let label = |label: &str| {
        matches!(label.len(), 1..=63)
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let is_address = text.parse::<IpAddr>().is_ok();
    match text.len() <= 253 && text.split('.').all(label) && !is_address {
        true => Ok(text.to_owned()),
        false => Err(ValueError::is_not(text, "a host name in ASCII")),
    }
}

fn parse_alternate(text: &str) -> Result<AlternateServer, ValueError> {
    let (transport, address) = match text.split_once("://") {
        Some((transport, address)) => (Some(parse_transport(transport)?), address),
        None => (None, text),
    };
    let address: SocketAddr = address.parse().map_err(|_| ValueError::is_not(text, "an address and port"))?;
    if address.ip().is_unspecified() || address.ip().is_multicast() || address.port() == 0 {
        return Err(ValueError::is_not(text, "an address that a client can go to"));
    }
    Ok(AlternateServer { transport, address })
}
