//! Several realms: who is challenged for which, and that two realms' users share nothing.

use turnstone::addr::Transport;
use turnstone::auth::{AskPolicy, KnownCredential};
use turnstone::policy::{AllocationRate, BandwidthLimits, GuardLimits, PeerRules, QuotaLimits, SuspensionLimits};
use turnstone::reject::{Dropped, Reason};
use turnstone::stun::{AttributeType, Key, Method, PasswordAlgorithm};
use turnstone::turn::{AllocationFilter, Answer as Fact, Client, EndReason, Event, OnExpiry, Question};
use turnstone::user::{RealmId, User};

use crate::harness::*;

const OTHER: &str = "b.example";

/// The default realm, `b.example` and `c.example`, each with the same alice.
fn world() -> World {
    World::with(|options| options.realms = vec![RealmOptions::named(OTHER), RealmOptions::named("c.example")])
}

/// A client that has come in by a realm.
fn by(realm: &str, client: Client) -> Client {
    Client { realm: RealmId::of(realm), ..client }
}

fn even_port(world: &mut World, login: &Login) -> Reply {
    world.request(login, Method::ALLOCATE, |request| {
        request.attribute(AttributeType::REQUESTED_TRANSPORT, &UDP);
        request.attribute(AttributeType::EVEN_PORT, &[0x80]);
    })
}

fn try_allocate(world: &mut World, login: &Login) -> Option<u16> {
    let reply = world.request(login, Method::ALLOCATE, |request| {
        request.attribute(AttributeType::REQUESTED_TRANSPORT, &UDP);
    });
    reply.code()
}

#[test]
fn a_client_is_challenged_for_the_realm_that_it_has_come_in_by() {
    let mut world = world();
    assert_eq!(world.challenge(client(1)).0, REALM);
    assert_eq!(world.challenge(by(OTHER, client(2))).0, OTHER);
    assert_eq!(world.challenge(by("c.example", client(3))).0, "c.example");
    assert_eq!(world.challenge(by("gone.example", client(4))).0, REALM, "a realm that there is not");
}

#[test]
fn a_server_name_chooses_a_realm() {
    let world = World::with(|options| {
        let realm =
            RealmOptions { server_names: vec!["turn.b.example", "*.wild.example"], ..RealmOptions::named(OTHER) };
        options.realms = vec![realm];
    });
    let chosen = |name| world.settings.realm_by_server_name(name);
    assert_eq!(chosen("TURN.b.example"), Some(RealmId::of(OTHER)));
    assert_eq!(chosen("a.wild.example"), Some(RealmId::of(OTHER)));
    assert_eq!(chosen("turn.example.org"), None);
}

#[test]
fn neither_realm_nor_nonce_nor_password_of_one_realm_is_good_in_another() {
    let mut world = World::with(|options| {
        let other = RealmOptions { users: vec![("alice", "other"), ("eve", "x")], ..RealmOptions::named(OTHER) };
        options.realms = vec![other];
    });
    let refused = |world: &mut World, login: &Login| {
        let code = try_allocate(world, login);
        (code, refusals(&world.events()))
    };
    // By its realm's own door each is let in.
    let alice = world.alice(client(1));
    let mut other_alice = world.login(by(OTHER, client(2)), "alice", "other");
    // A password of the other realm, a user of the other realm.
    let wrong = world.login(by(OTHER, client(3)), "alice", "wonderland");
    assert_eq!(refused(&mut world, &wrong), (Some(401), vec![Reason::WrongPassword]));
    let unknown = world.login(by(OTHER, client(3)), "bob", "builder");
    assert_eq!(refused(&mut world, &unknown), (Some(401), vec![Reason::UnknownUser]));
    // The nonce of the other door, from the same address: as stale as none of ours. A new one comes with the 438.
    let elsewhere = Login { client: by(OTHER, alice.client), ..alice.clone() };
    assert_eq!(refused(&mut world, &elsewhere).0, Some(438));
    // Its own nonce there, but the realm of the other one.
    let nonce = world.challenge(by(OTHER, alice.client)).1;
    let elsewhere = Login { nonce, ..elsewhere };
    assert_eq!(refused(&mut world, &elsewhere), (Some(401), vec![Reason::WrongRealm]));
    assert_eq!(try_allocate(&mut world, &alice), None);
    assert_eq!(try_allocate(&mut world, &other_alice), None);
    // A key of the other realm is not taken for the held one of an allocation either.
    other_alice.client = Client { realm: RealmId::DEFAULT, ..other_alice.client };
    other_alice.nonce = world.challenge(other_alice.client).1;
    assert_eq!(world.refresh(&other_alice, None).code(), Some(401));
    assert_eq!(world.allocations(), 2);
    world.check_books();
}

