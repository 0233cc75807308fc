//! What good values come to.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use turnstone::addr::{Family, LoggedAddresses, PeerAddr, Transport};
use turnstone::auth::NonceKeys;
use turnstone::config::{Effect, Listener, Loaded, LogFormat, OwnAddresses, RelayAddress, RelayChoice, TlsVersion};
use turnstone::policy::{AllocationRate, QuotaLimits, RateLimit};
use turnstone::turn::{DefaultFamily, OnExpiry};

use super::{SECRET, given, with_secret};

fn listeners(text: &str) -> Vec<(Transport, String)> {
    let config = with_secret(text).config();
    config.listeners.iter().map(|Listener { address, transport, .. }| (*transport, address.to_string())).collect()
}

#[test]
fn without_options_the_server_listens_on_3478_and_relays_from_its_public_addresses() {
    let config = given(SECRET).config();
    let expected: Vec<_> = ["0.0.0.0:3478", "[::]:3478"].map(|address| address.parse::<SocketAddr>().unwrap()).into();
    for transport in [Transport::Udp, Transport::Tcp] {
        let of_transport = config.listeners.iter().filter(|listener| listener.transport == transport);
        assert_eq!(of_transport.map(|listener| listener.address).collect::<Vec<_>>(), expected);
    }
    assert_eq!(config.workers, 2);
    let ip: IpAddr = "192.88.100.1".parse().unwrap();
    assert_eq!(config.relay.of(Family::V4).collect::<Vec<_>>(), [RelayAddress { bind: ip, external: ip }]);
    assert_eq!(config.relay.ports, (49152, 65535));
    assert_eq!(config.unauthenticated, Some(RateLimit { per_second: 100, burst: 500 }));
    assert_eq!((config.auth.realm.as_str(), config.auth.nonce_lifetime_secs), ("turnstone", 600));
    assert_eq!((config.lifetimes.allocation_default_secs, config.lifetimes.allocation_max_secs), (600, 3600));
    assert!(config.turn && !config.peers.allow_loopback);
}

#[test]
fn the_transports_of_one_table_share_what_it_says_and_tcp_and_tls_a_port() {
    let text = r#"
        [[listen]]
        address = "127.0.0.1:443"
        transport = ["tcp", "tls"]
        proxy-from = ["10.0.0.0/24", "2001:db8::1"]
        web = "127.0.0.1:8443"
        web-proxy-header = true
        turn-names = ["turn.example.org"]
        [[listen]]
        address = "127.0.0.1:3478"
        transport = "udp"
        [tls]
        certificate = "chain.pem"
        key = "key.pem"
    "#;
    let config = with_secret(text).config();
    let [tcp, tls, udp] = config.listeners.as_slice() else { panic!("{:?}", config.listeners) };
    assert!(tcp.shares_socket(tls) && Arc::ptr_eq(&tcp.options, &tls.options) && !tcp.shares_socket(udp));
    assert_eq!(tls.options.proxy_from, ["10.0.0.0/24", "2001:db8::1/128"].map(|text| text.parse().unwrap()));
    let web = tls.options.web.as_ref().unwrap();
    assert_eq!(
        (web.address.port(), web.proxy_header, web.turn_names.as_slice()),
        (8443, true, ["turn.example.org".to_owned()].as_slice())
    );
    assert!(udp.options.proxy_from.is_empty() && udp.options.web.is_none());
    let shown = config.to_toml();
    assert!(
        shown.contains("transport = [\"tcp\", \"tls\"]\nproxy-from = [\"10.0.0.0/24\", \"2001:db8::1/128\"]\n"),
        "{shown}"
    );
    let again = given(&format!("{shown}\n{SECRET}")).config();
    assert_eq!(again.listeners, config.listeners, "what is shown is read again");
    let other = with_secret(&text.replace("10.0.0.0/24", "10.0.1.0/24")).config();
    let changes = config.changes(&other);
    assert!(
        changes.iter().any(|change| change.key == "listen" && change.effect == Effect::NeedsRestart),
        "{changes:?}"
    );
}

