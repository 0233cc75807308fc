//! What one server revokes is revoked on all of them, whatever becomes of the store meanwhile.

use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::redis::Redis;
use crate::support::{TestServer, run, time_limited, wait_until};
use crate::{LIMIT, allocate, metric, store_status, turnstone, wait_connected, with_store};

fn start(redis: &Redis) -> TestServer {
    start_in(redis, "@DIR@/state")
}

/// One with a state directory that may outlive it.
fn start_in(redis: &Redis, state: &str) -> TestServer {
    let mut spec = with_store(&format!("url = \"{}\"", redis.url()));
    spec.top_toml = format!("state-directory = \"{state}\"");
    let server = spec.start();
    wait_connected(&server, true);
    server
}

/// Revokes a user at a server, and returns its answer.
fn revoke(server: &TestServer, user: &str) -> Value {
    let finished = turnstone(server, &["revoke", "--user", user, "--json"]);
    serde_json::from_str(&finished.stdout).unwrap_or_else(|error| panic!("{error}: {finished:?}"))
}

fn is_refused(server: &TestServer, user: &str) -> bool {
    match allocate(server, &server.credentials(user)) {
        Ok(_) => false,
        Err(401) => true,
        Err(other) => panic!("{other}"),
    }
}

fn wait_refused(server: &TestServer, user: &str, refused: bool) {
    wait_until(&format!("{user} to be refused, or not"), LIMIT, || (is_refused(server, user) == refused).then_some(()));
}

#[test]
fn what_one_server_revokes_ends_at_the_other_and_is_undone_there_too() {
    let redis = Redis::start();
    let (one, other) = (start(&redis), start(&redis));
    let mut call = allocate(&other, &other.credentials("alice")).unwrap();
    let mut bystander = allocate(&other, &other.credentials("bob")).unwrap();
    let answer = revoke(&one, "alice");
    assert_eq!((&answer["kept"], &answer["shared"]), (&true.into(), &true.into()));
    assert!(is_refused(&one, "alice"));
    wait_refused(&other, "alice", true);
    // Whoever makes a credential for her is told, at each server.
    for (user, is_told) in [("alice", true), ("bob", false)] {
        let file = other.file("turnserver.toml");
        let mut credentials = Command::new(env!("CARGO_BIN_EXE_turnstone"));
        let made = run(credentials.args(["credentials", "--user", user, "--json", "--config", &file]), LIMIT);
        assert!(made.code == Some(0) && made.stdout.contains("password"), "{made:?}");
        let told = made.stderr.contains("warning: user alice is revoked until");
        assert!(told == is_told && !made.stderr.contains("no running server"), "{made:?}");
    }
    wait_until("her call to end", LIMIT, || call.refresh().is_err().then_some(()));
    assert!(bystander.refresh().is_ok());
    // One that comes later knows it, too.
    let third = start(&redis);
    wait_refused(&third, "alice", true);
    let undone = turnstone(&other, &["revoke", "--user", "alice", "--undo"]);
    assert_eq!(undone.code, Some(0), "{undone:?}");
    for server in [&one, &other, &third] {
        wait_refused(server, "alice", false);
    }
}

#[test]
fn what_is_revoked_without_the_store_is_in_force_here_and_reaches_the_others_when_it_is_back() {
    let mut redis = Redis::start();
    let (one, other) = (start(&redis), start(&redis));
    revoke(&one, "before");
    wait_refused(&other, "before", true);
    let said = turnstone(&one, &["revoke", "--user", "before"]).stdout;
    assert!(said.ends_with("ended 0 sessions here; the other servers hear of it by the store now\n"), "{said}");
    redis.kill();
    wait_connected(&one, false);
    wait_connected(&other, false);
    let said = turnstone(&one, &["revoke", "--user", "alice"]).stdout;
    assert!(said.contains("the other servers hear of it when the store takes it"), "{said}");
    let answer = revoke(&one, "alice");
    assert_eq!((&answer["kept"], &answer["shared"]), (&true.into(), &false.into()), "in the state directory");
    assert!(is_refused(&one, "alice") && is_refused(&one, "before") && is_refused(&other, "before"));
    assert!(!is_refused(&other, "alice"));
    // What is in the store alone is not undone without it.
    let undone = turnstone(&one, &["revoke", "--user", "before", "--undo"]);
    assert!(undone.code != Some(0) && undone.all_output().contains("store"), "{undone:?}");
    // It comes back with nothing at all: what was known is revoked still, and given to it.
    redis.start_again();
    wait_connected(&one, true);
    wait_connected(&other, true);
    wait_refused(&other, "alice", true);
    assert!(is_refused(&other, "before") && is_refused(&one, "before"));
    let third = start(&redis);
    wait_refused(&third, "alice", true);
    wait_refused(&third, "before", true);
    // The same when it is emptied while everybody is connected.
    redis.ask(&["FLUSHALL"]);
    wait_until("the store to have it again", LIMIT, || {
        (redis.ask(&["ZCARD", "turnstone:{revocations}"]) == "2").then_some(())
    });
    assert!(is_refused(&third, "before") && is_refused(&other, "alice"));
}

