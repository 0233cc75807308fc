//! The table against what reads, shows, compares and keeps: a key that one of them lacks is named.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use super::super::changes::Effect;
use super::super::host::Host;
use super::super::overrides::Overrides;
use super::super::source::{Source, Surroundings};
use super::*;
use crate::policy::{AllocationRate, RateLimit};
use crate::turn::Lifetimes;

/// Sections, each with its keys and values; the top level has no name.
type Document = BTreeMap<&'static str, BTreeMap<&'static str, String>>;

/// A configuration that has something of every section.
fn everything() -> Document {
    let mut document = Document::new();
    for (key, value) in [
        ("tls.certificate", "\"/c.pem\""),
        ("tls.key", "\"/k.pem\""),
        ("tls.acme", "[\"turn.example\"]"),
        ("tls.acme-agree-to-terms", "true"),
        ("tls.acme-eab-key-id", "\"k\""),
        ("tls.acme-eab-key", "\"MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE\""),
        ("state-directory", "\"/s\""),
        ("relay.ipv4", "\"192.88.100.1\""),
        ("relay.external-ip", "\"203.0.113.9\""),
        ("nat-discovery.addresses", "[\"203.0.113.1\", \"203.0.113.2\"]"),
        ("nat-discovery.external-addresses", "[\"203.0.113.1\", \"203.0.113.2\"]"),
        ("auth.server-name", "\"turn.example\""),
        ("quota.allocations-per-user", "5"),
        ("quota.reservations-per-user", "5"),
        ("metrics.listen", "\"127.0.0.1:9641\""),
        ("admin.listen", "\"unix:/a\""),
        ("admin.page", "true"),
        ("admin.token", "\"0123456789abcdef0123\""),
        ("drain.alternate-server", "[\"203.0.113.7:3478\"]"),
        ("redirect.alternate-server", "[\"203.0.113.7:3478\"]"),
        ("redirect.from-allocations", "5"),
        // What follows from the mode where nobody says.
        ("peers.relays", "true"),
        ("guard.suspend-after", "9"),
        ("credentials.listen", "\"127.0.0.1:9643\""),
        ("usage.file", "\"/u\""),
        ("usage.webhook", "\"https://example.org/\""),
        ("usage.spool-directory", "\"/s\""),
        ("hook.url", "\"unix:/h\""),
        ("store.url", "\"rediss://127.0.0.1\""),
        ("store.certificate", "\"/c.pem\""),
        ("store.key", "\"/k.pem\""),
        ("hook.events", "[\"start\"]"),
        ("fleet.listen", "\"127.0.0.1:9640\""),
        ("fleet.nodes", "[\"https://one.example\"]"),
        ("fleet.token", "\"0123456789abcdef0123\""),
    ] {
        set(&mut document, find(key).unwrap(), value);
    }
    document
}

fn set(document: &mut Document, key: &Key, value: &str) {
    document.entry(key.section()).or_default().insert(key.last_name(), value.to_owned());
}

fn parsed(text: &str, overrides: &Overrides) -> Result<Config, String> {
    let source = Source { name: "f.toml".to_owned(), text: text.to_owned(), ..Source::default() };
    let host = Host { cores: 2, ipv4: Some(Ipv4Addr::new(192, 88, 100, 1)), ipv6: None, has_ipv6: true };
    let around = Surroundings { host, env: &|_| None, dev: false };
    let loaded = Config::parse(&source, overrides, &around);
    loaded.map(|loaded| loaded.config).map_err(|error| error.to_string())
}

fn config(document: &Document) -> Config {
    config_with(document, &Overrides::default())
}

