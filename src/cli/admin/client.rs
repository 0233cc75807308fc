//! A client of the admin API: one request a connection, each over within 10 seconds.

use std::error::Error as _;
use std::fmt::Display;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use form_urlencoded::Serializer;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::{Builder, Runtime};
use tokio::time::{sleep, timeout};

use crate::config::{ADMIN_TOKEN_ENV, AdminToken, Endpoint};

use super::super::output::{CliError, Exit};

/// A request, its answer included, must be over within this.
const LIMIT: Duration = Duration::from_secs(10);
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// A client of one server.
pub(super) struct Client {
    endpoint: Endpoint,
    token: Option<AdminToken>,
    /// What to look at when nobody listens.
    hint: String,
}

/// A request.
pub(super) struct Call<'a> {
    method: Method,
    path: String,
    query: Vec<(&'a str, &'a str)>,
    body: Option<Value>,
}

/// Why there is no answer, or none that is a success.
#[derive(Debug)]
pub(super) enum ClientError {
    /// Nobody listens there.
    NobodyThere(String),
    /// The API says no.
    Refused { status: u16, message: String },
    /// Anything else, in words.
    Failed(String),
}

impl<'a> Call<'a> {
    pub(super) fn new(method: Method, path: impl Into<String>) -> Self {
        Self { method, path: path.into(), query: Vec::new(), body: None }
    }

    pub(super) fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path)
    }

    /// Adds a parameter, if it is given.
    pub(super) fn query(mut self, key: &'a str, value: Option<&'a str>) -> Self {
        self.query.extend(value.map(|value| (key, value)));
        self
    }

    pub(super) fn body(self, body: Value) -> Self {
        Self { body: Some(body), ..self }
    }
}

impl Client {
    pub(super) fn new(endpoint: Endpoint, token: Option<AdminToken>, hint: String) -> Self {
        Self { endpoint, token, hint }
    }

    /// Asks, and waits for the answer.
    pub(super) fn ask(&self, call: Call<'_>) -> Result<Value, ClientError> {
        runtime().map_err(|error| ClientError::Failed(error.to_string()))?.block_on(self.call(call))
    }

    /// Asks within the time limit.
    pub(super) async fn call(&self, call: Call<'_>) -> Result<Value, ClientError> {
        let silent = |_| {
            ClientError::Failed(format!(
                "{}: no answer within {} s; the server hangs, or is stopped",
                self.endpoint,
                LIMIT.as_secs()
            ))
        };
        timeout(LIMIT, self.exchange(call)).await.map_err(silent)?
    }

    async fn exchange(&self, call: Call<'_>) -> Result<Value, ClientError> {
        let request = self.request(call)?;
        let answer = match &self.endpoint {
            Endpoint::Unix(path) => {
                let stream = connect(path).await.map_err(|error| self.unreached(&error))?;
                send(stream, request).await
            }
            Endpoint::Tcp(address) => {
                let stream = TcpStream::connect(address).await.map_err(|error| self.unreached(&error))?;
                send(stream, request).await
            }
        };
        let failed = |problem: &dyn Display| ClientError::Failed(format!("{}: {problem}", self.endpoint));
        let (status, body) = answer.map_err(|error| failed(&error))?;
        let value: Value = serde_json::from_slice(&body)
            .map_err(|_| failed(&format_args!("the answer ({status}) is not that of an admin API")))?;
        if (200..300).contains(&status) {
            return Ok(value);
        }
        match value.pointer("/error/message").and_then(Value::as_str) {
            Some(message) => Err(ClientError::Refused { status, message: message.to_owned() }),
            None => Err(failed(&format_args!("the answer ({status}) is not that of an admin API"))),
        }
    }

    fn request(&self, call: Call<'_>) -> Result<Request<Full<Bytes>>, ClientError> {
        let mut target = call.path;
        if !call.query.is_empty() {
            let query = Serializer::new(String::new()).extend_pairs(call.query).finish();
            target = format!("{target}?{query}");
        }
        let host = match &self.endpoint {
            Endpoint::Unix(_) => "localhost".to_owned(),
            Endpoint::Tcp(address) => address.to_string(),
        };
        let mut builder = Request::builder().method(call.method).uri(target).header(HOST, host);
        if let Some(token) = &self.token {
            builder = builder.header(AUTHORIZATION, [b"Bearer ", token.as_bytes()].concat());
        }
        let body = match call.body {
            Some(body) => {
                builder = builder.header(CONTENT_TYPE, "application/json");
                body.to_string().into()
            }
            None => Bytes::new(),
        };
        builder.body(Full::new(body)).map_err(|error| ClientError::Failed(error.to_string()))
    }

