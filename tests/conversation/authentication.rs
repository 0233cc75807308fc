//! The long-term credential mechanism as the server applies it (RFC 8489 section 9.2.4, RFC 8656 section 5).

use turnstone::addr::Transport;
use turnstone::policy::RateLimit;
use turnstone::reject::{Dropped, Reason};
use turnstone::stun::{AttributeType, IntegrityKind, Method};

use crate::harness::*;

const METHODS: [Method; 4] = [Method::ALLOCATE, Method::REFRESH, Method::CREATE_PERMISSION, Method::CHANNEL_BIND];

fn assert_challenge(reply: &Reply, code: u16) {
    assert_eq!(reply.code(), Some(code));
    assert!(reply.get(AttributeType::REALM).is_some());
    assert!(reply.get(AttributeType::NONCE).is_some());
    assert!(reply.get(AttributeType::PASSWORD_ALGORITHMS).is_some());
    assert_eq!(reply.integrity, None);
}

#[test]
fn every_method_is_challenged_without_integrity_whatever_it_carries() {
    let mut world = World::new();
    world.allocated(1);
    for method in METHODS {
        let request = world.bare(method, |request| {
            request.attribute(AttributeType::USERNAME, b"alice");
            request.attribute(AttributeType(0x7777), b"unknown and required");
        });
        assert_challenge(&world.hand_in(client(1), &request).reply(), 401);
    }
    world.events();
    assert_eq!(world.server.allocations(), 1);
}

#[test]
fn a_wrong_password_an_unknown_user_and_a_wrong_realm_are_401_and_reported() {
    let mut world = World::new();
    let wrong = world.login(client(1), "alice", "looking-glass");
    assert_challenge(&world.request(&wrong, Method::ALLOCATE, |_| {}), 401);
    let unknown = world.login(client(1), "mallory", "wonderland");
    assert_challenge(&world.request(&unknown, Method::ALLOCATE, |_| {}), 401);
    let mut elsewhere = world.alice(client(1));
    elsewhere.realm = "example.com".to_owned();
    assert_challenge(&world.request(&elsewhere, Method::ALLOCATE, |_| {}), 401);
    assert_eq!(refusals(&world.events()), [Reason::WrongPassword, Reason::UnknownUser, Reason::WrongRealm]);
    world.check_books();
}

#[test]
fn an_expired_credential_is_refused_and_says_so() {
    let mut world = World::new();
    let login = world.guest(client(1), "carol", 10);
    world.pass(11);
    assert_challenge(&world.request(&login, Method::ALLOCATE, |_| {}), 401);
    assert_eq!(refusals(&world.events()), [Reason::CredentialExpired]);
}

#[test]
fn integrity_without_username_realm_or_nonce_is_400() {
    let mut world = World::new();
    let login = world.alice(client(1));
    for missing in [AttributeType::USERNAME, AttributeType::REALM, AttributeType::NONCE] {
        let all = [
            (AttributeType::USERNAME, login.username.clone().into_bytes()),
            (AttributeType::REALM, login.realm.clone().into_bytes()),
            (AttributeType::NONCE, login.nonce.clone()),
        ];
        let request = world.bare(Method::ALLOCATE, |request| {
            for (kind, value) in all.iter().filter(|(kind, _)| *kind != missing) {
                request.attribute(*kind, value);
            }
            request.integrity(IntegrityKind::Sha1, &login.key);
        });
        let reply = world.hand_in(login.client, &request).reply();
        assert_eq!(reply.code(), Some(400), "without {missing:?}");
        assert_eq!(reply.kinds(), [AttributeType::ERROR_CODE]);
    }
}

#[test]
fn a_nonce_of_another_client_a_made_up_one_and_an_old_one_are_438_and_the_new_one_works() {
    let mut world = World::new();
    let mut stolen = world.alice(client(1));
    stolen.client = client(2);
    let mut made_up = world.alice(client(1));
    made_up.nonce = b"obMatJos2AAABmade-up-nonce-made-up".to_vec();
    let old = world.alice(client(1));
    for login in [&stolen, &made_up] {
        assert_challenge(&world.request(login, Method::ALLOCATE, |_| {}), 438);
    }
    world.pass(2 * 3600);
    let reply = world.request(&old, Method::ALLOCATE, |_| {});
    assert_challenge(&reply, 438);
    let fresh = Login { nonce: reply.get(AttributeType::NONCE).unwrap(), ..old };
    world.allocate(&fresh);
    assert_eq!(refusals(&world.events()), [], "a stale nonce is no news");
}

