//! Every directive of coturn's reference (4.6.1 to 4.17), and what becomes of it.

use super::read::{Conf, Reader};

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
    /// A value that nothing here needs: why.
    Needless(&'static str),
}

pub(super) fn find(name: &str) -> Option<Treatment> {
    DIRECTIVES.iter().find(|(known, _)| *known == name).map(|(_, treatment)| *treatment)
}

use Treatment::{Always, Missing, Needless, Read, Without};

const RFC5780: &str =
    "NAT behaviour discovery (RFC 5780) is not offered; run a STUN server that has it beside this one";
const PROXY: &str = "the PROXY protocol is not supported; let the load balancer pass TCP and TLS through to a [[listen]] \
                     of this server";
const DATABASE: &str = "there is no user database; list users as name:password in a file (users-file in [auth]), and put \
                        the secrets that `turnadmin -S` prints into [[auth.secrets]]";
const ADMIN_PORT: &str = "the admin API is on a socket, /run/turnstone/admin.sock; for a port on loopback set listen and token-file in \
                          [admin], and from another host reach either through ssh";
const ALTERNATE: &str = "coturn redirects every client to it; here clients are redirected (300 ALTERNATE-SERVER) only while this server drains: see [drain] alternate-server; otherwise \
    give clients several URLs, or several addresses under one name";
const UNIT: &str = "the service manager does this; see systemd/turnstone.service";
const LOG_FILE: &str = "logs go to standard error, which journald collects: journalctl -u turnstone; for a file of their own, \
    StandardError=append:FILE in a drop-in (systemctl edit turnstone)";
const BATCHES: &str = "packets are received and sent in batches with GRO and GSO; there is nothing to set";
const MULTIPLEX: &str = "each allocation has a relay port of its own; widen min-port and max-port ([relay] ports) for more, \
                         and use a second relay address on a second server beyond 64,000";
const NO_DH: &str = "key exchange is elliptic-curve only (and post-quantum hybrid); there are no DH parameters";
const OLD_TLS: &str = "TLS below 1.2 is never offered";
const DTLS: &str = "DTLS is not supported; browsers do not use it. Clients use turns: over TLS on TCP";
const SOFTWARE: &str = "SOFTWARE is not sent unless `software` is set";
const OLD_STUN: &str = "RFC 3489 and MAPPED-ADDRESS beside XOR-MAPPED-ADDRESS are not offered";
const DEVICE: &str =
    "sockets are bound to addresses, not to devices; use listening-ip and relay-ip with the device's address";
const DYNAMIC: &str = "there is no database to look into";
const INVALID_PACKETS: &str = "whatever is malformed is dropped before it costs anything, and counted";

