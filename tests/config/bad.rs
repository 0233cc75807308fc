//! A table of mistakes, each with the whole message that the operator reads.

use super::{SECRET, given, with_secret};

const ADDRESS: &str = r#"ADDRESS:PORT such as "0.0.0.0:3478", "[::]:3478", or "*:3478" for every address"#;
const RATE: &str = r#"a rate such as "2Mbit/s", "500kbit/s" (bits) or "1MB/s", "125kB/s" (bytes), or "unlimited""#;
const DURATION: &str = r#"a duration such as "200ms", "30s", "10m", "12h" or "1h30m""#;
const RULES: &str = r#"networks such as "10.0.0.0/8", addresses, or ranges such as "10.0.0.1-10.0.0.9""#;
const SOURCES: &str = "credential, file, env, secret";

/// Names that certificates are had for by ACME, with a tls listener.
fn acme(names: &str, more: &str) -> String {
    format!(
        "state-directory = \"/s\"\n[[listen]]\naddress = \"0.0.0.0:443\"\ntransport = \"tls\"\n[tls]\nacme = {names}\n\
         acme-agree-to-terms = true\n{more}"
    )
}

#[test]
fn every_mistake_is_named_with_its_place_and_what_was_expected() {
    let listen = |address: &str, transport: &str| format!("[[listen]]\naddress = {address}\ntransport = {transport}");
    let no_dtls = match cfg!(feature = "dtls") {
        true => "2:11: a dtls listener needs a certificate: expected [tls] with certificate and key",
        false => {
            "3:21: transport in [[listen]]: \"dtls\" is not in this program: it takes one that was built with the cargo feature dtls"
        }
    };
    let cases = [
        ("[relay]\nfoo = 1".to_owned(), "2:1: unknown key \"foo\" in [relay]; expected one of address-family, choice, external-ip, external-ip-interval, external-ip-sources, ipv4, ipv6, ports".to_owned()),
        (
            "wokers = 2".to_owned(),
            "1:1: unknown key \"wokers\" at the top level (did you mean \"workers\"?); expected one of admin, auth, bandwidth, compatibility, credentials, drain, fleet, follow-secrets, guard, hook, lifetimes, limits, listen, log, metrics, mobility, \
             nat-discovery, peers, quota, realm, redirect, relay, rfc5766-channel-numbers, secret-files-readable-by, software, state-directory, store, streams, tls, turn, usage, workers"
                .to_owned(),
        ),
        ("[quota]\nallocations-total = 5\n\n[quota]\nallocations-per-user = 5".to_owned(), "4:2: [quota] is there a second time (first in line 1): put its keys into one".to_owned()),
        ("[relay]\nipv6 = \"off\"\nipv6 = \"auto\"".to_owned(), "3:1: ipv6 in [relay] is there a second time (first in line 2): leave one of them out".to_owned()),
        ("[logs]".to_owned(), "1:2: unknown key \"logs\" at the top level".to_owned()),
        ("workers = 2000".to_owned(), "1:11: workers at the top level: 2000 is out of range; expected a whole number up to 1024; 0 is one per core".to_owned()),
        ("workers = -1".to_owned(), "1:11: workers at the top level: -1 is out of range".to_owned()),
        ("workers = 1.5".to_owned(), "1:11: workers at the top level: found a fractional number".to_owned()),
        ("turn = \"no\"".to_owned(), "1:8: turn at the top level: found a string; expected true or false".to_owned()),
        ("software = \"\"".to_owned(), "1:12: software at the top level: it is empty".to_owned()),
        (listen("\"0.0.0.0\"", "\"udp\""), format!("2:11: address in [[listen]]: \"0.0.0.0\" has no port; expected {ADDRESS}")),
        (listen("\"localhost:3478\"", "\"udp\""), "2:11: address in [[listen]]: \"localhost:3478\" is not an address and port".to_owned()),
        (listen("\"224.0.0.1:3478\"", "\"udp\""), "2:11: address in [[listen]]: \"224.0.0.1:3478\" is a multicast address".to_owned()),
        (listen("\"[::ffff:1.2.3.4]:3478\"", "\"udp\""), "2:11: address in [[listen]]: \"[::ffff:1.2.3.4]:3478\" is an IPv4-mapped".to_owned()),
        (listen("3478", "\"udp\""), "2:11: address in [[listen]]: found a whole number".to_owned()),
        (listen("\"0.0.0.0:3478\"", "\"sctp\""), "3:13: transport in [[listen]]: \"sctp\" is not a transport; expected \"udp\", \"tcp\", \"tls\" or \"dtls\", or an array".to_owned()),
        (listen("\"0.0.0.0:3478\"", "[\"udp\", \"dtls\"]"), no_dtls.to_owned()),
        (listen("\"0.0.0.0:3478\"", "[]"), "1:1: [[listen]] has no transport".to_owned()),
        ("[[listen]]\ntransport = \"udp\"".to_owned(), "1:1: [[listen]] has no address".to_owned()),
        ("[listen]\naddress = \"0.0.0.0:1\"".to_owned(), "1:1: listen at the top level: found a table; expected tables, each written as [[listen]]".to_owned()),
        ("listen = []".to_owned(), "listen is empty; expected at least one [[listen]]".to_owned()),
        (
            format!("{}\n{}", listen("\"0.0.0.0:3478\"", "\"udp\""), listen("\"127.0.0.1:3478\"", "\"udp\"")),
            "5:11: listener udp 127.0.0.1:3478 overlaps udp 0.0.0.0:3478 at turnserver.toml:2:11".to_owned(),
        ),
        (
            format!("{}\n{}", listen("\"0.0.0.0:443\"", "\"tcp\""), listen("\"0.0.0.0:443\"", "\"tls\"\n[tls]\ncertificate = \"c\"\nkey = \"k\"")),
            "5:11: listener tls 0.0.0.0:443 overlaps tcp 0.0.0.0:443 at turnserver.toml:2:11".to_owned(),
        ),
        (
            listen("\"0.0.0.0:3478\"", "[\"tcp\", \"tcp\"]"),
            "2:11: listener tcp 0.0.0.0:3478 overlaps tcp 0.0.0.0:3478".to_owned(),
        ),
        (
            listen("\"0.0.0.0:3478\"", "\"tcp\"\nproxy-from = [\"10.0.0.1\", \"10.0.0.1/24\"]"),
            "4:27: proxy-from in [[listen]]: \"10.0.0.1/24\" is not a network: it has bits behind its prefix; expected networks or".to_owned(),
        ),
        (
            listen("\"0.0.0.0:3478\"", "\"tcp\"\nproxy-from = \"0.0.0.0/0\""),
            "4:14: proxy-from in [[listen]]: \"0.0.0.0/0\" is everybody: anybody could claim to be anybody".to_owned(),
        ),
        (
            listen("\"0.0.0.0:3478\"", "\"tcp\"\nproxy-from = \"proxy.example.org\""),
            "4:14: proxy-from in [[listen]]: \"proxy.example.org\" is not a network or an address".to_owned(),
        ),
        (
            listen("\"0.0.0.0:3478\"", "\"tcp\"\nweb = \"127.0.0.1:8443\""),
            "4:7: web in [[listen]]: only a tls listener can tell what is for the web".to_owned(),
        ),
        (
            listen("\"0.0.0.0:3478\"", "\"tcp\"\nturn-names = \"turn.example.org\""),
            "1:1: turn-names in [[listen]]: it is for a listener with web".to_owned(),
        ),
        (
            listen("\"0.0.0.0:443\"", "\"tls\"\nweb = \"127.0.0.1:443\"\n[tls]\ncertificate = \"c\"\nkey = \"k\""),
            "2:11: web 127.0.0.1:443 of this listener is the listener tls 0.0.0.0:443 itself".to_owned(),
        ),
        (
            listen("\"0.0.0.0:443\"", "\"tls\"\nweb = \"0.0.0.0:8443\"\n[tls]\ncertificate = \"c\"\nkey = \"k\""),
            "4:7: web in [[listen]]: \"0.0.0.0:8443\" is no address of one server; expected the ADDRESS:PORT".to_owned(),
        ),
        (listen("\"0.0.0.0:443\"", "\"tls\""), "2:11: a tls listener needs a certificate: expected [tls] with certificate and key, or with acme".to_owned()),
        (listen("\"0.0.0.0:50000\"", "\"udp\""), "2:11: port 50000 of this udp listener is one of the relay ports 49152-65535".to_owned()),
        (
            listen("\"0.0.0.0:50000\"", "\"tcp\"\n[relay]\ntcp = true"),
            "2:11: port 50000 of this tcp listener is one of the relay ports 49152-65535, which are also TCP's".to_owned(),
        ),
        ("[relay]\nports = \"shared:3480\"\ntcp = true".to_owned(), "2:9: tcp = true in [relay] needs a port for each allocation".to_owned()),
        ("[relay]\ntcp = \"yes\"".to_owned(), "2:7: tcp in [relay]: found a string".to_owned()),
        ("[relay]\ntcp-connections-per-allocation = 0".to_owned(), "2:34: tcp-connections-per-allocation in [relay]: 0 is out of range".to_owned()),
        ("[tls]\ncertificate = \"c.pem\"".to_owned(), "2:15: [tls] has a certificate but no key".to_owned()),
        ("[tls]\nkey = \"k.pem\"".to_owned(), "2:7: [tls] has a key but no certificate".to_owned()),
        (acme("\"*.example.org\"", ""), "6:8: acme in [tls]: \"*.example.org\" is a wildcard".to_owned()),
        (acme("\"203.0.113.5\"", ""), "6:8: acme in [tls]: \"203.0.113.5\" is an address".to_owned()),
        (acme("[\"a.example\", \"A.example\"]", ""), "6:22: acme in [tls]: \"a.example\" is there twice".to_owned()),
        (acme("\"a.example\"", "").replace("acme-agree-to-terms = true", ""), "6:8: acme in [tls]: certificates are had on the terms of service".to_owned()),
        (acme("\"a.example\"", "").replace("state-directory = \"/s\"", ""), "6:8: acme in [tls]: keys and certificates have to outlive the server, and there is no state directory".to_owned()),
        (acme("\"a.example\"", "").replace("\"tls\"", "\"tcp\""), "6:8: acme in [tls]: there is nothing here that the certificate authority could ask".to_owned()),
        (acme("\"a.example\"", "acme-directory = \"http://ca.example/\""), "8:18: acme-directory in [tls]: \"http://ca.example/\" is without TLS".to_owned()),
        (acme("\"a.example\"", "acme-email = \"ops\""), "8:14: acme-email in [tls]: \"ops\" is not an address for mail".to_owned()),
        (acme("\"a.example\"", "acme-http = \"0.0.0.0:443\""), "8:13: acme-http in [tls]: 0.0.0.0:443 overlaps the listener tls 0.0.0.0:443 at turnserver.toml:3:11".to_owned()),
        (acme("\"a.example\"", "acme-eab-key-id = \"k\""), "8:19: acme-eab-key-id in [tls]: there is no key that belongs to it".to_owned()),
        (acme("\"a.example\"", "acme-eab-key-id = \"k\"\nacme-eab-key = \"a+b/\""), "9:16: the key of acme-eab-key-id is not 16 bytes or more as base64url".to_owned()),
        ("[tls]\nacme-email = \"ops@example.org\"".to_owned(), "acme-email in [tls]: there is no acme that it is for".to_owned()),
        ("[tls]\nmin-version = \"1.1\"".to_owned(), "2:15: min-version in [tls]: \"1.1\" is not a version that is offered; expected \"1.2\" or \"1.3\"".to_owned()),
        ("[relay]\nports = \"65535-49152\"".to_owned(), "2:9: ports in [relay]: \"65535-49152\" is reversed; expected a range such as \"49152-65535\"".to_owned()),
        ("[relay]\nports = \"80-90\"".to_owned(), "2:9: ports in [relay]: \"80-90\" begins below 1024".to_owned()),
        ("[relay]\nports = \"1024-70000\"".to_owned(), "2:9: ports in [relay]: \"70000\" in \"1024-70000\" is not a port from 1 to 65535".to_owned()),
        ("[relay]\nports = 49152".to_owned(), "2:9: ports in [relay]: found a whole number".to_owned()),
        ("[relay]\nipv4 = \"0.0.0.0\"".to_owned(), "2:8: ipv4 in [relay]: \"0.0.0.0\" is a wildcard, but clients are told the relay address".to_owned()),
        ("[relay]\nipv4 = \"2a00:1::1\"".to_owned(), "2:8: ipv4 in [relay]: \"2a00:1::1\" is of the other family; expected IPv4 addresses of this host".to_owned()),
        ("[relay]\nipv6 = \"off\"\nexternal-ip = \"2001:db8::1\"".to_owned(), "3:15: external-ip 2001:db8::1 has no relay address of its family to stand for".to_owned()),
        ("[relay]\nexternal-ip = [\"203.0.113.1\", \"203.0.113.2\"]".to_owned(), "2:31: a second external-ip of one family".to_owned()),
        ("[relay]\nexternal-ip = [\"auto\", \"name:a.example\"]".to_owned(), "2:24: a second \"auto\" or \"name:\" in external-ip".to_owned()),
        ("[relay]\nexternal-ip = \"name:10.0.0.1\"".to_owned(), "2:15: external-ip in [relay]: \"name:10.0.0.1\" is an address and no name".to_owned()),
        ("[relay]\nexternal-ip = \"name:no name\"".to_owned(), "2:15: external-ip in [relay]: \"no name\" is not a host name".to_owned()),
        ("[relay]\nipv4 = [\"10.0.0.1\", \"10.0.0.2\"]\nexternal-ip = \"auto\"".to_owned(), "3:15: which of the ipv4 addresses does \"auto\" stand for? expected PUBLIC/PRIVATE".to_owned()),
        ("[relay]\nexternal-ip-sources = \"stun:a.example\"".to_owned(), "2:23: external-ip-sources in [relay]: nobody is asked without external-ip = \"auto\"".to_owned()),
        ("[relay]\nexternal-ip = \"name:a.example\"\nexternal-ip-sources = \"metadata:aws\"".to_owned(), "3:23: external-ip-sources in [relay]: external-ip has a name".to_owned()),
        ("[relay]\nexternal-ip = \"auto\"\nexternal-ip-sources = [\"metadata:aws\", \"metadata:aws\"]".to_owned(), "3:40: external-ip-sources in [relay]: metadata:aws is written twice".to_owned()),
        ("[relay]\nexternal-ip-sources = \"metadata:oracle\"".to_owned(), "\"oracle\" is not a cloud whose metadata is known".to_owned()),
        ("[relay]\nexternal-ip-sources = \"http://a.example\"".to_owned(), "\"http://a.example\" is not \"metadata:CLOUD\" or \"stun:HOST:PORT\"".to_owned()),
        ("[relay]\nexternal-ip-sources = \"stun:a.example:0\"".to_owned(), "\"stun:a.example:0\" is not \"stun:HOST:PORT\"".to_owned()),
        ("[relay]\nexternal-ip-interval = \"1s\"".to_owned(), "2:24: external-ip-interval in [relay]".to_owned()),
        ("[relay]\nexternal-ip = \"example.org\"".to_owned(), "2:15: external-ip in [relay]: \"example.org\" is not an address".to_owned()),
        ("[relay]\nipv4 = \"off\"\nipv6 = \"off\"".to_owned(), "1:1: no relay address".to_owned()),
        ("[auth]\nrealm = \"\"".to_owned(), "2:9: realm in [auth]: \"\" is empty or has a character that is not allowed".to_owned()),
        ("[auth]\nrealm = \"a\\\"b\"".to_owned(), "2:9: realm in [auth]: \"a\\\"b\" is empty or has a character".to_owned()),
        ("[auth]\non-expiry = \"drop\"".to_owned(), "2:13: on-expiry in [auth]: \"drop\" is not a policy; expected \"keep\", \"no-refresh\" or \"cut\"".to_owned()),
        ("[auth]\nnonce-lifetime = \"10\"".to_owned(), format!("2:18: nonce-lifetime in [auth]: \"10\" has no unit; expected {DURATION}")),
        ("[auth]\nnonce-lifetime = \"10 minutes\"".to_owned(), format!("2:18: nonce-lifetime in [auth]: \"minutes\" in \"10 minutes\" is not d, h, m, s or ms right behind its number; expected {DURATION}")),
        ("[auth]\nnonce-lifetime = 600".to_owned(), "2:18: nonce-lifetime in [auth]: found a whole number".to_owned()),
        ("[auth]\nnonce-lifetime = \"1s\"".to_owned(), "2:18: nonce-lifetime in [auth]: \"1s\" is not from 30s to 1d".to_owned()),
        ("[auth]\npublic-host = \"turn://x\"".to_owned(), "2:15: public-host in [auth]: \"turn://x\" is not a host name".to_owned()),
        ("[peers]\ndenied = [\"10.0.0.0/8\", \"10.0.0.0/33\"]".to_owned(), "2:25: denied in [peers]: \"10.0.0.0/33\": ".to_owned()),
        ("[peers]\nallowed = [\"nowhere\"]".to_owned(), format!("`nowhere` is not an IP address; expected {RULES}")),
        ("[peers]\nallowed = [\"127.0.0.1 override\"]".to_owned(), "\"127.0.0.1 override\": has no effect: no rule can allow 127.0.0.0/8, loopback; leave it out: a program on this host is reached with own-services, and nothing else there".to_owned()),
        ("[peers]\nallowed = [\"8.8.8.8\"]".to_owned(), "2:12: allowed in [peers]: \"8.8.8.8\": has no effect".to_owned()),
        ("[peers]\nnat64-prefixes = [\"10.0.0.0/8\"]".to_owned(), "2:19: nat64-prefixes in [peers]: \"10.0.0.0/8\": ".to_owned()),
        ("[peers]\ndenied-ports = [0]".to_owned(), "2:17: denied-ports in [peers]: 0 is out of range".to_owned()),
        ("[peers]\ndenied-ports = 53".to_owned(), "2:16: denied-ports in [peers]: found a whole number; expected an array of ports from 1 to 65535".to_owned()),
        ("[peers]\nmode = \"allow\"".to_owned(), "2:8: mode in [peers]: \"allow\" is not a mode; expected \"p2p\" or \"sfu\"".to_owned()),
        ("[[peers.policy]]\nmode = \"sfu\"".to_owned(), "1:1: [[peers.policy]] has no name; expected a name of at most 32 letters".to_owned()),
        ("[[peers.policy]]\nname = \"a b\"".to_owned(), "2:8: name in [[peers.policy]]: a name has 1 to 32 letters".to_owned()),
        ("[[peers.policy]]\nname = \"a\"\n[[peers.policy]]\nname = \"a\"".to_owned(), "4:8: there is another policy of the name \"a\"".to_owned()),
        ("[[peers.policy]]\nname = \"a\"\nallowed = [\"8.8.8.8\"]".to_owned(), "3:12: allowed in [[peers.policy]]: \"8.8.8.8\": has no effect".to_owned()),
        ("[guard]\nsuspend-after = 0".to_owned(), "2:17: suspend-after in [guard]: 0 is out of range".to_owned()),
        ("[guard]\nloop-packets-per-second = 99".to_owned(), "2:27: loop-packets-per-second in [guard]: 99 is out of range".to_owned()),
        ("[quota]\nallocations-total = 0".to_owned(), "2:21: allocations-total in [quota]: 0 is out of range; expected a whole number from 1, or \"unlimited\"".to_owned()),
        ("[quota]\nallocations-per-user = \"many\"".to_owned(), "2:24: allocations-per-user in [quota]: found a string".to_owned()),
        ("[bandwidth]\nper-user = \"2M\"".to_owned(), format!("2:12: per-user in [bandwidth]: \"M\" in \"2M\" is not a rate whose bits or bytes are spelled out; expected {RATE}")),
        ("[bandwidth]\npackets-per-user = 0".to_owned(), "2:20: packets-per-user in [bandwidth]: 0 is out of range".to_owned()),
        ("[bandwidth]\nper-user = 2000000".to_owned(), "2:12: per-user in [bandwidth]: found a whole number".to_owned()),
        ("[bandwidth]\nper-allocation = \"1kbit/s\"".to_owned(), "2:18: per-allocation in [bandwidth]: \"1kbit/s\" is less than one packet a second".to_owned()),
        ("[lifetimes]\nallocation-default = \"1h\"\nallocation-max = \"10m\"".to_owned(), "3:18: allocation-max in [lifetimes]: it is less than allocation-default, which is 1h".to_owned()),
        ("[lifetimes]\nallocation-max = \"2d\"".to_owned(), "2:18: allocation-max in [lifetimes]: \"2d\" is not from 10s to 1d".to_owned()),
        ("[lifetimes]\npermission = \"5m\"".to_owned(), "2:1: unknown key \"permission\" in [lifetimes]; expected one of allocation-default, allocation-max".to_owned()),
        ("[limits]\nunauthenticated-replies-burst = \"unlimited\"".to_owned(), "2:33: unauthenticated-replies-burst in [limits]: found a string".to_owned()),
        ("[limits]\npeers-per-allocation = 0".to_owned(), "2:24: peers-per-allocation in [limits]: 0 is out of range".to_owned()),
        ("[streams]\nqueue-bytes-max = \"1K\"".to_owned(), "2:19: queue-bytes-max in [streams]: \"K\" in \"1K\" is not a unit of size".to_owned()),
        ("[streams]\nqueue-bytes-max = \"1KiB\"".to_owned(), "2:19: queue-bytes-max in [streams]: \"1KiB\" is not from 64KiB to 64MiB".to_owned()),
        ("[log]\nlevel = \"inof\"".to_owned(), "2:9: level in [log]: \"inof\" is not a level; expected error, warn, info".to_owned()),
        ("[log]\nformat = \"xml\"".to_owned(), "2:10: format in [log]: \"xml\" is not a format; expected \"text\" or \"json\"".to_owned()),
        ("[log]\naddresses = \"none\"".to_owned(), "2:13: addresses in [log]: \"none\" is not a choice; expected \"full\", \"prefix\" or \"off\"".to_owned()),
        ("realm = \"x\"".to_owned(), "1:9: realm at the top level: found a string; expected tables, each written as [[realm]]; a key of this name is in [[listen]], [auth]".to_owned()),
        ("public-host = \"x\"".to_owned(), "1:1: unknown key \"public-host\" at the top level (there is one in [[realm]], [auth]); expected one of".to_owned()),
        ("log = \"debug\"".to_owned(), "1:7: log at the top level: found a string; expected a table, written as [log]".to_owned()),
    ];
    for (text, expected) in cases {
        let error = with_secret(&text).error();
        assert!(error.contains(&expected), "{text}\ngave:     {error}\nexpected: {expected}");
        assert!(error.starts_with("turnserver.toml"), "{error}");
        assert_eq!(error.lines().count(), 1, "{text}\ngave more than one problem:\n{error}");
    }
}

