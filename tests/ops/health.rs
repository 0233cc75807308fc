//! `turnstone health`: what a container or a service manager asks, and a server that has no file but its environment.

use std::io::{BufRead, BufReader};
use std::net::UdpSocket;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::support::{Running, TestServer, free_address, hold_allocation, wait_until};
use crate::{LIMIT, config};

/// The exit code and the one line.
fn health(arguments: &[&str], environment: &[(&str, &str)]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_turnstone"))
        .args([&["health", "--timeout", "5"], arguments].concat())
        .env("TURNSTONE_CONFIG", "/dev/null")
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    let line = String::from_utf8(output.stdout).unwrap();
    assert!(line.lines().count() <= 1, "{line}");
    (output.status.code(), line + &String::from_utf8_lossy(&output.stderr))
}

/// A server that drains is alive and not ready, and one that has ended is neither: by the endpoint that this table names.
fn health_of_a_server_that_drains(table: &str, socket: &str) {
    let more = format!("{table}\nlisten = \"unix:@DIR@/{socket}\"\n");
    let text = config(&more).replace("[metrics]\nlisten = \"127.0.0.1:0\"\n", "");
    let mut server = TestServer::start(&text);
    let file = server.file("turnserver.toml");
    let ask = |live: bool| health(&["--config", &file, "--live"][..if live { 3 } else { 2 }], &[]);
    let (code, line) = ask(false);
    assert!(code == Some(0) && line.starts_with("ok: ") && line.contains(socket), "{line}");

    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.connect(server.udp()).unwrap();
    hold_allocation(&client, server.credentials("alice"));
    server.signal(Signal::USR1);
    let line = wait_until("the drain", LIMIT, || Some(ask(false)).filter(|(code, _)| *code == Some(1))).1;
    assert!(line.starts_with("not well: ") && line.contains("drain"), "{line}");
    assert_eq!(ask(true).0, Some(0));
    server.signal(Signal::INT);
    server.exit_code_within(LIMIT);
    for live in [false, true] {
        let (code, line) = ask(live);
        assert!(code == Some(1) && line.contains("does not answer"), "{line}");
    }
}

#[test]
fn a_server_that_drains_is_alive_and_not_ready_by_its_metrics() {
    health_of_a_server_that_drains("[metrics]", "metrics.sock");
}

#[test]
fn a_server_that_drains_is_alive_and_not_ready_by_its_admin_socket() {
    health_of_a_server_that_drains("[admin]", "admin.sock");
}

#[test]
fn health_refuses_what_it_cannot_read() {
    let (code, said) = health(&[], &[("TURNSTONE_METRICS_LISTEN", "nowhere")]);
    assert!(code == Some(2) && said.contains("TURNSTONE_METRICS_LISTEN") && said.contains("unix:"), "{said}");
    let (code, said) = health(&[], &[("TURNSTONE_LISTEN", "udp://127.0.0.1:0")]);
    assert!(code == Some(2) && said.contains("[metrics] listen"), "{said}");
}

/// An address that is free for datagrams and for connections.
#[test]
fn a_server_without_a_file_has_users_quotas_and_peer_rules_from_its_environment_and_logs_to_standard_output() {
    let free = free_address();
    let folder = tempfile::tempdir().unwrap();
    let admin = format!("unix:{}", folder.path().join("admin.sock").display());
    let listen = format!("udp://{free},tcp://{free}");
    let environment = [
        ("TURNSTONE_CONFIG", "/dev/null"),
        ("TURNSTONE_LISTEN", &listen),
        ("TURNSTONE_RELAY_IPV4", "127.0.0.1"),
        ("TURNSTONE_RELAY_IPV6", "off"),
        ("TURNSTONE_RELAY_PORTS", "10000-29999"),
        ("TURNSTONE_EXTERNAL_IP", "203.0.113.5"),
        ("TURNSTONE_USERS", "alice:wonderland bob:builder"),
        ("TURNSTONE_QUOTA_ALLOCATIONS_PER_USER", "3"),
        ("TURNSTONE_PEERS_DENIED", "8.8.8.0/24, 9.9.9.9"),
        ("TURNSTONE_PEERS_DENIED_PORTS", "53,123"),
        ("TURNSTONE_ADMIN_LISTEN", &admin),
        ("TURNSTONE_LOG_OUTPUT", "stdout"),
    ];
    let mut child = Command::new(env!("CARGO_BIN_EXE_turnstone"))
        .arg("serve")
        .envs(environment)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let log = BufReader::new(child.stdout.take().unwrap());
    let _server = Running(child);
    let listening = log.lines().map_while(Result::ok).find(|line| line.contains("listening on"));
    assert!(listening.is_some(), "no line of the log on standard output");

    // Commands find it by the same variables.
    let shown =
        Command::new(env!("CARGO_BIN_EXE_turnstone")).args(["config", "show"]).envs(environment).output().unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    for line in [
        "allocations-per-user = 3",
        "denied = [\"8.8.8.0/24\", \"9.9.9.9\"]",
        "denied-ports = [53, 123]",
        "output = \"stdout\"",
        "# [[auth.users]] and users-file: 2",
    ] {
        assert!(shown.contains(line), "no {line:?} in {shown}");
    }
    let status = Command::new(env!("CARGO_BIN_EXE_turnstone")).arg("status").envs(environment).output().unwrap();
    assert!(status.status.success(), "{status:?}");

    // Without an admin socket or metrics, a listener is asked.
    for (listen, who) in [(listen.clone(), "udp"), (format!("tcp://{free}"), "tcp")] {
        let (code, line) = health(&[], &[("TURNSTONE_LISTEN", &listen)]);
        assert_eq!((code, line.trim()), (Some(0), &*format!("ok: {who} {free} answers Binding requests")));
    }
    let (_, json) = health(&["--json"], &[("TURNSTONE_LISTEN", &listen)]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["ok"], true, "{json}");
    let nobody = free_address();
    for who in ["udp", "tcp"] {
        let (code, line) = health(&[], &[("TURNSTONE_LISTEN", &format!("{who}://{nobody}"))]);
        assert!(code == Some(1) && line.contains("does not answer"), "{line}");
    }
}
