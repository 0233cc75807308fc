//! A worker's stream connections: their slots, the order in which they are read, and the times at which each is judged.

use std::collections::{HashSet, VecDeque};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use super::place::{Newcomer, Passed, Place, Refused, State, note_client};
use super::stream::{Ending, Stream};
use crate::clock::Now;
use crate::config::Streams;
use crate::net::Span;
use crate::net::sys::{Interest, Ready};
use crate::proxy::Ends;
use crate::stream::{Arrived, Arriving, ConnectionPermit, Full, Progress, ReadError};
use crate::turn::slots::{SlotId, Slots};
use crate::turn::{Client, Path, StreamId};
use crate::worker::peak::Peak;
use crate::worker::plan::Pieces;

/// Entries of connections that are gone, beyond which the queues of times are swept.
const STALE_MAX: usize = 1024;

/// How long nothing may go on to a web server and back before the connection is closed.
const PASSED_SILENT_MICROS: u64 = 600_000_000;

/// How long nothing may have gone before the connection gives way to another one for a web server, when there is no place; and of how
/// many the one is chosen.
const PASSED_GIVES_WAY_MICROS: u64 = 10_000_000;
const PASSED_CHOICE: usize = 256;

/// Places looked at for connections that hold an allocation, and how many of these, where some do.
const SAMPLED_MAX: usize = 256;
const ROUND_TRIPS_MAX: usize = 32;

/// Where a connection waits for its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::worker) enum Line {
    /// With an allocation.
    Allocated,
    /// Without one.
    Strangers,
    /// Without a client yet.
    Arriving,
    /// On to a web server.
    Passed,
}

/// Connections and the time at which each is judged, in that order.
type DueQueue = VecDeque<(u64, StreamId)>;

/// A worker's stream connections.
pub(super) struct StreamTable {
    places: Slots<Place>,
    /// The place that is looked at next where some of them do.
    sampled: u32,
    peak: Peak,
    /// The ends of those that came from proxies, which no two have.
    proxied: HashSet<Ends>,
    /// Those for which frames have been gathered.
    dirty: Vec<StreamId>,
    /// Those that are to be closed before the round is over.
    ended: VecDeque<StreamId>,
    /// Connections that wait for their turn, by [`Line`].
    waiting: [VecDeque<StreamId>; 4],
    /// In the order their first message is due, their silence is judged, their allocation is due, and their clients are to read.
    unheard: DueQueue,
    idle: DueQueue,
    strangers: DueQueue,
    held_back: DueQueue,
    /// In the order in which it is judged whether something still goes on to a web server.
    passed: DueQueue,
    handshake_micros: u64,
    idle_micros: u64,
    stranger_micros: u64,
}

impl StreamTable {
    pub(super) fn new(options: &Streams) -> Self {
        let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX >> 1);
        Self {
            places: Slots::default(),
            sampled: 0,
            peak: Peak::default(),
            proxied: HashSet::new(),
            dirty: Vec::new(),
            ended: VecDeque::new(),
            waiting: Default::default(),
            unheard: VecDeque::new(),
            idle: VecDeque::new(),
            strangers: VecDeque::new(),
            held_back: VecDeque::new(),
            passed: VecDeque::new(),
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
        let place = self.places.get_mut(slot(id)).filter(|place| !place.is_ending());
        let Some(place) = place else { return false };
        place.ending = Some(ending);
        place.permit = None;
        self.ended.push_back(id);
        true
    }

    /// Takes out the next connection that is to be closed.
    pub(super) fn next_ended(&mut self) -> Option<(State, Ending)> {
        let id = self.ended.pop_front()?;
        let Place { state, ending, .. } = self.remove(id)?;
        Some((state, ending?))
    }

    /// When the next connection may have to be closed.
    pub(super) fn next_timeout(&self) -> Option<u64> {
        let queues = [&self.unheard, &self.idle, &self.strangers, &self.held_back, &self.passed].map(VecDeque::front);
        queues.into_iter().flatten().map(|entry| entry.0).min()
    }

    pub(super) fn open(&self) -> usize {
        self.places.len()
    }

    /// The connection of an id, if it has a client.
    pub(super) fn get(&self, id: StreamId) -> Option<&Stream> {
        self.places.get(slot(id))?.stream()
    }

