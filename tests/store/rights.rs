//! The rights that docs/store.md gives to Turnstone's user are all that it needs, and one that lacks is told.

use std::process::Command;

use crate::redis::Redis;
use crate::support::{Credentials, TestServer, run, time_limited, wait_until};
use crate::{LIMIT, allocate, store_status, turnstone, wait_connected, with_store};

pub(crate) const PASSWORD: &str = "acl-password";
const SECRET: &str = "a-secret-of-the-store-0123456789";

/// The rules behind the name in the `ACL SETUSER` lines of the page, each as it is written there.
pub(crate) fn rules_of_the_page() -> Vec<Vec<String>> {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/store.md")).unwrap();
    let joined = page.replace("\\\n", " ");
    let lines = joined.lines().filter_map(|line| line.trim().strip_prefix("redis-cli ACL SETUSER turnstone "));
    let rules = |line: &str| {
        let words = line.split_whitespace().map(|word| word.trim_matches('\''));
        words.map(|word| word.replace(">PASSWORD", &format!(">{PASSWORD}"))).collect()
    };
    lines.map(rules).collect()
}

/// Gives the user these rules at a server.
pub(crate) fn grant(redis: &Redis, rules: &[String]) {
    let mut command = vec!["ACL", "SETUSER", "turnstone"];
    command.extend(rules.iter().map(String::as_str));
    assert_eq!(redis.ask(&command), "OK");
}

fn url(redis: &Redis) -> String {
    format!("url = \"redis://turnstone@127.0.0.1:{}\"\npassword = \"{PASSWORD}\"\n", redis.port)
}

/// What `turnstone doctor` says of the store.
pub(crate) fn doctor(server: &TestServer) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_turnstone"));
    command.args(["doctor", "--all", "--config", &server.file("turnserver.toml")]);
    let said = run(&mut command, LIMIT).all_output();
    said.lines().find(|line| line.contains("redis://")).unwrap_or_else(|| panic!("{said}")).to_owned()
}

fn is_well(server: &TestServer) {
    let shown = turnstone(server, &["store", "status"]);
    assert!(shown.code == Some(0) && !shown.stdout.contains("problem"), "{shown:?}");
    assert!(doctor(server).contains("does what servers ask of it"), "{}", doctor(server));
}

#[test]
fn the_rights_on_the_page_are_enough_and_one_that_lacks_is_told() {
    let redis = Redis::start();
    let rules = rules_of_the_page();
    grant(&redis, &rules[0]);
    redis.ask(&["HSET", "turnstone:secrets:turn.test", "a", SECRET]);
    redis.ask(&["HSET", "turnstone:users:turn.test", "erin", "her password"]);
    let store = url(&redis) + "lease = \"3s\"\n[quota]\nfleet-allocations-per-user = 4\n";
    let [one, other] = [0, 1].map(|_| with_store(&store).start());
    for server in [&one, &other] {
        wait_connected(server, true);
        wait_until("the secret, and the other server", LIMIT, || {
            let status = store_status(server);
            (status["secrets"] == 1 && status["leases"]["servers"] == 2).then_some(())
        });
        server.wait_for_log("nonces are made with the key");
        let erin = Credentials { username: "erin".to_owned(), password: "her password".to_owned() };
        allocate(server, &erin).unwrap();
        let ann = time_limited(SECRET, "ann", 600);
        wait_until("a share", LIMIT, || allocate(server, &ann).ok().map(drop));
    }
    for arguments in
        [&["revoke", "--user", "ann"][..], &["revoke", "--user", "bob"], &["revoke", "--user", "bob", "--undo"]]
    {
        let revoked = turnstone(&one, arguments);
        assert_eq!(revoked.code, Some(0), "{revoked:?}");
    }
    wait_until("the other to know", LIMIT, || {
        (allocate(&other, &time_limited(SECRET, "ann", 600)).err() == Some(401)).then_some(())
    });
    is_well(&one);
    is_well(&other);
    // Each of the commands is one that is needed: without it something is refused, and is told.
    for (command, part) in [
        ("hset", "quotas"),
        ("xread", "revocations-read"),
        ("hlen", "secrets"),
        ("getrange", "nonce-key"),
        ("memory|usage", "secrets"),
    ] {
        grant(&redis, &[format!("-{command}")]);
        wait_until(&format!("{command} to lack"), LIMIT, || store_status(&one)["problems"][part].as_str().map(drop));
        let shown = turnstone(&one, &["store", "status"]);
        assert!(shown.code == Some(1) && shown.stdout.contains(part), "{shown:?}");
        let problem = store_status(&one)["problems"][part].to_string();
        assert!(problem.contains("refuses"), "{problem}");
        assert_eq!(store_status(&one)["secrets"], 1, "{command}");
        assert!(turnstone(&one, &["status"]).stdout.contains("but there is a problem with"), "{command}");
        let judged = doctor(&one);
        assert!(judged.contains("refuses") && judged.contains("docs/store.md"), "{judged}");
        grant(&redis, &[format!("+{command}")]);
        wait_until(&format!("{command} to be back"), LIMIT, || {
            store_status(&one)["problems"].as_object().is_some_and(|problems| problems.is_empty()).then_some(())
        });
        let again = |line: &&str| line.contains("works again") && line.contains(part);
        assert!(one.log().lines().any(|line| again(&line)), "{part}: {}", one.log());
    }
    // Who has one of the servers has its password, and leaves behind neither a secret nor a user of his own.
    for written in [
        &["HSET", "turnstone:secrets:turn.test", "b", SECRET][..],
        &["HSET", "turnstone:users:turn.test", "eve", "her password"],
        &["DEL", "turnstone:secrets:turn.test"],
        &["SET", "turnstone:secrets:other.test", "b"],
        &["RENAME", "turnstone:q-nodes", "turnstone:users:turn.test"],
        &["FLUSHALL"],
        &["ACL", "LIST"],
    ] {
        assert!(as_turnstone(&redis, written).contains("NOPERM"), "{written:?}");
    }
    let script = "return redis.call('HSET', KEYS[1], 'eve', 'her password')";
    let loaded = as_turnstone(&redis, &["SCRIPT", "LOAD", script]);
    let by_script = as_turnstone(&redis, &["EVALSHA", loaded.trim(), "1", "turnstone:users:turn.test"]);
    assert!(by_script.contains("NOPERM"), "{by_script}");
    let unnamed = script.replace("KEYS[1]", "'turnstone:users:turn.test'");
    let loaded = as_turnstone(&redis, &["SCRIPT", "LOAD", &unnamed]);
    let by_script = as_turnstone(&redis, &["EVALSHA", loaded.trim(), "0"]);
    assert!(by_script.contains("can't access"), "{by_script}");
    assert_eq!(redis.ask(&["HKEYS", "turnstone:users:turn.test"]), "erin");
    // A user is asked for when a request needs him.
    grant(&redis, &["-hstrlen".to_owned()]);
    let frank = Credentials { username: "frank".to_owned(), password: "his password".to_owned() };
    assert_eq!(allocate(&one, &frank).err(), Some(500));
    assert!(store_status(&one)["problems"]["users"].to_string().contains("refuses"));
    assert!(doctor(&one).contains("refuses"), "{}", doctor(&one));
    grant(&redis, &["+hstrlen".to_owned()]);
    assert_eq!(allocate(&one, &frank).err(), Some(401));
    is_well(&one);
    // One that is full takes nothing more.
    redis.ask(&["CONFIG", "SET", "maxmemory", "1"]);
    wait_until("it to be full", LIMIT, || store_status(&one)["problems"]["quotas"].as_str().map(drop));
    for said in [turnstone(&one, &["store", "status"]).stdout, doctor(&one)] {
        assert!(said.contains("OOM"), "{said}");
    }
    assert_eq!(redis.ask(&["KEYS", "turnstone:doctor:*"]), "", "nothing of doctor is left");
    assert!(!one.log().contains(PASSWORD));
}

