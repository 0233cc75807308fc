//! A TURN client for one thread, over each transport, that never waits longer than it is told to.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustls::{ClientConnection, StreamOwned};
use socket2::{Domain, Socket, Type};
use turnstone::client::{Answer, Client as Turn, ClientError, Credential, Event, Request};

use crate::support::{Credentials, TestServer, Transport, time_limited, tls_over};

/// The first retransmission of a request over UDP (RFC 8489 section 6.2.1).
const RETRANSMIT: Duration = Duration::from_millis(500);
/// How long a request may take over a stream.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// And over UDP, all retransmissions included: what RFC 8489 section 6.2.1 gives a client. The answer budget lets a newcomer of an
/// attacked network wait through some of them.
const PATIENCE_UDP: Duration = Duration::from_millis(39_500);

/// The server, as clients know it.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) udp: SocketAddr,
    pub(crate) tcp: SocketAddr,
    pub(crate) tls: SocketAddr,
    pub(crate) metrics: SocketAddr,
    pub(crate) admin: String,
    authority_file: String,
    secret: String,
}

impl Target {
    pub(crate) fn of(server: &TestServer) -> Target {
        Target {
            udp: server.udp(),
            tcp: server.tcp(),
            tls: server.tls(),
            metrics: crate::measure::endpoint(server),
            admin: server.file("admin.sock"),
            authority_file: server.file("authority.pem"),
            secret: server.secret().to_owned(),
        }
    }

    pub(crate) fn authority_file(&self) -> &str {
        &self.authority_file
    }

    pub(crate) fn credentials(&self, user: &str) -> Credentials {
        time_limited(&self.secret, user, 24 * 3600)
    }
}

pub(crate) struct Client {
    link: Link,
    turn: Turn,
    /// What has come over a stream and is not yet a whole frame.
    inbox: Vec<u8>,
}

