//! `[nat-discovery]`, `[compatibility]` and `[[auth.token-keys]]`.

use turnstone::addr::Transport;

use super::{given, with_secret};

const PAIR: &str = "[nat-discovery]\naddresses = [\"192.88.100.1\", \"192.88.100.2\"]\n";
const KEY: &str = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";

#[test]
fn nat_discovery_is_off_without_addresses() {
    let config = with_secret("[nat-discovery]\nports = [1, 2]").config();
    assert!(config.nat_discovery.is_empty() && !config.rfc3489);
    assert!(with_secret("[compatibility]\nrfc3489 = true").config().rfc3489);
}

#[test]
fn it_adds_the_listeners_that_are_missing_and_no_others() {
    let udp = |text: &str| {
        let mut found: Vec<_> = with_secret(&format!("{text}\n{PAIR}"))
            .config()
            .listeners
            .iter()
            .filter(|listener| listener.transport == Transport::Udp)
            .map(|listener| listener.address.to_string())
            .collect();
        found.sort();
        found
    };
    let table = |address: &str| format!("[[listen]]\naddress = \"{address}\"\ntransport = \"udp\"\n");
    assert_eq!(udp(""), ["0.0.0.0:3478", "192.88.100.1:3479", "192.88.100.2:3479", "[::]:3478"]);
    assert_eq!(
        udp(&table("192.88.100.1:3478")),
        ["192.88.100.1:3478", "192.88.100.1:3479", "192.88.100.2:3478", "192.88.100.2:3479"]
    );
    assert_eq!(udp(&(table("0.0.0.0:3478") + &table("0.0.0.0:3479"))), ["0.0.0.0:3478", "0.0.0.0:3479"]);
}

#[test]
fn two_addresses_of_each_family_make_two_pairs_and_others_may_stand_for_them() {
    let config = with_secret(
        "[nat-discovery]\naddresses = [\"10.0.0.1\", \"2a00:1::1\", \"10.0.0.2\", \"2a00:1::2\"]\n\
         external-addresses = [\"192.88.100.1\", \"192.88.100.2\"]\nports = [80, 81]",
    )
    .config();
    let [v4, v6] = &config.nat_discovery[..] else { panic!() };
    assert_eq!(v4.external.map(|ip| ip.to_string()), ["192.88.100.1", "192.88.100.2"]);
    assert_eq!((v6.external, v6.ports), (v6.addresses, [80, 81]));
    let rules = config.peer_policy_rules(Default::default()).default;
    for own in ["192.88.100.2:80", "192.88.100.1:81"] {
        assert!(rules.own_endpoints.contains(&own.parse().unwrap()), "{own}");
    }
    assert!(rules.own_addresses.contains(&"192.88.100.2".parse().unwrap()));
}

#[test]
fn what_makes_no_pair_is_refused() {
    for (text, problem) in [
        ("addresses = [\"10.0.0.1\"]", "2:14: addresses in [nat-discovery]: not two different addresses of ipv4"),
        ("addresses = [\"10.0.0.1\", \"10.0.0.1\"]", "not two different addresses of ipv4"),
        ("addresses = [\"10.0.0.1\", \"10.0.0.2\", \"::2\"]", "not two different addresses of ipv6"),
        ("addresses = [\"10.0.0.1\", \"0.0.0.0\"]", "is a wildcard, but clients are told these addresses"),
        ("addresses = [\"10.0.0.1\", \"224.0.0.1\"]", "is not a unicast address"),
        ("ports = [3478]", "ports in [nat-discovery]: not two different ports; expected an array of two ports"),
        ("ports = [3478, 3478]", "not two different ports"),
        ("ports = [1, 2, 3]", "not two different ports"),
        ("ports = [0, 1]", "out of range"),
        ("external-addresses = [\"10.0.0.1\"]", "there are no addresses to stand for"),
        (
            "addresses = [\"10.0.0.1\", \"10.0.0.2\"]\nexternal-addresses = [\"192.88.100.1\"]",
            "external-addresses in [nat-discovery]: not two different addresses of ipv4",
        ),
        (
            "addresses = [\"10.0.0.1\", \"10.0.0.2\"]\nports = [50000, 50001]",
            "port 50000 of this udp listener is one of the relay ports",
        ),
    ] {
        let error = with_secret(&format!("[nat-discovery]\n{text}")).error();
        assert!(error.contains(problem), "{text}: {error}");
    }
    let shown = with_secret("[nat-discovery]\naddresses = [\"192.88.99.1\", \"192.88.99.2\"]").config().to_toml();
    let written = |shown: &str| shown.matches("\n[[listen]]\n").count();
    assert_eq!(written(&shown), written(&with_secret("").config().to_toml()), "{shown}");
    assert!(shown.contains("\n# [[listen]] udp 192.88.99.2:3479, added by [nat-discovery]\n"), "{shown}");
    let private = with_secret("[nat-discovery]\naddresses = [\"10.0.0.1\", \"10.0.0.2\"]").parse().unwrap();
    assert!(private.warnings.iter().any(|warning| warning.message.contains("clients elsewhere do not reach 10.0.0.1")));
}

