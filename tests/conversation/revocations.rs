//! Credentials that are revoked: whose allocations end, who is refused, and for how long.

use turnstone::auth::{AskPolicy, IssuedBefore, KnownCredential, Revocation, Revoked, mint};
use turnstone::reject::{Dropped, Reason};
use turnstone::stun::{AttributeType, Method};
use turnstone::turn::{Answer as Fact, Client, EndReason, Event, OnExpiry};
use turnstone::user::RealmId;

use crate::harness::*;

const OTHER: &str = "b.example";
const OLD_SECRET: &[u8] = b"one that has leaked";

fn all(whose: Revoked) -> Revocation {
    Revocation { realm: None, whose, issued_before: None, until_unix: u64::MAX }
}

fn username(login: &Login) -> Revocation {
    all(Revoked::Username(login.username.as_str().into()))
}

fn user(name: &str) -> Revocation {
    all(Revoked::User(name.into()))
}

fn issued(whose: Revoked, unix: u64, lifetime_secs: u64) -> Revocation {
    let issued_before = IssuedBefore { unix, lifetime_secs };
    Revocation { issued_before: Some(issued_before), until_unix: unix + lifetime_secs, ..all(whose) }
}

fn try_allocate(world: &mut World, login: &Login) -> Option<u16> {
    let reply = world.request(login, Method::ALLOCATE, |request| {
        request.attribute(AttributeType::REQUESTED_TRANSPORT, &UDP);
    });
    reply.code()
}

/// Why allocations have ended, and requests were refused.
fn told(world: &mut World) -> (Vec<EndReason>, Vec<Reason>) {
    let events = world.events();
    let ended = |event: &Event| match event {
        Event::Ended(summary) => Some(summary.reason),
        _ => None,
    };
    (events.iter().filter_map(ended).collect(), refusals(&events))
}

#[test]
fn one_username_ends_at_once_and_is_refused_while_others_of_the_user_go_on() {
    let mut world = World::new();
    let [leaked, good] = [(1, 3600), (2, 7200)].map(|(n, secs)| world.guest(client(n), "carol", secs));
    world.allocate(&leaked);
    world.allocate(&good);
    assert_eq!(world.bind(&leaked, 0x4000, peer(1)).code(), None);
    assert_eq!(world.revoke(username(&leaked)), [leaked.client]);
    assert_eq!(told(&mut world), (vec![EndReason::Revoked], vec![]));
    assert_eq!(world.channel_data(client(1), 0x4000, b"x").unwrap_err(), Dropped::NoAllocation);
    let again = Login { client: client(3), nonce: world.challenge(client(3)).1, ..leaked.clone() };
    assert_eq!([try_allocate(&mut world, &leaked), try_allocate(&mut world, &again)], [Some(401); 2]);
    assert_eq!(told(&mut world), (vec![], vec![Reason::Revoked; 2]));
    assert_eq!(world.refresh(&good, Some(600)).code(), None);
    // Whoever does not know the password hears nothing of it.
    let forged = Login { key: good.key.clone(), ..again };
    assert_eq!(try_allocate(&mut world, &forged), Some(401));
    assert_eq!(told(&mut world).1, [Reason::WrongPassword]);
    world.check_books();
}

#[test]
fn every_request_of_an_allocation_is_refused_before_its_turn_to_end_has_come() {
    let mut world = World::new();
    let login = world.guest(client(1), "carol", 3600);
    world.allocate(&login);
    world.shared.revocations.add(&user("carol")).unwrap();
    assert_eq!(world.refresh(&login, Some(600)).code(), Some(401));
    assert_eq!(world.permit(&login, &[peer(1)]).code(), Some(401));
    assert_eq!(world.bind(&login, 0x4000, peer(1)).code(), Some(401));
    assert_eq!(world.refresh(&login, Some(0)).code(), Some(401));
    assert_eq!(told(&mut world).1, [Reason::Revoked; 4]);
    assert_eq!(world.shared.revocations.remove(None, &Revoked::User("carol".into())), 1);
    assert_eq!(world.refresh(&login, Some(600)).code(), None, "undone");
}

