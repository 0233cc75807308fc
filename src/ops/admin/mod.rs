//! The admin API: what an operator sees of the running server, and changes in it, over HTTP and JSON.
//!
//! `docs/admin-api.openapi.json` describes it. Whoever may speak here rules the server: a socket for owner and group, or a port on
//! loopback with a token. Where the configuration wants it, the same endpoint shows the page, whose files anybody may have who reaches it:
//! what they show, they ask for with the token.

mod access;
mod api;
mod certificates;
mod control;
mod error;
mod fleet;
mod history;
mod input;
mod last_ends;
mod node;
mod questions;
mod realms;
mod refusals;
mod revocations;
mod self_test;
mod sessions;
mod status;
mod store;
mod suspensions;
mod users;

use std::net::IpAddr;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{Method, Request, StatusCode};

use crate::config::{AdminToken, Endpoint};
use crate::http::{Answer, Caller, Handler, JSON, json, response};
use crate::page;

pub(super) use access::WrongTokens;
pub(super) use api::Api;
pub(super) use node::NodeApi;

use access::Pages;
use error::Refused;
use input::{body, query};

const OPENAPI: &str = include_str!("../../../docs/admin-api.openapi.json");

/// Every path and its methods.
const ROUTES: &[(&str, &[Method])] = &[
    ("/v1/openapi.json", &[Method::GET]),
    ("/v1/status", &[Method::GET]),
    ("/v1/sessions", &[Method::GET, Method::DELETE]),
    (SESSION, &[Method::GET, Method::DELETE]),
    ("/v1/users", &[Method::GET]),
    ("/v1/history", &[Method::GET]),
    ("/v1/certificates", &[Method::GET]),
    ("/v1/self-test", &[Method::POST]),
    ("/v1/refusals", &[Method::GET]),
    ("/v1/revocations", &[Method::GET, Method::POST, Method::DELETE]),
    ("/v1/suspensions", &[Method::GET, Method::DELETE]),
    ("/v1/store", &[Method::GET]),
    ("/v1/node", &[Method::GET]),
    ("/v1/fleet", &[Method::GET]),
    ("/v1/fleet/sessions", &[Method::GET]),
    ("/v1/config", &[Method::GET]),
    ("/v1/reload", &[Method::POST]),
    ("/v1/drain", &[Method::POST]),
    ("/v1/log-level", &[Method::GET, Method::PUT]),
];
const SESSION: &str = "/v1/sessions/{id}";

/// What a GET of the page's files may be.
const OF_FILES: &[Method] = &[Method::GET, Method::HEAD];

/// The admin API of the running server, at one endpoint.
pub(super) struct AdminApi {
    pages: Pages,
    origins: Vec<String>,
    token: Option<AdminToken>,
    api: Arc<Api>,
}

impl AdminApi {
    pub(super) fn new(endpoint: &Endpoint, has_page: bool, token: Option<AdminToken>, api: Arc<Api>) -> Self {
        let pages = match endpoint {
            _ if has_page => Pages::Own,
            Endpoint::Tcp(_) => Pages::None,
            Endpoint::Unix(_) => Pages::Unreached,
        };
        Self { pages, origins: Vec::new(), token, api }
    }

    /// Whose page proxies show here.
    pub(super) fn shown_at(self, origins: Vec<String>) -> Self {
        Self { origins, ..self }
    }

    async fn answer(&self, request: Request<Incoming>, from: Option<IpAddr>) -> Result<Answer, Refused> {
        let file = page::file_at(request.uri().path()).filter(|_| self.pages == Pages::Own);
        access::check_origin(&request, self.pages, &self.origins, file.is_some_and(page::PageFile::is_opened))?;
        if let Some(file) = file {
            return match OF_FILES.contains(request.method()) {
                true => Ok(response(StatusCode::OK, file.content_type, file.body)),
                false => Err(Refused::method(request.method(), OF_FILES)),
            };
        }
        access::check_token(&request, self.token.as_ref(), (&self.api.status.wrong_tokens, from))?;
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
        let api = &*self.api;
        let is_get = head.method == Method::GET;
        let query = |known: &[&str]| query(head.uri.query(), known);
        let (mut status, nothing) = (StatusCode::OK, &[][..]);
        let value = match *route {
            "/v1/openapi.json" => {
                query(nothing)?;
                return Ok(response(StatusCode::OK, JSON, OPENAPI));
            }
            "/v1/sessions" if is_get => return sessions::list(api, &query(sessions::LIST_KEYS)?).await,
            "/v1/sessions" => sessions::end_all(api, &query(sessions::FILTER_KEYS)?).await?,
            "/v1/users" => return users::list(api, &query(users::KEYS)?).await,
            "/v1/refusals" => refusals::list(api, &query(refusals::KEYS)?).await?,
            "/v1/revocations" if is_get => revocations::list(api, &query(revocations::LIST_KEYS)?)?,
            "/v1/revocations" if head.method == Method::DELETE => {
                revocations::undo(api, &query(revocations::UNDO_KEYS)?).await?
            }
            "/v1/suspensions" if is_get => suspensions::list(api, &query(suspensions::LIST_KEYS)?)?,
            "/v1/suspensions" => suspensions::lift(api, &query(suspensions::LIFT_KEYS)?)?,
            "/v1/node" => node::show(api, &query(node::KEYS)?)?,
            "/v1/fleet/sessions" => fleet::search(api, &query(fleet::SESSION_KEYS)?).await?,
            "/v1/history" => history::list(api, &query(history::KEYS)?)?,
            "/v1/reload" => control::reload(api, &query(control::RELOAD_KEYS)?).await?,
            _ => {
                query(nothing)?;
                match *route {
                    "/v1/config" => control::show_config(api).await?,
                    "/v1/drain" => {
                        status = StatusCode::ACCEPTED;
                        control::drain(api, body(&head.headers, content).await?).await?
                    }
                    "/v1/revocations" => revocations::revoke(api, body(&head.headers, content).await?).await?,
                    "/v1/log-level" if is_get => control::show_log_level(api).await?,
                    "/v1/log-level" => control::set_log_level(api, body(&head.headers, content).await?).await?,
                    SESSION if is_get => sessions::show(api, id).await?,
                    SESSION => sessions::end(api, id).await?,
                    "/v1/certificates" => certificates::list(api),
                    "/v1/self-test" => self_test::prepare(api).await?,
                    "/v1/store" => store::show(api)?,
                    "/v1/fleet" => fleet::show(api).await?,
                    "/v1/status" => status::show(api).await?,
                    _ => return Err(Refused::not_found(format!("no path {path}"))),
                }
            }
        };
        Ok(json(status, &value))
    }
}

impl Handler for AdminApi {
    async fn respond(&self, request: Request<Incoming>, caller: &Caller) -> Answer {
        caller.has_asked();
        let mut answer = self.answer(request, caller.address).await.unwrap_or_else(|refused| refused.answer());
        if self.pages == Pages::Own {
            let headers = page::HEADERS
                .iter()
                .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
            answer.headers_mut().extend(headers);
        }
        answer
    }
}
