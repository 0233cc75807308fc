//! Time-limited usernames and the limits in them.

use turnstone::auth::{TimeLimited, UsernameLimits};

use crate::mutate::{Rng, mutate};

const SEEDS: &[&str] = &[
    "1735689600:alice;bw=2M;alloc=4;peers=sfu",
    "alice:1735689600;peers=a.b-c_9;alloc=4294967295;bw=18446744073709551615",
    "1735689600;bw=8",
    "1735689600:a;b=c;;=;bw=1K;bw=1K",
];

#[test]
fn mutated_usernames_are_read_in_one_way_or_refused() {
    let mut rng = Rng(crate::seed() ^ 7);
    let corpus: Vec<Vec<u8>> = SEEDS.iter().map(|seed| seed.as_bytes().to_vec()).collect();
    let mut read = 0;
    for _ in 0..crate::inputs(2) {
        let mut bytes = rng.pick(&corpus).clone();
        mutate(&mut rng, &mut bytes, &corpus);
        read += u64::from(std::str::from_utf8(&bytes).is_ok_and(check));
    }
    assert!(read > 0, "no username was read");
}

/// Whether its limits can be read.
fn check(username: &str) -> bool {
    let plain = UsernameLimits::plain(username);
    let _ = TimeLimited::parse(plain);
    assert!(username.starts_with(plain) && !plain.contains(';'));
    let Ok((name, limits)) = UsernameLimits::split(username) else { return false };
    assert_eq!(name, plain);
    // What is read is written so that it is read again as the same.
    let written = format!("{plain}{limits}");
    assert_eq!(UsernameLimits::split(&written), Ok((plain, limits)), "{username:?} {written:?}");
    assert_eq!(limits.is_empty(), !username.contains(';'));
    true
}
