//! `turnstone check` and `turnstone config show`.

use std::net::UdpSocket;

use serde_json::Value;

use super::{Place, SECRET, ran};

#[test]
fn a_good_configuration_passes() {
    let place = Place::new();
    let out = place.run(&["check"]).ok();
    assert!(
        out.starts_with("ok       configuration: turnserver.toml: udp 127.0.0.1:3478, tcp 127.0.0.1:3478; 1 secret, ")
    );
    assert!(out.contains("\nok       relay: from 127.0.0.1, known outside as 203.0.113.5\n"), "{out}");
    assert!(out.ends_with("0 errors, 0 warnings\n") || out.contains("warning  descriptors"), "{out}");
    assert!(!out.contains(SECRET));
}

#[test]
fn problems_are_findings_with_their_place() {
    let place = Place::with("[bandwith]\nper-user = \"2M\"");
    let ran = place.run(&["check"]);
    assert_eq!(ran.code, 2);
    assert!(
        ran.out.starts_with(
            "error    turnserver.toml:1:2: unknown key \"bandwith\" at the top level (did you mean \"bandwidth\"?); "
        ),
        "{}",
        ran.out
    );
    assert!(ran.out.ends_with("1 error, 0 warnings\n"), "{}", ran.out);
}

#[test]
fn warnings_fail_only_when_strict() {
    let place = Place::new();
    place.file(
        "turnserver.toml",
        "[[auth.secrets]]\nid = \"a\"\nfile = \"secret\"\n[relay]\nipv4 = \"127.0.0.1\"\nipv6 = \"off\"",
        0o600,
    );
    let ran = place.run(&["check"]);
    assert_eq!(ran.code, 0);
    assert!(ran.out.contains("warning  turnserver.toml:5:8: relay address 127.0.0.1 is private"), "{}", ran.out);
    assert_eq!(place.run(&["check", "--strict"]).code, 1);
}

#[test]
fn findings_come_as_json_too() {
    let place = Place::with("nonsense = 1");
    let ran = place.run(&["check", "--format", "json"]);
    assert_eq!(ran.code, 2);
    let found: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((found["errors"].as_u64(), found["findings"][0]["level"].as_str()), (Some(1), Some("error")));
    assert_eq!(found["findings"][0]["subject"], "turnserver.toml:1:1");
}

#[test]
fn a_relay_address_of_another_host_is_an_error() {
    let place = Place::new();
    let ran = place.run(&["check", "--relay-ipv4", "198.51.100.77"]);
    assert_eq!(ran.code, 2);
    assert!(ran.out.contains("error    relay: 198.51.100.77 is not an address of this host"), "{}", ran.out);
}

#[test]
fn a_configuration_that_others_may_change_is_warned_about() {
    let place = Place::new();
    let text = std::fs::read_to_string(place.path("turnserver.toml")).unwrap();
    place.file("turnserver.toml", &text, 0o664);
    let ran = place.run(&["check"]);
    assert!(ran.out.contains("(mode 0664); run: chmod go-w turnserver.toml"), "{}", ran.out);
}

#[test]
fn a_listener_that_is_taken_is_found_when_asked_for() {
    let place = Place::new();
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let listen = format!("udp://{address}");
    // An ephemeral port may lie in the relay range.
    let args = ["check", "--listen", &listen, "--relay-ports", "2000-2001"];
    assert_eq!(place.run(&args).code, 0);
    let ran = place.run(&[&args[..], &["--bind"]].concat());
    assert_eq!(ran.code, 2);
    assert!(ran.out.contains(&format!("error    listener: udp {address} cannot be bound: ")), "{}", ran.out);
    assert!(ran.out.contains("is the server running?"), "{}", ran.out);
}

#[test]
fn an_endpoint_for_metrics_or_the_admin_api_that_is_taken_is_found_when_asked_for() {
    for (section, more) in [("metrics", ""), ("admin", "token = \"0123456789abcdef\"\n")] {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let place = Place::with(&format!("[{section}]\nlisten = \"{address}\"\n{more}"));
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(place.path("turnserver.toml"), private).unwrap();
        let ran = place.run(&["check", "--bind"]);
        assert!(ran.out.contains(&format!("error    {section}: tcp {address} cannot be bound: ")), "{}", ran.out);
    }
}

#[test]
fn too_few_descriptors_for_the_port_range_are_warned_about() {
    let place = Place::new();
    // The shell lowers the limit for the one command.
    let mut command = assert_cmd::Command::new("sh");
    let script = format!("ulimit -n 300; exec {} check --config turnserver.toml", env!("CARGO_BIN_EXE_turnstone"));
    let ran = ran(command.args(["-c", &script]).current_dir(place.path("")).env_clear());
    assert_eq!(ran.code, 0, "{}", ran.err);
    let line = "warning  descriptors: 100 relays and 10000 connections may need 10356 descriptors, but this process may have 300";
    assert!(ran.out.contains(line), "{}", ran.out);
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let place = Place::new();
    for command in ["serve", "check"] {
        let ran = ran(&mut place.command(&[command, "--config", "nowhere.toml"]));
        assert_eq!(ran.code, 2);
        let all = ran.out + &ran.err;
        assert!(all.contains("nowhere.toml: cannot read the file: no such file or directory"), "{all}");
    }
    place.file("big.toml", &"#".repeat(2 << 20), 0o600);
    let big = ran(&mut place.command(&["config", "show", "--config", "big.toml"]));
    assert_eq!((big.code, big.err.as_str()), (2, "big.toml: the file is larger than 1 MiB\n"));
}

#[test]
fn the_effective_configuration_shows_what_won_and_no_secret() {
    let place = Place::new();
    let mut command = place.command(&["config", "show", "--config", "turnserver.toml", "--workers", "3"]);
    let shown = ran(command.env("TURNSTONE_REALM", "by.variable").env("TURNSTONE_WORKERS", "5")).ok();
    for line in ["workers = 3", "realm = \"by.variable\"", "ports = \"50000-50099\"", "external-ip = [\"203.0.113.5\"]"]
    {
        assert!(shown.lines().any(|found| found == line), "lacks {line}:\n{shown}");
    }
    assert!(!shown.contains(SECRET), "{shown}");
}

#[test]
fn the_configuration_may_be_named_by_a_variable() {
    let place = Place::new();
    let out = ran(place.command(&["config", "show"]).env("TURNSTONE_CONFIG", "turnserver.toml")).ok();
    assert!(out.contains("ports = \"50000-50099\""), "{out}");
}
