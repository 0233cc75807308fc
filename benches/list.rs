//! How long a list of 100,000 allocations, page by page, holds a worker: `cargo bench --bench list`. A worker looks at 256 of them
//! in one round, and then at its packets; the longest such part must not take a millisecond.

// The tests' harness has helpers not used here; a benchmark may stop at what cannot happen.
#![allow(missing_docs, dead_code, unreachable_pub, unused_imports)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stdout)]

#[path = "../tests/conversation/fake_relays.rs"]
mod fake_relays;
#[path = "../tests/conversation/harness.rs"]
mod harness;
#[path = "../tests/conversation/wire.rs"]
mod wire;

use std::time::{Duration, Instant};

use harness::{World, client_over};
use turnstone::addr::Transport;
use turnstone::stun::{AttributeType, Method};
use turnstone::turn::AllocationFilter;

/// Clients of one transport, each with an allocation of one family: one pool of ports is not enough.
const CLIENTS: u16 = 50_000;
/// Allocations looked at in one part, as in `worker::jobs`.
const LOOKED_AT: usize = 256;
/// Parts that the machine has interrupted are not so in all of these.
const RUNS: usize = 5;
const LIMIT: Duration = Duration::from_millis(1);

fn main() {
    let world = world();
    let nobody = AllocationFilter { user: Some("nobody".to_owned()), ..AllocationFilter::default() };
    for (what, filter, page) in [
        ("pages of 100", AllocationFilter::default(), 101),
        ("pages of 1000", AllocationFilter::default(), 1001),
        ("those of a user who has none", nobody, 101),
    ] {
        let runs: Vec<_> = (0..RUNS).map(|_| list(&world, &filter, page)).collect();
        let found = runs[0].1;
        let parts = (0..runs[0].0.len()).map(|part| runs.iter().map(|(took, _)| took[part]).min().unwrap());
        let mut parts: Vec<Duration> = parts.collect();
        parts.sort();
        let (middle, longest) = (parts[parts.len() / 2], *parts.last().unwrap());
        println!("{what}: {found} found in {} parts, the middle one {middle:?}, the longest {longest:?}", parts.len());
        assert!(longest < LIMIT, "{what}: a part took {longest:?}");
    }
}

/// A server with 100,000 allocations.
fn world() -> World {
    let mut world = World::new();
    for (transport, family) in [(Transport::Udp, 1), (Transport::Tcp, 2)] {
        for n in 0..CLIENTS {
            world.relays.ports = vec![1024 + n];
            let login = world.alice(client_over(transport, n));
            let reply = world.request(&login, Method::ALLOCATE, |request| {
                request.attribute(AttributeType::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
                request.attribute(AttributeType::REQUESTED_ADDRESS_FAMILY, &[family, 0, 0, 0]);
            });
            assert_eq!(reply.code(), None);
        }
        world.events();
    }
    world
}

/// The time of each part, and how many were found.
fn list(world: &World, filter: &AllocationFilter, page: usize) -> (Vec<Duration>, usize) {
    let (mut parts, mut found, mut after) = (Vec::new(), 0, None);
    loop {
        let mut listing = world.server.listing(filter.clone(), after, page);
        while !listing.is_done() {
            let began = Instant::now();
            world.server.list(world.now, &mut listing, LOOKED_AT);
            parts.push(began.elapsed());
        }
        let views = listing.into_found();
        found += views.len();
        match views.last() {
            Some(last) if views.len() == page => after = Some(last.id),
            _ => return (parts, found),
        }
    }
}
