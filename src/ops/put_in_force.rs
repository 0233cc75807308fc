//! Puts in force what the store says is revoked: many at once, so that the workers go over their allocations a few times a second at most.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::revocations::Revoker;
use super::revoked_entries::Change;
use super::shared_revocations::SharedRevocations;
use super::workers::Workers;
use crate::store::RevocationEvent;

/// Between one pass over all allocations and the next.
const REST: Duration = Duration::from_millis(200);
/// How often what could not be put into the store is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);
/// How often what the store has is written into the state directory, all of it, if it has changed.
const KEEP_INTERVAL: Duration = Duration::from_secs(3);

/// For ever.
pub(super) async fn run(
    shared: Arc<SharedRevocations>,
    mut events: mpsc::Receiver<RevocationEvent>,
    revoker: Arc<Revoker>,
    workers: Workers,
) {
    let mut retry = interval(RETRY_INTERVAL);
    let mut keep = interval(KEEP_INTERVAL);
    keep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let event = tokio::select! {
            event = events.recv() => event,
            _ = retry.tick() => {
                shared.publish_again().await;
                shared.look_again();
                continue;
            }
            _ = keep.tick() => {
                revoker.keep_stored().await;
                continue;
            }
        };
        let Some(first) = event else { return };
        let mut change = Change::Nothing;
        let mut next = Some(first);
        while let Some(event) = next.take() {
            change = change.max(shared.take(event).await);
            next = events.try_recv().ok();
        }
        match change {
            Change::Nothing => {
                shared.tell();
                continue;
            }
            Change::All => shared.put_in_force(),
            Change::Other | Change::Revoked => shared.tell(),
        }
        revoker.stored_has_changed();
        tracing::debug!(revoked = shared.known().len(), "what the store says is revoked is in force");
        if change >= Change::Revoked {
            workers.end_revoked().await;
            sleep(REST).await;
        }
    }
}
