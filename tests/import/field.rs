//! Small configurations from the field whose import once meant something else, or said so wrongly.

use std::net::SocketAddr;

use turnstone::addr::PeerAddr;
use turnstone::import::{FindingKind, Grade, import};
use turnstone::policy::PeerAcl;

use super::{Imported, imported, judged, with_secret};

const PLACEHOLDERS: &str = include_str!("fixtures/placeholders.conf");

fn acl(group: &Imported) -> PeerAcl {
    let config = &group.config;
    let relays = config.relay.addresses.iter();
    let mut rules = config.peers.clone();
    rules.own_addresses = relays.clone().map(|relay| relay.bind).collect();
    rules.relay_addresses = relays.map(|relay| relay.external).collect();
    rules.own_endpoints = config.listeners.iter().map(|listener| listener.address).collect();
    rules.relay_ports = config.relay.ports;
    PeerAcl::compile(&rules).unwrap()
}

fn reaches(acl: &PeerAcl, peer: &str) -> bool {
    acl.judge(PeerAddr::new(peer.parse::<SocketAddr>().unwrap()).unwrap()).is_ok()
}

#[test]
fn tls_has_udp_beside_it_for_stuns_urls_unless_coturn_has_it_closed() {
    let files = "cert=/c.pem\npkey=/k.pem\nlistening-ip=192.88.100.1\n";
    let group = with_secret(files);
    assert!(group.import.toml.contains("address = \"192.88.100.1:5349\"\ntransport = [\"udp\", \"tcp\", \"tls\"]"));
    assert!(group.import.findings.iter().any(|finding| finding.directive == "cert"
        && finding.grade == Grade::Harmless
        && finding.message.contains("stuns:")));
    let at = |listener: &str| listener.replace(' ', " 192.88.100.1:");
    // coturn's no-udp is not for the socket of DTLS.
    assert_eq!(
        with_secret(&format!("{files}no-udp\n")).listeners(),
        ["tcp 3478", "tls 3478", "udp 5349", "tcp 5349", "tls 5349"].map(at)
    );
    let closed = with_secret(&format!("{files}no-dtls\ntls-listening-port=443\n"));
    assert_eq!(closed.listeners(), ["udp 3478", "tcp 3478", "tls 3478", "tcp 443", "tls 443"].map(at));
    let about = closed.about("tls-listening-port");
    assert_eq!((about.kind, about.grade), (FindingKind::Note, Grade::Clients));
    assert!(about.message.contains("transport = [\"udp\", \"tls\"] cures that"), "{}", about.message);
}

#[test]
fn tls_and_tcp_on_one_port_stay_on_it() {
    let group = imported(include_str!("fixtures/tls-and-tcp-one-port.conf"));
    assert_eq!(
        group.listeners(),
        ["udp 0.0.0.0:443", "udp [::]:443", "tcp 0.0.0.0:443", "tcp [::]:443", "tls 0.0.0.0:443", "tls [::]:443"]
    );
    assert!(group.lost().is_empty());
}

#[test]
fn connections_are_told_by_their_first_bytes_on_either_port_as_in_coturn() {
    let files = "cert=/c.pem\npkey=/k.pem\nlistening-ip=192.88.100.1\n";
    for (switches, expected) in [
        ("", &["udp 3478", "tcp 3478", "tls 3478", "udp 5349", "tcp 5349", "tls 5349"][..]),
        ("no-tcp\n", &["udp 3478", "udp 5349", "tls 5349"]),
        ("no-tcp\nno-udp\n", &["udp 5349", "tls 5349"]),
        ("no-tls\n", &["udp 3478", "tcp 3478"]),
    ] {
        let group = with_secret(&format!("{files}{switches}"));
        let expected: Vec<_> = expected.iter().map(|listener| listener.replace(' ', " 192.88.100.1:")).collect();
        assert_eq!(group.listeners(), expected, "{switches}");
        assert!(group.lost().is_empty());
    }
}

