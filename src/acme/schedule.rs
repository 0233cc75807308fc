//! When a certificate is asked for. A certificate authority bounds how often (Let's Encrypt: five failures an hour for one name, 300 orders of an
//! account in three hours), and this keeps well below that, whatever happens: restarts and reloads included, because what was tried is kept.

use super::kept::{Record, Tried, Validity};

/// Attempts for one name in so many seconds, whatever happens.
const BOUNDS: [(usize, u64); 3] = [(4, 3600), (6, 3 * 3600), (ATTEMPTS_KEPT, DAY_SECS)];
/// Attempts for all names together: of the orders that an authority allows, two thirds.
const BOUND_OF_ALL: (usize, u64) = (200, 3 * 3600);
/// Those that have to be remembered.
const ATTEMPTS_KEPT: usize = 12;
const DAY_SECS: u64 = 86_400;
/// The pause after the first failure; each further one has twice as long a pause.
const RETRY_SECS_MIN: u64 = 600;
const RETRY_SECS_MAX: u64 = 43_200;
/// The same where the authority was not reached, and has counted nothing; and between names, where no name was what has failed.
const SOON_SECS_MIN: u64 = 60;
const SOON_SECS_MAX: u64 = 3600;
/// What an operator has mended is tried again at a reload or restart, but not sooner after the last attempt.
const SPACING_SECS: u64 = 120;
/// No authority has us wait longer, whatever it says.
const WAIT_SECS_MAX: u64 = 7 * DAY_SECS;
/// Nor all names because of two of them.
const WAIT_OF_ALL_SECS_MAX: u64 = 3 * 3600;
/// Authorities of which it is remembered what was tried there.
const ELSEWHERE_MAX: usize = 16;
/// How often an authority is asked when it wants a certificate renewed, at most and at least.
const WINDOW_SECS: std::ops::RangeInclusive<u64> = 6 * 3600..=DAY_SECS;

impl Record {
    /// Sets right what was read, and goes on with what was tried at this authority. What another one has refused does not count for it, and is
    /// remembered all the same.
    pub fn turn_to(&mut self, directory: &str, now_unix: u64) {
        set_right(self, now_unix);
        if self.tried.directory != directory {
            let known = self.elsewhere.iter().position(|tried| tried.directory == directory);
            let known = known.map(|index| self.elsewhere.remove(index));
            let new = known.unwrap_or_else(|| Tried { directory: directory.to_owned(), ..Tried::default() });
            self.elsewhere.push(std::mem::replace(&mut self.tried, new));
        }
        self.elsewhere.retain(|tried| counts(tried, now_unix));
        let surplus = self.elsewhere.len().saturating_sub(ELSEWHERE_MAX);
        self.elsewhere.drain(..surplus);
    }

    /// When the next attempt is due where there is no certificate.
    pub fn due_unix(&self) -> u64 {
        due(self, None).max(due_of_all(std::iter::once(&self.tried)))
    }
}

impl Tried {
    /// Notes that an attempt begins, as if it were to fail and be counted: a server that dies of it may not try again at once.
    pub(super) fn begin(&mut self, now_unix: u64, fraction: f64) {
        self.failures = self.failures.saturating_add(1);
        self.retry_unix = retry(self.failures, now_unix, fraction);
        self.tried_unix = now_unix;
        self.attempts_unix.push(now_unix);
        let surplus = self.attempts_unix.len().saturating_sub(ATTEMPTS_KEPT);
        self.attempts_unix.drain(..surplus);
    }

    /// Notes that the authority has not counted the last attempt, before which it stood so.
    pub(super) fn uncount(&mut self, before: Self, now_unix: u64, fraction: f64) {
        self.uncounted = before.uncounted.saturating_add(1);
        self.retry_unix = retry_soon(self.uncounted, now_unix, fraction);
        (self.failures, self.attempts_unix) = (before.failures, before.attempts_unix);
    }

    /// Notes that there is a certificate.
    pub(super) fn succeed(&mut self) {
        let attempts_unix = std::mem::take(&mut self.attempts_unix);
        let directory = std::mem::take(&mut self.directory);
        *self = Self { directory, attempts_unix, tried_unix: self.tried_unix, ..Self::default() };
    }
}

/// When to renew, without advice: at a third of the lifetime left, and a little sooner, so that not all do at once.
pub(super) fn renewal(validity: Validity, fraction: f64) -> u64 {
    let lifetime = validity.not_after_unix.saturating_sub(validity.not_before_unix);
    validity.not_after_unix.saturating_sub(lifetime / 3 + part(lifetime / 50, fraction))
}

