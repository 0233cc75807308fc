//! What the doctor found: findings on the host, and a probe of each listener in the form of `turnstone probe`.
//!
//! Schema 1: fields are only ever added. `verdict` and `status` are `ok`, `note`, `warn` or `fail`.

use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;

use crate::probe::{self, Counts, Status, Step, Target, millis, worst};

/// The version of the JSON.
pub const SCHEMA: u32 = 1;

/// What this host sends to itself passes nothing that stands in front of it.
const NOT_SEEN: &str = "\nA firewall or security group in front of this host is not seen from here: turnstone probe, from elsewhere, \
                        sends to the relay ports as peers do (relay-reach).";

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
        let summary = format!("{verdict}: {} in {:.1} s", self.counts, self.ms / 1000.0);
        match self.has_relays_for_others() {
            true => summary + NOT_SEEN,
            false => summary,
        }
    }

    fn has_relays_for_others(&self) -> bool {
        let steps = self.listeners.iter().flat_map(Target::all_steps);
        let mut relayed = steps.filter_map(|step| step.facts.get("relayed")?.as_str()?.parse::<SocketAddr>().ok());
        relayed.any(|relayed| !relayed.ip().is_loopback())
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
