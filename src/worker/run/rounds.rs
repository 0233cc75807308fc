//! Whose turn it is. Each round of the loop handles a bounded number of messages, then looks at the sockets anew, so that no
//! source, however much it sends, keeps the others waiting for more than a few milliseconds.
//!
//! Datagrams go first: listeners, and relay sockets that have just become readable. A relay socket with more than its share
//! joins the list of those that have waited before, as does every stream; from these lists a round takes a part. Connections without
//! an allocation are watched apart: ten thousand that always have something to read would fill what a wait brings, and all else would
//! be seen once in forty rounds.

use crate::clock::Now;
use crate::net::sys::{Events, clocks};
use crate::worker::Worker;
use crate::worker::clients::Line;
use crate::worker::relay_sockets::Turn;
use crate::worker::token::Token;

/// Messages of relay sockets that have just become readable, in one round; the others of them join the list.
const FRESH_MESSAGES: u32 = 512;
/// Messages of each list in one round: what other workers have handed over, relay sockets, streams with and without an allocation.
const LISTED_MESSAGES: u32 = 256;
/// How long handshakes are gone on with in one round of the loop; one of them may last longer.
const HANDSHAKES_MICROS_PER_ROUND: u64 = 1000;
/// How long what goes on to web servers is moved in one round; one turn may last longer.
const PASSED_MICROS_PER_ROUND: u64 = 500;
/// What a turn costs that brings nothing.
const TURN_WEIGHT: u32 = 2;

impl Worker {
    /// What the wait has brought: all of it is looked at, what is expensive is put on its list.
    pub(super) fn on_events(&mut self, now: Now, events: &Events, count: usize) {
        self.pace.begin();
        let mut of_relays = 0;
        for index in 0..count {
            let Some(ready) = events.get(index) else { break };
            match Token::unpack(ready.token) {
                Some(Token::Listener(index)) => self.serve_listener(now, index),
                Some(Token::Relay(id)) => {
                    let turn = Turn { id, busy: false, error: ready.error };
                    self.on_fresh_relay(now, turn, ready.readable, &mut of_relays);
                }
                Some(Token::BusyPeer(id)) => {
                    let turn = Turn { id, busy: true, error: ready.error };
                    self.on_fresh_relay(now, turn, ready.readable, &mut of_relays);
                }
                Some(Token::Stream(id)) => self.clients.wait_for_turn(id, ready),
                Some(Token::Strangers) => self.clients.look_at_strangers(),
                Some(Token::Mailbox) => self.serve_mailbox(now),
                Some(Token::TcpRelay(id)) => self.relays.tcp().wait_to_accept(id),
                Some(Token::Peer(slot)) => self.relays.tcp().on_ready(slot, false, ready),
                Some(Token::PeersClient(slot)) => self.relays.tcp().on_ready(slot, true, ready),
                None => {}
            }
            if self.pace.is_over() {
                // What waits at the listeners is left to the next process; what has been read is answered.
                break;
            }
        }
    }

    /// A part of what waits for its turn.
    pub(super) fn serve_backlog(&mut self, now: Now) {
        if self.pace.is_over() {
            return;
        }
        if self.mail.has_payload() {
            self.serve_mail(now, LISTED_MESSAGES as usize);
            // What has come meanwhile has not woken us.
            self.mail.take_payload();
        }
        let until = self.pace.spent() + LISTED_MESSAGES;
        for _ in 0..self.relays.waiting() {
            if self.pace.spent() >= until {
                break;
            }
            self.pace.spend(TURN_WEIGHT);
            if let Some(turn) = self.relays.next_turn()
                && let Some(rest) = self.serve_relay(now, turn, true)
            {
                self.relays.wait_for_turn(rest);
            }
        }
        for line in [Line::Allocated, Line::Strangers] {
            let until = self.pace.spent() + LISTED_MESSAGES;
            for _ in 0..self.clients.waiting(line) {
                if self.pace.spent() >= until {
                    break;
                }
                self.pace.spend(TURN_WEIGHT);
                if let Some((id, ready)) = self.clients.next_turn(line) {
                    self.serve_stream(now, id, ready);
                }
            }
        }
        if self.relays.has_tcp_waiting() {
            self.serve_tcp(now);
        }
        self.let_arrive(now);
        self.let_arrive_by_dtls(now);
        self.let_pass(now);
    }

    /// Whether there is something to do without waiting.
    pub(super) fn has_backlog(&self) -> bool {
        let waits = self.relays.waiting() > 0 || self.clients.has_waiting() || self.mail.has_payload();
        waits
            || self.relays.has_tcp_waiting()
            || !self.jobs.is_empty()
            || self.server.has_late()
            || self.server.has_ask()
    }

    /// Goes on with the connections that arrive, in turn, for as long as one round of the loop allows.
    fn let_arrive(&mut self, now: Now) {
        let mut until_micros = None;
        for _ in 0..self.clients.waiting(Line::Arriving) {
            // A handshake costs what a hundred packets do, one more look at the clock next to nothing.
            let clock = clocks().0;
            if clock > *until_micros.get_or_insert(clock + HANDSHAKES_MICROS_PER_ROUND) {
                break;
            }
            if let Some((id, _)) = self.clients.next_turn(Line::Arriving) {
                self.serve_arriving(now, id);
            }
        }
    }

    /// The same of DTLS sessions.
    fn let_arrive_by_dtls(&mut self, now: Now) {
        let mut until_micros = None;
        for _ in 0..self.clients.sessions_waiting() {
            let clock = clocks().0;
            if clock > *until_micros.get_or_insert(clock + HANDSHAKES_MICROS_PER_ROUND) {
                break;
            }
            self.serve_dtls_arriving(now);
        }
    }

    /// Goes on with the connections that go on to web servers, in the same way.
    fn let_pass(&mut self, now: Now) {
        let mut until_micros = None;
        for _ in 0..self.clients.waiting(Line::Passed) {
            let clock = clocks().0;
            if clock > *until_micros.get_or_insert(clock + PASSED_MICROS_PER_ROUND) {
                break;
            }
            if let Some((id, _)) = self.clients.next_turn(Line::Passed) {
                self.clients.pass_on(now, id, &mut self.pipes, &self.observers);
            }
        }
    }

    fn on_fresh_relay(&mut self, now: Now, turn: Turn, readable: bool, of_relays: &mut u32) {
        if !self.relays.is_next(turn) {
            return;
        }
        if *of_relays >= FRESH_MESSAGES {
            return self.relays.wait_for_turn(turn);
        }
        let before = self.pace.spent();
        let rest = self.serve_relay(now, turn, readable);
        *of_relays += self.pace.spent() - before + TURN_WEIGHT;
        if let Some(rest) = rest {
            self.relays.wait_for_turn(rest);
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
