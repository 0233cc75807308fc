//! Requests as other services have them: every answer to the field, and a credential in it that is good.

use serde_json::{Value, json};

use crate::api::{Answered, Api};
use crate::support::{Credentials, TestServer, Transport};
use crate::wire::Wire;
use crate::{BOUND_KEY, KEY, PAGE, PAGE_KEY, PLAIN, config};

const URLS: &str = "[auth]\nurls = [\"stun:turn.example.org:3478\", \"turn:turn.example.org:3478?transport=udp\", \
                    \"turns:turn.example.org:443?transport=tcp\"]\n";
const STUN: &str = "stun:turn.example.org:3478";
const TURN: [&str; 2] = ["turn:turn.example.org:3478?transport=udp", "turns:turn.example.org:443?transport=tcp"];

fn server(shapes: &str) -> TestServer {
    TestServer::start(&config(&format!("{PLAIN}\nshapes = [{shapes}]"), URLS))
}

/// The code of the refusal that a credential gets, if any.
fn allocate(server: &TestServer, username: &str, password: &str) -> Result<(), u16> {
    let credentials = Credentials { username: username.to_owned(), password: password.to_owned() };
    Wire::connect(server, Transport::Udp, &credentials).allocate().map(drop)
}

/// Fails unless the credential in an answer is one of the server's, and is good for so long; takes it out.
fn take(server: &TestServer, username: &mut Value, password: &mut Value, ttl: u64) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("{value}")).to_owned();
    let credentials = Credentials { username: text(username), password: text(password) };
    Wire::connect(server, Transport::Udp, &credentials).allocate().unwrap();
    let (expires, user) = credentials.username.split_once(':').unwrap();
    let left = expires.parse::<u64>().unwrap() - now_unix();
    assert!((ttl - 10..=ttl).contains(&left), "{left} for {ttl}");
    (*username, *password) = (json!("USERNAME"), json!("PASSWORD"));
    user.to_owned()
}

fn now_unix() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

fn bearer(key: &str) -> String {
    format!("Authorization: Bearer {key}\r\nContent-Type: application/json\r\n")
}

fn basic(sid: &str, token: &str) -> String {
    use base64::Engine as _;
    let pair = base64::engine::general_purpose::STANDARD.encode(format!("{sid}:{token}"));
    format!("Authorization: Basic {pair}\r\nContent-Type: application/x-www-form-urlencoded\r\n")
}

#[test]
fn what_is_not_switched_on_is_not_there() {
    let server = server("");
    let api = Api::of(&server);
    let paths = [
        "/v1/turn/keys/backend/credentials/generate-ice-servers",
        "/v1/turn/keys/backend/credentials/generate",
        "/2010-04-01/Accounts/backend/Tokens.json",
        "/api/v1/turn/credentials",
        "/api/v1/turn/credential",
        "/",
        "/ice",
    ];
    for path in paths {
        for method in ["GET", "POST"] {
            assert_eq!(api.send(method, path, &bearer(KEY), "").status, 404, "{method} {path}");
        }
    }
    // Nor do paths that are nearly those.
    let server = self::server("\"cloudflare\", \"twilio\", \"metered\", \"turn-rest\", \"stunner\"");
    let api = Api::of(&server);
    for path in [
        "/v1/turn/keys//credentials/generate",
        "/v1/turn/keys/a/b/credentials/generate",
        "/2010-04-01/Accounts//Tokens.json",
        "/2010-04-01/Accounts/a/b/Tokens.json",
        "/api/v1/turn/credentials/",
        "/turn",
    ] {
        assert_eq!(api.send("POST", path, &bearer(KEY), "").status, 404, "{path}");
    }
}

