//! The places of connections of TCP relays: what keeps them, and who has to give one up.

use std::net::IpAddr;

use turnstone::addr::PeerAddr;
use turnstone::reject::{Dropped, Reason};
use turnstone::stun::{AttributeType, Method};
use turnstone::turn::{ConnectError, ConnectionId, EndReason, RelayId, TcpRelays};

use crate::harness::{Login, World, peer, peer_at, peer6, refusals};
use crate::tcp_relays::{allocate_tcp, begun, bound, connect, holder, notice, over_tcp, world};

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
        let login = world.guest(over_tcp(20), "carol", 3600);
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
    let login = world.alice(over_tcp(1));
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

/// What comes of a connection from a port of a peer's address.
fn brings(
    world: &mut World,
    relay: RelayId,
    from: PeerAddr,
    port: u16,
) -> Result<(ConnectionId, Option<ConnectionId>), Dropped> {
    let ip: IpAddr = from.ip();
    let result = world.server.accepted(world.now, relay, peer_at((ip, port).into()));
    while notice(world).is_some() {}
    result
}

#[test]
fn a_peer_that_connects_again_and_again_pushes_out_its_own_connections_and_no_others() {
    let mut world = world(|_| {});
    let (login, relay) = holder(&mut world, 1);
    assert_eq!(world.permit(&login, &[peer(1), peer(2), peer(3)]).code(), None);
    let (kept, _) = brings(&mut world, relay, peer(2), 1).unwrap();
    let own: Vec<_> = (1..=8).map(|port| brings(&mut world, relay, peer(1), port).unwrap()).collect();
    assert!(own.iter().all(|(_, gave_way)| gave_way.is_none()));
    let bound_one = own[3].0;
    let data = world.alice(over_tcp(2));
    bound(&mut world, &data, bound_one);
    world.pass(1);
    assert_eq!(brings(&mut world, relay, peer(1), 9).unwrap().1, None, "one is bound: it does not wait");
    let pushed: Vec<_> = (10..50).map(|port| brings(&mut world, relay, peer(1), port).unwrap().1.unwrap()).collect();
    assert!(own.iter().filter(|(id, _)| *id != bound_one).all(|(id, _)| pushed[..7].contains(id)));
    assert!(!pushed.contains(&kept) && !pushed.contains(&bound_one));
    assert!(!world.server.bind_connection(pushed[0]) && world.server.bind_connection(kept));
    // There is room for the client's own and for other peers.
    let (_, gave_way) = brings(&mut world, relay, peer(3), 1).unwrap();
    assert_eq!(gave_way, None);
    for n in 10..30 {
        begun(&mut world, &login, peer(n));
    }
    world.check_books();
}

#[test]
fn what_peers_bring_and_nobody_binds_leaves_half_of_the_places_and_the_least_of_them_theirs() {
    let mut world = limited(8, 100);
    let (login, relay) = holder(&mut world, 1);
    assert_eq!(world.permit(&login, &(1..=9).map(peer).collect::<Vec<_>>()).code(), None);
    let first: Vec<_> = (1..=4).map(|port| brings(&mut world, relay, peer(1), port).unwrap().0).collect();
    world.pass(1);
    // Who has the most gives way to another, down to as many as the other has.
    let given: Vec<_> = (1..=3).map(|n| brings(&mut world, relay, peer(n + 1), 1).unwrap().1).collect();
    assert!(given.iter().all(|id| first.contains(&id.unwrap())));
    assert_eq!(brings(&mut world, relay, peer(8), 1), Err(Dropped::TooManyConnections));
    assert!(brings(&mut world, relay, peer(2), 2).unwrap().1.is_some(), "its own");
    for n in 11..=14 {
        begun(&mut world, &login, peer(n));
    }
    assert_eq!(connect(&mut world, &login, peer(15)).reply().code(), Some(508));
    world.pass(31);
    assert!(brings(&mut world, relay, peer(8), 1).is_ok());
}

#[test]
fn a_quarter_of_a_user_s_places_is_for_what_the_client_connects_to() {
    let mut world = limited(4, 8);
    let holders: Vec<_> = (1..=4).map(|n| holder(&mut world, n)).collect();
    let mut waiting = 0;
    for (login, relay) in &holders {
        assert_eq!(world.permit(login, &[peer(1)]).code(), None);
        waiting += (1..=2).filter(|port| brings(&mut world, *relay, peer(1), *port).is_ok()).count();
    }
    assert_eq!(waiting, 6);
    // One of an address that gives way makes room for another.
    let (_, gave_way) = brings(&mut world, holders[0].1, peer(1), 9).unwrap();
    assert!(gave_way.is_some());
    begun(&mut world, &holders[3].0, peer(5));
    begun(&mut world, &holders[3].0, peer(6));
    assert_eq!(connect(&mut world, &holders[3].0, peer(7)).reply().code(), Some(486));
}
