//! New clients that are sent to other servers to share the load (RFC 8489 section 10).

use std::sync::Arc;

use turnstone::addr::{ClientAddr, Transport};
use turnstone::reject::Reason;
use turnstone::stun::{AttributeType, Method, decode_address};
use turnstone::turn::{AlternateServer, Alternates, Client, Other, Redirect};

use crate::harness::*;

const ONE: &str = "203.0.113.1:3478";
const OTHER: &str = "203.0.113.2:3478";
const OF_TLS: &str = "203.0.113.3:443";

fn world(share_percent: u8, from_allocations: u32) -> World {
    let server = |transport, address: &str| AlternateServer { transport, address: address.parse().unwrap() };
    let servers = vec![server(None, ONE), server(None, OTHER), server(Some(Transport::Tls), OF_TLS)];
    let alternates = Alternates { servers, domain: Some("turn2.example.org".to_owned()) };
    World::with(|options| {
        options.redirect = Some(Arc::new(Redirect {
            alternates,
            by_load: false,
            share_percent,
            from_allocations,
            from_bytes_per_sec: None,
        }))
    })
}

/// Where a client's first request is sent to; `None` when it is challenged.
fn sent_to(world: &mut World, client: Client) -> Option<String> {
    let bytes = world.bare(Method::ALLOCATE, |_| {});
    let reply = world.hand_in(client, &bytes).reply();
    match reply.code() {
        Some(300) => {
            assert_eq!(world.server.refused_with().map(|(reason, _)| reason), Some(Reason::Redirected));
            let domain = reply.get(AttributeType::ALTERNATE_DOMAIN);
            let is_tls = client.five_tuple.transport == Transport::Tls;
            assert_eq!(domain, is_tls.then(|| b"turn2.example.org".to_vec()));
            Some(decode_address(&reply.get(AttributeType::ALTERNATE_SERVER).unwrap()).unwrap().to_string())
        }
        Some(401) => None,
        code => panic!("{code:?}"),
    }
}

#[test]
fn a_share_of_the_clients_is_sent_away_evenly_and_each_gets_the_same_answer_again() {
    let mut world = world(30, 0);
    let first: Vec<_> = (0..3000).map(|n| sent_to(&mut world, client(n))).collect();
    let again: Vec<_> = (0..3000).map(|n| sent_to(&mut world, client(n))).collect();
    assert_eq!(first, again);
    let count = |to: Option<&str>| first.iter().filter(|sent| sent.as_deref() == to).count();
    let counts = [None, Some(ONE), Some(OTHER)].map(count);
    assert!((1950..2250).contains(&counts[0]) && counts[1..].iter().all(|n| (350..550).contains(n)), "{counts:?}");
    // Who stays is served.
    let staying = first.iter().position(Option::is_none).unwrap() as u16;
    let login = world.alice(client(staying));
    world.allocate(&login);
    assert_eq!(world.refresh(&login, None).code(), None);
}

#[test]
fn each_transport_has_its_own_and_no_client_goes_to_another_family() {
    let mut world = world(100, 0);
    for n in 0..20 {
        assert_eq!(sent_to(&mut world, client_over(Transport::Tls, n)).as_deref(), Some(OF_TLS));
        assert!(matches!(sent_to(&mut world, client_over(Transport::Tcp, n)).as_deref(), Some(ONE | OTHER)));
    }
    let mut of_v6 = client(1);
    of_v6.five_tuple.client = ClientAddr::new("[2a03::1]:4000".parse().unwrap());
    assert_eq!(sent_to(&mut world, of_v6), None, "no server of its family");
    // Who authenticates all the same gets it signed.
    let mut login = world.alice(of_v6);
    login.client = client(2);
    let bytes = world.bare(Method::REFRESH, |_| {});
    login.nonce = world.hand_in(login.client, &bytes).reply().get(AttributeType::NONCE).unwrap();
    let reply = world.request(&login, Method::ALLOCATE, |request| {
        request.attribute(AttributeType::REQUESTED_TRANSPORT, &UDP);
    });
    assert!(reply.code() == Some(300) && reply.integrity.is_some());
}

