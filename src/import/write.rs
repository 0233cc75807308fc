//! From what a configuration says to the sections of `turnserver.toml`.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use zeroize::Zeroizing;

use super::conf::{Conf, Origin};
use super::differences;
use super::findings::{Finding, Import};
use super::listeners::{self, Listener, Tls};
use super::operation::{self, separate};
use super::peers::{self, Own};
use super::relays::{self, Bind, Relay};
use super::store;
use crate::config::{duration_text, quoted, rate_text};

/// What coturn allows an allocation on a port that is shared.
const COTURN_MULTIPLEX_PEERS: u64 = 256;

const PROXY_FROM: &str = "#proxy-from = [\"10.0.0.1\"]";

const TOKEN_KEYS: &str = "
# One for each row of coturn's table oauth_key. The file has the key in base64, and only its owner
# can read it.
#[[auth.token-keys]]
#id = \"KID\"
#algorithm = \"A256GCM\"
#file = \"/etc/turnstone/token-key\"
";

const INLINE: &str = "
# Secrets and passwords are written here: only this file's owner and the server's group may read it
# (mode 0600 or 0640). Better is a file of its own, such as file = \"/etc/turnstone/secret\" for a
# secret and password-file for a password.
";

pub(super) fn write(mut conf: Conf) -> Import {
    let from = match conf.origin {
        Origin::Coturn => "coturn",
        Origin::Eturnal => "eturnal",
    };
    let mut toml = Zeroizing::new(header(from));
    let tls = listeners::tls_files(&mut conf);
    let listeners = listeners::listeners(&mut conf, tls.is_some());
    let udp_ports: Vec<u16> = listeners
        .iter()
        .filter(|listener| listener.transports.contains(&"udp"))
        .map(|listener| listener.port)
        .collect();
    let relays = relays::relays(&mut conf);
    let ports = match conf.multiplexes {
        true => relays::shared_ports(&mut conf, &udp_ports),
        false => relays::relay_ports(&mut conf, &udp_ports),
    };
    // A redirection to the server itself, which would lead in a circle, goes without saying.
    let named = relays::own_addresses(&conf);
    conf.alternates.retain(|server| {
        let at = server.rsplit_once("://").map_or(server.as_str(), |(_, at)| at).parse::<SocketAddr>();
        let is_own = |listener: &Listener| {
            at.as_ref().is_ok_and(|at| {
                let is_everywhere = listener.ip.is_none() && at.ip().is_loopback();
                let is_there = listener.ip == Some(at.ip()) || is_everywhere || named.contains(&at.ip());
                is_there && listener.port == at.port()
            })
        };
        !listeners.iter().any(is_own)
    });
    let own = own(&conf, &relays, ports);
    let peers = peers::convert(&conf.denied, &conf.allowed, &own, &mut conf.findings);
    let metrics = operation::metrics(&mut conf, |address| {
        listeners.iter().any(|listener| listener.covers(Some(address.ip()), address.port(), "tcp"))
    });
    let has_secrets = conf.settle_credentials();
    conf.judge_parts();
    // Writing to a string cannot fail.
    let _ = write_top(&mut toml, &conf, &listeners, tls.as_ref());
    let _ = write_relay(&mut toml, &conf, &relays, ports);
    let _ = write_auth(&mut toml, &conf, has_secrets);
    let _ = store::write(&mut toml, &conf);
    let _ = write_peers(&mut toml, &peers);
    let _ = write_limits(&mut toml, &conf);
    let _ = operation::write(&mut toml, &conf, metrics.as_ref());
    differences::add(&mut conf, tls.is_some(), &peers);
    let mut findings = conf.findings;
    findings.sort_by_key(|finding: &Finding| (finding.grade, finding.spot.is_none(), finding.spot));
    Import { toml, has_secrets, from, findings }
}

fn header(from: &str) -> String {
    format!(
        "# Made by `turnstone import` from a configuration of {from}. `turnstone check` judges it,\n# `man turnserver.toml` \
         describes every key.\n"
    )
}

