//! Allocations that move to another server: of another worker, or of another process.

use std::sync::Arc;

use turnstone::addr::Family;
use turnstone::clock::{Now, SECOND};
use turnstone::policy::{QuotaLimits, Verdict};
use turnstone::reject::Dropped;
use turnstone::stun::{AttributeType, Method};
use turnstone::turn::{
    AllocationFilter, AllocationId, Client, DatagramPath, DigestKey, EndReason, Event, Parcel, Path, PutInError,
    RelayId, Server, Shared,
};

use crate::harness::*;

/// A world of two servers, and a client with an allocation at the first one.
fn split(change: impl FnOnce(&mut Options)) -> (World, Login, AllocationId) {
    let mut world = World::with(change);
    world.split();
    let login = world.allocated(1);
    let id = world.list(&AllocationFilter::default(), None, 1)[0].id;
    world.events();
    (world, login, id)
}

/// The same client by another path.
fn by_path(client: Client, socket: u32) -> Client {
    let to = client.five_tuple.client.get();
    Client { path: Path::Datagrams(DatagramPath { socket, to, from_ip: None }), ..client }
}

fn routes(events: &[Event]) -> Vec<String> {
    let shown = |event: &Event| match event {
        Event::RouteBound { channel, relay, .. } => Some(format!("{channel:x} by {}", relay.index)),
        Event::RouteGone { channel, .. } => Some(format!("{channel:x} gone")),
        _ => None,
    };
    events.iter().filter_map(shown).collect()
}

#[test]
fn a_moved_allocation_relays_by_its_new_path_and_relay_and_nobody_hears_of_an_end() {
    let (mut world, login, id) = split(|_| {});
    world.bind(&login, 0x4000, peer(1));
    world.channel_data(login.client, 0x4000, b"12345").unwrap();
    world.events();
    let before = world.relay(Family::V4);
    let client = by_path(login.client, 77);
    world.move_over(id, client);
    let relay = world.relay(Family::V4);
    assert_ne!(relay, before);
    let (way, payload) = world.channel_data(client, 0x4000, b"abc").unwrap();
    assert_eq!((way.relay, way.peer, payload.as_slice()), (relay, peer(1), b"abc".as_slice()));
    assert_eq!(world.inbound(relay, peer(1), 10).unwrap().client, client);
    assert_eq!(world.inbound(before, peer(1), 10), Err(Dropped::NoAllocation));
    let events = world.events();
    assert!(
        events.iter().all(|event| matches!(event, Event::RouteBound { .. } | Event::RouteGone { .. })),
        "{events:?}"
    );
    assert_eq!(routes(&events), [format!("4000 by {}", relay.index), "4000 gone".to_owned()]);
    assert_eq!(world.refresh(&login, Some(0)).code(), None);
    let events = world.events();
    let ended = events.iter().find_map(|event| if let Event::Ended(summary) = event { Some(summary) } else { None });
    let summary = ended.expect("one record of all of it");
    assert_eq!((summary.id, summary.to_peers, summary.to_client), (id, traffic(2, 8), traffic(1, 10)));
    world.check_books();
    world.other_side();
    assert_eq!(world.channel_data(client, 0x4000, b"abc"), Err(Dropped::NoAllocation));
}

#[test]
fn the_quota_is_held_all_the_way_and_given_back_once_wherever_the_allocation_ends() {
    let limited = |options: &mut Options| options.quota = QuotaLimits { total: Some(1), ..QuotaLimits::default() };
    let take = |world: &mut World, id| world.server.take_out(world.now, id).unwrap();
    let close = |world: &mut World| {
        let relays: Vec<RelayId> = world.relays.open.keys().copied().collect();
        relays.into_iter().for_each(|relay| turnstone::turn::Relays::close(&mut world.relays, relay));
    };

    let (mut world, login, id) = split(limited);
    let parcel = take(&mut world, id);
    assert_eq!((world.allocations(), world.shared.quotas.in_use()), (0, 1));
    let other = world.alice(client(2));
    let refused = world.request(&other, Method::ALLOCATE, |request| {
        request.attribute(AttributeType::REQUESTED_TRANSPORT, &UDP);
    });
    assert_eq!(refused.code(), Some(486), "nobody takes its place meanwhile");
    world.other_side();
    world.put_in(parcel, login.client).unwrap();
    world.check_books();
    world.pass(601);
    assert_eq!((world.allocations(), world.shared.quotas.in_use()), (0, 0));

    let (mut world, _, id) = split(limited);
    world.pass(5);
    let summary = take(&mut world, id).end(world.now, EndReason::Shutdown);
    assert_eq!((summary.id, summary.reason, summary.duration_micros), (id, EndReason::Shutdown, 5 * SECOND));
    assert_eq!((world.shared.quotas.in_use(), world.relays.open.len()), (0, 1), "the caller has the sockets");
    close(&mut world);
    world.check_books();
    world.allocate(&other);

    // From another process it is counted in any case.
    let (mut world, login, id) = split(limited);
    let parcel = take(&mut world, id);
    let arrived = Parcel::from_parts(world.now, parcel.to_parts(), &world.settings, &world.shared);
    assert_eq!(world.shared.quotas.in_use(), 2, "above the limit");
    drop(parcel);
    world.other_side();
    world.put_in(arrived, login.client).unwrap();
    world.check_books();
    world.server.end_all(world.now, EndReason::Shutdown, &mut world.relays);
    assert_eq!(world.shared.quotas.in_use(), 0);
}

