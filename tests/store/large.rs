//! What is in the store and larger than it can be: it is told by its name, what was in force stays, and no connection ends.

use crate::redis::Redis;
use crate::rights::doctor;
use crate::support::{TestServer, time_limited, wait_until};
use crate::{LIMIT, allocate, metric, store_status, turnstone, wait_connected, with_store};

const SECRET: &str = "a-secret-of-the-store-0123456789";

/// Runs a command of which one argument is a text of so many bytes.
fn put(redis: &Redis, command: &str, key: &str, before: &[&str], len: usize) {
    let before: String = before.iter().map(|argument| format!(" '{argument}',")).collect();
    let script = format!("return redis.call('{command}', KEYS[1],{before} string.rep('a', {len}))");
    redis.ask(&["EVAL", &script, "1", key]);
}

fn problem(server: &TestServer, part: &str) -> String {
    store_status(server)["problems"][part].as_str().map(str::to_owned).unwrap_or_default()
}

/// It is told wherever the store's problems are.
fn is_told(server: &TestServer, part: &str, text: &str) {
    wait_until("it to be told", LIMIT, || problem(server, part).contains(text).then_some(()));
    assert!(server.log().contains(text), "{}", server.log());
    assert_eq!(metric(server, &format!("turnstone_store_problem{{part=\"{part}\"}}")), 1.0);
    assert_eq!(turnstone(server, &["store", "status"]).code, Some(1));
}

#[test]
fn secrets_and_a_key_of_nonces_that_are_too_large_leave_in_force_what_was() {
    for (layout, secrets) in [("turnstone", "turnstone:secrets:turn.test"), ("coturn", "turn/realm/turn.test/secret")] {
        let redis = Redis::start();
        match layout {
            "turnstone" => redis.ask(&["HSET", secrets, "a", SECRET]),
            _ => redis.ask(&["SADD", secrets, SECRET]),
        };
        let mut spec = with_store(&format!("url = \"{}\"\nlayout = \"{layout}\"", redis.url()));
        spec.knows_secret = false;
        let server = spec.start();
        wait_until("the secret", LIMIT, || (store_status(&server)["secrets"] == 1).then_some(()));
        let nonce_key = redis.ask(&["GET", "turnstone:nonce-key"]);
        assert!(doctor(&server).contains("does what servers ask of it"), "{}", doctor(&server));
        for len in [600 << 10, 3 << 20] {
            match layout {
                "turnstone" => put(&redis, "HSET", secrets, &["b"], len),
                _ => put(&redis, "SADD", secrets, &[], len),
            }
            is_told(&server, "secrets", "more than 524288; a secret has 1024 at most");
            put(&redis, "SET", "turnstone:nonce-key", &[], len);
            is_told(&server, "nonce-key", "a key of nonces of 16 to 4096 bytes");
            let judged = doctor(&server);
            assert!(
                judged.contains("fail") && judged.contains(secrets) && judged.contains("a key of nonces"),
                "{judged}"
            );
            allocate(&server, &time_limited(SECRET, "alice", 600)).unwrap();
            redis.ask(&["SET", "turnstone:nonce-key", &nonce_key]);
            match layout {
                "turnstone" => redis.ask(&["HDEL", secrets, "b"]),
                _ => redis.ask(&[
                    "EVAL",
                    &format!("return redis.call('SREM', KEYS[1], string.rep('a', {len}))"),
                    "1",
                    secrets,
                ]),
            };
            wait_until("all to be well", LIMIT, || {
                store_status(&server)["problems"].as_object().is_some_and(|problems| problems.is_empty()).then_some(())
            });
        }
        let status = store_status(&server);
        assert!(status["connections"] == 1 && status["secrets"] == 1, "{status}");
        assert_eq!(server.log().matches("nonces are made with the key").count(), 1, "{}", server.log());
        // One secret that is too long by itself is left out, as one that is too short is.
        match layout {
            "turnstone" => put(&redis, "HSET", secrets, &["b"], 1025),
            _ => put(&redis, "SADD", secrets, &[], 1025),
        }
        is_told(&server, "secrets", "the secret has more than 1024 bytes");
        assert_eq!(store_status(&server)["secrets"], 1);
        assert!(doctor(&server).contains("the secret has more than 1024 bytes"));
    }
}

#[test]
fn a_revocation_that_is_too_long_is_told_and_the_others_are_in_force() {
    let redis = Redis::start();
    let server = with_store(&format!("url = \"{}\"", redis.url())).start();
    wait_connected(&server, true);
    let set = "turnstone:{revocations}";
    let user = |name: &str| format!(r#"{{"user":"{name}","realm":"turn.test"}} 0a1b"#);
    let state = "1 0 9999999999 0 0 0 0 0";
    let is_refused = |name: &str| match allocate(&server, &server.credentials(name)) {
        Ok(_) => false,
        Err(code) => code == 401,
    };
    for len in [4097, 3 << 20] {
        let script = format!("return redis.call('HSET', KEYS[1], string.rep('a', {len}), 'b')");
        redis.ask(&["EVAL", &script, "1", set]);
        redis.ask(&["HSET", set, &user("alice"), state]);
        wait_until("it to be told", LIMIT, || {
            problem(&server, "revocations-in-force").contains("it is longer than 4096 bytes").then_some(())
        });
        wait_until("alice to be refused", LIMIT, || is_refused("alice").then_some(()));
        assert!(problem(&server, "revocations-in-force").contains("1 of what is revoked, the first \"aaaa"));
        assert_eq!(metric(&server, "turnstone_store_problem{part=\"revocations-in-force\"}"), 1.0);
        // By the stream as well.
        redis.ask(&["HSET", set, &user("bob"), state]);
        redis.ask(&["XADD", &format!("{set}:log"), "*", "entry", &user("bob"), "is", state]);
        wait_until("bob to be refused", LIMIT, || is_refused("bob").then_some(()));
        redis.ask(&["DEL", set]);
        wait_until("nothing to be told", LIMIT, || problem(&server, "revocations-in-force").is_empty().then_some(()));
    }
    // The others have heard of one in the stream alone.
    let log = format!("{set}:log");
    let script = "local long = string.rep('a', 5000)
        redis.call('HSET', KEYS[1], long, 'b')
        redis.call('XADD', KEYS[2], '*', 'entry', long, 'is', 'b')";
    redis.ask(&["EVAL", script, "2", set, &log]);
    wait_until("it to be told", LIMIT, || {
        problem(&server, "revocations-in-force").contains("it is longer than 4096 bytes").then_some(())
    });
    redis.ask(&["EVAL", "return redis.call('HDEL', KEYS[1], string.rep('a', 5000))", "1", set]);
    wait_until("nothing to be told", LIMIT, || problem(&server, "revocations-in-force").is_empty().then_some(()));
    assert_eq!(store_status(&server)["connections"], 1, "{}", server.log());
}
