//! What may be asked for, and what a key may.

use serde_json::{Value, json};

use crate::api::{Api, credentials};
use crate::support::{Credentials, TestServer, Transport};
use crate::wire::Wire;
use crate::{BOUND_KEY, KEY, PLAIN, config, key};

/// The code of the refusal that a credential gets, if any.
fn allocate(server: &TestServer, credentials: &Credentials) -> Result<(), u16> {
    Wire::connect(server, Transport::Udp, credentials).allocate().map(drop)
}

#[test]
fn a_credential_is_good_at_the_server_that_has_made_it_and_names_its_listeners() {
    let server = TestServer::start(&config(PLAIN, ""));
    let answered = Api::of(&server).ask(r#"{"user":"alice","ttl":600}"#);
    assert_eq!(answered.status, 201, "{}", answered.body);
    assert_eq!(answered.header("cache-control"), Some("no-store"));
    let answer = answered.json();
    assert_eq!(allocate(&server, &credentials(&answer)), Ok(()));
    let wrong = Credentials { password: "guessed".to_owned(), ..credentials(&answer) };
    assert_eq!(allocate(&server, &wrong), Err(401));
    let expires = answer["expires"].as_u64().unwrap();
    assert_eq!((answer["username"].clone(), answer["ttl"].clone()), (json!(format!("{expires}:alice")), json!(600)));
    let urls: Vec<_> = [
        format!("turn:{}?transport=udp", server.udp()),
        format!("turn:{}?transport=tcp", server.tcp()),
        format!("turns:{}?transport=tcp", server.tls()),
    ]
    .into();
    let expected = json!([{ "urls": urls, "username": answer["username"], "credential": answer["credential"] }]);
    assert_eq!(answer["iceServers"], expected);
}

#[test]
fn a_lifetime_that_nobody_names_is_half_a_day_or_the_key_s() {
    let server = TestServer::start(&config(PLAIN, ""));
    let api = Api::of(&server);
    assert_eq!(api.ask(r#"{"user":"alice"}"#).json()["ttl"], 43_200);
    assert_eq!(api.ask_with(BOUND_KEY, "", r#"{"user":"b-1"}"#).json()["ttl"], 600);
}

#[test]
fn what_cannot_be_had_is_named_with_the_field() {
    let server = TestServer::start(&config(PLAIN, ""));
    let api = Api::of(&server);
    let long = format!(r#"{{"user":"{}"}}"#, "a".repeat(600));
    for (body, message) in [
        ("", "user is missing"),
        ("{", "the body is not JSON"),
        ("[]", "the body is not a JSON object"),
        ("{}", "user is missing"),
        (r#"{"user":7}"#, "user is not a text"),
        (r#"{"user":""}"#, "user: \"\" is empty"),
        (r#"{"user":"a\nb"}"#, "user: \"a\\nb\" is empty, too long, or has a character"),
        (r#"{"user":"a\u202eb"}"#, "user: "),
        (&long, "user: "),
        (r#"{"user":"a","ttl":0}"#, "ttl: expected a whole number of seconds"),
        (r#"{"user":"a","ttl":"1h"}"#, "ttl: expected a whole number of seconds"),
        (r#"{"user":"a","ttl":-1}"#, "ttl: expected"),
        (r#"{"user":"a","ttl":1.5}"#, "ttl: expected"),
        (r#"{"user":"a","tll":60}"#, "unknown field \"tll\"; expected user, ttl"),
        (
            r#"{"user":"a","bw":"2M"}"#,
            "bw: the server would take it for a part of the user's name; set username-limits",
        ),
    ] {
        let answered = api.ask(body);
        assert_eq!((answered.status, answered.code().as_str()), (400, "bad_request"), "{body}: {}", answered.body);
        assert!(answered.message().starts_with(message), "{body}: {}", answered.message());
    }
    for (body, code) in [
        (r#"{"user":"a","ttl":86401}"#, "ttl_not_allowed"),
        (r#"{"user":"a","ttl":18446744073709551615}"#, "ttl_not_allowed"),
        (r#"{"user":"a","realm":"other"}"#, "realm_not_allowed"),
    ] {
        let answered = api.ask(body);
        assert_eq!((answered.status, answered.code().as_str()), (403, code), "{body}");
    }
    let headers = format!("Authorization: Bearer {KEY}\r\nContent-Type: text/plain\r\n");
    let answered = api.send("POST", "/v1/credentials", &headers, r#"{"user":"a"}"#);
    assert_eq!((answered.status, answered.code().as_str()), (415, "unsupported_media_type"));
    let headers = format!("Authorization: Bearer {KEY}\r\nContent-Type: application/json; charset=utf-8\r\n");
    assert_eq!(api.send("POST", "/v1/credentials", &headers, r#"{"user":"a"}"#).status, 201);
}

#[test]
fn a_key_is_bound_to_its_lifetime_names_and_rate() {
    let server = TestServer::start(&config(PLAIN, ""));
    let api = Api::of(&server);
    let ask = |body: &str| api.ask_with(BOUND_KEY, "", body);
    let refused = ask(r#"{"user":"b-1","ttl":601}"#);
    assert_eq!((refused.status, refused.code().as_str()), (403, "ttl_not_allowed"));
    assert!(refused.message().contains("more than the 600"), "{}", refused.message());
    let refused = ask(r#"{"user":"alice"}"#);
    assert_eq!((refused.status, refused.code().as_str()), (403, "user_not_allowed"));
    assert!(refused.message().contains("begin with \"b-\""), "{}", refused.message());
    // Two a second, and four seconds' worth at once.
    let late = (0..20).map(|_| ask(r#"{"user":"b-1"}"#)).find(|answered| answered.status != 201).unwrap();
    assert_eq!((late.status, late.code().as_str(), late.header("retry-after")), (429, "key_rate_limited", Some("1")));
    assert!(late.message().contains("the key \"bound\""), "{}", late.message());
    assert_eq!(api.ask(r#"{"user":"alice"}"#).status, 201, "another key has a budget of its own");
}

#[test]
fn limits_are_signed_into_the_name_and_realms_have_their_own_secrets() {
    let more = format!(
        "[auth]\nusername-limits = true\n[[peers.policy]]\nname = \"sfu\"\n[[realm]]\nname = \"other\"\nsni = [\"turn.b.example\"]\n\
         [[realm.secrets]]\nsecret = \"another secret, as long\"\n[[realm]]\nname = \"third\"\n[[realm.users]]\nname = \"a\"\n\
         password = \"b\"\n{}",
        key("two", "tsk_another", "realms = [\"turnstone\", \"other\"]\n")
    );
    let server = TestServer::start(&config(PLAIN, &more));
    let api = Api::of(&server);
    let answer = api.ask(r#"{"user":"alice","bw":"2M","alloc":1,"peers":"sfu"}"#).json();
    assert!(answer["username"].as_str().unwrap().ends_with(":alice;bw=2M;alloc=1;peers=sfu"), "{answer}");
    let credentials = credentials(&answer);
    let mut first = Wire::connect(&server, Transport::Udp, &credentials);
    first.allocate().unwrap();
    assert_eq!(allocate(&server, &credentials), Err(486), "alloc=1");
    let answer: Value = api.ask(r#"{"user":"alice","bw":64000}"#).json();
    assert!(answer["username"].as_str().unwrap().ends_with(":alice;bw=64000"), "{answer}");
    for (body, message) in [
        (r#"{"user":"a","bw":"fast"}"#, "bw: \"fast\": bw is not a whole number"),
        (r#"{"user":"a","alloc":0}"#, "alloc: expected a whole number"),
        (r#"{"user":"a","peers":"gone"}"#, "peers: no [[peers.policy]] has the name \"gone\""),
        (r#"{"user":"a;alloc=9"}"#, "user: a name has no ;"),
        (r#"{"user":"a","bw":"2M;alloc=9"}"#, "bw: \"2M;alloc=9\" has a ;"),
    ] {
        let answered = api.ask(body);
        assert!(answered.message().starts_with(message), "{body}: {}", answered.body);
    }

    let in_realm = |realm: &str| api.ask_with("tsk_another", "", &format!(r#"{{"user":"a"{realm}}}"#));
    let mint = |secret: &str, answer: &Value| {
        turnstone::auth::mint(secret.as_bytes(), answer["username"].as_str().unwrap()).to_string()
    };
    let first = in_realm("").json();
    assert_eq!(first["credential"], mint(server.secret(), &first), "the key's first realm is that of [auth]");
    let urls = |answer: &Value| answer["iceServers"][0]["urls"].clone();
    assert_eq!(urls(&first).as_array().unwrap().len(), 3);
    let other = in_realm(r#","realm":"other""#).json();
    assert_eq!(other["credential"], mint("another secret, as long", &other));
    assert_eq!(
        urls(&other),
        serde_json::json!([format!("turns:turn.b.example:{}?transport=tcp", server.tls().port())])
    );
    let third = in_realm(r#","realm":"third""#);
    assert_eq!((third.status, third.code().as_str()), (403, "realm_not_allowed"));
}

#[test]
fn two_credentials_of_one_second_are_two_and_one_is_revoked_alone() {
    let server = TestServer::start(&config(&format!("{PLAIN}\nshapes = [\"cloudflare\"]"), ""));
    let api = Api::of(&server);
    let made: Vec<_> = (0..20).map(|_| api.ask(r#"{"user":"alice","ttl":600}"#).json()).collect();
    let usernames: std::collections::HashSet<_> = made.iter().map(|of| of["username"].as_str().unwrap()).collect();
    assert_eq!(usernames.len(), made.len(), "{usernames:?}");
    for of in &made {
        // Each lives as long as it says, and not much shorter than asked for.
        let ttl = of["ttl"].as_u64().unwrap();
        assert!((570..=600).contains(&ttl), "{of}");
        assert_eq!(of["username"], format!("{}:alice", of["expires"]));
    }
    let headers = format!("Authorization: Bearer {KEY}\r\n");
    let path = format!("/v1/turn/keys/backend/credentials/{}/revoke", made[0]["username"].as_str().unwrap());
    assert_eq!(api.send("POST", &path, &headers, "").status, 204);
    assert_eq!(allocate(&server, &credentials(&made[0])), Err(401));
    assert_eq!(allocate(&server, &credentials(&made[1])), Ok(()));
    // More than fit are the same; one of short life is not made shorter.
    let short: Vec<_> = (0..3).map(|_| api.ask(r#"{"user":"bob","ttl":10}"#).json()["ttl"].clone()).collect();
    assert_eq!(short, [json!(10), json!(10), json!(10)]);
}

#[test]
fn who_is_revoked_is_not_given_what_would_be_refused() {
    let server = TestServer::start(&config(PLAIN, ""));
    let api = Api::of(&server);
    let admin = format!("unix:{}", server.file("admin.sock"));
    let revoke = |args: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_turnstone"));
        let ran = crate::support::run(command.args(["revoke", "--admin", &admin]).args(args), crate::LIMIT);
        assert_eq!(ran.code, Some(0), "{}", ran.all_output());
    };
    revoke(&["--user", "alice"]);
    let refused = api.ask(r#"{"user":"alice"}"#);
    assert_eq!((refused.status, refused.code().as_str()), (403, "user_revoked"), "{}", refused.body);
    assert!(refused.message().contains("turnstone revoke --list"), "{}", refused.message());
    assert_eq!(api.ask(r#"{"user":"bob"}"#).status, 201);
    revoke(&["--user", "alice", "--undo"]);
    assert_eq!(api.ask(r#"{"user":"alice"}"#).status, 201);
    // All of a secret.
    revoke(&["--key", "test", "--yes"]);
    assert_eq!(api.ask(r#"{"user":"bob"}"#).code(), "user_revoked");
}
