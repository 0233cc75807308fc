//! The API as a part of the running server: TLS, reload, metrics, and what it refuses to be.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Command;

use rustix::process::Signal;

use crate::api::{Api, credentials};
use crate::support::{TestServer, Transport, require_tool, run, tls_over, wait_until};
use crate::wire::Wire;
use crate::{KEY, LIMIT, PAGE_KEY, PLAIN, config, key};

const BODY: &str = r#"{"user":"page-1"}"#;

#[test]
fn curl_gets_a_credential_over_tls_with_the_certificate_of_the_listeners() {
    let server = TestServer::start(&config("", ""));
    let api = Api::over_tls(&server);
    let curl = require_tool("curl", "curl");
    let port = api.address.rsplit(':').next().unwrap();
    let mut command = Command::new(curl);
    command.args(["--silent", "--show-error", "--fail-with-body", "--cacert", &server.file("authority.pem")]);
    command.args([
        "--resolve",
        &format!("localhost:{port}:127.0.0.1"),
        "--header",
        &format!("Authorization: Bearer {KEY}"),
    ]);
    command.args(["--json", r#"{"user":"alice","ttl":60}"#, &format!("https://localhost:{port}/v1/credentials")]);
    let finished = run(&mut command, LIMIT);
    assert_eq!(finished.code, Some(0), "{}", finished.all_output());
    let answer = serde_json::from_str(&finished.stdout).unwrap();
    Wire::connect(&server, Transport::Tls, &credentials(&answer)).allocate().unwrap();
}

#[test]
fn a_client_of_turn_is_no_client_of_this_and_plain_http_is_told_so() {
    let server = TestServer::start(&config("", ""));
    let api = Api::over_tls(&server);
    assert_eq!(api.ask(BODY).status, 201);
    let mut plain = api.connect();
    plain.write_all(b"GET /v1/openapi.json HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{answer}");
    assert!(answer.ends_with("plain HTTP was sent to an HTTPS port: the URL has to begin with https://\n"), "{answer}");
    // The listener of TURN speaks no HTTP.
    let stream = std::net::TcpStream::connect(server.tls()).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let mut stream = tls_over(stream, server.file("authority.pem"));
    let _ = stream.write_all(b"GET /v1/openapi.json HTTP/1.1\r\nHost: x\r\n\r\n");
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert_eq!(answer, b"");
}

#[test]
fn a_reload_changes_keys_and_bounds_at_once_and_not_where_it_listens() {
    let text = config(PLAIN, "");
    let server = TestServer::start(&text);
    let api = Api::of(&server);
    assert_eq!((api.ask(BODY).status, api.ask_with("tsk_later", "", BODY).status), (201, 401));
    let reload = |text: &str, times: usize| {
        server.write_config(text);
        server.signal(Signal::HUP);
        wait_until("the reload", LIMIT, || {
            (server.log().matches("configuration reloaded").count() == times).then_some(())
        });
    };
    let later = text.replace(&key("backend", KEY, ""), &key("later", "tsk_later", "max-ttl = \"5m\"\n"));
    reload(&later.replace("tls = false", "tls = true"), 1);
    assert_eq!(api.ask(BODY).status, 401, "what was removed is good for nothing");
    let answered = api.ask_with("tsk_later", "", BODY);
    assert_eq!((answered.status, answered.json()["ttl"].as_u64()), (201, Some(300)));
    let log = server.log();
    assert!(log.contains("credentials.keys") && log.contains("later page bound"), "{log}");
    let kept = log.lines().find(|line| line.contains("takes effect only after a restart")).unwrap();
    assert!(kept.contains("credentials.tls"), "{kept}");
    // Without the section it goes on as it is until a restart.
    let end = text.find("[credentials]").unwrap();
    let behind = text.find("[[auth.secrets]]").unwrap();
    reload(&format!("{}{}", &text[..end], &text[behind..]), 2);
    assert_eq!(api.ask_with(PAGE_KEY, "", BODY).status, 201);
}

#[test]
fn urls_follow_the_configuration() {
    let server = TestServer::start(&config(PLAIN, "[auth]\npublic-host = \"turn.example.org\"\n"));
    let urls = |server: &TestServer| Api::of(server).ask(BODY).json()["iceServers"][0]["urls"].clone();
    let port = server.udp().port();
    assert_eq!(urls(&server)[0], format!("turn:turn.example.org:{port}?transport=udp"));
    let named = "[auth]\nurls = [\"turns:turn.example.org:443?transport=tcp\", \"turn:203.0.113.5\"]\n";
    let server = TestServer::start(&config(PLAIN, named));
    assert_eq!(urls(&server), serde_json::json!(["turns:turn.example.org:443?transport=tcp", "turn:203.0.113.5"]));
}

#[test]
fn metrics_count_requests_by_what_became_of_them() {
    let server = TestServer::start(&config(PLAIN, ""));
    let api = Api::of(&server);
    assert_eq!(api.ask(BODY).status, 201);
    assert_eq!(api.ask("{}").status, 400);
    assert_eq!(api.ask_with("tsk_wrong", "", BODY).status, 401);
    assert_eq!(api.ask_with(PAGE_KEY, "", r#"{"user":"alice"}"#).status, 403);
    assert_eq!(api.send("GET", "/nowhere", "", "").status, 404);
    let log = server.log();
    let line = log.lines().find(|line| line.contains("serving /metrics")).unwrap();
    let port: String = line.split("127.0.0.1:").nth(1).unwrap().chars().take_while(char::is_ascii_digit).collect();
    let mut stream = std::net::TcpStream::connect(format!("127.0.0.1:{port}")).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut metrics = String::new();
    stream.read_to_string(&mut metrics).unwrap();
    let outcomes =
        [("issued", 1), ("bad-request", 1), ("unauthorized", 1), ("bounds", 1), ("not-found", 1), ("flood", 0)];
    for (outcome, count) in outcomes {
        let line = format!("turnstone_credentials_requests_total{{outcome=\"{outcome}\"}} {count}\n");
        assert!(metrics.contains(&line), "{line}: {metrics}");
    }
}

#[test]
fn a_socket_in_the_file_system_is_for_the_proxy_in_front() {
    let text = config("", "")
        .replace("[credentials]\nlisten = \"127.0.0.1:0\"", "[credentials]\nlisten = \"unix:credentials.sock\"");
    let server = TestServer::start(&text);
    let mut stream = UnixStream::connect(server.file("credentials.sock")).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let head = "POST /v1/credentials HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n";
    let length = BODY.len();
    let request = format!("{head}Authorization: Bearer {KEY}\r\nContent-Length: {length}\r\n\r\n{BODY}");
    stream.write_all(request.as_bytes()).unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    assert!(response.starts_with("HTTP/1.1 201"), "{response}");
}

#[test]
fn the_endpoint_is_no_peer() {
    // Peers on loopback are allowed here.
    let server = TestServer::start(&config("", ""));
    let api = Api::over_tls(&server);
    let mut wire = Wire::connect(&server, Transport::Udp, &server.credentials("alice"));
    wire.allocate().unwrap();
    let endpoint: std::net::SocketAddr = api.address.parse().unwrap();
    assert!(matches!(wire.bind(0x4000, endpoint), Err(403)));
    let beside = std::net::SocketAddr::new(endpoint.ip(), endpoint.port() ^ 1);
    assert!(wire.bind(0x4001, beside).is_ok());
}
