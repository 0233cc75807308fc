//! What a probe found: a tree of URLs, addresses and steps, as JSON of a stable schema and as text.
//!
//! Schema 1: fields are only ever added. `verdict` and `status` are `ok`, `note`, `warn` or `fail`; a verdict is the worst
//! status below it. Times are milliseconds. What is in `facts` depends on the step. The first target of a page's list is called
//! `iceServers` and is about the whole of it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use crate::addr::{Family, Transport};

/// The version of the JSON.
pub const SCHEMA: u32 = 1;

/// How a step ended, from good to bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// As it should be.
    Ok,
    /// Not offered or not tried, which is no fault.
    Note,
    /// It works, and somebody should look at it.
    Warn,
    /// It does not work, or is not safe.
    Fail,
}

impl Status {
    /// The name in text and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// One step.
#[derive(Clone, Debug, Serialize)]
pub struct Step {
    /// Its name, from a fixed list.
    pub step: &'static str,
    /// The address family of the relay that it is about: `ipv4`, `ipv6` or null.
    pub relay: Option<&'static str>,
    /// How it ended.
    pub status: Status,
    /// How long it took, in milliseconds.
    pub ms: f64,
    /// The verdict in words, for people; it may change.
    pub message: String,
    /// What was found, for programs.
    pub facts: BTreeMap<&'static str, Value>,
}

impl Step {
    /// A step that took so long, with its verdict in words.
    pub fn new(step: &'static str, status: Status, took: Duration, message: impl Into<String>) -> Self {
        Self { step, relay: None, status, ms: millis(took), message: message.into(), facts: BTreeMap::new() }
    }

    pub(super) fn of_relay(mut self, family: Family) -> Self {
        self.relay = Some(match family {
            Family::V4 => "ipv4",
            Family::V6 => "ipv6",
        });
        self
    }

    /// Adds what a program would want to know.
    #[must_use]
    pub fn fact(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.facts.insert(name, value.into());
        self
    }

    pub(super) fn is_no_route(&self) -> bool {
        self.facts.contains_key("no_route")
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.relay {
            Some(relay) => format!("{} {relay}", self.step),
            None => self.step.to_owned(),
        };
        write!(f, "{:<4}  {name:<20} {:>9.1} ms  {}", self.status.name(), self.ms, self.message)
    }
}

/// The steps at one address.
#[derive(Clone, Debug, Serialize)]
pub struct Endpoint {
    /// IP address and port.
    pub address: SocketAddr,
    /// `udp`, `tcp`, `tls` or `dtls`.
    pub transport: &'static str,
    /// The worst of its steps.
    pub verdict: Status,
    /// Its steps in order.
    pub steps: Vec<Step>,
}

impl Endpoint {
    pub(super) fn new(address: SocketAddr, transport: Transport, steps: Vec<Step>) -> Self {
        Self { address, transport: transport.name(), verdict: worst(steps.iter().map(|step| step.status)), steps }
    }
}

/// One URL.
#[derive(Clone, Debug, Serialize)]
pub struct Target {
    /// The URL with port and transport.
    pub url: String,
    /// The worst of its steps and addresses.
    pub verdict: Status,
    /// The steps before an address is known.
    pub steps: Vec<Step>,
    /// Its addresses in the order of the resolver.
    pub addresses: Vec<Endpoint>,
}

impl Target {
    pub(super) fn new(url: String, steps: Vec<Step>, addresses: Vec<Endpoint>) -> Self {
        let below = steps.iter().map(|step| step.status).chain(addresses.iter().map(|endpoint| endpoint.verdict));
        Self { url, verdict: worst(below), steps, addresses }
    }

    /// Its own steps and those of its addresses.
    pub fn all_steps(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter().chain(self.addresses.iter().flat_map(|endpoint| &endpoint.steps))
    }
}

/// How many steps ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Steps that are as they should be.
    pub ok: u32,
    /// Steps not offered or not tried.
    pub note: u32,
    /// Warnings.
    pub warn: u32,
    /// Failures.
    pub fail: u32,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ok, note, warn, fail } = self;
        let plural = |count: u32| if count == 1 { "" } else { "s" };
        write!(f, "{ok} ok, {note} note{}, {warn} warning{}, {fail} failed", plural(*note), plural(*warn))
    }
}

