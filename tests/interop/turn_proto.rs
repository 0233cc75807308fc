//! The sans-IO client `turn-client-proto`: the one here that speaks RFC 8489's SHA-256, RFC 8656's dual allocations and its ICMP
//! attribute. Three habits of version 0.7 shape the tests:
//!
//! - Over TCP it neither pads the ChannelData that it sends nor skips the padding of what it receives, although RFC 8656 section
//!   12.5 asks for padding; payloads that go by channel over TCP are multiples of 4 bytes.
//! - It counts channel numbers per family, although one number has one peer (RFC 8656 section 12.1); a client with both
//!   families binds a channel in one of them.
//! - It reads the security features of a nonce from the most significant bit, as RFC 8489 section 18.1 said before erratum 6290,
//!   and so never sees that the server knows USERHASH; that request is put together by hand from its codec.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant as Clock};

use turn_client_proto::api::{Transmit, TurnConfig, TurnEvent, TurnPollRet, TurnRecvRet};
use turn_client_proto::prelude::*;
use turn_client_proto::stun::Instant;
use turn_client_proto::stun::auth::Feature;
use turn_client_proto::tcp::TurnClientTcp;
use turn_client_proto::types::attribute::RequestedTransport;
use turn_client_proto::types::message::ALLOCATE;
use turn_client_proto::types::stun::attribute::{
    Nonce, PasswordAlgorithm, PasswordAlgorithmValue, PasswordAlgorithms, Realm, Userhash,
};
use turn_client_proto::types::stun::message::{
    IntegrityAlgorithm, LongTermKeyCredentials, Message, MessageClass, MessageIntegrityCredentials, MessageType,
    MessageWriteVec, TransactionId,
};
use turn_client_proto::types::stun::prelude::*;
use turn_client_proto::types::{AddressFamily, TransportType, TurnCredentials};
use turn_client_proto::udp::TurnClientUdp;

use crate::support::{Credentials, EchoPeer, Spec, TestServer, Transport, free_address, is_turnstone};

const LIMIT: Duration = Duration::from_secs(10);

const USERNAME: u16 = 0x0006;
const MESSAGE_INTEGRITY: u16 = 0x0008;
const MESSAGE_INTEGRITY_SHA256: u16 = 0x001C;
const ERROR_CODE: u16 = 0x0009;
const ALLOCATE_REQUEST: u16 = 0x0003;
const ALLOCATE_SUCCESS: u16 = 0x0103;
const ALLOCATE_ERROR: u16 = 0x0113;

#[test]
fn turn_proto_relays_over_udp_by_send_and_by_channel() {
    let server = Spec::local().start();
    let mut client = udp_client(&server, "127.0.0.1", config(&server.credentials("proto")));
    client.must_allocate(1);
    client.exchange_with_echo("127.0.0.1", &[1, 2, 3, 7, 160, 1201]);
}

#[test]
fn turn_proto_relays_over_tcp_by_send_and_by_channel() {
    let server = Spec::local().start();
    let mut client = tcp_client(&server, "127.0.0.1", config(&server.credentials("proto")));
    client.must_allocate(1);
    client.exchange_with_echo("127.0.0.1", &[4, 8, 160, 1200]);
}

#[test]
fn turn_proto_allocates_both_families_in_one_request_and_relays_in_each() {
    if !is_turnstone() {
        return; // coturn 4.6 answers with the IPv4 relay alone.
    }
    let server = Spec::local().start();
    for (server_ip, by_send, by_channel) in [("127.0.0.1", "127.0.0.1", "::1"), ("::1", "::1", "127.0.0.1")] {
        let mut config = config(&server.credentials("proto"));
        config.add_address_family(AddressFamily::IPV6);
        let mut over_udp = udp_client(&server, server_ip, config.clone());
        over_udp.must_allocate(2);
        let send_peer = EchoPeer::start(by_send);
        over_udp.exchange_by_send(send_peer.address(), &[5, 500]);
        over_udp.exchange_with_echo(by_channel, &[5, 500]);
        let mut over_tcp = tcp_client(&server, server_ip, config);
        over_tcp.must_allocate(2);
        over_tcp.exchange_by_send(send_peer.address(), &[5, 500]);
        over_tcp.exchange_with_echo(by_channel, &[8, 500]);
    }
}