#[test]
fn dtls_comes_over_where_it_is_asked_for_and_this_program_has_it() {
    let files = "cert=/c.pem\npkey=/k.pem\nlistening-ip=192.88.100.1\n";
    for asked in ["dtls", "no-dtls=false"] {
        let group = with_secret(&format!("{files}{asked}\n"));
        let has = |listener: &str| group.listeners().contains(&listener.to_owned());
        let is_built_in = cfg!(feature = "dtls");
        assert_eq!(
            (has("dtls 192.88.100.1:3478"), has("dtls 192.88.100.1:5349")),
            (is_built_in, is_built_in),
            "{asked}"
        );
        assert_eq!(group.lost().is_empty(), is_built_in);
        assert!(
            is_built_in || group.import.findings.iter().any(|finding| finding.message.contains("cargo feature dtls"))
        );
    }
    let silent = with_secret(files);
    assert!(!silent.import.toml.contains("\"dtls\""));
    assert!(
        silent.import.findings.iter().any(|finding| finding.message.contains("is left out: browsers do not use it"))
    );
    // Without a certificate there is none, in coturn neither.
    assert!(!with_secret("dtls\n").import.toml.contains("dtls"));
}

#[test]
fn what_wants_the_addresses_of_proxies_or_keys_of_a_database_stands_in_the_result_as_a_comment() {
    let group = with_secret("tcp-proxy-port=5555\noauth\nserver-name=turn.example.org\nno-udp-relay\n");
    assert_eq!(group.lost(), ["tcp-proxy-port", "oauth", "no-udp-relay"]);
    assert_eq!(&*group.config.auth.tokens.server_name, "turn.example.org");
    assert!(group.config.tcp_relays.is_offered);
    let toml = &*group.import.toml;
    let proxied = "#[[listen]]\n#address = \"*:5555\"\n#transport = \"tcp\"\n#proxy-from = [\"10.0.0.1\"]\n";
    let keys = "#[[auth.token-keys]]\n#id = \"KID\"\n#algorithm = \"A256GCM\"\n#file = \"/etc/turnstone/token-key\"\n";
    assert!(toml.contains(proxied) && toml.contains(keys), "{toml}");
    // With the comment signs taken away, and a key that is there, it is valid.
    let whole = toml.replace(proxied, &proxied.replace('#', "")).replace(
        keys,
        &keys
            .replace('#', "")
            .replace("file = \"/etc/turnstone/token-key\"", "key = \"MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=\""),
    );
    let config = super::parse(&whole).unwrap_or_else(|error| panic!("{error}\n{whole}")).config;
    assert!(config.auth.tokens.is_on());
    assert_eq!(config.listeners.iter().filter(|listener| !listener.options.proxy_from.is_empty()).count(), 2);
    // Without oauth, coturn uses the name for nothing.
    assert!(!with_secret("server-name=turn.example.org").import.toml.contains("\nserver-name"));
}

#[test]
fn the_ipv6_wildcard_is_both_families() {
    let group = imported(include_str!("fixtures/listening-any-v6.conf"));
    assert_eq!(group.listeners(), ["udp 0.0.0.0:3478", "udp [::]:3478", "tcp 0.0.0.0:3478", "tcp [::]:3478"]);
    assert!(group.lost().is_empty());
    // Whatever stands beside it is covered.
    let both = with_secret("listening-ip=192.88.100.1\nlistening-ip=::\nlistening-ip=0.0.0.0\naux-server=[::]:3480");
    assert_eq!(both.listeners().len(), 8);
    assert!(both.import.toml.contains("\"*:3478\"") && both.import.toml.contains("\"*:3480\""));
    assert_eq!(both.harmless(), [1, 2, 3]);
}

#[test]
fn an_sfu_on_the_same_host_is_reached_on_every_port_but_the_listeners() {
    let group = imported(include_str!("fixtures/same-host-sfu.conf"));
    assert!(group.config.peers.default_deny_all && group.config.peers.allowed.is_empty());
    let acl = acl(&group);
    for (peer, expected) in [
        ("12.0.0.1:20000", true),
        ("12.0.0.1:50000", true),
        ("12.0.0.1:3478", false),
        ("12.0.0.2:20000", false),
        ("[2a00::1]:20000", false),
    ] {
        assert_eq!(reaches(&acl, peer), expected, "{peer}");
    }
    let about = group.about("allowed-peer-ip");
    assert_eq!((about.kind, about.grade), (FindingKind::Note, Grade::Security));
    assert!(about.message.contains("own-services") && about.message.contains("12.0.0.1:20000-20999"));
}

