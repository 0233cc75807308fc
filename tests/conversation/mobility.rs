//! Mobility (RFC 8016): clients that come back from another address, to the same server or to another worker's.

use std::cell::Cell;
use std::sync::Arc;

use turnstone::addr::{Family, Transport};
use turnstone::auth::AskPolicy;
use turnstone::policy::QuotaLimits;
use turnstone::reject::{Dropped, Reason};
use turnstone::stun::{AttributeType, Method};
use turnstone::turn::{AllocationFilter, Client, EndReason, Event, Path, RelayId, Server, StreamId, TicketKey};
use turnstone::user::RealmId;

use crate::harness::*;

impl World {
    /// Data came here for an allocation of the other server, which hands it over.
    pub fn claim(&mut self, client: Client) {
        let (id, owner) = self.server.expected(&client.five_tuple).expect("it is expected");
        assert_ne!(usize::from(owner), self.relays.side);
        self.other_side();
        let (client, parcel) = self.server.take_out_for(self.now, id, &client.five_tuple).expect("it is there");
        self.arrive(client, parcel);
    }

    /// Allocates with a ticket.
    fn allocate_mobile(&mut self, login: &Login) -> Vec<u8> {
        let reply = self.request(login, Method::ALLOCATE, |request| {
            request.attribute(AttributeType::REQUESTED_TRANSPORT, &UDP);
            request.attribute(AttributeType::MOBILITY_TICKET, b"");
        });
        assert_eq!(reply.code(), None);
        reply.get(AttributeType::MOBILITY_TICKET).expect("a ticket")
    }

    fn come_back(&mut self, login: &Login, ticket: &[u8]) -> Reply {
        self.request(login, Method::REFRESH, |request| {
            request.attribute(AttributeType::MOBILITY_TICKET, ticket);
        })
    }

    /// Comes back, and has the next ticket.
    fn come_back_well(&mut self, login: &Login, ticket: &[u8]) -> Vec<u8> {
        let reply = self.come_back(login, ticket);
        assert_eq!((reply.code(), reply.lifetime_secs()), (None, 600));
        let next = reply.get(AttributeType::MOBILITY_TICKET).expect("another ticket");
        assert_ne!(next, ticket);
        next
    }

    fn refused_because(&self) -> Option<Reason> {
        self.server.refused_with().map(|(reason, _)| reason)
    }

    /// The client that a packet of peer 1 goes to.
    fn reached(&mut self) -> Client {
        let relay = self.relay(Family::V4);
        self.inbound(relay, peer(1), 9).unwrap().client
    }
}

fn mobile() -> World {
    World::with(|options| options.mobility = true)
}

/// A mobile client with a channel to peer 1, and its ticket.
fn settled(world: &mut World, client: Client) -> (Login, Vec<u8>) {
    let login = world.alice(client);
    let ticket = world.allocate_mobile(&login);
    assert_eq!(world.bind(&login, 0x4000, peer(1)).code(), None);
    assert_eq!(world.permit(&login, &[peer(2)]).code(), None);
    world.events();
    (login, ticket)
}

fn moves(events: &[Event]) -> Vec<(Client, Client)> {
    let at = |five_tuple: &_| Client { five_tuple: *five_tuple, ..client(0) };
    let moved = |event: &Event| match event {
        Event::Moved { from, five_tuple, .. } => Some((at(from), at(five_tuple))),
        _ => None,
    };
    events.iter().filter_map(moved).collect()
}

fn as_in_event(of: Client) -> Client {
    Client { five_tuple: of.five_tuple, ..client(0) }
}

fn stream(transport: Transport, n: u16) -> Client {
    let path = Path::Stream(StreamId { index: u32::from(n), generation: 1 });
    Client { path, ..client_over(transport, n) }
}

