//! `[[listen]]` and `[tls]`: where clients reach the server.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;

use crate::addr::{SocketKind, Transport};

use super::access::{parse_path, parse_realm, parse_sni};
use super::acme::Acme;
use super::acme_pairs::pairs;
use super::error::{Located, Place, ValueError};
use super::host::Host;
use super::keys::TLS_VERSIONS;
use super::reader::{Document, Section, or_default};
use super::realm::RealmConfig;
use super::snapshot::{Auth, ListenOptions, Listener, TlsFiles, TlsPair, Web};
use super::source::Source;
use super::urls::parse_host;
use super::value::choose;

pub(super) fn read_listeners(document: &Document<'_>, root: &Section<'_, '_>, host: Host) -> Vec<Located<Listener>> {
    let mut listeners: Vec<Located<Listener>> = Vec::new();
    let tables = root.sections("listen");
    for table in &tables {
        let addresses = table.text("address", |text| parse_address(text, host));
        if !table.has("address") {
            table.report_missing("address");
        }
        let transports = table.texts("transport", parse_transport);
        if !table.has("transport") || table.is_empty_array("transport") {
            table.report_missing("transport");
        }
        let options = Arc::new(read_options(table, &transports));
        let Some(addresses) = addresses else { continue };
        for transport in transports {
            let listener = |&address| Listener { address, transport: transport.value, options: Arc::clone(&options) };
            let located = |value| Located { value, place: addresses.place.clone() };
            listeners.extend(addresses.value.iter().map(listener).map(located));
        }
    }
    tables.iter().for_each(Section::report_unknown_keys);

    if let Some(replacement) = document.replacement("listen") {
        listeners.clear();
        let options = Arc::default();
        for text in &replacement.values {
            match parse_listener(text, host, &options) {
                Ok(found) => {
                    listeners.extend(found.into_iter().map(|value| Located { value, place: replacement.place.clone() }))
                }
                Err(problem) => document.problem(
                    replacement.place.clone(),
                    format!("{problem}; expected TRANSPORT://ADDRESS:PORT such as udp://0.0.0.0:3478"),
                ),
            }
        }
    } else if !root.has("listen") {
        let every_address = parse_address("*:3478", host).unwrap_or_default();
        let options = Arc::default();
        for transport in [Transport::Udp, Transport::Tcp] {
            let listener = |&address| Listener { address, transport, options: Arc::clone(&options) };
            let located = |value| Located { value, place: document.whole() };
            listeners.extend(every_address.iter().map(listener).map(located));
        }
    } else if root.is_empty_array("listen") {
        document.problem(document.whole(), "listen is empty; expected at least one [[listen]]");
    }
    check_overlaps(document, &listeners);
    check_webs(document, &listeners);
    listeners
}

/// What a table says beside its addresses and transports.
fn read_options(table: &Section<'_, '_>, transports: &[Located<Transport>]) -> ListenOptions {
    let proxy_from = table.texts("proxy-from", parse_network);
    let relay = table.texts("relay", |text| text.parse::<IpAddr>().map_err(|_| ValueError::is_not(text, "an address")));
    if let (Some(first), true) = (relay.first(), !proxy_from.is_empty()) {
        let message = "not together with proxy-from: a client behind a proxy is known by the address at which it has reached the proxy, not by \
             the listener; leave out one of the two, or give clients without a proxy a [[listen]] of their own with relay";
        table.problem("relay", first.place.clone(), message);
    }
    let realm = table.text("realm", parse_realm).map(|realm| realm.value);
    ListenOptions {
        proxy_from: proxy_from.into_iter().map(|network| network.value).collect(),
        relay: relay.into_iter().map(|address| address.value).collect(),
        realm,
        web: read_web(table, transports),
        is_for_discovery: false,
    }
}

fn read_web(table: &Section<'_, '_>, transports: &[Located<Transport>]) -> Option<Web> {
    let web = table.text("web", parse_endpoint);
    let proxy_header = table.boolean("web-proxy-header");
    let names = table.texts("turn-names", parse_host);
    let Some(Located { value: address, place }) = web else {
        for key in ["web-proxy-header", "turn-names"].into_iter().filter(|key| table.has(key)) {
            table.problem(key, table.place(), "it is for a listener with web, which has none here");
        }
        return None;
    };
    if !transports.iter().any(|transport| transport.value == Transport::Tls) {
        table.problem("web", place, "only a tls listener can tell what is for the web");
    }
    Some(Web { address, proxy_header, turn_names: names.into_iter().map(|name| name.value).collect() })
}

/// Where another server is.
fn parse_endpoint(text: &str) -> Result<SocketAddr, ValueError> {
    let address: SocketAddr = text.parse().map_err(|_| ValueError::is_not(text, "an address and port"))?;
    match address.ip() {
        ip if ip.is_unspecified() || ip.is_multicast() => Err(ValueError::unfit(text, "no address of one server")),
        _ if address.port() == 0 => Err(ValueError::unfit(text, "without a port")),
        _ => Ok(address),
    }
}

