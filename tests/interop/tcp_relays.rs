//! TCP allocations (RFC 6062) with clients that we did not write: `turnutils_uclient -T`, whose clients connect to each other's
//! relays, and `turn-client-proto`.

use std::collections::HashMap;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant as Clock};

use turn_client_proto::api::{Transmit, TurnConfig, TurnEvent, TurnPollRet, TurnRecvRet};
use turn_client_proto::prelude::*;
use turn_client_proto::stun::Instant;
use turn_client_proto::tcp::TurnClientTcp;
use turn_client_proto::types::{TransportType, TurnCredentials};

use crate::support::{Spec, TestServer, Transport};
use crate::uclient::{assert_nothing_lost, spec, uclient};

const LIMIT: Duration = Duration::from_secs(20);

fn server() -> TestServer {
    Spec { tcp_relays: true, workers: 2, ..spec() }.start()
}

#[test]
fn uclients_connect_to_each_others_tcp_relays() {
    let server = server();
    for transport in [Transport::Tcp, Transport::Tls] {
        // Of what a peer sends with -P it counts nothing, with coturn neither.
        for flags in [&["-T"][..], &["-T", "-l", "1200"], &["-T", "-x"], &["-T", "-m", "3"], &["-T", "-m", "4"]] {
            let credentials = server.credentials("uclient");
            let finished = uclient(&server, transport, "127.0.0.1", &credentials, flags);
            assert_nothing_lost(&finished);
        }
    }
}

#[test]
fn turn_proto_connects_to_one_peer_after_the_other_through_a_tcp_relay() {
    let server = server();
    let credentials = server.credentials("proto");
    let mut config = TurnConfig::new(TurnCredentials::new(&credentials.username, &credentials.password));
    config.set_allocation_transport(TransportType::Tcp);
    let address = server.address(Transport::Tcp, "127.0.0.1");
    let mut driver = Driver::new(address, config);
    let allocated = driver.wait_for("an allocation", |driver| driver.api.poll_event());
    assert!(matches!(allocated, TurnEvent::AllocationCreated(TransportType::Tcp, _)), "{allocated:?}");
    let now = driver.now();
    driver.api.create_permission(TransportType::Tcp, "127.0.0.1".parse().unwrap(), now).unwrap();
    let permitted = driver.wait_for("a permission", |driver| driver.api.poll_event());
    assert!(matches!(permitted, TurnEvent::PermissionCreated(TransportType::Tcp, _)), "{permitted:?}");
    // It takes the nonce that it got on one connection for the next request on any other, and does not repeat a Connect that is
    // answered with 438.
    let mut peers = Vec::new();
    for _ in 0..4 {
        peers.push(driver.connect_to_peer());
    }
    for (peer, address) in &mut peers {
        driver.exchange(peer, *address);
    }
}

impl Driver {
    /// Has it connect to a new peer, and says something both ways.
    fn connect_to_peer(&mut self) -> (TcpStream, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let now = self.now();
        self.api.tcp_connect(address, now).unwrap();
        let connected = self.wait_for("a connection", |driver| driver.api.poll_event());
        assert!(matches!(connected, TurnEvent::TcpConnected(peer) if peer == address), "{connected:?}");
        let (mut peer, _) = listener.accept().unwrap();
        peer.set_read_timeout(Some(LIMIT)).unwrap();
        self.exchange(&mut peer, address);
        (peer, address)
    }

    fn exchange(&mut self, peer: &mut TcpStream, address: SocketAddr) {
        for size in [1, 5, 1000, 60_000] {
            let payload: Vec<u8> = (0..size).map(|at| (at * 7 + size) as u8).collect();
            self.send(address, &payload);
            let mut read = vec![0; size];
            peer.read_exact(&mut read).unwrap();
            assert!(read == payload);
            peer.write_all(&payload).unwrap();
            let mut back = Vec::new();
            while back.len() < size {
                back.extend(self.wait_for("data", |driver| driver.received.pop()));
            }
            assert!(back == payload);
        }
    }
}

/// The sans-IO client with its sockets, by their own addresses, and a clock.
struct Driver {
    api: TurnClientTcp,
    sockets: HashMap<SocketAddr, TcpStream>,
    server: SocketAddr,
    started: Clock,
    received: Vec<Vec<u8>>,
}

impl Driver {
    fn new(server: SocketAddr, config: TurnConfig) -> Driver {
        let (local, socket) = open(server);
        Driver {
            api: TurnClientTcp::allocate(local, server, config),
            sockets: HashMap::from([(local, socket)]),
            server,
            started: Clock::now(),
            received: Vec::new(),
        }
    }

    fn now(&self) -> Instant {
        Instant::from_nanos(i64::try_from(self.started.elapsed().as_nanos()).unwrap())
    }

    fn send(&mut self, peer: SocketAddr, payload: &[u8]) {
        let now = self.now();
        let transmit = self.api.send_to(TransportType::Tcp, peer, payload, now).unwrap().unwrap().build();
        (&self.sockets[&transmit.from]).write_all(&transmit.data).unwrap();
    }

    fn wait_for<T>(&mut self, what: &str, mut ready: impl FnMut(&mut Driver) -> Option<T>) -> T {
        let deadline = Clock::now() + LIMIT;
        loop {
            if let Some(value) = ready(self) {
                return value;
            }
            assert!(Clock::now() < deadline, "waited {LIMIT:?} in vain for {what}");
            self.step();
        }
    }

    fn step(&mut self) {
        let now = self.now();
        if let TurnPollRet::AllocateTcpSocket { id, socket, peer_addr } = self.api.poll(now) {
            assert_eq!(socket.to, self.server);
            let (local, stream) = open(self.server);
            self.sockets.insert(local, stream);
            self.api.allocated_tcp_socket(id, socket, peer_addr, Some(local), now).unwrap();
        }
        while let Some(transmit) = self.api.poll_transmit(now) {
            (&self.sockets[&transmit.from]).write_all(&transmit.data).unwrap();
        }
        let mut buffer = vec![0; 65_536];
        for (local, socket) in &self.sockets {
            let count = match (&*socket).read(&mut buffer) {
                Ok(0) => panic!("the server closed the connection from {local}"),
                Ok(count) => count,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
                Err(error) => panic!("cannot read: {error}"),
            };
            let transmit = Transmit::new(buffer[..count].to_vec(), TransportType::Tcp, self.server, *local);
            match self.api.recv(transmit, now) {
                TurnRecvRet::PeerData(data) => self.received.push(data.data().to_vec()),
                TurnRecvRet::Handled | TurnRecvRet::Ignored(_) => {}
                other => panic!("{other:?}"),
            }
            while let Some(data) = self.api.poll_recv(now) {
                self.received.push(data.data().to_vec());
            }
        }
    }
}

fn open(server: SocketAddr) -> (SocketAddr, TcpStream) {
    let stream = TcpStream::connect(server).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(2))).unwrap();
    (stream.local_addr().unwrap(), stream)
}
