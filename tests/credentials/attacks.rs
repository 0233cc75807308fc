//! Who is not let in, and what they cost those who are.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::api::Api;
use crate::support::TestServer;
use crate::{KEY, LIMIT, PAGE_KEY, PLAIN, config};

const BODY: &str = r#"{"user":"alice"}"#;

#[test]
fn without_a_key_that_somebody_has_there_is_nothing() {
    let server = TestServer::start(&config(&format!("{PLAIN}\n"), "[log]\nlevel = \"debug\"\n"));
    let api = Api::of(&server);
    let ask = |authorization: &str| {
        let headers = format!("{authorization}Content-Type: application/json\r\n");
        api.send("POST", "/v1/credentials", &headers, BODY)
    };
    let cut = &KEY[..KEY.len() - 1];
    for authorization in [
        String::new(),
        "Authorization: \r\n".to_owned(),
        "Authorization: Bearer\r\n".to_owned(),
        "Authorization: Bearer \r\n".to_owned(),
        format!("Authorization: Bearer {cut}\r\n"),
        format!("Authorization: Bearer {KEY}x\r\n"),
        format!("Authorization: {KEY}\r\n"),
        format!("Authorization: Basic {KEY}\r\n"),
        format!("Authorization: Bearer {KEY}\r\nAuthorization: Bearer {KEY}\r\n"),
    ] {
        let answered = ask(&authorization);
        assert_eq!((answered.status, answered.code().as_str()), (401, "unauthorized"), "{authorization}");
        assert_eq!(answered.header("www-authenticate"), Some("Bearer"));
        assert!(!answered.body.contains(cut));
    }
    assert_eq!(ask(&format!("Authorization: bearer {KEY}\r\n")).status, 201);
    let made = api.ask(BODY).json();
    // A key in the wrong place is not taken, and not written down either.
    assert_eq!(api.send("POST", &format!("/v1/credentials?key={KEY}"), "", BODY).status, 401);
    let log = crate::support::wait_until("the last request in the log", LIMIT, || {
        let log = server.log();
        (log.matches("request for a credential").count() >= 12).then_some(log)
    });
    for secret in [cut, made["credential"].as_str().unwrap(), server.secret()] {
        assert!(!log.contains(secret), "the log has a secret: {log}");
    }
}

