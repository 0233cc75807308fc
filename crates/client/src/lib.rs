//! A TURN client (RFC 8656) that load generator, probe and doctor share.
//!
//! It judges servers from outside: it shares the wire format with ours, and none of its ways. A part of Turnstone, for its own use:
//! it is not published, and changes with the program.

mod client;
pub mod data;
mod request;
pub mod tls;
mod words;

pub use client::{Client, ClientError, Credential, Event};
pub use request::{Answer, Request, Ticket};
pub use words::{io_words, unix_words};
