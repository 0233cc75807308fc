//! Events that wait to be told: those of an allocation in their order, and those of users in turns, so that whoever makes allocations all
//! day delays nobody else's; nor do users on whom the application hangs, however many of them are new.
//!
//! Of a user whose last event had an answer, one expects another answer. All others are told one event at a time, each network's in turn, and
//! as long as there is one without an answer, they have half of the places and half of the room.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use super::silence::Whose;
use super::turns::{ByNetwork, Known, network};
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
    /// Whether it is being told as one of a user who is not known to be answered.
    is_of_others: bool,
}

impl Event {
    pub(super) fn new(seq: u64, session: Option<Box<Session>>, now: Instant) -> Self {
        Self { seq, session, since: now, failures: 0, is_of_others: false }
    }

    fn id(&self) -> Option<AllocationId> {
        self.session.as_ref().map(|session| session.id)
    }

    fn network(&self) -> IpAddr {
        let client = self.session.as_ref().map(|session| session.client().get().ip());
        client.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), network)
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
    /// The user's last event had an answer.
    is_known: bool,
    /// It is among those whose turn comes. While one of a user who is not known is being told, it never is.
    has_turn: bool,
}

/// Whose turn it is.
#[derive(Debug, Default)]
struct Turns {
    known: VecDeque<Of>,
    others: ByNetwork<Of>,
    /// The last one was of the first kind.
    was_known: bool,
}

impl Turns {
    fn pop(&mut self, is_known: bool) -> Option<Of> {
        if is_known { self.known.pop_front() } else { self.others.pop(|_| true) }
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    lanes: HashMap<Of, Lane>,
    turns: Turns,
    known: Known<Of>,
    unanswered: Unanswered,
    others_being_told: usize,
    /// Told in vain, to be told again then.
    later: BTreeMap<(Instant, u64), Event>,
    /// Allocations with an event that is not told yet, and the one behind it.
    behind: HashMap<AllocationId, Option<Event>>,
    all: usize,
    /// Those of users who are not known.
    of_others: usize,
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
        let known = &self.known;
        let lane = self.lanes.entry(of).or_insert_with_key(|of| Lane { is_known: known.has(of), ..Lane::default() });
        lane.all += 1;
        self.of_others += usize::from(!lane.is_known);
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
        let (of_user, is_known) =
            self.lanes.get(of).map_or_else(|| (0, self.known.has(of)), |lane| (lane.all, lane.is_known));
        self.all < EVENTS_MAX
            && (self.all <= EVENTS_MAX / 2 || of_user < OF_USER_MAX)
            && (is_known || self.of_others < self.others_most(EVENTS_MAX))
    }

    /// How many of so many may be of users who are not known.
    fn others_most(&self, all: usize) -> usize {
        if self.unanswered.is_empty() { all } else { (all / 2).max(1) }
    }

    /// The next one to be told, if there is any. Of as many as are told at once, one user has half at most.
    pub(super) fn next(&mut self, now: Instant, at_once: usize, only_known: bool) -> Option<Event> {
        while self.later.first_key_value().is_some_and(|((at, _), _)| *at <= now) {
            let (_, event) = self.later.pop_first()?;
            self.make_ready(event, true);
        }
        while let Some(of) = self.unanswered.rested(now) {
            self.give_turn(of);
        }
        // They take turns; where there is but one place, nobody waits for one without an answer who would have one.
        let may_wait = at_once > 1 || self.unanswered.is_empty();
        let is_known_first = !(self.turns.was_known && may_wait);
        let order = [is_known_first, !is_known_first];
        // Twice, because the first look may have put a turn into the queue where it belongs by now.
        order.into_iter().chain(order).find_map(|is_known| {
            if !is_known && (only_known || self.others_being_told >= self.others_most(at_once)) {
                return None;
            }
            let mut event = self.next_of(is_known, now, at_once.div_ceil(2))?;
            event.is_of_others = !is_known;
            self.others_being_told += usize::from(!is_known);
            self.turns.was_known = is_known;
            Some(event)
        })
    }

