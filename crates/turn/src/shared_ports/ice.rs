//! What the STUN messages of ICE (RFC 8445 section 7) say of whose they are, for relay ports that allocations share.

use turnstone_stun::{AttributeType, Class, HEADER_LEN, Message, Method, TransactionId};

/// Longer messages are no checks: those fit into one packet (RFC 8489 section 6.1), and to verify a fingerprint costs more the longer it is.
const LEN_MAX: usize = 1500;
/// The longest username fragment (RFC 8839 section 5.4).
const FRAGMENT_MAX: usize = 256;

/// A connectivity check, or the answer to one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ice<'a> {
    /// A Binding request.
    Check(TransactionId, Option<Names<'a>>),
    /// A response to one, and whether it is a success.
    Answer(TransactionId, bool),
    /// Another message of STUN.
    Other,
}

/// USERNAME of a check: the username fragment of the agent it is for, and that of the one it is from (RFC 8445 section 7.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Names<'a> {
    pub(super) to: &'a [u8],
    pub(super) from: &'a [u8],
}

impl<'a> Ice<'a> {
    /// Reads a payload; `None` if it is not STUN. Of media and data only the first byte is looked at.
    pub(super) fn read(payload: &'a [u8]) -> Option<Self> {
        if payload.first()? >> 6 != 0 || !(HEADER_LEN..=LEN_MAX).contains(&payload.len()) {
            return None;
        }
        let message = Message::parse(payload).ok()?;
        Some(match (message.method(), message.class()) {
            (Method::BINDING, Class::Request) => {
                Self::Check(message.transaction_id(), message.get(AttributeType::USERNAME).and_then(Names::read))
            }
            (Method::BINDING, Class::Success) => Self::Answer(message.transaction_id(), true),
            (Method::BINDING, Class::Error) => Self::Answer(message.transaction_id(), false),
            _ => Self::Other,
        })
    }
}

impl<'a> Names<'a> {
    fn read(username: &'a [u8]) -> Option<Self> {
        let colon = username.iter().position(|byte| *byte == b':')?;
        let (to, from) = (username.get(..colon)?, username.get(colon + 1..)?);
        let is_fragment = |name: &[u8]| (1..=FRAGMENT_MAX).contains(&name.len());
        (is_fragment(to) && is_fragment(from)).then_some(Self { to, from })
    }

    /// As the other side has them.
    pub(super) fn turned(self) -> Self {
        Self { to: self.from, from: self.to }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use turnstone_stun::Encoder;

    #[test]
    fn checks_and_answers_are_told_from_media_and_say_whose_they_are() {
        let id = TransactionId([7; 12]);
        let message = |class, method, username: &[u8]| {
            let mut bytes = Vec::new();
            let mut encoder = Encoder::new(&mut bytes, class, method, id);
            if !username.is_empty() {
                encoder.attribute(AttributeType::USERNAME, username);
            }
            encoder.fingerprint();
            bytes
        };
        let names = |username: &[u8]| match Ice::read(&message(Class::Request, Method::BINDING, username)) {
            Some(Ice::Check(found, names)) if found == id => names.map(|of| (of.to.to_vec(), of.from.to_vec())),
            other => panic!("{other:?}"),
        };
        assert_eq!(names(b"Bbbb:Aaaa"), Some((b"Bbbb".to_vec(), b"Aaaa".to_vec())));
        assert_eq!(names(b"Bbbb:Aa:aa"), Some((b"Bbbb".to_vec(), b"Aa:aa".to_vec())));
        for none in [&b""[..], b"Bbbb", b":Aaaa", b"Bbbb:", &[b'x'; 300], &[&[b'x'; 257][..], b":y"].concat()] {
            assert_eq!(names(none), None, "{none:?}");
        }
        assert_eq!(Ice::read(&message(Class::Success, Method::BINDING, b"")), Some(Ice::Answer(id, true)));
        assert_eq!(Ice::read(&message(Class::Error, Method::BINDING, b"")), Some(Ice::Answer(id, false)));
        assert_eq!(Ice::read(&message(Class::Indication, Method::BINDING, b"")), Some(Ice::Other));
        let mut media = message(Class::Request, Method::BINDING, b"Bbbb:Aaaa");
        media[0] |= 0x80;
        let long = message(Class::Request, Method::BINDING, &[b'x'; 1500]);
        for other in [&media[..], &long, &[], &[0], &[0; 20], &[22; 40]] {
            assert_eq!(Ice::read(other), None, "{other:?}");
        }
    }
}
