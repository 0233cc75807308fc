//! Every key of `turnserver.toml`: how it is written, its default, how it is shown, what a reload makes of it, and its variable
//! and flag. Reading, `show`, `changes` and what waits for a restart are made from this table; the order is that of `show`.

mod credentials;
mod fleet;
mod hook;
mod outside;
mod relay;
mod spans;
mod store;
mod tls;
mod usage;
mod variables;

use std::collections::BTreeSet;
use std::time::Duration;

use crate::addr::Family;
use crate::auth::TokenAlgorithm;
use crate::turn::{AlternateServer, DefaultFamily};

use super::acme_pairs;
use super::key::{CREDENTIAL, FILE, INLINE, Key, Kind, Overridable, SERVER_NAMES, VARIABLE};
use super::shown::{boolean, limit, number, or_off, rate, secs, text, texts};
use super::snapshot::{Config, LogFormat, LogOutput, RelayChoice};
use super::unshown;
use super::value::{Choices, ON_EXPIRY, PEER_MODES, Value, name_of};
pub(super) use outside::{SECRET, SECRET_FILE, USERS};
use relay::{relay_bind, relay_externals};
use spans::{HOUR, SECOND};
pub(super) use variables::settable;

pub(super) use tls::TLS_VERSIONS;

/// Every setting with a variable, and mostly a flag, of a name of its own.
pub fn overridable() -> impl Iterator<Item = &'static Overridable> {
    all().filter_map(|key| key.overridable.as_ref())
}

/// The key of this name.
pub(super) fn find(name: &str) -> Option<&'static Key> {
    all().find(|key| key.name == name)
}

/// Every key.
pub(super) fn all() -> impl Iterator<Item = &'static Key> {
    let tables = KEYS.iter().chain(tls::KEYS).chain(hook::KEYS).chain(credentials::KEYS).chain(store::KEYS);
    tables.chain(fleet::KEYS).chain(usage::KEYS).chain(outside::KEYS)
}

/// The names that a table may have in it, subtables included.
pub(super) fn names_in(section: &str) -> Vec<&'static str> {
    let below = |key: &'static Key| match section {
        "" => Some(key.name),
        _ => key.name.strip_prefix(section)?.strip_prefix('.'),
    };
    let in_file = all().filter(|key| !matches!(key.kind, Kind::Outside));
    let names: BTreeSet<_> = in_file.filter_map(below).filter_map(|name| name.split('.').next()).collect();
    names.into_iter().collect()
}

/// The tables other than this one that have a key of this name, as they are written: for who wrote it in the wrong one.
pub(super) fn elsewhere(name: &str, section: &str) -> Option<String> {
    const SHOWN_MAX: usize = 3;
    let table_of = |key: &'static Key| {
        let (table, last) = key.name.rsplit_once('.')?;
        (last == name && table != section).then_some(table)
    };
    let in_file = all().filter(|key| !matches!(key.kind, Kind::Outside | Kind::Tables));
    let tables = in_file.filter_map(table_of).take(SHOWN_MAX).map(|table| match find(table).map(|key| &key.kind) {
        Some(Kind::Tables) => format!("[[{table}]]"),
        _ => format!("[{table}]"),
    });
    let tables = tables.collect::<Vec<_>>().join(", ");
    (!tables.is_empty()).then_some(tables)
}

/// The key of who may read files of secrets.
pub(super) const READERS: &str = "secret-files-readable-by";
/// The variable that says who may read files of secrets.
pub const READERS_ENV: &str = "TURNSTONE_SECRET_FILES_READABLE_BY";
pub(super) const TOKEN_ALGORITHMS: &Choices<TokenAlgorithm> =
    &[("A256GCM", TokenAlgorithm::A256Gcm), ("A128GCM", TokenAlgorithm::A128Gcm)];
pub(super) const LOG_FORMATS: &Choices<LogFormat> = &[("text", LogFormat::Text), ("json", LogFormat::Json)];
pub(super) const LOG_OUTPUTS: &Choices<LogOutput> = &[("stderr", LogOutput::Stderr), ("stdout", LogOutput::Stdout)];
/// Which of several relay addresses.
pub(super) const RELAY_CHOICES: &Choices<RelayChoice> =
    &[("least-used", RelayChoice::LeastUsed), ("reached", RelayChoice::Reached)];
