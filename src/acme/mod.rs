//! Certificates that the server gets for itself (ACME, RFC 8555), and renews.
//!
//! `keeper` is a task of the control runtime: it knows when each certificate is due (`schedule`), orders it (`order`, by an account:
//! `account`), keeps it in the state directory (`kept`) and says so. The protocol is the crate `instant-acme`; its requests go by `exchange`.
//! What the certificate authority asks is answered by the TLS listeners (`stream::Validations`) or over HTTP (`answers`).

mod account;
mod answers;
mod exchange;
mod failure;
mod keeper;
mod kept;
mod kind;
mod order;
mod schedule;
mod stats;

pub use exchange::retry_after;
pub use failure::read_problem;
pub use kept::{Record, Usable, usable};

pub(crate) use answers::Answers;
pub(crate) use keeper::{Keeper, Tools};
pub(crate) use kept::record_of;
pub(crate) use stats::{AcmeStats, NameFacts};

/// A number from 0 up to 1, without it.
fn fraction() -> f64 {
    let mut bytes = [0; 4];
    // Without random numbers nothing is spread, and nothing else is lost.
    let _ = getrandom::fill(&mut bytes);
    f64::from(u32::from_be_bytes(bytes)) / (f64::from(u32::MAX) + 1.0)
}
