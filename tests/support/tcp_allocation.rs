//! A client of TCP allocations (RFC 6062), one call a step, over TCP or TLS.

// Each test target uses its own part, and nothing here is reachable from outside of it.
#![allow(dead_code, unreachable_pub)]
// A helper that cannot do its work must fail the test that called it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use rustls::{ClientConnection, StreamOwned};
use turnstone::stun::{
    AttributeType, Class, Encoder, ErrorCode, IntegrityKind, Key, Message, Method, PasswordAlgorithm, TransactionId,
    decode_xor_address,
};

use crate::support::{Credentials, TestServer, Transport, tls_over};

const LIMIT: Duration = Duration::from_secs(20);

/// A connection to the server.
pub enum Wire {
    Plain(TcpStream),
    Encrypted(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Wire {
    pub fn socket(&self) -> &TcpStream {
        match self {
            Wire::Plain(socket) => socket,
            Wire::Encrypted(session) => &session.sock,
        }
    }

    /// Says that this was all, and still reads.
    pub fn end_sending(&mut self) {
        if let Wire::Encrypted(session) = self {
            session.conn.send_close_notify();
            session.flush().unwrap();
        }
        self.socket().shutdown(Shutdown::Write).unwrap();
    }
}

impl Read for Wire {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Wire::Plain(socket) => socket.read(into),
            Wire::Encrypted(session) => session.read(into),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Wire::Plain(socket) => socket.write(bytes),
            Wire::Encrypted(session) => session.write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Wire::Plain(socket) => socket.flush(),
            Wire::Encrypted(session) => session.flush(),
        }
    }
}

/// Where a server is, and who asks.
pub struct Access {
    pub address: SocketAddr,
    authority: Option<String>,
    credentials: Credentials,
}

impl Access {
    pub fn new(server: &TestServer, transport: Transport, ip: &str, user: &str) -> Access {
        let authority = (transport == Transport::Tls).then(|| server.file("authority.pem"));
        Access { address: server.address(transport, ip), authority, credentials: server.credentials(user) }
    }

    /// A connection that has said nothing yet.
    pub fn connect(&self) -> Asking {
        let socket = TcpStream::connect(self.address).unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        socket.set_write_timeout(Some(LIMIT)).unwrap();
        let wire = match &self.authority {
            None => Wire::Plain(socket),
            Some(authority) => Wire::Encrypted(Box::new(tls_over(socket, authority))),
        };
        Asking { wire, credentials: self.credentials.clone(), challenge: None, transactions: 0 }
    }

    /// A TCP allocation, and its relayed address.
    pub fn allocate(&self, family: Option<u8>) -> (Asking, SocketAddr) {
        let mut control = self.connect();
        let reply = control.ask(Method::ALLOCATE, |request| {
            request.attribute(AttributeType::REQUESTED_TRANSPORT, &[6, 0, 0, 0]);
            if let Some(family) = family {
                request.attribute(AttributeType::REQUESTED_ADDRESS_FAMILY, &[family, 0, 0, 0]);
            }
        });
        let relayed = reply.unwrap().address(AttributeType::XOR_RELAYED_ADDRESS);
        (control, relayed)
    }

    /// Binds a connection with a peer; what follows on it is the peer's data.
    pub fn bind(&self, id: [u8; 4]) -> Result<Wire, u16> {
        let mut data = self.connect();
        data.ask(Method::CONNECTION_BIND, |request| {
            request.attribute(AttributeType::CONNECTION_ID, &id);
        })?;
        Ok(data.wire)
    }
}

/// A connection for requests.
pub struct Asking {
    pub wire: Wire,
    credentials: Credentials,
    challenge: Option<(Vec<u8>, Vec<u8>)>,
    transactions: u8,
}

/// A message of the server.
#[derive(Debug)]
pub struct Told(Vec<u8>);

impl Told {
    pub fn get(&self, kind: AttributeType) -> Option<Vec<u8>> {
        Message::parse(&self.0).unwrap().get(kind).map(<[u8]>::to_vec)
    }

    pub fn connection_id(&self) -> [u8; 4] {
        self.get(AttributeType::CONNECTION_ID).unwrap().try_into().unwrap()
    }

    pub fn address(&self, kind: AttributeType) -> SocketAddr {
        let message = Message::parse(&self.0).unwrap();
        decode_xor_address(message.get(kind).unwrap(), message.transaction_id()).unwrap()
    }

    pub fn method(&self) -> Method {
        Message::parse(&self.0).unwrap().method()
    }

    fn code(&self) -> Option<u16> {
        Some(ErrorCode::decode(&self.get(AttributeType::ERROR_CODE)?).unwrap().0.value())
    }
}

impl Asking {
    /// Asks, again after the challenge; the error code if it is refused.
    pub fn ask(&mut self, method: Method, build: impl Fn(&mut Encoder<'_>)) -> Result<Told, u16> {
        loop {
            self.send(method, &build);
            let told = self.hear();
            assert_eq!(told.method(), method);
            match told.code() {
                None => return Ok(told),
                Some(401) if self.challenge.is_none() => {
                    let realm = told.get(AttributeType::REALM).unwrap();
                    self.challenge = Some((realm, told.get(AttributeType::NONCE).unwrap()));
                }
                Some(code) => return Err(code),
            }
        }
    }

    pub fn send(&mut self, method: Method, build: impl Fn(&mut Encoder<'_>)) {
        self.transactions += 1;
        let mut bytes = Vec::new();
        let mut request = Encoder::new(&mut bytes, Class::Request, method, TransactionId([self.transactions; 12]));
        build(&mut request);
        if let Some((realm, nonce)) = &self.challenge {
            let Credentials { username, password } = &self.credentials;
            let key = Key::long_term(PasswordAlgorithm::Md5, username.as_bytes(), realm, password.as_bytes());
            request
                .attribute(AttributeType::USERNAME, username.as_bytes())
                .attribute(AttributeType::REALM, realm)
                .attribute(AttributeType::NONCE, nonce)
                .integrity(IntegrityKind::Sha1, &key);
        }
        self.wire.write_all(&bytes).unwrap();
        self.wire.flush().unwrap();
    }

    /// The next message.
    pub fn hear(&mut self) -> Told {
        let mut message = vec![0; 20];
        self.wire.read_exact(&mut message).unwrap();
        let len = usize::from(u16::from_be_bytes([message[2], message[3]]));
        message.resize(20 + len, 0);
        self.wire.read_exact(&mut message[20..]).unwrap();
        Told(message)
    }

    /// Has the server connect to a peer.
    pub fn connect(&mut self, peer: SocketAddr) -> Result<[u8; 4], u16> {
        let told = self.ask(Method::CONNECT, |request| {
            request.xor_address(AttributeType::XOR_PEER_ADDRESS, peer);
        })?;
        Ok(told.connection_id())
    }

    pub fn permit(&mut self, peer: SocketAddr) {
        let permitted = self.ask(Method::CREATE_PERMISSION, |request| {
            request.xor_address(AttributeType::XOR_PEER_ADDRESS, peer);
        });
        permitted.unwrap();
    }
}
