//! What is answered.

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde_json::Value;

use crate::text;

/// An answer.
pub(crate) type Answer = Response<Full<Bytes>>;

pub(crate) const JSON: &str = "application/json";

pub(crate) fn json(status: StatusCode, value: &Value) -> Answer {
    response(status, JSON, text::json(value))
}

/// An answer that nobody may keep.
pub(crate) fn response(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
