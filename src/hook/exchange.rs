//! One question, or one event, and its answer over HTTP. Connections are kept for the next.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, USER_AGENT};
use hyper::http::Uri;
use hyper_util::rt::TokioIo;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

use crate::addr::SocketKind;
use crate::client::{io_words, unix_words};
use crate::config::{Hook, HookEvents, HookUrl, WebhookToken};
use crate::http::{Allowance, Bounded};
use crate::state_file::on_disk;

/// What is read of an answer: its head, and its body.
const HEAD_BYTES_MAX: usize = 16 * 1024;
const BODY_BYTES_MAX: usize = 16 * 1024;
/// And in all, with what its form takes, and what is told to nobody.
const ANSWER_BYTES_MAX: u64 = 128 * 1024;

/// Why there is no answer that can be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HookError {
    /// There was none in time.
    #[error("no answer within the timeout")]
    TimedOut,
    /// Nobody is there, or it is somebody else.
    #[error("it cannot be reached: {}", io_words(.0, SocketKind::Tcp))]
    Connect(io::Error),
    /// The same at a socket in the file system.
    #[error("it cannot be reached: {}", unix_words(.0))]
    Socket(io::Error),
    /// What is said is not HTTP, or broke off.
    #[error("{0}")]
    Http(hyper::Error),
    /// The body broke off.
    #[error("the answer broke off")]
    Body,
    /// The body is too long, or what came before it.
    #[error("the answer is longer than 16 KiB, or has no end")]
    TooLong,
    /// An answer to another question.
    #[error("HTTP status {0}")]
    Status(u16),
    /// Not of the form.
    #[error("the answer cannot be used: {0}")]
    Malformed(String),
    /// The URL is of no use.
    #[error("the question cannot be put into a request")]
    Request,
}

impl HookError {
    /// Whether the application is not there, as far as one can see. Who says something, however wrong, is: what it says may be about this
    /// user alone, whose name any stranger may have made up.
    pub(super) fn is_of_all(&self) -> bool {
        matches!(self, Self::TimedOut | Self::Connect(_) | Self::Socket(_) | Self::Http(_) | Self::Body)
    }
}

/// Who is asked, or told.
pub(super) struct Target {
    url: HookUrl,
    token: Option<WebhookToken>,
    timeout: Duration,
    concurrency: usize,
    place: Place,
    path: String,
    host: String,
    /// Connections that wait for the next question.
    idle: Mutex<Vec<Connection>>,
}

/// A connection, and how much may be read of it.
type Connection = (SendRequest<Full<Bytes>>, Allowance);

enum Place {
    Unix(std::path::PathBuf),
    Tcp {
        host: String,
        port: u16,
    },
    /// Whom to trust is read from the disk for the first connection.
    Tls {
        host: String,
        port: u16,
        connector: Arc<OnceCell<TlsConnector>>,
    },
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

impl Target {
    pub(super) fn asking(hook: &Hook) -> Self {
        Self::new(&hook.url, hook.token.as_ref(), (hook.timeout, hook.concurrency))
    }

    pub(super) fn telling(events: &HookEvents) -> Self {
        Self::new(&events.url, events.token.as_ref(), (events.timeout, events.concurrency))
    }

    fn new(url: &HookUrl, token: Option<&WebhookToken>, (timeout, concurrency): (Duration, usize)) -> Self {
        let (place, path, host) = match url {
            HookUrl::Unix(path) => (Place::Unix(path.clone()), "/".to_owned(), "localhost".to_owned()),
            HookUrl::Http(url, _) => {
                let uri: Uri = url.expose().parse().unwrap_or_default();
                let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
                let (host, port) = url.host_and_port();
                let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
                let place = match uri.scheme_str() {
                    Some("https") => Place::Tls { host, port, connector: Arc::default() },
                    _ => Place::Tcp { host, port },
                };
                (place, path, authority)
            }
        };
        Self {
            url: url.clone(),
            token: token.cloned(),
            timeout,
            concurrency,
            place,
            path,
            host,
            idle: Mutex::default(),
        }
    }

    pub(super) fn is_of(&self, hook: &Hook) -> bool {
        (&self.url, &self.token, self.timeout, self.concurrency)
            == (&hook.url, &hook.token, hook.timeout, hook.concurrency)
    }

    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    pub(super) fn concurrency(&self) -> usize {
        self.concurrency
    }

