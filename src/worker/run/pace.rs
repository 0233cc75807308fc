//! How long a round lasts.

use std::io;
use std::sync::Arc;

use crate::net::sys::{Epoll, Events};

/// How long a round lasts, and when the last one is over.
pub(in crate::worker) struct Pace {
    epoll: Arc<Epoll>,
    /// Messages handled in this round, by which rounds are bounded.
    spent: u32,
    is_over: bool,
}

impl Pace {
    pub(in crate::worker) fn new(epoll: Arc<Epoll>) -> Self {
        Self { epoll, spent: 0, is_over: false }
    }

    /// Waits for what the round brings.
    ///
    /// # Errors
    /// What epoll says.
    pub(in crate::worker) fn wait(&self, events: &mut Events, wait_ms: i32) -> io::Result<usize> {
        self.epoll.wait(events, wait_ms)
    }

    /// A round begins.
    pub(in crate::worker) fn begin(&mut self) {
        self.spent = 0;
    }

    /// Counts what a message costs beside others.
    #[inline]
    pub(in crate::worker) fn spend(&mut self, weight: u32) {
        self.spent += weight;
    }

    /// What this round has cost so far.
    #[inline]
    pub(in crate::worker) fn spent(&self) -> u32 {
        self.spent
    }

    /// This is the last round.
    pub(in crate::worker) fn end(&mut self) {
        self.is_over = true;
    }

    /// Whether this is the last round.
    pub(in crate::worker) fn is_over(&self) -> bool {
        self.is_over
    }
}
