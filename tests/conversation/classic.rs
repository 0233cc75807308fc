//! Clients of RFC 3489, whose requests have a transaction id of 16 bytes where the magic cookie is now.

use std::net::SocketAddr;

use turnstone::addr::Transport;
use turnstone::policy::RateLimit;
use turnstone::reject::Dropped;
use turnstone::stun::decode_address;
use turnstone::turn::{Client, Detour, NatDiscovery, Outcome};

use crate::harness::*;

const ID: [u8; 16] = [0x5A; 16];

fn classic() -> World {
    World::with(|options| options.rfc3489 = true)
}

fn with_two_addresses() -> (World, Client) {
    let world = World::with(|options| {
        options.rfc3489 = true;
        let addresses = ["5.45.96.1", "5.45.96.2"].map(|ip| ip.parse().unwrap());
        options.nat_discovery = vec![NatDiscovery { addresses, external: addresses, ports: [3478, 3479] }];
    });
    (world, client(1))
}

/// Written by hand: no library of today has these messages.
fn request(attributes: &[(u16, &[u8])]) -> Vec<u8> {
    let mut bytes = vec![0, 1, 0, 0];
    bytes.extend_from_slice(&ID);
    for (kind, value) in attributes {
        bytes.extend_from_slice(&kind.to_be_bytes());
        bytes.extend_from_slice(&(value.len() as u16).to_be_bytes());
        bytes.extend_from_slice(value);
    }
    let length = (bytes.len() - 20) as u16;
    bytes[2..4].copy_from_slice(&length.to_be_bytes());
    bytes
}

struct Response {
    kind: u16,
    attributes: Vec<(u16, Vec<u8>)>,
}

impl Response {
    /// By RFC 3489 section 11: no padding, so each value is as long as its length says.
    fn read(bytes: &[u8]) -> Self {
        assert_eq!(bytes[4..20], ID);
        assert_eq!(usize::from(u16::from_be_bytes([bytes[2], bytes[3]])), bytes.len() - 20);
        let (mut rest, mut attributes) = (&bytes[20..], Vec::new());
        while let [t0, t1, l0, l1, value @ ..] = rest {
            let len = usize::from(u16::from_be_bytes([*l0, *l1]));
            assert_eq!(len % 4, 0, "RFC 3489 has no padding");
            attributes.push((u16::from_be_bytes([*t0, *t1]), value[..len].to_vec()));
            rest = &value[len..];
        }
        Self { kind: u16::from_be_bytes([bytes[0], bytes[1]]), attributes }
    }

    fn addresses(&self) -> Vec<(u16, SocketAddr)> {
        self.attributes.iter().map(|(kind, value)| (*kind, decode_address(value).unwrap())).collect()
    }
}

fn ask(world: &mut World, client: Client, bytes: &[u8]) -> (Outcome, Vec<u8>) {
    let mut reply = Vec::new();
    let outcome = world.server.handle_message(world.now, &client, bytes, &mut world.relays, &mut reply);
    (outcome, reply)
}

#[test]
fn a_classic_client_gets_mapped_address_and_nothing_else() {
    let mut world = classic();
    let (outcome, reply) = ask(&mut world, client(1), &request(&[]));
    assert_eq!(outcome, Outcome::Reply);
    let response = Response::read(&reply);
    assert_eq!(response.kind, 0x0101);
    assert_eq!(response.addresses(), [(0x0001, client(1).five_tuple.client.get())]);
    assert_eq!((world.server.classic_replies(), world.server.stranger_replies()), (1, 1));
    // A user name and a signature, which RFC 3489 allows, change nothing.
    let signed = request(&[(0x0006, b"user"), (0x0008, &[7; 20])]);
    assert_eq!(ask(&mut world, client(1), &signed).0, Outcome::Reply);
}

