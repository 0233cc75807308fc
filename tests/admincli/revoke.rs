//! `revoke`.

use crate::support::{Finished, Spec, TestServer, Transport};
use crate::wire::Wire;
use crate::{cells, config, json, printed, run};

#[test]
fn credentials_are_revoked_listed_and_undone() {
    let server = TestServer::start(&config(""));
    assert_eq!(printed(&server, &["revoke", "--list"]), "nothing is revoked\n");
    let leaked = server.credentials("carol");
    Wire::connect(&server, Transport::Udp, &leaked).allocate().unwrap();
    let finished = run(&server, &["revoke", &leaked.username]);
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert!(finished.stdout.starts_with("revoked until 20") && finished.stdout.ends_with("Z; ended 1 session\n"));
    assert!(finished.stderr.contains("forgotten at a restart"), "{finished:?}");
    assert_eq!(Wire::connect(&server, Transport::Udp, &leaked).allocate().unwrap_err(), 401);
    assert!(printed(&server, &["explain", "carol"]).contains("revoked"));

    // Credentials of the tests are good for an hour; those of a day's time are issued later.
    let (mut erin, _) = Wire::allocated(&server, Transport::Tcp, "erin");
    let now = ["--issued-before", "now"];
    let ended = |args: &[&str]| json(&server, &[&["revoke"], args].concat())["ended"].as_u64().unwrap();
    assert_eq!(ended(&[&["--user", "erin", "--lifetime", "30m"][..], &now].concat()), 0);
    assert_eq!(ended(&[&["--user", "erin", "--lifetime", "2h"][..], &now].concat()), 1);
    assert_eq!(erin.receive(), None);
    assert_eq!(ended(&["--user", "alice bob", "--for", "7d"]), 0);
    let again = "A static user of this name is good again then: take the user out of the configuration or the store";
    let of_user = run(&server, &["revoke", "--user", "alice bob"]).stdout;
    assert!(of_user.starts_with("revoked until 20") && of_user.contains(again), "{of_user}");
    let issued = run(&server, &[&["revoke", "--user", "erin", "--lifetime", "2h"][..], &now].concat()).stdout;
    assert!(issued.starts_with("revoked until 20") && !issued.contains(again), "{issued}");
    assert_eq!(ended(&["--key", "test", "--yes"]), 0);

    let list = printed(&server, &["revoke", "--list"]);
    let rows: Vec<_> = list.lines().map(|line| cells(line).join("|")).collect();
    assert_eq!((rows[0].as_str(), rows.len()), ("WHAT|NAME|REALM|ISSUED BEFORE|UNTIL|BY", 5), "{list}");
    for row in [format!("username|{}|-|-|20", leaked.username), "user|erin|-|20".into(), "user|alice bob|-|-|20".into()]
    {
        assert!(rows.iter().any(|shown| shown.starts_with(&row)), "{row}: {list}");
    }
    assert!(run(&server, &["revoke", "--key", "test", "--undo"]).stdout.starts_with("key test is revoked no longer"));
    assert!(run(&server, &["revoke", &leaked.username, "--undo"]).stdout.contains("is revoked no longer"));
    Wire::connect(&server, Transport::Udp, &leaked).allocate().unwrap();
    let again = run(&server, &["revoke", "--user", "nobody", "--undo"]);
    assert_eq!((again.code, again.stdout.as_str()), (Some(1), "user nobody is not revoked by a command\n"));
}

#[test]
fn mistakes_are_told_and_what_ends_much_is_asked_for() {
    let server = TestServer::start(&config(""));
    for (args, problem) in [
        (&["--key", "test"][..], "expected --yes"),
        (&[], "required"),
        (&["--everybody", "--yes"], "--issued-before"),
        (&["--user", "a", "--issued-before", "now"], "issued_before needs lifetime_secs"),
        (&["--user", "a", "--issued-before", "tomorrow", "--lifetime", "1d"], "expected a moment"),
        (&["--user", "a", "--for", "0s"], "whole seconds"),
        (&["--user", "a", "--realm", "b.example"], "there is no realm \"b.example\""),
        (&["alice", "--issued-before", "now"], "cannot be used with"),
    ] {
        let finished = run(&server, &[&["revoke"], args].concat());
        assert_eq!(finished.code, Some(2), "{args:?}: {finished:?}");
        assert!(finished.stderr.contains(problem), "{args:?}: {}", finished.stderr);
    }
    assert_eq!(printed(&server, &["revoke", "--list"]), "nothing is revoked\n");
}

