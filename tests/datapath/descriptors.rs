//! The server raises its limit of descriptors, and whoever takes them, some are left for allocations and the last for the operator.

use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use turnstone::client::client::{Answer, Client, Credential, Event, Request};

use crate::support::{RELAY_PORTS, TestServer, Transport, wait_until};
use crate::{LIMIT, socket};

/// An allocation of its own user, or nothing if that is refused.
fn allocate(server: &TestServer, number: usize) -> Option<UdpSocket> {
    let socket = socket();
    socket.connect(server.udp()).unwrap();
    let credentials = server.credentials(&format!("user-{number}"));
    let credential =
        Credential { username: credentials.username, password: credentials.password.into(), sha256: false };
    let mut turn = Client::new(Some(Arc::new(credential)), [5; 16]);
    let (mut out, mut buffer) = (Vec::new(), [0; 2048]);
    turn.start(Request::Allocate { family: None, lifetime_secs: None }, &mut out);
    loop {
        socket.send(&out).unwrap();
        let len = socket.recv(&mut buffer).unwrap();
        out.clear();
        match turn.receive(&buffer[..len], &mut out) {
            Ok(Event::Done(Answer::Allocated { .. })) => return Some(socket),
            Ok(Event::Retry) => {}
            Ok(other) => panic!("{other:?}"),
            Err(_) => return None,
        }
    }
}

fn healthz(server: &TestServer) -> String {
    let mut stream = UnixStream::connect(server.file("metrics.sock")).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn strangers_leave_descriptors_for_allocations_and_those_the_last_for_the_operator() {
    const HARD: usize = 420;
    let config = format!(
        r#"
        workers = 2
        [[listen]]
        address = "127.0.0.1:0"
        transport = ["udp", "tcp"]
        [relay]
        ipv4 = "127.0.0.1"
        ipv6 = "off"
        ports = "{}-{}"
        [[auth.secrets]]
        id = "test"
        file = "@DIR@/secret"
        [metrics]
        listen = "unix:@DIR@/metrics.sock"
        "#,
        RELAY_PORTS.0, RELAY_PORTS.1
    );
    let server = TestServer::start_with_descriptors(&config, (100, HARD));
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", server.process_id())).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(line.split_whitespace().nth(3), Some("420"), "{line}");
    // How many connections that leaves is said at the start.
    wait_until("what is said of them", LIMIT, || {
        let log = server.log();
        (log.contains("LimitNOFILE") && log.contains("connections=72")).then_some(())
    });

    // More than there are descriptors; they make room for each other, and not for nothing are they fewer than half.
    let address = server.address(Transport::Tcp, "127.0.0.1");
    let strangers: Vec<TcpStream> = (0..HARD).map(|_| TcpStream::connect(address).unwrap()).collect();
    let mut users = Vec::new();
    while let Some(user) = allocate(&server, users.len()) {
        users.push(user);
        assert!(users.len() < HARD, "there are more allocations than descriptors");
    }
    assert!(users.len() > 72, "only {} allocations beside the connections of strangers", users.len());
    assert!(healthz(&server).starts_with("HTTP/1.1 200"));
    wait_until("the warning", LIMIT, || server.log().contains("the operating system gave no socket").then_some(()));
    drop(strangers);
    // With the last connection of a stranger, there is room again.
    wait_until("another allocation", LIMIT, || allocate(&server, HARD));
}
