//! The client's leg to the server: a UDP socket, or a TCP connection with or without TLS (RFC 8656 section 3.1).

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use socket2::{Domain, Protocol, Socket, Type};

use crate::addr::Framing;
use crate::net::sys::{self, RecvBuffers};

/// How long a TCP connection may take to be set up.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Receive buffer of a UDP client socket, bytes; the window is meant to be the limit, not this.
const RECEIVE_BUFFER: usize = 4 << 20;
/// Bytes taken from a connection at once.
const STREAM_READ: usize = 64 * 1024;

/// How clients reach the server.
#[derive(Clone)]
pub(super) enum Dial {
    /// Datagrams; coalesced on receipt (GRO) when set.
    Udp { gro: bool },
    /// A TCP connection.
    Tcp,
    /// TLS over TCP.
    Tls { config: Arc<ClientConfig>, name: ServerName<'static> },
}

/// One client's connection.
pub(super) enum Leg {
    /// A connected UDP socket.
    Udp(UdpSocket),
    /// A byte stream with its buffers.
    Stream(Box<Stream>),
}

impl Leg {
    /// Opens a leg from `local` (port 0 for any) to the server.
    ///
    /// # Errors
    /// Of the socket calls, or of setting up TLS. The TLS handshake itself happens as the leg is used.
    pub(super) fn open(dial: &Dial, local: Option<SocketAddr>, server: SocketAddr) -> io::Result<Self> {
        if let Dial::Udp { gro } = dial {
            let local = local.unwrap_or_else(|| unspecified(server));
            let socket = UdpSocket::bind(local)?;
            socket.connect(server)?;
            socket.set_nonblocking(true)?;
            sys::grow_recv_buffer(socket.as_fd(), RECEIVE_BUFFER);
            if *gro {
                sys::enable_udp_gro(socket.as_fd())?;
            }
            return Ok(Self::Udp(socket));
        }
        let socket = Socket::new(Domain::for_address(server), Type::STREAM, Some(Protocol::TCP))?;
        if let Some(local) = local {
            socket.bind(&local.into())?;
        }
        socket.connect_timeout(&server.into(), CONNECT_TIMEOUT)?;
        socket.set_tcp_nodelay(true)?;
        socket.set_nonblocking(true)?;
        let tls = match dial {
            Dial::Tls { config, name } => {
                Some(ClientConnection::new(Arc::clone(config), name.clone()).map_err(io::Error::other)?)
            }
            _ => None,
        };
        Ok(Self::Stream(Box::new(Stream { tcp: socket.into(), tls, inbound: Vec::new(), outbound: Vec::new() })))
    }

    /// How messages are framed on it.
    pub(super) fn framing(&self) -> Framing {
        match self {
            Self::Udp(_) => Framing::Datagrams,
            Self::Stream(_) => Framing::Stream,
        }
    }

    /// Whether what is sent need not be repeated.
    pub(super) fn is_reliable(&self) -> bool {
        match self {
            Self::Udp(_) => false,
            Self::Stream(_) => true,
        }
    }

    /// Sends one STUN message, or on a stream any number of frames.
    ///
    /// # Errors
    /// Of the socket; a UDP socket's full buffer counts as loss.
    pub(super) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Udp(socket) => match socket.send(bytes) {
                Ok(_) => Ok(()),
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionRefused) => Ok(()),
                Err(e) => Err(e),
            },
            Self::Stream(stream) => stream.send(bytes),
        }
    }

    /// Writes what waits on a stream; returns whether something still does.
    ///
    /// # Errors
    /// Of the socket.
    pub(super) fn flush(&mut self) -> io::Result<bool> {
        match self {
            Self::Udp(_) => Ok(false),
            Self::Stream(stream) => stream.flush(),
        }
    }

    /// Receives what is there and calls `each` with every datagram or frame.
    ///
    /// # Errors
    /// Of the socket or of `each`; [`io::ErrorKind::UnexpectedEof`] when the server has closed the connection.
    pub(super) fn recv(&mut self, batch: &mut RecvBuffers, each: impl FnMut(&[u8])) -> io::Result<()> {
        match self {
            Self::Udp(socket) => {
                batch.recv(socket)?;
                batch.datagrams().map(|(bytes, _)| bytes).for_each(each);
                Ok(())
            }
            Self::Stream(stream) => stream.recv(each),
        }
    }
}

impl AsFd for Leg {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Udp(socket) => socket.as_fd(),
            Self::Stream(stream) => stream.tcp.as_fd(),
        }
    }
}

/// A TCP connection, its TLS session if it has one, and bytes not yet consumed or written.
pub(super) struct Stream {
    tcp: TcpStream,
    tls: Option<ClientConnection>,
    inbound: Vec<u8>,
    outbound: Vec<u8>,
}

