//! Who may use the API, and what becomes of requests that are not right.

use std::io::{Read, Write};
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::api::Api;
use crate::support::{TestServer, Transport};
use crate::wire::Wire;
use crate::{LIMIT, TOKEN, config, config_with_port, logged};

#[test]
fn requests_that_are_not_right_get_the_error_that_says_why() {
    let server = TestServer::start(&config(""));
    let api = Api::of(&server);
    let huge = format!("{{\"level\": \"{}\"}}", "a".repeat(200_000));
    let deep = "[".repeat(10_000);
    for (method, path, body, status, code, part) in [
        ("GET", "/", None, 404, "not_found", "/v1/openapi.json"),
        ("GET", "/v1", None, 404, "not_found", "/v1/openapi.json"),
        ("GET", "/v1/status/", None, 404, "not_found", ""),
        ("GET", "/v1/sessions/", None, 404, "not_found", ""),
        ("GET", "/v1/sessions/5f3a9c1e-0-17/peers", None, 404, "not_found", ""),
        ("GET", "/v1//status", None, 404, "not_found", ""),
        ("GET", "/metrics", None, 404, "not_found", ""),
        ("POST", "/v1/status", None, 405, "method_not_allowed", "GET"),
        ("DELETE", "/v1/reload", None, 405, "method_not_allowed", "POST"),
        ("GET", "/v1/drain", None, 405, "method_not_allowed", "POST"),
        ("BREW", "/v1/sessions", None, 405, "method_not_allowed", "GET, DELETE"),
        ("GET", "/v1/status?verbose=1", None, 400, "bad_request", "unknown parameter \"verbose\""),
        ("GET", "/v1/sessions?usr=alice", None, 400, "bad_request", "expected user, realm"),
        ("GET", "/v1/sessions?user=%FF", None, 400, "bad_request", "user is not UTF-8"),
        ("GET", "/v1/sessions?user=a&user=b", None, 400, "bad_request", "twice"),
        ("GET", "/v1/sessions?limit=0", None, 400, "bad_request", "from 1 to 1000"),
        ("GET", "/v1/sessions?limit=1001", None, 400, "bad_request", "from 1 to 1000"),
        ("GET", "/v1/sessions?limit=1e3", None, 400, "bad_request", "from 1 to 1000"),
        ("GET", "/v1/sessions?client=127.0.0.1:5", None, 400, "bad_request", "an IP address"),
        ("GET", "/v1/sessions?relayed=127.0.0.1", None, 400, "bad_request", "ADDRESS:PORT"),
        ("GET", "/v1/sessions?transport=sctp", None, 400, "bad_request", "udp, tcp, tls"),
        ("GET", "/v1/sessions?cursor=x", None, 400, "bad_request", "next_cursor"),
        ("GET", "/v1/sessions?cursor=0-99999999999999999999", None, 400, "bad_request", "next_cursor"),
        ("GET", "/v1/sessions/17", None, 400, "bad_request", "5f3a9c1e-0-17"),
        ("GET", "/v1/sessions/5F3A9C1E-0-17", None, 400, "bad_request", "5f3a9c1e-0-17"),
        ("DELETE", "/v1/sessions/%2e%2e", None, 400, "bad_request", "5f3a9c1e-0-17"),
        ("GET", "/v1/users?sort=name", None, 400, "bad_request", "bytes, packets, sessions"),
        ("GET", "/v1/refusals?address=alice", None, 400, "bad_request", "an IP address"),
        ("POST", "/v1/reload?dry_run=maybe", None, 400, "bad_request", "true, false"),
        ("POST", "/v1/drain", Some("{"), 400, "bad_request", "not JSON"),
        ("POST", "/v1/drain", Some(deep.as_str()), 400, "bad_request", "not JSON"),
        ("PUT", "/v1/log-level", Some("\u{fffd}"), 400, "bad_request", "not JSON"),
        ("PUT", "/v1/log-level", None, 400, "bad_request", "no body"),
        ("PUT", "/v1/log-level", Some(huge.as_str()), 413, "body_too_large", "16384"),
        ("POST", "/v1/drain", Some(huge.as_str()), 413, "body_too_large", "16384"),
    ] {
        let (given, given_code, message) = api.refused(method, path, body);
        assert_eq!((given, given_code.as_str()), (status, code), "{method} {path}: {message}");
        assert!(message.contains(part), "{method} {path}: {message}");
    }
    let instance = api.get("/v1/status")["instance"].as_str().unwrap().to_owned();
    let other = if instance == "00000000" { "00000001" } else { "00000000" };
    for (id, part) in [(format!("{other}-0-1"), "an earlier run"), (format!("{instance}-9-1"), "no allocation")] {
        let (status, _, message) = api.refused("GET", &format!("/v1/sessions/{id}"), None);
        assert!(status == 404 && message.contains(part), "{message}");
    }
    let page = api.get("/v1/sessions?cursor=9-1");
    assert_eq!(page, serde_json::json!({ "sessions": [], "next_cursor": null }));
    let typed = |content_type: &str| {
        let headers = format!("Host: x\r\n{content_type}");
        api.call_with("PUT", "/v1/log-level", &headers, "{\"level\":\"info\"}").status
    };
    assert_eq!(typed("Content-Type: application/json; charset=utf-8\r\n"), 200);
    assert_eq!(
        ["", "Content-Type: text/plain\r\n", "Content-Type: application/x-www-form-urlencoded\r\n"].map(typed),
        [415; 3]
    );
    assert_eq!(api.get("/v1/status")["state"], "serving");
}

