//! Draining: no new allocation, and the end when the last one has ended or the deadline has come.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::notify;
use super::run::RunningServer;
use crate::net::sys;
use crate::worker::Command;

/// How often the allocations left are counted.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// How much time the service manager is asked for, and how often.
const EXTENSION: Duration = Duration::from_secs(20);
const EXTENSION_INTERVAL: Duration = Duration::from_secs(5);

/// A drain under way.
pub(super) struct Draining {
    deadline: Option<Deadline>,
    /// When the workers were told, in monotonic microseconds, and when each last said that it had heard of it.
    told_micros: u64,
    heard: Vec<Arc<AtomicU64>>,
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
    /// When it ends at the latest, in Unix seconds.
    pub(super) fn deadline_unix(&self) -> Option<u64> {
        self.deadline.map(|deadline| deadline.unix_secs)
    }
}

impl RunningServer {
    /// Begins to drain; without a deadline it lasts until the last allocation has ended.
    pub(super) fn begin_drain(&mut self, deadline: Option<Duration>) {
        self.status.set_draining();
        let told_micros = sys::clocks().0;
        self.send_drain();
        let heard = self.context.mailboxes.iter().map(|mailbox| {
            let heard = Arc::new(AtomicU64::new(0));
            mailbox.send(Command::Ping(Arc::clone(&heard)));
            heard
        });
        let heard = heard.collect();
        let alternates = self.config.drain.alternates.servers.len();
        let live = self.live_allocations();
        tracing::info!(live, deadline_secs = deadline.map(|deadline| deadline.as_secs()), alternates, "draining");
        let deadline = deadline.and_then(Deadline::after);
        self.draining = Some(Draining { deadline, told_micros, heard, live_shown: None, extended: None });
    }

    /// Gives a drain under way another deadline, counted from now on, or none; begins one where there is none. Returns the
    /// deadline in Unix seconds.
    pub(super) fn drain_until(&mut self, deadline: Option<Duration>) -> Option<u64> {
        match &mut self.draining {
            Some(draining) => {
                tracing::info!(
                    deadline_secs = deadline.map(|deadline| deadline.as_secs()),
                    "the drain has another deadline"
                );
                draining.deadline = deadline.and_then(Deadline::after);
            }
            None => self.begin_drain(deadline),
        }
        self.draining.as_ref().and_then(Draining::deadline_unix)
    }

    /// The deadline that the configuration gives to drains that nobody waits for; zero is none.
    pub(super) fn configured_deadline(&self) -> Option<Duration> {
        Some(self.config.drain.deadline).filter(|deadline| !deadline.is_zero())
    }

    /// Tells the workers, the alternate servers included.
    pub(super) fn send_drain(&self) {
        let alternates = Arc::new(self.config.drain.alternates.clone());
        for mailbox in &self.context.mailboxes {
            mailbox.send(Command::Drain(Arc::clone(&alternates)));
        }
    }

    /// Whether the drain is over.
    pub(super) fn has_drained(&mut self) -> bool {
        let live = self.live_allocations();
        let Some(draining) = &mut self.draining else { return false };
        let all_heard = draining.heard.iter().all(|heard| heard.load(Ordering::Acquire) >= draining.told_micros);
        if all_heard && live == 0 {
            tracing::info!("drained");
            return true;
        }
        if draining.deadline.is_some_and(|deadline| deadline.at <= Instant::now()) {
            tracing::warn!(live, "the deadline of the drain has come; the allocations that are left end");
            return true;
        }
        if draining.extended.is_none_or(|extended| extended.elapsed() >= EXTENSION_INTERVAL) {
            draining.extended = Some(Instant::now());
            notify::extend_timeout(EXTENSION);
        }
        if draining.live_shown != Some(live) {
            draining.live_shown = Some(live);
            notify::status(&format!("draining, {live} allocation{} left", if live == 1 { "" } else { "s" }));
        }
        false
    }

    fn live_allocations(&self) -> u64 {
        self.counters.iter().map(|counters| counters.allocations.get()).sum()
    }
}
