//! The result of a measurement, as a table for people and as JSON.

use std::fmt;

use serde::Serialize;

use super::measure::{Readings, Run};
use super::options::Options;
use super::stats::Histogram;
use crate::addr::Transport;

/// The result of a measurement. In JSON, what was not measured is `null`.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What was done.
    pub mode: &'static str,
    /// What is counted: packet, round trip, request, cycle or allocation.
    pub unit: &'static str,
    /// How clients reached the server.
    pub transport: &'static str,
    /// The server.
    pub server_address: String,
    /// Clients, each with its own connection.
    pub clients: u32,
    /// Bytes of payload, in the modes that relay.
    pub payload_bytes: Option<usize>,
    /// Packets back to back.
    pub burst: u32,
    /// Whether bursts were sent segmented (GSO).
    pub gso: bool,
    /// Whether they were received coalesced (GRO).
    pub gro: bool,
    /// Units in flight at most; `null` at a fixed rate.
    pub window: Option<u32>,
    /// Units per second asked for; `null` with a window.
    pub rate: Option<u64>,
    /// The measured time in seconds.
    pub seconds: f64,
    /// Units sent in it.
    pub sent: u64,
    /// Of those, units that arrived.
    pub received: u64,
    /// Of those, units that did not arrive within half a second of the end.
    pub lost: u64,
    /// The same in per cent of `sent`.
    pub loss_percent: f64,
    /// What the loss may come from that is no lack of speed.
    pub loss_note: Option<&'static str>,
    /// Units that arrived after a later one.
    pub late: u64,
    /// Units that arrived more than once.
    pub duplicate: u64,
    /// Packets whose content was not as sent.
    pub damaged: u64,
    /// Packets from the wrong source or at the wrong client.
    pub misrouted: u64,
    /// Requests that were refused, or not answered as they should be.
    pub refused: u64,
    /// What the first of them said.
    pub first_refusal: Option<String>,
    /// Times that nothing arrived for 50 ms and the window was opened again.
    pub stalls: u64,
    /// Units that arrived per second of the measured time.
    pub per_second: f64,
    /// Megabits of payload that arrived per second.
    pub payload_megabits_per_second: Option<f64>,
    /// Time from sending to arrival.
    pub latency_us: Option<Latency>,
    /// What it cost the server's process.
    pub server: Option<Server>,
    /// What it cost this process.
    pub generator: Option<Generator>,
    /// Idle allocations.
    pub hold: Option<Hold>,
}

/// Latencies in microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Latency {
    /// Half of the units took no longer.
    pub p50: f64,
    /// 90 %.
    pub p90: f64,
    /// 99 %.
    pub p99: f64,
    /// 99.9 %.
    pub p999: f64,
    /// The longest.
    pub max: f64,
}

/// The server's process in the measured time.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Server {
    /// Its process id.
    pub pid: u32,
    /// CPU microseconds per unit that arrived; in a flood at a fixed rate, per unit that found room in a socket buffer.
    pub cpu_us_per_unit: Option<f64>,
    /// CPU time in per cent of one CPU.
    pub cpu_percent: f64,
    /// The share of CPU time in user mode, per cent, sampled by the kernel's tick.
    pub user_percent: Option<f64>,
    /// Waits per second.
    pub voluntary_switches_per_second: f64,
    /// Preemptions per second.
    pub involuntary_switches_per_second: f64,
    /// Resident memory in bytes at the end.
    pub resident_bytes: u64,
    /// How much that is more than at the start.
    pub resident_bytes_grown: i64,
    /// Datagrams dropped for lack of a socket buffer, by any process in the server's network namespace.
    pub receive_buffer_errors: Option<u64>,
}

/// This process in the measured time.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Generator {
    /// CPU microseconds per unit, waiting included when it spins.
    pub cpu_us_per_unit: Option<f64>,
    /// The share of time in which it had something to do, per cent. Near 100, with a server that has time to spare, it is
    /// itself the limit.
    pub busy_percent: f64,
}

/// Idle allocations: memory and CPU time of the server's process.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Hold {
    /// CPU microseconds for making one allocation with permission and channel.
    pub set_up_cpu_us_per_allocation: f64,
    /// Resident memory before the first allocation.
    pub resident_bytes_at_start: u64,
    /// Resident memory with all of them.
    pub resident_bytes_held: u64,
    /// The difference, per allocation.
    pub resident_bytes_per_allocation: f64,
    /// Resident memory after all were ended.
    pub resident_bytes_released: u64,
    /// CPU time while nothing happened, per cent of one CPU.
    pub idle_cpu_percent: f64,
    /// Waits per second while nothing happened.
    pub idle_context_switches_per_second: f64,
}

