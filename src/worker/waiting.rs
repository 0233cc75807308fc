//! Requests that wait for an answer from outside: whom they are about is asked, or what is left of a quota, and they go on when there is an
//! answer.

use super::forward::STUN_WEIGHT;
use super::{Worker, log};
use crate::clock::Now;
use crate::turn::{Answer, Outcome, Question};

/// Requests that go on in one round.
const LATE_PER_ROUND: usize = 64;

impl Worker {
    /// Has somebody asked, and lets those go on that wait no more.
    pub(super) fn serve_waiting(&mut self, now: Now) {
        self.ask_all(now);
        self.go_on_late(now);
        // Who has had an answer may have to wait for another one: his credential is known, and now for a share of his quota.
        self.ask_all(now);
    }

    fn ask_all(&mut self, now: Now) {
        while let Some(ask) = self.server.poll_ask() {
            let id = ask.id;
            let asked = match (&ask.question, &self.hook, &self.leases) {
                (Question::Credential { .. }, Some(hook), _) => hook.ask(ask),
                (Question::Share { user, limit }, _, Some(leases)) => leases.ask(id, user.clone(), *limit),
                _ => Err(id),
            };
            if let Err(id) = asked {
                self.server.answer(now, id, Answer::Failed);
            }
        }
    }

    /// Lets a part of those go on who wait no more.
    fn go_on_late(&mut self, now: Now) {
        for _ in 0..LATE_PER_ROUND {
            if !self.server.has_late() {
                break;
            }
            self.pace.spend(STUN_WEIGHT);
            let reply = self.outbox.new_reply();
            let Some(late) = self.server.poll_late(now, &mut self.relays, reply) else { break };
            if log::wants_requests() {
                log::message(&self.server, &late.client, &late.request, &late.outcome, reply);
            }
            let room = match late.outcome {
                Outcome::Reply => {
                    self.observers.counters().answers.add(1);
                    self.clients.note_late(now, &late.client, &self.server);
                    self.answer(&late.client, false)
                }
                Outcome::Dropped(reason) => self.drop_packet(reason),
                // None of these comes late.
                Outcome::ToPeer(..)
                | Outcome::Detour(_)
                | Outcome::Waits
                | Outcome::Binds(_)
                | Outcome::Elsewhere(_) => {
                    continue;
                }
            };
            self.make_room_again(now, room);
        }
    }
}
