//! A worker's DTLS sessions: which datagram is whose, the order in which handshakes go on, and when each session is judged.
//!
//! A client that begins anew from the same port keeps its open session until the new one's handshake is complete (RFC 6347 section
//! 4.2.8): nobody else can end it by a forged hello. So a 5-tuple may have an open session and one that arrives.

use std::cmp::Reverse;
use std::collections::hash_map::Entry;
use std::collections::{BinaryHeap, HashMap, VecDeque};

use super::session::{Arrival, Outcome, Session, Stage};
use crate::addr::FiveTuple;
use crate::clock::Now;
use crate::config::Streams;
use crate::dtls::hello::ClientHello;
use crate::dtls::record::{Purpose, purpose};
use crate::stream::ConnectionPermit;
use crate::turn::slots::{SlotId, Slots};
use crate::turn::{Client, Path, SessionId};

/// Sessions at once, beyond which their memory is given back when most of them are gone: one takes some 36 kB, one that arrives up to 100.
const PEAK_MIN: usize = 64;
/// Entries of sessions that are gone, beyond which the queues of times are swept.
const STALE_MAX: usize = 1024;

/// What became of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::worker) enum Taken {
    /// A session is open for it.
    Open(SessionId),
    /// It waits for the turn of a session that arrives.
    Waits,
    /// Nobody's.
    Unknown,
    /// It is no DTLS, or more than a session may be given.
    Refused,
}

/// The sessions of one 5-tuple; one of the two is there.
#[derive(Clone, Copy, Default)]
struct Pair {
    open: Option<SessionId>,
    arriving: Option<SessionId>,
}

/// What may be due of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Its handshake has not ended in time.
    Late,
    /// It is to be judged by its allocation and its silence.
    Judge,
}

pub(super) struct SessionTable {
    sessions: Slots<Session>,
    /// The most there were since memory was last given back.
    peak: usize,
    by_client: HashMap<FiveTuple, Pair>,
    /// Those that arrive and have something to go on with.
    waiting: VecDeque<SessionId>,
    /// Those whose handshake is under way, in the order in which they came; and some that are gone or open.
    arriving: VecDeque<SessionId>,
    /// Those that are to be closed before the round is over.
    ended: VecDeque<SessionId>,
    /// When each is looked at next. The entry that counts is the one whose time the session has, too.
    due: BinaryHeap<Reverse<(u64, u32, u32)>>,
    /// In the order in which their allocation is due.
    strangers: VecDeque<(u64, SessionId)>,
    handshake_micros: u64,
    idle_micros: u64,
    stranger_micros: u64,
}

impl SessionTable {
    pub(super) fn new(options: &Streams) -> Self {
        let micros = |duration: std::time::Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX >> 1);
        Self {
            sessions: Slots::default(),
            peak: 0,
            by_client: HashMap::new(),
            waiting: VecDeque::new(),
            arriving: VecDeque::new(),
            ended: VecDeque::new(),
            due: BinaryHeap::new(),
            strangers: VecDeque::new(),
            handshake_micros: micros(options.handshake_timeout),
            idle_micros: micros(options.idle_timeout),
            stranger_micros: micros(options.allocation_timeout),
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.sessions.len()
    }

    pub(super) fn get(&self, id: SessionId) -> Option<&Session> {
        self.sessions.get(slot(id))
    }

    pub(super) fn get_mut(&mut self, id: SessionId) -> Option<&mut Session> {
        self.sessions.get_mut(slot(id))
    }

    /// Whether a session is open and stays so.
    pub(super) fn is_open(&self, id: SessionId) -> bool {
        self.get(id).is_some_and(|session| !session.is_ending && matches!(session.stage, Stage::Open(_)))
    }

