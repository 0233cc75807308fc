//! eturnal's `eturnal.yml`, read into [`Conf`]. Its rules for peers are as coturn's: what is on the white list is reachable,
//! whatever the black list says.

use std::net::IpAddr;

use zeroize::Zeroizing;

use super::conf::{At, Conf, Extra, Origin};
use super::findings::{FindingKind, Grade, Import, Spot};
use super::placeholder;
use super::range::PeerRange;
use super::syntax::Entry;
use super::write;
use super::yaml::{self, Item, YamlError};

const SECTION: &str = "eturnal";
const CLIENT_LISTS: &str = "who may connect is a matter for the firewall; peers are judged by [peers]";

/// Whether a text is an `eturnal.yml`: coturn's files have no such line.
pub(super) fn is_eturnal(text: &str) -> bool {
    text.lines().any(|line| line.strip_prefix(SECTION).is_some_and(|rest| rest.trim_start().starts_with(':')))
}

/// Converts it.
///
/// # Errors
/// Where it is no YAML.
pub(super) fn import(text: &str) -> Result<Import, YamlError> {
    let tree = yaml::read(text)?;
    let mut conf = Conf { origin: Origin::Eturnal, ..Conf::default() };
    for (name, section) in tree.as_map() {
        if name != SECTION {
            let message = "settings of eturnal's run-time system, which nothing here needs";
            conf.find(Some(Spot::Line(section.line)), "?", FindingKind::Note, Grade::Harmless, message);
            continue;
        }
        for (name, item) in section.as_map() {
            conf.about = grade(name);
            conf.option(name, item);
        }
        if !section.as_map().iter().any(|(name, _)| name == "listen") {
            let any = IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED);
            let value = Extra { ip: any, port: 3478, transports: vec!["udp", "tcp"], is_proxied: false };
            conf.extra_listeners.push(At { spot: Spot::Line(section.line), value });
        }
    }
    // The certificate's file may have the key in it.
    if conf.key.is_none() {
        conf.key = conf.certificate.clone();
    }
    Ok(write::write(conf))
}

fn grade(name: &str) -> Grade {
    match name {
        "blacklist" | "blacklist_peers" | "blacklist_clients" | "whitelist_clients" | "secret" | "strict_expiry"
        | "tls_ciphers" | "tls_options" => Grade::Security,
        "software_name" | "log_level" | "modules" => Grade::Operation,
        _ => Grade::Clients,
    }
}

impl Conf {
    fn option(&mut self, name: &str, item: &Item) {
        let text = item.as_text().unwrap_or("");
        let entry = Entry { spot: Spot::Line(item.line), name, value: text };
        if placeholder::is_template(text) {
            let message = "a placeholder that nobody has filled in, left out: import the file that the running server reads, \
                           or write the value by hand";
            return self.invalid(&entry, message);
        }
        match name {
            "listen" => item.as_list().into_iter().for_each(|item| self.listen(item)),
            "realm" => self.realm(&entry),
            "secret" => {
                for item in item.as_list() {
                    let secret = Zeroizing::new(item.as_text().unwrap_or("").to_owned());
                    self.secret(&Entry { spot: Spot::Line(item.line), name, value: "" }, secret);
                }
            }
            "credentials" => {
                for (user, password) in item.as_map() {
                    let entry = Entry { spot: Spot::Line(password.line), name, value: "" };
                    self.static_user(&entry, user, password.as_text().unwrap_or(""));
                }
            }
            "strict_expiry" => self.on_expiry = self.switch(&entry).map(|cut| if cut { "cut" } else { "keep" }),
            "relay_ipv4_addr" | "relay_ipv6_addr" => self.external_ip(&entry),
            "relay_min_port" => self.min_port = self.port(&entry),
            "relay_max_port" => self.max_port = self.port(&entry),
            "tls_crt_file" => self.cert(&entry),
            "tls_key_file" => self.pkey(&entry),
            "blacklist" | "blacklist_peers" => self.peers(name, item, false),
            "whitelist" | "whitelist_peers" => self.peers(name, item, true),
            "blacklist_clients" | "whitelist_clients" => self.lost(&entry, CLIENT_LISTS),
            "max_allocations" if text == "unlimited" => self.unlimited_user(&entry),
            "max_allocations" => self.user_quota(&entry),
            "max_permissions" => {
                let number = if text == "unlimited" { Some(65_535) } else { self.number(&entry) };
                self.peers_per_allocation = number.map(|number| number.clamp(1, 65_535));
            }
            "max_bps" if text != "unlimited" => {
                let message = "it holds for TCP and TLS in eturnal, per-allocation in [bandwidth] for UDP, too: set that by \
                               hand if it is wanted (the number is bytes a second: \"8kB/s\")";
                self.lost(&entry, message);
            }
            "max_bps" => {}
            "software_name" => self.software_name(&entry),
            "log_level" => self.level(&entry),
            "modules" => item.as_map().iter().for_each(|(name, module)| self.module(name, module)),
            "log_dir" | "log_rotate_size" | "log_rotate_count" => {
                self.harmless(&entry, "logs go to standard error, which journald collects: journalctl -u turnstone");
            }
            "run_dir" => self.harmless(&entry, "the service manager makes what is needed"),
            "tls_dh_file" => self.harmless(&entry, "key exchange is elliptic-curve only; there are no DH parameters"),
            "tls_ciphers" | "tls_options" => {
                let message = "TLS is 1.2 and 1.3 with the cipher suites of rustls, all with forward secrecy";
                self.lost(&entry, message);
            }
            _ => {
                let is_name = name.len() <= 24 && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
                let shown = Entry { name: if is_name { name } else { "?" }, ..entry };
                self.find(
                    Some(shown.spot),
                    shown.name,
                    FindingKind::Unknown,
                    Grade::Operation,
                    "not an option of eturnal",
                );
            }
        }
    }

