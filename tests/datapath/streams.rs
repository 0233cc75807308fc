//! Stream clients that do not behave: those that say nothing, that fall silent, and that do not read.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};
use turnstone::client::{Answer, Client, Credential, Event, Request};

use crate::support::{Spec, TestServer, Transport};
use crate::{CHANNEL, LIMIT, channel_data};

pub(crate) fn connect(server: &TestServer, transport: Transport) -> TcpStream {
    let stream = TcpStream::connect(server.address(transport, "127.0.0.1")).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream
}

/// The next STUN message or ChannelData, padding taken off.
pub(crate) fn read_frame(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut frame = vec![0; 4];
    stream.read_exact(&mut frame)?;
    let len = usize::from(u16::from_be_bytes([frame[2], frame[3]]));
    let rest = if frame[0] < 0x40 { 16 + len } else { len };
    frame.resize(4 + rest.next_multiple_of(4), 0);
    stream.read_exact(&mut frame[4..])?;
    frame.truncate(4 + rest);
    Ok(frame)
}

pub(crate) fn ask(stream: &mut TcpStream, turn: &mut Client, request: Request) -> Answer {
    let mut out = Vec::new();
    turn.start(request, &mut out);
    loop {
        stream.write_all(&out).unwrap();
        out.clear();
        match turn.receive(&read_frame(stream).unwrap(), &mut out).unwrap() {
            Event::Done(answer) => return answer,
            Event::Retry => {}
            Event::Ignored => panic!("not an answer"),
        }
    }
}

/// Whether the end comes, perhaps behind a notice of TLS.
fn is_closed(stream: &mut TcpStream) -> bool {
    match stream.read_to_end(&mut Vec::new()) {
        Ok(_) => true,
        Err(error) => matches!(error.kind(), ErrorKind::ConnectionReset),
    }
}

#[test]
fn a_connection_that_says_nothing_or_falls_silent_is_closed_and_one_with_an_allocation_is_not() {
    let mut spec = Spec::local();
    spec.extra_toml = "[streams]\nhandshake-timeout = \"1s\"\nidle-timeout = \"1s\"\n".to_owned();
    let server = spec.start();
    let started = Instant::now();
    let mut silent = connect(&server, Transport::Tcp);
    let mut half_open = connect(&server, Transport::Tls);
    let mut once = connect(&server, Transport::Tcp);
    ask(&mut once, &mut Client::new(None, [1; 16]), Request::Binding);
    let mut holder = connect(&server, Transport::Tcp);
    let mut turn = client(&server);
    ask(&mut holder, &mut turn, Request::Allocate { family: None, lifetime_secs: None });

    assert!(is_closed(&mut silent) && is_closed(&mut half_open) && is_closed(&mut once));
    assert!(started.elapsed() >= Duration::from_millis(900), "closed after {:?}", started.elapsed());
    // Longer than a connection without an allocation would have lived.
    std::thread::sleep(Duration::from_millis(1500));
    assert!(matches!(
        ask(&mut holder, &mut turn, Request::Refresh { lifetime_secs: 600 }),
        Answer::Refreshed { lifetime_secs: 600 }
    ));
}

