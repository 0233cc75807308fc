//! Allocate (RFC 8656 section 7).

use std::sync::Arc;

use turnstone::addr::{Family, Transport};
use turnstone::policy::{QuotaLimits, RateLimit};
use turnstone::reject::Reason;
use turnstone::stun::{AttributeType, Class, Encoder, Method};
use turnstone::turn::{AlternateServer, Alternates, DefaultFamily, EndReason, Event};

use crate::harness::*;

/// Allocates with extra attributes besides REQUESTED-TRANSPORT.
fn allocate_with(world: &mut World, login: &Login, build: impl FnOnce(&mut Encoder<'_>)) -> Reply {
    let reply = world.request(login, Method::ALLOCATE, |request| {
        request.attribute(AttributeType::REQUESTED_TRANSPORT, &UDP);
        build(request);
    });
    world.check_books();
    reply
}

fn code_with(kinds: &[(AttributeType, &[u8])]) -> Option<u16> {
    let mut world = World::new();
    let login = world.alice(client(1));
    let reply = allocate_with(&mut world, &login, |request| {
        for (kind, value) in kinds {
            request.attribute(*kind, value);
        }
    });
    reply.code()
}

#[test]
fn the_first_request_is_challenged_and_the_second_allocates() {
    let mut world = World::new();
    let request = world.bare(Method::ALLOCATE, |request| {
        request.attribute(AttributeType::REQUESTED_TRANSPORT, &UDP);
    });
    let challenge = world.hand_in(client(1), &request).reply();
    assert_eq!(challenge.code(), Some(401));
    assert_eq!(challenge.get(AttributeType::REALM).unwrap(), REALM.as_bytes());
    assert!(challenge.get(AttributeType::NONCE).is_some());
    assert!(challenge.get(AttributeType::PASSWORD_ALGORITHMS).is_some());
    assert_eq!(challenge.integrity, None);
    assert!(world.events().is_empty(), "no event for a request nobody signed");

    let login = world.alice(client(1));
    let reply = world.allocate(&login);
    assert_eq!(reply.class, Class::Success);
    assert_eq!(reply.relayed().ip().to_string(), RELAY_V4);
    assert_eq!(reply.lifetime_secs(), 600);
    assert_eq!(reply.addresses(AttributeType::XOR_MAPPED_ADDRESS), [login.client.five_tuple.client.get()]);
    assert!(reply.is_signed_by(&login));
    assert_eq!(world.server.allocations(), 1);
    let events = world.events();
    assert!(
        matches!(&events[..], [Event::Allocated { relayed, .. }] if relayed.len() == 1 && relayed[0].get() == reply.relayed())
    );
}

#[test]
fn allocations_work_over_every_transport_and_with_sha256() {
    let mut world = World::new();
    for (n, transport) in [(1, Transport::Udp), (1, Transport::Tcp), (1, Transport::Tls)] {
        let login = world.alice(client_over(transport, n)).with_sha256();
        let reply = world.allocate(&login);
        assert!(reply.is_signed_by(&login));
    }
    assert_eq!(world.server.allocations(), 3);
}

#[test]
fn a_second_allocation_on_the_same_5_tuple_is_437() {
    let mut world = World::new();
    let login = world.allocated(1);
    let reply = allocate_with(&mut world, &login, |_| {});
    assert_eq!(reply.code(), Some(437));
    let bob = world.login(client(1), "bob", "builder");
    assert_eq!(allocate_with(&mut world, &bob, |_| {}).code(), Some(437));
    assert_eq!(world.server.allocations(), 1);
}

#[test]
fn requested_transport_is_required_and_must_be_udp() {
    let mut world = World::new();
    let login = world.alice(client(1));
    assert_eq!(world.request(&login, Method::ALLOCATE, |_| {}).code(), Some(400));
    for (value, code) in [(&[17u8, 0][..], 400), (&[6, 0, 0, 0], 442), (&[0, 0, 0, 0], 442)] {
        let reply = world.request(&login, Method::ALLOCATE, |request| {
            request.attribute(AttributeType::REQUESTED_TRANSPORT, value);
        });
        assert_eq!(reply.code(), Some(code), "{value:?}");
    }
    // The reserved bytes are ignored.
    let reply = world.request(&login, Method::ALLOCATE, |request| {
        request.attribute(AttributeType::REQUESTED_TRANSPORT, &[17, 1, 2, 3]);
    });
    assert_eq!(reply.code(), None);
    world.check_books();
}

#[test]
fn attributes_that_exclude_each_other_get_400() {
    const TOKEN: (AttributeType, &[u8]) = (AttributeType::RESERVATION_TOKEN, &[1, 2, 3, 4, 5, 6, 7, 8]);
    const EVEN: (AttributeType, &[u8]) = (AttributeType::EVEN_PORT, &[0]);
    const EVEN_NEXT: (AttributeType, &[u8]) = (AttributeType::EVEN_PORT, &[0x80]);
    const V4: (AttributeType, &[u8]) = (AttributeType::REQUESTED_ADDRESS_FAMILY, &[1, 0, 0, 0]);
    const V6: (AttributeType, &[u8]) = (AttributeType::REQUESTED_ADDRESS_FAMILY, &[2, 0, 0, 0]);
    const ALSO_V6: (AttributeType, &[u8]) = (AttributeType::ADDITIONAL_ADDRESS_FAMILY, &[2, 0, 0, 0]);
    const ALSO_V4: (AttributeType, &[u8]) = (AttributeType::ADDITIONAL_ADDRESS_FAMILY, &[1, 0, 0, 0]);
    for pair in [[TOKEN, EVEN], [TOKEN, V4], [TOKEN, ALSO_V6], [V4, ALSO_V6], [V6, ALSO_V6], [EVEN_NEXT, ALSO_V6]] {
        assert_eq!(code_with(&pair), Some(400), "{pair:?}");
    }
    assert_eq!(code_with(&[ALSO_V4]), Some(400));
    assert_eq!(code_with(&[TOKEN]), Some(508));
    assert_eq!(code_with(&[EVEN, ALSO_V6]), None);
    assert_eq!(code_with(&[EVEN_NEXT, V6]), None);
}

#[test]
fn malformed_values_get_400() {
    for (kind, value) in [
        (AttributeType::LIFETIME, &[0u8, 1][..]),
        (AttributeType::EVEN_PORT, &[]),
        (AttributeType::EVEN_PORT, &[0, 0, 0, 0]),
        (AttributeType::RESERVATION_TOKEN, &[1, 2, 3, 4]),
        (AttributeType::REQUESTED_ADDRESS_FAMILY, &[1]),
        (AttributeType::ADDITIONAL_ADDRESS_FAMILY, &[2]),
        (AttributeType::ADDITIONAL_ADDRESS_FAMILY, &[3, 0, 0, 0]),
    ] {
        assert_eq!(code_with(&[(kind, value)]), Some(400), "{kind:?} {value:?}");
    }
}

#[test]
fn dont_fragment_is_supported() {
    assert_eq!(code_with(&[(AttributeType::DONT_FRAGMENT, &[])]), None);
}

#[test]
fn unknown_required_attributes_get_420_with_integrity() {
    let mut world = World::new();
    let login = world.alice(client(1));
    let reply = allocate_with(&mut world, &login, |request| {
        request.attribute(AttributeType(0x002B), &[0; 4]);
        request.attribute(AttributeType(0x8030), &[]);
    });
    assert_eq!(reply.code(), Some(420));
    assert_eq!(reply.get(AttributeType::UNKNOWN_ATTRIBUTES).unwrap(), [0x00, 0x2B]);
    assert!(reply.is_signed_by(&login));
    assert_eq!(world.server.allocations(), 0);
}

#[test]
fn lifetime_is_at_least_the_default_and_at_most_the_maximum() {
    for (requested, granted) in
        [(0, 600), (1, 600), (600, 600), (601, 601), (3600, 3600), (3601, 3600), (u32::MAX, 3600)]
    {
        let mut world = World::new();
        let login = world.alice(client(1));
        let reply = allocate_with(&mut world, &login, |request| {
            request.u32(AttributeType::LIFETIME, requested);
        });
        assert_eq!(reply.lifetime_secs(), granted, "{requested} s");
        world.pass(u64::from(granted) - 1);
        assert_eq!(world.server.allocations(), 1, "{requested} s");
        world.pass(2);
        assert_eq!(world.server.allocations(), 0, "{requested} s");
        assert!(world.relays.open.is_empty());
    }
}

#[test]
fn a_family_is_given_as_requested_and_ipv4_when_none_is_named() {
    let mut world = World::new();
    let login = world.alice(client(1));
    let reply = allocate_with(&mut world, &login, |request| {
        request.attribute(AttributeType::REQUESTED_ADDRESS_FAMILY, &[2, 0, 0, 0]);
    });
    assert_eq!(reply.relayed().ip().to_string(), RELAY_V6);

    let mut over_ipv6 = client(2);
    over_ipv6.five_tuple.client = turnstone::addr::ClientAddr::new("[2a02::7]:7000".parse().unwrap());
    let login = world.alice(over_ipv6);
    assert_eq!(world.allocate(&login).relayed().ip().to_string(), RELAY_V4);
}

#[test]
fn a_client_that_names_no_family_gets_that_of_its_address_or_the_one_configured_if_it_is_so() {
    let relayed = |default_family, client_addr: &str, has_v6: bool| {
        let mut world = World::with(|options| options.default_family = default_family);
        world.relays.v6 = world.relays.v6.filter(|_| has_v6);
        let mut from = client(1);
        from.five_tuple.client = turnstone::addr::ClientAddr::new(client_addr.parse().unwrap());
        let login = world.alice(from);
        let reply = allocate_with(&mut world, &login, |_| {});
        if reply.code().is_some() { None } else { Some(reply.relayed().ip().to_string()) }
    };
    let (v4, v6) = ("91.20.1.1:7000", "[2a02::7]:7000");
    let [is_v4, is_v6] = [RELAY_V4, RELAY_V6].map(|ip| Some(ip.to_owned()));
    assert_eq!(relayed(DefaultFamily::AsClient, v4, true), is_v4);
    assert_eq!(relayed(DefaultFamily::AsClient, v6, true), is_v6);
    assert_eq!(relayed(DefaultFamily::AsClient, v6, false), is_v4, "there are no others");
    assert_eq!(relayed(DefaultFamily::Always(Family::V6), v4, true), is_v6);
    assert_eq!(relayed(DefaultFamily::Always(Family::V6), v4, false), None, "440");
}

#[test]
fn a_family_we_have_no_relay_of_is_440() {
    let mut world = World::new();
    world.relays.v6 = None;
    let login = world.alice(client(1));
    for family in [2, 3] {
        let reply = allocate_with(&mut world, &login, |request| {
            request.attribute(AttributeType::REQUESTED_ADDRESS_FAMILY, &[family, 0, 0, 0]);
        });
        assert_eq!(reply.code(), Some(440));
    }
    world.relays.v6 = world.relays.v4.take();
    assert_eq!(allocate_with(&mut world, &login, |_| {}).code(), Some(440), "IPv4 is what no family means");
}

#[test]
fn a_dual_allocation_has_both_addresses() {
    let mut world = World::new();
    let login = world.alice(client(1));
    let reply = allocate_with(&mut world, &login, |request| {
        request.attribute(AttributeType::ADDITIONAL_ADDRESS_FAMILY, &[2, 0, 0, 0]);
    });
    let relayed = reply.addresses(AttributeType::XOR_RELAYED_ADDRESS);
    assert_eq!(relayed.iter().map(|addr| addr.ip().to_string()).collect::<Vec<_>>(), [RELAY_V4, RELAY_V6]);
    assert_eq!(reply.get(AttributeType::ADDRESS_ERROR_CODE), None);
    assert_eq!(world.relays.open.len(), 2);
    world.refresh(&login, Some(0));
    assert!(world.relays.open.is_empty());
    assert_eq!(world.shared.quotas.in_use(), 0);
}

#[test]
fn a_dual_allocation_that_misses_one_family_says_which_and_why() {
    for (missing, wire, without_port, code) in
        [(Family::V6, 2, false, 40), (Family::V4, 1, false, 40), (Family::V6, 2, true, 8), (Family::V4, 1, true, 8)]
    {
        let mut world = World::new();
        if without_port {
            // Only one port is left, and it is taken in the missing family.
            world.relays.ports = vec![50_000];
            let taker = world.alice(client(2));
            let family = missing.to_wire();
            let reply = allocate_with(&mut world, &taker, |request| {
                request.attribute(AttributeType::REQUESTED_ADDRESS_FAMILY, &[family, 0, 0, 0]);
            });
            assert_eq!(reply.code(), None);
        } else if missing == Family::V6 {
            world.relays.v6 = None;
        } else {
            world.relays.v4 = None;
        }
        let login = world.alice(client(1));
        let reply = allocate_with(&mut world, &login, |request| {
            request.attribute(AttributeType::ADDITIONAL_ADDRESS_FAMILY, &[2, 0, 0, 0]);
        });
        assert_eq!(reply.code(), None);
        assert_ne!(Family::of(reply.relayed().ip()), missing);
        let value = reply.get(AttributeType::ADDRESS_ERROR_CODE).unwrap();
        assert_eq!(value[..4], [wire, 0, if code == 40 { 4 } else { 5 }, code]);
        assert!(std::str::from_utf8(&value[4..]).unwrap().len() < 128);
    }
}

#[test]
fn a_dual_allocation_that_misses_both_families_is_refused() {
    let mut world = World::new();
    world.relays.ports.clear();
    let login = world.alice(client(1));
    let dual = |request: &mut Encoder<'_>| {
        request.attribute(AttributeType::ADDITIONAL_ADDRESS_FAMILY, &[2, 0, 0, 0]);
    };
    assert_eq!(allocate_with(&mut world, &login, dual).code(), Some(508));
    world.relays.v4 = None;
    assert_eq!(allocate_with(&mut world, &login, dual).code(), Some(508));
    world.relays.v6 = None;
    assert_eq!(allocate_with(&mut world, &login, dual).code(), Some(440));
    assert_eq!(world.shared.quotas.in_use(), 0);
}

