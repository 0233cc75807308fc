//! Whether a store does what a server will ask of it: for who judges before it is asked.

use std::time::{Duration, Instant};

use redis::{Cmd, RedisError, Script, Value, cmd};
use tokio::runtime::Builder;
use tokio::time::timeout;

use super::connect::{ConnectError, Connection, connect};
use super::error::text_of;
use super::revocations;
use super::secrets;
use super::users;
use crate::config::StoreConfig;

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

/// What a store has come to.
#[derive(Debug)]
pub struct Probed {
    /// How long it took to answer.
    pub took: Duration,
    /// The realms of which it has no secret, and no user as far as it can say how many.
    pub empty: Vec<String>,
}

/// Connects once, and has the store do what the servers of this configuration ask of it: reads are of their own keys, writes are to a key that is
/// nobody's and gone at once.
///
/// # Errors
/// Why it is of no use.
pub fn probe(config: &StoreConfig, realms: &[String], limit: Duration) -> Result<Probed, ProbeError> {
    let asked = async {
        let mut connection = connect(config, config.password.as_ref(), config.timeout).await?;
        let started = Instant::now();
        cmd("PING").query_async::<Value>(&mut connection).await.map_err(refused)?;
        let took = started.elapsed();
        let empty = try_all(config, realms, &mut connection).await.map_err(refused)?;
        Ok(Probed { took, empty })
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

async fn try_all(
    config: &StoreConfig,
    realms: &[String],
    connection: &mut Connection,
) -> Result<Vec<String>, RedisError> {
    let script = Script::new(include_str!("check.lua"));
    let mut random = [0; 8];
    // Without randomness, two who judge at once may meet.
    let _ = getrandom::fill(&mut random);
    let scratch = format!("{}:doctor:{:016x}", config.prefix, u64::from_le_bytes(random));
    script.key(&scratch).invoke_async::<Value>(connection).await?;
    // A store that is full says so to a script whose first write would take memory.
    let full = Script::new("redis.call('HSET', KEYS[1], 'a', 'b') return redis.call('DEL', KEYS[1])");
    full.key(&scratch).invoke_async::<Value>(connection).await?;
    let mut questions: Vec<Cmd> = vec![cmd("GET").arg(format!("{}:nonce-key", config.prefix)).to_owned()];
    questions.extend(revocations::questions(&config.prefix));
    let mut empty = Vec::new();
    for realm in realms {
        let [count, all] = secrets::questions(config, realm).1;
        questions.push(all);
        let mut is_empty = count.query_async::<u64>(connection).await? == 0;
        if is_empty && config.users {
            is_empty = match users::count(config, realm) {
                Some(count) => count.query_async::<u64>(connection).await? == 0,
                None => false,
            };
        }
        if is_empty {
            empty.push(realm.clone());
        }
        if config.users {
            // No client has this name.
            match users::questions(config, realm, "") {
                users::Questions::Own { key, args } => {
                    users::FIND.key(key).arg(&args).invoke_async::<Value>(connection).await?;
                }
                users::Questions::Coturn(all) => questions.extend(*all),
            }
        }
    }
    for question in questions {
        question.query_async::<Value>(connection).await?;
    }
    Ok(empty)
}
