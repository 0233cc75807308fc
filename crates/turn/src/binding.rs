//! Binding (RFC 8489 section 3): answered without authentication, out of the budget for strangers.

use crate::clock::Now;
use crate::reject::{Dropped, Reason};
use turnstone_stun::{AttributeType, Message};

use super::output::{Client, Outcome};
use super::response::{Responder, is_known};
use super::server::Server;

impl Server {
    pub(super) fn binding(&mut self, now: Now, client: &Client, message: &Message<'_>, reply: &mut Vec<u8>) -> Outcome {
        if !self.may_answer_stranger(now, client) {
            return Outcome::Dropped(Dropped::RateLimited);
        }
        self.events.stranger_answered();
        let responder = Responder { request: message, software: self.settings.software.as_deref(), integrity: None };
        let unknown = message.unknown_required(is_known);
        if unknown.is_empty() {
            responder.success(reply, |encoder| {
                encoder.xor_address(AttributeType::XOR_MAPPED_ADDRESS, client.five_tuple.client.get());
            });
        } else {
            self.refused_with = Some((Reason::UnknownAttribute, None));
            self.events.count_refusal(Reason::UnknownAttribute);
            responder.unknown_attributes(reply, Reason::UnknownAttribute.into(), &unknown);
        }
        Outcome::Reply
    }
}
