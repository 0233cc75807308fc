//! Binding (RFC 8489 section 3): answered without authentication, out of the budget for strangers.

use crate::clock::Now;
use crate::reject::{Dropped, Reason};
use turnstone_stun::{AttributeType, Message};

use super::discovery::{Asked, Vantage, is_of_discovery, trailer_len};
use super::output::{Client, Outcome};
use super::response::{Responder, is_known};
use super::server::Server;

/// A challenge: what the budget for strangers reckons with.
const ANSWER_LEN: usize = 104;

impl Server {
    pub(super) fn binding(&mut self, now: Now, client: &Client, message: &Message<'_>, reply: &mut Vec<u8>) -> Outcome {
        if !self.may_answer_stranger(now, client) {
            return Outcome::Dropped(Dropped::RateLimited);
        }
        self.events.stranger_answered();
        let responder =
            Responder { request: message.into(), software: self.settings.software.as_deref(), integrity: None };
        // Without a second address, CHANGE-REQUEST and its like are unknown (RFC 5780 section 6).
        let vantage = Vantage::of(&self.settings.nat_discovery, &client.five_tuple);
        let unknown = message.unknown_required(|kind| is_known(kind) || (vantage.is_some() && is_of_discovery(kind)));
        let reason = if unknown.is_empty() {
            let mapped = client.five_tuple.client.get();
            let Some(vantage) = vantage else {
                responder.success(reply, |encoder| {
                    encoder.xor_address(AttributeType::XOR_MAPPED_ADDRESS, mapped);
                });
                return Outcome::Reply;
            };
            match Asked::of(message) {
                Ok(asked) => {
                    let (_, origin) = vantage.origin(&asked);
                    let before = reply.len();
                    responder.success(reply, |encoder| {
                        encoder
                            .xor_address(AttributeType::XOR_MAPPED_ADDRESS, mapped)
                            .address(AttributeType::MAPPED_ADDRESS, mapped)
                            .address(AttributeType::RESPONSE_ORIGIN, origin)
                            .address(AttributeType::OTHER_ADDRESS, vantage.other());
                        asked.pad(encoder, message, trailer_len(message, responder.software));
                    });
                    // The budget is of answers: a padded one counts for as many others as are as long.
                    let further = if asked.is_padded() { (reply.len() - before).div_ceil(ANSWER_LEN) - 1 } else { 0 };
                    if !(0..further).all(|_| self.may_answer_stranger(now, client)) {
                        reply.truncate(before);
                        return Outcome::Dropped(Dropped::RateLimited);
                    }
                    return vantage.detour(&asked, &client.five_tuple).map_or(Outcome::Reply, Outcome::Detour);
                }
                Err(reason) => reason,
            }
        } else {
            Reason::UnknownAttribute
        };
        self.refused_with = Some((reason, None));
        self.events.count_refusal(reason);
        match reason {
            Reason::UnknownAttribute => responder.unknown_attributes(reply, reason.into(), &unknown),
            _ => responder.error(reply, reason.into(), |_| {}),
        }
        Outcome::Reply
    }
}
