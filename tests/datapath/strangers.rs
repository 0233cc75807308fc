//! Connections without an allocation take no more than their share: of places, memory, time, and of what they do not read.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use rustls::{ClientConnection, StreamOwned};
use socket2::{Domain, Socket, Type};
use turnstone::client::{Answer, Request};

use crate::LIMIT;
use crate::streams::{ask, client, connect, read_frame, resident_kib};
use crate::support::{RELAY_PORTS, Spec, TestServer, Transport, tls_over, wait_until};

const BINDING: [u8; 20] = *b"\0\x01\0\0\x21\x12\xa4\x42transaction.";

fn server(streams: &str) -> TestServer {
    let mut spec = Spec::local();
    spec.extra_toml = format!("[streams]\n{streams}");
    spec.start()
}

/// A connection from another address of this host.
fn connect_from(server: &TestServer, ip: &str) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(ip.parse().unwrap(), 0).into()).unwrap();
    socket.connect(&server.tcp().into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.set_write_timeout(Some(LIMIT)).unwrap();
    stream
}

fn tls(server: &TestServer) -> StreamOwned<ClientConnection, TcpStream> {
    tls_over(connect(server, Transport::Tls), server.file("authority.pem"))
}

pub(crate) fn binding_is_answered(stream: &mut (impl Read + Write)) -> bool {
    let mut head = [0; 20];
    if stream.write_all(&BINDING).and_then(|()| stream.read_exact(&mut head)).is_err() {
        return false;
    }
    let mut rest = vec![0; usize::from(u16::from_be_bytes([head[2], head[3]]))];
    stream.read_exact(&mut rest).is_ok() && head[..2] == [1, 1]
}

/// Writes requests until the server ends the connection, and reads nothing. Fails when the server keeps it.
fn write_until_closed(stream: &mut impl Write, most: usize) -> usize {
    let burst = BINDING.repeat(100);
    let mut written = 0;
    while written < most {
        match stream.write_all(&burst) {
            Ok(()) => written += burst.len(),
            Err(error) => {
                let kinds = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe, ErrorKind::ConnectionAborted];
                assert!(kinds.contains(&error.kind()), "{error}");
                return written;
            }
        }
    }
    panic!("{written} bytes of requests were taken from a client that does not read");
}

#[test]
fn a_stranger_that_does_not_read_its_answers_is_closed_and_leaves_no_memory() {
    // What the client's own kernel receives for it, some MB on loopback, is not the server's.
    const MOST: usize = 64 << 20;
    let server = server("");
    binding_is_answered(&mut connect(&server, Transport::Tcp));
    binding_is_answered(&mut tls(&server));
    let before = resident_kib(&server);
    for _ in 0..5 {
        write_until_closed(&mut connect(&server, Transport::Tcp), MOST);
        write_until_closed(&mut tls(&server), MOST);
    }
    let grown = resident_kib(&server).saturating_sub(before);
    assert!(grown < 1024, "{grown} KiB more");
    assert!(binding_is_answered(&mut connect(&server, Transport::Tcp)));
}

#[test]
fn a_user_that_does_not_read_its_answers_is_held_back_and_loses_none() {
    let server = server("");
    let mut stream = connect(&server, Transport::Tcp);
    ask(&mut stream, &mut client(&server), Request::Allocate { family: None, lifetime_secs: None });
    let before = resident_kib(&server);
    stream.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    // Until it takes no more, which is when it is not read any more: as whole requests, the last one perhaps in part.
    let mut written = 0;
    let all = BINDING.repeat(1000);
    loop {
        match stream.write(&all[written % all.len()..]) {
            Ok(count) => written += count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
            Err(error) => panic!("after {written} bytes: {error}"),
        }
        assert!(written < 256 << 20, "it is read for ever");
    }
    let grown = resident_kib(&server).saturating_sub(before);
    assert!(grown < 1024, "{grown} KiB more for a client that does not read");
    for number in 0..written / BINDING.len() {
        let answer = read_frame(&mut stream).unwrap_or_else(|error| panic!("answer {number}: {error}"));
        assert_eq!((&answer[..2], &answer[8..20]), (&[1, 1][..], &BINDING[8..]));
    }
    let rest = written % BINDING.len();
    if rest > 0 {
        stream.write_all(&BINDING[rest..]).unwrap();
        read_frame(&mut stream).unwrap();
    }
    assert!(binding_is_answered(&mut stream));
}

