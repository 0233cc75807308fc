//! The abuse guard, by what clients ask for.

use turnstone::policy::{GuardLimits, PeerRules, SuspensionLimits};
use turnstone::reject::{Dropped, Reason};
use turnstone::stun::{AttributeType, Method};
use turnstone::turn::Event;
use turnstone::user::User;

use crate::harness::*;

fn world(guard: GuardLimits) -> World {
    World::with(|options| options.guard = guard)
}

fn suspending(probes: u32) -> GuardLimits {
    GuardLimits { suspension: Some(SuspensionLimits { probes, secs: 600 }), ..GuardLimits::default() }
}

fn at(address: &str) -> turnstone::addr::PeerAddr {
    peer_at(address.parse().unwrap())
}

fn try_allocate(world: &mut World, login: &Login) -> Option<u16> {
    world
        .request(login, Method::ALLOCATE, |request| {
            request.attribute(AttributeType::REQUESTED_TRANSPORT, &UDP);
        })
        .code()
}

fn suspended(events: &[Event]) -> Vec<User> {
    let user = |event: &Event| match event {
        Event::Suspended { suspension, .. } => Some(suspension.user.clone()),
        _ => None,
    };
    events.iter().filter_map(user).collect()
}

#[test]
fn peers_count_by_user_over_all_allocations_workers_and_methods() {
    let mut world = world(GuardLimits { peers_per_user: Some(3), ..GuardLimits::default() });
    world.split();
    let [one, other] = [1, 2].map(|n| world.guest(client(n), "carol", 36_000));
    world.allocate(&one);
    world.other_side();
    world.allocate(&other);
    assert_eq!(world.permit(&other, &[peer(1), peer(2)]).code(), None);
    world.other_side();
    assert_eq!(world.bind(&one, 0x4000, peer(2)).code(), None, "known already");
    assert_eq!(world.permit(&one, &[peer(3), peer(4)]).code(), Some(508));
    assert_eq!(world.bind(&one, 0x4001, peer(3)).code(), None);
    assert_eq!(world.bind(&one, 0x4002, peer(4)).code(), Some(508));
    assert_eq!(refusals(&world.events()), [Reason::UserPeers, Reason::UserPeers]);
    let dave = world.guest(client(3), "dave", 3600);
    world.allocate(&dave);
    assert_eq!(world.permit(&dave, &[peer(4)]).code(), None);
    // Channels live for ten minutes.
    world.pass(301);
    assert_eq!(world.permit(&one, &[peer(4)]).code(), None, "1 has expired");
    assert_eq!(world.permit(&one, &[peer(5)]).code(), Some(508));
}

#[test]
fn refreshing_what_there_is_costs_nothing_of_the_rate_of_new_peers() {
    let mut world = world(GuardLimits { new_peers_per_minute: Some(4), ..GuardLimits::default() });
    let login = world.alice(client(1));
    world.allocate(&login);
    for _ in 0..20 {
        assert_eq!(world.permit(&login, &[peer(1), peer(2)]).code(), None);
        world.pass(1);
    }
    assert_eq!(world.permit(&login, &[peer(3), peer(4), peer(5)]).code(), None);
    assert_eq!(world.permit(&login, &[peer(6), peer(7)]).code(), Some(508));
    assert_eq!(refusals(&world.events()), [Reason::UserNewPeers]);
}

