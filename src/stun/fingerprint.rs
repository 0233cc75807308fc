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
