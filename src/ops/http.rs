//! An endpoint for programs on this host and for operators' tools: plain HTTP/1.1 on a port or on a socket in the file system.
//!
//! A connection is one request: what asks every few seconds need not hold a connection, and none can be held open. When there is no
//! seat for another connection, one that is silent gives way.

use std::convert::Infallible;
use std::fs::DirBuilder;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::time::{sleep, timeout};

use super::seats::{Seat, Seats};
use crate::config::Endpoint;
use crate::net::bind_endpoint;
use crate::text;

/// A request, its answer included, must be over within this.
const CONNECTION_LIMIT: Duration = Duration::from_secs(10);
/// The head of a request must be there within this.
const HEAD_LIMIT: Duration = Duration::from_secs(2);
/// Connections beyond this wait for one that gives way.
const CONNECTIONS_MAX: usize = 64;
/// Bytes of a request's head that are kept.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// How long to rest when no connection can be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Owner and group may connect.
const SOCKET_MODE: u32 = 0o660;
/// Of a folder that is made for a socket.
const FOLDER_MODE: u32 = 0o750;

/// An answer.
pub(super) type Answer = Response<Full<Bytes>>;

/// What answers the requests of an endpoint.
pub(super) trait Handler: Send + Sync + 'static {
    fn respond(&self, request: Request<Incoming>) -> impl Future<Output = Answer> + Send;
}

/// The endpoint, bound. Dropping it removes the socket file.
pub(super) struct EndpointListener {
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

impl EndpointListener {
    /// Binds the endpoint. A socket file that nobody listens on any more is replaced.
    ///
    /// # Errors
    /// As bind(2); `AddrInUse` when something else is there.
    pub(super) fn bind(endpoint: &Endpoint) -> io::Result<Self> {
        match endpoint {
            Endpoint::Tcp(address) => {
                let listener = bind_endpoint(*address)?;
                let endpoint = Endpoint::Tcp(listener.local_addr()?);
                Ok(Self { socket: Socket::Tcp(TcpListener::from_std(listener)?), endpoint })
            }
            Endpoint::Unix(path) => {
                // A place of its own, as /run/turnstone is; the service manager makes it for the unit.
                if let Some(folder) = path.parent() {
                    let _ = DirBuilder::new().mode(FOLDER_MODE).create(folder);
                }
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
    pub(super) async fn serve<H: Handler>(self, handler: Arc<H>) {
        let seats = Seats::new(CONNECTIONS_MAX);
        loop {
            let accepted = match &self.socket {
                Socket::Tcp(listener) => listener.accept().await.map(|(stream, _)| Stream::Tcp(stream)),
                Socket::Unix { listener, .. } => listener.accept().await.map(|(stream, _)| Stream::Unix(stream)),
            };
            let Ok(stream) = accepted else {
                sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let seat = seats.take().await;
            let (handler, id) = (Arc::clone(&handler), seat.id());
            let task = tokio::spawn(async move {
                match stream {
                    Stream::Tcp(stream) => answer(stream, handler, seat).await,
                    Stream::Unix(stream) => answer(stream, handler, seat).await,
                }
            });
            seats.attach(id, task.abort_handle());
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

async fn answer<S: AsyncRead + AsyncWrite + Unpin, H: Handler>(stream: S, handler: Arc<H>, seat: Seat) {
    let service = service_fn(|request| {
        seat.asked();
        let handler = Arc::clone(&handler);
        async move { Ok::<_, Infallible>(handler.respond(request).await) }
    });
    let connection = http1::Builder::new()
        .keep_alive(false)
        .max_buf_size(HEAD_BYTES_MAX)
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .serve_connection(TokioIo::new(stream), service);
    // A client that goes away, or speaks no HTTP, concerns nobody else.
    let _ = timeout(CONNECTION_LIMIT, connection).await;
}

pub(super) const JSON: &str = "application/json";

pub(super) fn json(status: StatusCode, value: &Value) -> Answer {
    response(status, JSON, text::json(value))
}

/// An answer that nobody may keep.
pub(super) fn response(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