#[test]
fn a_user_is_revoked_however_the_user_is_known_and_nobody_else_is() {
    let mut world = World::with(|options| options.username_limits = true);
    let alice = world.allocated(1);
    let others = [(2, "alice"), (3, "alice;alloc=2"), (4, "alice2"), (5, "bob")];
    let logins = others.map(|(n, name)| {
        let login = world.guest(client(n), name, 3600);
        world.allocate(&login);
        login
    });
    let mut ended = world.revoke(user("alice"));
    ended.sort_by_key(|client| client.five_tuple.client.get().port());
    assert_eq!(ended, [alice.client, logins[0].client, logins[1].client]);
    for login in &logins[2..] {
        assert_eq!(world.refresh(login, Some(600)).code(), None);
    }
    assert_eq!([&alice, &logins[1]].map(|login| try_allocate(&mut world, login)), [Some(401); 2]);
    world.check_books();
}

#[test]
fn a_secret_that_has_leaked_is_revoked_and_what_the_other_has_made_goes_on() {
    let mut world = World::with(|options| options.secrets = vec![SECRET, OLD_SECRET]);
    let good = world.guest(client(1), "carol", 3600);
    world.allocate(&good);
    let name = format!("{}:carol", world.now.unix_secs + 3601);
    let bad = world.login(client(2), &name, &mint(OLD_SECRET, &name));
    world.allocate(&bad);
    let fixed = world.allocated(3);
    assert_eq!(world.revoke(all(Revoked::Key("1".into()))), [bad.client]);
    assert_eq!(try_allocate(&mut world, &bad), Some(401));
    assert_eq!(told(&mut world).1, [Reason::Revoked]);
    // What is in force is known by the id: a reload that puts the secrets in another order changes nothing of that.
    for login in [&good, &fixed] {
        assert_eq!(world.refresh(login, Some(600)).code(), None);
    }
}

#[test]
fn issued_before_goes_by_the_expiry_and_the_lifetime_and_leaves_who_has_no_expiry() {
    let mut world = World::new();
    let now = world.now.unix_secs;
    let at = |world: &mut World, n: u16, secs: u64| {
        let login = world.guest(client(n), "carol", secs);
        world.allocate(&login);
        login
    };
    // Good for an hour each, issued a second before, and just now.
    let (before, since) = (at(&mut world, 1, 3599), at(&mut world, 2, 3600));
    let fixed = world.allocated(3);
    let other = world.guest(client(4), "dave", 60);
    world.allocate(&other);
    assert_eq!(world.revoke(issued(Revoked::User("carol".into()), now, 3600)), [before.client]);
    assert_eq!(try_allocate(&mut world, &before), Some(401));
    for login in [&since, &fixed, &other] {
        assert_eq!(world.refresh(login, Some(600)).code(), None);
    }
    assert_eq!(world.revoke(issued(Revoked::Everybody, now + 1, 3600)).len(), 2);
    assert_eq!(world.refresh(&fixed, Some(600)).code(), None);
    let fresh = world.guest(client(5), "carol", 3601);
    world.allocate(&fresh);
    // It is over when the last that it matches has expired.
    assert!(!world.shared.revocations.forget_what_is_over(now + 3599));
    assert!(world.shared.revocations.forget_what_is_over(now + 3600));
    assert!(world.shared.revocations.forget_what_is_over(now + 3601));
    assert!(world.shared.revocations.is_empty());
}

#[test]
fn an_allocation_that_outlives_its_credential_ends_too() {
    let mut world = World::with(|options| options.on_expiry = OnExpiry::Keep);
    let login = world.guest(client(1), "carol", 100);
    world.allocate(&login);
    world.pass(200);
    assert_eq!(world.refresh(&login, Some(600)).code(), None);
    assert_eq!(world.revoke(username(&login)), [login.client]);
}

#[test]
fn what_is_on_its_way_to_another_worker_ends_where_it_arrives() {
    let mut world = World::new();
    world.split();
    let login = world.guest(client(1), "carol", 3600);
    world.allocate(&login);
    let events = world.events();
    let Some(Event::Allocated { id, .. }) = events.first() else { panic!("{events:?}") };
    let parcel = world.server.take_out(world.now, *id).unwrap();
    assert_eq!(world.revoke(user("carol")), []);
    world.other_side();
    world.put_in(parcel, login.client).unwrap();
    assert_eq!((told(&mut world).0, world.allocations()), (vec![EndReason::Revoked], 0));
    world.check_books();
}

