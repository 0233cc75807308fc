//! How allocations are counted, and how often a user may make one.

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
    let told =
        |name: &str, now_micros: u64| (0..10_000).take_while(|_| quotas.tells_move(&user(name), now_micros)).count();
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
    let frequent = |now_micros| quotas.reserve(QuotaLimits::default(), &user("ann"), now_micros).unwrap().is_frequent();
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