fn config_with(document: &Document, overrides: &Overrides) -> Config {
    let mut text = String::new();
    for (section, keys) in document {
        text += &if section.is_empty() { String::new() } else { format!("[{section}]\n") };
        keys.iter().for_each(|(key, value)| text += &format!("{key} = {value}\n"));
    }
    text += "[[auth.secrets]]\nsecret = \"0123456789abcdef\"\n";
    text += "[[auth.token-keys]]\nid = \"k\"\nkey = \"MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=\"\n";
    // They have a listener, so that no other changes the list of those.
    for port in [3478, 3479] {
        text += &format!("[[listen]]\naddress = \"*:{port}\"\ntransport = \"udp\"\n");
    }
    text += "[[listen]]\naddress = \"127.0.0.1:443\"\ntransport = \"tls\"\n";
    parsed(&text, overrides).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// Whether it is in one of many tables, or says where a secret is: there is no one value to be shown.
fn is_unshown(key: &Key) -> bool {
    let in_tables = find(key.section()).is_some_and(|section| matches!(section.kind, Kind::Tables));
    let is_secret = key.name.starts_with("realm.")
        || key.name.contains("token")
        || key.name.contains("password")
        || key.name.starts_with("auth.nonce-key")
        || key.name == "auth.users-file";
    let is_of_eab = key.name.contains("eab-key") && key.name != "tls.acme-eab-key-id";
    // Without consent there is nothing that it would be about.
    let is_consent = key.name == "tls.acme-agree-to-terms";
    matches!(key.kind, Kind::Tables | Kind::Outside) || in_tables || is_secret || is_of_eab || is_consent
}

/// Two values of a key, of which neither changes another one.
fn samples(key: &Key) -> [String; 2] {
    let durations = |unit: Duration| [2, 3].map(|times| Value::Duration(unit * times).to_string());
    let given = |one: &str, other: &str| [one.to_owned(), other.to_owned()];
    match key.name {
        "software" | "auth.realm" | "auth.public-host" => given("\"one\"", "\"other\""),
        READERS => given("\"owner\"", "\"group\""),
        "tls.acme" => given("[\"a.example\"]", "[\"b.example\", \"c.example\"]"),
        "tls.acme-email" => given("\"one@example.org\"", "\"other@example.org\""),
        "tls.acme-directory" => given("\"https://one.example/\"", "\"https://other.example/\""),
        "tls.acme-http" => given("\"127.0.0.1:80\"", "\"127.0.0.1:81\""),
        "tls.acme-eab-key-id" => given("\"one\"", "\"other\""),
        "tls.acme-ca" | "tls.certificate" | "tls.key" | "usage.file" | "usage.spool-directory" | "state-directory" => {
            given("\"/one\"", "\"/other\"")
        }
        "store.url" => given("\"rediss://one\"", "\"rediss-cluster://u@one,other:7\""),
        "store.ca" | "store.certificate" | "store.key" => given("\"/one\"", "\"/other\""),
        "store.layout" => given("\"coturn\"", "\"turnstone\""),
        "fleet.name" | "fleet.certificate-name" => given("\"one\"", "\"other\""),
        "fleet.listen" => given("\"127.0.0.1:9640\"", "\"unix:/f\""),
        "fleet.ca" => given("\"/one\"", "\"/other\""),
        "fleet.nodes" => {
            given("[\"https://one.example:9640\", \"http://127.0.0.1:1\"]", "[\"_turnstone._tcp.example.org\"]")
        }
        "store.on-loss" => given("\"refuse\"", "\"allow\""),
        "store.prefix" | "store.node" => given("\"one\"", "\"other\""),
        "hook.events" => given("[\"start\"]", "[\"start\", \"stop\"]"),
        "admin.page-origins" => given("[\"https://a.example\"]", "[\"https://a.example\", \"https://b.example:8443\"]"),
        "hook.url" | "hook.events-url" => given("\"unix:/one\"", "\"https://example.org/\""),
        // It is read.
        "auth.revocations" => given("\"/dev/null\"", "\"/dev/./null\""),
        "tls.min-version" => given("\"1.2\"", "\"1.3\""),
        "relay.ipv4" => given("\"192.88.100.1\"", "\"192.88.100.2\""),
        "relay.ipv6" => given("\"off\"", "\"2a00:1::1\""),
        "relay.external-ip" => given("[\"203.0.113.11\"]", "[\"203.0.113.12\"]"),
        "relay.external-ip-sources" => {
            given("[\"stun:one.example:3478\"]", "[\"stun:one.example:1\", \"metadata:aws\"]")
        }
        "relay.ports" => given("\"20000-20099\"", "\"20000-20199\""),
        "relay.choice" => given("\"least-used\"", "\"reached\""),
        "relay.address-family" => given("\"ipv4\"", "\"as-client\""),
        "nat-discovery.addresses" | "nat-discovery.external-addresses" => {
            given("[\"203.0.113.1\", \"203.0.113.2\"]", "[\"203.0.113.1\", \"203.0.113.3\"]")
        }
        "nat-discovery.ports" => given("[3478, 3479]", "[3479, 3478]"),
        "auth.server-name" => given("\"one.example\"", "\"other.example\""),
        "auth.sni" => given("[\"turn.a.example\"]", "[\"*.a.example\", \"a.example\"]"),
        "auth.on-expiry" => given("\"keep\"", "\"cut\""),
        "peers.mode" => given("\"p2p\"", "\"sfu\""),
        "peers.denied" => given("[]", "[\"8.8.8.8\", \"9.0.0.1-9.0.0.9\"]"),
        "peers.allowed" => given("[]", "[\"10.1.2.0/24 override\"]"),
        "peers.denied-ports" => given("[53]", "[53, 123]"),
        "peers.own-services" => given("[]", "[\"203.0.113.7:10000\"]"),
        "peers.nat64-prefixes" => given("[]", "[\"2001:4860:64::/96\"]"),
        "lifetimes.allocation-max" => durations(HOUR),
        "log.level" => given("\"info\"", "\"debug\""),
        "log.format" => given("\"text\"", "\"json\""),
        "log.output" => given("\"stderr\"", "\"stdout\""),
        "log.addresses" => given("\"full\"", "\"off\""),
        "metrics.listen" => given("\"127.0.0.1:9641\"", "\"127.0.0.1:9642\""),
        "credentials.listen" => given("\"127.0.0.1:9643\"", "\"127.0.0.1:9644\""),
        "auth.urls" => given("[\"turn:a.example\"]", "[\"turn:a.example\", \"stun:a.example\"]"),
        "credentials.shapes" => given("[\"twilio\"]", "[\"cloudflare\", \"metered\"]"),
        "admin.listen" => given("\"unix:/a\"", "\"unix:/b\""),
        "drain.deadline" => durations(HOUR),
        "drain.alternate-server" | "redirect.alternate-server" => {
            given("[\"203.0.113.7:3478\"]", "[\"tls://203.0.113.6:443\"]")
        }
        "redirect.share" => given("30", "31"),
        "drain.alternate-domain" | "redirect.alternate-domain" => given("\"one.example\"", "\"other.example\""),
        "usage.webhook" => given("\"https://example.org/\"", "\"https://example.org/turn\""),
        _ => match &key.kind {
            Kind::Boolean => given("false", "true"),
            Kind::Number(..) if key.name.ends_with("burst") => given("5000", "6000"),
            Kind::Limit(range, _) if *range.start() > 8 => given("1000", "2000"),
            Kind::Number(..) | Kind::Limit(..) => given("7", "8"),
            Kind::Duration(range) | Kind::DurationOrOff(range) => durations(*range.start()),
            Kind::Size(range) | Kind::SizeOrOff(range) => {
                [1, 2].map(|more| Value::Size(range.start() + more).to_string())
            }
            Kind::Rate => given("\"1Mbit/s\"", "\"2Mbit/s\""),
            _ => panic!("there are no samples of {}", key.name),
        },
    }
}

#[test]
fn every_key_is_read() {
    for key in all().filter(|key| !matches!(key.kind, Kind::Outside)) {
        let section = match (key.section(), find(key.section())) {
            ("", _) => String::new(),
            (section, Some(_)) => format!("[[{section}]]\n"),
            (section, None) => format!("[{section}]\n"),
        };
        let parent = if key.section().starts_with("realm.") { "[[realm]]\n" } else { "" };
        let error =
            parsed(&format!("{parent}{section}{} = 2026-11-27", key.last_name()), &Overrides::default()).unwrap_err();
        let wanted = format!("{} {}", key.last_name(), if section.is_empty() { "at the top level" } else { "in [" });
        let is_about_it = |line: &str| line.contains(&wanted) && line.contains(": found a date; expected ");
        assert!(error.lines().any(is_about_it), "nobody reads {}: {error}", key.name);
    }
}

/// What a reload does of a key that it applies in part, in words.
pub(super) fn in_part(key: &Key) -> Option<&'static str> {
    match key.name {
        _ if key.name.starts_with("tls.") && !key.name.starts_with("tls.acme-") => {
            Some("applied by a reload; to have no certificate any more takes a restart")
        }
        "quota.allocations-per-user" | "quota.reservations-per-user" => {
            Some("applied by a reload; the default follows relay.ports, which takes a restart")
        }
        "hook.url" => Some("applied by a reload; whether there is one takes a restart"),
        "hook.events" => Some("applied by a reload; whether there are any takes a restart"),
        _ => None,
    }
}

