//! One server's side of the leases, without I/O: when which share is asked for, given back and renewed, and what an answer means.
//!
//! What holds whatever becomes of calls and answers: the store has noted at least what this server counts on, as long as its note is good.
//! For what is counted on is part of every call (`floor`), becomes less before a call that says so, and more only by the answer to the
//! call that was sent last.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::call::{Call, Noted};
use crate::policy::{Quotas, Share};
use crate::user::User;

/// Users whose share a server has or asks for at once. There are no more than it has allocations, and those of the last moments.
const USERS_MAX: usize = 1 << 18;
/// What is asked for at once, if there is plenty: a page makes several allocations. A user with many gets a quarter more of them.
const BLOCK_MIN: u32 = 4;
const BLOCK_MAX: u32 = 64;
/// Requests of one user that wait for the answer to one call, of all workers.
const WAITING_MAX: usize = 1024;
/// For so long an Allocate waits. What is older is asked for by nobody any more.
pub(super) const WAIT_MICROS: u64 = 200_000;
/// For so long it is believed that there is nothing left for a user: whoever asks all the time does not ask the store all the time.
const REFUSED_MICROS: u64 = 1_000_000;
/// After a call that failed, the next one.
const RETRY_MICROS: u64 = 1_000_000;

/// How long what the store notes is good.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    /// For the store, by its clock, after it has carried the call out.
    pub(super) term_micros: u64,
}

impl Terms {
    /// How often it is renewed: twice more before it is over.
    fn renewal(self) -> u64 {
        self.term_micros / 3
    }

    /// For how long after it has sent the call a server counts on it, by a clock that goes right to a tenth. What is left is for a store
    /// whose clock is set forward.
    pub(super) fn trust(self) -> u64 {
        self.term_micros / 6 * 5
    }
}

/// What has become of calls, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Calls by which something was to be had.
    pub(super) asked: u64,
    /// Of these, those by which it was not, because all of the limit is taken.
    pub(super) refused: u64,
    /// Calls without an answer in time, or with a wrong one.
    pub(super) failed: u64,
    /// Renewals and returns.
    pub(super) kept: u64,
    /// Who has waited for an answer as long as anybody waits, although the store could be asked.
    pub(super) late: u64,
}

/// A server's shares. `W` is what waits for one.
pub(super) struct Node<W> {
    quotas: Arc<Quotas>,
    terms: Terms,
    leases: HashMap<User, Lease<W>>,
    /// When whose turn it is.
    due: BTreeMap<(u64, u64), User>,
    /// Calls without an answer.
    sent: HashMap<u64, User>,
    /// The number of the last call.
    last_id: u64,
    next_turn: u64,
    /// In all shares.
    allocations: u64,
    counts: Counts,
}

struct Lease<W> {
    turn: Option<(u64, u64)>,
    sent: Option<Sent>,
    waiting: Vec<Waiting<W>>,
    /// Whether the store may have noted something.
    is_noted: bool,
    /// What is the share, when the store was last heard of.
    share: u32,
    /// When it is to be renewed.
    renew_micros: u64,
    /// It is renewed together with all others: the next time is to be another one for each.
    is_in_step: bool,
    /// How much of the limit more than is in use may stay here, when the store was last heard of: what is beyond half of it may not.
    room: u64,
}

/// Who waits, and for a share of which limit.
struct Waiting<W> {
    who: W,
    limit: u32,
    since_micros: u64,
}

#[derive(Clone, Copy)]
struct Sent {
    id: u64,
    at_micros: u64,
    need: u32,
    limit: u32,
    /// Whether something is to be had by it.
    asks: bool,
}

impl<W> Default for Lease<W> {
    fn default() -> Self {
        Self {
            turn: None,
            sent: None,
            waiting: Vec::new(),
            is_noted: false,
            share: 0,
            renew_micros: 0,
            is_in_step: false,
            room: 0,
        }
    }
}

impl<W> Node<W> {
    /// A server that has no shares yet. Its calls are numbered from 1, so that the store must not have known it before.
    pub(super) fn new(quotas: Arc<Quotas>, terms: Terms) -> Self {
        let (leases, due, sent) = (HashMap::new(), BTreeMap::new(), HashMap::new());
        let counts = Counts::default();
        Self { quotas, terms, leases, due, sent, last_id: 0, next_turn: 0, allocations: 0, counts }
    }