#[test]
fn a_nonce_goes_stale_within_the_life_of_an_allocation_and_the_allocation_stays() {
    let mut world = World::new();
    let mut login = world.alice(client(1));
    world.allocate(&login);
    for _ in 0..20 {
        world.pass(550);
        let mut reply = world.refresh(&login, None);
        if reply.code() == Some(438) {
            login.nonce = reply.get(AttributeType::NONCE).unwrap();
            reply = world.refresh(&login, None);
        }
        assert_eq!(reply.code(), None);
    }
    assert_eq!(world.server.allocations(), 1);
}

#[test]
fn a_forged_mac_changes_nothing() {
    let mut world = World::new();
    let login = world.allocated(1);
    for method in METHODS {
        let id = world.transaction_id();
        let mut request = login.request(id, method, |request| {
            request.u32(AttributeType::LIFETIME, 0);
            request.u32(AttributeType::CHANNEL_NUMBER, 0x4000_0000);
            request.xor_address(AttributeType::XOR_PEER_ADDRESS, peer(1).get());
        });
        *request.last_mut().unwrap() ^= 1;
        assert_challenge(&world.hand_in(login.client, &request).reply(), 401);
    }
    assert_eq!(world.server.allocations(), 1);
    let relay = world.relay(turnstone::addr::Family::V4);
    assert_eq!(world.inbound(relay, peer(1), 10), Err(Dropped::NoPermission));
}

#[test]
fn bidding_down_the_password_algorithm_is_400() {
    let mut world = World::new();
    let login = world.alice(client(1));
    type Value = Option<&'static [u8]>;
    let cases: [(Value, Value); 4] = [
        // Only one of the two attributes.
        (Some(&[0, 2, 0, 0, 0, 1, 0, 0]), None),
        (None, Some(&[0, 1, 0, 0])),
        // A list that is not the one offered: SHA-256 has been taken out on the way.
        (Some(&[0, 1, 0, 0]), Some(&[0, 1, 0, 0])),
        // An algorithm that is not on the list.
        (Some(&[0, 2, 0, 0, 0, 1, 0, 0]), Some(&[0, 9, 0, 0])),
    ];
    for (list, chosen) in cases {
        let request = world.bare(Method::ALLOCATE, |request| {
            request.attribute(AttributeType::REQUESTED_TRANSPORT, &UDP);
            request.attribute(AttributeType::USERNAME, b"alice");
            request.attribute(AttributeType::REALM, login.realm.as_bytes());
            request.attribute(AttributeType::NONCE, &login.nonce);
            if let Some(list) = list {
                request.attribute(AttributeType::PASSWORD_ALGORITHMS, list);
            }
            if let Some(chosen) = chosen {
                request.attribute(AttributeType::PASSWORD_ALGORITHM, chosen);
            }
            request.integrity(IntegrityKind::Sha1, &login.key);
        });
        let reply = world.hand_in(login.client, &request).reply();
        assert_eq!(reply.code(), Some(400), "{list:?} {chosen:?}");
    }
    assert_eq!(refusals(&world.events()), [Reason::PasswordAlgorithmMismatch; 4]);
    assert_eq!(world.server.allocations(), 0);
}

#[test]
fn another_user_cannot_touch_the_allocation() {
    let mut world = World::new();
    let alice = world.allocated(1);
    let bob = world.login(client(1), "bob", "builder");
    assert_eq!(world.refresh(&bob, Some(0)).code(), Some(441));
    assert_eq!(world.permit(&bob, &[peer(1)]).code(), Some(441));
    assert_eq!(world.bind(&bob, 0x4000, peer(1)).code(), Some(441));
    assert_eq!(world.refresh(&alice, None).code(), None);
}

