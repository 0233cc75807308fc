//! Accepting connections: a place for each, and the end of those that have none by right.

use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::Arc;

use super::listeners::Newly;
use super::stream::Ending;
use super::{Clients, token};
use crate::addr::ClientAddr;
use crate::clock::Now;
use crate::counters::{BadHeader, Cut, NotPassed};
use crate::net::sys::{Interest, bound_stream_buffers, trim_memory};
use crate::net::tune_accepted;
use crate::stream::{Accepted, ConnectionPermit, Full, Opening};
use crate::turn::{Server, StreamId};
use crate::worker::observers::Observers;
use crate::worker::shortage::{Shortage, has_run_out};

/// Connections accepted per wake-up of a listener.
const ACCEPT_BURST: usize = 32;
/// Connections closed in one round for each of the reasons that time brings; each costs some system calls.
const CLOSED_PER_ROUND: usize = 16;

impl Clients {
    /// Accepts what waits at a listener.
    pub(in crate::worker) fn accept(&mut self, now: Now, number: u32, server: &Server, observers: &Observers) {
        for _ in 0..ACCEPT_BURST {
            let Some(accepted) = self.listeners.accept(number) else { return };
            match accepted {
                Ok(newly) => {
                    if self.admit(now, newly, server, observers).is_none() {
                        observers.counters().connections_refused.add(1);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if has_run_out(&error) => {
                    observers.note_shortage(now.micros, Shortage::Sockets);
                    return self.listeners.rest(now, number);
                }
                // The client gave up in between.
                Err(_) => {}
            }
        }
    }

    fn admit(
        &mut self,
        now: Now,
        Newly { socket, remote, has_tcp, has_tls, is_proxied, realm, options }: Newly,
        server: &Server,
        observers: &Observers,
    ) -> Option<()> {
        let Ok(socket) = self.from.descriptors.admit(socket.into()) else {
            observers.note_shortage(now.micros, Shortage::Sockets);
            return None;
        };
        let client = (!is_proxied).then(|| ClientAddr::new(remote).get().ip());
        let permit = self.place_for(now, client, server, observers)?;
        tune_accepted(&socket).and_then(|()| bound_stream_buffers(socket.as_fd())).ok()?;
        let accepted = Accepted::new(socket.into(), remote).ok()?.in_realm(realm);
        let opening = match (has_tcp, has_tls) {
            (_, true) if options.is_some() => {
                Opening::Shared { config: self.from.tls.load_full()?, has_tcp, options: options? }
            }
            (_, false) => Opening::Messages,
            (false, true) => Opening::Handshake(self.from.tls.load_full()?),
            (true, true) => Opening::Either(self.from.tls.load_full()?),
        };
        let begun = accepted.begin(opening, is_proxied).ok()?;
        let id = self.streams.insert(now, begun, permit);
        if self.strangers.add(self.streams.fd(id)?, token(id), Interest::Read).is_err() {
            self.streams.remove(id);
            return None;
        }
        observers.counters().connections.set(self.streams.open() as u64);
        Some(())
    }

    /// A place for a new connection or session, whose client may not be known yet. When all are taken, the connection that has been without
    /// an allocation for longest makes room.
    pub(super) fn place_for(
        &mut self,
        now: Now,
        client: Option<IpAddr>,
        server: &Server,
        observers: &Observers,
    ) -> Option<ConnectionPermit> {
        let limits = Arc::clone(&self.from.limits);
        let admit = || client.map_or_else(|| limits.admit_unknown(), |ip| limits.admit(ip));
        let mut place = admit();
        if matches!(place, Err(Full::InTotal)) && self.make_place(now, server, observers) {
            place = admit();
        }
        place.inspect_err(|full| observers.note_shortage(now.micros, shortage_of(*full))).ok()
    }

    /// Ends a connection, or else a session, that has been without an allocation for longest; whether there was one.
    fn make_place(&mut self, now: Now, server: &Server, observers: &Observers) -> bool {
        match self.next_stranger(now, None, server) {
            Some(oldest) => {
                self.cut(oldest, Cut::Evicted, observers);
                true
            }
            None => self.evict_session(now, server, observers),
        }
    }

    /// The connection that has been without an allocation for longest; with `due`, only if it has been so for too long.
    fn next_stranger(&mut self, now: Now, due: Option<Now>, server: &Server) -> Option<StreamId> {
        loop {
            let id = self.streams.oldest_stranger(due)?;
            if !self.note_allocation(now, id, server) {
                return Some(id);
            }
        }
    }

    /// Has those listeners watched again that have rested, and ends connections without a first message in time, those that are
    /// silent and have no allocation, those that have none for too long whatever they say, and those whose clients do not read. Of many
    /// that are due at once, each round takes some.
    pub(in crate::worker) fn on_time(&mut self, now: Now, server: &Server, observers: &Observers) {
        self.listeners.resume(now);
        for _ in 0..CLOSED_PER_ROUND {
            let Some(id) = self.streams.next_unheard(now) else { break };
            if self.streams.passed_mut(id).is_some() {
                self.note_unreachable(now, observers);
            }
            if let Some(newcomer) = self.streams.newcomer_mut(id).filter(|newcomer| newcomer.arriving.awaits_header())
                && let Some(proxy) = newcomer.arriving.proxy()
            {
                observers.note_header(now.micros, proxy, BadHeader::Late, &"no complete header in time");
            }
            self.streams.end(id, Ending::Close);
        }
        for _ in 0..CLOSED_PER_ROUND {
            let Some(id) = self.streams.next_idle(now) else { break };
            if !self.note_allocation(now, id, server) && self.streams.is_silent(now, id) {
                self.streams.end(id, Ending::Close);
            } else {
                self.streams.judge_again(now, id);
            }
        }
        for _ in 0..CLOSED_PER_ROUND {
            let Some(id) = self.next_stranger(now, Some(now), server) else { break };
            self.cut(id, Cut::Unallocated, observers);
        }
        for _ in 0..CLOSED_PER_ROUND {
            let Some(id) = self.streams.next_unread(now) else { break };
            self.cut(id, Cut::Unread, observers);
        }
        for _ in 0..CLOSED_PER_ROUND {
            let Some(id) = self.streams.next_silent_passage(now) else { break };
            observers.counters().close_for_web(NotPassed::Silent);
            self.streams.end(id, Ending::Close);
        }
        self.judge_sessions(now, server, observers);
        if self.streams.shrink() | self.sessions.shrink() {
            trim_memory();
        }
    }
}

/// What a limit that is reached is a shortage of.
pub(super) fn shortage_of(full: Full) -> Shortage {
    match full {
        Full::InTotal => Shortage::Connections,
        Full::OfAddress => Shortage::ConnectionsOfAddress,
        Full::OfNetwork => Shortage::ConnectionsOfNetwork,
        Full::OfWeb => Shortage::ConnectionsOfWeb,
    }
}
