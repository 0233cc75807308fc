//! `[metrics]`, `[admin]` and `[drain]`, and what a reload says it changes.

use std::path::Path;
use std::time::Duration;

use turnstone::addr::Transport;
use turnstone::config::{Config, Effect, Endpoint, HookEvent, OwnAddresses};
use turnstone::turn::AlternateServer;

use super::{SECRET, given, with_secret};

#[test]
fn there_is_no_metrics_endpoint_and_no_drain_unless_asked_for() {
    let config = given(SECRET).config();
    assert_eq!(config.metrics, None);
    assert_eq!((config.drain.deadline, config.drain.alternates.servers.len()), (Duration::ZERO, 0));
}

#[test]
fn metrics_are_for_this_host_only_unless_remote_ones_are_allowed() {
    for address in ["0.0.0.0:9641", "[::]:9641", "192.0.2.1:9641", "[2001:db8::1]:9641"] {
        let error = with_secret(&format!("[metrics]\nlisten = \"{address}\"")).error();
        assert!(error.starts_with("turnserver.toml:2:10: listen in [metrics]: "), "{error}");
        assert!(error.contains("allow-remote = true"), "{error}");
        let config = with_secret(&format!("[metrics]\nlisten = \"{address}\"\nallow-remote = true")).config();
        assert_eq!(config.metrics.unwrap().listen.to_string(), address);
    }
    for address in ["127.0.0.1:9641", "[::1]:9641"] {
        let config = with_secret(&format!("[metrics]\nlisten = \"{address}\"")).config();
        assert_eq!(config.metrics.unwrap().listen, Endpoint::Tcp(address.parse().unwrap()));
    }
}

#[test]
fn a_socket_path_is_relative_to_the_file_and_bounded() {
    let text = "[metrics]\nlisten = \"unix:metrics.sock\"";
    let config = with_secret(text).in_directory(Path::new("/etc/turnstone")).config();
    assert_eq!(config.metrics.unwrap().listen, Endpoint::Unix("/etc/turnstone/metrics.sock".into()));
    for bad in ["unix:", &format!("unix:/{}", "a".repeat(107)), "9641", "localhost:9641", "224.0.0.1:9641"] {
        let error = with_secret(&format!("[metrics]\nlisten = \"{bad}\"")).error();
        assert!(error.starts_with("turnserver.toml:2:10: listen in [metrics]: "), "{error}");
        assert!(error.contains("expected ADDRESS:PORT"), "{error}");
    }
}

#[test]
fn metrics_and_a_stream_listener_cannot_share_an_address() {
    let listen = "[[listen]]\naddress = \"127.0.0.1:9641\"\ntransport = \"tcp\"\n";
    let error = with_secret(&format!("{listen}[metrics]\nlisten = \"127.0.0.1:9641\"")).error();
    assert!(error.contains("turnserver.toml:5:10: listen in [metrics]: 127.0.0.1:9641 overlaps"), "{error}");
}