#[test]
fn keys_of_tokens_are_credentials_by_themselves() {
    let config = given(&format!(
        "[auth]\nrealm = \"r.example\"\n[[auth.token-keys]]\nid = \"a\"\nkey = \"{KEY}\"\n\
         [[auth.token-keys]]\nid = \"b\"\nalgorithm = \"A128GCM\"\nkey = \"AAECAwQFBgcICQoLDA0ODw\"\n\
         not-before = \"2026-11-30T12:00:00Z\"\nnot-after = \"2028-02-29T00:00:01Z\""
    ))
    .config();
    let tokens = &config.auth.tokens;
    assert_eq!(tokens.server_name, "r.example", "the realm, unless it says otherwise");
    assert_eq!(tokens.keys.iter().map(|key| key.id()).collect::<Vec<_>>(), ["a", "b"]);
    // `date -u -d 2026-11-30T12:00:00Z +%s` and so on.
    for (at, expected) in [(1_796_039_999, false), (1_796_040_000, true), (1_835_395_201, true), (1_835_395_202, false)]
    {
        assert_eq!(tokens.keys[1].is_valid_at(at), expected, "{at}");
    }
    let shown = config.to_toml();
    assert!(shown.contains("# [[auth.token-keys]] id = \"a\"") && !shown.contains(KEY), "{shown}");
}

#[test]
fn a_key_that_cannot_be_used_is_refused_without_being_shown() {
    for (text, problem) in [
        (
            "key = \"AAECAwQFBgcICQoLDA0ODw==\"".to_owned(),
            "a key of 16 bytes is too short for its algorithm, which takes 32",
        ),
        ("key = \"hidden!\"".to_owned(), "is not base64; make one with: openssl rand -base64 32"),
        (
            format!("algorithm = \"A256CBC-HS512\"\nkey = \"{KEY}\""),
            "is not an algorithm that is known; expected \"A256GCM\" or",
        ),
        (format!("key = \"{KEY}\"\nnot-before = \"2026-11-30\""), "\"2026-11-30\" is not a moment"),
        (format!("key = \"{KEY}\"\nnot-before = \"2026-11-30T12:00:00+01:00\""), "is not a moment"),
        (
            format!("key = \"{KEY}\"\nnot-before = \"2026-11-30T12:00:00Z\"\nnot-after = \"2026-11-30T12:00:00Z\""),
            "not-after in [[auth.token-keys]] is not after not-before",
        ),
        (
            format!("key = \"{KEY}\"\n[[auth.token-keys]]\nid = \"k\"\nkey = \"{KEY}\""),
            "a second key with the id \"k\"",
        ),
        (String::new(), "there is no source: expected one of credential, file, env, key"),
    ] {
        let error = given(&format!("[[auth.token-keys]]\nid = \"k\"\n{text}")).error();
        assert!(error.contains(problem) && !error.contains(KEY) && !error.contains("hidden"), "{text}: {error}");
    }
    let nameless = given(&format!("[[auth.token-keys]]\nkey = \"{KEY}\"")).error();
    assert!(nameless.contains("[[auth.token-keys]] has no id"), "{nameless}");
    let longer = given("[[auth.token-keys]]\nid = \"k\"\nkey = \"MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDEK\"")
        .parse()
        .unwrap();
    assert!(
        longer.warnings.iter().any(|warning| warning.message.contains("has 33 bytes, of which the first 32 count"))
    );
}