enum Link {
    Udp(UdpSocket),
    Tcp(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Client {
    /// A client of this user at this address of ours.
    pub(crate) fn connect(target: &Target, transport: Transport, user: &str, from: Ipv4Addr) -> io::Result<Client> {
        Client::with(target, transport, target.credentials(user), from)
    }

    pub(crate) fn with(
        target: &Target,
        transport: Transport,
        credentials: Credentials,
        from: Ipv4Addr,
    ) -> io::Result<Client> {
        let link = match transport {
            Transport::Udp => {
                let socket = UdpSocket::bind((from, 0))?;
                socket.connect(target.udp)?;
                Link::Udp(socket)
            }
            Transport::Tcp => Link::Tcp(stream(target.tcp, from)?),
            Transport::Tls => {
                let mut stream = tls_over(stream(target.tls, from)?, &target.authority_file);
                while stream.conn.is_handshaking() {
                    stream.conn.complete_io(&mut stream.sock)?;
                }
                Link::Tls(Box::new(stream))
            }
        };
        static SEED: AtomicU64 = AtomicU64::new(1);
        let mut seed = [0x5a; 16];
        seed[..8].copy_from_slice(&SEED.fetch_add(1, Ordering::Relaxed).to_le_bytes());
        let credential =
            Credential { username: credentials.username, password: credentials.password.into(), sha256: false };
        Ok(Client { link, turn: Turn::new(Some(Arc::new(credential)), seed), inbox: Vec::new() })
    }

    pub(crate) fn local_port(&self) -> u16 {
        match &self.link {
            Link::Udp(socket) => socket.local_addr(),
            Link::Tcp(stream) => stream.local_addr(),
            Link::Tls(stream) => stream.sock.local_addr(),
        }
        .unwrap()
        .port()
    }

    /// The answer to a request, or the code of its refusal. What else comes meanwhile is lost.
    pub(crate) fn ask(&mut self, request: Request) -> io::Result<Result<Answer, u16>> {
        let mut out = Vec::new();
        self.turn.start(request, &mut out);
        let patience = match self.link {
            Link::Udp(_) => PATIENCE_UDP,
            _ => PATIENCE,
        };
        let (end, mut wait) = (Instant::now() + patience, RETRANSMIT);
        self.send(&out)?;
        loop {
            let until = match self.link {
                Link::Udp(_) => end.min(Instant::now() + wait),
                _ => end,
            };
            let Some(frame) = self.receive(until)? else {
                if Instant::now() >= end {
                    return Err(ErrorKind::TimedOut.into());
                }
                wait *= 2;
                self.send(&out)?;
                continue;
            };
            let mut next = Vec::new();
            match self.turn.receive(&frame, &mut next) {
                Ok(Event::Done(answer)) => return Ok(Ok(answer)),
                Ok(Event::Retry) => {
                    out = next;
                    self.send(&out)?;
                }
                Ok(Event::Ignored) => {}
                Err(ClientError::Refused { code, .. }) => return Ok(Err(code.value())),
                Err(error) => return Err(io::Error::other(error.to_string())),
            }
        }
    }

    pub(crate) fn allocate(&mut self) -> io::Result<Result<SocketAddr, u16>> {
        Ok(self.ask(Request::Allocate { family: None, lifetime_secs: Some(3600) })?.map(|answer| match answer {
            Answer::Allocated { relayed, .. } => relayed,
            other => panic!("{other:?}"),
        }))
    }

    /// Sends a request and does not wait for the answer.
    pub(crate) fn start(&mut self, request: Request) -> io::Result<()> {
        let mut out = Vec::new();
        self.turn.start(request, &mut out);
        self.send(&out)
    }

    /// Takes a message that may be the answer to what was started, and answers a challenge.
    pub(crate) fn hear(&mut self, message: &[u8]) -> io::Result<()> {
        let mut out = Vec::new();
        let _ = self.turn.receive(message, &mut out);
        match out.is_empty() {
            true => Ok(()),
            false => self.send(&out),
        }
    }

    /// ChannelData, padded.
    pub(crate) fn send_on(&mut self, channel: u16, payload: &[u8]) -> io::Result<()> {
        self.send(&channel_data(channel, payload))
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.link {
            // A full buffer is a lost datagram.
            Link::Udp(socket) => match socket.send(bytes) {
                Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error),
                _ => Ok(()),
            },
            Link::Tcp(stream) => stream.write_all(bytes),
            Link::Tls(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
        }
    }

    /// The next message or ChannelData, its padding taken off; `None` when none came in time.
    pub(crate) fn receive(&mut self, until: Instant) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(frame) = self.take_frame() {
                return Ok(Some(frame));
            }
            let wait = until.saturating_duration_since(Instant::now());
            if wait.is_zero() {
                return Ok(None);
            }
            let wait = Some(wait.max(Duration::from_millis(1)));
            let mut buffer = [0; 4096];
            let received = match &mut self.link {
                Link::Udp(socket) => socket.set_read_timeout(wait).and_then(|()| socket.recv(&mut buffer)),
                Link::Tcp(stream) => stream.set_read_timeout(wait).and_then(|()| stream.read(&mut buffer)),
                Link::Tls(stream) => stream.sock.set_read_timeout(wait).and_then(|()| stream.read(&mut buffer)),
            };
            match (received, &self.link) {
                (Ok(len), Link::Udp(_)) => return Ok(Some(buffer[..len].to_vec())),
                (Ok(0), _) => return Err(ErrorKind::UnexpectedEof.into()),
                (Ok(len), _) => self.inbox.extend(&buffer[..len]),
                (Err(error), _) => match error.kind() {
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => {}
                    _ => return Err(error),
                },
            }
        }
    }

    fn take_frame(&mut self) -> Option<Vec<u8>> {
        let head = self.inbox.get(..4)?;
        let len = usize::from(u16::from_be_bytes([head[2], head[3]]));
        let len = 4 + if head[0] < 0x40 { 16 + len } else { len };
        if self.inbox.len() < len.next_multiple_of(4) {
            return None;
        }
        let mut frame: Vec<u8> = self.inbox.drain(..len.next_multiple_of(4)).collect();
        frame.truncate(len);
        Some(frame)
    }
}

/// ChannelData as over a stream.
pub(crate) fn channel_data(channel: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = [&channel.to_be_bytes()[..], &(payload.len() as u16).to_be_bytes(), payload].concat();
    frame.resize(frame.len().next_multiple_of(4), 0);
    frame
}

/// A connection from this address of ours.
pub(crate) fn stream(to: SocketAddr, from: Ipv4Addr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((from, 0)).into())?;
    socket.connect_timeout(&to.into(), PATIENCE)?;
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}
