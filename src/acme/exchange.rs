//! The requests to a certificate authority, over HTTPS: a bounded number of them, each with a deadline, and answers of a bounded length.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue, RETRY_AFTER, USER_AGENT};
use hyper::http::Uri;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::kind::Kind;
use crate::client::tls::{Roots, client_config_of, roots_in};
use crate::config::Acme;
use crate::http::{Allowance, Bounded};
use crate::regular_file;
use crate::wall_clock::unix_now;

/// The certificates of a great many authorities.
const AUTHORITIES_BYTES_MAX: u64 = 4 << 20;
/// One request, from the name's resolution to the end of the answer.
const REQUEST_LIMIT: Duration = Duration::from_secs(30);
/// Requests of one attempt: an order takes about twelve, and what an authority is slow with is asked for again and again.
const REQUESTS_MAX: u32 = 60;
/// What is read of an answer: its head, and its body. A chain of certificates has some thousand bytes.
const HEAD_BYTES_MAX: usize = 32 * 1024;
const BODY_BYTES_MAX: usize = 256 * 1024;
/// And in all, with what its form takes, and what is told to nobody.
const ANSWER_BYTES_MAX: u64 = 1024 * 1024;

/// Why there is no answer that can be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(super) enum ExchangeError {
    /// Nobody is there.
    #[error("{host} cannot be reached: {error}")]
    Connect { host: String, error: std::io::Error },
    /// It is somebody else, as far as one can see.
    #[error("the certificate of {host} is not trusted: {error}")]
    Untrusted { host: String, error: std::io::Error },
    /// There are no authorities to trust.
    #[error("there is nobody to trust: {0}")]
    NoTrust(String),
    /// There was no answer in time.
    #[error("{0} has not answered within 30 seconds")]
    TimedOut(String),
    /// What is said is not HTTP, or broke off.
    #[error("{host}: {error}")]
    Http { host: String, error: hyper::Error },
    /// The answer broke off.
    #[error("the answer of {0} broke off")]
    Body(String),
    /// The answer is too long.
    #[error("the answer of {0} is longer than 256 KiB, or has no end")]
    TooLong(String),
    /// An error of something in front of the authority.
    #[error("{host} answers with HTTP status {status}")]
    Status { host: String, status: u16 },
    /// It names a place that is not to be asked.
    #[error("it names {0:?}, which is not to be asked: it takes https")]
    Url(String),
    /// It has us ask without end.
    #[error("it is not done after 60 requests")]
    TooMany,
}

impl ExchangeError {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Connect { .. } | Self::TimedOut(_) => Kind::Unreachable,
            Self::Untrusted { .. } | Self::NoTrust(_) => Kind::Untrusted,
            Self::Http { .. }
            | Self::Body(_)
            | Self::TooLong(_)
            | Self::Status { .. }
            | Self::Url(_)
            | Self::TooMany => Kind::Authority,
        }
    }
}

/// The way to an authority.
#[derive(Clone)]
pub(super) struct Exchange(Arc<Inner>);

struct Inner {
    is_plain: bool,
    tls: Result<TlsConnector, String>,
    /// A connection that waits for the next request.
    idle: Mutex<Idle>,
    requests: AtomicU32,
    /// Whether something that an authority counts was sent in this attempt.
    has_posted: AtomicBool,
    /// What the last refusal has said of when to ask again.
    wait_unix: AtomicU64,
}

/// A connection, and to which host and port it is.
type Idle = Option<((String, u16), Connection)>;

/// A connection, and how much may be read of it.
type Connection = (SendRequest<Full<Bytes>>, Allowance);

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

impl Exchange {
    /// Reads whom to trust, which is on the disk.
    pub(super) fn new(acme: &Acme) -> Self {
        let inner = Inner {
            is_plain: acme.directory.is_plain(),
            tls: connector(acme),
            idle: Mutex::default(),
            requests: AtomicU32::new(0),
            has_posted: AtomicBool::new(false),
            wait_unix: AtomicU64::new(0),
        };
        Self(Arc::new(inner))
    }

    /// An attempt begins: it has requests of its own.
    pub(super) fn begin(&self) {
        self.0.requests.store(0, Ordering::Relaxed);
        self.0.has_posted.store(false, Ordering::Relaxed);
        self.0.wait_unix.store(0, Ordering::Relaxed);
    }

    /// Whether something that an authority counts was sent in this attempt: neither its directory nor a nonce is.
    pub(super) fn has_posted(&self) -> bool {
        self.0.has_posted.load(Ordering::Relaxed)
    }

    /// When the authority wants to be asked again, if it has refused something and said so.
    pub(super) fn wait_unix(&self) -> Option<u64> {
        Some(self.0.wait_unix.load(Ordering::Relaxed)).filter(|wait| *wait > 0)
    }
}

impl HttpClient for Exchange {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let inner = Arc::clone(&self.0);
        Box::pin(async move {
            let other = |error: ExchangeError| Error::Other(Box::new(error));
            let response = inner.exchange(request).await.map_err(other)?;
            Ok(BytesResponse::from(response))
        })
    }
}

impl Inner {
    async fn exchange(&self, request: Request<BodyWrapper<Bytes>>) -> Result<Response<Full<Bytes>>, ExchangeError> {
        if self.requests.fetch_add(1, Ordering::Relaxed) >= REQUESTS_MAX {
            return Err(ExchangeError::TooMany);
        }
        let uri = request.uri().clone();
        let is_fit = uri.scheme_str() == Some(if self.is_plain { "http" } else { "https" });
        let Some(host) = uri.host().filter(|_| is_fit) else {
            return Err(ExchangeError::Url(uri.to_string().chars().take(200).collect()));
        };
        let host = host.trim_matches(['[', ']']).to_owned();
        let port = uri.port_u16().unwrap_or(if self.is_plain { 80 } else { 443 });
        match timeout(REQUEST_LIMIT, self.send((host.clone(), port), &uri, request)).await {
            Ok(response) => response,
            Err(_) => Err(ExchangeError::TimedOut(host)),
        }
    }

