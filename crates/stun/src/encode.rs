//! The encoder: appends one message to a reused buffer. Padding is always zero (CVE-2020-4067).

use std::net::SocketAddr;

use super::address;
use super::attribute::AttributeType;
use super::error_code::ErrorCode;
use super::fingerprint::{self, FINGERPRINT_LEN};
use super::header::{Class, HEADER_LEN, MAGIC_COOKIE, Method, TransactionId, message_type};
use super::integrity::{self, IntegrityKind, Key};

/// Writes one message at the end of a buffer. The length field is right after every call.
///
/// Attributes are written in the order of the calls: [`integrity`](Self::integrity) after all that it is to cover,
/// [`fingerprint`](Self::fingerprint) last.
#[derive(Debug)]
pub struct Encoder<'b> {
    out: &'b mut Vec<u8>,
    start: usize,
    transaction_id: TransactionId,
}

impl<'b> Encoder<'b> {
    /// Starts a message after what `out` already holds.
    pub fn new(out: &'b mut Vec<u8>, class: Class, method: Method, transaction_id: TransactionId) -> Self {
        let start = out.len();
        let ([t0, t1], [c0, c1, c2, c3]) = (message_type(class, method).to_be_bytes(), MAGIC_COOKIE.to_be_bytes());
        out.extend_from_slice(&[t0, t1, 0, 0, c0, c1, c2, c3]);
        out.extend_from_slice(&transaction_id.0);
        Self { out, start, transaction_id }
    }

    /// Appends an attribute; a value that would overflow the 16-bit message length is left out.
    pub fn attribute(&mut self, kind: AttributeType, value: &[u8]) -> &mut Self {
        let padded = value.len().next_multiple_of(4);
        let body = self.out.len() - self.start - HEADER_LEN + 4 + padded;
        let (Ok(len), true) = (u16::try_from(value.len()), body <= usize::from(u16::MAX)) else {
            return self;
        };
        let ([k0, k1], [l0, l1]) = (kind.0.to_be_bytes(), len.to_be_bytes());
        self.out.extend_from_slice(&[k0, k1, l0, l1]);
        self.out.extend_from_slice(value);
        self.out.resize(self.out.len() + padded - value.len(), 0);
        self.set_length(body);
        self
    }

    /// Appends a 32-bit attribute, such as LIFETIME in seconds.
    pub fn u32(&mut self, kind: AttributeType, value: u32) -> &mut Self {
        self.attribute(kind, &value.to_be_bytes())
    }

    /// Appends an XOR address attribute.
    pub fn xor_address(&mut self, kind: AttributeType, addr: SocketAddr) -> &mut Self {
        let mut value = [0; 20];
        let len = address::encode_xor_address(addr, self.transaction_id, &mut value);
        self.attribute(kind, value.get(..len).unwrap_or_default())
    }

    /// Appends an address attribute that is not XORed, such as ALTERNATE-SERVER.
    pub fn address(&mut self, kind: AttributeType, addr: SocketAddr) -> &mut Self {
        let mut value = [0; 20];
        let len = address::encode_address(addr, &mut value);
        self.attribute(kind, value.get(..len).unwrap_or_default())
    }

    /// Appends ERROR-CODE with the registered phrase.
    pub fn error_code(&mut self, code: ErrorCode) -> &mut Self {
        let mut value = [0; 64];
        let phrase = code.phrase().as_bytes();
        let bytes = code.to_wire().into_iter().chain(phrase.iter().copied());
        let mut len = 0;
        for (to, from) in value.iter_mut().zip(bytes) {
            *to = from;
            len += 1;
        }
        self.attribute(AttributeType::ERROR_CODE, value.get(..len).unwrap_or_default())
    }

    /// Appends UNKNOWN-ATTRIBUTES, of at most eight types.
    pub fn unknown_attributes(&mut self, types: &[AttributeType]) -> &mut Self {
        let mut value = [0; 16];
        let mut len = 0;
        for (to, from) in value.chunks_exact_mut(2).zip(types) {
            to.copy_from_slice(&from.0.to_be_bytes());
            len += 2;
        }
        self.attribute(AttributeType::UNKNOWN_ATTRIBUTES, value.get(..len).unwrap_or_default())
    }

    /// Appends MESSAGE-INTEGRITY or MESSAGE-INTEGRITY-SHA256 over what precedes it.
    pub fn integrity(&mut self, kind: IntegrityKind, key: &Key) -> &mut Self {
        let len = kind.value_len();
        let covered = self.out.get(self.start..).unwrap_or_default();
        let mac = integrity::compute(kind, key, covered);
        let attribute = match kind {
            IntegrityKind::Sha1 => AttributeType::MESSAGE_INTEGRITY,
            IntegrityKind::Sha256 => AttributeType::MESSAGE_INTEGRITY_SHA256,
        };
        self.attribute(attribute, mac.get(..len).unwrap_or_default())
    }

