//! A TURN client over DTLS: OpenSSL's, on a socket of its own.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use openssl::ssl::{ErrorCode, Ssl, SslContext, SslMethod, SslStream, SslVerifyMode};
use turnstone::client::{Answer, Client as Turn, Credential, Event, Request};

use crate::support::Credentials;
use crate::{LIMIT, Server};

/// A socket to a server; a header goes in front of each datagram that is sent.
pub(crate) struct Wire {
    socket: UdpSocket,
    header: Vec<u8>,
    /// So many datagrams are sent, and no more.
    left: usize,
}

pub(crate) struct Client {
    stream: SslStream<Wire>,
    turn: Turn,
    channel: u16,
}

impl Client {
    /// With a handshake that is complete, as `localhost` is.
    pub(crate) fn connect(server: &Server, socket: UdpSocket) -> Self {
        Self::try_connect(server, socket, &[], LIMIT).expect("the handshake ends")
    }

    pub(crate) fn try_connect(server: &Server, socket: UdpSocket, header: &[u8], limit: Duration) -> Option<Self> {
        Self::begin(server, Wire { socket, header: header.to_vec(), left: usize::MAX }, limit).ok()
    }

    /// One that stops after its hello with the cookie.
    pub(crate) fn stalled(server: &Server, socket: UdpSocket) -> SslStream<Wire> {
        let wire = Wire { socket, header: Vec::new(), left: 2 };
        Self::begin(server, wire, Duration::ZERO).err().expect("the handshake does not end")
    }

    fn begin(server: &Server, wire: Wire, limit: Duration) -> Result<Self, SslStream<Wire>> {
        wire.socket.connect(server.address).unwrap();
        wire.socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let mut builder = SslContext::builder(SslMethod::dtls_client()).unwrap();
        builder.set_ca_file(server.authority()).unwrap();
        builder.set_verify(SslVerifyMode::PEER);
        let mut ssl = Ssl::new(&builder.build()).unwrap();
        ssl.set_connect_state();
        ssl.set_mtu(1200).unwrap();
        ssl.set_hostname("localhost").unwrap();
        ssl.param_mut().set_host("localhost").unwrap();
        let mut stream = SslStream::new(ssl, wire).unwrap();
        let since = Instant::now();
        while let Err(error) = stream.do_handshake() {
            assert_eq!(error.code(), ErrorCode::WANT_READ, "{error}");
            if since.elapsed() > limit {
                return Err(stream);
            }
        }
        Ok(Self { stream, turn: Turn::new(None, [7; 16]), channel: 0x4000 })
    }

    pub(crate) fn with(mut self, Credentials { username, password }: Credentials) -> Self {
        let credential = Credential { username, password: password.into(), sha256: false };
        self.turn = Turn::new(Some(Arc::new(credential)), [7; 16]);
        self
    }

    /// The socket, which the server takes for the same client.
    pub(crate) fn socket(&self) -> UdpSocket {
        self.stream.get_ref().socket.try_clone().unwrap()
    }

    pub(crate) fn certificate(&self) -> Vec<u8> {
        self.stream.ssl().peer_certificate().unwrap().to_der().unwrap()
    }

    pub(crate) fn send(&mut self, message: &[u8]) {
        self.stream.ssl_write(message).unwrap();
    }

    /// The next message; `None` when the server has closed the session.
    pub(crate) fn receive(&mut self) -> Option<Vec<u8>> {
        let mut buffer = vec![0; 20_000];
        let since = Instant::now();
        loop {
            match self.stream.ssl_read(&mut buffer) {
                Ok(len) => return Some(buffer[..len].to_vec()),
                Err(error) if error.code() == ErrorCode::ZERO_RETURN => return None,
                Err(error) => assert_eq!(error.code(), ErrorCode::WANT_READ, "{error}"),
            }
            assert!(since.elapsed() < LIMIT, "nothing comes");
        }
    }

    pub(crate) fn ask(&mut self, request: Request) -> Answer {
        let mut out = Vec::new();
        self.turn.start(request, &mut out);
        loop {
            self.send(&out);
            let message = self.receive().expect("the session is open");
            out.clear();
            if let Event::Done(answer) = self.turn.receive(&message, &mut out).unwrap() {
                return answer;
            }
        }
    }

    /// The relayed address.
    pub(crate) fn allocate(&mut self) -> SocketAddr {
        match self.ask(Request::Allocate { family: None, lifetime_secs: None }) {
            Answer::Allocated { relayed, .. } => relayed,
            other => panic!("{other:?}"),
        }
    }

    /// Sends a payload over a channel to an echo, and gets it back.
    pub(crate) fn echo(&mut self, payload: &[u8]) {
        let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
        peer.set_read_timeout(Some(LIMIT)).unwrap();
        self.channel += 1;
        self.ask(Request::ChannelBind { channel: self.channel, peer: peer.local_addr().unwrap() });
        let message = [&self.channel.to_be_bytes()[..], &(payload.len() as u16).to_be_bytes(), payload].concat();
        self.send(&message);
        let mut buffer = vec![0; 20_000];
        let (len, from) = peer.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..len], payload);
        peer.send_to(payload, from).unwrap();
        assert_eq!(self.receive().unwrap(), message);
    }

    pub(crate) fn close(mut self) {
        let _ = self.stream.shutdown();
    }
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.socket.recv(buffer)
    }
}

impl Write for Wire {
    fn write(&mut self, datagram: &[u8]) -> io::Result<usize> {
        let Some(left) = self.left.checked_sub(1) else { return Ok(datagram.len()) };
        self.left = left;
        self.socket.send(&[&self.header[..], datagram].concat())?;
        Ok(datagram.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