#[test]
fn every_key_is_shown_compared_and_kept_until_a_restart_where_that_is_so() {
    for key in all().filter(|key| !is_unshown(key)) {
        let values = samples(key);
        let [old, new] = [0, 1].map(|index: usize| {
            let mut document = everything();
            set(&mut document, key, &values[index]);
            config(&document)
        });
        let line = format!("\n{} = {}\n", key.last_name(), values[1]);
        let shown = new.to_toml();
        let section = match key.section() {
            "" => format!("\n{shown}").split("\n[").next().unwrap().to_owned() + "\n",
            section => shown.split(&format!("[{section}]")).nth(1).unwrap().to_owned(),
        };
        assert!(section.contains(&line), "{} is not shown: {shown}", key.name);
        let changes = old.changes(&new);
        let told: Vec<_> =
            changes.iter().map(|change| (change.key, change.before.clone(), change.after.clone())).collect();
        let [before, after] = values;
        assert_eq!(told, [(key.name, before, after)]);
        let waits = key.keep.is_some() && in_part(key).is_none();
        let effect = if waits { Effect::NeedsRestart } else { Effect::Applied };
        assert_eq!(changes[0].effect, effect, "{}", key.name);
        let mut kept = new.clone();
        kept.keep_until_restart(&old);
        assert_eq!(old.changes(&kept).is_empty(), waits, "{}", key.name);
    }
}

