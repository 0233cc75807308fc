//! What servers share: secrets, users, and the key of nonces; in our own layout and in coturn's.

use std::net::UdpSocket;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use turnstone::client::{Client, Credential, Event, Request};

use crate::redis::Redis;
use crate::rights::doctor;
use crate::support::{Credentials, Finished, Spec, TestServer, run, time_limited, wait_until};
use crate::wire::Wire;
use crate::{LIMIT, allocate, metric, store_status, turnstone, wait_connected, with_store};

const SECRET: &str = "a-secret-of-the-store-0123456789";

/// A server that has nobody but whom its store has.
fn knows_nobody(store: &str) -> Spec {
    Spec { knows_secret: false, ..with_store(store) }
}

fn wait_secrets(server: &TestServer, count: u64) {
    wait_until("the secrets", LIMIT, || (store_status(server)["secrets"] == count).then_some(()));
}

fn password(name: &str, password: &str) -> Credentials {
    Credentials { username: name.to_owned(), password: password.to_owned() }
}

#[test]
fn secrets_of_the_store_are_in_force_while_they_are_valid_and_outlive_its_loss() {
    let mut redis = Redis::start();
    let server = knows_nobody(&format!("url = \"{}\"", redis.url())).start();
    wait_connected(&server, true);
    assert_eq!(allocate(&server, &time_limited(SECRET, "alice", 600)).err(), Some(401));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    redis.ask(&["HSET", "turnstone:secrets:turn.test", "2026-11", SECRET]);
    let short = "another-secret-of-the-store-01234";
    redis.ask(&[
        "HSET",
        "turnstone:secrets:turn.test",
        "short",
        &format!(r#"{{"secret": "{short}", "valid_until": {}}}"#, now + 12),
    ]);
    // Those that are none are told, and hold up no other.
    redis.ask(&["HSET", "turnstone:secrets:turn.test", "guessed", "hunter2"]);
    wait_secrets(&server, 2);
    for secret in [SECRET, short] {
        let mut client = allocate(&server, &time_limited(secret, "alice", 600)).unwrap();
        assert!(client.refresh().is_ok());
    }
    wait_secrets(&server, 1);
    assert_eq!(allocate(&server, &time_limited(short, "bob", 600)).err(), Some(401));
    let mut call = allocate(&server, &time_limited(SECRET, "carol", 600)).unwrap();
    redis.kill();
    wait_connected(&server, false);
    assert!(call.refresh().is_ok(), "a call goes on");
    allocate(&server, &time_limited(SECRET, "dave", 600)).unwrap();
    // Emptied, it has no secrets any more.
    redis.start_again();
    wait_connected(&server, true);
    wait_secrets(&server, 0);
    assert_eq!(allocate(&server, &time_limited(SECRET, "erin", 600)).err(), Some(401));
    assert!(call.refresh().is_ok(), "a call goes on with the credential that made it");
    let log = server.log();
    assert!(log.contains("guessed"), "{log}");
    for secret in [SECRET, short, "hunter2"] {
        assert!(!log.contains(secret), "{log}");
    }
}

#[test]
fn secrets_that_are_over_do_not_count_and_too_many_leave_in_force_what_was() {
    let redis = Redis::start();
    let key = "turnstone:secrets:turn.test";
    let put = |first: u32, last: u32, valid_until: u64| {
        let value = format!(r#"{{"secret": "another-secret-0123456789", "valid_until": {valid_until}}}"#);
        let pairs: Vec<_> = (first..=last).flat_map(|id| [id.to_string(), value.clone()]).collect();
        redis.ask(&[vec!["HSET", key], pairs.iter().map(String::as_str).collect()].concat());
    };
    redis.ask(&["HSET", key, "good", SECRET]);
    put(1, 64, 1_600_000_000);
    let server = knows_nobody(&format!("url = \"{}\"", redis.url())).start();
    wait_secrets(&server, 1);
    let alice = time_limited(SECRET, "alice", 600);
    allocate(&server, &alice).unwrap();
    assert_eq!(store_status(&server)["problems"], serde_json::json!({}));
    let problem = || store_status(&server)["problems"]["secrets"].to_string();
    let latest = 4_000_000_000;
    put(1, 63, latest);
    wait_secrets(&server, 64);
    for (first, last, told) in
        [(64, 64, "65 secrets that are valid, more than 64"), (65, 256, "257 secrets, more than 256")]
    {
        put(first, last, latest);
        wait_until("too many to be told", LIMIT, || problem().contains(told).then_some(()));
        server.wait_for_log(told);
        assert_eq!(store_status(&server)["secrets"], 64);
        assert_eq!(metric(&server, "turnstone_store_problem{part=\"secrets\"}"), 1.0);
        allocate(&server, &alice).unwrap();
    }
    redis.ask(&["DEL", key]);
    redis.ask(&["HSET", key, "good", SECRET, "short", "hunter2"]);
    wait_secrets(&server, 1);
    assert!(problem().contains("short") && !problem().contains("hunter2"), "{}", problem());
    redis.ask(&["HDEL", key, "short"]);
    wait_until("all of them to be good", LIMIT, || (problem() == "null").then_some(()));
    allocate(&server, &alice).unwrap();
}

#[test]
fn the_credentials_api_mints_with_a_secret_of_the_store() {
    let redis = Redis::start();
    redis.ask(&["HSET", "turnstone:secrets:turn.test", "a", SECRET]);
    let key = "0123456789abcdef0123456789abcdef";
    let digest = run(Command::new("sh").args(["-c", &format!("printf %s {key} | sha256sum")]), LIMIT).stdout;
    let mut spec = knows_nobody(&format!("url = \"{}\"", redis.url()));
    spec.extra_toml += &format!(
        "[credentials]\nlisten = \"unix:credentials.sock\"\ntls = false\n[[credentials.keys]]\nid = \"app\"\nsha256 = \"{}\"\n",
        &digest[..64]
    );
    let server = spec.start();
    wait_secrets(&server, 1);
    let mut curl = Command::new("curl");
    curl.args([
        "-sS",
        "--unix-socket",
        &server.file("credentials.sock"),
        "-H",
        &format!("Authorization: Bearer {key}"),
    ]);
    curl.args([
        "-d",
        r#"{"user": "alice"}"#,
        "-H",
        "Content-Type: application/json",
        "http://localhost/v1/credentials",
    ]);
    let answer: serde_json::Value = serde_json::from_str(&run(&mut curl, LIMIT).stdout).unwrap();
    let text = |field: &str| answer[field].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned();
    allocate(&server, &password(&text("username"), &text("credential"))).unwrap();
}

#[test]
fn users_of_the_store_are_looked_up_kept_for_its_loss_and_strangers_are_asked_about_once() {
    let redis = Redis::start();
    let server = knows_nobody(&format!("url = \"{}\"\nknown-for = \"1s\"\nunknown-for = \"2s\"", redis.url())).start();
    wait_connected(&server, true);
    let users = "turnstone:users:turn.test";
    redis.ask(&["HSET", users, "alice", "her password"]);
    redis.ask(&["HSET", users, "limited", r#"{"password": "his password", "alloc": 1}"#]);
    let hash = turnstone_hash("bob", "bobs password");
    redis.ask(&["HSET", users, "bob", &hash]);
    redis.ask(&["HSET", users, "broken", r#"{"pasword": "hunter2"}"#]);
    let alice = password("alice", "her password");
    allocate(&server, &alice).unwrap();
    allocate(&server, &password("bob", "bobs password")).unwrap();
    let _first = allocate(&server, &password("limited", "his password")).unwrap();
    assert_eq!(allocate(&server, &password("limited", "his password")).err(), Some(486));
    assert_eq!(allocate(&server, &password("alice", "guessed")).err(), Some(401));
    assert_eq!(allocate(&server, &password("broken", "hunter2")).err(), Some(500));
    let problem = || store_status(&server)["problems"]["user-values"].to_string();
    for text in ["broken", "turn.test", "unknown field pasword"] {
        assert!(problem().contains(text) && !problem().contains("hunter2"), "{}", problem());
    }
    // The store refuses nothing by that, and it is over when he is found to be good.
    assert!(store_status(&server)["problems"]["users"].is_null());
    assert_eq!(metric(&server, "turnstone_store_problem{part=\"user-values\"}"), 1.0);
    redis.ask(&["HSET", users, "broken", "hunter2"]);
    allocate(&server, &password("broken", "hunter2")).unwrap();
    assert_eq!(problem(), "null");
    for _ in 0..3 {
        assert_eq!(allocate(&server, &password("nobody", "guessed")).err(), Some(401));
    }
    assert!(metric(&server, "turnstone_store_users_total{result=\"unknown\"}") <= 2.0);
    let mut call = allocate(&server, &alice).unwrap();
    redis.pause();
    wait_connected(&server, false);
    // Once what the workers know of her is over.
    wait_until("a user who was found last", LIMIT, || {
        allocate(&server, &alice).unwrap();
        (metric(&server, "turnstone_store_users_total{result=\"kept\"}") >= 1.0).then_some(())
    });
    assert!(call.refresh().is_ok());
    assert_eq!(allocate(&server, &password("stranger", "guessed")).err(), Some(500));
    redis.resume();
    wait_connected(&server, true);
    // A new password is in force, and so is the end of a user.
    redis.ask(&["HSET", users, "alice", "her new password"]);
    redis.ask(&["HDEL", users, "bob"]);
    wait_until("the new password", LIMIT, || allocate(&server, &password("alice", "her new password")).ok().map(drop));
    wait_until("the end of bob", LIMIT, || {
        (allocate(&server, &password("bob", "bobs password")).err() == Some(401)).then_some(())
    });
    server.wait_for_log("a user in the store cannot be used");
    let log = server.log();
    assert!(!log.contains("hunter2") && !log.contains("her password"));
    let told = log.lines().find(|line| line.contains("a user in the store cannot be used"));
    assert!(told.is_some_and(|line| line.contains("broken") && line.contains("turn.test")), "{log}");
}

#[test]
fn a_value_of_a_user_that_is_too_long_is_told_and_holds_up_nobody_else() {
    let redis = Redis::start();
    let put = |command: &str, arguments: &[&str], len: usize| {
        let script =
            format!("return redis.call('{command}', KEYS[1], {} string.rep('a', {len}))", arguments[1..].concat());
        redis.ask(&["EVAL", &script, "1", arguments[0]]);
    };
    for layout in ["turnstone", "coturn"] {
        let settings = format!("url = \"{}\"\nlayout = \"{layout}\"\nknown-for = \"1s\"", redis.url());
        let server = knows_nobody(&settings).start();
        wait_connected(&server, true);
        for (name, len) in [("alice", 500), ("long", 4097), ("huge", 4 << 20)] {
            match layout {
                "turnstone" => put("HSET", &["turnstone:users:turn.test", &format!("'{name}',")], len),
                _ => put("SET", &[&format!("turn/realm/turn.test/user/{name}/password")], len),
            }
        }
        let alice = password("alice", &"a".repeat(500));
        allocate(&server, &alice).unwrap();
        for round in 0..3 {
            for name in ["long", "huge"] {
                assert_eq!(allocate(&server, &password(name, "guessed")).err(), Some(500), "{layout} {round} {name}");
            }
            allocate(&server, &alice).unwrap();
            assert_eq!(allocate(&server, &password("nobody", "guessed")).err(), Some(401));
        }
        assert_eq!(store_status(&server)["connections"], 1, "{}", server.log());
        server.wait_for_log("a value of at most 4096 bytes");
        assert_eq!(allocate(&server, &password("huge", "guessed")).err(), Some(500));
        let problem = store_status(&server)["problems"]["user-values"].as_str().map(str::to_owned).unwrap_or_default();
        assert!(problem.contains("the user \"huge\""), "{problem}");
    }
}

/// Both keys, as `turnstone credentials hash` makes them.
fn turnstone_hash(name: &str, password: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_turnstone"));
    command.args(["credentials", "hash", "--realm", "turn.test", "--user", name]);
    let finished = crate::support::run_with_input(&mut command, &format!("{password}\n"), LIMIT);
    let line = finished.stdout.trim().to_owned();
    line.rsplit_once(':').unwrap_or_else(|| panic!("{finished:?}")).1.to_owned()
}

#[test]
fn what_turnadmin_writes_for_coturn_is_used_as_it_is() {
    let redis = Redis::start();
    let userdb = format!("ip=127.0.0.1 port={} dbname=0", redis.port);
    let turnadmin = |arguments: &[&str]| {
        let finished = run(Command::new("turnadmin").args(["-N", &userdb]).args(arguments), LIMIT);
        assert_eq!(finished.code, Some(0), "{finished:?}");
    };
    turnadmin(&["-a", "-u", "alice", "-r", "turn.test", "-p", "her password"]);
    turnadmin(&["-s", SECRET, "-r", "turn.test"]);
    redis.ask(&["SET", "turn/realm/turn.test/user/bob/password", "bobs password"]);
    redis.ask(&["SET", "turn/user/carol/password", "carols password"]);
    let server = knows_nobody(&format!("url = \"{}\"\nlayout = \"coturn\"", redis.url())).start();
    wait_secrets(&server, 1);
    for (name, secret) in [("alice", "her password"), ("bob", "bobs password"), ("carol", "carols password")] {
        allocate(&server, &password(name, secret)).unwrap();
        assert_eq!(allocate(&server, &password(name, "guessed")).err(), Some(401));
    }
    allocate(&server, &time_limited(SECRET, "dave", 600)).unwrap();
    turnadmin(&["-d", "-u", "alice", "-r", "turn.test"]);
    turnadmin(&["-X", SECRET, "-r", "turn.test"]);
    wait_secrets(&server, 0);
    assert_eq!(allocate(&server, &time_limited(SECRET, "dave", 600)).err(), Some(401));
    assert!(
        turnstone(&server, &["store", "status"]).stdout.contains("turnstone:..., users and secrets in turn/realm/...")
    );
    // A realm that has users alone is as it should be; one that has neither is told, and so is that it was emptied.
    let other = knows_nobody(&format!("url = \"{}\"\nlayout = \"coturn\"", redis.url())).start();
    wait_connected(&other, true);
    let problem = |server: &TestServer| store_status(server)["problems"]["secrets"].clone();
    wait_until("the emptied one to be told", LIMIT, || problem(&server).is_string().then_some(()));
    assert!(problem(&other).is_null() && doctor(&other).contains("does what servers ask of it"));
    redis.ask(&["DEL", "turn/user/carol/password"]);
    redis.ask(&["SET", "turn/realm/other.test/user/eve/password", "hers"]);
    assert!(doctor(&other).contains("does what servers ask of it"), "bob is there");
    redis.ask(&["DEL", "turn/realm/turn.test/user/bob/password"]);
    wait_until("it to be told", LIMIT, || problem(&other).is_string().then_some(()));
    let judged = doctor(&other);
    assert!(judged.contains("neither a secret nor a user for the realm \"turn.test\""), "{judged}");
}

#[test]
fn a_nonce_of_one_server_is_good_at_the_other() {
    let redis = Redis::start();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("nonce-key");
    crate::connection::write_secret(&file, "a-key-of-nonces-0123456789\n");
    let with_file = format!(
        "workers = 1\n[[listen]]\naddress = \"127.0.0.1:0\"\ntransport = \"udp\"\n[relay]\nipv4 = \"127.0.0.1\"\nipv6 = \"off\"\n\
         ports = \"10000-29999\"\n[auth]\nrealm = \"turn.test\"\nnonce-key-file = {file:?}\n[[auth.secrets]]\nfile = \"@DIR@/secret\"\n"
    );
    let of_store = || with_store(&format!("url = \"{}\"", redis.url())).start();
    for is_store in [true, false] {
        let servers = [0, 1].map(|_| if is_store { of_store() } else { TestServer::start(&with_file) });
        if is_store {
            for server in &servers {
                wait_connected(server, true);
                wait_until("the key", LIMIT, || server.log().contains("nonces are made with the key").then_some(()));
            }
        }
        let [one, other] = &servers;
        let credentials = one.credentials("alice");
        moves_between(one, other, &credentials);
        if is_store {
            // Emptied, the store is given the same key again; another one is taken over by all.
            redis.ask(&["FLUSHALL"]);
            wait_until("the key to be back", LIMIT, || {
                (redis.ask(&["EXISTS", "turnstone:nonce-key"]) == "1").then_some(())
            });
            moves_between(one, other, &credentials);
            redis.ask(&["SET", "turnstone:nonce-key", "another-key-of-nonces-0123456789"]);
            for server in &servers {
                let times = || server.log().matches("nonces are made with the key").count();
                wait_until("the other key", LIMIT, || (times() == 2).then_some(()));
            }
            moves_between(other, one, &credentials);
        }
    }
    // By themselves, servers have keys of their own.
    let [one, other] = [0, 1].map(|_| Spec { workers: 1, ..Spec::local() }.start());
    assert!(!is_taken(&one, &other, &one.credentials("alice")));
}

/// A client is challenged by one server and allocates at the other, as behind an anycast address.
fn moves_between(one: &TestServer, other: &TestServer, credentials: &Credentials) {
    assert!(is_taken(one, other, credentials), "the nonce is stale there");
}

/// Whether an Allocate with the nonce of one server makes an allocation at another.
fn is_taken(one: &TestServer, other: &TestServer, credentials: &Credentials) -> bool {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    let Credentials { username, password } = credentials.clone();
    let credential = Credential { username, password: password.into(), sha256: false };
    let mut client = Client::new(Some(Arc::new(credential)), [7; 16]);
    let (mut out, mut buffer) = (Vec::new(), [0; 2048]);
    client.start(Request::Allocate { family: None, lifetime_secs: None }, &mut out);
    let mut answer = |client: &mut Client, server: &TestServer, request: &mut Vec<u8>| {
        socket.send_to(request, server.udp()).unwrap();
        request.clear();
        let len = socket.recv(&mut buffer).unwrap();
        client.receive(&buffer[..len], request)
    };
    assert!(matches!(answer(&mut client, one, &mut out), Ok(Event::Retry)), "the challenge");
    match answer(&mut client, other, &mut out) {
        Ok(Event::Done(_)) => true,
        Ok(Event::Retry) => false,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_store_that_was_emptied_is_told_until_it_has_its_secrets_again() {
    let redis = Redis::start();
    let secrets = "turnstone:secrets:turn.test";
    redis.ask(&["HSET", secrets, "a", SECRET]);
    let server = knows_nobody(&format!("url = \"{}\"", redis.url())).start();
    wait_secrets(&server, 1);
    let alice = time_limited(SECRET, "alice", 600);
    allocate(&server, &alice).unwrap();
    let is_told = || store_status(&server)["problems"]["secrets"].is_string();
    assert!(!is_told() && !server.log().contains("no secret is in force"));
    assert!(doctor(&server).contains("does what servers ask of it"));
    redis.ask(&["FLUSHALL"]);
    wait_until("it to be told", LIMIT, || is_told().then_some(()));
    let shown = turnstone(&server, &["store", "status"]);
    let problem = "no secret is in force: the store has none for the realm \"turn.test\"";
    assert!(shown.code == Some(1) && shown.stdout.contains(problem), "{shown:?}");
    server.wait_for_log("no secret is in force");
    let log = server.log();
    let warning = log.lines().find(|line| line.contains("no secret is in force"));
    assert!(warning.is_some_and(|line| line.contains("WARN") && line.contains("turn.test")), "{log}");
    let judged = doctor(&server);
    assert!(judged.contains("neither a secret nor a user for the realm \"turn.test\""), "{judged}");
    assert_eq!(allocate(&server, &alice).err(), Some(401));
    let explained = turnstone(&server, &["explain", "alice"]).stdout;
    assert!(explained.contains("no shared secret to judge it by"), "{explained}");
    redis.ask(&["HSET", secrets, "a", SECRET]);
    wait_until("all to be well", LIMIT, || (!is_told()).then_some(()));
    allocate(&server, &alice).unwrap();
    assert_eq!(turnstone(&server, &["store", "status"]).code, Some(0));
    assert_eq!(server.log().matches("no secret is in force").count(), 1);
}

#[test]
fn a_store_that_has_users_and_no_secrets_is_not_told_of_and_one_that_has_nobody_is() {
    let redis = Redis::start();
    redis.ask(&["HSET", "turnstone:users:turn.test", "alice", "her password"]);
    let server = knows_nobody(&format!("url = \"{}\"", redis.url())).start();
    wait_connected(&server, true);
    allocate(&server, &password("alice", "her password")).unwrap();
    wait_until("the store to be followed", LIMIT, || {
        server.log().contains("nonces are made with the key").then_some(())
    });
    assert_eq!(turnstone(&server, &["store", "status"]).code, Some(0));
    assert!(doctor(&server).contains("does what servers ask of it"));
    redis.ask(&["DEL", "turnstone:users:turn.test"]);
    wait_until("it to be told", LIMIT, || store_status(&server)["problems"]["secrets"].as_str().map(drop));
}

#[test]
fn what_is_put_there_with_the_end_of_a_line_is_good_without_it() {
    let redis = Redis::start();
    redis.ask(&["HSET", "turnstone:secrets:turn.test", "a", &format!("{SECRET}\n")]);
    let users = "turnstone:users:turn.test";
    redis.ask(&["HSET", users, "alice", "her password\n"]);
    redis.ask(&["HSET", users, "bob", &format!("{}\r\n", turnstone_hash("bob", "bobs password"))]);
    let server = knows_nobody(&format!("url = \"{}\"", redis.url())).start();
    wait_secrets(&server, 1);
    allocate(&server, &time_limited(SECRET, "carol", 600)).unwrap();
    allocate(&server, &password("alice", "her password")).unwrap();
    allocate(&server, &password("bob", "bobs password")).unwrap();
}

#[test]
fn verify_asks_the_store_and_says_what_it_cannot_know() {
    let redis = Redis::start();
    redis.ask(&["HSET", "turnstone:secrets:turn.test", "a", SECRET]);
    redis.ask(&["HSET", "turnstone:users:turn.test", "alice", "her password"]);
    let server = knows_nobody(&format!("url = \"{}\"", redis.url())).start();
    wait_secrets(&server, 1);
    let carol = time_limited(SECRET, "carol", 600);
    let alice = password("alice", "her password");
    let verify = |of: &Credentials, more: &[&str]| {
        let file = server.file("turnserver.toml");
        let args = ["credentials", "verify", &of.username, &of.password, "--config", &file];
        run(Command::new(env!("CARGO_BIN_EXE_turnstone")).args(args).args(more), LIMIT)
    };
    let is = |finished: Finished, code: i32, text: &str| {
        assert!(finished.code == Some(code) && finished.stdout.starts_with(text), "{code} {text}: {finished:?}");
    };
    is(verify(&carol, &[]), 0, "valid: ");
    is(verify(&alice, &[]), 0, "valid: user \"alice\" of the store");
    is(verify(&password("alice", "guessed"), &[]), 1, "not valid: the store has this user");
    is(verify(&password("nobody", "guessed"), &[]), 1, "not valid: ");
    is(verify(&time_limited("another-secret-0123456789", "carol", 600), &[]), 1, "not valid: ");
    for of in [&carol, &alice] {
        is(verify(of, &["--offline"]), 3, "not known here: the configuration knows nobody");
    }
    assert!(verify(&carol, &["--offline", "--json"]).stdout.contains("\"valid\": null"));
    for user in ["carol", "alice"] {
        assert_eq!(turnstone(&server, &["revoke", "--user", user]).code, Some(0));
    }
    // The server knows what is revoked while the store does not answer, too.
    for is_paused in [false, true] {
        if is_paused {
            redis.pause();
        }
        for of in [&carol, &alice] {
            let told = verify(of, &[]);
            assert!(told.stdout.contains(" is revoked until 20"), "{told:?}");
            is(told, 1, "not valid: ");
        }
    }
    let told = verify(&password("dave", "his password"), &[]);
    assert!(told.stdout.contains("the store may have the user"), "{told:?}");
    is(told, 3, "not known here: ");
    redis.resume();
    let file = server.file("turnserver.toml");
    let mut credentials = Command::new(env!("CARGO_BIN_EXE_turnstone"));
    let told = run(credentials.args(["credentials", "--user", "erin", "--config", &file]), LIMIT);
    let how = "redis-cli HGET 'turnstone:secrets:turn.test' ID | turnstone credentials --user NAME --secret-stdin";
    assert!(told.code == Some(2) && told.stderr.contains(how), "{told:?}");
    // As it says.
    let mut credentials = Command::new(env!("CARGO_BIN_EXE_turnstone"));
    credentials.args(["credentials", "--user", "erin", "--secret-stdin", "--json", "--config", &file]);
    let secret = redis.ask(&["HGET", "turnstone:secrets:turn.test", "a"]);
    let made = crate::support::run_with_input(&mut credentials, &secret, LIMIT).stdout;
    let made: serde_json::Value = serde_json::from_str(&made).unwrap();
    let text = |field: &str| made[field].as_str().unwrap_or_else(|| panic!("{made}")).to_owned();
    allocate(&server, &password(&text("username"), &text("password"))).unwrap();
}

#[test]
fn a_secret_that_is_moved_to_another_realm_or_deleted_among_too_many_is_out_of_force() {
    let redis = Redis::start();
    let [here, there] = ["turn.test", "other.test"].map(|realm| format!("turnstone:secrets:{realm}"));
    redis.ask(&["HSET", &here, "good", SECRET]);
    let mut spec = knows_nobody(&format!("url = \"{}\"", redis.url()));
    spec.extra_toml += "[[listen]]\naddress = \"127.0.0.2:0\"\ntransport = \"udp\"\nrealm = \"other.test\"\n[[realm]]\nname = \"other.test\"\n";
    let server = spec.start();
    wait_secrets(&server, 1);
    let is_second = |address: &std::net::SocketAddr| address.ip().to_string() == "127.0.0.2";
    let second = server.listeners().iter().map(|(_, address)| *address).find(is_second).unwrap();
    let alice = time_limited(SECRET, "alice", 600);
    let refused = || {
        // Strangers are not answered for ever.
        std::thread::sleep(Duration::from_millis(100));
        [allocate(&server, &alice).err(), Wire::over_udp(second, &alice).allocate().err()]
    };
    assert_eq!(refused(), [None, Some(401)]);
    let moves = "redis.call('HDEL', KEYS[1], 'good') redis.call('HSET', KEYS[2], 'good', ARGV[1])";
    for (from, to, is) in [(&here, &there, [Some(401), None]), (&there, &here, [None, Some(401)])] {
        redis.ask(&["EVAL", moves, "2", from, to, SECRET]);
        wait_until("the other realm to have it", LIMIT, || (refused() == is).then_some(()));
    }
    let value = "another-secret-0123456789";
    let pairs: Vec<_> = (0..66).flat_map(|id: u32| [id.to_string(), value.to_owned()]).collect();
    redis.ask(&[vec!["HSET", &here], pairs.iter().map(String::as_str).collect()].concat());
    let problem = || store_status(&server)["problems"]["secrets"].to_string();
    wait_until("too many to be told", LIMIT, || problem().contains("67 secrets that are valid").then_some(()));
    assert_eq!(refused(), [None, Some(401)]);
    redis.ask(&["HDEL", &here, "good"]);
    wait_until("it to be out of force", LIMIT, || (refused() == [Some(401); 2]).then_some(()));
    assert!(problem().contains("66 secrets that are valid"), "{}", problem());
}

#[test]
fn doctor_tries_a_listener_with_a_secret_of_the_store_and_status_says_that_a_reload_was_refused() {
    let redis = Redis::start();
    redis.ask(&["HSET", "turnstone:secrets:turn.test", "a", SECRET]);
    let server = knows_nobody(&format!("url = \"{}\"", redis.url())).start();
    wait_secrets(&server, 1);
    let file = server.file("turnserver.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let udp = |port: u16| format!("address = \"127.0.0.1:{port}\"\ntransport = \"udp\"");
    let with_port = text.replace(&udp(0), &udp(server.udp().port()));
    std::fs::write(server.file("with-port.toml"), with_port).unwrap();
    let mut doctor = Command::new(env!("CARGO_BIN_EXE_turnstone"));
    let said = run(doctor.args(["doctor", "--all", "--config", &server.file("with-port.toml")]), LIMIT).all_output();
    assert!(!said.contains("no credential was given") && said.contains("allocate"), "{said}");
    let refused = || turnstone(&server, &["status"]).stdout.contains("the LAST RELOAD WAS REFUSED");
    assert!(!refused());
    for (is_wrong, text) in [(true, format!("{text}\n[nonsense]\n")), (false, text)] {
        std::fs::write(&file, text).unwrap();
        server.signal(rustix::process::Signal::HUP);
        wait_until("the reload", LIMIT, || (refused() == is_wrong).then_some(()));
    }
}
