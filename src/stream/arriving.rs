//! A connection whose client is not known yet, and what it gets through before its first message.
//!
//! It has no 5-tuple: nothing is framed of it, and nothing can be sent to it. When it has arrived, it is a [`Connection`], and it
//! has a client. What comes before goes by steps: the header of a proxy, whether it is TLS, the handshake.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use rustls::{ServerConfig, ServerConnection};

use super::connection::Connection;
use super::session::{self, ReadError, peek, read_some, would_block};
use crate::addr::{ClientAddr, FiveTuple, Transport};
use crate::net::{Arena, Span};
use crate::proxy::{Ends, HEADER_MAX, read_stream_header};
use crate::user::RealmId;

/// What a client may send until its handshake is complete. A ClientHello has 300 to 2,000 bytes, with large key shares and
/// tickets a few thousand; what follows it is short.
const HANDSHAKE_BYTES_MAX: usize = 16 * 1024;

/// The first byte of a TLS handshake: the type of its record. No message of STUN and no ChannelData begins so.
const TLS_HANDSHAKE: u8 = 22;

/// An accepted, non-blocking socket and its two ends.
pub struct Accepted {
    socket: TcpStream,
    /// The client's and ours, or what the proxy says of its own.
    ends: Ends,
    /// The proxy, if it came from one.
    proxy: Option<SocketAddr>,
    /// The listener's realm.
    realm: RealmId,
}

/// What a connection begins with, behind the header of a proxy.
#[derive(Clone)]
pub enum Opening {
    /// Its messages: TCP.
    Messages,
    /// A handshake: TLS.
    Handshake(Arc<ServerConfig>),
    /// One of the two, which its first byte says.
    Either(Arc<ServerConfig>),
}

/// A connection on its way.
pub struct Arriving {
    accepted: Accepted,
    step: Step,
}

/// What it has to get through next.
enum Step {
    /// The header of a proxy, of which so much has come, and what comes then.
    Header(Vec<u8>, Opening),
    /// The first byte.
    FirstByte(Arc<ServerConfig>),
    /// The TLS handshake, for which so many bytes have come.
    Handshake(Box<ServerConnection>, usize),
    /// Nothing more.
    Messages,
}

/// How far a connection has come.
pub enum Progress {
    /// More has to come first.
    Waits(Arriving),
    /// Its proxy has said whose it is. It can go on at once.
    Known(Arriving),
    /// It has a client.
    Arrived(Arrived),
}

/// A connection that has arrived.
pub struct Arrived {
    /// The connection.
    pub connection: Connection,
    /// Its client.
    pub five_tuple: FiveTuple,
    /// What came behind the last step and is to be framed.
    pub read: Span,
    /// The listener's realm, unless the server name leads to another.
    pub realm: RealmId,
    /// What server the client has asked for in its handshake.
    pub server_name: Option<Box<str>>,
}

impl Accepted {
    /// Takes what `accept` has returned.
    ///
    /// # Errors
    /// When the socket has no address any more.
    pub fn new(socket: TcpStream, remote: SocketAddr) -> io::Result<Self> {
        let ends = Ends { client: remote, server: socket.local_addr()? };
        Ok(Self { socket, ends, proxy: None, realm: RealmId::DEFAULT })
    }

    /// By a listener of this realm.
    #[must_use]
    pub fn in_realm(self, realm: RealmId) -> Self {
        Self { realm, ..self }
    }

    /// Has it begin, with the header of a proxy if it came from one.
    ///
    /// # Errors
    /// When rustls refuses the configuration.
    pub fn begin(mut self, opening: Opening, is_proxied: bool) -> Result<Progress, rustls::Error> {
        if is_proxied {
            self.proxy = Some(self.ends.client);
            return Ok(Progress::Waits(Arriving { accepted: self, step: Step::Header(Vec::new(), opening) }));
        }
        Ok(match Step::of(opening)? {
            Step::Messages => Progress::Arrived(self.over_tcp()),
            step => Progress::Waits(Arriving { accepted: self, step }),
        })
    }

    fn over_tcp(self) -> Arrived {
        let five_tuple = self.five_tuple(Transport::Tcp);
        let (connection, realm) = (Connection::plain(self.socket), self.realm);
        Arrived { connection, five_tuple, read: Span::default(), realm, server_name: None }
    }

