//! One file a group of directives: what each comes to, and what is said about the rest.

use std::time::Duration;

use turnstone::addr::Family;
use turnstone::config::RelayChoice;
use turnstone::import::Grade;
use turnstone::turn::DefaultFamily;

use super::{imported, with_secret};

#[test]
fn the_sample_of_the_field_comes_over_whole() {
    let sample = imported(include_str!("fixtures/sample.conf"));
    let at = |port: u16| ["udp", "tcp", "tls"].map(|transport| format!("{transport} 0.0.0.0:{port}"));
    assert_eq!(sample.listeners(), [at(3478), at(5349)].concat());
    let tls = sample.config.tls.as_ref().unwrap();
    assert!(tls.certificate.ends_with("live/turn.example.com/fullchain.pem") && tls.key.ends_with("privkey.pem"));
    let relay = sample.config.relay.of(Family::V4).next().unwrap();
    assert_eq!((relay.external.to_string(), sample.config.relay.ports), ("203.0.113.7".to_owned(), (49152, 65535)));
    assert_eq!(sample.config.auth.realm, "turn.example.com");
    assert_eq!(sample.config.auth.public_host.as_deref(), Some("turn.example.com"));
    assert_eq!(sample.config.auth.secrets[0].bytes.as_slice(), b"0f1e2d3c4b5a69788796a5b4c3d2e1f0");
    assert_eq!(sample.config.peers.denied, ["10.0.0.0/8", "192.168.0.0/16", "172.16.0.0/12"]);
    assert_eq!(sample.findings(), ["6 server-name note", "8 pkey note"]);
    // The udp of the tls port, and what is always so.
    assert_eq!(sample.harmless(), [2, 11]);
    assert!(sample.message("pkey").contains("certbot-deploy-hook"));
    assert!(!sample.import.is_lossy() && sample.import.has_secrets);
}

#[test]
fn listeners_keep_addresses_ports_and_transports() {
    let group = imported(include_str!("fixtures/listeners.conf"));
    let expected = [
        "udp 192.88.100.1:3479",
        "tls 192.88.100.1:443",
        "udp [2a00:1::1]:3479",
        "tls [2a00:1::1]:443",
        "udp 192.88.100.2:3480",
    ];
    assert_eq!(group.listeners(), expected);
    assert_eq!(group.findings(), ["6 tls-listening-port note", "12 pkey note"]);
    assert_eq!(group.harmless(), [4, 10]);
    assert_eq!(group.config.tls.unwrap().key.to_str(), Some("/etc/coturn/key.pem"));
}

#[test]
fn without_listening_ip_every_address_is_listened_on() {
    let group = with_secret("realm=x");
    assert_eq!(group.listeners(), ["udp 0.0.0.0:3478", "udp [::]:3478", "tcp 0.0.0.0:3478", "tcp [::]:3478"]);
}

#[test]
fn a_listening_ip_that_cannot_be_read_does_not_open_every_address() {
    let group = with_secret("listening-ip=eth0\nlistening-ip=turn.example.org");
    assert_eq!(group.listeners(), ["udp 127.0.0.1:3478"]);
    assert_eq!(group.lost(), ["listening-ip", "listening-ip", "[[listen]]"]);
}

#[test]
fn tls_shares_a_port_with_tcp_and_needs_both_files() {
    let shared =
        with_secret("listening-port=443\ntls-listening-port=443\ncert=/c.pem\npkey=/k.pem\nlistening-ip=0.0.0.0");
    assert_eq!(shared.listeners(), ["udp 0.0.0.0:443", "tcp 0.0.0.0:443", "tls 0.0.0.0:443"]);
    assert!(shared.lost().is_empty());
    let half = with_secret("cert=/c.pem\nno-udp\nlistening-ip=2a00:1::1");
    assert_eq!((half.listeners(), half.lost()), (vec!["tcp [2a00:1::1]:3478".to_owned()], vec!["cert"]));
    let off = with_secret("cert=/c.pem\npkey=/k.pem\nno-tls\nno-tcp\nlistening-ip=0.0.0.0");
    assert_eq!((off.listeners(), off.config.tls), (vec!["udp 0.0.0.0:3478".to_owned()], None));
    let newest = with_secret("cert=/c.pem\npkey=/k.pem\nno-tlsv1_2\nno-tlsv1\nno-tlsv1_1");
    assert!(newest.import.toml.contains("min-version = \"1.3\""));
}

