//! NAT behaviour discovery (RFC 5780): where an answer leaves from and goes to, and what it says of that.

use std::net::SocketAddr;

use turnstone::addr::Transport;
use turnstone::policy::RateLimit;
use turnstone::reject::Dropped;
use turnstone::stun::{AttributeType, Class, Encoder, Method, decode_address};
use turnstone::turn::{Client, Detour, NatDiscovery};

use crate::harness::*;

const CHANGE_IP: u32 = 4;
const CHANGE_PORT: u32 = 2;
const BOUND: [&str; 2] = ["10.1.0.5", "10.1.0.6"];
const TOLD: [&str; 2] = ["5.45.96.1", "5.45.96.2"];
const PORTS: [u16; 2] = [3478, 3479];

fn world() -> World {
    World::with(|options| {
        options.nat_discovery = vec![NatDiscovery {
            addresses: BOUND.map(|ip| ip.parse().unwrap()),
            external: TOLD.map(|ip| ip.parse().unwrap()),
            ports: PORTS,
        }];
    })
}

fn at(ips: [&str; 2], ip: usize, port: usize) -> SocketAddr {
    SocketAddr::new(ips[ip].parse().unwrap(), PORTS[port])
}

/// A client whose request came to one of the four.
fn asking(transport: Transport, ip: usize, port: usize) -> Client {
    let mut client = client_over(transport, 1);
    client.five_tuple.server = at(BOUND, ip, port);
    client
}

fn binding(world: &mut World, client: Client, build: impl FnOnce(&mut Encoder<'_>)) -> Answer {
    let request = world.bare(Method::BINDING, build);
    let answer = world.hand_in(client, &request);
    if let Answer::Reply(reply) | Answer::Detour(_, reply) = &answer {
        assert_eq!(reply.bytes[4..20], request[4..20]);
    }
    answer
}

fn address(reply: &Reply, kind: AttributeType) -> SocketAddr {
    decode_address(&reply.get(kind).unwrap()).unwrap()
}

#[test]
fn table_1_of_rfc_5780_from_each_of_the_four() {
    let mut world = world();
    for (ip, port) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        for (flags, from) in [
            (0, (ip, port)),
            (CHANGE_IP, (1 - ip, port)),
            (CHANGE_PORT, (ip, 1 - port)),
            (CHANGE_IP | CHANGE_PORT, (1 - ip, 1 - port)),
        ] {
            let client = asking(Transport::Udp, ip, port);
            let answer = binding(&mut world, client, |request| {
                request.u32(AttributeType::CHANGE_REQUEST, flags);
            });
            let reply = if flags == 0 {
                answer.reply()
            } else {
                let (detour, reply) = answer.detour();
                let to_port = client.five_tuple.client.get().port();
                assert_eq!(detour, Detour { from: at(BOUND, from.0, from.1), to_port });
                reply
            };
            assert_eq!(reply.class, Class::Success);
            assert_eq!(address(&reply, AttributeType::RESPONSE_ORIGIN), at(TOLD, from.0, from.1));
            assert_eq!(address(&reply, AttributeType::OTHER_ADDRESS), at(TOLD, 1 - ip, 1 - port));
            assert_eq!(address(&reply, AttributeType::MAPPED_ADDRESS), client.five_tuple.client.get());
            assert_eq!(reply.addresses(AttributeType::XOR_MAPPED_ADDRESS), [client.five_tuple.client.get()]);
        }
    }
}

#[test]
fn without_a_second_address_its_attributes_are_unknown() {
    for kind in [AttributeType::CHANGE_REQUEST, AttributeType::RESPONSE_PORT, AttributeType::PADDING] {
        let unknown = |world: &mut World, client: Client| {
            let reply = binding(world, client, |request| {
                request.u32(kind, CHANGE_PORT);
            })
            .reply();
            assert_eq!(reply.code(), Some(420));
            assert_eq!(reply.get(AttributeType::UNKNOWN_ATTRIBUTES).unwrap(), kind.0.to_be_bytes());
        };
        unknown(&mut World::new(), asking(Transport::Udp, 0, 0));
        // Over a connection an answer leaves from where it came to; and a fifth address has no other one.
        let mut world = world();
        for transport in [Transport::Tcp, Transport::Tls] {
            unknown(&mut world, asking(transport, 0, 0));
        }
        unknown(&mut world, client(1));
        let mut elsewhere = asking(Transport::Udp, 0, 0);
        elsewhere.five_tuple.server.set_port(3480);
        unknown(&mut world, elsewhere);
        // Nor does any other method know them.
        let reply = {
            let login = world.alice(asking(Transport::Udp, 0, 0));
            world.request(&login, Method::ALLOCATE, |request| {
                request.attribute(AttributeType::REQUESTED_TRANSPORT, &UDP).u32(kind, CHANGE_PORT);
            })
        };
        assert_eq!(reply.code(), Some(420));
    }
}

