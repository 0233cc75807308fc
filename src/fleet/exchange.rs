//! One question to one node: a GET over HTTP, of which nothing is followed or kept. The token is shown over TLS to who has the right
//! certificate, at a socket, at a loopback address, and elsewhere only where the configuration says so.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONNECTION, HOST, USER_AGENT};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::names::Name;
use super::report::{NodeReport, ReportError};
use crate::addr::SocketKind;
use crate::client::tls::{Roots, client_config_of, roots_in};
use crate::client::{io_words, unix_words};
use crate::config::{AdminToken, FleetConfig, NodeSource, NodeUrl};
use crate::http::{Allowance, Bounded};
use crate::regular_file;
use crate::state_file::on_disk;

/// What is read of an answer: its head, and its body. A page of a thousand refusals has some hundred thousand bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;
const BODY_BYTES_MAX: usize = 2 << 20;
/// A report has a few thousand, with its samples ten times as many.
const REPORT_BYTES_MAX: usize = 64 * 1024;
/// What is read of a connection besides the body: the head, what stands between the parts of a body, and what comes before the answer.
const BESIDES_BYTES_MAX: usize = 2 * HEAD_BYTES_MAX;
/// The certificates of a great many authorities.
const AUTHORITIES_BYTES_MAX: u64 = 4 << 20;
const THREAD: &str = "authorities";

/// Why there is no answer that can be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum NodeError {
    #[error("no answer within {} s", .0.as_secs_f32())]
    TimedOut(Duration),
    #[error("{0}")]
    Name(String),
    #[error("cannot be reached: {}", io_words(.0, SocketKind::Tcp))]
    Connect(std::io::Error),
    #[error("cannot be reached: {}", unix_words(.0))]
    Socket(std::io::Error),
    #[error(
        "its certificate is not trusted: {0}; ca and certificate-name in [fleet], or --fleet-ca of a command, say who is"
    )]
    Untrusted(std::io::Error),
    #[error("nobody can be trusted: {0}")]
    NoTrust(String),
    #[error("the token would go there in the clear; expected https://, or plain-http = true in [fleet]")]
    InTheClear,
    #[error("what answers is no HTTP: {0}")]
    Http(hyper::Error),
    #[error("the answer broke off")]
    BrokenOff,
    #[error("the answer is longer than {} KiB", .0 / 1024)]
    TooLong(usize),
    #[error("it refuses the token (401): all nodes have the same one in [fleet]")]
    Token,
    #[error("it answers with HTTP status {0}, which is not followed")]
    Elsewhere(u16),
    #[error("it answers with HTTP status {0}: is that the listen of [fleet] there?")]
    Status(u16),
    #[error("{0}")]
    Report(#[from] ReportError),
    #[error("the answer is not the JSON that a node of this version has")]
    NotJson,
}

impl NodeError {
    /// What it is, and what to do.
    pub(crate) fn told(&self) -> String {
        let remedy = match self {
            Self::Connect(_) => "does the server run there, with [fleet] listen, and may this host reach that port?",
            Self::Socket(_) => "does the server run, with [fleet] listen there?",
            Self::TimedOut(_) => "a firewall may drop what goes there, or the server hangs",
            Self::Name(_) => "correct nodes in [fleet], or the record",
            Self::Http(_) => "is that the port of [fleet] listen, and both https or both plain-http?",
            _ => return self.to_string(),
        };
        format!("{self}; {remedy}")
    }
}

