//! The wire format: parsing, integrity, encoding. Run with `cargo bench --bench codec`.

// Criterion's macro writes a function without documentation; a benchmark may stop at what cannot happen.
#![allow(missing_docs, clippy::unwrap_used)]

use std::hint::black_box;
use std::net::SocketAddr;

use criterion::{Criterion, criterion_group, criterion_main};

use turnstone::stun::{
    AttributeType, Class, Encoder, ErrorCode, IntegrityKind, Key, Message, Method, PasswordAlgorithm, TransactionId,
};

const ID: TransactionId = TransactionId([9; 12]);

fn key(algorithm: PasswordAlgorithm) -> Key {
    Key::long_term(algorithm, b"1800000000:alice", b"example.org", b"hMRkPVnyoMGF7tLg0zS3ZNgUCwg=")
}

/// An authenticated Allocate as browsers send it.
fn allocate(kind: IntegrityKind, key: &Key) -> Vec<u8> {
    let mut out = Vec::new();
    Encoder::new(&mut out, Class::Request, Method::ALLOCATE, ID)
        .u32(AttributeType::REQUESTED_TRANSPORT, 17 << 24)
        .attribute(AttributeType::USERNAME, b"1800000000:alice")
        .attribute(AttributeType::REALM, b"example.org")
        .attribute(AttributeType::NONCE, b"obMatJos2AAAB0123456789abcdef0123456789abcdef")
        .integrity(kind, key);
    out
}

fn binding() -> Vec<u8> {
    let mut out = Vec::new();
    Encoder::new(&mut out, Class::Request, Method::BINDING, ID).fingerprint();
    out
}

fn parse(c: &mut Criterion) {
    let mut group = c.benchmark_group("parse");
    let binding = binding();
    group.bench_function("binding with fingerprint", |b| b.iter(|| Message::parse(black_box(&binding)).unwrap()));
    let allocate = allocate(IntegrityKind::Sha1, &key(PasswordAlgorithm::Md5));
    group.bench_function("authenticated allocate", |b| b.iter(|| Message::parse(black_box(&allocate)).unwrap()));
    group.bench_function("authenticated allocate, four attributes read", |b| {
        b.iter(|| {
            let message = Message::parse(black_box(&allocate)).unwrap();
            [AttributeType::REQUESTED_TRANSPORT, AttributeType::USERNAME, AttributeType::REALM, AttributeType::NONCE]
                .map(|kind| message.get(kind).map(<[u8]>::len))
        });
    });
    group.finish();
}

fn integrity(c: &mut Criterion) {
    let mut group = c.benchmark_group("integrity");
    for (name, kind, algorithm) in [
        ("sha1", IntegrityKind::Sha1, PasswordAlgorithm::Md5),
        ("sha256", IntegrityKind::Sha256, PasswordAlgorithm::Sha256),
    ] {
        let key = key(algorithm);
        let bytes = allocate(kind, &key);
        let message = Message::parse(&bytes).unwrap();
        assert!(message.verify_integrity(&key));
        group.bench_function(format!("verify {name}"), |b| b.iter(|| black_box(&message).verify_integrity(&key)));
        group.bench_function(format!("long-term key for {name}"), |b| b.iter(|| self::key(black_box(algorithm))));
    }
    group.finish();
}

fn encode(c: &mut Criterion) {
    let mut group = c.benchmark_group("encode");
    let client = SocketAddr::from(([198, 51, 100, 7], 40_000));
    let relayed = SocketAddr::from(([203, 0, 113, 5], 50_000));
    let mut out = Vec::with_capacity(1024);
    group.bench_function("binding success", |b| {
        b.iter(|| {
            out.clear();
            Encoder::new(&mut out, Class::Success, Method::BINDING, ID)
                .xor_address(AttributeType::XOR_MAPPED_ADDRESS, black_box(client));
        });
    });
    group.bench_function("401", |b| {
        b.iter(|| {
            out.clear();
            Encoder::new(&mut out, Class::Error, Method::ALLOCATE, ID)
                .error_code(ErrorCode::UNAUTHENTICATED)
                .attribute(AttributeType::REALM, black_box(b"example.org"))
                .attribute(AttributeType::NONCE, b"obMatJos2AAAB0123456789abcdef0123456789abcdef");
        });
    });
    let key = key(PasswordAlgorithm::Md5);
    group.bench_function("allocate success with integrity", |b| {
        b.iter(|| {
            out.clear();
            Encoder::new(&mut out, Class::Success, Method::ALLOCATE, ID)
                .xor_address(AttributeType::XOR_RELAYED_ADDRESS, black_box(relayed))
                .xor_address(AttributeType::XOR_MAPPED_ADDRESS, client)
                .u32(AttributeType::LIFETIME, 600)
                .integrity(IntegrityKind::Sha1, &key);
        });
    });
    group.finish();
}

criterion_group!(benches, parse, integrity, encode);
criterion_main!(benches);
