//! A flag over a variable over the file.

use turnstone::config::{Overrides, overridable};

use super::{Given, SECRET, given, with_secret};

fn with_env(given: Given, variables: &[(&str, &str)]) -> Given {
    let variables = variables.iter().map(|(name, value)| (*name, Some(*value)));
    Given { overrides: Overrides::from_env(variables).unwrap(), ..given }
}

#[test]
fn variables_win_over_the_file_and_flags_over_variables() {
    let text = "workers = 1\n[relay]\nports = \"20000-20009\"\n[auth]\nrealm = \"file\"\n[log]\nlevel = \"error\"";
    let mut given = with_env(
        with_secret(text),
        &[
            ("TURNSTONE_WORKERS", "2"),
            ("TURNSTONE_REALM", "variable"),
            ("TURNSTONE_RELAY_PORTS", "30000-30009"),
            ("TURNSTONE_LISTEN", "udp://127.0.0.1:1, tcp://[::1]:2"),
            ("TURNSTONE_LOG_LEVEL", ""),
        ],
    );
    given.overrides.set_flag("realm", vec!["flag".to_owned()]);
    given.overrides.set_flag("external-ip", vec!["203.0.113.1".to_owned(), "2001:db8::1".to_owned()]);
    given.overrides.set_flag("workers", Vec::new());
    let config = given.config();
    assert_eq!((config.workers, config.auth.realm.as_str()), (2, "flag"));
    assert_eq!(config.relay.ports, (30000, 30009));
    assert_eq!(config.log.filter, "error", "an empty variable counts as unset");
    let listeners: Vec<_> = config.listeners.iter().map(|listener| listener.address.to_string()).collect();
    assert_eq!(listeners, ["127.0.0.1:1", "[::1]:2"]);
    assert_eq!(config.relay.of(turnstone::addr::Family::V6).next().unwrap().external.to_string(), "2001:db8::1");
}

#[test]
fn a_bad_value_is_blamed_on_the_variable_or_flag() {
    let given = with_env(
        with_secret(""),
        &[
            ("TURNSTONE_WORKERS", "many"),
            ("TURNSTONE_RELAY_PORTS", "9-1"),
            ("TURNSTONE_LISTEN", "0.0.0.0:3478"),
            ("TURNSTONE_LOG_FORMAT", "yaml"),
        ],
    );
    let error = given.error();
    for line in [
        "TURNSTONE_WORKERS: many is out of range; expected a whole number up to 1024; 0 is one per core",
        "TURNSTONE_RELAY_PORTS: \"9-1\" is reversed; expected a range such as \"49152-65535\", or \"shared:3480-3487\"",
        "TURNSTONE_LISTEN: \"0.0.0.0:3478\" names no transport; expected TRANSPORT://ADDRESS:PORT such as udp://0.0.0.0:3478",
        "TURNSTONE_LOG_FORMAT: \"yaml\" is not a format; expected \"text\" or \"json\"",
    ] {
        assert!(error.lines().any(|found| found == line), "{error}\nlacks {line}");
    }
    let mut given = with_secret("");
    given.overrides.set_flag("tls-certificate", vec!["c.pem".to_owned()]);
    assert_eq!(given.error(), "--tls-certificate: [tls] has a certificate but no key");
}

#[test]
fn every_variable_and_flag_has_an_effect() {
    let values = |key: &str| match key {
        "workers" => "7",
        "listen" => "udp://127.0.0.1:7",
        "tls.certificate" | "tls.key" => "/tls.pem",
        "relay.ipv4" => "192.88.100.7",
        "relay.ipv6" => "2a00:7::1",
        "relay.external-ip" => "203.0.113.7",
        "relay.external-ip-sources" => "stun:seven.example.org",
        "relay.ports" => "7000-7007",
        "auth.realm" => "seven",
        "auth.public-host" => "seven.example.org",
        "secret" => "7777777777777777",
        "log.level" => "debug",
        "log.format" => "json",
        "log.addresses" => "off",
        "secret-file" => "/dev/null",
        "users" => "seven:password",
        "secret-files-readable-by" => "group",
        "store.url" => "unix:/run/seven.sock",
        "store.node" => "seven",
        other => panic!("no value for {other}"),
    };
    let tls = "[tls]\ncertificate = \"/c.pem\"\nkey = \"/k.pem\"\n[relay]\nexternal-ip = \"auto\"\n\
               [store]\nurl = \"unix:/run/six.sock\"\n";
    let before = format!("{:?}", with_secret(tls).config());
    for overridable in overridable() {
        let value = values(overridable.key);
        let given = with_env(with_secret(tls), &[(overridable.env, value)]);
        match given.parse() {
            Ok(loaded) => assert_ne!(format!("{:?}", loaded.config), before, "{} does nothing", overridable.env),
            Err(error) => {
                assert_eq!(overridable.key, "secret-file", "{error}");
                assert!(error.to_string().starts_with("TURNSTONE_SECRET_FILE: /dev/null is open to"), "{error}");
            }
        }
    }
}

