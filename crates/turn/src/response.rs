//! Writes responses: what every response has in common (RFC 8489 section 6.3.1.1).

use crate::reject::Reject;
use turnstone_stun::{
    AttributeType, Class, Encoder, IntegrityKind, Key, Message, Method, TransactionId, UnknownAttributes,
};

/// The attributes below 0x8000 that we know; others are answered with 420, whatever name they have in a log. Known ones that a method has no use for are ignored
/// (RFC 8489 section 6.3), such as PRIORITY in the Binding requests of ICE agents.
#[inline]
pub(super) const fn is_known(kind: AttributeType) -> bool {
    matches!(
        kind,
        AttributeType::MAPPED_ADDRESS
            | AttributeType::USERNAME
            | AttributeType::MESSAGE_INTEGRITY
            | AttributeType::ERROR_CODE
            | AttributeType::UNKNOWN_ATTRIBUTES
            | AttributeType::CHANNEL_NUMBER
            | AttributeType::LIFETIME
            | AttributeType::XOR_PEER_ADDRESS
            | AttributeType::DATA
            | AttributeType::REALM
            | AttributeType::NONCE
            | AttributeType::XOR_RELAYED_ADDRESS
            | AttributeType::REQUESTED_ADDRESS_FAMILY
            | AttributeType::EVEN_PORT
            | AttributeType::REQUESTED_TRANSPORT
            | AttributeType::DONT_FRAGMENT
            | AttributeType::MESSAGE_INTEGRITY_SHA256
            | AttributeType::PASSWORD_ALGORITHM
            | AttributeType::USERHASH
            | AttributeType::XOR_MAPPED_ADDRESS
            | AttributeType::RESERVATION_TOKEN
            | AttributeType::PRIORITY
            | AttributeType::USE_CANDIDATE
            | AttributeType::CONNECTION_ID
    )
}

/// What a response repeats of its request, and what it does because of it.
#[derive(Clone, Copy)]
pub(super) struct Asked {
    method: Method,
    transaction_id: TransactionId,
    has_fingerprint: bool,
}

impl From<&Message<'_>> for Asked {
    #[inline]
    fn from(request: &Message<'_>) -> Self {
        Self {
            method: request.method(),
            transaction_id: request.transaction_id(),
            has_fingerprint: request.has_fingerprint(),
        }
    }
}

/// Writes one response.
pub(super) struct Responder<'r> {
    /// The request.
    pub(super) request: Asked,
    /// SOFTWARE, if configured.
    pub(super) software: Option<&'r str>,
    /// How the request was authenticated, if it was.
    pub(super) integrity: Option<(IntegrityKind, &'r Key)>,
}

impl Responder<'_> {
    /// A success response with the attributes that `write` adds.
    #[inline]
    pub(super) fn success(&self, reply: &mut Vec<u8>, write: impl FnOnce(&mut Encoder<'_>)) {
        self.respond(reply, Class::Success, write);
    }

    /// An error response with ERROR-CODE and the attributes that `write` adds.
    pub(super) fn error(&self, reply: &mut Vec<u8>, reject: Reject, write: impl FnOnce(&mut Encoder<'_>)) {
        self.respond(reply, Class::Error, |encoder| {
            encoder.error_code(reject.code());
            write(encoder);
        });
    }

    /// 420 with UNKNOWN-ATTRIBUTES.
    pub(super) fn unknown_attributes(&self, reply: &mut Vec<u8>, reject: Reject, unknown: &UnknownAttributes) {
        self.error(reply, reject, |encoder| {
            encoder.unknown_attributes(unknown.types());
        });
    }

    #[inline]
    fn respond(&self, reply: &mut Vec<u8>, class: Class, write: impl FnOnce(&mut Encoder<'_>)) {
        let mut encoder = Encoder::new(reply, class, self.request.method, self.request.transaction_id);
        write(&mut encoder);
        if let Some(software) = self.software {
            encoder.attribute(AttributeType::SOFTWARE, software.as_bytes());
        }
        if let Some((kind, key)) = self.integrity {
            encoder.integrity(kind, key);
        }
        if self.request.has_fingerprint {
            encoder.fingerprint();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_a_list_of_its_own() {
        let known: Vec<u16> = (0..0x8000).filter(|kind| is_known(AttributeType(*kind))).collect();
        let expected = [
            0x01, 0x06, 0x08, 0x09, 0x0A, 0x0C, 0x0D, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0x19, 0x1A, 0x1C, 0x1D,
            0x1E, 0x20, 0x22, 0x24, 0x25, 0x2A,
        ];
        assert_eq!(known, expected);
    }
}
