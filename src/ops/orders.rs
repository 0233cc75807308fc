//! What the admin API asks of the supervisor, which alone has the running server: it carries orders out between two of its own
//! tasks.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::error::ReloadError;
use super::log::LogError;
use super::self_test::TestServers;
use crate::acme::NameFacts;
use crate::auth::Revocation;
use crate::config::{Change, Problem, RevocationError, WrittenRevocation};
use crate::turn::Judgement;

/// Orders that may wait.
const WAITING_MAX: usize = 16;

/// What the supervisor is asked or told, and where its answer goes.
pub(super) enum Order {
    /// Say what only you know of the server's state.
    Overview(oneshot::Sender<Overview>),
    /// Say which configuration is in force.
    Config(oneshot::Sender<ConfigView>),
    /// Read the configuration again; only judge it if `dry_run`.
    Reload { dry_run: bool, answer: oneshot::Sender<Result<Reloaded, ReloadError>> },
    /// Drain, or change the deadline of the drain.
    Drain { deadline: DrainDeadline, answer: oneshot::Sender<Option<u64>> },
    /// Make a credential for each URL, for a self-test.
    SelfTest(oneshot::Sender<TestServers>),
    /// Say what a revocation comes to in the configuration in force.
    CheckRevocation { written: Box<WrittenRevocation>, answer: oneshot::Sender<Result<Revocation, RevocationError>> },
    /// Say what a realm is called in a [`Revocation`].
    Realm { name: String, answer: oneshot::Sender<Result<Option<Arc<str>>, RevocationError>> },
    /// Replace the log's filter.
    LogFilter { filter: String, answer: oneshot::Sender<Result<(), LogError>> },
}

/// The supervisor's end.
pub(super) type Orders = mpsc::Receiver<Order>;

/// What only the supervisor knows.
pub(super) struct Overview {
    pub(super) config_file: Option<String>,
    pub(super) log_filter: String,
    pub(super) drain: Option<DrainView>,
}

/// A drain under way.
pub(super) struct DrainView {
    pub(super) deadline_unix: Option<u64>,
}

/// The configuration in force, without secrets.
pub(super) struct ConfigView {
    pub(super) generation: u64,
    pub(super) toml: String,
}

/// What a reload changed, or would change.
pub(super) struct Reloaded {
    pub(super) generation: u64,
    pub(super) changes: Vec<Change>,
    pub(super) warnings: Vec<Problem>,
    /// What came of it for the allocations there were; unknown of a dry run.
    pub(super) judgement: Option<Judgement>,
    /// When certificates by ACME are asked for again; nothing of a dry run.
    pub(super) acme: Arc<Vec<NameFacts>>,
}

/// How long a drain may last.
#[derive(Clone, Copy)]
pub(super) enum DrainDeadline {
    Configured,
    None,
    After(Duration),
}

pub(super) fn channel() -> (mpsc::Sender<Order>, Orders) {
    mpsc::channel(WAITING_MAX)
}
