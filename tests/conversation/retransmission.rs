//! Retransmitted requests are answered identically (RFC 8489 section 6.3.1, RFC 8656 sections 7.2 and 8.2).

use turnstone::addr::Transport;
use turnstone::stun::{AttributeType, Encoder, Method};

use crate::harness::*;

fn plain(request: &mut Encoder<'_>) {
    request.attribute(AttributeType::REQUESTED_TRANSPORT, &UDP);
}

#[test]
fn a_retransmitted_allocate_gets_the_same_bytes_and_no_second_allocation() {
    let mut world = World::new();
    let login = world.alice(client(1));
    let id = world.transaction_id();
    let request = login.request(id, Method::ALLOCATE, |request| {
        plain(request);
        request.attribute(AttributeType::EVEN_PORT, &[0x80]);
    });
    let first = world.hand_in(login.client, &request).reply();
    assert!(first.get(AttributeType::RESERVATION_TOKEN).is_some());
    for _ in 0..6 {
        world.pass(6);
        assert_eq!(world.hand_in(login.client, &request).reply().bytes, first.bytes);
    }
    assert_eq!((world.server.allocations(), world.relays.taken_ports()), (1, 2));
    world.pass(5);
    assert_eq!(world.hand_in(login.client, &request).reply().code(), Some(437), "after 40 seconds it is a new request");
}

#[test]
fn only_the_same_bytes_on_the_same_5_tuple_are_a_retransmission() {
    let mut world = World::new();
    let login = world.alice(client(1));
    let id = world.transaction_id();
    let request = login.request(id, Method::ALLOCATE, plain);
    world.hand_in(login.client, &request).reply();
    let altered = login.request(id, Method::ALLOCATE, |request| {
        plain(request);
        request.u32(AttributeType::LIFETIME, 900);
    });
    assert_eq!(world.hand_in(login.client, &altered).reply().code(), Some(437));
    assert_eq!(world.hand_in(client(2), &request).reply().code(), Some(438), "another client's nonce");
}

#[test]
fn every_method_and_also_an_error_is_answered_identically() {
    let mut world = World::new();
    let login = world.allocated(1);
    let bind = |channel: u32, peer: turnstone::addr::PeerAddr| {
        move |request: &mut Encoder<'_>| {
            request.u32(AttributeType::CHANNEL_NUMBER, channel << 16);
            request.xor_address(AttributeType::XOR_PEER_ADDRESS, peer.get());
        }
    };
    type Build = Box<dyn Fn(&mut Encoder<'_>)>;
    let requests: [(Method, Build); 4] = [
        (Method::REFRESH, Box::new(|_| {})),
        (Method::CREATE_PERMISSION, Box::new(bind(0, peer(1)))),
        (Method::CHANNEL_BIND, Box::new(bind(0x4000, peer(1)))),
        (Method::CHANNEL_BIND, Box::new(bind(0x4000, peer(2)))),
    ];
    for (method, build) in requests {
        let request = login.request(world.transaction_id(), method, build);
        let first = world.hand_in(login.client, &request).reply();
        assert!(first.is_signed_by(&login));
        world.events();
        world.pass(1);
        assert_eq!(world.hand_in(login.client, &request).reply().bytes, first.bytes);
        assert!(world.events().is_empty(), "{method:?} was not handled again");
    }
}

#[test]
fn a_retransmitted_refresh_to_zero_gets_its_success_again_for_40_seconds() {
    let mut world = World::new();
    let login = world.allocated(1);
    let id = world.transaction_id();
    let release = login.request(id, Method::REFRESH, |request| {
        request.u32(AttributeType::LIFETIME, 0);
    });
    let first = world.hand_in(login.client, &release).reply();
    assert_eq!(first.code(), None);
    world.pass(39);
    assert_eq!(world.hand_in(login.client, &release).reply().bytes, first.bytes);
    assert_eq!(world.refresh(&login, Some(0)).code(), Some(437), "a new request is none");
    world.pass(2);
    assert_eq!(world.hand_in(login.client, &release).reply().code(), Some(437));
}

#[test]
fn a_late_copy_of_the_release_does_not_end_the_next_allocation() {
    let mut world = World::new();
    let login = world.allocated(1);
    let id = world.transaction_id();
    let release = login.request(id, Method::REFRESH, |request| {
        request.u32(AttributeType::LIFETIME, 0);
    });
    let first = world.hand_in(login.client, &release).reply();
    world.allocate(&login);
    assert_eq!(world.hand_in(login.client, &release).reply().bytes, first.bytes);
    assert_eq!(world.server.allocations(), 1);
}

#[test]
fn tombstones_are_bounded() {
    let mut world = World::new();
    let mut first = None;
    for n in 0..1100 {
        let login = world.allocated(n);
        let id = world.transaction_id();
        let release = login.request(id, Method::REFRESH, |request| {
            request.u32(AttributeType::LIFETIME, 0);
        });
        assert_eq!(world.hand_in(login.client, &release).reply().code(), None);
        first.get_or_insert((login, release));
    }
    let (login, release) = first.unwrap();
    assert_eq!(world.hand_in(login.client, &release).reply().code(), Some(437));
    world.check_books();
}

#[test]
fn streams_do_not_retransmit() {
    let mut world = World::new();
    let login = world.alice(client_over(Transport::Tcp, 1));
    let id = world.transaction_id();
    let request = login.request(id, Method::ALLOCATE, plain);
    assert_eq!(world.hand_in(login.client, &request).reply().code(), None);
    assert_eq!(world.hand_in(login.client, &request).reply().code(), Some(437));
}
