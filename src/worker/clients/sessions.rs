//! DTLS clients: what is for whom, the turn of a session that arrives, messages in and out, and the end of those that have no place by
//! right.

use super::Clients;
use super::session::{Outcome, Session, Stage};
use super::session_table::{Due, Taken};
use crate::addr::{FiveTuple, Transport};
use crate::clock::Now;
use crate::counters::{Counters, Cut, Handshake};
use crate::dtls::hello::ClientHello;
use crate::dtls::{self, Datagrams, Wire};
use crate::net::Span;
use crate::net::sys::{SendOptions, send_pieces};
use crate::reject::Dropped;
use crate::turn::{Client, DatagramPath, Path, Server, SessionId};
use crate::worker::observers::Observers;

/// Sessions closed in one round because their time has come.
const CLOSED_PER_ROUND: usize = 16;

/// What a DTLS datagram comes to.
pub(in crate::worker) enum Came {
    /// The session is open: decrypt it.
    Open(SessionId),
    /// The client is to come again with a cookie: the answer is in the reply.
    Answered,
    /// Nothing to do now.
    Done,
    /// It is dropped.
    Dropped(Dropped),
}

impl Clients {
    /// A datagram whose first byte is one of DTLS, of a client by its address.
    pub(in crate::worker) fn on_dtls(
        &mut self,
        now: Now,
        client: &Client,
        datagram: &[u8],
        server: &mut Server,
        observers: &Observers,
        reply: &mut Vec<u8>,
    ) -> Came {
        let five_tuple = FiveTuple { transport: Transport::Dtls, ..client.five_tuple };
        let Some(hello) = ClientHello::parse(datagram) else {
            return match self.sessions.take(&five_tuple, datagram) {
                Taken::Open(id) => Came::Open(id),
                Taken::Waits => Came::Done,
                Taken::Unknown => Came::Dropped(Dropped::NoSession),
                Taken::Refused => Came::Dropped(Dropped::Malformed),
            };
        };
        let (address, parameters) = (five_tuple.client, hello.parameters());
        let has_cookie = !hello.cookie.is_empty() && server.is_hello_cookie(now, address, &parameters, hello.cookie);
        if !has_cookie {
            // One with a cookie that is no good is answered as one without (RFC 6347 section 4.2.1).
            let Some(cookie) = server.hello_cookie(now, address, &parameters) else {
                return Came::Dropped(Dropped::RateLimited);
            };
            hello.verify_request(&cookie, reply);
            observers.counters().count_handshake(Handshake::Asked);
            return Came::Answered;
        }
        if self.from.dtls.load().is_none() {
            return Came::Dropped(Dropped::NoSession);
        }
        if let Some(taken) = self.sessions.take_copy(&five_tuple, &hello, datagram) {
            return if taken == Taken::Waits { Came::Done } else { Came::Dropped(Dropped::Ignored) };
        }
        let Some(permit) = self.place_for(now, Some(five_tuple.client.get().ip()), server, observers) else {
            observers.counters().count_handshake(Handshake::Refused);
            return Came::Done;
        };
        if self.from.limits.is_handshakes_full()
            && let Some(oldest) = self.sessions.oldest_arriving()
        {
            self.sessions.end(oldest);
            observers.counters().count_handshake(Handshake::GaveWay);
        }
        let by_name = hello.server_name().and_then(|name| server.realm_by_server_name(name));
        let client = Client { five_tuple, realm: by_name.unwrap_or(client.realm), ..*client };
        self.sessions.insert(now, client, (&hello, datagram), permit);
        self.count_sessions(observers.counters());
        Came::Done
    }

    /// How many sessions wait for their turn.
    pub(in crate::worker) fn sessions_waiting(&self) -> usize {
        self.sessions.waiting()
    }

    /// The turn of the next session that arrives. What is to be sent is in the wire, for the path that is returned. When the session is
    /// open, the one that its client had before is over: what it had by that is to end.
    pub(in crate::worker) fn arrive_by_dtls(
        &mut self,
        now: Now,
        observers: &Observers,
    ) -> Option<(DatagramPath, Option<FiveTuple>)> {
        let id = self.sessions.next_turn()?;
        let context = self.from.dtls.load_full();
        let session = self.sessions.get_mut(id)?;
        let (five_tuple, way) = (session.client.five_tuple, session.way);
        let outcome = shake_hands(now, session, context.as_deref(), &mut self.wire);
        let replaced = self.sessions.had_turn(now, id, outcome);
        match outcome {
            Outcome::Arriving => {}
            Outcome::Open => observers.counters().count_handshake(Handshake::Completed),
            Outcome::Over => observers.counters().count_handshake(Handshake::Failed),
        }
        let Path::Datagrams(way) = way else { return None };
        Some((way, replaced.map(|_| five_tuple)))
    }

    /// Decrypts what has come to an open session, into the wire; its client.
    pub(in crate::worker) fn receive_by_dtls(&mut self, now: Now, id: SessionId, datagram: &[u8]) -> Option<Client> {
        let session = self.sessions.get_mut(id)?;
        let Stage::Open(open) = &mut session.stage else { return None };
        let state = open.receive(datagram, &mut self.wire);
        if self.wire.plain.iter().next().is_some() {
            session.last_heard_micros = now.micros;
        }
        let client = session.client;
        if state == dtls::State::Over {
            self.sessions.end(id);
        }
        Some(client)
    }

    /// Where what an open session sends goes to.
    pub(in crate::worker) fn way_of(&self, id: SessionId) -> Option<DatagramPath> {
        match self.sessions.get(id)?.way {
            Path::Datagrams(way) => Some(way),
            Path::Stream(_) | Path::Session(_) => None,
        }
    }