#[test]
fn where_mobility_is_off_a_client_that_asks_for_it_gets_405_and_any_other_never_notices() {
    let mut world = World::new();
    let login = world.alice(client(1));
    for ticket in [b"".as_slice(), b"some bytes"] {
        let reply = world.request(&login, Method::ALLOCATE, |request| {
            request.attribute(AttributeType::REQUESTED_TRANSPORT, &UDP);
            request.attribute(AttributeType::MOBILITY_TICKET, ticket);
        });
        assert_eq!((reply.code(), world.refused_because()), (Some(405), Some(Reason::MobilityForbidden)));
    }
    assert_eq!(world.allocate(&login).get(AttributeType::MOBILITY_TICKET), None);
    assert_eq!(world.come_back(&login, b"some bytes").code(), Some(405));
    assert_eq!(world.refresh(&login, None).get(AttributeType::MOBILITY_TICKET), None);

    // A reload that turns it off refuses tickets that were given out before (section 3.2.2).
    world.reload(|options| options.mobility = true);
    let (_, ticket) = settled(&mut world, client(2));
    world.reload(|options| options.mobility = false);
    let moved = world.alice(client(3));
    let reply = world.come_back(&moved, &ticket);
    // There is no allocation at its 5-tuple.
    assert_eq!(reply.code(), Some(405));
}

#[test]
fn the_old_5_tuple_works_until_data_comes_by_the_new_one_and_then_it_is_nobodys() {
    for with_channel in [true, false] {
        let mut world = mobile();
        let (login, ticket) = settled(&mut world, client(1));
        let moved = world.alice(client(2));
        world.come_back_well(&moved, &ticket);
        // Both ways are there for requests, the old one for data.
        assert_eq!(world.reached(), login.client);
        assert!(world.channel_data(login.client, 0x4000, b"x").is_ok());
        assert_eq!(world.permit(&moved, &[peer(3)]).code(), None);
        assert_eq!(world.permit(&login, &[peer(4)]).code(), None);
        assert_eq!(world.reached(), login.client, "a request does not move it");
        let again = world.request(&moved, Method::ALLOCATE, |request| {
            request.attribute(AttributeType::REQUESTED_TRANSPORT, &UDP);
        });
        assert_eq!(again.code(), Some(437), "the new 5-tuple is in use");
        assert!(moves(&world.events()).is_empty());

        if with_channel {
            assert_eq!(world.channel_data(moved.client, 0x4000, b"abc").unwrap().1, b"abc");
        } else {
            assert_eq!(world.send(moved.client, peer(2), b"abc").into_peer().1, b"abc");
        }
        assert_eq!(world.reached(), moved.client);
        assert_eq!(world.channel_data(login.client, 0x4000, b"x"), Err(Dropped::NoAllocation));
        assert_eq!(world.refresh(&login, None).code(), Some(437));
        let events = world.events();
        assert_eq!(moves(&events), [(as_in_event(login.client), as_in_event(moved.client))]);
        assert!(!events.iter().any(|event| matches!(event, Event::Ended(_) | Event::Allocated { .. })));
        assert_eq!(world.refresh(&moved, None).code(), None);
        assert_eq!((world.allocations(), world.shared.quotas.in_use()), (1, 1));
        world.check_books();
        // The old 5-tuple may be used for something else, which is charged by itself.
        world.allocate(&login);
        assert_eq!((world.allocations(), world.shared.quotas.in_use()), (2, 2));
        world.check_books();
    }
}

