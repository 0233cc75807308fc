//! What coturn offers for watching and ruling it, as `[metrics]`, `[admin]` and `[usage]`; and where its logs go.

use std::path::Path;

use turnstone::config::{Endpoint, StoreLayout};

use super::{Imported, imported, with_secret};

/// `[metrics] listen`, and whether remote hosts may use it.
fn metrics(conf: &str) -> Option<(String, bool)> {
    with_secret(conf).config.metrics.map(|metrics| (metrics.listen.to_string(), metrics.allow_remote))
}

#[test]
fn metrics_on_every_address_come_to_loopback_and_a_remark() {
    for conf in ["prometheus", "prometheus=on\nprometheus-address=0.0.0.0", "prometheus-address=::\nprometheus"] {
        assert_eq!(metrics(conf), Some(("127.0.0.1:9641".to_owned(), false)), "{conf}");
        let group = with_secret(conf);
        assert!(group.lost().is_empty());
        assert!(group.message("prometheus").contains("on every address, here it is loopback"), "{conf}");
    }
}

#[test]
fn metrics_on_one_address_and_another_port_stay_there() {
    let loopback = "prometheus\nprometheus-address=::1\nprometheus-port=9100";
    assert_eq!(metrics(loopback), Some(("[::1]:9100".to_owned(), false)));
    assert!(!with_secret(loopback).message("prometheus").contains("loopback"));
    let remote = "prometheus\nprometheus-address=192.88.100.1";
    assert_eq!(metrics(remote), Some(("192.88.100.1:9641".to_owned(), true)));
    assert!(with_secret(remote).message("prometheus").contains("allow-remote"));
}

#[test]
fn metrics_that_are_off_or_have_no_port_left_are_not_served() {
    assert_eq!(metrics("prometheus-port=9100\nprometheus=no"), None);
    assert_eq!(with_secret("prometheus-port=9100\nprometheus-path=/x").harmless(), [1, 2]);
    let taken = with_secret("prometheus\nprometheus-port=3478");
    assert_eq!((taken.config.metrics.is_none(), taken.lost()), (true, vec!["prometheus"]));
    // Only UDP listens there.
    assert_eq!(metrics("no-tcp\nprometheus\nprometheus-port=3478"), Some(("127.0.0.1:3478".to_owned(), false)));
}

#[test]
fn the_admin_socket_stands_for_the_telnet_interface_and_the_web_pages_without_a_password() {
    for conf in [
        "",
        "no-cli",
        "cli-password=hunter2hunter2hunter2",
        "cli",
        "web-admin",
        "cli=off\ncli-password=hunter2",
        "cli-port=5766",
    ] {
        let group = with_secret(conf);
        let admin = group.config.admin.as_ref().unwrap_or_else(|| panic!("{conf}"));
        assert_eq!(admin.listen, Endpoint::Unix(Path::new("/run/turnstone/admin.sock").to_owned()));
        assert_eq!((&admin.token, admin.page), (&None, conf == "web-admin"));
        let everything = format!("{}{:?}", &*group.import.toml, group.import.findings);
        assert!(!everything.contains("hunter2"), "{everything}");
    }
}

#[test]
fn what_belongs_to_an_interface_is_lost_only_where_coturn_has_it() {
    let unused = with_secret("cli-ip=10.0.0.1\ncli-port=5766\nweb-admin-ip=::1");
    assert_eq!((unused.lost().len(), unused.harmless()), (0, vec![1, 2, 3]));
    let used = with_secret("cli-ip=10.0.0.1\ncli-port=5766\ncli-password=x\nweb-admin\nweb-admin-ip=::1");
    assert!(used.message("web-admin").contains("page = true"));
    assert_eq!(used.lost(), ["cli-ip", "cli-port", "cli-password", "web-admin-ip"]);
}

#[test]
fn redis_statistics_become_a_comment_about_usage_records() {
    let group = with_secret("redis-statsdb=\"ip=127.0.0.1 password=hunter2\"");
    assert_eq!((group.config.usage.is_none(), group.lost()), (true, vec!["redis-statsdb"]));
    assert!(group.import.toml.contains("#[usage]\n#file = "), "{}", &*group.import.toml);
    assert!(!group.import.toml.contains("hunter2"));
    assert!(group.message("redis-statsdb").contains("[hook] events"));
    // What is in the comment is a section that works.
    let toml = group.import.toml.replace("#[usage]\n#", "[usage]\n");
    assert!(super::parse(&toml).unwrap().config.usage.is_some());
}

