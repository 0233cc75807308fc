//! The course of a measurement: warm-up, measured time, drain; pacing by window or rate; what was sent and what arrived.

use std::io;
use std::time::{Duration, Instant};

use super::error::BenchError;
use super::options::Options;
use super::poll::Poll;
use super::process::{self, Usage};
use super::progress::Progress;
use super::stats::{Arrival, Histogram};
use crate::net::sys;

/// Without any arrival for this long, what is in flight counts as lost and the window opens again.
const STALL_NS: u64 = 50_000_000;
/// How long after the measured time arrivals are waited for.
const DRAIN_NS: u64 = 500_000_000;
/// Units sent at most between two looks at what has arrived.
const MAX_TURN: u64 = 256;
/// Longest single wait, so that phases end on time.
const MAX_WAIT: Duration = Duration::from_millis(5);
/// Time between two progress messages.
const PROGRESS_NS: u64 = 500_000_000;

/// Nanoseconds since the start of the measurement.
#[derive(Clone, Copy)]
pub(super) struct Clock(Instant);

impl Clock {
    pub(super) fn start() -> Self {
        Self(Instant::now())
    }

    pub(super) fn now_ns(self) -> u64 {
        u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// What was counted; a unit is a packet, a round trip, a request or a cycle.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    /// Units sent in the measured time.
    pub(super) sent: u64,
    /// Of those, units that arrived, at whatever time, each once.
    pub(super) received: u64,
    /// Units that arrived in the measured time, whenever sent: what the server's CPU time is divided by.
    pub(super) arrived: u64,
    /// Units that arrived after a later one of the same flow.
    pub(super) late: u64,
    /// Units that arrived again.
    pub(super) duplicate: u64,
    /// Packets whose payload was not as sent.
    pub(super) damaged: u64,
    /// Packets from the wrong address, on the wrong channel or for another client.
    pub(super) misrouted: u64,
    /// Error responses to requests that should succeed.
    pub(super) refused: u64,
    /// Times that the window was opened again because nothing arrived.
    pub(super) stalls: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    WarmUp,
    Measured,
    Drain,
    Over,
}

/// The state of a measurement.
pub(super) struct Run<'a> {
    pub(super) clock: Clock,
    pub(super) counts: Counts,
    pub(super) latency: Histogram,
    pub(super) in_flight: u64,
    /// What the first refusal said.
    pub(super) first_refusal: Option<String>,
    /// Set when a stall has opened the window: flows then forgive what is outstanding.
    pub(super) forgive: bool,
    options: &'a Options,
    progress: &'a mut dyn FnMut(&Progress),
    phase: Phase,
    started_ns: u64,
    measured_from_ns: u64,
    measured_until_ns: u64,
    paced: u64,
    last_arrival_ns: u64,
    next_progress_ns: u64,
    arrived_at_progress: u64,
    idle_ns: u64,
    spin: bool,
    before: Option<Readings>,
    after: Option<Readings>,
}

/// Readings at one end of the measured time.
#[derive(Clone, Copy)]
pub(super) struct Readings {
    pub(super) at_ns: u64,
    pub(super) idle_ns: u64,
    pub(super) server: Option<Usage>,
    pub(super) generator: Usage,
    pub(super) buffer_errors: Option<u64>,
}

impl<'a> Run<'a> {
    /// Starts with the warm-up.
    pub(super) fn start(options: &'a Options, clock: Clock, progress: &'a mut dyn FnMut(&Progress)) -> Self {
        let now_ns = clock.now_ns();
        Self {
            clock,
            counts: Counts::default(),
            latency: Histogram::default(),
            in_flight: 0,
            first_refusal: None,
            forgive: false,
            options,
            progress,
            phase: Phase::WarmUp,
            started_ns: now_ns,
            measured_from_ns: u64::MAX,
            measured_until_ns: u64::MAX,
            paced: 0,
            last_arrival_ns: now_ns,
            next_progress_ns: now_ns.saturating_add(PROGRESS_NS),
            arrived_at_progress: 0,
            idle_ns: 0,
            spin: options.spin && sys::online_cpus() > 1,
            before: None,
            after: None,
        }
    }

    /// Moves from phase to phase; `false` when the measurement is over.
    ///
    /// # Errors
    /// When the server's process has gone.
    pub(super) fn advance(&mut self, now_ns: u64) -> Result<bool, BenchError> {
        match self.phase {
            Phase::WarmUp if now_ns.saturating_sub(self.started_ns) >= nanos(self.options.warm_up) => {
                self.latency.clear();
                self.counts = Counts::default();
                self.arrived_at_progress = 0;
                self.before = Some(self.read()?);
                self.phase = Phase::Measured;
                self.measured_from_ns = self.clock.now_ns();
            }
            Phase::Measured if now_ns.saturating_sub(self.measured_from_ns) >= nanos(self.options.duration) => {
                self.measured_until_ns = self.clock.now_ns();
                self.after = Some(self.read()?);
                self.phase = Phase::Drain;
            }
            Phase::Drain => {
                let complete = self.counts.received >= self.counts.sent;
                let waited_ns = now_ns.saturating_sub(self.measured_until_ns);
                if complete || waited_ns >= DRAIN_NS {
                    self.phase = Phase::Over;
                }
            }
            _ => {}
        }
        if self.in_flight > 0 && now_ns.saturating_sub(self.last_arrival_ns) > STALL_NS && self.is_sending() {
            self.in_flight = 0;
            self.last_arrival_ns = now_ns;
            self.forgive = true;
            self.counts.stalls += u64::from(self.options.rate.is_none());
        }
        if now_ns >= self.next_progress_ns {
            self.report_progress(now_ns);
        }
        Ok(self.phase != Phase::Over)
    }

