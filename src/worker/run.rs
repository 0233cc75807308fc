//! The round: one wait, what it brings, what has waited for its turn, and the sending of it all. Only here is decided when to flush.

use std::io;

use super::{SCRATCH_RESERVE, Worker, now};
use crate::clock::Now;
use crate::net::sys::{Events, clocks};

impl Worker {
    /// One wait, what it brings, and what has waited for its turn; all of it is sent before the next wait.
    pub(super) fn round(&mut self, events: &mut Events) -> io::Result<()> {
        let count = self.epoll.wait(events, self.wait_ms())?;
        let now = now();
        self.on_events(now, events, count);
        self.serve_backlog(now);
        self.work_on_jobs(now);
        self.on_time(now);
        self.flush(now);
        self.report();
        self.time_setups(now);
        Ok(())
    }

    /// Ends the batch: sends what it has gathered; afterwards every receive slot and the scratch space are free.
    fn flush(&mut self, now: Now) {
        self.send_gathered(now);
        self.next_slot = 0;
    }

    /// Sends what has been gathered so far and frees the scratch space. The receive slots stay taken: what is received is
    /// still being read, and what is gathered from it next must not be overwritten.
    pub(super) fn send_gathered(&mut self, now: Now) {
        self.outbox.send(&self.arena, &mut self.relays, &self.listeners, &self.counters);
        self.flush_streams(now);
        self.flush_handovers();
        self.arena.reset_scratch();
        self.time_relayed(now);
    }

    /// Flushes when fewer than `slots` receive slots are left, so that the next datagrams have a place.
    pub(super) fn make_room(&mut self, now: Now, slots: usize) {
        let full = self.next_slot + slots > self.arena.slots();
        if full || self.arena.scratch_left() < SCRATCH_RESERVE {
            self.flush(now);
        }
    }

    /// Notes the time since the wake-up for every packet relayed since the last flush. One reading of the clock for all of
    /// them, and the same one tells the loop how long it may sleep.
    fn time_relayed(&mut self, now: Now) {
        self.flushed_micros = clocks().0;
        let packets = self.counters.payload.packets();
        let relayed = packets.wrapping_sub(self.timed_packets);
        if relayed > 0 {
            self.timed_packets = packets;
            self.counters.relay_times.observe(self.flushed_micros.saturating_sub(now.micros), relayed);
        }
    }

    /// Notes the time since the wake-up for every allocation whose answer has been sent.
    fn time_setups(&mut self, now: Now) {
        if self.made > 0 {
            self.counters.setup_times.observe(self.flushed_micros.saturating_sub(now.micros), self.made);
            self.made = 0;
        }
    }

    pub(super) fn flush_handovers(&mut self) {
        for (batch, mailbox) in self.handovers.iter_mut().zip(&self.context.mailboxes) {
            if !batch.is_empty() {
                let lost = mailbox.hand_over(batch);
                self.counters.mailbox_drops.add(lost as u64);
            }
        }
    }
}