#[test]
fn even_port_gives_an_even_port_and_reserves_the_next_for_the_same_user() {
    let mut world = World::new();
    world.relays.ports = (50_001..50_010).collect();
    let rtp = world.alice(client(1));
    let reply = allocate_with(&mut world, &rtp, |request| {
        request.attribute(AttributeType::EVEN_PORT, &[0x80]);
    });
    assert_eq!(reply.relayed().port(), 50_002);
    let token = reply.get(AttributeType::RESERVATION_TOKEN).unwrap();
    assert_eq!(token.len(), 8);

    let thief = world.login(client(3), "bob", "builder");
    let reply = allocate_with(&mut world, &thief, |request| {
        request.attribute(AttributeType::RESERVATION_TOKEN, &token);
    });
    assert_eq!(reply.code(), Some(508));

    let rtcp = world.alice(client(2));
    let reply = allocate_with(&mut world, &rtcp, |request| {
        request.attribute(AttributeType::RESERVATION_TOKEN, &token);
    });
    assert_eq!(reply.relayed().port(), 50_003);
    assert_eq!(reply.get(AttributeType::RESERVATION_TOKEN), None);

    let again = world.alice(client(4));
    let reply = allocate_with(&mut world, &again, |request| {
        request.attribute(AttributeType::RESERVATION_TOKEN, &token);
    });
    assert_eq!(reply.code(), Some(508), "a token is good once");
}

