//! Credentials that are revoked: by the API, over restarts, and by a file.

use std::fs;

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::api::Api;
use crate::support::{Credentials, TestServer, Transport, wait_until};
use crate::wire::Wire;
use crate::{LIMIT, config, logged};

const STATIC: &str = "[[auth.users]]\nname = \"alice\"\npassword = \"wonderland\"\n";

fn allocated(server: &TestServer, transport: Transport, credentials: &Credentials) -> Wire {
    let mut wire = Wire::connect(server, transport, credentials);
    wire.allocate().unwrap();
    wire
}

fn refused(server: &TestServer, credentials: &Credentials) -> bool {
    match Wire::connect(server, Transport::Tcp, credentials).allocate() {
        Ok(_) => false,
        Err(code) => {
            assert_eq!(code, 401);
            true
        }
    }
}

fn revoke(api: &Api, body: &Value) -> Value {
    api.done("POST", "/v1/revocations", Some(&body.to_string()), 200)
}

fn sessions(api: &Api) -> usize {
    api.get("/v1/sessions")["sessions"].as_array().unwrap().len()
}

/// `[auth]` with this in it.
fn with_auth(auth: &str, more: &str) -> String {
    config(more).replacen("[[auth.secrets]]", &format!("[auth]\n{auth}\n[[auth.secrets]]"), 1)
}

#[test]
fn one_credential_is_cut_over_every_transport_explained_listed_and_undone() {
    let server = TestServer::start(&config(""));
    let api = Api::of(&server);
    let leaked = server.credentials("carol");
    let good = server.credentials("dave");
    let mut clients =
        [Transport::Udp, Transport::Tcp, Transport::Tls].map(|transport| allocated(&server, transport, &leaked));
    let mut other = allocated(&server, Transport::Tls, &good);
    let answer = revoke(&api, &json!({ "username": leaked.username }));
    assert_eq!((&answer["ended"], &answer["kept"]), (&3.into(), &false.into()), "{answer}");
    let expires: u64 = leaked.username.split(':').next().unwrap().parse().unwrap();
    assert_eq!(
        answer["revocation"]["until_unix"],
        expires + 301,
        "as long as it could be good, and a while for the clocks"
    );
    for client in &mut clients[1..] {
        assert!(client.receive().is_none(), "its connection is closed");
    }
    assert_eq!(clients[0].refresh().unwrap_err(), 401);
    assert!(refused(&server, &leaked) && other.refresh().is_ok() && !refused(&server, &good));
    let refusals = api.get("/v1/refusals?user=carol");
    let first = &refusals["refusals"][0];
    assert_eq!((&first["reason"], &first["code"]), (&"revoked".into(), &401.into()), "{refusals}");
    assert!(first["explanation"].as_str().unwrap().contains("revoked"), "{refusals}");
    logged(&server, 3, "reason=\"revoked\"");

    let list = api.get("/v1/revocations");
    assert_eq!((&list["total"], &list["revocations"][0]["username"]), (&1.into(), &leaked.username.as_str().into()));
    assert_eq!(list["revocations"][0]["source"], "api");
    assert_eq!(api.get("/v1/revocations?name=nobody")["total"], 0);
    let name: String = form_urlencoded::byte_serialize(leaked.username.as_bytes()).collect();
    let undone = |query: &str| api.delete(&format!("/v1/revocations?{query}"))["removed"].clone();
    assert_eq!([undone("user=carol"), undone(&format!("username={name}"))], [0.into(), Value::from(1)]);
    assert!(!refused(&server, &leaked));
}

