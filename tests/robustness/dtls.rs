//! Mutated datagrams of DTLS into the reader in front of OpenSSL.

use turnstone::dtls::hello::{ClientHello, KeyKind};
use turnstone::dtls::record::{purpose, records, shift_sequence};

use crate::mutate::{Rng, mutate};

/// Hellos without and with a cookie, a client's last flight, a record of traffic.
fn corpus() -> Vec<Vec<u8>> {
    let record = |content: u8, epoch: u8, fragment: &[u8]| {
        let len = (fragment.len() as u16).to_be_bytes();
        [&[content, 254, 253, 0, epoch, 0, 0, 0, 0, 0, 1][..], &len, fragment].concat()
    };
    let hello = |cookie: &[u8]| {
        let extensions = b"\0\x0d\0\x06\0\x04\x04\x01\x04\x03\0\0\0\x08\0\x06\0\0\x03a.b";
        let suites = [0, 4, 0xC0, 0x2F, 0xC0, 0x2B, 1, 0, 0, extensions.len() as u8];
        let suites = [&suites[..], extensions].concat();
        let body = [&[254, 253], &[7; 32][..], &[0, cookie.len() as u8], cookie, &suites].concat();
        let len = body.len() as u8;
        let message = u8::from(!cookie.is_empty());
        record(22, 0, &[&[1, 0, 0, len, 0, message, 0, 0, 0, 0, 0, len], &body[..]].concat())
    };
    let exchange = [&[16, 0, 0, 33, 0, 2, 0, 0, 0, 0, 0, 33], &[9; 33][..]].concat();
    let flight = [record(22, 0, &exchange), record(20, 0, &[1]), record(22, 1, &[5; 48])].concat();
    vec![hello(&[]), hello(&[9; 12]), flight, record(23, 1, &[3; 100]), record(21, 1, &[3; 26])]
}

#[test]
fn no_datagram_makes_the_reader_fail_or_answer_with_more_than_came() {
    let corpus = corpus();
    let mut rng = Rng(crate::seed());
    let (mut hellos, mut purposes, mut names, mut rsa) = (0_u64, 0_u64, 0_u64, 0_u64);
    for _ in 0..crate::inputs(5) {
        let mut datagram = rng.pick(&corpus).clone();
        mutate(&mut rng, &mut datagram, &corpus);
        let carried: usize = records(&datagram).flatten().map(|record| record.fragment.len()).sum();
        assert!(carried <= datagram.len());
        let is_whole = records(&datagram).all(|record| record.is_some());
        let purpose = purpose(&datagram);
        assert!(is_whole || purpose.is_none());
        purposes += u64::from(purpose.is_some());
        let mut shifted = datagram.clone();
        shift_sequence(&mut shifted, 1);
        assert_eq!(shifted.len(), datagram.len());
        let Some(hello) = ClientHello::parse(&datagram) else { continue };
        hellos += 1;
        names += u64::from(hello.server_name().is_some());
        rsa += u64::from(hello.takes(KeyKind::Rsa));
        let mut answer = Vec::new();
        hello.verify_request(&[7; 12], &mut answer);
        assert!(answer.len() < datagram.len(), "{} bytes for {}", answer.len(), datagram.len());
        let first = hello.without_cookie();
        assert_eq!(ClientHello::parse(&first).map(|first| first.parameters()), Some(hello.parameters()));
    }
    assert!(
        names > 0 && rsa > 0 && hellos > names && purposes > hellos,
        "{hellos} hellos, {names} with a name, {rsa} for RSA, {purposes} of a purpose: the mutations leave nothing whole"
    );
}
