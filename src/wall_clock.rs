//! The time of day, which may jump. How long something takes is `Instant`'s, and what each packet needs `net::sys::clocks`'.

use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds since 1970; 0 by a clock that is before it.
pub(crate) fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