    /// Finds the session that a datagram without a hello is for. What is for one that arrives waits for its turn.
    pub(super) fn take(&mut self, five_tuple: &FiveTuple, datagram: &[u8]) -> Taken {
        let Some(pair) = self.by_client.get(five_tuple).copied() else { return Taken::Unknown };
        let Some(purpose) = purpose(datagram) else { return Taken::Refused };
        let id = match (purpose, pair) {
            (Purpose::Traffic, Pair { open: Some(id), .. }) => return self.open_or_unknown(id),
            // It has come before the end of the handshake; OpenSSL would keep it in a buffer of 16 kB.
            (Purpose::Traffic, Pair { open: None, .. }) => return Taken::Unknown,
            (Purpose::Handshake | Purpose::Finish, Pair { arriving: Some(id), .. }) => id,
            // The client has not heard the end of the handshake and repeats its part.
            (Purpose::Handshake | Purpose::Finish, Pair { open: Some(id), .. }) => return self.open_or_unknown(id),
            _ => return Taken::Unknown,
        };
        self.keep_for_turn(id, datagram)
    }

    /// Whether the hello that came with a good cookie is a copy of one that has made a session already. If that still arrives, it has
    /// its turn with it.
    pub(super) fn take_copy(
        &mut self,
        five_tuple: &FiveTuple,
        hello: &ClientHello<'_>,
        datagram: &[u8],
    ) -> Option<Taken> {
        let pair = *self.by_client.get(five_tuple)?;
        let is_of = |id: &SessionId| self.get(*id).is_some_and(|session| session.random == hello.random);
        if let Some(id) = pair.arriving.filter(is_of) {
            return Some(self.keep_for_turn(id, datagram));
        }
        pair.open.filter(is_of).map(|_| Taken::Refused)
    }

