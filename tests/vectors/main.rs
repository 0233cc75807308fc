//! The wire format against the published test vectors (RFC 5769, RFC 8489 appendix B.1) and against the codec of the
//! independent `stun` crate.

// A helper that cannot do its work must fail the test that called it; clippy counts only `#[test]` functions as tests.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr
)]

mod differential;
mod published;
