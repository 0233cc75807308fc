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
    /// Passes a request on to the worker that has its allocation; if there is none, it is answered here.
    #[cold]
    pub(super) fn pass_request_on(&mut self, now: Now, client: &Client, id: AllocationId, message: Payload) -> Room {
        let bytes = self.inbox.bytes(message.span);
        let (here, owner) = (self.relays.worker(), self.whereabouts.of(id));
        if owner != here {
            let request = Moving::Request { from: here, client: *client, id, message: bytes.into(), hops: 0 };
            if !self.mail.pass_on(owner, request) {
                self.observers.counters().mailbox_drops.add(1);
            }
            return Room::Left;
        }
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
        let expected = self.server.expected(&client.five_tuple);
        let kept = self.parked.add(*client, self.inbox.bytes(message.span));
        let (Some((id, owner)), Some(count)) = (expected, kept) else { return self.drop_packet(Dropped::Moving) };
        if count % CLAIM_EVERY == 1 {
            let claim = Moving::Claim { by: self.relays.worker(), id, five_tuple: client.five_tuple };
            if !self.mail.pass_on(owner, claim) {
                self.observers.counters().mailbox_drops.add(1);
            }
        }
        Room::Left
    }
}