/// What `turnstone revoke --list` says.
fn listed(server: &TestServer) -> String {
    turnstone(server, &["revoke", "--list"]).stdout
}

#[test]
fn what_is_revoked_by_when_it_was_issued_is_revoked_everywhere_over_restarts_until_it_is_undone() {
    let redis = Redis::start();
    let state = tempfile::tempdir().unwrap();
    let state = state.path().join("state").display().to_string();
    let (mut one, other) = (start_in(&redis, &state), start(&redis));
    let [alice, bob] = ["alice", "bob"].map(|user| one.credentials(user));
    let mut calls = [&alice, &bob].map(|of| allocate(&other, of).unwrap());
    // Made so that they are good for longer than what is revoked.
    let later = |user: &str| time_limited(other.secret(), user, 7200);
    for (whose, revoked, spared) in
        [(&["--user", "alice"][..], &[&alice][..], &[&bob][..]), (&["--everybody"], &[&alice, &bob], &[])]
    {
        let terms = ["--issued-before", "now", "--lifetime", "65m", "--yes"];
        let done = turnstone(&one, &[&["revoke"], whose, &terms].concat());
        assert_eq!(done.code, Some(0), "{done:?}");
        for server in [&one, &other] {
            for of in revoked {
                wait_until(&format!("{whose:?} in force"), LIMIT, || {
                    (allocate(server, of).err() == Some(401)).then_some(())
                });
            }
            for of in spared.iter().copied().chain([&later("alice"), &later("carol")]) {
                allocate(server, of).unwrap_or_else(|code| panic!("{whose:?} {of:?}: {code}"));
            }
            assert!(listed(server).contains(whose[whose.len() - 1].trim_start_matches('-')), "{}", listed(server));
            assert!(!server.log().contains("cannot be read"), "{}", server.log());
        }
        wait_until("her call to end", LIMIT, || calls[0].refresh().is_err().then_some(()));
        assert_eq!(calls[1].refresh().is_ok(), !spared.is_empty(), "his call");
        // Another change, and a restart, change nothing of it.
        revoke(&other, "dave");
        wait_refused(&one, "dave", true);
        assert_eq!(allocate(&one, &alice).err(), Some(401));
        // What has changed of late is written at the end.
        one.signal(Signal::INT);
        assert_eq!(one.exit_code_within(LIMIT), Some(0));
        one = start_in(&redis, &state);
        assert_eq!(allocate(&one, &alice).err(), Some(401), "at once");
        wait_until("the store to be read", LIMIT, || (store_status(&one)["revocations"] == 2).then_some(()));
        assert_eq!(allocate(&one, &alice).err(), Some(401));
        let undone = turnstone(&other, &[&["revoke"], whose, &["--undo"]].concat());
        assert_eq!(undone.code, Some(0), "{undone:?}");
        for server in [&one, &other] {
            wait_until("it to be undone", LIMIT, || allocate(server, &alice).ok().map(drop));
        }
        assert_eq!(turnstone(&other, &["revoke", "--user", "dave", "--undo"]).code, Some(0));
        wait_refused(&one, "dave", false);
        calls = [&alice, &bob].map(|of| allocate(&other, of).unwrap());
    }
}

#[test]
fn what_the_credentials_api_revokes_by_its_label_is_revoked_everywhere() {
    let redis = Redis::start();
    let key = "0123456789abcdef0123456789abcdef";
    let digest = run(Command::new("sh").args(["-c", &format!("printf %s {key} | sha256sum")]), LIMIT).stdout;
    let mut spec = with_store(&format!("url = \"{}\"", redis.url()));
    spec.extra_toml += &format!(
        "[credentials]\nlisten = \"unix:credentials.sock\"\ntls = false\nshapes = [\"metered\"]\n\
         [[credentials.keys]]\nid = \"app\"\nsha256 = \"{}\"\nmax-ttl = \"2h\"\n",
        &digest[..64]
    );
    let (one, other) = (spec.start(), start(&redis));
    wait_connected(&one, true);
    let alice = one.credentials("alice");
    let mut call = allocate(&other, &alice).unwrap();
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--unix-socket", &one.file("credentials.sock"), "-X", "DELETE"]);
    curl.arg(format!("http://localhost/api/v2/turn/credential/by_label?secretKey={key}&label=alice"));
    let answer = run(&mut curl, LIMIT);
    assert!(answer.stdout.contains("\"deleted\":1"), "{answer:?}");
    for server in [&one, &other] {
        wait_refused(server, "alice", true);
        allocate(server, &time_limited(one.secret(), "alice", 86_400)).unwrap();
    }
    wait_until("her call to end", LIMIT, || call.refresh().is_err().then_some(()));
}