#[test]
fn even_port_without_the_bit_reserves_nothing() {
    let mut world = World::new();
    let login = world.alice(client(1));
    let reply = allocate_with(&mut world, &login, |request| {
        request.attribute(AttributeType::EVEN_PORT, &[0]);
    });
    assert_eq!(reply.relayed().port() % 2, 0);
    assert_eq!(reply.get(AttributeType::RESERVATION_TOKEN), None);
    assert_eq!(world.relays.taken_ports(), 1);
}

#[test]
fn a_reservation_is_over_after_30_seconds() {
    let mut world = World::new();
    let login = world.alice(client(1));
    let reply = allocate_with(&mut world, &login, |request| {
        request.attribute(AttributeType::EVEN_PORT, &[0x80]);
    });
    let token = reply.get(AttributeType::RESERVATION_TOKEN).unwrap();
    world.pass(31);
    let late = world.alice(client(2));
    let reply = allocate_with(&mut world, &late, |request| {
        request.attribute(AttributeType::RESERVATION_TOKEN, &token);
    });
    assert_eq!(reply.code(), Some(508));
}

#[test]
fn no_port_left_is_508_and_ports_come_back() {
    let mut world = World::new();
    world.relays.ports = vec![50_000, 50_001];
    let first = world.allocated(1);
    world.allocated(2);
    let third = world.alice(client(3));
    assert_eq!(allocate_with(&mut world, &third, |_| {}).code(), Some(508));
    assert_eq!(world.shared.quotas.in_use(), 2);
    world.refresh(&first, Some(0));
    assert_eq!(allocate_with(&mut world, &third, |_| {}).code(), None);
}