#[test]
fn a_secret_in_the_environment_replaces_those_of_the_file_and_says_so() {
    let given = with_env(given(SECRET), &[("TURNSTONE_SECRET", "another secret, as long")]);
    let loaded = given.parse().unwrap();
    let ids: Vec<_> = loaded.config.auth.secrets.iter().map(|secret| secret.id.as_str()).collect();
    assert_eq!(ids, ["env"]);
    assert_eq!(loaded.warnings[0].to_string(), "TURNSTONE_SECRET: replaces every [[auth.secrets]] of the file");
    assert!(
        with_env(super::given(""), &[("TURNSTONE_SECRET", "short")])
            .error()
            .starts_with("TURNSTONE_SECRET: the secret")
    );
    let both = [("TURNSTONE_SECRET", "another secret, as long"), ("TURNSTONE_SECRET_FILE", "/f")];
    let error = with_env(super::given(""), &both).error();
    assert!(error.contains("TURNSTONE_SECRET_FILE is set too; expected one of the two"), "{error}");
}

#[test]
fn a_variable_that_nobody_knows_is_warned_about() {
    let variables = [("TURNSTONE_RELM", "x"), ("TURNSTONE_SERVICE_HOST", "10.0.0.1"), ("TURNSTONE_PORT_3478_UDP", "x")];
    let warnings = with_env(with_secret(""), &variables).parse().unwrap().warnings;
    let warnings: Vec<_> = warnings.iter().map(ToString::to_string).collect();
    assert_eq!(warnings, ["TURNSTONE_RELM: not a variable that turnstone knows; it is ignored"]);

    let named = "[[auth.secrets]]\nid = \"a\"\nenv = \"TURNSTONE_MY_SECRET\"";
    let given = with_env(given(named), &[("TURNSTONE_MY_SECRET", "0123456789abcdef")]);
    assert!(given.env("TURNSTONE_MY_SECRET", "0123456789abcdef").parse().unwrap().warnings.is_empty());
}

#[test]
fn every_key_that_is_in_no_array_of_tables_has_a_variable_and_all_kinds_of_values_are_read_from_it() {
    let given = with_env(
        with_secret("[quota]\nallocations-per-user = 7\n[peers]\nmode = \"p2p\"\n"),
        &[
            ("TURNSTONE_QUOTA_ALLOCATIONS_PER_USER", "unlimited"),
            ("TURNSTONE_QUOTA_ALLOCATIONS_TOTAL", "100"),
            ("TURNSTONE_BANDWIDTH_PER_USER", "2Mbit/s"),
            ("TURNSTONE_PEERS_DENIED", "8.8.8.0/24, 9.9.9.9"),
            ("TURNSTONE_PEERS_DENIED_PORTS", "53, 123"),
            ("TURNSTONE_RELAY_TCP", "true"),
            ("TURNSTONE_DRAIN_DEADLINE", "1h"),
            ("TURNSTONE_STREAMS_QUEUE_BYTES_MAX", "1MiB"),
            ("TURNSTONE_USERS", "alice:wonderland\nbob:0x00112233445566778899aabbccddeeff"),
        ],
    );
    let shown = given.config().to_toml();
    for line in [
        "allocations-per-user = \"unlimited\"",
        "allocations-total = 100",
        "per-user = \"2Mbit/s\"",
        "denied = [\"8.8.8.0/24\", \"9.9.9.9\"]",
        "denied-ports = [53, 123]",
        "tcp = true",
        "deadline = \"1h\"",
        "queue-bytes-max = \"1MiB\"",
        "# [[auth.users]] and users-file: 2",
    ] {
        assert!(shown.lines().any(|found| found.trim() == line), "no {line} in {shown}");
    }
}

#[test]
fn a_bad_value_of_any_kind_is_blamed_on_its_variable_and_none_of_a_user_is_shown() {
    let error = with_env(
        with_secret("[[auth.users]]\nname = \"carol\"\npassword = \"a password\"\n"),
        &[
            ("TURNSTONE_TURN", "yes"),
            ("TURNSTONE_QUOTA_ALLOCATIONS_TOTAL", "none"),
            ("TURNSTONE_PEERS_DENIED_PORTS", "53,x"),
            ("TURNSTONE_USERS", "alice:wonderland sesame"),
        ],
    )
    .error();
    for line in [
        "TURNSTONE_TURN: \"yes\" is not true or false; expected true or false",
        "TURNSTONE_QUOTA_ALLOCATIONS_TOTAL: none is out of range; expected a whole number from 1, or \"unlimited\"",
        "TURNSTONE_PEERS_DENIED_PORTS: x is out of range; expected an array of ports from 1 to 65535",
    ] {
        assert!(error.lines().any(|found| found == line), "{error}\nlacks {line}");
    }
    assert!(error.contains("TURNSTONE_USERS: user 2: ") && !error.contains("sesame"), "{error}");
}
