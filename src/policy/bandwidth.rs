//! Bandwidth caps: token buckets per allocation (worker-local) and per user (shared, atomic). Each direction has its own.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Caps in bytes per second and direction; `None` is unlimited, 0 lets nothing through.
///
/// The bytes are payload, without STUN, UDP and IP headers. After a pause, one second's worth may pass at once, but at
/// least 65,536 bytes. A video key frame is many times the size of the frames between, and leaves the sender as one burst:
/// a cap meant for an average must let it pass whole, or the picture freezes until the next one. The lower bound is the
/// size of the largest datagram, which could otherwise never pass a small cap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BandwidthLimits {
    /// Per allocation.
    pub per_allocation: Option<u64>,
    /// Per user, over all of the user's allocations on all workers.
    pub per_user: Option<u64>,
}

const MIN_BURST_BYTES: u64 = 65_536;

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
    users: HashMap<Arc<str>, UserEntry>,
    /// Users without allocations who were in debt when the last one ended. Every new allocation looks at two of them and
    /// every end adds at most one, so that the queue stays shorter than the number of users that were there at once.
    departed: VecDeque<Arc<str>>,
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

    fn join(self: &Arc<Self>, user: &Arc<str>, now_nanos: u64) -> UserShare {
        let mut state = self.lock();
        state.now_nanos = state.now_nanos.max(now_nanos);
        state.forget_departed();
        state.forget_departed();
        let entry = state.users.entry(Arc::clone(user)).or_default();
        entry.meters += 1;
        UserShare { buckets: Arc::clone(&entry.buckets), registry: Arc::clone(self), user: Arc::clone(user) }
    }

    fn leave(&self, user: &Arc<str>) {
        let mut state = self.lock();
        let now_nanos = state.now_nanos;
        let Some(entry) = state.users.get_mut(user) else { return };
        entry.meters -= 1;
        if entry.meters > 0 || entry.is_departed {
            return;
        }
        if entry.buckets.are_full(now_nanos) {
            state.users.remove(user);
        } else {
            entry.is_departed = true;
            state.departed.push_back(Arc::clone(user));
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
            self.users.remove(&user);
        } else {
            self.departed.push_back(user);
        }
    }
}

/// What one allocation is metered by; kept in the allocation. One pointer, null when nothing is limited.
#[derive(Debug)]
pub struct Meter {
    metered: Option<Box<Metered>>,
}

impl Meter {
    /// The meter of a new allocation of `user`. Costs no memory beyond itself when nothing is limited.
    pub fn new(limits: BandwidthLimits, users: &Arc<UserBandwidths>, user: &Arc<str>, now_micros: u64) -> Self {
        let mut meter = Self { metered: None };
        meter.set_limits(limits, users, user, now_micros);
        meter
    }

    /// Whether `bytes` of payload from client to peer may pass; takes them from the buckets if so.
    pub fn admit_to_peer(&mut self, now_micros: u64, bytes: usize) -> bool {
        match &mut self.metered {
            None => true,
            Some(metered) => metered.admit(now_micros, bytes, Direction::ToPeer),
        }
    }

    /// Whether `bytes` of payload from peer to client may pass.
    pub fn admit_to_client(&mut self, now_micros: u64, bytes: usize) -> bool {
        match &mut self.metered {
            None => true,
            Some(metered) => metered.admit(now_micros, bytes, Direction::ToClient),
        }
    }

    /// Takes the limits of a reload, with the same `users` and `user` as at [`Self::new`]. Limits that did not change keep
    /// their buckets as they are; a bucket that owes more than its new burst owes that burst.
    pub fn set_limits(
        &mut self,
        limits: BandwidthLimits,
        users: &Arc<UserBandwidths>,
        user: &Arc<str>,
        now_micros: u64,
    ) {
        if limits == BandwidthLimits::default() {
            self.metered = None;
            return;
        }
        let now_nanos = now_micros.saturating_mul(1000);
        let metered = self.metered.get_or_insert_default();
        let allocation_rate = limits.per_allocation.map(Rate::new);
        if let Some(rate) = allocation_rate.filter(|_| allocation_rate != metered.allocation_rate) {
            let latest_nanos = now_nanos.saturating_add(rate.window_nanos);
            metered.to_peer_paid_until_nanos = metered.to_peer_paid_until_nanos.min(latest_nanos);
            metered.to_client_paid_until_nanos = metered.to_client_paid_until_nanos.min(latest_nanos);
        }
        metered.allocation_rate = allocation_rate;
        metered.user = limits.per_user.map(|bytes_per_sec| {
            let rate = Rate::new(bytes_per_sec);
            let Some((old_rate, share)) = metered.user.take() else {
                return (rate, users.join(user, now_nanos));
            };
            if rate != old_rate {
                let latest_nanos = now_nanos.saturating_add(rate.window_nanos);
                share.buckets.to_peer_paid_until_nanos.fetch_min(latest_nanos, Ordering::Relaxed);
                share.buckets.to_client_paid_until_nanos.fetch_min(latest_nanos, Ordering::Relaxed);
            }
            (rate, share)
        });
    }
}

