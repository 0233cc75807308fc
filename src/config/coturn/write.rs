//! From what a `turnserver.conf` says to the sections of `turnserver.toml`.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use zeroize::Zeroizing;

use crate::auth::Users;

use super::super::show::quoted;
use super::super::units::{duration_text, rate_text};
use super::read::{At, Conf};
use super::{Finding, FindingKind, Import, operation, peers};

const PLAIN_PORT: u16 = 3478;
const TLS_PORT: u16 = 5349;
const RELAY_PORTS: (u16, u16) = (49152, 65535);
const LOOPBACK: &str = "127.0.0.1";

const HEADER: &str = "# Made by `turnstone import` from a turnserver.conf of coturn. `turnstone check` judges it; turnserver.toml \
                      of the\n# installation describes every option.\n";
const INLINE: &str = "\n# Secrets and passwords are written here: only this file's owner (and group) may read it, mode 0600 or \
                      0640.\n# Better is a file of its own: `file = \"/etc/turnstone/secret\"` instead of `secret`, \
                      `password-file` instead of\n# `password`.\n";

pub(super) fn write(mut conf: Conf) -> Import {
    let mut toml = Zeroizing::new(HEADER.to_owned());
    let tls = tls_files(&mut conf);
    let listeners = listeners(&mut conf, tls.is_some());
    let udp_ports: Vec<u16> = listeners
        .iter()
        .filter(|listener| listener.transports.contains(&"udp"))
        .map(|listener| listener.port)
        .collect();
    let relays = relays(&mut conf);
    let ports = relay_ports(&mut conf, &udp_ports);
    let own = own_addresses(&conf);
    let peers = peers::convert(&conf.denied, &conf.allowed, &own, &mut conf.findings);
    let metrics = operation::metrics(&mut conf, |address| {
        listeners.iter().any(|listener| listener.covers(address.ip(), address.port(), "tcp"))
    });
    let has_secrets = credentials_to_write(&mut conf);
    // Writing to a string cannot fail.
    let _ = write_top(&mut toml, &conf, &listeners, tls.as_ref());
    let _ = write_relay(&mut toml, &relays, ports);
    let _ = write_auth(&mut toml, &conf, has_secrets);
    let _ = write_peers(&mut toml, &peers);
    let _ = write_limits(&mut toml, &conf);
    let _ = operation::write(&mut toml, &conf, metrics.as_ref());
    add_differences(&mut conf, tls.is_some(), peers.default_deny);
    let mut findings = conf.findings;
    findings.sort_by_key(|finding| finding.line.unwrap_or(usize::MAX));
    Import { toml, has_secrets, findings }
}

struct Tls {
    certificate: String,
    key: String,
}

/// coturn starts its TLS listeners when it finds both files.
fn tls_files(conf: &mut Conf) -> Option<Tls> {
    let message = "coturn serves TLS with cert and pkey only, and the other one is missing; no tls listener is made";
    match (conf.certificate.clone(), conf.key.clone()) {
        (Some(_), Some(_)) if conf.no_tls => None,
        (Some(certificate), Some(key)) => Some(Tls { certificate: certificate.value, key: key.value }),
        (Some(only), None) => {
            conf.find(Some(only.line), "cert", FindingKind::Invalid, message);
            None
        }
        (None, Some(only)) => {
            conf.find(Some(only.line), "pkey", FindingKind::Invalid, message);
            None
        }
        (None, None) => {
            if let Some(port) = conf.tls_listening_port.as_ref().filter(|_| !conf.no_tls) {
                let message = "without cert and pkey there is no TLS, in coturn neither; no tls listener is made";
                conf.find(Some(port.line), "tls-listening-port", FindingKind::Note, message);
            }
            None
        }
    }
}

struct Listener {
    /// `None` is every address.
    ip: Option<IpAddr>,
    port: u16,
    transports: Vec<&'static str>,
}

impl Listener {
    fn covers(&self, ip: IpAddr, port: u16, transport: &str) -> bool {
        let is_stream = |transport: &str| transport != "udp";
        let same_address = self.ip.is_none_or(|own| {
            own == ip || own.is_ipv4() == ip.is_ipv4() && (own.is_unspecified() || ip.is_unspecified())
        });
        let same_kind = self.transports.iter().any(|own| is_stream(own) == is_stream(transport));
        self.port == port && same_address && same_kind
    }
}

