//! Events that wait to be told: those of an allocation in their order, and those of users in turns, so that whoever makes allocations all
//! day delays nobody else's; nor do users on whom the application hangs.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::unanswered::{Of, Unanswered};
use crate::turn::AllocationId;
use crate::usage::Session;

/// Events that wait or are being told; what is beyond is dropped.
const EVENTS_MAX: usize = 16_384;
/// While more than half of the room is taken, one user may have so many.
const OF_USER_MAX: usize = EVENTS_MAX / 32;
/// What is older is of no use to who wants to know what is going on.
const AGE_MAX: Duration = Duration::from_secs(60);
/// Between one look for what is too old and the next, where there is no room.
const PURGE_INTERVAL: Duration = Duration::from_secs(1);

/// One thing to tell.
#[derive(Debug)]
pub(super) struct Event {
    pub(super) seq: u64,
    /// `None` is that the server has started.
    pub(super) session: Option<Box<Session>>,
    since: Instant,
    /// How often telling it has failed.
    pub(super) failures: u32,
    /// Whether it is being told as one of a user whose last one had no answer.
    is_of_unanswered: bool,
}

impl Event {
    pub(super) fn new(seq: u64, session: Option<Box<Session>>, now: Instant) -> Self {
        Self { seq, session, since: now, failures: 0, is_of_unanswered: false }
    }

    fn id(&self) -> Option<AllocationId> {
        self.session.as_ref().map(|session| session.id)
    }

    fn is_too_old(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= AGE_MAX
    }
}

fn user_of(event: &Event) -> Of {
    event.session.as_ref().map(|session| session.user.clone())
}

/// A user's events.
#[derive(Debug, Default)]
struct Lane {
    ready: VecDeque<Event>,
    /// How many there are, ready or not.
    all: usize,
    being_told: usize,
    /// It is among those whose turn comes.
    has_turn: bool,
}

/// Whose turn it is.
#[derive(Debug, Default)]
struct Turns {
    answered: VecDeque<Of>,
    /// Those whose last event had no answer.
    unanswered: VecDeque<Of>,
    /// The last one was of the first kind.
    was_answered: bool,
}

impl Turns {
    fn of(&mut self, is_unanswered: bool) -> &mut VecDeque<Of> {
        if is_unanswered { &mut self.unanswered } else { &mut self.answered }
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    lanes: HashMap<Of, Lane>,
    turns: Turns,
    unanswered: Unanswered,
    unanswered_being_told: usize,
    /// Told in vain, to be told again then.
    later: BTreeMap<(Instant, u64), Event>,
    /// Allocations with an event that is not told yet, and the one behind it.
    behind: HashMap<AllocationId, Option<Event>>,
    all: usize,
    too_old: u64,
    purged: Option<Instant>,
}

impl Waiting {
    /// How many there are, those included that are being told.
    pub(super) fn len(&self) -> usize {
        self.all
    }

    /// How many were dropped since the last time for being too old.
    pub(super) fn take_too_old(&mut self) -> u64 {
        std::mem::take(&mut self.too_old)
    }

    /// Adds one; false if there is no room for it.
    pub(super) fn push(&mut self, event: Event, now: Instant) -> bool {
        let of = user_of(&event);
        if !self.has_room(&of) && self.purged.is_none_or(|purged| now >= purged + PURGE_INTERVAL) {
            self.purged = Some(now);
            self.purge(now);
        }
        if !self.has_room(&of) {
            return false;
        }
        self.all += 1;
        self.lanes.entry(of).or_default().all += 1;
        match event.id() {
            Some(id) if self.behind.contains_key(&id) => {
                // An allocation starts once and stops once: there is none behind it yet.
                let earlier = self.behind.insert(id, Some(event)).flatten();
                earlier.into_iter().for_each(|earlier| self.forget(&earlier));
            }
            id => {
                id.into_iter().for_each(|id| drop(self.behind.insert(id, None)));
                self.make_ready(event, false);
            }
        }
        true
    }

