//! Carries out what the credentials API is asked to revoke: many at once, so that the workers go over their allocations, and the disk
//! is written to, a few times a second at most.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::sleep;

use super::revocations::{Kept, Revoker};
use super::revoked_entries::UsedUp;
use super::workers::Workers;
use crate::auth::{Revocation, Revocations};
use crate::credentials::{NotRevoked, RevokeOrder};
use crate::store::Asker;

/// Between one pass over all allocations and the next.
const REST: Duration = Duration::from_millis(200);
/// Without a store, what is revoked when no more is for the API: the rest is for the operator, who has more at stake. With one, entries
/// that the API has asked for have as much room.
const REVOKED_MAX: usize = Revocations::MAX / 2;
/// The same of one realm, whose keys do not take all of it from the others.
const OF_REALM_MAX: usize = REVOKED_MAX / 4 * 3;

/// Carries orders out for ever.
pub(super) async fn carry_out(mut orders: mpsc::Receiver<RevokeOrder>, revoker: Arc<Revoker>, workers: Workers) {
    while let Some(first) = orders.recv().await {
        let mut next = Some(first);
        let mut done = Vec::new();
        while let Some(RevokeOrder { revocation, done: answer }) = next.take() {
            match revoke(&revoker, &revocation) {
                Ok(()) => {
                    tracing::debug!(whose = ?revocation.whose, realm = ?revocation.realm, "revoked by the credentials API");
                    done.push((revocation, answer));
                }
                Err(why) => drop(answer.send(Err(why))),
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

/// Revokes it, if there is room for one more, in all and in its realm.
fn revoke(revoker: &Revoker, revocation: &Revocation) -> Result<(), NotRevoked> {
    match &revoker.shared {
        Some(shared) => shared.make_room_for_api(revocation).map_err(|used| match used {
            UsedUp::OfAll => NotRevoked::Full,
            UsedUp::OfRealm => NotRevoked::RealmFull,
        })?,
        None => match revoker.revocations.asked_for_len(revocation.realm.as_deref()) {
            (REVOKED_MAX.., _) => return Err(NotRevoked::Full),
            (_, OF_REALM_MAX..) => return Err(NotRevoked::RealmFull),
            _ => {}
        },
    }
    revoker.revoke(revocation, Asker::CredentialsApi).map(drop).map_err(|_| NotRevoked::Full)
}