/// When to renew by the authority's advice (RFC 9773 section 4.2): at a random moment of its window.
pub(super) fn within((start, end): (u64, u64), fraction: f64) -> u64 {
    start.saturating_add(part(end.saturating_sub(start), fraction))
}

/// When to ask for that advice again.
pub(super) fn advice_again(now_unix: u64, retry_after_secs: u64) -> u64 {
    now_unix + retry_after_secs.clamp(*WINDOW_SECS.start(), *WINDOW_SECS.end())
}

/// When to try again after so many failures in a row.
fn retry(failures: u32, now_unix: u64, fraction: f64) -> u64 {
    let doubled = RETRY_SECS_MIN.saturating_mul(1 << failures.saturating_sub(1).min(16));
    let pause = doubled.min(RETRY_SECS_MAX);
    now_unix + pause + part(pause / 4, fraction)
}

/// When to try again what was not counted, after so many of these in a row.
pub(super) fn retry_soon(in_a_row: u32, now_unix: u64, fraction: f64) -> u64 {
    let pause = (SOON_SECS_MIN << in_a_row.saturating_sub(1).min(16)).min(SOON_SECS_MAX);
    now_unix + pause + part(pause / 10, fraction)
}

/// How long to wait because the authority wants it.
pub(super) fn wait_until(now_unix: u64, wanted_unix: u64) -> u64 {
    wanted_unix.min(now_unix + WAIT_SECS_MAX)
}

/// The same for all names, because two of them have been told so.
pub(super) fn wait_of_all_until(now_unix: u64, wanted_unix: u64) -> u64 {
    wanted_unix.min(now_unix + WAIT_OF_ALL_SECS_MAX)
}

/// When the next attempt for a name is due. `usable` is the certificate there is, if it is from the authority that is asked now.
pub(super) fn due(record: &Record, usable: Option<Validity>) -> u64 {
    let wanted = match usable {
        Some(validity) => record.renew_unix.unwrap_or_else(|| renewal(validity, 0.0)),
        None => 0,
    };
    let tried = &record.tried;
    let allowed = BOUNDS.into_iter().map(|bound| allowed(&tried.attempts_unix, bound)).max().unwrap_or(0);
    wanted.max(tried.retry_unix).max(tried.wait_unix).max(allowed)
}

/// When the next attempt for any name is due at the soonest. `tried` has all of them.
pub(super) fn due_of_all<'t>(tried: impl Iterator<Item = &'t Tried> + Clone) -> u64 {
    let mut attempts: Vec<_> = tried.clone().flat_map(|tried| tried.attempts_unix.iter().copied()).collect();
    attempts.sort_unstable();
    let held = tried.map(|tried| tried.retry_all_unix.max(tried.wait_all_unix)).max().unwrap_or(0);
    held.max(allowed(&attempts, BOUND_OF_ALL))
}

/// Of as many attempts as are allowed in so many seconds, the oldest has to be over first.
fn allowed(attempts_unix: &[u64], (attempts, secs): (usize, u64)) -> u64 {
    let oldest = attempts_unix.len().checked_sub(attempts).and_then(|oldest| attempts_unix.get(oldest));
    oldest.map_or(0, |oldest| oldest.saturating_add(secs))
}

/// Whether what was tried at an authority still bounds what may be.
fn counts(tried: &Tried, now_unix: u64) -> bool {
    let last = tried.attempts_unix.last().copied().unwrap_or(0).max(tried.tried_unix);
    let until =
        [tried.retry_unix, tried.wait_unix, tried.retry_all_unix, tried.wait_all_unix, last.saturating_add(DAY_SECS)];
    until.iter().any(|until| *until > now_unix)
}

/// Sets right what was noted by a clock that was ahead: no attempt is yet to come, and nothing is waited for longer than it ever is.
fn set_right(record: &mut Record, now_unix: u64) {
    let Record { tried, elsewhere, .. } = record;
    for tried in std::iter::once(tried).chain(elsewhere) {
        for attempt in tried.attempts_unix.iter_mut().chain([&mut tried.tried_unix]) {
            *attempt = now_unix.min(*attempt);
        }
        tried.retry_unix = tried.retry_unix.min(now_unix + RETRY_SECS_MAX + RETRY_SECS_MAX / 4);
        tried.retry_all_unix = tried.retry_all_unix.min(now_unix + SOON_SECS_MAX + SOON_SECS_MAX / 10);
        tried.wait_unix = wait_until(now_unix, tried.wait_unix);
        tried.wait_all_unix = wait_until(now_unix, tried.wait_all_unix);
    }
    record.advice_unix = record.advice_unix.min(now_unix + WINDOW_SECS.end());
    record.renew_unix = record.renew_unix.map(|renew| renew.min(record.of_not_after_unix));
}

