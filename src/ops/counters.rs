//! Live counters of one worker: written by its thread only, read by anyone, never locked.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::reject::{Dropped, Reason};

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
    /// Allocations made.
    pub allocated: Counter,
    /// Payload from clients to peers.
    pub to_peers: Traffic,
    /// Payload from peers to clients.
    pub to_clients: Traffic,
    /// Payload handed from one of our allocations to another in process.
    pub own_relayed: Traffic,
    /// STUN messages answered.
    pub answers: Counter,
    /// Requests refused after their nonce was good, by reason.
    pub refused: Vec<Counter>,
    /// Packets dropped, by reason.
    pub dropped: Vec<Counter>,
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
        let list = |len| std::iter::repeat_with(Counter::default).take(len).collect();
        Self {
            allocations: Counter::default(),
            allocated: Counter::default(),
            to_peers: Traffic::default(),
            to_clients: Traffic::default(),
            own_relayed: Traffic::default(),
            answers: Counter::default(),
            refused: list(Reason::ALL.len()),
            dropped: list(Dropped::ALL.len()),
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
    /// Counts a refusal.
    pub fn refuse(&self, reason: Reason) {
        if let Some(counter) = self.refused.get(reason as usize) {
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
