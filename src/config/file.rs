//! From `turnserver.toml`, variables and flags to a [`Config`]: what the file may say at the top level, and the cross-checks.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use toml::de::DeTable;

use crate::addr::{SocketKind, Transport};

use super::access::read_auth;
use super::admin::read_admin;
use super::denied::{Wanted, why};
use super::error::{ConfigError, Located, Place, Problem};
use super::host::Host;
use super::lan;
use super::operation::{read_drain, read_metrics};
use super::overrides::{Overrides, READERS};
use super::quota::read_quota;
use super::reader::{Document, Section};
use super::secret::Readers;
use super::sections::{read_bandwidth, read_lifetimes, read_limits, read_log, read_peers, read_streams};
use super::usage::read_usage;
use super::words::{coturn_directives, quoted_line};
use super::{AutoRelay, Config, Listener, Relay, RelayAddress, TlsFiles, TlsVersion, units};

/// Where the configuration is when nobody says otherwise.
pub const DEFAULT_FILE: &str = "/etc/turnstone/turnserver.toml";

const FILE_BYTES_MAX: u64 = 1 << 20;
const WORKERS_MAX: u64 = 1024;
const SOFTWARE_CHARS_MAX: usize = 127;
const TRANSPORT: &str = r#""udp", "tcp" or "tls", or an array of several of them"#;
const ADDRESS: &str = r#"ADDRESS:PORT such as "0.0.0.0:3478", "[::]:3478", or "*:3478" for every address"#;

/// A configuration file's text.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// The file as the user named it; shown in front of every problem.
    pub name: String,
    /// Its text.
    pub text: String,
    /// Its mode, when it is a regular file; decides whether secrets may be written in it.
    pub mode: Option<u32>,
    /// What relative paths in it are relative to.
    pub directory: PathBuf,
}

impl Source {
    /// Reads a file of at most 1 MiB.
    ///
    /// # Errors
    /// It cannot be read, or is not UTF-8.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let name = path.display().to_string();
        let refuse = |message: String| ConfigError::one(Place::Source(name.clone()), message);
        let cannot_read =
            |error: std::io::Error| refuse(format!("cannot read the file: {}", why(path, Wanted::Read, &error)));
        let file = File::open(path).map_err(cannot_read)?;
        let metadata = file.metadata().map_err(cannot_read)?;
        let mut bytes = Vec::new();
        let read = file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(cannot_read)?;
        if read as u64 > FILE_BYTES_MAX {
            return Err(refuse("the file is larger than 1 MiB".to_owned()));
        }
        let text = String::from_utf8(bytes)
            .map_err(|error| refuse(format!("byte {} is not UTF-8", error.utf8_error().valid_up_to())))?;
        let mode = metadata.is_file().then(|| metadata.permissions().mode());
        Ok(Self { name, text, mode, directory: path.parent().unwrap_or(Path::new("")).to_owned() })
    }

    /// No file: defaults, variables and flags only.
    pub fn absent(default_file: &str) -> Self {
        Self { name: format!("{default_file} (absent)"), ..Self::default() }
    }
}

/// What a configuration is read against, besides its text.
#[derive(Clone)]
pub struct Surroundings<'e> {
    /// The machine.
    pub host: Host,
    /// Looks up an environment variable that the file names, and `CREDENTIALS_DIRECTORY`.
    pub env: &'e dyn Fn(&str) -> Option<String>,
    /// `serve --dev`: loopback peers are allowed, a missing secret is made up, and a missing relay address is loopback.
    pub dev: bool,
}

/// A valid configuration and what the operator should know about it.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Warnings, each with its place.
    pub warnings: Vec<Problem>,
}