#[test]
fn under_a_service_manager_it_is_kept_without_a_word_in_the_configuration() {
    let state = tempfile::TempDir::new().unwrap();
    let spec = Spec {
        extra_toml: "[admin]\nlisten = \"unix:admin.sock\"\n".to_owned(),
        environment: vec![("STATE_DIRECTORY".to_owned(), state.path().display().to_string())],
        ..Spec::local()
    };
    let mallory = {
        let server = spec.start();
        let text = printed(&server, &["revoke", "--user", "mallory"]);
        assert!(text.starts_with("revoked until"), "{text}");
        server.credentials("mallory")
    };
    let server = spec.start();
    assert_eq!(Wire::connect(&server, Transport::Udp, &mallory).allocate().unwrap_err(), 401);
    assert!(printed(&server, &["revoke", "--list"]).contains("mallory"));
}

#[test]
fn a_credential_that_is_revoked_at_the_running_server_is_not_said_to_be_valid() {
    let server = TestServer::start(&config(""));
    let alice = server.credentials("alice");
    let verify = |args: &[&str]| {
        let args = [&["credentials", "verify", &alice.username, &alice.password], args].concat();
        let Finished { code, stdout, stderr } = run(&server, &args);
        (code, stdout, stderr)
    };
    let (code, good, note) = verify(&[]);
    assert!(code == Some(0) && good.starts_with("valid: ") && note.is_empty(), "{good}{note}");
    for (whose, undo) in [
        (vec![alice.username.as_str()], vec![alice.username.as_str()]),
        (vec!["--user", "alice"], vec!["--user", "alice"]),
        (vec!["--key", "test", "--yes"], vec!["--key", "test"]),
        (vec!["--user", "alice", "--issued-before", "now", "--lifetime", "2h"], vec!["--user", "alice"]),
    ] {
        assert_eq!(run(&server, &[&["revoke"], &whose[..]].concat()).code, Some(0));
        let (code, told, note) = verify(&[]);
        assert!(code == Some(1) && note.is_empty(), "{whose:?}: {told}{note}");
        assert!(told.starts_with("not valid: ") && told.contains(" is revoked until 20"), "{whose:?}: {told}");
        let (_, told, _) = verify(&["--json"]);
        let told: serde_json::Value = serde_json::from_str(&told).unwrap();
        assert_eq!((&told["valid"], &told["revoked"]), (&false.into(), &true.into()));
        let (code, offline, note) = verify(&["--offline"]);
        assert!(code == Some(0) && offline.starts_with("valid: ") && note.is_empty(), "{offline}{note}");
        assert_eq!(run(&server, &[&["revoke", "--undo"], &undo[..]].concat()).code, Some(0));
    }
    run(&server, &["revoke", "--user", "bob"]);
    assert_eq!(verify(&[]).0, Some(0), "another user");
    // Of a server that cannot be asked a note says so; one that was named has to answer.
    let socket = server.file("admin.sock");
    drop(std::fs::rename(&socket, server.file("gone.sock")));
    let (code, told, note) = verify(&[]);
    // Not `good`: the minutes that are left are in it.
    assert!(code == Some(0) && told.starts_with("valid: "), "{told}");
    assert!(
        note.starts_with("note: no running server was asked whether it is revoked (no admin API at unix:"),
        "{note}"
    );
    let (_, json, _) = verify(&["--json"]);
    assert!(json.contains("\"revoked\": null"), "{json}");
    let (code, _, error) = verify(&["--admin", &format!("unix:{socket}")]);
    assert!(code == Some(3) && error.contains("there is no such socket"), "{error}");
}