impl Report {
    pub(super) fn of(options: &Options, run: &Run<'_>) -> Self {
        let counts = run.counts;
        let lost = counts.sent.saturating_sub(counts.received);
        let mut report = Self::empty(options);
        report.sent = counts.sent;
        report.received = counts.received;
        report.lost = lost;
        report.loss_percent = if counts.sent == 0 { 0.0 } else { 100.0 * lost as f64 / counts.sent as f64 };
        report.late = counts.late;
        report.duplicate = counts.duplicate;
        report.damaged = counts.damaged;
        report.misrouted = counts.misrouted;
        report.refused = counts.refused;
        report.first_refusal.clone_from(&run.first_refusal);
        report.stalls = counts.stalls;
        report.latency_us = Latency::of(&run.latency);
        let Some((before, after)) = run.readings() else { return report };
        let seconds = after.at_ns.saturating_sub(before.at_ns) as f64 / 1e9;
        report.seconds = seconds;
        report.per_second = counts.arrived as f64 / seconds;
        if options.mode.relays() {
            report.payload_megabits_per_second = Some(report.per_second * options.size as f64 * 8.0 / 1e6);
        }
        // A flood may be meant to stay unanswered: then what reached the server's socket is what it had to deal with.
        let units = if options.mode == super::Mode::Flood && options.rate.is_some() {
            let dropped = after.buffer_errors.zip(before.buffer_errors).map_or(0, |(a, b)| a.saturating_sub(b));
            counts.sent.saturating_sub(dropped)
        } else {
            counts.arrived
        };
        report.server = options.server_pid.and_then(|pid| Server::of(pid, units, seconds, &before, &after));
        let idle_ns = after.idle_ns.saturating_sub(before.idle_ns) as f64;
        report.generator = Some(Generator {
            cpu_us_per_unit: per_unit(after.generator.since(before.generator).cpu_ns, units),
            busy_percent: (100.0 - idle_ns / 1e7 / seconds).clamp(0.0, 100.0),
        });
        report.loss_note = report.note_on_loss();
        report
    }

    pub(super) fn of_hold(options: &Options, set_up_ns: u64, hold: Option<Hold>) -> Self {
        let mut report = Self::empty(options);
        let count = u64::from(options.clients);
        report.sent = count;
        report.received = count;
        report.seconds = set_up_ns as f64 / 1e9;
        report.per_second = count as f64 / report.seconds;
        report.hold = hold;
        report
    }

    fn empty(options: &Options) -> Self {
        Self {
            mode: options.mode.name(),
            unit: options.mode.unit(),
            transport: options.transport.name(),
            server_address: options.server.to_string(),
            clients: options.clients,
            payload_bytes: options.mode.relays().then_some(options.size),
            burst: options.burst,
            gso: options.gso,
            gro: options.gro,
            window: options.rate.is_none().then_some(options.window),
            rate: options.rate,
            seconds: 0.0,
            sent: 0,
            received: 0,
            lost: 0,
            loss_percent: 0.0,
            loss_note: None,
            late: 0,
            duplicate: 0,
            damaged: 0,
            misrouted: 0,
            refused: 0,
            first_refusal: None,
            stalls: 0,
            per_second: 0.0,
            payload_megabits_per_second: None,
            latency_us: None,
            server: None,
            generator: None,
            hold: None,
        }
    }
}

impl Latency {
    fn of(histogram: &Histogram) -> Option<Self> {
        let us = |share| histogram.quantile(share).map(|nanos| nanos as f64 / 1e3);
        Some(Self { p50: us(0.5)?, p90: us(0.9)?, p99: us(0.99)?, p999: us(0.999)?, max: us(1.0)? })
    }
}

impl Server {
    fn of(pid: u32, units: u64, seconds: f64, before: &Readings, after: &Readings) -> Option<Self> {
        let (start, end) = (before.server?, after.server?);
        let used = end.since(start);
        Some(Self {
            pid,
            cpu_us_per_unit: per_unit(used.cpu_ns, units),
            cpu_percent: used.cpu_ns as f64 / 1e7 / seconds,
            user_percent: used.user_share().map(|share| share * 100.0),
            voluntary_switches_per_second: used.voluntary_switches as f64 / seconds,
            involuntary_switches_per_second: used.involuntary_switches as f64 / seconds,
            resident_bytes: end.resident_bytes,
            resident_bytes_grown: end.resident_bytes.cast_signed() - start.resident_bytes.cast_signed(),
            receive_buffer_errors: after.buffer_errors.zip(before.buffer_errors).map(|(a, b)| a.saturating_sub(b)),
        })
    }
}

fn per_unit(cpu_ns: u64, units: u64) -> Option<f64> {
    (units > 0).then(|| cpu_ns as f64 / 1e3 / units as f64)
}

const LIMITED: &str =
    "the server's limit on answers to strangers of one network: [limits] unauthenticated-replies-per-second";
