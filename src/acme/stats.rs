//! What others see of the certificates that the server gets for itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;

use super::kind::Kind;

/// Written by the keeper, read by the endpoints.
#[derive(Debug, Default)]
pub(crate) struct AcmeStats {
    issued: AtomicU64,
    failed: [AtomicU64; Kind::ALL.len()],
    names: ArcSwap<Vec<NameFacts>>,
}

/// How it stands with the certificate of one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NameFacts {
    pub(crate) name: String,
    /// Whether there is one that can be used.
    pub(crate) has_certificate: bool,
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

    pub(super) fn set_names(&self, names: Vec<NameFacts>) {
        self.names.store(Arc::new(names));
    }

    /// How it stands with each name; none where nothing is had by ACME.
    pub(crate) fn names(&self) -> Arc<Vec<NameFacts>> {
        self.names.load_full()
    }
}
