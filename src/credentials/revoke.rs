//! What is to be revoked, on its way to who carries that out.

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Duration, timeout};

use crate::auth::Revocation;

/// Orders that wait; more are refused.
const WAITING_MAX: usize = 64;
/// How long one may take: a pass over all allocations, and a disk.
const LIMIT: Duration = Duration::from_secs(6);

/// An order.
pub(crate) struct RevokeOrder {
    pub(crate) revocation: Revocation,
    /// Gets what is wrong, if something is.
    pub(crate) done: oneshot::Sender<Result<(), NotRevoked>>,
}

/// Why something is not revoked, or not for long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotRevoked {
    #[error(
        "as much is revoked as applications may have revoked; try again when some of it has expired, or undo some (turnstone revoke --undo)"
    )]
    Full,
    #[error(
        "as much of this realm is revoked as applications may have revoked of one; try again when some of it has expired, or undo some \
         (turnstone revoke --undo)"
    )]
    RealmFull,
    #[error("it is revoked, but its sessions have not all ended yet")]
    Unanswered,
    #[error("it is revoked until the server restarts, but could not be kept over that; see its log")]
    NotKept,
    #[error(
        "it is revoked on this server, and on the others as soon as the store takes it: turnstone store status says what is wrong there"
    )]
    NotShared,
    #[error("too many others wait to be revoked, or the server is stopping; try again")]
    Busy,
}

/// Gives orders.
pub(super) struct Revoker(mpsc::Sender<RevokeOrder>);

impl Revoker {
    pub(super) fn new() -> (Self, mpsc::Receiver<RevokeOrder>) {
        let (send, orders) = mpsc::channel(WAITING_MAX);
        (Self(send), orders)
    }

    /// Has something revoked, and waits until it is.
    pub(super) async fn revoke(&self, revocation: Revocation) -> Result<(), NotRevoked> {
        let (done, answer) = oneshot::channel();
        match self.0.try_send(RevokeOrder { revocation, done }) {
            Ok(()) => match timeout(LIMIT, answer).await {
                Ok(answered) => answered.unwrap_or(Err(NotRevoked::Busy)),
                Err(_) => Err(NotRevoked::Unanswered),
            },
            Err(_) => Err(NotRevoked::Busy),
        }
    }
}
