//! Live counters of one worker: written by its thread only, read by anyone, never locked.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::addr::{Family, Transport};
use crate::reject::{Dropped, Reason};
use crate::traffic::{Direction, Traffic};
use crate::turn::{EndReason, RefusalCounts};

const MILLISECOND: u64 = 1000;
const SECOND: u64 = 1_000_000;
/// Upper bounds of how long allocations live, in microseconds.
static DURATIONS: [u64; 9] = [
    SECOND,
    10 * SECOND,
    60 * SECOND,
    300 * SECOND,
    600 * SECOND,
    1800 * SECOND,
    3600 * SECOND,
    14_400 * SECOND,
    86_400 * SECOND,
];
/// Upper bounds of the time that payload spends in a worker, in microseconds.
static RELAY_TIMES: [u64; 12] = [
    25,
    50,
    100,
    250,
    500,
    MILLISECOND,
    5 * MILLISECOND / 2,
    5 * MILLISECOND,
    10 * MILLISECOND,
    25 * MILLISECOND,
    50 * MILLISECOND,
    100 * MILLISECOND,
];
/// Upper bounds of the time it takes to make an allocation, in microseconds.
static SETUP_TIMES: [u64; 12] = [
    50,
    100,
    250,
    500,
    MILLISECOND,
    5 * MILLISECOND / 2,
    5 * MILLISECOND,
    10 * MILLISECOND,
    25 * MILLISECOND,
    100 * MILLISECOND,
    250 * MILLISECOND,
    SECOND,
];
/// The most bounds that a histogram has.
const BOUNDS_MAX: usize = 12;

/// A counter with one writer.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds; only the owning worker calls this, so that no locked instruction is needed.
    pub fn add(&self, amount: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
    }

    /// Replaces the value, for gauges.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The counters of payload of one kind.
#[derive(Debug, Default)]
pub struct TrafficCounters {
    /// Packets.
    pub packets: Counter,
    /// Bytes.
    pub bytes: Counter,
}

impl TrafficCounters {
    /// Counts one packet.
    pub fn count(&self, bytes: usize) {
        self.packets.add(1);
        self.bytes.add(bytes as u64);
    }

    /// What was counted.
    pub fn get(&self) -> Traffic {
        Traffic { packets: self.packets.get(), bytes: self.bytes.get() }
    }
}

const FLOWS: usize = Transport::ALL.len() * Family::ALL.len() * Direction::ALL.len();

/// Payload relayed, by the client's transport, the peer's family, and direction.
#[derive(Debug, Default)]
pub struct Payload([TrafficCounters; FLOWS]);

impl Payload {
    /// Counts one packet.
    #[inline]
    pub fn count(&self, transport: Transport, family: Family, direction: Direction, bytes: usize) {
        self.of(transport, family, direction).count(bytes);
    }

    /// What was relayed of one kind.
    #[inline]
    pub fn of(&self, transport: Transport, family: Family, direction: Direction) -> &TrafficCounters {
        let index = (transport as usize * Family::ALL.len() + family as usize) * Direction::ALL.len();
        // It is always there.
        self.0.get(index + direction as usize).unwrap_or(&self.0[0])
    }

    /// All of one direction.
    pub fn total(&self, direction: Direction) -> Traffic {
        let flows = Transport::ALL.into_iter().flat_map(|transport| Family::ALL.map(|family| (transport, family)));
        let mut total = Traffic::default();
        flows.for_each(|(transport, family)| total += self.of(transport, family, direction).get());
        total
    }

    /// Packets of every kind, in both directions.
    pub fn packets(&self) -> u64 {
        self.0.iter().map(|traffic| traffic.packets.get()).sum()
    }

    /// The same in bytes.
    pub fn bytes(&self) -> u64 {
        self.0.iter().map(|traffic| traffic.bytes.get()).sum()
    }
}

/// Why a connection was closed though its client wanted it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// It had no allocation for longer than any other, and a new one needed its place.
    Evicted,
    /// It had no allocation for too long, whatever else it asked for.
    Unallocated,
    /// Its client did not read its answers: at once without an allocation, else after a while.
    Unread,
}

impl Cut {
    /// All of them, for metrics that start at zero.
    pub const ALL: [Self; 3] = [Self::Evicted, Self::Unallocated, Self::Unread];

