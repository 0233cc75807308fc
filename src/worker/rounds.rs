//! Whose turn it is. Each round of the loop handles a bounded number of messages, then looks at the sockets anew, so that no
//! source, however much it sends, keeps the others waiting for more than a few milliseconds.
//!
//! Datagrams go first: listeners, and relay sockets that have just become readable. A relay socket with more than its share
//! joins the list of those that have waited before, as does every stream; from these lists a round takes a part.

use std::collections::VecDeque;

use super::Worker;
use super::datagrams::More;
use super::token::Token;
use crate::clock::Now;
use crate::net::sys::{Events, Ready};
use crate::turn::RelayId;

/// Messages of relay sockets that have just become readable, in one round; the others of them join the list.
const FRESH_MESSAGES: u32 = 512;
/// Messages of each list in one round: what other workers have handed over, relay sockets, streams.
const LISTED_MESSAGES: u32 = 256;
/// What a turn costs that brings nothing.
const TURN_WEIGHT: u32 = 2;

/// Relay sockets that may have more to read.
#[derive(Default)]
pub(super) struct Backlog {
    relays: VecDeque<(RelayId, bool)>,
}

impl Worker {
    /// What the wait has brought: all of it is looked at, what is expensive is put on its list.
    pub(super) fn on_events(&mut self, now: Now, events: &Events, count: usize) {
        self.spent = 0;
        let mut of_relays = 0;
        for index in 0..count {
            let Some(ready) = events.get(index) else { break };
            match Token::unpack(ready.token) {
                Some(Token::Listener(index)) => self.on_listener(now, index),
                Some(Token::Relay(id)) => self.on_fresh_relay(now, id, false, ready, &mut of_relays),
                Some(Token::BusyPeer(id)) => self.on_fresh_relay(now, id, true, ready, &mut of_relays),
                Some(Token::Stream { index, generation }) => self.streams.wait_for_turn((index, generation), ready),
                Some(Token::Mailbox) => self.on_mailbox(now),
                None => {}
            }
            if self.stopped {
                // What waits at the listeners is left to the next process; what has been read is answered.
                break;
            }
        }
    }

    /// A part of what waits for its turn.
    pub(super) fn serve_backlog(&mut self, now: Now) {
        if self.stopped {
            return;
        }
        if !self.inbox.is_empty() {
            self.on_handover(now, LISTED_MESSAGES as usize);
            // What has come meanwhile has not woken us.
            self.take_handover();
        }
        let until = self.spent + LISTED_MESSAGES;
        for _ in 0..self.backlog.relays.len() {
            if self.spent >= until {
                break;
            }
            self.spent += TURN_WEIGHT;
            self.serve_listed_relay(now);
        }
        let until = self.spent + LISTED_MESSAGES;
        for _ in 0..self.streams.waiting() {
            if self.spent >= until {
                break;
            }
            self.spent += TURN_WEIGHT;
            if let Some((id, ready)) = self.streams.next_turn() {
                self.on_stream(now, id, ready);
            }
        }
        self.shake_hands(now);
    }

    /// Whether there is something to do without waiting.
    pub(super) fn has_backlog(&self) -> bool {
        !self.backlog.relays.is_empty() || self.streams.has_waiting() || !self.inbox.is_empty()
    }

    pub(super) fn take_handover(&mut self) {
        if let Some(mailbox) = self.context.mailboxes.get(usize::from(self.number)) {
            mailbox.take_handover(&mut self.inbox);
        }
    }

    fn on_fresh_relay(&mut self, now: Now, id: RelayId, busy: bool, ready: Ready, of_relays: &mut u32) {
        let Some(waiting) = self.relays.get_mut(id).and_then(|relay| relay.waiting_mut(busy)) else { return };
        if waiting.is_listed {
            waiting.error |= ready.error;
            return;
        }
        if *of_relays >= FRESH_MESSAGES {
            return self.list_relay(id, busy, ready.error);
        }
        let before = self.spent;
        let more = self.on_relay(now, id, busy, ready.readable, ready.error);
        *of_relays += self.spent - before + TURN_WEIGHT;
        if more != More::None {
            self.list_relay(id, busy, more == More::WithErrors);
        }
    }

    fn serve_listed_relay(&mut self, now: Now) {
        let Some((id, busy)) = self.backlog.relays.pop_front() else { return };
        let Some(waiting) = self.relays.get_mut(id).and_then(|relay| relay.waiting_mut(busy)) else { return };
        let error = std::mem::take(waiting).error;
        let more = self.on_relay(now, id, busy, true, error);
        if more != More::None {
            self.list_relay(id, busy, more == More::WithErrors);
        }
    }

    fn list_relay(&mut self, id: RelayId, busy: bool, error: bool) {
        if let Some(waiting) = self.relays.get_mut(id).and_then(|relay| relay.waiting_mut(busy)) {
            waiting.error |= error;
            if !waiting.is_listed {
                waiting.is_listed = true;
                self.backlog.relays.push_back((id, busy));
            }
        }
    }
}
