//! A client's messages for an allocation that another worker has (RFC 8016): requests are passed on to it, data waits for the
//! allocation.

use super::inbox::Payload;
use super::moving::Moving;
use super::room::Room;
use super::{Worker, log};
use crate::clock::Now;
use crate::reject::Dropped;
use crate::turn::{AllocationId, Client, Outcome};

/// How often another worker is reminded to hand an allocation over, in messages that wait for it.
const CLAIM_EVERY: usize = 8;

impl Worker {
    /// Passes a request on to the worker that has its allocation. One that is said to be here, and is not yet, or is none any more, is found
    /// out behind what waits in the mailbox.
    #[cold]
    pub(super) fn pass_request_on(&mut self, client: &Client, id: AllocationId, message: Payload) -> Room {
        let (here, owner) = (self.relays.worker(), self.whereabouts.of(id));
        let message = self.inbox.bytes(message.span).into();
        if !self.mail.pass_on(owner, Moving::Request { from: here, client: *client, id, message, hops: 0 }) {
            self.observers.counters().mailbox_drops.add(1);
        }
        Room::Left
    }

    /// Handles a request of a client of this worker that was not handled at once.
    pub(super) fn handle_late(&mut self, now: Now, client: &Client, bytes: &[u8]) -> Room {
        let reply = self.outbox.new_reply();
        let outcome = self.server.handle_passed_on(now, client, None, bytes, &mut self.relays, reply);
        if log::wants_requests() {
            log::message(&self.server, client, bytes, &outcome, reply);
        }
        match outcome {
            Outcome::Reply => {
                self.observers.counters().answers.add(1);
                self.answer(client, false)
            }
            Outcome::Dropped(reason) => self.drop_packet(reason),
            Outcome::ToPeer(..) | Outcome::Detour(_) | Outcome::Waits | Outcome::Binds(_) | Outcome::Elsewhere(_) => {
                Room::Left
            }
        }
    }

    /// Data has come sooner than its allocation, which is asked for.
    #[cold]
    pub(super) fn wait_for_allocation(&mut self, client: &Client, message: Payload) -> Room {
        let five_tuple = client.five_tuple;
        let Some((id, owner)) = self.server.expected(&five_tuple) else { return self.drop_packet(Dropped::Moving) };
        let kept = self.parked.add(*client, self.inbox.bytes(message.span));
        // Where nothing can wait, the allocation is to come all the same.
        let wants_claim = kept.map_or(!self.parked.has(&five_tuple), |count| count % CLAIM_EVERY == 1);
        if wants_claim && !self.mail.pass_on(owner, Moving::Claim { by: self.relays.worker(), id, five_tuple }) {
            self.observers.counters().mailbox_drops.add(1);
            if kept == Some(1) {
                // Nobody would ever answer, and what waits would keep its place.
                self.parked.take(&five_tuple);
                return self.drop_packet(Dropped::Moving);
            }
        }
        match kept {
            Some(_) => Room::Left,
            None => self.drop_packet(Dropped::Moving),
        }
    }
}
