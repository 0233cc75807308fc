//! Relay ports that allocations share: no packet reaches an allocation that has no permission for its source, whatever happens; and what
//! an endpoint's first client, the others, and strangers get.

use std::collections::HashMap;
use std::net::IpAddr;

use proptest::prelude::*;
use turnstone::addr::PeerAddr;
use turnstone::reject::{Dropped, Reason};
use turnstone::stun::{AttributeType, Class, Method, TransactionId};
use turnstone::turn::{Client, EndReason, Event, OwnSender, RelayId, ToClient};

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

/// What an ICE agent sends to another one: a check by both names, or the answer to one.
fn ice(class: Class, id: u32, names: &str) -> Vec<u8> {
    let id = TransactionId([id.to_be_bytes(); 3].concat().try_into().unwrap());
    message(class, Method::BINDING, id, |binding| {
        if !names.is_empty() {
            binding.attribute(AttributeType::USERNAME, names.as_bytes());
        }
    })
}

fn check(id: u32, names: &str) -> Vec<u8> {
    ice(Class::Request, id, names)
}

fn answer(id: u32) -> Vec<u8> {
    ice(Class::Success, id, "")
}

/// Whose a datagram of a peer is.
fn whose(world: &mut World, port: RelayId, peer: PeerAddr, datagram: &[u8]) -> Result<Client, Dropped> {
    client_of(world.server.route_from_peer(world.now, port, peer, datagram))
}

