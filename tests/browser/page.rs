//! The operator's page in headless Chromium: figures, search and end, and its self-test against a server that works and ones that do not.
//!
//! With `PAGE_SHOTS=FOLDER`, screenshots of every part are left there: light and dark, wide and as a phone has it.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::{
    Credentials, Spec, TestServer, Transport, free_address, free_port, require_tool, run_with_input, target_dir,
    wait_until,
};
use crate::wire::Wire;
use crate::{BROWSER_LIMIT, Browser, LIMIT, must_succeed};

const DOCUMENT: &str = include_str!("../../docs/page.md");
pub(crate) const TOKEN: &str = "4f0c1f0a4d2e94c55a0c";
/// What a page that took text for markup would run.
const HOSTILE: &str = "<img src=x onerror=alert(1)>";

fn with_page(more: &str) -> Spec {
    let extra_toml = format!("[admin]\nlisten = \"127.0.0.1:0\"\npage = true\ntoken = \"{TOKEN}\"\n{more}");
    Spec { extra_toml, ..Spec::local() }
}

/// Where the page of a server is.
pub(crate) fn page_of(server: &TestServer) -> String {
    let line = wait_until("the admin API in the log", LIMIT, || {
        server.log().lines().find(|line| line.contains("serving the admin API")).map(str::to_owned)
    });
    let (_, port) = line.rsplit_once("127.0.0.1:").unwrap();
    format!("http://127.0.0.1:{}/", port.trim())
}

#[test]
fn the_self_test_alone_goes_through_with_a_key_and_says_whom_to_ask_when_not() {
    const KEY: &str = "tsk_c3VwcG9ydC1rZXktb2YtdGhlLXRlc3RzLTAxMjM0NTY";
    const SHA256: &str = "eb82258f19ac2dfda353c1ab26f10e6a88efb5225a57f5f2464dc44e4c96f07f";
    let port = free_port();
    let mut blocks = DOCUMENT.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let recipe = blocks.find(|block| block.starts_with("[credentials]")).unwrap();
    let extra_toml = recipe
        .replace("0.0.0.0:8443", &format!("127.0.0.1:{port}"))
        .replace("turn.example.org:8443", &format!("localhost:{port}"))
        .replace("SHA-256 of the key", SHA256);
    let server = Spec { extra_toml, ..Spec::local() };
    let server = Spec { listeners: server.listeners[..3].to_vec(), ..server };
    let server = server.start();
    let what = json!({"name": "alone", "key": KEY, "user": "test-anna"});
    let result = act_at(&server, &format!("https://localhost:{port}/test"), what);
    let said = result["said"].as_str().unwrap();
    assert!(said.starts_with("This link is no longer good. Ask whoever sent you this link for a new one."), "{said}");
    assert!(said.contains("For whoever runs the server: nobody has this key"), "{said}");
    assert!(result["prefix"].as_str().unwrap().starts_with("Your name has to begin with test-\n"), "{result:#}");
    assert_eq!(result["summary"], "All 3 ways work: calls will work from here.");
    assert_eq!(result["none"], "It does not work. The server is reached, and refuses the name or the password.");
    assert_eq!(result["address"], format!("https://localhost:{port}/test"));
    let results = result["results"].as_array().unwrap();
    assert_eq!(results.len(), 3, "{result:#}");
    for of in results {
        assert_eq!(of["outcome"], "works", "{of:#}");
    }
    let refused = result["refused"]["text"].as_str().unwrap();
    assert!(refused.contains("401 The username or the credential is wrong"), "{refused}");
    assert!(refused.contains("turnstone explain test-anna") && refused.contains(":test-anna"), "{refused}");
    assert_eq!(result["keeps"], 0);
}

