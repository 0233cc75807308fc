//! DTLS (RFC 6347) under STUN and TURN (RFC 7350).
//!
//! What a stranger sends is read and answered here, without state. Only a client that has shown a cookie meets a session of OpenSSL, which
//! is there with the cargo feature `dtls`; without it, no configuration gets as far as needing one.

pub mod hello;
pub mod record;
mod wire;

#[cfg(not(feature = "dtls"))]
mod absent;
#[cfg(feature = "dtls")]
mod openssl;

#[cfg(not(feature = "dtls"))]
pub use absent::{Certificate, Context, Session};
#[cfg(feature = "dtls")]
pub use openssl::{Certificate, Context, Session};
pub use wire::{Datagrams, State, Wire};