/// Name and treatment, in the order of coturn's reference.
pub(super) const DIRECTIVES: &[(&str, Treatment)] = &[
    // Listeners.
    ("listening-device", Without(DEVICE)),
    ("listening-port", Read(Conf::listening_port)),
    ("tls-listening-port", Read(Conf::tls_listening_port)),
    ("alt-listening-port", Without(RFC5780)),
    ("alt-tls-listening-port", Without(RFC5780)),
    ("tcp-proxy-port", Without(PROXY)),
    ("listening-ip", Read(Conf::listening_ip)),
    ("aux-server", Read(Conf::aux_server)),
    (
        "udp-self-balance",
        Missing("the kernel spreads clients over the workers; there is no redirection between listeners"),
    ),
    ("no-udp", Read(Conf::no_udp)),
    ("no-tcp", Read(Conf::no_tcp)),
    ("no-tls", Read(Conf::no_tls)),
    ("no-dtls", Read(Conf::no_dtls)),
    ("dtls", Missing(DTLS)),
    ("respond-http-unsupported", Missing("HTTP on a TURN port is answered by closing the connection")),
    // Relays.
    ("relay-device", Without(DEVICE)),
    ("relay-ip", Read(Conf::relay_ip)),
    ("external-ip", Read(Conf::external_ip)),
    ("relay-threads", Read(Conf::relay_threads)),
    ("cpus", Read(Conf::relay_threads)),
    ("min-port", Read(Conf::min_port)),
    ("max-port", Read(Conf::max_port)),
    (
        "no-udp-relay",
        Missing("relays are UDP only, so that this server would relay nothing; keep coturn for TCP relays"),
    ),
    ("no-tcp-relay", Read(Conf::no_tcp_relay)),
    (
        "sock-buf-size",
        Without("the server sizes its socket buffers; net.core.rmem_max and wmem_max are their upper bound"),
    ),
    ("udp-recvmmsg", Always(BATCHES)),
    ("udp-recvmmsg-log", Missing("batches are not logged")),
    ("udp-gso", Always(BATCHES)),
    ("multiplex-peer", Missing(MULTIPLEX)),
    ("multiplex-peer-port", Without(MULTIPLEX)),
    ("multiplex-peer-max-peers", Without("peers-per-allocation in [limits] bounds the peers of an allocation (128)")),
    ("server-relay", Missing("it lifts the check of permissions, which makes an open relay; there is no such switch")),
    ("keep-address-family", Missing("a client that names no family gets an IPv4 relay, as RFC 8656 has it")),
    ("allocation-default-address-family", Read(Conf::default_family)),
    ("mobility", Missing("mobility (RFC 8016) is not offered; clients allocate anew when their address changes")),
    // Credentials.
    ("lt-cred-mech", Read(Conf::lt_cred_mech)),
    ("no-auth", Read(Conf::no_auth)),
    ("use-auth-secret", Read(Conf::use_auth_secret)),
    ("static-auth-secret", Read(Conf::static_auth_secret)),
    ("rest-api-separator", Read(Conf::rest_api_separator)),
    ("secret-ts-exp-time", Needless("coturn ignores it, too")),
    ("user", Read(Conf::user)),
    ("realm", Read(Conf::realm)),
    ("server-name", Read(Conf::server_name)),
    ("oauth", Missing("third-party authorization (RFC 7635) is not offered; use time-limited credentials")),
    ("check-origin-consistency", Missing("ORIGIN is not judged: any client can write what it likes there")),
    ("stale-nonce", Read(Conf::stale_nonce)),
    ("stateless-nonce", Always("nonces are stateless, keyed and bound to the client's address")),
    (
        "stateless-nonce-secret",
        Without(
            "each process makes its own nonce key; behind a load balancer, a client that lands on another server gets one 438",
        ),
    ),
    ("secure-stun", Missing("Binding requests are answered without credentials, within the limits of [limits]")),
    ("no-auth-pings", Always(DYNAMIC)),
    ("no-dynamic-ip-list", Always(DYNAMIC)),
    ("no-dynamic-realms", Always(DYNAMIC)),
    ("userdb", Without(DATABASE)),
    ("db", Without(DATABASE)),
    ("psql-userdb", Without(DATABASE)),
    ("sql-userdb", Without(DATABASE)),
    ("mysql-userdb", Without(DATABASE)),
    ("mongo-userdb", Without(DATABASE)),
    ("redis-userdb", Without(DATABASE)),
    ("secret-key-file", Without("it decrypts the password of coturn's MySQL database, and there is no database here")),
    ("redis-statsdb", Read(Conf::redis_statsdb)),
    // Limits and lifetimes.
    ("user-quota", Read(Conf::user_quota)),
    ("total-quota", Read(Conf::total_quota)),
    ("max-bps", Read(Conf::max_bps)),
    (
        "bps-capacity",
        Without(
            "there is no cap on the whole server; cap allocations and users ([bandwidth]), or shape the interface with tc",
        ),
    ),
    ("max-allocate-lifetime", Read(Conf::max_allocate_lifetime)),
    ("channel-lifetime", Read(Conf::channel_lifetime)),
    ("permission-lifetime", Read(Conf::permission_lifetime)),
    ("max-allocate-timeout", Read(Conf::max_allocate_timeout)),
    (
        "unauthorized-ratelimit",
        Always("answers to unauthenticated requests are limited per IPv4 /24 and IPv6 /64 ([limits])"),
    ),
    ("unauthorized-ratelimit-rps", Read(Conf::unauthorized_rps)),
    ("drop-invalid-packets", Always(INVALID_PACKETS)),
    ("drop-invalid-packets-log", Missing("they are counted, not logged: a log line for each is what a flood wants")),
    // Peers.
    (
        "allow-loopback-peers",
        Missing("loopback peers are a hole; only `turnstone serve --dev` allows them, for a try-out"),
    ),
    ("no-loopback-peers", Always("loopback is always denied")),
    ("no-multicast-peers", Always("multicast and broadcast are always denied")),
    ("allowed-peer-ip", Read(Conf::allowed_peer)),
    ("denied-peer-ip", Read(Conf::denied_peer)),
    // STUN.
    ("fingerprint", Needless("FINGERPRINT is sent to clients that send it")),
    ("stun-only", Read(Conf::stun_only)),
    ("no-stun", Missing("Binding requests are always answered, within the limits of [limits]")),
    ("software-attribute", Read(Conf::software_attribute)),
    ("no-software-attribute", Always(SOFTWARE)),
    ("prod", Always(SOFTWARE)),
    ("rfc5780", Missing(RFC5780)),
    ("no-rfc5780", Always("RFC 5780 is not offered")),
    ("response-origin-only-with-rfc5780", Always("RESPONSE-ORIGIN is never sent")),
    ("stun-backward-compatibility", Missing(OLD_STUN)),
    ("no-stun-backward-compatibility", Always(OLD_STUN)),
    ("rfc3489-compatibility", Missing(OLD_STUN)),
    ("rfc5766-channel-numbers", Read(Conf::rfc5766_channel_numbers)),
    ("include-reason-string", Always("every error has a reason phrase")),
    // TLS.
    ("cert", Read(Conf::cert)),
    ("pkey", Read(Conf::pkey)),
    (
        "pkey-pwd",
        Without(
            "encrypted keys are not read; decrypt it once (openssl pkey -in KEY -out NEW) and keep the new file at mode 0640",
        ),
    ),
    ("raw-public-keys", Missing("raw public keys (RFC 7250) are not supported; clients want a certificate")),
    (
        "cipher-list",
        Without("the cipher suites are those of rustls, all with forward secrecy and authenticated encryption"),
    ),
    ("CA-file", Without("clients are not asked for TLS certificates; who may allocate is decided by credentials")),
    ("ec-curve-name", Without("the curves are those of rustls")),
    ("dh566", Always(NO_DH)),
    ("dh1066", Always(NO_DH)),
    ("dh-file", Needless(NO_DH)),
    ("no-sslv2", Always(OLD_TLS)),
    ("no-sslv3", Always(OLD_TLS)),
    ("no-tlsv1", Always(OLD_TLS)),
    ("no-tlsv1_1", Always(OLD_TLS)),
    ("no-tlsv1_2", Read(Conf::no_tlsv1_2)),
    ("tlsv1", Missing(OLD_TLS)),
    ("tlsv1_1", Missing(OLD_TLS)),
    ("acme-redirect", Without("HTTP is not answered; see README.md for certificates with certbot")),
    // Logs and metrics.
    ("verbose", Read(Conf::verbose)),
    ("Verbose", Read(Conf::very_verbose)),
    ("log-min-level", Read(Conf::log_min_level)),
    ("log-file", Needless(LOG_FILE)),
    ("no-stdout-log", Needless(LOG_FILE)),
    ("syslog", Needless(LOG_FILE)),
    ("syslog-facility", Without(LOG_FILE)),
    ("simple-log", Needless(LOG_FILE)),
    ("new-log-timestamp", Needless("log lines have a timestamp in UTC")),
    ("new-log-timestamp-format", Without("the timestamp's format is fixed: ISO 8601 in UTC")),
    ("log-binding", Missing("Binding requests are counted, not logged: a log line for each is what a flood wants")),
    ("prometheus", Read(Conf::prometheus)),
    ("prometheus-port", Read(Conf::prometheus_port)),
    ("prometheus-address", Read(Conf::prometheus_address)),
    ("prometheus-path", Read(Conf::prometheus_path)),
    (
        "prometheus-username-labels",
        Missing(
            "metrics never have a user as a label: whoever gets credentials made could fill the memory of server and Prometheus with names; [usage] records what each user uses, and the admin API names the top users",
        ),
    ),
    // Several servers, administration, process.
    ("alternate-server", Without(ALTERNATE)),
    ("tls-alternate-server", Without(ALTERNATE)),
    ("udp-alternate-server", Without(ALTERNATE)),
    ("tcp-alternate-server", Without(ALTERNATE)),
    (
        "drain-min-allocations",
        Without(
            "there is no threshold; SIGUSR1 drains here too, and the server then stops when its last allocation ends or [drain] deadline comes",
        ),
    ),
    ("cli", Read(Conf::cli)),
    ("no-cli", Read(Conf::no_cli)),
    ("cli-ip", Without(ADMIN_PORT)),
    ("cli-port", Without(ADMIN_PORT)),
    ("cli-password", Read(Conf::cli_password)),
    ("cli-max-output-sessions", Needless("the admin API gives lists in pages")),
    ("web-admin", Read(Conf::web_admin)),
    ("web-admin-ip", Without(ADMIN_PORT)),
    ("web-admin-port", Without(ADMIN_PORT)),
    ("web-admin-listen-on-workers", Missing("the admin API never shares a port with clients")),
    ("daemon", Needless(UNIT)),
    ("pidfile", Needless(UNIT)),
    ("proc-user", Needless(UNIT)),
    ("proc-group", Needless(UNIT)),
    ("ne", Needless("there is one network engine")),
    ("version", Needless("it prints coturn's version and belongs on a command line")),
];