#[test]
fn every_value_of_a_full_file_arrives() {
    let text = r#"
        workers = 3
        software = "turn"
        [[listen]]
        address = "127.0.0.1:443"
        transport = ["tls", "udp"]
        [tls]
        certificate = "tls/chain.pem"
        key = "/abs/key.pem"
        min-version = "1.3"
        [relay]
        ipv4 = "10.0.0.5"
        ipv6 = "off"
        external-ip = "203.0.113.5"
        ports = "20000-20099"
        [auth]
        realm = "example.org"
        public-host = "turn.example.org"
        on-expiry = "cut"
        nonce-lifetime = "1m"
        [peers]
        mode = "sfu"
        allowed = ["10.1.2.0/24 override", "8.8.0.0/16"]
        denied = ["8.8.8.8", "9.0.0.1-9.0.0.9"]
        denied-ports = [53, 123]
        nat64-prefixes = ["2001:4860:64::/96"]
        [quota]
        allocations-per-user = 7
        allocations-total = 70
        allocations-per-user-per-second = 6
        allocations-per-user-burst = 60
        reservations-per-user = 5
        [bandwidth]
        per-allocation = "2Mbit/s"
        per-user = "1MB/s"
        packets-per-allocation = 2000
        packets-per-user = 4000
        [lifetimes]
        allocation-default = "5m"
        allocation-max = "30m"
        [limits]
        unauthenticated-replies-per-second = 5
        unauthenticated-replies-burst = 50
        peers-per-allocation = 9
        [streams]
        queue = "100ms"
        queue-bytes-max = "128KiB"
        idle-timeout = "20s"
        handshake-timeout = "5s"
        connections-max = 100
        connections-per-ip-max = 10
        allocation-timeout = "30s"
        unallocated-per-network-max = 20
        [log]
        level = "warn,turnstone::turn=debug"
        format = "json"
        addresses = "prefix"
    "#;
    let mut given = with_secret(text);
    given.source.directory = "/etc/turnstone".into();
    let config = given.config();
    assert_eq!((config.workers, config.software.as_deref()), (3, Some("turn")));
    assert_eq!(listeners_of(&config.listeners), [(Transport::Tls, "127.0.0.1:443"), (Transport::Udp, "127.0.0.1:443")]);
    let tls = config.tls.unwrap();
    assert_eq!(tls.certificate.to_str(), Some("/etc/turnstone/tls/chain.pem"));
    assert_eq!((tls.key.to_str(), tls.min_version), (Some("/abs/key.pem"), TlsVersion::Tls13));
    let relay = config.relay.of(Family::V4).next().unwrap();
    assert_eq!((relay.bind.to_string(), relay.external.to_string()), ("10.0.0.5".into(), "203.0.113.5".into()));
    assert_eq!((config.relay.of(Family::V6).count(), config.relay.ports), (0, (20000, 20099)));
    let auth = config.auth;
    assert_eq!((auth.realm.as_str(), auth.public_host.as_deref()), ("example.org", Some("turn.example.org")));
    assert_eq!((auth.on_expiry, auth.nonce_lifetime_secs), (OnExpiry::Cut, 60));
    assert!(config.peers.default_deny_all);
    assert_eq!(config.peers.allowed, ["10.1.2.0/24 override", "8.8.0.0/16"]);
    assert_eq!(config.peers.denied, ["8.8.8.8", "9.0.0.1-9.0.0.9"]);
    assert_eq!((config.peers.denied_ports, config.peers.nat64_prefixes.len()), (vec![53, 123], 1));
    assert_eq!((config.quota.per_user, config.quota.total), (Some(7), Some(70)));
    assert_eq!(config.quota.rate, Some(AllocationRate { per_second: 6, burst: 60 }));
    assert_eq!(config.quota.reservations_per_user, Some(5));
    let bandwidth = config.bandwidth;
    assert_eq!((bandwidth.per_allocation, bandwidth.per_user), (Some(250_000), Some(1_000_000)));
    assert_eq!((bandwidth.packets_per_allocation, bandwidth.packets_per_user), (Some(2000), Some(4000)));
    assert_eq!((config.lifetimes.allocation_default_secs, config.lifetimes.allocation_max_secs), (300, 1800));
    assert_eq!((config.lifetimes.permission_secs, config.lifetimes.channel_secs), (300, 600));
    assert_eq!(config.unauthenticated, Some(RateLimit { per_second: 5, burst: 50 }));
    assert_eq!(config.max_peers_per_allocation, 9);
    let streams = config.streams;
    assert_eq!((streams.queue, streams.queue_bytes_max), (Duration::from_millis(100), 131_072));
    assert_eq!((streams.idle_timeout.as_secs(), streams.handshake_timeout.as_secs()), (20, 5));
    assert_eq!((streams.connections_max, streams.connections_per_ip_max), (100, Some(10)));
    assert_eq!((streams.allocation_timeout.as_secs(), streams.unallocated_per_network_max), (30, Some(20)));
    assert_eq!((config.log.format, config.log.filter.as_str()), (LogFormat::Json, "warn,turnstone::turn=debug"));
    assert_eq!(config.log.addresses, LoggedAddresses::Prefix);
}

