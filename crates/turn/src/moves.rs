//! Moves of clients to another 5-tuple (RFC 8016 section 3.2.2) that have been granted and not yet made: until data comes by the new
//! 5-tuple, the old one works.
//!
//! The two tables here are asked only for a 5-tuple that has no allocation: one that is not mobile, or moves nowhere, costs nothing more.

use std::collections::{HashMap, VecDeque};

use crate::addr::FiveTuple;
use crate::clock::{Now, SECOND};
use crate::reject::Dropped;
use crate::user::User;

use super::ids::AllocationId;
use super::mobile::Mobile;
use super::output::{Client, Event};
use super::parcel::Parcel;
use super::server::Server;
use super::ticket::Sealer;

/// How long a client may take to send data by its new 5-tuple, after which that is forgotten.
const PENDING_MICROS: u64 = 300 * SECOND;
/// Moves that may be pending at one server, and of one user there, who never gets more than a part of what is free: as many users as like
/// to leave room for one more. An allocation has one at most.
const PENDING_MAX: usize = 4096;
const PENDING_PER_USER_MAX: usize = 256;
const PENDING_PART_OF_FREE: usize = 4;
/// 5-tuples that may wait for allocations of other servers.
const EXPECTED_MAX: usize = 16 * 1024;

/// Deadlines of moves that are gone, beyond which they are swept.
const DEADLINES_KEPT: usize = 1024;

/// What whoever runs several servers has to do for moves between them: see [`Server::poll_move`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MoveOrder {
    /// Move this allocation to the server where this 5-tuple is: the client's old connection has closed.
    HandOver {
        /// The allocation.
        id: AllocationId,
        /// The client's new 5-tuple, for [`Server::take_out_for`].
        five_tuple: FiveTuple,
        /// The server that has passed its request on.
        to: u16,
    },
    /// Call [`Server::expect_no_more`] at this server: the allocation will not move there.
    Forget {
        /// The 5-tuple.
        five_tuple: FiveTuple,
        /// The server that has passed its request on.
        at: u16,
    },
    /// Call [`Server::cancel_move`] at this server: the client's new connection, which is here, has closed.
    Cancel {
        /// The 5-tuple.
        five_tuple: FiveTuple,
        /// The server that has granted the move.
        at: u16,
    },
}

/// A move to another 5-tuple, of an allocation that is here.
#[derive(Clone)]
struct Pending {
    id: AllocationId,
    user: User,
    client: Client,
    /// The server that its messages come to, if that is another one.
    at: Option<u16>,
    until_micros: u64,
}

/// A 5-tuple that an allocation of another server is about to move to.
#[derive(Clone, Copy)]
struct Expected {
    id: AllocationId,
    owner: u16,
    until_micros: u64,
}

/// Moves that have been granted.
pub(super) struct Moves {
    pub(super) sealer: Sealer,
    pending: HashMap<FiveTuple, Pending>,
    of_user: HashMap<User, u32>,
    expected: HashMap<FiveTuple, Expected>,
    /// Both in the order of their deadlines.
    deadlines: VecDeque<(u64, FiveTuple)>,
    orders: VecDeque<MoveOrder>,
    /// Where the message that is being handled has come to, and whether the allocation it is for cannot be elsewhere.
    pub(super) passed_on: Option<Option<u16>>,
    /// Whether allocations have moved from here to other servers.
    pub(super) has_moved_out: bool,
}

impl Moves {
    pub(super) fn new(sealer: Sealer) -> Self {
        Self {
            sealer,
            pending: HashMap::new(),
            of_user: HashMap::new(),
            expected: HashMap::new(),
            deadlines: VecDeque::new(),
            orders: VecDeque::new(),
            passed_on: None,
            has_moved_out: false,
        }
    }

    /// Whether the message that is being handled has come to another server.
    pub(super) fn is_of_another_server(&self) -> bool {
        self.passed_on.flatten().is_some()
    }

    /// Whether no 5-tuple is known here.
    #[inline]
    fn is_empty(&self) -> bool {
        self.pending.is_empty() && self.expected.is_empty()
    }

    /// Whether a user may have another move pending.
    pub(super) fn has_room(&self, user: &User) -> bool {
        let of_user = self.of_user.get(user).copied().unwrap_or_default() as usize;
        let free = PENDING_MAX.saturating_sub(self.pending.len());
        free > 0 && of_user < (free / PENDING_PART_OF_FREE).clamp(1, PENDING_PER_USER_MAX)
    }