#[test]
fn a_lost_answer_is_given_again_to_a_copy_and_to_a_new_request_from_the_same_place() {
    let mut world = mobile();
    let (_, ticket) = settled(&mut world, client(1));
    let moved = world.alice(client(2));
    let bytes = moved.request(world.transaction_id(), Method::REFRESH, |request| {
        request.attribute(AttributeType::MOBILITY_TICKET, &ticket);
    });
    let first = world.hand_in(moved.client, &bytes).reply();
    world.pass(35);
    assert_eq!(world.hand_in(moved.client, &bytes).reply().bytes, first.bytes, "a copy");
    let next = world.come_back_well(&moved, &ticket);
    let third = world.alice(client(3));
    assert_eq!(world.come_back(&third, &ticket).code(), Some(400), "from elsewhere it has been used");
    assert_eq!(world.refused_because(), Some(Reason::UsedTicket));
    world.pass(6);
    assert_eq!(world.come_back(&moved, &ticket).code(), Some(400), "after 40 seconds it has been used");
    // The new ticket is good, of any of the two answers.
    let first = first.get(AttributeType::MOBILITY_TICKET).unwrap();
    assert_ne!(first, next);
    world.come_back_well(&third, &first);
    assert_eq!(world.channel_data(moved.client, 0x4000, b"x"), Err(Dropped::NoAllocation), "the last one counts");
    assert!(world.channel_data(third.client, 0x4000, b"x").is_ok());
    assert_eq!(world.server.pending_moves(), 0);
}

#[test]
fn a_ticket_that_made_the_move_is_known_again_where_the_allocation_is_now() {
    // The connection is gone, so that the move is made at once; the client sends twice, or does not hear the answer.
    let mut world = mobile();
    let (login, ticket) = settled(&mut world, stream(Transport::Tcp, 1));
    world.server.client_gone(world.now, &login.client.five_tuple, &mut world.relays);
    let moved = world.alice(stream(Transport::Tls, 2));
    let first = world.come_back_well(&moved, &ticket);
    assert_eq!(world.reached(), moved.client);
    let second = world.come_back_well(&moved, &ticket);
    assert_ne!(first, second);
    assert!(world.channel_data(moved.client, 0x4000, b"x").is_ok());
    world.pass(35);
    world.come_back_well(&moved, &ticket);
    // It moves nothing, and nobody else.
    assert_eq!((world.server.pending_moves(), moves(&world.events()).len()), (0, 1));
    let elsewhere = world.alice(client(3));
    assert_eq!(
        (world.come_back(&elsewhere, &ticket).code(), world.refused_because()),
        (Some(400), Some(Reason::UsedTicket))
    );
    // The one that is good is not needed here, and the used one is worth nothing when its time is over.
    assert_eq!(
        (world.come_back(&moved, &second).code(), world.refused_because()),
        (Some(400), Some(Reason::TicketNotNeeded))
    );
    world.pass(6);
    assert_eq!(
        (world.come_back(&moved, &ticket).code(), world.refused_because()),
        (Some(400), Some(Reason::TicketNotNeeded))
    );
    world.come_back_well(&elsewhere, &second);
    // Nor while it is to move on: there it was not shown.
    assert_eq!(world.come_back(&moved, &second).code(), Some(400));
    world.check_books();
}

#[test]
fn a_ticket_of_one_realm_is_worth_nothing_in_another_nor_one_of_another_process() {
    let mut world = World::with(|options| {
        options.mobility = true;
        options.realms = vec![RealmOptions::named("b.example")];
    });
    let (login, ticket) = settled(&mut world, client(1));
    let there = |n| Client { realm: RealmId::of("b.example"), ..client(n) };
    // The same name and password, there.
    let other = world.alice(there(2));
    assert_eq!(
        (world.come_back(&other, &ticket).code(), world.refused_because()),
        (Some(441), Some(Reason::WrongUser))
    );
    // With the credential of its own realm: a nonce of that door is none of this one, and then the realm is another one.
    let mut strayed = Login { client: there(1), ..login.clone() };
    assert_eq!(world.come_back(&strayed, &ticket).code(), Some(438));
    strayed.nonce = world.challenge(there(1)).1;
    assert_eq!(
        (world.come_back(&strayed, &ticket).code(), world.refused_because()),
        (Some(401), Some(Reason::WrongRealm))
    );
    // Nor the other way round, and neither has moved.
    let foreign = world.allocate_mobile(&other);
    let moved = world.alice(client(3));
    assert_eq!(world.come_back(&moved, &foreign).code(), Some(441));
    assert_eq!(world.server.pending_moves(), 0);
    world.come_back_well(&moved, &ticket);

    // After a restart, or at a server beside it: what cannot be read is refused, and the client begins afresh.
    let mut restarted = mobile();
    restarted.shared.tickets = Arc::new(TicketKey::new([9; 32]));
    let random = Box::new(|bytes: &mut [u8]| bytes.fill(7));
    restarted.server = Server::new(Arc::clone(&restarted.settings), restarted.shared.clone(), random);
    let moved = restarted.alice(client(1));
    assert_eq!(
        (restarted.come_back(&moved, &ticket).code(), restarted.refused_because()),
        (Some(400), Some(Reason::InvalidTicket))
    );
    restarted.allocate_mobile(&moved);
}

