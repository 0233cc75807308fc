//! The endpoint for metrics and health: `/metrics`, `/healthz`, `/readyz`.

use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{ACCEPT, ALLOW};
use hyper::{Method, Request, StatusCode};
use tokio::time::sleep;

use super::exposition::Exposition;
use super::metrics::Metrics;
use super::status::Status;
use super::web_page::refuse_web_pages;
use super::workers::{Ping, Workers};
use crate::http::{Answer, Caller, Handler, response};
use crate::net::sys;

/// A worker that has not answered within this makes no progress.
const WORKER_LIMIT: Duration = Duration::from_secs(2);
const WORKER_POLL: Duration = Duration::from_millis(5);
const TEXT: &str = "text/plain; charset=utf-8";

/// What the endpoint shows.
pub(super) struct Monitor {
    /// Whether `/metrics` is for any Host, and so for web pages that found a name for its address, too.
    pub(super) any_host: bool,
    pub(super) metrics: Metrics,
    pub(super) status: Arc<Status>,
    pub(super) workers: Workers,
}

impl Handler for Monitor {
    async fn respond(&self, request: Request<Incoming>, caller: &Caller) -> Answer {
        caller.has_asked();
        let path = request.uri().path();
        if !matches!(path, "/metrics" | "/healthz" | "/readyz") {
            return response(StatusCode::NOT_FOUND, TEXT, "there are /metrics, /healthz and /readyz\n");
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut refusal = response(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD\n");
            refusal.headers_mut().insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
            return refusal;
        }
        if path == "/readyz" {
            if self.status.draining() {
                return response(StatusCode::SERVICE_UNAVAILABLE, TEXT, "draining\n");
            }
            if let Some(reason) = self.status.not_ready() {
                return response(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("{reason}\n"));
            }
        }
        match path {
            "/metrics" => self.metrics(&request).await,
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
}

impl Monitor {
    async fn metrics(&self, request: &Request<Incoming>) -> Answer {
        if let (false, Err(why)) = (self.any_host, refuse_web_pages(request)) {
            let message = format!("{why}; for others set allow-remote = true in [metrics]\n");
            return response(StatusCode::FORBIDDEN, TEXT, message);
        }
        let accepted = request.headers().get_all(ACCEPT).into_iter().filter_map(|accept| accept.to_str().ok());
        let exposition = Exposition::wanted(accepted);
        match self.metrics.text(self.answering().await) {
            Ok(text) => response(StatusCode::OK, exposition.content_type(), exposition.of(text)),
            Err(_) => response(StatusCode::INTERNAL_SERVER_ERROR, TEXT, "the metrics cannot be written\n"),
        }
    }

    /// Asks every worker for a sign of life; the number of one that gives none.
    async fn stuck_worker(&self) -> Option<usize> {
        self.asked().await.silent()
    }

    /// Asks every worker for a sign of life; how many give one.
    async fn answering(&self) -> usize {
        self.asked().await.answered()
    }

    /// What has come of asking every worker, when all have answered or time is up.
    async fn asked(&self) -> Ping {
        let ping = self.workers.ping();
        let limit_micros = ping.asked_micros.saturating_add(WORKER_LIMIT.as_micros() as u64);
        while ping.silent().is_some() && sys::clocks().0 <= limit_micros {
            sleep(WORKER_POLL).await;
        }
        ping
    }
}
