//! Time-limited usernames and the limits in them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use turnstone::auth::{TimeLimited, UsernameLimits};

fuzz_target!(|username: &str| {
    let plain = UsernameLimits::plain(username);
    let _ = TimeLimited::parse(plain);
    assert!(username.starts_with(plain) && !plain.contains(';'));
    if let Ok((name, limits)) = UsernameLimits::split(username) {
        assert_eq!(name, plain);
        assert_eq!(UsernameLimits::split(&format!("{plain}{limits}")), Ok((plain, limits)));
        assert_eq!(limits.is_empty(), !username.contains(';'));
    }
});
