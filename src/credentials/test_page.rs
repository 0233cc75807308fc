//! The page with the self-test, for users and support people who have a key. Its files are anybody's; its credentials are not.

use hyper::header::{HeaderName, HeaderValue};
use hyper::{Method, StatusCode};

use super::issuer::Issuer;
use super::refused::Refused;
use super::request::Asked;
use crate::http::{Answer, response};
use crate::page;

/// The file that is asked for, or why not; `None` if it is not the page that is asked for.
pub(super) fn answer(issuer: &Issuer, asked: &Asked<'_>) -> Option<Result<Answer, Refused>> {
    let file = page::test_file_at(asked.head.uri.path()).filter(|_| issuer.test_page)?;
    if !matches!(asked.head.method, Method::GET | Method::HEAD) {
        return Some(Err(Refused::method(&asked.head.method, "GET, HEAD")));
    }
    let taken = issuer.take(asked.address, asked.now_micros);
    Some(taken.map(|()| {
        let mut answer = response(StatusCode::OK, file.content_type, file.body);
        let headers =
            page::HEADERS.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        answer.headers_mut().extend(headers);
        answer
    }))
}
