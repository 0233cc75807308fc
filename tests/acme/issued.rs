//! Certificates of Pebble.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::Signal;
use serde_json::Value;

use super::pebble::{KEY, KEY_ID, Pebble};
use super::support::{TestServer, wait_until};
use super::{LIMIT, ask, config, listen, s_client, wait_for_line};

const NAME: &str = "turn.example.org";

fn acme(names: &[&str], rest: &str) -> String {
    format!("acme = {names:?}\n{rest}")
}

/// Whether clients that trust the authority are sent a certificate for the name.
fn is_served(pebble: &Pebble, port: u16, name: &str, more: &[&str]) -> bool {
    let root = pebble.root();
    let said = s_client(port, name, &[&["-CAfile", root.to_str().unwrap(), "-verify_hostname", name], more].concat());
    said.stdout.contains("Verify return code: 0 (ok)") && said.stdout.contains("Verified peername")
        || said.stdout.contains("Verification: OK")
}

#[test]
fn certificates_are_had_by_tls_and_kept_over_a_restart() {
    let pebble = Pebble::start(false);
    let state = tempfile::tempdir().unwrap();
    let (names, port) = ([NAME, "turn.example.net"], pebble.tls_port);
    let transports =
        if cfg!(feature = "dtls") { "[\"udp\", \"tcp\", \"tls\", \"dtls\"]" } else { "[\"tcp\", \"tls\"]" };
    let listen = listen(port, &format!("transport = {transports}"));
    let config = config(
        state.path(),
        &listen,
        &acme(&names, &format!("{}acme-email = \"ops@example.org\"\n", pebble.directory())),
    );
    let server = TestServer::start(&config);
    let mut seen = Vec::new();
    for name in names {
        wait_for_line(&server, &["was had by ACME, and is in use", name]);
        let said = s_client(port, name, &[]);
        assert!(
            said.stdout.contains(&format!("subject=CN = {name}")) || said.stdout.contains(&format!("CN={name}")),
            "{}",
            said.stdout
        );
        assert!(is_served(&pebble, port, name, &[]), "{name}");
        if cfg!(feature = "dtls") {
            assert!(is_served(&pebble, port, name, &["-dtls1_2"]), "{name} by dtls");
        }
        seen.push(std::fs::read(state.path().join("acme").join(format!("{name}.pem"))).unwrap());
    }
    assert!(pebble.log().contains("Issued certificate"), "{}", pebble.log());
    for file in ["acme/turn.example.org.pem", "acme/turn.example.org.json"] {
        let mode = std::fs::metadata(state.path().join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    let status: Value = serde_json::from_str(&ask(&server, &["status", "--json"]).stdout).unwrap();
    let shown = status["acme"].as_array().unwrap();
    assert!(
        shown.len() == 2 && shown.iter().all(|name| name["has_certificate"] == true && name["failure"].is_null()),
        "{status}"
    );
    assert!(ask(&server, &["status"]).stdout.contains("turn.example.org, valid until "));
    let orders = pebble.orders();
    drop(server);

    // What is on the disk serves at once, and nobody is asked for anything.
    let server = TestServer::start(&config);
    for name in names {
        assert!(is_served(&pebble, port, name, &[]), "{name} after a restart");
    }
    assert_eq!(pebble.orders(), orders);
    assert!(!server.log().contains("no certificate yet"), "{}", server.log());

    // A name that is added is had, and the others stay as they are.
    let third = "turn.example.com";
    server.write_config(&config.replace("\"turn.example.net\"", &format!("\"turn.example.net\", \"{third}\"")));
    server.signal(Signal::HUP);
    wait_for_line(&server, &["was had by ACME, and is in use", third]);
    assert!(is_served(&pebble, port, third, &[]));
    assert_eq!(pebble.orders(), orders + 1);
    for (name, before) in names.iter().zip(seen) {
        assert_eq!(std::fs::read(state.path().join("acme").join(format!("{name}.pem"))).unwrap(), before);
    }
}

#[test]
fn a_certificate_that_is_due_is_renewed_under_way_and_one_that_is_damaged_is_replaced() {
    let pebble = Pebble::start(false);
    let state = tempfile::tempdir().unwrap();
    let listen = listen(pebble.tls_port, "transport = \"tls\"");
    let config = config(state.path(), &listen, &acme(&[NAME], &pebble.directory()));
    let server = TestServer::start(&config);
    wait_for_line(&server, &["was had by ACME, and is in use"]);
    let files = |name: &str| state.path().join("acme").join(name);
    let (pem, record) = (files("turn.example.org.pem"), files("turn.example.org.json"));
    let first = std::fs::read(&pem).unwrap();
    // As if two thirds of its time were over.
    // The server writes once more when it has the authority's advice, which it asks for at once.
    let mut noted = wait_until("the advice", LIMIT, || {
        let noted: Value = serde_json::from_slice(&std::fs::read(&record).ok()?).ok()?;
        noted["advice-unix"].as_u64().is_some_and(|at| at > 0).then_some(noted)
    });
    noted["renew-unix"] = 1.into();
    std::fs::write(&record, noted.to_string()).unwrap();
    server.signal(Signal::HUP);
    wait_until("the renewal", LIMIT, || (std::fs::read(&pem).unwrap() != first).then_some(()));
    wait_until("its use", LIMIT, || (server.log().matches("is in use").count() == 2).then_some(()));
    assert!(is_served(&pebble, pebble.tls_port, NAME, &[]));
    drop(server);
    std::fs::write(&pem, &first[..500]).unwrap();
    let server = TestServer::start(&config);
    wait_for_line(&server, &["that was had by ACME cannot be used; another one is asked for"]);
    wait_for_line(&server, &["was had by ACME, and is in use"]);
    assert!(is_served(&pebble, pebble.tls_port, NAME, &[]));
}

#[test]
fn a_certificate_is_had_over_http_alone_with_an_account_of_another_kind() {
    let pebble = Pebble::start(true);
    let state = tempfile::tempdir().unwrap();
    let own_port = super::support::free_port();
    let key = state.path().join("eab");
    std::fs::write(&key, KEY).unwrap();
    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o600)).unwrap();
    let rest = format!(
        "{}acme-http = \"127.0.0.1:{}\"\nacme-eab-key-id = \"{KEY_ID}\"\nacme-eab-key-file = \"{}\"\n",
        pebble.directory(),
        pebble.http_port,
        key.display()
    );
    let config = config(state.path(), &listen(own_port, "transport = \"tls\""), &acme(&[NAME], &rest));
    let server = TestServer::start(&config);
    let refused = s_client(own_port, NAME, &[]);
    wait_for_line(&server, &["was had by ACME, and is in use"]);
    assert!(is_served(&pebble, own_port, NAME, &[]));
    // It may have been there already.
    if !refused.stdout.contains(NAME) {
        assert!(refused.all_output().contains("access denied"), "{}", refused.all_output());
    }
    for path in ["/", "/.well-known/acme-challenge/", "/.well-known/acme-challenge/x", "/metrics"] {
        let mut stream = TcpStream::connect(("127.0.0.1", pebble.http_port)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {NAME}\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 404 "), "{path}: {answer}");
    }
}

#[test]
fn who_asks_as_an_authority_does_sees_the_certificate_of_the_validation_and_is_let_go() {
    let pebble = Pebble::start(false);
    let state = tempfile::tempdir().unwrap();
    // A web server that hangs up.
    let web = TcpListener::bind("127.0.0.1:0").unwrap();
    let web_at = web.local_addr().unwrap();
    let visits = Arc::<AtomicUsize>::default();
    let counted = Arc::clone(&visits);
    std::thread::spawn(move || {
        for visit in web.incoming() {
            counted.fetch_add(1, Ordering::SeqCst);
            drop(visit);
        }
    });
    let rest = format!("transport = [\"tcp\", \"tls\"]\nweb = \"{web_at}\"");
    let config = config(state.path(), &listen(pebble.tls_port, &rest), &acme(&[NAME], &pebble.directory()));
    let server = TestServer::start(&config);
    // It is there for as long as the authority may look, a second at least.
    let port = pebble.tls_port;
    let shown = wait_until("the certificate of the validation", LIMIT, || {
        let said = s_client(port, NAME, &["-alpn", "acme-tls/1", "-tls1_3"]);
        Some(said.stdout).filter(|shown| shown.contains("BEGIN CERTIFICATE"))
    });
    assert!(shown.contains("ALPN protocol: acme-tls/1"), "{shown}");
    let parsed = super::support::run_with_input(
        std::process::Command::new("openssl").args(["x509", "-noout", "-text"]),
        &shown,
        LIMIT,
    );
    assert!(parsed.stdout.contains("1.3.6.1.5.5.7.1.31: critical"), "{}", parsed.all_output());
    assert!(parsed.stdout.contains(&format!("DNS:{NAME}")), "{}", parsed.stdout);
    wait_for_line(&server, &["was had by ACME, and is in use"]);
    assert!(is_served(&pebble, port, NAME, &[]), "behind a port that is shared with a web server");
    // Afterwards, and for other names, such a hello is the web server's, which may have an authority of its own.
    let web_gets = |name: &str| {
        let before = visits.load(Ordering::SeqCst);
        let said = s_client(port, name, &["-alpn", "acme-tls/1"]);
        assert!(!said.stdout.contains("BEGIN CERTIFICATE"), "{}", said.stdout);
        assert_eq!(visits.load(Ordering::SeqCst), before + 1, "{name}");
    };
    web_gets(NAME);
    web_gets("www.example.org");
}

#[test]
fn what_fails_says_what_to_do_and_is_not_tried_again_at_once() {
    let pebble = Pebble::start(false);
    let state = tempfile::tempdir().unwrap();
    let config = config(
        state.path(),
        &listen(pebble.tls_port, "transport = \"tls\""),
        &acme(&[NAME, "elsewhere.example.org"], &pebble.directory()),
    );
    pebble.lead("elsewhere.example.org", &["127.0.0.2"]);
    let server = TestServer::start(&config);
    let line = wait_for_line(&server, &["no certificate was had by ACME", "elsewhere.example.org"]);
    assert!(line.contains("asks at port 443, and nobody has asked here; have every A and AAAA record"), "{line}");
    // The other is none the worse for it.
    wait_for_line(&server, &["was had by ACME, and is in use", NAME]);
    assert!(is_served(&pebble, pebble.tls_port, NAME, &[]));
    let refused = s_client(pebble.tls_port, "elsewhere.example.org", &[]);
    assert!(refused.all_output().contains("access denied"), "{}", refused.all_output());
    let status = ask(&server, &["status"]).stdout;
    assert!(status.contains("elsewhere.example.org, which has no certificate yet: 1 attempt failed"), "{status}");
    let config_file = server.file("turnserver.toml");
    let check = super::support::run(
        std::process::Command::new(env!("CARGO_BIN_EXE_turnstone")).args(["check", "--config", &config_file]),
        LIMIT,
    );
    assert!(
        check.all_output().contains("elsewhere.example.org has no certificate yet, after 1 attempt: "),
        "{}",
        check.all_output()
    );
    let orders = pebble.orders();
    server.signal(Signal::HUP);
    wait_for_line(&server, &["configuration reloaded"]);
    drop(server);
    let server = TestServer::start(&config);
    wait_for_line(&server, &["there is no certificate yet", "elsewhere.example.org"]);
    assert_eq!(pebble.orders(), orders, "neither a reload nor a restart tries again within minutes");

    // What was mended is tried at a reload once the pause is over.
    pebble.lead("elsewhere.example.org", &["127.0.0.1"]);
    let record = state.path().join("acme/elsewhere.example.org.json");
    let mut noted: Value = serde_json::from_slice(&std::fs::read(&record).unwrap()).unwrap();
    assert!(noted["retry-unix"].as_u64() > noted["attempts-unix"][0].as_u64().map(|at| at + 599));
    noted["attempts-unix"] = serde_json::json!([1]);
    noted["tried-unix"] = 1.into();
    std::fs::write(&record, noted.to_string()).unwrap();
    server.signal(Signal::HUP);
    wait_for_line(&server, &["was had by ACME, and is in use", "elsewhere.example.org"]);
    assert!(is_served(&pebble, pebble.tls_port, "elsewhere.example.org", &[]));
}