#[test]
fn a_deadline_right_after_a_move_is_met_and_the_old_server_forgets_its_own() {
    let (mut world, login, id) = split(|_| {});
    world.pass(599);
    world.move_over(id, login.client);
    world.check_books();
    // The old server gives its slot to another one, which lives.
    world.other_side();
    let other = world.allocated(2);
    world.pass(2);
    assert_eq!(world.allocations(), 1);
    assert!(world.events().iter().any(|event| matches!(event, Event::Ended(of) if of.id == id)));
    assert_eq!(world.refresh(&other, None).code(), None);
    world.check_books();

    // One whose time is over is not taken out any more, and ends where it is.
    world.pass_unattended(700);
    let id = world.list(&AllocationFilter::default(), None, 1).first().map(|view| view.id);
    assert_eq!(id, None);
    let second = AllocationId::new(0, 2).unwrap();
    assert!(world.server.take_out(world.now, second).is_none());
    world.pass(1);
    assert_eq!(world.allocations(), 0);

    // One whose time is over when it arrives ends there.
    let (mut world, login, id) = split(|_| {});
    let parcel = world.server.take_out(world.now, id).unwrap();
    world.pass(700);
    world.other_side();
    world.put_in(parcel, login.client).unwrap();
    assert_eq!(world.refresh(&login, None).code(), Some(437));
    assert_eq!((world.allocations(), world.relays.open.len()), (0, 0));
}

#[test]
fn copies_of_its_last_request_and_of_earlier_releases_are_answered_where_it_is() {
    let (mut world, login, _) = split(|_| {});
    let release = login.request(world.transaction_id(), Method::REFRESH, |request| {
        request.u32(AttributeType::LIFETIME, 0);
    });
    let released = world.hand_in(login.client, &release).reply();
    let allocate = login.request(world.transaction_id(), Method::ALLOCATE, |request| {
        request.attribute(AttributeType::REQUESTED_TRANSPORT, &UDP);
    });
    let allocated = world.hand_in(login.client, &allocate).reply();
    let id = world.list(&AllocationFilter::default(), None, 1)[0].id;
    for as_parts in [false, true, false] {
        match as_parts {
            true => world.move_as_parts(id, login.client),
            false => world.move_over(id, login.client),
        }
        world.pass(3);
        assert_eq!(world.hand_in(login.client, &allocate).reply().bytes, allocated.bytes);
        assert_eq!(world.hand_in(login.client, &release).reply().bytes, released.bytes);
        assert_eq!(world.allocations(), 1, "a late copy of the release of another one does not end it");
    }
    world.pass(32);
    assert_eq!(
        world.hand_in(login.client, &allocate).reply().code(),
        Some(437),
        "after 40 seconds it is a new request"
    );
}

#[test]
fn what_cannot_be_put_in_comes_back_as_it_was() {
    let (mut world, login, id) = split(|_| {});
    world.bind(&login, 0x4000, peer(1));
    let parcel = world.server.take_out(world.now, id).unwrap();
    let relay = world.relay(Family::V4);
    world.other_side();
    let none = |_: RelayId| None;
    let returned = world.server.put_in(world.now, login.client, parcel, none, &mut world.relays).unwrap_err();
    assert_eq!(returned.error, PutInError::NoRelay(relay));
    assert_eq!(returned.to_string(), format!("the allocation cannot move here: relay {relay:?} has no new id"));
    world.allocated(1);
    let same = |relay: RelayId| Some(relay);
    let returned = world.server.put_in(world.now, login.client, returned.parcel, same, &mut world.relays).unwrap_err();
    assert_eq!(returned.error, PutInError::FiveTupleInUse);
    world.other_side();
    let copy = returned.parcel.to_parts();
    world.server.put_in(world.now, login.client, returned.parcel, same, &mut world.relays).unwrap();
    assert!(world.channel_data(login.client, 0x4000, b"x").is_ok());
    let copy = Parcel::from_parts(world.now, copy, &world.settings, &world.shared);
    let returned = world.server.put_in(world.now, client(9), copy, same, &mut world.relays).unwrap_err();
    assert_eq!(returned.error, PutInError::IdInUse(id));
    drop(returned);
    world.check_books();
}