#[test]
fn who_authenticates_in_another_realm_on_the_same_5_tuple_is_another_user() {
    let mut world = world();
    // The same name, the same password: another realm all the same.
    let alice = world.alice(client(1));
    world.allocate(&alice);
    let other = world.login(by(OTHER, client(1)), "alice", "wonderland");
    for method in [Method::REFRESH, Method::CREATE_PERMISSION, Method::CHANNEL_BIND] {
        let reply = world.request(&other, method, |_| {});
        assert_eq!(reply.code(), Some(441), "{method:?}");
    }
    assert!(refusals(&world.events()).iter().all(|reason| *reason == Reason::WrongUser));
    assert_eq!(try_allocate(&mut world, &other), Some(437));
    assert_eq!(world.refresh(&alice, None).code(), None);
    // With the time-limited credential of a secret that both realms have, too.
    let guest = world.guest(client(2), "carol", 3600);
    world.allocate(&guest);
    let other = world.guest(by(OTHER, client(2)), "carol", 3600);
    assert_eq!(world.refresh(&other, None).code(), Some(441));
    world.check_books();
}

#[test]
fn quotas_of_users_and_of_realms_count_apart_and_the_whole_server_s_together() {
    let mut world = World::with(|options| {
        options.quota = QuotaLimits { per_user: Some(1), total: Some(5), ..QuotaLimits::default() };
        let quota = QuotaLimits { per_user: Some(2), of_realm: Some(3), ..QuotaLimits::default() };
        options.realms = vec![RealmOptions { quota, ..RealmOptions::named(OTHER) }, RealmOptions::named("c.example")];
    });
    world.relays.ports = (1024..2000).collect();
    let mut allocate = |n, realm: Option<&str>, user, password| {
        let from = realm.map_or(client(n), |realm| by(realm, client(n)));
        let login = world.login(from, user, password);
        let code = try_allocate(&mut world, &login);
        (code, refusals(&world.events()).pop())
    };
    const MADE: (Option<u16>, Option<Reason>) = (None, None);
    assert_eq!(allocate(1, None, "alice", "wonderland"), MADE);
    assert_eq!(allocate(2, None, "alice", "wonderland"), (Some(486), Some(Reason::UserQuota)));
    assert_eq!(allocate(3, Some(OTHER), "alice", "wonderland"), MADE);
    assert_eq!(allocate(4, Some(OTHER), "alice", "wonderland"), MADE);
    assert_eq!(allocate(5, Some(OTHER), "alice", "wonderland"), (Some(486), Some(Reason::UserQuota)));
    assert_eq!(allocate(6, Some(OTHER), "bob", "another"), MADE);
    assert_eq!(allocate(7, Some(OTHER), "bob", "another"), (Some(486), Some(Reason::RealmQuota)));
    assert_eq!(allocate(8, Some("c.example"), "bob", "another"), MADE);
    assert_eq!(allocate(9, Some("c.example"), "bob", "another"), (Some(486), Some(Reason::TotalQuota)));
    let alice = User::fixed("alice");
    assert_eq!(world.shared.quotas.in_use_by(&alice), 1);
    assert_eq!(world.shared.quotas.in_use_by(&alice.in_realm(Some(OTHER.into()))), 2);
    // What ends is given back to its realm.
    world.kick(
        &AllocationFilter { client: Some(client(3).five_tuple.client.get().ip()), ..AllocationFilter::default() },
        None,
    );
    let bob = world.login(by(OTHER, client(10)), "bob", "another");
    assert_eq!(try_allocate(&mut world, &bob), None);
    world.check_books();
}