fn listeners_of(listeners: &[Listener]) -> Vec<(Transport, &'static str)> {
    listeners.iter().map(|listener| (listener.transport, listener.address.to_string().leak() as &str)).collect()
}

#[test]
fn the_shown_configuration_reads_back_to_the_same() {
    let text = "workers = 3\n[relay]\nexternal-ip = \"203.0.113.5\"\n[peers]\ndenied = [\"8.8.8.8\"]\ndenied-ports = [53]\n\
                [bandwidth]\nper-user = \"1.5Mbit/s\"\npackets-per-user = 7\n[limits]\nunauthenticated-replies-per-second = \"unlimited\"";
    let shown = with_secret(text).config().to_toml();
    assert!(!shown.contains("0123456789abcdef"), "a secret is shown:\n{shown}");
    let again = with_secret(&shown).config().to_toml();
    assert_eq!(shown, again);
}

#[test]
fn unlimited_lifts_a_limit() {
    let text = "[limits]\nunauthenticated-replies-per-second = \"unlimited\"\n[streams]\nconnections-per-ip-max = \"unlimited\"\n\
                unallocated-per-network-max = \"unlimited\"\n\
                [bandwidth]\nper-user = \"unlimited\"\n[quota]\nallocations-total = \"unlimited\"";
    let config = with_secret(text).config();
    assert_eq!((config.unauthenticated, config.streams.connections_per_ip_max), (None, None));
    assert_eq!(config.streams.unallocated_per_network_max, None);
    assert_eq!((config.bandwidth.per_user, config.quota.total), (None, None));
}

#[test]
fn without_a_limit_a_user_may_have_a_share_of_the_ports() {
    for (ports, allocations, reservations) in [
        ("49152-65535", 4096, 2048),
        ("10000-10999", 250, 125),
        ("10000-10255", 64, 32),
        ("49160-49200", 20, 5),
        ("10000-10001", 1, 1),
        ("10000-10000", 1, 1),
    ] {
        let config = with_secret(&format!("[relay]\nports = \"{ports}\"")).config();
        assert_eq!(config.quota.per_user, Some(allocations), "{ports}");
        assert_eq!(config.quota.reservations_per_user, Some(reservations), "{ports}");
        assert!(config.to_toml().contains(&format!("\nallocations-per-user = {allocations}\n")));
    }
    let config = with_secret("[quota]\nallocations-per-user-per-second = 5000").config();
    assert_eq!(config.quota.rate, Some(AllocationRate { per_second: 5000, burst: 5000 }));
    let config = with_secret("[quota]\nallocations-per-user-burst = 20").config();
    assert_eq!(config.quota.rate, Some(AllocationRate { per_second: 50, burst: 20 }), "a burst that is given counts");
    let text = "[quota]\nallocations-per-user = \"unlimited\"\nallocations-per-user-per-second = \"unlimited\"\n\
                reservations-per-user = \"unlimited\"";
    let unlimited = with_secret(text).config();
    assert_eq!(unlimited.quota, QuotaLimits::default());
    let again = with_secret(&unlimited.to_toml()).config();
    assert_eq!(again.quota, QuotaLimits::default());
}

#[test]
fn a_share_is_one_of_the_ports_that_are_used_until_a_restart() {
    let old = with_secret("[relay]\nports = \"49152-65535\"").config();
    let mut new = with_secret("[relay]\nports = \"10000-10999\"").config();
    assert_eq!(new.quota.per_user, Some(250));
    let changes = old.changes(&new);
    assert_eq!(changes.len(), 3, "{changes:?}");
    assert!(changes.iter().all(|change| change.effect == Effect::NeedsRestart), "{changes:?}");
    new.keep_until_restart(&old);
    assert_eq!((new.quota.per_user, new.quota.reservations_per_user), (Some(4096), Some(2048)));
    assert_eq!(old.changes(&new), []);
}

#[test]
fn a_star_is_every_address_that_the_host_has() {
    let text = "[[listen]]\naddress = \"*:443\"\ntransport = \"udp\"";
    assert_eq!(listeners(text), [(Transport::Udp, "0.0.0.0:443".into()), (Transport::Udp, "[::]:443".into())]);
    let mut without_ipv6 = with_secret(text);
    without_ipv6.host.has_ipv6 = false;
    assert_eq!(without_ipv6.config().listeners.len(), 1);
}

