//! TCP allocations (RFC 6062).

use std::net::SocketAddr;

use turnstone::addr::{ClientAddr, Family, PeerAddr, Transport};
use turnstone::policy::{BandwidthLimits, GuardLimits, PeerRules, SuspensionLimits};
use turnstone::reject::{Dropped, Reason};
use turnstone::stun::{AttributeType, Class, Method};
use turnstone::traffic::Direction;
use turnstone::turn::{
    AllocationFilter, Client, ConnectError, ConnectionId, ConnectionStage, EndReason, Event, RelayId, TcpRelays,
};

use crate::harness::{
    Answer, Login, Options, RELAY_V4, Reply, UDP, World, client, client_over, peer, peer_at, peer6, refusals,
};

const TCP: [u8; 4] = [6, 0, 0, 0];

pub(crate) fn world(change: impl FnOnce(&mut Options)) -> World {
    World::with(|options| {
        options.tcp_relays = Some(TcpRelays::default());
        change(options);
    })
}

pub(crate) fn over_tcp(n: u16) -> Client {
    client_over(Transport::Tcp, n)
}

pub(crate) fn allocate_tcp(world: &mut World, login: &Login, more: &[(AttributeType, &[u8])]) -> Reply {
    world.request(login, Method::ALLOCATE, |request| {
        request.attribute(AttributeType::REQUESTED_TRANSPORT, &TCP);
        for (kind, value) in more {
            request.attribute(*kind, value);
        }
    })
}

/// A client that has a TCP allocation, and its relay.
pub(crate) fn holder(world: &mut World, n: u16) -> (Login, RelayId) {
    let login = world.alice(over_tcp(n));
    let relays: Vec<RelayId> = world.relays.tcp.keys().copied().collect();
    assert_eq!(allocate_tcp(world, &login, &[]).code(), None);
    let relay = world.relays.tcp.keys().find(|relay| !relays.contains(relay)).copied().unwrap();
    (login, relay)
}

fn connect_bytes(world: &mut World, login: &Login, peer: PeerAddr) -> Vec<u8> {
    login.request(world.transaction_id(), Method::CONNECT, |request| {
        request.xor_address(AttributeType::XOR_PEER_ADDRESS, peer.get());
    })
}

pub(crate) fn connect(world: &mut World, login: &Login, peer: PeerAddr) -> Answer {
    let bytes = connect_bytes(world, login, peer);
    world.hand_in(login.client, &bytes)
}

/// The connection that a Connect, which has to wait, has begun.
pub(crate) fn begun(world: &mut World, login: &Login, peer: PeerAddr) -> ConnectionId {
    let answer = connect(world, login, peer);
    assert!(matches!(answer, Answer::Waits), "{answer:?}");
    let (_, id, to, _) = *world.relays.connects.last().unwrap();
    assert_eq!(to, peer);
    id
}

pub(crate) fn notice(world: &mut World) -> Option<(Client, Reply, bool)> {
    let notice = world.server.poll_notice()?;
    Some((notice.client, Reply::read(notice.message.into()), notice.droppable))
}

/// A connection whose Connect has been answered.
pub(crate) fn connected(world: &mut World, login: &Login, peer: PeerAddr) -> ConnectionId {
    let id = begun(world, login, peer);
    assert!(world.server.connected(world.now, id, Ok(())));
    let (to, reply, _) = notice(world).unwrap();
    assert_eq!((to, reply.u32(AttributeType::CONNECTION_ID)), (login.client, Some(id.value())));
    id
}

/// What is said to a ConnectionBind on another connection.
pub(crate) fn bind_as(world: &mut World, login: &Login, id: u32) -> Answer {
    let bytes = login.request(world.transaction_id(), Method::CONNECTION_BIND, |request| {
        request.u32(AttributeType::CONNECTION_ID, id);
    });
    world.hand_in(login.client, &bytes)
}