#[test]
fn of_a_mapped_address_the_relay_ports_stay_in_the_process() {
    let conf = "external-ip=203.0.113.7/10.0.0.4\nallowed-peer-ip=203.0.113.7\nmin-port=50000\nmax-port=50999\n";
    let group = with_secret(conf);
    let services: Vec<_> = group.config.peers.own_services.iter().map(ToString::to_string).collect();
    assert_eq!(services, ["203.0.113.7:1-49999", "203.0.113.7:51000-65535"]);
}

#[test]
fn an_allowed_range_with_the_servers_own_address_in_it_says_what_is_not_reached() {
    let group = with_secret("listening-ip=10.0.0.1\nexternal-ip=203.0.113.7\nallowed-peer-ip=10.0.0.0-10.0.0.255");
    let about: Vec<_> = group.import.findings.iter().filter(|finding| finding.directive == "allowed-peer-ip").collect();
    assert!(about.iter().any(|finding| finding.grade == Grade::Clients && finding.message.contains("10.0.0.1:PORT")));
    // Where the file does not say what the server's address is, the rule may be it.
    let unknown = with_secret(
        "denied-peer-ip=0.0.0.0-255.255.255.255\ndenied-peer-ip=::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff\n\
         allowed-peer-ip=198.41.0.4",
    );
    assert!(unknown.message("allowed-peer-ip").contains("own-services"));
}

#[test]
fn alternative_ports_are_listeners_where_coturn_opens_them() {
    let group = imported(include_str!("fixtures/alt-ports.conf"));
    let at = |address: &str| {
        ["udp", "tcp", "tls"]
            .map(|transport| format!("{transport} {address}:3478"))
            .into_iter()
            .chain(["udp", "tcp", "tls"].map(|transport| format!("{transport} {address}:5349")))
    };
    let all = ["udp", "tcp", "tls"];
    let alternative = |address: &str| all.map(|transport| format!("{transport} {address}:80")).into_iter();
    let secure = |address: &str| all.map(|transport| format!("{transport} {address}:443")).into_iter();
    let expected: Vec<String> = at("12.0.0.1")
        .chain(at("12.0.0.2"))
        .chain(alternative("12.0.0.1"))
        .chain(alternative("12.0.0.2"))
        .chain(secure("12.0.0.1"))
        .chain(secure("12.0.0.2"))
        .collect();
    assert_eq!(group.listeners(), expected);
    assert!(group.lost().is_empty());
    for (conf, lines) in [
        ("alt-listening-port=80\nlistening-ip=192.88.100.1", vec![1]),
        ("alt-listening-port=80\nlistening-ip=0.0.0.0", vec![1]),
        ("alt-listening-port=80\nexternal-ip=203.0.113.7", vec![1]),
        ("alt-listening-port=80\nno-rfc5780", vec![1, 2]),
        ("alt-tls-listening-port=443", vec![1]),
        ("alt-listening-port=0\nalt-tls-listening-port=0", vec![1, 2]),
    ] {
        let group = with_secret(conf);
        assert!(group.listeners().iter().all(|listener| listener.ends_with(":3478")), "{conf}");
        assert_eq!((group.harmless(), group.lost().len()), (lines, 0), "{conf}");
    }
    // Without listening-ip coturn has every address of the host, loopback among them.
    assert!(with_secret("alt-listening-port=80").import.toml.contains("\"*:80\""));
}

#[test]
fn rfc_5780_is_taken_over_where_coturn_has_it() {
    let pair = |conf: &str| with_secret(conf).config.nat_discovery.first().map(|pair| (pair.addresses, pair.ports));
    let addresses = ["12.0.0.1", "12.0.0.2"].map(|ip| ip.parse().unwrap());
    let two = "listening-ip=12.0.0.1\nlistening-ip=12.0.0.2\n";
    assert_eq!(pair(&format!("{two}rfc5780")), Some((addresses, [3478, 3479])));
    assert_eq!(pair(&format!("{two}alt-listening-port=80")), Some((addresses, [3478, 80])));
    assert_eq!(
        pair(&format!("{two}listening-port=1000\nrfc5780\nalt-listening-port=0")),
        Some((addresses, [1000, 1001]))
    );
    for without in ["", "rfc5780\nno-rfc5780", "rfc5780\nno-udp"] {
        assert_eq!(pair(&format!("{two}{without}")), None, "{without}");
    }
    for lost in ["rfc5780", "listening-ip=12.0.0.1\nrfc5780", &format!("{two}external-ip=12.0.0.9\nrfc5780")] {
        let group = with_secret(lost);
        assert!(
            group.config.nat_discovery.is_empty() && group.lost().contains(&"rfc5780"),
            "{lost}: {:?}",
            group.lost()
        );
    }
}

