//! Every directive of coturn's reference (4.6.1 to 4.17), and what becomes of it.

use super::conf::{Conf, Part};
use super::credentials::DATABASE;
use super::findings::Grade;
use super::syntax::Entry;

/// Takes one entry into a [`Conf`].
pub(super) type Reader = fn(&mut Conf, &Entry<'_>);

/// What becomes of a directive.
#[derive(Clone, Copy)]
pub(super) enum Treatment {
    /// It is read into [`Conf`].
    Read(Reader),
    /// A switch for what is always so here: the text says what.
    Always(&'static str),
    /// A switch for what is not offered: the text says why, and what to do.
    Missing(&'static str),
    /// A value that has no counterpart: why, and what to do.
    Without(&'static str),
    /// A value, or a switch, that belongs to something else, and has no counterpart.
    Part(Part),
    /// A value that nothing here needs: why.
    Needless(&'static str),
}

pub(super) fn find(name: &str) -> Option<(&'static str, Grade, Treatment)> {
    DIRECTIVES.iter().find(|(known, ..)| *known == name).copied()
}

/// Every directive's name and whom it concerns.
pub(super) fn all() -> impl Iterator<Item = (&'static str, Grade)> {
    DIRECTIVES.iter().map(|(name, grade, _)| (*name, *grade))
}

use Grade::{Clients, Operation, Security};
use Treatment::{Always, Missing, Needless, Part as PartOf, Read, Without};

const ADMIN_PORT: &str = "the admin API is on a socket, /run/turnstone/admin.sock; for a port on loopback set listen and token-file in \
                          [admin], and from another host reach either through ssh";
const UNIT: &str = "the service manager does this (systemctl cat turnstone)";
const LOG_FILE: &str = "logs go to standard error, which journald collects: journalctl -u turnstone; for a file of their own, \
    StandardError=append:FILE in a drop-in (systemctl edit turnstone)";
const BATCHES: &str = "packets are received and sent in batches with GRO and GSO; there is nothing to set";
const NO_DH: &str = "key exchange is elliptic-curve only (and post-quantum hybrid); there are no DH parameters";
const OLD_TLS: &str = "TLS below 1.2 is never offered";
const SOFTWARE: &str = "SOFTWARE is not sent unless `software` is set";
const DEVICE: &str =
    "sockets are bound to addresses, not to devices; use listening-ip and relay-ip with the device's address";
const DYNAMIC: &str = "there is no database to look into";
const INVALID_PACKETS: &str = "whatever is malformed is dropped before it costs anything, and counted";

const fn part(is_used: fn(&Conf) -> bool, unused: &'static str, why: &'static str) -> Part {
    Part { is_used, unused, why }
}

const NO_TLS: &str = "without TLS it does nothing, in coturn neither";
const CLI: Part =
    part(Conf::has_cli, "without a telnet interface (cli-password) it does nothing, in coturn neither", ADMIN_PORT);
const WEB_ADMIN: Part = part(|conf| conf.has("web-admin"), NO_WEB_ADMIN, ADMIN_PORT);
const WEB_ADMIN_ON_WORKERS: Part =
    part(|conf| conf.has("web-admin"), NO_WEB_ADMIN, "the admin API never shares a port with clients");
const NO_WEB_ADMIN: &str = "without web-admin it does nothing, in coturn neither";
const SYSLOG: Part = part(|conf| conf.has("syslog"), "without syslog it does nothing, in coturn neither", LOG_FILE);
const TIMESTAMP: Part = part(
    |conf| conf.has("new-log-timestamp"),
    "without new-log-timestamp it does nothing, in coturn neither",
    "the timestamp's format is fixed: ISO 8601 in UTC",
);
const DATABASE_KEY: Part = part(
    |conf| conf.has("mysql-userdb"),
    "without mysql-userdb it does nothing, in coturn neither",
    "it decrypts the password of coturn's MySQL database, and there is no database here",
);
const KEY_PASSWORD: Part = part(
    Conf::has_tls,
    NO_TLS,
    "encrypted keys are not read; decrypt it once (openssl pkey -in KEY -out NEW) and keep the new file at mode 0640",
);
const RAW_KEYS: Part =
    part(Conf::has_tls, NO_TLS, "raw public keys (RFC 7250) are not supported; clients want a certificate");
const CIPHERS: Part = part(
    Conf::has_tls,
    NO_TLS,
    "the cipher suites are those of rustls, all with forward secrecy and authenticated encryption",
);
const CURVE: Part = part(Conf::has_tls, NO_TLS, "the curves are those of rustls");
const CLIENT_CERTIFICATES: Part = part(
    Conf::has_tls,
    NO_TLS,
    "clients are not asked for TLS certificates; who may allocate is decided by credentials",
);

/// Name, whom it concerns, and treatment, in the order of coturn's reference.
const DIRECTIVES: &[(&str, Grade, Treatment)] = &[
    // Listeners.
    ("listening-device", Operation, Without(DEVICE)),
    ("listening-port", Clients, Read(Conf::listening_port)),
    ("tls-listening-port", Clients, Read(Conf::tls_listening_port)),
    ("alt-listening-port", Clients, Read(Conf::alt_listening_port)),
    ("alt-tls-listening-port", Clients, Read(Conf::alt_tls_listening_port)),
    ("tcp-proxy-port", Clients, Read(Conf::tcp_proxy_port)),
    ("listening-ip", Clients, Read(Conf::listening_ip)),
    ("aux-server", Clients, Read(Conf::aux_server)),
    (
        "udp-self-balance",
        Operation,
        Missing("the kernel spreads clients over the workers; there is no redirection between listeners"),
    ),
    ("no-udp", Clients, Read(Conf::no_udp)),
    ("no-tcp", Clients, Read(Conf::no_tcp)),
    ("no-tls", Clients, Read(Conf::no_tls)),
    ("no-dtls", Clients, Read(Conf::no_dtls)),
    ("dtls", Clients, Read(Conf::dtls)),
    ("respond-http-unsupported", Operation, Missing("HTTP on a TURN port is answered by closing the connection")),
    // Relays.
    ("relay-device", Operation, Without(DEVICE)),
    ("relay-ip", Clients, Read(Conf::relay_ip)),
    ("external-ip", Clients, Read(Conf::external_ip)),
    ("relay-threads", Operation, Read(Conf::relay_threads)),
    ("cpus", Operation, Read(Conf::relay_threads)),
    ("min-port", Clients, Read(Conf::min_port)),
    ("max-port", Clients, Read(Conf::max_port)),
    ("no-udp-relay", Clients, Read(Conf::no_udp_relay)),
    ("no-tcp-relay", Clients, Read(Conf::no_tcp_relay)),
    (
        "sock-buf-size",
        Operation,
        Without("the server sizes its socket buffers; net.core.rmem_max and wmem_max are their upper bound"),
    ),
    ("udp-recvmmsg", Operation, Always(BATCHES)),
    ("udp-recvmmsg-log", Operation, Missing("batches are not logged")),
    ("udp-gso", Operation, Always(BATCHES)),
    ("multiplex-peer", Clients, Read(Conf::multiplex_peer)),
    ("multiplex-peer-port", Clients, Read(Conf::multiplex_peer_port)),
    ("multiplex-peer-max-peers", Clients, Read(Conf::multiplex_peer_max_peers)),
    (
        "server-relay",
        Security,
        Missing("it lifts the check of permissions, which makes an open relay; there is no such switch"),
    ),
    ("keep-address-family", Clients, Read(Conf::keep_address_family)),
    ("allocation-default-address-family", Clients, Read(Conf::default_family)),
    ("mobility", Clients, Read(Conf::mobility)),
    // Credentials.
    ("lt-cred-mech", Security, Read(Conf::lt_cred_mech)),
    ("no-auth", Security, Read(Conf::no_auth)),
    ("use-auth-secret", Security, Read(Conf::use_auth_secret)),
    ("static-auth-secret", Security, Read(Conf::static_auth_secret)),
    ("rest-api-separator", Clients, Read(Conf::rest_api_separator)),
    ("secret-ts-exp-time", Security, Needless("coturn ignores it, too")),
    ("user", Clients, Read(Conf::user)),
    ("realm", Clients, Read(Conf::realm)),
    ("server-name", Operation, Read(Conf::server_name)),
    ("oauth", Clients, Read(Conf::oauth)),
    ("check-origin-consistency", Security, Missing("ORIGIN is not judged: any client can write what it likes there")),
    ("stale-nonce", Clients, Read(Conf::stale_nonce)),
    ("stateless-nonce", Security, Always("nonces are stateless, keyed and bound to the client's address")),
    (
        "stateless-nonce-secret",
        Operation,
        Without(
            "each process makes its own nonce key, and a client that a balancer sends to another server gets one 438; nonce-key-file in \
             [auth], the same on each, or a [store] spares it that",
        ),
    ),
    (
        "secure-stun",
        Security,
        Missing("Binding requests are answered without credentials, within the limits of [limits]"),
    ),
    ("no-auth-pings", Security, Always(DYNAMIC)),
    ("no-dynamic-ip-list", Operation, Always(DYNAMIC)),
    ("no-dynamic-realms", Operation, Always(DYNAMIC)),
    ("userdb", Clients, Read(Conf::userdb)),
    ("db", Clients, Read(Conf::userdb)),
    ("psql-userdb", Clients, Without(DATABASE)),
    ("sql-userdb", Clients, Without(DATABASE)),
    ("mysql-userdb", Clients, Without(DATABASE)),
    ("mongo-userdb", Clients, Without(DATABASE)),
    ("redis-userdb", Clients, Read(Conf::redis_userdb)),
    ("secret-key-file", Operation, PartOf(DATABASE_KEY)),
    ("redis-statsdb", Operation, Read(Conf::redis_statsdb)),
    // Limits and lifetimes.
    ("user-quota", Clients, Read(Conf::user_quota)),
    ("total-quota", Clients, Read(Conf::total_quota)),
    ("max-bps", Clients, Read(Conf::max_bps)),
    (
        "bps-capacity",
        Clients,
        Without(
            "there is no cap on the whole server; cap allocations and users ([bandwidth]), or shape the interface with tc",
        ),
    ),
    ("max-allocate-lifetime", Clients, Read(Conf::max_allocate_lifetime)),
    ("channel-lifetime", Clients, Read(Conf::channel_lifetime)),
    ("permission-lifetime", Clients, Read(Conf::permission_lifetime)),
    ("max-allocate-timeout", Clients, Read(Conf::max_allocate_timeout)),
    (
        "unauthorized-ratelimit",
        Security,
        Always("answers to unauthenticated requests are limited per IPv4 /24 and IPv6 /64 ([limits])"),
    ),
    ("unauthorized-ratelimit-rps", Security, Read(Conf::unauthorized_rps)),
    ("drop-invalid-packets", Security, Always(INVALID_PACKETS)),
    (
        "drop-invalid-packets-log",
        Operation,
        Missing("they are counted, not logged: a log line for each is what a flood wants"),
    ),
    // Peers.
    (
        "allow-loopback-peers",
        Clients,
        Missing("loopback peers are a hole; only `turnstone serve --dev` allows them, for a try-out"),
    ),
    ("no-loopback-peers", Security, Always("loopback is always denied")),
    ("no-multicast-peers", Security, Always("multicast and broadcast are always denied")),
    ("allowed-peer-ip", Clients, Read(Conf::allowed_peer)),
    ("denied-peer-ip", Security, Read(Conf::denied_peer)),
    // STUN.
    ("fingerprint", Clients, Needless("FINGERPRINT is sent to clients that send it")),
    ("stun-only", Clients, Read(Conf::stun_only)),
    ("no-stun", Clients, Missing("Binding requests are always answered, within the limits of [limits]")),
    ("software-attribute", Operation, Read(Conf::software_attribute)),
    ("no-software-attribute", Security, Always(SOFTWARE)),
    ("prod", Security, Always(SOFTWARE)),
    ("rfc5780", Clients, Read(Conf::rfc5780)),
    ("no-rfc5780", Clients, Read(Conf::no_rfc5780)),
    ("response-origin-only-with-rfc5780", Clients, Always("RESPONSE-ORIGIN is sent only with [nat-discovery]")),
    ("stun-backward-compatibility", Clients, Read(Conf::rfc3489)),
    ("no-stun-backward-compatibility", Clients, Read(Conf::no_rfc3489)),
    ("rfc3489-compatibility", Clients, Read(Conf::rfc3489)),
    ("rfc5766-channel-numbers", Clients, Read(Conf::rfc5766_channel_numbers)),
    ("include-reason-string", Clients, Always("every error has a reason phrase")),
    // TLS.
    ("cert", Clients, Read(Conf::cert)),
    ("pkey", Clients, Read(Conf::pkey)),
    ("pkey-pwd", Clients, PartOf(KEY_PASSWORD)),
    ("raw-public-keys", Clients, PartOf(RAW_KEYS)),
    ("cipher-list", Security, PartOf(CIPHERS)),
    ("CA-file", Security, PartOf(CLIENT_CERTIFICATES)),
    ("ec-curve-name", Security, PartOf(CURVE)),
    ("dh566", Security, Always(NO_DH)),
    ("dh1066", Security, Always(NO_DH)),
    ("dh-file", Security, Needless(NO_DH)),
    ("no-sslv2", Security, Always(OLD_TLS)),
    ("no-sslv3", Security, Always(OLD_TLS)),
    ("no-tlsv1", Security, Always(OLD_TLS)),
    ("no-tlsv1_1", Security, Always(OLD_TLS)),
    ("no-tlsv1_2", Security, Read(Conf::no_tlsv1_2)),
    ("tlsv1", Clients, Missing(OLD_TLS)),
    ("tlsv1_1", Clients, Missing(OLD_TLS)),
    (
        "acme-redirect",
        Operation,
        Without(
            "HTTP is not answered; for certificates with certbot see /usr/local/share/turnstone/certbot-deploy-hook",
        ),
    ),
    // Logs and metrics.
    ("verbose", Operation, Read(Conf::verbose)),
    ("Verbose", Operation, Read(Conf::very_verbose)),
    ("log-min-level", Operation, Read(Conf::log_min_level)),
    ("log-file", Operation, Needless(LOG_FILE)),
    ("no-stdout-log", Operation, Needless(LOG_FILE)),
    ("syslog", Operation, Needless(LOG_FILE)),
    ("syslog-facility", Operation, PartOf(SYSLOG)),
    ("simple-log", Operation, Needless(LOG_FILE)),
    ("new-log-timestamp", Operation, Needless("log lines have a timestamp in UTC")),
    ("new-log-timestamp-format", Operation, PartOf(TIMESTAMP)),
    (
        "log-binding",
        Operation,
        Missing("Binding requests are counted, not logged: a log line for each is what a flood wants"),
    ),
    ("prometheus", Operation, Read(Conf::prometheus)),
    ("prometheus-port", Operation, Read(Conf::prometheus_port)),
    ("prometheus-address", Operation, Read(Conf::prometheus_address)),
    ("prometheus-path", Operation, Read(Conf::prometheus_path)),
    (
        "prometheus-username-labels",
        Operation,
        Missing(
            "metrics never have a user as a label: whoever gets credentials made could fill the memory of server and Prometheus with names; [usage] records what each user uses, and the admin API names the top users",
        ),
    ),
    // Several servers, administration, process.
    ("alternate-server", Clients, Read(Conf::alternate_server)),
    ("tls-alternate-server", Clients, Read(Conf::tls_alternate_server)),
    ("udp-alternate-server", Clients, Read(Conf::udp_alternate_server)),
    ("tcp-alternate-server", Clients, Read(Conf::tcp_alternate_server)),
    (
        "drain-min-allocations",
        Operation,
        Without(
            "there is no threshold; SIGUSR1 drains here too, and the server then stops when its last allocation ends or [drain] deadline comes",
        ),
    ),
    ("cli", Operation, Read(Conf::cli)),
    ("no-cli", Security, Read(Conf::no_cli)),
    ("cli-ip", Operation, PartOf(CLI)),
    ("cli-port", Operation, PartOf(CLI)),
    ("cli-password", Operation, Read(Conf::cli_password)),
    ("cli-max-output-sessions", Operation, Needless("the admin API gives lists in pages")),
    ("web-admin", Operation, Read(Conf::web_admin)),
    ("web-admin-ip", Operation, PartOf(WEB_ADMIN)),
    ("web-admin-port", Operation, PartOf(WEB_ADMIN)),
    ("web-admin-listen-on-workers", Operation, PartOf(WEB_ADMIN_ON_WORKERS)),
    ("daemon", Operation, Needless(UNIT)),
    ("pidfile", Operation, Needless(UNIT)),
    ("proc-user", Operation, Needless(UNIT)),
    ("proc-group", Operation, Needless(UNIT)),
    ("ne", Operation, Needless("there is one network engine")),
    ("version", Operation, Needless("it prints coturn's version and belongs on a command line")),
];