#[test]
fn the_self_test_goes_through_in_firefox_and_says_what_is_wrong() {
    require_tool("firefox-esr", "firefox-esr");
    let server = with_page("").start();
    let browser = Browser::new(&[]);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser/firefox.mjs");
    let listeners = [format!(":{}?transport=udp", server.udp()), format!(":{}?transport=tcp", server.tcp())];
    let input = json!({
        "modules": target_dir().join("test-browser"),
        "home": browser.home.path(),
        "url": format!("{}#token={TOKEN}", page_of(&server)),
        "listeners": listeners,
    });
    let finished = run_with_input(Command::new(&browser.node).arg(script), &input.to_string(), BROWSER_LIMIT);
    must_succeed(&finished);
    let result: Value =
        serde_json::from_str(&finished.stdout).unwrap_or_else(|error| panic!("{error}: {}", finished.all_output()));
    let good = result["good"].as_array().unwrap_or_else(|| panic!("{result:#}"));
    for (of, transport) in good.iter().zip(["UDP", "TCP"]) {
        let text = of["text"].as_str().unwrap();
        assert_eq!(of["outcome"], "works", "{text}");
        assert!(text.contains(&format!("✓ {transport} ")) && text.contains("bit/s"), "{text}");
    }
    assert_eq!(good.len(), 2);
    let wrong = result["wrong"]["text"].as_str().unwrap();
    assert!(
        wrong.contains("401 The username or the credential is wrong") && wrong.contains("401 wrong-password"),
        "{wrong}"
    );
    assert_eq!(result["errors"], json!([]), "{result:#}");
}

/// Does one thing on the page; nothing may be amiss in the browser's console.
fn act(server: &TestServer, fragment: &str, what: Value) -> Value {
    act_at(server, &format!("{}{fragment}", page_of(server)), what)
}

fn act_at(server: &TestServer, url: &str, what: Value) -> Value {
    let browser = Browser::new(&[server.file("authority.pem")]);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser/page.mjs");
    let modules = target_dir().join("test-browser");
    let shots = std::env::var("PAGE_SHOTS").ok();
    let input = json!({"modules": modules, "home": browser.home.path(), "url": url, "shots": shots, "do": what});
    let finished = run_with_input(Command::new(&browser.node).arg(script), &input.to_string(), BROWSER_LIMIT);
    must_succeed(&finished);
    let result: Value =
        serde_json::from_str(&finished.stdout).unwrap_or_else(|error| panic!("{error}: {}", finished.all_output()));
    result
}

fn act_as_operator(server: &TestServer, what: Value) -> Value {
    let result = act(server, &format!("#token={TOKEN}"), what);
    assert_eq!(result["complaints"], json!([]), "{result:#}");
    result
}

fn texts(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
}

#[test]
fn tiles_and_plots_show_figures_by_the_server_alone_and_fit_a_phone() {
    let server = with_page("").start();
    let _clients = [Transport::Udp, Transport::Tcp].map(|transport| Wire::allocated(&server, transport, "alice"));
    let wrong = Credentials { password: "guessed".to_owned(), ..server.credentials("mallory") };
    assert_eq!(Wire::connect(&server, Transport::Udp, &wrong).allocate().unwrap_err(), 401);
    let result = act_as_operator(&server, json!({"name": "overview", "tile": "Sessions", "value": "2"}));
    let plots = texts(&result["plots"]);
    assert!(plots.contains(&"Sessions: udp 1, tcp 1"), "{plots:?}");
    assert!(plots.iter().any(|plot| plot.starts_with("Bit rate: to peers ")), "{plots:?}");
    // Not that every client is challenged once.
    assert!(
        plots.iter().any(|plot| plot.contains("wrong-password") && !plot.contains("missing-integrity")),
        "{plots:?}"
    );
    // Of two lines at 0 both are seen.
    assert!(result["over"].as_u64().unwrap() > 0, "{result:#}");
    assert_eq!((&result["cursor"], &result["markup"], &result["wide"]), (&json!(1), &json!(0), &json!(390)));
    assert!(!result["address"].as_str().unwrap().contains(TOKEN), "{result:#}");
    // What the field calls good is less than 0.1.
    assert!(result["shifts"].as_f64().unwrap() < 0.05, "{result:#}");
}

