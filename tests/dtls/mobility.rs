//! Mobile clients (RFC 8016) that come to DTLS and go away from it, between workers.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use turnstone::stun::{
    AttributeType, Class, Encoder, IntegrityKind, Key, Message, Method, PasswordAlgorithm, TransactionId,
};

use crate::client::Client;
use crate::support::{Credentials, EchoPeer, wait_until};
use crate::{LIMIT, Server};

const CHANNEL: [u8; 2] = [0x40, 0x01];
const SESSIONS: &str = "turnstone_dtls_sessions";

enum Way {
    Dtls(Box<Client>),
    Udp(UdpSocket),
}

impl Way {
    fn dtls(server: &Server) -> Self {
        Self::Dtls(Box::new(Client::connect(server, UdpSocket::bind("127.0.0.1:0").unwrap())))
    }

    fn udp(server: &Server) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(server.address).unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        Self::Udp(socket)
    }

    fn send(&mut self, message: &[u8]) {
        match self {
            Self::Dtls(client) => client.send(message),
            Self::Udp(socket) => drop(socket.send(message).unwrap()),
        }
    }

    fn receive(&mut self) -> Vec<u8> {
        match self {
            Self::Dtls(client) => client.receive().expect("the session is open"),
            Self::Udp(socket) => {
                let mut buffer = vec![0; 2048];
                let len = socket.recv(&mut buffer).expect("an answer");
                buffer.truncate(len);
                buffer
            }
        }
    }

    fn close(self) {
        if let Self::Dtls(client) = self {
            client.close();
        }
    }

    /// Sends by the channel, and has it echoed by the same way.
    fn echo(&mut self, text: &str) {
        let text = format!("{text:<20}");
        self.send(&[&CHANNEL[..], &(text.len() as u16).to_be_bytes(), text.as_bytes()].concat());
        let echoed = self.receive();
        assert_eq!((&echoed[..2], &echoed[4..]), (&CHANNEL[..], text.as_bytes()));
    }
}

/// A client with a ticket.
struct Mobile {
    credentials: Credentials,
    way: Way,
    challenge: Option<(String, Vec<u8>)>,
    ticket: Vec<u8>,
    transactions: u8,
}