#[test]
fn the_admin_api_is_a_socket_or_a_port_on_loopback_with_a_token() {
    assert_eq!(given(SECRET).config().admin, None);
    let socket = with_secret("[admin]\nlisten = \"unix:admin.sock\"").in_directory(Path::new("/run")).config();
    let admin = socket.admin.unwrap();
    assert_eq!((admin.listen, admin.token), (Endpoint::Unix("/run/admin.sock".into()), None));

    let token = "token = \"0123456789abcdef\"";
    let port = with_secret(&format!("[admin]\nlisten = \"[::1]:9642\"\n{token}")).config();
    let admin = port.admin.clone().unwrap();
    assert_eq!(admin.listen, Endpoint::Tcp("[::1]:9642".parse().unwrap()));
    let token_of_admin = admin.token.unwrap();
    assert!(token_of_admin.is(b"0123456789abcdef"));
    for wrong in ["", "0123456789abcde", "0123456789abcdeF", "0123456789abcdef0"] {
        assert!(!token_of_admin.is(wrong.as_bytes()), "{wrong}");
    }
    assert!(!format!("{port:?}").contains("9abcdef") && !port.to_toml().contains("9abcdef"));
    assert!(port.to_toml().contains("[admin]\nlisten = \"[::1]:9642\"\n# token, 16 bytes\n"), "{}", port.to_toml());

    assert!(!admin.page && port.to_toml().contains("# token, 16 bytes\npage = false\n"));
    let page = with_secret("[admin]\nlisten = \"unix:a\"\npage = true").config();
    assert!(page.admin.unwrap().page);

    for (text, wanted) in [
        ("page = true", "[admin] has page = true but no listen: the page is where the admin API is"),
        ("listen = \"unix:a\"\npage = \"yes\"", "toml:3:8: page in [admin]"),
        (
            "listen = \"unix:a\"\ntoken = \"0123456789abcdef\"\npage-origins = \"https://ops.example.org\"",
            "toml:4:16: page-origins in [admin]: there is no page; expected page = true as well",
        ),
        (
            "listen = \"unix:a\"\npage = true\npage-origins = \"https://ops.example.org\"",
            "whoever reaches the proxy rules the server; expected a token",
        ),
        (
            "listen = \"unix:a\"\npage = true\ntoken = \"0123456789abcdef\"\npage-origins = \"http://ops.example.org\"",
            "\"http://ops.example.org\" is not an origin of https; expected origins such as",
        ),
        (
            "listen = \"unix:a\"\npage = true\ntoken = \"0123456789abcdef\"\npage-origins = \"*\"",
            "\"*\" is not an origin of https",
        ),
        ("listen = \"127.0.0.1:9642\"", "toml:2:10: listen in [admin]: every user of this host reaches a port"),
        ("listen = \"0.0.0.0:9642\"", "toml:2:10: listen in [admin]: 0.0.0.0:9642 is not a loopback address"),
        ("listen = \"192.0.2.1:9642\"\ntoken = \"0123456789abcdef\"", "is not a loopback address"),
        ("listen = \"9642\"", "expected \"unix:/run/turnstone/admin.sock\", or ADDRESS:PORT"),
        ("listen = \"unix:a\"\ntoken = \"0123456789\"", "toml:3:9: the token in [admin]: the secret has 10 bytes"),
        (
            "listen = \"unix:a\"\ntoken = \"0123456789 abcdef\"",
            "toml:3:9: the token in [admin]: it has characters other",
        ),
        ("listen = \"unix:a\"\ntoken-env = \"NO\"", "toml:3:13: in [admin] the variable NO is not set"),
        ("listen = \"unix:a\"\ntoken-env = \"A\"\ntoken = \"x\"", "in [admin] there is more than one source"),
        (token, "[admin] has a token but no listen"),
        ("listen = \"unix:a\"\nallow-remote = true", "unknown key \"allow-remote\" in [admin]"),
    ] {
        let error = with_secret(&format!("[admin]\n{text}")).error();
        assert!(error.contains(wanted) && error.lines().count() == 1, "{text}: {error}");
    }
}

#[test]
fn the_admin_api_shares_its_address_with_nothing() {
    let admin = "[admin]\nlisten = \"127.0.0.1:9642\"\ntoken = \"0123456789abcdef\"\n";
    let listen = "[[listen]]\naddress = \"*:9642\"\ntransport = \"tcp\"\n";
    let error = with_secret(&format!("{listen}{admin}")).error();
    assert!(error.contains("toml:5:10: listen in [admin]: 127.0.0.1:9642 overlaps the listener tcp"), "{error}");
    let error = with_secret(&format!("{admin}[metrics]\nlisten = \"127.0.0.1:9642\"")).error();
    assert!(error.contains("listen in [admin]: 127.0.0.1:9642 overlaps listen in [metrics]"), "{error}");
    let error = with_secret("[admin]\nlisten = \"unix:a\"\n[metrics]\nlisten = \"unix:a\"").error();
    assert!(error.contains("overlaps listen in [metrics]"), "{error}");
}