    /// The client is the one that has connected to the proxy, and the server the address at which it did: another proxy may pass on
    /// a connection from the very same address and port.
    fn five_tuple(&self, transport: Transport) -> FiveTuple {
        FiveTuple { transport, client: ClientAddr::new(self.ends.client), server: self.ends.server }
    }
}

impl Step {
    fn of(opening: Opening) -> Result<Self, rustls::Error> {
        Ok(match opening {
            Opening::Messages => Self::Messages,
            Opening::Handshake(config) => Self::Handshake(session::new(&config)?, 0),
            Opening::Either(config) => Self::FirstByte(config),
        })
    }
}

impl Arriving {
    /// The socket, for epoll.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.accepted.socket.as_fd()
    }

    /// Its two ends, as its proxy says if it came from one and has said so.
    pub fn ends(&self) -> Ends {
        self.accepted.ends
    }

    /// The proxy, if it came from one.
    pub fn proxy(&self) -> Option<SocketAddr> {
        self.accepted.proxy
    }

    /// Whether its proxy has not said yet whose it is.
    pub fn awaits_header(&self) -> bool {
        matches!(self.step, Step::Header(..))
    }

    /// Whether something of ours waits until the socket is writable.
    pub fn wants_write(&self) -> bool {
        match &self.step {
            Step::Handshake(tls, _) => tls.wants_write(),
            Step::Header(..) | Step::FirstByte(_) | Step::Messages => false,
        }
    }

    /// Sends what waits, and reads what is there, at most `most` bytes. Messages behind the last step go into `slot`.
    ///
    /// # Errors
    /// [`ReadError`], and the connection, which is to be closed.
    pub fn go_on(
        mut self,
        arena: &mut Arena,
        slot: Span,
        cipher_slot: Span,
        most: usize,
    ) -> Result<Progress, (Self, ReadError)> {
        let cipher_slot = cipher_slot.part(0, most.min(cipher_slot.len as usize));
        loop {
            let socket = &self.accepted.socket;
            let next = match &mut self.step {
                Step::Header(received, opening) => match read_header(socket, received, arena.get_mut(cipher_slot)) {
                    Ok(None) => return Ok(Progress::Waits(self)),
                    Ok(Some(ends)) => {
                        let next = Step::of(opening.clone()).map_err(|_| ReadError::Tls);
                        self.accepted.ends = ends.unwrap_or(self.accepted.ends);
                        return match next {
                            Ok(step) => Ok(Progress::Known(Self { step, ..self })),
                            Err(error) => Err((self, error)),
                        };
                    }
                    Err(error) => Err(error),
                },
                Step::FirstByte(config) => match peek(socket, arena.get_mut(cipher_slot.part(0, 1))) {
                    Ok([]) => return Ok(Progress::Waits(self)),
                    Ok([TLS_HANDSHAKE, ..]) => {
                        session::new(config).map(|tls| Step::Handshake(tls, 0)).map_err(|_| ReadError::Tls)
                    }
                    // What is no message either is refused where messages are told apart.
                    Ok(_) => Ok(Step::Messages),
                    Err(error) => Err(error),
                },
                Step::Handshake(tls, received) => {
                    let read = shake_hands(tls, received, socket, arena, cipher_slot, slot);
                    let is_complete = !tls.is_handshaking();
                    match read {
                        Ok(read) if is_complete => return Ok(self.arrive(slot.part(0, read))),
                        Ok(_) => return Ok(Progress::Waits(self)),
                        Err(error) => Err(error),
                    }
                }
                Step::Messages => return Ok(self.arrive(Span::default())),
            };
            match next {
                Ok(step) => self.step = step,
                Err(error) => return Err((self, error)),
            }
        }
    }

    fn arrive(self, read: Span) -> Progress {
        let Step::Handshake(tls, _) = self.step else { return Progress::Arrived(self.accepted.over_tcp()) };
        let five_tuple = self.accepted.five_tuple(Transport::Tls);
        let (realm, server_name) = (self.accepted.realm, tls.server_name().map(Into::into));
        let connection = Connection::encrypted(self.accepted.socket, tls);
        Progress::Arrived(Arrived { connection, five_tuple, read, realm, server_name })
    }

    /// Ends it in order.
    pub fn close(self) {
        let socket = &self.accepted.socket;
        let mut tls = if let Step::Handshake(tls, _) = self.step { Some(tls) } else { None };
        let can_write = tls.as_deref_mut().is_some_and(|tls| session::flush(tls, socket).is_ok());
        session::close(socket, tls.as_deref_mut().filter(|_| can_write));
    }
}