    /// The same, to change.
    pub(super) fn get_mut(&mut self, id: StreamId) -> Option<&mut Stream> {
        self.places.get_mut(slot(id))?.stream_mut()
    }

    /// The same, unless it is to be closed.
    pub(super) fn lasting_mut(&mut self, id: StreamId) -> Option<&mut Stream> {
        self.places.get_mut(slot(id)).filter(|place| !place.is_ending())?.stream_mut()
    }

    /// The socket of a connection, for epoll.
    pub(super) fn fd(&self, id: StreamId) -> Option<BorrowedFd<'_>> {
        self.places.get(slot(id)).map(Place::fd)
    }

    /// Some that hold an allocation: others each time, in turn.
    pub(super) fn next_holders(&mut self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let slots = self.places.slots();
        let first = if (self.sampled as usize) < slots { self.sampled } else { 0 };
        let looked_at = slots.min(SAMPLED_MAX) as u32;
        self.sampled = first + looked_at;
        let places = &self.places;
        let at = move |offset| places.at((first + offset) % (slots.max(1) as u32));
        (0..looked_at)
            .filter_map(at)
            .filter(|place| place.stream().is_some_and(|stream| stream.holds))
            .take(ROUND_TRIPS_MAX)
            .map(Place::fd)
    }

    pub(super) fn insert(&mut self, now: Now, accepted: Progress, permit: ConnectionPermit) -> StreamId {
        let SlotId { index, generation } = self.places.next_id();
        let id = StreamId { index, generation };
        let stranger_until_micros = now.micros + self.stranger_micros;
        let state = match accepted {
            Progress::Waits(arriving) | Progress::Known(arriving) | Progress::ForWeb(arriving) => {
                State::Arriving(Box::new(Newcomer::new(arriving)))
            }
            Progress::Arrived(arrived) => arrived_at(now, id, arrived, Interest::Read).0,
        };
        self.places.insert(Place::new(state, permit, stranger_until_micros));
        self.peak.note(self.open());
        self.unheard.push_back((now.micros + self.handshake_micros, id));
        self.strangers.push_back((stranger_until_micros, id));
        self.sweep();
        id
    }

    /// Lets a connection that arrives go on. When it has arrived, it keeps its id; returns what it has brought to be framed.
    ///
    /// # Errors
    /// The connection is to be closed.
    pub(super) fn go_on(
        &mut self,
        now: Now,
        id: StreamId,
        mut go_on: impl FnMut(Arriving) -> Result<Progress, (Arriving, ReadError)>,
    ) -> Result<Option<Span>, Refused> {
        let proxied = &mut self.proxied;
        let went_on = self.places.change(slot(id), |mut place| {
            if place.is_ending() {
                return (place, Ok(None));
            }
            let State::Arriving(newcomer) = place.state else { return (place, Ok(None)) };
            let Newcomer { arriving, interest } = *newcomer;
            let stays = |arriving| State::Arriving(Box::new(Newcomer { arriving, interest }));
            let mut progress = go_on(arriving).map_err(|(arriving, error)| (arriving, Refused::Read(error)));
            if let Ok(Progress::Known(arriving)) = progress {
                progress = match note_client(&mut place.permit, &mut place.proxied, arriving.ends(), proxied) {
                    Ok(()) => go_on(arriving).map_err(|(arriving, error)| (arriving, Refused::Read(error))),
                    Err(refused) => Err((arriving, refused)),
                };
            }
            let (state, result) = match progress {
                Ok(Progress::Waits(arriving) | Progress::Known(arriving) | Progress::ForWeb(arriving)) => {
                    (stays(arriving), Ok(None))
                }
                Ok(Progress::Arrived(arrived)) => {
                    let (state, read) = arrived_at(now, id, arrived, interest);
                    (state, Ok(Some(read)))
                }
                Err((arriving, error)) => (stays(arriving), Err(error)),
            };
            place.state = state;
            (place, result)
        });
        went_on.unwrap_or(Ok(None))
    }

    /// Has a connection that arrives go on to a web server, by a connection that is being made.
    ///
    /// # Errors
    /// When too many do.
    pub(super) fn pass_on(&mut self, now: Now, id: StreamId, web: OwnedFd) -> Result<(), Full> {
        let changed = self.places.change(slot(id), |mut place| {
            if let Err(full) = place.permit.as_mut().map_or(Ok(()), ConnectionPermit::pass_on) {
                return (place, Err(full));
            }
            if let State::Arriving(newcomer) = place.state {
                let passage = newcomer.arriving.pass_on(web);
                place.state = State::Passed(Box::new(Passed { passage, moved_micros: now.micros }));
            }
            (place, Ok(()))
        });
        changed.unwrap_or(Ok(()))
    }

    /// A connection that goes on to a web server, unless it is to be closed.
    pub(super) fn passed_mut(&mut self, id: StreamId) -> Option<&mut Passed> {
        match &mut self.places.get_mut(slot(id)).filter(|place| !place.is_ending())?.state {
            State::Passed(passed) => Some(passed),
            State::Arriving(_) | State::Arrived(_) => None,
        }
    }

    /// The next connection that goes on to a web server and by which nothing has gone for too long.
    pub(super) fn next_silent_passage(&mut self, now: Now) -> Option<StreamId> {
        while let Some(id) = take_due(&mut self.passed, now) {
            let Some(moved_micros) = self.passed_mut(id).map(|passed| passed.moved_micros) else { continue };
            let due = moved_micros + PASSED_SILENT_MICROS;
            if due <= now.micros {
                return Some(id);
            }
            self.passed.push_back((due, id));
        }
        None
    }

    /// The connection that goes on to a web server and gives way to another one: one whose client has sent nothing since its hello, or
    /// else another silent one, of each the one by which nothing has gone for longest, as far as has been looked.
    pub(super) fn silent_passage(&mut self, now: Now) -> Option<StreamId> {
        while let Some((_, id)) = self.passed.front().copied()
            && self.passed_mut(id).is_none()
        {
            self.passed.pop_front();
        }
        let looked_at: Vec<_> = self.passed.iter().take(PASSED_CHOICE).map(|(_, id)| *id).collect();
        let silent = looked_at.iter().enumerate().filter_map(|(index, id)| {
            let passed = self.passed_mut(*id)?;
            let is_silent = passed.moved_micros + PASSED_GIVES_WAY_MICROS <= now.micros;
            is_silent.then(|| (passed.passage.has_spoken(), passed.moved_micros, index, *id))
        });
        match silent.min_by_key(|(has_spoken, moved_micros, ..)| (*has_spoken, *moved_micros)) {
            Some((.., index, id)) => {
                self.passed.remove(index);
                Some(id)
            }
            None => {
                // The next time others are looked at.
                let looked_at =
                    self.passed.drain(..looked_at.len()).map(|(_, id)| (now.micros + PASSED_SILENT_MICROS, id));
                let looked_at: Vec<_> = looked_at.collect();
                self.passed.extend(looked_at);
                None
            }
        }
    }

    /// A connection that still arrives.
    pub(super) fn newcomer_mut(&mut self, id: StreamId) -> Option<&mut Newcomer> {
        match &mut self.places.get_mut(slot(id))?.state {
            State::Arriving(newcomer) => Some(newcomer),
            State::Arrived(_) | State::Passed(_) => None,
        }
    }

    pub(super) fn remove(&mut self, id: StreamId) -> Option<Place> {
        let place = self.places.remove(slot(id))?;
        if let Some(ends) = &place.proxied {
            self.proxied.remove(ends);
        }
        Some(place)
    }

    /// Takes all connections, at the end.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = State> {
        self.places.drain().map(|place| place.state)
    }

    /// Lets a connection wait for its turn; one that waits already keeps its place.
    pub(super) fn wait_for_turn(&mut self, id: StreamId, ready: Ready) {
        let Some(place) = self.places.get_mut(slot(id)) else { return };
        if let Some(waiting) = &mut place.waiting {
            waiting.readable |= ready.readable;
            waiting.writable |= ready.writable;
            waiting.error |= ready.error;
            return;
        }
        place.waiting = Some(ready);
        let line = match &place.state {
            State::Arriving(_) => Line::Arriving,
            State::Arrived(stream) if stream.holds => Line::Allocated,
            State::Arrived(_) => Line::Strangers,
            State::Passed(_) => Line::Passed,
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
        Some((id, self.places.get_mut(slot(id))?.waiting.take()?))
    }

    /// Notes that a connection has an allocation, or none any more.
    pub(super) fn set_holds(&mut self, now: Now, id: StreamId, holds: bool) {
        let due = now.micros + self.stranger_micros;
        let Some(place) = self.places.get_mut(slot(id)) else { return };
        let before = place.stream_mut().map(|stream| std::mem::replace(&mut stream.holds, holds));
        if before.is_none_or(|before| before == holds) {
            return;
        }
        if let Some(permit) = &mut place.permit {
            permit.set_holder(holds);
        }
        if !holds {
            place.stranger_until_micros = due;
            self.strangers.push_back((due, id));
        }
    }

    /// The next connection whose first message was due by now and has not come. Those that were heard are judged by their silence.
    pub(super) fn next_unheard(&mut self, now: Now) -> Option<StreamId> {
        while let Some(id) = take_due(&mut self.unheard, now) {
            let idle_micros = self.idle_micros;
            let Some(place) = self.places.get(slot(id)) else { continue };
            if let State::Passed(passed) = &place.state
                && passed.passage.is_connected()
            {
                self.passed.push_back((now.micros + PASSED_SILENT_MICROS, id));
                continue;
            }
            match place.stream().filter(|stream| stream.heard) {
                Some(stream) => {
                    let due = stream.last_heard_micros + idle_micros;
                    self.idle.push_back((due, id));
                }
                None => return Some(id),
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
            if self.places.get(slot(id)).is_some_and(|place| place.is_stranger_until(due)) {
                return Some(id);
            }
        }
        None
    }

    /// Gives memory back after a peak; whether there was one.
    pub(super) fn shrink(&mut self) -> bool {
        if !self.peak.is_over(self.places.slots(), self.open()) {
            return false;
        }
        self.places.shrink();
        self.dirty.shrink_to(STALE_MAX);
        self.proxied.shrink_to(STALE_MAX);
        self.waiting.iter_mut().for_each(|queue| queue.shrink_to(STALE_MAX));
        self.forget_closed();
        true
    }

    /// Entries of connections that are gone go when they are more than those of connections that are there.
    fn sweep(&mut self) {
        let most = STALE_MAX + 2 * self.open();
        let queues = [&self.unheard, &self.idle, &self.strangers, &self.held_back, &self.passed];
        if queues.iter().any(|queue| queue.len() > most) {
            self.forget_closed();
        }
    }

    fn forget_closed(&mut self) {
        let places = &self.places;
        let open = |id: StreamId| places.get(slot(id));
        self.unheard.retain(|(_, id)| open(*id).is_some());
        self.idle.retain(|(_, id)| open(*id).is_some());
        self.passed.retain(|(_, id)| open(*id).is_some());
        self.strangers.retain(|(due, id)| open(*id).is_some_and(|place| place.is_stranger_until(*due)));
        self.held_back.retain(|(due, id)| {
            open(*id).and_then(Place::stream).is_some_and(|stream| stream.held_until_micros == *due)
        });
        for queue in [&mut self.unheard, &mut self.idle, &mut self.strangers, &mut self.held_back, &mut self.passed] {
            queue.shrink_to(queue.len() + STALE_MAX);
        }
    }
}

/// Where the connection of an id is.
fn slot(StreamId { index, generation }: StreamId) -> SlotId {
    SlotId { index, generation }
}

/// A connection that has just arrived, and what it has brought to be framed.
fn arrived_at(now: Now, id: StreamId, arrived: Arrived, interest: Interest) -> (State, Span) {
    let Arrived { connection, five_tuple, read, realm, is_web_shared, .. } = arrived;
    let client = Client { five_tuple, path: Path::Stream(id), realm };
    let mut stream = Stream::new(now, connection, client, interest);
    stream.is_web_shared = is_web_shared;
    (State::Arrived(Box::new(stream)), read)
}

fn take_due(queue: &mut DueQueue, now: Now) -> Option<StreamId> {
    let (_, id) = *queue.front().filter(|(due, _)| *due <= now.micros)?;
    queue.pop_front();
    Some(id)
}

#[cfg(test)]
mod tests;