#[test]
fn relays_follow_relay_ip_external_ip_or_listening_ip() {
    let bind =
        |conf: &str, family| with_secret(conf).config.relay.of(family).next().map(|relay| (relay.bind, relay.external));
    let pair = |bind: &str, external: &str| Some((bind.parse().unwrap(), external.parse().unwrap()));
    assert_eq!(bind("external-ip=203.0.113.7", Family::V4), pair("192.88.100.1", "203.0.113.7"));
    assert_eq!(bind("external-ip=203.0.113.7/10.0.0.4", Family::V4), pair("10.0.0.4", "203.0.113.7"));
    assert_eq!(bind("external-ip=203.0.113.7/10.0.0.4", Family::V6), pair("2a00:1::1", "2a00:1::1"));
    let two = "external-ip=203.0.113.7/10.0.0.4\nexternal-ip=203.0.113.8/10.0.0.5\nrelay-ip=10.0.0.5";
    assert_eq!(bind(two, Family::V4), pair("10.0.0.5", "203.0.113.8"));
    assert_eq!(with_secret(two).findings(), ["1 external-ip not converted"]);
    assert_eq!(bind(two, Family::V6), None);
    assert_eq!(bind("listening-ip=10.0.0.4\nexternal-ip=203.0.113.7", Family::V4), pair("10.0.0.4", "203.0.113.7"));
    assert_eq!(bind("listening-ip=10.0.0.4", Family::V6), None);
    assert_eq!(bind("listening-ip=0.0.0.0", Family::V6), pair("2a00:1::1", "2a00:1::1"));
    let both = "relay-ip=192.88.100.1\nrelay-ip=2a00:1::1\nrelay-ip=192.88.100.9\nexternal-ip=198.51.100.1";
    assert_eq!(bind(both, Family::V4), pair("192.88.100.1", "198.51.100.1"));
    assert_eq!(with_secret(both).findings(), ["3 relay-ip not converted"]);
    let off = with_secret("relay-ip=192.88.100.1\nexternal-ip=2a00:1::9");
    assert_eq!((off.config.relay.of(Family::V6).count(), off.lost()), (0, vec!["external-ip"]));
    let several = |conf: &str| {
        let group = with_secret(conf);
        let pairs = group.config.relay.of(Family::V4).map(|relay| format!("{}/{}", relay.external, relay.bind));
        (pairs.collect::<Vec<_>>(), group.config.relay.choice, group.findings().len())
    };
    let (plain, mapped) = ("203.0.113.7/10.0.0.4", "203.0.113.8/10.0.0.5");
    let two = vec![plain.to_owned(), mapped.to_owned()];
    let pairs = format!("external-ip={plain}\nexternal-ip={mapped}\n");
    assert_eq!(several(&pairs), (two.clone(), RelayChoice::Reached, 0));
    let named = format!("{pairs}relay-ip=10.0.0.4\nrelay-ip=10.0.0.5\n");
    assert_eq!(several(&named), (two, RelayChoice::LeastUsed, 0));
    let listening = ["192.88.100.1/192.88.100.1", "192.88.100.9/192.88.100.9"].map(str::to_owned).to_vec();
    assert_eq!(several("listening-ip=192.88.100.1\nlistening-ip=192.88.100.9"), (listening, RelayChoice::Reached, 0));
}

#[test]
fn ports_that_coturn_multiplexes_become_shared_ones_and_a_client_without_a_family_keeps_its_own() {
    let shared = |conf: &str| {
        let config = with_secret(conf).config;
        (config.relay.shared, config.relay.ports, config.max_peers_per_allocation)
    };
    assert_eq!(shared("multiplex-peer"), (true, (3480, 3487), 256));
    let more = "multiplex-peer\nmultiplex-peer-port=20000\nmultiplex-peer-max-peers=99\nrelay-threads=3";
    assert_eq!(shared(more), (true, (20000, 20005), 99));
    assert_eq!(shared("multiplex-peer\nlistening-port=3482").1, (3483, 3490));
    assert_eq!(shared("multiplex-peer=no\nmultiplex-peer-port=20000"), (false, (49152, 65535), 128));
    let both = with_secret("multiplex-peer\nno-udp-relay");
    assert!(both.config.relay.shared && !both.config.tcp_relays.is_offered && both.import.is_lossy());
    let moves = |conf: &str| with_secret(conf).config.mobility;
    assert!(!moves("multiplex-peer\nmobility\nrelay-threads=3") && moves("multiplex-peer\nmobility\nrelay-threads=1"));
    let family = |conf: &str| with_secret(conf).config.relay.default_family;
    assert_eq!(family("keep-address-family"), DefaultFamily::AsClient);
    assert_eq!(family("allocation-default-address-family=keep"), DefaultFamily::AsClient);
    assert_eq!(family("allocation-default-address-family=ipv6"), DefaultFamily::Always(Family::V6));
    assert_eq!(family("allocation-default-address-family=ipv4"), DefaultFamily::default());
    assert_eq!(with_secret("allocation-default-address-family=ipx").findings().len(), 1);
}