#[test]
fn above_a_number_of_allocations_newcomers_are_sent_away_but_nobody_who_was_challenged() {
    let mut world = world(100, 2);
    let [first, second, third] = [1, 2, 3].map(|n| world.alice(client(n)));
    world.allocate(&first);
    assert_eq!(sent_to(&mut world, client(9)), None);
    world.allocate(&second);
    assert!(sent_to(&mut world, client(9)).is_some());
    world.allocate(&third);
    world.refresh(&second, Some(0));
    world.refresh(&third, Some(0));
    assert_eq!(sent_to(&mut world, client(9)), None);
    world.check_books();
}

#[test]
fn above_what_is_relayed_newcomers_are_sent_away_whatever_the_number_of_allocations() {
    for from_allocations in [0, 1000] {
        let mut world = world(100, from_allocations);
        world.reload(|options| {
            let redirect = options.redirect.as_deref().unwrap().clone();
            options.redirect = Some(Arc::new(Redirect { from_bytes_per_sec: Some(1_000_000), ..redirect }));
        });
        assert_eq!(sent_to(&mut world, client(1)), None);
        let challenged = world.alice(client(2));
        world.shared.relayed.set(999_999);
        assert_eq!(sent_to(&mut world, client(1)), None);
        world.shared.relayed.set(1_000_000);
        assert!(sent_to(&mut world, client(1)).is_some());
        world.allocate(&challenged);
        world.shared.relayed.set(10);
        assert_eq!(sent_to(&mut world, client(1)), None);
    }
}

#[test]
fn a_reload_changes_it_and_a_drain_without_servers_of_its_own_uses_it() {
    let mut world = world(100, 1_000_000);
    assert_eq!(sent_to(&mut world, client(1)), None);
    let login = world.alice(client(1));
    world.server.set_draining(true);
    assert!(sent_to(&mut world, client(1)).is_some());
    let reply = world.request(&login, Method::ALLOCATE, |request| {
        request.attribute(AttributeType::REQUESTED_TRANSPORT, &UDP);
    });
    assert_eq!(reply.code(), Some(300));
    let own = AlternateServer { transport: None, address: "203.0.113.77:3478".parse().unwrap() };
    world.server.set_alternates(Arc::new(Alternates { servers: vec![own], domain: None }));
    assert_eq!(sent_to(&mut world, client(1)).as_deref(), Some("203.0.113.77:3478"));
    world.server.set_alternates(Arc::default());
    world.reload(|options| options.redirect = None);
    assert_eq!(sent_to(&mut world, client(1)), None);
    world.server.set_draining(false);
    world.allocate(&login);
}

/// A world that sends newcomers to those with less to do once it has two allocations.
fn world_by_load() -> World {
    let alternates = Alternates { servers: Vec::new(), domain: Some("turn2.example.org".to_owned()) };
    World::with(|options| {
        options.redirect = Some(Arc::new(Redirect {
            alternates,
            by_load: true,
            share_percent: 100,
            from_allocations: 2,
            from_bytes_per_sec: None,
        }));
    })
}

fn other(transport: Transport, address: &str, load_percent: u16) -> Other {
    Other { server: AlternateServer { transport: Some(transport), address: address.parse().unwrap() }, load_percent }
}

