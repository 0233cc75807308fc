//! The server raises its limit of descriptors, and whoever takes them, some are left for allocations and the last for the operator.

use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use turnstone::client::{Answer, Client, Credential, Event, Request};
use turnstone::net::sys::process_cpu_ns;

use crate::strangers::binding_is_answered;
use crate::streams::connect;
use crate::support::{RELAY_PORTS, Spec, TestServer, Transport, wait_until};
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

/// The soft and the hard limit of open files.
fn open_files(pid: u32) -> [u64; 2] {
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let mut limits = line.split_whitespace().map(|limit| limit.parse().unwrap());
    [(); 2].map(|()| limits.next().unwrap())
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
    assert_eq!(open_files(server.process_id()), [HARD as u64; 2]);
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

#[test]
fn without_descriptors_a_listener_rests_and_goes_on_when_there_are_some_again() {
    let server = Spec::local().start();
    assert!(binding_is_answered(&mut connect(&server, Transport::Tcp)));
    let pid = server.process_id();
    // The hard limit stays as it is: not everybody may raise it again.
    let maximum = Some(open_files(pid)[1]);
    let limit_to = |current| {
        prlimit(Pid::from_raw(pid.cast_signed()), Resource::Nofile, Rlimit { current, maximum }).unwrap();
    };
    limit_to(Some(3));
    let mut stream = connect(&server, Transport::Tcp);
    wait_until("the warning", LIMIT, || server.log().contains("the operating system gave no socket").then_some(()));
    // The connection waits in the kernel, and nobody spins over it meanwhile.
    let (used, waited) = (process_cpu_ns(pid).unwrap(), std::time::Duration::from_millis(500));
    std::thread::sleep(waited);
    let used = std::time::Duration::from_nanos(process_cpu_ns(pid).unwrap() - used);
    assert!(used < waited / 4, "{used:?} of {waited:?} are spent on waiting");
    limit_to(maximum);
    assert!(binding_is_answered(&mut stream), "it is accepted once there are descriptors");
}