#[test]
fn realms_share_nothing() {
    let mut world = World::with(|options| options.realms = vec![RealmOptions::named(OTHER)]);
    let by_other = |n: u16| Client { realm: RealmId::of(OTHER), ..client(n) };
    let here = world.alice(client(1));
    let there = world.login(by_other(2), "alice", "wonderland");
    let mut guests = [client(3), by_other(4)].map(|client| world.guest(client, "carol", 3600));
    for login in [&here, &there, &guests[0], &guests[1]] {
        world.allocate(login);
    }
    let in_other = |revocation: Revocation| Revocation { realm: Some(OTHER.into()), ..revocation };
    assert_eq!(world.revoke(in_other(user("alice"))), [there.client]);
    assert_eq!(world.revoke(in_other(username(&guests[1]))), [guests[1].client]);
    assert_eq!(world.shared.revocations.remove(None, &Revoked::User("alice".into())), 0);
    assert_eq!(world.revoke(in_other(all(Revoked::Key("0".into())))), []);
    guests[1].client = by_other(5);
    guests[1].nonce = world.challenge(guests[1].client).1;
    assert_eq!([try_allocate(&mut world, &there), try_allocate(&mut world, &guests[1])], [Some(401); 2]);
    for login in [&here, &guests[0]] {
        assert_eq!(world.refresh(login, Some(600)).code(), None);
    }
    assert_eq!(world.revoke(all(Revoked::Key("0".into()))), [guests[0].client]);
}

#[test]
fn a_credential_that_was_asked_for_and_is_kept_is_refused_all_the_same() {
    let mut world = World::with(|options| options.asks = Some(AskPolicy::default()));
    let login = world.login(client(1), "erin", "her password");
    let request = login.request(world.transaction_id(), Method::ALLOCATE, |request| {
        request.attribute(AttributeType::REQUESTED_TRANSPORT, &UDP);
    });
    assert!(matches!(world.hand_in(login.client, &request), Answer::Waits));
    let ask = world.server.poll_ask().unwrap();
    let known = KnownCredential::from_password("her password").unwrap();
    world.shared.revocations.add(&user("erin")).unwrap();
    assert!(world.server.answer(world.now, ask.id, Fact::Known(known)));
    let mut reply = Vec::new();
    world.server.poll_late(world.now, &mut world.relays, &mut reply).unwrap();
    assert_eq!(Reply::read(reply).code(), Some(401));
    assert_eq!(told(&mut world).1, [Reason::Revoked]);
    assert_eq!(try_allocate(&mut world, &login), Some(401));
    assert_eq!(world.shared.revocations.remove(None, &Revoked::User("erin".into())), 1);
    assert_eq!(try_allocate(&mut world, &login), None);
}

#[test]
fn the_pass_over_a_crowd_is_made_in_parts() {
    let (mut world, all) = crowd(100);
    let login = world.guest(client(500), "carol", 3600);
    world.relays.ports = vec![2000];
    world.allocate(&login);
    world.shared.revocations.add(&user("alice")).unwrap();
    let mut kick = world.server.ending_revoked();
    let mut ended = Vec::new();
    for part in 1.. {
        ended.extend(world.server.kick(world.now, &mut kick, 8, &mut world.relays));
        assert!(ended.len() <= 8 * part);
        if kick.is_done() {
            break;
        }
    }
    assert_eq!((ended.len(), world.allocations()), (all.len(), 1));
    world.check_books();
}

#[test]
fn what_is_good_for_longer_than_any_credential_may_be_is_refused_until_it_is_not() {
    let mut world = World::with(|options| options.lifetime_max_secs = Some(3600));
    let good = world.guest(client(1), "carol", 3660);
    world.allocate(&good);
    let far = world.guest(client(2), "carol", 3661);
    assert_eq!(try_allocate(&mut world, &far), Some(401));
    assert_eq!(told(&mut world).1, [Reason::ExpiryTooFar]);
    // Without the secret nobody hears of it.
    let forged = Login { key: good.key.clone(), ..far };
    assert_eq!(try_allocate(&mut world, &forged), Some(401));
    assert_eq!(told(&mut world).1, [Reason::WrongPassword]);
}
