//! Allocation quotas per user and in total, held by a guard that gives them back when dropped, and how often a user may
//! allocate.

mod shares;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::clock::SECOND;
use crate::reject::Reason;
use crate::user::User;

use shares::{Basis, Shares};

pub(crate) use shares::NotReserved;
pub use shares::{Share, ShareTotals, ShareUse, WithoutShare};

/// Limits on allocations; `None` is unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QuotaLimits {
    /// Live allocations per user.
    pub per_user: Option<u32>,
    /// Live allocations per user on all of several servers, which somebody shares out among them: an Allocate may have to wait for
    /// [`Question::Share`](crate::Question::Share).
    pub fleet_per_user: Option<u32>,
    /// Live allocations of the whole server.
    pub total: Option<u32>,
    /// Live allocations of the user's realm, if that is not the default one.
    pub of_realm: Option<u32>,
    /// How often a user may allocate.
    pub rate: Option<AllocationRate>,
    /// Ports that a user may have reserved (EVEN-PORT) without having redeemed them yet.
    pub reservations_per_user: Option<u32>,
}

impl QuotaLimits {
    /// For a server with so many relay ports: whatever one user may need for calls fits, and nobody can take all of them. A user
    /// may have a quarter of the ports (of few ports, up to 64 but no more than half), and an eighth reserved.
    pub fn for_ports(ports: u32) -> Self {
        /// Some browser calls with `iceCandidatePoolSize: 10`, over two transports and two networks.
        const FEW: u32 = 64;
        Self {
            per_user: Some((ports / 4).max(FEW.min(ports / 2)).max(1)),
            fleet_per_user: None,
            total: None,
            of_realm: None,
            rate: Some(AllocationRate::default()),
            reservations_per_user: Some((ports / 8).max(1)),
        }
    }
}

/// A token bucket's parameters, each at least 1. By default 50 a second, and 1000 at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AllocationRate {
    /// Allocations per second in the long run.
    pub per_second: u32,
    /// Allocations that may be made at once after a pause.
    pub burst: u32,
}

impl Default for AllocationRate {
    fn default() -> Self {
        Self { per_second: 50, burst: 1000 }
    }
}

/// The pace up to which each of a user's allocations is told of by itself, in the log and in usage records. What is made
/// faster, and carries next to nothing, is summed up: a user must not be able to fill the disk and push others' records out.
const TOLD_ONE_BY_ONE: AllocationRate = AllocationRate { per_second: 1, burst: 1000 };
/// Users without allocations whose debts are remembered; beyond, the oldest debt is forgiven.
const DEPARTED_MAX: usize = 65_536;
/// A table of fewer users is not worth giving memory back for.
const SHRINK_MIN: usize = 1024;

/// The counts of live allocations, shared by all workers.
///
/// Every allocation is counted, limited or not, so that a limit set at reload knows what is live. A lowered limit ends
/// nothing; it refuses new allocations until enough old ones are gone. The lock is taken only when an allocation is made
/// or ends.
#[derive(Debug, Default)]
pub struct Quotas {
    state: Mutex<State>,
    /// The sum over the users, written only while they are locked.
    total: AtomicU32,
}

#[derive(Debug, Default)]
struct State {
    /// Users with live allocations, and those who have made more of late than the rate allows in the long run.
    users: HashMap<User, Entry>,
    /// Users without allocations who were in debt when the last one ended. Every new allocation looks at two of them.
    departed: VecDeque<User>,
    /// Live allocations of each realm that is not the default one.
    realms: HashMap<Arc<str>, u32>,
    /// The latest time that anyone told.
    now_micros: u64,
    /// Users with live allocations.
    present: usize,
    /// Of limits over several servers; empty where there are none.
    shares: Shares,
}

#[derive(Debug, Default)]
struct Entry {
    live: u32,
    rate: Bucket,
    told: Bucket,
    moves_told: Bucket,
    is_departed: bool,
}

