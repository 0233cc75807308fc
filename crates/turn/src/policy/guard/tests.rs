//! The guard by itself, with times of its own.

use super::*;

fn ann() -> User {
    User::time_limited("ann")
}

fn ip(n: u32) -> IpAddr {
    IpAddr::V4(std::net::Ipv4Addr::from_bits(0x0808_0000 + n))
}

fn peers(most: u32) -> GuardLimits {
    GuardLimits { peers_per_user: Some(most), ..GuardLimits::default() }
}

fn rate(per_minute: u32) -> GuardLimits {
    GuardLimits { new_peers_per_minute: Some(per_minute), ..GuardLimits::default() }
}

fn suspending(probes: u32) -> GuardLimits {
    GuardLimits { suspension: Some(SuspensionLimits { probes, secs: 600 }), ..GuardLimits::default() }
}

fn name(guard: &Guard, limits: &GuardLimits, user: &User, n: u32, now_secs: u64) -> Result<(), Reason> {
    let now = now_secs * SECOND;
    guard.note_peers(limits, user, (&[ip(n)], true), now + 300 * SECOND, now)
}

fn probe(guard: &Guard, limits: &GuardLimits, ip: &str, reason: Reason, now_secs: u64) -> bool {
    guard.note_denied(limits, &ann(), (ip.parse().unwrap(), reason), now_secs * SECOND).is_some()
}

#[test]
fn a_user_has_so_many_different_peers_at_once_and_others_have_their_own() {
    let guard = Guard::default();
    for n in [1, 2, 1, 2, 3] {
        assert_eq!(name(&guard, &peers(3), &ann(), n, 0), Ok(()));
    }
    assert_eq!(name(&guard, &peers(3), &ann(), 4, 1), Err(Reason::UserPeers));
    assert_eq!(name(&guard, &peers(3), &ann(), 3, 1), Ok(()), "one that is there already");
    assert_eq!(name(&guard, &peers(3), &User::fixed("ann"), 4, 1), Ok(()));
    // What is refused counts nothing; what expires makes room.
    assert_eq!(name(&guard, &peers(3), &ann(), 4, 300), Ok(()));
    assert_eq!(name(&guard, &peers(3), &ann(), 5, 300), Ok(()), "1 and 2 have expired");
    assert_eq!(name(&guard, &peers(3), &ann(), 6, 300), Err(Reason::UserPeers));
}

#[test]
fn several_peers_are_noted_together_or_not_at_all() {
    let guard = Guard::default();
    let all: Vec<_> = (0..4).map(ip).collect();
    let note = |ips: &[IpAddr]| guard.note_peers(&peers(3), &ann(), (ips, true), SECOND, 0);
    assert_eq!(note(&all), Err(Reason::UserPeers));
    assert_eq!(note(&all[..3]), Ok(()));
}

#[test]
fn new_peers_come_so_many_at_once_and_a_minute() {
    let guard = Guard::default();
    let limits = rate(60);
    assert!((0..60).all(|n| name(&guard, &limits, &ann(), n, 0).is_ok()));
    assert_eq!(name(&guard, &limits, &ann(), 60, 0), Err(Reason::UserNewPeers));
    assert_eq!(name(&guard, &limits, &ann(), 5, 0), Ok(()), "not a new one");
    assert!((60..70).all(|n| name(&guard, &limits, &ann(), n, 10).is_ok()), "one a second");
    assert_eq!(name(&guard, &limits, &ann(), 70, 10), Err(Reason::UserNewPeers));
}

#[test]
fn who_probes_is_suspended_once_and_who_sends_candidates_is_not() {
    let guard = Guard::default();
    let limits = suspending(3);
    for n in 0..20 {
        let candidates = [format!("10.0.0.{n}"), format!("fd00::{n}"), format!("fe80::{n}")];
        let time = 100 * n;
        assert!(!candidates.iter().any(|ip| probe(&guard, &limits, ip, Reason::PeerDeniedByDefault, time)));
        assert!(!probe(&guard, &limits, "9.9.9.9", Reason::PeerDenied, time));
        // The other side has a bridge for containers, and so has this host.
        assert!(!probe(&guard, &limits, "172.17.0.1", Reason::PeerIsServer, time));
    }
    // The same address is one, and refusals about something else are none.
    for _ in 0..10 {
        assert!(!probe(&guard, &limits, "169.254.169.254", Reason::PeerDeniedByDefault, 5000));
        assert!(!probe(&guard, &limits, "9.9.9.9", Reason::TooManyPeers, 5000));
    }
    assert!(!probe(&guard, &limits, "127.0.0.1", Reason::PeerDeniedByDefault, 5001));
    assert!(!guard.is_suspended(&ann(), 5001 * SECOND));
    assert!(probe(&guard, &limits, "5.45.96.1", Reason::PeerIsServer, 5002));
    assert!(!probe(&guard, &limits, "127.0.0.2", Reason::PeerDeniedByDefault, 5003), "told once");
    assert!(guard.is_suspended(&ann(), 5601 * SECOND) && !guard.is_suspended(&User::fixed("ann"), 5003 * SECOND));
    assert_eq!(name(&guard, &limits, &ann(), 1, 5100), Err(Reason::Suspended));
    let held = guard.note_peers(&limits, &ann(), (&[ip(1)], false), 9999 * SECOND, 5100 * SECOND);
    assert_eq!(held, Ok(()), "what an allocation has, it keeps");
    assert!(!guard.is_suspended(&ann(), 5602 * SECOND));
    assert_eq!(guard.suspensions(), 1);
}

