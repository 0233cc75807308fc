//! A connection with one server of the store, whose answers are bounded: the crate's parser would take one without end until the memory is full.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
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
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// What may come between one answer and the next. The largest that are asked for, some hundred revocations or secrets, have half of it; an
/// answer of the smallest parts takes fifty times as much memory as it has bytes.
const UNANSWERED_BYTES_MAX: usize = 1 << 20;

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
    room: Arc<AtomicUsize>,
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
        let room = Arc::new(AtomicUsize::new(UNANSWERED_BYTES_MAX));
        let stream = Bounded { stream: stream(address, tls).await?, room: Arc::clone(&room) };
        // It would be one command more that the user needs to have.
        let user = user.clone().set_skip_set_lib_name();
        let (connection, driver) = MultiplexedConnection::new_with_config(&user, stream, settings).await?;
        let driver = Driver(tokio::spawn(driver).abort_handle());
        Ok(Self { connection, room, _driver: Arc::new(driver) })
    }

    /// What is wrong with it, if it has sent too much.
    pub(super) fn overrun(&self) -> Option<io::Error> {
        (self.room.load(Ordering::Relaxed) == 0).then(overrun)
    }

    fn answered<T>(&self, answer: Result<T, RedisError>) -> Result<T, RedisError> {
        // What takes too long has no answer.
        if answer.as_ref().map_or_else(|error| error.kind() != redis::ErrorKind::Io, |_| true) {
            self.room.store(UNANSWERED_BYTES_MAX, Ordering::Relaxed);
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

/// Reads so much, and no more before there is an answer.
struct Bounded<S> {
    stream: S,
    room: Arc<AtomicUsize>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Bounded<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let room = self.room.load(Ordering::Relaxed);
        if room == 0 {
            return Poll::Ready(Err(overrun()));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        let read = buffer.filled().len().saturating_sub(before);
        // It may have become more meanwhile, on another thread: then that answer counts for nothing.
        self.room.store(room.saturating_sub(read), Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Bounded<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

fn overrun() -> io::Error {
    io::Error::other(format!("it has sent {UNANSWERED_BYTES_MAX} bytes that are no answer to anything"))
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn so_much_is_read_and_no_more_before_there_is_an_answer() {
        let room = Arc::new(AtomicUsize::new(UNANSWERED_BYTES_MAX));
        let mut bounded = Bounded { stream: tokio::io::repeat(b':'), room: Arc::clone(&room) };
        let mut sink = vec![0; 10_000];
        for round in 0..3 {
            let mut read = 0;
            let error = loop {
                match bounded.read(&mut sink).await {
                    Ok(some) => read += some,
                    Err(error) => break error,
                }
            };
            assert!((UNANSWERED_BYTES_MAX..UNANSWERED_BYTES_MAX + sink.len()).contains(&read), "{round}: {read}");
            assert!(error.to_string().contains("no answer"), "{error}");
            // As an answer does.
            room.store(UNANSWERED_BYTES_MAX, Ordering::Relaxed);
        }
    }
}
