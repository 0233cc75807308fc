//! Hellos without a cookie: a million of them leave nothing behind, and each answer is shorter than what it answers.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use crate::{Server, client::Client, resident};

const SOURCES: u32 = 10_000;
const HELLOS_PER_SOURCE: u32 = 100;
const TOLERANCE: u64 = 1 << 20;

/// A hello such as OpenSSL's, with a cookie or without.
pub(crate) fn hello(sequence: u8, cookie: &[u8], random: u8) -> Vec<u8> {
    let message = u8::from(!cookie.is_empty());
    let suites = [0, 4, 0xC0, 0x2F, 0xC0, 0x2B, 1, 0];
    let body = [&[254, 253], &[random; 32][..], &[0, cookie.len() as u8], cookie, &suites].concat();
    let len = body.len() as u8;
    let headers = [22, 254, 255, 0, 0, 0, 0, 0, 0, 0, sequence, 0, 12 + len];
    [&headers[..], &[1, 0, 0, len, 0, message, 0, 0, 0, 0, 0, len], &body].concat()
}

fn attack(server: &Server, number: u32) -> u64 {
    let [_, b, c, d] = number.to_be_bytes();
    let socket = UdpSocket::bind((Ipv4Addr::new(127, 1 + d % 250, c, 1 + b), 0)).unwrap();
    socket.connect(server.address).unwrap();
    for count in 0..HELLOS_PER_SOURCE - 1 {
        // Every other one has a cookie that is nobody's.
        let cookie: &[u8] = if count % 2 == 0 { &[] } else { &[count as u8; 12] };
        let _ = socket.send(&hello(u8::from(!cookie.is_empty()), cookie, count as u8));
    }
    // Its answer shows that the server has read what came before: the flood does not just fill a queue.
    socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let last = hello(200, &[], 1);
    let _ = socket.send(&last);
    let mut buffer = [0; 2048];
    while let Ok(len) = socket.recv(&mut buffer) {
        assert_eq!((buffer[0], buffer[13]), (22, 3), "a HelloVerifyRequest");
        assert!(len < last.len(), "{len} bytes for {}", last.len());
        if buffer[10] == 200 {
            return 1;
        }
    }
    0
}

#[test]
fn a_million_hellos_without_a_cookie_leave_memory_as_it_was() {
    let server = Server::start("", "");
    let run = |sources: std::ops::Range<u32>| sources.map(|number| attack(&server, number)).sum::<u64>();
    let first = run(0..500);
    let before = resident(server.inner.process_id());
    let answered = first + run(500..SOURCES);
    let after = resident(server.inner.process_id());
    println!("{answered} of {SOURCES} sources were answered; resident {before} before, {after} after");
    assert!(answered > u64::from(SOURCES) / 2, "the server read too little: {answered} answers");
    assert!(after <= before + TOLERANCE, "resident memory grew from {before} to {after} bytes");
    assert_eq!(server.metric("turnstone_dtls_sessions"), 0);
    assert!(server.inner.log().lines().count() < 50, "the flood wrote a log:\n{}", server.inner.log());
    let mut client =
        Client::connect(&server, UdpSocket::bind("127.0.0.1:0").unwrap()).with(server.inner.credentials("ann"));
    client.allocate();
}