    /// Whether units are still to be sent.
    pub(super) fn is_sending(&self) -> bool {
        matches!(self.phase, Phase::WarmUp | Phase::Measured)
    }

    /// How many units may be sent now, a multiple of the burst.
    pub(super) fn budget(&mut self, now_ns: u64) -> u64 {
        if !self.is_sending() {
            return 0;
        }
        let burst = u64::from(self.options.burst);
        let units = match self.options.rate {
            Some(rate) => {
                let elapsed_ns = u128::from(now_ns.saturating_sub(self.started_ns));
                let due = u64::try_from(elapsed_ns * u128::from(rate) / 1_000_000_000).unwrap_or(u64::MAX);
                due.saturating_sub(self.paced)
            }
            None => u64::from(self.options.window).saturating_sub(self.in_flight),
        };
        units.min(MAX_TURN.max(burst)) / burst * burst
    }

    /// Counts sent units.
    pub(super) fn sent(&mut self, units: u64) {
        if self.in_flight == 0 {
            self.last_arrival_ns = self.clock.now_ns();
        }
        self.in_flight += units;
        self.paced += units;
        if self.phase == Phase::Measured {
            self.counts.sent += units;
        }
    }

    /// Counts one arrival of a unit sent at `sent_ns`. `credits` units come back to the window: itself and lost ones.
    pub(super) fn arrived(&mut self, arrival: Arrival, sent_ns: u64, now_ns: u64, credits: u64) {
        self.last_arrival_ns = now_ns;
        self.in_flight = self.in_flight.saturating_sub(credits);
        match arrival {
            Arrival::InOrder { .. } => {}
            Arrival::Late => self.counts.late += 1,
            Arrival::Duplicate => {
                self.counts.duplicate += 1;
                return;
            }
        }
        if sent_ns >= self.measured_from_ns && sent_ns <= self.measured_until_ns {
            self.counts.received += 1;
            self.latency.record(now_ns.saturating_sub(sent_ns));
        }
        if self.phase == Phase::Measured {
            self.counts.arrived += 1;
        }
    }

    /// Counts a refusal and keeps the words of the first one.
    pub(super) fn refused(&mut self, why: impl FnOnce() -> String) {
        self.counts.refused += 1;
        self.first_refusal.get_or_insert_with(why);
    }

    /// Waits for arrivals until the next unit is due; returns how many sockets are ready.
    ///
    /// # Errors
    /// Of epoll.
    pub(super) fn wait(&mut self, epoll: &mut Poll, now_ns: u64, may_sleep: bool) -> io::Result<usize> {
        let timeout = if self.spin || !may_sleep { Duration::ZERO } else { self.until_due(now_ns) };
        let waits_from_ns = self.clock.now_ns();
        let ready = epoll.wait(timeout)?;
        if ready == 0 && self.spin {
            (0..16).for_each(|_| std::hint::spin_loop());
        }
        if ready == 0 || !timeout.is_zero() {
            self.idle_ns += self.clock.now_ns().saturating_sub(waits_from_ns);
        }
        Ok(ready)
    }

    /// The readings at both ends of the measured time.
    pub(super) fn readings(&self) -> Option<(Readings, Readings)> {
        Some((self.before?, self.after?))
    }

    fn until_due(&self, now_ns: u64) -> Duration {
        match self.options.rate.filter(|_| self.is_sending()) {
            None => MAX_WAIT,
            Some(rate) => {
                let next = u128::from(self.paced) + u128::from(self.options.burst);
                let due_ns = u64::try_from(next * 1_000_000_000 / u128::from(rate.max(1))).unwrap_or(u64::MAX);
                Duration::from_nanos(self.started_ns.saturating_add(due_ns).saturating_sub(now_ns)).min(MAX_WAIT)
            }
        }
    }

    fn read(&self) -> Result<Readings, BenchError> {
        let server = match self.options.server_pid {
            Some(pid) => Some(Usage::read(pid).ok_or(BenchError::NoProcess(pid))?),
            None => None,
        };
        Ok(Readings {
            at_ns: self.clock.now_ns(),
            idle_ns: self.idle_ns,
            server,
            generator: Usage::read(std::process::id()).unwrap_or_default(),
            buffer_errors: process::receive_buffer_errors(self.options.server_pid.unwrap_or(std::process::id())),
        })
    }

    fn report_progress(&mut self, now_ns: u64) {
        let since_ns = now_ns.saturating_sub(self.next_progress_ns).saturating_add(PROGRESS_NS);
        let fresh = self.counts.arrived.saturating_sub(self.arrived_at_progress);
        self.arrived_at_progress = self.counts.arrived;
        self.next_progress_ns = now_ns.saturating_add(PROGRESS_NS);
        let elapsed = |from_ns: u64| Duration::from_nanos(now_ns.saturating_sub(from_ns));
        (self.progress)(&match self.phase {
            Phase::WarmUp => Progress::WarmUp { elapsed: elapsed(self.started_ns), of: self.options.warm_up },
            Phase::Measured => Progress::Measured {
                elapsed: elapsed(self.measured_from_ns),
                of: self.options.duration,
                per_second: fresh as f64 / (since_ns as f64 / 1e9),
            },
            Phase::Drain | Phase::Over => Progress::Drain,
        });
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