fn own(conf: &Conf, relays: &[Relay; 2], relay_ports: (u16, u16)) -> Own {
    let is_of_host = |ip: IpAddr| relays.iter().any(|relay| relay.binds().contains(&ip));
    let mapped = relays.iter().flat_map(|relay| &relay.externals).map(|(public, _)| *public);
    let mapped = mapped.filter(|public| !is_of_host(*public));
    let listens_at = |ip| conf.listening_ips.iter().chain(&conf.relay_ips).any(|at| at.value == ip);
    Own {
        addresses: relays::own_addresses(conf),
        mapped: mapped.filter(|ip| !listens_at(*ip)).collect(),
        told: relays.iter().flat_map(Relay::told).collect(),
        relay_ports,
        directives: match conf.origin {
            Origin::Coturn => ["denied-peer-ip", "allowed-peer-ip"],
            Origin::Eturnal => ["blacklist_peers", "whitelist_peers"],
        },
    }
}

fn write_top(out: &mut String, conf: &Conf, listeners: &[Listener], tls: Option<&Tls>) -> std::fmt::Result {
    let mut top = String::new();
    if let Some(workers) = conf.workers {
        writeln!(top, "workers = {workers}")?;
    }
    if conf.stun_only {
        writeln!(top, "turn = false")?;
    }
    if let Some(software) = &conf.software {
        writeln!(top, "software = {}", quoted(software))?;
    }
    if let Some(mobility) = conf.mobility {
        writeln!(top, "mobility = {mobility}")?;
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
            Some(ip) => SocketAddr::new(ip, port).to_string(),
        };
        let transports: Vec<_> = listener.transports.iter().map(|transport| format!("\"{transport}\"")).collect();
        writeln!(out, "\n[[listen]]\naddress = \"{address}\"\ntransport = [{}]", transports.join(", "))?;
        if listener.is_proxied {
            writeln!(
                out,
                "# The addresses of the proxies in front, whose header is not taken without them.\n{PROXY_FROM}"
            )?;
        }
    }
    if let Some(port) = &conf.tcp_proxy_port {
        let port = port.value;
        writeln!(
            out,
            "\n# In place of tcp-proxy-port; proxy-from has the addresses of the proxies.\n#[[listen]]\n#address = \"*:{port}\"\n#transport = \"tcp\"\n{PROXY_FROM}"
        )?;
    }
    if let Some(pair) = &conf.nat_discovery {
        let addresses: Vec<_> = pair.addresses.iter().map(|ip| format!("\"{ip}\"")).collect();
        writeln!(out, "\n[nat-discovery]\naddresses = [{}]\nports = {:?}", addresses.join(", "), pair.ports)?;
    }
    if conf.rfc3489 {
        writeln!(out, "\n[compatibility]\nrfc3489 = true")?;
    }
    if let Some(tls) = tls {
        writeln!(out, "\n[tls]\ncertificate = {}\nkey = {}", quoted(&tls.certificate), quoted(&tls.key))?;
        if conf.no_tls12 {
            writeln!(out, "min-version = \"1.3\"")?;
        }
    }
    Ok(())
}