#[test]
fn turn_proto_allocates_ipv6_alone_when_it_asks_for_it() {
    let server = Spec::local().start();
    let mut config = config(&server.credentials("proto"));
    config.set_address_family(AddressFamily::IPV6);
    let mut client = udp_client(&server, "127.0.0.1", config);
    client.must_allocate(1);
    assert!(client.relayed()[0].is_ipv6());
    client.exchange_with_echo("::1", &[5, 500]);
}

#[test]
fn turn_proto_authenticates_a_static_user_by_sha256() {
    if !is_turnstone() {
        return; // coturn knows only SHA-1.
    }
    let server = Spec::local().user("alice", "correct horse").start();
    let alice = Credentials { username: "alice".to_owned(), password: "correct horse".to_owned() };
    let mut config = config(&alice);
    config.set_supported_integrity(IntegrityAlgorithm::Sha256);
    let mut over_udp = udp_client(&server, "127.0.0.1", config.clone());
    over_udp.must_allocate(1);
    over_udp.assert_signed_by_sha256_alone();
    over_udp.exchange_with_echo("127.0.0.1", &[5, 500]);
    let mut over_tcp = tcp_client(&server, "127.0.0.1", config);
    over_tcp.must_allocate(1);
    over_tcp.exchange_with_echo("127.0.0.1", &[8, 500]);
}

#[test]
fn a_static_user_may_hide_behind_userhash_with_either_algorithm() {
    if !is_turnstone() {
        return;
    }
    // A time-limited username cannot be found by its hash: only a server of static users alone says that it knows USERHASH.
    let server = Spec { knows_secret: false, ..Spec::local() }.user("alice", "correct horse").start();
    for (algorithm, password_algorithm) in [
        (IntegrityAlgorithm::Sha1, PasswordAlgorithmValue::MD5),
        (IntegrityAlgorithm::Sha256, PasswordAlgorithmValue::SHA256),
    ] {
        let mut wire = udp_wire(server.udp());
        let challenge = wire.request(&allocate_request(|_| {}));
        let challenge = Message::from_bytes(&challenge).unwrap();
        let realm = challenge.attribute::<Realm>().unwrap();
        let nonce = challenge.attribute::<Nonce>().unwrap();
        let offered = challenge.attribute::<PasswordAlgorithms>().unwrap();
        // "obMatJos2" and 24 feature bits in base64: the lowest is password algorithms, the next one is username anonymity.
        assert!(nonce.nonce().starts_with("obMatJos2AAAD"), "{}", nonce.nonce());

        let key = LongTermKeyCredentials::new("alice".to_owned(), "correct horse".to_owned(), realm.realm().to_owned());
        let key = MessageIntegrityCredentials::from(key);
        let answer = wire.request(&allocate_request(|request| {
            request.add_attribute(&Userhash::new(Userhash::compute("alice", realm.realm()))).unwrap();
            request.add_attribute(&realm).unwrap();
            request.add_attribute(&nonce).unwrap();
            request.add_attribute(&offered).unwrap();
            request.add_attribute(&PasswordAlgorithm::new(password_algorithm)).unwrap();
            request.add_message_integrity(&key, algorithm).unwrap();
        }));
        let success = Message::from_bytes(&answer).unwrap();
        assert_eq!(message_type(&answer), ALLOCATE_SUCCESS, "{success}");
        assert_eq!(success.validate_integrity(&key).unwrap(), algorithm);
        assert!(!attribute_types(&answer).contains(&USERNAME), "{success}");
    }
}

fn allocate_request(add: impl FnOnce(&mut MessageWriteVec)) -> Vec<u8> {
    let kind = MessageType::from_class_method(MessageClass::Request, ALLOCATE);
    let mut request = Message::builder(kind, TransactionId::generate(), MessageWriteVec::new());
    request.add_attribute(&RequestedTransport::new(RequestedTransport::UDP)).unwrap();
    add(&mut request);
    request.finish()
}