#[test]
fn a_client_that_does_not_read_loses_the_oldest_and_costs_no_memory() {
    const DATAGRAMS: u32 = 30_000;
    let server = Spec::local().start();
    let mut stream = connect(&server, Transport::Tcp);
    let mut turn = client(&server);
    let allocated = ask(&mut stream, &mut turn, Request::Allocate { family: None, lifetime_secs: None });
    let Answer::Allocated { relayed, .. } = allocated else { panic!("{allocated:?}") };
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    let bind = Request::ChannelBind { channel: CHANNEL, peer: peer.local_addr().unwrap() };
    assert_eq!(ask(&mut stream, &mut turn, bind), Answer::Granted);

    let before = resident_kib(&server);
    for number in 0..DATAGRAMS {
        let payload = [&number.to_be_bytes()[..], &[0; 1196]].concat();
        peer.send_to(&payload, relayed).unwrap();
        if number % 64 == 0 {
            // A pause, so that the relay socket itself is not what drops.
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    let grown = resident_kib(&server).saturating_sub(before);
    assert!(grown < 8 * 1024, "{grown} KiB more for a client that does not read");

    // Whole frames in order, with gaps; and the connection goes on.
    peer.send_to(b"the end.", relayed).unwrap();
    let (mut last, mut received) = (None, 0);
    loop {
        let frame = read_frame(&mut stream).unwrap();
        if frame == channel_data(b"the end.") {
            break;
        }
        let number = u32::from_be_bytes(frame[4..8].try_into().unwrap());
        assert!(frame.len() == 1204 && last < Some(number), "{number} after {last:?}");
        (last, received) = (Some(number), received + 1);
        // What is sent while the queue is full may be lost like everything else.
        if last == Some(DATAGRAMS - 1) || received % 1000 == 0 {
            peer.send_to(b"the end.", relayed).unwrap();
        }
    }
    assert!(received < DATAGRAMS, "nothing was dropped");
}

#[test]
fn a_client_that_was_frozen_gets_what_is_new_and_little_that_is_old() {
    // What the client's own kernel takes for it is not the server's to drop.
    const OWN_BUFFER: usize = 32 * 1024;
    const OLD_MAX: usize = 256 * 1024;
    let server = Spec::local().start();
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(OWN_BUFFER).unwrap();
    socket.connect(&server.tcp().into()).unwrap();
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let mut turn = client(&server);
    let allocated = ask(&mut stream, &mut turn, Request::Allocate { family: None, lifetime_secs: None });
    let Answer::Allocated { relayed, .. } = allocated else { panic!("{allocated:?}") };
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    let bind = Request::ChannelBind { channel: CHANNEL, peer: peer.local_addr().unwrap() };
    assert_eq!(ask(&mut stream, &mut turn, bind), Answer::Granted);

    // Some MB for a client that reads nothing.
    for number in 0..4000_u32 {
        peer.send_to(&[1; 1200], relayed).unwrap();
        if number % 16 == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    // Twice as long as data may wait.
    std::thread::sleep(Duration::from_millis(400));
    peer.send_to(b"this is new!", relayed).unwrap();
    let mut old = 0;
    loop {
        let frame = read_frame(&mut stream).unwrap();
        if frame == channel_data(b"this is new!") {
            break;
        }
        old += frame.len();
    }
    assert!(old < OLD_MAX, "{old} bytes of old data came first");
}

#[test]
fn thousands_of_requests_at_once_are_all_answered_in_order_beside_relayed_data() {
    // Their answers are more than one batch has room for.
    const REQUESTS: u32 = 12_000;
    let server = Spec::local().start();
    let mut stream = connect(&server, Transport::Tcp);
    let mut turn = client(&server);
    ask(&mut stream, &mut turn, Request::Allocate { family: None, lifetime_secs: None });
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    peer.set_read_timeout(Some(LIMIT)).unwrap();
    let bind = Request::ChannelBind { channel: CHANNEL, peer: peer.local_addr().unwrap() };
    assert_eq!(ask(&mut stream, &mut turn, bind), Answer::Granted);

    let mut writer = stream.try_clone().unwrap();
    let sending = std::thread::spawn(move || {
        let mut all = Vec::new();
        for number in 0..REQUESTS {
            all.extend([0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42, 0, 0, 0, 0, 0, 0, 0, 0]);
            all.extend(number.to_be_bytes());
            if number % 1000 == 999 {
                all.extend(channel_data(&[&number.to_be_bytes()[..], &[0xA5; 996]].concat()));
            }
        }
        writer.write_all(&all).unwrap();
    });
    for number in 0..REQUESTS {
        let answer = read_frame(&mut stream).unwrap();
        assert_eq!((&answer[..2], &answer[16..20]), (&[1, 1][..], &number.to_be_bytes()[..]));
    }
    sending.join().unwrap();
    let mut buffer = [0; 2048];
    for number in (999..REQUESTS).step_by(1000) {
        let len = peer.recv(&mut buffer).unwrap();
        assert_eq!(buffer[..len], [&number.to_be_bytes()[..], &[0xA5; 996]].concat());
    }
}

pub(crate) fn client(server: &TestServer) -> Client {
    let credentials = server.credentials("streams");
    let credential =
        Credential { username: credentials.username, password: credentials.password.into(), sha256: false };
    Client::new(Some(Arc::new(credential)), [9; 16])
}

pub(crate) fn resident_kib(server: &TestServer) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.process_id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
