//! Puts in force what the store says is revoked: many at once, so that the workers go over their allocations a few times a second at most.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{interval, sleep};

use super::revocations::{Kept, Revoker};
use super::shared_revocations::SharedRevocations;
use super::workers::Workers;
use crate::store::RevocationEvent;

/// Between one pass over all allocations and the next.
const REST: Duration = Duration::from_millis(200);
/// How often what could not be put into the store is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);

/// For ever.
pub(super) async fn run(
    shared: Arc<SharedRevocations>,
    mut events: mpsc::Receiver<RevocationEvent>,
    revoker: Arc<Revoker>,
    workers: Workers,
) {
    let mut retry = interval(RETRY_INTERVAL);
    loop {
        let event = tokio::select! {
            event = events.recv() => event,
            _ = retry.tick() => {
                shared.publish().await;
                shared.look_again();
                continue;
            }
        };
        let Some(first) = event else { return };
        let before = shared.members().clone();
        let mut next = Some(first);
        while let Some(event) = next.take() {
            shared.take(event).await;
            next = events.try_recv().ok();
        }
        if *shared.members() == before && !before.is_empty() {
            continue;
        }
        shared.put_in_force();
        let revoked = shared.members().len();
        tracing::debug!(revoked, "what the store says is revoked is in force");
        if let Kept::Failed(problem) = revoker.keep().await {
            tracing::error!(%problem, "what the store has revoked is forgotten at a restart without it");
        }
        workers.end_revoked().await;
        sleep(REST).await;
    }
}