/// A token bucket kept as one point in time (generic cell rate algorithm).
#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    paid_until_micros: u64,
}

impl Bucket {
    /// Takes one out, if there is one.
    fn charge(&mut self, now_micros: u64, rate: AllocationRate) -> bool {
        let each = SECOND / u64::from(rate.per_second.max(1));
        let latest = now_micros.saturating_add(each.saturating_mul(u64::from(rate.burst)));
        // A debt of a slower rate, before a reload, is a whole burst at most.
        self.paid_until_micros = self.paid_until_micros.clamp(now_micros, latest);
        let paid_until_micros = self.paid_until_micros.saturating_add(each);
        let may = paid_until_micros <= latest;
        if may {
            self.paid_until_micros = paid_until_micros;
        }
        may
    }

    fn is_full(self, now_micros: u64) -> bool {
        self.paid_until_micros <= now_micros
    }
}

impl Entry {
    fn owes_nothing(&self, now_micros: u64) -> bool {
        [self.rate, self.told, self.moves_told].iter().all(|bucket| bucket.is_full(now_micros))
    }
}

impl Quotas {
    /// Counts one allocation for `user`.
    ///
    /// # Errors
    /// [`Reason::UserQuota`], [`Reason::RealmQuota`], [`Reason::TotalQuota`], [`Reason::FleetQuota`] or [`Reason::UserRate`], the first that
    /// is reached; nothing is counted then. [`Reason::FleetUnavailable`] where the share of a limit over several servers has to be asked for.
    pub fn reserve(self: &Arc<Self>, limits: QuotaLimits, user: &User, now_micros: u64) -> Result<Reservation, Reason> {
        self.try_reserve(limits, user, now_micros, false).map_err(|not| match not {
            NotReserved::Refused(reason) => reason,
            NotReserved::NeedsShare(_) => Reason::FleetUnavailable,
        })
    }

    /// The same for who can have it wait. `is_late`: it has waited, and nobody could say in time what the user's share is.
    pub(crate) fn try_reserve(
        self: &Arc<Self>,
        limits: QuotaLimits,
        user: &User,
        now_micros: u64,
        is_late: bool,
    ) -> Result<Reservation, NotReserved> {
        let refused = |reason| Err(NotReserved::Refused(reason));
        let mut state = self.lock();
        state.now_micros = state.now_micros.max(now_micros);
        state.forget_departed();
        state.forget_departed();
        let now_micros = state.now_micros;
        let total = self.total.load(Ordering::Relaxed);
        let (live, mut rate, mut told) =
            state.users.get(user).map(|of| (of.live, of.rate, of.told)).unwrap_or_default();
        if limits.per_user.is_some_and(|limit| live >= limit) {
            return refused(Reason::UserQuota);
        }
        let of_realm = user.realm().and_then(|realm| state.realms.get(realm)).copied().unwrap_or_default();
        if user.realm().is_some() && limits.of_realm.is_some_and(|limit| of_realm >= limit) {
            return refused(Reason::RealmQuota);
        }
        if total >= limits.total.unwrap_or(u32::MAX) {
            return refused(Reason::TotalQuota);
        }
        let basis = match limits.fleet_per_user {
            Some(limit) => state.shares.judge(user, (live, limit), now_micros, is_late)?,
            None => Basis::Regular,
        };
        let may = limits.rate.is_none_or(|limit| rate.charge(now_micros, limit));
        if !may {
            if let Some(entry) = state.users.get_mut(user) {
                entry.rate = rate;
            }
            return refused(Reason::UserRate);
        }
        let is_frequent = !told.charge(now_micros, TOLD_ONE_BY_ONE);
        let entry = match state.users.get_mut(user) {
            Some(entry) => entry,
            None => state.users.entry(user.clone()).or_default(),
        };
        (entry.live, entry.rate, entry.told) = (live + 1, rate, told);
        state.present += usize::from(live == 0);
        state.count_in_realm(user);
        if let Basis::WithoutShare(limit) = basis {
            state.shares.note_without(user, limit);
        }
        self.total.store(total + 1, Ordering::Relaxed);
        Ok(Reservation { quotas: Arc::clone(self), user: user.clone(), is_frequent })
    }