#[test]
fn an_endpoint_is_the_first_client_s_and_the_second_is_told_why_not() {
    let mut world = world(1, |_| {});
    let (one, two) = (world.allocated(1), world.guest(client(2), "bob", 600));
    world.allocate(&two);
    assert_eq!(world.bind(&one, 0x4000, at(1, 5000)).code(), None);
    assert_eq!(world.bind(&one, 0x4000, at(1, 5000)).code(), None, "a refresh");
    assert_eq!(client_of(world.inbound(port(0), at(1, 5000), 9)), Ok(one.client));
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

/// Who has a credential sends to what others are about to call, on every shared port, and takes every place that there is.
#[test]
fn nobody_is_cut_from_a_peer_by_who_has_only_been_there_first() {
    let mut world = world(1, |_| {});
    let sfu = at(1, 3478);
    let squatters: Vec<_> = (10..20).map(|n| world.guest(client(n), &format!("mallory{n}"), 3600)).collect();
    for squatter in &squatters {
        world.allocate(squatter);
        assert_eq!(world.permit(squatter, &[sfu]).code(), None);
        assert_eq!(world.bind(squatter, 0x4000, sfu).code(), None);
        assert!(world.send(squatter.client, sfu, &check(7, "guessed:made up")).is_to_peer());
        // What it is told, without knowing a password there, is no success.
        whose(&mut world, port(0), sfu, &ice(Class::Error, 7, "")).unwrap();
    }
    let victim = world.allocated(1);
    assert_eq!(world.permit(&victim, &[sfu]).code(), None);
    assert!(world.send(victim.client, sfu, &check(1, "sfu:victim")).is_to_peer(), "it is nobody's yet");
    assert_eq!(world.bind(&victim, 0x4000, sfu).code(), None);
    for squatter in &squatters {
        assert!(world.send(squatter.client, sfu, b"me again").is_to_peer());
    }
    // One check after the other, by channel, while they send on.
    assert!(world.channel_data(victim.client, 0x4000, &check(2, "sfu:victim")).is_ok());
    assert_eq!(whose(&mut world, port(0), sfu, &answer(1)), Ok(victim.client));
    assert_eq!(whose(&mut world, port(0), sfu, &answer(2)), Ok(victim.client));
    assert_eq!(client_of(world.inbound(port(0), sfu, 100)), Ok(victim.client), "and so are its media");
    // The others send nothing in the victim's name any more.
    for squatter in &squatters {
        assert_eq!(world.send(squatter.client, sfu, b"x").dropped(), Dropped::PeerEndpointTaken);
        assert_eq!(world.channel_data(squatter.client, 0x4000, b"x").unwrap_err(), Dropped::PeerEndpointTaken);
        assert_eq!(world.bind(squatter, 0x4000, sfu).code(), Some(508));
    }
    // For as long as the peer answers.
    for n in 0..100 {
        world.pass(5);
        if n % 50 == 0 {
            world.permit(&victim, &[sfu]);
        }
        assert!(world.channel_data(victim.client, 0x4000, &check(100 + n, "sfu:victim")).is_ok());
        assert_eq!(whose(&mut world, port(0), sfu, &answer(100 + n)), Ok(victim.client));
    }
    world.check_books();
}

/// Of several with a permission for an address, of which more than are known, the one who is meant gets what comes before it has sent.
#[test]
fn a_check_finds_whom_it_names_among_any_number_with_a_permission_for_the_address() {
    let mut world = world(1, |_| {});
    let logins: Vec<_> = (1..=9).map(|n| world.allocated(n)).collect();
    for (n, login) in logins.iter().enumerate() {
        world.permit(login, &[at(1, 1)]);
        // To the host candidate of a peer behind a symmetric NAT, whose check comes from elsewhere.
        let names = format!("peer{n}:own{n}");
        assert!(world.send(login.client, at(1, 4000), &check(n as u32, &names)).is_to_peer());
    }
    for (n, login) in logins.iter().enumerate() {
        let from = at(1, 6000 + n as u16);
        assert_eq!(whose(&mut world, port(0), from, &check(500, &format!("own{n}:peer{n}"))), Ok(login.client));
        assert_eq!(client_of(world.inbound(port(0), from, 9)), Ok(login.client), "what follows is its own, too");
    }
    assert_eq!(whose(&mut world, port(0), at(1, 7000), &check(500, "own1:peer2")), Err(Dropped::SeveralPermissions));
    // Names open nothing: without a permission for its source nobody is sent anything.
    assert_eq!(whose(&mut world, port(0), at(2, 6000), &check(500, "own1:peer1")), Err(Dropped::NoPermission));
    world.pass(301);
    assert_eq!(whose(&mut world, port(0), at(1, 6000), &check(500, "own0:peer0")), Err(Dropped::NoPermission));
}

/// The relay id of a client's share of a port, and its relayed address as others see it.
fn calls(world: &mut World, n: u16, user: &str) -> (Login, OwnSender, PeerAddr) {
    let login = world.guest(client(n), user, 36_000);
    let relayed = world.allocate(&login).relayed();
    let sender = OwnSender { worker: None, relay: world.relays.last.unwrap() };
    (login, sender, peer_at(relayed))
}

/// What a client sends to a relay of this server, handed over in process as a worker does. `None` when it does not leave.
fn hand_over(
    world: &mut World,
    from: &(Login, OwnSender, PeerAddr),
    to: PeerAddr,
    data: &[u8],
) -> Option<Result<Client, Dropped>> {
    match world.send(from.0.client, to, data) {
        Answer::ToPeer(way, payload) => {
            assert!(way.own_relay && way.peer == to && way.relay == from.1.relay);
            let socket = port(PORTS.iter().position(|port| *port == to.port()).unwrap());
            Some(client_of(world.server.route_from_own(world.now, socket, (from.2, from.1), &payload)))
        }
        _ => None,
    }
}

#[test]
fn two_clients_on_one_port_call_each_other_and_so_do_many_more() {
    for ports in [1, 2] {
        let mut world = world(ports, |_| {});
        let all: Vec<_> = (0..20).map(|n| calls(&mut world, n, &format!("user{n}"))).collect();
        let own: Vec<PeerAddr> =
            PORTS.iter().map(|port| peer_at((RELAY_V4.parse::<IpAddr>().unwrap(), *port).into())).collect();
        for (login, ..) in &all {
            assert_eq!(world.permit(login, &own[..ports]).code(), None);
        }
        for (n, pair) in all.chunks(2).enumerate() {
            let ([a, b], n) = ([&pair[0], &pair[1]], n as u32 * 10);
            let names = [format!("b{n}:a{n}"), format!("a{n}:b{n}")];
            // The first check comes before anybody has used these names.
            let early = hand_over(&mut world, a, b.2, &check(n, &names[0])).unwrap();
            assert!(early.is_err() || n == 0, "{early:?}");
            assert_eq!(hand_over(&mut world, b, a.2, &check(n + 1, &names[1])), Some(Ok(a.0.client)));
            assert_eq!(hand_over(&mut world, a, b.2, &answer(n + 1)), Some(Ok(b.0.client)));
            assert_eq!(hand_over(&mut world, a, b.2, &check(n + 2, &names[0])), Some(Ok(b.0.client)));
            assert_eq!(hand_over(&mut world, b, a.2, &answer(n + 2)), Some(Ok(a.0.client)));
            assert_eq!(world.bind(&a.0, 0x4000, b.2).code(), None, "never refused");
            assert_eq!(world.bind(&b.0, 0x4000, a.2).code(), None);
        }
        // Media, when all have found each other: each pair's stay with it, though many have the same two addresses.
        for pair in all.chunks(2) {
            for (from, to) in [(&pair[0], &pair[1]), (&pair[1], &pair[0])] {
                assert_eq!(hand_over(&mut world, from, to.2, &[0x80; 100]), Some(Ok(to.0.client)));
            }
        }
        // One who leaves is sent nothing more, and nobody else in its place.
        world.refresh(&all[1].0, Some(0));
        assert!(hand_over(&mut world, &all[0], all[1].2, &[0x80; 100]).unwrap().is_err());
        // ICE anew, with a new allocation at the other end.
        let again = calls(&mut world, 50, "again");
        world.permit(&again.0, &own[..ports]);
        assert!(hand_over(&mut world, &again, all[0].2, &check(900, "a2:b2")).unwrap().is_err());
        assert_eq!(hand_over(&mut world, &all[0], again.2, &check(901, "b2:a2")), Some(Ok(again.0.client)));
        assert_eq!(hand_over(&mut world, &again, all[0].2, &check(902, "a2:b2")), Some(Ok(all[0].0.client)));
        assert_eq!(hand_over(&mut world, &all[0], again.2, &[0x80; 100]), Some(Ok(again.0.client)));
        assert_eq!(hand_over(&mut world, &again, all[0].2, &[0x80; 100]), Some(Ok(all[0].0.client)));
        world.check_books();
    }
}

/// Ten calls between two workers, each of which has one port: all of one side have one address, and all of the other.
#[test]
fn clients_of_two_workers_call_each_other_though_each_has_one_port_for_all() {
    let mut worlds = [0, 1].map(|n| {
        let mut world = world(1, |_| {});
        world.relays.shared = vec![(PORTS[n], port(n))];
        world
    });
    let all: Vec<_> = (0..10)
        .map(|n| {
            let call = [0, 1].map(|side| calls(&mut worlds[side], n, &format!("user{n}")));
            for side in [0, 1] {
                assert_eq!(worlds[side].permit(&call[side].0, &[call[1 - side].2]).code(), None);
            }
            call
        })
        .collect();
    let mut send = |n: usize, side: usize, data: &[u8]| {
        let (from, to) = (&all[n][side], all[n][1 - side].2);
        let (way, payload) = match worlds[side].send(from.0.client, to, data) {
            Answer::ToPeer(way, payload) => (way, payload),
            other => panic!("{other:?}"),
        };
        let sender = OwnSender { worker: Some(side as u16), relay: way.relay };
        let other = &mut worlds[1 - side];
        client_of(other.server.route_from_own(other.now, port(1 - side), (from.2, sender), &payload))
    };
    for (n, call) in all.iter().enumerate() {
        let (id, names) = (n as u32 * 10, [format!("b{n}:a{n}"), format!("a{n}:b{n}")]);
        let _ = send(n, 0, &check(id, &names[0]));
        assert_eq!(send(n, 1, &check(id + 1, &names[1])), Ok(call[0].0.client));
        assert_eq!(send(n, 0, &answer(id + 1)), Ok(call[1].0.client));
        assert_eq!(send(n, 0, &check(id + 2, &names[0])), Ok(call[1].0.client));
        assert_eq!(send(n, 1, &answer(id + 2)), Ok(call[0].0.client));
    }
    for (n, side) in (0..10).flat_map(|n| [(n, 0), (n, 1)]) {
        assert_eq!(send(n, side, &[0x80; 100]), Ok(all[n][1 - side].0.client));
    }
}

#[test]
fn without_ice_two_clients_on_one_port_reach_each_other_while_they_are_alone_there_and_keep_that() {
    let mut world = world(1, |_| {});
    let [a, b, c] = [1, 2, 3].map(|n| calls(&mut world, n, &format!("user{n}")));
    world.permit(&a.0, &[b.2]);
    assert_eq!(hand_over(&mut world, &a, b.2, b"anybody?"), Some(Ok(a.0.client)), "nobody else may be sent it");
    world.permit(&b.0, &[a.2]);
    assert_eq!(hand_over(&mut world, &a, b.2, b"hello"), Some(Ok(b.0.client)));
    assert_eq!(hand_over(&mut world, &b, a.2, b"hello"), Some(Ok(a.0.client)));
    world.permit(&c.0, &[a.2]);
    assert_eq!(hand_over(&mut world, &a, b.2, b"on"), Some(Ok(b.0.client)));
    assert_eq!(hand_over(&mut world, &b, a.2, b"on"), Some(Ok(a.0.client)));
    assert_eq!(hand_over(&mut world, &c, a.2, b"which?"), Some(Err(Dropped::SeveralPermissions)));
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
    assert!(world.inbound(port(0), at(1, 5000), 9).is_ok());
    world.pass(29);
    assert_eq!(world.bind(&new, 0x4000, at(1, 5000)).code(), Some(508));
    assert!(world.inbound(port(0), at(1, 5000), 9).is_ok());
    world.pass(29);
    assert_eq!(world.bind(&new, 0x4000, at(1, 5000)).code(), Some(508), "heard of meanwhile");
    world.pass(1);
    assert_eq!(world.bind(&other, 0x4000, at(1, 5000)).code(), None, "another user may ask there");
    assert_eq!(world.bind(&new, 0x4000, at(1, 5000)).code(), None);
    assert_eq!(client_of(world.inbound(port(0), at(1, 5000), 9)), Ok(new.client));
    assert_eq!(world.bind(&old, 0x4000, at(1, 5000)).code(), Some(508), "it is the other's now");
    for one_of_before in [&old, &other] {
        let lost = world.channel_data(one_of_before.client, 0x4000, b"x");
        assert_eq!(lost.unwrap_err(), Dropped::PeerEndpointTaken);
    }
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

/// Two servers, each of which has one port for all, can be each other's clients: what goes round is wrapped once more each time.
#[test]
fn what_servers_wrap_for_one_another_without_end_is_dropped_after_a_few_rounds() {
    let mut world = world(1, |_| {});
    let login = world.allocated(1);
    let other_server = at(1, 3478);
    world.bind(&login, 0x4000, other_server);
    let mut packet = vec![0x80; 100];
    let mut rounds = 0;
    while whose(&mut world, port(0), other_server, &packet) == Ok(login.client) {
        rounds += 1;
        let len = (packet.len() as u16).to_be_bytes();
        packet.splice(0..0, [0x40, 0, len[0], len[1]]);
        assert!(rounds < 100);
    }
    assert_eq!((whose(&mut world, port(0), other_server, &packet), rounds), (Err(Dropped::Loop), 9));
}

/// What a random world does.
#[derive(Clone, Debug)]
enum Step {
    Allocate(usize),
    Release(usize),
    Permit(usize, u8),
    Bind(usize, u16, u8, u16),
    Send(usize, u8, u16, Data),
    /// To a shared port of this server.
    Call(usize, usize, Data),
    Inbound(usize, u8, u16, Data),
    Deny(u8),
    Allow,
    Kick,
    Pass(u64),
}

/// What is sent: a check by the names of two of four, the answer to one of the last few, or media.
#[derive(Clone, Debug)]
enum Data {
    Check(u8, u8),
    Answer(u32),
    Media,
}

impl Data {
    fn bytes(&self, last_id: u32) -> Vec<u8> {
        match self {
            Self::Check(to, from) => check(last_id, &format!("name{to}:name{from}")),
            Self::Answer(back) => answer(last_id.saturating_sub(*back)),
            Self::Media => vec![0x80; 100],
        }
    }
}

fn data() -> impl Strategy<Value = Data> {
    prop_oneof![
        (0..4u8, 0..4u8).prop_map(|(to, from)| Data::Check(to, from)),
        (0..20u32).prop_map(Data::Answer),
        Just(Data::Media),
    ]
}

fn steps() -> impl Strategy<Value = Step> {
    // Number 3 is this server itself, at its relay ports.
    let (client, ip, peer_port) = (0..5usize, 1..4u8, 1..4u16);
    prop_oneof![
        3 => client.clone().prop_map(Step::Allocate),
        1 => client.clone().prop_map(Step::Release),
        5 => (client.clone(), ip.clone()).prop_map(|(client, ip)| Step::Permit(client, ip)),
        5 => (client.clone(), 0x4000..0x4004u16, ip.clone(), peer_port.clone())
            .prop_map(|(client, channel, ip, port)| Step::Bind(client, channel, ip, port)),
        5 => (client.clone(), ip.clone(), peer_port.clone(), data())
            .prop_map(|(client, ip, port, data)| Step::Send(client, ip, port, data)),
        8 => (client, 0..2usize, data()).prop_map(|(client, port, data)| Step::Call(client, port, data)),
        12 => (0..2usize, ip.clone(), peer_port, data())
            .prop_map(|(port, ip, peer_port, data)| Step::Inbound(port, ip, peer_port, data)),
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
    relay: Option<RelayId>,
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
        let own = |n: usize| peer_at((RELAY_V4.parse::<IpAddr>().unwrap(), PORTS[n]).into());
        let of = |ip: u8, peer_port: u16| if ip == 3 { own(usize::from(peer_port) % 2) } else { at(ip, peer_port) };
        let mut ids = 1000;
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
                        books[n] = Book { port, relay: world.relays.last, ..Book::default() };
                    }
                }
                Step::Release(n) => {
                    if world.refresh(&logins[n], Some(0)).code().is_none() {
                        books[n] = Book::default();
                    }
                }
                Step::Permit(n, ip) => {
                    if world.permit(&logins[n], &[of(ip, 1)]).code().is_none() {
                        books[n].permissions.insert(of(ip, 1).ip(), now + 300_000_000);
                    }
                }
                Step::Bind(n, channel, ip, port) => {
                    let peer = of(ip, port);
                    if world.bind(&logins[n], channel, peer).code().is_none() {
                        books[n].permissions.insert(peer.ip(), now + 300_000_000);
                        books[n].channels.insert(peer, now + 600_000_000);
                    }
                }
                Step::Send(n, ip, peer_port, data) => {
                    let peer = of(ip, peer_port);
                    ids += 1;
                    if world.send(logins[n].client, peer, &data.bytes(ids)).is_to_peer() {
                        prop_assert!(books[n].permits(peer, now));
                        // Its answer finds the way back, whoever else sends there.
                        if matches!(data, Data::Check(..)) && ip != 3 {
                            let at = port(books[n].port.unwrap());
                            prop_assert_eq!(whose(&mut world, at, peer, &answer(ids)), Ok(logins[n].client));
                        }
                    }
                }
                Step::Call(n, to, data) => {
                    ids += 1;
                    let peer = own(to);
                    if let Answer::ToPeer(way, payload) = world.send(logins[n].client, peer, &data.bytes(ids)) {
                        prop_assert!(way.own_relay && Some(way.relay) == books[n].relay);
                        let from = own(books[n].port.unwrap());
                        let sender = OwnSender { worker: None, relay: way.relay };
                        let routed = client_of(world.server.route_from_own(world.now, port(to), (from, sender), &payload));
                        if let Ok(client) = routed {
                            let book = &books[index_of(client)];
                            prop_assert!(book.port == Some(to) && book.permits(from, now), "{client:?} from {from:?}");
                        }
                    }
                }
                Step::Inbound(n, ip, peer_port, data) => {
                    // Nobody else sends from our own address.
                    let peer = at(ip, peer_port);
                    let may: Vec<_> =
                        (0..5).filter(|book| books[*book].port == Some(n) && books[*book].permits(peer, now)).collect();
                    match whose(&mut world, port(n), peer, &data.bytes(ids)) {
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