/// Reads the header of a proxy, and nothing of what is behind it; nothing while it is incomplete. What has come of it is taken out of
/// the socket, which would be readable all the time otherwise.
fn read_header(
    socket: &TcpStream,
    received: &mut Vec<u8>,
    buffer: &mut [u8],
) -> Result<Option<Option<Ends>>, ReadError> {
    let most = HEADER_MAX.saturating_sub(received.len()).min(buffer.len());
    let before = received.len();
    received.extend_from_slice(peek(socket, buffer.get_mut(..most).unwrap_or_default())?);
    let header = read_stream_header(received).map_err(ReadError::Proxy)?;
    let taken = header.map_or(received.len(), |header| header.len).saturating_sub(before);
    if taken > 0 && read_some(socket, buffer.get_mut(..taken).unwrap_or_default())? != taken {
        return Err(ReadError::Closed);
    }
    Ok(header.map(|header| header.ends))
}

/// A part of the handshake; returns the bytes of plaintext that came behind it.
fn shake_hands(
    tls: &mut ServerConnection,
    received: &mut usize,
    socket: &TcpStream,
    arena: &mut Arena,
    cipher_slot: Span,
    slot: Span,
) -> Result<usize, ReadError> {
    if let Err(error) = session::flush(tls, socket)
        && !would_block(&error)
    {
        return Err(ReadError::Closed);
    }
    let most = HANDSHAKE_BYTES_MAX.saturating_sub(*received).min(cipher_slot.len as usize);
    if most == 0 {
        return Err(ReadError::Tls);
    }
    let (count, read) = session::read(tls, socket, arena, cipher_slot.part(0, most), slot)?;
    *received += count;
    Ok(read)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::time::Duration;

    use rustls::{ClientConfig, ClientConnection, RootCertStore};

    use super::*;
    use crate::proxy::HeaderError;

    /// The two ends of a connection; the server's does not block.
    fn connect() -> (TcpStream, Accepted) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let (socket, remote) = listener.accept().unwrap();
        socket.set_nonblocking(true).unwrap();
        (client, Accepted::new(socket, remote).unwrap())
    }

    /// TLS of a server and of a client that trusts it, as `localhost`.
    pub(crate) fn configs() -> (Arc<ServerConfig>, Arc<ClientConfig>) {
        let key = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let certificate = key.cert.der().clone();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key.signing_key.into())
            .unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certificate).unwrap();
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        (Arc::new(server), Arc::new(client))
    }

    fn begin(accepted: Accepted, opening: Opening, is_proxied: bool) -> Arriving {
        let Ok(Progress::Waits(arriving)) = accepted.begin(opening, is_proxied) else { panic!("it does not wait") };
        arriving
    }

    fn over_tls(accepted: Accepted, config: &Arc<ServerConfig>) -> Arriving {
        begin(accepted, Opening::Handshake(Arc::clone(config)), false)
    }

    /// Goes on until it has arrived or cannot.
    fn until_arrived(mut arriving: Arriving, arena: &mut Arena) -> Result<Arrived, ReadError> {
        loop {
            let (slot, cipher) = (arena.slot(0), arena.slot(1));
            arriving = match arriving.go_on(arena, slot, cipher, 4096) {
                Ok(Progress::Arrived(arrived)) => return Ok(arrived),
                Ok(Progress::Waits(arriving) | Progress::Known(arriving)) => arriving,
                Err((arriving, error)) => {
                    arriving.close();
                    return Err(error);
                }
            };
            std::thread::yield_now();
        }
    }

    /// A connection whose handshake is complete, and its client. Both ends have small buffers.
    pub(in crate::stream) fn arrived_over_tls() -> (Connection, ClientConnection, TcpStream) {
        let (server, client) = configs();
        let mut client = ClientConnection::new(client, "localhost".try_into().unwrap()).unwrap();
        let (mut stream, accepted) = connect();
        socket2::SockRef::from(&stream).set_recv_buffer_size(16 * 1024).unwrap();
        socket2::SockRef::from(&accepted.socket).set_send_buffer_size(16 * 1024).unwrap();
        let shaking = std::thread::spawn(move || {
            client.complete_io(&mut stream).unwrap();
            (client, stream)
        });
        let mut arena = Arena::new(2, 1024);
        let Ok(arrived) = until_arrived(over_tls(accepted, &server), &mut arena) else { panic!("no handshake") };
        assert_eq!(arrived.read.len, 0);
        let (client, stream) = shaking.join().unwrap();
        (arrived.connection, client, stream)
    }

    #[test]
    fn over_tcp_a_connection_has_its_client_at_once() {
        let (client, accepted) = connect();
        let Ok(Progress::Arrived(arrived)) = accepted.begin(Opening::Messages, false) else { panic!("it waits") };
        assert_eq!(arrived.five_tuple.transport, Transport::Tcp);
        assert_eq!(arrived.five_tuple.client.get(), client.local_addr().unwrap());
        assert_eq!(arrived.five_tuple.server, client.peer_addr().unwrap());
    }

    #[test]
    fn over_tls_it_has_one_after_the_handshake_with_what_came_behind_it() {
        let (server, client) = configs();
        let mut client = ClientConnection::new(client, "localhost".try_into().unwrap()).unwrap();
        let (mut stream, accepted) = connect();
        let local = stream.local_addr().unwrap();
        let writing = std::thread::spawn(move || {
            // Leaves together with the end of the handshake.
            client.writer().write_all(b"a first message").unwrap();
            client.complete_io(&mut stream).unwrap();
            stream
        });
        let mut arena = Arena::new(2, 1024);
        let Ok(arrived) = until_arrived(over_tls(accepted, &server), &mut arena) else { panic!("no handshake") };
        let stream = writing.join().unwrap();
        assert_eq!((arrived.five_tuple.transport, arrived.five_tuple.client.get()), (Transport::Tls, local));
        let (mut connection, mut read) = (arrived.connection, arena.get(arrived.read).to_vec());
        while read.len() < 15 {
            let (slot, cipher) = (arena.slot(0), arena.slot(1));
            let span = connection.read(&mut arena, slot, cipher, 4096).unwrap();
            read.extend_from_slice(arena.get(span));
        }
        assert_eq!(read, b"a first message");
        drop(stream);
    }

    #[test]
    fn what_is_no_handshake_does_not_arrive_and_is_told_so() {
        let (server, _) = configs();
        let mut arena = Arena::new(2, 1024);
        let (mut client, accepted) = connect();
        client.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        let error = until_arrived(over_tls(accepted, &server), &mut arena).err();
        assert!(matches!(error, Some(ReadError::Tls)), "{error:?}");
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).unwrap();
        assert_eq!(answer.first(), Some(&21), "an alert: {answer:?}");
        let (client, accepted) = connect();
        drop(client);
        let error = until_arrived(over_tls(accepted, &server), &mut arena).err();
        assert!(matches!(error, Some(ReadError::Closed)), "{error:?}");
    }

    #[test]
    fn a_handshake_that_does_not_end_does_not_arrive() {
        let (server, _) = configs();
        let mut arena = Arena::new(2, 1024);
        // A ClientHello of 16,383 bytes, each in a record of its own.
        let record = |byte: u8| [22, 3, 1, 0, 1, byte];
        let (mut client, accepted) = connect();
        let mut arriving = over_tls(accepted, &server);
        client.write_all(&[1, 0, 0x3F, 0xFF].map(record).concat()).unwrap();
        let mut sent = 24;
        loop {
            let (slot, cipher) = (arena.slot(0), arena.slot(1));
            match arriving.go_on(&mut arena, slot, cipher, 4096) {
                Ok(Progress::Waits(waits)) => arriving = waits,
                Ok(_) => panic!("a ClientHello is no handshake"),
                Err((_, error)) => {
                    assert!(matches!(error, ReadError::Tls), "{error:?}");
                    break;
                }
            }
            let Step::Handshake(_, received) = arriving.step else { panic!("it is past its handshake") };
            if received == sent {
                client.write_all(&record(0).repeat(100)).unwrap();
                sent += 600;
            }
            assert!(received <= HANDSHAKE_BYTES_MAX);
        }
        assert!(sent > HANDSHAKE_BYTES_MAX, "the bound is met, not a fault of the message: {sent}");
    }

    #[test]
    fn one_port_serves_both_and_the_first_byte_says_which() {
        let (server, client) = configs();
        let either = || Opening::Either(Arc::clone(&server));
        let mut arena = Arena::new(2, 1024);
        let (mut stream, accepted) = connect();
        let arriving = begin(accepted, either(), false);
        stream.write_all(b"\0\x01\0\0 and the rest").unwrap();
        let Ok(mut arrived) = until_arrived(arriving, &mut arena) else { panic!("it does not arrive") };
        assert_eq!(arrived.five_tuple.transport, Transport::Tcp);
        let (slot, cipher) = (arena.slot(0), arena.slot(1));
        let span = arrived.connection.read(&mut arena, slot, cipher, 4096).unwrap();
        assert_eq!(arena.get(span), b"\0\x01\0\0 and the rest", "nothing of it was taken");

        let (mut stream, accepted) = connect();
        let mut client = ClientConnection::new(client, "localhost".try_into().unwrap()).unwrap();
        let shaking = std::thread::spawn(move || client.complete_io(&mut stream).map(|_| stream));
        let Ok(arrived) = until_arrived(begin(accepted, either(), false), &mut arena) else { panic!("no handshake") };
        assert_eq!(arrived.five_tuple.transport, Transport::Tls);
        shaking.join().unwrap().unwrap();

        let (stream, accepted) = connect();
        drop(stream);
        let error = until_arrived(begin(accepted, either(), false), &mut arena).err();
        assert!(matches!(error, Some(ReadError::Closed)), "{error:?}");
    }

    #[test]
    fn behind_a_proxy_the_client_is_the_one_of_the_header_and_what_follows_is_left() {
        let mut arena = Arena::new(2, 1024);
        let line = b"PROXY TCP4 192.0.2.1 203.0.113.5 1000 443\r\n";
        let (mut stream, accepted) = connect();
        let mut arriving = begin(accepted, Opening::Messages, true);
        let step = |arriving: Arriving, arena: &mut Arena| {
            let (slot, cipher) = (arena.slot(0), arena.slot(1));
            arriving.go_on(arena, slot, cipher, 4096).map_err(|(_, error)| error).unwrap()
        };
        for byte in &line[..line.len() - 1] {
            stream.write_all(&[*byte]).unwrap();
            let Progress::Waits(waits) = step(arriving, &mut arena) else { panic!("a header that is cut off") };
            assert!(waits.awaits_header() && waits.proxy() == Some(stream.local_addr().unwrap()));
            arriving = waits;
        }
        assert_eq!(
            peek(&arriving.accepted.socket, &mut [0; 9]).unwrap(),
            b"",
            "nothing that would be read over and over"
        );
        stream.write_all(b"\na message").unwrap();
        let known = loop {
            match step(arriving, &mut arena) {
                Progress::Waits(waits) => arriving = waits,
                Progress::Known(known) => break known,
                Progress::Arrived(_) => panic!("its client is not judged yet"),
            }
        };
        assert_eq!(known.ends().client, "192.0.2.1:1000".parse().unwrap());
        let Progress::Arrived(mut arrived) = step(known, &mut arena) else { panic!("it waits") };
        assert_eq!(arrived.five_tuple.client.get(), "192.0.2.1:1000".parse().unwrap());
        assert_eq!(arrived.five_tuple.server, "203.0.113.5:443".parse().unwrap());
        let (slot, cipher) = (arena.slot(0), arena.slot(1));
        let span = arrived.connection.read(&mut arena, slot, cipher, 4096).unwrap();
        assert_eq!(arena.get(span), b"a message");
    }

    #[test]
    fn a_proxy_without_a_header_is_refused_and_one_that_speaks_for_itself_is_its_own_client() {
        let mut arena = Arena::new(2, 1024);
        let (mut stream, accepted) = connect();
        stream.write_all(b"\0\x01\0\0").unwrap();
        let error = until_arrived(begin(accepted, Opening::Messages, true), &mut arena).err();
        assert!(matches!(error, Some(ReadError::Proxy(HeaderError::Missing))), "{error:?}");
        let (mut stream, accepted) = connect();
        stream.write_all(b"PROXY UNKNOWN\r\n").unwrap();
        let Ok(arrived) = until_arrived(begin(accepted, Opening::Messages, true), &mut arena) else {
            panic!("it does not arrive")
        };
        assert_eq!(arrived.five_tuple.client.get(), stream.local_addr().unwrap());
    }
}