#[derive(Clone, Copy)]
enum Direction {
    ToPeer,
    ToClient,
}

/// Token buckets, each kept as one point in time (generic cell rate algorithm): a packet moves it by the time that its
/// bytes take at the rate, and passes if the point is not further ahead of the clock than the burst takes.
#[derive(Debug, Default)]
struct Metered {
    allocation_rate: Option<Rate>,
    to_peer_paid_until_nanos: u64,
    to_client_paid_until_nanos: u64,
    user: Option<(Rate, UserShare)>,
}

impl Metered {
    fn admit(&mut self, now_micros: u64, bytes: usize, direction: Direction) -> bool {
        let now_nanos = now_micros.saturating_mul(1000);
        let bytes = bytes as u64;
        let own_bucket = match direction {
            Direction::ToPeer => &mut self.to_peer_paid_until_nanos,
            Direction::ToClient => &mut self.to_client_paid_until_nanos,
        };
        // The allocation's bucket is charged last: only then is it certain that both let the packet pass.
        let charged = match self.allocation_rate {
            None => *own_bucket,
            Some(rate) => match rate.charge(*own_bucket, now_nanos, bytes) {
                Some(charged) => charged,
                None => return false,
            },
        };
        if let Some((rate, share)) = &self.user {
            let bucket = match direction {
                Direction::ToPeer => &share.buckets.to_peer_paid_until_nanos,
                Direction::ToClient => &share.buckets.to_client_paid_until_nanos,
            };
            let charge = |paid_until_nanos| rate.charge(paid_until_nanos, now_nanos, bytes);
            if bucket.fetch_update(Ordering::Relaxed, Ordering::Relaxed, charge).is_err() {
                return false;
            }
        }
        *own_bucket = charged;
        true
    }
}

/// A rate as the time that a byte takes and the time that the burst takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rate {
    /// In 1/65,536 nanosecond. This and the cost of a packet are rounded up, so that the cap is never exceeded; a packet
    /// of 1200 bytes at 10 Gbit/s pays 0.1 % too much by that, and less at lower rates.
    per_byte: u64,
    window_nanos: u64,
}

impl Rate {
    fn new(bytes_per_sec: u64) -> Self {
        if bytes_per_sec == 0 {
            return Self { per_byte: u64::MAX, window_nanos: 0 };
        }
        let per_byte = (1_000_000_000_u64 << 16).div_ceil(bytes_per_sec);
        let burst_bytes = bytes_per_sec.max(MIN_BURST_BYTES);
        Self { per_byte, window_nanos: cost_nanos(per_byte, burst_bytes) }
    }

    /// Where the point in time goes when `bytes` pass; `None` when they may not.
    fn charge(self, paid_until_nanos: u64, now_nanos: u64, bytes: u64) -> Option<u64> {
        let charged = paid_until_nanos.max(now_nanos).checked_add(cost_nanos(self.per_byte, bytes))?;
        (charged <= now_nanos.saturating_add(self.window_nanos)).then_some(charged)
    }
}

fn cost_nanos(per_byte: u64, bytes: u64) -> u64 {
    match per_byte.checked_mul(bytes) {
        Some(cost) => cost.div_ceil(1 << 16),
        None => u64::try_from((u128::from(per_byte) * u128::from(bytes)) >> 16).unwrap_or(u64::MAX),
    }
}

#[derive(Debug, Default)]
struct UserBuckets {
    to_peer_paid_until_nanos: AtomicU64,
    to_client_paid_until_nanos: AtomicU64,
}

impl UserBuckets {
    fn are_full(&self, now_nanos: u64) -> bool {
        let buckets = [&self.to_peer_paid_until_nanos, &self.to_client_paid_until_nanos];
        buckets.iter().all(|bucket| bucket.load(Ordering::Relaxed) <= now_nanos)
    }
}

/// An allocation's hold on its user's buckets.
#[derive(Debug)]
struct UserShare {
    buckets: Arc<UserBuckets>,
    registry: Arc<UserBandwidths>,
    user: Arc<str>,
}

