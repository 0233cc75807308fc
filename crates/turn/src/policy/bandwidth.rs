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
mod tests {
    use super::super::buckets::PACKET_BYTES_MIN;
    use super::*;
    use crate::clock::SECOND;
    use std::sync::atomic::Ordering;

    /// Offers what counts for so many bytes.
    trait Offer {
        fn to_peer(&mut self, now_micros: u64, bytes: usize) -> bool;
        fn to_client(&mut self, now_micros: u64, bytes: usize) -> bool;
    }

    impl Offer for Meter {
        fn to_peer(&mut self, now_micros: u64, bytes: usize) -> bool {
            self.admit_to_peer(now_micros, Family::V4, bytes - 28)
        }

        fn to_client(&mut self, now_micros: u64, bytes: usize) -> bool {
            self.admit_to_client(now_micros, Family::V4, bytes - 28)
        }
    }

    struct Fixture {
        users: Arc<UserBandwidths>,
        user: User,
    }

    impl Fixture {
        fn new() -> Self {
            Self { users: Arc::default(), user: User::fixed("ann") }
        }

        fn meter(&self, per_allocation: Option<u64>, per_user: Option<u64>) -> Meter {
            let limits = BandwidthLimits { per_allocation, per_user, ..BandwidthLimits::default() };
            Meter::new(limits, &self.users, &self.user, 0)
        }
    }

    /// Offers packets of 1000 bytes to `admit` at ten times the rate over the given time; returns the bytes that passed.
    fn offered(bytes_per_sec: u64, from_secs: u64, secs: u64, mut admit: impl FnMut(u64, usize) -> bool) -> u64 {
        let packets_per_sec = bytes_per_sec / 100;
        let packets = packets_per_sec * secs;
        let admitted = (0..packets).filter(|packet| {
            let now_micros = from_secs * SECOND + packet * SECOND / packets_per_sec;
            admit(now_micros, 1000)
        });
        admitted.count() as u64 * 1000
    }

    fn assert_about(bytes: u64, expected: u64) {
        assert!(bytes <= expected && bytes + 3000 > expected, "{bytes} of {expected}");
    }

    #[test]
    fn an_unlimited_meter_is_one_null_pointer_and_admits_everything() {
        let fixture = Fixture::new();
        let mut meter = fixture.meter(None, None);
        assert_eq!(size_of::<Meter>(), size_of::<usize>());
        assert!(meter.metered.is_none());
        assert!(meter.to_peer(0, usize::MAX) && meter.to_client(0, usize::MAX));
        assert_eq!(fixture.users.users(), 0);
    }

    #[test]
    fn an_allocation_passes_its_burst_and_then_its_rate_in_each_direction() {
        for rate in [100_000, 1_000_000, 12_345_678] {
            let mut meter = Fixture::new().meter(Some(rate), None);
            assert_about(offered(rate, 0, 3, |now, bytes| meter.to_peer(now, bytes)), rate * 4);
            assert_about(offered(rate, 0, 3, |now, bytes| meter.to_client(now, bytes)), rate * 4);
        }
    }

    #[test]
    fn a_pause_earns_one_burst_and_no_more() {
        let rate = 100_000;
        let mut meter = Fixture::new().meter(Some(rate), None);
        offered(rate, 0, 2, |now, bytes| meter.to_peer(now, bytes));
        assert_about(offered(rate, 1000, 1, |now, bytes| meter.to_peer(now, bytes)), rate * 2);
    }

    #[test]
    fn the_largest_datagram_passes_the_smallest_cap_once() {
        let mut meter = Fixture::new().meter(Some(1), None);
        assert!(meter.admit_to_peer(0, Family::V6, 65_527));
        assert!(!meter.admit_to_peer(SECOND, Family::V6, 65_527));
    }

    #[test]
    fn a_cap_of_zero_lets_nothing_through() {
        for limits in [(Some(0), None), (None, Some(0))] {
            let mut meter = Fixture::new().meter(limits.0, limits.1);
            assert!(!meter.to_peer(0, 28) && !meter.to_client(100 * SECOND, 28));
        }
    }