#[test]
fn a_system_that_refuses_sockets_is_508_and_costs_no_quota() {
    let mut world = World::with(|options| {
        options.quota = QuotaLimits { per_user: Some(1), total: Some(1), ..QuotaLimits::default() }
    });
    world.relays.broken = true;
    let login = world.alice(client(1));
    for _ in 0..5 {
        assert_eq!(allocate_with(&mut world, &login, |_| {}).code(), Some(508));
    }
    assert_eq!(refusals(&world.events()), [Reason::SystemError; 5]);
    assert_eq!(world.shared.quotas.in_use(), 0);
    world.relays.broken = false;
    assert_eq!(allocate_with(&mut world, &login, |_| {}).code(), None);
}

#[test]
fn a_draining_server_makes_no_new_allocation_and_serves_those_it_has() {
    let mut world = World::new();
    let old = world.allocated(1);
    world.server.set_draining(true);
    let new = world.alice(client(2));
    assert_eq!(allocate_with(&mut world, &new, |_| {}).code(), Some(508));
    assert_eq!(refusals(&world.events()), [Reason::Draining]);
    assert_eq!(world.refresh(&old, None).code(), None);
    assert_eq!(world.bind(&old, 0x4000, peer(1)).code(), None);
    world.server.set_draining(false);
    assert_eq!(allocate_with(&mut world, &new, |_| {}).code(), None);
}

