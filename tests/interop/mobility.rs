//! Mobility (RFC 8016) with a client written from the RFC over the messages of the `stun` crate: it goes from socket to socket, and so
//! from worker to worker, and from transport to transport.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use stun::attributes::{ATTR_NONCE, ATTR_REALM, ATTR_USERNAME, AttrType};
use stun::error_code::ErrorCodeAttribute;
use stun::integrity::MessageIntegrity;
use stun::message::{
    CLASS_REQUEST, CLASS_SUCCESS_RESPONSE, Getter, METHOD_ALLOCATE, METHOD_CHANNEL_BIND, METHOD_REFRESH, Message,
    MessageType, Method, Setter,
};

use crate::support::{Credentials, EchoPeer, Spec, TestServer, Transport, tls_over, wait_until};

const LIFETIME: AttrType = AttrType(0x000D);
const CHANNEL_NUMBER: AttrType = AttrType(0x000C);
const XOR_PEER_ADDRESS: AttrType = AttrType(0x0012);
const REQUESTED_TRANSPORT: AttrType = AttrType(0x0019);
const MOBILITY_TICKET: AttrType = AttrType(0x8030);
const CHANNEL: [u8; 2] = [0x40, 0x01];

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

/// How a client reaches the server.
enum Way {
    Udp(UdpSocket),
    Stream(Box<dyn Stream>),
}

impl Way {
    fn to(server: &TestServer, transport: Transport) -> Way {
        let address = server.address(transport, "127.0.0.1");
        let limit = Some(Duration::from_secs(10));
        if transport == Transport::Udp {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.connect(address).unwrap();
            socket.set_read_timeout(limit).unwrap();
            return Way::Udp(socket);
        }
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(limit).unwrap();
        Way::Stream(match transport {
            Transport::Tls => Box::new(tls_over(stream, server.file("authority.pem"))),
            _ => Box::new(stream),
        })
    }

    fn send(&mut self, message: &[u8]) {
        match self {
            Way::Udp(socket) => drop(socket.send(message).unwrap()),
            Way::Stream(stream) => {
                stream.write_all(message).unwrap();
                stream.flush().unwrap();
            }
        }
    }

    fn receive(&mut self) -> Vec<u8> {
        let mut buffer = vec![0; 2048];
        match self {
            Way::Udp(socket) => {
                let len = socket.recv(&mut buffer).expect("an answer");
                buffer.truncate(len);
            }
            Way::Stream(stream) => {
                stream.read_exact(&mut buffer[..4]).expect("an answer");
                let len = usize::from(u16::from_be_bytes([buffer[2], buffer[3]]));
                let whole = if buffer[0] < 0x40 { 20 + len } else { 4 + len.next_multiple_of(4) };
                stream.read_exact(&mut buffer[4..whole]).unwrap();
                buffer.truncate(whole);
            }
        }
        buffer
    }
}

struct Mobile {
    credentials: Credentials,
    way: Way,
    realm: Vec<u8>,
    nonce: Vec<u8>,
    ticket: Vec<u8>,
}

impl Mobile {
    fn new(server: &TestServer, transport: Transport) -> Mobile {
        let credentials = server.credentials("mobile");
        Mobile {
            credentials,
            way: Way::to(server, transport),
            realm: Vec::new(),
            nonce: Vec::new(),
            ticket: Vec::new(),
        }
    }

    /// One transaction; learns realm and nonce when it is told them. The error code of the answer, if it is one.
    fn ask(&mut self, method: Method, attributes: &[(AttrType, Vec<u8>)]) -> (Message, Option<u16>) {
        for _ in 0..3 {
            let mut request = Message::new();
            request.set_type(MessageType::new(method, CLASS_REQUEST));
            request.new_transaction_id().unwrap();
            request.write_header();
            attributes.iter().for_each(|(kind, value)| request.add(*kind, value));
            if !self.nonce.is_empty() {
                let Credentials { username, password } = &self.credentials;
                request.add(ATTR_USERNAME, username.as_bytes());
                request.add(ATTR_REALM, &self.realm);
                request.add(ATTR_NONCE, &self.nonce);
                let realm = String::from_utf8(self.realm.clone()).unwrap();
                let integrity = MessageIntegrity::new_long_term_integrity(username.clone(), realm, password.clone());
                integrity.add_to(&mut request).unwrap();
            }
            self.way.send(&request.raw);
            let mut answer = Message::new();
            answer.raw = loop {
                let message = self.way.receive();
                if message[0] < 0x40 {
                    break message;
                }
            };
            answer.decode().unwrap();
            assert_eq!(answer.transaction_id, request.transaction_id);
            if answer.typ.class == CLASS_SUCCESS_RESPONSE {
                return (answer, None);
            }
            let mut code = ErrorCodeAttribute::default();
            code.get_from(&answer).unwrap();
            if !matches!(code.code.0, 401 | 438) {
                return (answer, Some(code.code.0));
            }
            (self.realm, self.nonce) = (answer.get(ATTR_REALM).unwrap(), answer.get(ATTR_NONCE).unwrap());
        }
        panic!("the server keeps asking for credentials");
    }

    fn allocate(&mut self) -> Option<u16> {
        let wish = [(REQUESTED_TRANSPORT, vec![17, 0, 0, 0]), (MOBILITY_TICKET, Vec::new())];
        let (answer, refused) = self.ask(METHOD_ALLOCATE, &wish);
        self.ticket = answer.get(MOBILITY_TICKET).unwrap_or_default();
        refused
    }