#[test]
fn rates_bandwidth_and_reserved_ports_count_apart() {
    let bandwidth = BandwidthLimits { per_user: Some(1000), ..BandwidthLimits::default() };
    let quota = QuotaLimits { rate: Some(AllocationRate { per_second: 1, burst: 1 }), ..QuotaLimits::default() };
    let mut world = World::with(|options| {
        (options.bandwidth, options.quota) = (bandwidth, quota);
        options.realms = vec![RealmOptions { quota, bandwidth, ..RealmOptions::named(OTHER) }];
    });
    world.relays.ports = (1024..2000).collect();
    let (alice, other) = (world.alice(client(1)), world.alice(by(OTHER, client(2))));
    let reserved = even_port(&mut world, &alice);
    assert_eq!(reserved.code(), None);
    assert_eq!(try_allocate(&mut world, &Login { client: client(1), ..alice.clone() }), Some(437));
    // Neither the other alice's rate nor her token.
    let token = reserved.get(AttributeType::RESERVATION_TOKEN).unwrap();
    let redeem = |world: &mut World, login: &Login| {
        let reply = world.request(login, Method::ALLOCATE, |request| {
            request.attribute(AttributeType::REQUESTED_TRANSPORT, &UDP);
            request.attribute(AttributeType::RESERVATION_TOKEN, &token);
        });
        reply.code()
    };
    assert_eq!(redeem(&mut world, &other), Some(508));
    world.pass(2);
    assert_eq!(try_allocate(&mut world, &other), None);
    // One alice's bandwidth is used up; the other one's is not.
    assert_eq!(world.bind(&alice, 0x4000, peer(1)).code(), None);
    assert_eq!(world.bind(&other, 0x4000, peer(2)).code(), None);
    let last = (0..200).map(|_| world.channel_data(alice.client, 0x4000, &[0; 900]).map(drop)).last();
    assert_eq!(last, Some(Err(Dropped::Bandwidth)));
    assert!(world.channel_data(other.client, 0x4000, &[0; 900]).is_ok());
    world.pass(2);
    let alice = world.alice(client(3));
    assert_eq!(redeem(&mut world, &alice), None, "it is still there for its own user");
}

#[test]
fn each_realm_has_its_own_policy_for_expired_credentials() {
    let mut world = World::with(|options| {
        options.on_expiry = OnExpiry::Keep;
        options.realms = vec![
            RealmOptions { on_expiry: OnExpiry::Cut, ..RealmOptions::named(OTHER) },
            RealmOptions { on_expiry: OnExpiry::NoRefresh, ..RealmOptions::named("c.example") },
        ];
    });
    let kept = world.guest(client(1), "carol", 60);
    let cut = world.guest(by(OTHER, client(2)), "carol", 60);
    let not_refreshed = world.guest(by("c.example", client(3)), "carol", 60);
    [&kept, &cut, &not_refreshed].iter().for_each(|login| drop(world.allocate(login)));
    world.pass(62);
    let ended: Vec<_> = ended(&mut world);
    assert_eq!(ended, [(Some(OTHER.to_owned()), EndReason::CredentialExpired)]);
    assert_eq!(world.refresh(&kept, None).code(), None);
    assert_eq!(world.refresh(&not_refreshed, None).code(), Some(401));
    world.check_books();
}

/// The realm and the reason of each allocation that has ended.
fn ended(world: &mut World) -> Vec<(Option<String>, EndReason)> {
    let ends = world.events().into_iter().filter_map(|event| match event {
        Event::Ended(summary) => Some((summary.user.realm().map(ToString::to_string), summary.reason)),
        _ => None,
    });
    ends.collect()
}

#[test]
fn allocations_of_a_realm_that_is_taken_out_end_and_those_of_others_stay() {
    let mut world = world();
    let (alice, other, third) =
        (world.alice(client(1)), world.alice(by(OTHER, client(2))), world.alice(by("c.example", client(3))));
    [&alice, &other, &third].iter().for_each(|login| drop(world.allocate(login)));
    world.events();
    world.reload(|options| options.realms.retain(|realm| realm.name != OTHER));
    assert_eq!(ended(&mut world), [(Some(OTHER.to_owned()), EndReason::RealmRemoved)]);
    assert_eq!(world.refresh(&alice, None).code(), None);
    assert_eq!(world.refresh(&third, None).code(), None);
    assert_eq!(world.challenge(other.client).0, REALM, "who came in by it is of the default realm");
    // Another name for the default realm is none of theirs.
    world.reload(|options| options.realm = "renamed.example");
    assert_eq!(ended(&mut world), []);
    let renamed = world.alice(client(1));
    assert_eq!((renamed.realm.as_str(), world.refresh(&renamed, None).code()), ("renamed.example", None));
    world.check_books();
}

