//! `[credentials]`: where the API may listen, and its keys.

use std::time::Duration;

use turnstone::config::{Endpoint, Origin};

use super::{SECRET, given, with_secret};

const TLS: &str = "[tls]\ncertificate = \"c\"\nkey = \"k\"\n";
const HASH: &str = "0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f";

fn key(more: &str) -> String {
    format!("[[credentials.keys]]\nid = \"a\"\nsha256 = \"{HASH}\"\n{more}")
}

#[test]
fn it_is_off_unless_asked_for_and_has_tls_unless_told_otherwise() {
    assert_eq!(given(SECRET).config().credentials, None);
    let api = with_secret(&format!("{TLS}[credentials]\nlisten = \"0.0.0.0:8443\"\n{}", key("")))
        .config()
        .credentials
        .unwrap();
    assert!(api.tls && !api.forwarded_for);
    assert_eq!(api.per_network.map(|rate| (rate.per_second, rate.burst)), Some((50, 200)));
    let key = &api.keys[0];
    assert_eq!((key.id.as_str(), key.sha256, key.ttl_max), ("a", [0x0f; 32], Duration::from_secs(86_400)));
    assert_eq!((key.user_prefix.as_str(), key.origins.len(), key.realms.len()), ("", 0, 0));
    assert_eq!(key.rate.map(|rate| rate.per_second), Some(50));
}

#[test]
fn plain_http_is_for_this_host_unless_somebody_says_so_by_name() {
    let plain = |address: &str, more: &str| {
        with_secret(&format!("[credentials]\nlisten = \"{address}\"\ntls = false\n{more}{}", key("")))
    };
    for address in ["127.0.0.1:9643", "[::1]:9643"] {
        assert!(!plain(address, "").config().credentials.unwrap().tls);
    }
    for address in ["0.0.0.0:9643", "[::]:9643", "10.0.0.5:9643", "203.0.113.5:9643"] {
        let error = plain(address, "").error();
        assert!(error.starts_with("turnserver.toml:2:10: listen in [credentials]: "), "{error}");
        assert!(error.contains("in the clear; set tls = true") && error.contains("allow-plain-http = true"), "{error}");
        assert!(plain(address, "allow-plain-http = true\n").config().credentials.is_some());
    }
    let socket = with_secret(&format!("[credentials]\nlisten = \"unix:/run/c.sock\"\n{}", key(""))).config();
    let api = socket.credentials.unwrap();
    assert_eq!((api.listen, api.tls), (Endpoint::Unix("/run/c.sock".into()), false));
    let error = with_secret(&format!("[credentials]\nlisten = \"unix:/run/c.sock\"\ntls = true\n{}", key(""))).error();
    assert!(error.contains("a socket in the file system has no TLS"), "{error}");
    let error = with_secret(&format!("[credentials]\nlisten = \"127.0.0.1:9643\"\n{}", key(""))).error();
    assert!(error.contains("HTTPS needs a certificate") && error.contains("tls = false behind a proxy"), "{error}");
}

#[test]
fn it_shares_its_address_with_nothing_and_is_not_there_for_nobody() {
    let listen = "[[listen]]\naddress = \"127.0.0.1:9643\"\ntransport = \"tcp\"\n";
    let at = |address: &str| format!("[credentials]\nlisten = \"{address}\"\ntls = false\n{}", key(""));
    let error = with_secret(&format!("{listen}{}", at("127.0.0.1:9643"))).error();
    assert!(
        error.contains("turnserver.toml:5:10: listen in [credentials]: 127.0.0.1:9643 overlaps the listener"),
        "{error}"
    );
    let error = with_secret(&format!("[metrics]\nlisten = \"127.0.0.1:9643\"\n{}", at("127.0.0.1:9643"))).error();
    assert!(error.contains("overlaps listen in [metrics]"), "{error}");
    let admin = "[admin]\nlisten = \"127.0.0.1:9643\"\ntoken = \"0123456789abcdef\"\n";
    let error = with_secret(&format!("{admin}{}", at("127.0.0.1:9643"))).error();
    assert!(error.contains("overlaps listen in [admin]"), "{error}");
    let loaded = with_secret("[credentials]\nlisten = \"127.0.0.1:9643\"\ntls = false\n").parse().unwrap();
    assert!(loaded.warnings[0].message.contains("turnstone credentials key"), "{:?}", loaded.warnings);
    let error = with_secret(&format!("[credentials]\n{}", key(""))).error();
    assert!(error.contains("[credentials] has keys but no listen"), "{error}");
}