#[test]
fn mistakes_in_secrets_and_users_are_named() {
    let secret = "secret = \"0123456789abcdef\"";
    let cases = [
        (String::new(), "turnserver.toml: nobody could authenticate: expected one of [[auth.secrets]], [[auth.users]], [[auth.token-keys]], users-file in [auth]".to_owned()),
        (format!("{SECRET}[[auth.secrets]]\n{secret}"), "4:1: in [[auth.secrets]] there is no id, which each of several secrets needs".to_owned()),
        (format!("[[auth.secrets]]\nid = \"a b\"\n{secret}"), "2:6: id in [[auth.secrets]]: \"a b\" is not such a name".to_owned()),
        ("[[auth.secrets]]\nid = \"a\"".to_owned(), format!("1:1: in [[auth.secrets]] there is no source: expected one of {SOURCES}")),
        (format!("[[auth.secrets]]\nid = \"a\"\nenv = \"A\"\n{secret}"), format!("1:1: in [[auth.secrets]] there is more than one source (env, secret); expected one of {SOURCES}")),
        ("[[auth.secrets]]\nid = \"a\"\nenv = \"A\"".to_owned(), "3:7: in [[auth.secrets]] the variable A is not set".to_owned()),
        ("[[auth.secrets]]\nid = \"a\"\ncredential = \"a\"".to_owned(), "3:14: in [[auth.secrets]] credential \"a\" needs CREDENTIALS_DIRECTORY".to_owned()),
        ("[[auth.secrets]]\nid = \"a\"\ncredential = \"../a\"".to_owned(), "3:14: credential in [[auth.secrets]]: \"../a\" is not such a name".to_owned()),
        ("[[auth.secrets]]\nid = \"a\"\nfile = \"/nonexistent/a\"".to_owned(), "3:8: in [[auth.secrets]] cannot read /nonexistent/a: no such file or directory".to_owned()),
        ("[[auth.secrets]]\nid = \"a\"\nsecret = \"short\"".to_owned(), "3:10: secret \"a\" in [[auth.secrets]]: the secret has 5 bytes; it needs at least 16".to_owned()),
        (format!("{SECRET}{SECRET}"), "5:6: a second secret with the id \"main\"".to_owned()),
        (format!("{SECRET}secrets = 1"), "4:1: unknown key \"secrets\" in [[auth.secrets]] (did you mean \"secret\"?); expected one of credential, env, file, id, secret".to_owned()),
        ("[[auth.users]]\npassword = \"p\"".to_owned(), "1:1: [[auth.users]] has no name".to_owned()),
        ("[[auth.users]]\nname = \"a\"".to_owned(), "1:1: in [[auth.users]] there is no source: expected one of password-credential, password-file, password-env, password".to_owned()),
        ("[[auth.users]]\nname = \"a\"\npassword = \"\"".to_owned(), "2:8: user \"a\": the password".to_owned()),
        ("[[auth.users]]\nname = \"1700000000:a\"\npassword = \"p\"".to_owned(), "2:8: \"1700000000:a\" looks like the username of a time-limited credential".to_owned()),
        ("[[auth.users]]\nname = \"a\"\npassword = \"p\"\n[[auth.users]]\nname = \"a\"\npassword = \"q\"".to_owned(), "5:8: user \"a\" is given twice".to_owned()),
        ("[[auth.users]]\nname = \"a\"\npassword = \"0xg93fbc53ba582fb4c044c456bdc40eb0\"".to_owned(), "2:8: user \"a\": the key after 0x is neither 32 hexadecimal digits".to_owned()),
        (format!("{SECRET}[[realm]]\nname = \"b\""), "4:1: nobody could authenticate: expected one of [[realm.secrets]]".to_owned()),
        (format!("{SECRET}[[realm]]\nname = \"turnstone\"\n[[realm.secrets]]\n{secret}"), "5:8: name in [[realm]]: a second realm of the name \"turnstone\"".to_owned()),
        (format!("{SECRET}[[realm]]\nname = \"b\"\nsni = [\"10.0.0.1\"]\n[[realm.secrets]]\n{secret}"), "6:8: sni in [[realm]]: \"10.0.0.1\" is an address".to_owned()),
        (format!("[auth]\nsni = [\"a.example\"]\n{SECRET}[[realm]]\nname = \"b\"\nsni = [\"A.example\"]\n[[realm.secrets]]\n{secret}"), "sni in [[realm]]: \"a.example\" leads to another realm already".to_owned()),
        (format!("{SECRET}[[realm]]\nname = \"Andr\u{e9}\"\n[[realm.secrets]]\n{secret}\n[[realm]]\nname = \"Andre\u{301}\"\n[[realm.secrets]]\n{secret}"), "9:8: name in [[realm]]: a second realm of the name \"Andr\u{e9}\"".to_owned()),
        (format!("{SECRET}[[realm]]\nname = \"r11879.example\"\n[[realm.secrets]]\n{secret}\n[[realm]]\nname = \"r21791.example\"\n[[realm.secrets]]\n{secret}"), "9:8: name in [[realm]]: \"r11879.example\" and \"r21791.example\" have the same number".to_owned()),
        (format!("{SECRET}[[realm]]\nname = \"b\"\npeers = \"sfu\"\n[[realm.secrets]]\n{secret}\n[[peers.policy]]\nname = \"open\""), "6:9: peers in [[realm]]: there is no [[peers.policy]] of the name \"sfu\"; expected one of [\"open\"]".to_owned()),
        (format!("{SECRET}[[realm]]\nname = \"b\"\npeers = \"s f u\"\n[[realm.secrets]]\n{secret}"), "6:9: peers in [[realm]]: a name has 1 to 32 letters".to_owned()),
        ("[[auth.users]]\nname = \"a\"\npassword = \"0x8493fbc53ba582fb4c044c456bdc40e\"".to_owned(), "2:8: user \"a\": the key after 0x is neither 32 hexadecimal digits".to_owned()),
        ("[[auth.users]]\nname = \"a\"\npassword = \"0x12345\"".to_owned(), "2:8: user \"a\": the key after 0x is neither 32 hexadecimal digits (MD5) nor 64 (SHA-256); is it cut off?".to_owned()),
        (format!("{SECRET}[[listen]]\naddress = \"127.0.0.1:1\"\ntransport = \"udp\"\nrealm = \"nowhere\""), "realm in [[listen]]: there is no realm \"nowhere\"; expected one of [\"turnstone\"]".to_owned()),
        ("[auth]\nusers-file = \"/nonexistent/users\"".to_owned(), "2:14: users-file in [auth]: cannot read /nonexistent/users".to_owned()),
    ];
    for (text, expected) in cases {
        let error = given(&text).error();
        assert!(error.contains(&expected), "{text}\ngave:     {error}\nexpected: {expected}");
        assert!(!error.contains("0123456789abcdef"), "a secret is shown: {error}");
        assert_eq!(error.lines().count(), 1, "{text}\ngave more than one problem:\n{error}");
    }
}

