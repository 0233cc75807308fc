//! Carries out what the credentials API is asked to revoke: many at once, so that the workers go over their allocations, and the disk
//! is written to, a few times a second at most.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::sleep;

use super::revocations::{Kept, Revoker};
use super::workers::Workers;
use crate::auth::{Revocation, Revocations};
use crate::credentials::{NotRevoked, RevokeOrder};

/// Between one pass over all allocations and the next.
const REST: Duration = Duration::from_millis(200);
/// What is revoked when no more is for the API: the rest is for the operator, who has more at stake.
const REVOKED_MAX: usize = Revocations::MAX / 2;
/// The same of one realm, whose keys do not take all of it from the others.
const OF_REALM_MAX: usize = REVOKED_MAX / 4 * 3;

/// Carries orders out for ever.
pub(super) async fn carry_out(mut orders: mpsc::Receiver<RevokeOrder>, revoker: Arc<Revoker>, workers: Workers) {
    while let Some(first) = orders.recv().await {
        let mut next = Some(first);
        let mut done = Vec::new();
        while let Some(RevokeOrder { revocation, done: answer }) = next.take() {
            match has_room(&revoker, &revocation).then(|| revoker.revoke(&revocation)) {
                Some(Ok(_)) => {
                    tracing::debug!(whose = ?revocation.whose, realm = ?revocation.realm, "revoked by the credentials API");
                    done.push((revocation, answer));
                }
                None | Some(Err(_)) => drop(answer.send(Err(NotRevoked::Full))),
            }
            next = orders.try_recv().ok();
        }
        if done.is_empty() {
            continue;
        }
        tracing::info!(credentials = done.len(), "revoked by the credentials API");
        let kept = revoker.keep().await;
        let result = match (workers.end_revoked().await, kept) {
            (false, _) => Err(NotRevoked::Unanswered),
            (true, Kept::Failed(problem)) => {
                tracing::error!(%problem, "what is revoked is not kept over a restart");
                Err(NotRevoked::NotKept)
            }
            (true, Kept::Yes | Kept::Nowhere) => Ok(()),
        };
        // Whoever asked may have gone away.
        for (revocation, answer) in done {
            let is_shared = revoker.is_shared(revocation.realm.as_deref(), &revocation.whose);
            let _ = answer.send(result.and(if is_shared == Some(false) { Err(NotRevoked::NotShared) } else { Ok(()) }));
        }
        sleep(REST).await;
    }
}

/// Whether there is room for one more, in all and in its realm.
fn has_room(revoker: &Revoker, revocation: &Revocation) -> bool {
    let entries = revoker.shared.as_ref().map_or(0, |shared| shared.known().len());
    let used = revoker.revocations.len().max(entries);
    let of_realm = revoker.revocations.len_in(revocation.realm.as_deref());
    used < REVOKED_MAX && of_realm < OF_REALM_MAX
}
