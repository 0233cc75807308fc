//! Relay ports that allocations share: no packet reaches an allocation that has no permission for its source, whatever happens; and what
//! an endpoint's first client, the others, and strangers get.

use std::collections::HashMap;
use std::net::IpAddr;

use proptest::prelude::*;
use turnstone::addr::PeerAddr;
use turnstone::reject::{Dropped, Reason};
use turnstone::stun::{AttributeType, Method};
use turnstone::turn::{Client, EndReason, Event, RelayId, ToClient};

use crate::harness::*;

const PORTS: [u16; 2] = [3480, 3481];

/// The id of a shared port's socket.
fn port(n: usize) -> RelayId {
    RelayId { index: 900 + n as u32, generation: 1 }
}

fn world(ports: usize, change: impl FnOnce(&mut Options)) -> World {
    let mut world = World::with(|options| {
        options.rules.relay_ports = (3480, 3487);
        change(options);
    });
    world.relays.shared =
        PORTS.iter().take(ports).enumerate().map(|(n, port_number)| (*port_number, port(n))).collect();
    world
}

fn at(ip: u8, port: u16) -> PeerAddr {
    peer_at(([8, 8, 8, ip], port).into())
}

fn client_of(routed: Result<ToClient, Dropped>) -> Result<Client, Dropped> {
    routed.map(|to| to.client)
}

#[test]
fn an_endpoint_is_the_first_client_s_and_the_second_is_told_why_not() {
    let mut world = world(1, |_| {});
    let (one, two) = (world.allocated(1), world.guest(client(2), "bob", 600));
    world.allocate(&two);
    assert_eq!(world.bind(&one, 0x4000, at(1, 5000)).code(), None);
    assert_eq!(world.bind(&one, 0x4000, at(1, 5000)).code(), None, "a refresh");
    world.events();
    assert_eq!(world.bind(&two, 0x4000, at(1, 5000)).code(), Some(508));
    assert_eq!(refusals(&world.events()), [Reason::PeerEndpointTaken]);
    assert_eq!(world.permit(&two, &[at(1, 1)]).code(), None, "a permission is never refused for it");
    assert_eq!(world.send(two.client, at(1, 5000), b"x").dropped(), Dropped::PeerEndpointTaken);
    assert_eq!(refusals(&world.events()), [Reason::PeerEndpointTaken], "explained, too");
    assert!(world.send(two.client, at(1, 5001), b"x").is_to_peer(), "another endpoint of the same address");
    assert_eq!(client_of(world.inbound(port(0), at(1, 5000), 9)), Ok(one.client));
    assert_eq!(client_of(world.inbound(port(0), at(1, 5001), 9)), Ok(two.client));
    assert_eq!(client_of(world.inbound(port(0), at(1, 5002), 9)), Err(Dropped::SeveralPermissions));
    // It is free as soon as its owner is gone.
    world.refresh(&one, Some(0));
    assert_eq!(client_of(world.inbound(port(0), at(1, 5000), 9)), Ok(two.client), "alone with a permission");
    assert!(world.send(two.client, at(1, 5000), b"x").is_to_peer());
    world.check_books();
}

#[test]
fn early_packets_reach_who_alone_has_a_permission_and_nobody_reaches_a_port_without() {
    let mut world = world(1, |_| {});
    let (one, two) = (world.allocated(1), world.allocated(2));
    assert_eq!(client_of(world.inbound(port(0), at(1, 7), 9)), Err(Dropped::NoPermission));
    world.permit(&one, &[at(1, 1)]);
    assert_eq!(client_of(world.inbound(port(0), at(1, 7), 9)), Ok(one.client));
    world.permit(&two, &[at(1, 1)]);
    assert_eq!(client_of(world.inbound(port(0), at(1, 7), 9)), Err(Dropped::SeveralPermissions));
    // The first lets its permission run out.
    world.pass(200);
    world.permit(&two, &[at(1, 1)]);
    world.pass(101);
    assert_eq!(client_of(world.inbound(port(0), at(1, 7), 9)), Ok(two.client));
    world.pass(300);
    assert_eq!(client_of(world.inbound(port(0), at(1, 7), 9)), Err(Dropped::NoPermission));
}

#[test]
fn many_with_a_permission_for_one_address_are_several_until_one_is_left() {
    let mut world = world(1, |_| {});
    let logins: Vec<_> = (1..=9).map(|n| world.allocated(n)).collect();
    logins.iter().for_each(|login| assert_eq!(world.permit(login, &[at(1, 1)]).code(), None));
    assert_eq!(client_of(world.inbound(port(0), at(1, 7), 9)), Err(Dropped::SeveralPermissions));
    for login in &logins[1..] {
        world.refresh(login, Some(0));
    }
    world.pass(299);
    world.permit(&logins[0], &[at(1, 1)]);
    world.pass(2);
    assert_eq!(client_of(world.inbound(port(0), at(1, 7), 9)), Ok(logins[0].client));
}