    /// The stable name used as a metric label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Evicted => "evicted",
            Self::Unallocated => "unallocated",
            Self::Unread => "unread",
        }
    }
}

/// How a DTLS handshake goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handshake {
    /// A client that has shown no cookie was asked for one.
    Asked,
    /// One that has shown its cookie found no place.
    Refused,
    /// Messages can be exchanged.
    Completed,
    /// The two could not agree, or one of them has given up.
    Failed,
    /// The client did not end it in time.
    TimedOut,
    /// It was under way for longer than any other, and as many were as may be: the place was needed for another one.
    GaveWay,
}

impl Handshake {
    /// All of them, for metrics that start at zero.
    pub const ALL: [Self; 6] =
        [Self::Asked, Self::Refused, Self::Completed, Self::Failed, Self::TimedOut, Self::GaveWay];

    /// The stable name used as a metric label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::Refused => "refused",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::GaveWay => "gave-way",
            Self::TimedOut => "timed-out",
        }
    }
}

/// Why a connection from a proxy was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadHeader {
    /// It does not begin with a header.
    Missing,
    /// The header is not written as the protocol says.
    Malformed,
    /// The header is about something else than a connection over IP.
    Unsupported,
    /// The header's checksum is wrong.
    Checksum,
    /// The header has not come in time.
    Late,
    /// The header names a client that has a connection already.
    Taken,
}

impl BadHeader {
    /// All of them, for metrics that start at zero.
    pub const ALL: [Self; 6] =
        [Self::Missing, Self::Malformed, Self::Unsupported, Self::Checksum, Self::Late, Self::Taken];

    /// The stable name used as a metric label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::Unsupported => "unsupported",
            Self::Checksum => "checksum",
            Self::Late => "late",
            Self::Taken => "taken",
        }
    }
}

/// Why a connection for the web server was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotPassed {
    /// The web server cannot be reached.
    Unreachable,
    /// So many go on there already, or there is no socket for it.
    Full,
    /// It asked for nothing that the web server could have known in time: HTTP inside TLS that is ours.
    Misdirected,
    /// Nothing went either way for too long.
    Silent,
    /// It was silent, and others had no place.
    Evicted,
}

impl NotPassed {
    /// All of them, for metrics that start at zero.
    pub const ALL: [Self; 5] = [Self::Unreachable, Self::Full, Self::Misdirected, Self::Silent, Self::Evicted];

    /// The stable name used as a metric label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Full => "full",
            Self::Misdirected => "misdirected",
            Self::Silent => "silent",
            Self::Evicted => "evicted",
        }
    }
}

/// How often something took how long, in classes with fixed upper bounds.
#[derive(Debug)]
pub struct Histogram {
    bounds_micros: &'static [u64],
    /// Those above the bound before and up to this one; one more class for what is above the last bound.
    classes: [Counter; BOUNDS_MAX + 1],
    sum_micros: Counter,
}

impl Histogram {
    fn new(bounds_micros: &'static [u64]) -> Self {
        Self { bounds_micros, classes: counters(), sum_micros: Counter::default() }
    }

    /// Counts `times` occurrences that took `micros` each.
    pub fn observe(&self, micros: u64, times: u64) {
        let class = self.bounds_micros.iter().position(|bound| micros <= *bound).unwrap_or(self.bounds_micros.len());
        if let Some(counter) = self.classes.get(class) {
            counter.add(times);
            self.sum_micros.add(micros.wrapping_mul(times));
        }
    }

    /// Upper bounds of all classes but the last, in microseconds.
    pub fn bounds_micros(&self) -> &'static [u64] {
        self.bounds_micros
    }

    /// The class counters, one more than there are bounds.
    pub fn classes(&self) -> &[Counter] {
        self.classes.get(..=self.bounds_micros.len()).unwrap_or(&self.classes)
    }

    /// The time that all of them took together, in microseconds.
    pub fn sum_micros(&self) -> u64 {
        self.sum_micros.get()
    }
}

