//! What others see of the certificates that the server gets for itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::kind::Kind;

/// Written by the keeper, read by the endpoints.
#[derive(Debug, Default)]
pub(crate) struct AcmeStats {
    issued: AtomicU64,
    failed: [AtomicU64; Kind::ALL.len()],
    names: ArcSwap<Vec<NameFacts>>,
    /// Of the configurations that were read, how many these take into account.
    planned: watch::Sender<u64>,
}

/// How it stands with the certificate of one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NameFacts {
    pub(crate) name: String,
    /// Whether there is one that can be used.
    pub(crate) has_certificate: bool,
    /// Until when that is valid.
    pub(crate) not_after_unix: Option<u64>,
    /// When it is asked for again.
    pub(crate) next_unix: u64,
    /// Attempts that have failed since the last one that did not.
    pub(crate) failures: u32,
    /// Why the last one has.
    pub(crate) failure: Option<String>,
}

impl AcmeStats {
    pub(super) fn count_issued(&self) {
        self.issued.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_failure(&self, kind: Kind) {
        if let Some(count) = self.failed.get(kind as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Attempts by what came of them.
    pub(crate) fn attempts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let failed =
            Kind::ALL.iter().zip(&self.failed).map(|(kind, count)| (kind.label(), count.load(Ordering::Relaxed)));
        std::iter::once(("issued", self.issued.load(Ordering::Relaxed))).chain(failed)
    }

    pub(super) fn set_names(&self, names: Vec<NameFacts>, reloads: u64) {
        self.names.store(Arc::new(names));
        self.planned.send_replace(reloads);
    }

    /// Waits until what is shown takes so many reloads into account.
    pub(crate) async fn planned(&self, reloads: u64) {
        // What is waited for is in here.
        let _ = self.planned.subscribe().wait_for(|planned| *planned >= reloads).await;
    }

    /// How it stands with each name; none where nothing is had by ACME.
    pub(crate) fn names(&self) -> Arc<Vec<NameFacts>> {
        self.names.load_full()
    }
}
