//! Channels (RFC 8656 section 12).

use turnstone::addr::{Family, PeerAddr};
use turnstone::clock::SECOND;
use turnstone::reject::Dropped;
use turnstone::stun::{AttributeType, Class, Method};
use turnstone::turn::{Encapsulation, Event};

use crate::harness::*;

#[test]
fn a_bound_channel_carries_data_both_ways_and_installs_a_permission() {
    let mut world = World::new();
    let login = world.allocated(1);
    let relay = world.relay(Family::V4);
    world.events();
    assert_eq!(world.bind(&login, 0x4000, peer(1)).class, Class::Success);
    let (to_peer, data) = world.channel_data(login.client, 0x4000, b"hello").unwrap();
    assert_eq!((to_peer.relay, to_peer.peer, to_peer.own_relay, &data[..]), (relay, peer(1), false, &b"hello"[..]));
    assert!(!to_peer.dont_fragment);
    let to_client = world.inbound(relay, peer(1), 5).unwrap();
    assert_eq!((to_client.client, to_client.encapsulation), (login.client, Encapsulation::Channel(0x4000)));
    let events = world.events();
    let [Event::RouteBound { channel, relay: bound, peer: to, until_micros, five_tuple, .. }] = &events[..] else {
        panic!("{events:?}")
    };
    assert_eq!((*channel, *bound, *to, *five_tuple), (0x4000, relay, peer(1), login.client.five_tuple));
    assert_eq!(*until_micros, world.now.micros + 600 * SECOND);
}

#[test]
fn another_port_of_the_peer_comes_as_a_data_indication() {
    let mut world = World::new();
    let login = world.allocated(1);
    world.bind(&login, 0x4000, peer(1));
    let relay = world.relay(Family::V4);
    let other = peer_at(std::net::SocketAddr::new(peer(1).ip(), 5));
    assert!(
        matches!(world.inbound(relay, other, 5).unwrap().encapsulation, Encapsulation::Data { peer, .. } if peer == other)
    );
}

#[test]
fn channel_numbers_outside_4000_to_4fff_are_400() {
    let mut world = World::new();
    let login = world.allocated(1);
    for number in [0x0000, 0x3FFF, 0x5000, 0x7FFF, 0xFFFF] {
        assert_eq!(world.bind(&login, number, peer(1)).code(), Some(400), "{number:#x}");
    }
    assert_eq!(world.bind(&login, 0x4000, peer(1)).code(), None);
    assert_eq!(world.bind(&login, 0x4FFF, peer(2)).code(), None);
}

#[test]
fn the_wider_channel_range_of_rfc_5766_is_an_option() {
    let mut world = World::with(|options| options.rfc5766_channel_numbers = true);
    let login = world.allocated(1);
    for (n, number) in [(1, 0x4000), (2, 0x5000), (3, 0x7FFE)] {
        assert_eq!(world.bind(&login, number, peer(n)).code(), None);
        assert_eq!(world.channel_data(login.client, number, b"x").unwrap().0.peer, peer(n));
    }
    for number in [0x3FFF, 0x7FFF, 0x8000] {
        assert_eq!(world.bind(&login, number, peer(9)).code(), Some(400), "{number:#x}");
    }
}

#[test]
fn a_number_has_one_peer_and_a_peer_one_number() {
    let mut world = World::new();
    let login = world.allocated(1);
    assert_eq!(world.bind(&login, 0x4000, peer(1)).code(), None);
    assert_eq!(world.bind(&login, 0x4000, peer(2)).code(), Some(400));
    assert_eq!(world.bind(&login, 0x4001, peer(1)).code(), Some(400));
    assert_eq!(world.bind(&login, 0x4001, peer(2)).code(), None);
    assert_eq!(world.bind(&login, 0x4000, peer(2)).code(), Some(400), "both are bound, to others");
    assert_eq!(world.bind(&login, 0x4000, peer(1)).code(), None, "the same again refreshes");
    let (to_peer, _) = world.channel_data(login.client, 0x4000, b"").unwrap();
    assert_eq!(to_peer.peer, peer(1));
}