    fn listen(&mut self, item: &Item) {
        let entry = |value| Entry { spot: Spot::Line(item.line), name: "listen", value };
        let of = |key: &str| item.as_map().iter().find(|(name, _)| name == key).and_then(|(_, value)| value.as_text());
        let Some(ip) = self.address(&entry(""), of("ip").unwrap_or("::")) else { return };
        let transport = of("transport").unwrap_or("udp");
        let port = match of("port") {
            None => Some(if transport == "tls" { 5349 } else { 3478 }),
            Some(port) => port.parse().ok().filter(|port| *port != 0),
        };
        let Some(port) = port else { return self.invalid(&entry(""), "not a port; left out") };
        let transports = match transport {
            "udp" => vec!["udp"],
            "tcp" => vec!["tcp"],
            "tls" => vec!["tls"],
            "auto" => vec!["tcp", "tls"],
            _ => return self.invalid(&entry(""), "its transport is not udp, tcp, tls or auto; left out"),
        };
        for (key, wanted, message) in [
            (
                "proxy_protocol",
                "true",
                "proxy-from stands in this [[listen]] as a comment: it wants the addresses of the proxies, which eturnal does not ask for; until \
                 then their connections are closed",
            ),
            ("enable_turn", "false", "every listener offers TURN; turn = false turns it off for all"),
        ] {
            if of(key) == Some(wanted) {
                self.lost(&entry(""), message);
            }
        }
        let is_proxied = of("proxy_protocol") == Some("true");
        self.extra_listeners
            .push(At { spot: Spot::Line(item.line), value: Extra { ip, port, transports, is_proxied } });
    }

    fn peers(&mut self, name: &str, item: &Item, allowed: bool) {
        for item in item.as_list() {
            let entry = Entry { spot: Spot::Line(item.line), name, value: item.as_text().unwrap_or("") };
            if entry.value == "recommended" && !allowed {
                self.harmless(&entry, "private and special networks are denied unless allowed, as it recommends");
                continue;
            }
            match PeerRange::parse(entry.value) {
                Ok((value, _)) if allowed => self.allowed.push(At { spot: entry.spot, value }),
                Ok((value, _)) => self.denied.push(At { spot: entry.spot, value }),
                Err(problem) => self.invalid(&entry, &format!("{problem}; left out")),
            }
        }
    }

    fn software_name(&mut self, entry: &Entry<'_>) {
        let plain = |c: char| !c.is_control();
        if entry.value.chars().all(plain) && (1..=127).contains(&entry.value.chars().count()) {
            self.software = Some(entry.value.to_owned());
        }
    }

    fn level(&mut self, entry: &Entry<'_>) {
        self.log_level = match entry.value {
            "critical" | "error" => Some("error"),
            "warning" => Some("warn"),
            "notice" | "info" => Some("info"),
            "debug" => Some("debug"),
            _ => return self.invalid(entry, "not a level; log.level stays at info"),
        };
    }

    fn module(&mut self, name: &str, item: &Item) {
        let entry = |name| Entry { spot: Spot::Line(item.line), name, value: "" };
        let of = |key: &str| item.as_map().iter().find(|(name, _)| name == key).and_then(|(_, value)| value.as_text());
        match name {
            "mod_log_stun" => self.harmless(&entry("mod_log_stun"), "Binding requests are counted, not logged"),
            "mod_stats_prometheus" => {
                let port = of("port").and_then(|port| port.parse().ok()).filter(|port: &u16| *port != 0);
                let address = of("ip").and_then(|ip| ip.parse::<IpAddr>().ok());
                self.prometheus_of_eturnal(Spot::Line(item.line), port, address);
            }
            "mod_stats_influx" => {
                let message =
                    "statistics go to Prometheus ([metrics]), and what each allocation used into records ([usage])";
                self.lost(&entry("mod_stats_influx"), message);
            }
            _ => self.lost(&entry("modules"), "there are no modules"),
        }
    }
}
