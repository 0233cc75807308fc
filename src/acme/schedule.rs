//! When a certificate is asked for. A certificate authority bounds how often (Let's Encrypt: five failures an hour for one name, 300 orders of an
//! account in three hours), and this keeps well below that, whatever happens: restarts and reloads included, because what was tried is kept.

use super::kept::{Record, Validity};

/// Attempts for one name in so many seconds, whatever happens.
const BOUNDS: [(usize, u64); 3] = [(4, 3600), (6, 3 * 3600), (ATTEMPTS_KEPT, DAY_SECS)];
/// Those that have to be remembered.
const ATTEMPTS_KEPT: usize = 12;
const DAY_SECS: u64 = 86_400;
/// The pause after the first failure; each further one has twice as long a pause.
const RETRY_SECS_MIN: u64 = 600;
const RETRY_SECS_MAX: u64 = 43_200;
/// What an operator has mended is tried again at a reload or restart, but not sooner after the last attempt.
const SPACING_SECS: u64 = 120;
/// No authority has us wait longer, whatever it says.
const WAIT_SECS_MAX: u64 = 7 * DAY_SECS;
/// How often an authority is asked when it wants a certificate renewed, at most and at least.
const WINDOW_SECS: std::ops::RangeInclusive<u64> = 6 * 3600..=DAY_SECS;

/// When to renew, without advice: at a third of the lifetime left, and a little sooner, so that not all do at once.
pub(super) fn renewal(validity: Validity, fraction: f64) -> u64 {
    let lifetime = validity.not_after_unix.saturating_sub(validity.not_before_unix);
    validity.not_after_unix.saturating_sub(lifetime / 3 + part(lifetime / 50, fraction))
}

/// When to renew by the authority's advice (RFC 9773 section 4.2): at a random moment of its window.
pub(super) fn within((start, end): (u64, u64), fraction: f64) -> u64 {
    start + part(end.saturating_sub(start), fraction)
}

/// When to ask for that advice again.
pub(super) fn advice_again(now_unix: u64, retry_after_secs: u64) -> u64 {
    now_unix + retry_after_secs.clamp(*WINDOW_SECS.start(), *WINDOW_SECS.end())
}

/// When to try again after so many failures in a row.
pub(super) fn retry(failures: u32, now_unix: u64, fraction: f64) -> u64 {
    let doubled = RETRY_SECS_MIN.saturating_mul(1 << failures.saturating_sub(1).min(16));
    let pause = doubled.min(RETRY_SECS_MAX);
    now_unix + pause + part(pause / 4, fraction)
}

/// How long to wait because the authority wants it.
pub(super) fn wait_until(now_unix: u64, wanted_unix: u64) -> u64 {
    wanted_unix.min(now_unix + WAIT_SECS_MAX)
}

/// When the next attempt for a name is due. `usable` is the certificate there is, if it is from the authority that is asked now.
pub(super) fn due(record: &Record, usable: Option<Validity>) -> u64 {
    let wanted = match usable {
        Some(validity) => record.renew_unix.unwrap_or_else(|| renewal(validity, 0.0)),
        None => 0,
    };
    // Of as many attempts as are allowed, the oldest has to be over first.
    let allowed = |(attempts, secs): (usize, u64)| {
        let oldest = record.attempts_unix.len().checked_sub(attempts)?;
        Some(record.attempts_unix.get(oldest)?.saturating_add(secs))
    };
    let allowed = BOUNDS.into_iter().filter_map(allowed).max().unwrap_or(0);
    wanted.max(record.retry_unix).max(record.wait_unix).max(allowed)
}

/// Notes that an attempt begins, as if it were to fail: a server that dies of it may not try again at once.
pub(super) fn begin(record: &mut Record, now_unix: u64, fraction: f64) {
    record.failures = record.failures.saturating_add(1);
    record.retry_unix = retry(record.failures, now_unix, fraction);
    record.attempts_unix.push(now_unix);
    let surplus = record.attempts_unix.len().saturating_sub(ATTEMPTS_KEPT);
    record.attempts_unix.drain(..surplus);
}

/// Sets right what was noted by a clock that was ahead: no attempt is yet to come, and nothing is waited for longer than it ever is.
pub(super) fn set_right(record: &mut Record, now_unix: u64) {
    for attempt in &mut record.attempts_unix {
        *attempt = now_unix.min(*attempt);
    }
    record.retry_unix = record.retry_unix.min(now_unix + RETRY_SECS_MAX + RETRY_SECS_MAX / 4);
    record.wait_unix = wait_until(now_unix, record.wait_unix);
    record.advice_unix = record.advice_unix.min(now_unix + WINDOW_SECS.end());
    record.renew_unix = record.renew_unix.map(|renew| renew.min(record.of_not_after_unix));
}

/// An operator may have mended something: what has failed is tried again soon.
pub(super) fn hurry(record: &mut Record) {
    let last = record.attempts_unix.last().copied().unwrap_or(0);
    record.retry_unix = record.retry_unix.min(last.saturating_add(SPACING_SECS));
}