    /// Appends FINGERPRINT, which is the last attribute.
    pub fn fingerprint(&mut self) -> &mut Self {
        let covered = self.out.get(self.start..).unwrap_or_default();
        let length = (covered.len() + FINGERPRINT_LEN).saturating_sub(HEADER_LEN);
        let value = fingerprint::compute(covered, length as u16);
        self.u32(AttributeType::FINGERPRINT, value)
    }

    /// The length of the message so far, header included.
    pub fn message_len(&self) -> usize {
        self.out.len() - self.start
    }

    fn set_length(&mut self, body: usize) {
        if let Some(field) = self.out.get_mut(self.start + 2..self.start + 4) {
            field.copy_from_slice(&(body as u16).to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Message;

    const ID: TransactionId = TransactionId([7; 12]);

    fn binding(out: &mut Vec<u8>) -> Encoder<'_> {
        Encoder::new(out, Class::Success, Method::BINDING, ID)
    }

    #[test]
    fn a_message_is_appended_behind_what_the_buffer_holds_and_counts_only_itself() {
        let mut out = b"before".to_vec();
        binding(&mut out).u32(AttributeType::LIFETIME, 600).fingerprint();
        assert!(out.starts_with(b"before"));
        let message = Message::parse(&out[6..]).unwrap();
        assert!(message.has_fingerprint());
        assert_eq!(message.get(AttributeType::LIFETIME), Some(&600_u32.to_be_bytes()[..]));
    }

    #[test]
    fn padding_is_zero_whatever_the_buffer_held_before() {
        for len in 0..9 {
            let mut out = vec![0xFF; 64];
            out.clear();
            binding(&mut out).attribute(AttributeType::SOFTWARE, &vec![0xEE; len]);
            assert_eq!(out.len() % 4, 0);
            assert!(out[HEADER_LEN + 4 + len..].iter().all(|&byte| byte == 0), "{len} bytes");
            assert_eq!(Message::parse(&out).unwrap().get(AttributeType::SOFTWARE), Some(&vec![0xEE; len][..]));
        }
    }

    #[test]
    fn what_does_not_fit_the_length_field_is_left_out_and_the_message_stays_whole() {
        let mut out = Vec::new();
        let longest = usize::from(u16::MAX) - 3 - 4;
        binding(&mut out).attribute(AttributeType::DATA, &vec![1; longest + 1]).u32(AttributeType::LIFETIME, 1);
        let message = Message::parse(&out).unwrap();
        assert_eq!(message.get(AttributeType::DATA), None);
        assert!(message.get(AttributeType::LIFETIME).is_some());

        let mut out = Vec::new();
        binding(&mut out).attribute(AttributeType::DATA, &vec![1; longest]).u32(AttributeType::LIFETIME, 1);
        let message = Message::parse(&out).unwrap();
        assert_eq!(message.get(AttributeType::DATA).map(<[u8]>::len), Some(longest));
        assert_eq!(message.get(AttributeType::LIFETIME), None);
    }

    #[test]
    fn integrity_covers_what_precedes_it_and_fingerprint_is_not_covered() {
        let key = Key::short_term(b"key");
        for kind in [IntegrityKind::Sha1, IntegrityKind::Sha256] {
            let mut out = Vec::new();
            binding(&mut out).u32(AttributeType::LIFETIME, 1).integrity(kind, &key).fingerprint();
            let message = Message::parse(&out).unwrap();
            assert_eq!(message.integrity(), Some(kind));
            assert!(message.verify_integrity(&key));
            out.truncate(out.len() - FINGERPRINT_LEN);
            let length = (out.len() - HEADER_LEN) as u16;
            out[2..4].copy_from_slice(&length.to_be_bytes());
            assert!(Message::parse(&out).unwrap().verify_integrity(&key));
        }
    }

    #[test]
    fn unknown_attributes_lists_at_most_eight() {
        let mut out = Vec::new();
        binding(&mut out).unknown_attributes(&[AttributeType::SOFTWARE; 9]).unknown_attributes(&[]);
        let message = Message::parse(&out).unwrap();
        let lengths: Vec<_> = message.attributes().map(|attribute| attribute.value.len()).collect();
        assert_eq!(lengths, [16, 0]);
    }

    #[test]
    fn every_error_code_carries_its_whole_phrase() {
        for value in 300..700 {
            let code = ErrorCode::new(value).unwrap();
            let mut out = Vec::new();
            binding(&mut out).error_code(code);
            let message = Message::parse(&out).unwrap();
            let decoded = ErrorCode::decode(message.get(AttributeType::ERROR_CODE).unwrap()).unwrap();
            assert_eq!(decoded, (code, code.phrase().as_bytes()));
        }
    }

    #[test]
    fn an_address_that_is_not_masked_reads_as_it_is() {
        let addr = "192.0.2.1:3478".parse().unwrap();
        let mut out = Vec::new();
        binding(&mut out).address(AttributeType::ALTERNATE_SERVER, addr);
        let message = Message::parse(&out).unwrap();
        let value = message.get(AttributeType::ALTERNATE_SERVER).unwrap();
        assert_eq!(address::decode_address(value), Some(addr));
    }
}