fn listeners(conf: &mut Conf, has_tls: bool) -> Vec<Listener> {
    let plain_port = conf.listening_port.as_ref().map_or(PLAIN_PORT, |port| port.value);
    let tls_port = conf.tls_listening_port.as_ref().map_or(TLS_PORT, |port| port.value);
    let mut plain = Vec::new();
    if !conf.no_udp {
        plain.push("udp");
    }
    if !conf.no_tcp && has_tls && plain_port == tls_port {
        let message = "one port for TCP and TLS: a [[listen]] has one of them here, and TLS is kept; clients that use \
                       turn: over TCP need a port of their own";
        conf.find(
            conf.tls_listening_port.as_ref().map(|port| port.line),
            "tls-listening-port",
            FindingKind::NotConverted,
            message,
        );
    } else if !conf.no_tcp {
        plain.push("tcp");
    }
    let ips = listening_ips(conf);
    let mut listeners: Vec<Listener> = Vec::new();
    for ip in ips {
        if !plain.is_empty() {
            listeners.push(Listener { ip, port: plain_port, transports: plain.clone() });
        }
        if has_tls {
            listeners.push(Listener { ip, port: tls_port, transports: vec!["tls"] });
        }
    }
    for aux in std::mem::take(&mut conf.aux_servers) {
        let (ip, port) = (aux.value.ip(), aux.value.port());
        let mut transports = plain.clone();
        transports.retain(|transport| !listeners.iter().any(|listener| listener.covers(ip, port, transport)));
        if transports.is_empty() {
            conf.find(
                Some(aux.line),
                "aux-server",
                FindingKind::Note,
                "another listener has this address, or no transport is left",
            );
        } else {
            listeners.push(Listener { ip: Some(ip), port, transports });
        }
    }
    if listeners.is_empty() {
        let message = "nothing is left to listen on; a listener on 127.0.0.1 stands for it: write [[listen]] by hand";
        conf.find(None, "[[listen]]", FindingKind::NotConverted, message);
        listeners.push(Listener { ip: LOOPBACK.parse().ok(), port: plain_port, transports: vec!["udp"] });
    }
    listeners
}

/// Each address once; a wildcard stands for the others of its family.
fn listening_ips(conf: &mut Conf) -> Vec<Option<IpAddr>> {
    if !conf.names_listening_ip {
        return vec![None];
    }
    let given = conf.listening_ips.clone();
    let mut ips: Vec<Option<IpAddr>> = Vec::new();
    for At { line, value: ip } in &given {
        let wildcard = given.iter().any(|other| other.value.is_unspecified() && other.value.is_ipv4() == ip.is_ipv4());
        if ips.contains(&Some(*ip)) || wildcard && !ip.is_unspecified() {
            conf.find(Some(*line), "listening-ip", FindingKind::Note, "another listening-ip covers it");
        } else {
            ips.push(Some(*ip));
        }
    }
    ips
}

/// The relay of one family.
struct Relay {
    /// An address, or "off"; left out is "auto".
    address: Option<String>,
    external: Option<IpAddr>,
}

fn relays(conf: &mut Conf) -> [Relay; 2] {
    [true, false].map(|is_ipv4| relay(conf, is_ipv4))
}