#[test]
fn it_is_off_unless_it_is_turned_on_and_only_over_udp() {
    let (outcome, reply) = ask(&mut World::new(), client(1), &request(&[]));
    assert_eq!((outcome, reply.len()), (Outcome::Dropped(Dropped::Malformed), 0));
    for transport in [Transport::Tcp, Transport::Tls] {
        let (outcome, reply) = ask(&mut classic(), client_over(transport, 1), &request(&[]));
        assert_eq!((outcome, reply.len()), (Outcome::Dropped(Dropped::Malformed), 0));
    }
}

#[test]
fn with_two_addresses_it_gets_source_address_and_changed_address_and_may_change_them() {
    let (mut world, client) = with_two_addresses();
    let mapped = client.five_tuple.client.get();
    let at = |text: &str| -> SocketAddr { text.parse().unwrap() };
    for (flags, source) in [(0, "5.45.96.1:3478"), (2, "5.45.96.1:3479"), (4, "5.45.96.2:3478"), (6, "5.45.96.2:3479")]
    {
        let (outcome, reply) = ask(&mut world, client, &request(&[(0x0003, &[0, 0, 0, flags])]));
        let expected = match flags {
            0 => Outcome::Reply,
            _ => Outcome::Detour(Detour { from: at(source), to_port: mapped.port() }),
        };
        assert_eq!(outcome, expected);
        let addresses = Response::read(&reply).addresses();
        assert_eq!(addresses, [(0x0001, mapped), (0x0004, at(source)), (0x0005, at("5.45.96.2:3479"))]);
    }
}

#[test]
fn response_address_would_make_it_a_reflector_and_is_unknown() {
    let (mut world, client) = with_two_addresses();
    let victim = [0, 1, 0, 53, 8, 8, 8, 8];
    let (outcome, reply) = ask(&mut world, client, &request(&[(0x0002, &victim)]));
    assert_eq!(outcome, Outcome::Reply, "the refusal goes to who has asked");
    let response = Response::read(&reply);
    assert_eq!(response.kind, 0x0111);
    // Four bytes of an odd list: the last one twice.
    assert_eq!(response.attributes[1], (0x000A, vec![0, 2, 0, 2]));
    let phrase = &response.attributes[0].1[4..];
    assert_eq!(String::from_utf8_lossy(phrase).trim_end(), "Unknown Attribute");
    // Nor without two addresses does CHANGE-REQUEST do anything (RFC 5389 section 12.2).
    let (_, reply) = ask(&mut classic(), client, &request(&[(0x0003, &[0, 0, 0, 6]), (0x0002, &victim)]));
    assert_eq!(Response::read(&reply).attributes[1], (0x000A, vec![0, 3, 0, 2]));
}

#[test]
fn what_is_no_binding_request_of_rfc_3489_is_dropped() {
    let mut world = classic();
    let good = request(&[(0x0006, b"user")]);
    for len in 0..good.len() {
        assert_eq!(ask(&mut world, client(1), &good[..len]).0, Outcome::Dropped(Dropped::Malformed), "{len} bytes");
    }
    let mut long = good.clone();
    long[23] = 8;
    let mut shared_secret = good.clone();
    shared_secret[1] = 2;
    let mut response = good.clone();
    response[0] = 1;
    for bad in [long, shared_secret, response] {
        assert_eq!(ask(&mut world, client(1), &bad), (Outcome::Dropped(Dropped::Malformed), Vec::new()));
    }
    let (mut world, client) = with_two_addresses();
    let (_, reply) = ask(&mut world, client, &request(&[(0x0003, &[0; 8])]));
    assert_eq!(Response::read(&reply).attributes[0].1[..4], [0, 0, 4, 0]);
}

#[test]
fn classic_clients_are_answered_out_of_the_budget_for_strangers() {
    let mut world = classic();
    world.reload(|options| options.unauthenticated = Some(RateLimit { per_second: 1, burst: 3 }));
    let answered = (0..50).filter(|_| ask(&mut world, client(1), &request(&[])).0 == Outcome::Reply).count();
    assert_eq!(answered, 3);
}