    /// Counts an allocation that was made elsewhere, above the limits if need be: nobody's call ends because it moves. What it
    /// cost of the user's rate was paid where it was made.
    pub fn readmit(self: &Arc<Self>, user: &User, is_frequent: bool) -> Reservation {
        let mut state = self.lock();
        let entry = state.users.entry(user.clone()).or_default();
        entry.live += 1;
        let is_first = entry.live == 1;
        state.present += usize::from(is_first);
        state.count_in_realm(user);
        self.total.fetch_add(1, Ordering::Relaxed);
        Reservation { quotas: Arc::clone(self), user: user.clone(), is_frequent }
    }

    /// Whether a move of one of a user's live allocations is told of by itself: as many are as new allocations.
    pub fn tells_move(&self, user: &User, now_micros: u64) -> bool {
        let mut state = self.lock();
        state.now_micros = state.now_micros.max(now_micros);
        let now_micros = state.now_micros;
        state.users.get_mut(user).is_some_and(|entry| entry.moves_told.charge(now_micros, TOLD_ONE_BY_ONE))
    }

    /// Live allocations in total.
    pub fn in_use(&self) -> u32 {
        self.total.load(Ordering::Relaxed)
    }

    /// Live allocations of one user.
    pub fn in_use_by(&self, user: &User) -> u32 {
        self.lock().users.get(user).map_or(0, |entry| entry.live)
    }

    /// Live allocations of each realm that is not the default one; in none of those that are not there.
    pub fn in_use_by_realm(&self) -> HashMap<Arc<str>, u32> {
        self.lock().realms.clone()
    }

    /// Users with at least one live allocation.
    pub fn users(&self) -> usize {
        self.lock().present
    }

    /// Users that anything is known of.
    pub fn remembered(&self) -> usize {
        self.lock().users.len()
    }

    fn release(&self, user: &User) {
        let mut state = self.lock();
        let now_micros = state.now_micros;
        let Some(entry) = state.users.get_mut(user) else { return };
        entry.live = entry.live.saturating_sub(1);
        self.total.fetch_sub(1, Ordering::Relaxed);
        let (live, is_gone) = (entry.live, entry.live == 0);
        state.shares.released(user, live);
        state.leave_realm(user);
        let Some(entry) = state.users.get_mut(user).filter(|_| is_gone) else { return };
        let is_free = entry.owes_nothing(now_micros);
        let queue = !is_free && !entry.is_departed;
        entry.is_departed |= queue;
        // One that is in the queue is forgotten from there.
        let forget = is_free && !entry.is_departed;
        state.present -= 1;
        if queue {
            state.departed.push_back(user.clone());
            if state.departed.len() > DEPARTED_MAX {
                state.forgive_oldest();
            }
        }
        if forget {
            state.forget(user);
        }
    }

    /// The counts are whole numbers changed in one step, so that a panic elsewhere cannot have left them half-way.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// For whoever shares limits out among several servers ([`QuotaLimits::fleet_per_user`]). That a share becomes smaller takes effect here
/// before it is told, so that two servers never have the same part of a limit.
impl Quotas {
    /// What is granted while nobody can say what the shares are.
    pub fn set_without_share(&self, without: WithoutShare) {
        self.lock().shares.set_without(without);
    }

    /// Whether nobody can say what the shares are; and among how many servers they are, this one included.
    pub fn set_fleet(&self, is_lost: bool, servers: u32) {
        self.lock().shares.set_fleet(is_lost, servers);
    }