#[test]
fn users_keys_and_what_was_issued_before_end_and_others_go_on() {
    let server = TestServer::start(&with_auth("credential-lifetime-max = \"2h\"", STATIC));
    let api = Api::of(&server);
    let fixed = Credentials { username: "alice".to_owned(), password: "wonderland".to_owned() };
    let mut alice = allocated(&server, Transport::Udp, &fixed);
    let guest = server.credentials("alice");
    allocated(&server, Transport::Udp, &guest);
    let now: u64 = guest.username.split(':').next().unwrap().parse::<u64>().unwrap() - 3600;
    // Credentials of the tests are good for an hour: they count as issued an hour ago.
    let ended = |body: Value| revoke(&api, &body)["ended"].as_u64().unwrap();
    assert_eq!(ended(json!({ "user": "alice", "issued_before": now - 3700 })), 0);
    assert_eq!(ended(json!({ "user": "alice", "issued_before": now - 3600, "lifetime_secs": 3600 })), 0);
    assert_eq!(ended(json!({ "user": "alice", "issued_before": now - 3500 })), 1);
    assert!(refused(&server, &guest) && alice.refresh().is_ok() && !refused(&server, &fixed));
    assert!(!refused(&server, &server.credentials("bob")));
    let list = api.get("/v1/revocations?name=alice");
    assert_eq!(
        (&list["total"], &list["revocations"][0]["issued_before_unix"]),
        (&1.into(), &(now - 3500).into()),
        "the later one"
    );
    assert_eq!(ended(json!({ "user": "alice" })), 1);
    assert!(refused(&server, &fixed));
    assert_eq!(api.delete("/v1/revocations?user=alice")["removed"], 2);

    let before = sessions(&api) as u64;
    allocated(&server, Transport::Udp, &server.credentials("erin"));
    allocated(&server, Transport::Udp, &fixed);
    assert_eq!(ended(json!({ "key": "test" })), before + 1);
    assert!(refused(&server, &guest) && !refused(&server, &fixed));
    assert_eq!(api.delete("/v1/revocations?key=test")["removed"], 1);
    assert_eq!(ended(json!({ "everybody": true, "issued_before": now + 1 })), 0);
    assert!(refused(&server, &guest) && !refused(&server, &fixed));
    let undo = api.delete("/v1/revocations?everybody=true&realm=turnstone");
    assert_eq!((&undo["removed"], refused(&server, &guest)), (&1.into(), false), "the realm of [auth] by its name");
}

