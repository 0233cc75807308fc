//! A TURN client over UDP or TCP that counts the payload it sends and gets back.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use turnstone::client::{Answer, Client, ClientError, Credential, Event, Request};

use crate::LIMIT;
use crate::support::TestServer;

const CHANNEL: u16 = 0x4000;

/// A client with an allocation.
pub(crate) struct Allocated {
    link: Link,
    turn: Client,
    pub(crate) local: SocketAddr,
    pub(crate) relayed: SocketAddr,
    /// Packets and bytes of payload sent, all of which were echoed.
    pub(crate) echoed: (u64, u64),
}

enum Link {
    Udp(UdpSocket),
    Tcp(TcpStream),
}

impl Allocated {
    pub(crate) fn over_udp(server: &TestServer, user: &str) -> Allocated {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        socket.connect(server.udp()).unwrap();
        let local = socket.local_addr().unwrap();
        Self::new(server, user, Link::Udp(socket), local)
    }

    pub(crate) fn over_tcp(server: &TestServer, user: &str) -> Allocated {
        let stream = TcpStream::connect(server.tcp()).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.set_nodelay(true).unwrap();
        let local = stream.local_addr().unwrap();
        Self::new(server, user, Link::Tcp(stream), local)
    }

    fn new(server: &TestServer, user: &str, link: Link, local: SocketAddr) -> Allocated {
        let credentials = server.credentials(user);
        let credential =
            Credential { username: credentials.username, password: credentials.password.into(), sha256: false };
        // Two clients that come from one port must not send the same bytes: the second would be taken for a retransmission.
        static CLIENTS: AtomicU64 = AtomicU64::new(0);
        let mut seed = [7; 16];
        seed[..8].copy_from_slice(&CLIENTS.fetch_add(1, Ordering::Relaxed).to_be_bytes());
        let turn = Client::new(Some(Arc::new(credential)), seed);
        let mut this = Allocated { link, turn, local, relayed: local, echoed: (0, 0) };
        let allocated = this.ask(Request::Allocate { family: None, lifetime_secs: None });
        let Answer::Allocated { relayed, .. } = allocated else { panic!("{allocated:?}") };
        this.relayed = relayed;
        this
    }

    /// Sends payloads to an echoing peer and waits for each.
    pub(crate) fn echo(&mut self, peer: SocketAddr, payloads: impl IntoIterator<Item = usize>) {
        assert_eq!(self.ask(Request::ChannelBind { channel: CHANNEL, peer }), Answer::Granted);
        for len in payloads {
            let payload = vec![0xA5; len];
            let mut frame = [&CHANNEL.to_be_bytes()[..], &(len as u16).to_be_bytes(), &payload].concat();
            if matches!(self.link, Link::Tcp(_)) {
                frame.resize(frame.len().next_multiple_of(4), 0);
            }
            self.send(&frame);
            let back = self.receive();
            assert_eq!(&back[4..4 + len], payload);
            self.echoed.0 += 1;
            self.echoed.1 += len as u64;
        }
    }

    /// Ends the allocation.
    pub(crate) fn release(&mut self) {
        let answer = self.ask(Request::Refresh { lifetime_secs: 0 });
        assert!(matches!(answer, Answer::Refreshed { .. }), "{answer:?}");
    }

    /// Asks for a channel to a peer.
    pub(crate) fn bind(&mut self, peer: SocketAddr) -> Result<Answer, ClientError> {
        self.try_ask(Request::ChannelBind { channel: CHANNEL, peer })
    }

    pub(crate) fn refresh(&mut self) -> Answer {
        self.ask(Request::Refresh { lifetime_secs: 600 })
    }

    fn ask(&mut self, request: Request) -> Answer {
        self.try_ask(request).unwrap()
    }

    fn try_ask(&mut self, request: Request) -> Result<Answer, ClientError> {
        let mut out = Vec::new();
        self.turn.start(request, &mut out);
        loop {
            self.send(&out);
            out.clear();
            let frame = self.receive();
            match self.turn.receive(&frame, &mut out)? {
                Event::Done(answer) => return Ok(answer),
                Event::Retry => {}
                Event::Ignored => panic!("not an answer"),
            }
        }
    }

    fn send(&mut self, bytes: &[u8]) {
        match &mut self.link {
            Link::Udp(socket) => assert_eq!(socket.send(bytes).unwrap(), bytes.len()),
            Link::Tcp(stream) => stream.write_all(bytes).unwrap(),
        }
    }

    fn receive(&mut self) -> Vec<u8> {
        match &mut self.link {
            Link::Udp(socket) => {
                let mut buffer = vec![0; 2048];
                let len = socket.recv(&mut buffer).unwrap();
                buffer.truncate(len);
                buffer
            }
            Link::Tcp(stream) => {
                let mut frame = vec![0; 4];
                stream.read_exact(&mut frame).unwrap();
                let len = usize::from(u16::from_be_bytes([frame[2], frame[3]]));
                let rest = if frame[0] < 0x40 { 16 + len } else { len };
                frame.resize(4 + rest.next_multiple_of(4), 0);
                stream.read_exact(&mut frame[4..]).unwrap();
                frame.truncate(4 + rest);
                frame
            }
        }
    }
}
