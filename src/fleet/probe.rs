//! The nodes as `doctor` sees them: each asked once how it is.

use std::io;
use std::time::{Duration, Instant};

use super::all::ask_all;
use super::exchange::NodeError;
use super::report::NodeReport;
use crate::config::FleetConfig;
use crate::wall_clock::unix_now;

/// What became of the question to one of them.
pub(crate) struct Probed {
    /// Where it was asked, or a name that leads to no node.
    pub(crate) url: String,
    pub(crate) answer: Result<Heard, ProbeFailure>,
}

/// What it has said.
pub(crate) struct Heard {
    pub(crate) report: NodeReport,
    pub(crate) took: Duration,
    /// By how much its clock is ahead of that of this host, if it has said what it shows.
    pub(crate) ahead_secs: Option<i64>,
}

/// Why it has not, and what to do.
pub(crate) struct ProbeFailure {
    pub(crate) problem: String,
    /// Whether it is what one of the two is configured with, and no failure that may pass.
    pub(crate) is_mistake: bool,
}

/// Asks every node of a fleet, all at once, within the limit.
///
/// # Errors
/// There is no thread or descriptor to do it with.
pub(crate) fn probe(fleet: &FleetConfig, limit: Duration) -> io::Result<Vec<Probed>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let asked = ask_all(fleet, limit, |node| async move {
        let (began, before) = (Instant::now(), unix_now());
        Ok(match node.report("", limit).await {
            Ok(report) => Ok(Heard {
                took: began.elapsed(),
                ahead_secs: report.now_unix.map(|there| ahead(there, before, unix_now())),
                report,
            }),
            Err(error) => Err(ProbeFailure::of(&error)),
        })
    });
    let answered = runtime.block_on(asked);
    // A resolver that hangs is not waited for.
    runtime.shutdown_background();
    let probed = answered.into_iter().map(|node| Probed {
        url: node.url,
        answer: node.answer.unwrap_or_else(|problem| Err(ProbeFailure { problem, is_mistake: false })),
    });
    Ok(probed.collect())
}

impl ProbeFailure {
    fn of(error: &NodeError) -> Self {
        let is_mistake = matches!(
            error,
            NodeError::Untrusted(_)
                | NodeError::NoTrust(_)
                | NodeError::InTheClear
                | NodeError::Token
                | NodeError::Elsewhere(_)
                | NodeError::Status(_)
                | NodeError::Http(_)
        );
        Self { problem: error.told(), is_mistake }
    }
}

/// How far a clock is ahead that showed this between two moments here.
fn ahead(there: u64, before: u64, after: u64) -> i64 {
    let difference = |one: u64, other: u64| i64::try_from(one.saturating_sub(other)).unwrap_or(i64::MAX);
    if there < before { -difference(before, there) } else { difference(there, after) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_ahead_by_what_no_delay_of_the_answer_explains() {
        assert_eq!(ahead(100, 98, 103), 0);
        assert_eq!(ahead(110, 98, 103), 7);
        assert_eq!(ahead(90, 98, 103), -8);
        assert_eq!(ahead(0, u64::MAX, u64::MAX), -i64::MAX);
    }
}