#[test]
fn relay_ports_stay_clear_of_listeners_and_of_well_known_ports() {
    let ports = |conf: &str| with_secret(conf).config.relay.ports;
    assert_eq!(ports("min-port=20000\nmax-port=20099"), (20000, 20099));
    assert_eq!(ports("max-port=50000"), (49152, 50000));
    assert_eq!(ports("min-port=1\nmax-port=50000"), (3479, 50000));
    assert_eq!(ports("min-port=50000\nmax-port=40000"), (49152, 65535));
    assert_eq!(ports("listening-port=50000"), (50001, 65535));
    assert_eq!(ports("listening-port=60000\naux-server=192.88.100.1:55000\nlistening-ip=192.88.100.1"), (49152, 54999));
    assert_eq!(ports("listening-port=3479\nmin-port=3479\nmax-port=3479"), (3480, 65535));
}

#[test]
fn secrets_come_over_and_short_ones_are_named_without_being_shown() {
    let group = imported(include_str!("fixtures/secrets.conf"));
    let secrets: Vec<_> = group.config.auth.secrets.iter().map(|secret| secret.bytes.to_vec()).collect();
    assert_eq!(secrets, [b"first secret, with blanks".to_vec(), b"quoted \"inside\" \\ and more".to_vec()]);
    assert_eq!(group.config.auth.secrets[0].id, "main");
    assert!(group.config.auth.users.is_empty());
    assert_eq!(group.findings(), ["5 static-auth-secret not converted", "7 user not converted",]);
    assert_eq!(group.harmless(), [6, 8]);
    let shown = format!("{:?}", group.import.findings);
    assert!(!shown.contains("north") && !shown.contains("hunter2"), "{shown}");
}

#[test]
fn static_users_come_over_and_hashed_keys_are_refused() {
    let group = imported(include_str!("fixtures/users.conf"));
    assert_eq!(group.config.auth.users.len(), 3);
    assert!(group.config.auth.users.is_stored_as_key("carol") && !group.config.auth.users.is_stored_as_key("alice"));
    assert!(group.import.toml.contains("name = \"alice\"\npassword = \"new : password\""), "{}", &*group.import.toml);
    assert!(group.config.auth.secrets.is_empty());
    assert_eq!(group.findings(), ["6 user note", "7 user not converted", "8 user invalid", "9 user invalid"]);
    assert_eq!(group.harmless(), [2, 3]);
    assert!(group.import.findings.iter().any(|finding| finding.message.contains("good in coturn's realm only")));
}

#[test]
fn nobody_is_let_in_without_credentials() {
    for conf in ["", "no-auth\n", "userdb=/var/lib/turn/turndb\nlt-cred-mech\n", "use-auth-secret\nuser=a:secret\n"] {
        let group = imported(conf);
        assert!(group.lost().contains(&"[[auth.secrets]]"), "{conf}");
        assert!(group.import.toml.contains("file = \"/etc/turnstone/secret\""), "{conf}");
        assert!(!group.import.has_secrets && group.config.auth.users.is_empty(), "{conf}");
    }
    let stun = imported("stun-only");
    assert!(!stun.config.turn && stun.lost().is_empty());
}

#[test]
fn limits_keep_their_units() {
    let group = with_secret(include_str!("fixtures/limits.conf"));
    let config = &group.config;
    assert_eq!((config.quota.per_user, config.quota.total), (Some(12), Some(1200)));
    assert_eq!(config.bandwidth.per_allocation, Some(3_000_000));
    assert!(group.import.toml.contains("per-allocation = \"24Mbit/s\""));
    assert_eq!((config.lifetimes.allocation_default_secs, config.lifetimes.allocation_max_secs), (300, 300));
    assert_eq!((config.auth.nonce_lifetime_secs, config.streams.idle_timeout), (1800, Duration::from_secs(90)));
    assert_eq!(config.unauthenticated.unwrap().per_second, 250);
    assert_eq!((config.workers, config.log.filter.as_str()), (4, "warn"));
    assert!(config.rfc5766_channel_numbers);
    assert_eq!(config.software.as_deref(), Some("turnstone"));
    assert_eq!(group.lost(), ["bps-capacity", "channel-lifetime"]);
    assert!(group.message("max-bps").contains("with its IP and UDP headers"));
    assert!(group.import.findings.iter().all(|finding| finding.directive != "[quota]"));
}

