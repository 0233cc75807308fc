//! A worker's stream connections: their slots, the order in which they are read, and the times at which each is judged.

use std::collections::VecDeque;
use std::time::Duration;

use super::stream::{Ending, Stream};
use crate::addr::FiveTuple;
use crate::clock::Now;
use crate::config::Streams;
use crate::net::sys::Ready;
use crate::stream::{Connection, ConnectionPermit};
use crate::turn::slots::{SlotId, Slots};
use crate::turn::{Client, Path, StreamId};
use crate::worker::PEAK_MIN;
use crate::worker::plan::Pieces;

/// Entries of connections that are gone, beyond which the queues of times are swept.
const STALE_MAX: usize = 1024;

/// Where a connection waits for its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::worker) enum Line {
    /// With an allocation.
    Allocated,
    /// Without one.
    Strangers,
    /// Before the handshake is complete.
    Handshakes,
}

/// Connections and the time at which each is judged, in that order.
type DueQueue = VecDeque<(u64, StreamId)>;

/// A worker's stream connections.
pub(super) struct StreamTable {
    streams: Slots<Box<Stream>>,
    /// The most that were open since memory was last given back.
    peak: usize,
    /// Those for which frames have been gathered.
    dirty: Vec<StreamId>,
    /// Those that are to be closed before the round is over.
    ended: VecDeque<StreamId>,
    /// Connections that wait for their turn, by [`Line`].
    waiting: [VecDeque<StreamId>; 3],
    /// In the order their first message is due, their silence is judged, their allocation is due, and their clients are to read.
    unheard: DueQueue,
    idle: DueQueue,
    strangers: DueQueue,
    held_back: DueQueue,
    handshake_micros: u64,
    idle_micros: u64,
    stranger_micros: u64,
}

