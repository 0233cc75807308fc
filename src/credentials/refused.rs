//! What is answered in place of a credential.

use std::fmt;

use hyper::header::{ALLOW, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use super::revoke::NotRevoked;
use super::stats::Outcome;
use crate::http::{Answer, json as json_answer, response};

/// A refusal: `{"error":{"code":...,"message":...}}`, or as the shape of the request has it.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) status: StatusCode,
    /// For programs; the OpenAPI document lists them.
    pub(super) code: &'static str,
    /// For people. It has nothing of a key in it.
    pub(super) message: String,
    pub(super) outcome: Outcome,
    allow: Option<HeaderValue>,
    retry_after_secs: Option<u64>,
}

impl Refused {
    fn new(status: StatusCode, code: &'static str, outcome: Outcome, message: impl fmt::Display) -> Self {
        Self { status, code, message: message.to_string(), outcome, allow: None, retry_after_secs: None }
    }

    /// A field, a parameter or the body is wrong.
    pub(super) fn bad_request(message: impl fmt::Display) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", Outcome::BadRequest, message)
    }

    /// There is no key, or one that nobody has.
    pub(super) fn unauthorized(message: impl fmt::Display) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", Outcome::Unauthorized, message)
    }

    /// The page's origin is not one of the key's.
    pub(super) fn origin(message: impl fmt::Display) -> Self {
        Self::new(StatusCode::FORBIDDEN, "origin_not_allowed", Outcome::Origin, message)
    }

    /// The key is not for that.
    pub(super) fn out_of_bounds(code: &'static str, message: impl fmt::Display) -> Self {
        Self::new(StatusCode::FORBIDDEN, code, Outcome::Bounds, message)
    }

    /// What would be made is revoked.
    pub(super) fn revoked(user: &str) -> Self {
        let message = format!(
            "a credential of {user:?} that expires then is revoked: turnstone revoke --list says what is; undo it, or ask for a longer ttl \
             if only what was issued before is revoked"
        );
        Self::new(StatusCode::FORBIDDEN, "user_revoked", Outcome::Bounds, message)
    }

    /// No such path.
    pub(super) fn not_found(message: impl fmt::Display) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", Outcome::NotFound, message)
    }

    /// The path has other methods.
    pub(super) fn method(method: &Method, allowed: &str) -> Self {
        let message = format!("{method} is not a method of this path; expected {allowed}");
        let refused = Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", Outcome::Method, message);
        Self { allow: HeaderValue::from_str(allowed).ok(), ..refused }
    }

    /// The body is too long.
    pub(super) fn body_too_large(bytes_max: usize) -> Self {
        let message = format!("the body has more than {bytes_max} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", Outcome::BodyTooLarge, message)
    }

    /// The body did not come in time.
    pub(super) fn too_slow() -> Self {
        let message = "the body was not there in time";
        Self::new(StatusCode::REQUEST_TIMEOUT, "request_timeout", Outcome::TooSlow, message)
    }

    /// The body is of another kind.
    pub(super) fn media_type(expected: &str) -> Self {
        let message = format!("expected Content-Type: {expected}");
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", Outcome::BadRequest, message)
    }

    /// A user without a name cannot be given one.
    pub(super) fn no_randomness() -> Self {
        let message = "the system gives no random bytes for the name of a user; try again, or name one";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "no_randomness", Outcome::Failed, message)
    }

    /// It is not revoked, or not for good.
    pub(super) fn not_revoked(why: NotRevoked) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "not_revoked", Outcome::Failed, why)
    }

    /// Too much was asked for with a key.
    pub(super) fn key_rate(id: &str, retry_after_secs: u64) -> Self {
        let message = format!(
            "more requests than the key {id:?} may make; try again in {retry_after_secs} s, or raise its requests-per-second"
        );
        let refused = Self::new(StatusCode::TOO_MANY_REQUESTS, "key_rate_limited", Outcome::KeyRate, message);
        Self { retry_after_secs: Some(retry_after_secs), ..refused }
    }

    /// Too much was asked for from an address.
    pub(super) fn network_rate() -> Self {
        let message = "more requests than your network may make; try again in a second, or raise requests-per-network-per-second in \
                       [credentials]";
        let refused = Self::new(StatusCode::TOO_MANY_REQUESTS, "network_rate_limited", Outcome::NetworkRate, message);
        Self { retry_after_secs: Some(1), ..refused }
    }

    /// Too much was asked for from one network with a key that is in a page.
    pub(super) fn key_rate_of_network(id: &str) -> Self {
        let message = format!(
            "more requests than one network may make with the key {id:?}, which is in a page; try again in a second, or raise its \
             requests-per-second, of which a network has a tenth"
        );
        let refused = Self::new(StatusCode::TOO_MANY_REQUESTS, "key_rate_limited", Outcome::KeyRate, message);
        Self { retry_after_secs: Some(1), ..refused }
    }

    /// The answer in our own words.
    pub(super) fn answer(&self) -> Answer {
        self.answer_as(&json!({ "error": { "code": self.code, "message": self.message } }), "Bearer")
    }

    /// The answer with another body, and the scheme of authentication that the client should use.
    pub(super) fn answer_as(&self, body: &Value, scheme: &'static str) -> Answer {
        self.dress(json_answer(self.status, body), scheme)
    }

    /// The answer with another status, too.
    pub(super) fn answer_with(&self, status: StatusCode, body: &Value) -> Answer {
        self.dress(json_answer(status, body), "Bearer")
    }

    /// The answer as text, after what has failed.
    pub(super) fn plain_answer(&self, failed: &str) -> Answer {
        let text = format!("{failed}: {:?}\n", self.message);
        self.dress(response(self.status, "text/plain; charset=utf-8", text), "Bearer")
    }

    fn dress(&self, mut answer: Answer, scheme: &'static str) -> Answer {
        let is_unauthorized = answer.status() == StatusCode::UNAUTHORIZED;
        let headers = answer.headers_mut();
        if is_unauthorized {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(scheme));
        }
        if let Some(allow) = &self.allow {
            headers.insert(ALLOW, allow.clone());
        }
        if let Some(secs) = self.retry_after_secs {
            headers.insert(RETRY_AFTER, HeaderValue::from(secs));
        }
        answer
    }
}
