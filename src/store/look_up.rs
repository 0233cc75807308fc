//! What a store has for one username: for who judges a credential without a server.

use std::io;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::time::timeout;

use super::connect::ConnectError;
use super::error::StoreError;
use super::handle::Store;
use super::secrets;
use super::users::StoreUsers;
use crate::auth::{KnownCredential, SharedSecret};
use crate::config::StoreConfig;

/// What a store has.
#[derive(Default)]
pub struct LookedUp {
    /// The secrets of the realm that are valid.
    pub secrets: Vec<SharedSecret>,
    /// The credential of the user, if there is one.
    pub user: Option<KnownCredential>,
}

/// Why it does not say.
#[derive(Debug, thiserror::Error)]
pub enum LookUpError {
    /// There is no connection.
    #[error("{}", .0.of("the store"))]
    Connect(#[from] ConnectError),
    /// It answers, and not what was asked for.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The system gives no means to ask.
    #[error("the store cannot be asked: {0}")]
    Runtime(#[from] io::Error),
}

/// Connects once, and asks as a server does. It only reads.
///
/// # Errors
/// Why the store does not say.
pub fn look_up(
    config: &StoreConfig,
    (realm, username): (&str, &str),
    now_unix: u64,
    limit: Duration,
) -> Result<LookedUp, LookUpError> {
    let asked = async {
        let store = Store::connected(config).await?;
        let found = secrets::read(&store, realm, now_unix).await?.secrets;
        let secrets = found.into_iter().map(|stored| stored.secret).collect();
        let user = match config.users {
            true => StoreUsers::new(store).find(realm, username).await?,
            false => None,
        };
        Ok(LookedUp { secrets, user })
    };
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async { timeout(limit, asked).await.unwrap_or(Err(ConnectError::TimedOut.into())) })
}
