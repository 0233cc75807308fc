//! Clients that want all there is, and surroundings that change at the wrong moment.

use turnstone::addr::Family;
use turnstone::turn::EndReason;

use super::*;

/// Whether an Allocate of a client at this address waits.
fn waits_at(world: &mut World, address: SocketAddr) -> bool {
    let carol = world.someone(client_at(address), "carol");
    let bytes = world.allocation_of(&carol);
    matches!(world.hand_in(carol.client, &bytes), Answer::Waits)
}

#[test]
fn no_network_however_wide_has_more_than_half_of_the_places() {
    let mut world = asking_within(|policy| {
        policy.waiting_max = 100;
        policy.waiting_per_network_max = 8;
    });
    // A /32, with a /48 for each address.
    let of_32 =
        (0..200_u16).filter(|n| waits_at(&mut world, SocketAddr::from(([0x2a03, 7, *n, 1, 0, 0, 0, 1], 4000)))).count();
    assert_eq!(of_32, 50);
    let others = (0..60_u8).filter(|n| waits_at(&mut world, SocketAddr::from(([100 + n, 1, 1, 1], 4000))));
    assert_eq!(others.count(), 50);
    assert_eq!(world.tell_all(known).len(), 100);
}

#[test]
fn one_client_has_some_places_of_its_network_and_its_neighbours_the_others() {
    let mut world = asking();
    let mallory = world.someone(client_at(SocketAddr::from(([91, 20, 5, 1], 4000))), "mallory");
    let waiting = (0..100).filter(|_| {
        let bytes = world.allocation_of(&mallory);
        matches!(world.hand_in(mallory.client, &bytes), Answer::Waits)
    });
    assert_eq!(waiting.count(), 8);
    assert!(waits_at(&mut world, SocketAddr::from(([91, 20, 5, 2], 4000))), "a neighbour");
    assert_eq!(world.tell_all(|_| Told::Unknown).len(), 9);
    let bytes = world.allocation_of(&mallory);
    world.pass(5);
    assert!(matches!(world.hand_in(mallory.client, &bytes), Answer::Waits), "its places are free again");
}

#[test]
fn what_has_waited_long_enough_at_one_moment_is_let_go_a_part_at_a_time() {
    let mut world = asking();
    let addresses = (0..200_u8).map(|n| SocketAddr::from(([20 + n, 1, 1, 1], 4000)));
    assert!(addresses.into_iter().all(|address| waits_at(&mut world, address)));
    world.pass_unattended(6);
    let mut parts = Vec::new();
    while world.server.next_timeout().is_some_and(|due| due <= world.now.micros) {
        world.server.handle_timeout(world.now, &mut world.relays);
        parts.push(std::iter::from_fn(|| world.next_late()).count());
    }
    assert_eq!(parts, [64, 64, 64, 8]);
    assert_eq!((world.server.waiting().requests, world.server.next_timeout()), (0, None));
}

#[test]
fn an_answer_for_a_realm_of_before_a_reload_is_not_taken_for_the_realm_of_now() {
    let mut world = asking();
    let keys_of = |login: &Login| {
        let md5: [u8; 16] = login.key.as_bytes().try_into().unwrap();
        let sha256: [u8; 32] = login.sha256_key.as_bytes().try_into().unwrap();
        Told::Known(KnownCredential::from_keys(md5, sha256))
    };
    let before = world.someone(client(1), "carol");
    let nobody_before = world.someone(client(2), "dave");
    world.wait_for(&before);
    let ask = world.asked();
    world.wait_for(&nobody_before);
    let nobody = world.asked();
    world.reload(|options| options.realm = OTHER_REALM);
    // Digests of the old realm are no keys in the new one, and who was nobody there may be somebody here.
    assert!(world.tell(&ask, keys_of(&before)) && world.tell(&nobody, Told::Unknown));
    for _ in 0..2 {
        let (_, answer) = world.next_late().unwrap();
        let reply = answer.reply();
        assert_eq!(reply.code(), Some(401));
        assert_eq!(reply.get(AttributeType::REALM).unwrap(), OTHER_REALM.as_bytes());
        assert_eq!(world.server.refused_with(), Some((Reason::WrongRealm, None)));
    }
    for (n, name) in [(1, "carol"), (2, "dave")] {
        let login = world.someone(client(n), name);
        world.wait_for(&login);
        let ask = world.server.poll_ask().unwrap();
        assert!(world.tell(&ask, keys_of(&login)));
        assert_eq!(world.late().1.code(), None);
    }
}

#[test]
fn who_waits_while_draining_begins_or_the_server_stops_gets_no_allocation() {
    let mut world = asking();
    let carol = world.someone(client(1), "carol");
    world.wait_for(&carol);
    let dave = world.someone(client(2), "dave");
    world.wait_for(&dave);
    world.server.set_draining(true);
    let ask = world.server.poll_ask().unwrap();
    world.tell(&ask, known("carol"));
    assert_eq!(world.late().1.code(), Some(508));
    world.server.end_all(world.now, EndReason::Shutdown, &mut world.relays);
    assert_eq!(world.tell_all(known).len(), 1);
    assert_eq!((world.server.allocations(), world.relays.taken_ports()), (0, 0));
    world.check_books();
}

#[test]
fn a_clock_that_is_set_back_or_forth_leaves_deadlines_as_they_are_and_nonces_are_judged_anew() {
    let mut world = asking();
    let carol = world.someone(client(1), "carol");
    world.wait_for(&carol);
    let ask = world.asked();
    world.now.unix_secs += 10 * 3600;
    world.server.handle_timeout(world.now, &mut world.relays);
    assert!(world.next_late().is_none(), "monotonic time has not passed");
    world.tell(&ask, known("carol"));
    let (_, reply) = world.late();
    assert_eq!(reply.code(), Some(438), "by the clock of now its nonce is too old");
    let carol = Login { nonce: reply.get(AttributeType::NONCE).unwrap(), ..carol };
    assert_eq!(world.allocate(&carol).code(), None);
    assert!(world.relays.open.contains_key(&world.relay(Family::V4)));
}