    fn has_room(&self, of: &Of) -> bool {
        let of_user = self.lanes.get(of).map_or(0, |lane| lane.all);
        self.all < EVENTS_MAX && (self.all <= EVENTS_MAX / 2 || of_user < OF_USER_MAX)
    }

    /// The next one to be told, if there is any. Of as many as are told at once, one user has half at most, and so have all those together
    /// whose last one had no answer, and of these each has one.
    pub(super) fn next(&mut self, now: Instant, at_once: usize) -> Option<Event> {
        while self.later.first_key_value().is_some_and(|((at, _), _)| *at <= now) {
            let (_, event) = self.later.pop_first()?;
            self.make_ready(event, true);
        }
        while let Some(of) = self.unanswered.rested(now) {
            self.give_turn(of);
        }
        // They take turns; where there is but one place, nobody waits for one without an answer who would have one.
        let is_unanswered_first = at_once > 1 && self.turns.was_answered;
        let order = [is_unanswered_first, !is_unanswered_first];
        // Twice, because the first look may have put a turn into the queue where it belongs by now.
        order.into_iter().chain(order).find_map(|is_unanswered| {
            if is_unanswered && self.unanswered_being_told >= (at_once / 2).max(1) {
                return None;
            }
            let mut event = self.next_of(is_unanswered, now, at_once.div_ceil(2))?;
            event.is_of_unanswered = is_unanswered;
            self.unanswered_being_told += usize::from(is_unanswered);
            self.turns.was_answered = !is_unanswered;
            Some(event)
        })
    }

    fn next_of(&mut self, is_unanswered: bool, now: Instant, of_user_max: usize) -> Option<Event> {
        let most = if is_unanswered { 1 } else { of_user_max };
        while let Some(of) = self.turns.of(is_unanswered).pop_front() {
            let Some(lane) = self.lanes.get_mut(&of) else { continue };
            lane.has_turn = false;
            if self.unanswered.has(&of) != is_unanswered {
                self.give_turn(of);
                continue;
            }
            if lane.being_told >= most || self.unanswered.rests(&of) {
                // Its turn comes when one of these has been told, or when it has rested.
                continue;
            }
            let Some(event) = lane.ready.pop_front() else { continue };
            if event.is_too_old(now) {
                self.too_old += 1;
                self.done(&event);
                self.give_turn(of);
                continue;
            }
            lane.being_told += 1;
            self.give_turn(of);
            return Some(event);
        }
        None
    }

    /// When there may be a next one, if there is none now.
    pub(super) fn due(&self) -> Option<Instant> {
        let later = self.later.first_key_value().map(|((at, _), _)| *at);
        later.into_iter().chain(self.unanswered.due()).min()
    }

    /// One that was being told, and had an answer, is to be told again then.
    pub(super) fn put_back(&mut self, mut event: Event, at: Instant) {
        self.end_telling(&mut event, true);
        self.later.insert((at, event.seq), event);
    }

    /// One that was being told had no answer: it is told again when its user has rested. Returns whether the user's last one had an answer.
    pub(super) fn put_back_unanswered(&mut self, mut event: Event, now: Instant) -> bool {
        let is_first = self.unanswered.note(&user_of(&event), event.seq, now);
        self.end_telling(&mut event, false);
        self.make_ready(event, true);
        let lanes = &self.lanes;
        self.unanswered.sweep(now, |of| lanes.contains_key(of));
        is_first
    }

    /// One that was being told has been, or never will be.
    pub(super) fn told(&mut self, mut event: Event) {
        self.end_telling(&mut event, true);
        self.done(&event);
    }

    fn end_telling(&mut self, event: &mut Event, is_answered: bool) {
        let of = user_of(event);
        if std::mem::take(&mut event.is_of_unanswered) {
            self.unanswered_being_told = self.unanswered_being_told.saturating_sub(1);
        }
        if is_answered {
            self.unanswered.forget(&of);
        }
        if let Some(lane) = self.lanes.get_mut(&of) {
            lane.being_told = lane.being_told.saturating_sub(1);
        }
        self.give_turn(of);
    }

