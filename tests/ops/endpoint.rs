//! The endpoint as such: health, bad requests, sockets in the file system.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::{TestServer, run, wait_until};
use crate::{LIMIT, config, endpoint, get, http};

#[test]
fn a_running_server_is_healthy_and_ready_and_knows_nothing_else() {
    let server = TestServer::start(&config(""));
    let address = endpoint(&server);
    assert_eq!(get(&address, "/healthz"), (200, "healthy\n".to_owned()));
    assert_eq!(get(&address, "/readyz"), (200, "ready\n".to_owned()));
    assert_eq!(get(&address, "/metrics?format=text").0, 200);
    for path in ["/", "/metrics/", "/../metrics", "/admin"] {
        assert_eq!(get(&address, path).0, 404, "{path}");
    }
    let (status, response) = http(&address, "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(status, 405);
    assert!(response.to_lowercase().contains("allow: get, head"), "{response}");
    let (status, response) = http(&address, "HEAD /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(status, 200);
    assert!(
        response.ends_with("\r\n\r\n") && response.contains("content-type: text/plain; version=0.0.4"),
        "{response}"
    );
}

#[test]
fn connections_that_say_nothing_or_little_hold_up_no_request() {
    let server = TestServer::start(&config("[admin]\nlisten = \"unix:admin.sock\"\n"));
    let address = endpoint(&server);
    let admin = || UnixStream::connect(server.file("admin.sock")).unwrap();
    // More than there are seats: silent ones, some with half a request, and one that says a byte at a time.
    let mut silent: Vec<_> = (0..100).map(|_| (TcpStream::connect(&address).unwrap(), admin())).collect();
    for (tcp, unix) in silent.iter_mut().step_by(3) {
        let _ = tcp.write_all(b"GET /healthz HTTP/1.1\r\nHost: local");
        let _ = unix.write_all(b"GET /v1/status HTTP/1.1\r\n");
    }
    for _ in 0..20 {
        let start = Instant::now();
        assert_eq!(get(&address, "/healthz").0, 200);
        let mut stream = admin();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.write_all(b"GET /v1/status HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
        // They wait until the first of the others must give way, behind all that came before them.
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    }
}

#[test]
fn a_connection_without_a_request_is_closed_after_two_seconds_even_if_it_dribbles() {
    let server = TestServer::start(&config(""));
    let mut slow = TcpStream::connect(endpoint(&server)).unwrap();
    slow.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let start = Instant::now();
    let closed = wait_until("the end of the connection", LIMIT, || {
        let written = slow.write_all(b"G");
        match slow.read(&mut [0; 512]) {
            Ok(0) => Some(start.elapsed()),
            Ok(_) => None,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => None,
            Err(_) => Some(start.elapsed()),
        }
        .or_else(|| written.err().map(|_| start.elapsed()))
    });
    assert!((Duration::from_millis(1900)..Duration::from_secs(6)).contains(&closed), "{closed:?}");
}

#[test]
fn metrics_are_not_for_web_pages_that_found_a_name_for_their_address() {
    let server = TestServer::start(&config(""));
    let address = endpoint(&server);
    let with =
        |address: &str, path: &str, headers: &str| http(address, &format!("GET {path} HTTP/1.1\r\n{headers}\r\n"));
    for host in ["localhost", "127.0.0.1:9641", "[::1]"] {
        assert_eq!(with(&address, "/metrics", &format!("Host: {host}\r\n")).0, 200, "{host}");
    }
    for headers in
        ["Host: rebound.example:9641\r\n", "Host: localhost\r\nOrigin: http://evil.example\r\n", "Host: \r\n"]
    {
        let (status, response) = with(&address, "/metrics", headers);
        assert_eq!(status, 403, "{headers}");
        assert!(
            response.contains("set allow-remote = true in [metrics]") && !response.contains("turnstone_"),
            "{response}"
        );
    }
    // A load balancer may name the host as it likes, or not at all.
    for path in ["/healthz", "/readyz"] {
        assert_eq!(with(&address, path, "Host: turn.example.org\r\n").0, 200);
        assert_eq!(http(&address, &format!("GET {path} HTTP/1.0\r\n\r\n")).0, 200);
    }
}

#[test]
fn metrics_that_others_may_read_are_for_any_host() {
    let server = TestServer::start(&config("").replace("[metrics]\n", "[metrics]\nallow-remote = true\n"));
    let (status, _) = http(&endpoint(&server), "GET /metrics HTTP/1.1\r\nHost: turn.example.org:9641\r\n\r\n");
    assert_eq!(status, 200);
}

#[test]
fn nonsense_and_silent_connections_leave_it_answering() {
    let server = TestServer::start(&config(""));
    let address = endpoint(&server);
    let _silent: Vec<_> = (0..20).map(|_| TcpStream::connect(&address).unwrap()).collect();
    for nonsense in [b"\x00\x01\x00\x00\x21\x12\xa4\x42".as_slice(), b"GET\r\n\r\n", &[0xff; 40_000]] {
        let mut stream = TcpStream::connect(&address).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        // It may be closed while we write.
        let _ = stream.write_all(nonsense);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"), "{}", String::from_utf8_lossy(&answer));
    }
    assert_eq!(get(&address, "/healthz").0, 200);
}

#[test]
fn a_socket_in_the_file_system_is_for_owner_and_group_and_goes_with_the_server() {
    let config = config("").replace("listen = \"127.0.0.1:0\"", "listen = \"unix:metrics.sock\"");
    let mut server = TestServer::start(&config);
    let path = server.file("metrics.sock");
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    assert!(response.starts_with("HTTP/1.1 200 OK\r\n") && response.ends_with("ready\n"), "{response}");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);

    // A second server does not take it away; what is left by a dead one is replaced.
    let second = |listen: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_turnstone"));
        command.arg("serve").arg("--dev").arg("--config").arg(server.file("turnserver.toml"));
        let text = std::fs::read_to_string(server.file("turnserver.toml")).unwrap();
        server.write_config(&text.replace("unix:metrics.sock", listen));
        run(&mut command, LIMIT)
    };
    let refused = second("unix:metrics.sock");
    assert_eq!(refused.code, Some(3), "{}", refused.all_output());
    assert!(refused.stderr.contains("another process listens there"), "{}", refused.stderr);
    std::fs::write(server.file("file"), "precious").unwrap();
    let refused = second("unix:file");
    assert!(refused.stderr.contains("a file that is not a socket"), "{}", refused.stderr);
    assert_eq!(std::fs::read_to_string(server.file("file")).unwrap(), "precious");

    server.signal(Signal::TERM);
    assert_eq!(server.exit_code_within(LIMIT), Some(0));
    assert!(!std::path::Path::new(&path).exists());
}

#[test]
fn what_a_killed_server_leaves_behind_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("metrics.sock");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let listen = format!("listen = \"unix:{}\"", path.display());
    let _server = TestServer::start(&config("").replace("listen = \"127.0.0.1:0\"", &listen));
    UnixStream::connect(&path).unwrap();
}
