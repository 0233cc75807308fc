//! Clients over UDP, TCP and TLS that do one request at a time and hand out the code of a refusal.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use rustls::{ClientConnection, StreamOwned};
use turnstone::client::{Answer, Client, ClientError, Credential, Event, Request};

use crate::LIMIT;
use crate::support::{Credentials, TestServer, Transport, tls_over};

/// A client.
pub(crate) struct Wire {
    link: Link,
    turn: Client,
}

enum Link {
    Udp(UdpSocket),
    Tcp(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Wire {
    pub(crate) fn connect(server: &TestServer, transport: Transport, credentials: &Credentials) -> Wire {
        let address = server.address(transport, "127.0.0.1");
        let link = match transport {
            Transport::Udp => return Self::over_udp(address, credentials),
            Transport::Tcp => Link::Tcp(stream(address)),
            Transport::Tls => Link::Tls(Box::new(tls_over(stream(address), server.file("authority.pem")))),
        };
        Self::over(link, credentials)
    }

    /// One of the listener at this address.
    pub(crate) fn over_udp(address: SocketAddr, credentials: &Credentials) -> Wire {
        Self::over(Link::Udp(datagrams_to(address)), credentials)
    }

    fn over(link: Link, credentials: &Credentials) -> Wire {
        let credential = Credential {
            username: credentials.username.clone(),
            password: credentials.password.clone().into(),
            sha256: false,
        };
        static SEED: AtomicU8 = AtomicU8::new(0);
        let turn = Client::new(Some(Arc::new(credential)), [SEED.fetch_add(1, Ordering::Relaxed); 16]);
        Wire { link, turn }
    }

    /// A client of this user with an allocation, and its relayed address.
    pub(crate) fn allocated(server: &TestServer, transport: Transport, user: &str) -> (Wire, SocketAddr) {
        let mut wire = Wire::connect(server, transport, &server.credentials(user));
        match wire.allocate() {
            Ok(Answer::Allocated { relayed, .. }) => (wire, relayed),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn local_address(&self) -> SocketAddr {
        match &self.link {
            Link::Udp(socket) => socket.local_addr(),
            Link::Tcp(stream) => stream.local_addr(),
            Link::Tls(stream) => stream.sock.local_addr(),
        }
        .unwrap()
    }

    /// The answer, or the code of the refusal.
    pub(crate) fn ask(&mut self, request: Request) -> Result<Answer, u16> {
        let mut out = Vec::new();
        self.turn.start(request, &mut out);
        loop {
            if !out.is_empty() {
                self.send(&out);
                out.clear();
            }
            let received = self.receive().expect("the connection was closed");
            match self.turn.receive(&received, &mut out) {
                Ok(Event::Done(answer)) => return Ok(answer),
                Ok(Event::Retry | Event::Ignored) => {}
                Err(ClientError::Refused { code, .. }) => return Err(code.value()),
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// From another port if that of an earlier client, whose allocation lives on, was given to this one: what RFC 8656
    /// section 7.4 says of 437.
    pub(crate) fn allocate(&mut self) -> Result<Answer, u16> {
        for _ in 0..3 {
            match self.ask(Request::Allocate { family: None, lifetime_secs: None }) {
                Err(437) => {
                    let Link::Udp(socket) = &mut self.link else { return Err(437) };
                    *socket = datagrams_to(socket.peer_addr().unwrap());
                }
                answer => return answer,
            }
        }
        Err(437)
    }

    pub(crate) fn refresh(&mut self) -> Result<Answer, u16> {
        self.ask(Request::Refresh { lifetime_secs: 600 })
    }

    pub(crate) fn permit(&mut self, peer: &str) -> Result<Answer, u16> {
        self.ask(Request::CreatePermission { peer: peer.parse().unwrap() })
    }

    pub(crate) fn bind(&mut self, channel: u16, peer: SocketAddr) -> Result<Answer, u16> {
        self.ask(Request::ChannelBind { channel, peer })
    }

    /// Sends ChannelData.
    pub(crate) fn send_on(&mut self, channel: u16, payload: &[u8]) {
        let mut frame = [&channel.to_be_bytes()[..], &(payload.len() as u16).to_be_bytes(), payload].concat();
        frame.resize(frame.len().next_multiple_of(4), 0);
        self.send(&frame);
    }

    fn send(&mut self, bytes: &[u8]) {
        match &mut self.link {
            Link::Udp(socket) => drop(socket.send(bytes).unwrap()),
            Link::Tcp(stream) => stream.write_all(bytes).unwrap(),
            Link::Tls(stream) => {
                stream.write_all(bytes).unwrap();
                stream.flush().unwrap();
            }
        }
    }

    /// The next message or ChannelData; `None` when the connection is closed.
    pub(crate) fn receive(&mut self) -> Option<Vec<u8>> {
        match &mut self.link {
            Link::Udp(socket) => {
                let mut buffer = [0; 2048];
                let len = socket.recv(&mut buffer).unwrap();
                Some(buffer[..len].to_vec())
            }
            Link::Tcp(stream) => frame(stream),
            Link::Tls(stream) => frame(stream),
        }
    }
}

fn datagrams_to(address: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    socket.connect(address).unwrap();
    socket
}

fn stream(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// One frame, its padding taken off.
fn frame(stream: &mut impl Read) -> Option<Vec<u8>> {
    let mut frame = vec![0; 4];
    if let Err(error) = stream.read_exact(&mut frame) {
        assert!(matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset), "{error}");
        return None;
    }
    let len = usize::from(u16::from_be_bytes([frame[2], frame[3]]));
    let rest = if frame[0] < 0x40 { 16 + len } else { len };
    frame.resize(4 + rest.next_multiple_of(4), 0);
    stream.read_exact(&mut frame[4..]).unwrap();
    frame.truncate(4 + rest);
    Some(frame)
}
