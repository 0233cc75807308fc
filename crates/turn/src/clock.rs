//! Injected time: the protocol core never reads a clock. And how a time is written.

/// One reading of both clocks, taken once per batch of packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Now {
    /// Monotonic microseconds since an arbitrary origin. Every lifetime is counted on this clock.
    pub micros: u64,
    /// Seconds since the Unix epoch, for what is stated in calendar time: credential expiry and nonces.
    pub unix_secs: u64,
}

/// Microseconds in a second.
pub const SECOND: u64 = 1_000_000;

/// A UTC time such as `2026-11-20T16:13:27Z`.
pub fn utc_text(unix_secs: u64) -> String {
    let [year, month, day, hour, minute, second] = civil(unix_secs);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Year, month, day, hour, minute and second of a Unix time, in UTC.
pub fn civil(unix_secs: u64) -> [u64; 6] {
    let (days, secs) = (unix_secs / 86_400, unix_secs % 86_400);
    // Years that begin in March, so that the leap day is the last one; eras of 400 of them, from the year 0.
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    [year, month, day, secs / 3600, secs / 60 % 60, secs % 60]
}

/// `3 min`, `2 h`, `5 days`: one figure is enough.
pub fn span(secs: u64) -> String {
    match secs {
        0..=119 => format!("{secs} s"),
        120..=7199 => format!("{} min", secs / 60),
        7200..=172_799 => format!("{} h", secs / 3600),
        _ => format!("{} days", secs / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_utc() {
        for (unix_secs, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_583_020_799, "2020-02-29T23:59:59Z"),
            (1_700_000_000, "2023-11-14T22:13:20Z"),
            (4_102_444_800, "2100-01-01T00:00:00Z"),
        ] {
            assert_eq!(utc_text(unix_secs), text);
        }
    }

    #[test]
    fn spans_are_given_in_one_unit() {
        for (secs, text) in [(0, "0 s"), (119, "119 s"), (180, "3 min"), (7200, "2 h"), (200_000, "2 days")] {
            assert_eq!(span(secs), text);
        }
    }
}