#[test]
fn requests_without_an_allocation_are_437() {
    let mut world = World::new();
    let login = world.alice(client(1));
    assert_eq!(world.refresh(&login, None).code(), Some(437));
    assert_eq!(world.refresh(&login, Some(0)).code(), Some(437));
    assert_eq!(world.permit(&login, &[peer(1)]).code(), Some(437));
    assert_eq!(world.bind(&login, 0x4000, peer(1)).code(), Some(437));
    assert_eq!(world.send(login.client, peer(1), b"data").dropped(), Dropped::NoAllocation);
    assert_eq!(world.channel_data(login.client, 0x4000, b"data").unwrap_err(), Dropped::NoAllocation);
}

#[test]
fn the_same_address_on_another_transport_is_another_5_tuple() {
    let mut world = World::new();
    world.allocated(1);
    let login = world.alice(client_over(Transport::Tcp, 1));
    assert_eq!(world.refresh(&login, None).code(), Some(437));
}

#[test]
fn an_allocation_outlives_its_rotated_secret_and_its_deleted_user() {
    let mut world = World::new();
    let guest = world.guest(client(1), "carol", 1000);
    world.allocate(&guest);
    let alice = world.allocated(2);
    world.reload(|options| {
        options.secrets = vec![b"a new secret that nobody has"];
        options.users = vec![("bob", "builder")];
    });
    for login in [&guest, &alice] {
        assert_eq!(world.refresh(login, None).code(), None);
        assert_eq!(world.permit(login, &[peer(1)]).code(), None);
    }
    world.refresh(&guest, Some(0));
    assert_eq!(world.request(&guest, Method::ALLOCATE, |_| {}).code(), Some(401));
}

#[test]
fn forged_requests_cost_the_budget_and_a_flood_of_refusals_is_bounded() {
    let limit = RateLimit { per_second: 10, burst: 10 };
    let mut world = World::with(|options| options.unauthenticated = Some(limit));
    let wrong = world.login(client(1), "alice", "looking-glass");
    let mut answered = 0;
    for _ in 0..100 {
        let id = world.transaction_id();
        let request = wrong.request(id, Method::ALLOCATE, |_| {});
        match world.hand_in(wrong.client, &request) {
            Answer::Reply(_) => answered += 1,
            other => assert_eq!(other.dropped(), Dropped::RateLimited),
        }
    }
    assert!(answered < 10, "{answered} of 100 were answered");
    assert_eq!(refusals(&world.events()).len(), answered);

    let mut world = World::new();
    let login = world.alice(client(1));
    for _ in 0..5000 {
        world.refresh(&login, None);
    }
    assert_eq!(world.server.refusals_dropped(), 5000 - 4096);
    assert_eq!(world.server.refusals().of(Reason::AllocationMismatch), 5000, "counted although no event was kept");
    assert_eq!(world.events().len(), 4096);
}

#[test]
fn a_flood_of_strangers_leaves_the_server_as_it_was() {
    let limit = RateLimit { per_second: 10, burst: 20 };
    let mut world = World::with(|options| options.unauthenticated = Some(limit));
    let login = world.allocated(1);
    world.events();
    let wake = world.server.next_timeout();
    let before = world.server.stranger_replies();
    let (mut answered, mut limited) = (0, 0);
    for n in 0..200_000u32 {
        let [_, high, low, last] = n.to_be_bytes();
        let mut stranger = client(1);
        let addr = ([20 + high, low, last, 9], 1000 + (n % 7) as u16);
        stranger.five_tuple.client = turnstone::addr::ClientAddr::new(addr.into());
        let method = METHODS[n as usize % 4];
        let request = match n % 3 {
            0 => world.bare(method, |_| {}),
            1 => world.bare(Method::BINDING, |_| {}),
            // Somebody else's nonce and a MAC that cannot match.
            _ => {
                let id = world.transaction_id();
                login.request(id, method, |_| {})
            }
        };
        match world.hand_in(stranger, &request) {
            Answer::Reply(reply) => {
                answered += 1;
                assert!(reply.integrity.is_none());
            }
            other => {
                assert_eq!(other.dropped(), Dropped::RateLimited);
                limited += 1;
            }
        }
    }
    assert!(answered > 0 && answered + limited == 200_000);
    assert_eq!(world.server.stranger_replies() - before, answered);
    assert!(world.events().is_empty());
    assert_eq!(world.server.refusals_dropped(), 0);
    assert_eq!(world.server.next_timeout(), wake);
    assert_eq!(world.server.allocations(), 1);
    assert_eq!(world.refresh(&login, None).code(), None);
}
