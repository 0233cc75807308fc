//! Bandwidth caps: token buckets per allocation (worker-local) and per user (shared, atomic). Each direction has its own.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::buckets::{Paid, Rates, UserBuckets, forgiven, price};
use crate::addr::Family;
use crate::traffic::Direction;
use crate::user::User;

/// A table of fewer users is not worth giving memory back for.
const SHRINK_MIN: usize = 1024;

/// Caps in bytes and packets per second and direction; `None` is unlimited, 0 lets nothing through.
///
/// A packet counts for its payload and the IP and UDP headers around it, and for no less than 128 bytes.
/// After a pause, one second's worth may pass at once, but at least 65,600 bytes and 100 packets. A video key frame
/// is many times the size of the frames between, and leaves the sender as one burst: a cap meant for an average must let it pass
/// whole, or the picture freezes until the next one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BandwidthLimits {
    /// Bytes per allocation.
    pub per_allocation: Option<u64>,
    /// Bytes per user, over all of the user's allocations on all workers.
    pub per_user: Option<u64>,
    /// Packets per allocation.
    pub packets_per_allocation: Option<u64>,
    /// Packets per user, in the same way.
    pub packets_per_user: Option<u64>,
}

/// The users' shared buckets.
///
/// An entry goes with the last of the user's metered allocations, or later if the user has used more by then than the rate
/// allows: a user who ends all allocations and makes new ones gets no fresh burst by that.
#[derive(Debug, Default)]
pub struct UserBandwidths {
    state: Mutex<UsersState>,
}

#[derive(Debug, Default)]
struct UsersState {
    users: HashMap<User, UserEntry>,
    /// Users without allocations who were in debt when the last one ended. Every new allocation looks at two of them and
    /// every end adds at most one, so that the queue stays shorter than the number of users that were there at once.
    departed: VecDeque<User>,
    /// The latest time that anyone told.
    now_nanos: u64,
}

#[derive(Debug, Default)]
struct UserEntry {
    buckets: Arc<UserBuckets>,
    meters: usize,
    is_departed: bool,
}

impl UserBandwidths {
    /// Users with a bucket now.
    pub fn users(&self) -> usize {
        self.lock().users.len()
    }

    fn join(self: &Arc<Self>, user: &User, now_nanos: u64) -> UserShare {
        let mut state = self.lock();
        state.now_nanos = state.now_nanos.max(now_nanos);
        state.forget_departed();
        state.forget_departed();
        let entry = state.users.entry(user.clone()).or_default();
        entry.meters += 1;
        UserShare { buckets: Arc::clone(&entry.buckets), registry: Arc::clone(self), user: user.clone() }
    }

    fn leave(&self, user: &User) {
        let mut state = self.lock();
        let now_nanos = state.now_nanos;
        let Some(entry) = state.users.get_mut(user) else { return };
        entry.meters -= 1;
        if entry.meters > 0 || entry.is_departed {
            return;
        }
        if entry.buckets.are_full(now_nanos) {
            state.forget(user);
        } else {
            entry.is_departed = true;
            state.departed.push_back(user.clone());
        }
    }

    fn lock(&self) -> MutexGuard<'_, UsersState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl UsersState {
    /// Looks at the user who departed first, if any: forgets one whose debt is paid, lets go of one who is back.
    fn forget_departed(&mut self) {
        let Some(user) = self.departed.pop_front() else { return };
        let Some(entry) = self.users.get_mut(&user) else { return };
        if entry.meters > 0 {
            entry.is_departed = false;
        } else if entry.buckets.are_full(self.now_nanos) {
            self.forget(&user);
        } else {
            self.departed.push_back(user);
        }
    }

    /// Forgets a user, and gives memory back after a peak.
    fn forget(&mut self, user: &User) {
        self.users.remove(user);
        let kept = self.users.len();
        if self.users.capacity() > SHRINK_MIN && kept < self.users.capacity() / 8 {
            self.users.shrink_to(kept * 2);
            self.departed.shrink_to(kept * 2);
        }
    }
}

/// What the buckets of an allocation were charged, and those it shares with others of its user: what goes along when it moves to
/// another process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MeterState {
    /// The allocation's own, towards peers.
    pub to_peer: Paid,
    /// The allocation's own, towards the client.
    pub to_client: Paid,
    /// The user's, towards peers.
    pub user_to_peer: Paid,
    /// The user's, towards clients.
    pub user_to_client: Paid,
}

/// What one allocation is metered by; kept in the allocation. One pointer, null when nothing is limited.
#[derive(Debug)]
pub struct Meter {
    metered: Option<Box<Metered>>,
}

impl Meter {
    /// The meter of a new allocation of `user`. Costs no memory beyond itself when nothing is limited.
    pub fn new(limits: BandwidthLimits, users: &Arc<UserBandwidths>, user: &User, now_micros: u64) -> Self {
        let mut meter = Self { metered: None };
        meter.set_limits(limits, users, user, now_micros);
        meter
    }

