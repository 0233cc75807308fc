//! What an operator sees of allocations and refusals, and ending an allocation from outside.

use turnstone::addr::Transport;
use turnstone::reject::{Dropped, Reason};
use turnstone::turn::{AllocationFilter, EndReason, Event, Refusal};

use crate::harness::*;

fn user(name: &str) -> AllocationFilter {
    AllocationFilter { user: Some(name.to_owned()), ..AllocationFilter::default() }
}

#[test]
fn allocations_are_listed_by_page_and_filter() {
    let mut world = World::new();
    let logins: Vec<_> = (1..=5).map(|n| world.allocated(n)).collect();
    let guest = world.guest(client_over(Transport::Tcp, 9), "bob", 60);
    world.allocate(&guest);
    world.permit(&logins[1], &[peer(1)]);
    world.bind(&logins[2], 0x4000, peer(2));

    let all = AllocationFilter::default();
    let first = world.list(&all, None, 4);
    let rest = world.list(&all, Some(first[3].id), 4);
    assert_eq!((first.len(), rest.len()), (4, 2));
    assert!(first.iter().chain(&rest).map(|view| view.id).is_sorted());

    let count = |filter: &AllocationFilter| world.list(filter, None, 100).len();
    assert_eq!(count(&user("bob")), 1, "the user part of a time-limited username");
    assert_eq!(count(&user(&first[0].username)), 5);
    assert_eq!(count(&user("nobody")), 0);
    let of_peer = |n| AllocationFilter { peer: Some(peer(n).ip()), ..AllocationFilter::default() };
    assert_eq!((count(&of_peer(1)), count(&of_peer(2)), count(&of_peer(3))), (1, 1, 0));
    assert_eq!(count(&AllocationFilter { transport: Some(Transport::Tcp), ..all.clone() }), 1);
    let relayed = Some(first[0].relayed[0].0.get());
    assert_eq!(count(&AllocationFilter { relayed, ..all.clone() }), 1);
    let ip = Some(logins[0].client.five_tuple.client.get().ip());
    assert!(count(&AllocationFilter { client: ip, ..all }) >= 1);
}

#[test]
fn one_allocation_is_shown_with_its_peers_and_its_traffic() {
    let mut world = World::new();
    let login = world.allocated(1);
    world.permit(&login, &[peer(1)]);
    world.bind(&login, 0x4000, peer(2));
    world.channel_data(login.client, 0x4000, b"12345").unwrap();
    let id = world.list(&AllocationFilter::default(), None, 1)[0].id;

    let shown = world.server.show(world.now, id).expect("it lives");
    assert_eq!(shown.allocation.to_peers, traffic(1, 5));
    assert_eq!(shown.channels.iter().map(|channel| (channel.0, channel.1)).collect::<Vec<_>>(), [(0x4000, peer(2))]);
    let permitted: Vec<_> = shown.permissions.iter().map(|permission| permission.0).collect();
    assert!(permitted.contains(&peer(1).ip()) && permitted.contains(&peer(2).ip()), "{permitted:?}");
    let totals = world.user_totals();
    assert_eq!((totals.len(), totals[0].allocations, totals[0].to_peers), (1, 1, traffic(1, 5)));

    world.pass(3600);
    assert_eq!(world.server.show(world.now, id), None);
    assert!(world.user_totals().is_empty());
}

#[test]
fn an_allocation_that_an_application_refuses_ends_alone_and_says_why() {
    let mut world = World::new();
    let (one, two) = (world.allocated(1), world.allocated(2));
    world.events();
    let id = world.list(&AllocationFilter::default(), None, 1)[0].id;
    let mut kick = world.server.ending_refused(id);
    let clients = world.server.kick(world.now, &mut kick, usize::MAX, &mut world.relays);
    assert_eq!(clients, [one.client]);
    assert!(kick.is_done());
    world.check_books();
    assert!(world.events().iter().any(
        |event| matches!(event, Event::Ended(summary) if summary.id == id && summary.reason == EndReason::HookRefused)
    ));
    assert_eq!((world.refresh(&one, None).code(), world.refresh(&two, None).code()), (Some(437), None));
}