#[test]
fn only_the_same_user_takes_over_an_endpoint_and_only_after_thirty_seconds_of_silence() {
    let mut world = world(1, |_| {});
    let (old, new) = (world.allocated(1), world.allocated(2));
    let other = world.guest(client(3), "bob", 3600);
    world.allocate(&other);
    for login in [&old, &new, &other] {
        world.permit(login, &[at(1, 1)]);
    }
    assert_eq!(world.bind(&old, 0x4000, at(1, 5000)).code(), None);
    world.pass(29);
    assert_eq!(world.bind(&new, 0x4000, at(1, 5000)).code(), Some(508));
    assert!(world.inbound(port(0), at(1, 5000), 9).is_ok());
    world.pass(29);
    assert_eq!(world.bind(&new, 0x4000, at(1, 5000)).code(), Some(508), "heard of meanwhile");
    world.pass(1);
    assert_eq!(world.bind(&other, 0x4000, at(1, 5000)).code(), Some(508), "another user");
    assert_eq!(world.bind(&new, 0x4000, at(1, 5000)).code(), None);
    assert_eq!(client_of(world.inbound(port(0), at(1, 5000), 9)), Ok(new.client));
    assert_eq!(world.bind(&old, 0x4000, at(1, 5000)).code(), Some(508), "it is the other's now");
}

#[test]
fn an_allocation_has_so_many_endpoints_and_silent_ones_give_way() {
    let mut world = world(1, |options| options.max_peers = 3);
    let one = world.allocated(1);
    world.permit(&one, &[at(1, 1)]);
    world.bind(&one, 0x4000, at(1, 1));
    for n in 2..=3 {
        assert!(world.send(one.client, at(1, n), b"x").is_to_peer());
    }
    for n in 4..100 {
        assert_eq!(world.send(one.client, at(1, n), b"x").dropped(), Dropped::PeerEndpointTaken);
    }
    world.pass(29);
    assert!(world.send(one.client, at(1, 3), b"x").is_to_peer());
    world.pass(1);
    assert!(world.send(one.client, at(1, 4), b"x").is_to_peer(), "in place of the silent one");
    world.pass(1);
    assert_eq!(world.send(one.client, at(1, 2), b"x").dropped(), Dropped::PeerEndpointTaken);
    assert!(world.send(one.client, at(1, 1), b"x").is_to_peer(), "a channel's does not give way");
}

#[test]
fn pairs_of_ports_and_reservations_are_refused_and_icmp_errors_find_their_client() {
    let mut world = world(2, |_| {});
    let login = world.alice(client(1));
    let reply = world.request(&login, Method::ALLOCATE, |request| {
        request.attribute(AttributeType::REQUESTED_TRANSPORT, &UDP);
        request.attribute(AttributeType::EVEN_PORT, &[0]);
    });
    assert_eq!(reply.code(), Some(508));
    assert_eq!(refusals(&world.events()).last(), Some(&Reason::SharedPorts));
    let relayed = world.allocate(&login).relayed().port();
    let two = world.allocated(2);
    let on = |relayed: u16| port(PORTS.iter().position(|port| *port == relayed).unwrap());
    world.bind(&login, 0x4000, at(1, 5000));
    world.bind(&two, 0x4000, at(1, 5000));
    let icmp = |world: &mut World, port, peer: PeerAddr| {
        world.server.handle_icmp(world.now, port, peer.get(), (3, 3, [0; 4]), &mut Vec::new())
    };
    assert_eq!(icmp(&mut world, on(relayed), at(1, 5000)), Some(login.client));
    assert_eq!(icmp(&mut world, on(relayed), at(1, 5001)), None);
    let other = if on(relayed) == port(0) { port(1) } else { port(0) };
    assert_eq!(icmp(&mut world, other, at(1, 5000)), Some(two.client), "the least used port is another one");
}

/// What a random world does.
#[derive(Clone, Debug)]
enum Step {
    Allocate(usize),
    Release(usize),
    Permit(usize, u8),
    Bind(usize, u16, u8, u16),
    Send(usize, u8, u16),
    Inbound(usize, u8, u16),
    Deny(u8),
    Allow,
    Kick,
    Pass(u64),
}

fn steps() -> impl Strategy<Value = Step> {
    let (client, ip, peer_port) = (0..5usize, 1..4u8, 1..4u16);
    prop_oneof![
        3 => client.clone().prop_map(Step::Allocate),
        1 => client.clone().prop_map(Step::Release),
        5 => (client.clone(), ip.clone()).prop_map(|(client, ip)| Step::Permit(client, ip)),
        5 => (client.clone(), 0x4000..0x4004u16, ip.clone(), peer_port.clone())
            .prop_map(|(client, channel, ip, port)| Step::Bind(client, channel, ip, port)),
        5 => (client, ip.clone(), peer_port.clone()).prop_map(|(client, ip, port)| Step::Send(client, ip, port)),
        12 => (0..2usize, ip.clone(), peer_port).prop_map(|(port, ip, peer_port)| Step::Inbound(port, ip, peer_port)),
        1 => ip.prop_map(Step::Deny),
        1 => Just(Step::Allow),
        1 => Just(Step::Kick),
        3 => prop_oneof![0..40u64, 250..350u64, 590..620u64].prop_map(Step::Pass),
    ]
}