    /// Grants an allocation of a user a move to a client's 5-tuple.
    pub(super) fn add(&mut self, now: Now, id: AllocationId, user: &User, client: Client) {
        let (five_tuple, at) = (client.five_tuple, self.passed_on.flatten());
        self.remove(&five_tuple);
        // Nobody may be told to forget a place, by an order that is still to be followed, after he has been told to expect it again.
        self.orders.retain(|order| !matches!(order, MoveOrder::Forget { five_tuple: of, .. } if *of == five_tuple));
        let until_micros = now.micros + PENDING_MICROS;
        *self.of_user.entry(user.clone()).or_default() += 1;
        self.pending.insert(five_tuple, Pending { id, user: user.clone(), client, at, until_micros });
        self.add_deadline(until_micros, five_tuple);
    }

    fn add_deadline(&mut self, until_micros: u64, five_tuple: FiveTuple) {
        if self.deadlines.len() > DEADLINES_KEPT + 2 * (self.pending.len() + self.expected.len()) {
            // A client that comes back to one place again and again leaves an entry each time.
            let (pending, expected) = (&self.pending, &self.expected);
            self.deadlines.retain(|(until_micros, of)| {
                pending.get(of).is_some_and(|pending| pending.until_micros == *until_micros)
                    || expected.get(of).is_some_and(|expected| expected.until_micros == *until_micros)
            });
        }
        self.deadlines.push_back((until_micros, five_tuple));
    }

    /// Takes a pending move out.
    fn remove(&mut self, five_tuple: &FiveTuple) -> Option<Pending> {
        let pending = self.pending.remove(five_tuple)?;
        if let Some(count) = self.of_user.get_mut(&pending.user) {
            *count -= 1;
            if *count == 0 {
                self.of_user.remove(&pending.user);
            }
        }
        Some(pending)
    }

    /// Forgets a pending move that is not made.
    pub(super) fn cancel(&mut self, five_tuple: &FiveTuple) {
        if let Some(at) = self.remove(five_tuple).and_then(|pending| pending.at) {
            self.orders.push_back(MoveOrder::Forget { five_tuple: *five_tuple, at });
        }
    }

    /// Forgets what has waited for too long; returns the allocations that it is about.
    pub(super) fn expire(&mut self, now_micros: u64) -> Vec<AllocationId> {
        let mut over = Vec::new();
        while let Some((until_micros, five_tuple)) = self.deadlines.front().copied() {
            // Entries of what is gone are swept along, so that they are never many.
            let pending = self.pending.get(&five_tuple).filter(|of| of.until_micros == until_micros).map(|of| of.id);
            let expected = self.expected.get(&five_tuple).is_some_and(|of| of.until_micros == until_micros);
            if until_micros > now_micros && (pending.is_some() || expected) {
                break;
            }
            self.deadlines.pop_front();
            if let Some(id) = pending {
                over.push(id);
                self.cancel(&five_tuple);
            }
            if expected {
                self.expected.remove(&five_tuple);
            }
        }
        over
    }

    /// When [`Self::expire`] has something to do.
    pub(super) fn next_deadline(&self) -> Option<u64> {
        self.deadlines.front().map(|(until_micros, _)| *until_micros)
    }

    /// The allocation of another server that a client's messages are for.
    pub(super) fn expected(&self, five_tuple: &FiveTuple) -> Option<AllocationId> {
        self.expected.get(five_tuple).map(|expected| expected.id)
    }

    /// Whether a 5-tuple is the new one of an allocation, here or elsewhere.
    #[inline]
    pub(super) fn knows(&self, five_tuple: &FiveTuple) -> bool {
        !self.is_empty() && (self.pending.contains_key(five_tuple) || self.expected.contains_key(five_tuple))
    }
}

impl Server {
    /// What is to be done with other servers for moves between them, after each message, timeout and closed connection. Nothing, ever,
    /// for who has one server.
    pub fn poll_move(&mut self) -> Option<MoveOrder> {
        self.moves.orders.pop_front()
    }

    /// The allocation here that has been granted a move to a 5-tuple.
    pub fn pending_move(&self, five_tuple: &FiveTuple) -> Option<AllocationId> {
        self.moves.pending.get(five_tuple).map(|pending| pending.id)
    }

    /// Moves that have been granted here and not yet made.
    pub fn pending_moves(&self) -> usize {
        self.moves.pending.len()
    }