#[test]
fn turn_proto_uses_sha256_with_a_time_limited_credential_when_both_algorithms_are_offered() {
    if !is_turnstone() {
        return;
    }
    let server = Spec::local().start();
    let mut config = config(&server.credentials("proto"));
    config.set_anonymous_username(Feature::Disabled);
    config.add_supported_integrity(IntegrityAlgorithm::Sha256);
    let mut client = udp_client(&server, "127.0.0.1", config);
    client.must_allocate(1);
    client.exchange_with_echo("127.0.0.1", &[5, 500]);
}

#[test]
fn turn_proto_with_a_wrong_or_expired_credential_gets_no_allocation() {
    let server = Spec::local().start();
    let wrong = Credentials { password: "guessed".to_owned(), ..server.credentials("mallory") };
    for credentials in [wrong, server.expired_credentials("late")] {
        for algorithm in [IntegrityAlgorithm::Sha1, IntegrityAlgorithm::Sha256] {
            if algorithm == IntegrityAlgorithm::Sha256 && !is_turnstone() {
                continue;
            }
            let mut config = config(&credentials);
            config.set_supported_integrity(algorithm);
            config.set_anonymous_username(Feature::Disabled);
            let mut client = udp_client(&server, "127.0.0.1", config);
            client.must_be_refused();
        }
    }
}

#[test]
fn turn_proto_learns_of_a_peer_port_that_is_closed_by_the_icmp_attribute() {
    if !is_turnstone() {
        return; // coturn does not send it.
    }
    let server = Spec::local().start();
    let mut client = udp_client(&server, "127.0.0.1", config(&server.credentials("proto")));
    client.must_allocate(1);
    let closed = free_address();
    client.permit(closed);
    let now = client.now();
    let transmit = client.api.send_to(TransportType::Udp, closed, b"anyone there?", now).unwrap().unwrap();
    client.wire.send(&transmit.build().data);
    let (peer, icmp_type, icmp_code) = client.wait_for("ICMP", |client| client.icmp.pop_front());
    // Destination unreachable, port unreachable (RFC 792).
    assert_eq!((peer.ip(), icmp_type, icmp_code), (closed.ip(), 3, 3));
}

fn config(credentials: &Credentials) -> TurnConfig {
    TurnConfig::new(TurnCredentials::new(&credentials.username, &credentials.password))
}

fn udp_client(server: &TestServer, server_ip: &str, config: TurnConfig) -> Driver<TurnClientUdp> {
    let address = server.address(Transport::Udp, server_ip);
    let wire = udp_wire(address);
    Driver::new(TurnClientUdp::allocate(wire.local_addr(), address, config), wire)
}

fn udp_wire(server: SocketAddr) -> Wire {
    let socket = UdpSocket::bind((server.ip(), 0)).unwrap();
    socket.connect(server).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(2))).unwrap();
    Wire::Udp(socket)
}

fn tcp_client(server: &TestServer, server_ip: &str, config: TurnConfig) -> Driver<TurnClientTcp> {
    let address = server.address(Transport::Tcp, server_ip);
    let stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(2))).unwrap();
    let wire = Wire::Tcp(stream);
    Driver::new(TurnClientTcp::allocate(wire.local_addr(), address, config), wire)
}

/// The sans-IO client with a socket and a clock.
struct Driver<C> {
    api: C,
    wire: Wire,
    started: Clock,
    payloads: VecDeque<(SocketAddr, Vec<u8>)>,
    icmp: VecDeque<(SocketAddr, u8, u8)>,
    sent: Vec<Vec<u8>>,
    received: Vec<Vec<u8>>,
}

impl<C: TurnClientApi> Driver<C> {
    fn new(api: C, wire: Wire) -> Driver<C> {
        Driver {
            api,
            wire,
            started: Clock::now(),
            payloads: VecDeque::new(),
            icmp: VecDeque::new(),
            sent: Vec::new(),
            received: Vec::new(),
        }
    }

    fn now(&self) -> Instant {
        Instant::from_nanos(i64::try_from(self.started.elapsed().as_nanos()).unwrap())
    }

