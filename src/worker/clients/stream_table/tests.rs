//! The order of turns, the times at which connections are judged, and what is left of those that are gone.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use super::*;
use crate::net::sys::{Descriptors, Outward};
use crate::net::{Arena, Pipes, connect_stream};
use crate::stream::{Accepted, ConnectionLimits, Full, Opening, tls_configs};
use crate::worker::peak::SLOTS_MIN;

const SECOND: u64 = 1_000_000;

fn at(secs: u64) -> Now {
    Now { micros: secs * SECOND, unix_secs: 0 }
}

/// Time-outs of 10 s for the first message, 60 s for silence and 120 s for an allocation.
fn options() -> Streams {
    Streams {
        queue: Duration::from_millis(200),
        queue_bytes_max: 1 << 20,
        idle_timeout: Duration::from_secs(60),
        handshake_timeout: Duration::from_secs(10),
        allocation_timeout: Duration::from_secs(120),
        connections_max: 10_000,
        connections_per_ip_max: None,
        unallocated_per_network_max: None,
    }
}

struct World {
    table: StreamTable,
    listener: TcpListener,
    clients: Vec<TcpStream>,
}

impl World {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Self { table: StreamTable::new(&options()), listener, clients: Vec::new() }
    }

    fn connect(&mut self, now: Now) -> StreamId {
        self.connect_within(now, &ConnectionLimits::new(10_000, None, None))
    }

    fn connect_within(&mut self, now: Now, limits: &Arc<ConnectionLimits>) -> StreamId {
        self.connect_as(now, limits, Opening::Messages)
    }

    fn connect_as(&mut self, now: Now, limits: &Arc<ConnectionLimits>, opening: Opening) -> StreamId {
        let server = self.listener.local_addr().unwrap();
        self.clients.push(TcpStream::connect(server).unwrap());
        let (socket, client) = self.listener.accept().unwrap();
        socket.set_nonblocking(true).unwrap();
        let permit = limits.admit(client.ip()).unwrap();
        let begun = Accepted::new(socket, client).unwrap().begin(opening, false).unwrap();
        self.table.insert(now, begun, permit)
    }
}

#[test]
fn connections_are_read_in_the_order_in_which_they_asked_and_each_has_one_place() {
    let mut world = World::new();
    let ids: Vec<_> = (0..3).map(|_| world.connect(at(0))).collect();
    let table = &mut world.table;
    for id in [ids[1], ids[0], ids[1], ids[2], ids[0]] {
        table.wait_for_turn(id, Ready::READABLE);
    }
    assert_eq!([Line::Strangers, Line::Arriving].map(|line| table.waiting(line)), [3, 0]);
    let mut next = || table.next_turn(Line::Strangers).map(|(id, _)| id);
    assert_eq!(next(), Some(ids[1]));
    // Who has more to be handled is behind those that have had no turn yet.
    table.wait_for_turn(ids[1], Ready::READABLE);
    let mut next = || table.next_turn(Line::Strangers).map(|(id, _)| id);
    assert_eq!([next(), next(), next(), next()], [Some(ids[0]), Some(ids[2]), Some(ids[1]), None]);
    assert!(!table.has_waiting());
    // Who has an allocation waits only for others who have one.
    table.wait_for_turn(ids[0], Ready::READABLE);
    table.set_holds(at(1), ids[2], true);
    table.wait_for_turn(ids[2], Ready::READABLE);
    assert_eq!(table.next_turn(Line::Allocated).map(|(id, _)| id), Some(ids[2]));
    assert!(table.has_waiting() && table.next_turn(Line::Allocated).is_none());
}

#[test]
fn the_oldest_without_an_allocation_goes_first_and_who_has_one_is_passed_over() {
    let mut world = World::new();
    let ids: Vec<_> = (0..4).map(|second| world.connect(at(second))).collect();
    let table = &mut world.table;
    table.set_holds(at(5), ids[0], true);
    assert!(table.remove(ids[1]).is_some() && table.remove(ids[1]).is_none());
    assert_eq!(table.oldest_stranger(None), Some(ids[2]));
    // Its time begins again when its allocation has ended.
    table.set_holds(at(6), ids[0], false);
    assert_eq!(table.oldest_stranger(Some(at(122))), None);
    assert_eq!(table.oldest_stranger(Some(at(123))), Some(ids[3]));
    assert_eq!(table.oldest_stranger(Some(at(125))), None);
    assert_eq!(table.oldest_stranger(Some(at(126))), Some(ids[0]));
}

