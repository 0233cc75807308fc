//! Follows who the nodes are, and whom they are trusted by.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::nodes::{Fleet, Node};
use crate::config::FleetConfig;
use crate::fleet::{Asker, Credentials, Known, Members, members};

/// How often DNS is asked who the nodes are.
const NAMES_AGAIN: Duration = Duration::from_secs(30);
/// How often it is read again who is to be trusted, while there is one who is not.
const TRUST_AGAIN: Duration = Duration::from_secs(60);

impl Fleet {
    /// For ever.
    pub(super) async fn follow_members(&self) {
        let mut known = Known::default();
        let mut read = None;
        loop {
            let settled = self.settled.load_full();
            let is_new = read.is_none();
            let (credentials, read_at) = match read.take() {
                Some(read) => read,
                None => {
                    self.is_doubted.store(false, Ordering::Release);
                    (Credentials::of(&settled.fleet).await, Instant::now())
                }
            };
            self.renew(&settled.fleet, &credentials, &mut known, is_new).await;
            let doubt = async {
                while !self.is_doubted.load(Ordering::Acquire) {
                    self.has_doubt.notified().await;
                }
                sleep_until(read_at + TRUST_AGAIN).await;
            };
            tokio::select! {
                () = self.has_changed.notified() => {}
                () = doubt => {}
                () = sleep(NAMES_AGAIN), if settled.has_names() => read = Some((credentials, read_at)),
            }
        }
    }

    /// Finds out who the nodes are. Those who stay are asked as before, unless it `is_new` who is trusted.
    async fn renew(&self, fleet: &FleetConfig, credentials: &Credentials, known: &mut Known, is_new: bool) {
        let Members { urls, unnamed } = members(fleet, known).await;
        let before = self.nodes.load_full();
        let nodes = urls.into_iter().map(|url| {
            let known = before.iter().find(|node| *node.asker.url() == url);
            if let Some(known) = known.filter(|_| !is_new) {
                return Arc::clone(known);
            }
            let seen = known.map(|node| Arc::clone(&node.seen)).unwrap_or_default();
            let asker = known.map(|node| node.asker.with(credentials));
            let asker = Arc::new(asker.unwrap_or_else(|| Asker::new(url, credentials)));
            Arc::new(Node { asker, is_asked: AtomicBool::new(false), seen })
        });
        self.nodes.store(Arc::new(nodes.collect()));
        self.note_networks();
        if *self.unnamed.load_full() != unnamed
            && let Some((name, problem)) = unnamed.first()
        {
            // One line, however many there are: whoever answers for the name may say something else each time.
            let names = unnamed.len();
            tracing::warn!(
                names,
                first = name,
                problem,
                "nodes of the fleet are not found; status --all names all of them"
            );
        }
        self.unnamed.store(Arc::new(unnamed));
    }
}