#[test]
fn every_mistake_of_a_file_is_listed_in_its_order() {
    let error = with_secret("workers = -1\n[relay]\nports = \"2-1\"\nfoo = 1\n[log]\nlevel = \"x\"\n").error();
    let places: Vec<_> = error.lines().map(|line| line.split(": ").next().unwrap()).collect();
    let expected = ["turnserver.toml:1:11", "turnserver.toml:3:9", "turnserver.toml:4:1", "turnserver.toml:6:9"];
    assert_eq!(places, expected, "{error}");
}

#[test]
fn a_text_without_quotes_is_shown_with_them_and_nothing_else_is_said_of_its_line() {
    let error = with_secret("workers = 1\n[relay]\nports = 49152-65535 # all\nipv4 = 10.0.0.1\n").error();
    let lines: Vec<_> = error.lines().collect();
    assert!(lines[0].starts_with("turnserver.toml:3:"), "{error}");
    assert!(lines[0].ends_with(": a text must be in quotes: ports = \"49152-65535\""), "{error}");
    assert!(lines[1].ends_with(": a text must be in quotes: ipv4 = \"10.0.0.1\"") && lines.len() == 2, "{error}");
}

#[test]
fn the_only_secret_needs_no_id() {
    let config = given("[[auth.secrets]]\nsecret = \"0123456789abcdef\"\n").config();
    assert_eq!(config.auth.secrets[0].id, "main");
}

#[test]
fn broken_toml_is_placed() {
    for (text, place) in [
        ("workers = ", "turnserver.toml:1:11: "),
        ("[relay\n", "turnserver.toml:1:7: "),
        ("workers = 1\nworkers = 2\n", "turnserver.toml:2:1: "),
        ("realm = \"abc\n", "turnserver.toml:1:"),
    ] {
        let error = with_secret(text).error();
        assert!(error.starts_with(place), "{text:?} gave {error}");
    }
}

#[test]
fn columns_are_counted_in_characters() {
    let error = with_secret("software = \"größer\" # ü\n[log]\n\"ü\" = 1").error();
    assert!(error.starts_with("turnserver.toml:3:1: unknown key \"ü\" in [log]"), "{error}");
    let error = given("auth = { realm = \"ü\", \"é\" = 1 }").error();
    assert!(error.starts_with("turnserver.toml:1:23: unknown key \"é\" in [auth]"), "{error}");
}
