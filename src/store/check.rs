//! Whether a store does what a server will ask of it: for who judges before it is asked.

use std::time::{Duration, Instant};

use redis::{RedisError, Script, Value, cmd};
use tokio::runtime::Builder;
use tokio::time::timeout;

use super::connect::{ConnectError, Connection, connect};
use super::error::{StoreError, text_of};
use super::follow::{Wanted, nonce_text_in};
use super::handle::Store;
use super::revocations;
use super::secrets;
use super::stats::clock_problem;
use super::users;
use crate::config::{StoreConfig, StoredSecrets};
use crate::wall_clock::unix_now;

/// Why a store is of no use.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// There is no connection.
    #[error("{0}")]
    Connect(#[from] ConnectError),
    /// It answers, and does not do what it is asked.
    #[error("it refuses what servers ask of it: {0}")]
    Refused(String),
}

impl From<StoreError> for ProbeError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Lost | StoreError::TimedOut => ConnectError::TimedOut.into(),
            StoreError::Refused(why) => Self::Refused(why),
            other => Self::Refused(other.to_string()),
        }
    }
}

/// What a store has come to.
pub struct Probed {
    /// How long it took to answer.
    pub took: Duration,
    /// That its clock and this host's differ.
    pub differing_clocks: Option<String>,
    /// The realms of which it has no secret, and no user as far as that can be said.
    pub empty: Vec<String>,
    /// What it holds that no server can use.
    pub unusable: Vec<String>,
    /// The secrets that are valid.
    pub secrets: StoredSecrets,
}

impl Probed {
    /// Something that it holds is of no use; whatever else is wrong is why there is no more to be found out.
    fn note(&mut self, error: StoreError, is_used: bool) -> Result<(), ProbeError> {
        match error {
            StoreError::Unexpected(_) | StoreError::Unusable(_) if !is_used => {}
            StoreError::Unexpected(_) | StoreError::Unusable(_) => self.unusable.push(error.to_string()),
            other => return Err(other.into()),
        }
        Ok(())
    }
}

/// Connects once, and has the store do what the servers of this configuration ask of it: reads are of their own keys, writes are to a key that is
/// nobody's and gone at once.
///
/// # Errors
/// Why it is of no use.
pub fn probe(config: &StoreConfig, wanted: &Wanted, limit: Duration) -> Result<Probed, ProbeError> {
    let asked = async {
        let mut connection = connect(config, config.password.as_ref(), config.timeout).await?;
        let started = Instant::now();
        cmd("PING").query_async::<Value>(&mut connection).await.map_err(refused)?;
        let took = started.elapsed();
        let store_unix = try_writes(config, &mut connection).await.map_err(refused)?;
        let differing_clocks = clock_problem(store_unix, unix_now());
        let mut probed =
            Probed { took, differing_clocks, empty: Vec::new(), unusable: Vec::new(), secrets: StoredSecrets::new() };
        try_reads(&Store::of(config, connection), wanted, &mut probed).await?;
        Ok(probed)
    };
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| ConnectError::from(RedisError::from(error)))?;
    runtime.block_on(async { timeout(limit, asked).await.unwrap_or(Err(ConnectError::TimedOut.into())) })
}

fn refused(error: RedisError) -> ProbeError {
    match error.is_timeout() || error.is_io_error() || error.is_unrecoverable_error() {
        true => ConnectError::from(error).into(),
        false => ProbeError::Refused(text_of(&error)),
    }
}

/// Has it carry out each command once. Returns what its clock says, in Unix seconds.
async fn try_writes(config: &StoreConfig, connection: &mut Connection) -> Result<u64, RedisError> {
    let script = Script::new(include_str!("check.lua"));
    let mut random = [0; 8];
    // Without randomness, two who judge at once may meet.
    let _ = getrandom::fill(&mut random);
    let scratch = format!("{}:doctor:{:016x}", config.prefix, u64::from_le_bytes(random));
    let store_unix = script.key(&scratch).invoke_async(connection).await?;
    // A store that is full says so to a script whose first write would take memory.
    let full = Script::new("redis.call('HSET', KEYS[1], 'a', 'b') return redis.call('DEL', KEYS[1])");
    full.key(&scratch).invoke_async::<Value>(connection).await?;
    Ok(store_unix)
}

/// Reads what servers read.
async fn try_reads(store: &Store, asked: &Wanted, probed: &mut Probed) -> Result<(), ProbeError> {
    revocations::try_to_follow(store).await?;
    if let Err(error) = nonce_text_in(store).await {
        probed.note(error, asked.nonce_key)?;
    }
    for realm in &asked.realms {
        let [_, size, all] = secrets::questions(store.config(), realm).1;
        store.command(&size).await?;
        let mut has_secrets = true;
        match secrets::read(store, realm, unix_now()).await {
            Ok(found) => {
                has_secrets = !found.secrets.is_empty();
                let problem = found.problem();
                if !problem.is_empty() {
                    probed.unusable.push(format!("secrets of {realm:?}, {problem}"));
                }
                let secrets = found.secrets.into_iter().map(|stored| stored.secret);
                probed.secrets.insert(realm.clone(), secrets.collect());
                // Of one that has none, more is not asked than how many.
                if !has_secrets {
                    store.command(&all).await?;
                }
            }
            Err(error) => probed.note(error, true)?,
        }
        users::try_to_find(store, realm).await?;
        if users::has_any(store, realm).await? == Some(false) && !has_secrets {
            probed.empty.push(realm.clone());
        }
    }
    Ok(())
}