#[test]
fn a_private_relay_address_without_external_ip_is_warned_about() {
    for (relay, warned) in [
        ("ipv4 = \"10.0.0.5\"", true),
        ("ipv4 = \"100.64.0.1\"", true),
        ("ipv4 = \"127.0.0.1\"", true),
        ("ipv6 = \"fd00::1\"", true),
        ("ipv4 = \"10.0.0.5\"\nexternal-ip = \"203.0.113.5\"", false),
        ("ipv4 = \"8.8.8.8\"", false),
    ] {
        let warnings = with_secret(&format!("[relay]\n{relay}")).parse().unwrap().warnings;
        let is_about_it = |warning: &&turnstone::config::Problem| !warning.message.contains("(403)");
        let warnings: Vec<_> = warnings.iter().filter(is_about_it).collect();
        assert_eq!(warnings.len(), usize::from(warned), "{relay}: {warnings:?}");
        if warned {
            assert!(warnings[0].to_string().starts_with("turnserver.toml:2:8: relay address"), "{}", warnings[0]);
        }
    }
}

#[test]
fn several_relay_addresses_each_have_all_ports_and_a_public_half_of_their_own() {
    let text = "[relay]\nports = \"20000-20999\"\nipv4 = [\"10.0.0.5\", \"10.0.0.6\", \"192.88.100.9\"]\nipv6 = \"off\"\n\
                external-ip = [\"203.0.113.5/10.0.0.5\", \"203.0.113.6/10.0.0.6\"]\nchoice = \"reached\"\n\
                address-family = \"as-client\"\n";
    let config = with_secret(text).config();
    let shown = config.relay.of(Family::V4).map(|relay| format!("{}/{}", relay.external, relay.bind));
    assert_eq!(
        shown.collect::<Vec<_>>(),
        ["203.0.113.5/10.0.0.5", "203.0.113.6/10.0.0.6", "192.88.100.9/192.88.100.9"]
    );
    assert_eq!((config.relay.choice, config.relay.ports_of_family()), (RelayChoice::Reached, 3000));
    assert_eq!((config.relay.default_family, config.quota.per_user), (DefaultFamily::AsClient, Some(750)));
    assert!(
        config
            .to_toml()
            .contains(text.trim_start_matches("[relay]\nports = \"20000-20999\"\n").lines().next().unwrap())
    );
    let rules = config.peer_policy_rules(OwnAddresses::default()).default;
    assert_eq!((rules.relay_addresses.len(), rules.own_addresses.len()), (3, 2), "the private halves are this host");
    let with_relay = |relay: &str| with_secret(&format!("[relay]\nipv6 = \"off\"\n{relay}\n")).error();
    for (relay, problem) in [
        ("ipv4 = [\"10.0.0.5\", \"10.0.0.5\"]", "10.0.0.5 is written twice"),
        ("ipv4 = [\"auto\", \"10.0.0.5\"]", "\"auto\" and \"off\" stand alone"),
        ("ipv4 = [\"10.0.0.5\", \"10.0.0.6\"]\nexternal-ip = \"203.0.113.5\"", "expected PUBLIC/PRIVATE"),
        ("ipv4 = \"10.0.0.5\"\nexternal-ip = \"203.0.113.5/10.0.0.6\"", "10.0.0.6 is no relay address"),
        ("ipv4 = [\"10.0.0.5\", \"10.0.0.6\"]\nexternal-ip = \"10.0.0.5/10.0.0.6\"", "stands for two addresses"),
        ("external-ip = [\"203.0.113.5/10.0.0.5\", \"203.0.113.6/10.0.0.5\"]", "10.0.0.5 has a public address already"),
        ("external-ip = \"203.0.113.5/fd00::5\"", "a pair of two families"),
        ("choice = \"nearest\"", "\"nearest\" is not a choice of address"),
    ] {
        assert!(with_relay(relay).contains(problem), "{relay}: {}", with_relay(relay));
    }
    let by_listener = "[[listen]]\naddress = \"0.0.0.0:3478\"\ntransport = \"udp\"\nrelay = \"203.0.113.5\"\n";
    let with_listener = |more: &str| with_secret(&format!("{by_listener}{more}{text}"));
    let config = with_listener("").config();
    assert_eq!(config.listeners[0].options.relay, ["203.0.113.5".parse::<IpAddr>().unwrap()]);
    assert!(config.to_toml().contains("relay = [\"203.0.113.5\"]"), "{}", config.to_toml());
    let other = format!("{}{text}", by_listener.replace("203.0.113.5", "203.0.113.9"));
    assert!(with_secret(&other).error().contains("203.0.113.9 is no address of [relay]"));
    let by_auto = |relay: &str| with_secret(&format!("{by_listener}[relay]\n{relay}\n"));
    let error = by_auto("ipv6 = \"off\"").error();
    assert!(error.contains("203.0.113.5 is not written in [relay], whose ipv4 is \"auto\""), "{error}");
    by_auto("ipv6 = \"off\"\nexternal-ip = \"203.0.113.5\"").config();
    assert!(with_listener("proxy-from = \"10.0.0.1\"\n").error().contains("not together with proxy-from"));
    let shared = with_secret("workers = 4\n[relay]\nipv6 = \"off\"\nports = \"shared:3480-3487\"\n").config();
    assert_eq!((shared.relay.shared, shared.relay.ports, shared.quota.per_user), (true, (3480, 3487), Some(4096)));
    assert!(shared.to_toml().contains("ports = \"shared:3480-3487\""));
    assert!(with_relay("ports = \"shared:2000-3024\"").contains("more than 1024 shared ports"));
    let fewer = |workers: &str| with_secret(&format!("{workers}[relay]\nipv6 = \"off\"\nports = \"shared:3480\"\n"));
    assert_eq!(fewer("").config().workers, 1, "no more workers than ports");
    assert!(fewer("workers = 2\n").error().contains("2 workers have only 1 shared relay ports"));
    let many: Vec<_> = (1..=17).map(|last| format!("\"192.88.100.{last}\"")).collect();
    assert!(with_relay(&format!("ipv4 = [{}]", many.join(", "))).contains("more than 16 addresses"));
}

