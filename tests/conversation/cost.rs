//! What the state machine costs, in time and memory. Ignored by default: figures depend on the machine. Run with
//! `CARGO_PROFILE_DEV_OPT_LEVEL=3 cargo test --test conversation cost -- --ignored --nocapture`.

use std::hint::black_box;
use std::time::Instant;

use crate::harness::*;

fn per_packet(label: &str, count: usize, mut packet: impl FnMut(usize)) {
    let mut best = f64::MAX;
    for _ in 0..20 {
        let start = Instant::now();
        for n in 0..100_000 {
            packet((n * 7919) % count);
        }
        best = best.min(start.elapsed().as_nanos() as f64 / 100_000.0);
    }
    println!("{label}, {count} allocations: {best:.1} ns per packet");
}

#[test]
#[ignore = "measures"]
fn nanoseconds_per_packet() {
    for count in [1, 10, 1000, 10_000] {
        let (mut world, all) = crowd(count);
        let now = world.now;
        let message = [0x40, 0, 0, 4, 1, 2, 3, 4];
        let (count, datagram) = (usize::from(count), [0xEE; 1000]);
        per_packet("client to peer", count, |n| {
            black_box(world.channel_data_raw(&all[n].0, black_box(&message))).unwrap();
        });
        per_packet("peer to client", count, |n| {
            black_box(world.server.route_from_peer(now, all[n].1, peer(1), &datagram)).unwrap();
        });
        let other_port = peer_at(std::net::SocketAddr::new(peer(1).ip(), 1));
        per_packet("peer to client, no channel", count, |n| {
            black_box(world.server.route_from_peer(now, all[n].1, other_port, &datagram)).unwrap();
        });
    }
}

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[test]
#[ignore = "measures"]
fn bytes_per_idle_allocation() {
    let count = 20_000;
    let before = resident_bytes();
    let (mut world, all) = crowd(count);
    world.pass(60);
    drop(all);
    let bytes = (resident_bytes() - before) / usize::from(count);
    println!("{bytes} bytes per idle allocation with one channel, the fake relays included");
}
