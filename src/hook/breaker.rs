//! When nobody is asked: after some failures in a row, for a while that doubles, and then by one question first.
//!
//! This goes by the network of the client: what a stranger is asked about may make the application fail, and must not have others refused.
//! His neighbours behind one address neither: only that nobody answers is a failure, and not what is answered, which may be about one name.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::stats::BROKEN_KEPT;
use super::turns::network;

/// Failures in a row.
const FAILURES_MAX: u32 = 5;
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Networks with failures; beyond, all counts begin anew.
const NETWORKS_MAX: usize = 4096;
/// Those of a network that does not ask again are forgotten after so long.
const KEPT: Duration = BROKEN_KEPT;
/// Between two lines in the log.
const TOLD_EVERY: Duration = Duration::from_secs(60);

/// Counts failures by network.
#[derive(Debug, Default)]
pub(super) struct Breakers {
    networks: HashMap<IpAddr, (Breaker, Instant)>,
    told_at: Option<Instant>,
    is_told: bool,
    failure_told_at: Option<Instant>,
}

/// What is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tell {
    Nothing,
    Broken(Duration),
    Mended,
}

impl Breakers {
    /// Whether a question of a client may be asked.
    pub(super) fn may_ask(&mut self, client: IpAddr, now: Instant) -> bool {
        self.networks.get_mut(&network(client)).is_none_or(|(breaker, _)| breaker.may_ask(now))
    }

    /// Notes whether one that was asked had any answer. Says what to tell of it, once a minute at most.
    pub(super) fn note(&mut self, client: IpAddr, is_good: bool, now: Instant) -> Tell {
        let network = network(client);
        if is_good {
            self.networks.remove(&network);
            self.networks.retain(|_, (_, noted)| now.saturating_duration_since(*noted) < KEPT);
            let is_mended = self.broken_until().is_none() && std::mem::take(&mut self.is_told);
            return if is_mended { Tell::Mended } else { Tell::Nothing };
        }
        if self.networks.len() >= NETWORKS_MAX && !self.networks.contains_key(&network) {
            self.networks = HashMap::new();
        }
        let (breaker, noted) = self.networks.entry(network).or_insert_with(|| (Breaker::default(), now));
        *noted = now;
        let Change::Broken(pause) = breaker.fail(now) else { return Tell::Nothing };
        if !is_due(&mut self.told_at, now) {
            return Tell::Nothing;
        }
        self.is_told = true;
        Tell::Broken(pause)
    }

    /// Whether to tell of a question without an answer, or with one that cannot be used.
    pub(super) fn tells_failure(&mut self, now: Instant) -> bool {
        is_due(&mut self.failure_told_at, now)
    }

    /// Until when there is a network for which nobody is asked, unless one that does not answer is noted again: who does not ask any more is forgotten.
    pub(super) fn broken_until(&self) -> Option<Instant> {
        let broken = self.networks.values().filter(|(breaker, _)| breaker.broken.is_some());
        broken.map(|(_, noted)| *noted + KEPT).max()
    }
}

fn is_due(told_at: &mut Option<Instant>, now: Instant) -> bool {
    let is_due = told_at.is_none_or(|told| now.saturating_duration_since(told) >= TOLD_EVERY);
    if is_due {
        *told_at = Some(now);
    }
    is_due
}

/// Counts failures.
#[derive(Debug, Default)]
struct Breaker {
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
enum Change {
    None,
    /// Nobody is asked for so long, for the first time.
    Broken(Duration),
}

impl Breaker {
    /// Whether a question may be asked.
    fn may_ask(&mut self, now: Instant) -> bool {
        let Some(broken) = &mut self.broken else { return true };
        let may = now >= broken.until && !broken.is_tried;
        broken.is_tried |= may;
        may
    }

    /// Notes that one that was asked had no answer.
    fn fail(&mut self, now: Instant) -> Change {
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
    use super::super::stats::HookStats;
    use super::*;

    fn client(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn after_five_failures_in_a_row_one_question_at_a_time_finds_out_whether_it_is_mended() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let (mut breakers, ann) = (Breakers::default(), client("192.0.2.1"));
        for is_good in [false, false, false, false, true, false, false, false, false] {
            assert!(breakers.may_ask(ann, at(0)));
            assert_eq!(breakers.note(ann, is_good, at(0)), Tell::Nothing);
        }
        assert_eq!(breakers.broken_until(), None);
        assert_eq!(breakers.note(ann, false, at(0)), Tell::Broken(PAUSE_MIN));
        // Another one was under way.
        assert_eq!(breakers.note(ann, false, at(1)), Tell::Nothing);
        assert!(breakers.broken_until() == Some(at(1) + KEPT) && !breakers.may_ask(ann, at(999)));
        assert_eq!([breakers.may_ask(ann, at(1000)), breakers.may_ask(ann, at(1000))], [true, false]);
        assert_eq!(breakers.note(ann, false, at(1500)), Tell::Nothing);
        assert_eq!([breakers.may_ask(ann, at(3499)), breakers.may_ask(ann, at(3500))], [false, true]);
        assert_eq!(breakers.note(ann, true, at(3600)), Tell::Mended);
        assert!(breakers.may_ask(ann, at(3600)) && breakers.may_ask(ann, at(3600)));
        let mut now = at(4000);
        for _ in 0..FAILURES_MAX {
            assert_eq!(breakers.note(ann, false, now), Tell::Nothing, "it was told of less than a minute ago");
        }
        for _ in 0..20 {
            now += PAUSE_MAX;
            assert!(breakers.may_ask(ann, now), "it is tried every half minute at the latest");
            breakers.note(ann, false, now);
        }
    }

    #[test]
    fn whoever_makes_the_application_fail_has_nobody_of_another_network_refused() {
        let now = Instant::now();
        let mut breakers = Breakers::default();
        for bad in ["192.0.2.1", "2001:db8:0:1::1"].map(client) {
            for _ in 0..100 {
                breakers.note(bad, false, now);
            }
        }
        for (of, may) in [
            ("192.0.2.200", false),
            ("::ffff:192.0.2.200", false),
            ("2001:db8:0:ffff::1", false),
            ("192.0.3.1", true),
            ("2001:db8:1::1", true),
        ] {
            assert_eq!(breakers.may_ask(client(of), now), may, "{of}");
        }
        assert_eq!(breakers.note(client("192.0.3.1"), true, now), Tell::Nothing);
        assert!(breakers.broken_until().is_some(), "another one's answer mends nothing for it");
        // What does not ask again is forgotten, also where nobody else asks, and what there is of networks is bounded.
        let (stats, until) = (HookStats::default(), breakers.broken_until());
        stats.broken().set(until);
        assert_eq!(until, Some(now + KEPT));
        assert!(stats.broken().is_at(now + KEPT - Duration::from_secs(1)) && !stats.broken().is_at(now + KEPT));
        assert_eq!(breakers.note(client("192.0.3.1"), true, now + KEPT), Tell::Mended);
        assert!(breakers.networks.is_empty());
        for n in 0..3 * NETWORKS_MAX as u32 {
            breakers.note(IpAddr::V4((n << 8).into()), false, now);
            assert!(breakers.networks.len() <= NETWORKS_MAX);
        }
    }
}