#[test]
fn response_port_stays_at_the_clients_own_address() {
    let mut world = world();
    let client = asking(Transport::Udp, 0, 0);
    for value in [&[0x9C, 0x40, 0, 0][..], &[0x9C, 0x40]] {
        let answer = binding(&mut world, client, |request| {
            request.attribute(AttributeType::RESPONSE_PORT, value);
        });
        let (detour, reply) = answer.detour();
        assert_eq!(detour, Detour { from: at(BOUND, 0, 0), to_port: 40_000 });
        assert_eq!(reply.addresses(AttributeType::XOR_MAPPED_ADDRESS), [client.five_tuple.client.get()]);
    }
    // Its own port is no detour.
    let own = client.five_tuple.client.get().port().to_be_bytes();
    let reply = binding(&mut world, client, |request| {
        request.attribute(AttributeType::RESPONSE_PORT, &[own[0], own[1], 0, 0]);
    });
    assert_eq!(reply.reply().class, Class::Success);
    for value in [&[0, 0, 0, 0][..], &[], &[1], &[1, 2, 3], &[1, 2, 3, 4, 5]] {
        let reply = binding(&mut world, client, |request| {
            request.attribute(AttributeType::RESPONSE_PORT, value);
        });
        assert_eq!(reply.reply().code(), Some(400), "{value:?}");
    }
}

#[test]
fn a_change_request_of_another_length_is_malformed() {
    let mut world = world();
    for value in [&[][..], &[0, 0, 0], &[0, 0, 0, 4, 0]] {
        let reply = binding(&mut world, asking(Transport::Udp, 0, 0), |request| {
            request.attribute(AttributeType::CHANGE_REQUEST, value);
        });
        assert_eq!(reply.reply().code(), Some(400), "{value:?}");
    }
}

#[test]
fn padding_makes_no_answer_longer_than_the_request_nor_than_an_ethernet_carries() {
    for (software, fingerprint) in [(None, false), (Some("Turnstone of some length".to_owned()), true)] {
        let mut world = world();
        world.reload(|options| options.software = software);
        for len in (0..3000).step_by(7) {
            let mut request = 0;
            let answer = binding(&mut world, asking(Transport::Udp, 0, 0), |encoder| {
                encoder.attribute(AttributeType::PADDING, &vec![0xAA; len]);
                if fingerprint {
                    encoder.fingerprint();
                }
                request = encoder.message_len();
            });
            let reply = answer.reply();
            let padding = reply.get(AttributeType::PADDING).expect("RFC 5780: PADDING MUST be included");
            assert!(padding.iter().all(|byte| *byte == 0) && padding.len() % 4 == 0 && padding.len() <= 1500);
            assert!(padding.is_empty() || reply.bytes.len() <= request, "{} for {request}", reply.bytes.len());
            assert!(len < 1700 || padding.len() == 1500, "{} for {request}", padding.len());
        }
    }
}

#[test]
fn padding_and_response_port_do_not_go_together() {
    let mut world = world();
    let reply = binding(&mut world, asking(Transport::Udp, 0, 0), |request| {
        request.attribute(AttributeType::RESPONSE_PORT, &[0x9C, 0x40, 0, 0]);
        request.attribute(AttributeType::PADDING, &[0; 1500]);
    })
    .reply();
    assert_eq!(reply.code(), Some(400));
    assert!(reply.bytes.len() < 100);
}

#[test]
fn every_detour_is_out_of_the_budget_for_strangers() {
    let mut world = world();
    world.reload(|options| options.unauthenticated = Some(RateLimit { per_second: 1, burst: 3 }));
    let client = asking(Transport::Udp, 0, 0);
    let mut answered = 0;
    for n in 0..100 {
        let answer = binding(&mut world, client, |request| {
            match n % 2 {
                0 => request.u32(AttributeType::CHANGE_REQUEST, CHANGE_IP | CHANGE_PORT),
                _ => request.attribute(AttributeType::RESPONSE_PORT, &[1, n, 0, 0]),
            };
        });
        match answer {
            Answer::Dropped(dropped) => assert_eq!(dropped, Dropped::RateLimited),
            _ => answered += 1,
        }
    }
    assert_eq!(answered, 3);
}

/// Who forges a victim's address makes the server send it no more by PADDING than by any other request.
#[test]
fn a_padded_answer_takes_as_much_of_the_budget_as_answers_of_its_length() {
    let mut world = world();
    world.reload(|options| options.unauthenticated = Some(RateLimit { per_second: 100, burst: 500 }));
    let client = asking(Transport::Udp, 0, 0);
    let mut bytes = 0;
    for n in 0..10_000_usize {
        let answer = binding(&mut world, client, |request| {
            request.attribute(AttributeType::PADDING, &vec![0; n % 3000]);
        });
        match answer {
            Answer::Dropped(dropped) => assert_eq!(dropped, Dropped::RateLimited),
            answer => bytes += answer.reply().bytes.len(),
        }
    }
    assert!(bytes <= 500 * 104, "{bytes} bytes for a burst of 500 answers");
}
