//! The borrowed, structurally validated message (RFC 8489 sections 5, 6.3 and 14).

use std::fmt;
use std::net::SocketAddr;

use thiserror::Error;

use super::address::{decode_address, decode_xor_address};
use super::attribute::{Attribute, AttributeType};
use super::error_code::ErrorCode;
use super::fingerprint;
use super::header::{Class, HEADER_LEN, MAGIC_COOKIE, Method, TransactionId, split_type};
use super::integrity::{self, IntegrityKind, Key};

/// Why bytes are not a STUN message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ParseError {
    /// Fewer than 20 bytes.
    #[error("shorter than a STUN header")]
    TooShort,
    /// The two top bits are not zero: ChannelData, (D)TLS or RTP, which may share a socket with STUN (RFC 7983).
    #[error("top bits are not zero")]
    NotStun,
    /// The magic cookie is missing: an RFC 3489 client, or not STUN.
    #[error("no magic cookie")]
    NoMagicCookie,
    /// The length field is not a multiple of 4, or is not the number of bytes that follow.
    #[error("bad length")]
    BadLength,
    /// An attribute reaches past the end.
    #[error("attribute past the end")]
    BadAttribute,
    /// MESSAGE-INTEGRITY(-SHA256) or FINGERPRINT of a length the RFC does not allow, or not in its place.
    #[error("malformed MESSAGE-INTEGRITY or FINGERPRINT")]
    BadIntegrity,
    /// FINGERPRINT does not match.
    #[error("FINGERPRINT mismatch")]
    BadFingerprint,
}

