//! Who is authenticated.

use std::sync::Arc;

use crate::user::User;

/// Who sent an authenticated request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The whole username, as in USERNAME.
    pub username: Arc<str>,
    /// What quotas and bandwidth count on: the user part of a time-limited username, else the username. A time-limited
    /// username without a user part counts as a whole, so that strangers do not share one quota.
    pub user: User,
    /// When the credential expires (seconds since the Unix epoch); `None` for a static user.
    pub expires_unix: Option<u64>,
}