fn alternates(servers: &[(Option<Transport>, &str)], domain: Option<&str>) -> Arc<Alternates> {
    let servers = servers
        .iter()
        .map(|(transport, address)| AlternateServer { transport: *transport, address: address.parse().unwrap() });
    Arc::new(Alternates { servers: servers.collect(), domain: domain.map(str::to_owned) })
}

/// ALTERNATE-SERVER with an IPv4 address.
fn alternate_value(address: &str) -> Vec<u8> {
    let std::net::SocketAddr::V4(address) = address.parse().unwrap() else { panic!("{address} is not IPv4") };
    [&[0, 1][..], &address.port().to_be_bytes(), &address.ip().octets()].concat()
}

#[test]
fn a_draining_server_redirects_strangers_by_transport_and_family_without_realm_or_nonce() {
    let mut world = World::new();
    let challenge = world.bare(Method::ALLOCATE, |_| {});
    let challenge = world.hand_in(client(9), &challenge).reply();
    assert_eq!(challenge.code(), Some(401));
    let (any, tcp, v6) = ("203.0.113.9:3478", "203.0.113.9:3479", "[2001:db8::9]:3478");
    let domain = "turn2.example.org";
    let servers = [(None, v6), (None, any), (Some(Transport::Tcp), tcp)];
    world.server.set_alternates(alternates(&servers, Some(domain)));
    world.server.set_draining(true);
    let cases = [(client(1), any), (client_over(Transport::Tcp, 2), tcp), (client_over(Transport::Tls, 3), any)];
    for (client, expected) in cases {
        let request = world.bare(Method::ALLOCATE, |_| {});
        let reply = world.hand_in(client, &request).reply();
        assert_eq!(reply.code(), Some(300));
        assert_eq!(reply.get(AttributeType::ALTERNATE_SERVER).unwrap(), alternate_value(expected));
        let is_tls = client.five_tuple.transport == Transport::Tls;
        let named = reply.get(AttributeType::ALTERNATE_DOMAIN);
        assert_eq!(named, is_tls.then(|| domain.as_bytes().to_vec()));
        // Chromium would take these along.
        assert_eq!((reply.get(AttributeType::NONCE), reply.get(AttributeType::REALM)), (None, None));
        assert!(reply.integrity.is_none());
        assert!(is_tls || reply.bytes.len() < challenge.bytes.len(), "a forged source gets more than before");
    }
    // All other requests are as ever.
    for method in [Method::REFRESH, Method::CREATE_PERMISSION, Method::CHANNEL_BIND] {
        let request = world.bare(method, |_| {});
        assert_eq!(world.hand_in(client(1), &request).reply().code(), Some(401), "{method:?}");
    }
    // No event: nobody has proved who he is. It is counted.
    assert_eq!(refusals(&world.events()), []);
    assert_eq!(world.server.refusals().of(Reason::Redirected), 3);
    // Nothing fits a client over IPv4 any more: it may authenticate, and is refused then.
    world.server.set_alternates(alternates(&[(None, v6), (Some(Transport::Tls), any)], None));
    let request = world.bare(Method::ALLOCATE, |_| {});
    assert_eq!(world.hand_in(client(4), &request).reply().code(), Some(401));
    let request = world.bare(Method::ALLOCATE, |_| {});
    let reply = world.hand_in(client_over(Transport::Tls, 5), &request).reply();
    assert_eq!((reply.code(), reply.get(AttributeType::ALTERNATE_DOMAIN)), (Some(300), None));
    world.server.set_draining(false);
    world.allocated(6);
}