/// coturn relays from relay-ip; without one from the address that the client reached, which is a listening-ip, or the
/// private half of an external-ip.
fn relay(conf: &mut Conf, is_ipv4: bool) -> Relay {
    let family = if is_ipv4 { "IPv4" } else { "IPv6" };
    let externals: Vec<_> = conf.external_ips.iter().filter(|at| at.value.0.is_ipv4() == is_ipv4).cloned().collect();
    let of_family = |ips: &[At<IpAddr>]| -> Vec<At<IpAddr>> {
        let usable = |at: &&At<IpAddr>| at.value.is_ipv4() == is_ipv4 && !at.value.is_unspecified();
        ips.iter().filter(usable).cloned().collect()
    };
    let (relay_ips, listening_ips) = (of_family(&conf.relay_ips), of_family(&conf.listening_ips));
    let (mut bind, mut is_off) = (None, false);
    let one_only =
        format!("one {family} relay address per server: the first is taken; run a second server for the other");
    if let Some(first) = relay_ips.first() {
        bind = Some(first.value);
        for other in relay_ips.iter().skip(1).filter(|other| other.value != first.value) {
            conf.find(Some(other.line), "relay-ip", FindingKind::NotConverted, &one_only);
        }
    } else if !conf.relay_ips.is_empty() {
        is_off = true;
    } else if let Some(private) = externals.iter().find_map(|at| at.value.1) {
        bind = Some(private);
    } else if let Some(first) = listening_ips.iter().find(|at| !at.value.is_loopback()).or(listening_ips.first()) {
        bind = Some(first.value);
        for other in listening_ips.iter().filter(|other| other.value != first.value && !other.value.is_loopback()) {
            let message = format!(
                "coturn relays from the address that the client reached, this server from {} always",
                first.value
            );
            conf.find(Some(other.line), "listening-ip", FindingKind::Note, &message);
        }
    } else if externals.is_empty() && conf.names_listening_ip {
        // coturn relays from its listening addresses only.
        is_off = !conf.listening_ips.is_empty() && conf.listening_ips.iter().all(|at| !at.value.is_unspecified());
    }
    let mut external = None;
    if !is_off {
        let mapped = externals.iter().find(|at| bind.is_some() && at.value.1 == bind);
        external = mapped.or_else(|| externals.iter().find(|at| at.value.1.is_none()));
    }
    for other in externals.iter().filter(|other| external.is_none_or(|taken| taken.line != other.line)) {
        let message = match is_off {
            true => format!("no {family} relay address is left to stand for"),
            false => format!(
                "one {family} relay address per server, and this is not its public address; run a second server"
            ),
        };
        conf.find(Some(other.line), "external-ip", FindingKind::NotConverted, &message);
    }
    let address = if is_off { Some("off".to_owned()) } else { bind.map(|ip| ip.to_string()) };
    Relay { address, external: external.map(|at| at.value.0) }
}

/// The relay ports, clear of well-known ports and of the ports of UDP listeners.
fn relay_ports(conf: &mut Conf, udp_ports: &[u16]) -> (u16, u16) {
    let line = conf.min_port.as_ref().or(conf.max_port.as_ref()).map(|port| port.line);
    let low = conf.min_port.as_ref().map_or(RELAY_PORTS.0, |port| port.value);
    let high = conf.max_port.as_ref().map_or(RELAY_PORTS.1, |port| port.value);
    let wanted = (low.max(1024), high);
    if low > high || wanted.0 > wanted.1 {
        let message = "the range is empty, or below 1024 altogether; 49152-65535 is taken";
        conf.find(line, "min-port", FindingKind::Invalid, message);
    } else if low < 1024 {
        conf.find(line, "min-port", FindingKind::Note, "relay ports begin at 1024 here");
    }
    let range = if wanted.0 > wanted.1 || low > high { RELAY_PORTS } else { wanted };
    let clear = longest_gap(range, udp_ports);
    if clear != Some(range) {
        let message =
            "a UDP listener's port cannot be a relay port; the longest part of the range without one is taken";
        conf.find(line, "min-port", FindingKind::Note, message);
    }
    clear.or_else(|| longest_gap((1024, u16::MAX), udp_ports)).unwrap_or(RELAY_PORTS)
}

fn longest_gap((low, high): (u16, u16), taken: &[u16]) -> Option<(u16, u16)> {
    let mut taken: Vec<u32> =
        taken.iter().filter(|port| (low..=high).contains(port)).map(|port| u32::from(*port)).collect();
    taken.sort_unstable();
    taken.push(u32::from(high) + 1);
    let mut first = u32::from(low);
    let mut best: Option<(u32, u32)> = None;
    for port in taken {
        if port > first && best.is_none_or(|(low, high)| port - first > high - low + 1) {
            best = Some((first, port - 1));
        }
        first = port + 1;
    }
    let (low, high) = best?;
    Some((u16::try_from(low).ok()?, u16::try_from(high).ok()?))
}

fn own_addresses(conf: &Conf) -> Vec<IpAddr> {
    let named = conf.listening_ips.iter().chain(&conf.relay_ips).map(|at| at.value);
    let external = conf.external_ips.iter().flat_map(|at| [Some(at.value.0), at.value.1]).flatten();
    named.chain(external).filter(|ip| !ip.is_unspecified()).collect()
}