#[test]
fn bodies_and_heads_have_their_bounds() {
    let server = TestServer::start(&config(PLAIN, ""));
    let api = Api::of(&server);
    let huge = format!(r#"{{"user":"{}"}}"#, "a".repeat(20_000));
    let answered = api.ask(&huge);
    assert_eq!((answered.status, answered.code().as_str()), (413, "body_too_large"));
    let chunked = "Transfer-Encoding: chunked\r\nContent-Type: application/json\r\n";
    let head = format!("POST /v1/credentials HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n{chunked}\r\n");
    let chunk = format!("{:x}\r\n{}\r\n", 15_000, "a".repeat(15_000));
    let answered = api.raw(&format!("{head}{chunk}{chunk}0\r\n\r\n"));
    assert_eq!(answered.status, 413);
    let answered = api.raw(&format!("{head}10\r\n{BODY}\r\n0\r\n\r\n"));
    assert_eq!(answered.status, 201);
    let nested = format!(r#"{{"user":{}1{}}}"#, "[".repeat(7000), "]".repeat(7000));
    assert_eq!(api.ask(&nested).status, 400);
    let header = format!("X-Long: {}\r\n", "a".repeat(40_000));
    let mut stream = api.connect();
    let _ = stream.write_all(format!("POST /v1/credentials HTTP/1.1\r\nHost: x\r\n{header}\r\n").as_bytes());
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    assert_eq!(api.ask(BODY).status, 201);
}

#[test]
fn a_request_cannot_bring_another_one_along() {
    let server = TestServer::start(&config(PLAIN, ""));
    let api = Api::of(&server);
    let inner = format!(
        "POST /v1/credentials HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{BODY}",
        BODY.len()
    );
    let plain = "GET /v1/openapi.json HTTP/1.1\r\nHost: x\r\n";
    for outer in [
        // One after the other, and hidden behind two lengths that disagree.
        format!("{plain}\r\n"),
        "POST /v1/credentials HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
            .to_owned(),
        "POST /v1/credentials HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n"
            .to_owned(),
        "POST /v1/credentials HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nContent-Length: 4\r\n\r\n".to_owned(),
        "POST /v1/credentials HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n".to_owned(),
        format!(
            "POST /v1/credentials HTTP/1.1\r\nHost: x\r\nX: y\r\n Authorization: Bearer {KEY}\r\nContent-Length: 0\r\n\r\n"
        ),
    ] {
        let mut stream = api.connect();
        stream.write_all(format!("{outer}{inner}").as_bytes()).unwrap();
        let mut response = Vec::new();
        let _ = stream.read_to_end(&mut response);
        let response = String::from_utf8_lossy(&response);
        assert!(response.matches("HTTP/1.1 ").count() <= 1, "{outer:?}: {response}");
        assert!(!response.contains(" 201 "), "{outer:?}: {response}");
    }
}

#[test]
fn slow_and_silent_clients_hold_up_neither_a_request_nor_the_admin_api() {
    let server = TestServer::start(&config(&format!("{PLAIN}\nrequests-per-network-per-second = \"unlimited\""), ""));
    let api = Api::of(&server);
    let half =
        "POST /v1/credentials HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{";
    let mut slow: Vec<TcpStream> = (0..300).map(|_| api.connect()).collect();
    for (index, stream) in slow.iter_mut().enumerate() {
        let _ = match index % 3 {
            0 => Ok(()),
            1 => stream.write_all(b"POST /v1/cred"),
            _ => stream.write_all(half.as_bytes()),
        };
    }
    for _ in 0..5 {
        let start = Instant::now();
        assert_eq!(api.ask(BODY).status, 201);
        // They wait until the first of the others must give way, behind all that came before them.
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        let start = Instant::now();
        assert!(admin(&server).starts_with("HTTP/1.1 200"));
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    }
}

#[test]
fn a_body_that_does_not_come_is_not_waited_for() {
    let server = TestServer::start(&config(PLAIN, ""));
    let api = Api::of(&server);
    let start = Instant::now();
    let answered = api.raw(
        "POST /v1/credentials HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{",
    );
    assert_eq!((answered.status, answered.code().as_str()), (408, "request_timeout"));
    assert!((Duration::from_secs(3)..Duration::from_secs(9)).contains(&start.elapsed()), "{:?}", start.elapsed());
}

#[test]
fn a_flood_of_wrong_keys_leaves_those_who_have_one_their_answers_and_is_itself_cut() {
    const PER_SECOND: u64 = 10;
    const AT_ONCE: u64 = 4 * PER_SECOND;
    let more = format!("requests-per-network-per-second = {PER_SECOND}\nforwarded-for = false");
    let server = TestServer::start(&config(&format!("{PLAIN}\n{more}"), ""));
    let api = Api::of(&server);
    let wrong = || {
        let mut stream = api.connect();
        let request =
            "POST /v1/credentials HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer tsk_wrong\r\nContent-Length: 0\r\n\r\n";
        stream.write_all(request.as_bytes()).ok()?;
        let mut response = String::new();
        stream.read_to_string(&mut response).ok()?;
        response.split(' ').nth(1)?.parse().ok()
    };
    // However fast this machine is, the flood goes on until it is cut: who is slow is given more meanwhile.
    let (start, mut refused, mut cut) = (Instant::now(), 0, 0);
    while cut < 50 {
        assert!(start.elapsed() < 2 * LIMIT, "{refused} refused, {cut} cut");
        match wrong() {
            Some(401) => refused += 1,
            Some(429) => cut += 1,
            other => panic!("{other:?} after {refused} refused and {cut} cut"),
        }
    }
    let given = AT_ONCE + PER_SECOND * (start.elapsed().as_secs() + 1);
    assert!((AT_ONCE..=given).contains(&refused), "{refused} refused of {given}");
    // Who has a secret key beside them does not notice, who has one that pages have does: at once after the flood, before there is more
    // to be had.
    assert_eq!(api.ask(BODY).status, 201);
    let page = crate::support::wait_until("a page that is cut", LIMIT, || {
        (wrong() == Some(429)).then_some(())?;
        let page = api.ask_with(PAGE_KEY, "", r#"{"user":"page-1"}"#);
        (page.status == 429 && page.code() == "network_rate_limited").then_some(page)
    });
    assert_eq!(page.header("retry-after"), Some("1"));
    // Who asks from elsewhere does not notice.
    let stream = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    stream.bind(&"127.0.9.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
    stream.connect(&api.address.parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
    let mut stream = TcpStream::from(stream);
    let request = format!(
        "POST /v1/credentials HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{BODY}",
        BODY.len()
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    assert!(response.starts_with("HTTP/1.1 201"), "{response}");
}

#[test]
fn behind_a_proxy_each_client_has_a_budget_of_its_own() {
    let more = "requests-per-network-per-second = 5\nforwarded-for = true";
    let server = TestServer::start(&config(&format!("{PLAIN}\n{more}"), ""));
    let api = Api::of(&server);
    let ask = |client: &str| {
        let header = format!("X-Forwarded-For: 8.8.8.8, {client}\r\n");
        api.ask_with(PAGE_KEY, &header, r#"{"user":"page-1"}"#).status
    };
    let refused = (0..60).find(|_| ask("203.0.113.7") == 429);
    assert!(refused.is_some());
    assert_eq!(ask("198.51.100.7"), 201);
}

#[test]
fn a_flood_of_handshakes_holds_up_neither_packets_nor_the_admin_api() {
    let server = TestServer::start(&config("requests-per-network-per-second = \"unlimited\"", ""));
    let api = Api::over_tls(&server);
    let handshakes = Arc::new(AtomicUsize::new(0));
    let wanted = 400;
    let floods: Vec<_> = (0..8)
        .map(|_| {
            let (api, handshakes, authority) = (api.clone(), Arc::clone(&handshakes), server.file("authority.pem"));
            thread::spawn(move || {
                while handshakes.load(Ordering::Relaxed) < wanted {
                    let mut stream = crate::support::tls_over(api.connect(), &authority);
                    let is_done = stream.write_all(b"GET / HTTP/1.1\r\n\r\n").is_ok();
                    handshakes.fetch_add(usize::from(is_done), Ordering::Relaxed);
                }
            })
        })
        .collect();
    let mut slowest = Duration::ZERO;
    while handshakes.load(Ordering::Relaxed) < wanted {
        let start = Instant::now();
        assert!(admin(&server).starts_with("HTTP/1.1 200"));
        slowest = slowest.max(start.elapsed());
    }
    floods.into_iter().for_each(|flood| flood.join().unwrap());
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
}

fn admin(server: &TestServer) -> String {
    let mut stream = UnixStream::connect(server.file("admin.sock")).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.write_all(b"GET /v1/status HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    response
}