#[test]
fn a_host_without_a_network_waits_for_a_relay_address_unless_it_wants_none() {
    let mut given = given(SECRET);
    (given.host.ipv4, given.host.ipv6) = (None, None);
    let Loaded { config, warnings } = given.parse().unwrap();
    assert!(warnings[0].message.contains("no relay address yet: this host has no way to the outside"), "{warnings:?}");
    assert!(config.relay.addresses.is_empty() && config.relay.is_auto(Family::V4));
    assert!(config.to_toml().contains("ipv4 = \"auto\"\nipv6 = \"auto\""), "{}", config.to_toml());
    let text = given.source.text.clone();
    given.source.text.push_str("[relay]\nexternal-ip = \"203.0.113.5\"\n");
    let bind = "10.0.0.5".parse().unwrap();
    let found = given.config().relay.at(bind);
    assert_eq!(found, Some(RelayAddress { bind, external: "203.0.113.5".parse().unwrap() }));
    given.source.text = text.clone() + "[relay]\nipv4 = \"off\"\nipv6 = \"off\"\n";
    assert!(given.error().contains("no relay address: ipv4 and ipv6 are off"));
    given.source.text = text;
    given.source.text.insert_str(0, "turn = false\n");
    assert!(!given.config().turn, "STUN alone needs no relay");
}

#[test]
fn dev_makes_up_a_secret_and_allows_loopback_peers() {
    let mut given = given("");
    (given.dev, given.host.ipv4, given.host.ipv6) = (true, None, None);
    let (one, other) = (given.config(), given.config());
    assert!(one.peers.allow_loopback);
    assert_eq!(one.relay.addresses[0].bind.to_string(), "127.0.0.1");
    let (one, other) = (&one.auth.secrets[0].bytes, &other.auth.secrets[0].bytes);
    assert!(one.len() >= 32);
    assert_ne!(**one, **other, "each start makes another secret");
}

#[test]
fn stun_alone_needs_no_credentials() {
    assert!(given("turn = false").config().auth.secrets.is_empty());
}

#[test]
fn settings_deny_the_hosts_own_addresses_and_reach_its_relays() {
    let config = with_secret("[relay]\nipv4 = \"10.0.0.5\"\nipv6 = \"off\"\nexternal-ip = \"8.8.4.4\"").config();
    let own = OwnAddresses {
        endpoints: vec!["0.0.0.0:3478".parse().unwrap()],
        addresses: vec!["9.9.9.9".parse().unwrap(), "10.0.0.5".parse().unwrap()],
        networks: vec!["5.44.0.0/16".parse().unwrap()],
        ..OwnAddresses::default()
    };
    let nonce_keys = Arc::new(NonceKeys::new([7; 32], 600));
    let settings = config.settings(nonce_keys, own).unwrap();
    let judge = |peer: &str| settings.peer_acl().judge(PeerAddr::new(peer.parse().unwrap()).unwrap());
    assert!(judge("1.1.1.1:4000").is_ok());
    assert!(judge("9.9.9.9:4000").is_err(), "an address of this host");
    assert!(judge("5.44.1.2:4000").is_err(), "delivered to this host");
    assert!(judge("10.0.0.5:50000").is_err(), "the private half of the relay address");
    assert!(judge("8.8.4.4:50000").is_ok(), "a relayed address, by its external address");
    assert!(judge("8.8.4.4:3478").is_err(), "the listener, by its external address");
    assert!(judge("127.0.0.1:4000").is_err());
    assert_eq!(settings.credentials().realm(), "turnstone");
    assert!(format!("{settings:?}").contains("turn: true"));
}