#[test]
fn sessions_are_searched_shown_and_ended_by_the_keyboard_and_what_clients_say_is_text() {
    let server = with_page("").start();
    let (mut ended, _) = Wire::allocated(&server, Transport::Udp, HOSTILE);
    let (mut other, _) = Wire::allocated(&server, Transport::Tcp, "bob");
    let peer = "127.0.0.1:9999".parse().unwrap();
    ended.bind(0x4001, peer).unwrap();
    let what = json!({"name": "sessions", "user": HOSTILE, "client": "127.0.0.1"});
    let result = act(&server, &format!("#token={TOKEN}"), what);
    // Of what cannot be searched for, the browser says so much.
    let complaints = texts(&result["complaints"]);
    assert!(complaints.len() == 1 && complaints[0].contains("status of 400"), "{result:#}");
    let (all, found) = (texts(&result["all"]), texts(&result["found"]));
    assert!(all.len() == 2 && all.iter().any(|row| row.contains("bob")), "{all:?}");
    assert!(found.len() == 1 && found[0].contains(HOSTILE), "{found:?}");
    assert_eq!(result["images"], 0, "{result:#}");
    let text = |key: &str| result[key].as_str().unwrap();
    assert!(text("details").contains("0x4001: 127.0.0.1:9999 for ") && text("details").contains(HOSTILE), "{result:#}");
    assert!(text("question").contains(HOSTILE), "{result:#}");
    assert!(
        text("question").contains("stays good: turnstone revoke '") && text("question").contains("keeps it out"),
        "{result:#}"
    );
    assert_eq!(result["isStillThere"], 1, "{result:#}");
    assert!(text("mistaken").contains("expected an IP address"), "{result:#}");
    let left = texts(&result["byClient"]);
    assert!(left.len() == 1 && left[0].contains("bob"), "{left:?}");
    assert_eq!(ended.refresh().unwrap_err(), 437);
    other.refresh().unwrap();
}

#[test]
fn the_self_test_goes_through_over_every_transport_and_measures() {
    let server = Spec { certificate_names: vec!["127.0.0.1".to_owned()], ..with_page("") };
    let server = Spec { listeners: server.listeners[..3].to_vec(), ..server }.start();
    let result = act_as_operator(&server, json!({"name": "selfTest"}));
    let results = result["results"].as_array().unwrap();
    for transport in [Transport::Udp, Transport::Tcp, Transport::Tls] {
        let name = transport.name().to_uppercase();
        let address = server.address(transport, "127.0.0.1");
        let of = results.iter().find(|of| of["url"].as_str().unwrap().contains(&format!(":{address}?"))).unwrap();
        let text = of["text"].as_str().unwrap();
        assert_eq!(of["outcome"], "works", "{text}");
        for part in ["Round trip\n", "Throughput\n", "bit/s\n", &format!("To the server by\n{name}")] {
            assert!(text.contains(part), "{name}: no {part:?} in {text}");
        }
        let candidates = texts(&of["candidates"]);
        assert!(
            candidates.len() >= 2 && candidates.iter().all(|one| one.starts_with("relay udp 127.0.0.1:")),
            "{of:#}"
        );
    }
    assert_eq!(results.len(), 3);
    let log = server.log();
    assert!(log.contains("user=\"") && log.contains(":turnstone-self-test\""), "{log}");
}

