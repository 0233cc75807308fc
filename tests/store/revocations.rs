//! What one server revokes is revoked on all of them, whatever becomes of the store meanwhile.

use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::redis::Redis;
use crate::rights::doctor;
use crate::support::{Finished, Spec, TestServer, run, time_limited, wait_until};
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
    wait_until(&format!("{user} to be refused, or not"), LIMIT, || {
        let is_so = is_refused(server, user) == refused;
        if !is_so {
            // Who asks all the time is answered no more.
            std::thread::sleep(Duration::from_millis(100));
        }
        is_so.then_some(())
    });
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
    assert!(said.contains("; ended 0 sessions here; the other servers hear of it by the store now\n"), "{said}");
    redis.kill();
    wait_connected(&one, false);
    wait_connected(&other, false);
    let said = turnstone(&one, &["revoke", "--user", "alice"]);
    assert!(said.code == Some(1) && said.stderr.contains("not on the other servers yet"), "{said:?}");
    let answer = revoke(&one, "alice");
    assert_eq!((&answer["kept"], &answer["shared"]), (&true.into(), &false.into()), "in the state directory");
    assert!(is_refused(&one, "alice") && is_refused(&one, "before") && is_refused(&other, "before"));
    assert!(!is_refused(&other, "alice"));
    // What other servers have is undone here, and there when they hear of it.
    revoke(&one, "forgiven");
    let undone = turnstone(&one, &["revoke", "--user", "forgiven", "--undo"]);
    assert!(undone.code == Some(1) && undone.stderr.contains("not on the other servers yet"), "{undone:?}");
    assert!(!is_refused(&one, "forgiven"));
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
        (redis.ask(&["HLEN", "turnstone:{revocations}"]) == "3").then_some(())
    });
    assert!(is_refused(&third, "before") && is_refused(&other, "alice") && !is_refused(&third, "forgiven"));
    // By whoever it was revoked, whoever undoes it undoes it for all.
    assert_eq!(turnstone(&third, &["revoke", "--user", "before", "--undo"]).code, Some(0));
    for server in [&one, &other, &third] {
        wait_refused(server, "before", false);
    }
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

/// A key of the credentials API.
const KEY: &str = "0123456789abcdef0123456789abcdef";

/// One with the credentials API.
fn with_credentials(redis: &Redis) -> Spec {
    let digest = run(Command::new("sh").args(["-c", &format!("printf %s {KEY} | sha256sum")]), LIMIT).stdout;
    let mut spec = with_store(&format!("url = \"{}\"", redis.url()));
    spec.extra_toml += &format!(
        "[credentials]\nlisten = \"unix:credentials.sock\"\ntls = false\nshapes = [\"metered\"]\n\
         [[credentials.keys]]\nid = \"app\"\nsha256 = \"{}\"\nmax-ttl = \"2h\"\n",
        &digest[..64]
    );
    spec
}

/// What an application is answered that has all of a label revoked.
fn revoke_by_label(server: &TestServer, label: &str) -> Finished {
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--unix-socket", &server.file("credentials.sock"), "-X", "DELETE"]);
    curl.arg(format!("http://localhost/api/v2/turn/credential/by_label?secretKey={KEY}&label={label}"));
    run(&mut curl, LIMIT)
}