/// Everything one worker counts.
#[derive(Debug)]
pub struct Counters {
    /// Live allocations.
    pub allocations: Counter,
    /// Allocations made, by [`Transport`].
    pub allocated: [Counter; Transport::ALL.len()],
    /// Allocations ended, by [`Transport`].
    pub ended: [Counter; Transport::ALL.len()],
    /// Allocations ended, by [`EndReason`].
    pub ended_by_reason: [Counter; EndReason::ALL.len()],
    /// How long ended allocations lived.
    pub durations: Histogram,
    /// From the wake-up that brought the request to the sending of the answer, for each allocation made.
    pub setup_times: Histogram,
    /// Payload relayed.
    pub payload: Payload,
    /// From the wake-up that brought it to its sending, for each packet of [`Self::payload`].
    pub relay_times: Histogram,
    /// Bytes of payload dropped by bandwidth caps, by [`Direction`].
    pub throttled_bytes: [Counter; Direction::ALL.len()],
    /// Payload handed from one of our allocations to another in process.
    pub own_relayed: TrafficCounters,
    /// STUN messages answered.
    pub answers: Counter,
    /// Answers to requests that nobody has authenticated, Binding included.
    pub stranger_replies: Counter,
    /// Answers that left from another address than the request came to, or went to another port than it came from (RFC 5780).
    pub detours: Counter,
    /// Answers to RFC 3489 clients.
    pub classic_replies: Counter,
    /// Requests refused, by reason.
    pub refused: [Counter; Reason::ALL.len()],
    /// Packets dropped, by reason.
    pub dropped: [Counter; Dropped::ALL.len()],
    /// Sends that the kernel refused: no route, full buffer.
    pub send_errors: Counter,
    /// Segmented sends that had to be repeated packet by packet.
    pub gso_fallbacks: Counter,
    /// ICMP errors passed on to clients.
    pub icmp_errors: Counter,
    /// Loops of packets that were cut.
    pub loops_cut: Counter,
    /// Frames dropped because a stream client was too slow.
    pub stream_queue_drops: Counter,
    /// Open stream connections.
    pub connections: Counter,
    /// Connections closed at once, because of a limit or because they could not be set up.
    pub connections_refused: Counter,
    /// Connections closed though their clients wanted them, by [`Cut`].
    pub connections_cut: [Counter; Cut::ALL.len()],
    /// Connections of TCP relays with peers.
    pub peer_connections: Counter,
    /// Those that were bound to a client's connection.
    pub peer_connections_bound: Counter,
    /// TLS handshakes that failed.
    pub tls_failures: Counter,
    /// Connections that have gone on to a web server.
    pub web_passed: Counter,
    /// Those that do now.
    pub web_connections: Counter,
    /// Bytes that web servers have taken, and their clients.
    pub web_bytes: [Counter; 2],
    /// Connections for a web server that were closed, by [`NotPassed`].
    pub web_closed: [Counter; NotPassed::ALL.len()],
    /// Connections from proxies that were closed, and datagrams that were dropped, for their header, by [`BadHeader`].
    pub proxy_headers_refused: [Counter; BadHeader::ALL.len()],
    /// DTLS sessions, those that arrive included.
    pub dtls_sessions: Counter,
    /// DTLS handshakes, by [`Handshake`].
    pub dtls_handshakes: [Counter; Handshake::ALL.len()],
    /// Datagrams the kernel dropped at the UDP listeners, mostly for want of buffer.
    pub listener_drops: Counter,
    /// The same at the relay sockets.
    pub relay_drops: Counter,
    /// Payload dropped between workers because the other's mailbox was full.
    pub mailbox_drops: Counter,
    /// Allocations that have moved with their clients from and to a transport.
    pub moved_from: [Counter; Transport::ALL.len()],
    /// See [`Self::moved_from`].
    pub moved_to: [Counter; Transport::ALL.len()],
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            allocations: Counter::default(),
            allocated: counters(),
            ended: counters(),
            ended_by_reason: counters(),
            durations: Histogram::new(&DURATIONS),
            setup_times: Histogram::new(&SETUP_TIMES),
            payload: Payload::default(),
            relay_times: Histogram::new(&RELAY_TIMES),
            throttled_bytes: counters(),
            own_relayed: TrafficCounters::default(),
            answers: Counter::default(),
            stranger_replies: Counter::default(),
            detours: Counter::default(),
            classic_replies: Counter::default(),
            refused: counters(),
            dropped: counters(),
            send_errors: Counter::default(),
            gso_fallbacks: Counter::default(),
            icmp_errors: Counter::default(),
            loops_cut: Counter::default(),
            stream_queue_drops: Counter::default(),
            connections: Counter::default(),
            connections_refused: Counter::default(),
            connections_cut: counters(),
            peer_connections: Counter::default(),
            peer_connections_bound: Counter::default(),
            tls_failures: Counter::default(),
            web_passed: Counter::default(),
            web_connections: Counter::default(),
            web_bytes: counters(),
            web_closed: counters(),
            proxy_headers_refused: counters(),
            dtls_sessions: Counter::default(),
            dtls_handshakes: counters(),
            listener_drops: Counter::default(),
            relay_drops: Counter::default(),
            mailbox_drops: Counter::default(),
            moved_from: Default::default(),
            moved_to: Default::default(),
        }
    }
}

