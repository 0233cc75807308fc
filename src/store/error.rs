//! What is wrong with the store.

use redis::RedisError;

/// Why a command has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// There is no connection, or it has broken.
    #[error("the store cannot be reached")]
    Lost,
    /// It took too long. It may be carried out all the same.
    #[error("the store has not answered in time")]
    TimedOut,
    /// The store says no.
    #[error("the store refuses: {0}")]
    Refused(String),
    /// The answer is not what was asked for.
    #[error("the store holds something else than is expected: {0}")]
    Unexpected(&'static str),
    /// It is of the kind that was asked for, and of no use.
    #[error("what the store holds cannot be used: {0}")]
    Unusable(String),
}

impl StoreError {
    /// Whether the store is not there, rather than says something that cannot be used.
    pub fn is_loss(&self) -> bool {
        matches!(self, Self::Lost | Self::TimedOut)
    }
}

/// What an error of the connection means for who has asked.
pub(super) fn told(error: &RedisError) -> StoreError {
    // Another server has its role now, or will have.
    let is_of_role = error.code().is_some_and(|code| {
        matches!(code, "READONLY" | "LOADING" | "MASTERDOWN" | "CLUSTERDOWN" | "NOAUTH" | "NOREPLICAS")
    });
    if error.is_timeout() {
        StoreError::TimedOut
    } else if error.is_io_error() || error.is_unrecoverable_error() || is_of_role {
        StoreError::Lost
    } else {
        StoreError::Refused(text_of(error))
    }
}

/// An error of the crate in one line. The store's words may quote what it was sent, but not its password.
pub(super) fn text_of(error: &RedisError) -> String {
    error.to_string().replace(char::is_control, " ")
}
