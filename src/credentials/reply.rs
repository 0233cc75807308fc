//! What comes of a request.

use super::stats::Outcome;
use crate::auth::Revocation;
use crate::http::Answer;

/// An answer, and what has to be done before it is true.
pub(super) struct Reply {
    pub(super) answer: Answer,
    pub(super) outcome: Outcome,
    /// What has to be revoked first.
    pub(super) revokes: Option<Revocation>,
}