#[test]
fn the_self_test_says_in_plain_words_what_is_wrong_and_what_the_server_knows_of_it() {
    let server = with_page("").start();
    let closed = free_address();
    // Of another user: what was refused in this second is told of the one before.
    let older = server.expired_credentials("older");
    let elsewhere = format!("127.0.0.2:{}", closed.port());
    let (udp, tcp, tls) = (server.udp(), server.tcp(), server.tls());
    let (wrong, good, late) =
        (server.credentials("mallory"), server.credentials("bob"), server.expired_credentials("late"));
    let tries = [
        (format!("turn:{udp}?transport=udp"), &wrong.username, "guessed"),
        (format!("turn:{udp}?transport=udp"), &late.username, &*late.password),
        (format!("turn:{udp}?transport=udp"), &older.username, "guessed"),
        (format!("turn:{elsewhere}?transport=tcp"), &good.username, &*good.password),
        (format!("turn:{closed}?transport=tcp"), &good.username, &*good.password),
        (format!("turns:{tcp}?transport=tcp"), &good.username, &*good.password),
        (format!("turns:{tls}?transport=tcp"), &good.username, &*good.password),
        ("turn:no.such.host.invalid".to_owned(), &good.username, &*good.password),
        ("nonsense".to_owned(), &good.username, &*good.password),
    ];
    let tries =
        tries.map(|(url, username, credential)| json!({"url": url, "username": username, "credential": credential}));
    let result = act_as_operator(&server, json!({"name": "selfTest", "tries": tries}));
    let results = result["results"].as_array().unwrap();
    let ways = tcp.port();
    let missing = format!("This server does not listen on TCP port {}; it does on udp ", closed.port());
    let plain = format!("This server does not speak TLS on port {ways}, which is TCP there; it listens on udp ");
    let expected: [(&str, &[&str]); 9] = [
        (
            "gave-nothing",
            &[
                "401 The username or the credential is wrong",
                "401 wrong-password (Allocate",
                "made with another secret",
            ],
        ),
        (
            "gave-nothing",
            &["401 The username or the credential is wrong, or has expired", "credential-expired", "had expired"],
        ),
        ("gave-nothing", &["401 wrong-password", "The username says that it expired "]),
        (
            "gave-nothing",
            &["No TCP connection to port", "it is closed, or a firewall is in between", "has refused nothing"],
        ),
        ("gave-nothing", &[&missing]),
        ("gave-nothing", &[&plain]),
        ("works", &["To the server by\nTLS"]),
        ("gave-nothing", &["701 The name of the server is not found: look at the spelling and at DNS."]),
        (
            "failed",
            &["Does not work: ", "not a valid URL", "begins with turn: or turns:, such as turn:turn.example.org:3478"],
        ),
    ];
    assert_eq!(results.len(), expected.len(), "{result:#}");
    let noise = results.last().unwrap()["text"].as_str().unwrap();
    assert!(!noise.contains("has refused nothing"), "{noise}");
    for (result, (outcome, parts)) in results.iter().zip(expected) {
        let text = result["text"].as_str().unwrap();
        assert_eq!(result["outcome"], outcome, "{text}");
        for part in parts {
            assert!(text.contains(part), "no {part:?} in {text}");
        }
    }
}