#[test]
fn an_entry_that_cannot_be_read_is_told_and_takes_nothing_out_of_force() {
    let redis = Redis::start();
    let (one, other) = (start(&redis), start(&redis));
    revoke(&one, "alice");
    wait_refused(&other, "alice", true);
    // Of a later version, say, in place of what is there.
    let members = redis.ask(&["ZRANGE", "turnstone:{revocations}", "0", "-1"]);
    let unread = members.replace('}', ",\"lifetime_secs\":60}");
    redis.ask(&["ZADD", "turnstone:{revocations}", "99999999999", &unread, "99999999999", "~ junk"]);
    redis.ask(&["ZREM", "turnstone:{revocations}", &members]);
    for server in [&one, &other] {
        wait_until("it to be told", LIMIT, || {
            server.log().contains("lifetime_secs is for issued_before").then_some(())
        });
    }
    revoke(&other, "bob");
    wait_refused(&one, "bob", true);
    assert!(is_refused(&one, "alice") && is_refused(&other, "alice"));
    let problem = |server: &TestServer| store_status(server)["problems"]["revocations-in-force"].clone();
    let is_shown = |server: &TestServer| metric(server, "turnstone_store_problem{part=\"revocations-in-force\"}");
    // It is shown on, however often the store is read meanwhile.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(5) {
        for server in [&one, &other] {
            let problem = problem(server).to_string();
            assert!(problem.contains("2 of what is revoked") && problem.contains("lifetime_secs is for"), "{problem}");
            assert!(is_shown(server) > 0.0);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let undone = turnstone(&one, &["revoke", "--user", "alice", "--undo"]);
    assert_eq!(undone.code, Some(0), "{undone:?}");
    for server in [&one, &other] {
        wait_refused(server, "alice", false);
        assert!(is_refused(server, "bob"));
        wait_until("junk alone to be told", LIMIT, || {
            problem(server).to_string().contains("1 of what is revoked").then_some(())
        });
    }
    redis.ask(&["ZREM", "turnstone:{revocations}", "~ junk"]);
    for server in [&one, &other] {
        wait_until("all to be read", LIMIT, || problem(server).is_null().then_some(()));
        assert!(is_shown(server) == 0.0 && is_refused(server, "bob"));
    }
}

#[test]
fn what_was_undone_while_a_server_was_away_is_not_brought_back_by_it() {
    let redis = Redis::start();
    let (one, other) = (start(&redis), start(&redis));
    revoke(&one, "alice");
    wait_refused(&other, "alice", true);
    redis.ask(&["CLIENT", "KILL", "TYPE", "normal"]);
    // Whoever of them is connected first undoes it.
    wait_connected(&one, true);
    wait_until("the undoing", LIMIT, || {
        (turnstone(&one, &["revoke", "--user", "alice", "--undo"]).code == Some(0)).then_some(())
    });
    wait_refused(&other, "alice", false);
    wait_refused(&one, "alice", false);
    assert_eq!(redis.ask(&["ZCARD", "turnstone:{revocations}"]), "0");
}

#[test]
fn what_was_revoked_last_is_known_after_a_restart_without_the_store() {
    let mut redis = Redis::start();
    let state = tempfile::tempdir().unwrap();
    let state = state.path().join("state").display().to_string();
    let (mut one, other) = (start_in(&redis, &state), start(&redis));
    for round in 0..3 {
        let user = format!("ann{round}");
        revoke(if round == 1 { &other } else { &one }, &user);
        wait_refused(&one, &user, true);
        wait_refused(&other, &user, true);
    }
    assert_eq!(turnstone(&other, &["revoke", "--user", "ann2", "--undo"]).code, Some(0));
    wait_refused(&one, "ann2", false);
    one.signal(Signal::INT);
    assert_eq!(one.exit_code_within(LIMIT), Some(0));
    redis.kill();
    let mut spec = with_store(&format!("url = \"{}\"", redis.url()));
    spec.top_toml = format!("state-directory = \"{state}\"");
    one = spec.start();
    assert!(is_refused(&one, "ann0") && is_refused(&one, "ann1") && !is_refused(&one, "ann2"));
}