impl Config {
    /// Reads a configuration. Flags win over variables, variables over the file, the file over the defaults.
    ///
    /// # Errors
    /// Every problem found.
    pub fn parse(source: &Source, overrides: &Overrides, around: &Surroundings<'_>) -> Result<Loaded, ConfigError> {
        let document = Document::new(&source.name, &source.text, overrides);
        let (table, syntax_errors) = DeTable::parse_recoverable(&source.text);
        let is_toml = syntax_errors.is_empty();
        for error in syntax_errors {
            let (place, line) = match error.span() {
                Some(span) => (document.place(span.clone()), document.line(&span)),
                None => (document.whole(), ""),
            };
            let message = quoted_line(line).unwrap_or_else(|| error.message().trim().replace('\n', "; "));
            document.problem_of_line(place, message);
        }
        // What is read out of broken TOML would only hide what broke it.
        let config = match is_toml {
            true => Some(read(&document, &Section::root(&document, table.get_ref()), source, around)),
            false => None,
        };
        for name in overrides.unknown_env() {
            if !source.text.contains(name.as_str()) {
                document.warning(Place::Source(name.clone()), "not a variable that turnstone knows; it is ignored");
            }
        }
        if document.has_problems()
            && let Some(directives) = coturn_directives(&source.text)
        {
            let message = format!(
                "this is a configuration of coturn ({directives}); convert it: turnstone import {} --output turnserver.toml",
                source.name
            );
            return Err(ConfigError::one(document.whole(), message));
        }
        let warnings = document.finish()?;
        let config = config.ok_or_else(|| ConfigError::one(Place::Source(source.name.clone()), "not TOML"))?;
        Ok(Loaded { config, warnings })
    }
}

fn read(document: &Document<'_>, root: &Section<'_, '_>, source: &Source, around: &Surroundings<'_>) -> Config {
    let workers = root.number("workers", "a whole number up to 1024; 0 is one per core", 0..=WORKERS_MAX);
    let workers = match workers.map_or(0, |workers| workers.value) {
        0 => around.host.cores.max(1),
        workers => usize::try_from(workers).unwrap_or(1),
    };
    let software = root.text("software", "a text of at most 127 characters", |text| match text.chars().count() {
        0 => Err("it is empty".to_owned()),
        1..=SOFTWARE_CHARS_MAX if !text.chars().any(char::is_control) => Ok(text.to_owned()),
        _ => Err("it is too long, or has control characters".to_owned()),
    });
    let secret_readers = read_readers(document, root);
    let turn = root.boolean("turn").is_none_or(|turn| turn.value);
    let rfc5766_channel_numbers = root.boolean("rfc5766-channel-numbers").is_some_and(|wanted| wanted.value);
    let listeners = read_listeners(document, root, around.host);
    let tls = read_tls(document, &root.section("tls"), source, &listeners);
    let relay = read_relay(document, root, turn, around);
    if turn {
        check_relay_ports(document, &relay, &listeners);
    }
    let ((quota, quota_shares), bandwidth) = (read_quota(root, &relay.value), read_bandwidth(root));
    let (unauthenticated, max_peers_per_allocation) = read_limits(root);
    let (lifetimes, streams) = (read_lifetimes(document, root), read_streams(document, root));
    let (peers, log) = (read_peers(document, root, around.dev), read_log(root));
    if turn {
        lan::warn_about_peers(document, root, &relay.value, &peers);
    }
    let metrics = read_metrics(document, root, source, &listeners);
    let admin = read_admin(document, root, source, around, &listeners, metrics.as_ref());
    let drain = read_drain(document, root, &listeners);
    let usage = read_usage(document, root, source, around);
    let auth = read_auth(document, root, source, turn, around);
    root.report_unknown_keys();
    Config {
        workers,
        listeners: listeners.into_iter().map(|listener| listener.value).collect(),
        tls,
        relay: relay.value,
        auth,
        peers,
        lifetimes,
        quota,
        quota_shares,
        bandwidth,
        unauthenticated,
        max_peers_per_allocation,
        streams,
        software: software.map(|software| software.value),
        log,
        metrics,
        admin,
        drain,
        usage,
        turn,
        rfc5766_channel_numbers,
        secret_readers,
    }
}

