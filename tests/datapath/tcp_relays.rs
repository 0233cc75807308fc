//! TCP allocations (RFC 6062): what both ends see of the bytes.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use socket2::SockRef;
use turnstone::stun::{AttributeType, Method};

use crate::support::{Spec, TestServer, Transport, wait_until};
use crate::tcp_allocation::{Access, Wire};

const LIMIT: Duration = Duration::from_secs(20);

/// A server with TCP relays and as many workers, so that many a ConnectionBind comes to another one.
fn server(workers: usize, more: &str) -> TestServer {
    let extra_toml = format!("[bandwidth]\n{more}\n");
    Spec { tcp_relays: true, workers, extra_toml, ..Spec::local() }.start()
}

fn listen(ip: &str) -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((ip, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn accept(listener: &TcpListener) -> TcpStream {
    let (socket, _) = listener.accept().unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    socket.set_write_timeout(Some(LIMIT)).unwrap();
    socket
}

/// Bytes that tell where they belong.
fn pattern(seed: usize, len: usize) -> Vec<u8> {
    (0..len).map(|at| ((at >> 8) ^ at ^ (seed * 31)) as u8).collect()
}

/// A peer that sends back what it gets, and ends when its client has.
fn echo(listener: TcpListener, connections: usize) -> JoinHandle<()> {
    thread::spawn(move || {
        let echoes: Vec<_> = (0..connections)
            .map(|_| {
                let mut socket = accept(&listener);
                thread::spawn(move || {
                    let mut buffer = vec![0; 50_000];
                    loop {
                        let count = socket.read(&mut buffer).unwrap();
                        if count == 0 {
                            break socket.shutdown(Shutdown::Write).unwrap();
                        }
                        socket.write_all(&buffer[..count]).unwrap();
                    }
                })
            })
            .collect();
        echoes.into_iter().for_each(|echo| echo.join().unwrap());
    })
}

/// Sends all, ends, and reads until the peer has ended.
fn exchange(mut data: Wire, sent: Vec<u8>) -> Vec<u8> {
    let mut received = Vec::new();
    match data {
        Wire::Plain(ref socket) => {
            let mut writing = socket.try_clone().unwrap();
            let writer = thread::spawn(move || {
                writing.write_all(&sent).unwrap();
                writing.shutdown(Shutdown::Write).unwrap();
            });
            data.read_to_end(&mut received).unwrap();
            writer.join().unwrap();
        }
        // One thread has the session: a piece goes, and comes back.
        Wire::Encrypted(_) => {
            for piece in sent.chunks(10_000) {
                data.write_all(piece).unwrap();
                let start = received.len();
                received.resize(start + piece.len(), 0);
                data.read_exact(&mut received[start..]).unwrap();
            }
            data.end_sending();
            data.read_to_end(&mut received).unwrap();
        }
    }
    received
}

#[test]
fn bytes_come_whole_and_in_order_both_ways_and_each_end_is_passed_on_whichever_worker_binds() {
    let server = server(2, "");
    for (transport, ip, family) in
        [(Transport::Tcp, "127.0.0.1", 1), (Transport::Tls, "127.0.0.1", 1), (Transport::Tcp, "::1", 2)]
    {
        let access = Access::new(&server, transport, ip, "bulk");
        let (mut control, relayed) = access.allocate(Some(family));
        let peer_ip = if family == 1 { "127.0.0.1" } else { "::1" };
        // Of one relay there are connections to as many peers: each has one.
        let peers: Vec<_> = (0..6).map(|_| listen(peer_ip)).collect();
        let ids: Vec<_> = peers.iter().map(|(_, address)| control.connect(*address).unwrap()).collect();
        let echoes: Vec<_> = peers.into_iter().map(|(listener, _)| echo(listener, 1)).collect();
        let datas: Vec<_> = ids.iter().map(|id| access.bind(*id).unwrap()).collect();
        assert_eq!(access.bind(ids[0]).err(), Some(400), "bound twice");
        let exchanges: Vec<_> = datas
            .into_iter()
            .enumerate()
            .map(|(seed, data)| {
                thread::spawn(move || {
                    let sent = pattern(seed, 3_000_001);
                    assert!(exchange(data, sent.clone()) == sent, "what came back is something else");
                })
            })
            .collect();
        exchanges.into_iter().chain(echoes).for_each(|thread| thread.join().unwrap());
        drop((control, relayed));
    }
}

#[test]
fn what_a_peer_sends_before_it_is_bound_waits_and_a_peer_that_refuses_is_447() {
    let server = server(1, "");
    let access = Access::new(&server, Transport::Tcp, "127.0.0.1", "early");
    let (mut control, relayed) = access.allocate(None);
    let (listener, address) = listen("127.0.0.1");
    let id = control.connect(address).unwrap();
    let mut peer = accept(&listener);
    assert_eq!(peer.peer_addr().unwrap(), relayed, "it comes from the relayed address");
    assert_eq!(control.connect(address).err(), Some(446));
    peer.write_all(b"early").unwrap();
    peer.shutdown(Shutdown::Write).unwrap();
    let mut data = access.bind(id).unwrap();
    let mut all = String::new();
    data.read_to_string(&mut all).unwrap();
    assert_eq!(all, "early");
    // The other way is open still.
    data.write_all(b"late").unwrap();
    data.end_sending();
    all.clear();
    peer.read_to_string(&mut all).unwrap();
    assert_eq!(all, "late");
    // Both have ended: the same peer can be tried again, though the kernel may remember the earlier connection (447).
    wait_until("the connection to be forgotten", LIMIT, || match control.connect(address) {
        Ok(_) | Err(447) => Some(()),
        Err(code) => {
            assert_eq!(code, 446);
            None
        }
    });
    let (gone, refused) = listen("127.0.0.1");
    drop(gone);
    assert_eq!(control.connect(refused).err(), Some(447));
    assert_eq!(control.connect("10.1.2.3:80".parse().unwrap()).err(), Some(403));
}

#[test]
fn a_peer_that_has_a_permission_is_announced_and_any_other_is_reset() {
    let server = server(2, "");
    for (transport, ip) in [(Transport::Tcp, "127.0.0.1"), (Transport::Tls, "::1")] {
        let access = Access::new(&server, transport, ip, "inbound");
        let (mut control, relayed) = access.allocate(Some(1));
        let mut stranger = TcpStream::connect(relayed).unwrap();
        stranger.set_read_timeout(Some(LIMIT)).unwrap();
        assert_eq!(stranger.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
        control.permit("127.0.0.1:1".parse().unwrap());
        let mut peer = TcpStream::connect(relayed).unwrap();
        peer.write_all(b"hello").unwrap();
        let told = control.hear();
        assert_eq!(told.method(), Method::CONNECTION_ATTEMPT);
        assert_eq!(told.address(AttributeType::XOR_PEER_ADDRESS), peer.local_addr().unwrap());
        let mut data = access.bind(told.connection_id()).unwrap();
        let mut buffer = [0; 5];
        data.read_exact(&mut buffer).unwrap();
        assert_eq!(&buffer, b"hello");
        data.write_all(b"world").unwrap();
        data.flush().unwrap();
        peer.set_read_timeout(Some(LIMIT)).unwrap();
        peer.read_exact(&mut buffer).unwrap();
        assert_eq!(&buffer, b"world");
        // The end of the allocation is the end of its connections.
        drop(control);
        assert_eq!(peer.read(&mut buffer).unwrap_or(0), 0);
        assert_eq!(data.read(&mut buffer).unwrap_or(0), 0);
    }
}

#[test]
fn a_peer_that_goes_before_it_is_bound_is_forgotten_unless_it_has_sent_something() {
    let server = server(1, "");
    let access = Access::new(&server, Transport::Tcp, "127.0.0.1", "gone");
    let (mut control, relayed) = access.allocate(None);
    control.permit("127.0.0.1:1".parse().unwrap());
    let mut announced = |sends: &[u8]| {
        let mut peer = TcpStream::connect(relayed).unwrap();
        peer.write_all(sends).unwrap();
        (control.hear().connection_id(), peer)
    };
    let ((silent, first), (talkative, second)) = (announced(b""), announced(b"hello"));
    drop((first, second));
    // When another one is announced, both ends have been seen.
    let (_, _third) = announced(b"");
    let (_, _fourth) = announced(b"");
    assert_eq!(access.bind(silent).err(), Some(400));
    let mut heard = Vec::new();
    access.bind(talkative).unwrap().read_to_end(&mut heard).unwrap();
    assert_eq!(heard, b"hello");
}

#[test]
fn a_reset_of_one_side_is_one_of_the_other() {
    let server = server(1, "");
    let access = Access::new(&server, Transport::Tcp, "127.0.0.1", "reset");
    let (mut control, _relayed) = access.allocate(None);
    for reset_by_peer in [true, false] {
        let (listener, address) = listen("127.0.0.1");
        let id = control.connect(address).unwrap();
        let (data, peer) = (access.bind(id).unwrap(), accept(&listener));
        let Wire::Plain(data) = data else { panic!("not plain") };
        let (dying, mut other) = if reset_by_peer { (peer, data) } else { (data, peer) };
        SockRef::from(&dying).set_linger(Some(Duration::ZERO)).unwrap();
        drop(dying);
        assert_eq!(other.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
}

#[test]
fn who_does_not_read_holds_up_the_other_side_and_nothing_is_kept_without_bound() {
    let server = server(1, "");
    for transport in [Transport::Tcp, Transport::Tls] {
        let access = Access::new(&server, transport, "127.0.0.1", "slow");
        let (mut control, _relayed) = access.allocate(None);
        for peer_reads in [false, true] {
            let (listener, address) = listen("127.0.0.1");
            let id = control.connect(address).unwrap();
            let (mut data, mut peer) = (access.bind(id).unwrap(), accept(&listener));
            for socket in [data.socket(), &peer] {
                socket.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
            }
            let before = resident_kib(&server);
            let mut sent = 0_usize;
            // The one who does not read takes what the kernel holds, and no more.
            let source: &mut dyn Write = if peer_reads { &mut peer } else { &mut data };
            let chunk = pattern(3, 1 << 16);
            loop {
                match source.write(&chunk[sent % (1 << 16)..]) {
                    Ok(count) => sent += count,
                    Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
                    Err(error) => panic!("{error}"),
                }
                assert!(sent < 200 << 20, "it takes everything");
            }
            let grown = resident_kib(&server).saturating_sub(before);
            assert!(grown < 4096, "{grown} KiB");
            drop((data, peer));
        }
    }
}

#[test]
fn bandwidth_caps_slow_a_connection_down_and_lose_nothing() {
    let server = server(1, "per-allocation = \"4Mbit/s\"");
    for transport in [Transport::Tcp, Transport::Tls] {
        let access = Access::new(&server, transport, "127.0.0.1", "capped");
        let (mut control, _relayed) = access.allocate(None);
        let (listener, address) = listen("127.0.0.1");
        let id = control.connect(address).unwrap();
        let echo = echo(listener, 1);
        let started = std::time::Instant::now();
        let sent = pattern(5, 1_500_000);
        assert!(exchange(access.bind(id).unwrap(), sent.clone()) == sent);
        // 500 kB a second, of which the first may pass at once.
        let took = started.elapsed();
        assert!((Duration::from_millis(1500)..Duration::from_secs(10)).contains(&took), "{took:?}");
        echo.join().unwrap();
    }
}

fn resident_kib(server: &TestServer) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.process_id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
