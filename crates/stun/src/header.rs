//! The 20-byte STUN header: class, method, transaction id (RFC 8489 section 5).

use std::fmt;

/// Length of the STUN header in bytes.
pub const HEADER_LEN: usize = 20;
/// The fixed value in bytes 4 to 7 of every message (RFC 8489 section 5).
pub const MAGIC_COOKIE: u32 = 0x2112_A442;

/// The class of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// A request, which is answered.
    Request,
    /// An indication, which is not.
    Indication,
    /// A success response.
    Success,
    /// An error response.
    Error,
}

/// A STUN method, 12 bits. The constants are those of STUN and TURN; any other is made by [`new`](Self::new).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Method(u16);

impl Method {
    /// Binding (RFC 8489).
    pub const BINDING: Self = Self(0x001);
    /// Allocate (RFC 8656 section 7).
    pub const ALLOCATE: Self = Self(0x003);
    /// Refresh (RFC 8656 section 8).
    pub const REFRESH: Self = Self(0x004);
    /// Send (RFC 8656 section 11).
    pub const SEND: Self = Self(0x006);
    /// Data (RFC 8656 section 11).
    pub const DATA: Self = Self(0x007);
    /// CreatePermission (RFC 8656 section 10).
    pub const CREATE_PERMISSION: Self = Self(0x008);
    /// ChannelBind (RFC 8656 section 12).
    pub const CHANNEL_BIND: Self = Self(0x009);
    /// Connect (RFC 6062 section 4.3).
    pub const CONNECT: Self = Self(0x00A);
    /// ConnectionBind (RFC 6062 section 4.3).
    pub const CONNECTION_BIND: Self = Self(0x00B);
    /// ConnectionAttempt (RFC 6062 section 4.4).
    pub const CONNECTION_ATTEMPT: Self = Self(0x00C);

    /// The 12-bit value; higher bits are dropped.
    pub const fn new(value: u16) -> Self {
        Self(value & 0x0FFF)
    }

    /// The 12-bit value.
    pub const fn value(self) -> u16 {
        self.0
    }

    /// The method's name, for logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::BINDING => "Binding",
            Self::ALLOCATE => "Allocate",
            Self::REFRESH => "Refresh",
            Self::SEND => "Send",
            Self::DATA => "Data",
            Self::CREATE_PERMISSION => "CreatePermission",
            Self::CHANNEL_BIND => "ChannelBind",
            Self::CONNECT => "Connect",
            Self::CONNECTION_BIND => "ConnectionBind",
            Self::CONNECTION_ATTEMPT => "ConnectionAttempt",
            _ => "unknown",
        }
    }
}

impl fmt::Debug for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({:#05x})", self.name(), self.0)
    }
}

/// The 96-bit transaction id.
///
/// A client draws it at random, by a cryptographic generator: whoever can guess it can forge the response
/// (RFC 8489 section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TransactionId(pub [u8; 12]);

/// Puts class and method together as in RFC 8489 figure 3.
pub(crate) fn message_type(class: Class, method: Method) -> u16 {
    let m = method.value();
    let bits = (m & 0x000F) | ((m & 0x0070) << 1) | ((m & 0x0F80) << 2);
    bits | match class {
        Class::Request => 0x0000,
        Class::Indication => 0x0010,
        Class::Success => 0x0100,
        Class::Error => 0x0110,
    }
}

/// Takes class and method apart; the two top bits have been checked to be zero.
pub(crate) fn split_type(value: u16) -> (Class, Method) {
    let class = match value & 0x0110 {
        0x0000 => Class::Request,
        0x0010 => Class::Indication,
        0x0100 => Class::Success,
        _ => Class::Error,
    };
    let method = (value & 0x000F) | ((value >> 1) & 0x0070) | ((value >> 2) & 0x0F80);
    (class, Method::new(method))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_and_method_survives_the_round_trip() {
        for value in 0..0x1000 {
            for class in [Class::Request, Class::Indication, Class::Success, Class::Error] {
                let wire = message_type(class, Method::new(value));
                assert_eq!(wire & 0xC000, 0);
                assert_eq!(split_type(wire), (class, Method::new(value)));
            }
        }
    }
}
