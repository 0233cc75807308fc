//! The state machine: routing packets, and answering requests. Run with `cargo bench --bench server`.

// Criterion's macro writes a function without documentation, and the tests' harness has helpers not used here; a
// benchmark may stop at what cannot happen.
#![allow(missing_docs, dead_code, unreachable_pub, unused_imports)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

#[path = "../tests/conversation/fake_relays.rs"]
mod fake_relays;
#[path = "../tests/conversation/harness.rs"]
mod harness;
#[path = "../tests/conversation/wire.rs"]
mod wire;

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

use harness::{World, client, crowd, peer};
use turnstone::stun::{AttributeType, Encoder, Method};

fn route(c: &mut Criterion) {
    let mut group = c.benchmark_group("route");
    let mut message = vec![0; 4 + 160];
    message[..4].copy_from_slice(&[0x40, 0, 0, 160]);
    for count in [1, 50, 1000] {
        let (mut world, all) = crowd(count);
        let now = world.now;
        // Neighbours in time are no neighbours in memory.
        let mut turn = 0;
        let mut next = move || {
            turn += 7919;
            turn % usize::from(count)
        };
        group.bench_function(BenchmarkId::new("client to peer", count), |b| {
            b.iter(|| {
                let (client, _) = &all[next()];
                world.channel_data_raw(client, black_box(&message)).unwrap()
            });
        });
        group.bench_function(BenchmarkId::new("peer to client", count), |b| {
            b.iter(|| world.server.route_from_peer(now, all[next()].1, black_box(peer(1)), &[0xEE; 160]).unwrap());
        });
    }
    group.finish();
}

fn requests(c: &mut Criterion) {
    let mut group = c.benchmark_group("requests");
    let mut world = World::new();
    let mut reply = Vec::with_capacity(1024);
    for (name, method) in [("binding", Method::BINDING), ("allocate without credentials", Method::ALLOCATE)] {
        let bytes = world.bare(method, |_| {});
        let client = client(1);
        group.bench_function(name, |b| {
            b.iter(|| {
                reply.clear();
                world.server.handle_message(world.now, &client, black_box(&bytes), &mut world.relays, &mut reply)
            });
        });
    }
    // An answer that is kept for retransmissions would not be made again: every request has its own transaction id.
    let login = world.allocated(2);
    let refresh = |m: &mut Encoder<'_>| {
        m.u32(AttributeType::LIFETIME, 600);
    };
    group.bench_function("refresh, made, answered and read", |b| {
        b.iter(|| world.request(&login, Method::REFRESH, refresh));
    });
    group.finish();
}

criterion_group!(benches, route, requests);
criterion_main!(benches);
