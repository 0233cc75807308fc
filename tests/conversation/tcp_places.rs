//! The places of connections of TCP relays: what keeps them, and who has to give one up.

use turnstone::reject::Reason;
use turnstone::stun::{AttributeType, Method};
use turnstone::turn::{ConnectError, EndReason, TcpRelays};

use crate::harness::{Login, World, peer, peer6, refusals};
use crate::tcp_relays::{allocate_tcp, begun, connect, holder, notice, world};

fn limited(per_allocation: usize, per_user: usize) -> World {
    let limits = TcpRelays { connections_per_allocation: per_allocation, connections_per_user: per_user };
    world(|options| options.tcp_relays = Some(limits))
}

/// Connects to peers until one is refused; each connection that is made fails. Returns how many there were.
fn scan(world: &mut World, login: &Login, most: u8) -> usize {
    let is_begun = |world: &mut World, n: u8| {
        let before = world.relays.connects.len();
        connect(world, login, peer(n));
        let id = world.relays.connects.get(before).map(|connect| connect.1);
        id.inspect(|id| assert!(world.server.connected(world.now, *id, Err(ConnectError::Failed)))).is_some()
    };
    (1..=most).take_while(|n| is_begun(world, *n)).count()
}

#[test]
fn whoever_releases_an_allocation_and_makes_another_one_looks_for_open_ports_no_faster() {
    let mut world = limited(4, 6);
    let (login, _) = holder(&mut world, 1);
    assert_eq!(scan(&mut world, &login, 9), 4);
    world.refresh(&login, Some(0));
    assert!(world.shared.connection_ids.is_empty(), "there is no socket of it");
    let (second, _) = holder(&mut world, 2);
    assert_eq!(scan(&mut world, &second, 9), 2);
    // Nor does one whose connection closes, or is closed, with another one.
    world.server.client_gone(world.now, &second.client.five_tuple, &mut world.relays);
    world.events();
    for n in 3..9 {
        let (login, _) = holder(&mut world, n);
        assert_eq!(scan(&mut world, &login, 9), 0);
        world.server.end_all(world.now, EndReason::Kicked, &mut world.relays);
    }
    assert_eq!(refusals(&world.events()), [Reason::UserConnections; 6]);
    // Others have their own, and it is over when it would have been.
    let (guest, _) = {
        let login = world.guest(crate::tcp_relays::over_tcp(20), "carol", 3600);
        (login.clone(), assert_eq!(allocate_tcp(&mut world, &login, &[]).code(), None))
    };
    assert_eq!(scan(&mut world, &guest, 9), 4);
    world.pass(11);
    let (login, _) = holder(&mut world, 30);
    assert_eq!(scan(&mut world, &login, 9), 4);
    world.check_books();
}

#[test]
fn a_connect_that_no_peer_has_answered_counts_for_ten_seconds_after_its_allocation() {
    let mut world = limited(2, 2);
    let (login, _) = holder(&mut world, 1);
    // One of a minute ago, but for a second, counts as one that fails now.
    begun(&mut world, &login, peer(1));
    world.pass(29);
    begun(&mut world, &login, peer(2));
    world.refresh(&login, Some(0));
    assert_eq!(world.relays.disconnected.len(), 2);
    world.pass(9);
    let (login, _) = holder(&mut world, 2);
    assert_eq!(connect(&mut world, &login, peer(3)).reply().code(), Some(486));
    world.pass(2);
    let id = begun(&mut world, &login, peer(3));
    // One that has come to something has no more to tell.
    assert!(world.server.connected(world.now, id, Ok(())));
    notice(&mut world);
    world.refresh(&login, Some(0));
    let (login, _) = holder(&mut world, 3);
    assert_eq!(scan(&mut world, &login, 9), 2);
}

#[test]
fn nor_does_giving_up_one_of_two_families_bring_the_places_of_its_failures_back() {
    let mut world = limited(3, 3);
    let login = world.alice(crate::tcp_relays::over_tcp(1));
    assert_eq!(
        allocate_tcp(&mut world, &login, &[(AttributeType::ADDITIONAL_ADDRESS_FAMILY, &[2, 0, 0, 0])]).code(),
        None
    );
    for n in [1, 2] {
        let id = begun(&mut world, &login, peer6(n));
        assert!(n == 1 || world.server.connected(world.now, id, Err(ConnectError::Failed)));
    }
    let reply = world.request(&login, Method::REFRESH, |request| {
        request.attribute(AttributeType::REQUESTED_ADDRESS_FAMILY, &[2, 0, 0, 0]);
        request.u32(AttributeType::LIFETIME, 0);
    });
    assert_eq!((reply.code(), world.relays.disconnected.len()), (None, 1));
    assert_eq!(scan(&mut world, &login, 9), 1);
    world.pass(11);
    assert_eq!(scan(&mut world, &login, 9), 3);
}
