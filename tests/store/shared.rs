//! What servers share: secrets, users, and the key of nonces; in our own layout and in coturn's.

use std::net::UdpSocket;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use turnstone::client::{Client, Credential, Event, Request};

use crate::redis::Redis;
use crate::support::{Credentials, Spec, TestServer, run, time_limited, wait_until};
use crate::{LIMIT, allocate, metric, store_status, wait_connected, with_store};

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
    for _ in 0..3 {
        assert_eq!(allocate(&server, &password("nobody", "guessed")).err(), Some(401));
    }
    assert!(metric(&server, "turnstone_store_users_total{result=\"unknown\"}") <= 2.0);
    let mut call = allocate(&server, &alice).unwrap();
    redis.pause();
    wait_connected(&server, false);
    // What the workers know of her is over.
    std::thread::sleep(Duration::from_millis(1100));
    allocate(&server, &alice).unwrap();
    assert!(call.refresh().is_ok());
    assert!(metric(&server, "turnstone_store_users_total{result=\"kept\"}") >= 1.0);
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
    let log = server.log();
    assert!(
        log.contains("a user in the store cannot be used") && !log.contains("hunter2") && !log.contains("her password")
    );
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