/// What a client may be sent, by a book of the test's own.
#[derive(Default)]
struct Book {
    port: Option<usize>,
    permissions: HashMap<IpAddr, u64>,
    channels: HashMap<PeerAddr, u64>,
}

impl Book {
    fn permits(&self, peer: PeerAddr, now: u64) -> bool {
        self.permissions.get(&peer.ip()).is_some_and(|until| *until > now)
            || self.channels.get(&peer).is_some_and(|until| *until > now)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn no_packet_ever_reaches_an_allocation_without_a_permission_for_its_source(
        steps in proptest::collection::vec(steps(), 1..120)
    ) {
        let mut world = world(2, |options| options.max_peers = 4);
        let logins: Vec<_> = (0..5u16).map(|n| {
            let user = if n < 3 { "ann" } else { "bob" };
            world.guest(client(n), user, 1_000_000)
        }).collect();
        let mut books: Vec<Book> = (0..5).map(|_| Book::default()).collect();
        let index_of = |to: Client| logins.iter().position(|login| login.client == to).unwrap();
        for step in steps {
            let now = world.now.micros;
            match step {
                Step::Allocate(n) => {
                    let reply = world.request(&logins[n], Method::ALLOCATE, |request| {
                        request.attribute(AttributeType::REQUESTED_TRANSPORT, &UDP);
                        request.u32(AttributeType::LIFETIME, 3600);
                    });
                    if reply.code().is_none() {
                        let relayed = reply.relayed().port();
                        let port = PORTS.iter().position(|port| *port == relayed);
                        books[n] = Book { port, ..Book::default() };
                    }
                }
                Step::Release(n) => {
                    if world.refresh(&logins[n], Some(0)).code().is_none() {
                        books[n] = Book::default();
                    }
                }
                Step::Permit(n, ip) => {
                    if world.permit(&logins[n], &[at(ip, 1)]).code().is_none() {
                        books[n].permissions.insert(at(ip, 1).ip(), now + 300_000_000);
                    }
                }
                Step::Bind(n, channel, ip, port) => {
                    let peer = at(ip, port);
                    if world.bind(&logins[n], channel, peer).code().is_none() {
                        books[n].permissions.insert(peer.ip(), now + 300_000_000);
                        books[n].channels.insert(peer, now + 600_000_000);
                    }
                }
                Step::Send(n, ip, peer_port) => {
                    let peer = at(ip, peer_port);
                    if world.send(logins[n].client, peer, b"x").is_to_peer() {
                        prop_assert!(books[n].permits(peer, now));
                        // Its answer finds the way back: nobody else is in between.
                        let routed = client_of(world.inbound(port(books[n].port.unwrap()), peer, 3));
                        prop_assert_eq!(routed, Ok(logins[n].client));
                    }
                }
                Step::Inbound(n, ip, peer_port) => {
                    let peer = at(ip, peer_port);
                    let may: Vec<_> =
                        (0..5).filter(|book| books[*book].port == Some(n) && books[*book].permits(peer, now)).collect();
                    match client_of(world.inbound(port(n), peer, 100)) {
                        Ok(to) => prop_assert!(may.contains(&index_of(to)), "{to:?} has no permission for {peer:?}"),
                        // Who alone may be sent it is sent it; but a channel alone names its own endpoint.
                        Err(dropped) => prop_assert!(
                            may.len() != 1 || dropped == Dropped::SeveralPermissions
                                || books[may[0]].permissions.get(&peer.ip()).is_none_or(|until| *until <= now),
                            "{dropped:?} though client {} alone may have it", may[0]
                        ),
                    }
                }
                Step::Deny(ip) => {
                    world.reload(|options| options.rules.denied = vec![format!("8.8.8.{ip}")]);
                    for book in &mut books {
                        book.permissions.remove(&at(ip, 1).ip());
                        book.channels.retain(|peer, _| peer.ip() != at(ip, 1).ip());
                    }
                }
                Step::Allow => world.reload(|options| options.rules.denied.clear()),
                Step::Kick => {
                    let all = turnstone::turn::AllocationFilter::default();
                    world.kick(&all, None);
                    books = (0..5).map(|_| Book::default()).collect();
                }
                Step::Pass(secs) => world.pass(secs),
            }
            for event in world.events() {
                if let Event::Ended(summary) = event
                    && matches!(summary.reason, EndReason::Expired)
                {
                    let gone = logins.iter().position(|login| login.client.five_tuple == summary.five_tuple).unwrap();
                    books[gone] = Book::default();
                }
            }
            world.check_books();
        }
    }
}