    /// The meter of an allocation that comes from another process: what it was charged there counts here. Of a debt that is more than a
    /// burst by the limits here, one burst is left.
    pub fn resume(
        limits: BandwidthLimits,
        users: &Arc<UserBandwidths>,
        user: &User,
        now_micros: u64,
        state: MeterState,
    ) -> Self {
        let mut meter = Self::new(limits, users, user, now_micros);
        let now_nanos = now_micros.saturating_mul(1000);
        if let Some(metered) = &mut meter.metered {
            metered.to_peer = state.to_peer.bounded(metered.rates, now_nanos);
            metered.to_client = state.to_client.bounded(metered.rates, now_nanos);
            if let Some((rates, share)) = &metered.user {
                share.buckets.to_peer.raise(state.user_to_peer.bounded(*rates, now_nanos));
                share.buckets.to_client.raise(state.user_to_client.bounded(*rates, now_nanos));
            }
        }
        meter
    }

    /// What its buckets were charged; nothing where nothing is limited.
    pub fn state(&self) -> MeterState {
        let Some(metered) = &self.metered else { return MeterState::default() };
        let user = metered.user.as_ref().map(|(_, share)| &share.buckets);
        MeterState {
            to_peer: metered.to_peer,
            to_client: metered.to_client,
            user_to_peer: user.map(|buckets| buckets.to_peer.load()).unwrap_or_default(),
            user_to_client: user.map(|buckets| buckets.to_client.load()).unwrap_or_default(),
        }
    }

    /// Whether `payload` bytes from client to peer may pass; takes their price from the buckets if so.
    #[inline]
    pub fn admit_to_peer(&mut self, now_micros: u64, peer: Family, payload: usize) -> bool {
        match &mut self.metered {
            None => true,
            Some(metered) => metered.admit(now_micros, price(peer, payload), Direction::ToPeers),
        }
    }

    /// Whether `payload` bytes from peer to client may pass.
    #[inline]
    pub fn admit_to_client(&mut self, now_micros: u64, peer: Family, payload: usize) -> bool {
        match &mut self.metered {
            None => true,
            Some(metered) => metered.admit(now_micros, price(peer, payload), Direction::ToClients),
        }
    }

    /// Whether anything is limited.
    pub fn is_limited(&self) -> bool {
        self.metered.is_some()
    }

    /// Takes the limits of a reload, with the same `users` and `user` as at [`Self::new`]. Limits that did not change keep
    /// their buckets as they are; a bucket that owes more than its new burst owes that burst.
    pub fn set_limits(&mut self, limits: BandwidthLimits, users: &Arc<UserBandwidths>, user: &User, now_micros: u64) {
        if limits == BandwidthLimits::default() {
            self.metered = None;
            return;
        }
        let now_nanos = now_micros.saturating_mul(1000);
        let metered = self.metered.get_or_insert_default();
        let rates = Rates::new(limits.per_allocation, limits.packets_per_allocation);
        for paid in [&mut metered.to_peer, &mut metered.to_client] {
            paid.bytes_until_nanos = forgiven(metered.rates.bytes, rates.bytes, paid.bytes_until_nanos, now_nanos);
            paid.packets_until_nanos =
                forgiven(metered.rates.packets, rates.packets, paid.packets_until_nanos, now_nanos);
        }
        metered.rates = rates;
        let rates = Rates::new(limits.per_user, limits.packets_per_user);
        metered.user = (rates != Rates::default()).then(|| match metered.user.take() {
            None => (rates, users.join(user, now_nanos)),
            Some((old, share)) => {
                share.buckets.forgive(old, rates, now_nanos);
                (rates, share)
            }
        });
    }
}

/// What an allocation and its user may pass, and what the allocation has passed.
#[derive(Debug, Default)]
struct Metered {
    rates: Rates,
    to_peer: Paid,
    to_client: Paid,
    user: Option<(Rates, UserShare)>,
}

impl Metered {
    fn admit(&mut self, now_micros: u64, price: u64, direction: Direction) -> bool {
        let now_nanos = now_micros.saturating_mul(1000);
        let own = match direction {
            Direction::ToPeers => &mut self.to_peer,
            Direction::ToClients => &mut self.to_client,
        };
        // The allocation's buckets are charged last: only then is it certain that all of them let the packet pass.
        let Some(charged) = self.rates.charge(*own, now_nanos, price) else { return false };
        if let Some((rates, share)) = &self.user {
            let buckets = match direction {
                Direction::ToPeers => &share.buckets.to_peer,
                Direction::ToClients => &share.buckets.to_client,
            };
            if !buckets.charge(rates, now_nanos, price) {
                return false;
            }
        }
        *own = charged;
        true
    }
}

/// An allocation's hold on its user's buckets.
#[derive(Debug)]
struct UserShare {
    buckets: Arc<UserBuckets>,
    registry: Arc<UserBandwidths>,
    user: User,
}

impl Drop for UserShare {
    fn drop(&mut self) {
        self.registry.leave(&self.user);
    }
}

#[cfg(test)]
mod tests;
