//! Every directive of coturn is known, once.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use turnstone::import::directives;

use super::imported;
use crate::support::{require_tool, run};

/// The reference of coturn 4.17, and what 4.6.1 had that it no longer has.
const REFERENCE: &str = "
    listening-device listening-port tls-listening-port alt-listening-port alt-tls-listening-port tcp-proxy-port listening-ip
    aux-server udp-self-balance relay-device relay-ip external-ip relay-threads cpus min-port max-port sock-buf-size
    udp-recvmmsg udp-recvmmsg-log udp-gso multiplex-peer multiplex-peer-port multiplex-peer-max-peers no-udp no-tcp no-tls
    no-dtls dtls respond-http-unsupported no-udp-relay no-tcp-relay server-relay ne keep-address-family
    allocation-default-address-family lt-cred-mech no-auth use-auth-secret static-auth-secret rest-api-separator
    secret-ts-exp-time server-name oauth user userdb db psql-userdb sql-userdb mysql-userdb mongo-userdb redis-userdb
    secret-key-file redis-statsdb realm check-origin-consistency stateless-nonce stateless-nonce-secret stale-nonce secure-stun
    no-auth-pings no-dynamic-ip-list no-dynamic-realms user-quota total-quota max-bps bps-capacity max-allocate-lifetime
    channel-lifetime permission-lifetime max-allocate-timeout unauthorized-ratelimit unauthorized-ratelimit-rps
    drop-invalid-packets drop-invalid-packets-log fingerprint stun-only no-stun software-attribute no-software-attribute prod
    mobility rfc5780 no-rfc5780 response-origin-only-with-rfc5780 stun-backward-compatibility no-stun-backward-compatibility
    rfc3489-compatibility rfc5766-channel-numbers include-reason-string cert pkey pkey-pwd raw-public-keys cipher-list CA-file
    ec-curve-name dh566 dh1066 dh-file no-sslv2 no-sslv3 no-tlsv1 no-tlsv1_1 no-tlsv1_2 tlsv1 tlsv1_1 acme-redirect
    allow-loopback-peers no-loopback-peers no-multicast-peers allowed-peer-ip denied-peer-ip verbose Verbose log-min-level
    log-file no-stdout-log syslog syslog-facility simple-log new-log-timestamp new-log-timestamp-format log-binding prometheus
    prometheus-port prometheus-address prometheus-path prometheus-username-labels alternate-server tls-alternate-server
    udp-alternate-server tcp-alternate-server drain-min-allocations cli no-cli cli-ip cli-port cli-password
    cli-max-output-sessions web-admin web-admin-ip web-admin-port web-admin-listen-on-workers daemon pidfile proc-user
    proc-group version";

#[test]
fn every_directive_of_the_reference_is_known_exactly_once() {
    let mut known: Vec<_> = directives().collect();
    known.sort_unstable();
    let mut reference: Vec<_> = REFERENCE.split_whitespace().collect();
    reference.sort_unstable();
    assert_eq!(known, reference);
    assert_eq!(known.iter().collect::<BTreeSet<_>>().len(), known.len());
}

#[test]
fn every_option_that_the_installed_coturn_names_is_known() {
    let help = run(Command::new(require_tool("turnserver", "coturn")).arg("-h"), Duration::from_secs(20)).all_output();
    let mut seen = 0;
    for line in help.lines() {
        let options = line.trim_start();
        if !options.starts_with('-') {
            continue;
        }
        // The names stand before the description.
        let options = options.split("\t\t").next().unwrap();
        for word in options.split([' ', ',', '\t', '[', '=', '<']).filter_map(|word| word.strip_prefix("--")) {
            let name = word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
            assert!(directives().any(|known| known == name), "{name} in {line:?}");
            seen += 1;
        }
    }
    assert!(seen > 80, "only {seen} options in:\n{help}");
}

#[test]
fn every_directive_is_taken_with_and_without_a_value_and_the_result_is_valid() {
    for name in directives() {
        for value in ["", "=1", "=yes", "=false", "=10.0.0.1", "=a:b", "=/x", "=\"", "=65536", "=ipv4"] {
            imported(&format!("{name}{value}\n"));
        }
    }
}
