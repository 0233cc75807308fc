//! The nodes of a fleet, asked by one of them or by an operator's command: over HTTP, each with a deadline, answers of a bounded length,
//! none of them believed further than it could be true.

mod exchange;
mod members;
mod names;
mod report;
mod srv;

pub(crate) use exchange::{Asker, NodeError};
pub(crate) use members::{Members, members};
pub(crate) use report::{ClientAddress, NodeReport, Samples};