/// In a network with IPv6, of a server whose name has an IPv4 address only, Chromium says nothing but that a lookup has failed.
#[test]
fn a_name_that_lacks_one_address_family_is_not_called_unknown() {
    let lookup =
        |address: Value| json!({"errorCode": 701, "errorText": "TURN host lookup received error.", "address": address});
    let (ipv4, ipv6) = (lookup(json!("192.168.1.x")), lookup(json!("[0:0:0:x:x:x:x:x]")));
    let timeout = json!({"errorCode": 701, "errorText": "TURN allocate request timed out.", "address": "192.168.1.x"});
    let relay = json!([{"type": "relay"}]);
    let nothing = "701 Nothing answers on UDP port 3478: a firewall drops UDP";
    let no_tcp = "701 No TCP connection to port 3478";
    let unknown = "701 The name of the server is not found: look at the spelling and at DNS.";
    let (udp, tcp) = ("turn:turn.example.org:3478?transport=udp", "turn:turn.example.org:3478?transport=tcp");
    let cases = [
        // It works by IPv4: there is nothing to say.
        (json!([ipv6]), &relay, "works", udp, false, None),
        (json!([ipv6]), &relay, "not-connected", udp, false, None),
        // It does not: UDP is dropped, and only IPv6 has something to say.
        (json!([ipv6]), &json!([]), "gave-nothing", udp, false, Some((nothing, "The name has no IPv6 address"))),
        (json!([ipv6]), &json!([]), "gave-nothing", tcp, true, Some((no_tcp, "The name has no IPv6 address"))),
        (json!([ipv6, timeout]), &json!([]), "gave-nothing", udp, false, Some((nothing, ""))),
        (json!([ipv4]), &json!([]), "gave-nothing", udp, true, Some((nothing, "The name has no IPv4 address"))),
        // Nothing is known of it.
        (json!([ipv4]), &json!([]), "gave-nothing", udp, false, Some((unknown, ""))),
        (json!([ipv4, ipv6]), &json!([]), "gave-nothing", udp, false, Some((unknown, ""))),
        (json!([lookup(Value::Null)]), &json!([]), "gave-nothing", udp, false, Some((unknown, ""))),
    ];
    let tests: Vec<Value> = cases
        .iter()
        .map(|(errors, candidates, outcome, url, is_name_known, _)| {
            let result = json!({"outcome": outcome, "candidates": candidates, "errors": errors});
            json!({"result": result, "url": url, "isNameKnown": is_name_known})
        })
        .collect();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut node = Command::new(require_tool("node", "nodejs"));
    node.args([root.join("tests/browser/words.mjs"), root.join("src/page/files/words.js")]);
    let finished = run_with_input(&mut node, &json!(tests).to_string(), LIMIT);
    must_succeed(&finished);
    let said: Vec<Vec<String>> = serde_json::from_str(&finished.stdout).unwrap();
    for ((errors, .., expected), said) in cases.iter().zip(&said) {
        let parts: Vec<&str> = expected.iter().flat_map(|(text, more)| [*text, *more]).collect();
        assert_eq!(said.len(), usize::from(expected.is_some()), "{errors}: {said:?}");
        assert!(said.iter().all(|said| parts.iter().all(|part| said.contains(part))), "{errors}: {said:?}");
        assert!(
            said.iter().all(|said| said.contains(" has no ") == parts.iter().any(|part| part.contains(" has no ")))
        );
    }
}

#[test]
fn the_self_test_asks_for_a_credential_where_the_server_can_make_none() {
    let server = Spec { knows_secret: false, ..with_page("") }.user("bob", "bobs-password").start();
    let url = format!("turn:{}?transport=udp", server.udp());
    let tries = [
        json!({"url": url, "username": "", "credential": ""}),
        json!({"url": url, "username": "bob", "credential": "bobs-password"}),
    ];
    let result = act_as_operator(&server, json!({"name": "selfTest", "tries": tries}));
    let text = result["results"][0]["text"].as_str().unwrap();
    assert!(text.contains("no shared secret to make a credential with; give a username and a credential"), "{text}");
    assert_eq!(result["results"][1]["outcome"], "works", "{result:#}");
}

#[test]
fn the_self_test_names_the_policy_that_keeps_its_relays_apart() {
    let server = with_page("[peers]\nrelays = false\n").start();
    let url = format!("turn:{}?transport=udp", server.udp());
    let Credentials { username, password } = server.credentials("bob");
    let tries = [json!({"url": url, "username": username, "credential": password})];
    let result = act_as_operator(&server, json!({"name": "selfTest", "tries": tries}));
    let text = result["results"][0]["text"].as_str().unwrap();
    assert_eq!(result["results"][0]["outcome"], "not-connected", "{text}");
    for part in ["both relays are there, but nothing comes through", "403 peer-denied", "relays"] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
}

