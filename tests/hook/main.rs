//! `[hook]`: the program asks an application about users, and what the application does wrong holds up nobody else.

// A helper that cannot do its work must fail the test that called it; clippy counts only `#[test]` functions as tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../support/mod.rs"]
mod support;

// Of what they have, others use more.
#[allow(dead_code)]
#[path = "../admin/wire.rs"]
mod wire;

mod application;
mod events;
mod faults;

use std::time::Duration;

use serde_json::{Value, json};

use application::{Application, Behaviour};
use support::{Credentials, Spec, TestAuthority, TestServer, Transport, wait_until};
use wire::Wire;

pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// A server that asks this application, and has a static user of its own.
pub(crate) fn asking(hook: &str) -> Spec {
    Spec {
        extra_toml: format!("[metrics]\nlisten = \"unix:metrics.sock\"\n[hook]\n{hook}\n[log]\nlevel = \"debug\"\n"),
        workers: 2,
        ..Spec::local()
    }
    .user("fixed", "a password of the file")
}

pub(crate) fn known(username: &str) -> Credentials {
    Credentials { username: username.to_owned(), password: application::password(username) }
}

pub(crate) fn fixed() -> Credentials {
    Credentials { username: "fixed".to_owned(), password: "a password of the file".to_owned() }
}

pub(crate) fn allocate(server: &TestServer, transport: Transport, credentials: &Credentials) -> Result<Wire, u16> {
    let mut wire = Wire::connect(server, transport, credentials);
    wire.allocate().map(|_| wire)
}

/// A value among the metrics, which is a count.
pub(crate) fn metric(server: &TestServer, name: &str) -> u64 {
    support::metric(server, name) as u64
}

#[test]
fn who_the_application_knows_allocates_over_every_transport_and_who_it_does_not_gets_401() {
    let application = Application::start(Behaviour::Answers);
    let server = asking(&format!("url = \"{}/turn?key=hidden\"\ntoken = \"t0ken-of-hook\"", application.url())).start();
    for (transport, name) in [(Transport::Udp, "udp"), (Transport::Tcp, "tcp"), (Transport::Tls, "tls")] {
        let user = format!("erin-{name}");
        let mut client = allocate(&server, transport, &known(&user)).unwrap();
        assert!(client.refresh().is_ok());
        let asked = application.asked();
        let (head, question) = asked.last().unwrap();
        assert!(head.starts_with("POST /turn?key=hidden HTTP/1.1\r\n"), "{head}");
        assert!(head.to_lowercase().contains("authorization: bearer t0ken-of-hook\r\n"), "{head}");
        let client = question["client"].as_str().unwrap();
        assert!(client.starts_with("127.0.0.1:"), "{question}");
        assert_eq!(*question, json!({ "username": user, "realm": "turn.test", "client": client, "transport": name }));
    }
    let wrong = Credentials { password: "guessed".to_owned(), ..known("erin-udp") };
    assert_eq!(allocate(&server, Transport::Udp, &wrong).err(), Some(401));
    assert_eq!(allocate(&server, Transport::Tcp, &known("nobody")).err(), Some(401));
    // Those of the configuration are nobody's business.
    let before = application.asked().len();
    allocate(&server, Transport::Udp, &fixed()).unwrap();
    allocate(&server, Transport::Udp, &server.credentials("guest")).unwrap();
    assert_eq!(allocate(&server, Transport::Udp, &server.expired_credentials("guest")).err(), Some(401));
    assert_eq!(application.asked().len(), before);
    assert!(metric(&server, "turnstone_hook_questions_total{result=\"known\"}") >= 3);
    assert!(metric(&server, "turnstone_hook_questions_total{result=\"unknown\"}") >= 1);
    let log = server.log();
    for secret in ["hidden", "t0ken-of-hook", &application::password("erin-udp")] {
        assert!(!log.contains(secret), "{secret} is in the log: {log}");
    }
}

#[test]
fn answers_are_kept_as_long_as_they_say_and_limits_in_them_hold() {
    let application = Application::start(Behaviour::Answers);
    let spec = asking(&format!("url = \"{}/\"\nunknown-for = \"1s\"", application.url()));
    let server = Spec { workers: 1, ..spec }.start();
    let asked_of = |name: &str| application.asked().iter().filter(|(_, of)| of["username"] == name).count();
    let limited = known("limited");
    let _first = allocate(&server, Transport::Tcp, &limited).unwrap();
    assert_eq!(allocate(&server, Transport::Tcp, &limited).err(), Some(486), "alloc = 1");
    assert_eq!(asked_of("limited"), 1);
    let short = known("short");
    for times in 1..=3 {
        allocate(&server, Transport::Udp, &short).unwrap();
        // The answer is good for those who wait for it alone.
        assert_eq!(asked_of("short"), times);
    }
    assert_eq!(allocate(&server, Transport::Udp, &known("elsewhere")).err(), Some(403), "no such peer policy");
    assert_eq!(allocate(&server, Transport::Udp, &known("nobody")).err(), Some(401));
    wait_until("nobody to be asked about again", LIMIT, || {
        let _ = allocate(&server, Transport::Udp, &known("nobody"));
        (asked_of("nobody") == 2).then_some(())
    });
}

