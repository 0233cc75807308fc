//! A datagram of DTLS into the reader in front of OpenSSL: the hello, its answer, and what a session may be given.
#![no_main]

use libfuzzer_sys::fuzz_target;
use turnstone::dtls::hello::{ClientHello, KeyKind};
use turnstone::dtls::record::{purpose, records, shift_sequence};

fuzz_target!(|datagram: &[u8]| {
    let carried: usize = records(datagram).flatten().map(|record| record.fragment.len()).sum();
    assert!(carried <= datagram.len());
    let whole = records(datagram).all(|record| record.is_some());
    assert!(whole || purpose(datagram).is_none());
    let mut shifted = datagram.to_vec();
    shift_sequence(&mut shifted, 1);
    assert_eq!(shifted.len(), datagram.len());
    let Some(hello) = ClientHello::parse(datagram) else { return };
    assert!(hello.server_name().is_none_or(|name| name.len() < datagram.len()));
    let _ = [KeyKind::Rsa, KeyKind::Ecdsa, KeyKind::EdDsa].map(|kind| hello.takes(kind));
    let mut answer = Vec::new();
    hello.verify_request(&[7; 12], &mut answer);
    assert!(answer.len() < datagram.len());
    let first = hello.without_cookie();
    assert_eq!(ClientHello::parse(&first).map(|first| first.parameters()), Some(hello.parameters()));
});