#[test]
fn what_cannot_be_revoked_is_refused_with_the_reason() {
    let server = TestServer::start(&config(""));
    let api = Api::of(&server);
    for (body, problem) in [
        ("{}", "expected one of username, user, key"),
        (r#"{"user": "a", "why": "x"}"#, "unknown field `why`"),
        (r#"{"everybody": true}"#, "everybody needs issued_before"),
        (r#"{"user": "a", "issued_before": 1}"#, "issued_before needs lifetime_secs"),
        (r#"{"user": "a", "issued_before": "yesterday", "lifetime_secs": 1}"#, "expected a moment"),
        (r#"{"user": "a", "realm": "b.example"}"#, "there is no realm \"b.example\""),
        (r#"{"user": "a", "until": 5}"#, "until has passed"),
    ] {
        let (status, code, message) = api.refused("POST", "/v1/revocations", Some(body));
        assert!(status == 400 && code == "bad_request" && message.contains(problem), "{body}: {message}");
    }
    assert_eq!(api.refused("POST", "/v1/revocations", None).0, 400);
    for query in ["", "?user=a&key=b", "?everybody=false", "?user=a&realm=b.example"] {
        assert_eq!(api.refused("DELETE", &format!("/v1/revocations{query}"), None).0, 400, "{query}");
    }
    assert_eq!(api.get("/v1/revocations")["total"], 0);
}

#[test]
fn what_is_revoked_outlives_the_server_and_damage_is_told_and_stops_nothing() {
    let state = TempDir::new().unwrap();
    let directory = state.path().join("state");
    let text = format!("state-directory = \"{}\"\n{}", directory.display(), config(""));
    let kept = directory.join("revocations.ndjson");
    let first = TestServer::start(&text);
    let api = Api::of(&first);
    let leaked = first.credentials("carol");
    assert_eq!(revoke(&api, &json!({ "username": leaked.username }))["kept"], true);
    assert_eq!(revoke(&api, &json!({ "user": "mallory \u{1f600}\"" }))["kept"], true);
    assert_eq!(revoke(&api, &json!({ "user": "dave" }))["kept"], true);
    assert_eq!(api.delete("/v1/revocations?user=dave")["kept"], true);
    // As if its machine lost power.
    first.signal(Signal::KILL);
    drop(first);

    let second = TestServer::start(&text);
    assert!(refused(&second, &leaked) && refused(&second, &second.credentials("mallory \u{1f600}\"")));
    assert!(!refused(&second, &second.credentials("dave")));
    drop(second);
    let text_of_state = fs::read_to_string(&kept).unwrap();
    let (head, lines) = text_of_state.split_once('\n').unwrap();
    fs::write(&kept, [head.as_bytes(), b"\n\xff\xfe{\"user\n", &[b'x'; 9000], b"\n", lines.as_bytes()].concat())
        .unwrap();

    let third = TestServer::start(&text);
    logged(&third, 2, "a revocation of before is damaged and not in force");
    assert!(third.log().contains("revocations.ndjson:2:1: the line is not UTF-8"), "{}", third.log());
    assert!(refused(&third, &leaked), "what is not damaged is in force");
    assert_eq!(fs::read_to_string(&kept).unwrap().lines().count(), 3);
    assert!(fs::read(directory.join("revocations.damaged")).unwrap().len() > 9000);
}

#[test]
fn what_cannot_be_kept_is_in_force_and_said_to_be_forgotten_at_a_restart() {
    // A file in place of the directory.
    let server = TestServer::start(&format!("state-directory = \"@DIR@/secret/state\"\n{}", config("")));
    let api = Api::of(&server);
    let leaked = server.credentials("carol");
    allocated(&server, Transport::Udp, &leaked);
    let body = json!({ "user": "carol" }).to_string();
    let (status, code, message) = api.refused("POST", "/v1/revocations", Some(&body));
    assert_eq!((status, code.as_str()), (500, "not_kept"), "{message}");
    assert!(message.contains("it is in force") && message.contains("secret/state/revocations.ndjson"), "{message}");
    assert!(refused(&server, &leaked));
    assert_eq!(sessions(&api), 0);
    logged(&server, 1, "is not kept over a restart");
}

#[test]
fn a_file_is_followed_and_a_mistake_in_it_leaves_what_it_said_before() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("revoked");
    let write = |text: &str| fs::write(&file, text).unwrap();
    write("# who left\n{\"user\": \"mallory\"}\n");
    let text = with_auth(&format!("revocations = \"{}\"", file.display()), "");
    let server = TestServer::start(&text);
    let api = Api::of(&server);
    assert!(refused(&server, &server.credentials("mallory")));
    let carol = server.credentials("carol");
    allocated(&server, Transport::Udp, &carol);
    let list = api.get("/v1/revocations");
    assert_eq!(
        (&list["revocations"][0]["source"], &list["revocations"][0]["until_unix"]),
        (&"file".into(), &Value::Null)
    );
    let undo = api.delete("/v1/revocations?user=mallory");
    assert_eq!((&undo["removed"], &undo["listed"]), (&0.into(), &1.into()), "it is the file's");

    write("{\"user\": \"mallory\"}\n{\"user\": \"carol\"}\n");
    wait_until("carol's end", LIMIT, || (sessions(&api) == 0).then_some(()));
    assert!(refused(&server, &carol));
    write("{\"user\": \"carol\"}\n{\"usr\": \"dave\"}\n");
    wait_until("the mistake in the log", LIMIT, || server.log().contains("revoked:2:1: unknown field").then_some(()));
    assert!(refused(&server, &carol) && refused(&server, &server.credentials("mallory")), "the old list stays");
    let (status, code, message) = api.refused("POST", "/v1/reload", None);
    assert_eq!((status, code.as_str()), (409, "config_invalid"));
    assert!(message.contains("revoked:2:1: unknown field `usr`"), "{message}");
    write("{\"user\": \"dave\"}\n");
    api.done("POST", "/v1/reload", None, 200);
    assert!(!refused(&server, &carol) && refused(&server, &server.credentials("dave")), "at once with a reload");
}