impl StreamTable {
    pub(super) fn new(options: &Streams) -> Self {
        let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX >> 1);
        Self {
            streams: Slots::default(),
            peak: 0,
            dirty: Vec::new(),
            ended: VecDeque::new(),
            waiting: Default::default(),
            unheard: VecDeque::new(),
            idle: VecDeque::new(),
            strangers: VecDeque::new(),
            held_back: VecDeque::new(),
            handshake_micros: micros(options.handshake_timeout),
            idle_micros: micros(options.idle_timeout),
            stranger_micros: micros(options.allocation_timeout),
        }
    }

    /// Queues a frame for a stream client; it is written when the batch is flushed.
    pub(super) fn queue_frame(&mut self, id: StreamId, frame: Pieces, droppable: bool) {
        let Some(stream) = self.get_mut(id) else { return };
        if stream.gather(frame, droppable) {
            self.dirty.push(id);
        }
    }

    /// Takes the list of connections for which frames have been gathered.
    pub(super) fn take_dirty(&mut self) -> Vec<StreamId> {
        std::mem::take(&mut self.dirty)
    }

    /// Gives the memory of that list back.
    pub(super) fn give_dirty_back(&mut self, dirty: Vec<StreamId>) {
        if self.dirty.is_empty() {
            self.dirty = dirty;
        }
    }

    /// Has a connection closed before the round is over; whether that is new. What is gathered for it is sent first. Its place can be
    /// had at once.
    pub(super) fn end(&mut self, id: StreamId, ending: Ending) -> bool {
        let Some(stream) = self.get_mut(id).filter(|stream| !stream.is_ending()) else { return false };
        stream.ending = Some(ending);
        stream.permit = None;
        self.ended.push_back(id);
        true
    }

    /// Takes out the next connection that is to be closed.
    pub(super) fn next_ended(&mut self) -> Option<(Box<Stream>, Ending)> {
        let id = self.ended.pop_front()?;
        let stream = self.remove(id)?;
        let ending = stream.ending?;
        Some((stream, ending))
    }

    /// When the next connection may have to be closed.
    pub(super) fn next_timeout(&self) -> Option<u64> {
        let queues = [self.unheard.front(), self.idle.front(), self.strangers.front(), self.held_back.front()];
        queues.into_iter().flatten().map(|entry| entry.0).min()
    }

    pub(super) fn open(&self) -> usize {
        self.streams.len()
    }

    pub(super) fn get(&self, id: StreamId) -> Option<&Stream> {
        self.streams.get(slot(id)).map(Box::as_ref)
    }

    pub(super) fn get_mut(&mut self, id: StreamId) -> Option<&mut Stream> {
        self.streams.get_mut(slot(id)).map(Box::as_mut)
    }

    pub(super) fn insert(
        &mut self,
        now: Now,
        connection: Connection,
        five_tuple: FiveTuple,
        permit: ConnectionPermit,
    ) -> StreamId {
        let SlotId { index, generation } = self.streams.next_id();
        let id = StreamId { index, generation };
        let stranger_until_micros = now.micros + self.stranger_micros;
        let client = Client { five_tuple, path: Path::Stream(id) };
        self.streams.insert(Box::new(Stream::new(now, connection, client, permit, stranger_until_micros)));
        self.peak = self.peak.max(self.open());
        self.unheard.push_back((now.micros + self.handshake_micros, id));
        self.strangers.push_back((stranger_until_micros, id));
        self.sweep();
        id
    }

    pub(super) fn remove(&mut self, id: StreamId) -> Option<Box<Stream>> {
        self.streams.remove(slot(id))
    }

    /// Takes all connections, at the end.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Box<Stream>> {
        self.streams.drain()
    }

    /// Lets a connection wait for its turn; one that waits already keeps its place.
    pub(super) fn wait_for_turn(&mut self, id: StreamId, ready: Ready) {
        let Some(stream) = self.get_mut(id) else { return };
        if let Some(waiting) = &mut stream.waiting {
            waiting.readable |= ready.readable;
            waiting.writable |= ready.writable;
            waiting.error |= ready.error;
            return;
        }
        stream.waiting = Some(ready);
        let line = match (stream.connection.established(), stream.holds) {
            (false, _) => Line::Handshakes,
            (true, false) => Line::Strangers,
            (true, true) => Line::Allocated,
        };
        if let Some(queue) = self.waiting.get_mut(line as usize) {
            queue.push_back(id);
        }
    }

    /// Whether a connection waits for its turn.
    pub(super) fn has_waiting(&self) -> bool {
        self.waiting.iter().any(|queue| !queue.is_empty())
    }

    /// How many wait for their turn in a line.
    pub(super) fn waiting(&self, line: Line) -> usize {
        self.waiting.get(line as usize).map_or(0, VecDeque::len)
    }

    /// The connection of a line whose turn it is, unless it has been closed meanwhile.
    pub(super) fn next_turn(&mut self, line: Line) -> Option<(StreamId, Ready)> {
        let id = self.waiting.get_mut(line as usize)?.pop_front()?;
        Some((id, self.get_mut(id)?.waiting.take()?))
    }

    /// Notes that a connection has an allocation, or none any more.
    pub(super) fn set_holds(&mut self, now: Now, id: StreamId, holds: bool) {
        let due = now.micros + self.stranger_micros;
        let Some(stream) = self.get_mut(id) else { return };
        if std::mem::replace(&mut stream.holds, holds) == holds {
            return;
        }
        if let Some(permit) = &mut stream.permit {
            permit.set_holder(holds);
        }
        if !holds {
            stream.stranger_until_micros = due;
            self.strangers.push_back((due, id));
        }
    }

    /// The next connection whose first message was due by now and has not come. Those that were heard are judged by their silence.
    pub(super) fn next_unheard(&mut self, now: Now) -> Option<StreamId> {
        while let Some(id) = take_due(&mut self.unheard, now) {
            let idle_micros = self.idle_micros;
            match self.get(id) {
                Some(stream) if stream.heard => {
                    let due = stream.last_heard_micros + idle_micros;
                    self.idle.push_back((due, id));
                }
                Some(_) => return Some(id),
                None => {}
            }
        }
        None
    }

    /// The next connection that may have been silent for too long; [`Self::judge_again`] or remove it.
    pub(super) fn next_idle(&mut self, now: Now) -> Option<StreamId> {
        while let Some(id) = take_due(&mut self.idle, now) {
            if self.get(id).is_some() {
                return Some(id);
            }
        }
        None
    }

    /// Whether a connection of [`Self::next_idle`] has been silent for too long.
    pub(super) fn is_silent(&self, now: Now, id: StreamId) -> bool {
        self.get(id).is_some_and(|stream| stream.last_heard_micros + self.idle_micros <= now.micros)
    }

    /// Has the silence of a connection judged again in time.
    pub(super) fn judge_again(&mut self, now: Now, id: StreamId) {
        let Some(stream) = self.get(id) else { return };
        let since = if stream.holds { now.micros } else { stream.last_heard_micros };
        self.idle.push_back((since + self.idle_micros, id));
    }

    /// Notes that a connection is not read from now on, because its client does not read.
    pub(super) fn hold_back(&mut self, now: Now, id: StreamId) {
        let due = now.micros + self.handshake_micros;
        if let Some(stream) = self.get_mut(id) {
            stream.held_until_micros = due;
            self.held_back.push_back((due, id));
        }
    }

    /// The next connection whose client has not read for too long. What comes from such a client waits in the kernel meanwhile.
    pub(super) fn next_unread(&mut self, now: Now) -> Option<StreamId> {
        while let Some((due, id)) = self.held_back.front().copied().filter(|(due, _)| *due <= now.micros) {
            self.held_back.pop_front();
            if self.get(id).is_some_and(|stream| stream.is_held_back() && stream.held_until_micros == due) {
                return Some(id);
            }
        }
        None
    }

    /// The connection that has been without an allocation for longest, as far as is known; with `now`, only if its time is over. It
    /// is off the list: close it, or say that it holds one.
    pub(super) fn oldest_stranger(&mut self, now: Option<Now>) -> Option<StreamId> {
        while let Some((due, id)) = self.strangers.front().copied() {
            if now.is_some_and(|now| due > now.micros) {
                break;
            }
            self.strangers.pop_front();
            if self.get(id).is_some_and(|stream| stream.is_stranger_until(due)) {
                return Some(id);
            }
        }
        None
    }

    /// Gives memory back after a peak; whether there was one.
    pub(super) fn shrink(&mut self) -> bool {
        let open = self.open();
        if self.streams.slots() < PEAK_MIN || open > self.peak / 4 || open == self.peak {
            return false;
        }
        self.peak = open;
        self.streams.shrink();
        self.dirty.shrink_to(STALE_MAX);
        self.waiting.iter_mut().for_each(|queue| queue.shrink_to(STALE_MAX));
        self.forget_closed();
        true
    }

    /// Entries of connections that are gone go when they are more than those of connections that are there.
    fn sweep(&mut self) {
        let most = STALE_MAX + 2 * self.open();
        let queues = [&self.unheard, &self.idle, &self.strangers, &self.held_back];
        if queues.iter().any(|queue| queue.len() > most) {
            self.forget_closed();
        }
    }

    fn forget_closed(&mut self) {
        let streams = &self.streams;
        let open = |id: StreamId| streams.get(slot(id));
        self.unheard.retain(|(_, id)| open(*id).is_some());
        self.idle.retain(|(_, id)| open(*id).is_some());
        self.strangers.retain(|(due, id)| open(*id).is_some_and(|stream| stream.is_stranger_until(*due)));
        self.held_back.retain(|(due, id)| open(*id).is_some_and(|stream| stream.held_until_micros == *due));
        for queue in [&mut self.unheard, &mut self.idle, &mut self.strangers, &mut self.held_back] {
            queue.shrink_to(queue.len() + STALE_MAX);
        }
    }
}

