//! A million unauthenticated or forged packets from a hundred thousand sources leave nothing behind.

// A helper that cannot do its work must fail the test that called it; clippy counts only `#[test]` functions as tests.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr
)]

use std::net::SocketAddr;

use turnstone::addr::Transport;
use turnstone::policy::RateLimit;
use turnstone::stun::{Class, Method};
use turnstone::turn::{Client, Outcome};

mod amplification;
mod binary;
#[path = "../robustness/mutate.rs"]
mod mutate;
#[path = "../support/mod.rs"]
mod support;
#[path = "../robustness/world.rs"]
mod world;

use mutate::Rng;
use world::{Draft, ID, Signer, World};

const SOURCES: u32 = 100_000;
const PACKETS_PER_SOURCE: u32 = 10;
/// What resident memory may differ by, in bytes.
const TOLERANCE: u64 = 1 << 20;

/// Resident memory is the whole process's: one test at a time.
static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());

/// Resident memory of a process in bytes.
fn resident(process: &str) -> u64 {
    let statm = std::fs::read_to_string(format!("/proc/{process}/statm")).unwrap();
    let pages: u64 = statm.split_whitespace().nth(1).unwrap().parse().unwrap();
    pages * 4096
}

fn source(number: u32) -> Client {
    let [_, b, c, d] = number.to_be_bytes();
    let addr: SocketAddr = if number.is_multiple_of(4) {
        let [high, low] = [(number >> 16) as u16, number as u16];
        SocketAddr::new([0x2001, 0xdb8, high, low, 0, 0, 0, 1].into(), 1024)
    } else {
        SocketAddr::new([100, b, c, d].into(), 1024 + (number % 60_000) as u16)
    };
    world::client(Transport::Udp, addr, number)
}

/// Every way to talk to the server without a credential.
struct Attacker {
    rng: Rng,
    drafts: Vec<Draft>,
    corpus: Vec<Vec<u8>>,
    packet: Vec<u8>,
    reply: Vec<u8>,
    sent: u64,
    answered: u64,
    sent_bytes: u64,
    answered_bytes: u64,
}

impl Attacker {
    fn new(seed: u64) -> Self {
        Self {
            rng: Rng(seed),
            drafts: world::drafts(),
            corpus: world::corpus(),
            packet: Vec::new(),
            reply: Vec::new(),
            sent: 0,
            answered: 0,
            sent_bytes: 0,
            answered_bytes: 0,
        }
    }

    fn attack(&mut self, world: &mut World, client: &Client) {
        // The first packet may fetch a nonce that is good for this source: the forgeries then get as far as the MAC.
        let allocate = self.drafts[1].clone();
        world::encode(&allocate, Class::Request, ID, None, &mut self.packet);
        self.send(world, client);
        let nonce = world::nonce_in(&self.reply).unwrap_or_else(|| self.rng.bytes(40));
        for number in 1..PACKETS_PER_SOURCE {
            let draft = self.rng.pick(&self.drafts).clone();
            let class = if draft.method == Method::SEND.value() { Class::Indication } else { Class::Request };
            let mut id = ID;
            self.rng.fill(&mut id);
            match number {
                1..=3 => world::encode(&draft, class, id, Some(&Signer::forger(nonce.clone())), &mut self.packet),
                4..=5 => {
                    let forger = Signer::forger(self.rng.bytes(40));
                    world::encode(&draft, class, id, Some(&forger), &mut self.packet);
                }
                6..=7 => world::encode(&draft, class, id, None, &mut self.packet),
                8 => {
                    assert!(world.channel_data(client, b"\x40\x00\x00\x04data").is_err());
                    self.sent += 1;
                    continue;
                }
                _ => {
                    self.packet.clone_from(self.rng.pick(&self.corpus));
                    mutate::mutate(&mut self.rng, &mut self.packet, &self.corpus);
                }
            }
            self.send(world, client);
        }
    }

    fn send(&mut self, world: &mut World, client: &Client) {
        self.reply.clear();
        let outcome = world.message(client, &self.packet, &mut self.reply);
        assert!(!matches!(outcome, Outcome::ToPeer(..)), "a stranger's data went to a peer");
        self.sent += 1;
        if outcome == Outcome::Reply {
            self.answered += 1;
            self.sent_bytes += self.packet.len() as u64;
            self.answered_bytes += self.reply.len() as u64;
        }
    }
}