    /// A client has shown its cookie: its session begins when it has its turn. Another one of its that arrived is given up.
    pub(super) fn insert(
        &mut self,
        now: Now,
        client: Client,
        hello: (&ClientHello<'_>, &[u8]),
        mut permit: ConnectionPermit,
    ) {
        permit.set_shakes_hands(true);
        let SlotId { index, generation } = self.sessions.next_id();
        let id = SessionId { index, generation };
        let stranger_until_micros = now.micros + self.stranger_micros;
        let late_micros = now.micros + self.handshake_micros;
        let arrival = Arrival::new(hello.1, late_micros);
        let inside = Client { path: Path::Session(id), ..client };
        self.sessions.insert(Session {
            client: inside,
            way: client.path,
            random: hello.0.random,
            stage: Stage::Arriving(arrival),
            permit: Some(permit),
            is_ending: false,
            holds: false,
            last_heard_micros: now.micros,
            stranger_until_micros,
            armed_micros: u64::MAX,
        });
        self.peak = self.peak.max(self.len());
        let before = self.by_client.entry(client.five_tuple).or_default().arriving.replace(id);
        if let Some(before) = before {
            self.end(before);
        }
        self.waiting.push_back(id);
        self.arriving.push_back(id);
        self.arm(id, late_micros);
        self.strangers.push_back((stranger_until_micros, id));
        self.sweep();
    }

    /// How many wait for their turn.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The session that arrives whose turn it is, unless it is over.
    pub(super) fn next_turn(&mut self) -> Option<SessionId> {
        let id = self.waiting.pop_front()?;
        let session = self.get_mut(id).filter(|session| !session.is_ending)?;
        let Stage::Arriving(arrival) = &mut session.stage else { return None };
        arrival.is_waiting = false;
        Some(id)
    }

    /// Notes how the turn of a session that arrives has ended. One that is open takes the place of the one its client had before, which
    /// is returned: it is over, and so is what its client had by it.
    pub(super) fn had_turn(&mut self, now: Now, id: SessionId, outcome: Outcome) -> Option<SessionId> {
        match outcome {
            Outcome::Arriving => {
                let session = self.sessions.get_mut(slot(id)).filter(|session| !session.is_ending)?;
                let Stage::Arriving(arrival) = &mut session.stage else { return None };
                if arrival.has_datagram() && !std::mem::replace(&mut arrival.is_waiting, true) {
                    self.waiting.push_back(id);
                }
                let at = arrival.next_look_micros();
                self.arm(id, at);
                None
            }
            Outcome::Over => {
                self.end(id);
                None
            }
            Outcome::Open => {
                let (idle, handshake) = (self.idle_micros, self.handshake_micros);
                let session = self.get_mut(id)?;
                session.last_heard_micros = now.micros;
                session.permit.iter_mut().for_each(|permit| permit.set_shakes_hands(false));
                let (five_tuple, look) = (session.client.five_tuple, now.micros + idle.min(handshake));
                let pair = self.by_client.get_mut(&five_tuple)?;
                pair.arriving = pair.arriving.filter(|arriving| *arriving != id);
                let before = pair.open.replace(id);
                self.arm(id, look);
                before.inspect(|before| self.end(*before))
            }
        }
    }

    /// The session whose time may have come; `None` when there is none by now. One that arrives and has to send again waits for its turn.
    pub(super) fn next_due(&mut self, now: Now) -> Option<(SessionId, Due)> {
        while let Some(Reverse((at, index, generation))) = self.due.peek().copied() {
            if at > now.micros {
                return None;
            }
            self.due.pop();
            let id = SessionId { index, generation };
            let Some(session) = self.sessions.get_mut(slot(id)).filter(|session| !session.is_ending) else { continue };
            if session.armed_micros != at {
                continue;
            }
            session.armed_micros = u64::MAX;
            match &mut session.stage {
                Stage::Open(_) => return Some((id, Due::Judge)),
                Stage::Arriving(arrival) if arrival.late_micros <= now.micros => return Some((id, Due::Late)),
                Stage::Arriving(arrival) => {
                    if arrival.is_due(now) && !std::mem::replace(&mut arrival.is_waiting, true) {
                        self.waiting.push_back(id);
                    }
                    let at = arrival.next_look_micros().max(now.micros + 1);
                    self.arm(id, at);
                }
            }
        }
        None
    }

    /// What becomes of an open session that was due; whether it is to be closed, and whether that is for want of an allocation.
    pub(super) fn judge(&mut self, now: Now, id: SessionId, holds: bool) -> Option<bool> {
        self.set_holds(now, id, holds);
        let idle_micros = self.idle_micros;
        let session = self.get_mut(id)?;
        let silent_micros = session.last_heard_micros + idle_micros;
        let at = match holds {
            true => now.micros + idle_micros,
            false if session.stranger_until_micros <= now.micros => return Some(true),
            false if silent_micros <= now.micros => return Some(false),
            false => silent_micros.min(session.stranger_until_micros),
        };
        self.arm(id, at);
        None
    }

    /// Notes that a session has an allocation, or none any more.
    pub(super) fn set_holds(&mut self, now: Now, id: SessionId, holds: bool) {
        let until = now.micros + self.stranger_micros;
        let Some(session) = self.get_mut(id).filter(|session| session.holds != holds) else { return };
        session.holds = holds;
        if let Some(permit) = &mut session.permit {
            permit.set_holder(holds);
        }
        if !holds {
            session.stranger_until_micros = until;
            self.strangers.push_back((until, id));
        }
    }

    /// The session that has been without an allocation for longest, as far as is known. It is off the list: end it, or say that it holds
    /// one.
    pub(super) fn oldest_stranger(&mut self) -> Option<SessionId> {
        while let Some((until, id)) = self.strangers.pop_front() {
            if self.get(id).is_some_and(|session| session.is_stranger_until(until)) {
                return Some(id);
            }
        }
        None
    }

    /// The session whose handshake began before all others that are under way; it is off the list.
    pub(super) fn oldest_arriving(&mut self) -> Option<SessionId> {
        while let Some(id) = self.arriving.pop_front() {
            if self.get(id).is_some_and(Session::is_arriving) {
                return Some(id);
            }
        }
        None
    }

    /// Has a session closed before the round is over. Its place can be had at once.
    pub(super) fn end(&mut self, id: SessionId) {
        let Some(session) = self.get_mut(id).filter(|session| !session.is_ending) else { return };
        session.is_ending = true;
        session.permit = None;
        self.ended.push_back(id);
    }

    /// Takes out the next session that is to be closed, and whether it was the open one of its client.
    pub(super) fn next_ended(&mut self) -> Option<(Session, bool)> {
        let id = self.ended.pop_front()?;
        let session = self.sessions.remove(slot(id))?;
        let mut was_open = false;
        if let Entry::Occupied(mut entry) = self.by_client.entry(session.client.five_tuple) {
            let pair = entry.get_mut();
            was_open = pair.open == Some(id);
            pair.open = pair.open.filter(|open| *open != id);
            pair.arriving = pair.arriving.filter(|arriving| *arriving != id);
            if pair.open.is_none() && pair.arriving.is_none() {
                entry.remove();
            }
        }
        Some((session, was_open))
    }

    /// Takes all of them, at the end.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Session> {
        self.sessions.drain()
    }

