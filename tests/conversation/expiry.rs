//! Lifetimes of allocations and credentials, with and without timers being served.

use turnstone::addr::Family;
use turnstone::clock::SECOND;
use turnstone::reject::{Dropped, Reason};
use turnstone::stun::Method;
use turnstone::turn::{EndReason, Event, OnExpiry};

use crate::harness::*;

fn ended(events: &[Event]) -> Vec<(u64, EndReason)> {
    let end = |event: &Event| match event {
        Event::Ended(summary) => Some((summary.duration_micros, summary.reason)),
        _ => None,
    };
    events.iter().filter_map(end).collect()
}

#[test]
fn an_allocation_expires_on_time_and_everything_comes_back() {
    let mut world = World::new();
    let login = world.allocated(1);
    world.bind(&login, 0x4000, peer(1));
    world.events();
    world.pass(599);
    assert_eq!(world.server.allocations(), 1);
    world.pass(1);
    world.pass(1);
    assert_eq!(world.server.allocations(), 0);
    let [(duration, EndReason::Expired)] = ended(&world.events())[..] else { panic!() };
    assert!((600 * SECOND..601 * SECOND).contains(&duration), "{duration}");
    assert_eq!((world.relays.open.len(), world.relays.taken_ports(), world.shared.quotas.in_use()), (0, 0, 0));
    assert_eq!(world.server.next_timeout(), None);
    assert_eq!(world.refresh(&login, None).code(), Some(437));
}

#[test]
fn expiry_is_exact_even_when_no_timer_is_served() {
    let mut world = World::new();
    let login = world.allocated(1);
    let relay = world.relay(Family::V4);
    world.bind(&login, 0x4000, peer(1));
    world.pass_unattended(599);
    world.permit(&login, &[peer(1)]);
    world.channel_data(login.client, 0x4000, b"x").unwrap();
    world.inbound(relay, peer(1), 1).unwrap();
    world.send(login.client, peer(1), b"x").into_peer();
    world.pass_unattended(1);
    assert_eq!(world.channel_data(login.client, 0x4000, b"x").unwrap_err(), Dropped::NoAllocation);
    assert_eq!(world.inbound(relay, peer(1), 1), Err(Dropped::NoAllocation));
    assert_eq!(world.send(login.client, peer(1), b"x").dropped(), Dropped::NoAllocation);
    assert_eq!(world.server.handle_icmp(world.now, relay, peer(1).get(), (3, 3, [0; 4]), &mut Vec::new()), None);
    // The 5-tuple can be used again at once, and the old allocation is accounted for.
    world.allocate(&login);
    world.check_books();
    assert_eq!(ended(&world.events()).len(), 1);
}

#[test]
fn an_idle_allocation_wakes_the_server_a_few_times_in_its_life_and_not_every_second() {
    let mut world = World::new();
    let login = world.allocated(1);
    world.bind(&login, 0x4000, peer(1));
    let mut wakes = 0;
    while let Some(due) = world.server.next_timeout() {
        assert!(due > world.now.micros);
        let secs = (due - world.now.micros).div_ceil(SECOND);
        world.pass(secs);
        wakes += 1;
    }
    assert!(wakes <= 6, "{wakes} wakes");
    assert_eq!(world.server.allocations(), 0);
}

#[test]
fn ten_thousand_allocations_expire_at_their_own_times() {
    let mut world = World::new();
    world.relays.ports = (10_000..30_000).collect();
    let login = world.alice(client(1));
    for n in 0..300 {
        let login = world.alice(client(n));
        world.allocate(&login);
        world.pass(1);
    }
    drop(login);
    assert_eq!(world.server.allocations(), 300);
    world.pass(300);
    assert_eq!(world.server.allocations(), 300);
    for left in (0..300).rev() {
        world.pass(1);
        let alive = world.server.allocations();
        assert!((left..=left + 1).contains(&alive), "{alive} at {left}");
        world.check_books();
    }
}

#[test]
fn keep_lets_an_allocation_be_refreshed_after_its_credential_expired() {
    let mut world = World::new();
    let login = world.guest(client(1), "carol", 300);
    world.allocate(&login);
    for _ in 0..5 {
        world.pass(500);
        assert_eq!(world.refresh(&login, None).lifetime_secs(), 600);
        assert_eq!(world.permit(&login, &[peer(1)]).code(), None);
    }
    let other = Login { client: client(2), ..world.guest(client(2), "carol", 0) };
    world.pass(1);
    assert_eq!(world.request(&other, Method::ALLOCATE, |_| {}).code(), Some(401), "but nothing new is made with it");
}