    fn next_of(&mut self, is_known: bool, now: Instant, of_user_max: usize) -> Option<Event> {
        while let Some(of) = self.turns.pop(is_known) {
            let Some(lane) = self.lanes.get_mut(&of) else { continue };
            lane.has_turn = false;
            if lane.is_known != is_known {
                self.give_turn(of);
                continue;
            }
            if lane.being_told >= of_user_max || self.unanswered.rests(&of) {
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

    /// One that was being told had no answer: it is told again when its user has rested. Returns whose it was.
    pub(super) fn put_back_unanswered(&mut self, mut event: Event, now: Instant) -> Whose {
        let of = user_of(&event);
        let is_first = self.unanswered.note(&of, event.seq, now);
        let was_known = self.known.has(&of);
        self.end_telling(&mut event, false);
        self.make_ready(event, true);
        self.sweep(now);
        match (was_known, is_first) {
            (true, _) => Whose::OfKnown,
            (false, true) => Whose::OfNew,
            (false, false) => Whose::Again,
        }
    }

    /// One that was being told has been, or never will be.
    pub(super) fn told(&mut self, mut event: Event, now: Instant) {
        self.end_telling(&mut event, true);
        self.done(&event);
        self.sweep(now);
    }

    fn sweep(&mut self, now: Instant) {
        let lanes = &self.lanes;
        self.unanswered.sweep(now, |of| lanes.contains_key(of));
    }

    fn end_telling(&mut self, event: &mut Event, is_answered: bool) {
        let of = user_of(event);
        if std::mem::take(&mut event.is_of_others) {
            self.others_being_told = self.others_being_told.saturating_sub(1);
        }
        match is_answered {
            true => {
                self.unanswered.forget(&of);
                self.known.note(of.clone());
            }
            false => {
                self.known.forget(&of);
            }
        }
        if let Some(lane) = self.lanes.get_mut(&of) {
            lane.being_told = lane.being_told.saturating_sub(1);
            match (std::mem::replace(&mut lane.is_known, is_answered), is_answered) {
                (false, true) => self.of_others = self.of_others.saturating_sub(lane.all),
                (true, false) => self.of_others += lane.all,
                _ => {}
            }
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
            self.of_others = self.of_others.saturating_sub(usize::from(!lane.is_known));
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
        let Some(lane) = self.lanes.get_mut(&of) else { return };
        let Some(first) = lane.ready.front() else { return };
        if lane.has_turn || self.unanswered.rests(&of) || (!lane.is_known && lane.being_told > 0) {
            return;
        }
        lane.has_turn = true;
        match lane.is_known {
            true => self.turns.known.push_back(of),
            false => self.turns.others.push(first.network(), of),
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
        session_from("127.0.0.1:3478", user, id, is_start)
    }

    fn session_from(client: &str, user: &str, id: u64, is_start: bool) -> Box<Session> {
        let address = client.parse().unwrap();
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

    fn next(waiting: &mut Waiting, now: Instant, at_once: usize) -> Option<Event> {
        waiting.next(now, at_once, false)
    }

    /// One event of each of these has been answered.
    fn knowing<'u>(users: impl IntoIterator<Item = &'u str>, now: Instant) -> Waiting {
        let mut waiting = Waiting::default();
        for (n, user) in (0..).zip(users) {
            assert!(add(&mut waiting, now, n, user, 9_000_000 + n, true));
            let event = next(&mut waiting, now, 8).unwrap();
            waiting.told(event, now);
        }
        assert!(is_empty(&waiting));
        waiting
    }

    fn is_empty(waiting: &Waiting) -> bool {
        let Waiting { lanes, turns, later, behind, all, of_others: 0, others_being_told: 0, .. } = waiting else {
            return false;
        };
        lanes.is_empty()
            && turns.known.is_empty()
            && turns.others.is_empty()
            && later.is_empty()
            && behind.is_empty()
            && *all == 0
    }

    #[test]
    fn a_stop_waits_for_its_start_however_often_that_is_tried_and_nobody_elses_does() {
        let now = Instant::now();
        let mut waiting = knowing(["ann"], now);
        add(&mut waiting, now, 1, "ann", 1, true);
        add(&mut waiting, now, 2, "ann", 1, false);
        add(&mut waiting, now, 3, "ann", 2, true);
        let first = next(&mut waiting, now, 8).unwrap();
        assert_eq!(first.seq, 1);
        let other = next(&mut waiting, now, 8).unwrap();
        assert_eq!(other.seq, 3);
        assert!(next(&mut waiting, now, 8).is_none());
        waiting.told(other, now);
        for n in 1..5 {
            let again = if n == 1 { None } else { next(&mut waiting, now + Duration::from_secs(n), 8) };
            let first = again.unwrap_or_else(|| Event::new(1, Some(session("ann", 1, true)), now));
            assert_eq!(first.seq, 1);
            waiting.put_back(first, now + Duration::from_secs(n + 1));
            assert!(next(&mut waiting, now + Duration::from_secs(n), 8).is_none());
        }
        let last = next(&mut waiting, now + Duration::from_secs(9), 8).unwrap();
        waiting.told(last, now);
        let stop = next(&mut waiting, now + Duration::from_secs(9), 8).unwrap();
        assert_eq!(stop.seq, 2);
        waiting.told(stop, now);
        assert!(is_empty(&waiting), "{waiting:?}");
    }

    #[test]
    fn users_take_turns_and_one_has_no_more_than_its_share_of_the_room() {
        let now = Instant::now();
        let mut waiting = knowing(["flood"], now);
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
        let mut first: Vec<_> = (0..20).map(|_| next(&mut waiting, now, usize::MAX).unwrap()).collect();
        let of_flood = |event: &Event| &**event.session.as_ref().unwrap().user.name() == "flood";
        assert_eq!(
            first.iter().filter(|event| of_flood(event)).count(),
            10,
            "those who are known, and all others, in turns"
        );
        first.drain(..).for_each(|event| waiting.told(event, now));
        let first: Vec<_> = (0..180).map(|_| next(&mut waiting, now, usize::MAX).unwrap()).collect();
        assert!(first.iter().filter(|event| of_flood(event)).count() == 90, "{first:?}");
        first.into_iter().for_each(|event| waiting.told(event, now));
        // What is being told of one user is bounded, too.
        let [second, _third] = [(); 2].map(|()| next(&mut waiting, now, 4).unwrap());
        assert!(next(&mut waiting, now, 4).is_none());
        waiting.told(second, now);
        assert!(next(&mut waiting, now, 4).is_some());
    }

    #[test]
    fn new_users_without_an_answer_leave_half_of_the_places_and_of_the_room_and_their_networks_take_turns() {
        let now = Instant::now();
        let mut waiting = knowing(["ann"], now);
        let crowd = |waiting: &mut Waiting, n: u64, now| {
            let session = session_from("192.0.2.7:3478", &format!("guest {n}"), n, true);
            waiting.push(Event::new(n, Some(session), now), now)
        };
        (1..=20).for_each(|n| assert!(crowd(&mut waiting, n, now)));
        // Nobody knows yet that there is no answer: they have all places.
        let hangs: Vec<_> = (0..8).map(|_| next(&mut waiting, now, 8).unwrap()).collect();
        let whose: Vec<_> = hangs.into_iter().map(|event| waiting.put_back_unanswered(event, now)).collect();
        assert_eq!(whose, [Whose::OfNew; 8]);
        let now = now + Duration::from_secs(2);
        let mut n = 100;
        while crowd(&mut waiting, n, now) {
            n += 1;
        }
        assert_eq!(waiting.len(), EVENTS_MAX / 2);
        assert!(waiting.next(now, 8, true).is_none(), "none of them while only those who are known are tried");
        let mut told = Vec::new();
        for _ in 0..20 {
            told.extend(next(&mut waiting, now, 8));
        }
        assert_eq!(told.len(), 4);
        for n in 0..6 {
            assert!(add(&mut waiting, now, 50_000 + n, "ann", 50_000 + n, true), "there is room for who is known");
        }
        let of_ann: Vec<_> = (0..20).map_while(|_| waiting.next(now, 8, true)).collect();
        assert_eq!(of_ann.len(), 4, "half of the places for one user");
        of_ann.into_iter().for_each(|event| waiting.told(event, now));
        while let Some(event) = waiting.next(now, 8, true) {
            waiting.told(event, now);
        }
        // Somebody new of another network is next, and is known as soon as there is an answer.
        let session = session_from("[2001:db8::7]:3478", "bob", 60_000, true);
        waiting.told(told.pop().unwrap(), now);
        let mut room = EVENTS_MAX;
        assert!(waiting.push(Event::new(60_000, Some(session), now), now));
        waiting.told(told.pop().unwrap(), now);
        let next_two: Vec<_> = (0..2).map(|_| next(&mut waiting, now, 8).unwrap()).collect();
        assert!(next_two.iter().any(|event| event.seq == 60_000), "{next_two:?}");
        for event in next_two {
            waiting.told(event, now);
        }
        while add(&mut waiting, now, 70_000, "bob", 70_000 + room as u64, true) {
            room += 1;
        }
        assert!(waiting.len() > EVENTS_MAX / 2);
    }

    #[test]
    fn who_is_answered_and_then_no_more_is_as_everybody_else_until_the_next_answer() {
        let now = Instant::now();
        let mut waiting = knowing(["ann"], now);
        (0..4).for_each(|n| assert!(add(&mut waiting, now, n, "ann", n, true)));
        let [one, two] = [(); 2].map(|()| waiting.next(now, 4, true).unwrap());
        assert_eq!(waiting.put_back_unanswered(one, now), Whose::OfKnown);
        assert_eq!(waiting.put_back_unanswered(two, now), Whose::Again);
        let later = waiting.due().unwrap();
        assert!(waiting.next(later, 4, true).is_none());
        let again = next(&mut waiting, later, 4).unwrap();
        assert!(next(&mut waiting, later, 4).is_none(), "one at a time");
        waiting.told(again, later);
        let both = [(); 2].map(|()| waiting.next(later, 4, true).unwrap());
        both.into_iter().for_each(|event| waiting.told(event, later));
        let last = next(&mut waiting, later, 4).unwrap();
        waiting.told(last, later);
        assert!(is_empty(&waiting), "{waiting:?}");
    }

    #[test]
    fn who_is_answered_again_is_told_of_everything() {
        let (mut waiting, mut now) = (Waiting::default(), Instant::now());
        for n in 0..6 {
            add(&mut waiting, now, n, "ann", n, true);
        }
        let first = next(&mut waiting, now, 2).unwrap();
        assert_eq!(waiting.put_back_unanswered(first, now), Whose::OfNew);
        assert!(next(&mut waiting, now, 2).is_none(), "it rests");
        now = waiting.due().unwrap();
        for n in 0..6 {
            let event = next(&mut waiting, now, 2).unwrap_or_else(|| panic!("{n}: {waiting:?}"));
            assert!(next(&mut waiting, now, 2).is_none(), "one at a time");
            waiting.told(event, now);
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
            let event = next(&mut waiting, later, 1).unwrap();
            assert_eq!(event.seq, seq);
            assert!(next(&mut waiting, later, 1).is_none());
            waiting.told(event, now);
        }
        assert!(is_empty(&waiting), "{waiting:?}");
        // One whose turn comes too late is not told, and the one behind it is.
        add(&mut waiting, now, 1, "ann", 1, true);
        add(&mut waiting, later, 2, "ann", 1, false);
        let event = next(&mut waiting, later, 1).unwrap();
        assert_eq!((event.seq, waiting.take_too_old()), (2, 1));
        waiting.told(event, now);
        assert!(is_empty(&waiting), "{waiting:?}");
    }
}
