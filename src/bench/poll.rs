//! epoll with its events: which sockets have something to read.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use crate::net::sys::{Epoll, Events, Interest};

/// Sockets reported at most by one wait.
const MAX_READY: usize = 256;

/// The sockets that are waited for, by token.
pub(super) struct Poll {
    epoll: Epoll,
    events: Events,
}

impl Poll {
    /// Waits for nothing yet.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { epoll: Epoll::new()?, events: Events::new(MAX_READY) })
    }

    /// Watches a socket for reading, until it is closed.
    ///
    /// # Errors
    /// What `epoll_ctl` says.
    pub(super) fn add(&self, socket: &impl AsFd, token: u64) -> io::Result<()> {
        self.epoll.add(socket.as_fd(), token, Interest::Read)
    }

    /// Waits for up to `timeout`; returns how many sockets are ready.
    ///
    /// # Errors
    /// What `epoll_wait` says.
    pub(super) fn wait(&mut self, timeout: Duration) -> io::Result<usize> {
        if timeout.is_zero() {
            return self.epoll.wait(&mut self.events, 0);
        }
        self.epoll.wait_for(&mut self.events, timeout)
    }

    /// The token of the `index`-th ready socket of the last wait.
    pub(super) fn ready(&self, index: usize) -> Option<u64> {
        self.events.get(index).map(|ready| ready.token)
    }
}