/// A web server that is a listener of ours would have each connection go round in a circle.
fn check_webs(document: &Document<'_>, listeners: &[Located<Listener>]) {
    for Located { value, place } in listeners {
        let Some(web) = value.options.web.as_ref().filter(|_| value.transport == Transport::Tls) else { continue };
        let leads_to = |listener: &Listener| {
            let (ip, own) = (web.address.ip(), listener.address.ip());
            listener.transport.socket_kind() == SocketKind::Tcp
                && listener.address.port() == web.address.port()
                && (own == ip || own.is_unspecified() && own.is_ipv4() == ip.is_ipv4() && ip.is_loopback())
        };
        if let Some(listener) = listeners.iter().find(|listener| leads_to(&listener.value)) {
            let Listener { transport, address, .. } = &listener.value;
            let message = format!("web {} of this listener is the listener {transport} {address} itself", web.address);
            document.problem(place.clone(), message);
        }
    }
}

/// The realm of a listener is one that there is.
pub(super) fn check_listener_realms(
    document: &Document<'_>,
    listeners: &[Located<Listener>],
    auth: &Auth,
    realms: &[RealmConfig],
) {
    let is_there = |name: &String| *name == auth.realm || realms.iter().any(|realm| realm.name == *name);
    for listener in listeners {
        if let Some(realm) = listener.value.options.realm.as_ref().filter(|realm| !is_there(realm)) {
            let names: Vec<_> = std::iter::once(&auth.realm).chain(realms.iter().map(|realm| &realm.name)).collect();
            let message = format!("realm in [[listen]]: there is no realm {realm:?}; expected one of {names:?}");
            document.problem(listener.place.clone(), message);
        }
    }
}

/// A network, or an address, of proxies.
fn parse_network(text: &str) -> Result<IpNet, ValueError> {
    let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    let network = network.map_err(|_| ValueError::is_not(text, "a network or an address"))?;
    if network.trunc() != network {
        return Err(ValueError::unfit(text, "not a network: it has bits behind its prefix"));
    }
    match network {
        _ if network.prefix_len() == 0 => Err(ValueError::unfit(text, "everybody: anybody could claim to be anybody")),
        IpNet::V6(v6) if v6.addr().to_ipv4_mapped().is_some() => {
            Err(ValueError::unfit(text, "an IPv4-mapped network; write it as IPv4"))
        }
        _ => Ok(network),
    }
}

/// Two listeners of one kind of socket and port may not cover the same address: which one got a packet would be chance. Transports of
/// one table may have the very same address, if they can be told apart.
fn check_overlaps(document: &Document<'_>, listeners: &[Located<Listener>]) {
    for (index, later) in listeners.iter().enumerate() {
        let may_share = |earlier: &Located<Listener>| {
            let is_one_table = Arc::ptr_eq(&earlier.value.options, &later.value.options);
            is_one_table
                && earlier.value.shares_socket(&later.value)
                && earlier.value.transport != later.value.transport
        };
        let mut earlier = listeners.iter().take(index);
        let earlier = earlier.find(|earlier| overlap(&earlier.value, &later.value) && !may_share(earlier));
        if let Some(earlier) = earlier {
            document.problem(
                later.place.clone(),
                format!(
                    "listener {} {} overlaps {} {} at {}",
                    later.value.transport,
                    later.value.address,
                    earlier.value.transport,
                    earlier.value.address,
                    earlier.place
                ),
            );
        }
    }
}

pub(super) fn overlap(one: &Listener, other: &Listener) -> bool {
    let (a, b) = (one.address, other.address);
    let covers = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
    one.transport.socket_kind() == other.transport.socket_kind()
        && a.port() == b.port()
        && a.port() != 0
        && a.is_ipv4() == b.is_ipv4()
        && covers
}

/// An endpoint for operators may not be where clients reach the server.
pub(super) fn check_endpoint(
    section: &Section<'_, '_>,
    address: SocketAddr,
    place: &Place,
    listeners: &[Located<Listener>],
) {
    let this = Listener { address, transport: Transport::Tcp, options: Arc::default() };
    if let Some(listener) = listeners.iter().find(|listener| overlap(&listener.value, &this)) {
        let Listener { transport, address: other, .. } = &listener.value;
        let message = format!("{address} overlaps the listener {transport} {other} at {}", listener.place);
        section.problem("listen", place.clone(), message);
    }
}

