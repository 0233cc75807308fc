//! The turn of a connection that goes on to the web server of its port.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use super::accept::shortage_of;
use super::stream::Ending;
use super::{Clients, token};
use crate::clock::Now;
use crate::counters::NotPassed;
use crate::net::sys::{Interest, Ready, widen_stream_buffers};
use crate::net::{Pipes, connect_stream};
use crate::stream::{Full, PassageError};
use crate::turn::StreamId;
use crate::worker::observers::Observers;
use crate::worker::shortage::Shortage;

impl Clients {
    /// Has a connection that is not for us go on to its web server, if it is one.
    pub(super) fn begin_passage(&mut self, now: Now, id: StreamId, observers: &Observers) {
        let Some(web) = self.streams.newcomer_mut(id).and_then(|newcomer| newcomer.arriving.web()) else { return };
        let begun = connect_stream(web.address).and_then(|socket| self.from.descriptors.admit(socket));
        let refused = match begun.map_err(Refused::Io).and_then(|socket| self.watch_passage(now, id, socket, observers))
        {
            Ok(()) => {
                observers.counters().web_passed.add(1);
                // Its first bytes wait already.
                return self.streams.wait_for_turn(id, Ready::READABLE);
            }
            Err(refused) => refused,
        };
        let (why, shortage) = match refused {
            Refused::Full(full) => (NotPassed::Full, shortage_of(full)),
            Refused::Io(error) if is_unreachable(&error) => (NotPassed::Unreachable, Shortage::Web),
            Refused::Io(_) => (NotPassed::Full, Shortage::Sockets),
        };
        observers.counters().close_for_web(why);
        observers.note_shortage(now.micros, shortage);
        self.streams.end(id, Ending::Close);
    }

    fn watch_passage(&mut self, now: Now, id: StreamId, web: OwnedFd, observers: &Observers) -> Result<(), Refused> {
        self.strangers.add(web.as_fd(), token(id), Interest::Edge).map_err(Refused::Io)?;
        if self.from.limits.is_web_full()
            && let Some(silent) = self.streams.silent_passage(now)
        {
            observers.counters().close_for_web(NotPassed::Evicted);
            self.streams.end(silent, Ending::Close);
        }
        self.streams.pass_on(now, id, web).map_err(Refused::Full)?;
        observers.counters().web_connections.add(1);
        let Some(client) = self.streams.fd(id) else { return Ok(()) };
        widen_stream_buffers(client);
        self.strangers.modify(client, token(id), Interest::Edge).map_err(Refused::Io)
    }

    /// Counts that a web server cannot be reached, and warns of it.
    pub(super) fn note_unreachable(&self, now: Now, observers: &Observers) {
        observers.counters().close_for_web(NotPassed::Unreachable);
        observers.note_shortage(now.micros, Shortage::Web);
    }

    /// The turn of a connection that goes on to a web server.
    pub(in crate::worker) fn pass_on(&mut self, now: Now, id: StreamId, pipes: &mut Pipes, observers: &Observers) {
        let Some(passed) = self.streams.passed_mut(id) else { return };
        let went_on = passed.passage.go_on(pipes);
        let counters = observers.counters();
        match went_on {
            Ok(turn) => {
                if turn.bytes != [0, 0] {
                    passed.moved_micros = now.micros;
                }
                counters.web_bytes.iter().zip(turn.bytes).for_each(|(counter, bytes)| counter.add(bytes as u64));
                if turn.is_over {
                    self.streams.end(id, Ending::Close);
                } else if turn.has_more {
                    self.streams.wait_for_turn(id, Ready::READABLE);
                }
            }
            Err(PassageError::Unreachable) => {
                self.note_unreachable(now, observers);
                self.streams.end(id, Ending::Close);
            }
            Err(PassageError::Broken) => {
                self.streams.end(id, Ending::Close);
            }
        }
    }
}

/// Why a connection cannot go on.
enum Refused {
    Full(Full),
    Io(io::Error),
}

fn is_unreachable(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable, PermissionDenied, TimedOut};
    let unreachable = [ConnectionRefused, HostUnreachable, NetworkUnreachable, PermissionDenied, TimedOut];
    unreachable.contains(&error.kind())
}