impl Mobile {
    /// With an allocation that has a channel to a peer.
    fn start(server: &Server, way: Way, peer: SocketAddr) -> Self {
        let credentials = server.inner.credentials("mobile");
        let mut mobile = Self { credentials, way, challenge: None, ticket: Vec::new(), transactions: 0 };
        let granted = mobile.ask(Method::ALLOCATE, |request| {
            request.attribute(AttributeType::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
            request.attribute(AttributeType::MOBILITY_TICKET, &[]);
        });
        mobile.ticket = granted.expect("an allocation");
        let bound = mobile.ask(Method::CHANNEL_BIND, |request| {
            request.attribute(AttributeType::CHANNEL_NUMBER, &[CHANNEL[0], CHANNEL[1], 0, 0]);
            request.xor_address(AttributeType::XOR_PEER_ADDRESS, peer);
        });
        assert_eq!(bound, Ok(Vec::new()));
        mobile
    }

    /// One transaction: the ticket in the answer, if there is one, or the error code.
    fn ask(&mut self, method: Method, build: impl Fn(&mut Encoder<'_>)) -> Result<Vec<u8>, u16> {
        loop {
            self.transactions += 1;
            let id = TransactionId([self.transactions; 12]);
            let mut bytes = Vec::new();
            let mut request = Encoder::new(&mut bytes, Class::Request, method, id);
            build(&mut request);
            if let Some((realm, nonce)) = &self.challenge {
                let Credentials { username, password } = &self.credentials;
                let (name, of) = (username.as_bytes(), realm.as_bytes());
                let key = Key::long_term(PasswordAlgorithm::Md5, name, of, password.as_bytes());
                request
                    .attribute(AttributeType::USERNAME, name)
                    .attribute(AttributeType::REALM, of)
                    .attribute(AttributeType::NONCE, nonce)
                    .integrity(IntegrityKind::Sha1, &key);
            }
            self.way.send(&bytes);
            let answer = loop {
                let message = self.way.receive();
                if message[0] < 0x40 {
                    break message;
                }
            };
            let answer = Message::parse(&answer).unwrap();
            assert_eq!(answer.transaction_id(), id);
            if answer.class() == Class::Success {
                return Ok(answer.get(AttributeType::MOBILITY_TICKET).unwrap_or_default().to_vec());
            }
            let code = match answer.get(AttributeType::ERROR_CODE) {
                Some([_, _, class, number, ..]) => u16::from(*class) * 100 + u16::from(*number),
                other => panic!("{other:?}"),
            };
            if !matches!(code, 401 | 438) {
                return Err(code);
            }
            let text = |kind| String::from_utf8(answer.get(kind).unwrap().to_vec()).unwrap();
            self.challenge = Some((text(AttributeType::REALM), answer.get(AttributeType::NONCE).unwrap().to_vec()));
        }
    }

    fn release(&mut self) {
        let released = self.ask(Method::REFRESH, |request| {
            request.u32(AttributeType::LIFETIME, 0);
        });
        assert_eq!(released, Ok(Vec::new()));
    }

    /// Comes back by another way; returns the one before.
    fn roam(&mut self, way: Way) -> Way {
        let before = std::mem::replace(&mut self.way, way);
        let ticket = self.ticket.clone();
        let next = self.ask(Method::REFRESH, |request| {
            request.attribute(AttributeType::MOBILITY_TICKET, &ticket);
        });
        self.ticket = next.expect("another ticket");
        assert_ne!(self.ticket, ticket);
        before
    }
}

fn server() -> Server {
    Server::start_with("workers = 3\nmobility = true\n", "", "")
}

#[test]
fn a_client_keeps_its_call_to_dtls_and_back_and_from_session_to_session() {
    let server = server();
    let peer = EchoPeer::start("127.0.0.1");
    // Often enough for both ends to be at one worker, and at two.
    std::thread::scope(|scope| {
        for n in 0..6 {
            let (server, peer) = (&server, &peer);
            scope.spawn(move || {
                let way = if n % 2 == 0 { Way::udp(server) } else { Way::dtls(server) };
                let mut client = Mobile::start(server, way, peer.address());
                client.way.echo("at the start");
                for (step, way) in [Way::dtls, Way::dtls, Way::udp, Way::dtls].into_iter().enumerate() {
                    let mut before = client.roam(way(server));
                    before.echo(&format!("{step} by the old way"));
                    client.way.echo(&format!("{step} by the new way"));
                    // And the allocation does not end with it.
                    before.close();
                    client.way.echo(&format!("{step} again"));
                }
            });
        }
    });
    let moved = || server.inner.log().matches("allocation moved with its client").count();
    // The last lines are still on their way to the file.
    wait_until("a line for each move", LIMIT, || (moved() >= 24).then_some(()));
    assert_eq!(moved(), 24);
}

#[test]
fn a_session_that_closes_moves_the_allocation_or_leaves_it_to_its_client() {
    let server = server();
    let peer = EchoPeer::start("127.0.0.1");
    for n in 0..6 {
        // Make before break: nothing has come by the new way when the old session closes.
        let mut client = Mobile::start(&server, Way::dtls(&server), peer.address());
        client.roam(Way::dtls(&server)).close();
        client.way.echo("followed");
        // Break before make.
        let way = std::mem::replace(&mut client.way, Way::udp(&server));
        way.close();
        server.wait_for_metric(SESSIONS, 0);
        let ticket = client.ticket.clone();
        client.roam(if n % 2 == 0 { Way::udp(&server) } else { Way::dtls(&server) });
        client.way.echo("after the break");
        // Whatever came meanwhile: the same request again, where it is now.
        let new = client.ticket.clone();
        let again = client.ask(Method::REFRESH, |request| {
            request.attribute(AttributeType::MOBILITY_TICKET, &ticket);
        });
        assert!(again.is_ok_and(|again| again != new));
        client.release();
        client.way.close();
        server.wait_for_metric(SESSIONS, 0);
    }
}

#[test]
fn a_session_that_is_gone_before_its_allocation_arrives_leaves_that_to_its_client() {
    let server = server();
    let peer = EchoPeer::start("127.0.0.1");
    for n in 0..8 {
        let mut client = Mobile::start(&server, Way::dtls(&server), peer.address());
        let before = client.roam(Way::dtls(&server));
        let gone = std::mem::replace(&mut client.way, Way::udp(&server));
        // Both at once, so that the new one may have gone when the worker of the old one hands the allocation over.
        let [first, second] = if n % 2 == 0 { [gone, before] } else { [before, gone] };
        first.close();
        second.close();
        server.wait_for_metric(SESSIONS, 0);
        client.roam(Way::udp(&server));
        client.way.echo("it has waited");
        client.release();
    }
    wait_until("the end of all", Duration::from_secs(10), || {
        (server.inner.log().matches("allocation ended").count() == 8).then_some(())
    });
}
