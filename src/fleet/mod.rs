//! The nodes of a fleet, asked by one of them or by an operator's command: over HTTP, each with a deadline, answers of a bounded length,
//! none of them believed further than it could be true.

mod all;
mod exchange;
mod members;
mod names;
mod probe;
mod report;
mod srv;
mod stats;

pub use srv::SrvError;
pub use stats::{Asked, FleetStats, Nodes};

pub(crate) use all::{Answered, ask_all, told_apart};
pub(crate) use exchange::{Asker, Credentials, NodeError};
pub(crate) use members::{Known, Members, members};
#[cfg(test)]
pub(crate) use probe::ProbeFailure;
pub(crate) use probe::{Heard, Probed, probe};
pub(crate) use report::{ClientAddress, Named, Names, NodeReport, Samples};

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
