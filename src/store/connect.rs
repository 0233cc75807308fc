//! Connects with what is at the store's URL: a server, the one that sentinels name, or a cluster.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use redis::aio::ConnectionLike;
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::{
    AsyncConnectionConfig, Cmd, ConnectionAddr, ErrorKind, Pipeline, RedisConnectionInfo, RedisError, RedisFuture,
    Value,
};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use tokio::time::timeout;

use super::error::text_of;
use super::link::{Link, connect_nodes_by};
use crate::client::tls::{Roots, TrustError};
use crate::config::{HostPort, SecretError, StoreConfig, StorePassword, StorePlace};
use crate::regular_file;

/// How long one of several sentinels may take.
const SENTINEL_LIMIT: Duration = Duration::from_secs(1);
/// More than the bundle of every authority there is.
const CERTIFICATES_BYTES_MAX: u64 = 1 << 20;

/// A connection with one server or with a cluster.
#[derive(Clone)]
pub(super) enum Connection {
    One(Link),
    Cluster(ClusterConnection<Link>),
}

impl Connection {
    /// What an error of it means: who has sent too much is told as that.
    pub(super) fn problem(&self, error: &RedisError) -> String {
        let overrun = match self {
            Self::One(link) => link.overrun(),
            Self::Cluster(_) => None,
        };
        overrun.map_or_else(|| text_of(error), str::to_owned)
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nothing answers, or not as it should.
    #[error("{}", text_of(.0))]
    Redis(RedisError),
    /// It answers, and lets nobody in like this.
    #[error(
        "the user or the password is refused: url (redis://USER@...) and password-file in [store], and what `redis-cli ACL LIST` has there"
    )]
    NotLetIn,
    /// It takes too long.
    #[error("nothing answers in time")]
    TimedOut,
    /// No authority can be trusted.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// A file of certificates cannot be read.
    #[error("cannot read {}: {}", .0.display(), .1)]
    File(PathBuf, io::Error),
    /// What is in a file is not what it should be.
    #[error("{}: {}", .0.display(), .1)]
    Pem(PathBuf, pem::Error),
    /// There is nothing in it.
    #[error("{}: no certificate in this file", .0.display())]
    NoCertificate(PathBuf),
    /// A certificate cannot be used, or not with its key.
    #[error("{}: {}", .0.display(), .1)]
    Useless(PathBuf, rustls::Error),
    /// The library has no TLS version that it could offer.
    #[error("{0}")]
    Tls(rustls::Error),
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

impl From<RedisError> for ConnectError {
    fn from(error: RedisError) -> Self {
        let is_refused = error.kind() == ErrorKind::AuthenticationFailed;
        match is_refused || matches!(error.code(), Some("NOAUTH" | "WRONGPASS")) {
            true => Self::NotLetIn,
            false => Self::Redis(error),
        }
    }
}

impl ConnectError {
    /// What it is about the store of this name.
    pub fn of(&self, store: impl fmt::Display) -> String {
        match self {
            Self::NotLetIn => format!("{store} answers, but {self}"),
            _ => format!("{store} cannot be reached: {self}"),
        }
    }
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

struct With<'c> {
    config: &'c StoreConfig,
    password: Option<&'c StorePassword>,
    answer_limit: Duration,
}

impl With<'_> {
    async fn one(&self, (host, port): &HostPort) -> Result<Link, ConnectError> {
        self.server(ConnectionAddr::Tcp(host.clone(), *port), true).await
    }

    async fn server(&self, address: ConnectionAddr, has_user: bool) -> Result<Link, ConnectError> {
        let settings = AsyncConnectionConfig::new().set_response_timeout(Some(self.answer_limit));
        Ok(Link::open(&address, self.tls()?, &self.user(has_user), settings).await?)
    }

    /// Asks one sentinel after the other which server has the role now, and that one whether it is so.
    async fn named_by(&self, sentinels: &[HostPort], name: &str) -> Result<Link, ConnectError> {
        let mut problem = String::new();
        for (host, port) in sentinels {
            let asked = async {
                // Sentinels have users of their own, which are not those of the store.
                let nobody = RedisConnectionInfo::default();
                let settings = AsyncConnectionConfig::new().set_response_timeout(Some(self.answer_limit));
                let address = ConnectionAddr::Tcp(host.clone(), *port);
                let mut sentinel = Link::open(&address, self.tls()?, &nobody, settings).await?;
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

    async fn primary(&self, place: &HostPort) -> Result<Link, ConnectError> {
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

    async fn cluster(&self, nodes: &[HostPort]) -> Result<ClusterConnection<Link>, ConnectError> {
        let nodes = nodes.iter().map(|(host, port)| ConnectionAddr::Tcp(host.clone(), *port));
        let limit = self.config.timeout.max(Duration::from_secs(1));
        connect_nodes_by(self.tls()?, limit);
        let mut builder =
            ClusterClient::builder(nodes).response_timeout(self.answer_limit).connection_timeout(limit).retries(2);
        if let Some(user) = &self.config.url.user {
            builder = builder.username(user);
        }
        if let Some(password) = self.password {
            builder = builder.password(password.expose());
        }
        Ok(builder.build()?.get_async_generic_connection().await?)
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

    /// How it is trusted, and shown a certificate. The files are read for each connection: they may have been renewed.
    fn tls(&self) -> Result<Option<Arc<ClientConfig>>, ConnectError> {
        if !self.config.url.tls {
            return Ok(None);
        }
        let roots = match &self.config.ca {
            None => Roots::System.read()?,
            Some(path) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates(path)? {
                    roots.add(certificate).map_err(|error| ConnectError::Useless(path.clone(), error))?;
                }
                roots
            }
        };
        let settings = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(ConnectError::Tls)?
            .with_root_certificates(roots);
        let settings = match &self.config.certificate {
            Some(pair) => {
                let key = PrivateKeyDer::from_pem_slice(&pair.read_key()?)
                    .map_err(|error| ConnectError::Pem(pair.key.clone(), error))?;
                let useless = |error| ConnectError::Useless(pair.certificate.clone(), error);
                settings.with_client_auth_cert(certificates(&pair.certificate)?, key).map_err(useless)?
            }
            None => settings.with_no_client_auth(),
        };
        Ok(Some(Arc::new(settings)))
    }
}

/// Reads a file of certificates, of which there is one at least.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ConnectError> {
    let pem = regular_file::read(path, CERTIFICATES_BYTES_MAX);
    let pem = pem.map_err(|error| ConnectError::File(path.to_owned(), error))?;
    let found = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(|error| ConnectError::Pem(path.to_owned(), error))?;
    if found.is_empty() { Err(ConnectError::NoCertificate(path.to_owned())) } else { Ok(found) }
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