    /// Encrypts a message for the client of a session, into the wire; where it goes, if that was possible.
    pub(in crate::worker) fn send_by_dtls<'a>(
        &mut self,
        id: SessionId,
        parts: impl Iterator<Item = &'a [u8]>,
    ) -> Option<DatagramPath> {
        let session = self.sessions.get_mut(id)?;
        let Stage::Open(open) = &mut session.stage else { return None };
        self.message.clear();
        parts.for_each(|part| self.message.extend_from_slice(part));
        if !open.send(&self.message, &mut self.wire) {
            return None;
        }
        self.way_of(id)
    }

    /// What sessions have to send, after one of the calls that put it there.
    pub(in crate::worker) fn sealed(&self) -> &Datagrams {
        &self.wire.outgoing
    }

    /// What has been decrypted.
    pub(in crate::worker) fn opened(&self) -> &Datagrams {
        &self.wire.plain
    }

    /// Notes whether the client of a session has an allocation, unless it is known to have one.
    #[inline]
    pub(in crate::worker) fn note_session(&mut self, now: Now, id: SessionId, server: &Server) {
        if let Some(session) = self.sessions.get(id).filter(|session| !session.holds) {
            let holds = server.has_allocation(&session.client.five_tuple);
            self.sessions.set_holds(now, id, holds);
        }
    }

    /// Ends sessions whose handshake lasts too long, and those that are silent, or have no allocation for too long.
    pub(super) fn judge_sessions(&mut self, now: Now, server: &Server, observers: &Observers) {
        for _ in 0..CLOSED_PER_ROUND {
            let Some((id, due)) = self.sessions.next_due(now) else { break };
            if due == Due::Late {
                observers.counters().count_handshake(Handshake::TimedOut);
                self.sessions.end(id);
                continue;
            }
            let holds = self.sessions.get(id).is_some_and(|session| server.has_allocation(&session.client.five_tuple));
            let Some(for_want_of_allocation) = self.sessions.judge(now, id, holds) else { continue };
            if for_want_of_allocation {
                observers.counters().cut_connection(Cut::Unallocated);
            }
            self.sessions.end(id);
        }
    }

    /// Ends the session that has been without an allocation for longest; whether there was one.
    pub(super) fn evict_session(&mut self, now: Now, server: &Server, observers: &Observers) -> bool {
        while let Some(id) = self.sessions.oldest_stranger() {
            let holds = self.sessions.get(id).is_some_and(|session| server.has_allocation(&session.client.five_tuple));
            if holds {
                self.sessions.set_holds(now, id, true);
                continue;
            }
            self.sessions.end(id);
            observers.counters().cut_connection(Cut::Evicted);
            return true;
        }
        false
    }

    /// Closes one session that has been marked, unless there is none; returns whose allocation ends with it.
    pub(super) fn close_ended_session(&mut self) -> Option<Option<FiveTuple>> {
        let (session, was_open) = self.sessions.next_ended()?;
        let (five_tuple, mut wire) = (session.client.five_tuple, std::mem::take(&mut self.wire));
        self.say_goodbye(session, &mut wire);
        self.wire = wire;
        Some(was_open.then_some(five_tuple))
    }

    pub(super) fn close_all_sessions(&mut self) {
        let mut wire = Wire::default();
        let all: Vec<_> = self.sessions.drain().collect();
        for session in all {
            self.say_goodbye(session, &mut wire);
        }
    }

    pub(super) fn count_sessions(&self, counters: &Counters) {
        counters.dtls_sessions.set(self.sessions.len() as u64);
    }

    /// Sends a session's own notice of its end, at once: nothing is gathered any more for one that is gone.
    fn say_goodbye(&self, session: Session, wire: &mut Wire) {
        let way = session.way;
        session.close(wire);
        let Path::Datagrams(DatagramPath { socket, to, from_ip }) = way else { return };
        let Some(socket) = self.listeners.datagram_fd(socket) else { return };
        for datagram in wire.outgoing.iter() {
            let options = SendOptions { to, connected: false, from_ip, segment_len: None, tos: 0 };
            let whole = Span { at: 0, len: datagram.len() as u32 };
            let _ = send_pieces(socket, datagram, &[whole], &options);
        }
    }
}

/// Gives a session that arrives what waits for it, or has it send again what was not answered.
fn shake_hands(now: Now, session: &mut Session, context: Option<&dtls::Context>, wire: &mut Wire) -> Outcome {
    wire.begin(&[]);
    let Stage::Arriving(arrival) = &mut session.stage else { return Outcome::Over };
    let datagram = arrival.next_datagram();
    let is_again = datagram.is_none();
    let state = match (&mut arrival.session, datagram) {
        (Some(open), datagram) => open.shake_hands(datagram.as_deref().unwrap_or_default(), wire),
        (none, Some(datagram)) => {
            let begun = ClientHello::parse(&datagram)
                .zip(context)
                .and_then(|(hello, context)| dtls::Session::begin(context, &hello, &datagram, wire));
            match begun {
                Some((begun, state)) => {
                    *none = Some(Box::new(begun));
                    state
                }
                None => dtls::State::Over,
            }
        }
        (None, None) => dtls::State::Over,
    };
    session.last_heard_micros = now.micros;
    match state {
        dtls::State::Arriving => {
            arrival.had_turn(now, is_again, wire.outgoing.iter().next().is_some());
            Outcome::Arriving
        }
        dtls::State::Open => match arrival.session.take() {
            Some(open) => {
                session.stage = Stage::Open(open);
                Outcome::Open
            }
            None => Outcome::Over,
        },
        dtls::State::Over => Outcome::Over,
    }
}
