//! Time-limited usernames, the limits in them, and the names of peer policies.
#![no_main]

use libfuzzer_sys::fuzz_target;
use turnstone::auth::{TimeLimited, UsernameLimits};
use turnstone::policy::PolicyName;

fuzz_target!(|username: &str| {
    if let Ok(name) = username.parse::<PolicyName>() {
        // It can stand in a username as it is.
        assert_eq!(name.as_str(), username);
        let limits = format!("1:a;peers={name}");
        assert_eq!(UsernameLimits::split(&limits).map(|(_, limits)| limits.to_string()), Ok(format!(";peers={name}")));
    }
    let plain = UsernameLimits::plain(username);
    let _ = TimeLimited::parse(plain);
    assert!(username.starts_with(plain) && !plain.contains(';'));
    if let Ok((name, limits)) = UsernameLimits::split(username) {
        assert_eq!(name, plain);
        assert_eq!(UsernameLimits::split(&format!("{plain}{limits}")), Ok((plain, limits)));
        assert_eq!(limits.is_empty(), !username.contains(';'));
    }
});