#[test]
fn a_user_that_never_reads_its_answers_is_closed_at_last() {
    let server = server("handshake-timeout = \"1s\"\n");
    let mut stream = connect(&server, Transport::Tcp);
    stream.set_write_timeout(Some(LIMIT)).unwrap();
    ask(&mut stream, &mut client(&server), Request::Allocate { family: None, lifetime_secs: None });
    write_until_closed(&mut stream, 256 << 20);
    wait_until("the end of its allocation", LIMIT, || server.log().contains("client-gone").then_some(()));
}

#[test]
fn an_honest_client_is_accepted_while_ten_addresses_hold_every_connection() {
    const PLACES: usize = 50;
    // With more workers, each has its own part of the strangers.
    let server = TestServer::start(&format!(
        r#"
        workers = 1
        [[listen]]
        address = "127.0.0.1:0"
        transport = "tcp"
        [relay]
        ipv4 = "127.0.0.1"
        ipv6 = "off"
        ports = "{}-{}"
        [[auth.secrets]]
        id = "test"
        file = "@DIR@/secret"
        [streams]
        connections-max = {PLACES}
        connections-per-ip-max = 5
        "#,
        RELAY_PORTS.0, RELAY_PORTS.1
    ));
    let mut holder = connect_from(&server, "127.0.3.1");
    let mut turn = client(&server);
    ask(&mut holder, &mut turn, Request::Allocate { family: None, lifetime_secs: None });
    let hold = |network: u8| -> Vec<TcpStream> {
        let addresses = (0..PLACES).map(|number| format!("127.1.{network}.{}", 1 + number % 10));
        let mut held: Vec<_> = addresses.map(|ip| connect_from(&server, &ip)).collect();
        // The last ones are answered, so that all have been accepted; who was evicted for them is not.
        held.iter_mut().rev().take(10).for_each(|stream| assert!(binding_is_answered(stream)));
        held
    };
    let held = hold(1);
    let mut honest = connect_from(&server, "127.0.1.1");
    let mut second = client(&server);
    let allocate = Request::Allocate { family: None, lifetime_secs: None };
    assert!(matches!(ask(&mut honest, &mut second, allocate), Answer::Allocated { .. }));
    // Nobody with an allocation makes room, however many come.
    let more = [hold(2), hold(3)];
    for (stream, turn) in [(&mut holder, &mut turn), (&mut honest, &mut second)] {
        let refreshed = ask(stream, turn, Request::Refresh { lifetime_secs: 600 });
        assert!(matches!(refreshed, Answer::Refreshed { .. }), "{refreshed:?}");
    }
    drop((held, more));
}

#[test]
fn connections_are_bounded_by_address_and_in_all_and_a_place_comes_back() {
    let server = server("connections-max = 3\nconnections-per-ip-max = 2\n");
    let allocate = || Request::Allocate { family: None, lifetime_secs: None };
    let hold = |ip: &str| {
        let mut stream = connect_from(&server, ip);
        ask(&mut stream, &mut client(&server), allocate());
        stream
    };
    let first = hold("127.0.5.1");
    let _second = hold("127.0.5.1");
    assert!(!binding_is_answered(&mut connect_from(&server, "127.0.5.1")), "a third of one address");
    let _third = hold("127.0.5.2");
    // All have an allocation: nobody makes room.
    assert!(!binding_is_answered(&mut connect_from(&server, "127.0.5.3")), "a fourth in all");
    for key in ["connections-per-ip-max", "connections-max"] {
        wait_until("the warning", LIMIT, || server.log().contains(&format!("raise [streams] {key}")).then_some(()));
    }
    drop(first);
    wait_until("the place", LIMIT, || binding_is_answered(&mut connect_from(&server, "127.0.5.1")).then_some(()));
}