impl Counts {
    /// Counts steps.
    pub fn of<'s>(steps: impl IntoIterator<Item = &'s Step>) -> Self {
        let mut counts = Self::default();
        for step in steps {
            let count = match step.status {
                Status::Ok => &mut counts.ok,
                Status::Note => &mut counts.note,
                Status::Warn => &mut counts.warn,
                Status::Fail => &mut counts.fail,
            };
            *count += 1;
        }
        counts
    }
}

/// Everything that was found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The worst of all steps.
    pub verdict: Status,
    /// How many steps ended how.
    pub counts: Counts,
    /// Whether untrusted certificates were accepted.
    pub insecure: bool,
    /// When the probe began, seconds since the Unix epoch.
    pub started_unix: u64,
    /// How long it took, in milliseconds.
    pub ms: f64,
    /// The URLs in the order given.
    pub targets: Vec<Target>,
}

impl Report {
    pub(super) fn new(targets: Vec<Target>, insecure: bool, started_unix: u64, took: Duration) -> Self {
        let counts = Counts::of(targets.iter().flat_map(Target::all_steps));
        let verdict = worst(targets.iter().map(|target| target.verdict));
        Self { schema: SCHEMA, verdict, counts, insecure, started_unix, ms: millis(took), targets }
    }

    /// What is not as it should be, each with where it was: of many steps, the first ones are out of sight at the end.
    pub fn complaints(&self) -> Vec<(Status, String)> {
        let mut found = Vec::new();
        for target in &self.targets {
            let own = target.steps.iter().map(|step| (target.url.clone(), step));
            let below = target.addresses.iter().flat_map(|endpoint| {
                endpoint.steps.iter().map(move |step| (format!("{} at {}", target.url, endpoint.address), step))
            });
            for (place, step) in own.chain(below).filter(|(_, step)| step.status >= Status::Warn) {
                let relay = step.relay.map_or_else(String::new, |relay| format!(" {relay}"));
                found.push((
                    step.status,
                    format!("{:<4}  {place}: {}{relay}: {}", step.status.name(), step.step, step.message),
                ));
            }
        }
        found
    }

    /// The last line of the text form.
    pub fn summary(&self) -> String {
        let is_turn = self.targets.iter().any(|target| target.url.starts_with("turn"));
        let steps = || self.targets.iter().flat_map(Target::all_steps);
        let has_relayed = steps().any(|step| step.step.starts_with("echo-") && step.status == Status::Ok);
        let has_allocated = steps().any(|step| step.step == "allocate" && step.status == Status::Ok);
        let verdict = match (self.verdict, is_turn && !has_relayed) {
            (Status::Fail, _) => "FAILED",
            (_, true) if has_allocated => {
                "it allocates, and no data went from one of its clients to the other (above is why)"
            }
            (_, true) => {
                "it answers, and NOTHING WAS RELAYED (a credential is needed for that: --credential, or --user and a password)"
            }
            (Status::Ok | Status::Note, false) => "it works",
            (Status::Warn, false) => "it works, with warnings",
        };
        format!("{verdict}: {} in {:.1} s", self.counts, self.ms / 1000.0)
    }
}

/// What happens while a probe runs.
#[derive(Clone, Copy, Debug)]
pub enum Progress<'a> {
    /// A URL is begun.
    Target(&'a str),
    /// An address of it is begun.
    Endpoint {
        /// IP address and port.
        address: SocketAddr,
        /// How it is reached.
        transport: Transport,
    },
    /// A step has ended.
    Step(&'a Step),
}

/// Collects steps and announces each.
pub(super) struct Recorder<'p> {
    steps: Vec<Step>,
    progress: &'p mut dyn FnMut(Progress<'_>),
}

impl<'p> Recorder<'p> {
    pub(super) fn new(progress: &'p mut dyn FnMut(Progress<'_>)) -> Self {
        Self { steps: Vec::new(), progress }
    }

    pub(super) fn add(&mut self, step: Step) {
        (self.progress)(Progress::Step(&step));
        self.steps.push(step);
    }

    pub(super) fn finish(self) -> Vec<Step> {
        self.steps
    }
}

/// The worst of all, [`Status::Ok`] of none.
pub fn worst(statuses: impl Iterator<Item = Status>) -> Status {
    statuses.max().unwrap_or(Status::Ok)
}

/// Milliseconds with three decimals.
pub(crate) fn millis(took: Duration) -> f64 {
    (took.as_secs_f64() * 1e6).round() / 1e3
}
