//! FINGERPRINT (RFC 8489 section 14.7).

use super::header::HEADER_LEN;

/// Bytes a FINGERPRINT attribute takes, header included.
pub(crate) const FINGERPRINT_LEN: usize = 8;
const XOR: u32 = 0x5354_554E;

/// The value over `covered` (all bytes before the attribute), whose header length field is read as `length`.
pub(crate) fn compute(covered: &[u8], length: u16) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    if let (Some(kind), Some(rest)) = (covered.get(..2), covered.get(4..)) {
        crc.update(kind);
        crc.update(&length.to_be_bytes());
        crc.update(rest);
    }
    crc.finalize() ^ XOR
}

/// Whether `value` is the FINGERPRINT of the message bytes that precede it at `offset`.
pub(crate) fn verify(message: &[u8], offset: usize, value: &[u8]) -> bool {
    let Some(covered) = message.get(..offset) else { return false };
    let Ok(length) = u16::try_from(offset + FINGERPRINT_LEN - HEADER_LEN) else { return false };
    value == compute(covered, length).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_value_is_the_crc_of_the_message_with_its_final_length_xored() {
        // A Binding request of nothing but FINGERPRINT; the value was computed with Python's zlib.crc32.
        let message = *b"\0\x01\0\x08\x21\x12\xA4\x42abcdefghijkl";
        let value = compute(&message, 8);
        assert_eq!(value, FIXED);
        assert!(verify(&message, message.len(), &value.to_be_bytes()));
        assert!(!verify(&message, message.len(), &(value ^ 1).to_be_bytes()));
    }

    #[test]
    fn an_offset_past_the_end_or_before_the_header_does_not_verify() {
        let message = [0; 28];
        assert!(!verify(&message, 29, &[0; 4]));
        assert!(!verify(&message, 70_000, &[0; 4]));
    }

    const FIXED: u32 = 0x3F07_24BD;
}
