//! Datagrams of one client into the message parser and the server's state machine.
//!
//! The input is a sequence of packets, each behind two bytes: what to do with it, and its length. An odd first byte signs the
//! packet's attributes as an authenticated client would, so that the fuzzer gets behind MESSAGE-INTEGRITY. The very first byte decides
//! whether allocations share one relay port.
#![no_main]

use libfuzzer_sys::fuzz_target;
use turnstone::addr::{PeerAddr, Transport};
use turnstone::clock::SECOND;
use turnstone::stun::{Class, MAGIC_COOKIE, Message};
use turnstone::turn::{EndReason, Outcome, innermost};

#[path = "../../tests/robustness/mutate.rs"]
mod mutate;
#[path = "../../tests/robustness/world.rs"]
mod world;

use world::{Draft, ID, Signer, World};

fuzz_target!(|input: &[u8]| {
    let _ = Message::parse(input);
    assert!(innermost(input).0.len() <= input.len());
    let Some((seed, input)) = input.split_first() else { return };
    let mut world = World::offering_all(u64::from(*seed), None);
    let client = world::client(Transport::Udp, "198.51.100.1:5000".parse().unwrap(), 1);
    let (mut packet, mut reply) = (Vec::new(), Vec::new());
    world::encode(&Draft { method: 3, ..Draft::default() }, Class::Request, ID, None, &mut packet);
    world.message(&client, &packet, &mut reply);
    let signer = Signer::alice(world::nonce_in(&reply).expect("a challenge"));

    let mut rest = input;
    while let Some((&[what, len], behind)) = rest.split_first_chunk::<2>() {
        let (body, behind) = behind.split_at(usize::from(len).min(behind.len()));
        rest = behind;
        reply.clear();
        match what % 8 {
            0 | 2 => {
                let is_classic = body.get(4..8).is_some_and(|cookie| cookie != MAGIC_COOKIE.to_be_bytes());
                if let Outcome::Reply | Outcome::Detour(_) = world.message(&client, body, &mut reply) {
                    assert!(is_classic || Message::parse(&reply).is_ok());
                }
            }
            1 | 3 | 5 => {
                let draft = Draft { method: u16::from(what >> 3), attributes: attributes(body) };
                let class = if what % 8 == 5 { Class::Indication } else { Class::Request };
                world::encode(&draft, class, ID, Some(&signer), &mut packet);
                if let Outcome::Reply | Outcome::Detour(_) = world.message(&client, &packet, &mut reply) {
                    assert!(Message::parse(&reply).is_ok());
                }
            }
            4 => {
                if let Ok((_, payload)) = world.channel_data(&client, body) {
                    assert!(body.get(payload).is_some());
                }
            }
            6 => {
                let relay = world.relays.ids().next();
                let peer = PeerAddr::new("8.8.4.4:1000".parse().unwrap());
                if let (Some(relay), Ok(peer)) = (relay, peer) {
                    let _ = world.server.route_from_peer(world.now, relay, peer, body);
                }
            }
            _ => world.advance(u64::from(len) * 8 * SECOND),
        }
        while world.server.poll_event().is_some() {}
        world.check();
    }
    world.server.end_all(world.now, EndReason::Shutdown, &mut world.relays);
    assert_eq!(world.quotas.in_use(), 0);
    assert_eq!(world.relays.open_count(), 0);
});

/// Reads attributes: two bytes of type, one of length, the value.
fn attributes(mut body: &[u8]) -> Vec<(u16, Vec<u8>)> {
    let mut attributes = Vec::new();
    while let Some((&[high, low, len], behind)) = body.split_first_chunk::<3>() {
        let (value, behind) = behind.split_at(usize::from(len).min(behind.len()));
        attributes.push((u16::from_be_bytes([high, low]), value.to_vec()));
        body = behind;
    }
    attributes
}