#[test]
fn missing_and_malformed_attributes_are_400() {
    let mut world = World::new();
    let login = world.allocated(1);
    let reply = world.request(&login, Method::CHANNEL_BIND, |request| {
        request.xor_address(AttributeType::XOR_PEER_ADDRESS, peer(1).get());
    });
    assert_eq!(reply.code(), Some(400));
    let reply = world.request(&login, Method::CHANNEL_BIND, |request| {
        request.u32(AttributeType::CHANNEL_NUMBER, 0x4000_0000);
    });
    assert_eq!(reply.code(), Some(400));
    let reply = world.request(&login, Method::CHANNEL_BIND, |request| {
        request.attribute(AttributeType::CHANNEL_NUMBER, &[0x40, 0]);
        request.xor_address(AttributeType::XOR_PEER_ADDRESS, peer(1).get());
    });
    assert_eq!(reply.code(), Some(400));
    let reply = world.request(&login, Method::CHANNEL_BIND, |request| {
        request.u32(AttributeType::CHANNEL_NUMBER, 0x4000_0000);
        request.attribute(AttributeType::XOR_PEER_ADDRESS, &[0, 1, 1, 1, 1]);
    });
    assert_eq!(reply.code(), Some(400));
}

#[test]
fn another_family_is_443_a_denied_peer_403_and_port_0_too() {
    let mut world = World::new();
    let login = world.allocated(1);
    assert_eq!(world.bind(&login, 0x4000, peer6(1)).code(), Some(443));
    assert_eq!(world.bind_raw(&login, 0x4000, "127.0.0.1:3478".parse().unwrap()).code(), Some(403));
    assert_eq!(world.bind_raw(&login, 0x4000, "5.45.96.1:3478".parse().unwrap()).code(), Some(403), "our listener");
    assert_eq!(world.bind_raw(&login, 0x4000, "8.8.8.8:0".parse().unwrap()).code(), Some(403));
    assert_eq!(world.channel_data(login.client, 0x4000, b"x").unwrap_err(), Dropped::NoChannel);
}

#[test]
fn a_dual_allocation_binds_channels_of_both_families() {
    let mut world = World::new();
    let login = world.allocated_dual(1);
    let (v4, v6) = (world.relay(Family::V4), world.relay(Family::V6));
    assert_eq!(world.bind(&login, 0x4004, peer(1)).code(), None);
    assert_eq!(world.bind(&login, 0x4006, peer6(1)).code(), None);
    assert_eq!(world.channel_data(login.client, 0x4004, b"x").unwrap().0.relay, v4);
    assert_eq!(world.channel_data(login.client, 0x4006, b"x").unwrap().0.relay, v6);
    assert_eq!(world.inbound(v6, peer6(1), 1).unwrap().encapsulation, Encapsulation::Channel(0x4006));
    assert_eq!(world.inbound(v6, peer(1), 1), Err(Dropped::NoAllocation), "an IPv4 peer at the IPv6 relay");
}

#[test]
fn a_channel_lasts_600_seconds_traffic_does_not_refresh_it_and_its_end_is_reported() {
    let mut world = World::new();
    let login = world.allocated(1);
    world.refresh(&login, Some(3600));
    let relay = world.relay(Family::V4);
    world.bind(&login, 0x4000, peer(1));
    world.events();
    for _ in 0..5 {
        world.pass(100);
        world.permit(&login, &[peer(1)]);
        world.channel_data(login.client, 0x4000, b"x").unwrap();
        assert_eq!(world.inbound(relay, peer(1), 1).unwrap().encapsulation, Encapsulation::Channel(0x4000));
    }
    world.pass(99);
    world.channel_data(login.client, 0x4000, b"x").unwrap();
    world.pass(1);
    assert_eq!(world.channel_data(login.client, 0x4000, b"x").unwrap_err(), Dropped::NoChannel);
    let to_client = world.inbound(relay, peer(1), 1).unwrap();
    assert!(matches!(to_client.encapsulation, Encapsulation::Data { .. }), "the permission is still there");
    world.pass(1);
    assert!(matches!(world.events()[..], [Event::RouteGone { channel: 0x4000, .. }]));
    assert_eq!(world.bind(&login, 0x4000, peer(2)).code(), None);
    assert_eq!(world.bind(&login, 0x4001, peer(1)).code(), None);
}