pub(crate) fn bound(world: &mut World, login: &Login, id: ConnectionId) {
    match bind_as(world, login, id.value()) {
        Answer::Binds(binding, reply) => {
            assert_eq!((binding.connection, reply.code(), reply.is_signed_by(login)), (id, None, true));
            assert!(world.server.bind_connection(binding.connection));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn tcp_relays_are_not_offered_unless_they_are_configured() {
    let mut world = World::new();
    let login = world.alice(over_tcp(1));
    assert_eq!(allocate_tcp(&mut world, &login, &[]).code(), Some(442));
    world.allocate(&login);
    for method in [Method::CONNECT, Method::CONNECTION_BIND] {
        let bytes = login.request(world.transaction_id(), method, |_| {});
        assert_eq!(world.hand_in(login.client, &bytes).dropped(), Dropped::UnknownMethod);
    }
    assert!(world.relays.tcp.is_empty());
}

#[test]
fn an_allocate_for_tcp_has_a_connection_and_nothing_that_is_udps() {
    let mut world = world(|_| {});
    let login = world.alice(client(1));
    assert_eq!(allocate_tcp(&mut world, &login, &[]).code(), Some(400), "over UDP");
    let login = world.alice(over_tcp(2));
    for (kind, value) in [
        (AttributeType::DONT_FRAGMENT, &b""[..]),
        (AttributeType::EVEN_PORT, &[0]),
        (AttributeType::EVEN_PORT, &[0x80]),
        (AttributeType::RESERVATION_TOKEN, &[7; 8]),
    ] {
        assert_eq!(allocate_tcp(&mut world, &login, &[(kind, value)]).code(), Some(400), "{kind:?}");
    }
    assert_eq!(
        refusals(&world.events()),
        [[Reason::ConnectionNeeded].as_slice(), &[Reason::ConflictingAttributes; 4]].concat()
    );
    for transport in [Transport::Tcp, Transport::Tls] {
        let login = world.alice(client_over(transport, 3));
        let reply = allocate_tcp(&mut world, &login, &[]);
        assert_eq!((reply.code(), reply.get(AttributeType::RESERVATION_TOKEN)), (None, None));
        assert_eq!(world.relays.tcp.values().filter(|relayed| relayed.get() == reply.relayed()).count(), 1);
        assert_eq!(world.refresh(&login, Some(0)).code(), None);
        assert!(world.relays.tcp.is_empty() && world.relays.open.is_empty());
    }
    world.check_books();
}

#[test]
fn both_families_have_tcp_relays_and_each_reaches_its_own_peers() {
    let mut world = world(|_| {});
    let login = world.alice(over_tcp(1));
    let reply = allocate_tcp(&mut world, &login, &[(AttributeType::ADDITIONAL_ADDRESS_FAMILY, &[2, 0, 0, 0])]);
    assert_eq!(reply.addresses(AttributeType::XOR_RELAYED_ADDRESS).len(), 2);
    let (first, second) = (connected(&mut world, &login, peer(1)), connected(&mut world, &login, peer6(1)));
    let family = |world: &World, n: usize| world.relays.tcp[&world.relays.connects[n].0].family();
    assert_eq!((family(&world, 0), family(&world, 1)), (Family::V4, Family::V6));
    // Giving one up closes its connections only.
    let reply = world.request(&login, Method::REFRESH, |request| {
        request.attribute(AttributeType::REQUESTED_ADDRESS_FAMILY, &[2, 0, 0, 0]);
        request.u32(AttributeType::LIFETIME, 0);
    });
    assert_eq!((reply.code(), world.relays.disconnected.as_slice()), (None, &[second][..]));
    assert_eq!(world.relays.tcp.len(), 1);
    assert_eq!(connect(&mut world, &login, peer6(2)).reply().code(), Some(443));
    assert!(!world.server.bind_connection(second) && world.server.bind_connection(first));
    world.refresh(&login, Some(0));
    assert_eq!(world.relays.disconnected, [second, first]);
    world.check_books();
    assert!(world.shared.connection_ids.is_empty());
}

#[test]
fn connect_is_answered_when_the_peer_has_and_its_data_begins_with_a_connection_bind() {
    let mut world = world(|options| options.software = Some("it".to_owned()));
    let (login, relay) = holder(&mut world, 1);
    let id = begun(&mut world, &login, peer(1));
    assert_eq!(world.relays.connects, [(relay, id, peer(1), false)]);
    assert!(notice(&mut world).is_none(), "nothing is known yet");
    // Nobody can bind what there is not.
    let data = world.alice(over_tcp(2));
    assert_eq!(bind_as(&mut world, &data, id.value()).reply().code(), Some(400));
    world.pass(20);
    assert!(world.server.connected(world.now, id, Ok(())));
    let (to, reply, droppable) = notice(&mut world).unwrap();
    assert_eq!((to, reply.method, reply.code(), droppable), (login.client, Method::CONNECT, None, false));
    assert!(reply.is_signed_by(&login));
    assert_eq!(reply.u32(AttributeType::CONNECTION_ID), Some(id.value()));
    assert!(reply.kinds().contains(&AttributeType::SOFTWARE));
    // From here on there are 30 seconds more.
    world.pass(29);
    bound(&mut world, &data, id);
    assert_eq!(bind_as(&mut world, &data, id.value()).reply().code(), Some(400), "it is bound");
    world.pass(500);
    assert!(world.relays.disconnected.is_empty());
    assert!(world.server.admit_bytes(world.now, id, Direction::ToPeers, 1000) && !world.server.is_metered(id));
    world.server.count_bytes(id, Direction::ToPeers, 1000);
    world.server.count_bytes(id, Direction::ToClients, 5000);
    world.server.connection_gone(id);
    assert!(!world.server.admit_bytes(world.now, id, Direction::ToPeers, 1));
    world.server.client_gone(world.now, &login.client.five_tuple, &mut world.relays);
    let ended = world.events().into_iter().find_map(|event| match event {
        Event::Ended(summary) => Some(summary),
        _ => None,
    });
    let ended = ended.unwrap();
    assert_eq!((ended.to_peers.bytes, ended.to_client.bytes, ended.reason), (1000, 5000, EndReason::ClientGone));
    assert!(world.relays.disconnected.is_empty() && world.shared.connection_ids.is_empty());
}

#[test]
fn a_peer_that_refuses_or_is_silent_is_answered_with_447_and_is_not_tried_again_for_ten_seconds() {
    let mut world = world(|_| {});
    let (login, _) = holder(&mut world, 1);
    let refused = begun(&mut world, &login, peer(1));
    assert!(world.server.connected(world.now, refused, Err(ConnectError::Failed)));
    let (_, reply, _) = notice(&mut world).unwrap();
    assert_eq!((reply.code(), reply.method, reply.is_signed_by(&login)), (Some(447), Method::CONNECT, true));
    assert!(!world.server.connected(world.now, refused, Ok(())), "it has had its end");
    assert_eq!(connect(&mut world, &login, peer(1)).reply().code(), Some(447));
    assert_eq!(world.relays.connects.len(), 1, "no packet leaves for it");
    world.pass(11);
    let silent = begun(&mut world, &login, peer(1));
    world.pass(29);
    assert!(notice(&mut world).is_none());
    world.pass(2);
    assert_eq!(notice(&mut world).unwrap().1.code(), Some(447));
    assert_eq!(world.relays.disconnected, [silent]);
    assert!(!world.server.connected(world.now, silent, Ok(())), "too late");
    let reasons = refusals(&world.events());
    let expected = [Reason::ConnectionFailed, Reason::ConnectionFailed, Reason::ConnectionTimedOut];
    assert_eq!(reasons, expected);
    // What fails at once is answered at once.
    world.relays.connect_error = Some(ConnectError::System);
    assert_eq!(connect(&mut world, &login, peer(2)).reply().code(), Some(508));
    world.pass(60);
    assert!(world.shared.connection_ids.is_empty());
    world.check_books();
}

#[test]
fn one_connection_to_a_peer_is_all_there_is() {
    let mut world = world(|_| {});
    let (login, relay) = holder(&mut world, 1);
    let id = begun(&mut world, &login, peer(1));
    assert_eq!(connect(&mut world, &login, peer(1)).reply().code(), Some(446), "while it is being made");
    world.server.connected(world.now, id, Ok(()));
    assert_eq!(connect(&mut world, &login, peer(1)).reply().code(), Some(446), "while it is pending");
    notice(&mut world);
    let data = world.alice(over_tcp(2));
    bound(&mut world, &data, id);
    assert_eq!(connect(&mut world, &login, peer(1)).reply().code(), Some(446), "while it is active");
    assert_eq!(world.permit(&login, &[peer(1)]).code(), None);
    assert_eq!(world.server.accepted(world.now, relay, peer(1)), Err(Dropped::TooManyConnections));
    world.server.connection_gone(id);
    begun(&mut world, &login, peer(1));
}

#[test]
fn a_connect_that_makes_no_sense_is_refused() {
    let mut world = world(|options| options.rules.denied = vec!["8.8.8.9".to_owned()]);
    let nobody = world.alice(over_tcp(1));
    assert_eq!(connect(&mut world, &nobody, peer(1)).reply().code(), Some(437));
    world.allocate(&nobody);
    assert_eq!(connect(&mut world, &nobody, peer(1)).reply().code(), Some(400), "its relays are UDP");
    let (login, _) = holder(&mut world, 2);
    let none = login.request(world.transaction_id(), Method::CONNECT, |_| {});
    assert_eq!(world.hand_in(login.client, &none).reply().code(), Some(400));
    let broken = login.request(world.transaction_id(), Method::CONNECT, |request| {
        request.attribute(AttributeType::XOR_PEER_ADDRESS, &[0, 1, 2]);
    });
    assert_eq!(world.hand_in(login.client, &broken).reply().code(), Some(400));
    for denied in [peer(9), "10.0.0.1:22".parse().map(|peer| PeerAddr::new(peer).unwrap()).unwrap()] {
        assert_eq!(connect(&mut world, &login, denied).reply().code(), Some(403), "{denied:?}");
    }
    let own = PeerAddr::new("5.45.96.1:3478".parse().unwrap()).unwrap();
    assert_eq!(connect(&mut world, &login, own).reply().code(), Some(403), "our own listener");
    assert!(world.relays.connects.is_empty());
    // Only a relay of ours may be there.
    let relay = PeerAddr::new(format!("{RELAY_V4}:50001").parse().unwrap()).unwrap();
    let id = begun(&mut world, &login, relay);
    assert_eq!(world.relays.connects.last(), Some(&(RelayId { index: 0, generation: 1 }, id, relay, true)));
    // Data goes by connections alone.
    assert_eq!(world.bind(&login, 0x4000, peer(1)).code(), Some(400));
    assert_eq!(world.permit(&login, &[peer(1)]).code(), None);
    assert_eq!(world.send(login.client, peer(1), b"data").dropped(), Dropped::Ignored);
    assert_eq!(world.channel_data(login.client, 0x4000, b"data"), Err(Dropped::NoChannel));
}

#[test]
fn a_permitted_peer_that_connects_is_told_of_and_any_other_is_not() {
    let mut world = world(|options| options.rules.denied = vec!["8.8.8.9".to_owned()]);
    let (login, relay) = holder(&mut world, 1);
    assert_eq!(world.server.accepted(world.now, relay, peer(1)), Err(Dropped::NoPermission));
    assert_eq!(world.permit(&login, &[peer(1), peer(2)]).code(), None);
    let elsewhere = RelayId { index: 77, generation: 1 };
    assert_eq!(world.server.accepted(world.now, elsewhere, peer(1)), Err(Dropped::NoAllocation));
    let (id, _) = world.server.accepted(world.now, relay, peer(1)).unwrap();
    let (to, told, droppable) = notice(&mut world).unwrap();
    assert_eq!(
        (to, told.class, told.method, droppable),
        (login.client, Class::Indication, Method::CONNECTION_ATTEMPT, true)
    );
    assert_eq!(told.u32(AttributeType::CONNECTION_ID), Some(id.value()));
    assert_eq!(told.addresses(AttributeType::XOR_PEER_ADDRESS), [peer(1).get()]);
    // A permission that is over permits nobody.
    let (late, _) = world.server.accepted(world.now, relay, peer(2)).unwrap();
    world.pass(29);
    let data = world.alice(over_tcp(2));
    bound(&mut world, &data, id);
    world.pass(2);
    assert_eq!(world.relays.disconnected, [late], "nobody has bound it in 30 seconds");
    assert_eq!(bind_as(&mut world, &data, late.value()).reply().code(), Some(400));
    world.pass(300);
    assert_eq!(world.server.accepted(world.now, relay, peer(2)), Err(Dropped::NoPermission));
    world.refresh(&login, None);
    let list = world.list(&AllocationFilter { peer: Some(peer(1).ip()), ..AllocationFilter::default() }, None, 9);
    assert_eq!((list.len(), list[0].connections), (1, Some(1)));
    let shown = world.server.show(world.now, list[0].id).unwrap();
    assert_eq!(shown.connections, [(peer(1), ConnectionStage::Bound)]);
}

#[test]
fn only_who_made_the_allocation_binds_its_connections_on_a_connection_of_its_own() {
    let mut world = world(|_| {});
    let (login, _) = holder(&mut world, 1);
    let id = connected(&mut world, &login, peer(1));
    let bob = world.login(over_tcp(2), "bob", "builder");
    assert_eq!(bind_as(&mut world, &bob, id.value()).reply().code(), Some(441));
    assert_eq!(bind_as(&mut world, &login, id.value()).reply().code(), Some(437), "it is the control connection");
    let data = world.alice(over_tcp(3));
    assert_eq!(bind_as(&mut world, &data, id.value() ^ 1).reply().code(), Some(400));
    let none = data.request(world.transaction_id(), Method::CONNECTION_BIND, |_| {});
    assert_eq!(world.hand_in(data.client, &none).reply().code(), Some(400));
    let datagrams = world.alice(client(4));
    assert_eq!(bind_as(&mut world, &datagrams, id.value()).reply().code(), Some(400));
    let stranger = world.bare(Method::CONNECTION_BIND, |request| {
        request.u32(AttributeType::CONNECTION_ID, id.value());
    });
    assert_eq!(world.hand_in(data.client, &stranger).reply().code(), Some(401));
    bound(&mut world, &data, id);
}

#[test]
fn a_nonce_of_one_connection_is_good_on_others_of_its_address_for_what_cannot_be_repeated_by_others() {
    let mut world = world(|_| {});
    let (login, _) = holder(&mut world, 1);
    let from = |transport, change: &dyn Fn(&mut SocketAddr)| {
        let mut of = client_over(transport, 1);
        let mut address = of.five_tuple.client.get();
        change(&mut address);
        of.five_tuple.client = ClientAddr::new(address);
        Login { client: of, ..login.clone() }
    };
    let another_port = |address: &mut SocketAddr| address.set_port(address.port() + 1);
    let another_ip = |address: &mut SocketAddr| address.set_ip("91.20.0.77".parse().unwrap());
    for elsewhere in [from(Transport::Tcp, &another_ip), from(Transport::Udp, &|_| {}), from(Transport::Dtls, &|_| {})]
    {
        assert_eq!(bind_as(&mut world, &elsewhere, 1).reply().code(), Some(438), "{:?}", elsewhere.client.five_tuple);
    }
    for transport in [Transport::Tcp, Transport::Tls] {
        let id = connected(&mut world, &login, peer(transport as u8 + 1));
        bound(&mut world, &from(transport, &another_port), id);
    }
    // And that of a data connection for the next request on the control connection.
    let nonce = world.alice(from(Transport::Tcp, &another_port).client).nonce;
    connected(&mut world, &Login { nonce, ..login.clone() }, peer(9));
    // Who has seen the client's Allocate cannot send it again on a connection of his own.
    let again = from(Transport::Tcp, &|address| address.set_port(9));
    assert_eq!(allocate_tcp(&mut world, &again, &[]).code(), Some(438));
    assert_eq!(world.refresh(&again, None).code(), Some(438));
}

#[test]
fn the_policy_that_a_credential_names_judges_connects_and_who_connects() {
    let only = PeerRules {
        default_deny_all: true,
        deny_relays: true,
        allowed: vec!["8.8.8.8".to_owned()],
        ..PeerRules::default()
    };
    let mut world = world(|options| {
        options.username_limits = true;
        options.policies = vec![("sfu", only)];
    });
    let login = world.guest(over_tcp(1), "carol;peers=sfu", 3600);
    assert_eq!(allocate_tcp(&mut world, &login, &[]).code(), None);
    let relay = *world.relays.tcp.keys().next().unwrap();
    assert_eq!(connect(&mut world, &login, peer(1)).reply().code(), Some(403));
    let own = peer_at(format!("{RELAY_V4}:50001").parse().unwrap());
    assert_eq!(connect(&mut world, &login, own).reply().code(), Some(403), "a relay of ours is no peer of it");
    let named = Some("sfu".parse().unwrap());
    let policies = world.events().into_iter().filter_map(|event| match event {
        Event::Refused(refusal) if refusal.method == Method::CONNECT => Some(refusal.policy),
        _ => None,
    });
    assert_eq!(policies.collect::<Vec<_>>(), [named, named]);
    connected(&mut world, &login, peer(8));
    // Who connects is judged by address and port: of the same peer, a permission and the policy both say yes.
    assert_eq!(world.permit(&login, &[peer(8)]).code(), None);
    assert_eq!(world.permit(&login, &[peer(1)]).code(), Some(403));
    assert_eq!(world.server.accepted(world.now, relay, peer(1)), Err(Dropped::NoPermission));
    let later = peer_at("8.8.8.8:9".parse().unwrap());
    assert!(world.server.accepted(world.now, relay, later).is_ok());
}

#[test]
fn a_port_that_is_ours_is_denied_to_who_connects_from_it_though_its_address_is_permitted() {
    let mut world = world(|_| {});
    let (login, relay) = holder(&mut world, 1);
    // A permission has no port: the address of our relays is also that of our listeners.
    let relayed = peer_at(format!("{RELAY_V4}:50001").parse().unwrap());
    assert_eq!(world.permit(&login, &[relayed]).code(), None);
    assert!(world.server.accepted(world.now, relay, relayed).is_ok());
    let listener = peer_at(format!("{RELAY_V4}:3478").parse().unwrap());
    world.events();
    assert_eq!(world.server.accepted(world.now, relay, listener), Err(Dropped::PeerDenied));
    assert_eq!(refusals(&world.events()).len(), 1, "an operator can find out");
    for denied in ["127.0.0.1:22", "[::1]:22", "169.254.169.254:80", "[::ffff:127.0.0.1]:22", "[64:ff9b::7f00:1]:22"] {
        let bytes = login.request(world.transaction_id(), Method::CONNECT, |request| {
            request.xor_address(AttributeType::XOR_PEER_ADDRESS, denied.parse().unwrap());
        });
        let code = world.hand_in(login.client, &bytes).reply().code();
        assert!(matches!(code, Some(400 | 403 | 443)), "{denied}: {code:?}");
    }
    assert!(world.relays.connects.is_empty());
}

#[test]
fn the_guard_counts_the_peers_of_connects_and_suspends_who_probes_by_them() {
    let suspension = Some(SuspensionLimits { probes: 2, secs: 600 });
    let mut world = world(|options| {
        options.guard = GuardLimits { peers_per_user: Some(2), suspension, ..GuardLimits::default() };
    });
    let (login, _) = holder(&mut world, 1);
    for n in [1, 2] {
        begun(&mut world, &login, peer(n));
    }
    assert_eq!(connect(&mut world, &login, peer(3)).reply().code(), Some(508));
    assert_eq!(refusals(&world.events()), [Reason::UserPeers]);
    world.pass(31);
    begun(&mut world, &login, peer(3));
    for denied in ["127.0.0.1:22", "10.0.0.1:22", "169.254.169.254:80"] {
        assert_eq!(connect(&mut world, &login, peer_at(denied.parse().unwrap())).reply().code(), Some(403));
    }
    world.events();
    assert_eq!(connect(&mut world, &login, peer(4)).reply().code(), Some(403));
    assert_eq!(refusals(&world.events()), [Reason::Suspended]);
    assert_eq!(world.relays.connects.len(), 3, "nothing leaves for what is refused");
    // Two that have failed are remembered for a while.
    assert_eq!(world.shared.connection_ids.len(), 3, "and no place is held for it");
}

#[test]
fn a_mobility_ticket_is_not_for_tcp_allocations() {
    let mut world = world(|options| options.mobility = true);
    let login = world.alice(over_tcp(1));
    assert_eq!(allocate_tcp(&mut world, &login, &[(AttributeType::MOBILITY_TICKET, b"")]).code(), Some(405));
    assert_eq!(allocate_tcp(&mut world, &login, &[]).code(), None);
}

#[test]
fn a_connection_is_bound_by_another_worker_and_with_a_credential_that_has_expired_since() {
    let mut world = world(|_| {});
    world.split();
    let login = world.guest(over_tcp(1), "carol", 100);
    assert_eq!(allocate_tcp(&mut world, &login, &[]).code(), None);
    world.pass(150);
    let id = connected(&mut world, &login, peer(1));
    let mut data = world.guest(over_tcp(2), "carol", 100);
    (data.username, data.key, data.sha256_key) = (login.username.clone(), login.key.clone(), login.sha256_key.clone());
    world.other_side();
    let Answer::Binds(binding, reply) = bind_as(&mut world, &data, id.value()) else { panic!("it is not bound") };
    assert!(reply.is_signed_by(&login));
    assert_eq!((binding.connection, binding.worker), (id, 0));
    assert!(!world.server.bind_connection(id), "it is not here");
    world.other_side();
    assert!(world.server.bind_connection(id));
}

#[test]
fn connections_are_bounded_for_an_allocation_and_for_a_user() {
    let limits = TcpRelays { connections_per_allocation: 3, connections_per_user: 4 };
    let mut world = world(|options| options.tcp_relays = Some(limits));
    let ((first, relay), (second, _)) = (holder(&mut world, 1), holder(&mut world, 2));
    let ids: Vec<_> = (1..4).map(|n| begun(&mut world, &first, peer(n))).collect();
    assert_eq!(connect(&mut world, &first, peer(4)).reply().code(), Some(508));
    assert_eq!(world.permit(&first, &[peer(5)]).code(), None);
    assert_eq!(world.server.accepted(world.now, relay, peer(5)), Err(Dropped::TooManyConnections));
    begun(&mut world, &second, peer(1));
    assert_eq!(connect(&mut world, &second, peer(2)).reply().code(), Some(486));
    // What has failed keeps its place for a while: ports are not tried one by one as fast as they refuse.
    world.server.connected(world.now, ids[0], Err(ConnectError::Failed));
    assert_eq!(connect(&mut world, &first, peer(4)).reply().code(), Some(508));
    world.pass(11);
    begun(&mut world, &first, peer(4));
    assert_eq!(world.shared.connection_ids.len(), 4);
}

#[test]
fn there_are_no_more_connections_of_all_users_than_sockets_for_them() {
    let mut world = world(|options| options.connections_max = 2);
    let ((first, _), (second, relay)) = (holder(&mut world, 1), holder(&mut world, 2));
    let id = begun(&mut world, &first, peer(1));
    begun(&mut world, &first, peer(2));
    assert!(world.server.has_all_connections());
    world.events();
    assert_eq!(connect(&mut world, &second, peer(1)).reply().code(), Some(508));
    assert_eq!(refusals(&world.events()), [Reason::SystemError], "which an operator is warned of");
    assert_eq!(world.permit(&second, &[peer(1)]).code(), None);
    assert_eq!(world.server.accepted(world.now, relay, peer(1)), Err(Dropped::TooManyConnections));
    world.server.connection_gone(id);
    assert!(!world.server.has_all_connections());
    begun(&mut world, &second, peer(1));
}

#[test]
fn what_bandwidth_does_not_allow_waits() {
    let mut world = world(|options| {
        options.bandwidth = BandwidthLimits { per_allocation: Some(100_000), ..BandwidthLimits::default() };
    });
    let (login, _) = holder(&mut world, 1);
    let id = connected(&mut world, &login, peer(1));
    assert!(world.server.is_metered(id));
    let admitted = (0..100).filter(|_| world.server.admit_bytes(world.now, id, Direction::ToPeers, 16_384)).count();
    assert!((5..8).contains(&admitted), "{admitted}");
    assert!(world.server.admit_bytes(world.now, id, Direction::ToClients, 16_384), "the other direction is another");
    world.pass(1);
    assert!(world.server.admit_bytes(world.now, id, Direction::ToPeers, 16_384));
}

#[test]
fn a_reload_closes_connections_with_peers_that_are_denied_now() {
    let mut world = world(|_| {});
    let (login, relay) = holder(&mut world, 1);
    let (kept, cut) = (connected(&mut world, &login, peer(1)), connected(&mut world, &login, peer(2)));
    let waits = begun(&mut world, &login, PeerAddr::new("8.8.8.2:99".parse().unwrap()).unwrap());
    assert_eq!(world.permit(&login, &[peer(2)]).code(), None);
    world.reload(|options| options.rules.denied = vec!["8.8.8.2".to_owned()]);
    let mut disconnected = world.relays.disconnected.clone();
    disconnected.sort();
    let mut expected = [cut, waits];
    expected.sort();
    assert_eq!(disconnected, expected);
    assert_eq!(notice(&mut world).unwrap().1.code(), Some(403), "the Connect has its answer");
    assert_eq!(world.server.accepted(world.now, relay, peer(2)), Err(Dropped::NoPermission));
    assert!(!world.server.bind_connection(cut) && world.server.bind_connection(kept));
    // Switched off, nothing new is made, and what there is goes on.
    world.reload(|options| options.tcp_relays = None);
    let connect = connect_bytes(&mut world, &login, peer(3));
    assert_eq!(world.hand_in(login.client, &connect).dropped(), Dropped::UnknownMethod);
    assert!(world.server.admit_bytes(world.now, kept, Direction::ToPeers, 10));
    let plain = world.alice(over_tcp(5));
    let reply = world.request(&plain, Method::ALLOCATE, |request| {
        request.attribute(AttributeType::REQUESTED_TRANSPORT, &UDP);
    });
    assert_eq!(reply.code(), None);
}

#[test]
fn an_allocation_that_is_kicked_or_expires_takes_its_connections_along() {
    let mut world = world(|_| {});
    let (first, _) = holder(&mut world, 1);
    let (second, _) = holder(&mut world, 2);
    let ids = [connected(&mut world, &first, peer(1)), connected(&mut world, &second, peer(1))];
    let (bound_of_first, data) = (ids[0], world.alice(over_tcp(3)));
    bound(&mut world, &data, bound_of_first);
    let filter = AllocationFilter { client: Some(first.client.five_tuple.client.get().ip()), ..Default::default() };
    let id = world.list(&filter, None, 1)[0].id;
    assert!(world.server.take_out(world.now, id).is_none(), "it stays where its connections are");
    assert_eq!(world.kick(&filter, None).len(), 1);
    assert_eq!(world.relays.disconnected, [ids[0]]);
    world.pass(700);
    assert_eq!(world.relays.disconnected, ids);
    assert!(world.relays.tcp.is_empty() && world.shared.connection_ids.is_empty());
    assert_eq!(bind_as(&mut world, &data, ids[1].value()).reply().code(), Some(400));
    world.check_books();
}
