//! Pages of other origins (the CORS protocol of the Fetch standard): they may ask with the keys that are for them.

use hyper::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE,
    HeaderMap, HeaderValue, ORIGIN, VARY,
};
use hyper::{Method, StatusCode};

use super::refused::Refused;
use crate::http::{Answer, response};

/// How long a browser need not ask again.
const MAX_AGE_SECS: &str = "600";

/// The origin of the page that a request comes from, as its browser names it. More than one, or what is no text, is nobody's.
pub(super) fn origin_of(headers: &HeaderMap) -> Option<&str> {
    let mut all = headers.get_all(ORIGIN).into_iter();
    let origin = all.next()?;
    match all.next() {
        None => Some(origin.to_str().unwrap_or("null")),
        Some(_) => Some("null"),
    }
}

/// Lets the page read an answer.
pub(super) fn expose_to(answer: &mut Answer, origin: &str) {
    if let Ok(origin) = HeaderValue::from_str(origin) {
        answer.headers_mut().insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    }
}

/// Answers depend on who asks: no cache may give one page another's.
pub(super) fn vary(answer: &mut Answer) {
    answer.headers_mut().insert(VARY, HeaderValue::from_static("Origin"));
}

/// What a browser asks before a request that a form could not make (a preflight). No key comes with it.
pub(super) fn preflight(origin: Option<&str>, may_ask: bool, methods: &str) -> Result<Answer, Refused> {
    let Some(origin) = origin else { return Err(Refused::method(&Method::OPTIONS, methods)) };
    if !may_ask {
        return Err(Refused::origin(format!("no key is for pages of {origin:?}; add it to the origins of one")));
    }
    let mut answer = response(StatusCode::NO_CONTENT, "text/plain", "");
    let headers = answer.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("authorization, content-type"));
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(MAX_AGE_SECS));
    if let Ok(methods) = HeaderValue::from_str(methods) {
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
    }
    Ok(answer)
}
