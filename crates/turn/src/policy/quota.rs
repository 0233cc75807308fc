//! Allocation quotas per user and in total, held by a guard that gives them back when dropped, and how often a user may
//! allocate.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::clock::SECOND;
use crate::reject::Reason;
use crate::user::User;

/// Limits on allocations; `None` is unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QuotaLimits {
    /// Live allocations per user.
    pub per_user: Option<u32>,
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
    /// [`Reason::UserQuota`], [`Reason::RealmQuota`], [`Reason::TotalQuota`] or [`Reason::UserRate`], the first that is reached; nothing is counted
    /// then.
    pub fn reserve(self: &Arc<Self>, limits: QuotaLimits, user: &User, now_micros: u64) -> Result<Reservation, Reason> {
        let mut state = self.lock();
        state.now_micros = state.now_micros.max(now_micros);
        state.forget_departed();
        state.forget_departed();
        let now_micros = state.now_micros;
        let total = self.total.load(Ordering::Relaxed);
        let (live, mut rate, mut told) =
            state.users.get(user).map(|of| (of.live, of.rate, of.told)).unwrap_or_default();
        if limits.per_user.is_some_and(|limit| live >= limit) {
            return Err(Reason::UserQuota);
        }
        let of_realm = user.realm().and_then(|realm| state.realms.get(realm)).copied().unwrap_or_default();
        if user.realm().is_some() && limits.of_realm.is_some_and(|limit| of_realm >= limit) {
            return Err(Reason::RealmQuota);
        }
        if total >= limits.total.unwrap_or(u32::MAX) {
            return Err(Reason::TotalQuota);
        }
        let may = limits.rate.is_none_or(|limit| rate.charge(now_micros, limit));
        if !may {
            if let Some(entry) = state.users.get_mut(user) {
                entry.rate = rate;
            }
            return Err(Reason::UserRate);
        }
        let is_frequent = !told.charge(now_micros, TOLD_ONE_BY_ONE);
        let entry = match state.users.get_mut(user) {
            Some(entry) => entry,
            None => state.users.entry(user.clone()).or_default(),
        };
        (entry.live, entry.rate, entry.told) = (live + 1, rate, told);
        state.present += usize::from(live == 0);
        state.count_in_realm(user);
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
        let is_gone = entry.live == 0;
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
mod tests {
    use super::*;

    fn user(name: &str) -> User {
        User::fixed(name)
    }

    fn per_user(limit: u32) -> QuotaLimits {
        QuotaLimits { per_user: Some(limit), ..QuotaLimits::default() }
    }

    fn rate(per_second: u32, burst: u32) -> QuotaLimits {
        QuotaLimits { rate: Some(AllocationRate { per_second, burst }), ..QuotaLimits::default() }
    }

    /// Makes allocations and ends each at once until one is refused.
    fn cycles(quotas: &Arc<Quotas>, limits: QuotaLimits, user: &User, now_micros: u64) -> usize {
        (0..1_000_000).take_while(|_| quotas.reserve(limits, user, now_micros).is_ok()).count()
    }

    #[test]
    fn a_user_at_the_limit_is_refused_while_others_are_served() {
        let quotas = Arc::new(Quotas::default());
        let first = quotas.reserve(per_user(2), &user("ann"), 0).unwrap();
        let _second = quotas.reserve(per_user(2), &user("ann"), 0).unwrap();
        assert_eq!(quotas.reserve(per_user(2), &user("ann"), 0).unwrap_err(), Reason::UserQuota);
        let _other = quotas.reserve(per_user(2), &user("bob"), 0).unwrap();
        drop(first);
        let _third = quotas.reserve(per_user(2), &user("ann"), 0).unwrap();
        assert_eq!((quotas.in_use(), quotas.in_use_by(&user("ann")), quotas.users()), (3, 2, 2));
    }

    #[test]
    fn a_static_and_a_time_limited_user_of_one_name_are_two() {
        let quotas = Arc::new(Quotas::default());
        let _held = quotas.reserve(per_user(1), &User::fixed("ann"), 0).unwrap();
        let _other = quotas.reserve(per_user(1), &User::time_limited("ann"), 0).unwrap();
        assert_eq!(quotas.reserve(per_user(1), &User::time_limited("ann"), 0).unwrap_err(), Reason::UserQuota);
        assert_eq!(quotas.users(), 2);
    }

    #[test]
    fn a_refusal_counts_nothing_and_leaves_no_entry() {
        let quotas = Arc::new(Quotas::default());
        let limits = QuotaLimits { total: Some(1), ..per_user(5) };
        let held = quotas.reserve(limits, &user("ann"), 0).unwrap();
        assert_eq!(quotas.reserve(limits, &user("bob"), 0).unwrap_err(), Reason::TotalQuota);
        assert_eq!((quotas.in_use(), quotas.in_use_by(&user("bob")), quotas.remembered()), (1, 0, 1));
        drop(held);
        assert_eq!((quotas.in_use(), quotas.users()), (0, 0));
    }

    #[test]
    fn what_was_made_elsewhere_counts_above_the_limit_and_costs_nothing_of_the_rate() {
        let quotas = Arc::new(Quotas::default());
        let limits = QuotaLimits { per_user: Some(1), total: Some(1), ..rate(1, 1) };
        let moved: Vec<_> = (0..3).map(|n| quotas.readmit(&user("ann"), n == 1)).collect();
        assert_eq!(moved.iter().map(Reservation::is_frequent).collect::<Vec<_>>(), [false, true, false]);
        assert_eq!((quotas.in_use(), quotas.in_use_by(&user("ann")), quotas.users()), (3, 3, 1));
        assert_eq!(quotas.reserve(limits, &user("ann"), 0).unwrap_err(), Reason::UserQuota);
        drop(moved);
        assert_eq!((quotas.in_use(), quotas.users(), quotas.remembered()), (0, 0, 0));
        assert!(quotas.reserve(limits, &user("ann"), 0).is_ok());
    }

    #[test]
    fn moves_are_told_one_by_one_up_to_a_pace_of_the_user_that_outlives_its_allocations() {
        let quotas = Arc::new(Quotas::default());
        let told = |name: &str, now_micros: u64| {
            (0..10_000).take_while(|_| quotas.tells_move(&user(name), now_micros)).count()
        };
        let held = quotas.reserve(per_user(9), &user("ann"), 0).unwrap();
        let _other = quotas.reserve(per_user(9), &user("bob"), 0).unwrap();
        assert_eq!((told("ann", 0), told("ann", 3 * SECOND), told("bob", 0)), (1000, 3, 1000));
        drop(held);
        let held = quotas.reserve(per_user(9), &user("ann"), 3 * SECOND).unwrap();
        assert!(!held.is_frequent(), "moves cost no line of an allocation");
        assert_eq!(told("ann", 3 * SECOND), 0);
    }

    #[test]
    fn a_limit_of_zero_refuses_everyone() {
        let quotas = Arc::new(Quotas::default());
        assert_eq!(quotas.reserve(per_user(0), &user("ann"), 0).unwrap_err(), Reason::UserQuota);
        let none = QuotaLimits { total: Some(0), ..QuotaLimits::default() };
        assert_eq!(quotas.reserve(none, &user("ann"), 0).unwrap_err(), Reason::TotalQuota);
    }

    #[test]
    fn what_was_unlimited_counts_when_a_limit_is_set() {
        let quotas = Arc::new(Quotas::default());
        let _held = quotas.reserve(QuotaLimits::default(), &user("ann"), 0).unwrap();
        assert_eq!(quotas.reserve(per_user(1), &user("ann"), 0).unwrap_err(), Reason::UserQuota);
    }

    #[test]
    fn a_user_may_allocate_a_burst_at_once_and_the_rate_from_then_on() {
        let quotas = Arc::new(Quotas::default());
        let limits = rate(10, 50);
        assert_eq!(cycles(&quotas, limits, &user("ann"), SECOND), 50);
        assert_eq!(quotas.reserve(limits, &user("ann"), SECOND).unwrap_err(), Reason::UserRate);
        assert_eq!(cycles(&quotas, limits, &user("bob"), SECOND), 50, "another user has a burst of its own");
        assert_eq!(cycles(&quotas, limits, &user("ann"), 2 * SECOND), 10);
        // Who goes away and comes back gets no fresh burst.
        assert_eq!((quotas.in_use(), quotas.users()), (0, 0));
        assert_eq!(cycles(&quotas, limits, &user("ann"), 3 * SECOND), 10);
        assert_eq!(cycles(&quotas, limits, &user("ann"), 60 * SECOND), 50);
    }

    #[test]
    fn a_reload_to_another_rate_counts_at_once_and_an_old_debt_is_one_burst_at_most() {
        let quotas = Arc::new(Quotas::default());
        assert_eq!(cycles(&quotas, rate(1, 1000), &user("ann"), 0), 1000);
        assert_eq!(cycles(&quotas, rate(10, 20), &user("ann"), 0), 0);
        assert_eq!(cycles(&quotas, rate(10, 20), &user("ann"), 2 * SECOND), 20);
    }

    #[test]
    fn only_what_exceeds_a_pace_that_people_have_is_frequent() {
        let quotas = Arc::new(Quotas::default());
        let frequent =
            |now_micros| quotas.reserve(QuotaLimits::default(), &user("ann"), now_micros).unwrap().is_frequent();
        assert!((0..1000).all(|_| !frequent(0)));
        assert!((0..1000).all(|_| frequent(0)));
        assert!(!frequent(SECOND) && frequent(SECOND));
    }

    #[test]
    fn what_is_known_of_users_is_forgotten_when_their_debts_are_paid_and_bounded_until_then() {
        let quotas = Arc::new(Quotas::default());
        let limits = rate(10, 50);
        let name = |n: usize| user(&n.to_string());
        (0..DEPARTED_MAX + 10_000).for_each(|n| drop(quotas.reserve(limits, &name(n), 0)));
        assert_eq!((quotas.in_use(), quotas.remembered()), (0, DEPARTED_MAX));
        // Each new allocation looks at two of them.
        (0..DEPARTED_MAX).for_each(|n| drop(quotas.reserve(limits, &name(n), 2000 * SECOND)));
        (0..DEPARTED_MAX).for_each(|_| drop(quotas.reserve(limits, &name(0), 4000 * SECOND)));
        assert!(quotas.remembered() <= 2, "{}", quotas.remembered());
        let state = quotas.lock();
        assert!(state.users.capacity() <= 2 * SHRINK_MIN, "{}", state.users.capacity());
    }
}
