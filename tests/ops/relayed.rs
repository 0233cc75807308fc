//! A client with one peer on the far side of the relay, one packet at a time, over each transport and family.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;

use turnstone::addr::{Family, Transport};
use turnstone::client::{Answer, Client, Credential, Event, Request};

use crate::LIMIT;
use crate::support::{self, TestServer, tls_over};

const CHANNEL: u16 = 0x4000;

/// An allocation with a channel to a peer.
pub(crate) struct Relayed {
    link: Link,
    turn: Client,
    pub(crate) peer: UdpSocket,
    pub(crate) relayed: SocketAddr,
}

enum Link {
    Datagrams(UdpSocket),
    Stream(Box<dyn ReadWrite>),
}

trait ReadWrite: Read + Write {}
impl<T: Read + Write> ReadWrite for T {}

impl Relayed {
    /// A client of this transport and a peer of this family, both on loopback.
    pub(crate) fn new(server: &TestServer, transport: Transport, family: Family) -> Relayed {
        let peer = socket(match family {
            Family::V4 => "127.0.0.1:0",
            Family::V6 => "[::1]:0",
        });
        let credentials = server.credentials("someone");
        let credential =
            Credential { username: credentials.username, password: credentials.password.into(), sha256: false };
        let link = Link::to(server, transport);
        let mut this =
            Relayed { link, turn: Client::new(Some(Arc::new(credential)), [3; 16]), relayed: local(&peer), peer };
        let answer = this.ask(Request::Allocate { family: Some(family), lifetime_secs: None });
        let Answer::Allocated { relayed, .. } = answer else { panic!("{answer:?}") };
        this.relayed = relayed;
        let peer = local(&this.peer);
        assert_eq!(this.ask(Request::ChannelBind { channel: CHANNEL, peer }), Answer::Granted);
        this
    }

    /// Ends the allocation, without waiting for the answer: there may be no room for it.
    pub(crate) fn release(mut self) {
        let mut out = Vec::new();
        self.turn.start(Request::Refresh { lifetime_secs: 0 }, &mut out);
        self.link.send(&out);
    }

    /// Client to peer, without waiting for its arrival.
    pub(crate) fn send(&mut self, payload: &[u8]) {
        let mut frame = [&CHANNEL.to_be_bytes()[..], &(payload.len() as u16).to_be_bytes(), payload].concat();
        if matches!(self.link, Link::Stream(_)) {
            frame.resize(frame.len().next_multiple_of(4), 0);
        }
        self.link.send(&frame);
    }

    /// Client to peer.
    pub(crate) fn up(&mut self, payload: &[u8]) {
        self.send(payload);
        let mut buffer = [0; 2048];
        let (len, from) = uninterrupted(|| self.peer.recv_from(&mut buffer)).unwrap();
        assert_eq!((&buffer[..len], from), (payload, self.relayed));
    }

    /// Peer to client.
    pub(crate) fn down(&mut self, payload: &[u8]) {
        self.peer.send_to(payload, self.relayed).unwrap();
        let frame = self.link.receive();
        assert_eq!(frame[..2], CHANNEL.to_be_bytes());
        assert_eq!(&frame[4..4 + payload.len()], payload);
    }

    fn ask(&mut self, request: Request) -> Answer {
        let mut out = Vec::new();
        self.turn.start(request, &mut out);
        loop {
            self.link.send(&out);
            out.clear();
            // What was relayed before may still come.
            let message = std::iter::repeat_with(|| self.link.receive()).find(|frame| frame[0] < 0x40).unwrap();
            let event = self.turn.receive(&message, &mut out).unwrap();
            assert_ne!(event, Event::Ignored);
            if let Event::Done(answer) = event {
                return answer;
            }
        }
    }
}

impl Link {
    fn to(server: &TestServer, transport: Transport) -> Link {
        let tcp = |address| {
            let stream = TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(LIMIT)).unwrap();
            stream
        };
        match transport {
            Transport::Udp => {
                let socket = socket("127.0.0.1:0");
                socket.connect(server.udp()).unwrap();
                Link::Datagrams(socket)
            }
            Transport::Tcp => Link::Stream(Box::new(tcp(server.tcp()))),
            Transport::Dtls => panic!("this client does not speak it"),
            Transport::Tls => Link::Stream(Box::new(tls_over(tcp(server.tls()), server.file("authority.pem")))),
        }
    }

    fn send(&mut self, frame: &[u8]) {
        match self {
            Link::Datagrams(socket) => assert_eq!(socket.send(frame).unwrap(), frame.len()),
            Link::Stream(stream) => stream.write_all(frame).unwrap(),
        }
    }

    /// The next message, with its padding on streams.
    fn receive(&mut self) -> Vec<u8> {
        match self {
            Link::Datagrams(socket) => {
                let mut buffer = [0; 2048];
                let len = uninterrupted(|| socket.recv(&mut buffer)).unwrap();
                buffer[..len].to_vec()
            }
            Link::Stream(stream) => {
                let mut frame = vec![0; 4];
                stream.read_exact(&mut frame).unwrap();
                let len = usize::from(u16::from_be_bytes([frame[2], frame[3]]));
                let rest = if frame[0] < 0x40 { 16 + len } else { len.next_multiple_of(4) };
                frame.resize(4 + rest, 0);
                stream.read_exact(&mut frame[4..]).unwrap();
                frame
            }
        }
    }
}

fn socket(address: &str) -> UdpSocket {
    let socket = UdpSocket::bind(address).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    socket
}

/// A call with a time limit is also ended by a signal, such as the one that continues a stopped process.
fn uninterrupted<T>(mut call: impl FnMut() -> std::io::Result<T>) -> std::io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

fn local(socket: &UdpSocket) -> SocketAddr {
    socket.local_addr().unwrap()
}

/// What waits in, and what the kernel has dropped at, all IPv4 sockets on a port: proc_net_udp(5).
pub(crate) fn waiting_and_dropped(port: u16) -> (u64, u64) {
    let table = std::fs::read_to_string("/proc/net/udp").unwrap();
    let sockets = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    sockets.filter(|fields| fields[1].ends_with(&format!(":{port:04X}"))).fold((0, 0), |(waiting, dropped), fields| {
        let queued = fields[4].split(':').nth(1).unwrap();
        (waiting + u64::from_str_radix(queued, 16).unwrap(), dropped + fields.last().unwrap().parse::<u64>().unwrap())
    })
}

/// Waits until the server has read everything that came to a relay.
pub(crate) fn read_to_the_end(relayed: SocketAddr) {
    support::wait_until("an empty relay socket", LIMIT, || (waiting_and_dropped(relayed.port()).0 == 0).then_some(()));
}