#[test]
fn every_default_of_the_table_is_what_is_so_without_the_key() {
    for key in all().filter(|key| !is_unshown(key)) {
        let Some(default) = key.default else { continue };
        let is_text = !default.bytes().all(|byte| byte.is_ascii_digit()) && !matches!(key.kind, Kind::Boolean);
        let written = if is_text { format!("\"{default}\"") } else { default.to_owned() };
        let mut document = everything();
        document.entry(key.section()).or_default().remove(key.last_name());
        let without = config(&document);
        set(&mut document, key, &written);
        assert_eq!(without.changes(&config(&document)), [], "{}", key.name);
    }
    // What the crate has for who embeds the server.
    let config = config(&everything());
    assert_eq!(
        (config.unauthenticated, config.quota.rate),
        (Some(RateLimit::default()), Some(AllocationRate::default()))
    );
    assert_eq!(config.lifetimes, Lifetimes::default());
}

#[test]
fn every_key_is_in_the_table_once_and_so_is_every_variable_and_flag() {
    let once = |mut names: Vec<&str>| {
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    };
    once(all().map(|key| key.name).collect());
    once(settable().map(|set| set.env).collect());
    once(overridable().filter_map(|overridable| overridable.flag).collect());
}

#[test]
fn a_variable_says_what_the_key_says_in_the_file() {
    let mut variables = 0;
    for key in all().filter(|key| !is_unshown(key)) {
        let env =
            settable().find(|set| set.key == key.name).map(|set| set.env).unwrap_or_else(|| panic!("{}", key.name));
        for value in samples(key) {
            let mut document = everything();
            let bare = value.replace(['"', '[', ']'], "");
            // An empty variable is none.
            if bare.is_empty() {
                continue;
            }
            let overrides = Overrides::from_env(std::iter::once((env, Some(&*bare)))).unwrap();
            let from_variable = config_with(&document, &overrides);
            set(&mut document, key, &value);
            assert_eq!(config(&document).changes(&from_variable), [], "{env}={bare}");
            variables += 1;
        }
    }
    assert!(variables > 150, "{variables}");
}
