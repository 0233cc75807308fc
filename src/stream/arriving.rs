//! A connection whose client is not known yet, and what it gets through before its first message.
//!
//! It has no 5-tuple: nothing is framed of it, and nothing can be sent to it. When it has arrived, it is a [`Connection`], and it
//! has a client. What comes before goes by steps, of which the TLS handshake is one.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use rustls::{ServerConfig, ServerConnection};

use super::connection::Connection;
use super::session::{self, ReadError, would_block};
use crate::addr::{ClientAddr, FiveTuple, Transport};
use crate::net::{Arena, Span};

/// What a client may send until its handshake is complete. A ClientHello has 300 to 2,000 bytes, with large key shares and
/// tickets a few thousand; what follows it is short.
const HANDSHAKE_BYTES_MAX: usize = 16 * 1024;

/// An accepted, non-blocking socket and its two ends.
pub struct Accepted {
    socket: TcpStream,
    remote: SocketAddr,
    local: SocketAddr,
}

/// A connection on its way.
pub struct Arriving {
    accepted: Accepted,
    step: Step,
}

/// What it has to get through next.
enum Step {
    /// The TLS handshake, for which so many bytes have come.
    Handshake(Box<ServerConnection>, usize),
}

/// How far a connection has come.
pub enum Progress {
    /// More has to come first.
    Waits(Arriving),
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
}

impl Accepted {
    /// Takes what `accept` has returned.
    ///
    /// # Errors
    /// When the socket has no address any more.
    pub fn new(socket: TcpStream, remote: SocketAddr) -> io::Result<Self> {
        let local = socket.local_addr()?;
        Ok(Self { socket, remote, local })
    }

    /// Messages are what it begins with.
    pub fn over_tcp(self) -> Arrived {
        let five_tuple = self.five_tuple(Transport::Tcp);
        Arrived { connection: Connection::plain(self.socket), five_tuple, read: Span::default() }
    }

    /// A TLS handshake is what it begins with.
    ///
    /// # Errors
    /// When rustls refuses the configuration.
    pub fn over_tls(self, config: &Arc<ServerConfig>) -> Result<Arriving, rustls::Error> {
        Ok(Arriving { accepted: self, step: Step::Handshake(session::new(config)?, 0) })
    }

    fn five_tuple(&self, transport: Transport) -> FiveTuple {
        FiveTuple { transport, client: ClientAddr::new(self.remote), server: self.local }
    }
}

impl Arriving {
    /// The socket, for epoll.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.accepted.socket.as_fd()
    }

    /// Whether something of ours waits until the socket is writable.
    pub fn wants_write(&self) -> bool {
        match &self.step {
            Step::Handshake(tls, _) => tls.wants_write(),
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
        let Step::Handshake(tls, received) = &mut self.step;
        let cipher_slot = cipher_slot.part(0, most.min(cipher_slot.len as usize));
        let read = shake_hands(tls, received, &self.accepted.socket, arena, cipher_slot, slot);
        let is_complete = !tls.is_handshaking();
        match read {
            Err(error) => Err((self, error)),
            Ok(read) if is_complete => {
                let five_tuple = self.accepted.five_tuple(Transport::Tls);
                let Step::Handshake(tls, _) = self.step;
                let connection = Connection::encrypted(self.accepted.socket, tls);
                Ok(Progress::Arrived(Arrived { connection, five_tuple, read: slot.part(0, read) }))
            }
            Ok(_) => Ok(Progress::Waits(self)),
        }
    }

    /// Ends it in order.
    pub fn close(self) {
        let Step::Handshake(mut tls, _) = self.step;
        let socket = &self.accepted.socket;
        let can_write = session::flush(&mut tls, socket).is_ok();
        session::close(socket, can_write.then_some(&mut *tls));
    }
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

    /// Goes on until it has arrived or cannot.
    fn until_arrived(mut arriving: Arriving, arena: &mut Arena) -> Result<Arrived, ReadError> {
        loop {
            let (slot, cipher) = (arena.slot(0), arena.slot(1));
            arriving = match arriving.go_on(arena, slot, cipher, 4096) {
                Ok(Progress::Arrived(arrived)) => return Ok(arrived),
                Ok(Progress::Waits(arriving)) => arriving,
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
        let Ok(arrived) = until_arrived(accepted.over_tls(&server).unwrap(), &mut arena) else {
            panic!("no handshake")
        };
        assert_eq!(arrived.read.len, 0);
        let (client, stream) = shaking.join().unwrap();
        (arrived.connection, client, stream)
    }

    #[test]
    fn over_tcp_a_connection_has_its_client_at_once() {
        let (client, accepted) = connect();
        let arrived = accepted.over_tcp();
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
        let Ok(arrived) = until_arrived(accepted.over_tls(&server).unwrap(), &mut arena) else {
            panic!("no handshake")
        };
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
        let error = until_arrived(accepted.over_tls(&server).unwrap(), &mut arena).err();
        assert!(matches!(error, Some(ReadError::Tls)), "{error:?}");
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).unwrap();
        assert_eq!(answer.first(), Some(&21), "an alert: {answer:?}");
        let (client, accepted) = connect();
        drop(client);
        let error = until_arrived(accepted.over_tls(&server).unwrap(), &mut arena).err();
        assert!(matches!(error, Some(ReadError::Closed)), "{error:?}");
    }

    #[test]
    fn a_handshake_that_does_not_end_does_not_arrive() {
        let (server, _) = configs();
        let mut arena = Arena::new(2, 1024);
        // A ClientHello of 16,383 bytes, each in a record of its own.
        let record = |byte: u8| [22, 3, 1, 0, 1, byte];
        let (mut client, accepted) = connect();
        let mut arriving = accepted.over_tls(&server).unwrap();
        client.write_all(&[1, 0, 0x3F, 0xFF].map(record).concat()).unwrap();
        let mut sent = 24;
        loop {
            let (slot, cipher) = (arena.slot(0), arena.slot(1));
            match arriving.go_on(&mut arena, slot, cipher, 4096) {
                Ok(Progress::Waits(waits)) => arriving = waits,
                Ok(Progress::Arrived(_)) => panic!("a ClientHello is no handshake"),
                Err((_, error)) => {
                    assert!(matches!(error, ReadError::Tls), "{error:?}");
                    break;
                }
            }
            let Step::Handshake(_, received) = arriving.step;
            if received == sent {
                client.write_all(&record(0).repeat(100)).unwrap();
                sent += 600;
            }
            assert!(received <= HANDSHAKE_BYTES_MAX);
        }
        assert!(sent > HANDSHAKE_BYTES_MAX, "the bound is met, not a fault of the message: {sent}");
    }
}