#[test]
fn coturns_keys_are_only_read() {
    let redis = Redis::start();
    let rules = rules_of_the_page();
    grant(&redis, &rules[0]);
    grant(&redis, &rules[1]);
    redis.ask(&["SADD", "turn/realm/turn.test/secret", SECRET]);
    redis.ask(&["SET", "turn/realm/turn.test/user/erin/password", "her password"]);
    let server = with_store(&(url(&redis) + "layout = \"coturn\"\n")).start();
    wait_until("the secret", LIMIT, || (store_status(&server)["secrets"] == 1).then_some(()));
    allocate(&server, &Credentials { username: "erin".to_owned(), password: "her password".to_owned() }).unwrap();
    is_well(&server);
    let written = as_turnstone(&redis, &["SET", "turn/realm/turn.test/user/erin/password", "guessed"]);
    assert!(written.contains("NOPERM"), "{written}");
    for command in ["scan", "smembers"] {
        grant(&redis, &[format!("-{command}")]);
        assert!(doctor(&server).contains("refuses"), "{command}: {}", doctor(&server));
        grant(&redis, &[format!("+{command}")]);
    }
}

/// What the store says to a server's user.
fn as_turnstone(redis: &Redis, command: &[&str]) -> String {
    let mut client = Command::new("redis-cli");
    client.args(["-p", &redis.port.to_string(), "--user", "turnstone", "--pass", PASSWORD, "--no-auth-warning"]);
    run(client.args(command), LIMIT).all_output()
}

#[test]
fn rights_are_changed_under_a_server_that_runs() {
    let redis = Redis::start();
    redis.ask(&["ACL", "SETUSER", "turnstone", "on", &format!(">{PASSWORD}"), "~turnstone:*", "+@all"]);
    let server = with_store(&url(&redis)).start();
    wait_connected(&server, true);
    grant(&redis, &rules_of_the_page()[0]);
    assert!(as_turnstone(&redis, &["SET", "turnstone:x", "y"]).contains("NOPERM"));
    redis.ask(&["HSET", "turnstone:secrets:turn.test", "a", SECRET]);
    wait_until("the secret", LIMIT, || (store_status(&server)["secrets"] == 1).then_some(()));
    assert_eq!(store_status(&server)["connections"], 1);
    is_well(&server);
}

#[test]
fn a_key_of_a_share_that_somebody_else_has_written_is_deleted() {
    let redis = Redis::start();
    let store = format!(
        "url = \"{}\"\nlease = \"3s\"\non-loss = \"refuse\"\n[quota]\nfleet-allocations-per-user = 4\n",
        redis.url()
    );
    let server = with_store(&store).start();
    wait_until("the store to share quotas", LIMIT, || (store_status(&server)["leases"]["servers"] == 1).then_some(()));
    redis.ask(&["SET", "turnstone:q:time-limited:turn.test:ann", "7"]);
    allocate(&server, &server.credentials("ann")).unwrap();
    assert_eq!(redis.ask(&["TYPE", "turnstone:q:time-limited:turn.test:ann"]), "hash");
    wait_until("it to be told", LIMIT, || server.log().contains("the key was deleted").then_some(()));
}
