//! STUN wire format (RFC 8489): a strict borrowed parser and an encoder, without time, I/O or heap while parsing.

mod address;
mod attribute;
mod encode;
mod error_code;
mod fingerprint;
mod header;
mod integrity;
mod message;

pub use address::{decode_address, decode_xor_address, encode_xor_address};
pub use attribute::{Attribute, AttributeType, PasswordAlgorithm};
pub use encode::Encoder;
pub use error_code::ErrorCode;
pub use header::{Class, HEADER_LEN, MAGIC_COOKIE, Method, TransactionId};
pub use integrity::{IntegrityKind, Key, userhash};
pub use message::{Message, ParseError, UnknownAttributes};
