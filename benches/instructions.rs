//! One kind of message, handled again and again in a conversation that is the same in every run: what `benches/instructions` counts
//! the instructions of. `instructions KIND ROUNDS`; without arguments, the kinds.

// The tests' harness has helpers that are not used here; a benchmark may stop at what cannot happen.
#![allow(missing_docs, dead_code, unreachable_pub, unused_imports)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stdout)]

#[path = "../tests/conversation/fake_relays.rs"]
mod fake_relays;
#[path = "../tests/conversation/harness.rs"]
mod harness;
#[path = "../tests/conversation/wire.rs"]
mod wire;

use std::hint::black_box;

use harness::{Login, UDP, World, client, message, peer, peer_at};
use turnstone::addr::{FiveTuple, PeerAddr};
use turnstone::stun::{AttributeType, Class, Encoder, Method};
use turnstone::turn::{Client, MessageKind, Outcome, RelayId};

const KINDS: [&str; 14] = [
    "binding",
    "challenge",
    "wrong-password",
    "unknown-user",
    "allocate",
    "allocate-time-limited",
    "create-permission",
    "forbidden-peer",
    "channel-bind",
    "refresh",
    "send",
    "channel-data",
    "from-peer",
    "release",
];

/// Bytes of payload: 20 ms of speech.
const PAYLOAD: usize = 160;

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let Some(kind) = arguments.next() else {
        return KINDS.iter().for_each(|kind| println!("{kind}"));
    };
    assert!(KINDS.contains(&&*kind), "no such kind");
    let rounds: u16 = arguments.next().and_then(|rounds| rounds.parse().ok()).expect("how many rounds");
    let mut run = Run { kind, world: World::new(), reply: Vec::with_capacity(2048), measured: 0 };
    (0..rounds).for_each(|n| run.round(n));
    assert_eq!(run.measured, rounds, "one message a round is measured");
    assert_eq!(run.world.server.allocations(), 0);
}

struct Run {
    kind: String,
    world: World,
    reply: Vec<u8>,
    measured: u16,
}

impl Run {
    /// A call: a client comes, allocates, sends and is sent something, and goes.
    fn round(&mut self, n: u16) {
        let client = client(n);
        let bytes = self.world.bare(Method::BINDING, |_| {});
        self.message("binding", &client, &bytes);
        let bytes = self.world.bare(Method::ALLOCATE, |_| {});
        self.message("challenge", &client, &bytes);

        let wrong = self.world.login(client, "alice", "underland");
        self.request("wrong-password", &wrong, Method::ALLOCATE, plain);
        let unknown = self.world.login(client, "mallory", "underland");
        self.request("unknown-user", &unknown, Method::ALLOCATE, plain);

        let (kind, login) = match &*self.kind {
            "allocate-time-limited" => ("allocate-time-limited", self.world.guest(client, "carol", 3600)),
            _ => ("allocate", self.world.alice(client)),
        };
        self.request(kind, &login, Method::ALLOCATE, plain);
        let relay = self.world.relays.last.expect("a relay");
        let names = |peer: PeerAddr| {
            move |request: &mut Encoder<'_>| {
                request.xor_address(AttributeType::XOR_PEER_ADDRESS, peer.get());
            }
        };
        self.request("create-permission", &login, Method::CREATE_PERMISSION, names(peer(1)));
        let private = peer_at("10.0.0.1:5000".parse().unwrap());
        self.request("forbidden-peer", &login, Method::CREATE_PERMISSION, names(private));
        self.request("channel-bind", &login, Method::CHANNEL_BIND, |request| {
            request.u32(AttributeType::CHANNEL_NUMBER, 0x4000 << 16);
            names(peer(1))(request);
        });
        self.request("refresh", &login, Method::REFRESH, |_| {});

        let id = self.world.transaction_id();
        let bytes = message(Class::Indication, Method::SEND, id, |indication| {
            names(peer(1))(indication);
            indication.attribute(AttributeType::DATA, &[0; PAYLOAD]);
        });
        self.message("send", &client, &bytes);
        let mut bytes = vec![0; 4 + PAYLOAD];
        bytes[..4].copy_from_slice(&[0x40, 0, 0, PAYLOAD as u8]);
        if self.is_measured("channel-data") {
            assert!(measured_channel_data(&mut self.world, &client.five_tuple, black_box(&bytes)));
        }
        if self.is_measured("from-peer") {
            assert!(measured_from_peer(&mut self.world, relay, black_box(peer(1))));
        }
        self.request("release", &login, Method::REFRESH, |request| {
            request.u32(AttributeType::LIFETIME, 0);
        });
        self.world.events();
    }

    fn request(&mut self, kind: &str, login: &Login, method: Method, build: impl FnOnce(&mut Encoder<'_>)) {
        let bytes = login.request(self.world.transaction_id(), method, build);
        self.message(kind, &login.client, &bytes);
    }

    fn message(&mut self, kind: &str, client: &Client, bytes: &[u8]) {
        self.reply.clear();
        if self.is_measured(kind) {
            measured_message(&mut self.world, client, black_box(bytes), &mut self.reply);
        } else {
            self.world.hand_in(*client, bytes);
        }
    }

    fn is_measured(&mut self, kind: &str) -> bool {
        let is_measured = self.kind == kind;
        self.measured += u16::from(is_measured);
        is_measured
    }
}

fn plain(request: &mut Encoder<'_>) {
    request.attribute(AttributeType::REQUESTED_TRANSPORT, &UDP);
}

// Only what happens in functions of these names is counted.

#[inline(never)]
fn measured_message(world: &mut World, client: &Client, bytes: &[u8], reply: &mut Vec<u8>) {
    let outcome = world.server.handle_message(world.now, client, bytes, &mut world.relays, reply);
    assert!(!matches!(black_box(outcome), Outcome::Dropped(_)));
}

#[inline(never)]
fn measured_channel_data(world: &mut World, five_tuple: &FiveTuple, bytes: &[u8]) -> bool {
    let Some(MessageKind::ChannelData(message)) = MessageKind::of_datagram(bytes) else { return false };
    let way = world.server.route_channel_data(world.now, five_tuple, message);
    black_box(&way).is_ok() && black_box(message.payload()).end <= bytes.len()
}

#[inline(never)]
fn measured_from_peer(world: &mut World, relay: RelayId, peer: PeerAddr) -> bool {
    let way = world.server.route_from_peer(world.now, relay, peer, &[0xEE; PAYLOAD]);
    black_box(&way).is_ok()
}