#[test]
fn a_ticket_is_worth_nothing_to_anybody_else() {
    let mut world = mobile();
    let (login, ticket) = settled(&mut world, client(1));
    // Another user of the server, with a credential of his own.
    let bob = world.login(client(2), "bob", "builder");
    assert_eq!(world.come_back(&bob, &ticket).code(), Some(441));
    // Somebody without one.
    let mallory = world.login(client(3), "alice", "guessed");
    let bytes = mallory.request(world.transaction_id(), Method::REFRESH, |request| {
        request.attribute(AttributeType::MOBILITY_TICKET, &ticket);
    });
    assert_eq!(world.hand_in(mallory.client, &bytes).reply().code(), Some(401));
    let bytes = world.bare(Method::REFRESH, |request| {
        request.attribute(AttributeType::MOBILITY_TICKET, &ticket);
    });
    assert_eq!(world.hand_in(mallory.client, &bytes).reply().code(), Some(401));
    assert_eq!(world.channel_data(bob.client, 0x4000, b"x"), Err(Dropped::NoAllocation));
    assert_eq!(world.server.pending_moves(), 0);
    // From where the allocation is.
    assert_eq!(world.come_back(&login, &ticket).code(), Some(400));
    assert_eq!(world.refused_because(), Some(Reason::TicketNotNeeded));
    // From where there is another allocation.
    let other = world.allocated(4);
    assert_eq!(world.come_back(&other, &ticket).code(), Some(437));
    // Made up, and one without a ticket's length.
    let moved = world.alice(client(5));
    for forged in [vec![0; ticket.len()], b"x".to_vec(), Vec::new(), ticket.iter().map(|byte| !byte).collect()] {
        assert_eq!(world.come_back(&moved, &forged).code(), Some(400));
        assert_eq!(world.refused_because(), Some(Reason::InvalidTicket));
    }
    // Its owner comes back all the same, once.
    world.come_back_well(&moved, &ticket);
    assert!(world.channel_data(moved.client, 0x4000, b"x").is_ok());
    // An allocation that is no more.
    assert_eq!(world.refresh(&moved, Some(0)).code(), None);
    let late = world.alice(client(6));
    assert_eq!(world.come_back(&late, &ticket).code(), Some(437));
    world.check_books();
}

#[test]
fn an_allocation_without_a_ticket_has_none_and_one_with_a_ticket_in_its_allocate_is_refused() {
    let mut world = mobile();
    let login = world.alice(client(1));
    let reply = world.request(&login, Method::ALLOCATE, |request| {
        request.attribute(AttributeType::REQUESTED_TRANSPORT, &UDP);
        request.attribute(AttributeType::MOBILITY_TICKET, b"x");
    });
    assert_eq!(reply.code(), Some(400));
    assert_eq!(world.allocate(&login).get(AttributeType::MOBILITY_TICKET), None);
    assert!(world.server.next_timeout().is_some());
    world.server.client_gone(world.now, &login.client.five_tuple, &mut world.relays);
    assert_eq!(world.allocations(), 0);
}

