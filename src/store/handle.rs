//! The handle of the connection with the store, and the task that keeps it.

use std::fmt;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};
use redis::{Cmd, RedisError, Script, ScriptInvocation, ToRedisArgs, Value};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{sleep, timeout};

use super::connect::{self, ConnectError, Connection};
use super::error::{StoreError, told};
use super::stats::{CommandResult, StoreStats};
use crate::config::{StoreConfig, StorePassword};

/// Commands under way; what is more waits for its turn, within its time.
const IN_FLIGHT_MAX: usize = 256;
/// Between two questions whether the store still answers.
const PING_INTERVAL: Duration = Duration::from_secs(1);
/// How long a connection may take, names, TLS and password included.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// Between two attempts to connect.
pub(super) const PAUSE_MIN: Duration = Duration::from_millis(100);
pub(super) const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Commands that may go without an answer in time on one connection, though it answers whether it is there: each is remembered until it is
/// answered.
const LATE_MAX: u32 = 1000;
/// A connection that has lasted so long was a good one: after it, the pauses begin anew.
const GOOD_AFTER: Duration = Duration::from_secs(30);

/// A handle of the store.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    config: StoreConfig,
    password: ArcSwap<Option<StorePassword>>,
    node: String,
    current: ArcSwapOption<Connection>,
    /// How many connections there have been; 0 before the first. Whoever follows something takes it anew with each.
    connections: watch::Sender<u64>,
    in_flight: Semaphore,
    /// Commands of this connection that were not answered in time.
    late: AtomicU32,
    /// Something was wrong with the connection.
    doubt: Notify,
    stats: StoreStats,
}

/// What keeps the connection.
pub struct StoreKeeper(Store);

impl Store {
    /// A handle, and what keeps its connection.
    pub fn new(config: &StoreConfig) -> (Self, StoreKeeper) {
        let node = config.node.clone().unwrap_or_else(host_name);
        let inner = Inner {
            password: ArcSwap::from_pointee(config.password.clone()),
            config: config.clone(),
            node,
            current: ArcSwapOption::empty(),
            connections: watch::Sender::new(0),
            in_flight: Semaphore::new(IN_FLIGHT_MAX),
            late: AtomicU32::new(0),
            doubt: Notify::new(),
            stats: StoreStats::default(),
        };
        let store = Self(Arc::new(inner));
        (store.clone(), StoreKeeper(store))
    }

    /// A handle of one connection that nobody keeps.
    pub(super) async fn connected(config: &StoreConfig) -> Result<Self, ConnectError> {
        let connection = connect::connect(config, config.password.as_ref(), config.timeout).await?;
        Ok(Self::of(config, connection))
    }

    /// The same of a connection that there is.
    pub(super) fn of(config: &StoreConfig, connection: Connection) -> Self {
        let (store, _) = Self::new(config);
        store.0.current.store(Some(Arc::new(connection)));
        store
    }

    /// What this server is called there.
    pub fn node(&self) -> &str {
        &self.0.node
    }

    /// The settings it was made with.
    pub fn config(&self) -> &StoreConfig {
        &self.0.config
    }

    /// How it is with it.
    pub fn stats(&self) -> &StoreStats {
        &self.0.stats
    }

    /// A key: the prefix and what is given, apart by a colon.
    pub fn key(&self, rest: &str) -> String {
        format!("{}:{rest}", self.0.config.prefix)
    }

    /// Takes another password, for the next connection.
    pub fn set_password(&self, password: Option<StorePassword>) {
        self.0.password.store(Arc::new(password));
    }

    /// Whether there is a connection that answers.
    pub fn is_connected(&self) -> bool {
        self.0.current.load().is_some()
    }

    /// How many connections there have been: it changes when there is another one.
    pub fn connections(&self) -> watch::Receiver<u64> {
        self.0.connections.subscribe()
    }

    /// Asks one command.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn command(&self, command: &Cmd) -> Result<Value, StoreError> {
        self.ask(async |mut connection: Connection| command.query_async(&mut connection).await).await
    }

    /// Runs a script, which the store is sent only where it does not know it.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn script<K: ToRedisArgs, A: ToRedisArgs>(
        &self,
        script: &Script,
        keys: &[K],
        args: &[A],
    ) -> Result<Value, StoreError> {
        let invocation = invocation(script, keys, args);
        self.ask(async |mut connection: Connection| invocation.invoke_async(&mut connection).await).await
    }

    /// A connection of its own, for commands that wait in the store for so long.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn dedicated(&self, wait: Duration) -> Result<Dedicated, ConnectError> {
        let password = self.0.password.load_full();
        let limit = wait + self.0.config.timeout;
        let connected =
            timeout(CONNECT_LIMIT, connect::connect(&self.0.config, password.as_ref().as_ref(), limit)).await;
        Ok(Dedicated { connection: connected.unwrap_or(Err(ConnectError::TimedOut))?, limit })
    }

    async fn ask<F>(&self, asked: impl FnOnce(Connection) -> F) -> Result<Value, StoreError>
    where
        F: Future<Output = Result<Value, RedisError>>,
    {
        let Inner { config, current, in_flight, late, doubt, stats, .. } = &*self.0;
        let answer = timeout(config.timeout, async {
            let _turn = in_flight.acquire().await.map_err(|_| StoreError::Lost)?;
            let connection = current.load_full().ok_or(StoreError::Lost)?;
            asked(Connection::clone(&connection)).await.map_err(|error| told(&error))
        });
        let answer = answer.await.unwrap_or(Err(StoreError::TimedOut));
        stats.count(CommandResult::of(&answer));
        if matches!(answer, Err(StoreError::TimedOut)) {
            late.fetch_add(1, Ordering::Relaxed);
        }
        if matches!(answer, Err(StoreError::Lost | StoreError::TimedOut)) {
            doubt.notify_one();
        }
        answer
    }
}