#[test]
fn peers_are_judged_on_arrival_unless_the_same_snapshot_has_done_so() {
    let (mut world, login, id) = split(|_| {});
    world.permit(&login, &[peer(1), peer(2)]);
    world.bind(&login, 0x4000, peer(1));
    let own = world.relays.open.values().next().unwrap().as_peer();
    world.bind(&login, 0x4001, own);
    assert!(world.channel_data(login.client, 0x4001, b"x").unwrap().0.own_relay);
    // The other server has heard of the new configuration, and has judged all that it had.
    let old = Arc::clone(&world.settings);
    world.begin_reload(|options| options.rules.denied = vec!["8.8.8.1".to_owned()]);
    world.other_side();
    assert!(world.server.judge(world.now, 100, &mut world.relays).is_some());
    world.other_side();
    world.move_over(id, login.client);
    assert_eq!(world.channel_data(login.client, 0x4000, b"x"), Err(Dropped::NoChannel));
    let shown = world.server.show(world.now, id).unwrap();
    let permitted: Vec<_> = shown.permissions.iter().map(|(ip, _)| *ip).collect();
    assert!(!permitted.contains(&peer(1).ip()) && permitted.contains(&peer(2).ip()), "{permitted:?}");
    // What is own and what is not is judged anew by a process that knows nothing of before.
    world.move_as_parts(id, login.client);
    assert!(world.channel_data(login.client, 0x4001, b"x").unwrap().0.own_relay);
    assert_eq!(world.settings.peer_acl().judge(own), Ok(Verdict::OwnRelay));
    drop(old);
    world.check_books();
}

#[test]
fn a_client_that_comes_by_another_5_tuple_takes_its_allocation_along() {
    let (mut world, login, id) = split(|_| {});
    world.permit(&login, &[peer(1)]);
    let last = login.request(world.transaction_id(), Method::REFRESH, |_| {});
    world.hand_in(login.client, &last).reply();
    let moved = world.alice(client(2));
    world.move_over(id, moved.client);
    assert_eq!(world.inbound(world.relay(Family::V4), peer(1), 9).unwrap().client, moved.client);
    assert_eq!(world.refresh(&moved, None).code(), None);
    assert_eq!(world.hand_in(login.client, &last).reply().code(), Some(437), "the old 5-tuple has none");
    assert_eq!(world.list(&AllocationFilter::default(), None, 9)[0].five_tuple, moved.client.five_tuple);
    assert_eq!(world.server.allocations(), 1);
    world.check_books();
}

#[test]
fn a_pass_sees_what_was_there_and_what_came_from_others_but_not_what_is_made_after_its_start() {
    let (mut world, login, id) = split(|_| {});
    let at_first = world.server.listing(AllocationFilter::default(), None, 100);
    world.other_side();
    world.allocated(2);
    let second = world.list(&AllocationFilter::default(), None, 1)[0].id;
    assert_eq!((id.to_string().as_str(), second.to_string().as_str()), ("0-1", "1-1"));
    // The second one comes to the first server, where ids are lower.
    world.move_over(second, client(2));
    let mut listing = world.server.listing(AllocationFilter::default(), None, 100);
    world.allocated(3);
    world.server.list(world.now, &mut listing, 100);
    let found: Vec<_> = listing.into_found().iter().map(|view| view.id).collect();
    assert_eq!(found, [id, second]);
    let after = world.list(&AllocationFilter::default(), Some(id), 100);
    assert_eq!(after.iter().map(|view| view.id.to_string()).collect::<Vec<_>>(), ["0-2", "1-1"]);
    let mut before = at_first;
    world.server.list(world.now, &mut before, 100);
    assert_eq!(before.into_found().len(), 1, "what moved in later was no part of it");
    assert_eq!(world.kick(&AllocationFilter::default(), Some(second)).len(), 1);
    assert_eq!(world.kick(&AllocationFilter::default(), Some(second)).len(), 0);
    assert_eq!(world.refresh(&login, None).code(), None);
}