/// The family of clients that name none.
pub(super) const DEFAULT_FAMILIES: &Choices<DefaultFamily> = &[
    ("ipv4", DefaultFamily::Always(Family::V4)),
    ("ipv6", DefaultFamily::Always(Family::V6)),
    ("as-client", DefaultFamily::AsClient),
];

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);
const DECADE: Duration = Duration::from_secs(3660 * 86_400);
const U32_MAX: u64 = u32::MAX as u64;

const SECRET_ID: Kind = Kind::Text("a name of at most 64 letters, digits, dots, dashes and underscores");
const USERS_FILE: Kind = Kind::Text("the path of a file with a name:password or a name:0xKEY a line");
const PUBLIC_HOST: Kind = Kind::Text("a host name or an IP address");
const URLS: Kind = Kind::Texts(r#"URLs such as "turn:turn.example.org:3478?transport=udp""#);
const RULES: Kind = Kind::Texts(r#"networks such as "10.0.0.0/8", addresses, or ranges such as "10.0.0.1-10.0.0.9""#);
const ALTERNATE_SERVERS: &str =
    r#"servers such as "203.0.113.6:3478", or "tls://203.0.113.6:443" for the clients of one transport"#;
const ALTERNATE_DOMAIN: Kind =
    Kind::Text(r#"the name in the certificate of the alternate servers, such as "turn2.example.org""#);
const FROM_ONE: &str = r#"a whole number from 1, or "unlimited""#;
const MILLION: &str = r#"a whole number from 1 to 1000000, or "unlimited""#;
const PACKETS: Kind = Kind::Limit(1..=U32_MAX, r#"a whole number of packets a second from 1, or "unlimited""#);

static KEYS: &[Key] = &[
    Key::new("workers", Kind::Number(0..=1024, "a whole number up to 1024; 0 is one per core"))
        .default("0")
        .shown(|c| number(c.workers))
        .after_restart(|new, running| new.workers = running.workers)
        .set_by("TURNSTONE_WORKERS", Some("workers"), "NUMBER", "worker threads; 0 is one per core"),
    Key::new("turn", Kind::Boolean).default("true").shown(|c| boolean(c.turn)),
    Key::new("mobility", Kind::Boolean).default("false").shown(|c| boolean(c.mobility)),
    Key::new("rfc5766-channel-numbers", Kind::Boolean).default("false").shown(|c| boolean(c.rfc5766_channel_numbers)),
    Key::new(READERS, Kind::Text(r#""owner", "group" or "everybody""#))
        .default("owner")
        .shown(|c| text(c.secret_readers.name()))
        .set_by(
            READERS_ENV,
            Some("secret-files-readable-by"),
            "WHO",
            "who may read files with secrets: owner, or for the modes that containers give them group (0440) or everybody (0444)",
        ),
    Key::new("follow-secrets", Kind::Boolean).default("false").shown(|c| boolean(c.follow_secrets)),
    Key::new("state-directory", Kind::Text("the path of a directory"))
        .shown(|c| text(c.state_directory.as_ref()?.to_string_lossy()))
        .after_restart(keep_state_directory),
    Key::new("software", Kind::Text("a text of at most 127 characters")).shown(|c| text(c.software.as_deref()?)),
    Key::new("listen", Kind::Tables)
        .unshown(unshown::listen_lines, unshown::listen_change)
        .after_restart(|new, running| new.listeners.clone_from(&running.listeners))
        .set_by(
            "TURNSTONE_LISTEN",
            Some("listen"),
            "URL",
            "listeners such as udp://0.0.0.0:3478, replacing every [[listen]]",
        ),
    Key::new(
        "listen.address",
        Kind::Text(r#"ADDRESS:PORT such as "0.0.0.0:3478", "[::]:3478", or "*:3478" for every address"#),
    ),
    Key::new("listen.transport", Kind::Texts(r#""udp", "tcp", "tls" or "dtls", or an array of several of them"#)),
    Key::new("listen.realm", Kind::Text("the name of a [[realm]]")),
    Key::new("listen.proxy-from", Kind::Texts(r#"networks or addresses of proxies such as "10.0.0.0/24" or "127.0.0.1""#)),
    Key::new("listen.relay", Kind::Texts(r#"addresses of [relay], such as "203.0.113.5""#)),
    Key::new("listen.web", Kind::Text(r#"the ADDRESS:PORT of a web server with TLS such as "127.0.0.1:8443""#)),
    Key::new("listen.web-proxy-header", Kind::Boolean).default("false"),
    Key::new("listen.turn-names", Kind::Texts(r#"host names such as "turn.example.org""#)),
    Key::new("nat-discovery.addresses", Kind::Texts("two addresses of this host, or two of each family"))
        .shown(|c| texts(&c.nat_discovery.iter().flat_map(|pair| pair.addresses).collect::<Vec<_>>()))
        .after_restart(keep_nat_discovery),
    Key::new("nat-discovery.external-addresses", Kind::Texts("a public address for each of the addresses, in their order"))
        .shown(|c| texts(&c.nat_discovery.iter().flat_map(|pair| pair.external).collect::<Vec<_>>()))
        .after_restart(keep_nat_discovery),
    Key::new("nat-discovery.ports", Kind::Numbers(1..=65535, "an array of two ports from 1 to 65535"))
        .shown(|c| Some(Value::List(c.nat_discovery.first()?.ports.iter().map(|port| Value::Number(u64::from(*port))).collect())))
        .after_restart(keep_nat_discovery),
    Key::new("compatibility.rfc3489", Kind::Boolean).default("false").shown(|c| boolean(c.rfc3489)),
    Key::new("realm", Kind::Tables).unshown(unshown::realm_lines, unshown::realm_change),
    Key::new("realm.name", Kind::Text("a text of at most 127 characters without quotes")),
    Key::new("realm.sni", SERVER_NAMES),
    Key::new("realm.public-host", PUBLIC_HOST),
    Key::new("realm.urls", URLS),
    Key::new("realm.on-expiry", Kind::Text(r#""keep", "no-refresh" or "cut""#)),
    Key::new("realm.username-limits", Kind::Boolean),
    Key::new("realm.peers", Kind::Text("the name of a [[peers.policy]]")),
    Key::new("realm.users-file", USERS_FILE),
    Key::new("realm.secrets", Kind::Tables),
    Key::new("realm.secrets.id", SECRET_ID),
    Key::new("realm.secrets.credential", CREDENTIAL),
    Key::new("realm.secrets.file", FILE),
    Key::new("realm.secrets.env", VARIABLE),
    Key::new("realm.secrets.secret", INLINE),
    Key::new("realm.users", Kind::Tables),
    Key::new("realm.users.name", Kind::Text("the user's name")),
    Key::new("realm.users.password-credential", CREDENTIAL),
    Key::new("realm.users.password-file", FILE),
    Key::new("realm.users.password-env", VARIABLE),
    Key::new("realm.users.password", INLINE),
    Key::new("realm.quota.allocations-per-user", Kind::Limit(1..=U32_MAX, FROM_ONE)),
    Key::new("realm.quota.fleet-allocations-per-user", Kind::Limit(1..=U32_MAX, FROM_ONE)),
    Key::new("realm.quota.allocations-total", Kind::Limit(1..=U32_MAX, FROM_ONE)),
    Key::new("realm.quota.allocations-per-user-per-second", Kind::Limit(1..=1_000_000, MILLION)),
    Key::new("realm.quota.allocations-per-user-burst", Kind::Number(1..=1_000_000, "a whole number from 1 to 1000000")),
    Key::new("realm.quota.reservations-per-user", Kind::Limit(0..=U32_MAX, r#"a whole number, or "unlimited""#)),
    Key::new("realm.bandwidth.per-allocation", Kind::Rate).default("unlimited"),
    Key::new("realm.bandwidth.per-user", Kind::Rate).default("unlimited"),
    Key::new("realm.bandwidth.packets-per-allocation", PACKETS).default("unlimited"),
    Key::new("realm.bandwidth.packets-per-user", PACKETS).default("unlimited"),
    Key::new("relay.ipv4", Kind::Texts(r#"IPv4 addresses of this host, "auto" or "off""#))
        .default("auto")
        .shown(|c| relay_bind(c, Family::V4))
        .after_restart(keep_relay)
        .set_by("TURNSTONE_RELAY_IPV4", Some("relay-ipv4"), "ADDRESS", "IPv4 addresses to relay from, auto or off"),
    Key::new("relay.ipv6", Kind::Texts(r#"IPv6 addresses of this host, "auto" or "off""#))
        .default("auto")
        .shown(|c| relay_bind(c, Family::V6))
        .after_restart(keep_relay)
        .set_by("TURNSTONE_RELAY_IPV6", Some("relay-ipv6"), "ADDRESS", "IPv6 addresses to relay from, auto or off"),
    Key::new(
        "relay.external-ip",
        Kind::Texts(r#"public addresses such as "203.0.113.5", pairs PUBLIC/PRIVATE, "auto" or "name:HOST""#),
    )
        .shown(relay_externals)
        .after_restart(keep_relay)
        .set_by(
            "TURNSTONE_EXTERNAL_IP",
            Some("external-ip"),
            "ADDRESS",
            "public address of a relay behind 1:1 NAT; PUBLIC/PRIVATE where there are several; auto or name:HOST",
        ),
    Key::new("relay.external-ip-sources", Kind::Texts(r#""metadata:CLOUD" and "stun:HOST:PORT""#))
        .shown(|c| texts(&c.relay.finding.sources))
        .after_restart(keep_relay)
        .set_by(
            "TURNSTONE_EXTERNAL_IP_SOURCES",
            Some("external-ip-sources"),
            "SOURCE",
            "whom external-ip auto asks: metadata:CLOUD, stun:HOST:PORT",
        ),
    Key::new("relay.external-ip-interval", Kind::Duration(Duration::from_secs(10)..=DAY))
        .default("5m")
        .shown(|c| Some(Value::Duration(c.relay.finding.interval)))
        .after_restart(keep_relay),
    Key::new("relay.choice", Kind::Text(r#""least-used" or "reached""#))
        .default("least-used")
        .shown(|c| text(name_of(RELAY_CHOICES, &c.relay.choice)?))
        .after_restart(keep_relay),
    Key::new("relay.address-family", Kind::Text(r#""ipv4", "ipv6" or "as-client""#))
        .default("ipv4")
        .shown(|c| text(name_of(DEFAULT_FAMILIES, &c.relay.default_family)?))
        .after_restart(keep_relay),
    Key::new("relay.ports", Kind::Text(r#"a range such as "49152-65535", or "shared:3480-3487""#))
        .default("49152-65535")
        .shown(|c| {
            let ((low, high), shared) = (c.relay.ports, if c.relay.shared { "shared:" } else { "" });
            text(format!("{shared}{low}-{high}"))
        })
        .after_restart(keep_relay)
        .set_by("TURNSTONE_RELAY_PORTS", Some("relay-ports"), "RANGE", "relay ports such as 49152-65535"),
    Key::new("relay.tcp", Kind::Boolean).default("false").shown(|c| boolean(c.tcp_relays.is_offered)),
    Key::new("relay.tcp-connections-per-allocation", Kind::Number(1..=1024, "a whole number from 1 to 1024"))
        .default("32")
        .shown(|c| number(c.tcp_relays.limits.connections_per_allocation)),
    Key::new("relay.tcp-connections-per-user", Kind::Number(1..=65535, "a whole number from 1 to 65535"))
        .default("128")
        .shown(|c| number(c.tcp_relays.limits.connections_per_user)),
    Key::new("auth.realm", Kind::Text("a text of at most 127 characters without quotes"))
        .default("turnstone")
        .shown(|c| text(&*c.auth.realm))
        .set_by("TURNSTONE_REALM", Some("realm"), "REALM", "realm"),
    Key::new("auth.sni", SERVER_NAMES).shown(|c| texts(&c.auth.server_names)),
    Key::new("auth.public-host", PUBLIC_HOST)
        .shown(|c| text(c.auth.public_host.as_deref()?))
        .set_by("TURNSTONE_PUBLIC_HOST", Some("public-host"), "HOST", "host name in printed URLs"),
    Key::new("auth.urls", URLS).shown(|c| texts(&c.auth.urls)),
    Key::new("auth.on-expiry", Kind::Text(r#""keep", "no-refresh" or "cut""#))
        .default("keep")
        .shown(|c| text(name_of(ON_EXPIRY, &c.auth.on_expiry)?)),
    Key::new("auth.nonce-key-credential", CREDENTIAL),
    Key::new("auth.nonce-key-file", FILE),
    Key::new("auth.nonce-key-env", VARIABLE),
    Key::new("auth.nonce-key", INLINE).unshown(unshown::nonce_key_lines, unshown::nonce_key_change),
    Key::new("auth.nonce-lifetime", Kind::Duration(Duration::from_secs(30)..=DAY))
        .default("10m")
        .shown(|c| secs(c.auth.nonce_lifetime_secs))
        .after_restart(|new, running| new.auth.nonce_lifetime_secs = running.auth.nonce_lifetime_secs),
    Key::new("auth.username-limits", Kind::Boolean).default("false").shown(|c| boolean(c.auth.username_limits)),
    Key::new("auth.credential-lifetime-max", Kind::DurationOrOff(MINUTE..=DECADE))
        .default("off")
        .shown(|c| or_off(c.auth.credential_lifetime_max.map(Value::Duration))),
    Key::new("auth.revocations", FILE).shown(|c| text(c.auth.revocations_file.as_ref()?.to_string_lossy())),
    Key::new("auth.secrets", Kind::Tables).unshown(unshown::secrets_lines, unshown::secrets_change),
    Key::new("auth.secrets.id", SECRET_ID),
    Key::new("auth.secrets.credential", CREDENTIAL),
    Key::new("auth.secrets.file", FILE),
    Key::new("auth.secrets.env", VARIABLE),
    Key::new("auth.secrets.secret", INLINE),
    Key::new("auth.server-name", Kind::Text("a name of at most 255 printable ASCII characters without spaces"))
        .shown(|c| text(&*c.auth.tokens.server_name).filter(|_| c.auth.tokens.is_on())),
    Key::new("auth.token-keys", Kind::Tables).unshown(unshown::token_keys_lines, unshown::token_keys_change),
    Key::new("auth.token-keys.id", Kind::Text("a name of at most 128 printable ASCII characters without spaces")),
    Key::new("auth.token-keys.algorithm", Kind::Text(r#""A256GCM" or "A128GCM""#)).default("A256GCM"),
    Key::new("auth.token-keys.not-before", Kind::Text(r#"a moment in UTC such as "2026-11-30T12:00:00Z""#)),
    Key::new("auth.token-keys.not-after", Kind::Text(r#"a moment in UTC such as "2026-12-31T00:00:00Z""#)),
    Key::new("auth.token-keys.credential", CREDENTIAL),
    Key::new("auth.token-keys.file", FILE),
    Key::new("auth.token-keys.env", VARIABLE),
    Key::new("auth.token-keys.key", INLINE),
    Key::new("auth.users", Kind::Tables)
        .unshown(unshown::users_lines, unshown::users_change),
    Key::new("auth.users.name", Kind::Text("the user's name")),
    Key::new("auth.users.password-credential", CREDENTIAL),
    Key::new("auth.users.password-file", FILE),
    Key::new("auth.users.password-env", VARIABLE),
    Key::new("auth.users.password", INLINE),
    Key::new("auth.users-file", USERS_FILE),
    Key::new("peers.mode", Kind::Text(r#""p2p" or "sfu""#))
        .default("p2p")
        .shown(|c| text(name_of(PEER_MODES, &c.peers.default_deny_all)?)),
    Key::new("peers.relays", Kind::Boolean).shown(|c| boolean(!c.peers.deny_relays)),
    Key::new("peers.denied", RULES).shown(|c| texts(&c.peers.denied)),
    Key::new("peers.allowed", RULES).shown(|c| texts(&c.peers.allowed)),
    Key::new("peers.denied-ports", Kind::Numbers(1..=65535, "an array of ports from 1 to 65535"))
        .shown(|c| Some(Value::List(c.peers.denied_ports.iter().map(|port| Value::Number(u64::from(*port))).collect()))),
    Key::new(
        "peers.own-services",
        Kind::Texts(r#"services of this host such as "203.0.113.7:10000" or "203.0.113.7:20000-20999""#),
    )
    .shown(|c| texts(&c.peers.own_services)),
    Key::new("peers.nat64-prefixes", Kind::Texts(r#"IPv6 prefixes such as "2001:db8:64::/96""#))
        .shown(|c| texts(&c.peers.nat64_prefixes)),
    Key::new("peers.policy", Kind::Tables).unshown(unshown::policies_lines, unshown::policies_change),
    Key::new("peers.policy.name", Kind::Text("a name of at most 32 letters, digits, dots, dashes and underscores")),
    Key::new("peers.policy.mode", Kind::Text(r#""p2p" or "sfu""#)).default("p2p"),
    Key::new("peers.policy.relays", Kind::Boolean),
    Key::new("peers.policy.denied", RULES),
    Key::new("peers.policy.allowed", RULES),
    Key::new("peers.policy.denied-ports", Kind::Numbers(1..=65535, "an array of ports from 1 to 65535")),
    Key::new(
        "peers.policy.own-services",
        Kind::Texts(r#"services of this host such as "203.0.113.7:10000" or "203.0.113.7:20000-20999""#),
    ),
    Key::new("quota.allocations-per-user", Kind::Limit(1..=U32_MAX, FROM_ONE))
        .shown(|c| limit(c.quota.per_user))
        .after_restart(keep_shares),
    Key::new("quota.fleet-allocations-per-user", Kind::Limit(1..=U32_MAX, FROM_ONE))
        .default("unlimited")
        .shown(|c| limit(c.quota.fleet_per_user)),
    Key::new("quota.allocations-total", Kind::Limit(1..=U32_MAX, FROM_ONE))
        .default("unlimited")
        .shown(|c| limit(c.quota.total)),
    Key::new("quota.allocations-per-user-per-second", Kind::Limit(1..=1_000_000, MILLION))
        .default("50")
        .shown(|c| limit(c.quota.rate.map(|rate| rate.per_second))),
    Key::new("quota.allocations-per-user-burst", Kind::Number(1..=1_000_000, "a whole number from 1 to 1000000"))
        .shown(|c| limit(Some(c.quota.rate?.burst))),
    Key::new("quota.reservations-per-user", Kind::Limit(0..=U32_MAX, r#"a whole number, or "unlimited""#))
        .shown(|c| limit(c.quota.reservations_per_user))
        .after_restart(keep_shares),
    Key::new("bandwidth.per-allocation", Kind::Rate).default("unlimited").shown(|c| rate(c.bandwidth.per_allocation)),
    Key::new("bandwidth.per-user", Kind::Rate).default("unlimited").shown(|c| rate(c.bandwidth.per_user)),
    Key::new("bandwidth.packets-per-allocation", PACKETS)
        .default("unlimited")
        .shown(|c| limit(c.bandwidth.packets_per_allocation)),
    Key::new("bandwidth.packets-per-user", PACKETS)
        .default("unlimited")
        .shown(|c| limit(c.bandwidth.packets_per_user)),
    Key::new("guard.peers-per-user", Kind::Limit(1..=65535, r#"a whole number from 1 to 65535, or "unlimited""#))
        .default("unlimited")
        .shown(|c| limit(c.guard.peers_per_user)),
    Key::new("guard.new-peers-per-minute", Kind::Limit(1..=6000, r#"a whole number from 1 to 6000, or "unlimited""#))
        .default("unlimited")
        .shown(|c| limit(c.guard.new_peers_per_minute)),
    Key::new("guard.suspend-after", Kind::Limit(1..=1000, r#"a whole number from 1 to 1000, or "unlimited""#))
        .default("unlimited")
        .shown(|c| limit(c.guard.suspension.map(|suspension| suspension.probes))),
    Key::new("guard.suspend-for", Kind::Duration(Duration::from_secs(60)..=DAY))
        .default("10m")
        .shown(|c| secs(c.guard.suspension?.secs)),
    Key::new("guard.loop-packets-per-second", Kind::Limit(100..=1_000_000, r#"a whole number from 100 to 1000000, or "unlimited""#))
        .default("unlimited")
        .shown(|c| limit(c.guard.loop_packets_per_second)),
    Key::new("lifetimes.allocation-default", Kind::Duration(Duration::from_secs(10)..=DAY))
        .default("10m")
        .shown(|c| secs(c.lifetimes.allocation_default_secs)),
    Key::new("lifetimes.allocation-max", Kind::Duration(Duration::from_secs(10)..=DAY))
        .default("1h")
        .shown(|c| secs(c.lifetimes.allocation_max_secs)),
    Key::new("limits.unauthenticated-replies-per-second", Kind::Limit(1..=1_000_000, MILLION))
        .default("100")
        .shown(|c| limit(c.unauthenticated.map(|limit| limit.per_second))),
    Key::new("limits.unauthenticated-replies-burst", Kind::Number(1..=1_000_000, "a whole number from 1 to 1000000"))
        .default("500")
        .shown(|c| limit(Some(c.unauthenticated?.burst))),
    Key::new("limits.peers-per-allocation", Kind::Number(1..=65535, "a whole number from 1 to 65535"))
        .default("128")
        .shown(|c| number(c.max_peers_per_allocation)),
    Key::new("streams.queue", Kind::Duration(Duration::from_millis(10)..=Duration::from_secs(10)))
        .default("200ms")
        .shown(|c| Some(Value::Duration(c.streams.queue)))
        .after_restart(keep_streams),
    Key::new("streams.queue-bytes-max", Kind::Size(64 << 10..=64 << 20))
        .default("1MiB")
        .shown(|c| Some(Value::Size(c.streams.queue_bytes_max as u64)))
        .after_restart(keep_streams),
    Key::new("streams.idle-timeout", Kind::Duration(SECOND..=HOUR))
        .default("60s")
        .shown(|c| Some(Value::Duration(c.streams.idle_timeout)))
        .after_restart(keep_streams),
    Key::new("streams.handshake-timeout", Kind::Duration(SECOND..=HOUR))
        .default("10s")
        .shown(|c| Some(Value::Duration(c.streams.handshake_timeout)))
        .after_restart(keep_streams),
    Key::new("streams.allocation-timeout", Kind::Duration(SECOND..=DAY))
        .default("2m")
        .shown(|c| Some(Value::Duration(c.streams.allocation_timeout)))
        .after_restart(keep_streams),
    Key::new("streams.connections-max", Kind::Number(1..=10_000_000, "a whole number from 1 to 10000000"))
        .default("10000")
        .shown(|c| number(c.streams.connections_max))
        .after_restart(keep_streams),
    Key::new("streams.connections-per-ip-max", Kind::Limit(1..=10_000_000, FROM_ONE))
        .default("1000")
        .shown(|c| limit(c.streams.connections_per_ip_max.map(|max| max as u64)))
        .after_restart(keep_streams),
    Key::new("streams.unallocated-per-network-max", Kind::Limit(1..=10_000_000, FROM_ONE))
        .default("2000")
        .shown(|c| limit(c.streams.unallocated_per_network_max.map(|max| max as u64)))
        .after_restart(keep_streams),
    Key::new("log.level", Kind::Text(r#"error, warn, info, debug, trace, or "info,turnstone::turn=debug""#))
        .default("info")
        .shown(|c| text(&*c.log.filter))
        .set_by("TURNSTONE_LOG_LEVEL", Some("log-level"), "LEVEL", "error, warn, info, debug, trace, or a filter"),
    Key::new("log.format", Kind::Text(r#""text" or "json""#))
        .default("text")
        .shown(|c| text(name_of(LOG_FORMATS, &c.log.format)?))
        .after_restart(|new, running| new.log.format = running.log.format)
        .set_by("TURNSTONE_LOG_FORMAT", Some("log-format"), "FORMAT", "text or json"),
    Key::new("log.output", Kind::Text(r#""stderr" or "stdout""#))
        .default("stderr")
        .shown(|c| text(name_of(LOG_OUTPUTS, &c.log.output)?))
        .after_restart(|new, running| new.log.output = running.log.output),
    Key::new("log.addresses", Kind::Text(r#""full", "prefix" or "off""#))
        .default("full")
        .shown(|c| text(c.log.addresses.name()))
        .set_by(
            "TURNSTONE_LOG_ADDRESSES",
            Some("log-addresses"),
            "CHOICE",
            "how much of clients' and peers' addresses the log has: full, prefix or off",
        ),
    Key::new(
        "metrics.listen",
        Kind::Text(r#"ADDRESS:PORT such as "127.0.0.1:9641", or "unix:/run/turnstone/metrics.sock""#),
    )
    .shown(|c| text(c.metrics.as_ref()?.listen.to_string()))
    .after_restart(keep_metrics),
    Key::new("metrics.allow-remote", Kind::Boolean)
        .default("false")
        .shown(|c| boolean(c.metrics.as_ref()?.allow_remote))
        .after_restart(keep_metrics),
    Key::new(
        "admin.listen",
        Kind::Text(r#""unix:/run/turnstone/admin.sock", or ADDRESS:PORT on loopback such as "127.0.0.1:9642""#),
    )
        .shown(|c| text(c.admin.as_ref()?.listen.to_string()))
        .after_restart(keep_admin),
    Key::new("admin.token-credential", CREDENTIAL).after_restart(keep_admin),
    Key::new("admin.token-file", FILE).after_restart(keep_admin),
    Key::new("admin.token-env", VARIABLE).after_restart(keep_admin),
    Key::new("admin.token", INLINE).unshown(unshown::admin_token_lines, unshown::admin_token_change).after_restart(keep_admin),
    Key::new("admin.page", Kind::Boolean)
        .default("false")
        .shown(|c| boolean(c.admin.as_ref()?.page))
        .after_restart(keep_admin),
    Key::new("admin.page-origins", Kind::Texts(r#"origins such as "https://ops.example.org""#))
        .shown(|c| texts(&c.admin.as_ref().filter(|admin| !admin.page_origins.is_empty())?.page_origins))
        .after_restart(keep_admin),
    Key::new("drain.deadline", Kind::Duration(Duration::ZERO..=DAY))
        .default("0s")
        .shown(|c| Some(Value::Duration(c.drain.deadline))),
    Key::new("drain.alternate-server", Kind::Texts(ALTERNATE_SERVERS)).shown(|c| Some(Value::List(c.drain.alternates.servers.iter().map(alternate).collect()))),
    Key::new("drain.alternate-domain", ALTERNATE_DOMAIN).shown(|c| text(c.drain.alternates.domain.as_deref()?)),
    Key::new("redirect.alternate-server", Kind::Texts(ALTERNATE_SERVERS))
        .shown(|c| Some(Value::List(c.redirect.as_ref()?.alternates.servers.iter().map(alternate).collect()))),
    Key::new("redirect.alternate-domain", ALTERNATE_DOMAIN)
        .shown(|c| text(c.redirect.as_ref()?.alternates.domain.as_deref()?)),
    Key::new("redirect.fleet", Kind::Boolean)
        .default("false")
        .shown(|c| boolean(c.redirect.as_ref()?.by_load)),
    Key::new("redirect.share", Kind::Number(1..=100, "a whole number of percent from 1 to 100"))
        .default("100")
        .shown(|c| number(c.redirect.as_ref()?.share_percent.into())),
    Key::new("redirect.from-allocations", Kind::Number(0..=10_000_000, "a whole number up to 10000000; 0 is always"))
        .default("0")
        .shown(|c| Some(Value::Number(c.redirect.as_ref()?.from_allocations.into()))),
    Key::new("redirect.from-bandwidth", Kind::Rate)
        .default("unlimited")
        .shown(|c| rate(c.redirect.as_ref()?.from_bytes_per_sec)),
];

// What only a restart can change: sockets, threads, and what is made with them.

/// Where there was none, nothing but certificates can be kept in a new one.
fn keep_state_directory(new: &mut Config, running: &Config) {
    new.state_directory.clone_from(&running.state_directory);
    if let Some(directory) = &running.state_directory {
        acme_pairs::keep_in(new, directory);
    }
}

fn keep_nat_discovery(new: &mut Config, running: &Config) {
    new.nat_discovery.clone_from(&running.nat_discovery);
}

fn keep_relay(new: &mut Config, running: &Config) {
    new.relay.clone_from(&running.relay);
}

/// After the relay's ports, which quotas may be shares of.
fn keep_shares(new: &mut Config, _running: &Config) {
    new.quota_shares.apply(&mut new.quota, &new.relay);
}

fn keep_streams(new: &mut Config, running: &Config) {
    new.streams = running.streams;
}

fn keep_metrics(new: &mut Config, running: &Config) {
    new.metrics.clone_from(&running.metrics);
}

fn keep_admin(new: &mut Config, running: &Config) {
    new.admin.clone_from(&running.admin);
}

fn alternate(server: &AlternateServer) -> Value {
    Value::Text(match server.transport {
        Some(transport) => format!("{transport}://{}", server.address),
        None => server.address.to_string(),
    })
}

#[cfg(test)]
mod named;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;
