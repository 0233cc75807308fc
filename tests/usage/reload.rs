//! What a reload changes of the records, and what it says it does not.

use std::fs;

use rustix::process::Signal;

use crate::client::Allocated;
use crate::hook::{Hook, Reply};
use crate::support::{TestServer, wait_until};
use crate::{LIMIT, file_in, spec};

/// Replaces a piece of the server's configuration and reloads it.
fn reload(server: &TestServer, from: &str, to: &str) {
    let path = server.file("turnserver.toml");
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{text}");
    let reloads = server.log().matches("configuration reloaded").count();
    fs::write(&path, text.replace(from, to)).unwrap();
    server.signal(Signal::HUP);
    wait_until("the reload", LIMIT, || {
        (server.log().matches("configuration reloaded").count() > reloads).then_some(())
    });
}

#[test]
fn interim_records_begin_and_another_token_is_sent_after_a_reload() {
    let folder = tempfile::tempdir().unwrap();
    let hook = Hook::start(|_| Reply::Status(200));
    let usage = format!(
        "webhook = \"{}\"\nwebhook-token = \"first\"\ninterim = \"off\"\nspool-directory = \"{}\"",
        hook.url(),
        folder.path().join("spool").display()
    );
    let server = spec(&usage).start();
    let mut client = Allocated::over_udp(&server, "alice");
    hook.wait_for("start", 1);
    reload(&server, "webhook-token = \"first\"\ninterim = \"off\"", "webhook-token = \"second\"\ninterim = \"10s\"");
    let log = server.log();
    assert!(log.contains("usage.interim") && log.contains("usage.webhook-token"), "{log}");
    assert!(!log.contains("\"second\"") && !log.contains("\"first\""), "a token is in the log");
    hook.wait_for("interim", 1);
    let last = hook.posts().pop().unwrap();
    assert!(last.headers.iter().any(|header| header == "authorization: Bearer second"), "{:?}", last.headers);
    client.refresh();
}

#[test]
fn another_file_needs_a_restart_and_is_said_to() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = spec(&file_in(folder.path())).start();
    reload(&server, &file_in(folder.path()), &file_in(other.path()));
    let log = server.log();
    let line = log.lines().find(|line| line.contains("usage.file")).unwrap_or_else(|| panic!("{log}"));
    assert!(line.contains("takes effect only after a restart"), "{line}");
    Allocated::over_udp(&server, "alice").release();
    wait_until("the record in the old file", LIMIT, || {
        fs::read_to_string(folder.path().join("usage.jsonl")).unwrap().contains("\"type\":\"stop\"").then_some(())
    });
    assert!(!other.path().join("usage.jsonl").exists());
}