#[test]
fn another_process_goes_on_with_the_ids_and_the_digests_and_by_its_own_clock() {
    let (mut world, login, id) = split(|_| {});
    world.permit(&login, &[peer(1)]);
    let last = login.request(world.transaction_id(), Method::CHANNEL_BIND, |request| {
        request.u32(AttributeType::CHANNEL_NUMBER, 0x4000 << 16);
        request.xor_address(AttributeType::XOR_PEER_ADDRESS, peer(1).get());
    });
    let answer = world.hand_in(login.client, &last).reply();
    world.pass(10);
    let parcel = world.server.take_out(world.now, id).unwrap();
    let mut parts = parcel.to_parts();
    let key = world.shared.request_digests.get().unwrap();
    let ids = world.server.ids();

    // The other one has started a minute ago, on another machine.
    let there = Now { micros: 60 * SECOND, unix_secs: world.now.unix_secs };
    parts.translate(world.now, there);
    let shared = Shared { request_digests: Arc::new(DigestKey::new(key)), ..Shared::default() };
    let server = Server::new(Arc::clone(&world.settings), shared.clone(), Box::new(|out| out.fill(9)));
    world.server = server.with_ids(ids);
    world.shared = shared;
    world.now = there;
    let arrived = Parcel::from_parts(there, parts, &world.settings, &world.shared);
    let same = |relay: RelayId| Some(relay);
    world.server.put_in(there, login.client, arrived, same, &mut world.relays).unwrap();
    drop(parcel);

    assert_eq!(world.hand_in(login.client, &last).reply().bytes, answer.bytes);
    let shown = world.server.show(there, id).unwrap();
    assert_eq!(shown.allocation.relayed[0].1, there.micros + 590 * SECOND);
    assert_eq!(
        (shown.channels[0].2, shown.permissions[0].1),
        (there.micros + 590 * SECOND, there.micros + 290 * SECOND)
    );
    assert_eq!(shown.allocation.made_micros, there.micros - 10 * SECOND);
    let fresh = world.alice(client(2));
    world.allocate(&fresh);
    let ids: Vec<_> =
        world.list(&AllocationFilter::default(), None, 9).iter().map(|view| view.id.to_string()).collect();
    assert_eq!(ids, ["0-1", "0-2"]);
    world.check_books();
}

#[test]
fn a_server_that_was_not_told_where_its_ids_go_on_makes_none_that_has_come_from_elsewhere() {
    let (mut world, login, id) = split(|_| {});
    let parcel = world.server.take_out(world.now, id).unwrap();
    // A new process begins its ids anew.
    let server = Server::new(Arc::clone(&world.settings), world.shared.clone(), Box::new(|out| out.fill(9)));
    world.server = server;
    world.server.put_in(world.now, login.client, parcel, Some, &mut world.relays).unwrap();
    world.allocated(2);
    let ids: Vec<_> =
        world.list(&AllocationFilter::default(), None, 9).iter().map(|view| view.id.to_string()).collect();
    assert_eq!(ids, ["0-1", "0-2"]);
    assert_eq!(world.kick(&AllocationFilter::default(), None).len(), 2);
    world.check_books();
}

#[test]
fn a_relay_that_another_allocation_has_is_not_given_to_one_that_moves_in() {
    let (mut world, login, id) = split(|_| {});
    let parcel = world.server.take_out(world.now, id).unwrap();
    world.other_side();
    let other = world.allocated(2);
    let taken = world.relays.last.unwrap();
    let to_taken = |_: RelayId| Some(taken);
    let returned = world.server.put_in(world.now, login.client, parcel, to_taken, &mut world.relays).unwrap_err();
    assert_eq!(returned.error, PutInError::RelayInUse(taken));
    world.permit(&other, &[peer(1)]);
    assert_eq!(world.inbound(taken, peer(1), 9).unwrap().client, other.client);
    world.put_in(returned.parcel, login.client).unwrap();
    world.check_books();
}

#[test]
fn the_relays_of_a_dual_allocation_stay_two() {
    let mut world = World::new();
    world.split();
    let login = world.allocated_dual(1);
    let id = world.list(&AllocationFilter::default(), None, 1)[0].id;
    let parcel = world.server.take_out(world.now, id).unwrap();
    let one = world.relay(Family::V4);
    let returned = world.server.put_in(world.now, login.client, parcel, |_| Some(one), &mut world.relays).unwrap_err();
    assert_eq!(returned.error, PutInError::RelayInUse(one));
    world.server.put_in(world.now, login.client, returned.parcel, Some, &mut world.relays).unwrap();
    world.check_books();
}

#[test]
fn an_allocation_that_comes_without_a_relay_ends_at_once() {
    let (mut world, login, id) = split(|_| {});
    let mut parts = world.server.take_out(world.now, id).unwrap().to_parts();
    parts.relays.clear();
    let arrived = Parcel::from_parts(world.now, parts, &world.settings, &world.shared);
    world.server.put_in(world.now, login.client, arrived, Some, &mut world.relays).unwrap();
    assert_eq!((world.server.allocations(), world.shared.quotas.in_use()), (0, 0));
    assert!(world.events().iter().any(|event| matches!(event, Event::Ended(of) if of.id == id)));
}

#[test]
fn what_moves_and_what_is_asked_may_go_to_other_threads() {
    fn may<T: Send>() {}
    may::<Parcel>();
    may::<turnstone::turn::Parts>();
    may::<turnstone::turn::Ask>();
    may::<turnstone::turn::Answer>();
}
