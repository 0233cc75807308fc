//! What the log says of clients: shortages at the default level, every request at `debug`, every message at `trace`, addresses as
//! wanted, and lines that the journal and fail2ban can read.

use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::support::{Finished, TestServer, run, skipped, wait_until};
use crate::{LIMIT, config};

const CLIENT: &str = "127.7.7.7";
const PEER: &str = "127.8.8.8";
const DENIED: &str = "127.9.9.9";

/// Clients at [`CLIENT`] with peers at [`PEER`], which hold an allocation each for a moment.
fn clients(server: &TestServer, number: u32, more: &[&str]) -> Finished {
    let mut bench = Command::new(env!("CARGO_BIN_EXE_turnstone"));
    let number = number.to_string();
    bench.args(["bench", "client-to-peer", &server.udp().to_string(), "--clients", &number]);
    bench.args(["--client-ip", CLIENT, "--peer-ip", PEER, "--warm-up", "0", "--duration", "0.1"]);
    bench.args(["--user", "a b=\"c\"", "--secret-file", &server.file("secret")]).args(more);
    run(&mut bench, LIMIT)
}

fn lines_with(server: &TestServer, what: &str) -> Vec<String> {
    let found = wait_until(what, LIMIT, || {
        let lines: Vec<_> = server.log().lines().filter(|line| line.contains(what)).map(str::to_owned).collect();
        (!lines.is_empty()).then_some(lines)
    });
    assert!(found.iter().all(|line| !line.contains('\u{1b}')), "{found:?}");
    found
}

#[test]
fn what_runs_out_is_a_warning_a_minute_with_its_remedy() {
    for (setting, what, remedy) in [
        ("ports = \"10000-10001\"", "relay-ports", "widen [relay] ports"),
        ("allocations-total = 2", "allocations", "raise [quota] allocations-total"),
    ] {
        let quota = "[quota]\nallocations-per-user = \"unlimited\"\n";
        let text = match setting.starts_with("ports") {
            true => config(quota).replace("ports = \"10000-29999\"", setting),
            false => config(&format!("{quota}{setting}\n")),
        };
        let server = TestServer::start(&text);
        for _ in 0..2 {
            let ran = clients(&server, 5, &[]);
            assert_ne!(ran.code, Some(0), "{}", ran.all_output());
        }
        let lines = lines_with(&server, "turnstone::capacity");
        assert_eq!(lines.len(), 1, "{lines:?}");
        let line = &lines[0];
        assert!(line.contains("WARN") && line.contains(remedy) && line.contains(&format!("what={what}")), "{line}");
    }
}

#[test]
fn connections_that_are_refused_are_a_warning() {
    let server = TestServer::start(&config("[streams]\nconnections-per-ip-max = 1\n"));
    let first = std::net::TcpStream::connect(server.tcp()).unwrap();
    let second = std::net::TcpStream::connect(server.tcp()).unwrap();
    let lines = lines_with(&server, "turnstone::capacity");
    assert!(lines.len() == 1 && lines[0].contains("connections-per-ip-max"), "{lines:?}");
    drop((first, second));
}

#[test]
fn debug_says_what_became_of_each_request_and_why() {
    let server = TestServer::start(&config("[log]\nlevel = \"debug\"\n"));
    assert_eq!(clients(&server, 1, &[]).code, Some(0));
    let refused = lines_with(&server, " refused client=127.7.7.7:");
    let first = refused.iter().find(|line| line.contains("reason=missing-integrity")).unwrap();
    assert!(first.contains("DEBUG turnstone::turn: refused") && first.contains("method=Allocate code=401"), "{first}");
    for method in ["Allocate", "ChannelBind", "Refresh"] {
        let answered = lines_with(&server, &format!("answered client={CLIENT}:"));
        assert!(answered[0].contains("DEBUG turnstone::turn: answered") && answered[0].contains("transport=udp"));
        let line = lines_with(&server, &format!("method={method} user=")).remove(0);
        assert!(line.contains("turnstone::turn: answered client=127.7.7.7:"), "{line}");
        assert!(line.contains(":a b=\\\"c\\\"\""), "the name is quoted: {line}");
    }
    assert!(!server.log().contains("turnstone::message"), "messages are for trace");
}

#[test]
fn no_address_of_a_client_or_peer_is_logged_when_that_is_off_not_even_by_trace() {
    for (choice, shown) in [("off", None), ("prefix", Some("127.7.7.0/24"))] {
        let text = format!("[peers]\ndenied = [\"{DENIED}\"]\n[log]\nlevel = \"trace\"\naddresses = \"{choice}\"\n");
        let server = TestServer::start(&config(&text));
        let few = ["--rate", "300", "--duration", "0.5"];
        assert_eq!(clients(&server, 1, &few).code, Some(0));
        assert_ne!(clients(&server, 1, &["--peer-ip", DENIED]).code, Some(0), "the permission is refused");
        for what in ["allocation ended", "turnstone::message: message", "channel data", "reason=peer-denied"] {
            let lines = lines_with(&server, what);
            assert!(shown.is_none_or(|shown| lines.iter().any(|line| line.contains(shown))), "{lines:?}");
        }
        let log = server.log();
        for address in [CLIENT, PEER, DENIED] {
            let line = log.lines().find(|line| line.contains(address));
            assert!(line.is_none(), "{choice}: {line:?}");
        }
    }
}