/// Decides between secrets and users, and says whether any are there to be written.
fn credentials_to_write(conf: &mut Conf) -> bool {
    let users = std::mem::take(&mut conf.users);
    if conf.use_auth_secret {
        for user in users {
            let message = "coturn does not use static users beside use-auth-secret; here both work: add [[auth.users]] if it \
                           is wanted";
            conf.find(Some(user.line), "user", FindingKind::NotConverted, message);
        }
    } else {
        // The last one of a name counts.
        let mut known = Users::default();
        for user in users.into_iter().rev() {
            match known.insert(&user.value.0, &user.value.1) {
                Ok(()) => conf.users.insert(0, user),
                Err(error) => {
                    conf.find(Some(user.line), "user", FindingKind::Note, &format!("{error}; the last one counts"))
                }
            }
        }
    }
    let any = !conf.secrets.is_empty() || !conf.users.is_empty();
    if !any && !conf.stun_only {
        let message = if conf.use_auth_secret {
            "no usable static-auth-secret (coturn then takes them from its database); /etc/turnstone/secret, which the \
             installation makes, stands for it: put a secret of at least 16 bytes there, and give it to the application"
        } else {
            "nobody could authenticate: coturn has no credentials here, or has them in its database; /etc/turnstone/secret, \
             which the installation makes, is taken, for time-limited credentials"
        };
        conf.find(None, "[[auth.secrets]]", FindingKind::NotConverted, message);
    }
    any
}

fn write_top(out: &mut String, conf: &Conf, listeners: &[Listener], tls: Option<&Tls>) -> std::fmt::Result {
    let mut top = String::new();
    if let Some(workers) = conf.workers {
        writeln!(top, "workers = {workers}")?;
    }
    if conf.stun_only {
        writeln!(top, "turn = false")?;
    }
    if conf.software {
        writeln!(top, "software = \"turnstone\"")?;
    }
    if let Some(wide) = conf.rfc5766_channel_numbers {
        writeln!(top, "rfc5766-channel-numbers = {wide}")?;
    }
    if !top.is_empty() {
        write!(out, "\n{top}")?;
    }
    for listener in listeners {
        let port = listener.port;
        let address = match listener.ip {
            None => format!("*:{port}"),
            Some(ip) => std::net::SocketAddr::new(ip, port).to_string(),
        };
        let transports: Vec<_> = listener.transports.iter().map(|transport| format!("\"{transport}\"")).collect();
        writeln!(out, "\n[[listen]]\naddress = \"{address}\"\ntransport = [{}]", transports.join(", "))?;
    }
    if let Some(tls) = tls {
        writeln!(out, "\n[tls]\ncertificate = {}\nkey = {}", quoted(&tls.certificate), quoted(&tls.key))?;
        if conf.no_tls12 {
            writeln!(out, "min-version = \"1.3\"")?;
        }
    }
    Ok(())
}

fn write_relay(out: &mut String, relays: &[Relay; 2], (low, high): (u16, u16)) -> std::fmt::Result {
    writeln!(out, "\n[relay]")?;
    for (key, relay) in ["ipv4", "ipv6"].iter().zip(relays) {
        if let Some(address) = &relay.address {
            writeln!(out, "{key} = \"{address}\"")?;
        }
    }
    let externals: Vec<_> = relays.iter().filter_map(|relay| relay.external).map(|ip| format!("\"{ip}\"")).collect();
    if !externals.is_empty() {
        writeln!(out, "external-ip = [{}]", externals.join(", "))?;
    }
    writeln!(out, "ports = \"{low}-{high}\"")
}

fn write_auth(out: &mut String, conf: &Conf, has_secrets: bool) -> std::fmt::Result {
    writeln!(out, "\n[auth]")?;
    if let Some(realm) = &conf.realm {
        writeln!(out, "realm = {}", quoted(realm))?;
    }
    if let Some(host) = &conf.public_host {
        writeln!(out, "public-host = {}", quoted(host))?;
    }
    if let Some(secs) = conf.nonce_secs {
        writeln!(out, "nonce-lifetime = \"{}\"", duration_text(Duration::from_secs(secs)))?;
    }
    if has_secrets {
        out.push_str(INLINE);
    } else if !conf.stun_only {
        writeln!(out, "\n[[auth.secrets]]\nid = \"main\"\ncredential = \"secret\"\nfile = \"/etc/turnstone/secret\"")?;
    }
    for (index, secret) in conf.secrets.iter().enumerate() {
        let id = if index == 0 { "main".to_owned() } else { format!("coturn-{}", index + 1) };
        writeln!(out, "[[auth.secrets]]\nid = \"{id}\"\nsecret = {}\n", quoted(secret))?;
    }
    for user in &conf.users {
        let (name, password) = &user.value;
        writeln!(out, "[[auth.users]]\nname = {}\npassword = {}\n", quoted(name), quoted(password))?;
    }
    Ok(())
}