impl Stream {
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.tls {
            Some(tls) => tls.writer().write_all(bytes)?,
            None => self.outbound.extend_from_slice(bytes),
        }
        self.flush().map(|_| ())
    }

    fn flush(&mut self) -> io::Result<bool> {
        if let Some(tls) = &mut self.tls {
            while tls.wants_write() {
                match tls.write_tls(&mut self.tcp) {
                    Ok(_) => {}
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                    Err(e) => return Err(e),
                }
            }
            return Ok(false);
        }
        let mut written = 0;
        let result = loop {
            match self.outbound.get(written..) {
                None | Some([]) => break Ok(()),
                Some(rest) => match self.tcp.write(rest) {
                    Ok(n) => written += n,
                    Err(e) => break Err(e),
                },
            }
        };
        self.outbound.drain(..written);
        match result {
            Ok(()) => Ok(false),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(true),
            Err(e) => Err(e),
        }
    }

    fn recv(&mut self, mut each: impl FnMut(&[u8])) -> io::Result<()> {
        let open = match &mut self.tls {
            None => read_some(&mut self.tcp, &mut self.inbound)?,
            Some(tls) => {
                let open = read_tls(tls, &mut self.tcp, &mut self.inbound)?;
                // The handshake's own messages, key updates and alerts go out here.
                self.flush()?;
                open
            }
        };
        let mut consumed = 0;
        while let Some(rest) = self.inbound.get(consumed..) {
            let Some(len) = frame_len(rest)? else { break };
            let Some(frame) = rest.get(..len) else { break };
            each(frame);
            consumed += len;
        }
        self.inbound.drain(..consumed);
        if open { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

/// Reads once; whether the connection is still open.
fn read_some(tcp: &mut TcpStream, inbound: &mut Vec<u8>) -> io::Result<bool> {
    let start = inbound.len();
    inbound.resize(start + STREAM_READ, 0);
    let result = tcp.read(inbound.get_mut(start..).unwrap_or_default());
    let (len, open) = match result {
        Ok(n) => (n, Ok(n > 0)),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => (0, Ok(true)),
        Err(e) => (0, Err(e)),
    };
    inbound.truncate(start + len);
    open
}

/// Reads and decrypts what is there; whether the connection is still open.
fn read_tls(tls: &mut ClientConnection, tcp: &mut TcpStream, inbound: &mut Vec<u8>) -> io::Result<bool> {
    loop {
        let read = match tls.read_tls(tcp) {
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(true),
            Err(e) => return Err(e),
        };
        let state = tls.process_new_packets().map_err(io::Error::other)?;
        let start = inbound.len();
        inbound.resize(start + state.plaintext_bytes_to_read(), 0);
        tls.reader().read_exact(inbound.get_mut(start..).unwrap_or_default())?;
        if read == 0 || start > STREAM_READ {
            return Ok(read > 0);
        }
    }
}

/// Length with padding of the frame that starts here; `None` while its header is incomplete.
fn frame_len(bytes: &[u8]) -> io::Result<Option<usize>> {
    let Some(&[t0, _, l0, l1]) = bytes.first_chunk::<4>() else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes([l0, l1]));
    match t0 >> 6 {
        0 => Ok(Some(20 + length)),
        1 => Ok(Some(4 + length.next_multiple_of(4))),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "neither STUN nor ChannelData on the connection")),
    }
}

/// Any address of the server's family, any port.
fn unspecified(server: SocketAddr) -> SocketAddr {
    crate::addr::unspecified(crate::addr::Family::of(server.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn frames_are_measured_with_their_padding() {
        assert_eq!(frame_len(&[0, 1, 0]).unwrap(), None);
        assert_eq!(frame_len(&[0, 1, 0, 8]).unwrap(), Some(28));
        assert_eq!(frame_len(&[0x40, 0, 0, 5]).unwrap(), Some(12));
        assert_eq!(frame_len(&[0x4F, 0xFF, 0xFF, 0xFF]).unwrap(), Some(65_540));
        assert!(frame_len(&[0x80, 0, 0, 0]).is_err());
    }

    #[test]
    fn a_stream_yields_frames_however_they_are_cut() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut leg = Leg::open(&Dial::Tcp, None, listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        server.set_nodelay(true).unwrap();
        let bytes = [&[0x40, 0, 0, 5, 1, 2, 3, 4, 5, 0, 0, 0][..], &[0x40, 1, 0, 0], &[0x41, 0, 0, 1, 9, 0, 0, 0]];
        let sent: Vec<u8> = bytes.concat();
        let mut batch = RecvBuffers::new(false);
        let mut frames: Vec<Vec<u8>> = Vec::new();
        for byte in sent.chunks(1) {
            server.write_all(byte).unwrap();
            leg.recv(&mut batch, |frame| frames.push(frame.to_vec())).unwrap();
        }
        while frames.len() < 3 {
            leg.recv(&mut batch, |frame| frames.push(frame.to_vec())).unwrap();
        }
        assert_eq!(frames.iter().map(Vec::as_slice).collect::<Vec<_>>(), bytes);
        drop(server);
        let closed = loop {
            if let Err(e) = leg.recv(&mut batch, |_| {}) {
                break e;
            }
        };
        assert_eq!(closed.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_burst_sent_by_gso_arrives_as_its_datagrams() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        server.set_nonblocking(true).unwrap();
        let Leg::Udp(client) = Leg::open(&Dial::Udp { gro: true }, None, server.local_addr().unwrap()).unwrap() else {
            panic!("not UDP");
        };
        for gro in [false, true] {
            if gro {
                sys::enable_udp_gro(server.as_fd()).unwrap();
            }
            let mut out = sys::SendBuffers::new();
            out.push(None, Some(100), |bytes| (0..3).for_each(|i| bytes.extend_from_slice(&[i; 100])));
            out.push(Some(server.local_addr().unwrap()), None, |bytes| bytes.extend_from_slice(&[9; 50]));
            out.flush(&client).unwrap();
            let mut batch = RecvBuffers::new(gro);
            let mut got = Vec::new();
            while got.len() < 4 {
                batch.recv(&server).unwrap();
                got.extend(batch.datagrams().map(|(bytes, source)| (bytes.to_vec(), source)));
            }
            let from = Some(client.local_addr().unwrap());
            let want: Vec<_> = [(0, 100), (1, 100), (2, 100), (9, 50)].map(|(b, n)| (vec![b; n], from)).into();
            assert_eq!(got, want);
        }
    }
}