/// `udp://0.0.0.0:3478`, as flags and variables say it.
fn parse_listener(text: &str, host: Host, options: &Arc<ListenOptions>) -> Result<Vec<Listener>, ValueError> {
    let (transport, address) = text.split_once("://").ok_or_else(|| ValueError::NoTransport(text.to_owned()))?;
    let transport = parse_transport(transport)?;
    let listener = |address| Listener { address, transport, options: Arc::clone(options) };
    Ok(parse_address(address, host)?.into_iter().map(listener).collect())
}

pub(super) fn parse_address(text: &str, host: Host) -> Result<Vec<SocketAddr>, ValueError> {
    if let Some(port) = text.strip_prefix("*:") {
        let port = port.parse::<u16>().map_err(|_| ValueError::is_not(port, "a port"))?;
        let every = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
        let families = if host.has_ipv6 { 2 } else { 1 };
        return Ok(every.into_iter().take(families).map(|ip| SocketAddr::new(ip, port)).collect());
    }
    let address: SocketAddr = text.parse().map_err(|_| match text.parse::<IpAddr>() {
        Ok(_) => ValueError::lacks(text, "port"),
        Err(_) => ValueError::is_not(text, "an address and port"),
    })?;
    match address.ip() {
        ip if ip.is_multicast() => Err(ValueError::unfit(text, "a multicast address")),
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => {
            Err(ValueError::unfit(text, "an IPv4-mapped address; write it as IPv4"))
        }
        _ => Ok(vec![address]),
    }
}

pub(super) fn parse_transport(text: &str) -> Result<Transport, ValueError> {
    match Transport::from_name(text) {
        Some(Transport::Dtls) if !cfg!(feature = "dtls") => {
            Err(ValueError::is_not(text, "in this program: it takes one that was built with the cargo feature dtls"))
        }
        Some(transport) => Ok(transport),
        None => Err(ValueError::is_not(text, "a transport")),
    }
}

pub(super) fn read_tls(
    document: &Document<'_>,
    section: &Section<'_, '_>,
    source: &Source,
    listeners: &[Located<Listener>],
    acme: Option<&Acme>,
) -> Option<TlsFiles> {
    let path = |key| section.text(key, |text| parse_path(text, &source.directory));
    let (certificate, key) = (path("certificate"), path("key"));
    let min_version = section.text("min-version", |text| choose(TLS_VERSIONS, text, "a version that is offered"));
    let mut others: Vec<_> = acme.into_iter().flat_map(pairs).chain(read_pairs(document, section, source)).collect();
    section.report_unknown_keys();
    let (min_version, key_readers) = (or_default(min_version), document.secret_readers());
    match (certificate, key) {
        (Some(certificate), Some(key)) => {
            let (certificate, key) = (certificate.value, key.value);
            let (names, is_acme) = (Vec::new(), false);
            return Some(TlsFiles { certificate, key, min_version, key_readers, names, is_acme, others });
        }
        (None, None) if !others.is_empty() => {
            let TlsPair { certificate, key, names, is_acme } = others.remove(0);
            return Some(TlsFiles { certificate, key, min_version, key_readers, names, is_acme, others });
        }
        (Some(given), None) if !section.has("key") => {
            document.problem(given.place, "[tls] has a certificate but no key");
        }
        (None, Some(given)) if !section.has("certificate") => {
            document.problem(given.place, "[tls] has a key but no certificate");
        }
        (None, None) if !section.has("key") && !section.has("certificate") && !section.has("acme") => {
            if let Some(listener) = listeners.iter().find(|listener| listener.value.transport.is_encrypted()) {
                let transport = listener.value.transport;
                let message = format!(
                    "a {transport} listener needs a certificate: expected [tls] with certificate and key, or with acme"
                );
                document.problem(listener.place.clone(), message);
            }
        }
        _ => {}
    }
    None
}

/// More certificates than this are more than one server should have.
const PAIRS_MAX: usize = 1000;

/// `[[tls.certificates]]`.
fn read_pairs(document: &Document<'_>, section: &Section<'_, '_>, source: &Source) -> Vec<TlsPair> {
    let mut pairs: Vec<TlsPair> = Vec::new();
    for table in section.sections("certificates") {
        let path = |key| table.text(key, |text| parse_path(text, &source.directory));
        let (certificate, key) = (path("certificate"), path("key"));
        for name in ["certificate", "key"].into_iter().filter(|name| !table.has(name)) {
            table.report_missing(name);
        }
        let names = table.texts("names", parse_sni);
        table.report_unknown_keys();
        if let (Some(certificate), Some(key)) = (certificate, key) {
            let names = names.into_iter().map(|name| name.value).collect();
            let (certificate, key) = (certificate.value, key.value);
            pairs.push(TlsPair { certificate, key, names, is_acme: false });
        }
    }
    if pairs.len() > PAIRS_MAX {
        document.problem(section.place(), format!("[[tls.certificates]]: more than {PAIRS_MAX} certificates"));
    }
    pairs
}
