//! Connects with what is at the store's URL: a server, the one that sentinels name, or a cluster.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, Cmd, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, Pipeline,
    RedisConnectionInfo, RedisError, RedisFuture, TlsCertificates, TlsMode, Value,
};
use rustls::crypto::aws_lc_rs;
use tokio::runtime::Builder;
use tokio::time::timeout;

use super::error::text_of;
use crate::config::{HostPort, SecretError, StoreConfig, StorePassword, StorePlace};
use crate::regular_file;

/// How long one of several sentinels may take.
const SENTINEL_LIMIT: Duration = Duration::from_secs(1);
/// More than the bundle of every authority there is.
const CERTIFICATES_BYTES_MAX: u64 = 1 << 20;

/// A connection with one server or with a cluster.
#[derive(Clone)]
pub(super) enum Connection {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nothing answers, or not as it should.
    #[error("{}", text_of(.0))]
    Redis(#[from] RedisError),
    /// It takes too long.
    #[error("nothing answers in time")]
    TimedOut,
    /// A certificate of ours cannot be read.
    #[error("cannot read {}: {}", .0.display(), .1)]
    File(PathBuf, std::io::Error),
    /// Our key cannot be read.
    #[error(transparent)]
    Key(#[from] SecretError),
    /// No sentinel says where the store is, and what the last one said.
    #[error("no sentinel knows where {0:?} is: {1}")]
    NoSentinel(String, String),
    /// What sentinels named has another role.
    #[error("{0} is a {1} and not the primary")]
    NotPrimary(String, String),
}

/// Connects, with a time limit for each answer. How long it takes is for the caller to bound.
///
/// # Errors
/// Why not.
pub(super) async fn connect(
    config: &StoreConfig,
    password: Option<&StorePassword>,
    answer_limit: Duration,
) -> Result<Connection, ConnectError> {
    let with = With { config, password, answer_limit };
    let mut connection = match &config.url.place {
        StorePlace::One(host) => with.one(host).await.map(Connection::One),
        StorePlace::Unix(path) => with.server(ConnectionAddr::Unix(path.clone()), false).await.map(Connection::One),
        StorePlace::Sentinel { sentinels, name } => with.named_by(sentinels, name).await.map(Connection::One),
        StorePlace::Cluster(nodes) => with.cluster(nodes).await.map(Connection::Cluster),
    }?;
    // A store that wants a password and was given none takes the connection, and refuses every command.
    match redis::cmd("PING").query_async::<Value>(&mut connection).await {
        Err(error) if error.code() == Some("NOAUTH") => Err(error.into()),
        _ => Ok(connection),
    }
}

/// Connects once, for who judges: says how long the store took to answer.
///
/// # Errors
/// Why it did not.
pub fn probe(config: &StoreConfig, limit: Duration) -> Result<Duration, ConnectError> {
    let asked = async {
        let mut connection = connect(config, config.password.as_ref(), config.timeout).await?;
        let started = Instant::now();
        connection.req_packed_command(&redis::cmd("PING")).await?;
        Ok(started.elapsed())
    };
    let runtime = Builder::new_current_thread().enable_all().build().map_err(RedisError::from)?;
    runtime.block_on(async { timeout(limit, asked).await.unwrap_or(Err(ConnectError::TimedOut)) })
}

struct With<'c> {
    config: &'c StoreConfig,
    password: Option<&'c StorePassword>,
    answer_limit: Duration,
}

impl With<'_> {
    async fn one(&self, (host, port): &HostPort) -> Result<MultiplexedConnection, ConnectError> {
        self.server(self.address(host, *port), true).await
    }

    async fn server(&self, address: ConnectionAddr, has_user: bool) -> Result<MultiplexedConnection, ConnectError> {
        let info = address.into_connection_info()?.set_redis_settings(self.user(has_user));
        self.open(info).await
    }

    async fn open(&self, info: ConnectionInfo) -> Result<MultiplexedConnection, ConnectError> {
        let client = match info.addr() {
            ConnectionAddr::TcpTls { .. } => Client::build_with_tls(info, self.certificates()?)?,
            _ => Client::open(info)?,
        };
        let settings =
            AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(Some(self.answer_limit));
        Ok(client.get_multiplexed_async_connection_with_config(&settings).await?)
    }