    /// Somebody waits for a share of a user's limit.
    ///
    /// # Errors
    /// As many do as may.
    pub(super) fn ask(&mut self, now_micros: u64, user: &User, limit: u32, who: W) -> Result<(), W> {
        if self.leases.len() >= USERS_MAX && !self.leases.contains_key(user) {
            return Err(who);
        }
        let lease = self.leases.entry(user.clone()).or_default();
        if lease.waiting.len() >= WAITING_MAX {
            return Err(who);
        }
        lease.waiting.push(Waiting { who, limit, since_micros: now_micros });
        if lease.sent.is_none() {
            // Somebody waits: before all renewals, of which there are many after a loss.
            self.set_turn(user, 0);
        }
        Ok(())
    }

    /// The next calls to send, so many at most. Each is either answered or failed, by [`Self::answered`].
    pub(super) fn poll_calls(&mut self, now_micros: u64, max: usize) -> Vec<Call> {
        // In an order that is the same each time, so that a test's run can be repeated.
        let mut changed: Vec<_> = self.quotas.take_changed_shares().into_iter().collect();
        changed.sort_unstable();
        for user in changed {
            let lease = self.leases.entry(user.clone()).or_default();
            match lease.sent {
                None => self.set_turn(&user, now_micros),
                // When that is answered, it is looked at again.
                Some(_) => lease.renew_micros = 0,
            }
        }
        let mut calls = Vec::new();
        while calls.len() < max
            && let Some((turn, _)) = self.due.first_key_value().filter(|((at_micros, _), _)| *at_micros <= now_micros)
        {
            let turn = *turn;
            let Some(user) = self.due.remove(&turn) else { break };
            if let Some(lease) = self.leases.get_mut(&user) {
                lease.turn = None;
            }
            calls.extend(self.call(now_micros, user));
        }
        calls
    }

    /// A call is answered, or it has failed: then nobody knows whether it was or will be carried out. Returns who waits no more, and whether
    /// it is known now what the share is.
    pub(super) fn answered(&mut self, now_micros: u64, id: u64, noted: Option<Noted>) -> Vec<(W, bool)> {
        let Some(user) = self.sent.remove(&id) else { return Vec::new() };
        let Some(lease) = self.leases.get_mut(&user) else { return Vec::new() };
        let Some(sent) = lease.sent.take_if(|sent| sent.id == id) else { return Vec::new() };
        let Some(noted) = noted.filter(|noted| noted.id == id) else {
            self.counts.failed += 1;
            // Whatever it was about is still to be said.
            lease.renew_micros = 0;
            let waiting = std::mem::take(&mut lease.waiting);
            self.set_turn(&user, now_micros + RETRY_MICROS);
            return waiting.into_iter().map(|waiting| (waiting.who, false)).collect();
        };
        lease.is_noted = noted.share > 0;
        self.allocations = self.allocations + u64::from(noted.share) - u64::from(lease.share);
        lease.share = noted.share;
        lease.room = u64::from(sent.limit / 2).saturating_sub(noted.others);
        self.quotas.set_share(
            &user,
            Share {
                allocations: noted.share,
                limit: sent.limit,
                until_micros: sent.at_micros + self.terms.trust(),
                is_over: noted.others + u64::from(noted.share) > u64::from(sent.limit),
            },
        );
        let is_refused = sent.asks && noted.share < sent.need;
        if is_refused {
            self.counts.refused += 1;
            self.quotas.refuse_share(&user, sent.limit, now_micros + REFUSED_MICROS);
        }
        // Who has come while a share was renewed or given back is asked for in a call of his own.
        let waiting = if sent.asks { std::mem::take(&mut lease.waiting) } else { Vec::new() };
        // Something has changed while the call was under way if this is 0.
        let renewal = self.terms.renewal();
        let renewal = if std::mem::take(&mut lease.is_in_step) { out_of_step(renewal, id) } else { renewal };
        let has_changed = std::mem::replace(&mut lease.renew_micros, sent.at_micros + renewal) == 0;
        let next_micros = match lease.waiting.is_empty() && !has_changed {
            true if noted.share > 0 => lease.renew_micros,
            // What was refused is remembered for so long.
            true => now_micros + if is_refused { REFUSED_MICROS } else { 0 },
            false if lease.waiting.is_empty() => now_micros,
            false => 0,
        };
        self.set_turn(&user, next_micros);
        self.counts.late += waiting.iter().filter(|waiting| waiting.is_over(now_micros)).count() as u64;
        waiting.into_iter().map(|waiting| (waiting.who, true)).collect()
    }

    /// Has all shares noted anew at once: the store has forgotten them, or could not be reached for a while.
    pub(super) fn renew_all(&mut self, now_micros: u64) {
        let mut users: Vec<_> =
            self.leases.iter().filter(|(_, lease)| lease.sent.is_none()).map(|(user, _)| user.clone()).collect();
        users.sort_unstable();
        for user in users {
            if let Some(lease) = self.leases.get_mut(&user) {
                lease.renew_micros = now_micros;
                lease.is_noted = true;
                lease.is_in_step = true;
            }
            self.set_turn(&user, now_micros);
        }
    }

