//! A connection with one server of the store, whose answers are bounded: the crate's parser would take one without end until the memory is full.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster_async::Connect;
use redis::{
    AsyncConnectionConfig, Cmd, ConnectionAddr, IntoConnectionInfo, Pipeline, RedisConnectionInfo, RedisError,
    RedisFuture, Value,
};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::http::{Allowance, Bounded};

/// What may come between one answer and the next. The largest that are asked for, some hundred revocations or secrets, have half of it; an
/// answer of the smallest parts takes fifty times as much memory as it has bytes.
const UNANSWERED_BYTES_MAX: u64 = 1 << 20;
const OVERRUN: &str = "it has sent 1048576 bytes that are no answer to anything";

/// How the nodes of a cluster are connected with: the crate makes these connections by their type alone. A process has one store.
static OF_NODES: ArcSwapOption<OfNodes> = ArcSwapOption::const_empty();

struct OfNodes {
    tls: Option<Arc<ClientConfig>>,
    limit: Duration,
}

/// Says how the nodes of a cluster are connected with.
pub(super) fn connect_nodes_by(tls: Option<Arc<ClientConfig>>, limit: Duration) {
    OF_NODES.store(Some(Arc::new(OfNodes { tls, limit })));
}

/// A connection; clones share it.
#[derive(Clone)]
pub(super) struct Link {
    connection: MultiplexedConnection,
    /// Bytes that may still come before there is an answer.
    room: Allowance,
    _driver: Arc<Driver>,
}

impl Link {
    /// Connects. How long that takes is for the caller to bound.
    pub(super) async fn open(
        address: &ConnectionAddr,
        tls: Option<Arc<ClientConfig>>,
        user: &RedisConnectionInfo,
        settings: AsyncConnectionConfig,
    ) -> Result<Self, RedisError> {
        let room = Allowance::default();
        room.renew(UNANSWERED_BYTES_MAX);
        let stream = Bounded::saying(stream(address, tls).await?, room.clone(), OVERRUN);
        // It would be one command more that the user needs to have.
        let user = user.clone().set_skip_set_lib_name();
        let (connection, driver) = MultiplexedConnection::new_with_config(&user, stream, settings).await?;
        let driver = Driver(tokio::spawn(driver).abort_handle());
        Ok(Self { connection, room, _driver: Arc::new(driver) })
    }

    /// What is wrong with it, if it has sent too much.
    pub(super) fn overrun(&self) -> Option<&'static str> {
        self.room.is_used_up().then_some(OVERRUN)
    }

    fn answered<T>(&self, answer: Result<T, RedisError>) -> Result<T, RedisError> {
        // What takes too long has no answer.
        if answer.as_ref().map_or_else(|error| error.kind() != redis::ErrorKind::Io, |_| true) {
            self.room.renew(UNANSWERED_BYTES_MAX);
        }
        answer
    }
}

impl ConnectionLike for Link {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        Box::pin(async move {
            let answer = self.connection.req_packed_command(command).await;
            self.answered(answer)
        })
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        commands: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        Box::pin(async move {
            let answers = self.connection.req_packed_commands(commands, offset, count).await;
            self.answered(answers)
        })
    }

    fn get_db(&self) -> i64 {
        self.connection.get_db()
    }
}

impl Connect for Link {
    fn connect_with_config<'a, T>(info: T, settings: AsyncConnectionConfig) -> RedisFuture<'a, Self>
    where
        T: IntoConnectionInfo + Send + 'a,
    {
        Box::pin(async move {
            let info = info.into_connection_info()?;
            let of_nodes = OF_NODES.load_full();
            let (tls, limit) = of_nodes.map_or((None, Duration::ZERO), |of| (of.tls.clone(), of.limit));
            let link = timeout(limit, Self::open(info.addr(), tls, info.redis_settings(), settings)).await;
            link.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()))
        })
    }
}

/// The task that reads and writes.
struct Driver(AbortHandle);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

async fn stream(address: &ConnectionAddr, tls: Option<Arc<ClientConfig>>) -> io::Result<Box<dyn Stream>> {
    let (host, port) = match address {
        ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => (host, *port),
        ConnectionAddr::Unix(path) => return Ok(Box::new(UnixStream::connect(path).await?)),
        _ => return Err(io::ErrorKind::Unsupported.into()),
    };
    let stream = TcpStream::connect((host.as_str(), port)).await?;
    stream.set_nodelay(true)?;
    let Some(tls) = tls else { return Ok(Box::new(stream)) };
    let name = ServerName::try_from(host.clone()).map_err(io::Error::other)?;
    Ok(Box::new(TlsConnector::from(tls).connect(name, stream).await?))
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn so_much_is_read_and_no_more_before_there_is_an_answer() {
        let room = Allowance::default();
        let mut bounded = Bounded::saying(tokio::io::repeat(b':'), room.clone(), OVERRUN);
        let mut sink = vec![0; 10_000];
        for round in 0..3 {
            // As an answer does.
            room.renew(UNANSWERED_BYTES_MAX);
            let mut read = 0;
            let error = loop {
                match bounded.read(&mut sink).await {
                    Ok(some) => read += some as u64,
                    Err(error) => break error,
                }
            };
            assert!((UNANSWERED_BYTES_MAX..UNANSWERED_BYTES_MAX + 10_000).contains(&read), "{round}: {read}");
            assert!(error.to_string().contains("no answer"), "{error}");
        }
    }
}