#[test]
fn an_allocation_moves_with_its_realm_and_ends_where_there_is_none() {
    let mut world = world();
    world.split();
    let other = world.alice(by(OTHER, client(1)));
    world.allocate(&other);
    let id = |world: &World| world.list(&AllocationFilter::default(), None, 10)[0].id;
    let moving = id(&world);
    world.move_as_parts(moving, other.client);
    assert_eq!(world.refresh(&other, None).code(), None);
    assert_eq!(world.shared.quotas.in_use_by(&User::fixed("alice").in_realm(Some(OTHER.into()))), 1);
    assert_eq!(world.shared.quotas.in_use_by(&User::fixed("alice")), 0);
    let moving = id(&world);
    world.events();
    // The server that it comes to has heard of a reload already.
    world.announce_reload(|options| options.realms.clear());
    let settings = std::sync::Arc::clone(&world.settings);
    world.other_side();
    world.server.apply(settings);
    world.other_side();
    world.move_over(moving, other.client);
    assert_eq!(ended(&mut world), [(Some(OTHER.to_owned()), EndReason::RealmRemoved)]);
    world.check_books();
}

/// Only what is listed.
fn only(allowed: &str) -> PeerRules {
    let allowed = vec![allowed.to_owned()];
    PeerRules { default_deny_all: true, deny_relays: true, allowed, ..PeerRules::default() }
}

/// `b.example` has a peer policy of its own, and the default realm another one.
fn world_of_policies(change: impl FnOnce(&mut Options)) -> World {
    World::with(|options| {
        options.rules.denied = vec!["8.8.8.8".to_owned()];
        options.policies = vec![("of-b", only("8.8.8.8-8.8.8.9")), ("one", only("8.8.8.9"))];
        options.realms =
            vec![RealmOptions { peers: Some("of-b"), ..RealmOptions::named(OTHER) }, RealmOptions::named("c.example")];
        options.username_limits = true;
        change(options);
    })
}

#[test]
fn a_realm_with_a_peer_policy_of_its_own_is_judged_by_that_one_and_not_by_the_default_one() {
    let mut world = world_of_policies(|_| {});
    let (alice, other) = (world.alice(client(1)), world.alice(by(OTHER, client(2))));
    let third = world.alice(by("c.example", client(3)));
    let relays = [&alice, &other, &third].map(|login| {
        world.allocate(login);
        world.relays.last.unwrap()
    });
    world.events();
    let own_relay = peer_at(format!("{RELAY_V4}:50000").parse().unwrap());
    for (login, denied, allowed) in [
        (&alice, peer(8), peer(1)),
        (&other, peer(1), peer(8)),
        (&third, peer(8), peer(1)),
        (&other, own_relay, peer(9)),
    ] {
        assert_eq!(world.permit(login, &[denied]).code(), Some(403));
        assert_eq!(world.bind(login, 0x4000, denied).code(), Some(403));
        assert_eq!(world.permit(login, &[allowed]).code(), None);
    }
    let of_b = Some("of-b".parse().unwrap());
    let told = |events: Vec<Event>| -> Vec<_> {
        let refusal =
            |event| if let Event::Refused(refusal) = event { Some((refusal.realm, refusal.policy)) } else { None };
        events.into_iter().filter_map(refusal).collect()
    };
    let [of_default, of_other] = [(RealmId::DEFAULT, None), (RealmId::of(OTHER), of_b)];
    let of_third = (RealmId::of("c.example"), None);
    assert_eq!(
        told(world.events()),
        [of_default, of_default, of_other, of_other, of_third, of_third, of_other, of_other]
    );
    assert!(world.inbound(relays[1], peer(8), 1).is_ok());
    // The username of a credential tightens it, and lifts nothing of it.
    let guest = world.guest(by(OTHER, client(4)), "carol;peers=one", 3600);
    world.allocate(&guest);
    for (n, code) in [(9, None), (8, Some(403)), (1, Some(403))] {
        assert_eq!(world.permit(&guest, &[peer(n)]).code(), code, "{n}");
    }
    // Where it starts from another policy, what that one denies stays denied.
    let guest = world.guest(client(5), "carol;peers=of-b", 3600);
    world.allocate(&guest);
    assert_eq!(world.permit(&guest, &[peer(8)]).code(), Some(403), "[peers] denies it");
    assert_eq!(world.permit(&guest, &[peer(9)]).code(), None);
}