/// An operator may have mended something: what has failed is tried again soon.
pub(super) fn hurry(tried: &mut Tried) {
    let last = tried.attempts_unix.last().copied().unwrap_or(0).max(tried.tried_unix);
    for retry in [&mut tried.retry_unix, &mut tried.retry_all_unix] {
        *retry = (*retry).min(last.saturating_add(SPACING_SECS));
    }
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
            tried: Tried {
                attempts_unix: vec![now - 5 * DAYS, later],
                tried_unix: later,
                retry_unix: later,
                wait_unix: u64::MAX,
                retry_all_unix: u64::MAX,
                wait_all_unix: later,
                ..Tried::default()
            },
            advice_unix: later,
            renew_unix: Some(later),
            of_not_after_unix: now + 30 * DAYS,
            ..Record::default()
        };
        set_right(&mut record, now);
        assert_eq!(record.tried.attempts_unix, [now - 5 * DAYS, now]);
        assert!(due(&record, None) <= now + WAIT_SECS_MAX);
        assert!(due_of_all([&record.tried].into_iter()) <= now + WAIT_SECS_MAX);
        assert!(record.tried.retry_unix <= now + DAYS && record.advice_unix <= now + DAYS);
        assert!(record.tried.retry_all_unix <= now + 4000);
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
                hurry(&mut record.tried);
            }
            if due(&record, None) <= now {
                record.tried.begin(now, 0.0);
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
        record.tried.begin(1_000, 0.0);
        record.tried.wait_unix = wait_until(1_000, 200_000);
        hurry(&mut record.tried);
        assert_eq!(due(&record, None), 200_000);
        record.tried.wait_unix = wait_until(1_000, u64::MAX);
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

    #[test]
    fn an_authority_that_is_not_reached_is_tried_again_after_a_minute_and_less_and_less_often() {
        let mut tried = Tried::default();
        let mut now = 1_000 * DAYS;
        let mut pauses = Vec::new();
        for _ in 0..8 {
            let before = tried.clone();
            tried.begin(now, 0.0);
            tried.uncount(before, now, 0.0);
            pauses.push((tried.retry_unix - now) / 60);
            now = tried.retry_unix;
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert!(tried.attempts_unix.is_empty() && tried.failures() == 8);
        // What is counted then has failed once.
        tried.begin(now, 0.0);
        assert_eq!(tried.retry_unix, now + RETRY_SECS_MIN);
        // A reload brings it forward, and ten do no more than one.
        let before = tried.clone();
        tried.begin(now, 0.0);
        tried.uncount(before, now, 0.0);
        for _ in 0..10 {
            hurry(&mut tried);
        }
        assert_eq!(tried.retry_unix, now + SPACING_SECS);
    }

    #[test]
    fn what_was_tried_at_one_authority_counts_there_however_often_another_one_is_asked_in_between() {
        let (mut record, start) = (Record::default(), 1_000 * DAYS);
        let mut attempts = [Vec::new(), Vec::new()];
        for now in (start..start + 3 * 3600).step_by(10) {
            let which = (now / 10 % 2) as usize;
            record.turn_to(["one", "other"][which], now);
            hurry(&mut record.tried);
            if due(&record, None) <= now {
                record.tried.begin(now, 0.0);
                attempts[which].push(now);
            }
        }
        for attempts in attempts {
            assert_eq!(attempts.len(), 6, "as if it were alone: {attempts:?}");
        }
        record.turn_to("third", start + 3 * 3600);
        assert_eq!(record.elsewhere.len(), 2);
        assert_eq!(due(&record, None), 0);
        record.turn_to("fourth", start + 3 * DAYS);
        assert!(record.elsewhere.is_empty(), "what counts no more is forgotten");
    }

    #[test]
    fn all_names_together_have_a_bound_too_and_what_fails_for_all_holds_up_all() {
        let now = 1_000 * DAYS;
        let mut all = vec![Tried::default(); 50];
        for tried in &mut all {
            (0..4).for_each(|n| tried.begin(now + n, 0.0));
        }
        assert_eq!(due_of_all(all.iter()), now + 3 * 3600);
        assert_eq!(due_of_all(all.iter().skip(1)), 0);
        let first = Tried { retry_all_unix: now + 60, wait_all_unix: now + 7200, ..Tried::default() };
        assert_eq!(due_of_all([Tried::default(), first].iter()), now + 7200);
    }
}
