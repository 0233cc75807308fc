//! Binding (RFC 8489) and what is not TURN at all.

use turnstone::addr::Transport;
use turnstone::policy::RateLimit;
use turnstone::reject::Dropped;
use turnstone::stun::{AttributeType, Class, IntegrityKind, Key, Method};

use crate::harness::*;

#[test]
fn a_binding_request_is_answered_with_the_client_s_address_and_nothing_else() {
    let mut world = World::new();
    for transport in [Transport::Udp, Transport::Tcp, Transport::Tls] {
        let client = client_over(transport, 1);
        let request = world.bare(Method::BINDING, |_| {});
        let reply = world.hand_in(client, &request).reply();
        assert_eq!(reply.class, Class::Success);
        assert_eq!(reply.kinds(), [AttributeType::XOR_MAPPED_ADDRESS]);
        assert_eq!(reply.addresses(AttributeType::XOR_MAPPED_ADDRESS), [client.five_tuple.client.get()]);
        assert!(!reply.has_fingerprint);
    }
    assert!(world.events().is_empty());
}

#[test]
fn fingerprint_is_answered_with_fingerprint() {
    let mut world = World::new();
    let request = world.bare(Method::BINDING, |request| {
        request.fingerprint();
    });
    assert!(world.hand_in(client(1), &request).reply().has_fingerprint);
    let request = world.bare(Method::ALLOCATE, |request| {
        request.fingerprint();
    });
    let reply = world.hand_in(client(1), &request).reply();
    assert_eq!(reply.code(), Some(401));
    assert!(reply.has_fingerprint);
}

#[test]
fn software_is_sent_only_when_configured() {
    let mut world = World::with(|options| options.software = Some("relay".to_owned()));
    let request = world.bare(Method::BINDING, |_| {});
    let reply = world.hand_in(client(1), &request).reply();
    assert_eq!(reply.get(AttributeType::SOFTWARE).unwrap(), b"relay");
}

#[test]
fn unknown_required_attributes_are_listed_and_optional_ones_ignored() {
    let mut world = World::new();
    let request = world.bare(Method::BINDING, |request| {
        request.attribute(AttributeType(0x0003), &[0, 0, 0, 6]);
        request.attribute(AttributeType(0xC001), b"optional");
        request.attribute(AttributeType(0x7FFF), b"required");
        request.attribute(AttributeType(0x0003), &[0, 0, 0, 6]);
    });
    let reply = world.hand_in(client(1), &request).reply();
    assert_eq!(reply.code(), Some(420));
    assert_eq!(reply.get(AttributeType::UNKNOWN_ATTRIBUTES).unwrap(), [0x00, 0x03, 0x7F, 0xFF]);
}

#[test]
fn what_ice_agents_put_into_a_binding_request_is_ignored() {
    let mut world = World::new();
    let request = world.bare(Method::BINDING, |request| {
        request.attribute(AttributeType::USERNAME, b"abcd:efgh");
        request.attribute(AttributeType::PRIORITY, &[0x6E, 0, 0x1E, 0xFF]);
        request.attribute(AttributeType::USE_CANDIDATE, b"");
        request.attribute(AttributeType(0x802A), &[1; 8]);
        request.integrity(IntegrityKind::Sha1, &Key::short_term(b"whatever"));
        request.fingerprint();
    });
    let reply = world.hand_in(client(1), &request).reply();
    assert_eq!(reply.class, Class::Success);
    assert_eq!(reply.integrity, None);
}

#[test]
fn what_is_not_a_request_is_not_answered() {
    let mut world = World::new();
    let id = world.transaction_id();
    for (class, method) in [
        (Class::Indication, Method::BINDING),
        (Class::Success, Method::BINDING),
        (Class::Error, Method::ALLOCATE),
        (Class::Indication, Method::ALLOCATE),
        (Class::Indication, Method::DATA),
        (Class::Indication, Method::new(0x0FF)),
    ] {
        let bytes = message(class, method, id, |_| {});
        assert_eq!(world.hand_in(client(1), &bytes).dropped(), Dropped::Ignored, "{class:?} {method:?}");
    }
}

#[test]
fn an_rfc_3489_request_without_the_cookie_is_dropped() {
    let mut world = World::new();
    let mut bytes = world.bare(Method::BINDING, |_| {});
    bytes[4..8].fill(1);
    assert_eq!(world.hand_in(client(1), &bytes).dropped(), Dropped::Malformed);
    assert_eq!(world.hand_in(client(1), &[]).dropped(), Dropped::Malformed);
}