    /// Asks one sentinel after the other which server has the role now, and that one whether it is so.
    async fn named_by(&self, sentinels: &[HostPort], name: &str) -> Result<MultiplexedConnection, ConnectError> {
        let mut problem = String::new();
        for (host, port) in sentinels {
            let asked = async {
                // Sentinels have users of their own, which are not those of the store.
                let info = self.address(host, *port).into_connection_info()?;
                let mut sentinel = self.open(info).await?;
                let question = redis::cmd("SENTINEL").arg("get-master-addr-by-name").arg(name).to_owned();
                let address: Option<(String, u16)> = question.query_async(&mut sentinel).await?;
                Ok::<_, ConnectError>(address)
            };
            match timeout(SENTINEL_LIMIT, asked).await.unwrap_or(Err(ConnectError::TimedOut)) {
                Ok(Some(primary)) => return self.primary(&primary).await,
                Ok(None) => problem = format!("{host}:{port} watches nothing of this name"),
                Err(error) => problem = format!("{host}:{port}: {error}"),
            }
        }
        Err(ConnectError::NoSentinel(name.to_owned(), problem))
    }

    async fn primary(&self, place: &HostPort) -> Result<MultiplexedConnection, ConnectError> {
        let mut connection = self.one(place).await?;
        // A sentinel may not yet have heard that it has lost its role. Who may not ask for it finds out when something is written.
        match connection.req_packed_command(&redis::cmd("ROLE")).await {
            Ok(Value::Array(answer)) => match answer.first() {
                Some(Value::BulkString(role)) if role != b"master" => {
                    let role = String::from_utf8_lossy(role).into_owned();
                    Err(ConnectError::NotPrimary(format!("{}:{}", place.0, place.1), role))
                }
                _ => Ok(connection),
            },
            _ => Ok(connection),
        }
    }

    async fn cluster(&self, nodes: &[HostPort]) -> Result<ClusterConnection, ConnectError> {
        let nodes = nodes.iter().map(|(host, port)| self.address(host, *port));
        let mut builder = ClusterClient::builder(nodes)
            .response_timeout(self.answer_limit)
            .connection_timeout(self.config.timeout.max(Duration::from_secs(1)))
            .retries(2);
        if let Some(user) = &self.config.url.user {
            builder = builder.username(user);
        }
        if let Some(password) = self.password {
            builder = builder.password(password.expose());
        }
        if self.config.url.tls {
            builder = builder.tls(TlsMode::Secure).certs(self.certificates()?);
        }
        Ok(builder.build()?.get_async_connection().await?)
    }

    fn address(&self, host: &str, port: u16) -> ConnectionAddr {
        match self.config.url.tls {
            false => ConnectionAddr::Tcp(host.to_owned(), port),
            true => ConnectionAddr::TcpTls { host: host.to_owned(), port, insecure: false, tls_params: None },
        }
    }

    fn user(&self, has_user: bool) -> RedisConnectionInfo {
        let mut user = RedisConnectionInfo::default().set_db(self.config.url.database.into());
        if let Some(name) = self.config.url.user.as_ref().filter(|_| has_user) {
            user = user.set_username(name);
        }
        if let Some(password) = self.password {
            user = user.set_password(password.expose());
        }
        user
    }

    /// Read for each connection: they may have been renewed.
    fn certificates(&self) -> Result<TlsCertificates, ConnectError> {
        // The crate takes that of the process; another one is there only if somebody has put it there.
        let _ = aws_lc_rs::default_provider().install_default();
        let read = |path: &Path| {
            regular_file::read(path, CERTIFICATES_BYTES_MAX).map_err(|error| ConnectError::File(path.to_owned(), error))
        };
        let root_cert = self.config.ca.as_deref().map(read).transpose()?;
        let client_tls = match &self.config.certificate {
            Some(pair) => {
                let (client_cert, client_key) = (read(&pair.certificate)?, pair.read_key()?.to_vec());
                Some(ClientTlsConfig { client_cert, client_key })
            }
            None => None,
        };
        Ok(TlsCertificates { client_tls, root_cert })
    }
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::One(connection) => connection.req_packed_command(command),
            Self::Cluster(connection) => connection.req_packed_command(command),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        commands: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::One(connection) => connection.req_packed_commands(commands, offset, count),
            Self::Cluster(connection) => connection.req_packed_commands(commands, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::One(connection) => connection.get_db(),
            Self::Cluster(connection) => connection.get_db(),
        }
    }
}