/// Where the connection of an id is.
fn slot(StreamId { index, generation }: StreamId) -> SlotId {
    SlotId { index, generation }
}

fn take_due(queue: &mut DueQueue, now: Now) -> Option<StreamId> {
    let (_, id) = *queue.front().filter(|(due, _)| *due <= now.micros)?;
    queue.pop_front();
    Some(id)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::sync::Arc;

    use super::*;
    use crate::addr::{ClientAddr, Transport};
    use crate::net::sys::Interest;
    use crate::stream::ConnectionLimits;

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
            let server = self.listener.local_addr().unwrap();
            self.clients.push(TcpStream::connect(server).unwrap());
            let (socket, client) = self.listener.accept().unwrap();
            let permit = limits.admit(client.ip()).unwrap();
            let five_tuple = FiveTuple { transport: Transport::Tcp, client: ClientAddr::new(client), server };
            self.table.insert(now, Connection::new(socket, None).unwrap(), five_tuple, permit)
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
        assert_eq!([Line::Strangers, Line::Handshakes].map(|line| table.waiting(line)), [3, 0]);
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
        let ended = table.next_ended().map(|(stream, ending)| (stream.client.path, ending));
        assert_eq!(ended, Some((Path::Stream(first), Ending::Reset)));
        assert!(table.next_ended().is_none() && !table.end(first, Ending::Close));
        assert_eq!(table.open(), 1);
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
        let ids: Vec<_> = (0..PEAK_MIN).map(|_| world.connect(at(0))).collect();
        assert!(!world.table.shrink());
        for id in &ids {
            world.table.remove(*id);
        }
        assert!(world.table.shrink() && !world.table.shrink());
        let table = &world.table;
        assert_eq!((table.streams.slots(), table.open()), (0, 0));
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
}