/// A message whose structure has been checked. Attributes are borrowed.
///
/// Only what precedes the first MESSAGE-INTEGRITY, MESSAGE-INTEGRITY-SHA256 or FINGERPRINT is yielded as an attribute:
/// what follows is not covered and does not count (RFC 8489 sections 14.5 to 14.7).
#[derive(Clone, Copy)]
pub struct Message<'a> {
    bytes: &'a [u8],
    class: Class,
    method: Method,
    transaction_id: TransactionId,
    covered_end: usize,
    sha1_at: Option<(usize, &'a [u8])>,
    sha256_at: Option<(usize, &'a [u8])>,
    has_fingerprint: bool,
}

impl<'a> Message<'a> {
    /// Parses one datagram or one stream frame, which must be exactly one message.
    ///
    /// # Errors
    /// [`ParseError`] says what is malformed; a FINGERPRINT, when present, must match.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        let header = bytes.first_chunk::<HEADER_LEN>().ok_or(ParseError::TooShort)?;
        let [t0, t1, l0, l1, c0, c1, c2, c3, id @ ..] = *header;
        if t0 & 0xC0 != 0 {
            return Err(ParseError::NotStun);
        }
        if u32::from_be_bytes([c0, c1, c2, c3]) != MAGIC_COOKIE {
            return Err(ParseError::NoMagicCookie);
        }
        let length = usize::from(u16::from_be_bytes([l0, l1]));
        if !length.is_multiple_of(4) || length != bytes.len() - HEADER_LEN {
            return Err(ParseError::BadLength);
        }
        let (class, method) = split_type(u16::from_be_bytes([t0, t1]));
        let mut message = Self {
            bytes,
            class,
            method,
            transaction_id: TransactionId(id),
            covered_end: bytes.len(),
            sha1_at: None,
            sha256_at: None,
            has_fingerprint: false,
        };
        message.scan()?;
        Ok(message)
    }

    fn scan(&mut self) -> Result<(), ParseError> {
        let mut at = HEADER_LEN;
        while at < self.bytes.len() {
            let (attribute, next) = read_attribute(self.bytes, at).ok_or(ParseError::BadAttribute)?;
            let value = attribute.value;
            match attribute.kind {
                AttributeType::MESSAGE_INTEGRITY if self.sha1_at.is_none() && self.sha256_at.is_none() => {
                    if value.len() != IntegrityKind::Sha1.value_len() {
                        return Err(ParseError::BadIntegrity);
                    }
                    self.sha1_at = Some((at, value));
                    self.covered_end = self.covered_end.min(at);
                }
                AttributeType::MESSAGE_INTEGRITY_SHA256 if self.sha256_at.is_none() => {
                    if value.len() != IntegrityKind::Sha256.value_len() {
                        return Err(ParseError::BadIntegrity);
                    }
                    self.sha256_at = Some((at, value));
                    self.covered_end = self.covered_end.min(at);
                }
                AttributeType::FINGERPRINT => {
                    if value.len() != 4 || next != self.bytes.len() {
                        return Err(ParseError::BadIntegrity);
                    }
                    if !fingerprint::verify(self.bytes, at, value) {
                        return Err(ParseError::BadFingerprint);
                    }
                    self.has_fingerprint = true;
                    self.covered_end = self.covered_end.min(at);
                }
                _ => {}
            }
            at = next;
        }
        Ok(())
    }

    /// The class.
    pub fn class(&self) -> Class {
        self.class
    }

    /// The method.
    pub fn method(&self) -> Method {
        self.method
    }

    /// The transaction id.
    pub fn transaction_id(&self) -> TransactionId {
        self.transaction_id
    }

    /// Whether this is a response, success or error, to the request of that method and transaction id.
    pub fn answers(&self, method: Method, id: TransactionId) -> bool {
        matches!(self.class, Class::Success | Class::Error) && (self.method, self.transaction_id) == (method, id)
    }

    /// The whole message.
    pub fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The attributes before MESSAGE-INTEGRITY(-SHA256) and FINGERPRINT, in order.
    pub fn attributes(&self) -> impl Iterator<Item = Attribute<'a>> + use<'a> {
        let bytes = self.bytes.get(..self.covered_end).unwrap_or_default();
        let mut at = HEADER_LEN;
        std::iter::from_fn(move || {
            let (attribute, next) = read_attribute(bytes, at)?;
            at = next;
            Some(attribute)
        })
    }

    /// The value of the first attribute of a type; repetitions do not count (RFC 8489 section 14).
    pub fn get(&self, kind: AttributeType) -> Option<&'a [u8]> {
        self.attributes().find(|attribute| attribute.kind == kind).map(|attribute| attribute.value)
    }

    /// The address in an attribute such as XOR-MAPPED-ADDRESS; `None` too when its value is malformed.
    pub fn xor_address(&self, kind: AttributeType) -> Option<SocketAddr> {
        decode_xor_address(self.get(kind)?, self.transaction_id)
    }

    /// The address in an attribute that is not XORed, such as ALTERNATE-SERVER; `None` too when its value is malformed.
    pub fn address(&self, kind: AttributeType) -> Option<SocketAddr> {
        decode_address(self.get(kind)?)
    }

    /// The code of ERROR-CODE; `None` too when its value is malformed. [`ErrorCode::decode`] reads the phrase as well.
    pub fn error_code(&self) -> Option<ErrorCode> {
        ErrorCode::decode(self.get(AttributeType::ERROR_CODE)?).map(|(code, _)| code)
    }

    /// Whether a FINGERPRINT is present (it has been verified).
    pub fn has_fingerprint(&self) -> bool {
        self.has_fingerprint
    }

    /// The strongest integrity attribute present: SHA-256 goes before SHA-1 (RFC 8489 section 9.2.4).
    pub fn integrity(&self) -> Option<IntegrityKind> {
        match (self.sha256_at, self.sha1_at) {
            (Some(_), _) => Some(IntegrityKind::Sha256),
            (None, Some(_)) => Some(IntegrityKind::Sha1),
            (None, None) => None,
        }
    }

    /// Verifies the strongest integrity attribute with `key`, in constant time. `false` when there is none.
    ///
    /// Who asked for SHA-256 must see to it that [`integrity`](Self::integrity) says so: an attacker can take it away.
    pub fn verify_integrity(&self, key: &Key) -> bool {
        let (kind, at) = match (self.sha256_at, self.sha1_at) {
            (Some(at), _) => (IntegrityKind::Sha256, at),
            (None, Some(at)) => (IntegrityKind::Sha1, at),
            (None, None) => return false,
        };
        let (offset, value) = at;
        self.bytes.get(..offset).is_some_and(|covered| integrity::verify(kind, key, covered, value))
    }

    /// The comprehension-required attributes that `known` does not name (RFC 8489 section 6.3.1).
    #[inline]
    pub fn unknown_required(&self, known: impl Fn(AttributeType) -> bool) -> UnknownAttributes {
        let mut unknown = UnknownAttributes::NONE;
        for attribute in self.attributes() {
            if attribute.kind.comprehension_required() && !known(attribute.kind) {
                unknown.push(attribute.kind);
            }
        }
        unknown
    }
}

impl fmt::Debug for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?} {} bytes", self.class, self.method, self.bytes.len())
    }
}

/// Up to eight attribute types for UNKNOWN-ATTRIBUTES; more are not listed, so that the answer stays small.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownAttributes {
    types: [AttributeType; 8],
    len: usize,
}