#[test]
fn zero_is_no_limit_and_garbage_is_named() {
    let group =
        with_secret("user-quota=0\ntotal-quota=many\nmax-bps=3M\nstale-nonce=0\nlistening-port=70000\nmin-port=-1");
    assert_eq!((group.config.quota.per_user, group.config.quota.total), (None, None));
    assert_eq!(group.about("user-quota").grade, Grade::Security);
    // Where nobody says it, one user has a share of the ports, and that is said.
    let silent = with_secret("realm=x");
    assert_eq!(silent.config.quota.per_user, Some(4096));
    assert!(silent.message("[quota]").contains("allocations-per-user = \"unlimited\""));
    assert_eq!((group.config.bandwidth.per_allocation, group.config.auth.nonce_lifetime_secs), (None, 600));
    assert_eq!(
        group.findings(),
        [
            "1 user-quota note",
            "2 total-quota invalid",
            "3 max-bps invalid",
            "4 stale-nonce note",
            "5 listening-port invalid",
            "6 min-port invalid"
        ]
    );
}

#[test]
fn what_has_no_counterpart_is_named_with_its_line_and_what_to_do() {
    // What some of them belong to is there.
    let wholes = "cert=/c.pem\npkey=/k.pem\nsyslog\nnew-log-timestamp\nprometheus\nweb-admin\n";
    let group = with_secret(&format!("{}{wholes}", include_str!("fixtures/unsupported.conf")));
    let directives = include_str!("fixtures/unsupported.conf").lines().filter(|line| !line.starts_with('#'));
    let expected: Vec<_> = directives.map(|line| line.split('=').next().unwrap()).collect();
    // DTLS has one in a program that has it.
    let expected: Vec<_> = expected.into_iter().filter(|name| *name != "dtls" || !cfg!(feature = "dtls")).collect();
    assert_eq!(group.lost(), expected);
    assert!(group.message("pkey-pwd").contains("openssl pkey"));
    assert!(group.message("psql-userdb").contains("users-file"));
    let shown = format!("{:?}", group.import.findings);
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[test]
fn what_needs_nothing_is_a_note() {
    let conf = include_str!("fixtures/needless.conf");
    let group = with_secret(conf);
    assert_eq!(group.lost(), Vec::<&str>::new());
    assert_eq!(group.findings(), Vec::<String>::new());
    assert_eq!(group.harmless().len(), conf.lines().count());
}

#[test]
fn switches_turned_off_are_read_as_off() {
    let group =
        with_secret("no-udp=false\nmobility=no\nno-cli=0\nno-multicast-peers=off\nfingerprint=maybe\noauth=perhaps");
    assert!(group.listeners().contains(&"udp 0.0.0.0:3478".to_owned()));
    assert_eq!(group.findings(), ["4 no-multicast-peers note", "6 oauth invalid"]);
    assert_eq!(group.harmless(), [3, 5]);
    assert!(!group.config.mobility);
    assert!(with_secret("mobility").config.mobility);
}

#[test]
fn unknown_directives_are_named_and_no_secret_behind_them_is_shown() {
    let group =
        with_secret("listning-port=3478\n--realm=x\nstatic-auth-secret:hunter2hunter2\nUser=a:hunter2\n\u{1b}[31m");
    assert_eq!(
        group.findings(),
        [
            "1 listning-port unknown",
            "2 --realm unknown",
            "3 static-auth-secret unknown",
            "4 User unknown",
            "5 ? unknown"
        ]
    );
    assert!(!format!("{:?}", group.import.findings).contains("hunter2"));
}

#[test]
fn the_file_that_debian_ships_needs_nothing_but_credentials() {
    let group = imported("syslog\nno-rfc5780\nno-stun-backward-compatibility\nresponse-origin-only-with-rfc5780\n");
    assert_eq!(group.lost(), ["[[auth.secrets]]"]);
}