    /// Has all shares noted anew somewhere else: what is under way tells nothing of that. Returns who has waited for it.
    pub(super) fn renew_elsewhere(&mut self, now_micros: u64) -> Vec<(W, bool)> {
        let sent: Vec<_> = self.sent.keys().copied().collect();
        let waited = sent.into_iter().flat_map(|id| self.answered(now_micros, id, None)).collect();
        self.renew_all(now_micros);
        waited
    }

    /// The calls that give everything back, for a server that stops: it has no allocation any more.
    pub(super) fn give_back_all(&mut self, now_micros: u64) -> Vec<Call> {
        self.renew_elsewhere(now_micros);
        self.poll_calls(now_micros, usize::MAX)
    }

    /// What has become of calls.
    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    /// Users with a share, or whose share is asked for, and the allocations in all shares.
    pub(super) fn totals(&self) -> (usize, u64) {
        (self.leases.len(), self.allocations)
    }

    /// The call that is due for a user, if there is one.
    fn call(&mut self, now_micros: u64, user: User) -> Option<Call> {
        let lease = self.leases.get_mut(&user)?;
        if lease.sent.is_some() {
            return None;
        }
        let were_waiting = lease.waiting.len();
        lease.waiting.retain(|waiting| !waiting.is_over(now_micros));
        self.counts.late += (were_waiting - lease.waiting.len()) as u64;
        let asked = lease.waiting.iter().map(|waiting| waiting.limit).min();
        let block = |live: u32| (live / 4).clamp(BLOCK_MIN, BLOCK_MAX);
        let live = self.quotas.in_use_by(&user);
        // What nobody has used for as long as a renewal takes is somebody else's.
        let is_busy = asked.is_some() || live > 0 && now_micros < lease.renew_micros;
        let room = u32::try_from(lease.room).unwrap_or(u32::MAX).saturating_sub(live);
        let spare_max = if is_busy { block(live).min(room) } else { 0 };
        let used = self.quotas.keep_of_share(&user, now_micros, (spare_max, asked.unwrap_or(u32::MAX)));
        let (floor, live) = (used.kept, used.live);
        let (need, wish, limit) = match asked {
            Some(limit) => (floor.max(live + 1), live + block(live), limit),
            None => (floor, floor, used.before.limit),
        };
        if asked.is_none() {
            if floor == 0 && !lease.is_noted {
                if self.quotas.drop_share(&user, now_micros) {
                    let share = self.leases.remove(&user).map_or(0, |lease| lease.share);
                    self.allocations -= u64::from(share);
                } else {
                    self.set_turn(&user, now_micros + REFUSED_MICROS);
                }
                return None;
            }
            // Nothing is given back, and what there is need not be renewed yet.
            let is_good = now_micros < used.before.until_micros && floor == used.before.allocations;
            let renew_micros = lease.renew_micros;
            if is_good && now_micros < renew_micros {
                self.set_turn(&user, renew_micros);
                return None;
            }
        }
        self.last_id += 1;
        let id = self.last_id;
        let asks = asked.is_some();
        *(if asks { &mut self.counts.asked } else { &mut self.counts.kept }) += 1;
        let lease = self.leases.get_mut(&user)?;
        lease.sent = Some(Sent { id, at_micros: now_micros, need, limit, asks });
        lease.is_noted = true;
        if lease.renew_micros == 0 {
            lease.renew_micros = now_micros;
        }
        self.sent.insert(id, user.clone());
        Some(Call { user, id, floor, need, wish, limit })
    }

    fn set_turn(&mut self, user: &User, at_micros: u64) {
        let Some(lease) = self.leases.get_mut(user) else { return };
        if let Some(before) = lease.turn.take() {
            self.due.remove(&before);
        }
        self.next_turn += 1;
        // Of those who wait, who has come last is first: if there are more than the store can be asked about in time, others are in time so.
        let turn = (at_micros, if at_micros == 0 { u64::MAX - self.next_turn } else { self.next_turn });
        lease.turn = Some(turn);
        self.due.insert(turn, user.clone());
    }
}

impl<W> Waiting<W> {
    /// Whether its Allocate is answered by now, without a share.
    fn is_over(&self, now_micros: u64) -> bool {
        now_micros.saturating_sub(self.since_micros) > WAIT_MICROS
    }
}

/// A quarter of a time at least, and all of it at most, another one for each call.
fn out_of_step(micros: u64, id: u64) -> u64 {
    micros / 4 + id.wrapping_mul(0x9e37_79b9_7f4a_7c15) % (micros / 4 * 3).max(1)
}