#[test]
fn who_probes_gets_no_new_allocation_and_no_new_peer_and_keeps_the_call() {
    let mut world = world(suspending(3));
    let login = world.guest(client(1), "carol", 36_000);
    world.allocate(&login);
    assert_eq!(world.bind(&login, 0x4000, peer(1)).code(), None);
    for probe in ["127.0.0.1:80", "169.254.169.254:80", "127.0.0.1:22"] {
        assert_eq!(world.permit(&login, &[at(probe)]).code(), Some(403));
    }
    assert_eq!(suspended(&world.events()), []);
    assert_eq!(world.bind(&login, 0x4001, at("5.45.96.1:3478")).code(), Some(403));
    assert_eq!(suspended(&world.events()), [User::time_limited("carol")]);
    let again = world.guest(client(2), "carol", 36_000);
    assert_eq!(try_allocate(&mut world, &again), Some(403));
    assert_eq!(world.permit(&login, &[peer(2)]).code(), Some(403));
    assert_eq!(world.bind(&login, 0x4002, peer(2)).code(), Some(403));
    assert_eq!(refusals(&world.events()), [Reason::Suspended; 3]);
    // What there is goes on.
    assert_eq!(world.permit(&login, &[peer(1)]).code(), None);
    assert_eq!(world.bind(&login, 0x4000, peer(1)).code(), None);
    assert_eq!(world.refresh(&login, Some(3600)).code(), None);
    assert!(world.channel_data(client(1), 0x4000, b"x").is_ok());
    // A user of the same name is another one, and so is everybody else.
    let alice = world.alice(client(3));
    world.allocate(&alice);
    // Lifted, or over.
    assert_eq!(world.shared.guard.lift(|user| &**user.name() == "carol", world.now.micros), 1);
    assert_eq!(try_allocate(&mut world, &again), None);
}

#[test]
fn a_loop_that_is_cut_costs_the_peer_its_channel_and_permission_until_they_are_asked_for_again() {
    let mut world = World::new();
    let login = world.alice(client(1));
    world.allocate(&login);
    let relay = world.relays.last.unwrap();
    for n in [1, 2] {
        assert_eq!(world.bind(&login, 0x4000 + u16::from(n), peer(n)).code(), None);
    }
    world.events();
    world.server.cut_loop(world.now, &login.client.five_tuple, peer(1));
    assert_eq!(world.channel_data(client(1), 0x4001, b"x").unwrap_err(), Dropped::NoChannel);
    assert_eq!(world.inbound(relay, peer(1), 1).unwrap_err(), Dropped::NoPermission);
    assert!(world.inbound(relay, peer(2), 1).is_ok() && world.channel_data(client(1), 0x4002, b"x").is_ok());
    let events = world.events();
    let cut = |event: &Event| matches!(event, Event::LoopCut { peer: at, .. } if *at == peer(1));
    assert!(events.iter().any(cut) && matches!(events[0], Event::RouteGone { channel: 0x4001, .. }), "{events:?}");
    assert_eq!(world.bind(&login, 0x4001, peer(1)).code(), None);
    assert!(world.inbound(relay, peer(1), 1).is_ok());
}

#[test]
fn a_reload_that_turns_suspension_off_lifts_it() {
    let mut world = world(suspending(1));
    let login = world.alice(client(1));
    world.allocate(&login);
    assert_eq!(world.permit(&login, &[at("127.0.0.1:80")]).code(), Some(403));
    let second = world.alice(client(2));
    assert_eq!(try_allocate(&mut world, &second), Some(403));
    world.reload(|options| options.guard = GuardLimits::default());
    assert_eq!(try_allocate(&mut world, &second), None);
}

#[test]
fn what_is_forged_never_counts_and_host_candidates_of_a_call_do_not_suspend() {
    let mut world = World::with(|options| {
        options.guard = suspending(3);
        options.rules = PeerRules { default_deny_all: true, ..options.rules.clone() };
    });
    let login = world.alice(client(1));
    world.allocate(&login);
    // Somebody without the password, at her address and elsewhere.
    let forger = Login { nonce: login.nonce.clone(), ..world.login(client(1), "alice", "guessed") };
    for n in 0..20 {
        assert_eq!(world.permit(&forger, &[at(&format!("127.0.0.{n}:80"))]).code(), Some(401));
    }
    // Indications are signed by nobody.
    for n in 0..20 {
        world.send_raw(client(1), format!("127.0.0.{n}:80").parse().unwrap(), b"x").dropped();
    }
    // The candidates of the other side, the public one included, behind a server for an SFU.
    for candidate in ["192.168.1.7:5000", "10.8.0.2:5000", "172.17.0.1:5000", "100.64.0.9:5000", "8.8.8.8:5000"] {
        assert_eq!(world.permit(&login, &[at(candidate)]).code(), Some(403));
    }
    assert_eq!(world.permit(&login, &[at("[2606:4700::1]:5000")]).code(), Some(443));
    assert_eq!(suspended(&world.events()), []);
}