#[test]
fn one_network_cannot_take_the_places_of_all_who_arrive() {
    let server = server("unallocated-per-network-max = 3\n");
    let mut held: Vec<_> = (1..=3).map(|host| connect_from(&server, &format!("127.0.2.{host}"))).collect();
    assert!(held.iter_mut().all(binding_is_answered));
    assert!(!binding_is_answered(&mut connect_from(&server, "127.0.2.4")));
    assert!(binding_is_answered(&mut connect_from(&server, "127.0.4.1")));
    // Who allocates counts no more.
    ask(&mut held[0], &mut client(&server), Request::Allocate { family: None, lifetime_secs: None });
    assert!(binding_is_answered(&mut held[0]) && binding_is_answered(&mut connect_from(&server, "127.0.2.5")));
}

#[test]
fn a_connection_without_an_allocation_ends_whatever_it_asks_for() {
    let server = server("allocation-timeout = \"1s\"\nidle-timeout = \"1h\"\n");
    let mut holder = connect(&server, Transport::Tcp);
    let mut turn = client(&server);
    ask(&mut holder, &mut turn, Request::Allocate { family: None, lifetime_secs: None });
    let mut stranger = connect(&server, Transport::Tcp);
    let mut answered = 0;
    while binding_is_answered(&mut stranger) {
        answered += 1;
        std::thread::sleep(Duration::from_millis(50));
        assert!(answered < 400, "it lives on");
    }
    assert!(answered > 0);
    assert!(matches!(ask(&mut holder, &mut turn, Request::Refresh { lifetime_secs: 600 }), Answer::Refreshed { .. }));
}

#[test]
fn a_client_hello_without_end_is_cut() {
    let server = server("handshake-timeout = \"1h\"\n");
    let mut stream = connect(&server, Transport::Tls);
    stream.set_write_timeout(Some(LIMIT)).unwrap();
    // Records of 1,024 bytes, the first of which begins a ClientHello of 60,000.
    let record = |payload: &[u8]| [&[22, 3, 1, 4, 0][..], payload, &vec![0; 1024 - payload.len()]].concat();
    let mut sent = 0;
    let mut next = record(&[1, 0, 0xEA, 0x60, 3, 3]);
    while stream.write_all(&next).is_ok() {
        sent += next.len();
        next = record(&[]);
        // It ends before the message would: all that is written more is for nobody.
        if sent > 30_000 {
            break;
        }
    }
    let mut left = Vec::new();
    let end = stream.read_to_end(&mut left);
    assert!(!matches!(&end, Err(error) if error.kind() == ErrorKind::WouldBlock), "it is kept: {sent} bytes, {end:?}");
}

#[test]
fn a_tls_client_is_told_the_end_on_silence_on_errors_and_on_time_out() {
    let server = server(
        "handshake-timeout = \"1s\"\nidle-timeout = \"1s\"\nallocation-timeout = \"1h\"\nconnections-max = 100\n",
    );
    let mut silent_from_the_start = tls(&server);
    let mut silent = tls(&server);
    assert!(binding_is_answered(&mut silent));
    let mut garbage = tls(&server);
    garbage.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let mut both = tls(&server);
    both.write_all(&[&BINDING[..], b"\xFF\xFF\xFF\xFF"].concat()).unwrap();
    // Without close_notify, rustls gives an error for the end.
    silent_from_the_start.flush().unwrap();
    for (what, stream) in
        [("no message", &mut silent_from_the_start), ("silence", &mut silent), ("garbage", &mut garbage)]
    {
        assert_eq!(stream.read(&mut [0; 64]).map_err(|error| error.to_string()), Ok(0), "{what}");
    }
    // What was asked before the error is answered.
    let mut answer = Vec::new();
    both.read_to_end(&mut answer).unwrap();
    assert_eq!(answer.get(..2), Some(&[1, 1][..]));

    // On the way out, too.
    let mut last = tls(&server);
    assert!(binding_is_answered(&mut last));
    server.signal(rustix::process::Signal::TERM);
    assert_eq!(last.read(&mut [0; 64]).map_err(|error| error.to_string()), Ok(0), "the end of the server");
}

#[test]
fn a_tls_client_whose_bytes_are_no_records_is_told_so_and_not_reset() {
    let server = server("");
    let mut stream = connect(&server, Transport::Tls);
    stream.write_all(&[b'x'; 2000]).unwrap();
    let mut alert = Vec::new();
    stream.read_to_end(&mut alert).unwrap();
    assert_eq!(alert.first(), Some(&21), "{alert:?}");
}
