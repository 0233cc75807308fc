//! `eturnal.yml`.

use turnstone::addr::Family;
use turnstone::import::{Grade, import};
use turnstone::policy::PeerAcl;
use turnstone::turn::OnExpiry;

use super::{Imported, judged};

fn taken(text: &str) -> Imported {
    judged(import(text).unwrap(), text)
}

fn with(options: &str) -> Imported {
    taken(&format!("eturnal:\n  secret: 0f1e2d3c4b5a69788796\n{options}"))
}

#[test]
fn the_sample_of_the_field_comes_over() {
    let group = taken(include_str!("fixtures/eturnal.yml"));
    assert_eq!(
        group.listeners(),
        [
            "udp 0.0.0.0:3478",
            "udp [::]:3478",
            "tcp 0.0.0.0:3478",
            "tcp [::]:3478",
            "tls 0.0.0.0:3478",
            "tls [::]:3478",
            "tls 0.0.0.0:5349",
            "tls [::]:5349"
        ]
    );
    let relay = group.config.relay.of(Family::V4).next().unwrap();
    assert_eq!((relay.external.to_string(), group.config.relay.ports), ("203.0.113.7".to_owned(), (49152, 65535)));
    assert_eq!(group.config.auth.secrets[0].bytes.as_slice(), b"0123456789abcdef0");
    assert_eq!(group.config.tls.as_ref().unwrap().key.to_str(), Some("/etc/eturnal/tls/key.pem"));
    assert_eq!(group.config.peers.denied, ["10.0.0.0/8"]);
    assert_eq!(group.config.max_peers_per_allocation, 10);
    // The white list has the server itself on it.
    assert_eq!(group.config.peers.own_services.len(), 1);
    assert_eq!(group.lost(), ["max_bps"]);
    assert!(group.import.findings.iter().any(|finding| finding.message.contains("Chromium")));
    assert!(!format!("{:?}", group.import.findings).contains("coturn"), "{:?}", group.import.findings);
    assert!(group.import.toml.contains("a configuration of eturnal"));
}

#[test]
fn what_is_left_out_has_eturnals_defaults() {
    let group = with("");
    assert_eq!(group.listeners(), ["udp 0.0.0.0:3478", "udp [::]:3478", "tcp 0.0.0.0:3478", "tcp [::]:3478"]);
    assert!(group.lost().is_empty());
    let none = taken("eturnal:\n  realm: x\n");
    assert!(none.lost() == ["[[auth.secrets]]"] && none.import.toml.contains("/etc/turnstone/secret"));
}

#[test]
fn options_become_what_they_mean() {
    let group = with(
        "  credentials:\n    alice: correct horse\n    bob: CHANGE_ME\n  strict_expiry: true\n  max_allocations: 12\n  log_level: notice\n  \
         software_name: x\n  realm: r\n  whitelist_peers:\n    - 10.1.2.0/24\n  blacklist_peers: [\"10.0.0.0/8\"]\n  tls_crt_file: /both.pem\n  \
         listen: [{ip: \"::\", port: 443, transport: auto}, {ip: 192.88.100.1, transport: tls}]\n  modules:\n    mod_log_stun: {}\n    \
         mod_stats_prometheus: {}\n    mod_stats_influx: {host: x}\n  proxy: 1\n",
    );
    let config = &group.config;
    assert_eq!((config.auth.users.len(), config.auth.on_expiry, config.quota.per_user), (1, OnExpiry::Cut, Some(12)));
    assert_eq!(
        (config.log.filter.as_str(), config.software.as_deref(), config.auth.realm.as_str()),
        ("info", Some("x"), "r")
    );
    assert_eq!(
        group.listeners(),
        ["tcp 0.0.0.0:443", "tcp [::]:443", "tls 0.0.0.0:443", "tls [::]:443", "tls 192.88.100.1:5349"]
    );
    assert_eq!(config.tls.as_ref().unwrap().key.to_str(), Some("/both.pem"));
    assert_eq!(config.metrics.as_ref().unwrap().listen.to_string(), "127.0.0.1:8081");
    let acl = PeerAcl::compile(&config.peers).unwrap();
    for (ip, expected) in [("10.1.2.3", true), ("10.1.3.3", false)] {
        assert_eq!(acl.judge_ip(ip.parse().unwrap()).is_ok(), expected, "{ip}");
    }
    assert_eq!(group.lost(), ["credentials", "mod_stats_influx", "proxy"]);
    assert_eq!(group.about("credentials").grade, Grade::Clients);
}

#[test]
fn listeners_behind_proxies_say_what_is_missing_of_them() {
    let group = with("  listen: [{port: 3478, transport: udp}, {port: 3479, transport: tcp, proxy_protocol: true}]\n");
    assert_eq!(group.lost(), ["listen"]);
    let toml = &*group.import.toml;
    let (before, commented) = toml.split_once("#proxy-from = [\"10.0.0.1\"]\n").unwrap();
    assert!(before.contains("address = \"*:3479\"") && !commented.contains("proxy-from"), "{toml}");
    let whole = toml.replace("#proxy-from", "proxy-from");
    let config = super::parse(&whole).unwrap_or_else(|error| panic!("{error}\n{whole}")).config;
    let proxied = |port| config.listeners.iter().any(|l| l.address.port() == port && !l.options.proxy_from.is_empty());
    assert!(proxied(3479) && !proxied(3478));
}

#[test]
fn what_is_no_yaml_is_refused_by_its_line_without_a_word_of_it() {
    for text in [
        "eturnal:\n  secret: hunter2: x\n",
        "eturnal:\n  secret: \"hunter2\n",
        "eturnal: [hunter2\n",
        "eturnal:\n  a: *hunter2\n",
    ] {
        let error = import(text).unwrap_err().to_string();
        assert!(error.contains("line") && !error.contains("hunter2"), "{error}");
    }
}