#[test]
fn a_port_wants_the_token_and_no_web_page() {
    let server = TestServer::start(&config_with_port(""));
    let mut api = Api::at_port_of(&server);
    assert_eq!(api.get("/v1/status")["state"], "serving");
    assert!(!api.get("/v1/config")["toml"].as_str().unwrap().contains(TOKEN));
    let call = |headers: &str| {
        let response = api.call_with("GET", "/v1/status", headers, "");
        (response.status, response.head)
    };
    let good = format!("Authorization: Bearer {TOKEN}\r\n");
    for (headers, wanted) in [
        (format!("Host: 127.0.0.1:1\r\n{good}"), 200),
        (format!("Host: [::1]\r\nauthorization: bearer {TOKEN}\r\n"), 200),
        ("Host: localhost\r\n".to_owned(), 401),
        ("Host: localhost\r\nAuthorization: Bearer\r\n".to_owned(), 401),
        ("Host: localhost\r\nAuthorization: Bearer b7c1f0a4d2e94c55a0c4\r\n".to_owned(), 401),
        (format!("Host: localhost\r\nAuthorization: Bearer {}\r\n", &TOKEN[..19]), 401),
        (format!("Host: localhost\r\nAuthorization: Bearer x{TOKEN}\r\n"), 401),
        ("Host: localhost\r\nAuthorization: Basic YWRtaW46YWRtaW4=\r\n".to_owned(), 401),
        (format!("Host: attacker.example\r\n{good}"), 403),
        (format!("Host: attacker.example:9642\r\n{good}"), 403),
        (good.clone(), 403),
        (format!("Host: localhost\r\nOrigin: http://localhost:9642\r\n{good}"), 403),
        (format!("Host: localhost\r\nOrigin: null\r\n{good}"), 403),
    ] {
        let (status, head) = call(&headers);
        assert_eq!(status, wanted, "{headers}");
        assert_eq!(head.contains("www-authenticate: bearer"), status == 401, "{head}");
    }
    // Wrong ones are counted, and a line says so, once a minute.
    assert_eq!(api.get("/v1/status")["wrong_tokens"], 3);
    logged(&server, 1, "a wrong token was shown to the admin API");
    assert!(server.log().contains("from=127.0.0.1"), "{}", server.log());
    // What is there is not told to those who may not know.
    api.set_token(None);
    for path in ["/v1/nothing", "/v1/openapi.json", "/v1/sessions/17"] {
        assert_eq!(api.refused("GET", path, None).0, 401, "{path}");
    }
    assert_eq!(api.refused("POST", "/v1/drain", None).0, 401);
    api.set_token(Some(TOKEN));
    assert_eq!(api.get("/v1/status")["state"], "serving");
}

#[test]
fn a_socket_is_for_owner_and_group_and_may_want_a_token_too() {
    let server = TestServer::start(&config("").replace("admin.sock\"", &format!("admin.sock\"\ntoken = \"{TOKEN}\"")));
    let mut api = Api::of(&server);
    assert_eq!(std::fs::metadata(server.file("admin.sock")).unwrap().permissions().mode() & 0o777, 0o660);
    assert_eq!(api.refused("GET", "/v1/status", None).1, "unauthorized");
    api.set_token(Some(TOKEN));
    let toml = api.get("/v1/config")["toml"].as_str().unwrap().to_owned();
    assert!(toml.contains("# token, 20 bytes") && toml.contains("# [[auth.secrets]] id = \"test\""), "{toml}");
}

#[test]
fn clients_that_do_not_read_hold_up_no_packet() {
    const SESSIONS: usize = 500;
    let server = TestServer::start(&config(""));
    let api = Api::of(&server);
    // Long names make long answers: more than a socket's buffer holds.
    let user = "alice".repeat(80);
    let _clients: Vec<_> = (0..SESSIONS).map(|_| Wire::allocated(&server, Transport::Udp, &user)).collect();
    let (mut client, relayed) = Wire::allocated(&server, Transport::Udp, "bob");
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    peer.set_read_timeout(Some(LIMIT)).unwrap();
    client.bind(0x4000, peer.local_addr().unwrap()).unwrap();
    let slow: Vec<_> = (0..64)
        .map(|_| {
            let mut stream = UnixStream::connect(server.file("admin.sock")).unwrap();
            stream.write_all(b"GET /v1/sessions?limit=1000 HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
            stream
        })
        .collect();
    for round in 0..500_u32 {
        client.send_on(0x4000, &round.to_be_bytes());
        assert_eq!(peer.recv_from(&mut [0; 64]).unwrap(), (4, relayed));
        peer.send_to(&round.to_be_bytes(), relayed).unwrap();
        assert_eq!(client.receive().unwrap()[4..], round.to_be_bytes());
    }
    // The oldest gives way to another one when it has had its time.
    let start = Instant::now();
    assert_eq!(api.get("/v1/status")["allocations"], SESSIONS + 1);
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    drop(slow);
}

#[test]
fn nonsense_leaves_it_answering() {
    let server = TestServer::start(&config(""));
    let api = Api::of(&server);
    for nonsense in [
        b"\x00\x01\x00\x00\x21\x12\xa4\x42".as_slice(),
        b"GET\r\n\r\n",
        b"GET /v1/status HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"PUT /v1/log-level HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n{\"level\":",
        b"PUT /v1/log-level HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
        &[0xff; 40_000],
    ] {
        let mut stream = UnixStream::connect(server.file("admin.sock")).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        // It may be closed while we write.
        let _ = stream.write_all(nonsense);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let text = String::from_utf8_lossy(&answer);
        assert!(answer.is_empty() || text.starts_with("HTTP/1.1 4") || text.starts_with("HTTP/1.1 200"), "{text}");
        assert_eq!(api.get("/v1/status")["state"], "serving");
    }
}