    /// When [`Self::next_due`] has something.
    pub(super) fn next_timeout(&self) -> Option<u64> {
        self.due.peek().map(|Reverse((at, ..))| *at)
    }

    /// Gives memory back after a peak; whether there was one.
    pub(super) fn shrink(&mut self) -> bool {
        if self.peak < PEAK_MIN || self.len() > self.peak / 4 {
            return false;
        }
        self.peak = self.len();
        self.sessions.shrink();
        self.by_client.shrink_to_fit();
        self.waiting.shrink_to(STALE_MAX);
        self.forget_gone();
        true
    }

    fn open_or_unknown(&self, id: SessionId) -> Taken {
        match self.get(id) {
            Some(session) if !session.is_ending => Taken::Open(id),
            _ => Taken::Unknown,
        }
    }

    fn keep_for_turn(&mut self, id: SessionId, datagram: &[u8]) -> Taken {
        let Some(session) = self.sessions.get_mut(slot(id)).filter(|session| !session.is_ending) else {
            return Taken::Unknown;
        };
        let Stage::Arriving(arrival) = &mut session.stage else { return Taken::Unknown };
        if !arrival.keep(datagram) {
            return Taken::Refused;
        }
        if !std::mem::replace(&mut arrival.is_waiting, true) {
            self.waiting.push_back(id);
        }
        Taken::Waits
    }

    /// Has a session looked at by then; whoever looks finds out what is due.
    fn arm(&mut self, id: SessionId, at_micros: u64) {
        if let Some(session) = self.sessions.get_mut(slot(id)).filter(|session| at_micros < session.armed_micros) {
            session.armed_micros = at_micros;
            self.due.push(Reverse((at_micros, id.index, id.generation)));
        }
    }

    /// Entries of sessions that are gone go when they are more than those of sessions that are there.
    fn sweep(&mut self) {
        let most = STALE_MAX + 4 * self.len();
        if self.due.len() > most || self.strangers.len() > most || self.arriving.len() > most {
            self.forget_gone();
        }
    }

    fn forget_gone(&mut self) {
        let sessions = &self.sessions;
        let there = |id: SessionId| sessions.get(slot(id));
        self.strangers.retain(|(until, id)| there(*id).is_some_and(|session| session.is_stranger_until(*until)));
        self.due.retain(|Reverse((at, index, generation))| {
            let id = SessionId { index: *index, generation: *generation };
            there(id).is_some_and(|session| session.armed_micros == *at)
        });
        self.arriving.retain(|id| there(*id).is_some_and(Session::is_arriving));
        self.arriving.shrink_to(self.arriving.len() + STALE_MAX);
        self.due.shrink_to(self.due.len() + STALE_MAX);
        self.strangers.shrink_to(self.strangers.len() + STALE_MAX);
    }
}

/// Where the session of an id is.
fn slot(SessionId { index, generation }: SessionId) -> SlotId {
    SlotId { index, generation }
}