#[test]
fn a_kicked_allocation_gives_everything_back() {
    let mut world = World::new();
    let (one, two) = (world.allocated(1), world.allocated(2));
    let guest = world.guest(client(3), "bob", 60);
    world.allocate(&guest);
    world.bind(&one, 0x4000, peer(1));
    world.events();
    let id = world.list(&AllocationFilter::default(), None, 1)[0].id;

    let kicked = world.kick(&user("bob"), Some(id));
    assert!(kicked.is_empty(), "the allocation is another user's");
    let kicked = world.kick(&AllocationFilter::default(), Some(id));
    assert_eq!(kicked, [one.client]);
    world.check_books();
    assert_eq!(world.channel_data(one.client, 0x4000, b"x"), Err(Dropped::NoAllocation));
    assert!(world.events().iter().any(
        |event| matches!(event, Event::Ended(summary) if summary.id == id && summary.reason == EndReason::Kicked)
    ));
    assert_eq!(world.refresh(&one, None).code(), Some(437));

    assert_eq!(world.kick(&user("bob"), None), [guest.client]);
    assert_eq!(world.kick(&AllocationFilter::default(), None), [two.client]);
    assert_eq!(world.server.allocations(), 0);
    world.check_books();
}

#[test]
fn a_refusal_says_who_asked_for_what() {
    let mut world = World::new();
    let login = world.allocated(1);
    world.events();
    world.permit(&login, &[peer(1), peer_at(([10, 1, 2, 3], 9).into())]);
    let wrong = world.login(client(2), "alice", "not hers");
    assert_eq!(world.refresh(&wrong, None).code(), Some(401));
    let refused: Vec<Refusal> = world
        .events()
        .into_iter()
        .filter_map(|event| if let Event::Refused(refusal) = event { Some(refusal) } else { None })
        .collect();
    let [denied, unknown] = &refused[..] else { panic!("{refused:?}") };
    assert_eq!((denied.reason, denied.peer), (Reason::PeerDeniedByDefault, Some(([10, 1, 2, 3], 9).into())));
    assert_eq!((unknown.reason, unknown.peer), (Reason::WrongPassword, None));
    assert_eq!(unknown.username.to_string(), "alice");
    assert_eq!(unknown.client, wrong.client.five_tuple.client);
}

#[test]
fn a_list_looks_at_a_part_at_a_time_and_is_right_though_allocations_come_and_go_meanwhile() {
    let (mut world, all) = crowd(150);
    let filter = AllocationFilter::default();
    let ids: Vec<_> = world.list(&filter, None, 1000).iter().map(|view| view.id).collect();
    let mut listing = world.server.listing(filter, None, 1000);
    let mut parts = 0;
    while !listing.is_done() {
        world.server.list(world.now, &mut listing, 20);
        parts += 1;
        // The first ends after it was looked at, the last before; one more is made.
        let gone = if parts == 2 { Some(0) } else { (parts == 3).then_some(149) };
        if let Some(n) = gone {
            world.server.client_gone(world.now, &all[n].0.five_tuple, &mut world.relays);
            world.relays.ports.push(3000);
            world.allocated(500 + n as u16);
        }
    }
    assert!(parts >= 150 / 20, "{parts}");
    let found: Vec<_> = listing.into_found().iter().map(|view| view.id).collect();
    assert_eq!(found, ids[..149], "as each was when it was looked at");
}

#[test]
fn a_page_costs_what_it_shows_wherever_it_begins() {
    let (world, _) = crowd(300);
    let filter = AllocationFilter::default();
    let ids: Vec<_> = world.list(&filter, None, 1000).iter().map(|view| view.id).collect();
    let mut listing = world.server.listing(filter, Some(ids[279]), 10);
    world.server.list(world.now, &mut listing, 11);
    assert!(listing.is_done(), "it has looked at ten and knows that these are enough");
    assert_eq!(listing.into_found().iter().map(|view| view.id).collect::<Vec<_>>(), ids[280..290]);
}

#[test]
fn totals_and_kicks_go_by_parts_and_miss_nobody() {
    let (mut world, _) = crowd(100);
    let guest = world.guest(client(900), "bob", 60);
    world.relays.ports = vec![4000];
    world.allocate(&guest);
    let mut totals = world.server.totals();
    world.server.add_up(world.now, &mut totals, 30);
    assert!(!totals.is_done());
    while !totals.is_done() {
        world.server.add_up(world.now, &mut totals, 30);
    }
    let mut counts: Vec<_> = totals.into_users().iter().map(|total| total.allocations).collect();
    counts.sort_unstable();
    assert_eq!(counts, [1, 100]);
    let mut kick = world.server.kicking(user("alice"), None);
    let mut kicked = 0;
    while !kick.is_done() {
        let part = world.server.kick(world.now, &mut kick, 7, &mut world.relays).len();
        assert!(part <= 7);
        kicked += part;
    }
    assert_eq!((kicked, world.server.allocations()), (100, 1));
    world.check_books();
}