/// Who may read the files of secrets. Asked for before any of them is read.
pub(super) fn read_readers(document: &Document<'_>, root: &Section<'_, '_>) -> Readers {
    let readers = root.text(READERS, r#""owner", "group" or "everybody""#, Readers::parse);
    let readers = readers.map(|readers| readers.value).unwrap_or_default();
    document.set_secret_readers(readers);
    readers
}

fn read_listeners(document: &Document<'_>, root: &Section<'_, '_>, host: Host) -> Vec<Located<Listener>> {
    let mut listeners: Vec<Located<Listener>> = Vec::new();
    let tables = root.sections("listen", "listen");
    for table in &tables {
        let addresses = table.text("address", ADDRESS, |text| parse_address(text, host));
        if addresses.is_none() && !table.has("address") {
            document.problem(table.place(), format!("[[listen]] has no address; expected {ADDRESS}"));
        }
        let transports = table.texts("transport", TRANSPORT, parse_transport);
        if !table.has("transport") || table.is_empty_array("transport") {
            document.problem(table.place(), format!("[[listen]] has no transport; expected {TRANSPORT}"));
        }
        let Some(addresses) = addresses else { continue };
        for transport in transports.into_iter().flatten() {
            listeners.extend(addresses.value.iter().map(|&address| Located {
                value: Listener { address, transport: transport.value },
                place: addresses.place.clone(),
            }));
        }
    }
    tables.iter().for_each(Section::report_unknown_keys);

    if let Some(replacement) = document.replacement("listen") {
        listeners.clear();
        for text in &replacement.values {
            match parse_listener(text, host) {
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
        for transport in [Transport::Udp, Transport::Tcp] {
            listeners.extend(
                every_address
                    .iter()
                    .map(|&address| Located { value: Listener { address, transport }, place: document.whole() }),
            );
        }
    } else if root.is_empty_array("listen") {
        document.problem(document.whole(), "listen is empty; expected at least one [[listen]]");
    }
    check_overlaps(document, &listeners);
    listeners
}

/// Two listeners of one kind of socket and port may not cover the same address: which one got a packet would be chance.
fn check_overlaps(document: &Document<'_>, listeners: &[Located<Listener>]) {
    for (index, later) in listeners.iter().enumerate() {
        let earlier = listeners.iter().take(index).find(|earlier| overlap(earlier.value, later.value));
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

pub(super) fn overlap(one: Listener, other: Listener) -> bool {
    let (a, b) = (one.address, other.address);
    let covers = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
    one.transport.socket_kind() == other.transport.socket_kind()
        && a.port() == b.port()
        && a.port() != 0
        && a.is_ipv4() == b.is_ipv4()
        && covers
}

/// `udp://0.0.0.0:3478`, as flags and variables say it.
fn parse_listener(text: &str, host: Host) -> Result<Vec<Listener>, String> {
    let (transport, address) = text.split_once("://").ok_or_else(|| format!("{text:?} names no transport"))?;
    let transport = parse_transport(transport)?;
    Ok(parse_address(address, host)?.into_iter().map(|address| Listener { address, transport }).collect())
}

fn parse_address(text: &str, host: Host) -> Result<Vec<SocketAddr>, String> {
    if let Some(port) = text.strip_prefix("*:") {
        let port = port.parse::<u16>().map_err(|_| format!("{port:?} is not a port"))?;
        let every = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
        let families = if host.has_ipv6 { 2 } else { 1 };
        return Ok(every.into_iter().take(families).map(|ip| SocketAddr::new(ip, port)).collect());
    }
    let address: SocketAddr = text.parse().map_err(|_| match text.parse::<IpAddr>() {
        Ok(_) => format!("{text:?} has no port"),
        Err(_) => format!("{text:?} is not an address and port"),
    })?;
    match address.ip() {
        ip if ip.is_multicast() => Err(format!("{text:?} is a multicast address")),
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => {
            Err(format!("{text:?} is an IPv4-mapped address; write it as IPv4"))
        }
        _ => Ok(vec![address]),
    }
}

pub(super) fn parse_transport(text: &str) -> Result<Transport, String> {
    Transport::from_name(text).ok_or_else(|| match text {
        "dtls" => "\"dtls\" is not supported; browsers do not use it".to_owned(),
        _ => format!("{text:?} is not a transport"),
    })
}

fn read_tls(
    document: &Document<'_>,
    section: &Section<'_, '_>,
    source: &Source,
    listeners: &[Located<Listener>],
) -> Option<TlsFiles> {
    let path = |key| section.text(key, "the path of a PEM file", |text| parse_path(text, &source.directory));
    let (certificate, key) = (path("certificate"), path("key"));
    let min_version = section.text("min-version", r#""1.2" or "1.3""#, |text| match text {
        "1.2" => Ok(TlsVersion::Tls12),
        "1.3" => Ok(TlsVersion::Tls13),
        _ => Err(format!("{text:?} is not a version that is offered")),
    });
    section.report_unknown_keys();
    match (certificate, key) {
        (Some(certificate), Some(key)) => {
            let min_version = min_version.map(|version| version.value).unwrap_or_default();
            let key_readers = document.secret_readers();
            return Some(TlsFiles { certificate: certificate.value, key: key.value, min_version, key_readers });
        }
        (Some(given), None) if !section.has("key") => {
            document.problem(given.place, "[tls] has a certificate but no key");
        }
        (None, Some(given)) if !section.has("certificate") => {
            document.problem(given.place, "[tls] has a key but no certificate");
        }
        (None, None) if !section.has("key") && !section.has("certificate") => {
            if let Some(listener) = listeners.iter().find(|listener| listener.value.transport.is_encrypted()) {
                let message = "a tls listener needs a certificate: expected [tls] with certificate and key";
                document.problem(listener.place.clone(), message);
            }
        }
        _ => {}
    }
    None
}

/// A path in the file; a relative one is relative to the file.
pub(super) fn parse_path(text: &str, directory: &Path) -> Result<PathBuf, String> {
    if text.is_empty() || text.contains('\0') {
        return Err(format!("{text:?} is not a path"));
    }
    Ok(directory.join(text))
}

enum RelayChoice {
    Auto,
    Off,
    Address(IpAddr),
}

fn read_relay(
    document: &Document<'_>,
    root: &Section<'_, '_>,
    turn: bool,
    around: &Surroundings<'_>,
) -> Located<Relay> {
    let section = root.section("relay");
    let ipv4 = section
        .text("ipv4", r#"an IPv4 address of this host, "auto" or "off""#, |text| parse_relay(text, IpAddr::is_ipv4));
    let ipv6 = section
        .text("ipv6", r#"an IPv6 address of this host, "auto" or "off""#, |text| parse_relay(text, IpAddr::is_ipv6));
    let expected = r#"public addresses, at most one per family, such as "203.0.113.5""#;
    let external = section.texts("external-ip", expected, parse_external).unwrap_or_default();
    let ports = section.text("ports", units::PORTS, |text| match units::parse_ports(text)? {
        (low, _) if low < 1024 => Err(format!("{text:?} begins below 1024")),
        ports => Ok(ports),
    });
    let ports_place = ports.as_ref().map_or_else(|| document.whole(), |ports| ports.place.clone());
    let mut used_external = BTreeSet::new();
    let mut address = |choice: Option<Located<RelayChoice>>, found: Option<IpAddr>, is: fn(&IpAddr) -> bool| {
        let place = choice.as_ref().map_or_else(|| section.place(), |choice| choice.place.clone());
        let (bind, is_auto) = match choice.map(|choice| choice.value) {
            None | Some(RelayChoice::Auto) => (found, true),
            Some(RelayChoice::Off) => return (None, None),
            Some(RelayChoice::Address(ip)) => (Some(ip), false),
        };
        let mut mapped = external.iter().enumerate().filter(|(_, external)| is(&external.value));
        let first = mapped.next();
        if let Some((_, second)) = mapped.next() {
            document.problem(second.place.clone(), format!("a second external-ip of one family; expected {expected}"));
        }
        used_external.extend(first.map(|(index, _)| index));
        let auto = AutoRelay { external: first.map(|(_, external)| external.value) };
        let relay = bind.map(|bind| auto.at(bind));
        if let Some(relay) = relay {
            warn_if_unreachable(document, place, relay, around.dev);
        } else if let Some((_, external)) = first {
            let message = format!(
                "external-ip {} has no relay address of its family to stand for yet: this host has no way to the outside there",
                external.value
            );
            document.warning(external.place.clone(), message);
        }
        (relay, is_auto.then_some(auto))
    };
    let (ipv4, auto_ipv4) = address(ipv4, around.host.ipv4.map(IpAddr::V4), IpAddr::is_ipv4);
    let (ipv6, auto_ipv6) = address(ipv6, around.host.ipv6.map(IpAddr::V6), IpAddr::is_ipv6);
    let ports = ports.as_ref().map_or((49152, 65535), |ports| ports.value);
    let mut relay = Relay { ipv4, ipv6, auto_ipv4, auto_ipv6, ports };
    for (_, external) in external.iter().enumerate().filter(|(index, _)| !used_external.contains(index)) {
        if relay_family_is_off(&relay, external.value) {
            let message = format!("external-ip {} has no relay address of its family to stand for", external.value);
            document.problem(external.place.clone(), message);
        }
    }
    if relay.ipv4.is_none() && relay.ipv6.is_none() && around.dev {
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        relay.ipv4 = Some(RelayAddress { bind: loopback, external: loopback });
        relay.auto_ipv4 = None;
    } else if relay.ipv4.is_none() && relay.ipv6.is_none() && turn && !document.has_problems() {
        if relay.auto_ipv4.is_some() || relay.auto_ipv6.is_some() {
            let message = "no relay address yet: this host has no way to the outside; the server will wait for one";
            document.warning(section.place(), message);
        } else {
            let message = "no relay address: ipv4 and ipv6 are off; expected \"auto\" or an address for one of them";
            document.problem(section.place(), message);
        }
    }
    section.report_unknown_keys();
    Located { value: relay, place: ports_place }
}

fn relay_family_is_off(relay: &Relay, external: IpAddr) -> bool {
    if external.is_ipv4() { relay.ipv4.is_none() } else { relay.ipv6.is_none() }
}

fn parse_relay(text: &str, is_family: fn(&IpAddr) -> bool) -> Result<RelayChoice, String> {
    match text {
        "auto" => return Ok(RelayChoice::Auto),
        "off" => return Ok(RelayChoice::Off),
        _ => {}
    }
    let ip: IpAddr = text.parse().map_err(|_| format!("{text:?} is not an address"))?;
    if !is_family(&ip) {
        return Err(format!("{text:?} is of the other family"));
    }
    if ip.is_unspecified() {
        return Err(format!("{text:?} is a wildcard, but clients are told the relay address"));
    }
    if ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST) {
        return Err(format!("{text:?} is not a unicast address"));
    }
    Ok(RelayChoice::Address(ip))
}

fn parse_external(text: &str) -> Result<IpAddr, String> {
    let ip: IpAddr = text.parse().map_err(|_| format!("{text:?} is not an address"))?;
    if ip.is_unspecified() || ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST) {
        return Err(format!("{text:?} is not a unicast address"));
    }
    Ok(ip)
}

fn warn_if_unreachable(document: &Document<'_>, place: Place, relay: RelayAddress, dev: bool) {
    if !dev && relay.bind == relay.external && is_private(relay.bind) {
        let message = format!(
            "relay address {} is private: peers elsewhere do not reach it; set external-ip in [relay] if this host is \
             behind 1:1 NAT",
            relay.bind
        );
        document.warning(place, message);
    }
}

/// Whether an address is of no use to peers elsewhere.
pub(crate) fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => {
            let shared =
                v4.octets().first() == Some(&100) && v4.octets().get(1).is_some_and(|second| second & 0xc0 == 64);
            v4.is_private() || v4.is_loopback() || v4.is_link_local() || shared
        }
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

/// A UDP listener on a relay port would take the port from an allocation.
fn check_relay_ports(document: &Document<'_>, relay: &Located<Relay>, listeners: &[Located<Listener>]) {
    let (low, high) = relay.value.ports;
    for listener in listeners.iter().filter(|listener| listener.value.transport.socket_kind() == SocketKind::Udp) {
        let port = listener.value.address.port();
        if (low..=high).contains(&port) {
            let message = format!("port {port} of this udp listener is one of the relay ports {low}-{high}");
            let place = match &relay.place {
                at @ Place::At { .. } if matches!(listener.place, Place::Source(_)) => at.clone(),
                _ => listener.place.clone(),
            };
            document.problem(place, message);
        }
    }
}