#[test]
fn a_private_relay_address_whose_own_network_is_denied_is_warned_about() {
    for (text, warned) in [
        ("[relay]\nipv4 = \"10.5.0.1\"", true),
        ("[relay]\nipv4 = \"10.5.0.1\"\n[peers]\ndenied = [\"198.51.100.0/24\"]", true),
        ("[relay]\nipv4 = \"8.8.8.8\"\nexternal-ip = \"10.5.0.1\"", true),
        ("[relay]\nipv4 = \"10.5.0.1\"\nexternal-ip = \"203.0.113.5\"", false),
        ("[relay]\nipv4 = \"10.5.0.1\"\n[peers]\nallowed = [\"10.5.0.0/24 override\"]", false),
        ("[relay]\nipv4 = \"10.5.0.1\"\n[peers]\nmode = \"sfu\"\nallowed = [\"8.8.4.4\"]", false),
        ("[relay]\nipv4 = \"10.5.0.1\"\n[peers]\nown-services = [\"10.5.0.1:10000\"]", false),
        ("turn = false\n[relay]\nipv4 = \"10.5.0.1\"", false),
    ] {
        let loaded = with_secret(text).parse().unwrap_or_else(|error| panic!("{text}: {error}"));
        let found: Vec<_> = loaded.warnings.iter().filter(|warning| warning.message.contains("(403)")).collect();
        assert_eq!(found.len(), usize::from(warned), "{text}: {:?}", loaded.warnings);
        assert!(found.iter().all(|warning| warning.message.contains("\"10.5.0.0/24 override\"")), "{found:?}");
    }
}

#[test]
fn a_realm_has_a_peer_policy_by_name_which_is_shown_and_whose_change_is_told() {
    let secret = "[[realm.secrets]]\nsecret = \"0123456789abcdef\"\n";
    let text = format!(
        "[[peers.policy]]\nname = \"sfu\"\nmode = \"sfu\"\nallowed = [\"8.8.4.4\"]\n[[peers.policy]]\nname = \"open\"\n\
         [[realm]]\nname = \"b\"\npeers = \"sfu\"\n{secret}[[realm]]\nname = \"c\"\npeers = \"open\"\n{secret}"
    );
    let loaded = with_secret(&text).parse().unwrap();
    assert_eq!(loaded.warnings, []);
    let config = loaded.config;
    assert_eq!(config.realms[0].peers, Some("sfu".parse().unwrap()));
    assert!(
        config.to_toml().contains("name = \"b\"\non-expiry = \"keep\"\nusername-limits = false\npeers = \"sfu\"\n"),
        "{}",
        config.to_toml()
    );
    let told = |text: &str| {
        let changes = config.changes(&with_secret(text).config());
        changes.into_iter().map(|change| (change.key, change.after)).collect::<Vec<_>>()
    };
    let to_open = text.replace("peers = \"sfu\"", "peers = \"open\"");
    assert_eq!(told(&to_open), [("realm", "b c: b (peers: sfu -> open)".to_owned())]);
    assert_eq!(told(&text.replace("peers = \"sfu\"\n", "")), [("realm", "b c: b (peers: sfu -> -)".to_owned())]);
    // A policy that nobody can come by is a mistake.
    let warned = |text: &str| {
        let warnings = with_secret(text).parse().unwrap().warnings;
        warnings.into_iter().map(|warning| warning.to_string()).collect::<Vec<_>>()
    };
    let [warning] = &warned(&to_open)[..] else { panic!() };
    assert!(warning.contains("nobody comes by the policy \"sfu\": no [[realm]] has peers = \"sfu\""), "{warning}");
    assert!(warned(&format!("[auth]\nusername-limits = true\n{to_open}")).is_empty());
    assert!(warned(&to_open.replace("name = \"b\"\n", "name = \"b\"\nusername-limits = true\n")).is_empty());
}

#[test]
fn a_realm_is_one_in_any_spelling_and_a_listener_of_one_that_goes_is_told_of() {
    let listen = "[[listen]]\naddress = \"127.0.0.1:3478\"\ntransport = \"udp\"\nrealm = \"Andre\u{301}\"\n";
    let realm = "[[realm]]\nname = \"Andr\u{e9}\"\n[[realm.secrets]]\nsecret = \"0123456789abcdef\"\n";
    let config = with_secret(&format!("{listen}{realm}")).config();
    let settings = config.settings(Arc::new(NonceKeys::new([0; 32], 600)), OwnAddresses::default()).unwrap();
    assert_eq!(settings.realm_name(config.listeners[0].options.realm_id()), Some("Andr\u{e9}"));
    assert_eq!(config.listeners_without_realm(), []);
    // The listeners that there are stay until a restart.
    let mut without = with_secret("").config();
    without.keep_until_restart(&config);
    let told: Vec<_> = without.listeners_without_realm().iter().map(ToString::to_string).collect();
    let [told] = &told[..] else { panic!("{told:?}") };
    assert!(
        told.contains("until a restart the udp listener 127.0.0.1:3478 still leads to the realm \"Andr\u{e9}\"")
            && told.ends_with("taken as of \"turnstone\", the realm of [auth]"),
        "{told}"
    );
}