    /// Whatever has become of it, the one behind it is next.
    fn done(&mut self, event: &Event) {
        self.forget(event);
        let next = event.id().and_then(|id| match self.behind.get_mut(&id)?.take() {
            None => {
                self.behind.remove(&id);
                None
            }
            next => next,
        });
        next.into_iter().for_each(|next| self.make_ready(next, false));
    }

    fn forget(&mut self, event: &Event) {
        self.all = self.all.saturating_sub(1);
        let of = user_of(event);
        if let Some(lane) = self.lanes.get_mut(&of) {
            lane.all = lane.all.saturating_sub(1);
            if lane.all == 0 {
                self.lanes.remove(&of);
            }
        }
    }

    fn make_ready(&mut self, event: Event, is_first: bool) {
        let of = user_of(&event);
        if let Some(lane) = self.lanes.get_mut(&of) {
            match is_first {
                true => lane.ready.push_front(event),
                false => lane.ready.push_back(event),
            }
        }
        self.give_turn(of);
    }

    fn give_turn(&mut self, of: Of) {
        if let Some(lane) = self.lanes.get_mut(&of)
            && !lane.has_turn
            && !lane.ready.is_empty()
            && !self.unanswered.rests(&of)
        {
            lane.has_turn = true;
            self.turns.of(self.unanswered.has(&of)).push_back(of);
        }
    }

