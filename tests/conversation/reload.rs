//! A new configuration snapshot while allocations live.

use turnstone::addr::Family;
use turnstone::policy::{BandwidthLimits, QuotaLimits, RateLimit};
use turnstone::reject::Dropped;
use turnstone::stun::Method;
use turnstone::turn::{Encapsulation, EndReason, Event, OnExpiry};

use crate::harness::*;

#[test]
fn permissions_and_channels_to_peers_that_are_denied_now_end() {
    let mut world = World::new();
    let login = world.allocated(1);
    let relay = world.relay(Family::V4);
    world.bind(&login, 0x4001, peer(1));
    world.bind(&login, 0x4002, peer(2));
    world.permit(&login, &[peer(3), peer(4)]);
    world.events();
    world.reload(|options| options.rules.denied = vec!["8.8.8.1".to_owned(), "8.8.8.3".to_owned()]);
    assert!(matches!(world.events()[..], [Event::RouteGone { channel: 0x4001, .. }]));
    assert_eq!(world.channel_data(login.client, 0x4001, b"x").unwrap_err(), Dropped::NoChannel);
    assert_eq!(world.inbound(relay, peer(1), 1), Err(Dropped::NoPermission));
    assert_eq!(world.inbound(relay, peer(3), 1), Err(Dropped::NoPermission));
    assert_eq!(world.permit(&login, &[peer(3)]).code(), Some(403));
    assert_eq!(world.channel_data(login.client, 0x4002, b"x").unwrap().0.peer, peer(2));
    assert_eq!(world.inbound(relay, peer(2), 1).unwrap().encapsulation, Encapsulation::Channel(0x4002));
    world.inbound(relay, peer(4), 1).unwrap();
    assert_eq!(world.server.allocations(), 1);
}

#[test]
fn a_denied_port_ends_the_channel_and_not_the_permission() {
    let mut world = World::new();
    let login = world.allocated(1);
    let relay = world.relay(Family::V4);
    world.bind(&login, 0x4001, peer(1));
    world.reload(|options| options.rules.denied_ports = vec![peer(1).port()]);
    assert_eq!(world.channel_data(login.client, 0x4001, b"x").unwrap_err(), Dropped::NoChannel);
    assert_eq!(world.inbound(relay, peer(1), 1), Err(Dropped::PeerDenied));
    world.send_raw(login.client, std::net::SocketAddr::new(peer(1).ip(), 9), b"x").into_peer();
}

#[test]
fn channels_learn_which_addresses_are_our_own_relays() {
    let mut world = World::new();
    let login = world.allocated(1);
    world.bind(&login, 0x4001, peer(1));
    assert!(!world.channel_data(login.client, 0x4001, b"x").unwrap().0.own_relay);
    world.reload(|options| {
        options.rules.relay_addresses.push(peer(1).ip());
        options.rules.relay_ports = (1024, 65535);
    });
    assert!(world.channel_data(login.client, 0x4001, b"x").unwrap().0.own_relay);
}

#[test]
fn a_policy_of_cut_counts_for_allocations_made_before_it() {
    let mut world = World::new();
    let guest = world.guest(client(1), "carol", 100);
    world.allocate(&guest);
    let late = world.guest(client(2), "dave", 5);
    world.allocate(&late);
    let alice = world.allocated(3);
    world.pass(10);
    world.events();
    world.reload(|options| options.on_expiry = OnExpiry::Cut);
    world.pass(2);
    assert_eq!(world.server.allocations(), 2, "dave's credential had expired");
    world.pass(100);
    assert_eq!(world.server.allocations(), 1);
    let events = world.events();
    let cut = |event: &&Event| matches!(event, Event::Ended(end) if end.reason == EndReason::CredentialExpired);
    assert_eq!(events.iter().filter(cut).count(), 2, "{events:?}");
    assert_eq!(world.refresh(&alice, None).code(), None);
}