#[test]
fn a_reload_gives_a_realm_another_peer_policy_and_it_goes_along_with_a_moving_allocation() {
    let mut world = world_of_policies(|_| {});
    world.split();
    let other = world.alice(by(OTHER, client(1)));
    world.allocate(&other);
    let relay = world.relays.last.unwrap();
    for (number, n) in [(0x4000, 8), (0x4001, 9)] {
        assert_eq!(world.bind(&other, number, peer(n)).code(), None);
    }
    world.reload(|options| options.realms[0].peers = Some("one"));
    assert_eq!(world.channel_data(other.client, 0x4000, b"x").unwrap_err(), Dropped::NoChannel);
    assert!(world.channel_data(other.client, 0x4001, b"x").is_ok());
    assert_eq!(world.inbound(relay, peer(8), 1).unwrap_err(), Dropped::NoPermission);
    for as_parts in [false, true] {
        let moving = world.list(&AllocationFilter::default(), None, 9)[0].id;
        match as_parts {
            false => world.move_over(moving, other.client),
            true => world.move_as_parts(moving, other.client),
        }
        assert_eq!(world.permit(&other, &[peer(8)]).code(), Some(403));
        assert_eq!(world.permit(&other, &[peer(9)]).code(), None);
    }
    // Without one it is as everybody.
    world.reload(|options| options.realms[0].peers = None);
    assert_eq!(world.permit(&other, &[peer(8)]).code(), Some(403));
    assert_eq!(world.permit(&other, &[peer(1)]).code(), None);
    // A name that is not there reaches nobody.
    world.reload(|options| options.realms[0].peers = Some("gone"));
    assert_eq!(world.permit(&other, &[peer(1)]).code(), Some(403));
    let late = world.alice(by(OTHER, client(2)));
    assert_eq!(try_allocate(&mut world, &late), Some(403));
    let reasons = refusals(&world.events());
    let unknown = reasons.iter().filter(|reason| **reason == Reason::UnknownPeerPolicy).count();
    assert_eq!(unknown, 2, "{reasons:?}");
}

#[test]
fn a_suspension_and_peers_of_one_realm_s_user_are_not_the_other_s() {
    let guard = GuardLimits {
        peers_per_user: Some(2),
        suspension: Some(SuspensionLimits { probes: 1, secs: 600 }),
        ..GuardLimits::default()
    };
    let mut world = World::with(|options| {
        options.guard = guard;
        options.realms = vec![RealmOptions::named(OTHER)];
    });
    let (alice, other) = (world.alice(client(1)), world.alice(by(OTHER, client(2))));
    world.allocate(&alice);
    world.allocate(&other);
    assert_eq!(world.permit(&alice, &[peer(1), peer(2)]).code(), None);
    assert_eq!(world.permit(&other, &[peer(3), peer(4)]).code(), None);
    assert_eq!(world.permit(&other, &[peer(5)]).code(), Some(508));
    let loopback = peer_at("127.0.0.1:80".parse().unwrap());
    assert_eq!(world.permit(&other, &[loopback]).code(), Some(403));
    let again = [world.alice(client(3)), world.alice(by(OTHER, client(4)))];
    assert_eq!(again.each_ref().map(|login| try_allocate(&mut world, login)), [None, Some(403)]);
    let in_realm = |realm| move |user: &User| user.is_in_realm(realm);
    let (guard, now) = (&world.shared.guard, world.now.micros);
    assert_eq!((guard.lift(in_realm(None), now), guard.lift(in_realm(Some(OTHER)), now)), (0, 1));
    assert_eq!(try_allocate(&mut world, &again[1]), None);
}

#[test]
fn limits_in_usernames_are_read_in_the_realm_that_has_them_and_part_of_the_name_elsewhere() {
    let mut world = World::with(|options| {
        options.realms = vec![RealmOptions { username_limits: Some(true), ..RealmOptions::named(OTHER) }];
    });
    let name = "carol;alloc=1";
    let logins = [1, 2].map(|n| world.guest(client(n), name, 3600));
    assert_eq!(logins.map(|login| try_allocate(&mut world, &login)), [None, None]);
    let logins = [3, 4].map(|n| world.guest(by(OTHER, client(n)), name, 3600));
    assert_eq!(logins.map(|login| try_allocate(&mut world, &login)), [None, Some(486)]);
    let users: Vec<_> = world.list(&AllocationFilter::default(), None, 9).into_iter().map(|view| view.user).collect();
    let plain = User::time_limited(name);
    assert_eq!(users, [plain.clone(), plain, User::time_limited("carol").in_realm(Some(OTHER.into()))]);
}