#[test]
fn clients_of_rfc_3489_are_served_where_coturn_serves_them() {
    for (conf, expected) in [
        ("stun-backward-compatibility", true),
        ("rfc3489-compatibility", true),
        ("rfc3489-compatibility=false", false),
        ("no-stun-backward-compatibility", false),
        ("", false),
    ] {
        let group = with_secret(conf);
        assert_eq!((group.config.rfc3489, group.lost().len()), (expected, 0), "{conf}");
    }
}

#[test]
fn the_peers_of_a_lan_are_reached() {
    let group = imported(include_str!("fixtures/lan-only.conf"));
    assert_eq!(group.config.peers.allowed, ["10.0.0.0/8 override"]);
    let acl = acl(&group);
    for (peer, expected) in [("10.5.0.9:4000", true), ("10.200.0.1:4000", true), ("192.168.0.1:4000", false)] {
        assert_eq!(reaches(&acl, peer), expected, "{peer}");
    }
    let peers: Vec<_> = group.import.findings.iter().filter(|finding| finding.directive == "[peers]").collect();
    assert!(
        peers
            .iter()
            .any(|finding| finding.grade == Grade::Security && finding.message.contains("10.5.0.0/24 override"))
    );
    // `check` has nothing to say of it, and does where the rule is missing.
    let warned =
        |toml: &str| super::parse(toml).unwrap().warnings.iter().any(|warning| warning.message.contains("(403)"));
    assert!(
        !warned(&group.import.toml) && warned(&group.import.toml.replace(" override", "").replace("allowed", "denied"))
    );
    // What the file denies stays denied, and what it allows is allowed once.
    let cut = with_secret(
        "listening-ip=192.168.1.2\ndenied-peer-ip=192.168.9.0-192.168.9.255\ndenied-peer-ip=192.168.128.0-192.169.0.0\n\
         allowed-peer-ip=192.168.9.7",
    );
    let acl = self::acl(&cut);
    for (ip, expected) in [
        ("192.168.1.3", true),
        ("192.168.9.6", false),
        ("192.168.9.7", true),
        ("192.168.128.1", false),
        ("10.0.0.1", false),
    ] {
        assert_eq!(acl.judge_ip(ip.parse().unwrap()).is_ok(), expected, "{ip}");
    }
    // A public address that stands for it: the peers are outside.
    assert!(with_secret("listening-ip=10.5.0.1\nexternal-ip=203.0.113.7").config.peers.allowed.is_empty());
    let ula = with_secret("relay-ip=fd12::1");
    assert_eq!(ula.config.peers.allowed, ["fc00::/7 override"]);
    let none = with_secret("listening-ip=10.5.0.1\ndenied-peer-ip=10.0.0.0-10.255.255.255");
    assert!(none.config.peers.allowed.is_empty());
    assert!(none.import.findings.iter().any(|finding| finding.message.contains("all of them are denied")));
}

#[test]
fn placeholders_never_become_secrets() {
    let group = imported(PLACEHOLDERS);
    assert!(!group.import.has_secrets && group.config.auth.realm == "turnstone");
    assert!(group.import.toml.contains("file = \"/etc/turnstone/secret\""));
    assert_eq!(group.findings(), ["3 static-auth-secret invalid", "4 realm invalid"]);
    assert_eq!(group.about("static-auth-secret").grade, Grade::Security);
    for secret in [
        "${COTURN_SECRET}",
        "{{ turn_secret }}",
        "CHANGE_ME_TO_A_RANDOM_SECRET",
        "<put-a-long-secret-here>",
        "your-secret-here-please",
        "$(openssl rand -hex 32)",
        "%COTURN_SECRET%",
        "aaaaaaaaaaaaaaaaaaaa",
    ] {
        let group = imported(&format!("use-auth-secret\nstatic-auth-secret={secret}\nlistening-ip=192.88.100.1\n"));
        assert!(!group.import.has_secrets && !group.import.toml.contains(secret), "{secret}");
        assert_eq!(group.about("static-auth-secret").grade, Grade::Security, "{secret}");
        assert!(group.import.is_lossy(), "{secret}");
    }
    let users =
        imported("lt-cred-mech\nuser=alice:{{ password }}\nuser=${USER}:x1y2z3\nuser=bob:CHANGE_ME\nuser=carol:7c2e9a");
    assert_eq!(users.config.auth.users.len(), 1);
    // An address that is a placeholder opens no other one.
    assert_eq!(with_secret("listening-ip=${IP}").listeners(), ["udp 127.0.0.1:3478"]);
}