fn part(secs: u64, fraction: f64) -> u64 {
    // Seconds of some years are exact in a double.
    (secs as f64 * fraction.clamp(0.0, 1.0)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAYS: u64 = DAY_SECS;

    #[test]
    fn what_a_clock_that_was_ahead_has_noted_blocks_nothing_for_longer_than_the_bounds_do() {
        let (now, later) = (1_000 * DAYS, 5_000 * DAYS);
        let mut record = Record {
            attempts_unix: vec![now - 5 * DAYS, later],
            retry_unix: later,
            wait_unix: u64::MAX,
            advice_unix: later,
            renew_unix: Some(later),
            of_not_after_unix: now + 30 * DAYS,
            ..Record::default()
        };
        set_right(&mut record, now);
        assert_eq!(record.attempts_unix, [now - 5 * DAYS, now]);
        assert!(due(&record, None) <= now + WAIT_SECS_MAX);
        assert!(record.retry_unix <= now + DAYS && record.advice_unix <= now + DAYS);
        assert_eq!(record.renew_unix, Some(now + 30 * DAYS));
        let right = record.clone();
        set_right(&mut record, now);
        assert_eq!(record, right, "what is right stays as it is");
    }

    #[test]
    fn a_certificate_is_renewed_with_a_third_of_its_lifetime_left_or_a_little_sooner() {
        let validity = Validity { not_before_unix: 1_000 * DAYS, not_after_unix: 1_090 * DAYS };
        assert_eq!(renewal(validity, 0.0), 1_060 * DAYS);
        let soonest = renewal(validity, 0.999);
        assert!((1_058 * DAYS..1_059 * DAYS).contains(&soonest));
        // Of six days, two are left.
        let short = Validity { not_before_unix: 100 * DAYS, not_after_unix: 106 * DAYS };
        assert_eq!(renewal(short, 0.0), 104 * DAYS);
        let broken = Validity { not_before_unix: 5, not_after_unix: 3 };
        assert_eq!(renewal(broken, 0.5), 3);
    }

    #[test]
    fn advice_is_a_moment_of_its_window() {
        assert_eq!(within((100, 200), 0.5), 150);
        assert_eq!(within((200, 100), 0.5), 200, "a window that ends before it begins");
        assert_eq!(advice_again(0, 1), 6 * 3600);
        assert_eq!(advice_again(0, u64::MAX), DAY_SECS);
    }

    /// The moments of all attempts from 0 on, when each fails, the server restarts after each, and somebody reloads it every minute.
    fn attempts(until: u64, is_hurried: bool) -> Vec<u64> {
        let mut record = Record::default();
        let mut now = 0;
        let mut all = Vec::new();
        while now < until {
            if is_hurried {
                hurry(&mut record);
            }
            if due(&record, None) <= now {
                begin(&mut record, now, 0.0);
                all.push(now);
            }
            now += 60;
        }
        all
    }

    #[test]
    fn what_fails_is_tried_less_and_less_often() {
        let all = attempts(10 * DAYS, false);
        let minutes: Vec<_> = all.iter().take(8).map(|at| at / 60).collect();
        assert_eq!(minutes, [0, 10, 30, 70, 150, 310, 630, 1270]);
        let late = all.iter().filter(|at| **at > 5 * DAYS).count();
        assert_eq!(late, 10, "twice a day");
    }

    #[test]
    fn whatever_happens_attempts_stay_within_their_bounds() {
        let all = attempts(10 * DAYS, true);
        for (most, window) in [(4, 3600), (6, 3 * 3600), (12, DAY_SECS)] {
            for from in &all {
                let within = all.iter().filter(|at| (*from..from + window).contains(at)).count();
                assert!(within <= most, "{within} in {window} s");
            }
        }
        assert!(all.len() > 100);
        assert_eq!(all.get(1), Some(&120), "what was mended is seen soon");
    }

    #[test]
    fn what_the_authority_wants_is_waited_for_and_no_reload_changes_that() {
        let mut record = Record::default();
        begin(&mut record, 1_000, 0.0);
        record.wait_unix = wait_until(1_000, 200_000);
        hurry(&mut record);
        assert_eq!(due(&record, None), 200_000);
        record.wait_unix = wait_until(1_000, u64::MAX);
        assert_eq!(due(&record, None), 1_000 + 7 * DAYS);
    }

    #[test]
    fn a_certificate_that_is_good_waits_for_its_renewal() {
        let validity = Validity { not_before_unix: 0, not_after_unix: 90 * DAYS };
        let mut record = Record { renew_unix: Some(59 * DAYS), ..Record::default() };
        assert_eq!(due(&record, Some(validity)), 59 * DAYS);
        record.renew_unix = None;
        assert_eq!(due(&record, Some(validity)), 60 * DAYS);
        assert_eq!(due(&record, None), 0);
    }
}