#[test]
fn a_key_has_an_id_a_hash_and_bounds_and_each_mistake_its_place() {
    let with = |keys: &str| with_secret(&format!("[credentials]\nlisten = \"127.0.0.1:9643\"\ntls = false\n{keys}"));
    for (keys, message) in [
        ("[[credentials.keys]]\n", "[[credentials.keys]] has no id"),
        ("[[credentials.keys]]\nid = \"a\"\n", "[[credentials.keys]] has no sha256"),
        (
            &format!("[[credentials.keys]]\nid = \"a b\"\nsha256 = \"{HASH}\"\n"),
            "turnserver.toml:5:6: id in [[credentials.keys]]",
        ),
        (
            "[[credentials.keys]]\nid = \"a\"\nsha256 = \"tsk_oops\"\n",
            "turnserver.toml:6:10: sha256 in [[credentials.keys]]: it is not 64",
        ),
        (&format!("{}{}", key(""), key("").replace("0f", "1f")), "a second key with the id \"a\""),
        (&format!("{}{}", key(""), key("").replace("\"a\"", "\"b\"")), "a second id of the same key"),
        (&key("max-ttl = \"1s\"\n"), "max-ttl in [[credentials.keys]]: \"1s\" is not from"),
        (&key("user-prefix = \"a;b\"\n"), "user-prefix in [[credentials.keys]]"),
        (
            &key("origins = [\"app.example.org\"]\n"),
            "origins in [[credentials.keys]]: \"app.example.org\" is not an origin",
        ),
        (&key("origins = [\"https://app.example.org/\"]\n"), "leave out what follows the host and port"),
        (&key("realms = [\"gone\"]\n"), "there is no realm \"gone\""),
        (&key("orgins = []\n"), "did you mean \"origins\"?"),
        (&key("requests-per-second = 0\n"), "requests-per-second in [[credentials.keys]]"),
    ] {
        let error = with(keys).error();
        assert!(error.contains(message), "{keys}: {error}");
        assert!(!error.contains("tsk_oops"), "{error}");
    }
    let api = with(&key(
        "origins = [\"https://App.example.org:443\", \"*\"]\nrealms = [\"turnstone\"]\nrequests-per-second = \"unlimited\"\n",
    ));
    let key = &api.config().credentials.unwrap().keys[0];
    assert_eq!(key.origins, [Origin::One("https://app.example.org".to_owned()), Origin::Any]);
    assert_eq!((key.realms.as_slice(), key.rate), (&["turnstone".to_owned()][..], None));
}

#[test]
fn there_is_a_secret_to_make_credentials_with() {
    let user = "[[auth.users]]\nname = \"a\"\npassword = \"b\"\n";
    let api = format!("[credentials]\nlisten = \"127.0.0.1:9643\"\ntls = false\n{}", key(""));
    let error = given(&format!("{user}{api}")).error();
    assert!(
        error.contains("the realm of [auth] has no secret to make credentials with; expected [[auth.secrets]]"),
        "{error}"
    );
    let realm = "[[realm]]\nname = \"other\"\n[[realm.users]]\nname = \"a\"\npassword = \"b\"\n";
    let error = with_secret(&format!("{api}realms = [\"other\"]\n{realm}")).error();
    assert!(error.contains("the realm \"other\" has no secret to make credentials with"), "{error}");
}

#[test]
fn no_key_may_ask_for_a_credential_that_nobody_takes() {
    let of = |max_ttl: &str| {
        let api = format!("[credentials]\nlisten = \"127.0.0.1:9643\"\ntls = false\n{}", key(max_ttl));
        with_secret(&format!("{api}[auth]\ncredential-lifetime-max = \"1h\"\n"))
    };
    assert_eq!(of("").config().credentials.unwrap().keys[0].ttl_max.as_secs(), 3600);
    let error = of("max-ttl = \"2h\"\n").error();
    assert!(
        error.contains("max-ttl in [[credentials.keys]]: it is more than credential-lifetime-max in [auth]"),
        "{error}"
    );
}

#[test]
fn as_the_web_of_a_listener_it_has_no_networks_to_bound_and_says_so() {
    let warnings = |web: &str, listen: &str, more: &str| {
        let listener =
            format!("[[listen]]\naddress = \"127.0.0.1:443\"\ntransport = [\"tcp\", \"tls\"]\nweb = \"{web}\"\n");
        let text = format!("{listener}{TLS}[credentials]\nlisten = \"{listen}\"\n{more}{}", key(""));
        let loaded = with_secret(&text).parse().unwrap();
        let messages = loaded.warnings.into_iter().map(|warning| warning.message);
        messages.filter(|message| message.contains("the web of the listener 127.0.0.1:443")).collect::<Vec<_>>()
    };
    let unlimited = "requests-per-network-per-second = \"unlimited\"\n";
    for (web, listen) in [("127.0.0.1:8443", "127.0.0.1:8443"), ("127.0.0.1:8443", "0.0.0.0:8443")] {
        let told = warnings(web, listen, "");
        assert!(told.len() == 1 && told[0].contains("set it to \"unlimited\""), "{told:?}");
        assert_eq!(warnings(web, listen, "requests-per-network-per-second = 500\n").len(), 1);
        assert!(warnings(web, listen, unlimited).is_empty());
    }
    for (web, listen) in [("127.0.0.1:8444", "127.0.0.1:8443"), ("192.0.2.1:8443", "0.0.0.0:8443")] {
        assert!(warnings(web, listen, "").is_empty(), "{web} {listen}");
    }
}
