//! Live counters of one worker: written by its thread only, read by anyone, never locked.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::addr::Transport;
use crate::reject::{Dropped, Reason};
use crate::turn::{EndReason, RefusalCounts};

/// Upper bounds of the allocation-duration histogram, in seconds; what is longer is only in its count.
pub const DURATION_BOUNDS_SECS: [u64; 9] = [1, 10, 60, 300, 600, 1800, 3600, 14_400, 86_400];

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

/// Packets and bytes of payload.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Packets.
    pub packets: Counter,
    /// Bytes.
    pub bytes: Counter,
}

impl Traffic {
    /// Counts one packet.
    pub fn count(&self, bytes: usize) {
        self.packets.add(1);
        self.bytes.add(bytes as u64);
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
    /// How many ended allocations lived up to each of [`DURATION_BOUNDS_SECS`] and no shorter bound.
    pub durations: [Counter; DURATION_BOUNDS_SECS.len()],
    /// How long all ended allocations lived together, in microseconds.
    pub duration_micros: Counter,
    /// Payload from clients to peers.
    pub to_peers: Traffic,
    /// Payload from peers to clients.
    pub to_clients: Traffic,
    /// Payload handed from one of our allocations to another in process.
    pub own_relayed: Traffic,
    /// STUN messages answered.
    pub answers: Counter,
    /// Answers to requests that nobody has authenticated, Binding included.
    pub stranger_replies: Counter,
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
    /// Frames dropped because a stream client was too slow.
    pub stream_queue_drops: Counter,
    /// Open stream connections.
    pub connections: Counter,
    /// Connections refused because of a limit.
    pub connections_refused: Counter,
    /// TLS handshakes that failed.
    pub tls_failures: Counter,
    /// Datagrams the kernel dropped at the listeners for want of buffer.
    pub kernel_drops: Counter,
    /// Payload dropped between workers because the other's mailbox was full.
    pub mailbox_drops: Counter,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            allocations: Counter::default(),
            allocated: counters(),
            ended: counters(),
            ended_by_reason: counters(),
            durations: counters(),
            duration_micros: Counter::default(),
            to_peers: Traffic::default(),
            to_clients: Traffic::default(),
            own_relayed: Traffic::default(),
            answers: Counter::default(),
            stranger_replies: Counter::default(),
            refused: counters(),
            dropped: counters(),
            send_errors: Counter::default(),
            gso_fallbacks: Counter::default(),
            icmp_errors: Counter::default(),
            stream_queue_drops: Counter::default(),
            connections: Counter::default(),
            connections_refused: Counter::default(),
            tls_failures: Counter::default(),
            kernel_drops: Counter::default(),
            mailbox_drops: Counter::default(),
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
        let bound = DURATION_BOUNDS_SECS.iter().position(|secs| duration_micros <= secs * 1_000_000);
        let bucket = bound.and_then(|bound| self.durations.get(bound));
        let counters = [self.ended.get(transport as usize), self.ended_by_reason.get(reason as usize), bucket];
        counters.into_iter().flatten().for_each(|counter| counter.add(1));
        self.duration_micros.add(duration_micros);
    }

    /// Takes over the core's counts of refusals.
    pub fn set_refused(&self, counts: &RefusalCounts) {
        for (counter, reason) in self.refused.iter().zip(Reason::ALL) {
            counter.set(counts.of(*reason));
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