#[test]
fn a_client_ends_its_allocation_by_ticket_and_a_copy_of_that_gets_the_same_answer() {
    let mut world = mobile();
    let (login, ticket) = settled(&mut world, client(1));
    let moved = world.alice(client(2));
    let bytes = moved.request(world.transaction_id(), Method::REFRESH, |request| {
        request.attribute(AttributeType::MOBILITY_TICKET, &ticket).u32(AttributeType::LIFETIME, 0);
    });
    let reply = world.hand_in(moved.client, &bytes).reply();
    assert_eq!((reply.code(), reply.lifetime_secs()), (None, 0));
    assert_eq!(world.hand_in(moved.client, &bytes).reply().bytes, reply.bytes);
    assert_eq!(world.refresh(&login, None).code(), Some(437));
    assert_eq!((world.allocations(), world.server.pending_moves()), (0, 0));
    world.check_books();
}

#[test]
fn a_connection_that_closes_leaves_the_allocation_to_its_client_for_two_minutes() {
    let mut world = mobile();
    let (login, ticket) = settled(&mut world, stream(Transport::Tls, 1));
    world.server.client_gone(world.now, &login.client.five_tuple, &mut world.relays);
    assert_eq!(world.allocations(), 1);
    // The 5-tuple is anybody's.
    let bob = world.login(login.client, "bob", "builder");
    world.allocate(&bob);
    world.pass(100);
    let moved = world.alice(client(2));
    let ticket = world.come_back_well(&moved, &ticket);
    // Nothing is left of the old way: there is nothing to wait for.
    let relay = world.list(&AllocationFilter::default(), None, 9)[0].relayed[0];
    assert_eq!(relay.1, world.now.micros + 600_000_000);
    let way = *world.relays.open.iter().find(|(_, relayed)| **relayed == relay.0).unwrap().0;
    assert_eq!(world.inbound(way, peer(1), 9).unwrap().client, moved.client);
    assert!(world.channel_data(moved.client, 0x4000, b"x").is_ok());
    world.check_books();

    // By a stream again, and then by none.
    let back = world.alice(stream(Transport::Tcp, 3));
    world.come_back_well(&back, &ticket);
    assert!(world.channel_data(back.client, 0x4000, b"x").is_ok());
    world.server.client_gone(world.now, &back.client.five_tuple, &mut world.relays);
    world.pass(119);
    assert_eq!(world.allocations(), 2);
    world.events();
    world.pass(2);
    let events = world.events();
    let reason = events.iter().find_map(|event| match event {
        Event::Ended(summary) => Some(summary.reason),
        _ => None,
    });
    assert_eq!((reason, world.allocations()), (Some(EndReason::ClientGone), 1));
    world.check_books();
}

#[test]
fn the_old_connection_that_closes_moves_it_and_the_new_one_that_closes_does_not_end_it() {
    let mut world = mobile();
    let (login, ticket) = settled(&mut world, stream(Transport::Tcp, 1));
    let moved = world.alice(stream(Transport::Tls, 2));
    let ticket = world.come_back_well(&moved, &ticket);
    assert_eq!(world.reached(), login.client);
    world.server.client_gone(world.now, &login.client.five_tuple, &mut world.relays);
    assert_eq!(world.reached(), moved.client, "RFC 8016 section 3.2.2: closing the old connection moves it");
    let relay = world.list(&AllocationFilter::default(), None, 9)[0].relayed[0];
    assert_eq!(relay.1, world.now.micros + 600_000_000, "it waits for nobody, and lives as long as it was granted");

    let third = world.alice(stream(Transport::Tls, 3));
    let ticket = world.come_back_well(&third, &ticket);
    world.server.client_gone(world.now, &third.client.five_tuple, &mut world.relays);
    assert_eq!((world.server.pending_moves(), world.reached()), (0, moved.client));
    let fourth = world.alice(client(4));
    world.come_back_well(&fourth, &ticket);
    assert!(world.channel_data(fourth.client, 0x4000, b"x").is_ok());
    // After the move, the old connection is not its any more.
    world.server.client_gone(world.now, &moved.client.five_tuple, &mut world.relays);
    assert_eq!(world.reached(), fourth.client);
    world.check_books();
}