    /// Takes an allocation out for the server where its client's new 5-tuple is. The client is the one that the server there has passed
    /// on. `None` when the allocation is not here, or is to move to another 5-tuple by now.
    pub fn take_out_for(&mut self, now: Now, id: AllocationId, five_tuple: &FiveTuple) -> Option<(Client, Parcel)> {
        let pending = self.moves.pending.get(five_tuple).filter(|pending| pending.id == id && pending.at.is_some())?;
        let client = pending.client;
        // Not to be cancelled there: it is being made.
        self.moves.remove(five_tuple);
        if let Some(mobile) = self.mobile_mut(id) {
            mobile.pending = None;
        }
        Some((client, self.take_out(now, id)?))
    }

    /// Expects an allocation of another server, which has been granted a move to this 5-tuple, until data comes by it. Then the way is
    /// [`Dropped::Moving`](crate::reject::Dropped::Moving).
    pub fn expect(&mut self, now: Now, five_tuple: FiveTuple, id: AllocationId, owner: u16) {
        if self.moves.expected.len() >= EXPECTED_MAX && !self.moves.expected.contains_key(&five_tuple) {
            return;
        }
        // Not before the owner forgets it, which says so: it may have been granted anew.
        let until_micros = now.micros + PENDING_MICROS;
        self.moves.expected.insert(five_tuple, Expected { id, owner, until_micros });
        self.moves.add_deadline(until_micros, five_tuple);
    }

    /// Expects no allocation at a 5-tuple any more.
    pub fn expect_no_more(&mut self, five_tuple: &FiveTuple) {
        self.moves.expected.remove(five_tuple);
    }

    /// The allocation that is expected at a 5-tuple, and the server that said so.
    pub fn expected(&self, five_tuple: &FiveTuple) -> Option<(AllocationId, u16)> {
        self.moves.expected.get(five_tuple).map(|expected| (expected.id, expected.owner))
    }

    /// The allocation whose new 5-tuple this is, for requests: the move is not made by them.
    #[inline]
    pub(super) fn moving_slot(&self, five_tuple: &FiveTuple) -> Option<u32> {
        if self.moves.is_empty() {
            return None;
        }
        self.allocations.find_id(self.moves.pending.get(five_tuple)?.id)
    }

    /// Data has come by a 5-tuple that has no allocation: if it is the new one of an allocation that is here, the move is made.
    #[cold]
    pub(super) fn slot_of_data(&mut self, now: Now, five_tuple: &FiveTuple) -> Result<u32, Dropped> {
        let is_here = self.moves.pending.get(five_tuple).is_some_and(|pending| pending.at.is_none());
        let slot = self.moving_slot(five_tuple).filter(|slot| is_here && self.live(now, *slot).is_some());
        match slot {
            Some(slot) => {
                self.make_move(now, slot);
                Ok(slot)
            }
            None if self.moves.expected.contains_key(five_tuple) => Err(Dropped::Moving),
            None => Err(Dropped::NoAllocation),
        }
    }

    /// Makes the move that is pending to a 5-tuple of this server: the old 5-tuple is nobody's from now on.
    pub(super) fn make_move(&mut self, now: Now, slot: u32) {
        let Some(allocation) = self.allocations.get_mut(slot) else { return };
        let Some(mobile) = &mut allocation.mobile else { return };
        let Some(pending) = mobile.pending.take().and_then(|five_tuple| self.moves.remove(&five_tuple)) else { return };
        let from = allocation.client.five_tuple;
        if let Some(waits) = &mut self.pending {
            waits.forget_client(&from);
        }
        self.allocations.set_client(&self.hash, slot, pending.client);
        if let Some(allocation) = self.allocations.get(slot) {
            for channel in allocation.channels.iter() {
                self.events.push(Event::RouteGone { id: allocation.id, channel: channel.number });
            }
            self.events.push(allocation.moved_event(from, &self.shared.quotas, now));
        }
        self.report_routes(slot);
    }

    /// A connection has closed: whether it was the way to a 5-tuple that an allocation was to move to. The old one stays.
    pub(super) fn is_new_way_gone(&mut self, five_tuple: &FiveTuple) -> bool {
        if self.moves.is_empty() {
            return false;
        }
        if let Some(Expected { owner: at, .. }) = self.moves.expected.remove(five_tuple) {
            self.moves.orders.push_back(MoveOrder::Cancel { five_tuple: *five_tuple, at });
            return true;
        }
        let Some(id) = self.pending_move(five_tuple) else { return false };
        self.moves.cancel(five_tuple);
        self.unlink_move(id);
        true
    }