    /// A message that may quote the URL, without what is not shown.
    pub(super) fn redact(&self, message: &str) -> String {
        match &self.url {
            HookUrl::Http(url, _) => url.redact(message),
            HookUrl::Unix(_) => message.to_owned(),
        }
    }

    /// Sends JSON, and returns the status and the body of the answer.
    pub(super) async fn post(&self, json: String) -> Result<(u16, Zeroizing<Vec<u8>>), HookError> {
        let body = Bytes::from(json);
        loop {
            let waiting = self.idle().pop();
            let is_used = waiting.is_some();
            let (mut sender, allowance) = match waiting {
                Some((sender, _)) if sender.is_closed() => continue,
                Some(connection) => connection,
                None => self.connect().await?,
            };
            allowance.renew(ANSWER_BYTES_MAX);
            let response = match sender.send_request(self.request(body.clone())?).await {
                Ok(response) => response,
                Err(_) if allowance.is_used_up() => return Err(HookError::TooLong),
                // It had been closed at the other end meanwhile.
                Err(error) if is_used && !error.is_parse() => continue,
                Err(error) => return Err(HookError::Http(error)),
            };
            let status = response.status().as_u16();
            let body = Limited::new(response.into_body(), BODY_BYTES_MAX).collect().await;
            let body = body.map_err(|error| match error.is::<LengthLimitError>() {
                true => HookError::TooLong,
                false if allowance.is_used_up() => HookError::TooLong,
                false => HookError::Body,
            });
            let body = body?.to_bytes();
            if sender.ready().await.is_ok() {
                let mut idle = self.idle();
                if idle.len() < self.concurrency {
                    idle.push((sender, allowance));
                }
            }
            return Ok((status, Zeroizing::new(body.to_vec())));
        }
    }

    fn request(&self, body: Bytes) -> Result<Request<Full<Bytes>>, HookError> {
        let mut request = Request::post(&self.path)
            .header(HOST, &self.host)
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, concat!("turnstone/", env!("CARGO_PKG_VERSION")));
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {}", token.expose()));
        }
        request.body(Full::new(body)).map_err(|_| HookError::Request)
    }

    async fn connect(&self) -> Result<Connection, HookError> {
        let tcp = async |host: &str, port: u16| {
            let stream = TcpStream::connect((host, port)).await?;
            stream.set_nodelay(true)?;
            Ok(stream)
        };
        let stream: Box<dyn Stream> = match &self.place {
            Place::Unix(path) => Box::new(UnixStream::connect(path).await.map_err(HookError::Socket)?),
            Place::Tcp { host, port } => Box::new(tcp(host, *port).await.map_err(HookError::Connect)?),
            Place::Tls { host, port, connector } => {
                let stream = tcp(host, *port).await.map_err(HookError::Connect)?;
                let name = ServerName::try_from(host.clone()).map_err(|_| HookError::Request)?;
                let connector = trust(connector).await.map_err(HookError::Connect)?;
                Box::new(connector.connect(name, stream).await.map_err(HookError::Connect)?)
            }
        };
        let allowance = Allowance::default();
        allowance.renew(ANSWER_BYTES_MAX);
        let stream = TokioIo::new(Bounded::new(stream, allowance.clone()));
        let http = http1::Builder::new().max_buf_size(HEAD_BYTES_MAX).handshake(stream).await;
        let (sender, connection) = http.map_err(HookError::Http)?;
        // What is wrong with the connection shows in the answer.
        tokio::spawn(async move { drop(connection.await) });
        Ok((sender, allowance))
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is there, or is read now; that goes on for the next who comes if this one has no time to wait.
async fn trust(connector: &Arc<OnceCell<TlsConnector>>) -> io::Result<TlsConnector> {
    if let Some(connector) = connector.get() {
        return Ok(connector.clone());
    }
    let connector = Arc::clone(connector);
    let read = async move { connector.get_or_try_init(|| on_disk("hook-trust", trusting)).await.cloned() };
    tokio::spawn(read).await.map_err(io::Error::other)?
}

/// Trusts whom the system trusts; `SSL_CERT_FILE` and `SSL_CERT_DIR` name others.
fn trusting() -> io::Result<TlsConnector> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let problem = found.errors.first().map(ToString::to_string).unwrap_or_default();
        return Err(io::Error::other(format!(
            "the system has no certificate authorities: no https application can be trusted {problem}"
        )));
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(io::Error::other)?.with_root_certificates(roots).with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}
