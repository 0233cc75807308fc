//! The page: its files are for whoever reaches the endpoint, its data for who has the token, and neither for other pages.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};

use crate::api::Api;
use crate::support::{Credentials, TestServer, Transport, wait_until};
use crate::wire::Wire;
use crate::{LIMIT, TOKEN, config, config_with_port};

fn with_page(config: &str) -> String {
    config.replacen("[admin]\n", "[admin]\npage = true\n", 1)
}

/// Status, head in small letters, body.
fn raw(mut stream: impl Read + Write, method: &str, path: &str, headers: &str) -> (u16, String, String) {
    stream.write_all(format!("{method} {path} HTTP/1.1\r\n{headers}\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_lowercase(), body.to_owned())
}

#[test]
fn the_files_are_served_without_the_token_and_to_no_other_page() {
    let server = TestServer::start(&with_page(&config_with_port("")));
    let api = Api::at_port_of(&server);
    let host = api.address().to_owned();
    let get = |path: &str, headers: &str| {
        let headers = format!("Host: {host}\r\n{headers}");
        raw(TcpStream::connect(&host).unwrap(), "GET", path, &headers)
    };
    let (status, head, body) = get("/", "");
    assert_eq!(status, 200, "{head}");
    assert!(body.starts_with("<!doctype html>") && head.contains("content-type: text/html; charset=utf-8"), "{head}");
    let mut files = vec![];
    for link in ["href=\"page/", "src=\"page/"] {
        files.extend(body.split(link).skip(1).map(|rest| format!("/page/{}", rest.split('"').next().unwrap())));
    }
    assert!(files.len() > 3, "{files:?}");
    for path in &files {
        assert_eq!(get(path, "Sec-Fetch-Site: same-origin\r\n").0, 200, "{path}");
        for other in
            ["Sec-Fetch-Site: cross-site\r\n", "Sec-Fetch-Site: same-site\r\n", "Origin: http://evil.example\r\n"]
        {
            assert_eq!(get(path, other).0, 403, "{path} {other}");
        }
    }
    for (status, wanted, path) in [(200, 200, "/"), (401, 401, "/v1/status"), (401, 401, "/page/none.js")] {
        let (given, head, _) = get(path, "");
        assert_eq!((given, status), (wanted, given), "{path}");
        for header in [
            "content-security-policy: default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
            "x-frame-options: deny",
            "x-content-type-options: nosniff",
            "referrer-policy: no-referrer",
            "cross-origin-resource-policy: same-origin",
            "cache-control: no-store",
        ] {
            assert!(head.contains(header), "{path}: no {header} in {head}");
        }
        assert!(!head.contains("access-control") && !head.contains("set-cookie"), "{head}");
    }
    // A link elsewhere may open the page, a name that leads to loopback may not.
    let link = "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n";
    assert_eq!((get("/", link).0, get(&files[0], link).0), (200, 403));
    let rebound = raw(TcpStream::connect(&host).unwrap(), "GET", "/", "Host: evil.example\r\n");
    assert_eq!(rebound.0, 403);
    let head = raw(TcpStream::connect(&host).unwrap(), "HEAD", "/", "Host: localhost\r\n");
    assert_eq!((head.0, head.2.as_str()), (200, ""));
    let post = raw(TcpStream::connect(&host).unwrap(), "POST", "/", "Host: localhost\r\nContent-Length: 0\r\n");
    assert!(post.0 == 405 && post.1.contains("allow: get, head"), "{post:?}");
}

#[test]
fn the_page_may_ask_with_its_own_origin_and_the_token_and_another_may_not() {
    let server = TestServer::start(&with_page(&config_with_port("")));
    let api = Api::at_port_of(&server);
    let host = api.address().to_owned();
    let own = format!("Host: {host}\r\nOrigin: http://{host}\r\nSec-Fetch-Site: same-origin\r\n");
    let good = format!("Authorization: Bearer {TOKEN}\r\n");
    let status = |method: &str, path: &str, headers: &str| api.call_with(method, path, headers, "").status;
    assert_eq!(status("GET", "/v1/status", &format!("{own}{good}")), 200);
    assert_eq!(status("DELETE", "/v1/sessions?user=nobody", &format!("{own}{good}")), 200);
    assert_eq!(status("GET", "/v1/status", &own), 401);
    for origin in ["http://evil.example", "http://localhost:1", "https://localhost", "null"] {
        let other = format!("Host: {host}\r\nOrigin: {origin}\r\n{good}");
        assert_eq!(status("DELETE", "/v1/sessions?user=nobody", &other), 403, "{origin}");
    }
    let embedded = format!("Host: {host}\r\nSec-Fetch-Site: same-site\r\nSec-Fetch-Mode: no-cors\r\n{good}");
    assert_eq!(status("GET", "/v1/status", &embedded), 403);
    let navigated = "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n";
    assert_eq!(status("GET", "/v1/status", &format!("Host: {host}\r\n{navigated}{good}")), 403);
}

#[test]
fn a_socket_that_shows_the_page_is_guarded_as_a_port_is_because_one_may_lead_to_it() {
    let server = TestServer::start(&with_page(&config("")));
    let get = |path: &str, headers: &str| {
        raw(UnixStream::connect(server.file("admin.sock")).unwrap(), "GET", path, headers).0
    };
    for path in ["/", "/v1/status"] {
        assert_eq!(get(path, "Host: localhost:8080\r\n"), 200, "{path}");
        assert_eq!(get(path, "Host: localhost:8080\r\nOrigin: http://localhost:8080\r\n"), 200, "{path}");
        assert_eq!(get(path, "Host: localhost:8080\r\nOrigin: http://localhost:3000\r\n"), 403, "{path}");
        assert_eq!(get(path, "Host: evil.example\r\n"), 403, "{path}");
    }
    assert_eq!(Api::of(&server).get("/v1/status")["state"], "serving");
}

#[test]
fn without_page_there_is_none_and_no_figures_are_kept() {
    for config in [config(""), config_with_port("")] {
        let server = TestServer::start(&config);
        let api = if config.contains(TOKEN) { Api::at_port_of(&server) } else { Api::of(&server) };
        assert_eq!(api.refused("GET", "/", None).0, 404);
        assert_eq!(api.refused("GET", "/page/main.js", None).0, 404);
        let (status, code, message) = api.refused("GET", "/v1/history", None);
        assert!(status == 404 && code == "not_found" && message.contains("page = true in [admin]"), "{message}");
    }
}

#[test]
fn figures_of_the_last_minutes_come_by_their_numbers() {
    let server = TestServer::start(&with_page(&config("")));
    let api = Api::of(&server);
    let (_client, _) = Wire::allocated(&server, Transport::Tcp, "alice");
    let sample = wait_until("a sample with the session", LIMIT, || {
        let history = api.get("/v1/history");
        history["samples"].as_array().unwrap().iter().find(|sample| sample["allocations"]["tcp"] == 1).cloned()
    });
    assert_eq!(sample["made"], 1, "{sample}");
    // The challenge that every client gets first.
    assert_eq!(sample["refused"], json!({ "missing-integrity": 1 }));
    assert!(sample["setup_micros"]["p50"].as_f64().unwrap() > 0.0 && sample["relay_micros"].is_null(), "{sample}");
    let after = api.get(&format!("/v1/history?after={}", sample["number"]));
    assert_eq!(after["samples"], json!([]));
    assert_eq!(api.refused("GET", "/v1/history?after=x", None).0, 400);
}

#[test]
fn the_certificates_say_what_they_are_for() {
    let server = TestServer::start(&config(""));
    let certificates = Api::of(&server).get("/v1/certificates");
    let [certificate] = certificates["certificates"].as_array().unwrap().as_slice() else { panic!("{certificates}") };
    assert!(certificate["file"].as_str().unwrap().ends_with("certificate.pem"), "{certificate}");
    assert_eq!((&certificate["names"], &certificate["source"]), (&json!(["localhost"]), &json!("files")));
    assert!(certificate["not_before_unix"].as_i64() < certificate["not_after_unix"].as_i64(), "{certificate}");
    let without = TestServer::start(
        &config("")
            .replace(", \"tls\"]", "]")
            .replace("[tls]\ncertificate = \"@DIR@/certificate.pem\"\nkey = \"@DIR@/key.pem\"\n", ""),
    );
    assert_eq!(Api::of(&without).get("/v1/certificates"), json!({ "certificates": [], "acme": [] }));
}

#[test]
fn the_credential_of_a_self_test_is_good_at_every_listener_for_a_user_of_its_own() {
    let server = TestServer::start(&config(""));
    let api = Api::of(&server);
    let prepared = api.done("POST", "/v1/self-test", None, 200);
    let servers = prepared["servers"].as_array().unwrap();
    let transports: Vec<_> = servers.iter().map(|server| server["transport"].as_str().unwrap()).collect();
    assert_eq!(transports, ["udp", "tcp", "tls"]);
    let mut clients = Vec::new();
    for (of_server, transport) in servers.iter().zip([Transport::Udp, Transport::Tcp, Transport::Tls]) {
        let address = server.address(transport, "127.0.0.1");
        let url = of_server["url"].as_str().unwrap();
        assert!(url.contains(&format!(":{address}?transport=")), "{url}");
        let credentials = Credentials {
            username: of_server["username"].as_str().unwrap().to_owned(),
            password: of_server["credential"].as_str().unwrap().to_owned(),
        };
        let mut client = Wire::connect(&server, transport, &credentials);
        client.allocate().unwrap();
        clients.push(client);
    }
    let user = prepared["user"].as_str().unwrap();
    let found = api.get(&format!("/v1/sessions?user={user}"));
    assert_eq!(found["sessions"].as_array().unwrap().len(), 3);
    let session = &found["sessions"][0];
    assert_eq!((&session["user"], &session["credential_expires_unix"]), (&prepared["user"], &prepared["expires_unix"]));
    let age = prepared["expires_unix"].as_u64().unwrap() - session["started_unix"].as_u64().unwrap();
    assert!((590..=600).contains(&age), "{age}");
}

#[test]
fn a_self_test_is_limited_where_usernames_may_be_and_needs_a_secret_of_its_listeners_realm() {
    let realm = "[[realm]]\nname = \"other\"\n[[realm.users]]\nname = \"u\"\npassword = \"p\"\n";
    let config = config(realm)
        .replacen("[[auth.secrets]]", "[auth]\nusername-limits = true\n[[auth.secrets]]", 1)
        .replacen("[tls]", "[[listen]]\naddress = \"127.0.0.1:0\"\ntransport = \"udp\"\nrealm = \"other\"\n[tls]", 1);
    let server = TestServer::start(&config);
    let prepared = Api::of(&server).done("POST", "/v1/self-test", None, 200);
    let servers = prepared["servers"].as_array().unwrap();
    assert!(servers[0]["username"].as_str().unwrap().ends_with(":turnstone-self-test;alloc=16;bw=50M"), "{prepared}");
    let other = servers.last().unwrap();
    assert_eq!(
        (&other["realm"], &other["username"], &other["credential"]),
        (&json!("other"), &Value::Null, &Value::Null)
    );
    assert_eq!(servers[0]["realm"], Value::Null);
}

#[test]
fn a_self_test_has_the_urls_of_each_realm_with_a_credential_that_is_good_there() {
    let realm =
        "[[realm]]\nname = \"other\"\nsni = [\"turn.b.example\"]\n[[realm.secrets]]\nsecret = \"fedcba9876543210\"\n";
    let config = config(realm)
        .replacen("[[auth.secrets]]", "[auth]\npublic-host = \"turn.a.example\"\n[[auth.secrets]]", 1)
        .replacen("[tls]", "[[listen]]\naddress = \"127.0.0.1:0\"\ntransport = \"udp\"\nrealm = \"other\"\n[tls]", 1);
    let server = TestServer::start(&config);
    let prepared = Api::of(&server).done("POST", "/v1/self-test", None, 200);
    let servers = prepared["servers"].as_array().unwrap();
    let shown: Vec<_> = servers
        .iter()
        .map(|server| {
            let url = server["url"].as_str().unwrap();
            let host = url.split(':').nth(1).unwrap();
            (server["realm"].as_str().unwrap_or("-"), server["transport"].as_str().unwrap(), host)
        })
        .collect();
    let (a, b) = ("turn.a.example", "turn.b.example");
    assert_eq!(shown, [("-", "udp", a), ("-", "tcp", a), ("-", "tls", a), ("other", "tls", b), ("other", "udp", b)]);
    assert!(servers.iter().all(|server| server["credential"].is_string()), "{prepared}");
    assert_ne!(servers[0]["credential"], servers[4]["credential"]);
}