    /// Runs the client until `families` relayed addresses are there.
    fn must_allocate(&mut self, families: usize) {
        for _ in 0..families {
            let event = self.next_event();
            assert!(matches!(event, TurnEvent::AllocationCreated(TransportType::Udp, _)), "{event:?}");
        }
        assert_eq!(self.relayed().len(), families);
    }

    /// Waits until a signed Allocate request was answered by 401 (Unauthenticated). The client itself ignores that answer, for
    /// it cannot be signed, and would wait for a better one until its transaction times out.
    fn must_be_refused(&mut self) {
        self.wait_for("401 to a signed request", |driver| {
            driver.received.iter().find(|answer| {
                let request = driver.sent.iter().find(|request| transaction_id(request) == transaction_id(answer));
                let signed = request.is_some_and(|request| {
                    let types = attribute_types(request);
                    types.contains(&MESSAGE_INTEGRITY) || types.contains(&MESSAGE_INTEGRITY_SHA256)
                });
                signed && error_code(answer) == Some(401)
            })?;
            Some(())
        });
        assert!(self.relayed().is_empty());
        assert!(!self.received.iter().any(|message| message_type(message) == ALLOCATE_SUCCESS));
    }

    fn relayed(&self) -> Vec<SocketAddr> {
        self.api.relayed_addresses().map(|(_, address)| address).collect()
    }

    /// Payloads of these sizes to an echo peer and back, first by Send and Data indications, then by a channel.
    fn exchange_with_echo(&mut self, peer_ip: &str, payload_sizes: &[usize]) {
        let peer = EchoPeer::start(peer_ip);
        self.exchange_by_send(peer.address(), payload_sizes);
        let now = self.now();
        self.api.bind_channel(TransportType::Udp, peer.address(), now).unwrap();
        let event = self.next_event();
        assert!(matches!(event, TurnEvent::ChannelCreated(_, address) if address == peer.address()), "{event:?}");
        self.exchange(peer.address(), payload_sizes, |first_byte| (0x40..=0x4F).contains(&first_byte));
    }

    fn exchange_by_send(&mut self, echo_peer: SocketAddr, payload_sizes: &[usize]) {
        self.permit(echo_peer);
        self.exchange(echo_peer, payload_sizes, |first_byte| first_byte == 0x00);
    }

    fn permit(&mut self, peer: SocketAddr) {
        let now = self.now();
        self.api.create_permission(TransportType::Udp, peer.ip(), now).unwrap();
        let event = self.next_event();
        assert!(matches!(event, TurnEvent::PermissionCreated(_, ip) if ip == peer.ip()), "{event:?}");
    }

    fn exchange(&mut self, peer: SocketAddr, payload_sizes: &[usize], of_this_kind: impl Fn(u8) -> bool) {
        for size in payload_sizes {
            let payload: Vec<u8> = (0..*size).map(|at| (at * 7 + size) as u8).collect();
            let now = self.now();
            let transmit = self.api.send_to(TransportType::Udp, peer, &payload, now).unwrap().unwrap().build();
            assert!(of_this_kind(transmit.data[0]), "sent in another way: {:02x?}", &transmit.data[..4]);
            self.wire.send(&transmit.data);
            let (from, echoed) = self.wait_for("an echo", |driver| driver.payloads.pop_front());
            assert_eq!((from, &echoed), (peer, &payload));
        }
    }

    fn next_event(&mut self) -> TurnEvent {
        self.wait_for("an event", |driver| driver.api.poll_event())
    }

    fn wait_for<T>(&mut self, what: &str, mut ready: impl FnMut(&mut Driver<C>) -> Option<T>) -> T {
        let deadline = Clock::now() + LIMIT;
        loop {
            if let Some(value) = ready(self) {
                return value;
            }
            assert!(Clock::now() < deadline, "waited {LIMIT:?} in vain for {what}");
            self.step();
        }
    }

