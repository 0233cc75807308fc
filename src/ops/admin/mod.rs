//! The admin API: what an operator sees of the running server, and changes in it, over HTTP and JSON.
//!
//! `docs/admin-api.openapi.json` describes it. Whoever may speak here rules the server: a socket for owner and group, or a port on
//! loopback with a token.

mod access;
mod control;
mod error;
mod input;
mod refusals;
mod sessions;
mod status;
mod users;
mod workers;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use hyper::body::Incoming;
use hyper::{Method, Request, StatusCode};
use serde_json::Value;
use tokio::sync::mpsc;

use super::endpoint::{Answer, Handler, response};
use super::run::Bound;
use super::status::Status;
use crate::config::{Admin, Endpoint};
use crate::counters::Counters;
use crate::net::{RelayPorts, sys};
use crate::text;
use crate::worker::Mailbox;

pub(super) use control::{Order, Orders};

use error::Refused;
use input::{body, query};
use workers::Workers;

const JSON: &str = "application/json";
const OPENAPI: &str = include_str!("../../../docs/admin-api.openapi.json");

/// Every path and its methods.
const ROUTES: &[(&str, &[Method])] = &[
    ("/v1/openapi.json", &[Method::GET]),
    ("/v1/status", &[Method::GET]),
    ("/v1/sessions", &[Method::GET, Method::DELETE]),
    (SESSION, &[Method::GET, Method::DELETE]),
    ("/v1/users", &[Method::GET]),
    ("/v1/refusals", &[Method::GET]),
    ("/v1/config", &[Method::GET]),
    ("/v1/reload", &[Method::POST]),
    ("/v1/drain", &[Method::POST]),
    ("/v1/log-level", &[Method::GET, Method::PUT]),
];
const SESSION: &str = "/v1/sessions/{id}";

/// The admin API of the running server.
pub(super) struct AdminApi {
    admin: Admin,
    status: Arc<Status>,
    workers: Workers,
    counters: Vec<Arc<Counters>>,
    relay_ports: Arc<RelayPorts>,
    bound: Bound,
    orders: mpsc::Sender<Order>,
    clock: Clock,
}

/// What the API shows.
pub(super) struct Shown {
    pub(super) status: Arc<Status>,
    pub(super) mailboxes: Vec<Arc<Mailbox>>,
    pub(super) counters: Vec<Arc<Counters>>,
    pub(super) relay_ports: Arc<RelayPorts>,
    pub(super) bound: Bound,
}

impl AdminApi {
    /// The API, and the orders that the supervisor has to carry out.
    pub(super) fn new(admin: Admin, shown: Shown) -> (Self, Orders) {
        let (orders, received) = control::channel();
        let Shown { status, mailboxes, counters, relay_ports, bound } = shown;
        let workers = Workers::new(mailboxes);
        (Self { admin, status, workers, counters, relay_ports, bound, orders, clock: Clock::new() }, received)
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Answer, Refused> {
        let is_port = matches!(self.admin.listen, Endpoint::Tcp(_));
        access::check(&request, is_port, self.admin.token.as_ref())?;
        let (head, content) = request.into_parts();
        let path = head.uri.path();
        let (route, id) = match path.strip_prefix("/v1/sessions/") {
            Some(id) if !id.is_empty() && !id.contains('/') => (SESSION, id),
            _ => (path, ""),
        };
        let Some((route, methods)) = ROUTES.iter().find(|(known, _)| *known == route) else {
            return Err(Refused::not_found(format!("no path {path}; GET /v1/openapi.json lists them")));
        };
        if !methods.contains(&head.method) {
            return Err(Refused::method(&head.method, methods));
        }
        let is_get = head.method == Method::GET;
        let query = |known: &[&str]| query(head.uri.query(), known);
        let (mut status, nothing) = (StatusCode::OK, &[][..]);
        let value = match *route {
            "/v1/openapi.json" => {
                query(nothing)?;
                return Ok(response(StatusCode::OK, JSON, OPENAPI));
            }
            "/v1/sessions" if is_get => self.list_sessions(&query(sessions::LIST_KEYS)?).await?,
            "/v1/sessions" => self.end_sessions(&query(sessions::FILTER_KEYS)?).await?,
            "/v1/users" => self.list_users(&query(users::KEYS)?).await?,
            "/v1/refusals" => self.list_refusals(&query(refusals::KEYS)?).await?,
            "/v1/reload" => self.reload(&query(control::RELOAD_KEYS)?).await?,
            _ => {
                query(nothing)?;
                match *route {
                    "/v1/config" => self.show_config().await?,
                    "/v1/drain" => {
                        status = StatusCode::ACCEPTED;
                        self.drain(body(&head.headers, content).await?).await?
                    }
                    "/v1/log-level" if is_get => self.show_log_level().await?,
                    "/v1/log-level" => self.set_log_level(body(&head.headers, content).await?).await?,
                    SESSION if is_get => self.show_session(id).await?,
                    SESSION => self.end_session(id).await?,
                    "/v1/status" => self.show_status().await?,
                    _ => return Err(Refused::not_found(format!("no path {path}"))),
                }
            }
        };
        Ok(json(status, &value))
    }
}

impl Handler for AdminApi {
    async fn respond(&self, request: Request<Incoming>) -> Answer {
        self.answer(request).await.unwrap_or_else(|refused| refused.answer())
    }
}

fn json(status: StatusCode, value: &Value) -> Answer {
    response(status, JSON, text::json(value))
}

/// From the workers' monotonic clock to the calendar. The distance of the two is read once, so that a moment is shown alike
/// every time.
struct Clock {
    unix_minus_monotonic_micros: u64,
}

impl Clock {
    fn new() -> Self {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let unix_micros = u64::try_from(unix.as_micros()).unwrap_or(u64::MAX);
        Self { unix_minus_monotonic_micros: unix_micros.saturating_sub(sys::clocks().0) }
    }

    fn unix_secs(&self, micros: u64) -> u64 {
        micros.saturating_add(self.unix_minus_monotonic_micros) / 1_000_000
    }
}