#[test]
fn a_connection_ends_once_and_gives_its_place_back_before_it_is_closed() {
    let mut world = World::new();
    let limits = ConnectionLimits::new(2, None, None);
    let (first, second) = (world.connect_within(at(0), &limits), world.connect_within(at(1), &limits));
    let ip = "127.0.0.1".parse().unwrap();
    assert!(limits.admit(ip).is_err());
    let table = &mut world.table;
    assert!(table.end(first, Ending::Reset) && !table.end(first, Ending::Close));
    assert!(limits.admit(ip).is_ok());
    assert_eq!(table.oldest_stranger(None), Some(second), "the first one makes no more room");
    assert_eq!(table.open(), 2);
    let ended = table.next_ended();
    assert!(
        matches!(ended, Some((State::Arrived(stream), Ending::Reset)) if stream.client.path == Path::Stream(first))
    );
    assert!(table.next_ended().is_none() && !table.end(first, Ending::Close));
    assert_eq!(table.open(), 1);
}

#[test]
fn a_connection_that_arrives_has_no_client_until_it_has_arrived_and_keeps_its_id_and_its_times() {
    let mut world = World::new();
    let (server, client) = tls_configs();
    let stream = TcpStream::connect(world.listener.local_addr().unwrap()).unwrap();
    let (socket, remote) = world.listener.accept().unwrap();
    socket.set_nonblocking(true).unwrap();
    let permit = ConnectionLimits::new(1, None, None).admit(remote.ip()).unwrap();
    let begun = Accepted::new(socket, remote).unwrap().begin(Opening::Handshake(server), false).unwrap();
    let table = &mut world.table;
    let id = table.insert(at(0), begun, permit);
    assert!(table.get(id).is_none() && table.get_mut(id).is_none() && table.fd(id).is_some());
    table.wait_for_turn(id, Ready::READABLE);
    assert_eq!(table.next_turn(Line::Arriving).map(|(id, _)| id), Some(id));

    let shaking = std::thread::spawn(move || {
        let (mut stream, name) = (stream, "localhost".try_into().unwrap());
        let mut client = rustls::ClientConnection::new(client, name).unwrap();
        client.complete_io(&mut stream).unwrap();
        stream
    });
    let mut arena = Arena::new(2, 1024);
    let (slot, cipher) = (arena.slot(0), arena.slot(1));
    let mut go_on = |table: &mut StreamTable| table.go_on(at(1), id, |a| a.go_on(&mut arena, slot, cipher, 4096));
    while go_on(table).unwrap().is_none() {
        std::thread::yield_now();
    }
    let stream = shaking.join().unwrap();
    let client = table.get(id).map(|stream| stream.client).unwrap();
    assert_eq!(client.path, Path::Stream(id));
    assert_eq!(client.five_tuple.client.get(), stream.local_addr().unwrap());
    assert_eq!(go_on(table).unwrap(), None, "it does not arrive twice");
    table.wait_for_turn(id, Ready::READABLE);
    assert_eq!(table.waiting(Line::Strangers), 1);
    assert_eq!((table.next_unheard(at(9)), table.next_unheard(at(10))), (None, Some(id)));
    assert_eq!(table.oldest_stranger(Some(at(120))), Some(id));
}

#[test]
fn a_silent_connection_is_judged_by_its_first_message_then_by_its_last() {
    let mut world = World::new();
    let (silent, heard) = (world.connect(at(0)), world.connect(at(0)));
    let table = &mut world.table;
    let stream = table.get_mut(heard).unwrap();
    (stream.heard, stream.last_heard_micros) = (true, 5 * SECOND);
    assert_eq!(table.next_unheard(at(9)), None);
    assert_eq!(table.next_unheard(at(10)), Some(silent));
    assert!(table.remove(silent).is_some());
    assert_eq!((table.next_unheard(at(10)), table.next_idle(at(64))), (None, None));
    assert_eq!(table.next_idle(at(65)), Some(heard));
    table.get_mut(heard).unwrap().last_heard_micros = 30 * SECOND;
    assert!(!table.is_silent(at(65), heard));
    table.judge_again(at(65), heard);
    assert_eq!((table.next_idle(at(89)), table.next_idle(at(90))), (None, Some(heard)));
    assert!(table.is_silent(at(90), heard));
}

#[test]
fn who_does_not_read_is_judged_by_the_last_time_it_was_held_back() {
    let mut world = World::new();
    let id = world.connect(at(0));
    let table = &mut world.table;
    table.hold_back(at(1), id);
    table.hold_back(at(4), id);
    table.get_mut(id).unwrap().interest = Interest::Write;
    assert_eq!((table.next_unread(at(11)), table.next_unread(at(13))), (None, None));
    assert_eq!((table.next_unread(at(14)), table.next_unread(at(14))), (Some(id), None));
    table.hold_back(at(20), id);
    table.get_mut(id).unwrap().interest = Interest::ReadWrite;
    assert_eq!(table.next_unread(at(40)), None);
}