#[test]
fn a_move_that_nobody_makes_is_forgotten_and_moves_are_no_faster_than_one_a_second() {
    let mut world = mobile();
    let (login, mut ticket) = settled(&mut world, client(1));
    let mut made = 0;
    for n in 0..20 {
        let moved = world.alice(client(10 + n));
        let reply = world.come_back(&moved, &ticket);
        match reply.code() {
            None => {
                made += 1;
                ticket = reply.get(AttributeType::MOBILITY_TICKET).unwrap();
            }
            code => assert_eq!((code, world.refused_because()), (Some(508), Some(Reason::TooManyMoves))),
        }
        assert_eq!(world.server.pending_moves(), 1);
    }
    assert_eq!(made, 5);
    world.pass(3);
    let moved = world.alice(client(40));
    world.come_back_well(&moved, &ticket);
    for _ in 0..6 {
        world.pass(50);
        assert_eq!(world.refresh(&login, None).code(), None);
    }
    assert_eq!(world.server.pending_moves(), 0);
    assert_eq!(world.channel_data(moved.client, 0x4000, b"x"), Err(Dropped::NoAllocation));
    assert_eq!(world.refresh(&moved, None).code(), Some(437));
    assert!(world.channel_data(login.client, 0x4000, b"x").is_ok());
    world.check_books();
}

#[test]
fn a_user_whose_allocations_move_very_often_is_not_told_of_one_by_one() {
    let mut world = mobile();
    let (login, mut ticket) = settled(&mut world, client(1));
    let alice = world.list(&AllocationFilter::default(), None, 1)[0].user.clone();
    let mut is_frequent = |world: &mut World, n: u16| {
        let moved = world.alice(client(n));
        ticket = world.come_back_well(&moved, &ticket);
        world.send(moved.client, peer(2), b"abc").into_peer();
        let told = world.events().into_iter().find_map(|event| match event {
            Event::Moved { is_frequent, .. } => Some(is_frequent),
            _ => None,
        });
        told.unwrap()
    };
    assert!(!is_frequent(&mut world, 2));
    while world.shared.quotas.tells_move(&alice, world.now.micros) {}
    assert!(is_frequent(&mut world, 3));
    world.pass(2);
    assert!(!is_frequent(&mut world, 4));
    drop(login);
}

#[test]
fn pending_moves_are_bounded_by_user() {
    let mut world = World::with(|options| {
        options.mobility = true;
        options.quota = QuotaLimits::default();
    });
    let refused = Cell::new(0);
    for n in 0..300 {
        world.relays.ports = vec![1024 + n];
        let login = world.alice(client(1000 + n));
        let ticket = world.allocate_mobile(&login);
        let moved = world.alice(client(2000 + n));
        if world.come_back(&moved, &ticket).code() == Some(508) {
            refused.set(refused.get() + 1);
        }
    }
    assert_eq!((world.server.pending_moves(), refused.get()), (256, 44));
    world.server.end_all(world.now, EndReason::Shutdown, &mut world.relays);
    assert_eq!(world.server.pending_moves(), 0, "what ends leaves nothing");
    world.check_books();
}

/// A mobile client at the first of two servers, and the same one at the second.
fn between_two() -> (World, Login, Login, Vec<u8>) {
    let mut world = mobile();
    world.split();
    let (login, ticket) = settled(&mut world, client(1));
    world.other_side();
    let moved = world.alice(client(2));
    (world, login, moved, ticket)
}

