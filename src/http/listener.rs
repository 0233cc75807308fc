//! An endpoint: HTTP/1.1, plain or over TLS, on a port or on a socket in the file system.
//!
//! A connection is one request: what asks every few seconds need not hold a connection, and none can be held open. When there is no
//! seat for another connection, one that is silent gives way.

use std::convert::Infallible;
use std::fs::DirBuilder;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::answer::{Answer, response};
use super::limits::Limits;
use super::seats::{Seat, Seats};
use crate::config::Endpoint;
use crate::net::{bind_endpoint, connect_unix};

/// A request, its answer included, must be over within this.
const CONNECTION_LIMIT: Duration = Duration::from_secs(10);
/// Bytes of a request's head that are kept.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// How long to rest when no connection can be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Who listens at a socket and has no room for a connection for so long is there all the same.
const STALE_AFTER: Duration = Duration::from_secs(1);
/// Owner and group may connect.
const SOCKET_MODE: u32 = 0o660;
/// Of a folder that is made for a socket.
const FOLDER_MODE: u32 = 0o750;

/// What answers the requests of an endpoint.
pub(crate) trait Handler: Send + Sync + 'static {
    /// Whether a connection from there comes in at all. What does not is closed before anything is read of it.
    fn admits(&self, _from: Option<IpAddr>) -> bool {
        true
    }

    /// Whether somebody is expected to come from there: he has the time of those who have shown the token from there.
    fn expects(&self, _from: IpAddr) -> bool {
        false
    }

    /// A TLS handshake failed, or took too long.
    fn handshake_failed(&self) {}

    /// The answer to a request, of which the head has come.
    fn respond(&self, request: Request<Incoming>, caller: &Caller) -> impl Future<Output = Answer> + Send;
}

/// The connection that a request came by.
pub(crate) struct Caller {
    /// Its address; a socket in the file system has none.
    pub(crate) address: Option<IpAddr>,
    seat: Seat,
}

impl Caller {
    /// What it asks for is there as a whole: from now on it waits for us.
    pub(crate) fn has_asked(&self) {
        self.seat.asked();
    }

    /// It has shown the right token: who comes from there later is known.
    pub(crate) fn has_shown_token(&self) {
        self.seat.has_shown_token();
    }
}

/// The TLS of an endpoint, which a reload may replace.
pub(crate) type Tls = Arc<ArcSwapOption<ServerConfig>>;

/// The endpoint, bound. Dropping it removes the socket file.
pub(crate) struct EndpointListener {
    socket: Socket,
    /// Where it is, with the real port.
    pub(crate) endpoint: Endpoint,
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
    pub(crate) fn bind(endpoint: &Endpoint) -> io::Result<Self> {
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
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        match self.endpoint {
            Endpoint::Tcp(address) => Some(address),
            Endpoint::Unix(_) => None,
        }
    }

    /// Answers requests for ever: over TLS if there is any.
    pub(crate) async fn serve<H: Handler>(self, handler: Arc<H>, limits: Limits, tls: Option<Tls>) {
        let seats = Seats::new(&limits);
        loop {
            let accepted = match &self.socket {
                Socket::Tcp(listener) => listener.accept().await.map(|(stream, from)| Stream::Tcp(stream, from)),
                Socket::Unix { listener, .. } => listener.accept().await.map(|(stream, _)| Stream::Unix(stream)),
            };
            let Ok(stream) = accepted else {
                sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let address = match &stream {
                Stream::Tcp(_, from) => Some(from.ip().to_canonical()),
                Stream::Unix(_) => None,
            };
            if !handler.admits(address) {
                continue;
            }
            let is_expected = address.is_some_and(|address| handler.expects(address));
            let seat = seats.take(address, is_expected).await;
            let (handler, id) = (Arc::clone(&handler), seat.id());
            let caller = Caller { address, seat };
            let tls = tls.clone();
            let task = tokio::spawn(async move {
                match (stream, tls) {
                    (Stream::Tcp(stream, _), Some(tls)) => {
                        // Without a certificate there is nothing to say.
                        let Some(config) = tls.load_full() else { return };
                        if timeout(limits.head, speaks_http(&stream)).await.unwrap_or(false) {
                            handler.handshake_failed();
                            return answer(stream, Arc::new(PlainHttp), caller, limits).await;
                        }
                        match timeout(limits.head, TlsAcceptor::from(config).accept(stream)).await {
                            Ok(Ok(stream)) => answer(stream, handler, caller, limits).await,
                            Ok(Err(_)) | Err(_) => handler.handshake_failed(),
                        }
                    }
                    (Stream::Tcp(stream, _), None) => answer(stream, handler, caller, limits).await,
                    (Stream::Unix(stream), _) => answer(stream, handler, caller, limits).await,
                }
            });
            seats.attach(id, task.abort_handle());
        }
    }
}

enum Stream {
    Tcp(tokio::net::TcpStream, SocketAddr),
    Unix(tokio::net::UnixStream),
}

/// Whether a connection begins like a request of HTTP and not like a TLS handshake, whose first byte is no letter.
async fn speaks_http(stream: &tokio::net::TcpStream) -> bool {
    let mut first = [0];
    matches!(stream.peek(&mut first).await, Ok(1)) && first.iter().all(u8::is_ascii_uppercase)
}

/// Answers who sends HTTP where HTTPS is spoken, as web servers do.
struct PlainHttp;

impl Handler for PlainHttp {
    async fn respond(&self, _: Request<Incoming>, caller: &Caller) -> Answer {
        caller.has_asked();
        let told = "plain HTTP was sent to an HTTPS port: the URL has to begin with https://\n";
        response(StatusCode::BAD_REQUEST, "text/plain; charset=utf-8", told)
    }
}

/// A server that was killed leaves its socket file behind; nothing else is removed.
fn remove_stale(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() => {}
        Ok(_) => return Err(io::Error::new(io::ErrorKind::AddrInUse, "there is a file that is not a socket")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    }
    match connect_unix(path, STALE_AFTER) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        Ok(_) => Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens there")),
        Err(error) if error.kind() == io::ErrorKind::TimedOut => Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "another process listens there, and takes no connection: it is stopped, or hangs",
        )),
        Err(error) => Err(error),
    }
}

async fn answer<S, H>(stream: S, handler: Arc<H>, caller: Caller, limits: Limits)
where
    S: AsyncRead + AsyncWrite + Unpin,
    H: Handler,
{
    let caller = Arc::new(caller);
    let service = service_fn(|request| {
        let (handler, caller) = (Arc::clone(&handler), Arc::clone(&caller));
        async move { Ok::<_, Infallible>(handler.respond(request, &caller).await) }
    });
    let connection = http1::Builder::new()
        .keep_alive(false)
        .max_buf_size(HEAD_BYTES_MAX)
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .serve_connection(TokioIo::new(stream), service);
    // A client that goes away, or speaks no HTTP, concerns nobody else.
    let _ = timeout(CONNECTION_LIMIT, connection).await;
}
