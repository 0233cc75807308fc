//! Send and Data indications, relay to relay, ICMP (RFC 8656 section 11).

use std::net::SocketAddr;

use turnstone::addr::Family;
use turnstone::reject::Dropped;
use turnstone::stun::{AttributeType, Class, Encoder, Message, Method};
use turnstone::turn::Encapsulation;

use crate::harness::*;

fn indicate(world: &mut World, login: &Login, build: impl FnOnce(&mut Encoder<'_>)) -> Answer {
    let bytes = message(Class::Indication, Method::SEND, world.transaction_id(), build);
    world.hand_in(login.client, &bytes)
}

#[test]
fn a_send_indication_needs_a_permission_and_relays_its_data() {
    let mut world = World::new();
    let login = world.allocated(1);
    assert_eq!(world.send(login.client, peer(1), b"data").dropped(), Dropped::NoPermission);
    world.permit(&login, &[peer(1)]);
    for data in [&b""[..], b"1", b"data", b"seventeen bytes!!", &[7; 1400]] {
        let (to_peer, sent) = world.send(login.client, peer(1), data).into_peer();
        assert_eq!(sent, data);
        assert_eq!((to_peer.relay, to_peer.peer), (world.relay(Family::V4), peer(1)));
        assert!(!to_peer.own_relay && !to_peer.dont_fragment);
    }
}

#[test]
fn dont_fragment_is_passed_on() {
    let mut world = World::new();
    let login = world.allocated(1);
    world.permit(&login, &[peer(1)]);
    let answer = indicate(&mut world, &login, |indication| {
        indication.xor_address(AttributeType::XOR_PEER_ADDRESS, peer(1).get());
        indication.attribute(AttributeType::DONT_FRAGMENT, &[]);
        indication.attribute(AttributeType::DATA, b"data");
    });
    assert!(answer.into_peer().0.dont_fragment);
}

#[test]
fn an_incomplete_or_unknown_send_indication_is_dropped() {
    let mut world = World::new();
    let login = world.allocated(1);
    world.permit(&login, &[peer(1)]);
    let without_data = indicate(&mut world, &login, |indication| {
        indication.xor_address(AttributeType::XOR_PEER_ADDRESS, peer(1).get());
    });
    let without_peer = indicate(&mut world, &login, |indication| {
        indication.attribute(AttributeType::DATA, b"data");
    });
    let malformed_peer = indicate(&mut world, &login, |indication| {
        indication.attribute(AttributeType::XOR_PEER_ADDRESS, &[0, 1, 2]);
        indication.attribute(AttributeType::DATA, b"data");
    });
    let unknown = indicate(&mut world, &login, |indication| {
        indication.xor_address(AttributeType::XOR_PEER_ADDRESS, peer(1).get());
        indication.attribute(AttributeType::DATA, b"data");
        indication.attribute(AttributeType(0x7001), b"");
    });
    for answer in [without_data, without_peer, malformed_peer, unknown] {
        assert_eq!(answer.dropped(), Dropped::Malformed);
    }
    let optional = indicate(&mut world, &login, |indication| {
        indication.xor_address(AttributeType::XOR_PEER_ADDRESS, peer(1).get());
        indication.attribute(AttributeType::DATA, b"data");
        indication.attribute(AttributeType(0xF001), b"");
    });
    optional.into_peer();
}

#[test]
fn send_is_denied_by_port_even_where_the_address_is_permitted() {
    let mut world = World::with(|options| options.rules.denied_ports = vec![53]);
    let login = world.allocated(1);
    world.permit(&login, &[peer(1)]);
    let reflector = SocketAddr::new(peer(1).ip(), 53);
    let relay = world.relay(Family::V4);
    assert_eq!(world.send_raw(login.client, reflector, b"x").dropped(), Dropped::PeerDenied);
    assert_eq!(world.inbound(relay, peer_at(reflector), 1), Err(Dropped::PeerDenied));
    assert_eq!(world.send_raw(login.client, SocketAddr::new(peer(1).ip(), 0), b"x").dropped(), Dropped::PeerDenied);
    assert_eq!(
        world.send_raw(login.client, "[::ffff:8.8.8.1]:9".parse().unwrap(), b"x").dropped(),
        Dropped::PeerDenied
    );
}

#[test]
fn data_indications_have_transaction_ids_of_their_own() {
    let mut world = World::new();
    let login = world.allocated(1);
    world.permit(&login, &[peer(1)]);
    let relay = world.relay(Family::V4);
    let mut seen = std::collections::HashSet::new();
    for _ in 0..1000 {
        let Encapsulation::Data { transaction_id, .. } = world.inbound(relay, peer(1), 1).unwrap().encapsulation else {
            panic!("no channel is bound")
        };
        assert!(seen.insert(transaction_id));
    }
}

#[test]
fn two_allocations_of_this_server_reach_each_other_when_both_permit_it() {
    let mut world = World::new();
    let first = world.alice(client(1));
    let first_relayed = world.allocate(&first).relayed();
    let first_relay = world.relay(Family::V4);
    let second = world.alice(client(2));
    let second_relayed = world.allocate(&second).relayed();
    let second_relay = *world.relays.open.keys().find(|relay| **relay != first_relay).unwrap();

    assert_eq!(world.bind_raw(&first, 0x4000, second_relayed).code(), None);
    let (to_peer, _) = world.channel_data(first.client, 0x4000, b"x").unwrap();
    assert!(to_peer.own_relay);
    assert_eq!(to_peer.peer.get(), second_relayed);
    let (to_peer, _) = world.send_raw(first.client, second_relayed, b"x").into_peer();
    assert!(to_peer.own_relay);

    let as_peer = peer_at(first_relayed);
    assert_eq!(world.inbound(second_relay, as_peer, 1), Err(Dropped::NoPermission));
    assert_eq!(world.permit(&second, &[as_peer]).code(), None);
    let to_client = world.inbound(second_relay, as_peer, 1).unwrap();
    assert_eq!(to_client.client, second.client);
    assert!(matches!(to_client.encapsulation, Encapsulation::Data { peer, .. } if peer == as_peer));
}

#[test]
fn a_late_datagram_for_an_earlier_use_of_the_relay_slot_goes_nowhere() {
    let mut world = World::new();
    let first = world.allocated(1);
    world.permit(&first, &[peer(1)]);
    let old = world.relay(Family::V4);
    world.refresh(&first, Some(0));
    let second = world.allocated(2);
    world.permit(&second, &[peer(1)]);
    let new = world.relay(Family::V4);
    assert_eq!(old.index, new.index);
    assert_eq!(world.inbound(old, peer(1), 1), Err(Dropped::NoAllocation));
    assert_eq!(world.inbound(new, peer(1), 1).unwrap().client, second.client);
}

#[test]
fn icmp_errors_come_as_data_indications_to_permitted_peers_only() {
    let mut world = World::new();
    let login = world.allocated_dual(1);
    world.permit(&login, &[peer(1), peer6(1)]);
    world.bind(&login, 0x4000, peer(1));
    let (v4, v6) = (world.relay(Family::V4), world.relay(Family::V6));
    let mtu = [0, 0, 5, 0xDC];
    let cases = [
        (v4, peer(1), (3, 3, mtu), Some([0, 0, 3, 3, 0, 0, 0, 0])),
        (v4, peer(1), (3, 4, mtu), Some([0, 0, 3, 4, 0, 0, 5, 0xDC])),
        (v4, peer(1), (11, 0, mtu), Some([0, 0, 11, 0, 0, 0, 0, 0])),
        (v4, peer(1), (8, 0, mtu), None),
        (v4, peer(2), (3, 3, mtu), None),
        (v6, peer6(1), (1, 4, mtu), Some([0, 0, 1, 4, 0, 0, 0, 0])),
        (v6, peer6(1), (2, 0, mtu), Some([0, 0, 2, 0, 0, 0, 5, 0xDC])),
        (v6, peer6(1), (3, 0, mtu), Some([0, 0, 3, 0, 0, 0, 0, 0])),
        (v6, peer6(1), (4, 0, mtu), None),
        (v6, peer(1), (3, 3, mtu), None),
        (v4, peer6(1), (1, 4, mtu), None),
    ];
    for (relay, peer, icmp, expected) in cases {
        let mut out = b"before".to_vec();
        let to = world.server.handle_icmp(world.now, relay, peer.get(), icmp, &mut out);
        let Some(value) = expected else {
            assert_eq!((to, &out[..]), (None, &b"before"[..]), "{peer} {icmp:?}");
            continue;
        };
        assert_eq!(to, Some(login.client));
        let reply = Reply::read(out[6..].to_vec());
        assert_eq!((reply.class, reply.method), (Class::Indication, Method::DATA));
        assert_eq!(reply.addresses(AttributeType::XOR_PEER_ADDRESS), [peer.get()]);
        assert_eq!(reply.get(AttributeType::ICMP).unwrap(), value);
        assert_eq!(reply.get(AttributeType::DATA), None);
    }
    let mut out = Vec::new();
    let without_port = SocketAddr::new(peer(1).ip(), 0);
    world.server.handle_icmp(world.now, v4, without_port, (3, 1, [0; 4]), &mut out).unwrap();
    assert_eq!(Message::parse(&out).unwrap().attributes().count(), 2);
    world.pass(301);
    assert_eq!(world.server.handle_icmp(world.now, v4, without_port, (3, 1, [0; 4]), &mut out), None);
}