#[test]
fn policies_by_name_and_the_guard_are_read_shown_and_their_changes_told() {
    let text = "[auth]\nusername-limits = true\n[peers]\nmode = \"sfu\"\nallowed = [\"8.8.8.8\"]\nrelays = true\n\
                nat64-prefixes = [\"2001:db8:64::/96\"]\n[[peers.policy]]\nname = \"sfu\"\nmode = \"sfu\"\nallowed = [\"8.8.4.4\"]\n\
                [[peers.policy]]\nname = \"open\"\ndenied-ports = [53]\n[guard]\npeers-per-user = 50\nnew-peers-per-minute = 60\n\
                suspend-after = 20\nsuspend-for = \"5m\"\nloop-packets-per-second = 1000\n";
    let config = with_secret(text).config();
    assert!(config.auth.username_limits && config.peers.default_deny_all && !config.peers.deny_relays);
    let [(sfu, of_sfu), (open, of_open)] = &config.peer_policies[..] else { panic!("{:?}", config.peer_policies) };
    assert_eq!((sfu.as_str(), open.as_str()), ("sfu", "open"));
    assert!(of_sfu.default_deny_all && of_sfu.deny_relays && !of_open.default_deny_all && !of_open.deny_relays);
    assert_eq!(
        (&*of_sfu.allowed, &*of_open.denied_ports, of_open.nat64_prefixes.len()),
        (&["8.8.4.4".to_owned()][..], &[53][..], 1)
    );
    let guard = config.guard;
    assert_eq!(
        (guard.peers_per_user, guard.new_peers_per_minute, guard.loop_packets_per_second),
        (Some(50), Some(60), Some(1000))
    );
    assert_eq!(guard.suspension.map(|suspension| (suspension.probes, suspension.secs)), Some((20, 300)));

    let settings = config.settings(Arc::new(NonceKeys::new([0; 32], 600)), OwnAddresses::default()).unwrap();
    assert_eq!(settings.peer_policies().named().count(), 2);
    let shown = config.to_toml();
    for line in [
        "[[peers.policy]]\nname = \"sfu\"\nmode = \"sfu\"",
        "username-limits = true",
        "suspend-for = \"5m\"",
        "relays = true",
    ] {
        assert!(shown.contains(line), "{shown}");
    }
    let other = with_secret(&text.replace("8.8.4.4", "8.8.4.5")).config();
    let told: Vec<_> =
        config.changes(&other).into_iter().map(|change| (change.key, change.before, change.after)).collect();
    assert_eq!(
        told,
        [("peers.policy", "sfu open".to_owned(), "sfu open (other rules under the same names)".to_owned())]
    );
}

#[test]
fn a_rule_that_opens_no_private_network_is_refused_with_two_remedies_that_are_accepted() {
    let error = with_secret("[peers]\nallowed = [\"10.1.0.0/16\"]").error();
    for words in ["private networks are, stays so", "`10.1.0.0/16 override`", "`mode = \"sfu\"`"] {
        assert!(error.contains(words), "no {words} in {error}");
    }
    let mode = error.split('`').find(|quoted| quoted.starts_with("mode")).unwrap();
    let of_mode = format!("[peers]\n{mode}\nallowed = [\"8.8.4.0/24\"]");
    for text in ["[peers]\nallowed = [\"10.1.0.0/16 override\"]", &of_mode] {
        assert!(with_secret(text).parse().unwrap().warnings.is_empty(), "{text}");
    }
    // With that mode and no peers there is nobody, which would be seen by the first call alone.
    let warnings = with_secret(&format!("[peers]\n{mode}")).parse().unwrap().warnings;
    assert!(
        warnings.len() == 1 && warnings[0].to_string().contains("nobody can be reached by [peers]"),
        "{warnings:?}"
    );
}