#[test]
fn all_nodes_stand_on_the_page_of_one_and_one_that_hangs_holds_up_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let hangs = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = |n: usize| format!("unix:{}/{n}.sock", folder.path().display());
    let nodes = [url(1), url(2), url(3), format!("http://{}", hangs.local_addr().unwrap())];
    let fleet = |n: usize, name: &str| {
        let nodes = nodes.iter().map(|node| format!("{node:?}")).collect::<Vec<_>>().join(", ");
        format!("[fleet]\nname = \"{name}\"\nlisten = \"{}\"\nnodes = [{nodes}]\ntoken = \"{TOKEN}\"\n", url(n))
    };
    let first = with_page(&fleet(1, "turn1")).start();
    let others = [2, 3].map(|n| Spec { extra_toml: fleet(n, &format!("turn{n}")), ..Spec::local() }.start());
    let _clients = [
        Wire::allocated(&first, Transport::Udp, "alice"),
        Wire::allocated(&others[0], Transport::Tcp, HOSTILE),
        Wire::allocated(&others[1], Transport::Udp, HOSTILE),
    ];
    let what = json!({"name": "fleet", "nodes": 4, "silent": 1, "user": HOSTILE});
    let result = act_as_operator(&first, what);
    let (rows, tiles, plots) = (texts(&result["rows"]), texts(&result["tiles"]), texts(&result["plots"]));
    assert!(rows[0].contains("turn1") && rows[0].contains("this one") && rows[0].contains("ready"), "{rows:?}");
    assert!(rows[3].contains("no answer within 2 s"), "{rows:?}");
    assert!(tiles[0].contains("4\n") && tiles[0].contains("1 without an answer"), "{tiles:?}");
    assert!(tiles[1].contains("3\nnodes that answer"), "{tiles:?}");
    let sessions = plots.iter().find(|plot| plot.starts_with("Sessions by node: ")).unwrap();
    assert!(["turn1 1", "turn2 1", "turn3 1"].iter().all(|node| sessions.contains(node)), "{sessions}");
    assert!(
        plots.iter().any(|plot| plot.starts_with("Bit rate by node: turn1 ") && plot.contains("all nodes ")),
        "{plots:?}"
    );
    let found = texts(&result["found"]);
    assert!(found.len() == 2 && found.iter().all(|row| row.contains(HOSTILE)), "{found:?}");
    assert!(found[0].contains("turn2") && found[1].contains("turn3") || found[1].contains("turn2"), "{found:?}");
    let count = result["count"].as_str().unwrap();
    assert!(count.starts_with("2 sessions found; no answer from http://127.0.0.1:"), "{count}");
    assert_eq!((&result["images"], &result["wide"]), (&json!(0), &json!(390)), "{result:#}");
    assert_eq!(result["lines"], 1, "the parts of the page stand in one line of a phone");
}

#[test]
fn certificates_ports_and_configuration_are_shown_and_what_a_reload_would_change_of_it() {
    let server = with_page("[limits]\npeers-per-allocation = 99\n").start();
    let file = server.file("turnserver.toml");
    let what =
        json!({"name": "server", "file": file, "from": "peers-per-allocation = 99", "to": "peers-per-allocation = 7"});
    let result = act_as_operator(&server, what);
    let before = result["before"].as_str().unwrap();
    for part in [
        &*server.udp().to_string(),
        "certificate.pem",
        "localhost",
        "IPv4: 0 of 20,000 in use",
        "peers-per-allocation = 99",
    ] {
        assert!(before.contains(part), "no {part:?} in {before}");
    }
    assert!(!before.contains(TOKEN) && !before.contains(server.secret()), "{before}");
    let rows = texts(&result["rows"]);
    assert_eq!(rows.len(), 2, "{rows:?}");
    assert_eq!(rows[1].split_whitespace().collect::<Vec<_>>().join(" "), "limits.peers-per-allocation 99 7 at once");
    assert_eq!(result["wide"], 390);
}

#[test]
fn without_the_token_nothing_is_shown_and_a_hidden_page_asks_for_nothing() {
    let server = with_page("").start();
    let result = act(&server, "", json!({"name": "locked", "token": TOKEN}));
    assert_eq!((&result["said"], &result["isLocked"]), (&json!("the token is wrong"), &json!(false)));
    let result = act_as_operator(&server, json!({"name": "hidden", "millis": 6_000}));
    assert_eq!(result["whileHidden"], 0, "{result:#}");
    assert!(result["afterwards"].as_u64().unwrap() > 0, "{result:#}");
}