#[test]
fn redirects_of_strangers_are_within_their_budget() {
    let mut world = World::with(|options| options.unauthenticated = Some(RateLimit { per_second: 1, burst: 3 }));
    world.server.set_alternates(alternates(&[(None, "203.0.113.9:3478")], None));
    world.server.set_draining(true);
    let request = world.bare(Method::ALLOCATE, |_| {});
    let answers = (0..10).filter(|_| matches!(world.hand_in(client(1), &request), Answer::Reply(_))).count();
    assert_eq!(answers, 3);
}

#[test]
fn a_draining_server_signs_the_redirect_of_whoever_had_been_challenged_before() {
    let mut world = World::new();
    let (any, tcp, v6) = ("203.0.113.9:3478", "203.0.113.9:3479", "[2001:db8::9]:3478");
    let transports = [(Transport::Udp, any), (Transport::Tcp, tcp), (Transport::Tls, any)];
    let logins: Vec<_> =
        (1..).zip(transports).map(|(n, (transport, _))| world.alice(client_over(transport, n))).collect();
    let late = world.alice(client(9));
    let servers = [(None, v6), (None, any), (Some(Transport::Tcp), tcp)];
    world.server.set_alternates(alternates(&servers, Some("turn2.example.org")));
    world.server.set_draining(true);
    for (login, (transport, expected)) in logins.iter().zip(transports) {
        let reply = allocate_with(&mut world, login, |_| {});
        assert_eq!(reply.code(), Some(300));
        assert!(reply.integrity.is_some(), "RFC 8489 section 10 allows it, and then nobody can forge it");
        assert_eq!(reply.get(AttributeType::ALTERNATE_SERVER).unwrap(), alternate_value(expected));
        assert_eq!(reply.get(AttributeType::ALTERNATE_DOMAIN).is_some(), transport == Transport::Tls);
    }
    assert_eq!(refusals(&world.events()), [Reason::Redirected; 3]);
    // Nothing fits a client over IPv4 any more.
    world.server.set_alternates(alternates(&[(None, v6), (Some(Transport::Tls), any)], None));
    let reply = allocate_with(&mut world, &late, |_| {});
    assert_eq!((reply.code(), reply.get(AttributeType::ALTERNATE_SERVER)), (Some(508), None));
}

