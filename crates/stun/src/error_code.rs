//! ERROR-CODE values and their default reason phrases (RFC 8489 section 14.8, RFC 8656 section 19).

use std::fmt;

/// A STUN error code, 300 to 699.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ErrorCode(u16);

macro_rules! error_codes {
    ($($(#[$doc:meta])* $name:ident = $value:literal, $phrase:literal;)*) => {
        impl ErrorCode {
            $($(#[$doc])* pub const $name: Self = Self($value);)*

            /// The registered reason phrase.
            pub fn phrase(self) -> &'static str {
                match self {
                    $(Self::$name => $phrase,)*
                    _ => "Error",
                }
            }
        }
    };
}

error_codes! {
    /// 300 Try Alternate.
    TRY_ALTERNATE = 300, "Try Alternate";
    /// 400 Bad Request.
    BAD_REQUEST = 400, "Bad Request";
    /// 401 Unauthenticated.
    UNAUTHENTICATED = 401, "Unauthorized";
    /// 403 Forbidden.
    FORBIDDEN = 403, "Forbidden";
    /// 405 Mobility Forbidden.
    MOBILITY_FORBIDDEN = 405, "Mobility Forbidden";
    /// 420 Unknown Attribute.
    UNKNOWN_ATTRIBUTE = 420, "Unknown Attribute";
    /// 437 Allocation Mismatch.
    ALLOCATION_MISMATCH = 437, "Allocation Mismatch";
    /// 438 Stale Nonce.
    STALE_NONCE = 438, "Stale Nonce";
    /// 440 Address Family not Supported.
    ADDRESS_FAMILY_NOT_SUPPORTED = 440, "Address Family not Supported";
    /// 441 Wrong Credentials.
    WRONG_CREDENTIALS = 441, "Wrong Credentials";
    /// 442 Unsupported Transport Protocol.
    UNSUPPORTED_TRANSPORT = 442, "Unsupported Transport Protocol";
    /// 443 Peer Address Family Mismatch.
    PEER_FAMILY_MISMATCH = 443, "Peer Address Family Mismatch";
    /// 446 Connection Already Exists.
    CONNECTION_ALREADY_EXISTS = 446, "Connection Already Exists";
    /// 447 Connection Timeout or Failure.
    CONNECTION_FAILURE = 447, "Connection Timeout or Failure";
    /// 486 Allocation Quota Reached.
    QUOTA_REACHED = 486, "Allocation Quota Reached";
    /// 500 Server Error.
    SERVER_ERROR = 500, "Server Error";
    /// 508 Insufficient Capacity.
    INSUFFICIENT_CAPACITY = 508, "Insufficient Capacity";
}

impl ErrorCode {
    /// An error code of 300 to 699, the range of the wire format.
    pub fn new(value: u16) -> Option<Self> {
        (300..700).contains(&value).then_some(Self(value))
    }

    /// The number.
    pub fn value(self) -> u16 {
        self.0
    }

    /// Decodes an ERROR-CODE value into code and reason phrase bytes.
    pub fn decode(value: &[u8]) -> Option<(Self, &[u8])> {
        let (&[_, _, class, number], phrase) = value.split_first_chunk::<4>()?;
        let (class, number) = (u16::from(class & 0x07), u16::from(number));
        if number > 99 {
            return None;
        }
        Some((Self::new(class * 100 + number)?, phrase))
    }

    /// The four leading bytes of an ERROR-CODE value.
    pub fn to_wire(self) -> [u8; 4] {
        [0, 0, (self.0 / 100) as u8, (self.0 % 100) as u8]
    }
}

impl fmt::Debug for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.0, self.phrase())
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_of_300_to_699_survives_the_round_trip_and_no_other_can_be_made() {
        for value in 0..=1000 {
            let Some(code) = ErrorCode::new(value) else {
                assert!(!(300..700).contains(&value));
                continue;
            };
            assert!((300..700).contains(&value));
            assert_eq!(ErrorCode::decode(&code.to_wire()), Some((code, &b""[..])));
        }
    }

    #[test]
    fn the_reason_phrase_is_what_follows_the_number() {
        let (code, phrase) = ErrorCode::decode(b"\0\0\x04\x26Stale Nonce").unwrap();
        assert_eq!(code, ErrorCode::STALE_NONCE);
        assert_eq!(phrase, ErrorCode::STALE_NONCE.phrase().as_bytes());
    }

    #[test]
    fn reserved_bits_are_ignored() {
        assert_eq!(ErrorCode::decode(&[0xFF, 0xFF, 0xFC, 1]).map(|(code, _)| code), Some(ErrorCode::UNAUTHENTICATED));
    }

    #[test]
    fn a_short_value_a_class_or_a_number_out_of_range_is_refused() {
        for value in [&b""[..], b"\0\0\x04", b"\0\0\x02\0", b"\0\0\x07\0", b"\0\0\x04\x64"] {
            assert_eq!(ErrorCode::decode(value), None, "{value:?}");
        }
    }
}