#[test]
fn a_user_is_quoted_once_in_json() {
    let server = TestServer::start(&config("[log]\nlevel = \"debug\"\nformat = \"json\"\n"));
    assert_eq!(clients(&server, 1, &[]).code, Some(0));
    let ended = lines_with(&server, "allocation ended").remove(0);
    let line: Value = serde_json::from_str(&ended).unwrap();
    let user = line["user"].as_str().unwrap();
    assert!(user.ends_with(":a b=\"c\"") && user.starts_with(|c: char| c.is_ascii_digit()), "{ended}");
}

/// A server of its own whose log is this file, as the journal's stream if wanted.
fn serve(directory: &Path, log: &File, is_journal: bool) -> Child {
    let stream = log.metadata().unwrap();
    let inode = if is_journal { stream.ino() } else { stream.ino() + 1 };
    Command::new(env!("CARGO_BIN_EXE_turnstone"))
        .args(["serve", "--dev", "--listen", "udp://127.0.0.1:0"])
        .current_dir(directory)
        .env("JOURNAL_STREAM", format!("{}:{inode}", stream.dev()))
        .stdout(Stdio::null())
        .stderr(log.try_clone().unwrap())
        .spawn()
        .unwrap()
}

#[test]
fn the_journal_gets_priorities_and_no_second_time() {
    for is_journal in [true, false] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let log = File::create(&path).unwrap();
        let mut server = serve(directory.path(), &log, is_journal);
        let line = wait_until("the first line", LIMIT, || {
            let text = std::fs::read_to_string(&path).unwrap();
            text.lines().find(|line| line.contains("listening on")).map(str::to_owned)
        });
        server.kill().unwrap();
        server.wait().unwrap();
        match is_journal {
            true => assert!(line.starts_with("<6>INFO turnstone::ops::run: listening on udp/"), "{line}"),
            false => assert!(line.starts_with("20") && line.contains("Z  INFO turnstone"), "{line}"),
        }
    }
}

#[test]
fn a_start_that_fails_is_an_error_in_the_journal_line_by_line() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("turnserver.toml");
    std::fs::write(&config, "workers = -1\n[log]\nlevel = \"x\"\n").unwrap();
    let path = directory.path().join("log");
    let log = File::create(&path).unwrap();
    let stream = log.metadata().unwrap();
    let mut server = Command::new(env!("CARGO_BIN_EXE_turnstone"));
    server.arg("serve").arg("--config").arg(&config).stdout(Stdio::null()).stderr(log.try_clone().unwrap());
    server.env("JOURNAL_STREAM", format!("{}:{}", stream.dev(), stream.ino()));
    assert_eq!(server.status().unwrap().code(), Some(2));
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.lines().count() >= 2 && text.lines().all(|line| line.starts_with("<3>")), "{text}");
    assert!(text.contains("<3>") && text.contains("turnserver.toml:1:11: workers"), "{text}");
}

#[test]
fn fail2ban_finds_those_who_guess_and_nobody_else() {
    let server = TestServer::start(&config("[log]\nlevel = \"info,turnstone::auth=debug\"\n"));
    let guess = |password: &str, user: &str| {
        let mut bench = Command::new(env!("CARGO_BIN_EXE_turnstone"));
        bench.args(["bench", "client-to-peer", &server.udp().to_string(), "--clients", "1"]);
        bench.args(["--client-ip", CLIENT, "--user", user, "--password-env", "GUESS"]).env("GUESS", password);
        run(&mut bench, LIMIT)
    };
    assert_ne!(guess("wrong", "9999999999:eve\" client=127.1.1.1:5 reason=wrong-password user=\"").code, Some(0));
    assert_ne!(guess("wrong", "nobody").code, Some(0));
    let late = server.expired_credentials("late");
    assert_ne!(guess(&late.password, &late.username).code, Some(0));
    assert_eq!(clients(&server, 1, &[]).code, Some(0));
    lines_with(&server, "allocation ended");
    let lines = lines_with(&server, "authentication refused");
    assert_eq!(lines.len(), 3, "{lines:#?}");
    assert!(!server.log().contains("turnstone::turn"), "the filter has these lines alone");

    let filter = concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/fail2ban/turnstone.conf");
    let mut judge = Command::new("fail2ban-regex");
    judge.args(["--print-all-matched", &server.file("log"), filter]);
    if Command::new("fail2ban-regex").arg("--version").output().is_err() {
        return skipped("fail2ban is not installed");
    }
    let judged = run(&mut judge, LIMIT);
    assert!(judged.stdout.contains("2 matched"), "{}", judged.all_output());
    // In the journal there is no time in front.
    let line = lines[0]
        .split_once(" DEBUG")
        .map(|(_, rest)| format!("Nov 27 05:00:00 host turnstone[7]: DEBUG{rest}"))
        .unwrap();
    let judged = run(Command::new("fail2ban-regex").args(["--print-all-matched", "-o", "<ip>", &line, filter]), LIMIT);
    assert_eq!(judged.stdout.trim(), CLIENT, "{}", judged.all_output());
}

#[test]
fn a_reload_changes_what_is_logged_of_addresses() {
    let with = |choice: &str| config(&format!("[log]\naddresses = \"{choice}\"\n"));
    let server = TestServer::start(&with("off"));
    server.write_config(&with("full"));
    server.signal(rustix::process::Signal::HUP);
    lines_with(&server, "configuration reloaded");
    assert_eq!(clients(&server, 1, &[]).code, Some(0));
    assert!(lines_with(&server, "allocation ended")[0].contains(&format!("client={CLIENT}:")));
}
