//! The wire format of STUN (RFC 8489): a strict parser that borrows, an encoder, MESSAGE-INTEGRITY and FINGERPRINT.
//!
#![doc = include_str!("../README.md")]

mod address;
mod attribute;
mod encode;
mod error_code;
mod fingerprint;
mod header;
mod integrity;
mod message;

pub use address::{decode_address, decode_xor_address, encode_address, encode_xor_address};
pub use attribute::{Attribute, AttributeType, PasswordAlgorithm};
pub use encode::Encoder;
pub use error_code::ErrorCode;
pub use header::{Class, HEADER_LEN, MAGIC_COOKIE, Method, TransactionId};
pub use integrity::{IntegrityKind, Key, userhash};
pub use message::{Message, ParseError, UnknownAttributes, message_len};