#[test]
fn users_and_secrets_in_redis_become_a_store_that_reads_them_as_they_are() {
    let with = |userdb: &str| imported(&format!("realm=example.org\nlt-cred-mech\nredis-userdb={userdb}"));
    let store = |group: &Imported| group.config.store.clone().unwrap();
    let all = with("\"ip=10.0.0.5 dbname=2 password=hunter2 port=7000 connect_timeout=30\"");
    let found = store(&all);
    assert_eq!((found.url.to_string().as_str(), found.layout), ("redis://10.0.0.5:7000/2", StoreLayout::Coturn));
    assert!(found.password.is_some() && all.import.has_secrets && all.lost().is_empty());
    assert!(all.config.auth.secrets.is_empty(), "they are in the store");
    assert!(all.import.findings.iter().all(|finding| !finding.message.contains("hunter2")));
    for (userdb, url) in [
        ("\"host=redis.example.org\"", "redis://redis.example.org:6379"),
        ("db=0 p=6380", "redis://127.0.0.1:6380"),
        ("addr=2001:db8::5 user=turn", "redis://[2001:db8::5]:6379"),
    ] {
        let group = with(userdb);
        assert_eq!((store(&group).url.to_string().as_str(), group.import.has_secrets), (url, false), "{userdb}");
    }
    // Beside it, a secret of the file is good, too.
    let both = with_secret("redis-userdb=ip=10.0.0.5");
    assert!(both.config.store.is_some() && both.config.auth.secrets.len() == 1);
    for bad in [
        "ip",
        "ip=10.0.0.5 dbname=users",
        "ip=10.0.0.5 port=0",
        "ip=a b=c",
        "ip=a/b",
        "password=${REDIS_PASSWORD}",
        "password=a hunter2",
    ] {
        let group = with(bad);
        assert!(group.config.store.is_none() && group.lost().contains(&"redis-userdb"), "{bad}: {:?}", group.lost());
        assert!(group.import.findings.iter().all(|finding| !finding.message.contains("hunter2")));
    }
}

#[test]
fn redirection_becomes_that_of_every_client_by_transport() {
    let group = with_secret(
        "alternate-server=192.0.2.1\nudp-alternate-server=192.0.2.1:3478\ntcp-alternate-server=[2001:db8::1]:3479\n\
         tls-alternate-server=192.0.2.1",
    );
    let redirect = group.config.redirect.as_ref().unwrap();
    let servers = redirect.alternates.servers.iter();
    let servers: Vec<_> = servers.map(|of| format!("{}://{}", of.transport.unwrap(), of.address)).collect();
    let expected = ["udp://192.0.2.1:3478", "tcp://192.0.2.1:3478", "tcp://[2001:db8::1]:3479", "tls://192.0.2.1:5349"];
    assert_eq!(servers, expected);
    assert_eq!((redirect.share_percent, redirect.from_allocations), (100, 0));
    assert_eq!((group.config.drain.alternates.servers.len(), group.lost().len()), (0, 0));
    assert_eq!(with_secret("alternate-server=turn.example.org").findings(), ["1 alternate-server invalid"]);
}

#[test]
fn of_the_directives_about_logs_those_with_a_level_count() {
    let level = |conf: &str| with_secret(conf).config.log.filter;
    assert_eq!(level("syslog\nlog-file=/var/log/turn.log\nverbose"), "info");
    assert_eq!(level("Verbose"), "debug");
    assert_eq!(level("log-min-level=ERROR"), "error");
    let group = with_secret("log-file=/var/log/turn.log\nsyslog-facility=local1");
    assert!(group.message("log-file").contains("StandardError=append:"));
    assert_eq!((group.lost().len(), group.harmless()), (0, vec![1, 2]));
    assert_eq!(with_secret("syslog\nsyslog-facility=local1").lost(), ["syslog-facility"]);
}