/// Asks one node.
pub(crate) struct Asker {
    url: NodeUrl,
    host: String,
    token: Option<AdminToken>,
    plain_http: bool,
    tls: Result<(TlsConnector, ServerName<'static>), String>,
    name: Name,
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// What the askers of all nodes share.
pub(crate) struct Credentials {
    token: Option<AdminToken>,
    plain_http: bool,
    tls: Result<TlsConnector, String>,
    certificate_name: Option<String>,
}

impl Credentials {
    /// Reads whom to trust, as it is now.
    pub(crate) async fn of(fleet: &FleetConfig) -> Self {
        let has_tls =
            fleet.nodes.iter().any(|node| !matches!(node, NodeSource::Url(NodeUrl::Http { .. } | NodeUrl::Unix(_))));
        let tls = match has_tls {
            true => trusting(fleet.ca.clone()).await.map(TlsConnector::from),
            false => Err("no node is asked over TLS".to_owned()),
        };
        Self {
            token: fleet.token.clone(),
            plain_http: fleet.plain_http,
            tls,
            certificate_name: fleet.certificate_name.clone(),
        }
    }
}

impl Asker {
    pub(crate) fn new(url: NodeUrl, credentials: &Credentials) -> Self {
        let host = match &url {
            NodeUrl::Unix(_) => "localhost".to_owned(),
            url => url.to_string().split_once("://").map(|(_, authority)| authority.to_owned()).unwrap_or_default(),
        };
        let tls = credentials.tls.clone().and_then(|connector| {
            let of_url = match &url {
                NodeUrl::Https { host, .. } => host.clone(),
                _ => String::new(),
            };
            let name = credentials.certificate_name.clone().unwrap_or(of_url);
            let name = ServerName::try_from(name).map_err(|error| error.to_string())?;
            Ok((connector, name))
        });
        Self {
            url,
            host,
            token: credentials.token.clone(),
            plain_http: credentials.plain_http,
            tls,
            name: Name::default(),
        }
    }

    /// The same, trusting others.
    pub(crate) fn with(&self, credentials: &Credentials) -> Self {
        Self { name: self.name.clone(), ..Self::new(self.url.clone(), credentials) }
    }

    pub(crate) fn url(&self) -> &NodeUrl {
        &self.url
    }

    /// Where it has been found to be.
    pub(crate) fn addresses(&self) -> Vec<IpAddr> {
        match &self.url {
            NodeUrl::Unix(_) => Vec::new(),
            url => self.name.found(url.host()),
        }
    }

    /// What it says of itself. `query` is what is wanted besides.
    pub(crate) async fn report(&self, query: &str, limit: Duration) -> Result<NodeReport, NodeError> {
        let body = self.get(&format!("/v1/node{query}"), REPORT_BYTES_MAX, limit).await?;
        Ok(NodeReport::read(&body)?)
    }

    /// The answer to a question of the admin API that reads.
    pub(crate) async fn json<T: DeserializeOwned + Send + 'static>(
        &self,
        target: &str,
        limit: Duration,
    ) -> Result<T, NodeError> {
        self.json_within(target, BODY_BYTES_MAX, limit).await
    }

    /// The same, where it has at most so many bytes.
    pub(crate) async fn json_within<T: DeserializeOwned + Send + 'static>(
        &self,
        target: &str,
        bytes_max: usize,
        limit: Duration,
    ) -> Result<T, NodeError> {
        let body = self.get(target, bytes_max, limit).await?;
        let bytes = body.len();
        let read = move || serde_json::from_slice(&body).map_err(|_| NodeError::NotJson);
        match bytes {
            ..=REPORT_BYTES_MAX => read(),
            // Nobody else of this thread is to wait until it is read.
            _ => spawn_blocking(read).await.unwrap_or(Err(NodeError::NotJson)),
        }
    }

    async fn get(&self, target: &str, bytes_max: usize, limit: Duration) -> Result<Bytes, NodeError> {
        let asked = timeout(limit, self.exchange(target, bytes_max)).await;
        asked.unwrap_or(Err(NodeError::TimedOut(limit)))
    }

