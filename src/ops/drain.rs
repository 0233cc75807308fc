//! Draining: no new allocation, and the end when the last one has ended or the deadline has come.

use std::time::{Duration, Instant};

use super::notify;
use super::workers::{Ping, Workers};
use crate::net::sys;

/// How often the allocations left are counted.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// How much time the service manager is asked for, and how often.
const EXTENSION: Duration = Duration::from_secs(20);
const EXTENSION_INTERVAL: Duration = Duration::from_secs(5);

/// A drain under way.
pub(super) struct Draining {
    deadline: Option<Deadline>,
    /// Who has heard of it.
    heard: Ping,
    /// The allocations that the service manager was last told of.
    live_shown: Option<u64>,
    extended: Option<Instant>,
}

/// When a drain ends at the latest, on both clocks.
#[derive(Clone, Copy)]
struct Deadline {
    at: Instant,
    unix_secs: u64,
}

impl Deadline {
    /// So long from now on; `None` when it is too far away to be a moment.
    fn after(time: Duration) -> Option<Self> {
        let at = Instant::now().checked_add(time)?;
        Some(Self { at, unix_secs: sys::clocks().1.saturating_add(time.as_secs()) })
    }
}

impl Draining {
    /// A drain that the workers have been told of; without a deadline it lasts until the last allocation has ended.
    pub(super) fn new(workers: &Workers, deadline: Option<Duration>, alternates: usize) -> Self {
        let live = workers.live_allocations();
        tracing::info!(live, deadline_secs = deadline.map(|deadline| deadline.as_secs()), alternates, "draining");
        let deadline = deadline.and_then(Deadline::after);
        Self { deadline, heard: workers.ping(), live_shown: None, extended: None }
    }

    /// Gives it another deadline, counted from now on, or none.
    pub(super) fn set_deadline(&mut self, deadline: Option<Duration>) {
        tracing::info!(deadline_secs = deadline.map(|deadline| deadline.as_secs()), "the drain has another deadline");
        self.deadline = deadline.and_then(Deadline::after);
    }

    /// When it ends at the latest, in Unix seconds.
    pub(super) fn deadline_unix(&self) -> Option<u64> {
        self.deadline.map(|deadline| deadline.unix_secs)
    }

    /// Whether it is over.
    pub(super) fn is_over(&mut self, workers: &Workers) -> bool {
        // Whoever has heard of it makes no allocation that is not counted yet.
        let all_heard = self.heard.silent().is_none();
        let live = workers.live_allocations();
        if all_heard && live == 0 {
            tracing::info!("drained");
            return true;
        }
        if self.deadline.is_some_and(|deadline| deadline.at <= Instant::now()) {
            tracing::warn!(live, "the deadline of the drain has come; the allocations that are left end");
            return true;
        }
        if self.extended.is_none_or(|extended| extended.elapsed() >= EXTENSION_INTERVAL) {
            self.extended = Some(Instant::now());
            notify::extend_timeout(EXTENSION);
        }
        if self.live_shown != Some(live) {
            self.live_shown = Some(live);
            notify::status(&format!("draining, {live} allocation{} left", if live == 1 { "" } else { "s" }));
        }
        false
    }
}