    async fn send(
        &self,
        whom: (String, u16),
        uri: &Uri,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Result<Response<Full<Bytes>>, ExchangeError> {
        let host = || whom.0.clone();
        let (mut head, body) = request.into_parts();
        let Ok(body) = body.collect().await;
        let body = body.to_bytes();
        let authority = uri.authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
        head.headers.extend(authority.map(|authority| (HOST, authority)));
        let agent = concat!("turnstone/", env!("CARGO_PKG_VERSION"), " instant-acme");
        head.headers.insert(USER_AGENT, HeaderValue::from_static(agent));
        head.uri = uri.path_and_query().map(|path| Uri::from(path.clone())).unwrap_or_default();
        let (response, mut sender, allowance) = loop {
            let waiting = self.idle().take().filter(|(of, (sender, _))| *of == whom && !sender.is_closed());
            let is_used = waiting.is_some();
            let (mut sender, allowance) = match waiting {
                Some((_, connection)) => connection,
                None => self.connect(&whom).await?,
            };
            allowance.renew(ANSWER_BYTES_MAX);
            self.has_posted.fetch_or(head.method == Method::POST, Ordering::Relaxed);
            let request = Request::from_parts(head.clone(), Full::new(body.clone()));
            match sender.send_request(request).await {
                Ok(response) => break (response, sender, allowance),
                Err(_) if allowance.is_used_up() => return Err(ExchangeError::TooLong(host())),
                // It had been closed at the other end meanwhile. A request that got through all the same has used its nonce up, and is refused.
                Err(error) if is_used && !error.is_parse() => {}
                Err(error) => return Err(ExchangeError::Http { host: host(), error }),
            }
        };
        let (head, body) = response.into_parts();
        let body = Limited::new(body, BODY_BYTES_MAX).collect().await.map_err(|error| {
            match error.is::<LengthLimitError>() {
                true => ExchangeError::TooLong(host()),
                false if allowance.is_used_up() => ExchangeError::TooLong(host()),
                false => ExchangeError::Body(host()),
            }
        })?;
        let body = body.to_bytes();
        if sender.ready().await.is_ok() {
            *self.idle() = Some((whom.clone(), (sender, allowance)));
        }
        if head.status.is_client_error() || head.status.is_server_error() {
            let wait = head.headers.get(RETRY_AFTER).and_then(|value| retry_after(value.to_str().ok()?));
            self.wait_unix.store(wait.unwrap_or(0), Ordering::Relaxed);
            let is_problem = |value: &HeaderValue| value.as_bytes().starts_with(b"application/problem+json");
            if !head.headers.get(CONTENT_TYPE).is_some_and(is_problem) {
                return Err(ExchangeError::Status { host: host(), status: head.status.as_u16() });
            }
        }
        Ok(Response::from_parts(head, Full::new(body)))
    }

    async fn connect(&self, whom: &(String, u16)) -> Result<Connection, ExchangeError> {
        let (host, port) = whom;
        let unreachable = |error| ExchangeError::Connect { host: host.clone(), error };
        let tcp = TcpStream::connect((host.as_str(), *port)).await.map_err(unreachable)?;
        let _ = tcp.set_nodelay(true);
        let stream: Box<dyn Stream> = if self.is_plain {
            Box::new(tcp)
        } else {
            let connector = self.tls.as_ref().map_err(|problem| ExchangeError::NoTrust(problem.clone()))?;
            let name = ServerName::try_from(host.clone()).map_err(|_| ExchangeError::Url(host.clone()))?;
            let tls = connector.connect(name, tcp).await.map_err(|error| match error.get_ref() {
                Some(inner) if inner.is::<rustls::Error>() => ExchangeError::Untrusted { host: host.clone(), error },
                _ => ExchangeError::Connect { host: host.clone(), error },
            })?;
            Box::new(tls)
        };
        let allowance = Allowance::default();
        allowance.renew(ANSWER_BYTES_MAX);
        let stream = TokioIo::new(Bounded::new(stream, allowance.clone()));
        let http = http1::Builder::new().max_buf_size(HEAD_BYTES_MAX).handshake(stream).await;
        let (sender, connection) = http.map_err(|error| ExchangeError::Http { host: host.clone(), error })?;
        // What is wrong with the connection shows in the answer.
        tokio::spawn(async move { drop(connection.await) });
        Ok((sender, allowance))
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Seconds or a date (RFC 9110 section 10.2.3), as Unix seconds.
pub fn retry_after(text: &str) -> Option<u64> {
    let text = text.trim();
    if let Ok(secs) = text.parse::<u64>() {
        return Some(unix_now().saturating_add(secs));
    }
    let at = httpdate::parse_http_date(text).ok()?;
    Some(at.duration_since(UNIX_EPOCH).ok()?.as_secs())
}

/// Trusts the authority's own roots if there is a file of them, and else whom the system trusts; `SSL_CERT_FILE` and `SSL_CERT_DIR` name others.
fn connector(acme: &Acme) -> Result<TlsConnector, String> {
    let roots = match &acme.ca {
        Some(path) => {
            let pem = regular_file::read(path, AUTHORITIES_BYTES_MAX);
            roots_in(path, &pem.map_err(|error| format!("{}: {error}", path.display()))?)
        }
        None => Roots::System.read(),
    };
    let config = roots.and_then(client_config_of).map_err(|error| error.to_string())?;
    Ok(TlsConnector::from(config))
}
