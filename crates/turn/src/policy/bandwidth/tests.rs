//! What a meter lets pass, by itself and with others of its user.

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
fn a_meter_that_comes_from_another_process_owes_what_it_owed_there_but_no_more_than_a_burst() {
    let limits = |per_allocation, per_user| BandwidthLimits {
        per_allocation: Some(per_allocation),
        per_user: Some(per_user),
        ..BandwidthLimits::default()
    };
    let (there, here) = (Fixture::new(), Fixture::new());
    let resume = |limits, state| Meter::resume(limits, &here.users, &here.user, 0, state);
    let drain = |meter: &mut Meter| (0..1000).take_while(|_| meter.to_peer(0, 1000)).count();
    let mut meters = [there.meter(Some(100_000), Some(150_000)), there.meter(Some(100_000), Some(150_000))];
    assert_eq!(drain(&mut meters[0]), 100, "its own burst");
    let mut moved: Vec<_> = meters.iter().map(|meter| resume(limits(100_000, 150_000), meter.state())).collect();
    assert_eq!(moved[0].state(), meters[0].state());
    assert!(!moved[0].to_peer(0, 1000) && moved[0].to_client(0, 1000));
    let left = drain(&mut moved[1]);
    assert!(left == 49 || left == 50, "what both have brought of their user counts once: {left}");
    drop(moved);

    let mut slower = resume(limits(70_000, 200_000), meters[0].state());
    assert!(
        !slower.to_peer(SECOND / 100, 1000) && slower.to_peer(SECOND / 50, 1000),
        "one burst of the rate here is owed"
    );
    let unlimited = resume(BandwidthLimits::default(), meters[0].state());
    assert_eq!(unlimited.state(), MeterState::default());
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