#[test]
fn a_client_that_comes_to_another_worker_finds_its_allocation_there_once_it_sends_data() {
    let (mut world, login, moved, ticket) = between_two();
    let relays = |world: &World| world.relays.open.keys().copied().collect::<Vec<RelayId>>();
    let ticket = world.come_back_well(&moved, &ticket);
    assert_eq!(world.server.allocations(), 0, "it stays where it was");
    assert_eq!(world.permit(&moved, &[peer(5)]).code(), None, "requests are passed on");
    let again = world.request(&moved, Method::ALLOCATE, |request| {
        request.attribute(AttributeType::REQUESTED_TRANSPORT, &UDP);
    });
    assert_eq!(again.code(), Some(437));
    assert!(world.server.has_allocation(&moved.client.five_tuple));
    world.other_side();
    assert!(world.channel_data(login.client, 0x4000, b"123").is_ok());
    assert_eq!(world.reached(), login.client);
    let before = relays(&world);

    world.other_side();
    assert_eq!(world.channel_data(moved.client, 0x4000, b"x"), Err(Dropped::Moving));
    world.claim(moved.client);
    assert_ne!(relays(&world), before, "the sockets went along");
    assert!(world.channel_data(moved.client, 0x4000, b"abc").is_ok());
    assert_eq!(world.reached(), moved.client);
    let view = world.list(&AllocationFilter::default(), None, 9).pop().unwrap();
    assert_eq!((view.five_tuple, view.id.worker(), view.to_peers), (moved.client.five_tuple, 0, traffic(2, 6)));
    let events = world.events();
    assert_eq!(moves(&events), [(as_in_event(login.client), as_in_event(moved.client))]);
    assert_eq!((world.allocations(), world.shared.quotas.in_use()), (1, 1));
    world.other_side();
    assert_eq!(world.channel_data(login.client, 0x4000, b"x"), Err(Dropped::NoAllocation));
    world.check_books();

    // And back again, where its id was made.
    let back = world.alice(client(3));
    let ticket = world.come_back_well(&back, &ticket);
    assert_eq!(world.send(back.client, peer(2), b"x").dropped(), Dropped::Moving);
    world.claim(back.client);
    assert!(world.channel_data(back.client, 0x4000, b"abc").is_ok());
    world.check_books();

    // A ticket of an allocation that has ended, wherever it is shown.
    assert_eq!(world.refresh(&back, Some(0)).code(), None);
    for _ in 0..2 {
        world.other_side();
        let late = world.alice(client(9));
        assert_eq!(world.come_back(&late, &ticket).code(), Some(437));
    }
}

#[test]
fn what_another_worker_expects_is_forgotten_when_the_move_is_not_made() {
    // Because the allocation ends.
    let (mut world, login, moved, ticket) = between_two();
    world.come_back_well(&moved, &ticket);
    world.other_side();
    assert_eq!(world.refresh(&login, Some(0)).code(), None);
    world.follow_orders();
    world.other_side();
    assert_eq!(world.server.expected(&moved.client.five_tuple), None);
    assert_eq!(world.channel_data(moved.client, 0x4000, b"x"), Err(Dropped::NoAllocation));
    world.allocate(&moved);

    // Because the client has gone on to another place.
    let (mut world, _, moved, ticket) = between_two();
    let ticket = world.come_back_well(&moved, &ticket);
    world.other_side();
    let third = world.alice(client(3));
    world.come_back_well(&third, &ticket);
    world.follow_orders();
    world.other_side();
    assert_eq!(world.server.expected(&moved.client.five_tuple), None);

    // Because time is over, at either of the two.
    let (mut world, login, moved, ticket) = between_two();
    world.come_back_well(&moved, &ticket);
    world.other_side();
    world.pass(250);
    world.refresh(&login, None);
    world.pass(51);
    world.follow_orders();
    assert_eq!(world.server.pending_moves(), 0);
    world.other_side();
    assert_eq!(world.server.expected(&moved.client.five_tuple), None);
}