#[test]
fn limits_lifetimes_and_the_budget_are_taken_over() {
    let mut world = World::new();
    let login = world.allocated(1);
    world.bind(&login, 0x4000, peer(1));
    world.reload(|options| {
        options.bandwidth =
            BandwidthLimits { per_allocation: Some(1000), per_user: None, ..BandwidthLimits::default() };
        options.quota = QuotaLimits { per_user: Some(1), total: None, ..QuotaLimits::default() };
        options.lifetimes.allocation_default_secs = 60;
        options.lifetimes.allocation_max_secs = 120;
        options.unauthenticated = Some(RateLimit { per_second: 1, burst: 3 });
        options.max_peers = 1;
    });
    let dropped = (0..1000).find_map(|_| world.channel_data(login.client, 0x4000, &[0; 1000]).err());
    assert_eq!(dropped, Some(Dropped::Bandwidth));
    assert_eq!(world.refresh(&login, None).lifetime_secs(), 60);
    assert_eq!(world.refresh(&login, Some(600)).lifetime_secs(), 120);
    assert_eq!(world.permit(&login, &[peer(2)]).code(), Some(508));
    let second = world.alice(client(2));
    let reply = world.request(&second, Method::ALLOCATE, |request| {
        request.attribute(turnstone::stun::AttributeType::REQUESTED_TRANSPORT, &UDP);
    });
    assert_eq!(reply.code(), Some(486));
    let request = world.bare(Method::BINDING, |_| {});
    let answers = (0..5).filter(|_| matches!(world.hand_in(client(9), &request), Answer::Reply(_))).count();
    assert_eq!(answers, 2, "one of the three went to the challenge");
    world.reload(|options| options.bandwidth = BandwidthLimits::default());
    world.channel_data(login.client, 0x4000, &[0; 1000]).unwrap();
}

#[test]
fn a_reload_judges_a_part_at_a_time_and_says_what_it_ended() {
    let (mut world, all) = crowd(200);
    world.begin_reload(|options| options.rules.denied = vec!["8.8.8.1".to_owned()]);
    assert!(world.server.is_judging());
    let mut parts = 0;
    let judgement = loop {
        let before = world.events().len();
        assert_eq!(before, 0);
        let judgement = world.server.judge(world.now, 16, &mut world.relays);
        // An allocation with its permission and its channel counts for three.
        let ended = world.events().len();
        assert!(ended <= 16 / 3 + 1, "{ended} in one part");
        parts += 1;
        if let Some(judgement) = judgement {
            break judgement;
        }
    };
    assert!(parts >= 200 / 6, "{parts}");
    assert_eq!((judgement.allocations, judgement.channels_ended, judgement.permissions_ended), (200, 200, 200));
    assert!(!world.server.is_judging());
    for (client, relay) in all {
        assert_eq!(world.channel_data(client, 0x4000, b"x").unwrap_err(), Dropped::NoChannel);
        assert_eq!(world.inbound(relay, peer(1), 1), Err(Dropped::NoPermission));
    }
}

#[test]
fn what_is_asked_for_while_a_reload_judges_is_judged_by_the_new_rules() {
    let mut world = World::new();
    let logins: Vec<_> = (1..=20).map(|n| world.allocated(n)).collect();
    world.begin_reload(|options| options.rules.denied = vec!["8.8.8.1".to_owned()]);
    assert_eq!(world.server.judge(world.now, 1, &mut world.relays), None);
    assert_eq!(world.permit(&logins[19], &[peer(1)]).code(), Some(403));
    assert_eq!(world.bind(&logins[19], 0x4000, peer(2)).code(), None);
    let later = world.allocated(21);
    assert_eq!(world.bind(&later, 0x4000, peer(1)).code(), Some(403));
    // One that ends, and a second reload, come in between.
    assert_eq!(world.refresh(&logins[5], Some(0)).code(), None);
    world.begin_reload(|options| options.rules.denied = vec!["8.8.8.2".to_owned()]);
    let judgement = loop {
        if let Some(judgement) = world.server.judge(world.now, 1, &mut world.relays) {
            break judgement;
        }
    };
    assert_eq!((judgement.allocations, judgement.channels_ended), (20, 1), "by the second reload");
    assert_eq!(world.bind(&later, 0x4001, peer(1)).code(), None);
}