#[test]
fn the_admin_api_changes_with_a_restart_only_and_its_token_is_not_told() {
    let with = |token: &str| with_secret(&format!("[admin]\nlisten = \"unix:a\"\n{token}")).config();
    let (none, one, other) = (with(""), with("token = \"0123456789abcdef\""), with("token = \"fedcba9876543210\""));
    for (before, after, told) in [
        (&none, &one, "admin.token: - -> set"),
        (&one, &other, "admin.token: set -> set (another one)"),
        (&other, &none, "admin.token: set -> -"),
    ] {
        let changes = before.changes(after);
        assert_eq!(changes.iter().map(ToString::to_string).collect::<Vec<_>>(), [told]);
        assert_eq!(changes[0].effect, Effect::NeedsRestart);
        let mut kept = after.clone();
        kept.keep_until_restart(before);
        assert_eq!(kept.admin, before.admin);
    }
}

#[test]
fn alternate_servers_are_one_per_family_and_transport() {
    let text = r#"[drain]
deadline = "1h"
alternate-server = ["203.0.113.6:3478", "tls://203.0.113.6:443", "[2001:db8::6]:3478"]"#;
    let drain = with_secret(text).config().drain;
    assert_eq!(drain.deadline, Duration::from_secs(3600));
    let tls = AlternateServer { transport: Some(Transport::Tls), address: "203.0.113.6:443".parse().unwrap() };
    assert_eq!(drain.alternates.servers[1], tls);
    assert_eq!((drain.alternates.servers.len(), drain.alternates.servers[0].transport), (3, None));
    for (bad, why) in [
        (r#"["203.0.113.6:3478", "203.0.113.7:3478"]"#, "a second one"),
        (r#""0.0.0.0:3478""#, "not an address that a client can go to"),
        (r#""203.0.113.6:0""#, "not an address that a client can go to"),
        (r#""turn.example.org:3478""#, "not an address and port"),
        (r#""sctp://203.0.113.6:3478""#, "not a transport"),
    ] {
        let error = with_secret(&format!("[drain]\nalternate-server = {bad}")).error();
        assert!(error.starts_with("turnserver.toml:2:") && error.contains(why), "{error}");
    }
    let itself = "[[listen]]\naddress = \"203.0.113.6:3478\"\ntransport = \"udp\"\n";
    let error = with_secret(&format!("{itself}[drain]\nalternate-server = \"203.0.113.6:3478\"")).error();
    assert!(error.contains("is this server itself"), "{error}");
    assert!(with_secret("[drain]\ndeadline = \"25h\"").error().contains("is not from 0ms to 1d"));
}

#[test]
fn mobility_is_off_unless_asked_for_and_not_had_with_shared_ports_of_several_workers() {
    assert!(!with_secret("").config().mobility && with_secret("mobility = true").config().mobility);
    let shared = "[relay]\nports = \"shared:3480-3487\"";
    assert!(with_secret(&format!("workers = 1\nmobility = true\n{shared}")).config().mobility);
    let error = with_secret(&format!("workers = 2\nmobility = true\n{shared}")).error();
    assert!(error.contains("shared relay port cannot move"), "{error}");
}

#[test]
fn new_clients_are_sent_to_others_by_share_and_from_a_number_of_allocations_on_and_never_in_a_circle() {
    let text = r#"[redirect]
alternate-server = ["203.0.113.6:3478", "203.0.113.7:3478", "tls://203.0.113.6:443"]
share = 30
from-allocations = 800"#;
    let redirect = with_secret(text).config().redirect.unwrap();
    assert_eq!(redirect.alternates.servers.len(), 3, "several of one family and transport");
    assert_eq!((redirect.share_percent, redirect.from_allocations), (30, 800));
    let plain = with_secret("[redirect]\nalternate-server = \"203.0.113.6:3478\"").config().redirect.unwrap();
    assert_eq!((plain.share_percent, plain.from_allocations), (100, 0));
    assert_eq!(plain.from_bytes_per_sec, None);
    let by_rate = with_secret("[redirect]\nalternate-server = \"203.0.113.6:3478\"\nfrom-bandwidth = \"800Mbit/s\"");
    assert_eq!(by_rate.config().redirect.unwrap().from_bytes_per_sec, Some(100_000_000));
    assert!(with_secret("").config().redirect.is_none());
    for key in ["share = 30", "from-allocations = 1", "from-bandwidth = \"1Gbit/s\""] {
        let error = with_secret(&format!("[redirect]\n{key}")).error();
        assert!(error.contains("neither alternate-server nor fleet = true says where"), "{error}");
    }
    let error = with_secret("[redirect]\nalternate-server = \"203.0.113.6:3478\"\nshare = 0").error();
    assert!(error.contains("from 1 to 100"), "{error}");
    let listen = |address: &str| format!("[[listen]]\naddress = \"{address}\"\ntransport = \"udp\"\n");
    let relay = "[relay]\nipv4 = \"192.0.2.5\"\nexternal-ip = \"203.0.113.5\"\n";
    for (listener, alternate, is_itself) in [
        ("203.0.113.6:3478", "203.0.113.6:3478", true),
        ("0.0.0.0:3478", "127.0.0.1:3478", true),
        // The private address and the public one that stands for it, at a wildcard and at itself.
        ("0.0.0.0:3478", "192.0.2.5:3478", true),
        ("0.0.0.0:3478", "203.0.113.5:3478", true),
        ("192.0.2.5:3478", "203.0.113.5:3478", true),
        ("0.0.0.0:3478", "203.0.113.5:3479", false),
        ("127.0.0.1:3478", "203.0.113.5:3478", false),
        ("203.0.113.6:3478", "203.0.113.7:3478", false),
    ] {
        let text = format!("{}{relay}[redirect]\nalternate-server = \"{alternate}\"", listen(listener));
        let parsed = with_secret(&text);
        match is_itself {
            true => assert!(parsed.error().contains("is this server itself"), "{alternate} at {listener}"),
            false => drop(parsed.config()),
        }
    }
}

#[test]
fn servers_that_clients_are_sent_to_are_left_out_while_they_are_at_an_address_of_this_one() {
    let text = "[[listen]]\naddress = \"0.0.0.0:3478\"\ntransport = \"udp\"\n[drain]\nalternate-server = \"198.51.100.9:3478\"\n\
                [redirect]\nalternate-server = [\"198.51.100.9:3478\", \"198.51.100.9:3479\", \"203.0.113.7:3478\"]";
    let config = with_secret(text).config();
    let at = |address: &str| {
        let endpoints = vec!["0.0.0.0:3478".parse().unwrap(), "127.0.0.1:9641".parse().unwrap()];
        let own = OwnAddresses { endpoints, addresses: vec![address.parse().unwrap()], ..OwnAddresses::default() };
        let rules = config.peer_policy_rules(own).default;
        let left = config.redirect_but_own(&rules).unwrap();
        let left: Vec<_> = left.alternates.servers.iter().map(|server| server.address.to_string()).collect();
        let of_drain = Config::alternates_but_own(&config.drain.alternates, &rules).servers.len();
        let own: Vec<_> = config.own_alternates(&rules).iter().map(ToString::to_string).collect();
        (left.join(" "), of_drain, own.join(" "))
    };
    let (all, others) = ("198.51.100.9:3478 198.51.100.9:3479 203.0.113.7:3478", "198.51.100.9:3479 203.0.113.7:3478");
    assert_eq!(at("198.51.100.8"), (all.to_owned(), 1, String::new()));
    assert_eq!(at("198.51.100.9"), (others.to_owned(), 0, "198.51.100.9:3478".to_owned()));
}

#[test]
fn the_alternate_domain_is_a_name_that_a_certificate_can_have_and_wants_an_alternate_over_tls() {
    let with = |server: &str, domain: &str| {
        with_secret(&format!("[drain]\nalternate-server = \"{server}\"\nalternate-domain = \"{domain}\""))
    };
    for server in ["203.0.113.6:5349", "tls://203.0.113.6:5349"] {
        let config = with(server, "turn2.example.org").config();
        assert_eq!(config.drain.alternates.domain.as_deref(), Some("turn2.example.org"));
        assert!(config.to_toml().contains("\nalternate-domain = \"turn2.example.org\"\n"), "{}", config.to_toml());
    }
    for bad in ["", "turn2.example.org.", "*.example.org", "203.0.113.6", "bücher.example", "-a.example", "a b"] {
        let error = with("203.0.113.6:5349", bad).error();
        assert!(error.starts_with("turnserver.toml:3:20: ") && error.contains("alternate-domain"), "{error}");
    }
    let error = with("udp://203.0.113.6:3478", "turn2.example.org").error();
    assert!(
        error.starts_with("turnserver.toml:3:20: ") && error.contains("no alternate-server is for them"),
        "{error}"
    );
}

#[test]
fn a_change_is_told_with_both_values_and_whether_it_counts_at_once() {
    let old = with_secret("[quota]\nallocations-per-user = 5\n[log]\nformat = \"text\"").config();
    let new = with_secret(
        "workers = 7\n[quota]\nallocations-total = 9\n[log]\nformat = \"json\"\nlevel = \"debug\"\naddresses = \"off\"",
    );
    let changes = old.changes(&new.config());
    let told: Vec<_> = changes.iter().map(|change| (change.to_string(), change.effect)).collect();
    let expected = [
        ("log.addresses: \"full\" -> \"off\"", Effect::Applied),
        ("log.format: \"text\" -> \"json\"", Effect::NeedsRestart),
        ("log.level: \"info\" -> \"debug\"", Effect::Applied),
        ("quota.allocations-per-user: 5 -> 4096", Effect::Applied),
        ("quota.allocations-total: \"unlimited\" -> 9", Effect::Applied),
        ("workers: 2 -> 7", Effect::NeedsRestart),
    ];
    assert_eq!(told, expected.map(|(text, effect)| (text.to_owned(), effect)));
    let mut kept = new.config();
    kept.keep_until_restart(&old);
    assert!(old.changes(&kept).iter().all(|change| change.effect == Effect::Applied));
    assert_eq!(old.changes(&old), []);
}

#[test]
fn secrets_and_users_that_change_are_told_without_a_secret() {
    let one = given("[[auth.secrets]]\nid = \"main\"\nsecret = \"the-first-secret\"").config();
    let other = given("[[auth.secrets]]\nid = \"main\"\nsecret = \"the-other-secret\"").config();
    let changes = one.changes(&other);
    assert_eq!(changes.len(), 1);
    assert_eq!(changes[0].to_string(), "auth.secrets: main -> main (another secret under the same id)");
    let users = |list: &[(&str, &str)]| {
        let tables: String = list
            .iter()
            .map(|(name, password)| format!("[[auth.users]]\nname = \"{name}\"\npassword = \"{password}\"\n"))
            .collect();
        given(&tables).config()
    };
    let old = users(&[("alice", "wonderland"), ("bob", "builder")]);
    let new = users(&[("alice", "looking-glass"), ("carol", "singer"), ("dave", "diver")]);
    let changes = old.changes(&new);
    assert_eq!(changes[0].to_string(), "auth.users: 2 -> 3 (2 added, 1 removed, 1 with another password)");
}

#[test]
fn an_application_is_told_where_it_is_asked_or_elsewhere_or_without_being_asked() {
    let of = |hook: &str| with_secret(&format!("[hook]\n{hook}")).config();
    assert!(of("url = \"unix:a\"").hook_events.is_none());
    let config = of("url = \"https://a.example/\"\nevents = \"stop\"\ntoken = \"t0ken\"");
    let events = config.hook_events.as_ref().unwrap();
    assert!(config.hook.is_some() && !events.is_elsewhere && events.token.is_some());
    assert_eq!(events.wanted, [HookEvent::Stop]);
    let shown = config.to_toml();
    assert!(shown.contains("\nevents = [\"stop\"]\n") && !shown.contains("events-url"), "{shown}");
    let config = of(
        "events-url = \"https://a.example/?key=hidden\"\nevents = [\"start\", \"start\", \"stop\"]\ntoken = \"t0ken\"",
    );
    let events = config.hook_events.as_ref().unwrap();
    assert!(config.hook.is_none() && events.is_elsewhere);
    assert_eq!(events.wanted, [HookEvent::Start, HookEvent::Stop]);
    let shown = config.to_toml();
    assert!(shown.contains("# events-url: its query is not shown\n# token: there is one\n"), "{shown}");
    assert!(!shown.contains("hidden") && !shown.contains("t0ken"), "{shown}");
    for (hook, wanted) in [
        ("events = \"start\"", "toml:1:1: events in [hook]: there is no url, nor an events-url, that they are sent to"),
        ("events-url = \"unix:a\"", "events-url in [hook]: nothing is sent to it; expected events as well"),
        (
            "url = \"unix:a\"\nevents = \"end\"",
            "toml:3:10: events in [hook]: \"end\" is not an event; expected \"start\", \"stop\" or both",
        ),
        ("url = \"unix:a\"\nevents = true", "toml:3:10: events in [hook]: found a boolean"),
        ("url = \"unix:a\"\nevents = \"stop\"\nevents-url = \"http://a.example/\"", "in the clear"),
        ("token = \"t0ken\"", "there is no url that it is for"),
    ] {
        let problems = with_secret(&format!("[hook]\n{hook}")).error();
        assert!(problems.contains(wanted), "{hook}: {problems}");
    }
}

#[test]
fn a_fleet_is_a_list_of_nodes_and_an_endpoint_and_what_would_leak_its_token_is_refused() {
    let token = "token = \"0123456789abcdef0123\"\n";
    let fleet = |text: &str| with_secret(&format!("[fleet]\n{token}{text}"));
    let nodes = "nodes = [\"https://turn1.example.org\", \"http://127.0.0.1:9640\", \"unix:/f.sock\"]";
    let config = fleet(&format!("name = \"turn1\"\nlisten = \"127.0.0.1:9640\"\n{nodes}")).config();
    let read = config.fleet.unwrap();
    let shown: Vec<_> = read.nodes.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["https://turn1.example.org:9640", "http://127.0.0.1:9640", "unix:/f.sock"]);
    assert!(with_secret("").config().fleet.is_none());
    for (bad, why) in [
        ("nodes = \"http://10.0.0.5\"", "would go to 10.0.0.5 in the clear"),
        ("nodes = \"http://localhost\"", "would go to localhost in the clear"),
        ("nodes = \"https://a/v1/status\"", "is not"),
        ("nodes = [\"https://a\", \"https://A:9640\"]", "is there twice"),
        ("listen = \"203.0.113.5:9640\"", "needs a certificate"),
        (
            "listen = \"127.0.0.1:9640\"\n[admin]\nlisten = \"127.0.0.1:9640\"\ntoken = \"0123456789abcdef0123\"",
            "overlaps listen in [admin]",
        ),
        ("", "has a token, but neither listen nor nodes"),
    ] {
        let error = fleet(bad).error();
        assert!(error.contains(why), "{bad}: {error}");
    }
    for bad in ["listen = \"127.0.0.1:9640\"", "nodes = \"https://a\"", "nodes = \"_turnstone._tcp.example.org\""] {
        let error = with_secret(&format!("[fleet]\n{bad}")).error();
        assert!(error.contains("token"), "{bad}: {error}");
    }
    // Where the operator says that the network is safe.
    drop(fleet("plain-http = true\nlisten = \"203.0.113.5:9640\"\nnodes = \"http://10.0.0.5\"").config());
    let many: Vec<_> = (0..257).map(|n| format!("\"https://node{n}.example\"")).collect();
    assert!(fleet(&format!("nodes = [{}]", many.join(", "))).error().contains("more than 256 nodes"));
}

#[test]
fn clients_are_sent_away_by_load_where_it_is_known_what_a_node_takes_and_who_the_others_are() {
    let fleet =
        "[fleet]\nlisten = \"127.0.0.1:9640\"\nnodes = \"https://a.example\"\ntoken = \"0123456789abcdef0123\"\n";
    let config = with_secret(&format!(
        "{fleet}[redirect]\nfleet = true\nfrom-allocations = 5\nalternate-domain = \"b.example\""
    ))
    .config();
    let redirect = config.redirect.unwrap();
    assert!(redirect.by_load && redirect.alternates.servers.is_empty());
    for (bad, why) in [
        (format!("{fleet}[redirect]\nfleet = true"), "expected from-allocations or from-bandwidth"),
        ("[redirect]\nfleet = true\nfrom-allocations = 5".to_owned(), "expected nodes and listen in [fleet]"),
    ] {
        let error = with_secret(&bad).error();
        assert!(error.contains(why), "{bad}: {error}");
    }
}
