//! The server raises its limit of descriptors, and whoever takes them, some are left for allocations and the last for the operator.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use turnstone::client::{Answer, Client, Credential, Event, Request};
use turnstone::net::sys::process_cpu_ns;
use turnstone::stun::Method;

use crate::strangers::binding_is_answered;
use crate::streams::connect;
use crate::support::{RELAY_PORTS, Spec, TestServer, Transport, wait_until};
use crate::tcp_allocation::Access;
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

const HARD: usize = 420;

fn with_few_descriptors(of_relay: &str) -> TestServer {
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
        {of_relay}
        [[auth.secrets]]
        id = "test"
        file = "@DIR@/secret"
        [metrics]
        listen = "unix:@DIR@/metrics.sock"
        "#,
        RELAY_PORTS.0, RELAY_PORTS.1
    );
    TestServer::start_with_descriptors(&config, (100, HARD))
}

/// Sets the soft limit of a server's open files, to the hard one without a number; the hard limit stays: not everybody may raise it again.
fn limit_to(server: &TestServer, current: Option<u64>) {
    let pid = server.process_id();
    let maximum = Some(open_files(pid)[1]);
    let limit = Rlimit { current: current.or(maximum), maximum };
    prlimit(Pid::from_raw(pid.cast_signed()), Resource::Nofile, limit).unwrap();
}

#[test]
fn strangers_leave_descriptors_for_allocations_and_those_the_last_for_the_operator() {
    let server = with_few_descriptors("");
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
    limit_to(&server, Some(3));
    let mut stream = connect(&server, Transport::Tcp);
    wait_until("the warning", LIMIT, || server.log().contains("the operating system gave no socket").then_some(()));
    // The connection waits in the kernel, and nobody spins over it meanwhile.
    let (used, waited) = (process_cpu_ns(pid).unwrap(), std::time::Duration::from_millis(500));
    std::thread::sleep(waited);
    let used = std::time::Duration::from_nanos(process_cpu_ns(pid).unwrap() - used);
    assert!(used < waited / 4, "{used:?} of {waited:?} are spent on waiting");
    limit_to(&server, None);
    assert!(binding_is_answered(&mut stream), "it is accepted once there are descriptors");
}

#[test]
fn without_descriptors_a_tcp_relay_rests_and_its_peer_is_announced_when_there_are_some_again() {
    let server = Spec { tcp_relays: true, ..Spec::local() }.start();
    let access = Access::new(&server, Transport::Tcp, "127.0.0.1", "patient");
    let (mut control, relayed) = access.allocate(None);
    control.permit("127.0.0.1:1".parse().unwrap());
    limit_to(&server, Some(3));
    let peer = TcpStream::connect(relayed).unwrap();
    wait_until("the warning", LIMIT, || server.log().contains("the operating system gave no socket").then_some(()));
    // What is asked for meanwhile is refused, and nothing else ends.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    assert_eq!(control.connect(listener.local_addr().unwrap()).err(), Some(508));
    limit_to(&server, None);
    let told = control.hear();
    assert_eq!(told.method(), Method::CONNECTION_ATTEMPT);
    let mut data = access.bind(told.connection_id()).unwrap();
    (&peer).write_all(b"hello").unwrap();
    let mut hello = [0; 5];
    data.read_exact(&mut hello).unwrap();
    assert_eq!(&hello, b"hello");
}

#[test]
fn connections_with_peers_of_tcp_relays_take_no_descriptors_of_relays_and_clients() {
    let server = with_few_descriptors("tcp = true");
    wait_until("what is said of them", LIMIT, || {
        let log = server.log();
        (log.contains("LimitNOFILE") && log.contains("connections=54") && log.contains("peers=36")).then_some(())
    });
    let access = Access::new(&server, Transport::Tcp, "127.0.0.1", "greedy");
    let listeners: Vec<_> = (0..60).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let mut controls = [(); 2].map(|()| access.allocate(None).0);
    let mut results = Vec::new();
    for (number, listener) in listeners.iter().enumerate() {
        results.push(controls[number % 2].connect(listener.local_addr().unwrap()).err());
    }
    assert_eq!(results.iter().filter(|result| result.is_none()).count(), 36, "{results:?}");
    assert!(results[36..].iter().all(|result| *result == Some(508)), "{results:?}");
    wait_until("the warning", LIMIT, || server.log().contains("the operating system gave no socket").then_some(()));
    // Everybody else has the rest.
    let users: Vec<_> = (0..80).map_while(|number| allocate(&server, number)).collect();
    assert_eq!(users.len(), 80);
    assert!(binding_is_answered(&mut connect(&server, Transport::Tcp)));
    // And so has whoever asks again, once there is room.
    drop(controls);
    wait_until("room for another connection", LIMIT, || {
        let (mut control, _) = access.allocate(None);
        control.connect(listeners[0].local_addr().unwrap()).ok()
    });
}