#[test]
fn unknown_methods_are_discarded_in_silence_whoever_sends_them() {
    let mut world = World::new();
    let login = world.allocated(1);
    world.events();
    let before = (world.server.refusals().total(), world.server.stranger_replies());
    // Shared secret (RFC 3489), those of RFC 6062, unassigned ones, and the two that have only indications.
    for method in [0x002, 0x005, 0x00A, 0x00B, 0x00C, 0x80, 0xFFF, Method::SEND.value(), Method::DATA.value()] {
        let method = Method::new(method);
        let bare = world.bare(method, |_| {});
        let signed = login.request(world.transaction_id(), method, |_| {});
        for request in [bare, signed] {
            assert_eq!(world.hand_in(login.client, &request).dropped(), Dropped::UnknownMethod, "{method:?}");
        }
    }
    assert!(world.events().is_empty());
    assert_eq!((world.server.refusals().total(), world.server.stranger_replies()), before);
}

#[test]
fn indications_and_responses_of_any_method_ask_for_nothing() {
    let mut world = World::new();
    let login = world.allocated(1);
    for method in [0x001, 0x003, 0x004, 0x006, 0x008, 0x009, 0x00B, 0xFFF] {
        for class in [Class::Indication, Class::Success, Class::Error] {
            if (class, method) == (Class::Indication, Method::SEND.value()) {
                continue;
            }
            let bytes = message(class, Method::new(method), world.transaction_id(), |_| {});
            assert_eq!(world.hand_in(login.client, &bytes).dropped(), Dropped::Ignored, "{class:?} {method:#x}");
        }
    }
}

#[test]
fn a_cut_message_integrity_sha256_is_malformed_even_where_its_bytes_are_right() {
    let mut world = World::new();
    let login = world.alice(client(1)).with_sha256();
    let whole = login.request(world.transaction_id(), Method::ALLOCATE, |request| {
        request.attribute(AttributeType::REQUESTED_TRANSPORT, &UDP);
    });
    for len in [16, 20, 24, 28] {
        let cut = cut_integrity(&whole, len, &login.sha256_key);
        assert_eq!(world.hand_in(client(1), &cut).dropped(), Dropped::Malformed, "{len} bytes");
    }
    assert_eq!(world.hand_in(client(1), &whole).reply().code(), None);
    world.check_books();
}

/// The request with its MESSAGE-INTEGRITY-SHA256 as a sender that cuts it makes it: the length counts in the MAC.
fn cut_integrity(whole: &[u8], len: usize, key: &Key) -> Vec<u8> {
    use hmac::{Hmac, KeyInit, Mac};
    let mut covered = whole[..whole.len() - 36].to_vec();
    let length = (covered.len() - 20 + 4 + len) as u16;
    covered[2..4].copy_from_slice(&length.to_be_bytes());
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(key.as_bytes()).unwrap();
    mac.update(&covered);
    let mac = mac.finalize().into_bytes();
    covered.extend_from_slice(&[0, 0x1C, 0, len as u8]);
    covered.extend_from_slice(&mac[..len]);
    covered
}

#[test]
fn a_server_without_turn_answers_binding_only() {
    let mut world = World::with(|options| options.turn = false);
    let request = world.bare(Method::BINDING, |_| {});
    assert_eq!(world.hand_in(client(1), &request).reply().class, Class::Success);
    let request = world.bare(Method::ALLOCATE, |_| {});
    assert_eq!(world.hand_in(client(1), &request).dropped(), Dropped::UnknownMethod);
}

#[test]
fn strangers_share_the_budget_of_their_prefix_over_udp_and_streams_need_none() {
    let limit = RateLimit { per_second: 2, burst: 4 };
    let mut world = World::with(|options| options.unauthenticated = Some(limit));
    let mut answered = 0;
    for n in 0..20 {
        let method = [Method::BINDING, Method::ALLOCATE, Method::REFRESH, Method::CREATE_PERMISSION][n % 4];
        let request = world.bare(method, |_| {});
        // One address each, all of one /24.
        match world.hand_in(client(n as u16), &request) {
            Answer::Reply(_) => answered += 1,
            other => assert_eq!(other.dropped(), Dropped::RateLimited),
        }
    }
    assert_eq!(answered, 4);
    for _ in 0..20 {
        let request = world.bare(Method::BINDING, |_| {});
        world.hand_in(client_over(Transport::Tcp, 1), &request).reply();
    }
    world.pass(1);
    let request = world.bare(Method::BINDING, |_| {});
    world.hand_in(client(1), &request).reply();
}

#[test]
fn authenticated_requests_do_not_need_the_budget() {
    let limit = RateLimit { per_second: 1, burst: 1 };
    let mut world = World::with(|options| options.unauthenticated = Some(limit));
    let login = world.alice(client(1));
    world.allocate(&login);
    for _ in 0..50 {
        assert_eq!(world.refresh(&login, None).code(), None);
    }
}
