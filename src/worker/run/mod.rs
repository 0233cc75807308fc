//! The round: one wait, what it brings, what has waited for its turn, and the sending of it all. Only here and in the turns is
//! decided when to flush.

mod moves;
mod pace;
mod rounds;
mod turns;

use std::io;

pub(super) use pace::Pace;

use super::Worker;
use crate::clock::Now;
use crate::net::sys::{Events, clocks, trim_memory};

const EVENTS: usize = 256;
/// The longest wait between looks at the clock while something is due later, in milliseconds.
const WAIT_MAX_MS: u64 = 60_000;

impl Worker {
    /// Runs until a [`Command::Stop`](super::Command::Stop).
    ///
    /// # Errors
    /// When epoll itself fails.
    pub fn run(mut self) -> io::Result<()> {
        let mut events = Events::new(EVENTS);
        while !self.pace.is_over() {
            self.round(&mut events)?;
        }
        self.clients.close_all();
        Ok(())
    }

    /// One wait, what it brings, and what has waited for its turn; all of it is sent before the next wait.
    fn round(&mut self, events: &mut Events) -> io::Result<()> {
        let count = self.pace.wait(events, self.wait_ms())?;
        let (micros, unix_secs) = clocks();
        let now = Now { micros, unix_secs };
        self.on_events(now, events, count);
        self.serve_backlog(now);
        self.jobs.work(now, &mut self.server, &mut self.relays, &mut self.clients, &mut self.observers);
        self.on_time(now);
        self.serve_waiting(now);
        self.send_notices(now);
        self.flush(now);
        self.clients.close_ended(now, &mut self.server, &mut self.relays, &self.observers);
        self.follow_move_orders(now);
        self.observers.report(&mut self.server);
        self.observers.time_setups(now);
        self.give_memory_back();
        Ok(())
    }

    /// How long the loop may sleep, in milliseconds; without end when nothing is due.
    fn wait_ms(&self) -> i32 {
        if self.has_backlog() {
            return 0;
        }
        let due =
            [self.server.next_timeout(), self.clients.next_timeout(), self.relays.next_timeout(), self.observers.due()];
        let Some(due) = due.into_iter().flatten().min() else { return -1 };
        let wait = due.saturating_sub(self.observers.flushed_micros()).div_ceil(1000).min(WAIT_MAX_MS);
        i32::try_from(wait).unwrap_or(i32::MAX)
    }

    fn on_time(&mut self, now: Now) {
        if self.server.next_timeout().is_some_and(|due| due <= now.micros) {
            self.server.handle_timeout(now, &mut self.relays);
        }
        self.relays.on_time(now);
        self.clients.on_time(now, &self.server, &self.observers);
    }

    /// Gives memory back after a peak of allocations.
    fn give_memory_back(&mut self) {
        if self.relays.is_past_peak(self.server.allocations()) {
            self.server.shrink();
            self.relays.shrink();
            self.outbox.shrink(self.relays.slots());
            trim_memory();
        }
    }
}
