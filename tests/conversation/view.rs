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
    let first = world.server.list(world.now, &all, None, 4);
    let rest = world.server.list(world.now, &all, Some(first[3].id), 4);
    assert_eq!((first.len(), rest.len()), (4, 2));
    assert!(first.iter().chain(&rest).map(|view| view.id).is_sorted());

    let count = |filter: &AllocationFilter| world.server.list(world.now, filter, None, 100).len();
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
    let id = world.server.list(world.now, &AllocationFilter::default(), None, 1)[0].id;

    let shown = world.server.show(world.now, id).expect("it lives");
    assert_eq!(shown.allocation.to_peers, (1, 5));
    assert_eq!(shown.channels.iter().map(|channel| (channel.0, channel.1)).collect::<Vec<_>>(), [(0x4000, peer(2))]);
    let permitted: Vec<_> = shown.permissions.iter().map(|permission| permission.0).collect();
    assert!(permitted.contains(&peer(1).ip()) && permitted.contains(&peer(2).ip()), "{permitted:?}");
    let totals = world.server.user_totals(world.now);
    assert_eq!((totals.len(), totals[0].allocations, totals[0].to_peers), (1, 1, (1, 5)));

    world.pass(3600);
    assert_eq!(world.server.show(world.now, id), None);
    assert!(world.server.user_totals(world.now).is_empty());
}

#[test]
fn a_kicked_allocation_gives_everything_back() {
    let mut world = World::new();
    let (one, two) = (world.allocated(1), world.allocated(2));
    let guest = world.guest(client(3), "bob", 60);
    world.allocate(&guest);
    world.bind(&one, 0x4000, peer(1));
    world.events();
    let id = world.server.list(world.now, &AllocationFilter::default(), None, 1)[0].id;

    let kicked = world.server.kick(world.now, &user("bob"), Some(id), &mut world.relays);
    assert!(kicked.is_empty(), "the allocation is another user's");
    let kicked = world.server.kick(world.now, &AllocationFilter::default(), Some(id), &mut world.relays);
    assert_eq!(kicked, [one.client]);
    world.check_books();
    assert_eq!(world.channel_data(one.client, 0x4000, b"x"), Err(Dropped::NoAllocation));
    assert!(world.events().iter().any(
        |event| matches!(event, Event::Ended(summary) if summary.id == id && summary.reason == EndReason::Kicked)
    ));
    assert_eq!(world.refresh(&one, None).code(), Some(437));

    assert_eq!(world.server.kick(world.now, &user("bob"), None, &mut world.relays), [guest.client]);
    assert_eq!(world.server.kick(world.now, &AllocationFilter::default(), None, &mut world.relays), [two.client]);
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