fn write_peers(out: &mut String, peers: &peers::Peers) -> std::fmt::Result {
    if *peers == peers::Peers::default() {
        return Ok(());
    }
    separate(out);
    writeln!(out, "[peers]")?;
    if peers.default_deny {
        writeln!(out, "default = \"deny\"")?;
    }
    for (key, rules) in [("denied", &peers.denied), ("allowed", &peers.allowed)] {
        if !rules.is_empty() {
            writeln!(out, "{key} = [")?;
            for rule in rules {
                writeln!(out, "    \"{rule}\",")?;
            }
            writeln!(out, "]")?;
        }
    }
    Ok(())
}

fn write_limits(out: &mut String, conf: &Conf) -> std::fmt::Result {
    let mut section = |name: &str, lines: &[Option<String>]| {
        if lines.iter().any(Option::is_some) {
            separate(out);
            let lines: Vec<_> = lines.iter().flatten().map(String::as_str).collect();
            let _ = writeln!(out, "[{name}]\n{}", lines.join("\n"));
        }
    };
    let duration = |secs: u64| duration_text(Duration::from_secs(secs));
    let quota = |key: &str, limit: Option<u64>| limit.map(|limit| format!("{key} = {limit}"));
    section("quota", &[quota("allocations-per-user", conf.per_user), quota("allocations-total", conf.total)]);
    let rate = conf.max_bytes_per_sec.map(|bytes| format!("per-allocation = \"{}\"", rate_text(bytes)));
    section("bandwidth", &[rate]);
    let max = conf.allocation_max_secs;
    let default = max.filter(|secs| *secs < 600).map(|secs| format!("allocation-default = \"{}\"", duration(secs)));
    section("lifetimes", &[default, max.map(|secs| format!("allocation-max = \"{}\"", duration(secs)))]);
    section("limits", &[quota("unauthenticated-replies-per-second", conf.unauthenticated_rps)]);
    section("streams", &[conf.idle_secs.map(|secs| format!("idle-timeout = \"{}\"", duration(secs)))]);
    section("log", &[conf.log_level.map(|level| format!("level = \"{level}\""))]);
    Ok(())
}

pub(super) fn separate(out: &mut String) {
    if !out.ends_with("\n\n") {
        out.push('\n');
    }
}

/// What is other than in coturn without any directive saying so.
fn add_differences(conf: &mut Conf, has_tls: bool, default_deny: bool) {
    let mut note = |what: &str, message: &str| {
        let (directive, message) = (what.to_owned(), message.to_owned());
        conf.findings.push(Finding { line: None, directive, kind: FindingKind::Note, message });
    };
    if conf.stun_only {
        return;
    }
    if !default_deny {
        let message = "coturn relays to private networks unless a rule denies them; here they are denied. Where peers are in \
                       one (an SFU), name it: allowed = [\"10.1.2.0/24 override\"]";
        note("[peers]", message);
    }
    if has_tls {
        let message = "coturn tells TLS from plain TCP on every port; a [[listen]] here has the transports it names";
        note("[[listen]]", message);
        if !conf.no_dtls {
            note(
                "[[listen]]",
                "DTLS, which coturn before 4.17 serves on the TLS port, is not supported; browsers do not use it",
            );
        }
    }
    if !conf.no_tcp_relay {
        note("[relay]", "TCP relays (RFC 6062) are not offered; browsers do not use them");
    }
    if conf.rfc5766_channel_numbers.is_none() {
        let message = "coturn before 4.17 takes channel numbers up to 0x7FFE; old clients that are not browsers may need \
                       rfc5766-channel-numbers = true";
        note("channels", message);
    }
}
