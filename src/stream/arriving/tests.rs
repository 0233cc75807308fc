//! Connections that arrive, by each of the ways, and those that do not.

use std::io::Read;
use std::net::TcpListener;
use std::time::Duration;

use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::super::hello::tests::hello;
use super::super::tls::server_config;
use super::super::validation::Validations;
use super::super::validation::tests::certificate;
use super::*;
use crate::config::TlsVersion;
use crate::net::Pipes;
use crate::net::sys::{Descriptors, Outward};
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
            Ok(Progress::ForWeb(_)) => panic!("it is not for a web server"),
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
fn who_validates_a_name_is_let_go_after_the_handshake() {
    let validations: Arc<Validations> = Arc::default();
    let server = server_config(Vec::new(), TlsVersion::Tls12, Some(Arc::clone(&validations))).unwrap();
    let shown = certificate("localhost");
    let (_, client) = configs();
    let mut client = Arc::unwrap_or_clone(client);
    let mut roots = RootCertStore::empty();
    roots.add(shown.cert[0].clone()).unwrap();
    let verifier = rustls::client::WebPkiServerVerifier::builder_with_provider(
        Arc::new(roots),
        Arc::new(rustls::crypto::aws_lc_rs::default_provider()),
    );
    client.dangerous().set_certificate_verifier(verifier.build().unwrap());
    client.alpn_protocols = vec![ACME_TLS.to_vec()];
    let validation = validations.expect("localhost", shown);
    let mut client = ClientConnection::new(Arc::new(client), "localhost".try_into().unwrap()).unwrap();
    let (mut stream, accepted) = connect();
    let validating = std::thread::spawn(move || {
        client.complete_io(&mut stream).unwrap();
        assert_eq!(client.alpn_protocol(), Some(ACME_TLS));
        let mut nothing = Vec::new();
        // A notice of the end, and the end.
        assert_eq!(rustls::Stream::new(&mut client, &mut stream).read_to_end(&mut nothing).unwrap(), 0);
    });
    let mut arena = Arena::new(2, 1024);
    let refused = until_arrived(over_tls(accepted, &server), &mut arena);
    assert!(matches!(refused, Err(ReadError::Closed)));
    validating.join().unwrap();
    assert_eq!(validation.shown(), 1);
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
fn on_a_port_shared_with_a_web_server_each_connection_goes_where_its_client_wants() {
    let (server, client) = configs();
    let web = Web { address: "127.0.0.1:1".parse().unwrap(), proxy_header: true, turn_names: Vec::new() };
    let options = Arc::new(ListenOptions { web: Some(web), ..ListenOptions::default() });
    let shared = || Opening::Shared { config: Arc::clone(&server), has_tcp: true, options: Arc::clone(&options) };
    let mut arena = Arena::new(2, 1024);
    // Ours: the session goes on from the ClientHello that was looked at.
    let (mut stream, accepted) = connect();
    let mut client = ClientConnection::new(client, "localhost".try_into().unwrap()).unwrap();
    let shaking = std::thread::spawn(move || client.complete_io(&mut stream).map(|_| stream));
    let Ok(arrived) = until_arrived(begin(accepted, shared(), false), &mut arena) else { panic!("no handshake") };
    assert_eq!(arrived.five_tuple.transport, Transport::Tls);
    shaking.join().unwrap().unwrap();
    // TCP.
    let (mut stream, accepted) = connect();
    stream.write_all(&[0, 1, 0, 0]).unwrap();
    let Ok(arrived) = until_arrived(begin(accepted, shared(), false), &mut arena) else { panic!("it waits") };
    assert_eq!(arrived.five_tuple.transport, Transport::Tcp);
    // The web server's, behind a header and with every byte.
    let (mut stream, accepted) = connect();
    let hello = hello("localhost", &["h2"]);
    stream.write_all(&hello).unwrap();
    let mut arriving = begin(accepted, shared(), false);
    let for_web = loop {
        let (slot, cipher) = (arena.slot(0), arena.slot(1));
        match arriving.go_on(&mut arena, slot, cipher, 4096).map_err(|(_, error)| error).unwrap() {
            Progress::Waits(waits) => arriving = waits,
            Progress::ForWeb(for_web) => break for_web,
            Progress::Known(_) | Progress::Arrived(_) => panic!("it is not for us"),
        }
    };
    assert_eq!(for_web.web(), options.web.as_ref());
    let ends = for_web.ends();
    let web = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut passage = for_web.pass_on(crate::net::connect_stream(web.local_addr().unwrap()).unwrap());
    let mut pipes = Pipes::new(Descriptors::share_out(1 << 16, 0, 1000, 1000, Outward::default()));
    while !passage.is_connected() {
        passage.go_on(&mut pipes).unwrap();
    }
    let expected = [stream_header(ends), hello].concat();
    let mut got = vec![0; expected.len()];
    web.accept().unwrap().0.read_exact(&mut got).unwrap();
    assert_eq!(got, expected);
    assert_eq!(ends.client, stream.local_addr().unwrap());
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
    assert_eq!(peek(&arriving.accepted.socket, &mut [0; 9]).unwrap(), b"", "nothing that would be read over and over");
    stream.write_all(b"\na message").unwrap();
    let known = loop {
        match step(arriving, &mut arena) {
            Progress::Waits(waits) => arriving = waits,
            Progress::Known(known) => break known,
            Progress::Arrived(_) | Progress::ForWeb(_) => panic!("its client is not judged yet"),
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