    /// Lets the client think, sends what it wants sent, and gives it what has come within a moment.
    fn step(&mut self) {
        let now = self.now();
        let _: TurnPollRet = self.api.poll(now);
        while let Some(transmit) = self.api.poll_transmit(now) {
            self.wire.send(&transmit.data);
            self.sent.push(transmit.data.to_vec());
        }
        let Some(bytes) = self.wire.receive() else { return };
        self.received.push(bytes.clone());
        let transmit = Transmit::new(bytes, self.api.transport(), self.api.remote_addr(), self.api.local_addr());
        match self.api.recv(transmit, now) {
            TurnRecvRet::Handled => {}
            TurnRecvRet::Ignored(transmit) => {
                assert_eq!(error_code(&transmit.data), Some(401), "not understood: {:02x?}", transmit.data);
            }
            TurnRecvRet::PeerData(data) => self.payloads.push_back((data.peer, data.data().to_vec())),
            TurnRecvRet::PeerIcmp { peer, icmp_type, icmp_code, .. } => {
                self.icmp.push_back((peer, icmp_type, icmp_code));
            }
        }
        while let Some(data) = self.api.poll_recv(now) {
            self.payloads.push_back((data.peer, data.data().to_vec()));
        }
    }

    fn assert_signed_by_sha256_alone(&self) {
        let request = self.sent.iter().rfind(|message| message_type(message) == ALLOCATE_REQUEST).unwrap();
        let success = self.received.iter().find(|message| message_type(message) == ALLOCATE_SUCCESS).unwrap();
        for message in [request, success] {
            let types = attribute_types(message);
            assert!(types.contains(&MESSAGE_INTEGRITY_SHA256) && !types.contains(&MESSAGE_INTEGRITY), "{types:04x?}");
        }
    }
}

enum Wire {
    Udp(UdpSocket),
    Tcp(TcpStream),
}

impl Wire {
    fn local_addr(&self) -> SocketAddr {
        match self {
            Wire::Udp(socket) => socket.local_addr(),
            Wire::Tcp(stream) => stream.local_addr(),
        }
        .unwrap()
    }

    /// Sends a message and gives the next one that comes.
    fn request(&mut self, message: &[u8]) -> Vec<u8> {
        self.send(message);
        let deadline = Clock::now() + LIMIT;
        while Clock::now() < deadline {
            if let Some(answer) = self.receive() {
                return answer;
            }
        }
        panic!("no answer within {LIMIT:?}");
    }

    fn send(&mut self, bytes: &[u8]) {
        match self {
            Wire::Udp(socket) => assert_eq!(socket.send(bytes).unwrap(), bytes.len()),
            Wire::Tcp(stream) => stream.write_all(bytes).unwrap(),
        }
    }

    fn receive(&mut self) -> Option<Vec<u8>> {
        let mut buffer = [0_u8; 65_536];
        let read = match self {
            Wire::Udp(socket) => socket.recv(&mut buffer),
            Wire::Tcp(stream) => stream.read(&mut buffer),
        };
        match read {
            Ok(0) if matches!(self, Wire::Tcp(_)) => panic!("the server closed the connection"),
            Ok(len) => Some(buffer[..len].to_vec()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => None,
            Err(error) => panic!("cannot read: {error}"),
        }
    }
}

fn message_type(message: &[u8]) -> u16 {
    u16::from_be_bytes([message[0], message[1]])
}

fn transaction_id(message: &[u8]) -> &[u8] {
    &message[8..20]
}

/// The code of an Allocate error response (RFC 8489 section 14.8).
fn error_code(message: &[u8]) -> Option<u16> {
    let (_, value) = attributes(message).into_iter().find(|(kind, _)| *kind == ERROR_CODE)?;
    (message_type(message) == ALLOCATE_ERROR).then(|| u16::from(value[2]) * 100 + u16::from(value[3]))
}

fn attribute_types(message: &[u8]) -> Vec<u16> {
    attributes(message).into_iter().map(|(kind, _)| kind).collect()
}

/// The attributes of a STUN message (RFC 8489 section 14) in order: type and value with padding.
fn attributes(message: &[u8]) -> Vec<(u16, &[u8])> {
    let mut attributes = Vec::new();
    let mut rest = &message[20..];
    while let [type_high, type_low, len_high, len_low, value @ ..] = rest {
        let padded = usize::from(u16::from_be_bytes([*len_high, *len_low])).next_multiple_of(4);
        attributes.push((u16::from_be_bytes([*type_high, *type_low]), &value[..padded]));
        rest = &value[padded..];
    }
    attributes
}
