//! Clients that count what becomes of each thing they send.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustls::{ClientConnection, StreamOwned};

use crate::LIMIT;
use crate::support::{Transport, tls_over};

/// A Binding request with this number in its transaction ID.
fn request(number: u64) -> [u8; 20] {
    let mut request = [0; 20];
    request[..8].copy_from_slice(&[0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42]);
    request[12..].copy_from_slice(&number.to_be_bytes());
    request
}

/// The number of the request that this is the success response to.
fn answered(response: &[u8]) -> u64 {
    assert_eq!(response[..2], [1, 1], "no success response: {response:02x?}");
    u64::from_be_bytes(response[12..20].try_into().unwrap())
}

/// Any client socket that listens at a UDP address.
pub(crate) fn udp_socket(server: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind(if server.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" }).unwrap();
    // ICMP errors come only to a connected socket.
    socket.connect(server).unwrap();
    socket
}

pub(crate) fn is_answered(socket: &UdpSocket, number: u64, limit: Duration) -> io::Result<()> {
    socket.send(&request(number))?;
    socket.set_read_timeout(Some(limit))?;
    let mut buffer = [0; 200];
    let len = socket.recv(&mut buffer)?;
    assert_eq!(answered(&buffer[..len]), number);
    Ok(())
}

/// Something sent while no server runs, whose answer is asked for later.
pub(crate) enum Waiting {
    Udp(UdpSocket),
    Tcp(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Waiting {
    pub(crate) fn send(transport: Transport, server: SocketAddr, authority: &str) -> Waiting {
        match transport {
            Transport::Udp => {
                let socket = udp_socket(server);
                socket.send(&request(7)).unwrap();
                Waiting::Udp(socket)
            }
            Transport::Tcp => {
                let mut stream = TcpStream::connect(server).unwrap();
                stream.write_all(&request(7)).unwrap();
                Waiting::Tcp(stream)
            }
            Transport::Tls => {
                let mut stream = tls(server, authority).unwrap();
                // The ClientHello; the request has to wait for the handshake.
                stream.conn.write_tls(&mut stream.sock).unwrap();
                Waiting::Tls(Box::new(stream))
            }
        }
    }

    pub(crate) fn must_be_answered(self) {
        let mut response = [0; 200];
        let len = match self {
            Waiting::Udp(socket) => {
                socket.set_read_timeout(Some(LIMIT)).unwrap();
                socket.recv(&mut response).expect("no answer to a datagram")
            }
            Waiting::Tcp(mut stream) => {
                stream.set_read_timeout(Some(LIMIT)).unwrap();
                stream.read(&mut response).expect("no answer over TCP")
            }
            Waiting::Tls(mut stream) => {
                stream.sock.set_read_timeout(Some(LIMIT)).unwrap();
                stream.write_all(&request(7)).expect("no handshake");
                stream.read(&mut response).expect("no answer over TLS")
            }
        };
        assert_eq!(answered(&response[..len]), 7);
    }
}

pub(crate) fn tls(server: SocketAddr, authority: &str) -> io::Result<StreamOwned<ClientConnection, TcpStream>> {
    Ok(tls_over(TcpStream::connect(server)?, authority))
}

/// Clients that send without a pause, each on a thread of its own.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    answers: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<usize>>,
}

impl Load {
    /// Three UDP clients, or one TCP or TLS client, for each listener.
    pub(crate) fn start(listeners: &[(Transport, SocketAddr)], authority: &str) -> Load {
        let mut load = Load { stop: Arc::default(), answers: Arc::default(), clients: Vec::new() };
        for &(transport, server) in listeners {
            for _ in 0..if transport == Transport::Udp { 3 } else { 1 } {
                let (stop, answers, authority) =
                    (Arc::clone(&load.stop), Arc::clone(&load.answers), authority.to_owned());
                load.clients.push(std::thread::spawn(move || match transport {
                    Transport::Udp => send_datagrams(server, &stop, &answers),
                    _ => make_connections(transport, server, &authority, &stop, &answers),
                }));
            }
        }
        load
    }

    /// Waits until the clients have had so many more answers.
    pub(crate) fn wait_for_answers(&self, more: usize) {
        let (deadline, before) = (Instant::now() + LIMIT, self.answers.load(Ordering::Relaxed));
        while self.answers.load(Ordering::Relaxed) < before + more {
            assert!(self.clients.iter().all(|client| !client.is_finished()), "a client gave up");
            assert!(Instant::now() < deadline, "no answers for {LIMIT:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends the load. A client that was refused, or got no answer to a datagram, fails the test; returns how many
    /// connections were closed unanswered by a server that had taken them.
    pub(crate) fn finish(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.clients.into_iter().map(|client| client.join().expect("a client failed")).sum()
    }
}

/// Sends a request every few milliseconds, whether or not the earlier ones are answered, and in the end waits for all.
fn send_datagrams(server: SocketAddr, stop: &AtomicBool, answers: &AtomicUsize) -> usize {
    let socket = udp_socket(server);
    socket.set_read_timeout(Some(Duration::from_millis(8))).unwrap();
    let mut unanswered = BTreeSet::new();
    let mut buffer = [0; 200];
    let (mut number, mut deadline) = (0, None);
    loop {
        if stop.load(Ordering::Relaxed) {
            if unanswered.is_empty() {
                return 0;
            }
            let deadline = *deadline.get_or_insert_with(|| Instant::now() + LIMIT);
            assert!(Instant::now() < deadline, "{} of {number} datagrams to {server} unanswered", unanswered.len());
        } else {
            number += 1;
            socket.send(&request(number)).unwrap_or_else(|error| panic!("datagram {number} to {server}: {error}"));
            unanswered.insert(number);
        }
        match socket.recv(&mut buffer) {
            Ok(len) => {
                assert!(unanswered.remove(&answered(&buffer[..len])));
                answers.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            Err(error) => panic!("after datagram {number} to {server}: {error}"),
        }
    }
}

/// Connects, asks, closes, and again.
fn make_connections(
    transport: Transport,
    server: SocketAddr,
    authority: &str,
    stop: &AtomicBool,
    answers: &AtomicUsize,
) -> usize {
    let mut closed = 0;
    while !stop.load(Ordering::Relaxed) {
        let stream = TcpStream::connect(server).unwrap_or_else(|error| panic!("{transport:?} to {server}: {error}"));
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let answer = match transport {
            Transport::Tls => ask(&mut tls(server, authority).unwrap()),
            _ => ask(&mut &stream),
        };
        match answer {
            Ok(()) => drop(answers.fetch_add(1, Ordering::Relaxed)),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                panic!("no answer from {server} over {transport:?}")
            }
            Err(_) => closed += 1,
        }
    }
    closed
}

fn ask(stream: &mut (impl Read + Write)) -> io::Result<()> {
    stream.write_all(&request(9))?;
    let mut response = [0; 20];
    stream.read_exact(&mut response)?;
    assert_eq!(answered(&response), 9);
    Ok(())
}
