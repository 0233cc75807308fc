//! What may follow the addresses of version 2 (section 2.2): skipped, but for the checksum and the server name.

use super::crc32c::Crc32c;
use super::header::HeaderError;

/// PP2_TYPE_AUTHORITY
const AUTHORITY: u8 = 2;
/// The longest name that DNS has, and more than any of ours.
const NAME_MAX: usize = 255;
/// PP2_TYPE_CRC32C
const CHECKSUM: u8 = 3;
const CHECKSUM_LEN: usize = 4;

/// Walks what follows from `at` to the end of the header, and checks the checksum if there is one. Returns the server name. What is none
/// is as good as none: the client has chosen it, not the proxy.
pub(super) fn read(header: &[u8], at: usize) -> Result<Option<Box<str>>, HeaderError> {
    let mut at = at;
    let mut rest = header.get(at..).unwrap_or_default();
    let (mut checksum_at, mut server_name) = (None, None);
    while !rest.is_empty() {
        let cut_off = HeaderError::Malformed("what follows the addresses is cut off");
        let (&[kind, high, low], behind) = rest.split_first_chunk().ok_or(cut_off)?;
        let len = usize::from(u16::from_be_bytes([high, low]));
        let (value, behind) = behind.split_at_checked(len).ok_or(cut_off)?;
        if kind == AUTHORITY && (1..=NAME_MAX).contains(&len) && server_name.is_none() {
            server_name = std::str::from_utf8(value).ok().map(Into::into);
        }
        if kind == CHECKSUM {
            let expected: [u8; CHECKSUM_LEN] =
                value.try_into().map_err(|_| HeaderError::Malformed("the checksum has not four bytes"))?;
            if checksum_at.replace((at + 3, u32::from_be_bytes(expected))).is_some() {
                return Err(HeaderError::Malformed("there are two checksums"));
            }
        }
        at += 3 + len;
        rest = behind;
    }
    let Some((at, expected)) = checksum_at else { return Ok(server_name) };
    // It is made with zeros in its own place.
    let mut found = Crc32c::default();
    found.add(header.get(..at).unwrap_or_default());
    found.add(&[0; CHECKSUM_LEN]);
    found.add(header.get(at + CHECKSUM_LEN..).unwrap_or_default());
    if found.value() == expected { Ok(server_name) } else { Err(HeaderError::Checksum) }
}
