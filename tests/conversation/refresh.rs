//! Refresh (RFC 8656 section 8).

use turnstone::addr::{Family, Transport};
use turnstone::reject::Dropped;
use turnstone::stun::{AttributeType, Class, Method};
use turnstone::turn::{EndReason, Event};

use crate::harness::*;

fn refresh_family(world: &mut World, login: &Login, family: u8, lifetime_secs: Option<u32>) -> Reply {
    world.request(login, Method::REFRESH, |request| {
        request.attribute(AttributeType::REQUESTED_ADDRESS_FAMILY, &[family, 0, 0, 0]);
        if let Some(secs) = lifetime_secs {
            request.u32(AttributeType::LIFETIME, secs);
        }
    })
}

#[test]
fn a_refresh_sets_the_lifetime_anew() {
    for (requested, granted) in [(None, 600), (Some(1), 600), (Some(900), 900), (Some(100_000), 3600)] {
        let mut world = World::new();
        let login = world.allocated(1);
        world.pass(599);
        let reply = world.refresh(&login, requested);
        assert_eq!(reply.class, Class::Success);
        assert_eq!(reply.lifetime_secs(), granted);
        world.pass(u64::from(granted) - 1);
        assert_eq!(world.server.allocations(), 1);
        world.pass(2);
        assert_eq!(world.server.allocations(), 0);
    }
}

#[test]
fn a_refresh_may_also_shorten() {
    let mut world = World::new();
    let login = world.allocated(1);
    world.refresh(&login, Some(3600));
    world.refresh(&login, Some(700));
    world.pass(701);
    assert_eq!(world.server.allocations(), 0);
}

#[test]
fn zero_ends_the_allocation_and_reports_it_once() {
    let mut world = World::new();
    let login = world.allocated(1);
    let relayed = *world.relays.open.values().next().unwrap();
    world.permit(&login, &[peer(1)]);
    world.bind(&login, 0x4001, peer(2));
    world.send(login.client, peer(1), b"12345").into_peer();
    let relay = world.relay(Family::V4);
    world.inbound(relay, peer(2), 7).unwrap();
    world.pass(10);
    world.events();
    let reply = world.refresh(&login, Some(0));
    assert_eq!(reply.lifetime_secs(), 0);
    assert!(world.relays.open.is_empty());
    assert_eq!(world.server.allocations(), 0);
    assert_eq!(world.server.next_timeout(), None);
    let events = world.events();
    let [Event::RouteGone { channel: 0x4001, .. }, Event::Ended(summary)] = &events[..] else { panic!("{events:?}") };
    assert_eq!(summary.reason, EndReason::Released);
    assert_eq!(&*summary.username, "alice");
    assert_eq!(summary.relayed, [relayed]);
    assert_eq!(summary.duration_micros, 10_000_000);
    assert_eq!((summary.to_peers, summary.to_client, summary.throttled), (traffic(1, 5), traffic(1, 7), 0));
    assert_eq!(world.inbound(relay, peer(2), 7), Err(Dropped::NoAllocation));
    world.pass(10_000);
    assert!(world.events().is_empty());
}

#[test]
fn a_malformed_lifetime_or_family_is_refused() {
    let mut world = World::new();
    let login = world.allocated(1);
    let reply = world.request(&login, Method::REFRESH, |request| {
        request.attribute(AttributeType::LIFETIME, &[0, 0]);
    });
    assert_eq!(reply.code(), Some(400));
    let reply = world.request(&login, Method::REFRESH, |request| {
        request.attribute(AttributeType::REQUESTED_ADDRESS_FAMILY, &[1]);
    });
    assert_eq!(reply.code(), Some(400));
    assert_eq!(world.server.allocations(), 1);
}