#[test]
fn revocations_are_read_with_the_configuration_and_each_mistake_has_its_place() {
    let directory = tempfile::tempdir().unwrap();
    let auth = |more: &str| {
        let text = format!(
            "[auth]\nrevocations = \"list\"\n{more}\n{SECRET}[[realm]]\nname = \"b.example\"\n[[realm.secrets]]\nsecret = \"0123456789abcdef\"\n"
        );
        given(&text).in_directory(directory.path())
    };
    let list = |text: &str| std::fs::write(directory.path().join("list"), text).unwrap();
    assert!(auth("").error().contains("list: cannot read the file: "));
    list("{\"user\": \"alice\", \"realm\": \"b.example\"}\n{\"key\": \"main\", \"issued_before\": 1700000000}\n");
    let error = auth("").error();
    assert!(error.contains("list:2:1: issued_before needs lifetime_secs"), "{error}");
    let config = auth("credential-lifetime-max = \"12h\"").config();
    let [alice, main] = &*config.auth.revocations else { panic!("{:?}", config.auth.revocations) };
    assert_eq!((alice.realm.as_deref(), alice.until_unix), (Some("b.example"), u64::MAX));
    assert_eq!(main.issued_before.unwrap().lifetime_secs, 43_200);
    list("{\"user\": \"alice\", \"realm\": \"c.example\"}\n");
    assert!(auth("").error().contains("list:1:1: there is no realm \"c.example\""));
}

#[test]
fn state_is_kept_where_the_file_says_or_else_the_service_manager() {
    let of =
        |text: &str, directories: &str| with_secret(text).env("STATE_DIRECTORY", directories).config().state_directory;
    assert_eq!(with_secret("").config().state_directory, None);
    assert_eq!(of("", "/var/lib/turnstone:/var/lib/other"), Some("/var/lib/turnstone".into()));
    assert_eq!(of("state-directory = \"/srv/state\"", "/var/lib/turnstone"), Some("/srv/state".into()));
}

#[test]
fn a_public_address_that_is_found_is_waited_for_and_one_of_this_host_is_its_own() {
    let with = |text: &str| with_secret(&format!("[relay]\nipv6 = \"off\"\n{text}")).config().relay;
    let shown = |relay: &turnstone::config::Relay| {
        let found: Vec<_> = relay.addresses.iter().map(|at| format!("{}/{}", at.external, at.bind)).collect();
        (found.join(" "), relay.waiting.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
    };
    let text = |found: &str, waiting: &str| (found.to_owned(), waiting.to_owned());
    let auto = "external-ip = \"auto\"\nexternal-ip-sources = [\"metadata:aws\", \"stun:stun.example.org\", \"stun:[2a00::1]:3479\"]";
    let private = with(&format!("ipv4 = \"10.0.0.5\"\n{auto}"));
    assert_eq!(shown(&private), text("", "10.0.0.5"));
    let sources: Vec<_> = private.finding.sources.iter().map(ToString::to_string).collect();
    assert_eq!(sources, ["metadata:aws", "stun:stun.example.org:3478", "stun:[2a00::1]:3479"]);
    assert_eq!(shown(&with(&format!("ipv4 = \"5.44.1.1\"\n{auto}"))), text("5.44.1.1/5.44.1.1", ""));
    // A name is asked whatever this host has: it may be reached at another address.
    let name = "external-ip = \"name:turn.example.org\"";
    assert_eq!(shown(&with(&format!("ipv4 = \"5.44.1.1\"\n{name}"))), text("", "5.44.1.1"));
    let mixed = "ipv4 = [\"10.0.0.5\", \"10.0.0.6\"]\nexternal-ip = [\"5.44.1.1/10.0.0.5\", \"auto\"]";
    let mut mixed = with(mixed);
    assert_eq!(shown(&mixed), text("5.44.1.1/10.0.0.5", "10.0.0.6"));
    mixed.set_found(Family::V4, Some("5.44.1.2".parse().unwrap()));
    assert_eq!(shown(&mixed), text("5.44.1.1/10.0.0.5 5.44.1.2/10.0.0.6", ""));
    let shown =
        with_secret(&format!("[relay]\nipv4 = \"10.0.0.5\"\n{auto}\nexternal-ip-interval = \"1m\"")).config().to_toml();
    for line in ["external-ip = [\"auto\"]", "external-ip-interval = \"1m\"", "\"stun:stun.example.org:3478\""] {
        assert!(shown.contains(line), "{shown}");
    }
}

#[test]
fn a_reload_keeps_the_public_address_that_was_found() {
    let read = || with_secret("[relay]\nipv4 = \"10.0.0.5\"\nipv6 = \"off\"\nexternal-ip = \"auto\"\n").config();
    let (mut running, mut new) = (read(), read());
    running.relay.set_found(Family::V4, Some("5.44.1.1".parse().unwrap()));
    new.follow_relays(&running);
    assert_eq!(new.relay, running.relay);
    assert!(running.changes(&new).is_empty());
}
