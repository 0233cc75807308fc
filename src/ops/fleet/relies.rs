//! What a node needs to authenticate anybody: the store, the application of `[hook]`.

use std::time::{Duration, Instant};

use crate::hook::{HookStats, Told};

/// How long an application counts as lost after it has failed somebody, and how long it does not after it has answered somebody else.
const HOOK_FAILED: Duration = Duration::from_secs(30);
const HOOK_ANSWERED: Duration = Duration::from_secs(5);

/// What this node authenticates clients with, beside its configuration.
#[derive(Clone, Copy, Debug)]
pub(super) struct Relies {
    /// Without the store it knows none of some realm's time-limited users, or refuses all.
    pub(super) on_store: bool,
    pub(super) on_hook: bool,
}

/// How the application of `[hook]` has answered of late.
#[derive(Debug, Default)]
pub(super) struct HookHealth {
    answered: u64,
    failed: u64,
    answered_at: Option<Instant>,
    failed_at: Option<Instant>,
}

impl HookHealth {
    /// Looks at what it has answered since the last time.
    pub(super) fn look(&mut self, stats: &HookStats, now: Instant) {
        let answered = stats.of(Told::Known) + stats.of(Told::Unknown);
        let failed = stats.of(Told::Failed) + stats.of(Told::NotAsked);
        if std::mem::replace(&mut self.answered, answered) != answered {
            self.answered_at = Some(now);
        }
        if std::mem::replace(&mut self.failed, failed) != failed {
            self.failed_at = Some(now);
        }
    }

    /// Whether it answers nobody: that it fails for one network alone, whose clients may be the reason, takes no room from others.
    pub(super) fn is_lost(&self, is_broken: bool, now: Instant) -> bool {
        let within = |at: Option<Instant>, time| at.is_some_and(|at| now.saturating_duration_since(at) < time);
        is_broken && within(self.failed_at, HOOK_FAILED) && !within(self.answered_at, HOOK_ANSWERED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_application_is_lost_when_it_fails_somebody_and_answers_nobody() {
        let (mut health, stats, began) = (HookHealth::default(), HookStats::default(), Instant::now());
        let at = |secs| began + Duration::from_secs(secs);
        assert!(!health.is_lost(true, at(0)), "nobody has been asked about");
        stats.count(Told::Failed);
        health.look(&stats, at(1));
        assert!(health.is_lost(true, at(2)) && !health.is_lost(false, at(2)));
        stats.count(Told::Known);
        health.look(&stats, at(3));
        assert!(!health.is_lost(true, at(7)), "others are answered");
        assert!(health.is_lost(true, at(9)));
        assert!(!health.is_lost(true, at(31)), "nobody is failed any more");
    }
}