impl Counters {
    /// Counts a new allocation.
    pub fn allocation_made(&self, transport: Transport) {
        if let Some(counter) = self.allocated.get(transport as usize) {
            counter.add(1);
        }
    }

    /// Counts the end of an allocation.
    pub fn allocation_ended(&self, transport: Transport, reason: EndReason, duration_micros: u64) {
        let counters = [self.ended.get(transport as usize), self.ended_by_reason.get(reason as usize)];
        counters.into_iter().flatten().for_each(|counter| counter.add(1));
        self.durations.observe(duration_micros, 1);
    }

    /// Counts an allocation that has moved with its client.
    pub fn allocation_moved(&self, from: Transport, to: Transport) {
        let counters = [self.moved_from.get(from as usize), self.moved_to.get(to as usize)];
        counters.into_iter().flatten().for_each(|counter| counter.add(1));
    }

    /// Takes over the core's counts of refusals.
    pub fn set_refused(&self, counts: &RefusalCounts) {
        for (counter, reason) in self.refused.iter().zip(Reason::ALL) {
            counter.set(counts.of(*reason));
        }
    }

    /// Counts a connection that was closed though its client wanted it.
    pub fn cut_connection(&self, why: Cut) {
        if let Some(counter) = self.connections_cut.get(why as usize) {
            counter.add(1);
        }
    }

    /// Counts a step of a DTLS handshake.
    pub fn count_handshake(&self, step: Handshake) {
        if let Some(counter) = self.dtls_handshakes.get(step as usize) {
            counter.add(1);
        }
    }

    /// Counts a connection from a proxy that was closed for its header.
    pub fn refuse_header(&self, why: BadHeader) {
        if let Some(counter) = self.proxy_headers_refused.get(why as usize) {
            counter.add(1);
        }
    }

    /// Counts a connection for a web server that was closed.
    pub fn close_for_web(&self, why: NotPassed) {
        if let Some(counter) = self.web_closed.get(why as usize) {
            counter.add(1);
        }
    }

    /// Counts a dropped packet.
    pub fn drop_packet(&self, reason: Dropped) {
        if let Some(counter) = self.dropped.get(reason as usize) {
            counter.add(1);
        }
    }
}

fn counters<const N: usize>() -> [Counter; N] {
    std::array::from_fn(|_| Counter::default())
}

/// A value of all workers, added up.
pub fn sum(workers: &[Arc<Counters>], value: impl Fn(&Counters) -> u64) -> u64 {
    workers.iter().map(|counters| value(counters)).fold(0, u64::wrapping_add)
}

/// The same of one of the counters in a list.
pub fn sum_at(workers: &[Arc<Counters>], list: impl Fn(&Counters) -> &[Counter], index: usize) -> u64 {
    sum(workers, |counters| list(counters).get(index).map_or(0, Counter::get))
}

/// Payload of all workers, added up.
pub fn sum_traffic(workers: &[Arc<Counters>], traffic: impl Fn(&Counters) -> Traffic) -> Traffic {
    let mut total = Traffic::default();
    workers.iter().for_each(|counters| total += traffic(counters));
    total
}

/// Live allocations of all workers, by the client's transport.
pub fn live_allocations(workers: &[Arc<Counters>], transport: Transport) -> u64 {
    // The end first: what ends meanwhile then counts as live, and nothing counts below zero.
    let sum = |of: fn(&Counters) -> &[Counter]| sum_at(workers, of, transport as usize);
    let (ended, moved_from) = (sum(|counters| &counters.ended), sum(|counters| &counters.moved_from));
    let (made, moved_to) = (sum(|counters| &counters.allocated), sum(|counters| &counters.moved_to));
    (made + moved_to).saturating_sub(ended + moved_from)
}
