//! What the API answers when it does not do what it is asked for.

use std::fmt;

use hyper::header::{ALLOW, HeaderValue, WWW_AUTHENTICATE};
use hyper::{Method, StatusCode};
use serde_json::json;

use crate::http::{Answer, json as json_answer};

/// A refusal: `{"error":{"code":...,"message":...}}`.
#[derive(Debug)]
pub(super) struct Refused {
    status: StatusCode,
    /// For programs; the OpenAPI document lists them.
    code: &'static str,
    /// For people.
    message: String,
    allow: Option<HeaderValue>,
}

impl Refused {
    fn new(status: StatusCode, code: &'static str, message: impl fmt::Display) -> Self {
        Self { status, code, message: message.to_string(), allow: None }
    }

    /// A parameter or a body is wrong.
    pub(super) fn bad_request(message: impl fmt::Display) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", message)
    }

    /// The token is missing or wrong.
    pub(super) fn unauthorized(message: impl fmt::Display) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", message)
    }

    /// The request comes from a web page.
    pub(super) fn forbidden(message: impl fmt::Display) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", message)
    }

    /// No such path or session.
    pub(super) fn not_found(message: impl fmt::Display) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    /// The path has other methods.
    pub(super) fn method(method: &Method, allowed: &[Method]) -> Self {
        let allowed = allowed.iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
        let message = format!("{method} is not a method of this path; expected {allowed}");
        let allow = HeaderValue::from_str(&allowed).ok();
        Self { allow, ..Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message) }
    }

    /// The configuration is not valid, and the running one stays.
    pub(super) fn config_invalid(message: impl fmt::Display) -> Self {
        Self::new(StatusCode::CONFLICT, "config_invalid", message)
    }

    /// There is no room for more.
    pub(super) fn full(message: impl fmt::Display) -> Self {
        Self::new(StatusCode::CONFLICT, "full", message)
    }

    /// It is done, and will not outlive the server.
    pub(super) fn not_kept(message: impl fmt::Display) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "not_kept", message)
    }

    /// The body is too long.
    pub(super) fn body_too_large(message: impl fmt::Display) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message)
    }

    /// The body is not JSON.
    pub(super) fn media_type(message: impl fmt::Display) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message)
    }

    /// A worker does not answer.
    pub(super) fn worker_stuck(number: usize) -> Self {
        let message = format!("worker {number} does not answer");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "worker_stuck", message)
    }

    /// Others are asking the workers, and the time is over.
    pub(super) fn busy() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", "other requests are before this one; try again")
    }

    /// Something else has to end first.
    pub(super) fn not_now(message: impl fmt::Display) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", message)
    }

    /// The server is ending.
    pub(super) fn stopping() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", "the server is stopping")
    }

    pub(super) fn answer(self) -> Answer {
        let body = json!({ "error": { "code": self.code, "message": self.message } });
        let mut answer = json_answer(self.status, &body);
        if self.status == StatusCode::UNAUTHORIZED {
            answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(allow) = self.allow {
            answer.headers_mut().insert(ALLOW, allow);
        }
        answer
    }
}