fn flood(world: &mut World, attacker: &mut Attacker, sources: std::ops::Range<u32>) -> usize {
    let mut most_events = 0;
    for number in sources {
        attacker.attack(world, &source(number));
        if number % 64 == 0 {
            world.advance(64);
            let mut events = 0;
            while world.server.poll_event().is_some() {
                events += 1;
            }
            most_events = most_events.max(events);
        }
    }
    most_events
}

fn nothing_is_left_behind_under(limit: Option<RateLimit>) {
    let mut world = World::new(5, limit);
    let mut attacker = Attacker::new(6);
    // Buffers grow to their working size once.
    flood(&mut world, &mut attacker, 0..200);
    let before = resident("self");
    let most_events = flood(&mut world, &mut attacker, 200..SOURCES);
    let after = resident("self");

    println!(
        "{} packets from {SOURCES} sources, {} answered with {:.2} bytes per byte; resident {before} before, {after} after",
        attacker.sent,
        attacker.answered,
        attacker.answered_bytes as f64 / attacker.sent_bytes as f64,
    );
    assert!(attacker.sent >= 1_000_000);
    assert!(after <= before + TOLERANCE, "resident memory grew from {before} to {after} bytes");
    assert!(most_events <= 4096 + 64, "{most_events} events waited");
    assert_eq!(world.server.allocations(), 0);
    assert_eq!(world.quotas.in_use(), 0);
    assert_eq!(world.relays.open_count(), 0);
    assert_eq!(world.server.next_timeout(), None, "a timer was left behind");
}

#[test]
fn a_million_forged_packets_leave_no_state_behind() {
    let _alone = ALONE.lock();
    nothing_is_left_behind_under(None);
    nothing_is_left_behind_under(Some(RateLimit { per_second: 100, burst: 500 }));
}

#[test]
fn events_nobody_takes_are_bounded() {
    let _alone = ALONE.lock();
    let mut world = World::new(7, None);
    let mut attacker = Attacker::new(8);
    for number in 0..2_000 {
        attacker.attack(&mut world, &source(number));
    }
    let waiting = std::iter::from_fn(|| world.server.poll_event()).count();
    assert!(waiting > 0 && waiting <= 4096, "{waiting} events waited");
}

#[test]
fn forgeries_in_the_name_of_a_client_do_not_touch_its_allocation() {
    let _alone = ALONE.lock();
    let mut world = World::new(9, None);
    let mut attacker = Attacker::new(10);
    let victim = source(1);
    let drafts = world::drafts();
    world::encode(&drafts[1], Class::Request, [1; 12], None, &mut attacker.packet);
    attacker.send(&mut world, &victim);
    let nonce = world::nonce_in(&attacker.reply).unwrap();
    for (number, draft) in [&drafts[1], &drafts[11]].into_iter().enumerate() {
        let alice = Signer::alice(nonce.clone());
        // The peer address in the draft is masked with this id.
        let id = if number == 0 { [2; 12] } else { ID };
        world::encode(draft, Class::Request, id, Some(&alice), &mut attacker.packet);
        attacker.send(&mut world, &victim);
    }
    let channel_data = b"\x40\x00\x00\x04data";
    let route = world.channel_data(&victim, channel_data).expect("a channel");
    let due = world.server.next_timeout();
    while world.server.poll_event().is_some() {}

    for number in 0..100_000 {
        let draft = attacker.rng.pick(&drafts).clone();
        let forger = Signer::forger(if number % 2 == 0 { nonce.clone() } else { attacker.rng.bytes(40) });
        world::encode(&draft, Class::Request, ID, Some(&forger), &mut attacker.packet);
        attacker.send(&mut world, &victim);
        while let Some(event) = world.server.poll_event() {
            assert!(matches!(event, turnstone::turn::Event::Refused(_)), "{event:?}");
        }
    }
    assert_eq!(world.server.allocations(), 1);
    assert_eq!(world.server.next_timeout(), due, "a lifetime changed");
    assert_eq!(world.channel_data(&victim, channel_data), Ok(route));
}