    async fn exchange(&self, target: &str, bytes_max: usize) -> Result<Bytes, NodeError> {
        let stream = self.connect().await?;
        let allowance = Allowance::default();
        allowance.renew((bytes_max + BESIDES_BYTES_MAX) as u64);
        let stream = TokioIo::new(Bounded::new(stream, allowance.clone()));
        let builder = http1::Builder::new().max_buf_size(HEAD_BYTES_MAX).clone();
        let (mut sender, connection) = builder.handshake(stream).await.map_err(NodeError::Http)?;
        let mut request = Request::get(target)
            .header(HOST, &self.host)
            .header(CONNECTION, "close")
            .header(USER_AGENT, concat!("turnstone/", env!("CARGO_PKG_VERSION"), " fleet"));
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, [b"Bearer ", token.as_bytes()].concat());
        }
        let request = request.body(Empty::<Bytes>::new()).map_err(|_| NodeError::NotJson)?;
        let answer = async {
            let answer = sender.send_request(request).await.map_err(NodeError::Http)?;
            match answer.status().as_u16() {
                200 => {}
                401 => return Err(NodeError::Token),
                status @ 300..=399 => return Err(NodeError::Elsewhere(status)),
                status => return Err(NodeError::Status(status)),
            }
            let body = Limited::new(answer.into_body(), bytes_max).collect().await;
            body.map(|body| body.to_bytes()).map_err(|error| match error.is::<LengthLimitError>() {
                true => NodeError::TooLong(bytes_max),
                false => NodeError::BrokenOff,
            })
        };
        tokio::pin!(answer);
        let answer = tokio::select! {
            answer = &mut answer => answer,
            // What is wrong with the connection shows in the answer; what is over has been received by then.
            _ = connection => answer.await,
        };
        answer.map_err(|error| match error {
            NodeError::Http(_) | NodeError::BrokenOff if allowance.is_used_up() => NodeError::TooLong(bytes_max),
            error => error,
        })
    }

    async fn connect(&self) -> Result<Box<dyn Stream>, NodeError> {
        match &self.url {
            NodeUrl::Unix(path) => at_socket(path).await,
            NodeUrl::Http { host, port } => {
                if self.url.in_the_clear().is_some() && !self.plain_http {
                    return Err(NodeError::InTheClear);
                }
                Ok(Box::new(self.tcp(host, *port).await?))
            }
            NodeUrl::Https { host, port } => {
                let (connector, name) = self.tls.as_ref().map_err(|why| NodeError::NoTrust(why.clone()))?;
                let tcp = self.tcp(host, *port).await?;
                let tls = connector.connect(name.clone(), tcp).await.map_err(|error| match error.get_ref() {
                    Some(inner) if inner.is::<rustls::Error>() => NodeError::Untrusted(error),
                    _ => NodeError::Connect(error),
                })?;
                Ok(Box::new(tls))
            }
        }
    }

    /// The first of its addresses that takes a connection.
    async fn tcp(&self, host: &str, port: u16) -> Result<TcpStream, NodeError> {
        let addresses = self.name.look_up(host, port).await.map_err(NodeError::Name)?;
        let tcp = TcpStream::connect(&addresses[..]).await.map_err(NodeError::Connect)?;
        let _ = tcp.set_nodelay(true);
        Ok(tcp)
    }
}

/// Trusts those in a file, or whom the system trusts. A disk that hangs, or a pipe in place of the file, holds up nobody.
async fn trusting(ca: Option<PathBuf>) -> Result<Arc<ClientConfig>, String> {
    let read = move || {
        let roots = match ca {
            Some(path) => match regular_file::read(&path, AUTHORITIES_BYTES_MAX) {
                Ok(pem) => roots_in(&path, &pem),
                Err(error) => return Ok(Err(format!("{}: {error}", path.display()))),
            },
            None => Roots::System.read(),
        };
        Ok(roots.and_then(client_config_of).map_err(|error| error.to_string()))
    };
    on_disk(THREAD, read).await.unwrap_or_else(|error| Err(error.to_string()))
}

async fn at_socket(path: &PathBuf) -> Result<Box<dyn Stream>, NodeError> {
    Ok(Box::new(UnixStream::connect(path).await.map_err(NodeError::Socket)?))
}

#[cfg(test)]
mod tests {
    use std::io::Error;

    use super::*;

    #[test]
    fn why_a_node_is_not_reached_is_said_in_words_with_what_to_do() {
        for (error, what) in [
            (
                NodeError::Connect(Error::from_raw_os_error(libc::ECONNREFUSED)),
                "nothing listens on this port; does the server run there",
            ),
            (
                NodeError::Connect(Error::from_raw_os_error(libc::EHOSTUNREACH)),
                "a firewall rejects what goes there; does",
            ),
            (
                NodeError::Socket(Error::from_raw_os_error(libc::ENOENT)),
                "there is no such socket: nothing listens there; does the server run",
            ),
            (
                NodeError::Socket(Error::from_raw_os_error(libc::ECONNREFUSED)),
                "nothing listens at this socket any more; does",
            ),
        ] {
            let told = error.told();
            assert!(
                told.starts_with("cannot be reached: ") && told.contains(what) && !told.contains("os error"),
                "{told}"
            );
        }
        assert_eq!(NodeError::Token.told(), NodeError::Token.to_string());
    }
}
