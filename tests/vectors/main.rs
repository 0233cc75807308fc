//! The wire format against the published test vectors (RFC 5769, RFC 8489 appendix B.1) and against the codec of the
//! independent `stun` crate.

mod differential;
mod published;