    fn bind(&mut self, peer: SocketAddr) {
        let SocketAddr::V4(peer) = peer else { panic!("IPv4") };
        let port = peer.port() ^ 0x2112;
        let ip = u32::from(*peer.ip()) ^ 0x2112_A442;
        let address = [&[0, 1][..], &port.to_be_bytes(), &ip.to_be_bytes()].concat();
        let channel = [&CHANNEL[..], &[0, 0]].concat();
        let (_, refused) = self.ask(METHOD_CHANNEL_BIND, &[(CHANNEL_NUMBER, channel), (XOR_PEER_ADDRESS, address)]);
        assert_eq!(refused, None);
    }

    /// Comes back by another way, with a nonce for that; returns the way before.
    fn roam(&mut self, server: &TestServer, transport: Transport) -> Way {
        let before = std::mem::replace(&mut self.way, Way::to(server, transport));
        self.nonce.clear();
        assert_eq!(self.come_back(), None, "over {}", transport.name());
        before
    }

    fn come_back(&mut self) -> Option<u16> {
        let ticket = self.ticket.clone();
        let (answer, refused) = self.ask(METHOD_REFRESH, &[(MOBILITY_TICKET, ticket)]);
        if refused.is_none() {
            let next = answer.get(MOBILITY_TICKET).expect("another ticket");
            assert_ne!(next, self.ticket);
            self.ticket = next;
        }
        refused
    }

    fn release(&mut self) {
        assert_eq!(self.ask(METHOD_REFRESH, &[(LIFETIME, vec![0; 4])]).1, None);
    }
}

/// Sends by the channel, and has it echoed by the same way.
fn echo(way: &mut Way, text: &str) {
    let text = format!("{text:<20}");
    let len = (text.len() as u16).to_be_bytes();
    way.send(&[&CHANNEL[..], &len, text.as_bytes()].concat());
    let echoed = way.receive();
    assert_eq!((&echoed[..2], &echoed[4..]), (&CHANNEL[..], text.as_bytes()));
}

fn server(mobility: bool) -> TestServer {
    let extra_toml = "[metrics]\nlisten = \"127.0.0.1:0\"\n".to_owned();
    Spec { top_toml: format!("workers = 3\nmobility = {mobility}\n"), extra_toml, ..Spec::local() }.start()
}

#[test]
fn a_client_keeps_its_call_over_a_dozen_moves_between_workers_and_transports() {
    let server = server(true);
    let peer = EchoPeer::start("127.0.0.1");
    let mut client = Mobile::new(&server, Transport::Udp);
    assert_eq!(client.allocate(), None);
    client.bind(peer.address());
    echo(&mut client.way, "at the start");
    let ways = [Transport::Udp, Transport::Tcp, Transport::Udp, Transport::Tls, Transport::Tls];
    for (n, transport) in ways.into_iter().cycle().take(12).enumerate() {
        // As many as that at once are allowed, then one a second.
        if n > 3 {
            std::thread::sleep(Duration::from_millis(1050));
        }
        let mut before = client.roam(&server, transport);
        // The old way works until data comes by the new one.
        echo(&mut before, &format!("{n} by the old way"));
        client.bind(peer.address());
        echo(&mut before, &format!("{n} still"));
        echo(&mut client.way, &format!("{n} by the new way"));
        // And the allocation does not end with it.
        drop(before);
        echo(&mut client.way, &format!("{n} again"));
    }
    client.release();
    let log = wait_until("the end", Duration::from_secs(10), || {
        Some(server.log()).filter(|log| log.contains("allocation ended"))
    });
    assert_eq!(log.matches("allocation moved with its client").count(), 12, "{log}");
    assert_eq!(log.matches("allocation ended").count(), 1, "{log}");
}

#[test]
fn a_client_whose_connection_breaks_first_comes_back_and_one_that_closed_it_is_followed() {
    let server = server(true);
    let peer = EchoPeer::start("127.0.0.1");
    // Often enough for both ends to be at the same worker, and at two.
    std::thread::scope(|scope| {
        for n in 0..8 {
            let (server, peer) = (&server, &peer);
            scope.spawn(move || {
                let mut client = Mobile::new(server, Transport::Tcp);
                assert_eq!(client.allocate(), None);
                client.bind(peer.address());
                echo(&mut client.way, "before");
                // Break before make: the server may see the end of the connection before or after the Refresh.
                let (credentials, ticket) = (client.credentials.clone(), std::mem::take(&mut client.ticket));
                drop(client);
                let transport = [Transport::Tls, Transport::Udp][n % 2];
                let mut client = Mobile { credentials, ticket, ..Mobile::new(server, transport) };
                assert_eq!(client.come_back(), None);
                echo(&mut client.way, "after");
                // The used ticket is nobody's.
                let used = client.ticket.clone();
                let _before = client.roam(server, Transport::Udp);
                echo(&mut client.way, "by another one");
                let mut late = Mobile { ticket: used, ..Mobile::new(server, Transport::Udp) };
                late.credentials = client.credentials.clone();
                assert_eq!(late.come_back(), Some(400));
                client.release();
                late.ticket = client.ticket.clone();
                assert_eq!(late.come_back(), Some(437));
            });
        }
    });
}

#[test]
fn where_mobility_is_off_the_client_is_told_so_and_another_users_credential_is_no_use_where_it_is_on() {
    let off = server(false);
    assert_eq!(Mobile::new(&off, Transport::Udp).allocate(), Some(405));
    let on = server(true);
    let mut client = Mobile::new(&on, Transport::Udp);
    assert_eq!(client.allocate(), None);
    for transport in [Transport::Udp, Transport::Udp, Transport::Udp, Transport::Tls] {
        let mut thief = Mobile::new(&on, transport);
        thief.credentials = on.credentials("thief");
        thief.ticket = client.ticket.clone();
        assert_eq!(thief.come_back(), Some(441));
    }
    let _before = client.roam(&on, Transport::Tcp);
}
