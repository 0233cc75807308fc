//! The endpoint as such: health, bad requests, sockets in the file system.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;

use rustix::process::Signal;

use crate::support::{TestServer, run};
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
    let (status, response) = http(&address, "HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(status, 200);
    assert!(response.ends_with("\r\n\r\n") && response.contains("application/openmetrics-text"), "{response}");
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