#[test]
fn no_refresh_lets_an_allocation_run_out_after_its_credential_expired() {
    let mut world = World::with(|options| options.on_expiry = OnExpiry::NoRefresh);
    let login = world.guest(client(1), "carol", 300);
    assert_eq!(world.allocate(&login).lifetime_secs(), 600);
    world.pass(250);
    assert_eq!(world.refresh(&login, None).lifetime_secs(), 600);
    world.pass(100);
    world.events();
    let reply = world.refresh(&login, None);
    assert_eq!(reply.code(), Some(401));
    assert!(reply.get(turnstone::stun::AttributeType::NONCE).is_some());
    assert_eq!(refusals(&world.events()), [Reason::CredentialExpired]);
    assert_eq!(world.permit(&login, &[peer(1)]).code(), None, "it lives until its lifetime ends");
    world.pass(501);
    assert!(matches!(ended(&world.events())[..], [(_, EndReason::Expired)]));

    let login = world.guest(client(2), "carol", 10);
    world.allocate(&login);
    world.pass(100);
    assert_eq!(world.refresh(&login, Some(0)).code(), None, "it may be released");
    assert_eq!(world.server.allocations(), 0);
}

#[test]
fn cut_ends_an_allocation_at_the_moment_its_credential_expires() {
    let mut world = World::with(|options| options.on_expiry = OnExpiry::Cut);
    let login = world.guest(client(1), "carol", 300);
    assert_eq!(world.allocate(&login).lifetime_secs(), 300, "the lifetime says so");
    world.bind(&login, 0x4000, peer(1));
    world.pass(200);
    assert_eq!(world.refresh(&login, None).lifetime_secs(), 100);
    world.pass(99);
    world.channel_data(login.client, 0x4000, b"x").unwrap();
    world.pass_unattended(1);
    assert_eq!(world.channel_data(login.client, 0x4000, b"x").unwrap_err(), Dropped::NoAllocation);
    world.pass(1);
    assert!(matches!(ended(&world.events())[..], [(_, EndReason::CredentialExpired)]));
    world.check_books();

    // A static user has no expiry.
    let alice = world.alice(client(2));
    assert_eq!(world.allocate(&alice).lifetime_secs(), 600);
}

#[test]
fn cycles_of_allocate_and_refresh_0_leave_no_timer_behind() {
    let mut world = World::new();
    let logins: Vec<Login> = (0..4).map(|n| world.alice(client(n))).collect();
    let cycle = |world: &mut World, n: usize| {
        let login = &logins[n % logins.len()];
        world.allocate(login);
        assert_eq!(world.bind(login, 0x4000, peer(1)).code(), None);
        assert_eq!(world.refresh(login, Some(0)).code(), None);
        world.events();
        assert_eq!((world.server.timers(), world.server.allocations()), (0, 0));
    };
    let cycles = 5_000;
    for n in 0..cycles {
        cycle(&mut world, n);
        if n % 100 == 0 {
            world.pass(1);
        }
    }
    // The nonces are good for an hour.
    assert_eq!(world.server.next_timeout(), None);
    world.check_books();
}

#[test]
fn an_allocation_has_one_timer_however_often_it_is_refreshed_and_whatever_it_binds() {
    let mut world = World::new();
    let login = world.allocated(1);
    for n in 0..200_u16 {
        assert_eq!(world.refresh(&login, Some(600 + u32::from(n % 7) * 100)).code(), None);
        assert_eq!(world.bind(&login, 0x4000 + n % 20, peer((n % 20) as u8)).code(), None);
        assert_eq!(world.server.timers(), 1);
        world.pass(u64::from(n % 30));
        world.events();
    }
    world.check_books();
}

#[test]
fn what_expires_at_once_ends_by_parts() {
    let (mut world, _) = crowd(1000);
    world.events();
    world.pass_unattended(700);
    let mut parts = 0;
    while world.server.next_timeout().is_some_and(|due| due <= world.now.micros) {
        let before = world.server.allocations();
        world.server.handle_timeout(world.now, &mut world.relays);
        assert!(before - world.server.allocations() <= 64, "too many in one part");
        parts += 1;
        assert!(parts < 1000, "it would spin");
    }
    assert!(parts >= 1000 / 64, "{parts}");
    assert_eq!((world.server.allocations(), world.server.timers()), (0, 0));
    assert_eq!(world.server.next_timeout(), None);
    world.check_books();
}
