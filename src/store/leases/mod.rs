//! Limits on a user's allocations that hold over all servers of a fleet (`[quota] fleet-allocations-per-user`).
//!
//! A server takes a share of the limit from the store, with a term, and grants of it by itself. It renews it before the term is over, and
//! gives back what is not used. What a server that has died had is free again when the term is over.

mod call;
mod keeper;
mod node;
mod stats;
#[cfg(test)]
mod tests;
mod window;

pub use keeper::{LeaseControl, LeaseKeeper, LeaseSender, TakeAnswer, leases};
pub use stats::{LeaseStats, LeaseView};