impl UnknownAttributes {
    const NONE: Self = Self { types: [AttributeType(0); 8], len: 0 };

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The types, each once.
    pub fn types(&self) -> &[AttributeType] {
        self.types.get(..self.len).unwrap_or_default()
    }

    fn push(&mut self, kind: AttributeType) {
        if self.types().contains(&kind) {
            return;
        }
        if let Some(slot) = self.types.get_mut(self.len) {
            *slot = kind;
            self.len += 1;
        }
    }
}

/// The attribute at `at` and the offset of the next one.
fn read_attribute(bytes: &[u8], at: usize) -> Option<(Attribute<'_>, usize)> {
    let (&[t0, t1, l0, l1], rest) = bytes.get(at..)?.split_first_chunk::<4>()?;
    let len = usize::from(u16::from_be_bytes([l0, l1]));
    let padded = len.checked_next_multiple_of(4)?;
    if padded > rest.len() {
        return None;
    }
    let attribute = Attribute { kind: AttributeType(u16::from_be_bytes([t0, t1])), value: rest.get(..len)? };
    Some((attribute, at + 4 + padded))
}

/// The length of the message that a byte stream begins with (RFC 8489 section 6.2.2); `None` as long as that cannot be told.
///
/// Whoever reads from strangers says how long a message may be, and closes the connection before it waits for a longer one.
///
/// ```
/// use turnstone_stun::{Message, message_len};
///
/// // What has been read so far: a whole message, and the beginning of the next.
/// let received = b"\x01\x01\x00\x00\x21\x12\xA4\x42not a random\x00\x01";
/// let len = message_len(received)?.unwrap();
/// let (message, rest) = received.split_at_checked(len).unwrap(); // `None`: not all of it has come.
/// assert!(Message::parse(message).is_ok());
/// assert_eq!(message_len(rest)?, None);
/// # Ok::<(), turnstone_stun::ParseError>(())
/// ```
///
/// # Errors
/// [`ParseError::NotStun`], [`ParseError::NoMagicCookie`] or [`ParseError::BadLength`] as soon as the bytes that are there cannot begin a
/// message. There is no way to find the next one: the connection is to be closed.
#[inline]
pub fn message_len(stream: &[u8]) -> Result<Option<usize>, ParseError> {
    if stream.first().is_some_and(|first| first >> 6 != 0) {
        return Err(ParseError::NotStun);
    }
    let cookie = stream.get(4..).unwrap_or_default();
    if cookie.iter().zip(MAGIC_COOKIE.to_be_bytes()).any(|(byte, expected)| *byte != expected) {
        return Err(ParseError::NoMagicCookie);
    }
    match stream {
        [_, _, l0, l1, ..] => match usize::from(u16::from_be_bytes([*l0, *l1])) {
            length if length % 4 != 0 => Err(ParseError::BadLength),
            length => Ok(Some(HEADER_LEN + length)),
        },
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Encoder, PasswordAlgorithm};

    const ID: TransactionId = TransactionId([9; 12]);

    fn key() -> Key {
        Key::long_term(PasswordAlgorithm::Md5, b"user", b"realm", b"password")
    }

    fn encode(build: impl FnOnce(&mut Encoder<'_>)) -> Vec<u8> {
        let mut out = Vec::new();
        build(&mut Encoder::new(&mut out, Class::Request, Method::ALLOCATE, ID));
        out
    }

    fn parse_error(bytes: &[u8]) -> ParseError {
        Message::parse(bytes).unwrap_err()
    }

    #[test]
    fn a_bare_header_is_a_message_without_attributes() {
        let bytes = encode(|_| {});
        let message = Message::parse(&bytes).unwrap();
        assert_eq!(message.attributes().count(), 0);
        assert_eq!(message.integrity(), None);
        assert!(!message.has_fingerprint());
        assert!(!message.verify_integrity(&key()));
    }

    #[test]
    fn anything_shorter_than_a_header_is_too_short() {
        let bytes = encode(|_| {});
        for len in 0..HEADER_LEN {
            assert_eq!(parse_error(&bytes[..len]), ParseError::TooShort);
        }
    }

    #[test]
    fn top_bits_and_cookie_tell_what_is_not_stun() {
        let good = encode(|_| {});
        for bit in [0x40, 0x80] {
            let mut bytes = good.clone();
            bytes[0] |= bit;
            assert_eq!(parse_error(&bytes), ParseError::NotStun);
        }
        for at in 4..8 {
            let mut bytes = good.clone();
            bytes[at] ^= 1;
            assert_eq!(parse_error(&bytes), ParseError::NoMagicCookie);
        }
    }

    #[test]
    fn the_length_field_must_say_exactly_what_follows() {
        let good = encode(|encoder| {
            encoder.u32(AttributeType::LIFETIME, 1);
        });
        for length in 0..=u16::MAX {
            let mut bytes = good.clone();
            bytes[2..4].copy_from_slice(&length.to_be_bytes());
            assert_eq!(Message::parse(&bytes).is_ok(), length == 8, "length {length}");
        }
        for extra in 1..4 {
            let mut bytes = good.clone();
            bytes.resize(bytes.len() + extra, 0);
            assert_eq!(parse_error(&bytes), ParseError::BadLength);
        }
    }

    #[test]
    fn an_attribute_may_not_reach_past_the_end() {
        let good = encode(|encoder| {
            encoder.attribute(AttributeType::SOFTWARE, &[0; 5]);
        });
        for length in 0..=u16::MAX {
            let mut bytes = good.clone();
            bytes[HEADER_LEN + 2..HEADER_LEN + 4].copy_from_slice(&length.to_be_bytes());
            // A shorter value leaves zeros behind it, which read as further attributes of length zero.
            assert_eq!(Message::parse(&bytes).is_ok(), length <= 8, "length {length}");
        }
    }

    #[test]
    fn padding_is_ignored_whatever_it_holds() {
        let mut bytes = encode(|encoder| {
            encoder.attribute(AttributeType::SOFTWARE, b"abc");
        });
        *bytes.last_mut().unwrap() = b' ';
        assert_eq!(Message::parse(&bytes).unwrap().get(AttributeType::SOFTWARE), Some(&b"abc"[..]));
    }

    #[test]
    fn the_first_of_repeated_attributes_counts() {
        let bytes = encode(|encoder| {
            encoder.u32(AttributeType::LIFETIME, 1).u32(AttributeType::LIFETIME, 2);
        });
        let message = Message::parse(&bytes).unwrap();
        assert_eq!(message.get(AttributeType::LIFETIME), Some(&[0, 0, 0, 1][..]));
        assert_eq!(message.attributes().count(), 2);
    }

    #[test]
    fn an_address_or_a_code_is_read_from_its_attribute_and_a_malformed_one_is_none() {
        let (mapped, alternate) = ("[2001:db8::1]:443".parse().unwrap(), "192.0.2.1:3478".parse().unwrap());
        let bytes = encode(|encoder| {
            encoder.xor_address(AttributeType::XOR_MAPPED_ADDRESS, mapped);
            encoder.address(AttributeType::ALTERNATE_SERVER, alternate).error_code(ErrorCode::TRY_ALTERNATE);
        });
        let message = Message::parse(&bytes).unwrap();
        assert_eq!(message.xor_address(AttributeType::XOR_MAPPED_ADDRESS), Some(mapped));
        assert_eq!(message.address(AttributeType::ALTERNATE_SERVER), Some(alternate));
        assert_eq!(message.error_code(), Some(ErrorCode::TRY_ALTERNATE));
        assert_eq!(message.xor_address(AttributeType::XOR_RELAYED_ADDRESS), None);

        let bytes = encode(|encoder| {
            encoder.attribute(AttributeType::XOR_MAPPED_ADDRESS, &[0; 7]).u32(AttributeType::ERROR_CODE, 0);
            encoder.u32(AttributeType::ALTERNATE_SERVER, 0);
        });
        let message = Message::parse(&bytes).unwrap();
        assert_eq!(message.xor_address(AttributeType::XOR_MAPPED_ADDRESS), None);
        assert_eq!(message.address(AttributeType::ALTERNATE_SERVER), None);
        assert_eq!(message.error_code(), None);
    }

    #[test]
    fn attributes_behind_message_integrity_do_not_count() {
        for kind in [IntegrityKind::Sha1, IntegrityKind::Sha256] {
            let bytes = encode(|encoder| {
                encoder.u32(AttributeType::LIFETIME, 1).integrity(kind, &key());
                encoder
                    .u32(AttributeType::REQUESTED_TRANSPORT, 0x1100_0000)
                    .u32(AttributeType(0x7FFF), 0)
                    .fingerprint();
            });
            let message = Message::parse(&bytes).unwrap();
            assert!(message.verify_integrity(&key()));
            assert_eq!(message.get(AttributeType::LIFETIME), Some(&[0, 0, 0, 1][..]));
            assert_eq!(message.get(AttributeType::REQUESTED_TRANSPORT), None);
            assert!(message.unknown_required(|kind| kind == AttributeType::LIFETIME).is_empty());
        }
    }

    #[test]
    fn of_two_integrities_the_sha256_counts_and_only_what_precedes_both() {
        let other = Key::short_term(b"other");
        let bytes = encode(|encoder| {
            encoder.u32(AttributeType::LIFETIME, 1).integrity(IntegrityKind::Sha1, &other);
            encoder.u32(AttributeType::EVEN_PORT, 0).integrity(IntegrityKind::Sha256, &key());
        });
        let message = Message::parse(&bytes).unwrap();
        assert_eq!(message.integrity(), Some(IntegrityKind::Sha256));
        assert!(message.verify_integrity(&key()));
        assert!(!message.verify_integrity(&other));
        assert_eq!(message.get(AttributeType::EVEN_PORT), None);
    }

    #[test]
    fn a_sha1_behind_a_sha256_is_ignored_even_when_malformed() {
        let bytes = encode(|encoder| {
            encoder.integrity(IntegrityKind::Sha256, &key()).attribute(AttributeType::MESSAGE_INTEGRITY, b"short");
        });
        let message = Message::parse(&bytes).unwrap();
        assert_eq!(message.integrity(), Some(IntegrityKind::Sha256));
        assert!(message.verify_integrity(&key()));
    }

    #[test]
    fn the_first_of_two_equal_integrities_counts() {
        let other = Key::short_term(b"other");
        for kind in [IntegrityKind::Sha1, IntegrityKind::Sha256] {
            let bytes = encode(|encoder| {
                encoder.integrity(kind, &key()).integrity(kind, &other);
            });
            let message = Message::parse(&bytes).unwrap();
            assert!(message.verify_integrity(&key()));
            assert!(!message.verify_integrity(&other));
        }
    }

    #[test]
    fn a_sha256_has_32_bytes_and_one_that_was_cut_is_malformed() {
        let covered = encode(|_| {});
        for len in 0..=40 {
            let mac = integrity::compute(IntegrityKind::Sha256, &key(), &covered);
            let bytes = encode(|encoder| {
                let mut value = mac.to_vec();
                value.resize(len, 0);
                encoder.attribute(AttributeType::MESSAGE_INTEGRITY_SHA256, &value);
            });
            match len {
                32 => assert!(Message::parse(&bytes).unwrap().verify_integrity(&key())),
                _ => assert_eq!(parse_error(&bytes), ParseError::BadIntegrity, "{len} bytes"),
            }
        }
    }

    #[test]
    fn a_sha1_has_20_bytes() {
        for len in [0, 16, 19, 21, 24, 32] {
            let bytes = encode(|e| {
                e.attribute(AttributeType::MESSAGE_INTEGRITY, &vec![0; len]);
            });
            assert_eq!(parse_error(&bytes), ParseError::BadIntegrity, "{len} bytes");
        }
    }

    #[test]
    fn a_fingerprint_is_last_has_4_bytes_and_matches() {
        let good = encode(|encoder| {
            encoder.fingerprint();
        });
        assert!(Message::parse(&good).unwrap().has_fingerprint());
        let mut wrong = good.clone();
        *wrong.last_mut().unwrap() ^= 1;
        assert_eq!(parse_error(&wrong), ParseError::BadFingerprint);
        let followed = encode(|encoder| {
            encoder.fingerprint().u32(AttributeType::LIFETIME, 1);
        });
        assert_eq!(parse_error(&followed), ParseError::BadIntegrity);
        let short = encode(|encoder| {
            encoder.attribute(AttributeType::FINGERPRINT, &[0; 3]);
        });
        assert_eq!(parse_error(&short), ParseError::BadIntegrity);
    }

    #[test]
    fn unknown_required_attributes_are_listed_once_and_at_most_eight() {
        let bytes = encode(|encoder| {
            encoder.u32(AttributeType(0x8FFF), 0).u32(AttributeType::LIFETIME, 0);
            for kind in [0x7000_u16, 0x7000, 0x7001, 0x7002, 0x7003, 0x7004, 0x7005, 0x7006, 0x7007, 0x7008] {
                encoder.u32(AttributeType(kind), 0);
            }
        });
        let message = Message::parse(&bytes).unwrap();
        let unknown = message.unknown_required(|kind| kind == AttributeType::LIFETIME);
        assert_eq!(
            unknown.types(),
            [0x7000, 0x7001, 0x7002, 0x7003, 0x7004, 0x7005, 0x7006, 0x7007].map(AttributeType)
        );
        assert!(message.unknown_required(|_| true).is_empty());
    }
}
