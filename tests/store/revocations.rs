//! What one server revokes is revoked on all of them, whatever becomes of the store meanwhile.

use serde_json::Value;

use crate::redis::Redis;
use crate::support::{TestServer, wait_until};
use crate::{LIMIT, allocate, turnstone, wait_connected, with_store};

fn start(redis: &Redis) -> TestServer {
    let state = "state-directory = \"@DIR@/state\"";
    let mut spec = with_store(&format!("url = \"{}\"", redis.url()));
    spec.top_toml = state.to_owned();
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
    assert_eq!(revoke(&one, "alice")["kept"], true);
    assert!(is_refused(&one, "alice"));
    wait_refused(&other, "alice", true);
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
    redis.kill();
    wait_connected(&one, false);
    wait_connected(&other, false);
    assert_eq!(revoke(&one, "alice")["kept"], true, "in the state directory");
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