    #[test]
    fn allocations_of_one_user_share_the_users_cap_and_other_users_do_not() {
        let fixture = Fixture::new();
        let rate = 200_000;
        let mut meters = [fixture.meter(None, Some(rate)), fixture.meter(None, Some(rate))];
        let mut turn = 0;
        let shared = offered(rate, 0, 2, |now, bytes| {
            turn += 1;
            meters[turn % 2].to_peer(now, bytes)
        });
        assert_about(shared, rate * 3);
        let limits = BandwidthLimits { per_user: Some(rate), ..BandwidthLimits::default() };
        let mut other = Meter::new(limits, &fixture.users, &User::fixed("bob"), 2 * SECOND);
        assert!(other.to_peer(2 * SECOND, 100_000));
    }

    #[test]
    fn workers_that_race_for_a_users_cap_never_exceed_it_together() {
        let fixture = Fixture::new();
        let admitted = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                // Each worker may be done, and its meter gone, before the next one starts.
                let mut meter = fixture.meter(None, Some(1_000_000));
                let admitted = &admitted;
                scope.spawn(move || {
                    for _ in 0..2500 {
                        admitted.fetch_add(usize::from(meter.to_client(SECOND, 200)), Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(admitted.into_inner(), 5_000, "one second's worth, no more and no less");
    }

    #[test]
    fn a_packet_refused_by_the_users_cap_is_not_taken_from_the_allocations() {
        let fixture = Fixture::new();
        let mut greedy = fixture.meter(None, Some(100_000));
        assert!(greedy.to_peer(0, 100_000));
        let mut modest = fixture.meter(Some(100_000), Some(100_000));
        assert!(!modest.to_peer(0, 60_000));
        assert!(!modest.to_peer(0, 60_000));
        assert!(modest.to_peer(SECOND, 100_000), "both buckets are full again after one second");
        let mut capped = fixture.meter(Some(1), Some(100_000));
        assert!(!capped.to_client(0, 65_601));
        assert!(greedy.to_client(0, 100_000), "what the allocation refused is not taken from the user");
    }

    #[test]
    fn the_users_entry_goes_with_the_last_allocation() {
        let fixture = Fixture::new();
        let first = fixture.meter(None, Some(100_000));
        let second = fixture.meter(None, Some(100_000));
        drop(first);
        assert_eq!(fixture.users.users(), 1);
        drop(second);
        assert_eq!(fixture.users.users(), 0);
        assert_eq!(Arc::strong_count(&fixture.users), 1);
    }

    #[test]
    fn a_user_who_makes_allocations_anew_gets_no_fresh_burst() {
        let fixture = Fixture::new();
        assert!(fixture.meter(None, Some(100_000)).to_peer(0, 100_000));
        for now_micros in [0, SECOND / 10] {
            assert!(!fixture.meter(None, Some(100_000)).to_peer(now_micros, 20_000));
        }
        assert!(fixture.meter(None, Some(100_000)).to_peer(SECOND, 100_000));
    }

    #[test]
    fn after_a_peak_of_users_memory_is_given_back() {
        let users = Arc::<UserBandwidths>::default();
        let limits = BandwidthLimits { per_user: Some(100_000), ..BandwidthLimits::default() };
        let meter = |number: u64| Meter::new(limits, &users, &User::fixed(number.to_string()), 0);
        let meters: Vec<_> = (0..20_000).map(meter).collect();
        assert_eq!(users.users(), 20_000);
        drop(meters);
        assert_eq!(users.users(), 0);
        assert!(users.lock().users.capacity() <= 2 * SHRINK_MIN, "{}", users.lock().users.capacity());
    }

    #[test]
    fn users_who_left_in_debt_are_forgotten_when_it_is_paid() {
        let fixture = Fixture::new();
        let limits = BandwidthLimits { per_user: Some(100_000), ..BandwidthLimits::default() };
        let mut most = 0;
        for number in 0..10_000_u64 {
            let now_micros = number * SECOND / 100;
            let user = User::fixed(format!("user {number}"));
            let mut meter = Meter::new(limits, &fixture.users, &user, now_micros);
            assert!(meter.to_peer(now_micros, 100_000));
            most = most.max(fixture.users.users());
        }
        assert!((100..300).contains(&most), "one second of debt at a hundred users a second is not {most} users");
    }

    #[test]
    fn a_reload_sets_raises_lowers_and_lifts_limits_of_a_live_allocation() {
        let fixture = Fixture::new();
        let mut meter = fixture.meter(None, None);
        let set = |meter: &mut Meter, now_micros, per_allocation, per_user| {
            let limits = BandwidthLimits { per_allocation, per_user, ..BandwidthLimits::default() };
            meter.set_limits(limits, &fixture.users, &fixture.user, now_micros);
        };
        set(&mut meter, 0, Some(1000), Some(500_000));
        assert_eq!(fixture.users.users(), 1);
        assert!(meter.to_peer(0, 65_600));
        set(&mut meter, 0, Some(1000), Some(500_000));
        assert!(!meter.to_peer(0, 28), "limits that did not change forgive nothing");
        set(&mut meter, 0, Some(1_000_000), Some(500_000));
        assert!(!meter.to_peer(0, 28));
        assert!(meter.to_peer(SECOND / 10, 100_000), "the new rate counts from now, not after the old debt");
        assert!(!meter.to_peer(SECOND, 600_000), "more than the user may send at once");
        set(&mut meter, SECOND, Some(1_000_000), None);
        assert!(meter.to_peer(SECOND, 600_000));
        set(&mut meter, SECOND, None, None);
        assert!(meter.metered.is_none());
    }

    /// Offers empty packets as fast as they come; returns how many pass in two seconds after the burst.
    fn empty_packets(meter: &mut Meter, family: Family) -> (u64, u64) {
        let mut offer = |secs: std::ops::Range<u64>| {
            let times = (secs.start * SECOND..secs.end * SECOND).step_by(10);
            times.filter(|now| meter.admit_to_peer(*now, family, 0)).count() as u64
        };
        (offer(0..1), offer(1..3))
    }

    #[test]
    fn packets_without_payload_have_a_price_and_a_cap_on_bytes_is_one_on_packets() {
        for family in [Family::V4, Family::V6] {
            for limits in [(Some(100_000), None), (None, Some(100_000))] {
                let mut meter = Fixture::new().meter(limits.0, limits.1);
                let (first, then) = empty_packets(&mut meter, family);
                assert!(first <= 2 * 100_000 / PACKET_BYTES_MIN, "{first}");
                assert!((1550..=1563).contains(&then), "{then} in two seconds at 781 a second");
            }
        }
    }

    #[test]
    fn headers_have_a_price_by_the_family_of_the_peer() {
        assert_eq!([0, 80, 100, 101, 1200].map(|len| price(Family::V4, len)), [128, 128, 128, 129, 1228]);
        assert_eq!([0, 80, 81, 1200].map(|len| price(Family::V6, len)), [128, 128, 129, 1248]);
    }

    #[test]
    fn a_cap_on_packets_holds_whatever_their_size_and_leaves_the_cap_on_bytes_alone() {
        for (packets_per_allocation, packets_per_user) in [(Some(1000), None), (None, Some(1000))] {
            let fixture = Fixture::new();
            let limits = BandwidthLimits { packets_per_allocation, packets_per_user, ..BandwidthLimits::default() };
            let mut meter = Meter::new(limits, &fixture.users, &fixture.user, 0);
            let (first, then) = empty_packets(&mut meter, Family::V4);
            assert!((1990..=2000).contains(&first) && (1995..=2000).contains(&then), "{first}, {then}");
            assert!(meter.admit_to_client(3 * SECOND, Family::V4, 65_000), "the other direction has its own");
            let bytes = BandwidthLimits { per_user: Some(100_000), ..limits };
            meter.set_limits(bytes, &fixture.users, &fixture.user, 10 * SECOND);
            // A byte cap that is used up charges no packets.
            assert!(meter.admit_to_peer(10 * SECOND, Family::V4, 99_000));
            assert!((0..5000).all(|_| !meter.admit_to_peer(10 * SECOND, Family::V4, 1000)));
            let passed = (0..5000).filter(|_| meter.admit_to_peer(12 * SECOND, Family::V4, 0)).count();
            assert_eq!(passed as u64, 100_000 / PACKET_BYTES_MIN);
        }
    }

    #[test]
    fn two_caps_of_packets_and_bytes_hold_over_all_of_a_users_allocations() {
        let fixture = Fixture::new();
        let limits = BandwidthLimits { packets_per_user: Some(500), ..BandwidthLimits::default() };
        let mut meters = [0, 1].map(|_| Meter::new(limits, &fixture.users, &fixture.user, 0));
        let passed = (0..2000).filter(|turn| meters[turn % 2].admit_to_peer(0, Family::V4, 10)).count();
        assert_eq!(passed, 500);
        drop(meters);
        assert_eq!(fixture.users.users(), 1, "what was used up is remembered");
        let mut again = Meter::new(limits, &fixture.users, &fixture.user, SECOND / 10);
        assert_eq!((0..500).filter(|_| again.admit_to_peer(SECOND / 10, Family::V4, 10)).count(), 50);
    }
}
