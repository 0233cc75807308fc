//! The nodes of a fleet, asked by one of them or by an operator's command: over HTTP, each with a deadline, answers of a bounded length,
//! none of them believed further than it could be true.

mod exchange;
mod members;
mod names;
mod report;
mod srv;

pub use srv::SrvError;

pub(crate) use exchange::{Asker, NodeError};
pub(crate) use members::{Members, members};
pub(crate) use report::{ClientAddress, NodeReport, Samples};

/// Hosts and ports in an answer of DNS to a question for SRV records.
///
/// # Errors
/// It is no such answer.
pub fn targets_in(answer: &[u8]) -> Result<Vec<(String, u16)>, SrvError> {
    Ok(srv::read(answer)?.into_iter().map(|target| (target.host, target.port)).collect())
}

/// Whether what a node answers is taken for what it says of itself.
pub fn is_report(body: &[u8]) -> bool {
    NodeReport::read(body).is_ok()
}