    /// Makes room: what is too old would be dropped in its turn, too.
    fn purge(&mut self, now: Instant) {
        let mut gone = Vec::new();
        for lane in self.lanes.values_mut() {
            while let Some(event) = lane.ready.pop_front_if(|event| event.is_too_old(now)) {
                gone.push(event);
            }
        }
        self.too_old += gone.len() as u64;
        gone.iter().for_each(|event| self.done(event));
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::addr::{ClientAddr, FiveTuple, Transport};
    use crate::traffic::Traffic;
    use crate::turn::{AllocationSummary, EndReason};
    use crate::user::User;

    pub(in super::super) fn session(user: &str, id: u64, is_start: bool) -> Box<Session> {
        let address = "127.0.0.1:3478".parse().unwrap();
        let five_tuple = FiveTuple { transport: Transport::Udp, client: ClientAddr::new(address), server: address };
        let id = AllocationId::new(0, id).unwrap();
        let at = SystemTime::now();
        if is_start {
            return Box::new(Session::start(at, id, five_tuple, (user.into(), User::fixed(user)), Vec::new()));
        }
        Box::new(Session::stop(
            at,
            &AllocationSummary {
                id,
                five_tuple,
                username: user.into(),
                user: User::fixed(user),
                is_frequent: false,
                relayed: Vec::new(),
                duration_micros: 1,
                to_peers: Traffic::default(),
                to_client: Traffic::default(),
                throttled: 0,
                reason: EndReason::Released,
            },
        ))
    }

    fn add(waiting: &mut Waiting, now: Instant, seq: u64, user: &str, id: u64, is_start: bool) -> bool {
        waiting.push(Event::new(seq, Some(session(user, id, is_start)), now), now)
    }

    fn is_empty(waiting: &Waiting) -> bool {
        let Waiting { lanes, turns, later, behind, all, unanswered_being_told: 0, .. } = waiting else { return false };
        lanes.is_empty()
            && turns.answered.is_empty()
            && turns.unanswered.is_empty()
            && later.is_empty()
            && behind.is_empty()
            && *all == 0
    }

    #[test]
    fn a_stop_waits_for_its_start_however_often_that_is_tried_and_nobody_elses_does() {
        let (mut waiting, now) = (Waiting::default(), Instant::now());
        add(&mut waiting, now, 1, "ann", 1, true);
        add(&mut waiting, now, 2, "ann", 1, false);
        add(&mut waiting, now, 3, "ann", 2, true);
        let first = waiting.next(now, 8).unwrap();
        assert_eq!(first.seq, 1);
        let other = waiting.next(now, 8).unwrap();
        assert_eq!(other.seq, 3);
        assert!(waiting.next(now, 8).is_none());
        waiting.told(other);
        for n in 1..5 {
            let again = if n == 1 { None } else { waiting.next(now + Duration::from_secs(n), 8) };
            let first = again.unwrap_or_else(|| Event::new(1, Some(session("ann", 1, true)), now));
            assert_eq!(first.seq, 1);
            waiting.put_back(first, now + Duration::from_secs(n + 1));
            assert!(waiting.next(now + Duration::from_secs(n), 8).is_none());
        }
        let last = waiting.next(now + Duration::from_secs(9), 8).unwrap();
        waiting.told(last);
        let stop = waiting.next(now + Duration::from_secs(9), 8).unwrap();
        assert_eq!(stop.seq, 2);
        waiting.told(stop);
        assert!(is_empty(&waiting), "{waiting:?}");
    }

    #[test]
    fn users_take_turns_and_one_has_no_more_than_its_share_of_the_room() {
        let (mut waiting, now) = (Waiting::default(), Instant::now());
        let mut seq = 0;
        let mut lost = 0;
        for id in 0..3 * EVENTS_MAX as u64 {
            seq += 1;
            lost += u64::from(!add(&mut waiting, now, seq, "flood", id, true));
        }
        assert_eq!(waiting.len(), EVENTS_MAX / 2 + 1);
        assert_eq!(lost, seq - waiting.len() as u64);
        for n in 0..100 {
            assert!(add(&mut waiting, now, seq + 1 + n, &format!("user {n}"), 1_000_000 + n, true));
        }
        let next =
            |waiting: &mut Waiting| waiting.next(now, usize::MAX).unwrap().session.unwrap().user.name().to_string();
        let first: Vec<_> = (0..101).map(|_| next(&mut waiting)).collect();
        assert_eq!(first.iter().filter(|user| *user == "flood").count(), 1, "{first:?}");
        // What is being told of one user is bounded, too.
        let second = waiting.next(now, 4).unwrap();
        assert!(waiting.next(now, 4).is_none());
        waiting.told(second);
        assert!(waiting.next(now, 4).is_some());
    }

    #[test]
    fn who_is_answered_again_is_told_of_everything() {
        let (mut waiting, mut now) = (Waiting::default(), Instant::now());
        for n in 0..6 {
            add(&mut waiting, now, n, "ann", n, true);
        }
        let first = waiting.next(now, 2).unwrap();
        assert!(waiting.put_back_unanswered(first, now));
        assert!(waiting.next(now, 2).is_none(), "it rests");
        now = waiting.due().unwrap();
        for n in 0..6 {
            let event = waiting.next(now, 2).unwrap_or_else(|| panic!("{n}: {waiting:?}"));
            assert!(waiting.next(now, 2).is_none(), "one at a time");
            waiting.told(event);
        }
        assert!(is_empty(&waiting), "{waiting:?}");
    }

    #[test]
    fn what_nobody_takes_for_a_minute_makes_room_for_what_happens_now() {
        let (mut waiting, now) = (Waiting::default(), Instant::now());
        for n in 0..EVENTS_MAX as u64 {
            assert!(add(&mut waiting, now, n, &format!("user {}", n % 1000), n, true));
        }
        assert!(!add(&mut waiting, now, 0, "late", 1_000_000, true));
        // Half of them have ended meanwhile.
        let later = now + AGE_MAX;
        assert!(add(&mut waiting, later, 7, "late", 1_000_000, true));
        assert!(add(&mut waiting, later, 8, "late", 1_000_000, false));
        assert_eq!((waiting.len(), waiting.take_too_old()), (2, EVENTS_MAX as u64));
        for seq in [7, 8] {
            let event = waiting.next(later, 1).unwrap();
            assert_eq!(event.seq, seq);
            assert!(waiting.next(later, 1).is_none());
            waiting.told(event);
        }
        assert!(is_empty(&waiting), "{waiting:?}");
        // One whose turn comes too late is not told, and the one behind it is.
        add(&mut waiting, now, 1, "ann", 1, true);
        add(&mut waiting, later, 2, "ann", 1, false);
        let event = waiting.next(later, 1).unwrap();
        assert_eq!((event.seq, waiting.take_too_old()), (2, 1));
        waiting.told(event);
        assert!(is_empty(&waiting), "{waiting:?}");
    }
}
