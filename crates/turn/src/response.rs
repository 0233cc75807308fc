//! Writes responses: what every response has in common (RFC 8489 section 6.3.1.1).

use crate::reject::Reject;
use turnstone_stun::{AttributeType, Class, Encoder, IntegrityKind, Key, Message, UnknownAttributes};

/// The attributes we know; others below 0x8000 are answered with 420. Known ones that a method has no use for are ignored
/// (RFC 8489 section 6.3), such as PRIORITY in the Binding requests of ICE agents.
pub(super) fn is_known(kind: AttributeType) -> bool {
    kind.name() != "unknown"
}

/// Writes one response.
pub(super) struct Responder<'r> {
    /// The request.
    pub(super) request: &'r Message<'r>,
    /// SOFTWARE, if configured.
    pub(super) software: Option<&'r str>,
    /// How the request was authenticated, if it was.
    pub(super) integrity: Option<(IntegrityKind, &'r Key)>,
}

impl Responder<'_> {
    /// A success response with the attributes that `write` adds.
    pub(super) fn success(&self, reply: &mut Vec<u8>, write: impl FnOnce(&mut Encoder<'_>)) {
        self.respond(reply, Class::Success, write);
    }

    /// An error response with ERROR-CODE and the attributes that `write` adds.
    pub(super) fn error(&self, reply: &mut Vec<u8>, reject: Reject, write: impl FnOnce(&mut Encoder<'_>)) {
        self.respond(reply, Class::Error, |encoder| {
            encoder.error_code(reject.code);
            write(encoder);
        });
    }

    /// 420 with UNKNOWN-ATTRIBUTES.
    pub(super) fn unknown_attributes(&self, reply: &mut Vec<u8>, reject: Reject, unknown: &UnknownAttributes) {
        self.error(reply, reject, |encoder| {
            encoder.unknown_attributes(unknown.types());
        });
    }

    fn respond(&self, reply: &mut Vec<u8>, class: Class, write: impl FnOnce(&mut Encoder<'_>)) {
        let mut encoder = Encoder::new(reply, class, self.request.method(), self.request.transaction_id());
        write(&mut encoder);
        if let Some(software) = self.software {
            encoder.attribute(AttributeType::SOFTWARE, software.as_bytes());
        }
        if let Some((kind, key)) = self.integrity {
            encoder.integrity(kind, key);
        }
        if self.request.has_fingerprint() {
            encoder.fingerprint();
        }
    }
}