#[test]
fn a_bound_channel_permits_its_peer_for_as_long_as_it_is_bound_but_no_other_port() {
    let mut world = World::new();
    let login = world.allocated(1);
    let relay = world.relay(Family::V4);
    world.refresh(&login, Some(3600));
    world.bind(&login, 0x4000, peer(1));
    world.pass(301);
    world.channel_data(login.client, 0x4000, b"x").unwrap();
    assert_eq!(world.inbound(relay, peer(1), 1).unwrap().encapsulation, Encapsulation::Channel(0x4000));
    let mut other_port = peer(1).get();
    other_port.set_port(9);
    assert_eq!(world.inbound(relay, PeerAddr::new(other_port).unwrap(), 1), Err(Dropped::NoPermission));
    world.pass(299);
    assert_eq!(world.inbound(relay, peer(1), 1), Err(Dropped::NoPermission));
}

#[test]
fn an_expired_binding_gives_way_even_before_it_is_swept() {
    let mut world = World::new();
    let login = world.allocated(1);
    world.refresh(&login, Some(3600));
    world.bind(&login, 0x4000, peer(1));
    world.bind(&login, 0x4001, peer(2));
    world.events();
    world.pass_unattended(601);
    assert_eq!(world.bind(&login, 0x4000, peer(2)).code(), None);
    let events = world.events();
    assert!(
        matches!(
            events[..],
            [Event::RouteGone { .. }, Event::RouteGone { .. }, Event::RouteBound { channel: 0x4000, .. }]
        ),
        "{events:?}"
    );
    assert_eq!(world.channel_data(login.client, 0x4000, b"x").unwrap().0.peer, peer(2));
}

#[test]
fn hundreds_of_channels_work_and_one_too_many_is_508() {
    let mut world = World::with(|options| options.max_peers = 200);
    let login = world.allocated(1);
    let relay = world.relay(Family::V4);
    for n in 0..200u8 {
        assert_eq!(world.bind(&login, 0x4000 + u16::from(n), peer(n)).code(), None);
    }
    assert_eq!(world.bind(&login, 0x4FFF, peer(222)).code(), Some(508));
    assert_eq!(world.permit(&login, &[peer(222)]).code(), Some(508));
    let more_of_one = peer_at(std::net::SocketAddr::new(peer(7).ip(), 7));
    assert_eq!(world.bind(&login, 0x4FFF, more_of_one).code(), Some(508));
    for n in 0..200u8 {
        let number = 0x4000 + u16::from(n);
        assert_eq!(world.channel_data(login.client, number, b"x").unwrap().0.peer, peer(n));
        assert_eq!(world.inbound(relay, peer(n), 1).unwrap().encapsulation, Encapsulation::Channel(number));
    }
    world.events();
    world.pass(599);
    assert_eq!(world.server.allocations(), 1);
    world.refresh(&login, None);
    world.pass(10);
    assert_eq!(world.events().len(), 200, "every route is reported gone");
    assert_eq!(world.bind(&login, 0x4FFF, peer(222)).code(), None);
}

#[test]
fn malformed_channel_data_is_dropped_and_padding_is_not_payload() {
    let mut world = World::new();
    let login = world.allocated(1);
    world.bind(&login, 0x4000, peer(1));
    let route = |world: &mut World, bytes: &[u8]| world.channel_data_raw(&login.client, bytes).map(|(_, range)| range);
    assert_eq!(route(&mut world, &[0x40, 0, 0, 5, 1, 2, 3, 4]), Err(Dropped::Malformed));
    assert_eq!(route(&mut world, &[0x40, 0, 0]), Err(Dropped::Malformed));
    assert_eq!(route(&mut world, &[]), Err(Dropped::Malformed));
    assert_eq!(route(&mut world, &[0x80, 0, 0, 0]), Err(Dropped::Malformed));
    assert_eq!(route(&mut world, &[0x50, 0, 0, 0]), Err(Dropped::NoChannel));
    assert_eq!(route(&mut world, &[0x40, 0, 0, 0]), Ok(4..4));
    assert_eq!(route(&mut world, &[0x40, 0, 0, 5, 1, 2, 3, 4, 5, 0, 0, 0]), Ok(4..9));
    assert_eq!(route(&mut world, &[0x40, 1, 0, 0]), Err(Dropped::NoChannel));
    assert_eq!(route(&mut world, &[0x7F, 0xFF, 0, 0]), Err(Dropped::Malformed));
    assert_eq!(world.channel_data_raw(&client(2), &[0x40, 0, 0, 0]).unwrap_err(), Dropped::NoAllocation);
}