#[test]
fn a_family_the_allocation_does_not_have_is_443() {
    let mut world = World::new();
    let login = world.allocated(1);
    for (family, lifetime) in [(2, None), (2, Some(0)), (3, None)] {
        assert_eq!(refresh_family(&mut world, &login, family, lifetime).code(), Some(443));
    }
    assert_eq!(refresh_family(&mut world, &login, 1, None).code(), None);
    assert_eq!(refresh_family(&mut world, &login, 1, Some(0)).code(), None);
    assert_eq!(world.server.allocations(), 0);
}

#[test]
fn one_family_of_a_dual_allocation_can_be_given_up() {
    let mut world = World::new();
    let login = world.allocated_dual(1);
    world.permit(&login, &[peer(1), peer6(1)]);
    world.bind(&login, 0x4004, peer(1));
    world.bind(&login, 0x4006, peer6(1));
    let (v4, v6) = (world.relay(Family::V4), world.relay(Family::V6));
    world.events();

    assert_eq!(refresh_family(&mut world, &login, 1, Some(0)).code(), None);
    assert_eq!(world.relays.open.len(), 1);
    assert!(matches!(world.events()[..], [Event::RouteGone { channel: 0x4004, .. }]));
    assert_eq!(world.inbound(v4, peer(1), 1), Err(Dropped::NoAllocation));
    world.inbound(v6, peer6(1), 1).unwrap();
    world.channel_data(login.client, 0x4006, b"x").unwrap();
    assert_eq!(world.channel_data(login.client, 0x4004, b"x").unwrap_err(), Dropped::NoChannel);
    assert_eq!(world.permit(&login, &[peer(1)]).code(), Some(443));
    assert_eq!(refresh_family(&mut world, &login, 1, Some(0)).code(), Some(443));
    world.check_books();

    assert_eq!(refresh_family(&mut world, &login, 2, Some(0)).code(), None);
    assert_eq!(world.server.allocations(), 0);
    let events = world.events();
    let Some(Event::Ended(summary)) = events.last() else { panic!("{events:?}") };
    assert_eq!(summary.relayed.len(), 2, "the summary has both");
}

#[test]
fn a_family_given_up_leaves_room_for_peers_of_the_other() {
    let mut world = World::with(|options| options.max_peers = 2);
    let login = world.allocated_dual(1);
    assert_eq!(world.permit(&login, &[peer(1), peer6(1)]).code(), None);
    assert_eq!(world.permit(&login, &[peer6(2)]).code(), Some(508));
    assert_eq!(refresh_family(&mut world, &login, 1, Some(0)).code(), None);
    assert_eq!(world.permit(&login, &[peer6(2)]).code(), None);
}

#[test]
fn the_families_of_a_dual_allocation_expire_on_their_own() {
    let mut world = World::new();
    let login = world.allocated_dual(1);
    let v6 = world.relay(Family::V6);
    assert_eq!(refresh_family(&mut world, &login, 2, Some(2000)).lifetime_secs(), 2000);
    world.pass(601);
    assert_eq!(world.server.allocations(), 1);
    assert_eq!(world.relays.open.keys().collect::<Vec<_>>(), [&v6]);
    assert_eq!(world.permit(&login, &[peer(1)]).code(), Some(443));
    assert_eq!(world.permit(&login, &[peer6(1)]).code(), None);
    world.pass(1400);
    assert_eq!(world.server.allocations(), 0);
    world.check_books();
}

#[test]
fn a_closed_connection_ends_its_allocation() {
    let mut world = World::new();
    let login = world.alice(client_over(Transport::Tls, 1));
    world.allocate(&login);
    world.events();
    let other = client_over(Transport::Tls, 2);
    world.server.client_gone(world.now, &other.five_tuple, &mut world.relays);
    assert_eq!(world.server.allocations(), 1);
    world.server.client_gone(world.now, &login.client.five_tuple, &mut world.relays);
    let events = world.events();
    assert!(matches!(&events[..], [Event::Ended(summary)] if summary.reason == EndReason::ClientGone));
    world.check_books();
}
