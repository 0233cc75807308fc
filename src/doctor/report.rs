//! What the doctor found: findings on the host, and a probe of each listener in the form of `turnstone probe`.
//!
//! Schema 1: fields are only ever added. `verdict` and `status` are `ok`, `note`, `warn` or `fail`.

use std::time::Duration;

use serde::Serialize;

use crate::probe::{self, Counts, Status, Step, Target, millis, worst};

/// The version of the JSON.
pub const SCHEMA: u32 = 1;

/// Everything that was found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The worst of all.
    pub verdict: Status,
    /// How many checks and steps ended how.
    pub counts: Counts,
    /// When it began, seconds since the Unix epoch.
    pub started_unix: u64,
    /// How long it took, in milliseconds.
    pub ms: f64,
    /// The checks of the host.
    pub checks: Vec<Step>,
    /// The listeners that were probed, in the configuration's order.
    pub listeners: Vec<Target>,
}

impl Report {
    pub(super) fn new(checks: Vec<Step>, listeners: Vec<Target>, started_unix: u64, took: Duration) -> Self {
        let all = || checks.iter().chain(listeners.iter().flat_map(Target::all_steps));
        let (verdict, counts) = (worst(all().map(|step| step.status)), Counts::of(all()));
        Self { schema: SCHEMA, verdict, counts, started_unix, ms: millis(took), checks, listeners }
    }

    /// The last line of the text form.
    pub fn summary(&self) -> String {
        let verdict = match self.verdict {
            Status::Ok | Status::Note => "healthy",
            Status::Warn => "it works, with warnings",
            Status::Fail => "NOT HEALTHY",
        };
        format!("{verdict}: {} in {:.1} s", self.counts, self.ms / 1000.0)
    }
}

/// What happens while the doctor looks.
#[derive(Clone, Copy, Debug)]
pub enum Progress<'a> {
    /// A check of the host has ended.
    Check(&'a Step),
    /// A listener is being probed.
    Listener(probe::Progress<'a>),
}
