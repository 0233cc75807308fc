//! When nobody is asked: after some failures in a row, for a while that doubles, and then by one question first.

use std::time::{Duration, Instant};

/// Failures in a row.
const FAILURES_MAX: u32 = 5;
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Counts failures.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    failures: u32,
    broken: Option<Broken>,
}

#[derive(Debug)]
struct Broken {
    pause: Duration,
    until: Instant,
    /// One question is asked, whose answer decides.
    is_tried: bool,
}

/// What has come of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    None,
    /// Nobody is asked for so long, for the first time.
    Broken(Duration),
    /// All are asked again.
    Mended,
}

impl Breaker {
    /// Whether a question may be asked.
    pub(super) fn may_ask(&mut self, now: Instant) -> bool {
        let Some(broken) = &mut self.broken else { return true };
        let may = now >= broken.until && !broken.is_tried;
        broken.is_tried |= may;
        may
    }

    /// Notes what came of one that was asked.
    pub(super) fn note(&mut self, is_good: bool, now: Instant) -> Change {
        if is_good {
            self.failures = 0;
            return self.broken.take().map_or(Change::None, |_| Change::Mended);
        }
        self.failures = self.failures.saturating_add(1);
        match &mut self.broken {
            // Of those that were under way when it broke, none makes it longer.
            Some(broken) if broken.is_tried => {
                let pause = (broken.pause * 2).min(PAUSE_MAX);
                *broken = Broken { pause, until: now + pause, is_tried: false };
                Change::None
            }
            Some(_) => Change::None,
            None if self.failures >= FAILURES_MAX => {
                self.broken = Some(Broken { pause: PAUSE_MIN, until: now + PAUSE_MIN, is_tried: false });
                Change::Broken(PAUSE_MIN)
            }
            None => Change::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_five_failures_in_a_row_one_question_at_a_time_finds_out_whether_it_is_mended() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut breaker = Breaker::default();
        for is_good in [false, false, false, false, true, false, false, false, false] {
            assert!(breaker.may_ask(at(0)));
            assert_eq!(breaker.note(is_good, at(0)), Change::None);
        }
        assert_eq!(breaker.note(false, at(0)), Change::Broken(PAUSE_MIN));
        // Another one was under way.
        assert_eq!(breaker.note(false, at(1)), Change::None);
        assert!(!breaker.may_ask(at(999)));
        assert_eq!([breaker.may_ask(at(1000)), breaker.may_ask(at(1000))], [true, false]);
        assert_eq!(breaker.note(false, at(1500)), Change::None);
        assert_eq!([breaker.may_ask(at(3499)), breaker.may_ask(at(3500))], [false, true]);
        assert_eq!(breaker.note(true, at(3600)), Change::Mended);
        assert!(breaker.may_ask(at(3600)) && breaker.may_ask(at(3600)));
        let mut now = at(4000);
        for _ in 0..FAILURES_MAX {
            breaker.note(false, now);
        }
        for _ in 0..20 {
            now += PAUSE_MAX;
            assert!(breaker.may_ask(now), "it is tried every half minute at the latest");
            breaker.note(false, now);
        }
    }
}