#[test]
fn each_realm_counts_for_itself_and_goes_on_counting_after_a_reload() {
    let mut world = world();
    let counts = |world: &World| {
        let realms = std::iter::once(world.settings.default_realm()).chain(world.settings.realms());
        let mut counts: Vec<_> = realms
            .map(|realm| (realm.credentials().realm().to_owned(), realm.counts().allocated(), realm.counts().refused()))
            .collect();
        counts.sort();
        counts
    };
    let count = |name: &str, allocated, refused| (name.to_owned(), allocated, refused);
    for n in [1, 2] {
        let login = world.alice(by(OTHER, client(n)));
        world.allocate(&login);
        assert_eq!(try_allocate(&mut world, &login), Some(437));
    }
    let wrong = world.login(client(3), "alice", "guessed");
    assert_eq!(try_allocate(&mut world, &wrong), Some(401));
    // What every client begins with is none: nor is it shown that anybody is there.
    world.challenge(by("c.example", client(4)));
    let before = [count(OTHER, 2, 2), count("c.example", 0, 0), count(REALM, 0, 1)];
    assert_eq!(counts(&world), before);
    world.reload(|options| options.realms.retain(|realm| realm.name == OTHER));
    assert_eq!(counts(&world), [count(OTHER, 2, 2), count(REALM, 0, 1)]);
    assert_eq!(world.shared.quotas.in_use_by_realm().get(OTHER), Some(&2));
    // Another name is another one.
    world.reload(|options| options.realm = "renamed.example");
    assert_eq!(counts(&world), [count(OTHER, 2, 2), count("renamed.example", 0, 0)]);
}

#[test]
fn over_a_stream_as_over_udp() {
    let mut world = world();
    let login = world.alice(by(OTHER, client_over(Transport::Tls, 1)));
    world.allocate(&login);
    assert_eq!(world.list(&AllocationFilter::default(), None, 1)[0].user.realm().map(|name| &**name), Some(OTHER));
}

#[test]
fn what_was_answered_of_one_realm_s_user_is_not_known_of_another_s() {
    let mut world = World::with(|options| {
        options.asks = Some(AskPolicy::default());
        options.realms = vec![RealmOptions::named(OTHER)];
    });
    let logins = [world.login(client(1), "dora", "explorer"), world.login(by(OTHER, client(2)), "dora", "other")];
    for (login, password) in logins.iter().zip(["explorer", "other"]) {
        let bytes = login.request(world.transaction_id(), Method::ALLOCATE, |request| {
            request.attribute(AttributeType::REQUESTED_TRANSPORT, &UDP);
        });
        assert!(matches!(world.hand_in(login.client, &bytes), Answer::Waits));
        let ask = world.server.poll_ask().unwrap();
        let Question::Credential { realm, .. } = &ask.question else { panic!("{:?}", ask.question) };
        assert_eq!(**realm, *login.realm);
        let known = KnownCredential::from_password(password).unwrap();
        assert!(world.server.answer(world.now, ask.id, Fact::Known(known)));
        let mut reply = Vec::new();
        world.server.poll_late(world.now, &mut world.relays, &mut reply).unwrap();
        assert_eq!(Reply::read(reply).code(), None);
    }
    // Both are known by now: nobody is asked.
    for login in &logins {
        assert_eq!(world.refresh(login, None).code(), None);
    }
    assert_eq!(world.server.waiting().known, 2);
    // A realm that is no more takes what was known of it along.
    world.reload(|options| options.realms.clear());
    assert_eq!(world.server.waiting().known, 1);
}

#[test]
fn a_client_that_picks_sha256_is_served_in_each_realm() {
    let mut world = world();
    for (n, from) in [client(1), by(OTHER, client(2))].into_iter().enumerate() {
        let mut login = world.alice(from);
        login.algorithm = PasswordAlgorithm::Sha256;
        assert_eq!(
            login.sha256_key,
            Key::long_term(PasswordAlgorithm::Sha256, b"alice", login.realm.as_bytes(), b"wonderland")
        );
        world.allocate(&login);
        assert_eq!(world.allocations(), n + 1);
    }
}
