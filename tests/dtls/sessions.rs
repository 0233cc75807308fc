//! Sessions: beside plain STUN, anew from the same port, with other certificates, within limits, and their end.

use std::net::UdpSocket;
use std::time::Duration;

use turnstone::stun::{Class, Encoder, Message, Method, TransactionId};

use crate::client::Client;
use crate::hellos::hello;
use crate::support::{TestAuthority, wait_until};
use crate::{LIMIT, Server};

const COMPLETED: &str = "turnstone_dtls_handshakes_total{outcome=\"completed\"}";
const GAVE_WAY: &str = "turnstone_dtls_handshakes_total{outcome=\"gave-way\"}";
const SESSIONS: &str = "turnstone_dtls_sessions";
const ALLOCATIONS: &str = "turnstone_allocations{transport=\"dtls\"}";

fn socket() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0").unwrap()
}

fn binding_request() -> Vec<u8> {
    let mut request = Vec::new();
    Encoder::new(&mut request, Class::Request, Method::BINDING, TransactionId([5; 12]));
    request
}

#[test]
fn plain_stun_and_dtls_share_the_port() {
    let server = Server::start("", "");
    let plain = socket();
    plain.set_read_timeout(Some(LIMIT)).unwrap();
    plain.send_to(&binding_request(), server.address).unwrap();
    let mut buffer = [0; 2048];
    let len = plain.recv(&mut buffer).unwrap();
    assert_eq!(Message::parse(&buffer[..len]).unwrap().class(), Class::Success);
    let mut client = Client::connect(&server, socket()).with(server.inner.credentials("ann"));
    client.allocate();
    for len in [1, 160, 1201, 9000] {
        client.echo(&vec![7; len]);
    }
    assert_eq!((server.metric(SESSIONS), server.metric(ALLOCATIONS)), (1, 1));
    // The same client without DTLS is another one.
    client.socket().send(&binding_request()).unwrap();
    client.close();
    server.wait_for_metric(SESSIONS, 0);
    assert_eq!(server.metric(ALLOCATIONS), 0, "what a client had ends with its session");
}

#[test]
fn a_client_that_begins_anew_from_its_port_has_its_old_session_until_the_new_one_is_open() {
    let server = Server::start("", "");
    let mut client = Client::connect(&server, socket()).with(server.inner.credentials("ann"));
    client.allocate();
    // What anybody can forge: hellos without a cookie, and records that nobody has sealed.
    let forger = client.socket();
    for forged in [hello(0, &[], 9), vec![21, 254, 253, 0, 0, 0, 0, 0, 0, 0, 9, 0, 2, 2, 40]] {
        forger.send(&forged).unwrap();
    }
    forger.send(&hello(1, &[9; 12], 9)).unwrap();
    client.echo(b"still there");
    let mut again = Client::connect(&server, client.socket()).with(server.inner.credentials("ann"));
    server.wait_for_metric(SESSIONS, 1);
    assert_eq!((server.metric(COMPLETED), server.metric(ALLOCATIONS)), (2, 0));
    again.allocate();
    again.echo(b"anew");
}

#[test]
fn new_sessions_have_the_new_certificate_and_old_ones_stay() {
    let server = Server::start("", "");
    let mut old = Client::connect(&server, socket()).with(server.inner.credentials("ann"));
    old.allocate();
    let authority = TestAuthority::issue(&["localhost"]);
    for (file, pem) in [
        ("certificate.pem", &authority.certificate_pem),
        ("key.pem", &authority.key_pem),
        ("authority.pem", &authority.authority_pem),
    ] {
        std::fs::write(server.inner.file(file), pem).unwrap();
    }
    server.inner.signal(rustix::process::Signal::USR2);
    server.wait_for_metric("turnstone_certificate_reloads_total{result=\"applied\"}", 1);
    let new = Client::connect(&server, socket());
    assert_ne!(new.certificate(), old.certificate());
    old.echo(b"as before");
}

#[test]
fn sessions_are_bounded_by_address_and_silent_ones_make_room() {
    let server = Server::start("", "[streams]\nconnections-per-ip-max = 2\nidle-timeout = \"2s\"\n");
    let first = Client::connect(&server, socket());
    let mut second = Client::connect(&server, socket()).with(server.inner.credentials("ann"));
    second.allocate();
    assert!(Client::try_connect(&server, socket(), &[], Duration::from_millis(300)).is_none());
    assert!(server.metric("turnstone_dtls_handshakes_total{outcome=\"refused\"}") >= 1);
    // Whoever is silent and has no allocation is told that this is the end.
    let mut first = first;
    assert_eq!(first.receive(), None);
    let _third = Client::connect(&server, socket());
    second.echo(b"it holds an allocation");
}

#[test]
fn records_of_nobody_and_what_is_no_dtls_are_counted_and_not_answered() {
    let server = Server::start("", "");
    let stranger = socket();
    stranger.connect(server.address).unwrap();
    stranger.send(&[23, 254, 253, 0, 1, 0, 0, 0, 0, 0, 9, 0, 2, 2, 40]).unwrap();
    server.wait_for_metric("turnstone_dropped_packets_total{reason=\"no-session\"}", 1);
    let client = Client::connect(&server, socket());
    // Its session knows better than to take this for its handshake.
    client.socket().send(&[22, 254, 253, 0, 0, 0, 0, 0, 0, 0, 9, 0, 12, 11, 1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0]).unwrap();
    server.wait_for_metric("turnstone_dropped_packets_total{reason=\"malformed\"}", 1);
    stranger.set_nonblocking(true).unwrap();
    assert!(stranger.recv(&mut [0; 64]).is_err());
}

#[test]
fn handshakes_that_nobody_ends_have_a_tenth_of_the_places_and_the_oldest_gives_way() {
    // With one worker the number is exact: a worker ends its own handshakes only.
    let server = Server::start_with("workers = 1\n", "", "[streams]\nconnections-max = 30\n");
    let _stalled: Vec<_> = (0..6).map(|_| Client::stalled(&server, socket())).collect();
    server.wait_for_metric(GAVE_WAY, 3);
    assert_eq!(server.metric(SESSIONS), 3);
    for n in 1..=3 {
        let mut client = Client::connect(&server, socket()).with(server.inner.credentials("ann"));
        client.allocate();
        // The first of them takes the place of another one and gives it back when it is open.
        server.wait_for_metric(GAVE_WAY, 4);
        assert_eq!(server.metric(GAVE_WAY), 4, "client {n}");
    }
}

#[test]
fn every_further_worker_has_one_handshake_more_at_most() {
    let server = Server::start_with("workers = 3\n", "", "[streams]\nconnections-max = 30\n");
    for n in 1..=9 {
        let _stalled = Client::stalled(&server, socket());
        assert!(server.metric(SESSIONS) <= 3 + 2, "client {n}");
    }
    let gave_way = || (server.metric(GAVE_WAY) >= 9 - 5).then_some(());
    wait_until("handshakes that gave way", LIMIT, gave_way);
}