#[test]
fn by_load_most_newcomers_go_where_there_is_least_to_do_but_not_all_of_a_herd() {
    let mut world = world_by_load();
    let udp = |address, load| other(Transport::Udp, address, load);
    world.server.set_others(Arc::new([udp(ONE, 10), udp(OTHER, 50)]));
    assert_eq!(sent_to(&mut world, client(9)), None, "it has room itself");
    let challenged = world.alice(client(5000));
    for n in [1, 2] {
        let login = world.alice(client(n));
        world.allocate(&login);
    }
    let sent: Vec<_> = (1000..2000).map(|n| sent_to(&mut world, client(n)).unwrap()).collect();
    let again: Vec<_> = (1000..2000).map(|n| sent_to(&mut world, client(n)).unwrap()).collect();
    assert_eq!(sent, again);
    let of_one = sent.iter().filter(|sent| *sent == ONE).count();
    assert!((690..810).contains(&of_one), "three quarters of a thousand: {of_one}");
    // With three, the one with most to do is chosen only where chance has drawn it twice.
    let third = "203.0.113.4:3478";
    world.server.set_others(Arc::new([udp(ONE, 10), udp(OTHER, 50), udp(third, 80)]));
    let sent: Vec<_> = (1000..2000).map(|n| sent_to(&mut world, client(n)).unwrap()).collect();
    let counts = [ONE, OTHER, third].map(|to| sent.iter().filter(|sent| *sent == to).count());
    assert!(counts[0] > counts[1] && counts[1] > counts[2] && (70..160).contains(&counts[2]), "{counts:?}");
    // Who was challenged is served, and nobody is sent away once nobody has room.
    world.allocate(&challenged);
    world.server.set_others(Arc::new([]));
    assert_eq!(sent_to(&mut world, client(9)), None);
    world.check_books();
}

#[test]
fn by_load_a_client_goes_to_a_node_of_its_transport_and_family_or_stays() {
    let mut world = world_by_load();
    for n in [1, 2] {
        let login = world.alice(client(n));
        world.allocate(&login);
    }
    let nodes = [other(Transport::Udp, "[2001:db8::1]:3478", 0), other(Transport::Tls, OF_TLS, 70)];
    world.server.set_others(Arc::new(nodes));
    assert_eq!(sent_to(&mut world, client(9)), None, "no node of its family");
    assert_eq!(sent_to(&mut world, client_over(Transport::Tcp, 9)), None, "none over TCP");
    assert_eq!(sent_to(&mut world, client_over(Transport::Tls, 9)).as_deref(), Some(OF_TLS));
    let mut of_v6 = client(1);
    of_v6.five_tuple.client = ClientAddr::new("[2a03::1]:4000".parse().unwrap());
    assert_eq!(sent_to(&mut world, of_v6).as_deref(), Some("[2001:db8::1]:3478"));
}

#[test]
fn a_drain_without_servers_of_its_own_sends_clients_to_nodes_with_room_and_signs_it_for_who_authenticates() {
    let mut world = world_by_load();
    let login = world.alice(client(1));
    world.server.set_others(Arc::new([other(Transport::Udp, ONE, 10)]));
    world.server.set_draining(true);
    assert_eq!(sent_to(&mut world, client(9)).as_deref(), Some(ONE));
    let allocate = |world: &mut World| {
        world.request(&login, Method::ALLOCATE, |request| {
            request.attribute(AttributeType::REQUESTED_TRANSPORT, &UDP);
        })
    };
    let reply = allocate(&mut world);
    assert!(reply.code() == Some(300) && reply.integrity.is_some());
    // Nobody has room: the servers that are named for that, or else no capacity, and no 300 that says no place.
    world.server.set_others(Arc::new([]));
    let redirect = |world: &mut World, servers| {
        world.reload(|options| {
            let redirect = options.redirect.as_deref().unwrap().clone();
            let alternates = Alternates { servers, domain: None };
            options.redirect = Some(Arc::new(Redirect { alternates, ..redirect }));
        });
    };
    redirect(&mut world, vec![AlternateServer { transport: None, address: OTHER.parse().unwrap() }]);
    assert_eq!(allocate(&mut world).code(), Some(300));
    world.server.set_draining(false);
    assert_eq!(sent_to(&mut world, client(10)), None, "without a drain it goes by load alone");
    world.server.set_draining(true);
    redirect(&mut world, Vec::new());
    world.server.set_others(Arc::new([]));
    assert_eq!(allocate(&mut world).code(), Some(508));
}