    /// Keeps what is in use of a user's share, and so many allocations more if they are in the share and it is good still, and not of a
    /// laxer limit than this; the rest of it is not to be used any more. From now on the user is known, share or not, until
    /// [`Self::drop_share`].
    pub fn keep_of_share(&self, user: &User, now_micros: u64, (spare_max, limit): (u32, u32)) -> ShareUse {
        let state = &mut *self.lock();
        state.shares.keep(user, live_of(&state.users, user), now_micros, (spare_max, limit))
    }

    /// The share of a user is this from now on.
    pub fn set_share(&self, user: &User, share: Share) {
        let state = &mut *self.lock();
        state.shares.set(user, live_of(&state.users, user), share);
    }

    /// The share of a user, if it is known.
    pub fn share(&self, user: &User) -> Option<Share> {
        self.lock().shares.of(user)
    }

    /// There is nothing left for a user of a limit, and of a stricter one even less; that is believed for a while.
    pub fn refuse_share(&self, user: &User, limit: u32, until_micros: u64) {
        self.lock().shares.refuse(user, limit, until_micros);
    }

    /// Forgets the share of a user who has no allocations, none in the share, and was not refused of late. Returns whether it is forgotten.
    pub fn drop_share(&self, user: &User, now_micros: u64) -> bool {
        let state = &mut *self.lock();
        state.shares.drop_idle(user, live_of(&state.users, user), now_micros)
    }

    /// The users with a share some of whose allocations have ended, or who have more than their share, since the last time.
    pub fn take_changed_shares(&self) -> HashSet<User> {
        self.lock().shares.take_changed()
    }

    /// Allocations made without a share since the start, because nobody could say what it is.
    pub fn made_without_share(&self) -> u64 {
        self.lock().shares.made_without()
    }

    /// What there is of shares. It looks at all of them: for tests.
    pub fn share_totals(&self) -> ShareTotals {
        self.lock().shares.totals()
    }
}

fn live_of(users: &HashMap<User, Entry>, user: &User) -> u32 {
    users.get(user).map_or(0, |entry| entry.live)
}

impl State {
    fn count_in_realm(&mut self, user: &User) {
        let Some(realm) = user.realm() else { return };
        match self.realms.get_mut(realm) {
            Some(live) => *live += 1,
            None => drop(self.realms.insert(Arc::clone(realm), 1)),
        }
    }

    fn leave_realm(&mut self, user: &User) {
        let Some(realm) = user.realm() else { return };
        if let Some(live) = self.realms.get_mut(realm) {
            *live = live.saturating_sub(1);
            if *live == 0 {
                self.realms.remove(realm);
            }
        }
    }

    /// Looks at the user who departed first, if any: forgets one whose debt is paid, lets go of one who is back.
    fn forget_departed(&mut self) {
        let Some(user) = self.departed.pop_front() else { return };
        let Some(entry) = self.users.get_mut(&user) else { return };
        if entry.live > 0 {
            entry.is_departed = false;
        } else if entry.owes_nothing(self.now_micros) {
            self.forget(&user);
        } else {
            self.departed.push_back(user);
        }
    }

    fn forgive_oldest(&mut self) {
        let Some(user) = self.departed.pop_front() else { return };
        match self.users.get_mut(&user) {
            Some(entry) if entry.live > 0 => entry.is_departed = false,
            _ => self.forget(&user),
        }
    }

    fn forget(&mut self, user: &User) {
        self.users.remove(user);
        let kept = self.users.len();
        if self.users.capacity() > SHRINK_MIN && kept < self.users.capacity() / 8 {
            self.users.shrink_to(kept * 2);
            self.departed.shrink_to(kept * 2);
        }
    }
}

/// One counted allocation; dropping it gives the count back.
#[derive(Debug)]
#[must_use = "dropping the reservation gives the count back at once"]
pub struct Reservation {
    quotas: Arc<Quotas>,
    user: User,
    is_frequent: bool,
}

impl Reservation {
    /// Whether the user makes more allocations than are told of one by one.
    pub fn is_frequent(&self) -> bool {
        self.is_frequent
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.quotas.release(&self.user);
    }
}

#[cfg(test)]
mod tests;