#[test]
fn probes_of_one_minute_count_and_candidates_a_tenth_of_them() {
    let guard = Guard::default();
    let limits = suspending(3);
    for n in 0..60 {
        assert!(!probe(&guard, &limits, &format!("127.0.0.{n}"), Reason::PeerDeniedByDefault, 31 * n), "{n}");
    }
    let found = (0..200).find(|n| probe(&guard, &limits, &format!("10.0.0.{n}"), Reason::PeerDeniedByDefault, 9000));
    assert_eq!(found, Some(29));
}

#[test]
fn a_suspension_is_listed_and_lifted() {
    let guard = Guard::default();
    assert!(probe(&guard, &suspending(1), "127.0.0.1", Reason::PeerDeniedByDefault, 10));
    let (suspended, total) = guard.suspended(10 * SECOND, 5);
    assert_eq!((suspended, total), (vec![Suspension { user: ann(), until_micros: 610 * SECOND }], 1));
    assert_eq!((guard.suspended(10 * SECOND, 0).1, guard.suspended(610 * SECOND, 5).1), (1, 0));
    let lift = |name: &str| guard.lift(|user| &**user.name() == name, 11 * SECOND);
    assert_eq!([lift("bob"), lift("ann"), lift("ann")], [0, 1, 0]);
    assert!(!guard.is_suspended(&ann(), 11 * SECOND));
}

#[test]
fn users_are_forgotten_when_nothing_counts_and_are_bounded_until_then() {
    let guard = Guard::default();
    let limits = GuardLimits { peers_per_user: Some(2), ..suspending(1) };
    let user = |n: usize| User::time_limited(n.to_string());
    let bad = "127.0.0.1".parse().unwrap();
    assert!(guard.note_denied(&limits, &ann(), (bad, Reason::PeerDeniedByDefault), 0).is_some());
    for n in 0..USERS_MAX + 1000 {
        assert_eq!(name(&guard, &limits, &user(n), 1, 1), Ok(()));
    }
    assert_eq!(guard.remembered(), (USERS_MAX, USERS_MAX));
    assert!(guard.is_suspended(&ann(), SECOND), "who is suspended is not forgotten for others");
    for _ in 0..USERS_MAX {
        assert_eq!(name(&guard, &limits, &user(0), 1, 5000), Ok(()));
    }
    assert!(guard.remembered().0 <= 2, "{:?}", guard.remembered());
}

#[test]
fn addresses_are_bounded_over_all_users_and_the_counts_that_are_forgotten_refuse_nobody() {
    let guard = Guard::default();
    let (limits, per_user) = (GuardLimits { peers_per_user: Some(40_000), ..suspending(1000) }, 40_000_u32);
    let user = |n: u32| User::time_limited(n.to_string());
    let ips: Vec<_> = (0..per_user).map(ip).collect();
    for n in 0..40 {
        for some in ips.chunks(64) {
            assert_eq!(guard.note_peers(&limits, &user(n), (some, true), 300 * SECOND, 0), Ok(()));
            assert!(guard.remembered().1 <= ADDRESSES_MAX);
        }
    }
    let (users, addresses) = guard.remembered();
    assert!(addresses > ADDRESSES_MAX - 40_000 && users < 40, "{users} {addresses}");
    // What was denied is among them.
    let denied = (0..100).filter(|n| probe(&guard, &limits, &ip(*n).to_string(), Reason::PeerDenied, 2)).count();
    assert_eq!((denied, guard.remembered().1), (0, addresses + 100));
    // All of it goes when it is over.
    for _ in 0..=users {
        assert_eq!(name(&guard, &limits, &User::time_limited("new"), 1, 5000), Ok(()));
    }
    assert_eq!(guard.remembered(), (1, 1));
}

#[test]
fn suspensions_are_bounded_and_the_first_is_over_first() {
    let guard = Guard::default();
    let limits = suspending(1);
    let user = |n: usize| User::time_limited(n.to_string());
    let suspend = |n: usize, at: u64| {
        let denied = ("127.0.0.1".parse().unwrap(), Reason::PeerDeniedByDefault);
        guard.note_denied(&limits, &user(n), denied, at * SECOND).is_some()
    };
    assert!((0..=SUSPENDED_MAX).all(|n| suspend(n, 1)));
    assert!(!guard.is_suspended(&user(0), SECOND) && guard.is_suspended(&user(1), SECOND));
    assert_eq!(guard.suspended(SECOND, 3).1, SUSPENDED_MAX);
    // One who was lifted and is suspended again is there once.
    assert_eq!(guard.lift(|of| *of == user(7), 2 * SECOND), 1);
    assert!(suspend(7, 3));
    assert_eq!(guard.suspended(3 * SECOND, 0).1, SUSPENDED_MAX);
    assert!(suspend(0, 700));
    assert_eq!(guard.lock().suspended.len(), 1, "what is over is forgotten with the next");
}