#[test]
fn a_socket_in_the_file_system_is_asked_and_a_reload_asks_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("hook.sock");
    let at_socket = Application::start_at(&socket, Behaviour::Answers);
    let elsewhere = Application::start(Behaviour::Answers);
    let text = |url: &str| {
        format!(
            "workers = 1\n[[listen]]\naddress = \"127.0.0.1:0\"\ntransport = [\"udp\", \"tcp\"]\n[relay]\nipv4 = \"127.0.0.1\"\n\
             ipv6 = \"off\"\nports = \"10000-29999\"\n[auth]\nrealm = \"turn.test\"\n[hook]\nurl = \"{url}\"\n"
        )
    };
    let server = TestServer::start(&text(&format!("unix:{}", socket.display())));
    allocate(&server, Transport::Tcp, &known("erin")).unwrap();
    assert_eq!((at_socket.asked().len(), elsewhere.asked().len()), (1, 0));
    server.write_config(&text(&elsewhere.url()));
    server.signal(rustix::process::Signal::HUP);
    wait_until("the reload", LIMIT, || server.log().contains("configuration reloaded").then_some(()));
    allocate(&server, Transport::Tcp, &known("frank")).unwrap();
    assert_eq!((at_socket.asked().len(), elsewhere.asked().len()), (1, 1));
}

#[test]
fn over_https_only_a_trusted_application_is_asked() {
    let authority = TestAuthority::issue(&["localhost"]);
    let application = Application::start_with_tls(&authority, Behaviour::Answers);
    let folder = tempfile::tempdir().unwrap();
    let trusted = folder.path().join("authorities.pem");
    std::fs::write(&trusted, &authority.authority_pem).unwrap();
    let mut spec = asking(&format!("url = \"{}/\"", application.url()));
    let server = spec.start();
    assert_eq!(allocate(&server, Transport::Udp, &known("erin")).err(), Some(500), "nobody vouches for it");
    assert!(application.asked().is_empty());
    spec.environment.push(("SSL_CERT_FILE".to_owned(), trusted.display().to_string()));
    let server = spec.start();
    allocate(&server, Transport::Udp, &known("erin")).unwrap();
    assert_eq!(application.asked().len(), 1);
}

#[test]
fn whom_the_application_knows_can_be_revoked_all_the_same() {
    let application = Application::start(Behaviour::Answers);
    let mut spec = asking(&format!("url = \"{}/\"", application.url()));
    spec.extra_toml += "[admin]\nlisten = \"unix:admin.sock\"\n";
    let server = spec.start();
    let mut client = allocate(&server, Transport::Tcp, &known("erin")).unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_turnstone"));
    command.args(["revoke", "--user", "erin", "--json", "--admin"]).arg(format!("unix:{}", server.file("admin.sock")));
    let finished = support::run(&mut command, LIMIT);
    let answer: Value = serde_json::from_str(&finished.stdout).unwrap_or_else(|error| panic!("{error}: {finished:?}"));
    assert_eq!(answer["ended"], 1);
    assert!(client.receive().is_none());
    assert_eq!(allocate(&server, Transport::Tcp, &known("erin")).err(), Some(401));
}

#[test]
fn what_is_wrong_with_its_answers_is_said_beside_the_refusal_and_of_the_server() {
    let application = Application::start(Behaviour::Answers);
    let mut spec = asking(&format!(
        "url = \"{0}/?key=hidden\"\ntimeout = \"300ms\"\nevents-url = \"{0}/\"\nevents = [\"start\"]",
        application.url()
    ));
    spec.extra_toml += "[admin]\nlisten = \"unix:admin.sock\"\n";
    let server = spec.start();
    let say = |args: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_turnstone"));
        command.args(args).arg("--admin").arg(format!("unix:{}", server.file("admin.sock")));
        let finished = support::run(&mut command, LIMIT);
        assert!(!finished.stdout.contains("hidden"), "{finished:?}");
        finished.stdout.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert!(say(&["status"]).contains("nothing was to be said to it yet"), "{}", say(&["status"]));
    allocate(&server, Transport::Tcp, &known("erin")).unwrap();
    assert!(say(&["status"]).contains(", answers"), "{}", say(&["status"]));
    for (behaviour, user, why) in [
        (Behaviour::Answers, "boom-1", "HTTP status 500"),
        (Behaviour::Lies, "liar", "it has an unknown field everybody"),
        (Behaviour::Redirects, "moved", "HTTP status 302"),
        (Behaviour::Hangs, "hung", "no answer within the timeout"),
    ] {
        application.behave(behaviour);
        assert_eq!(allocate(&server, Transport::Tcp, &known(user)).err(), Some(500));
        let told = say(&["explain", user]);
        assert!(told.contains("the application of [hook]") && told.contains(why), "{user}: {told}");
    }
    let told = say(&["status"]);
    assert!(told.contains("NO ANSWER to the last 1 question, since") && told.contains("no answer within"), "{told}");
    application.behave(Behaviour::Answers);
    allocate(&server, Transport::Tcp, &known("frank")).unwrap();
    let told = say(&["status"]);
    assert!(told.contains(", answers; what was wrong last about \"hung\""), "{told}");
    assert!(told.contains("hook events") && told.contains("to be told"), "{told}");
}