#[test]
fn a_new_connection_that_closes_at_another_worker_takes_its_move_back_and_what_is_granted_anew_is_expected_anew() {
    let (mut world, login, _, ticket) = between_two();
    let moved = world.alice(stream(Transport::Tls, 2));
    let ticket = world.come_back_well(&moved, &ticket);
    world.server.client_gone(world.now, &moved.client.five_tuple, &mut world.relays);
    world.follow_orders();
    assert_eq!(world.server.expected(&moved.client.five_tuple), None);
    world.other_side();
    assert_eq!(world.server.pending_moves(), 0, "nobody is there that it could move to");
    assert!(world.channel_data(login.client, 0x4000, b"x").is_ok());

    // Two minutes before it would be forgotten, it is shown once more.
    world.other_side();
    let moved = world.alice(client(5));
    let ticket = world.come_back_well(&moved, &ticket);
    world.pass(180);
    world.come_back_well(&moved, &ticket);
    world.pass(180);
    assert_eq!(world.channel_data(moved.client, 0x4000, b"x"), Err(Dropped::Moving));
    world.claim(moved.client);
    assert!(world.channel_data(moved.client, 0x4000, b"x").is_ok());
    world.check_books();
}

#[test]
fn between_workers_the_old_connection_that_closes_hands_it_over_and_a_secret_may_have_been_changed() {
    let mut world = mobile();
    world.split();
    let guest = world.guest(stream(Transport::Tcp, 1), "ann", 50);
    let ticket = world.allocate_mobile(&guest);
    world.permit(&guest, &[peer(1)]);
    // Neither the secret nor the credential is good any more: the allocation's holds.
    world.reload(|options| options.secrets = vec![b"another secret"]);
    world.pass(60);
    world.other_side();
    let mut moved = guest.clone();
    moved.client = stream(Transport::Tls, 2);
    moved.nonce = world.challenge(moved.client).1;
    world.come_back_well(&moved, &ticket);
    world.other_side();
    world.server.client_gone(world.now, &guest.client.five_tuple, &mut world.relays);
    assert_eq!(world.server.allocations(), 1, "until it has been handed over");
    world.follow_orders();
    assert_eq!(world.server.allocations(), 0);
    world.other_side();
    assert_eq!(world.reached(), moved.client);
    let relay = world.list(&AllocationFilter::default(), None, 9)[0].relayed[0];
    assert_eq!(relay.1, world.now.micros + 600_000_000);
    world.check_books();
}

#[test]
fn where_users_are_asked_about_a_request_that_was_passed_on_never_waits_at_a_server_that_could_not_answer_it() {
    let mut world = World::with(|options| {
        options.mobility = true;
        options.asks = Some(AskPolicy::default());
    });
    world.split();
    let (_, ticket) = settled(&mut world, client(1));
    world.other_side();
    let stranger = world.login(client(2), "somebody", "else");
    // Nobody knows him here, and who asks at his own door still is asked about.
    assert_eq!(world.come_back(&stranger, &ticket).code(), Some(401));
    let bytes = stranger.request(world.transaction_id(), Method::ALLOCATE, |request| {
        request.attribute(AttributeType::REQUESTED_TRANSPORT, &UDP);
    });
    assert!(matches!(world.hand_in(stranger.client, &bytes), Answer::Waits));
    let moved = world.alice(client(3));
    world.come_back_well(&moved, &ticket);
}

#[test]
fn what_it_has_of_mobility_goes_along_to_another_process() {
    let (mut world, login, _, ticket) = between_two();
    world.other_side();
    let id = world.list(&AllocationFilter::default(), None, 1)[0].id;
    world.move_as_parts(id, login.client);
    let moved = world.alice(client(7));
    let next = world.come_back_well(&moved, &ticket);
    assert!(world.channel_data(moved.client, 0x4000, b"x").is_ok());
    world.move_over(id, moved.client);
    let third = world.alice(client(8));
    assert_eq!(world.come_back(&third, &ticket).code(), Some(400));
    world.come_back_well(&third, &next);
    world.check_books();
}
