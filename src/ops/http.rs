//! The endpoint for metrics and health: `/metrics`, `/healthz`, `/readyz` over plain HTTP/1.1.
//!
//! A connection is one request: what asks every few seconds need not hold a connection, and none can be held open.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::metrics::{self, Metrics};
use super::status::Status;
use crate::config::Endpoint;
use crate::net::sys;
use crate::worker::{Command, Mailbox};

/// A request, its answer included, must be over within this.
const CONNECTION_LIMIT: Duration = Duration::from_secs(10);
/// Connections beyond this are closed unread.
const CONNECTIONS_MAX: usize = 32;
/// Bytes of a request that are kept.
const REQUEST_BYTES_MAX: usize = 16 * 1024;
/// A worker that has not answered within this makes no progress.
const WORKER_LIMIT: Duration = Duration::from_secs(2);
const WORKER_POLL: Duration = Duration::from_millis(5);
/// How long to rest when no connection can be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Owner and group may connect.
const SOCKET_MODE: u32 = 0o660;
const TEXT: &str = "text/plain; charset=utf-8";

/// What the endpoint shows.
pub(super) struct Monitor {
    pub(super) metrics: Metrics,
    pub(super) status: Arc<Status>,
    pub(super) mailboxes: Vec<Arc<Mailbox>>,
}

/// The endpoint, bound. Dropping it removes the socket file.
pub(super) struct MonitorListener {
    socket: Socket,
    /// Where it is, with the real port.
    pub(super) endpoint: Endpoint,
}

enum Socket {
    Tcp(TcpListener),
    Unix { listener: UnixListener, _file: SocketFile },
}

struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

impl MonitorListener {
    /// Binds the endpoint. A socket file that nobody listens on any more is replaced.
    ///
    /// # Errors
    /// As bind(2); `AddrInUse` when something else is there.
    pub(super) fn bind(endpoint: &Endpoint) -> io::Result<Self> {
        match endpoint {
            Endpoint::Tcp(address) => {
                let listener = std::net::TcpListener::bind(address)?;
                listener.set_nonblocking(true)?;
                let endpoint = Endpoint::Tcp(listener.local_addr()?);
                Ok(Self { socket: Socket::Tcp(TcpListener::from_std(listener)?), endpoint })
            }
            Endpoint::Unix(path) => {
                remove_stale(path)?;
                let listener = UnixListener::bind(path)?;
                let file = SocketFile(path.clone());
                std::fs::set_permissions(path, PermissionsExt::from_mode(SOCKET_MODE))?;
                Ok(Self { socket: Socket::Unix { listener, _file: file }, endpoint: endpoint.clone() })
            }
        }
    }

    /// The address, if it is one that packets can be sent to.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        match self.endpoint {
            Endpoint::Tcp(address) => Some(address),
            Endpoint::Unix(_) => None,
        }
    }

    /// Answers requests for ever.
    pub(super) async fn serve(self, monitor: Arc<Monitor>) {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let accepted = match &self.socket {
                Socket::Tcp(listener) => listener.accept().await.map(|(stream, _)| Stream::Tcp(stream)),
                Socket::Unix { listener, .. } => listener.accept().await.map(|(stream, _)| Stream::Unix(stream)),
            };
            let Ok(stream) = accepted else {
                sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
            let monitor = Arc::clone(&monitor);
            tokio::spawn(async move {
                match stream {
                    Stream::Tcp(stream) => answer(stream, monitor).await,
                    Stream::Unix(stream) => answer(stream, monitor).await,
                }
                drop(place);
            });
        }
    }
}

enum Stream {
    Tcp(tokio::net::TcpStream),
    Unix(tokio::net::UnixStream),
}

/// A server that was killed leaves its socket file behind; nothing else is removed.
fn remove_stale(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() => {}
        Ok(_) => return Err(io::Error::new(io::ErrorKind::AddrInUse, "there is a file that is not a socket")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        Ok(_) => Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens there")),
        Err(error) => Err(error),
    }
}

async fn answer<S: AsyncRead + AsyncWrite + Unpin>(stream: S, monitor: Arc<Monitor>) {
    let service = service_fn(|request| {
        let monitor = Arc::clone(&monitor);
        async move { Ok::<_, Infallible>(monitor.respond(&request).await) }
    });
    let connection = http1::Builder::new()
        .keep_alive(false)
        .max_buf_size(REQUEST_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    // A client that goes away, or speaks no HTTP, concerns nobody else.
    let _ = timeout(CONNECTION_LIMIT, connection).await;
}

impl Monitor {
    async fn respond(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path();
        if !matches!(path, "/metrics" | "/healthz" | "/readyz") {
            return response(StatusCode::NOT_FOUND, TEXT, "there are /metrics, /healthz and /readyz\n");
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut refusal = response(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD\n");
            refusal.headers_mut().insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
            return refusal;
        }
        match path {
            "/metrics" => match self.metrics.text() {
                Ok(text) => response(StatusCode::OK, metrics::CONTENT_TYPE, text),
                Err(_) => response(StatusCode::INTERNAL_SERVER_ERROR, TEXT, "the metrics cannot be written\n"),
            },
            "/readyz" if self.status.draining() => response(StatusCode::SERVICE_UNAVAILABLE, TEXT, "draining\n"),
            _ => match self.stuck_worker().await {
                None if path == "/readyz" => response(StatusCode::OK, TEXT, "ready\n"),
                None => response(StatusCode::OK, TEXT, "healthy\n"),
                Some(number) => {
                    let message = format!("worker {number} does not answer\n");
                    response(StatusCode::SERVICE_UNAVAILABLE, TEXT, message)
                }
            },
        }
    }

    /// Asks every worker for a sign of life; the number of one that gives none.
    async fn stuck_worker(&self) -> Option<usize> {
        let asked_micros = sys::clocks().0;
        let seen: Vec<_> = self
            .mailboxes
            .iter()
            .map(|mailbox| {
                let seen = Arc::new(AtomicU64::new(0));
                mailbox.send(Command::Ping(Arc::clone(&seen)));
                seen
            })
            .collect();
        let limit_micros = asked_micros.saturating_add(WORKER_LIMIT.as_micros() as u64);
        loop {
            let silent = seen.iter().position(|seen| seen.load(Ordering::Acquire) == 0)?;
            if sys::clocks().0 > limit_micros {
                return Some(silent);
            }
            sleep(WORKER_POLL).await;
        }
    }
}

fn response(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, hyper::header::HeaderValue::from_static("no-store"));
    response
}