fn write_relay(out: &mut String, conf: &Conf, relays: &[Relay; 2], (low, high): (u16, u16)) -> std::fmt::Result {
    writeln!(out, "\n[relay]")?;
    for (key, relay) in ["ipv4", "ipv6"].iter().zip(relays) {
        let binds: Vec<_> = relay.binds().iter().map(|ip| format!("\"{ip}\"")).collect();
        match &*binds {
            [] if relay.bind == Bind::Off => writeln!(out, "{key} = \"off\"")?,
            [] => {}
            [one] => writeln!(out, "{key} = {one}")?,
            several => writeln!(out, "{key} = [{}]", several.join(", "))?,
        }
    }
    let external = |(public, private): &(IpAddr, Option<IpAddr>)| match private {
        Some(private) => format!("\"{public}/{private}\""),
        None => format!("\"{public}\""),
    };
    let externals: Vec<_> = relays.iter().flat_map(|relay| &relay.externals).map(external).collect();
    if relays.iter().any(|relay| relay.is_reached) {
        writeln!(out, "choice = \"reached\"")?;
    }
    if let Some(family) = conf.address_family {
        writeln!(out, "address-family = \"{family}\"")?;
    }
    if !externals.is_empty() {
        writeln!(out, "external-ip = [{}]", externals.join(", "))?;
    }
    let shared = if conf.multiplexes { "shared:" } else { "" };
    writeln!(out, "ports = \"{shared}{low}-{high}\"")?;
    match conf.tcp_relay {
        Some(is_offered) => writeln!(out, "tcp = {is_offered}"),
        None => Ok(()),
    }
}

fn write_auth(out: &mut String, conf: &Conf, has_secrets: bool) -> std::fmt::Result {
    writeln!(out, "\n[auth]")?;
    if let Some(realm) = &conf.realm {
        writeln!(out, "realm = {}", quoted(realm))?;
    }
    if let Some(host) = &conf.public_host {
        writeln!(out, "public-host = {}", quoted(host))?;
    }
    if let Some(choice) = conf.on_expiry {
        writeln!(out, "on-expiry = \"{choice}\"")?;
    }
    if let Some(secs) = conf.nonce_secs {
        writeln!(out, "nonce-lifetime = \"{}\"", duration_text(Duration::from_secs(secs)))?;
    }
    if let Some(name) = conf.server_name.as_ref().filter(|_| conf.oauth) {
        writeln!(out, "server-name = {}", quoted(name))?;
    }
    if conf.oauth {
        out.push_str(TOKEN_KEYS);
    }
    if has_secrets {
        out.push_str(INLINE);
    } else if !conf.stun_only && conf.store.is_none() {
        writeln!(out, "\n[[auth.secrets]]\nid = \"main\"\ncredential = \"secret\"\nfile = \"/etc/turnstone/secret\"")?;
    }
    for (index, secret) in conf.secrets.iter().enumerate() {
        let id = if index == 0 { "main".to_owned() } else { format!("other-{}", index + 1) };
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
        writeln!(out, "mode = \"sfu\"")?;
    }
    for (key, rules) in [("denied", &peers.denied), ("allowed", &peers.allowed), ("own-services", &peers.own_services)]
    {
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
    // 0 is no limit to coturn, and said on purpose; what is not said gets our default.
    let quota = |key: &str, limit: Option<u64>| {
        limit.map(|limit| if limit == 0 { format!("{key} = \"unlimited\"") } else { format!("{key} = {limit}") })
    };
    section("quota", &[quota("allocations-per-user", conf.per_user), quota("allocations-total", conf.total)]);
    let rate = conf.max_bytes_per_sec.map(|bytes| format!("per-allocation = \"{}\"", rate_text(bytes)));
    section("bandwidth", &[rate]);
    let max = conf.allocation_max_secs;
    let default = max.filter(|secs| *secs < 600).map(|secs| format!("allocation-default = \"{}\"", duration(secs)));
    section("lifetimes", &[default, max.map(|secs| format!("allocation-max = \"{}\"", duration(secs)))]);
    let multiplexed = conf.multiplexes.then(|| conf.multiplex_peers.unwrap_or(COTURN_MULTIPLEX_PEERS));
    let peers = conf.peers_per_allocation.or(multiplexed);
    let unauthenticated = quota("unauthenticated-replies-per-second", conf.unauthenticated_rps);
    section("limits", &[unauthenticated, quota("peers-per-allocation", peers)]);
    section("streams", &[conf.idle_secs.map(|secs| format!("idle-timeout = \"{}\"", duration(secs)))]);
    section("log", &[conf.log_level.map(|level| format!("level = \"{level}\""))]);
    Ok(())
}