/// A loss from which on its cause is spoken of.
const LOSS_NOTED_PERCENT: f64 = 5.0;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = self.unit;
        let mut row = |name: &str, value: String| writeln!(f, "{name:<26}{value}");
        row("mode", format!("{} over {} to {}", self.mode, self.transport, self.server_address))?;
        row("load", self.load())?;
        if self.hold.is_none() {
            row("measured", format!("{:.2} s", self.seconds))?;
            row("arrived", format!("{:.0} {unit}s/s", self.per_second))?;
        } else {
            row("set up", format!("{:.2} s, {:.0} {unit}s/s", self.seconds, self.per_second))?;
        }
        if let Some(megabits) = self.payload_megabits_per_second {
            row("payload", format!("{megabits:.1} Mbit/s"))?;
        }
        row("lost", format!("{} of {} ({:.4} %)", self.lost, self.sent, self.loss_percent))?;
        if let Some(note) = self.loss_note {
            row("  perhaps", note.to_owned())?;
        }
        let faults = [
            ("late", self.late),
            ("duplicate", self.duplicate),
            ("damaged", self.damaged),
            ("misrouted", self.misrouted),
            ("refused", self.refused),
            ("stalls", self.stalls),
        ];
        for (name, count) in faults.into_iter().filter(|(_, count)| *count > 0) {
            row(name, count.to_string())?;
        }
        if let Some(text) = &self.first_refusal {
            row("  first refusal", text.clone())?;
        }
        if let Some(l) = self.latency_us {
            let text =
                format!("p50 {:.1}, p90 {:.1}, p99 {:.1}, p99.9 {:.1}, max {:.1}", l.p50, l.p90, l.p99, l.p999, l.max);
            row("latency, us", text)?;
        }
        if let Some(s) = self.server {
            let us = s.cpu_us_per_unit.map_or("-".into(), |us| format!("{us:.3} us per {unit}"));
            row("server CPU", format!("{us}, {:.1} % of one CPU", s.cpu_percent))?;
            if let Some(user) = s.user_percent {
                row("  user, system", format!("{user:.0} %, {:.0} %", 100.0 - user))?;
            }
            let (waits, preemptions) = (s.voluntary_switches_per_second, s.involuntary_switches_per_second);
            row("  context switches", format!("{waits:.0} waits/s, {preemptions:.0} preemptions/s"))?;
            let (resident, grown) = (mib(s.resident_bytes as f64), mib(s.resident_bytes_grown as f64));
            row("  resident memory", format!("{resident:.1} MiB ({grown:+.1})"))?;
            if let Some(errors) = s.receive_buffer_errors {
                row("  buffer overflows", format!("{errors} datagrams"))?;
            }
        }
        if let Some(g) = self.generator {
            let us = g.cpu_us_per_unit.map_or("-".into(), |us| format!("{us:.3} us per {unit}"));
            // A server with time to spare, and a generator without: the figures are the generator's.
            let idle_server = self.server.is_none_or(|s| s.cpu_percent < 85.0);
            let limit = if g.busy_percent > 97.0 && idle_server { ": it may itself be the limit" } else { "" };
            row("generator CPU", format!("{us}, busy {:.0} % of the time{limit}", g.busy_percent))?;
        }
        if let Some(h) = self.hold {
            row("server CPU", format!("{:.2} us per allocation set up", h.set_up_cpu_us_per_allocation))?;
            row("  idle", format!("{:.4} % of one CPU", h.idle_cpu_percent))?;
            row("  idle waits", format!("{:.1}/s", h.idle_context_switches_per_second))?;
            row("resident memory", format!("{:.0} bytes per allocation", h.resident_bytes_per_allocation))?;
            row("  at start", format!("{:.2} MiB", mib(h.resident_bytes_at_start as f64)))?;
            row("  held", format!("{:.2} MiB", mib(h.resident_bytes_held as f64)))?;
            row("  released", format!("{:.2} MiB", mib(h.resident_bytes_released as f64)))?;
        }
        Ok(())
    }
}

impl Report {
    /// Why the measurement is none: nothing came back that should have. A flood at a fixed rate may be meant to stay unanswered.
    pub fn failure(&self) -> Option<String> {
        let is_meant = self.mode == super::Mode::Flood.name() && self.rate.is_some();
        (self.sent > 0 && self.received == 0 && !is_meant)
            .then(|| format!("none of {} {}s arrived", self.sent, self.unit))
    }

    /// What a loss may come from that is no lack of speed.
    fn note_on_loss(&self) -> Option<&'static str> {
        let strangers = [super::Mode::Stun, super::Mode::Flood, super::Mode::Allocate].map(super::Mode::name);
        let is_limited = strangers.contains(&self.mode)
            && Transport::from_name(self.transport).is_some_and(|transport| !transport.proves_address());
        match self.loss_percent >= LOSS_NOTED_PERCENT {
            true if is_limited => Some(LIMITED),
            true if self.server.is_none_or(|server| server.cpu_percent < 85.0) => Some(
                "the server is not at its limit: [bandwidth] caps, a full socket buffer or the network may be the cause",
            ),
            _ => None,
        }
    }

    fn load(&self) -> String {
        let mut text = format!("{} client{}", self.clients, if self.clients == 1 { "" } else { "s" });
        if let Some(bytes) = self.payload_bytes {
            text += &format!(", {bytes} bytes");
        }
        if self.burst > 1 {
            text += &format!(", bursts of {}{}", self.burst, if self.gso { " by GSO" } else { "" });
        }
        match (self.rate, self.window, &self.hold) {
            (Some(rate), _, _) => text += &format!(", {rate}/s"),
            (None, Some(window), None) => text += &format!(", {window} in flight"),
            _ => {}
        }
        text
    }
}

fn mib(bytes: f64) -> f64 {
    bytes / f64::from(1 << 20)
}