#[test]
fn after_a_peak_memory_is_given_back_and_no_old_id_means_a_new_connection() {
    let mut world = World::new();
    let ids: Vec<_> = (0..SLOTS_MIN).map(|_| world.connect(at(0))).collect();
    assert!(!world.table.shrink());
    for id in &ids {
        world.table.remove(*id);
    }
    assert!(world.table.shrink() && !world.table.shrink());
    let table = &world.table;
    assert_eq!((table.places.slots(), table.open()), (0, 0));
    assert_eq!((table.unheard.len(), table.strangers.len()), (0, 0));
    let new = world.connect(at(1));
    assert!(!ids.contains(&new) && ids.iter().all(|id| world.table.get(*id).is_none()));
}

#[test]
fn connections_that_come_and_go_leave_a_bounded_number_of_entries() {
    let mut world = World::new();
    for _ in 0..3 * STALE_MAX {
        let id = world.connect(at(0));
        world.table.remove(id);
        world.clients.clear();
    }
    assert!(world.table.unheard.len() <= STALE_MAX + 2, "{} entries", world.table.unheard.len());
    assert!(world.table.strangers.len() <= STALE_MAX + 2);
}

#[test]
fn a_connection_from_a_proxy_counts_for_the_client_of_its_header_and_no_two_have_the_same_ends() {
    let mut world = World::new();
    let mut arena = Arena::new(2, 1024);
    let limits = ConnectionLimits::new(10, Some(2), None);
    let mut arrive = |world: &mut World, line: &str| {
        let mut stream = TcpStream::connect(world.listener.local_addr().unwrap()).unwrap();
        let (socket, remote) = world.listener.accept().unwrap();
        socket.set_nonblocking(true).unwrap();
        let begun = Accepted::new(socket, remote).unwrap().begin(Opening::Messages, true).unwrap();
        let id = world.table.insert(at(0), begun, limits.admit_unknown().unwrap());
        stream.write_all(line.as_bytes()).unwrap();
        world.clients.push(stream);
        let (slot, cipher) = (arena.slot(0), arena.slot(1));
        loop {
            match world.table.go_on(at(0), id, |a| a.go_on(&mut arena, slot, cipher, 4096)) {
                Ok(None) => std::thread::yield_now(),
                Ok(Some(_)) => return Ok(id),
                Err(refused) => {
                    world.table.end(id, Ending::Close);
                    assert!(world.table.next_ended().is_some());
                    return Err(refused);
                }
            }
        }
    };
    let line = |port: u16| format!("PROXY TCP4 192.0.2.1 203.0.113.5 {port} 443\r\n");
    let first = arrive(&mut world, &line(1000)).unwrap();
    assert_eq!(world.table.get(first).unwrap().client.five_tuple.client.get(), "192.0.2.1:1000".parse().unwrap());
    assert!(matches!(arrive(&mut world, &line(1000)), Err(Refused::Taken)));
    let _second = arrive(&mut world, &line(1001)).unwrap();
    assert!(matches!(arrive(&mut world, &line(1002)), Err(Refused::Full(Full::OfAddress))));
    assert!(matches!(arrive(&mut world, "GET / HTTP/1.1"), Err(Refused::Read(_))));
    world.table.end(first, Ending::Close);
    assert!(world.table.next_ended().is_some());
    arrive(&mut world, &line(1000)).unwrap();
}

#[test]
fn of_connections_for_a_web_server_those_that_say_nothing_give_way_and_the_oldest_first() {
    let (mut world, limits) = (World::new(), ConnectionLimits::new(6, None, None));
    let web = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut pipes = Pipes::new(Descriptors::share_out(1 << 16, 0, 1000, 1000, Outward::default()));
    let ids: Vec<_> = (0..3)
        .map(|secs| {
            let id = world.connect_as(at(secs), &limits, Opening::Handshake(tls_configs().0));
            world.table.pass_on(at(secs), id, connect_stream(web.local_addr().unwrap()).unwrap()).unwrap();
            while !world.table.passed_mut(id).unwrap().passage.is_connected() {
                world.table.passed_mut(id).unwrap().passage.go_on(&mut pipes).unwrap();
            }
            id
        })
        .collect();
    assert!(limits.is_web_full());
    // The first one's client says something.
    world.clients[0].write_all(b"more").unwrap();
    let first = &mut world.table.passed_mut(ids[0]).unwrap().passage;
    while !first.has_spoken() {
        first.go_on(&mut pipes).unwrap();
    }
    assert_eq!(world.table.next_unheard(at(12)), None);
    for id in &ids {
        world.table.passed_mut(*id).unwrap().moved_micros = at(3).micros;
    }
    assert_eq!(world.table.silent_passage(at(12)), None, "none has been silent for long");
    world.table.passed_mut(ids[2]).unwrap().moved_micros = at(2).micros;
    let mut gives_way = |secs| {
        let id = world.table.silent_passage(at(secs))?;
        assert!(world.table.end(id, Ending::Close) && !limits.is_web_full());
        Some(id)
    };
    assert_eq!([gives_way(13), gives_way(13), gives_way(13)], [Some(ids[2]), Some(ids[1]), Some(ids[0])]);
    assert_eq!(gives_way(13), None);
}