#[test]
fn cloudflare_has_a_list_of_entries_and_had_one_entry_before() {
    let server = server("\"cloudflare\"");
    let api = Api::of(&server);
    let path = "/v1/turn/keys/backend/credentials/generate-ice-servers";
    let answered = api.send("POST", path, &bearer(KEY), r#"{"ttl": 86400}"#);
    assert_eq!(
        (answered.status, answered.header("content-type")),
        (201, Some("application/json")),
        "{}",
        answered.body
    );
    let mut answer = answered.json();
    let entry = &mut answer["iceServers"][1];
    let (mut username, mut password) = (entry["username"].take(), entry["credential"].take());
    let user = take(&server, &mut username, &mut password, 86_400);
    assert_eq!(user.len(), 12, "somebody new: {user}");
    let golden = json!({"iceServers": [{"urls": [STUN]}, {"urls": TURN, "username": null, "credential": null}]});
    assert_eq!(answer, golden);

    let before = api.send(
        "POST",
        "/v1/turn/keys/backend/credentials/generate",
        &bearer(KEY),
        r#"{"ttl":600,"customIdentifier":"alice"}"#,
    );
    let mut answer = before.json();
    let entry = &mut answer["iceServers"];
    let (mut username, mut password) = (entry["username"].take(), entry["credential"].take());
    assert_eq!(take(&server, &mut username, &mut password, 600), "alice");
    let golden = json!({"iceServers": {"urls": [STUN, TURN[0], TURN[1]], "username": null, "credential": null}});
    assert_eq!((before.status, answer), (201, golden));

    // The id and the token belong together.
    for (id, key) in [("page", KEY), ("backend", PAGE_KEY), ("backend", "tsk_wrong"), ("none", KEY)] {
        let path = format!("/v1/turn/keys/{id}/credentials/generate-ice-servers");
        assert_eq!(api.send("POST", &path, &bearer(key), r#"{"ttl":60}"#).status, 401, "{id}");
    }
    assert_eq!(api.send("POST", path, &bearer(KEY), r#"{"ttl":86401}"#).code(), "ttl_not_allowed");
    assert_eq!(api.send("POST", path, &bearer(KEY), r#"{"ttl":"60"}"#).status, 400);
    assert_eq!(api.send("POST", path, &bearer(KEY), "").status, 201);
    assert_eq!(api.send("GET", path, &bearer(KEY), "").status, 405);
    let preflight = api.send("OPTIONS", path, &format!("Origin: {PAGE}\r\n"), "");
    assert_eq!((preflight.status, preflight.header("access-control-allow-methods")), (204, Some("POST")));
}

#[test]
fn twilio_has_one_url_an_entry_a_lifetime_that_is_a_text_and_dates_of_mail() {
    let server = server("\"twilio\"");
    let api = Api::of(&server);
    let ask = |sid: &str, token: &str, body: &str| {
        api.send("POST", &format!("/2010-04-01/Accounts/{sid}/Tokens.json"), &basic("backend", token), body)
    };
    let answered = ask("AC0123", KEY, "Ttl=3600");
    assert_eq!(answered.status, 201, "{}", answered.body);
    let mut answer = answered.json();
    let (mut username, mut password) = (answer["username"].take(), answer["password"].take());
    for entry in answer["ice_servers"].as_array_mut().unwrap().iter_mut().skip(1) {
        assert_eq!((&entry["username"], &entry["credential"]), (&username, &password));
        (entry["username"], entry["credential"]) = (json!("USERNAME"), json!("PASSWORD"));
    }
    take(&server, &mut username, &mut password, 3600);
    let date = answer["date_created"].take();
    assert_eq!(answer["date_updated"].take(), date);
    let date = date.as_str().unwrap();
    assert!(date.len() == 31 && date.ends_with(" +0000") && &date[3..5] == ", ", "{date}");
    let entry = |url: &str| json!({"url": url, "urls": url, "username": "USERNAME", "credential": "PASSWORD"});
    let golden = json!({
        "account_sid": "AC0123", "username": null, "password": null, "ttl": "3600", "date_created": null, "date_updated": null,
        "ice_servers": [{"url": STUN, "urls": STUN}, entry(TURN[0]), entry(TURN[1])],
    });
    assert_eq!(answer, golden);
    assert_eq!(ask("AC0123", KEY, "").json()["ttl"], "86400");

    let error = |answered: Answered| {
        let body = answered.json();
        assert_eq!(body["status"], answered.status);
        assert_eq!(body.as_object().unwrap().len(), 4, "{body}");
        (answered.status, body["code"].as_u64().unwrap())
    };
    assert_eq!(error(ask("AC0123", "tsk_wrong", "")), (401, 20_003));
    assert_eq!(error(ask("AC0123", PAGE_KEY, "")), (401, 20_003), "the key of another account");
    for body in ["Ttl=86401", "Ttl=0", "Ttl=1h", "Ttl=60&Ttl=61"] {
        assert_eq!(error(ask("AC0123", KEY, body)), (400, 20_400), "{body}");
    }
    let path = "/2010-04-01/Accounts/AC0123/Tokens.json";
    assert_eq!(error(api.send("GET", path, &basic("backend", KEY), "")), (405, 20_004));
    let refused = api.send("POST", path, &bearer(KEY), "");
    assert_eq!(refused.header("www-authenticate"), Some("Basic realm=\"turnstone\""));
    // A key with less has less, and says so.
    let bound = api.send("POST", path, &basic("bound", BOUND_KEY), "Ttl=3600").json();
    assert_eq!(bound["ttl"], "600");
    assert!(bound["username"].as_str().unwrap().contains(":b-"), "{bound}");
}

#[test]
fn metered_has_a_bare_list_and_credentials_with_keys_of_their_own() {
    let server = server("\"metered\"");
    let api = Api::of(&server);
    let fetch =
        |key: &str, headers: &str| api.send("GET", &format!("/api/v1/turn/credentials?apiKey={key}"), headers, "");
    let create = |key: &str, body: &str| {
        let target = format!("/api/v1/turn/credential?secretKey={key}");
        api.send("POST", &target, "Content-Type: application/json\r\n", body)
    };
    let golden = json!([
        {"urls": STUN},
        {"urls": TURN[0], "username": "USERNAME", "credential": "PASSWORD"},
        {"urls": TURN[1], "username": "USERNAME", "credential": "PASSWORD"},
    ]);
    let read = |answered: Answered, ttl: u64| {
        assert_eq!(answered.status, 200, "{}", answered.body);
        let mut list = answered.json();
        let mut user = String::new();
        for entry in list.as_array_mut().unwrap().iter_mut().skip(1) {
            let (mut username, mut password) = (entry["username"].take(), entry["credential"].take());
            user = take(&server, &mut username, &mut password, ttl);
            (entry["username"], entry["credential"]) = (username, password);
        }
        assert_eq!(list, golden);
        user
    };
    read(fetch(KEY, ""), 86_400);

    let answered = create(KEY, r#"{"expiryInSeconds": 14400, "label": "user-1"}"#);
    assert_eq!(answered.status, 200, "{}", answered.body);
    let mut made = answered.json();
    let (username, own_key) = (made["username"].clone(), made["apiKey"].take());
    let (mut first, mut password) = (made["username"].take(), made["password"].take());
    assert_eq!(take(&server, &mut first, &mut password, 14_400), "user-1");
    let golden_made =
        json!({"username": null, "password": null, "expiryInSeconds": 14_400, "label": "user-1", "apiKey": null});
    assert_eq!(made, golden_made);
    let own_key = own_key.as_str().unwrap();
    let again = fetch(own_key, "");
    assert_eq!(again.json()[1]["username"], username, "the same credential");
    assert_eq!(read(again, 14_400), "user-1");

    // It is good for that alone.
    for wrong in [&own_key[..own_key.len() - 2], &own_key.replace("tsf_", ""), "tsf_", "tsf_..", "tsf_YQ.YQ.YQ", ""] {
        let refused = fetch(wrong, "");
        assert_eq!((refused.status, refused.json().as_object().unwrap().len()), (401, 1), "{wrong}");
        assert!(refused.json()["error"].is_string());
    }
    let keyless = api.send("GET", "/api/v1/turn/credentials", "", "");
    assert!(keyless.status == 400 && keyless.json()["error"].is_string(), "{}", keyless.body);
    // A secret key that nobody has is a wrong field there.
    let refused = create(own_key, "{}");
    assert_eq!((refused.status, refused.json().as_object().unwrap().len()), (400, 1), "{}", refused.body);
    assert!(refused.json()["message"].is_string() && refused.header("www-authenticate").is_none());
    let parts: Vec<_> = own_key.split('.').collect();
    let other = create(KEY, r#"{"label":"user-2"}"#).json()["apiKey"].as_str().unwrap().to_owned();
    let other: Vec<_> = other.split('.').collect();
    assert_eq!(fetch(&[parts[0], other[1], parts[2]].join("."), "").status, 401, "another one's name");
    // Pages of others do not get it either.
    let of_page = create(PAGE_KEY, r#"{"label":"page-1"}"#).json()["apiKey"].as_str().unwrap().to_owned();
    assert_eq!(fetch(&of_page, &format!("Origin: {PAGE}\r\n")).header("access-control-allow-origin"), Some(PAGE));
    assert_eq!(fetch(&of_page, "Origin: https://evil.example\r\n").status, 403);
    assert_eq!(fetch(own_key, &format!("Origin: {PAGE}\r\n")).status, 403);
    assert_eq!(create(KEY, r#"{"expiryInSeconds": 86401}"#).status, 403);
    assert_eq!(create(KEY, r#"{"expiryInSeconds": 0}"#).status, 400);
    assert_eq!(fetch(KEY, "").header("cache-control"), Some("no-store"));
}

#[test]
fn the_draft_and_stunner_are_asked_by_the_query() {
    let server = server("\"turn-rest\"");
    let api = Api::of(&server);
    let get = |target: &str| api.send("GET", target, "", "");
    let read = |api: &Api, target: &str, ttl: u64| {
        let answered = api.send("GET", target, "", "");
        assert_eq!(answered.status, 200, "{}", answered.body);
        let mut answer = answered.json();
        let (mut username, mut password) = (answer["username"].take(), answer["password"].take());
        let user = take(&server, &mut username, &mut password, ttl);
        assert_eq!(answer, json!({"username": null, "password": null, "ttl": ttl, "uris": TURN}));
        user
    };
    assert_eq!(read(&api, &format!("/?service=turn&username=mbzrxpgjys&key={KEY}"), 86_400), "mbzrxpgjys");
    assert_eq!(read(&api, &format!("/?service=turn&key={KEY}&ttl=60"), 86_400).len(), 12, "the draft has no ttl");
    assert_eq!(get(&format!("/?service=stun&key={KEY}")).status, 400);
    assert_eq!(get(&format!("/?key={KEY}")).status, 400);
    assert_eq!(get(&format!("/?service=turn&key={KEY}&key={KEY}")).status, 400);
    assert_eq!(get("/?service=turn").code(), "unauthorized");
    assert_eq!(get("/?service=turn&key=tsk_wrong").status, 401);
    assert_eq!(get(&format!("/ice?service=turn&key={KEY}")).status, 404);

    let server = self::server("\"stunner\"");
    let api = Api::of(&server);
    let get = |target: &str| api.send("GET", target, "", "");
    let all = "namespace=stunner&gateway=udp-gateway&listener=udp-listener";
    let answer = get(&format!("/?service=turn&username=my-user&ttl=3600&{all}&key={KEY}")).json();
    assert_eq!((&answer["ttl"], &answer["uris"]), (&json!(3600), &json!(TURN)));
    let mut answer =
        get(&format!("/ice?service=turn&username=my-user&ttl=600&iceTransportPolicy=relay&key={KEY}")).json();
    let entry = &mut answer["iceServers"][0];
    let (mut username, mut password) = (entry["username"].take(), entry["credential"].take());
    assert_eq!(take(&server, &mut username, &mut password, 600), "my-user");
    let entry = json!({"urls": TURN, "username": null, "credential": null});
    assert_eq!(answer, json!({"iceServers": [entry], "iceTransportPolicy": "relay"}));
    assert_eq!(get(&format!("/ice?service=turn&key={KEY}")).json()["iceTransportPolicy"], "all");
    assert_eq!(get(&format!("/ice?service=turn&iceTransportPolicy=none&key={KEY}")).status, 400);
    let by_header = api.send("GET", "/ice?service=turn", &bearer(KEY), "");
    assert_eq!(by_header.status, 200);
    let clamped = get(&format!("/?service=turn&username=b-1&ttl=3600&key={BOUND_KEY}")).json();
    assert_eq!(clamped["ttl"], 600);
    // Its refusals are text.
    for (path, text) in [
        ("/?service=stun", "could not generate TURN auth token: \""),
        ("/ice?service=stun", "could not generate ICE auth token: \""),
    ] {
        let refused = get(&format!("{path}&key={KEY}"));
        assert_eq!((refused.status, refused.header("content-type")), (400, Some("text/plain; charset=utf-8")));
        assert!(refused.body.starts_with(text) && refused.body.ends_with("\"\n"), "{}", refused.body);
    }
    // Some ask by POST, with the same query.
    let posted = api.send("POST", &format!("/?service=turn&username=my-user&key={KEY}"), "", "service=turn");
    assert!(
        posted.status == 200 && posted.json()["username"].as_str().unwrap().ends_with(":my-user"),
        "{}",
        posted.body
    );
    assert_eq!(api.send("DELETE", "/", "", "").header("allow"), Some("GET, POST"));
}

#[test]
fn a_credential_is_revoked_as_cloudflare_and_metered_do_it_and_its_sessions_end() {
    let server = server("\"cloudflare\", \"metered\"");
    let api = Api::of(&server);
    let make = |key: &str, user: &str| {
        let answer = api.ask_with(key, "", &format!(r#"{{"user":"{user}","ttl":600}}"#)).json();
        let text = |name: &str| answer[name].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned();
        (text("username"), text("credential"))
    };
    let revoke = |id: &str, key: &str, username: &str| {
        api.send("POST", &format!("/v1/turn/keys/{id}/credentials/{username}/revoke"), &bearer(key), "")
    };
    let (alice, password) = make(KEY, "alice");
    let (other, other_password) = make(KEY, "bob");
    let credentials = Credentials { username: alice.clone(), password: password.clone() };
    let mut live = Wire::connect(&server, Transport::Tcp, &credentials);
    live.allocate().unwrap();
    let revoked = revoke("backend", KEY, &alice.replace(':', "%3A"));
    assert_eq!((revoked.status, revoked.body.as_str()), (204, ""));
    assert!(live.receive().is_none(), "the connection of its session is closed");
    assert_eq!(allocate(&server, &alice, &password), Err(401));
    assert_eq!(allocate(&server, &other, &other_password), Ok(()));
    assert_eq!(revoke("backend", KEY, &alice).status, 204, "once more");

    let disable = |key: &str, body: &str| {
        let target = format!("/api/v1/turn/credential/disable?secretKey={key}");
        api.send("POST", &target, "Content-Type: application/json\r\n", body)
    };
    let disabled = disable(KEY, &json!({"username": other}).to_string());
    assert_eq!((disabled.status, disabled.json()), (200, json!({"message": "Turn credential disabled successfully"})));
    assert_eq!(allocate(&server, &other, &other_password), Err(401));

    // A key revokes what it can have made, and nothing else.
    let (page, page_password) = make(PAGE_KEY, "page-1");
    for username in [&*other, "alice", "9999999999:b-1", ":", "%00", "%FF"] {
        let refused = revoke("bound", BOUND_KEY, username);
        assert!([400, 403].contains(&refused.status), "{username}: {}", refused.body);
    }
    // Nor does one that is in a page, which anybody has.
    let refused = revoke("page", PAGE_KEY, &page);
    assert_eq!(refused.status, 403, "{}", refused.body);
    assert_eq!(disable(PAGE_KEY, &json!({"username": page}).to_string()).status, 403);
    assert_eq!(revoke("backend", PAGE_KEY, &page).status, 401);
    assert_eq!(disable("tsk_wrong", &json!({"username": page}).to_string()).status, 400);
    assert_eq!(disable(KEY, "{}").status, 400);
    assert_eq!(allocate(&server, &page, &page_password), Ok(()));
    let preflight =
        api.send("OPTIONS", "/v1/turn/keys/page/credentials/1:a/revoke", &format!("Origin: {PAGE}\r\n"), "");
    assert_eq!(preflight.status, 204);

    // Many at once are carried out together, and each is answered.
    let many: Vec<_> = (0..40).map(|number| make(KEY, &format!("many-{number}")).0).collect();
    let answered: Vec<u16> = std::thread::scope(|scope| {
        let asked: Vec<_> =
            many.iter().map(|username| scope.spawn(|| revoke("backend", KEY, username).status)).collect();
        asked.into_iter().map(|asked| asked.join().unwrap()).collect()
    });
    assert!(answered.iter().all(|status| *status == 204), "{answered:?}");
}

#[test]
fn metered_s_labels_and_projects_are_users_and_keys() {
    let server = server("\"metered\"");
    let api = Api::of(&server);
    let send =
        |method: &str, target: &str, body: &str| api.send(method, target, "Content-Type: application/json\r\n", body);
    let create = |target: &str, label: &str, secs: u64| {
        let made = send("POST", target, &json!({"label": label, "expiryInSeconds": secs}).to_string());
        assert_eq!(made.status, 200, "{}", made.body);
        let made = made.json();
        let text = |name: &str| made[name].as_str().unwrap().to_owned();
        (text("username"), text("password"), text("apiKey"))
    };
    let plain = format!("/api/v1/turn/credential?secretKey={KEY}");
    let of_project = format!("/api/v2/turn/project/backend/credential?projectApiKey={KEY}");

    // One at a time.
    for target in [&plain, &of_project] {
        let (username, password, own_key) = create(target, "alice", 600);
        assert_eq!(allocate(&server, &username, &password), Ok(()));
        let deleted = send("DELETE", target, &json!({"username": username}).to_string());
        assert_eq!((deleted.status, deleted.json()), (200, json!({"success": true, "message": "credential removed"})));
        assert_eq!(allocate(&server, &username, &password), Err(401), "{target}");
        let fetched = send("GET", &format!("/api/v1/turn/credentials?apiKey={own_key}"), "");
        assert_eq!(fetched.status, 401, "its own key goes with it");
        assert_eq!(send("DELETE", target, "{}").status, 400);
    }

    // All of a label; those made before, and nobody else's.
    let label_of_project = of_project.replace("/credential?", "/credential/by_label?");
    for (number, (target, body)) in [
        (format!("/api/v2/turn/credential/by_label?secretKey={KEY}&label=user-0"), String::new()),
        (label_of_project.clone(), json!({"label": "user-1"}).to_string()),
    ]
    .iter()
    .enumerate()
    {
        let label = format!("user-{number}");
        let (one, other) = (create(&plain, &label, 600), create(&of_project, &label, 86_400));
        let beside = create(&plain, &format!("{label}0"), 600);
        let deleted = send("DELETE", target, body);
        assert_eq!((deleted.status, deleted.json()), (200, json!({"deleted": 1})), "{}", deleted.body);
        for (username, password, _) in [&one, &other] {
            assert_eq!(allocate(&server, username, password), Err(401));
        }
        assert_eq!(allocate(&server, &beside.0, &beside.1), Ok(()));
        // What would be taken for one of them is not handed out; what expires after all of them is.
        let refused = send("POST", &plain, &json!({"label": label, "expiryInSeconds": 600}).to_string());
        assert!(refused.status == 403 && refused.json()["message"].as_str().unwrap().contains("is revoked"));
        for _ in 0..3 {
            let made = send("POST", &plain, &json!({"label": label, "expiryInSeconds": 86_400}).to_string());
            assert_eq!(made.status, 200, "{}", made.body);
            let later = made.json();
            let text = |name: &str| later[name].as_str().unwrap();
            assert_eq!(allocate(&server, text("username"), text("password")), Ok(()));
        }
    }

    // With a key that is there, for its users, and not in a page.
    for (method, target, status) in [
        ("DELETE", "/api/v2/turn/credential/by_label?secretKey=tsk_wrong&label=a".to_owned(), 400),
        ("DELETE", "/api/v2/turn/credential/by_label?label=a".to_owned(), 400),
        ("DELETE", format!("/api/v2/turn/credential/by_label?secretKey={KEY}"), 400),
        ("DELETE", format!("/api/v2/turn/credential/by_label?secretKey={KEY}&label="), 400),
        ("DELETE", format!("/api/v2/turn/credential/by_label?secretKey={PAGE_KEY}&label=page-1"), 403),
        ("DELETE", format!("/api/v2/turn/credential/by_label?secretKey={BOUND_KEY}&label=alice"), 403),
        ("POST", of_project.replace("/backend/", "/bound/"), 400),
        ("DELETE", label_of_project.replace("/backend/", "/page/"), 400),
        ("GET", label_of_project, 405),
        ("GET", plain, 405),
        ("POST", of_project.replace("/backend/", "//"), 404),
        ("GET", of_project.replace("/credential?", "/credentials?"), 404),
    ] {
        let refused = send(method, &target, "");
        assert_eq!(refused.status, status, "{method} {target}: {}", refused.body);
    }
    let preflight = api.send("OPTIONS", "/api/v1/turn/credential", &format!("Origin: {PAGE}\r\n"), "");
    assert_eq!(preflight.header("access-control-allow-methods"), Some("POST, DELETE"));
}

#[test]
fn metered_s_label_revokes_what_any_key_made_for_the_user_and_is_no_username_with_limits() {
    let config = config("tls = false\nshapes = [\"metered\"]", "[auth]\nusername-limits = true\n");
    let server = TestServer::start(&config);
    let api = Api::of(&server);
    let send = |method: &str, target: &str, body: &str| {
        let answer = api.send(method, target, "Content-Type: application/json\r\n", body);
        (answer.status, answer.json())
    };
    // For the same user, and good for a day: the other key makes none for longer than ten minutes.
    let made =
        send("POST", &format!("/api/v1/turn/credential?secretKey={KEY}"), &json!({"label": "b-ann"}).to_string());
    let text = |name: &str| made.1[name].as_str().unwrap();
    assert_eq!(allocate(&server, text("username"), text("password")), Ok(()));
    let by_label = |label: &str| {
        send("DELETE", &format!("/api/v2/turn/credential/by_label?secretKey={BOUND_KEY}&label={label}"), "")
    };
    let (status, refused) = by_label("b-ann%3Bbw%3D1M");
    assert!(status == 400 && refused["message"].as_str().unwrap().contains("limits"), "{refused}");
    assert_eq!(by_label("b-ann"), (200, json!({"deleted": 1})));
    assert_eq!(allocate(&server, text("username"), text("password")), Err(401));
}