#[test]
fn a_secret_on_a_line_of_its_own_is_not_printed() {
    let text = include_str!("fixtures/secret-line.txt");
    for conf in [text.to_owned(), text.replace("--static", "static"), text.replace("0123456789abcdef", "Correct-Horse")]
    {
        let group = imported(&conf);
        let shown = format!("{}{:?}", &*group.import.toml, group.import.findings);
        assert!(!shown.contains("0123456789") && !shown.contains("Horse"), "{shown}");
        assert!(group.findings().contains(&"3 ? unknown".to_owned()), "{:?}", group.findings());
    }
    let dashes = imported(text);
    assert!(dashes.message("--static-auth-secret").contains("no dashes in front"));
    // A misspelt directive still is shown, with what was meant.
    assert!(with_secret("listning-port=1").message("listning-port").ends_with("did you mean listening-port?"));
}

#[test]
fn no_credentials_at_all_are_an_open_relay_in_coturn_and_it_is_said() {
    let group = imported(include_str!("fixtures/no-credentials.conf"));
    let about = group.about("[[auth.secrets]]");
    assert_eq!((about.kind, about.grade), (FindingKind::NotConverted, Grade::Security));
    assert!(about.message.contains("OPEN RELAY"), "{}", about.message);
    // Asked for, or known: then it is closed, and some may be in a database.
    for conf in ["lt-cred-mech", "use-auth-secret"] {
        let group = imported(conf);
        let about = group.about("[[auth.secrets]]");
        assert!(
            about.grade == Grade::Clients && about.message.contains("in its database"),
            "{conf}: {}",
            about.message
        );
    }
    assert!(imported("userdb=/var/lib/turn/turndb").about("[[auth.secrets]]").message.contains("OPEN RELAY"));
}

#[test]
fn what_is_off_is_not_lost() {
    let group = imported(include_str!("fixtures/zero-means-off.conf"));
    assert_eq!((group.lost(), group.findings()), (Vec::new(), Vec::<String>::new()));
    assert_eq!(group.harmless(), [4, 5, 6, 7, 8]);
    let conf = "no-cli\ncli-password=hunter2hunter2\ncli-ip=10.0.0.1\ncli-max-output-sessions=0\nweb-admin-port=8080\n\
                prometheus-port=0\ncipher-list=HIGH\npkey-pwd=hunter2\nsyslog-facility=x\ntcp-proxy-port=0\n\
                multiplex-peer-port=3480\nsock-buf-size=0\nsecret-key-file=/x\nnew-log-timestamp-format=%T\nalternate-server=\n\
                user-quota=0\ntotal-quota=0\nmax-bps=0\nmax-allocate-lifetime=0";
    let group = with_secret(conf);
    assert_eq!(group.lost(), Vec::<&str>::new());
    assert!(!format!("{:?}", group.import.findings).contains("hunter2"));
}

#[test]
fn findings_are_sorted_by_grade_and_then_by_place() {
    let group = with_secret("fingerprint\nno-stun\nno-tlsv1\nserver-relay\nlog-binding\nrfc3489-compatibility");
    let order: Vec<_> =
        group.import.findings.iter().map(|finding| (finding.grade, finding.spot.is_none(), finding.spot)).collect();
    assert!(order.is_sorted(), "{order:?}");
    let grades: Vec<_> = group.import.findings.iter().map(|finding| finding.grade).collect();
    for grade in Grade::ALL {
        assert!(grades.contains(&grade), "{grade:?}");
    }
}

#[test]
fn eturnal_is_told_by_its_section() {
    assert_eq!(import("eturnal:\n  secret: x\n").unwrap().from, "eturnal");
    assert_eq!(judged(import("realm=eturnal:x\n").unwrap(), "").import.from, "coturn");
}

#[test]
fn an_address_that_a_script_of_the_image_finds_is_found_by_the_server() {
    let group = with_secret("external-ip=$(detect-external-ip)");
    assert!(group.message("external-ip").contains("external-ip = \"auto\""));
}
