//! How many allocations and reservations a user may have, how often one may allocate, and who a user is.

use turnstone::policy::{AllocationRate, QuotaLimits};
use turnstone::reject::Reason;
use turnstone::stun::{AttributeType, Method};
use turnstone::turn::Event;

use crate::harness::*;

fn rate(per_second: u32, burst: u32) -> QuotaLimits {
    QuotaLimits { rate: Some(AllocationRate { per_second, burst }), ..QuotaLimits::default() }
}

#[test]
fn who_allocates_and_releases_faster_than_the_rate_gets_486_and_the_others_are_served() {
    let mut world = World::with(|options| options.quota = rate(5, 20));
    let login = world.alice(client(1));
    let bob = world.login(client(2), "bob", "builder");
    let mut made = 0;
    for _ in 0..300 {
        // 30 a second.
        let reply = try_allocate(&mut world, &login);
        match reply.code() {
            None => {
                made += 1;
                assert_eq!(world.refresh(&login, Some(0)).code(), None);
            }
            code => assert_eq!(code, Some(486)),
        }
        world.pass_millis(33);
    }
    assert!((65..=70).contains(&made), "{made}");
    let events = world.events();
    assert!(refusals(&events).iter().all(|reason| *reason == Reason::UserRate));
    world.allocate(&bob);
    world.pass(10);
    world.allocate(&login);
    world.check_books();
}

#[test]
fn a_browser_with_a_pool_of_ten_and_a_conference_that_reloads_fit_the_default_rate() {
    let mut world = World::with(|options| options.quota = rate(50, 1000));
    world.relays.ports = (1024..u16::MAX).collect();
    // A hundred people of one name, ten allocations each, within two seconds.
    for n in 0..1000 {
        let login = world.guest(client(n), "everybody", 3600);
        world.allocate(&login);
        world.pass_millis(2);
    }
    world.check_books();
}

#[test]
fn a_reservation_too_many_is_486_by_its_own_reason_and_the_token_is_the_user_s_own_kind() {
    let mut world = World::with(|options| {
        options.quota = QuotaLimits { reservations_per_user: Some(2), ..QuotaLimits::default() };
    });
    let reserve = |world: &mut World, login: &Login| {
        world.request(login, Method::ALLOCATE, |request| {
            request.attribute(AttributeType::REQUESTED_TRANSPORT, &UDP);
            request.attribute(AttributeType::EVEN_PORT, &[0x80]);
        })
    };
    let redeem = |world: &mut World, login: &Login, token: &[u8]| {
        world.request(login, Method::ALLOCATE, |request| {
            request.attribute(AttributeType::REQUESTED_TRANSPORT, &UDP);
            request.attribute(AttributeType::RESERVATION_TOKEN, token);
        })
    };
    let [first, second, third, fourth, fifth] = [1, 2, 3, 4, 5].map(|n| world.alice(client(n)));
    let token = reserve(&mut world, &first).get(AttributeType::RESERVATION_TOKEN).unwrap();
    assert_eq!(reserve(&mut world, &second).code(), None);
    world.events();
    assert_eq!(reserve(&mut world, &third).code(), Some(486));
    assert_eq!(refusals(&world.events()), [Reason::UserReservations]);
    let namesake = world.guest(client(6), "alice", 3600);
    assert_eq!(redeem(&mut world, &namesake, &token).code(), Some(508), "another user of the same name");
    assert_eq!(redeem(&mut world, &fourth, &token).code(), None);
    assert_eq!(reserve(&mut world, &fifth).code(), None, "a redeemed one counts no more");
    world.check_books();
}

#[test]
fn a_static_and_a_time_limited_user_of_one_name_have_a_quota_each() {
    let mut world = World::with(|options| {
        options.quota = QuotaLimits { per_user: Some(1), ..QuotaLimits::default() };
    });
    world.allocated(1);
    let guest = world.guest(client(2), "alice", 3600);
    world.allocate(&guest);
    let another = world.guest(client(3), "alice", 7200);
    assert_eq!(try_allocate(&mut world, &another).code(), Some(486));
    world.check_books();
}

#[test]
fn only_the_allocations_of_who_makes_very_many_are_frequent() {
    let mut world = World::new();
    let login = world.alice(client(1));
    let bob = world.login(client(2), "bob", "builder");
    let mut frequent = 0;
    let mut cycle = |world: &mut World, login: &Login| {
        world.allocate(login);
        world.refresh(login, Some(0));
        let events = world.events();
        let made = events.iter().any(|event| matches!(event, Event::Allocated { is_frequent: true, .. }));
        let ended = events.iter().any(|event| matches!(event, Event::Ended(summary) if summary.is_frequent));
        assert_eq!(made, ended);
        frequent += u32::from(made);
    };
    (0..1200).for_each(|_| cycle(&mut world, &login));
    cycle(&mut world, &bob);
    assert_eq!(frequent, 200);
}

#[test]
fn a_username_with_a_control_character_leaves_nothing_behind() {
    let mut world = World::new();
    let login = world.guest(client(1), "carol\0", 3600);
    let reply = try_allocate(&mut world, &login);
    assert_eq!(reply.code(), Some(400));
    assert_eq!(refusals(&world.events()), [Reason::MalformedUsername]);
    assert_eq!((world.server.allocations(), world.shared.quotas.remembered()), (0, 0));
}

fn try_allocate(world: &mut World, login: &Login) -> Reply {
    world.request(login, Method::ALLOCATE, |request| {
        request.attribute(AttributeType::REQUESTED_TRANSPORT, &UDP);
    })
}
