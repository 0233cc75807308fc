//! The STUN client of `turnstone-stun`.

use std::net::{SocketAddr, UdpSocket};
use std::thread;

use turnstone::stun::{AttributeType, Class, Encoder, ErrorCode, Message, Method, TransactionId};

use crate::binding;
use crate::support::{Spec, Transport};

#[test]
fn the_stun_client_learns_its_address_from_the_program() {
    let server = Spec::local().start();
    for loopback in ["127.0.0.1", "::1"] {
        let found = binding::reflexive_address(server.address(Transport::Udp, loopback)).unwrap();
        assert_eq!(found.ip().to_string(), loopback);
        assert_ne!(found.port(), 0);
    }
}

/// What a server sends back for a request; each answer is a datagram.
fn answered_by(answers: impl FnOnce(&Message<'_>) -> Vec<Vec<u8>> + Send + 'static) -> Result<SocketAddr, String> {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let at = server.local_addr().unwrap();
    let serving = thread::spawn(move || {
        let mut buffer = [0; 1500];
        let (len, client) = server.recv_from(&mut buffer).unwrap();
        let request = Message::parse(&buffer[..len]).unwrap();
        assert!(request.has_fingerprint());
        for answer in answers(&request) {
            server.send_to(&answer, client).unwrap();
        }
    });
    let found = binding::reflexive_address(at).map_err(|error| error.to_string());
    serving.join().unwrap();
    found
}

#[test]
fn the_stun_client_takes_only_the_answer_to_its_own_request() {
    let mapped: SocketAddr = "192.0.2.1:7".parse().unwrap();
    let elsewhere: SocketAddr = "192.0.2.66:6".parse().unwrap();
    let found = answered_by(move |request| {
        let id = request.transaction_id();
        let mut other = id;
        other.0[11] ^= 1;
        let answer = |id: TransactionId, method, addr, fingerprint| {
            let mut out = Vec::new();
            let mut encoder = Encoder::new(&mut out, Class::Success, method, id);
            encoder.xor_address(AttributeType::XOR_MAPPED_ADDRESS, addr);
            if fingerprint {
                encoder.fingerprint();
            }
            out
        };
        let mut damaged = answer(id, Method::BINDING, elsewhere, true);
        *damaged.last_mut().unwrap() ^= 1;
        vec![
            b"noise".to_vec(),
            damaged,
            answer(other, Method::BINDING, elsewhere, true),
            answer(id, Method::ALLOCATE, elsewhere, true),
            answer(id, Method::BINDING, elsewhere, false),
            answer(id, Method::BINDING, mapped, true),
        ]
    });
    assert_eq!(found, Ok(mapped));
}

#[test]
fn the_stun_client_names_the_error_of_the_server() {
    let found = answered_by(|request| {
        let mut out = Vec::new();
        Encoder::new(&mut out, Class::Error, request.method(), request.transaction_id())
            .error_code(ErrorCode::BAD_REQUEST)
            .fingerprint();
        vec![out]
    });
    assert_eq!(found, Err("refused: Some(400 Bad Request)".to_owned()));
}