impl Drop for UserShare {
    fn drop(&mut self) {
        self.registry.leave(&self.user);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SECOND;

    struct Fixture {
        users: Arc<UserBandwidths>,
        user: Arc<str>,
    }

    impl Fixture {
        fn new() -> Self {
            Self { users: Arc::default(), user: Arc::from("ann") }
        }

        fn meter(&self, per_allocation: Option<u64>, per_user: Option<u64>) -> Meter {
            Meter::new(BandwidthLimits { per_allocation, per_user }, &self.users, &self.user, 0)
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
        assert!(meter.admit_to_peer(0, usize::MAX) && meter.admit_to_client(0, usize::MAX));
        assert_eq!(fixture.users.users(), 0);
    }

    #[test]
    fn an_allocation_passes_its_burst_and_then_its_rate_in_each_direction() {
        for rate in [100_000, 1_000_000, 12_345_678] {
            let mut meter = Fixture::new().meter(Some(rate), None);
            assert_about(offered(rate, 0, 3, |now, bytes| meter.admit_to_peer(now, bytes)), rate * 4);
            assert_about(offered(rate, 0, 3, |now, bytes| meter.admit_to_client(now, bytes)), rate * 4);
        }
    }

    #[test]
    fn a_pause_earns_one_burst_and_no_more() {
        let rate = 100_000;
        let mut meter = Fixture::new().meter(Some(rate), None);
        offered(rate, 0, 2, |now, bytes| meter.admit_to_peer(now, bytes));
        assert_about(offered(rate, 1000, 1, |now, bytes| meter.admit_to_peer(now, bytes)), rate * 2);
    }

    #[test]
    fn the_largest_datagram_passes_the_smallest_cap_once() {
        let mut meter = Fixture::new().meter(Some(1), None);
        assert!(meter.admit_to_peer(0, 65_507));
        assert!(!meter.admit_to_peer(SECOND, 65_507));
    }

    #[test]
    fn a_cap_of_zero_lets_nothing_through() {
        for limits in [(Some(0), None), (None, Some(0))] {
            let mut meter = Fixture::new().meter(limits.0, limits.1);
            assert!(!meter.admit_to_peer(0, 1) && !meter.admit_to_client(100 * SECOND, 1));
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
            meters[turn % 2].admit_to_peer(now, bytes)
        });
        assert_about(shared, rate * 3);
        let limits = BandwidthLimits { per_allocation: None, per_user: Some(rate) };
        let mut other = Meter::new(limits, &fixture.users, &Arc::from("bob"), 2 * SECOND);
        assert!(other.admit_to_peer(2 * SECOND, 100_000));
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
                    for _ in 0..5000 {
                        admitted.fetch_add(usize::from(meter.admit_to_client(SECOND, 100)), Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(admitted.into_inner(), 10_000, "one second's worth, no more and no less");
    }

    #[test]
    fn a_packet_refused_by_the_users_cap_is_not_taken_from_the_allocations() {
        let fixture = Fixture::new();
        let mut greedy = fixture.meter(None, Some(100_000));
        assert!(greedy.admit_to_peer(0, 100_000));
        let mut modest = fixture.meter(Some(100_000), Some(100_000));
        assert!(!modest.admit_to_peer(0, 60_000));
        assert!(!modest.admit_to_peer(0, 60_000));
        assert!(modest.admit_to_peer(SECOND, 100_000), "both buckets are full again after one second");
        let mut capped = fixture.meter(Some(1), Some(100_000));
        assert!(!capped.admit_to_client(0, 65_537));
        assert!(greedy.admit_to_client(0, 100_000), "what the allocation refused is not taken from the user");
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
        assert!(fixture.meter(None, Some(100_000)).admit_to_peer(0, 100_000));
        for now_micros in [0, SECOND / 10] {
            assert!(!fixture.meter(None, Some(100_000)).admit_to_peer(now_micros, 20_000));
        }
        assert!(fixture.meter(None, Some(100_000)).admit_to_peer(SECOND, 100_000));
    }

    #[test]
    fn users_who_left_in_debt_are_forgotten_when_it_is_paid() {
        let fixture = Fixture::new();
        let limits = BandwidthLimits { per_allocation: None, per_user: Some(100_000) };
        let mut most = 0;
        for number in 0..10_000_u64 {
            let now_micros = number * SECOND / 100;
            let user: Arc<str> = Arc::from(format!("user {number}"));
            let mut meter = Meter::new(limits, &fixture.users, &user, now_micros);
            assert!(meter.admit_to_peer(now_micros, 100_000));
            most = most.max(fixture.users.users());
        }
        assert!((100..300).contains(&most), "one second of debt at a hundred users a second is not {most} users");
    }

    #[test]
    fn a_reload_sets_raises_lowers_and_lifts_limits_of_a_live_allocation() {
        let fixture = Fixture::new();
        let mut meter = fixture.meter(None, None);
        let set = |meter: &mut Meter, now_micros, per_allocation, per_user| {
            let limits = BandwidthLimits { per_allocation, per_user };
            meter.set_limits(limits, &fixture.users, &fixture.user, now_micros);
        };
        set(&mut meter, 0, Some(1000), Some(500_000));
        assert_eq!(fixture.users.users(), 1);
        assert!(meter.admit_to_peer(0, 65_536));
        set(&mut meter, 0, Some(1000), Some(500_000));
        assert!(!meter.admit_to_peer(0, 1), "limits that did not change forgive nothing");
        set(&mut meter, 0, Some(1_000_000), Some(500_000));
        assert!(!meter.admit_to_peer(0, 1));
        assert!(meter.admit_to_peer(SECOND / 10, 100_000), "the new rate counts from now, not after the old debt");
        assert!(!meter.admit_to_peer(SECOND, 600_000), "more than the user may send at once");
        set(&mut meter, SECOND, Some(1_000_000), None);
        assert!(meter.admit_to_peer(SECOND, 600_000));
        set(&mut meter, SECOND, None, None);
        assert!(meter.metered.is_none());
    }
}