#[test]
fn quotas_are_per_user_and_in_total_and_are_given_back_on_every_end() {
    let mut world = World::with(|options| {
        options.quota = QuotaLimits { per_user: Some(2), total: Some(3), ..QuotaLimits::default() }
    });
    let first = world.allocated(1);
    world.allocated(2);
    let third = world.alice(client(3));
    assert_eq!(allocate_with(&mut world, &third, |_| {}).code(), Some(486));
    let bob = world.login(client(4), "bob", "builder");
    assert_eq!(allocate_with(&mut world, &bob, |_| {}).code(), None);
    let bob = world.login(client(5), "bob", "builder");
    assert_eq!(allocate_with(&mut world, &bob, |_| {}).code(), Some(486));
    assert_eq!(refusals(&world.events()), [Reason::UserQuota, Reason::TotalQuota]);

    assert_eq!(world.refresh(&first, Some(0)).code(), None);
    assert_eq!(allocate_with(&mut world, &third, |_| {}).code(), None);
    world.server.client_gone(world.now, &third.client.five_tuple, &mut world.relays);
    world.check_books();
    assert_eq!(world.shared.quotas.in_use(), 2);
    world.pass(601);
    assert_eq!(world.shared.quotas.in_use(), 0);
    assert!(world.relays.open.is_empty());

    world.allocated(6);
    world.server.end_all(world.now, EndReason::Shutdown, &mut world.relays);
    assert_eq!((world.shared.quotas.in_use(), world.relays.open.len(), world.server.allocations()), (0, 0, 0));
    assert_eq!(world.server.next_timeout(), None);
}

#[test]
fn quotas_count_the_user_part_of_time_limited_usernames() {
    let mut world =
        World::with(|options| options.quota = QuotaLimits { per_user: Some(1), total: None, ..QuotaLimits::default() });
    let first = world.guest(client(1), "carol", 1000);
    world.allocate(&first);
    let second = world.guest(client(2), "carol", 2000);
    assert_eq!(allocate_with(&mut world, &second, |_| {}).code(), Some(486));
    let other = world.guest(client(3), "dave", 1000);
    assert_eq!(allocate_with(&mut world, &other, |_| {}).code(), None);
}

#[test]
fn attributes_after_message_integrity_do_not_count() {
    let mut world = World::new();
    let login = world.alice(client(1));
    let id = world.transaction_id();
    let bytes = login.request(id, Method::ALLOCATE, |request| {
        request.attribute(AttributeType::REQUESTED_TRANSPORT, &UDP);
    });
    // LIFETIME and an unknown required attribute behind the MAC, with the length field to match.
    let mut forged = bytes.clone();
    forged.extend_from_slice(&[0x00, 0x0D, 0, 4, 0, 0, 0x0E, 0x10, 0x00, 0x2A, 0, 0]);
    let body = (forged.len() - 20) as u16;
    forged[2..4].copy_from_slice(&body.to_be_bytes());
    let reply = world.hand_in(login.client, &forged).reply();
    assert_eq!(reply.code(), None);
    assert_eq!(reply.lifetime_secs(), 600);
}