    fn unreached(&self, error: &io::Error) -> ClientError {
        let shown = &self.endpoint;
        let why = match (error.kind(), shown) {
            (io::ErrorKind::NotFound, _) => "there is no such socket",
            (io::ErrorKind::ConnectionRefused, _) => "nobody listens there",
            (io::ErrorKind::PermissionDenied, Endpoint::Unix(path)) => {
                return ClientError::Failed(format!("{shown}: permission denied{}", who_may(path)));
            }
            _ => return ClientError::Failed(format!("{shown}: {error}")),
        };
        ClientError::NobodyThere(format!("no admin API at {shown}: {why}\nhint: {}", self.hint))
    }
}

/// Connects as soon as there is room among those that wait to be accepted: a server that is stopped, or hangs, may have none.
async fn connect(path: &Path) -> io::Result<UnixStream> {
    const PAUSE: Duration = Duration::from_millis(50);
    loop {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => sleep(PAUSE).await,
            connected => return connected,
        }
    }
}

/// A runtime for one command.
pub(super) fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

impl From<ClientError> for CliError {
    fn from(error: ClientError) -> Self {
        let (exit, message) = match error {
            ClientError::NobodyThere(message) | ClientError::Failed(message) => (Exit::RunTime, message),
            ClientError::Refused { status: 401, message, .. } => {
                let hint = format!(
                    "hint: give the token of [admin] with --admin-token-file or {ADMIN_TOKEN_ENV}, or --config with the server's file"
                );
                (Exit::Usage, format!("{message}\n{hint}"))
            }
            ClientError::Refused { status: 404, message, .. } => (Exit::CheckFailed, message),
            ClientError::Refused { status: 400..500, message, .. } => (Exit::Usage, message),
            ClientError::Refused { message, .. } => (Exit::RunTime, message),
        };
        Self::Failed(exit, format!("error: {message}"))
    }
}

async fn send<S>(stream: S, request: Request<Full<Bytes>>) -> Result<(u16, Bytes), Unanswered>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let answer = async move {
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX);
        let body = body.collect().await.map_err(Unanswered::BrokenOff)?;
        Ok((status, body.to_bytes()))
    };
    // What is wrong with the connection shows in the answer.
    let (answer, _) = tokio::join!(answer, connection);
    answer
}

/// Why there is no answer.
#[derive(Debug, Error)]
enum Unanswered {
    #[error("the connection was closed without an answer; the server is busy or ending, try again")]
    Closed,
    #[error("{error}{}", error.source().map_or_else(String::new, |source| format!(": {source}")))]
    Http { error: hyper::Error },
    #[error("the answer broke off: {0}")]
    BrokenOff(Box<dyn std::error::Error + Send + Sync>),
}

impl From<hyper::Error> for Unanswered {
    fn from(error: hyper::Error) -> Self {
        if error.is_incomplete_message() || error.is_canceled() { Self::Closed } else { Self::Http { error } }
    }
}

/// Who may use a socket: owner and group of the first thing on the way to it that is closed to others.
fn who_may(socket: &Path) -> String {
    // What lies behind a closed directory cannot be looked at.
    let Some((path, metadata)) = socket.ancestors().find_map(|path| Some((path, path.metadata().ok()?))) else {
        return String::new();
    };
    let (owner, group) = (name("/etc/passwd", metadata.uid()), name("/etc/group", metadata.gid()));
    format!(
        "\nhint: {} is for its owner {owner} and the group {group} (mode {:04o}): use sudo, or become a member of the group",
        path.display(),
        metadata.mode() & 0o7777
    )
}

/// The name of a user or group of this host; its number, if it has none.
fn name(file: &str, number: u32) -> String {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let mut lines = text.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let found = lines.find_map(|fields| match fields.as_slice() {
        [name, _, id, ..] if id.parse() == Ok(number) => Some((*name).to_owned()),
        _ => None,
    });
    found.unwrap_or_else(|| number.to_string())
}