#[test]
fn what_the_credentials_api_revokes_by_its_label_is_revoked_everywhere() {
    let redis = Redis::start();
    let (one, other) = (with_credentials(&redis).start(), start(&redis));
    wait_connected(&one, true);
    let alice = one.credentials("alice");
    let mut call = allocate(&other, &alice).unwrap();
    let answer = revoke_by_label(&one, "alice");
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
    // Of a later version, say, and in place of what is there.
    let hash = "turnstone:{revocations}";
    let id = redis.ask(&["HKEYS", hash]);
    let unread = id.replace('}', ",\"also\":60}");
    redis.ask(&[
        "HSET",
        hash,
        &unread,
        "1 0 99999999999 0 0 0 0 0",
        "~ junk",
        "1 0 99999999999 0 0 0 0 0",
        &id,
        "later",
    ]);
    for server in [&one, &other] {
        wait_until("it to be told", LIMIT, || server.log().contains("unknown field `also`").then_some(()));
    }
    revoke(&other, "bob");
    wait_refused(&one, "bob", true);
    assert!(is_refused(&one, "alice") && is_refused(&other, "alice"));
    let problem = |server: &TestServer| store_status(server)["problems"]["revocations-in-force"].clone();
    let is_shown = |server: &TestServer| metric(server, "turnstone_store_problem{part=\"revocations-in-force\"}");
    wait_until("alice's entry to be good again", LIMIT, || {
        redis.ask(&["HGET", hash, &id]).starts_with("1 0 ").then_some(())
    });
    wait_until("that to be known", LIMIT, || {
        [&one, &other].iter().all(|server| problem(server).to_string().contains("2 of what is revoked")).then_some(())
    });
    // It is shown on, however often the store is read meanwhile.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(5) {
        for server in [&one, &other] {
            let problem = problem(server).to_string();
            assert!(problem.contains("2 of what is revoked") && problem.contains("unknown field"), "{problem}");
            assert!(is_shown(server) > 0.0);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let undone = turnstone(&one, &["revoke", "--user", "alice", "--undo"]);
    assert_eq!(undone.code, Some(0), "{undone:?}");
    for server in [&one, &other] {
        wait_refused(server, "alice", false);
        assert!(is_refused(server, "bob"));
    }
    redis.ask(&["HDEL", hash, "~ junk"]);
    for server in [&one, &other] {
        wait_until("the other alone to be told", LIMIT, || {
            problem(server).to_string().contains("1 of what is revoked").then_some(())
        });
    }
    redis.ask(&["HDEL", hash, &unread]);
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
    let undone = turnstone(&one, &["revoke", "--user", "alice", "--undo"]);
    assert!(undone.stdout.contains("is revoked no longer"), "{undone:?}");
    wait_refused(&other, "alice", false);
    wait_refused(&one, "alice", false);
    assert_eq!(redis.ask(&["HLEN", "turnstone:{revocations}"]), "1", "it is known to be undone");
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
    // Nor is the store needed in the configuration; and what is undone then stays so.
    spec.extra_toml = "[admin]\nlisten = \"unix:admin.sock\"\n".to_owned();
    drop(one);
    one = spec.start();
    let seen = ["ann0", "ann1", "ann2"].map(|user| is_refused(&one, user));
    assert_eq!(seen, [true, true, false], "{}", listed(&one));
    assert_eq!(turnstone(&one, &["revoke", "--user", "ann0", "--undo"]).code, Some(0));
    drop(one);
    one = spec.start();
    assert!(!is_refused(&one, "ann0") && is_refused(&one, "ann1") && !is_refused(&one, "ann2"));
}

#[test]
fn a_shorter_revocation_takes_nothing_off_a_longer_one_of_another_server() {
    let redis = Redis::start();
    let (one, other) = (start(&redis), start(&redis));
    assert_eq!(turnstone(&one, &["revoke", "--user", "alice", "--for", "10d"]).code, Some(0));
    wait_refused(&other, "alice", true);
    let shorter = |server: &TestServer| {
        let said = turnstone(server, &["revoke", "--user", "alice", "--for", "6s", "--json"]).stdout;
        serde_json::from_str::<Value>(&said).unwrap()["revocation"]["until_unix"].as_u64().unwrap()
    };
    let until = [shorter(&other), shorter(&one)];
    assert!(until.iter().all(|until| *until > unix_now() + 9 * 86_400), "{until:?}");
    std::thread::sleep(Duration::from_millis(7100));
    revoke(&one, "bob");
    wait_refused(&other, "bob", true);
    assert!(is_refused(&one, "alice") && is_refused(&other, "alice"));
}

fn unix_now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

#[test]
fn a_store_that_comes_back_from_an_older_copy_takes_nothing_out_of_force_and_brings_nothing_back() {
    let mut redis = Redis::start();
    let (one, other) = (start(&redis), start(&redis));
    revoke(&one, "forgiven");
    wait_refused(&other, "forgiven", true);
    redis.ask(&["SAVE"]);
    assert_eq!(turnstone(&other, &["revoke", "--user", "forgiven", "--undo"]).code, Some(0));
    let everybody = ["revoke", "--everybody", "--issued-before", "now", "--lifetime", "65m", "--yes"];
    assert_eq!(turnstone(&one, &everybody).code, Some(0));
    revoke(&one, "mallory");
    wait_refused(&other, "mallory", true);
    redis.kill();
    wait_connected(&one, false);
    wait_connected(&other, false);
    redis.start_again();
    for server in [&one, &other] {
        wait_connected(server, true);
    }
    wait_until("it to be told", LIMIT, || {
        [&one, &other].iter().any(|server| server.log().contains("the store lacked what is revoked")).then_some(())
    });
    let third = start(&redis);
    let later = |user: &str| time_limited(one.secret(), user, 7200);
    for server in [&one, &other, &third] {
        wait_refused(server, "mallory", true);
        wait_refused(server, "anybody", true);
        wait_until("what is undone to be so", LIMIT, || allocate(server, &later("forgiven")).ok().map(drop));
    }
    // The same while all are connected, of a part of it.
    redis.ask(&["DEL", "turnstone:{revocations}"]);
    wait_until("the store to have it again", LIMIT, || {
        (redis.ask(&["HLEN", "turnstone:{revocations}"]) == "3").then_some(())
    });
    for server in [&one, &other, &third] {
        assert!(is_refused(server, "mallory") && is_refused(server, "anybody"));
        assert!(allocate(server, &later("forgiven")).is_ok());
    }
}

#[test]
fn what_was_revoked_without_the_store_outlives_a_server_that_is_killed_again_and_again() {
    let mut redis = Redis::start();
    let state = tempfile::tempdir().unwrap();
    let state = state.path().join("state").display().to_string();
    let mut one = start_in(&redis, &state);
    redis.kill();
    let mut spec = with_store(&format!("url = \"{}\"", redis.url()));
    spec.top_toml = format!("state-directory = \"{state}\"");
    for user in ["ann", "bob", "carol"] {
        revoke(&one, user);
        one.signal(Signal::KILL);
        drop(one);
        one = spec.start();
    }
    assert!(["ann", "bob", "carol"].iter().all(|user| is_refused(&one, user)), "{}", listed(&one));
}

#[test]
fn a_server_that_knows_nothing_and_comes_first_to_an_empty_store_takes_nothing_out_of_force() {
    let mut redis = Redis::start();
    let state = tempfile::tempdir().unwrap();
    let state = state.path().join("state").display().to_string();
    let mut one = start_in(&redis, &state);
    revoke(&one, "mallory");
    // Killed as soon as it has answered.
    one.signal(Signal::KILL);
    drop(one);
    redis.kill();
    redis.start_again();
    let other = start(&redis);
    revoke(&other, "bob");
    one = start_in(&redis, &state);
    assert!(is_refused(&one, "mallory"), "at once");
    wait_refused(&other, "mallory", true);
    wait_refused(&one, "bob", true);
    assert!(is_refused(&one, "mallory"));
}

#[test]
fn what_is_over_by_a_clock_that_is_wrong_stays_in_the_store() {
    let redis = Redis::start();
    let hash = "turnstone:{revocations}";
    let ago = |secs: u64| format!("1 0 {} 0 0 0 0 0", unix_now() - secs);
    let id = |user: &str| format!(r#"{{"user":"{user}","realm":"turn.test"}} 0a1b"#);
    redis.ask(&["HSET", hash, &id("hour"), &ago(600), &id("days"), &ago(3 * 86_400), &id("years"), &ago(99_999_999)]);
    let one = start(&redis);
    wait_until("what is long over to be forgotten", LIMIT, || (redis.ask(&["HLEN", hash]) == "1").then_some(()));
    assert_eq!(redis.ask(&["HKEYS", hash]), id("hour"));
    assert!(!is_refused(&one, "hour"));
}

#[test]
fn what_is_undone_while_the_store_is_slow_is_undone_everywhere() {
    let redis = Redis::start();
    let (one, other) = (start(&redis), start(&redis));
    revoke(&one, "before");
    wait_refused(&other, "before", true);
    redis.pause();
    // The store has this in its buffer, and carries it out later.
    assert_eq!(turnstone(&one, &["revoke", "--user", "frozen"]).code, Some(1));
    assert!(is_refused(&one, "frozen"));
    for user in ["frozen", "before"] {
        assert_eq!(turnstone(&one, &["revoke", "--user", user, "--undo"]).code, Some(1));
        assert!(!is_refused(&one, user) && !listed(&one).contains(user));
    }
    redis.resume();
    wait_connected(&one, true);
    wait_connected(&other, true);
    wait_refused(&other, "before", false);
    revoke(&one, "after");
    wait_refused(&other, "after", true);
    for round in 0..20 {
        for (server, user) in [(&one, "frozen"), (&other, "frozen"), (&one, "before"), (&other, "before")] {
            assert!(!is_refused(server, user), "{round} {user}");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_store_without_room_is_told_to_who_revokes_and_what_is_known_already_is_changed_still() {
    let redis = Redis::start();
    let (one, other) = (start(&redis), start(&redis));
    revoke(&one, "alice");
    wait_refused(&other, "alice", true);
    let script = "for i = 1, 65535 do
            redis.call('HSET', KEYS[1], '{\"user\":\"' .. i .. '\",\"realm\":\"b.test\"} 0a1b', '1 0 99999999999 0 0 0 0 0')
        end";
    redis.ask(&["EVAL", script, "1", "turnstone:{revocations}"]);
    wait_in_force(&[&one, &other], 65_536);
    let told = turnstone(&one, &["revoke", "--user", "mallory"]);
    assert!(told.code == Some(1) && told.stderr.contains("not on the other servers yet"), "{told:?}");
    assert!(is_refused(&one, "mallory"), "here at least");
    wait_until("it to be told", LIMIT, || {
        let problem = store_status(&one)["problems"]["revocations-written"].to_string();
        problem.contains("it has room for 65536 entries, and none for 1 more").then_some(())
    });
    let undone = turnstone(&one, &["revoke", "--user", "alice", "--undo"]);
    assert_eq!(undone.code, Some(0), "{undone:?}");
    wait_refused(&other, "alice", false);
    assert!(is_refused(&one, "mallory") && !is_refused(&one, "alice"));
}

/// Waits until so much is in force of the store by servers, which answer nobody while they take all of a full one.
fn wait_in_force(servers: &[&TestServer], count: u64) {
    for server in servers {
        wait_until("all of it to be in force", 4 * LIMIT, || {
            let said = turnstone(server, &["store", "status", "--json"]).stdout;
            let status: Value = serde_json::from_str(&said).ok()?;
            (status["revocations"] == count).then_some(())
        });
    }
}

#[test]
fn something_else_in_place_of_revocations_is_told_with_what_helps() {
    let redis = Redis::start();
    let one = start(&redis);
    revoke(&one, "alice");
    let hash = "turnstone:{revocations}";
    redis.ask(&["DEL", hash]);
    redis.ask(&["ZADD", hash, "1", "alice"]);
    assert_eq!(revoke(&one, "bob")["shared"], false);
    let helps = "DEL both, and servers put there again what they know";
    for part in ["revocations-written", "revocations-read"] {
        wait_until(part, LIMIT, || store_status(&one)["problems"][part].to_string().contains(helps).then_some(()));
    }
    assert!(doctor(&one).contains(helps), "{}", doctor(&one));
    redis.ask(&["DEL", hash, "turnstone:{revocations}:log"]);
    wait_until("the store to have it again", LIMIT, || (redis.ask(&["HLEN", hash]) == "2").then_some(()));
}

/// Entries that the credentials API has asked for, in another realm, until so many seconds after 1970; and one more that is in force.
fn fill(redis: &Redis, count: usize, until_unix: u64) {
    let script = format!(
        "for i = 1, {count} do
            redis.call('HSET', KEYS[1], '{{\"user\":\"' .. i .. '\",\"realm\":\"b.test\"}} 0a1b:api', '1 0 {until_unix} 0 0 0 0 0')
        end
        redis.call('HSET', KEYS[1], '{{\"user\":\"bob\",\"realm\":\"b.test\"}} 0a1b:api', '1 0 99999999999 0 0 0 0 0')"
    );
    redis.ask(&["EVAL", &script, "1", "turnstone:{revocations}"]);
}

#[test]
fn what_applications_have_revoked_gives_way_to_the_operator() {
    let redis = Redis::start();
    let (one, other) = (start(&redis), start(&redis));
    fill(&redis, 65_535, 99_999_999_999);
    wait_in_force(&[&one, &other], 65_536);
    wait_until("it to be shared", LIMIT, || (revoke(&one, "mallory")["shared"] == true).then_some(()));
    wait_refused(&other, "mallory", true);
    assert_eq!(redis.ask(&["HLEN", "turnstone:{revocations}"]), "65536");
    // What gave way is in force still, where it is known, and that is told.
    wait_in_force(&[&one, &other], 65_537);
    wait_until("it to be told", LIMIT, || {
        let problem = store_status(&one)["problems"]["revocations-written"].to_string();
        problem.contains("none for 1 more, which are in force where they are known").then_some(())
    });
}

#[test]
fn what_is_over_of_one_realm_takes_no_room_from_applications_of_another() {
    let redis = Redis::start();
    fill(&redis, 32_767, unix_now() - 60);
    let one = with_credentials(&redis).start();
    wait_in_force(&[&one], 1);
    let answer = revoke_by_label(&one, "alice");
    assert!(answer.stdout.contains("\"deleted\":1"), "{answer:?}");
    assert!(is_refused(&one, "alice"));
    let len = redis.ask(&["HLEN", "turnstone:{revocations}"]);
    assert_eq!(len, "31769", "a thousand of them have given way");
}

#[test]
fn what_is_revoked_stays_in_its_realm_when_another_one_is_that_of_auth() {
    let redis = Redis::start();
    let state = tempfile::tempdir().unwrap();
    let state = state.path().join("state").display().to_string();
    for store in [format!("[store]\nurl = \"{}\"\n", redis.url()), String::new()] {
        let mut spec = with_store("url = \"redis://127.0.0.1:1\"");
        spec.extra_toml = format!("[admin]\nlisten = \"unix:admin.sock\"\n{store}");
        spec.top_toml = format!("state-directory = \"{state}{}\"", store.len());
        let one = spec.start();
        assert!(turnstone(&one, &["revoke", "--user", "kim"]).code.is_some());
        assert!(is_refused(&one, "kim"));
        let file = one.file("turnserver.toml");
        let before = std::fs::read_to_string(&file).unwrap();
        assert!(before.contains("realm = \"turn.test\""), "{before}");
        std::fs::write(&file, before.replace("realm = \"turn.test\"", "realm = \"b.test\"")).unwrap();
        one.signal(Signal::HUP);
        wait_until("the other realm", LIMIT, || listed(&one).contains("turn.test").then_some(()));
        assert!(turnstone(&one, &["revoke", "--user", "kim", "--undo"]).stdout.contains("is not revoked"));
    }
}
