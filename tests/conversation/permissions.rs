//! Permissions and CreatePermission (RFC 8656 sections 9 and 10).

use std::net::SocketAddr;

use turnstone::addr::Family;
use turnstone::reject::Dropped;
use turnstone::stun::{AttributeType, Method};
use turnstone::turn::Encapsulation;

use crate::harness::*;

#[test]
fn only_permitted_addresses_reach_the_client_and_any_port_of_them() {
    let mut world = World::new();
    let login = world.allocated(1);
    let relay = world.relay(Family::V4);
    assert_eq!(world.inbound(relay, peer(1), 9), Err(Dropped::NoPermission));
    assert_eq!(world.permit(&login, &[peer(1)]).code(), None);
    let other_port = peer_at(SocketAddr::new(peer(1).ip(), 9));
    for permitted in [peer(1), other_port] {
        let to_client = world.inbound(relay, permitted, 9).unwrap();
        assert_eq!(to_client.client, login.client);
        assert!(matches!(to_client.encapsulation, Encapsulation::Data { peer, .. } if peer == permitted));
    }
    assert_eq!(world.inbound(relay, peer(2), 9), Err(Dropped::NoPermission));
}

#[test]
fn one_request_can_permit_many_and_ports_are_ignored() {
    let mut world = World::new();
    let login = world.allocated(1);
    let mut peers: Vec<_> = (1..=60).map(peer).collect();
    peers.push(peer_at(SocketAddr::new(peer(61).ip(), 0)));
    peers.push(peer(1));
    assert_eq!(world.permit(&login, &peers).code(), None);
    let relay = world.relay(Family::V4);
    for n in 1..=61 {
        world.inbound(relay, peer(n), 1).unwrap();
        world.send(login.client, peer(n), b"x").into_peer();
    }
    assert_eq!(world.inbound(relay, peer(62), 1), Err(Dropped::NoPermission));
}

#[test]
fn it_is_all_of_the_peers_or_none() {
    let mut world = World::with(|options| options.max_peers = 3);
    let login = world.allocated(1);
    let relay = world.relay(Family::V4);
    let private = peer_at("10.0.0.1:1".parse().unwrap());
    assert_eq!(world.permit(&login, &[peer(1), private]).code(), Some(403));
    assert_eq!(world.permit(&login, &[peer(1), peer6(1)]).code(), Some(443));
    assert_eq!(world.permit(&login, &[peer(1), peer(2), peer(3), peer(4)]).code(), Some(508));
    let reply = world.request(&login, Method::CREATE_PERMISSION, |request| {
        request.xor_address(AttributeType::XOR_PEER_ADDRESS, peer(1).get());
        request.attribute(AttributeType::XOR_PEER_ADDRESS, &[0, 1, 0, 0]);
    });
    assert_eq!(reply.code(), Some(400));
    assert_eq!(world.inbound(relay, peer(1), 1), Err(Dropped::NoPermission));

    // What is there already needs no room.
    assert_eq!(world.permit(&login, &[peer(1), peer(2), peer(3)]).code(), None);
    assert_eq!(world.permit(&login, &[peer(3), peer(2), peer(2), peer(1)]).code(), None);
    assert_eq!(world.permit(&login, &[peer(3), peer(4)]).code(), Some(508));
    assert_eq!(world.inbound(relay, peer(4), 1), Err(Dropped::NoPermission));
    // What has expired makes room.
    world.pass_unattended(301);
    assert_eq!(world.permit(&login, &[peer(3), peer(4)]).code(), None);
    assert_eq!(world.inbound(relay, peer(1), 1), Err(Dropped::NoPermission));
}

#[test]
fn at_least_one_peer_is_needed_and_none_may_be_malformed() {
    let mut world = World::new();
    let login = world.allocated(1);
    assert_eq!(world.permit(&login, &[]).code(), Some(400));
    for value in [&[][..], &[0, 1, 0, 0, 8, 8, 8], &[0, 3, 0, 0, 8, 8, 8, 8], &[0, 2, 0, 0, 8, 8, 8, 8]] {
        let reply = world.request(&login, Method::CREATE_PERMISSION, |request| {
            request.attribute(AttributeType::XOR_PEER_ADDRESS, value);
        });
        assert_eq!(reply.code(), Some(400), "{value:?}");
    }
}

#[test]
fn an_ipv4_mapped_peer_is_403() {
    let mut world = World::new();
    let login = world.allocated_dual(1);
    let reply = world.request(&login, Method::CREATE_PERMISSION, |request| {
        request.xor_address(AttributeType::XOR_PEER_ADDRESS, "[::ffff:8.8.8.8]:1".parse().unwrap());
    });
    assert_eq!(reply.code(), Some(403));
}

#[test]
fn a_permission_lasts_300_seconds_and_traffic_does_not_refresh_it() {
    let mut world = World::new();
    let login = world.allocated(1);
    let relay = world.relay(Family::V4);
    world.permit(&login, &[peer(1)]);
    for _ in 0..299 {
        world.pass(1);
        world.inbound(relay, peer(1), 1).unwrap();
        world.send(login.client, peer(1), b"x").into_peer();
    }
    world.pass(1);
    assert_eq!(world.inbound(relay, peer(1), 1), Err(Dropped::NoPermission));
    assert_eq!(world.send(login.client, peer(1), b"x").dropped(), Dropped::NoPermission);
}

#[test]
fn create_permission_and_channel_bind_refresh_the_same_permission() {
    let mut world = World::new();
    let login = world.allocated(1);
    let relay = world.relay(Family::V4);
    world.permit(&login, &[peer(1)]);
    world.pass(200);
    world.bind(&login, 0x4000, peer(1));
    world.pass(200);
    world.permit(&login, &[peer(1)]);
    world.pass(199);
    world.inbound(relay, peer(1), 1).unwrap();
}

#[test]
fn permissions_of_one_allocation_are_nothing_to_another() {
    let mut world = World::new();
    let first = world.allocated(1);
    let first_relay = world.relay(Family::V4);
    let second = world.allocated(2);
    let second_relay = *world.relays.open.keys().find(|relay| **relay != first_relay).unwrap();
    world.permit(&first, &[peer(1)]);
    world.permit(&second, &[peer(2)]);
    assert_eq!(world.inbound(second_relay, peer(1), 1), Err(Dropped::NoPermission));
    assert_eq!(world.inbound(first_relay, peer(2), 1), Err(Dropped::NoPermission));
    assert_eq!(world.inbound(second_relay, peer(2), 1).unwrap().client, second.client);
}