fn invocation<'s, K: ToRedisArgs, A: ToRedisArgs>(script: &'s Script, keys: &[K], args: &[A]) -> ScriptInvocation<'s> {
    let mut invocation = script.prepare_invoke();
    for key in keys {
        invocation.key(key);
    }
    for arg in args {
        invocation.arg(arg);
    }
    invocation
}

/// A connection of its own.
pub struct Dedicated {
    connection: Connection,
    limit: Duration,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store({})", self.0.config.url)
    }
}

impl Dedicated {
    /// Asks one command.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn command(&mut self, command: &Cmd) -> Result<Value, StoreError> {
        let answer = timeout(self.limit, command.query_async(&mut self.connection)).await;
        answer.map_or(Err(StoreError::TimedOut), |answer| answer.map_err(|error| told(&error)))
    }

    /// Runs a script.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn script<K: ToRedisArgs, A: ToRedisArgs>(
        &mut self,
        script: &Script,
        keys: &[K],
        args: &[A],
    ) -> Result<Value, StoreError> {
        let invocation = invocation(script, keys, args);
        let answer = timeout(self.limit, invocation.invoke_async(&mut self.connection)).await;
        answer.map_or(Err(StoreError::TimedOut), |answer| answer.map_err(|error| told(&error)))
    }
}

impl StoreKeeper {
    /// Keeps the connection for ever.
    pub async fn run(self) {
        let Store(inner) = self.0;
        let Inner { config, password, current, connections, stats, .. } = &*inner;
        let mut pause = PAUSE_MIN;
        // That it is gone, and that it lets nobody in, are told once each.
        let mut told: Vec<bool> = Vec::new();
        loop {
            let password = password.load_full();
            let attempt = connect::connect(config, password.as_ref().as_ref(), config.timeout);
            let mut is_let_in = true;
            let problem = match timeout(CONNECT_LIMIT, attempt).await.unwrap_or(Err(ConnectError::TimedOut)) {
                Ok(connection) => {
                    let since = Instant::now();
                    inner.late.store(0, Ordering::Relaxed);
                    current.store(Some(Arc::new(connection.clone())));
                    stats.connected();
                    connections.send_modify(|count| *count += 1);
                    if !told.is_empty() || *connections.borrow() == 1 {
                        tracing::info!(url = %config.url, node = inner.node, "connected with the store");
                    }
                    told.clear();
                    let problem = watch_over(&inner, connection).await;
                    current.store(None);
                    if since.elapsed() >= GOOD_AFTER {
                        pause = PAUSE_MIN;
                    }
                    problem
                }
                Err(error) => {
                    is_let_in = !matches!(error, ConnectError::NotLetIn);
                    error.to_string()
                }
            };
            stats.lost(&problem);
            let is_news = !told.contains(&is_let_in);
            if is_news {
                told.push(is_let_in);
            }
            if is_news && !is_let_in {
                tracing::warn!(url = %config.url, %problem, "the store answers and does not let this server in: calls go on, what is known of users, secrets and revocations stays in force, and new allocations are made as [store] on-loss says; a changed password is taken by a reload, a changed url by a restart");
            } else if is_news {
                tracing::warn!(url = %config.url, %problem, "the store cannot be reached: calls go on, what is known of users, secrets and revocations stays in force, and new allocations are made as [store] on-loss says; it is tried again until it answers ([store] url)");
            }
            sleep(by_chance(pause, RandomState::new().build_hasher().finish())).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }
}

/// A pause, or less, down to half of it: all servers lose a store in the same moment, and are not to come back to it in the same.
pub(super) fn by_chance(pause: Duration, chance: u64) -> Duration {
    let half_micros = u64::try_from(pause.as_micros() / 2).unwrap_or(u64::MAX);
    pause.saturating_sub(Duration::from_micros(chance % half_micros.max(1)))
}

/// Asks a connection once a second, or when something was wrong with it, whether it is still good. Returns what is the matter with it.
async fn watch_over(inner: &Inner, mut connection: Connection) -> String {
    let ping = redis::cmd("PING");
    let mut is_doubtful = false;
    loop {
        let asked = Instant::now();
        match timeout(inner.config.timeout, ping.query_async::<Value>(&mut connection)).await {
            Ok(Ok(_)) => inner.stats.answered(asked.elapsed()),
            Ok(Err(error)) => return connection.problem(&error),
            Err(_) => return StoreError::TimedOut.to_string(),
        }
        if inner.late.load(Ordering::Relaxed) >= LATE_MAX {
            return format!("it has not answered {LATE_MAX} commands in time");
        }
        // What is wrong time and again is looked at as often as the store is asked, and no more.
        if is_doubtful {
            sleep(PING_INTERVAL).await;
        }
        is_doubtful = timeout(PING_INTERVAL, inner.doubt.notified()).await.is_ok();
    }
}

/// What this host is called.
pub(crate) fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
