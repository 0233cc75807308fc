//! The place of one connection, whether it arrives or has a client.

use std::collections::HashSet;
use std::os::fd::BorrowedFd;

use super::stream::{Ending, Stream};
use crate::addr::ClientAddr;
use crate::net::sys::{Interest, Ready};
use crate::proxy::Ends;
use crate::stream::{Arriving, ConnectionPermit, Full, Passage, ReadError};

/// A connection's place, from its accepting to its end.
pub(super) struct Place {
    pub(super) state: State,
    /// What it is ready for, while it waits for its turn.
    pub(super) waiting: Option<Ready>,
    /// Whether it is to be closed before the round is over.
    pub(super) ending: Option<Ending>,
    /// When it is closed if it still has no allocation.
    pub(super) stranger_until_micros: u64,
    /// Counts it, until it is to end.
    pub(super) permit: Option<ConnectionPermit>,
    /// Its ends, if a proxy has said them.
    pub(super) proxied: Option<Ends>,
}

/// How far the connection has come.
pub(super) enum State {
    /// It has no client yet.
    Arriving(Box<Newcomer>),
    /// It has a client.
    Arrived(Box<Stream>),
    /// It goes on to a web server.
    Passed(Box<Passed>),
}

/// A connection that goes on to a web server.
pub(super) struct Passed {
    pub(super) passage: Passage,
    /// When something last went on.
    pub(super) moved_micros: u64,
}

/// A connection that arrives.
pub(super) struct Newcomer {
    pub(super) arriving: Arriving,
    /// What epoll watches it for.
    pub(super) interest: Interest,
}

impl Newcomer {
    pub(super) fn new(arriving: Arriving) -> Self {
        Self { arriving, interest: Interest::Read }
    }

    /// What epoll is to watch it for from now on, if that is something else.
    pub(super) fn new_interest(&mut self) -> Option<Interest> {
        let interest = if self.arriving.wants_write() { Interest::ReadWrite } else { Interest::Read };
        let before = std::mem::replace(&mut self.interest, interest);
        (before != interest).then_some(interest)
    }
}

/// Why a connection that arrives is to be closed.
#[derive(Debug)]
pub(super) enum Refused {
    /// What it says, or that it says no more.
    Read(ReadError),
    /// The proxy says that it is a client's that has too many.
    Full(Full),
    /// The proxy says that it has the ends of one that is there.
    Taken,
}

impl Place {
    pub(super) fn new(state: State, permit: ConnectionPermit, stranger_until_micros: u64) -> Self {
        Self { state, waiting: None, ending: None, stranger_until_micros, permit: Some(permit), proxied: None }
    }

    /// The connection's socket, for epoll.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        match &self.state {
            State::Arriving(newcomer) => newcomer.arriving.fd(),
            State::Arrived(stream) => stream.connection.fd(),
            State::Passed(passed) => passed.passage.client_fd(),
        }
    }

    /// The connection, if it has a client.
    pub(super) fn stream(&self) -> Option<&Stream> {
        match &self.state {
            State::Arriving(_) | State::Passed(_) => None,
            State::Arrived(stream) => Some(stream),
        }
    }

    /// The same, to change.
    pub(super) fn stream_mut(&mut self) -> Option<&mut Stream> {
        match &mut self.state {
            State::Arriving(_) | State::Passed(_) => None,
            State::Arrived(stream) => Some(stream),
        }
    }

    /// Whether it is to be closed before the round is over.
    pub(super) fn is_ending(&self) -> bool {
        self.ending.is_some()
    }

    /// Whether an entry with this time is the one that counts.
    pub(super) fn is_stranger_until(&self, due_micros: u64) -> bool {
        let is_settled = match &self.state {
            State::Arriving(_) => false,
            State::Arrived(stream) => stream.holds,
            State::Passed(_) => true,
        };
        !is_settled && !self.is_ending() && self.stranger_until_micros == due_micros
    }
}

/// Takes note of whose connection it is, as its proxy says. What has the ends of another one could send as that one's client.
pub(super) fn note_client(
    permit: &mut Option<ConnectionPermit>,
    proxied: &mut Option<Ends>,
    ends: Ends,
    taken: &mut HashSet<Ends>,
) -> Result<(), Refused> {
    if let Some(permit) = permit {
        permit.set_client(ClientAddr::new(ends.client).get().ip()).map_err(Refused::Full)?;
    }
    if !taken.insert(ends) {
        return Err(Refused::Taken);
    }
    *proxied = Some(ends);
    Ok(())
}