    /// Forgets a move that was granted to a client of another server, whose connection there has closed.
    pub fn cancel_move(&mut self, five_tuple: &FiveTuple, at: u16) {
        let pending = self.moves.pending.get(five_tuple).filter(|pending| pending.at == Some(at));
        if let Some(id) = pending.map(|pending| pending.id) {
            self.moves.remove(five_tuple);
            self.unlink_move(id);
        }
    }

    /// The connection of a mobile allocation has closed (RFC 8016 section 3.2.2): it goes to the client's new 5-tuple if there is one
    /// already, and else waits for its client to come back.
    pub(super) fn lose_way(&mut self, now: Now, slot: u32) {
        self.allocations.set_away(&self.hash, slot);
        if !self.follow_client(now, slot) {
            self.wait_for_client(now, slot);
        }
    }

    /// Moves an allocation that has no 5-tuple to where its client is; whether that is known.
    pub(super) fn follow_client(&mut self, now: Now, slot: u32) -> bool {
        let Some(allocation) = self.allocations.get(slot) else { return false };
        let Some(five_tuple) = allocation.mobile.as_ref().and_then(|mobile| mobile.pending) else { return false };
        let id = allocation.id;
        let Some(pending) = self.moves.pending.get(&five_tuple) else { return false };
        match pending.at {
            Some(to) => self.moves.orders.push_back(MoveOrder::HandOver { id, five_tuple, to }),
            None => self.make_move(now, slot),
        }
        true
    }

    /// Forgets moves that have been pending for too long.
    pub(super) fn expire_moves(&mut self, now: Now) {
        for id in self.moves.expire(now.micros) {
            self.unlink_move(id);
        }
    }

    /// The allocation is to move nowhere any more. The ticket that was shown there is not known again where it is.
    fn unlink_move(&mut self, id: AllocationId) {
        if let Some(mobile) = self.mobile_mut(id) {
            (mobile.pending, mobile.retired_until_micros) = (None, 0);
        }
    }

    fn mobile_mut(&mut self, id: AllocationId) -> Option<&mut Mobile> {
        let slot = self.allocations.find_id(id)?;
        self.allocations.get_mut(slot)?.mobile.as_deref_mut()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ticket::TicketKey;

    const NOW: Now = Now { micros: 5_000 * SECOND, unix_secs: 1_700_000_000 };

    fn moves() -> Moves {
        Moves::new(Sealer::new(TicketKey::new([1; 32]).into(), &mut |bytes: &mut [u8]| bytes.fill(7)))
    }

    fn client(n: u16) -> Client {
        Client::over_udp(([192, 0, 2, 1], n).into(), ([192, 0, 2, 9], 3478).into())
    }

    #[test]
    fn a_place_that_is_come_back_to_again_and_again_is_kept_once() {
        let (mut moves, user) = (moves(), User::fixed("ann"));
        let id = AllocationId::new(0, 1).unwrap();
        for n in 0..100_000 {
            let now = Now { micros: NOW.micros + n, ..NOW };
            moves.add(now, id, &user, client((n % 100) as u16));
        }
        assert_eq!(moves.pending.len(), 100);
        assert!(moves.deadlines.len() <= DEADLINES_KEPT + 2 * 100 + 1, "{} deadlines", moves.deadlines.len());
        // What is kept is still forgotten in its time.
        assert_eq!(moves.expire(NOW.micros + 100_000 + PENDING_MICROS).len(), 100);
        assert!(moves.pending.is_empty() && moves.of_user.is_empty());
    }

    #[test]
    fn any_number_of_users_leave_room_for_another_one() {
        let mut moves = moves();
        let id = AllocationId::new(0, 1).unwrap();
        let names: Vec<_> = (0..100).map(|n| User::fixed(n.to_string())).collect();
        let mut port = 0;
        for _ in 0..300 {
            for user in names.iter().filter(|user| moves.has_room(user)).cloned().collect::<Vec<_>>() {
                port += 1;
                moves.add(NOW, id, &user, client(port));
            }
        }
        assert!(!names.iter().any(|user| moves.has_room(user)));
        assert!(moves.has_room(&User::fixed("another")), "{} of {PENDING_MAX}", moves.pending.len());
        assert!(moves.pending.len() > PENDING_MAX / 2);
        // One alone gets what he may.
        let (mut moves, ann) = (self::moves(), User::fixed("ann"));
        let granted = (0..1000).take_while(|n| {
            let has_room = moves.has_room(&ann);
            moves.add(NOW, id, &ann, client(*n));
            has_room
        });
        assert_eq!(granted.count(), PENDING_PER_USER_MAX);
    }
}
