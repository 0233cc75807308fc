//! What comes with a request: the query string and the body, both read strictly.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

use hyper::HeaderMap;
use hyper::body::{Body, Bytes};
use hyper::header::CONTENT_TYPE;
use serde_json::Value;

use super::error::Refused;
use crate::http::{BadBody, read_body};

/// The longest body.
const BODY_BYTES_MAX: usize = 16 * 1024;

/// The parameters of a query string, decoded.
pub(super) struct Query(BTreeMap<String, String>);

/// Reads a query string that may have these keys, each once.
pub(super) fn query(text: Option<&str>, known: &[&str]) -> Result<Query, Refused> {
    let mut values = BTreeMap::new();
    for (key, value) in form_urlencoded::parse(text.unwrap_or_default().as_bytes()) {
        if !known.contains(&key.as_ref()) {
            let expected = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            return Err(Refused::bad_request(format!("unknown parameter {key:?}; expected {expected}")));
        }
        // What is not UTF-8 is decoded to this; it must not name anybody.
        if value.contains(char::REPLACEMENT_CHARACTER) {
            return Err(Refused::bad_request(format!("{key} is not UTF-8")));
        }
        if values.insert(key.to_string(), value.into_owned()).is_some() {
            return Err(Refused::bad_request(format!("{key} is there twice")));
        }
    }
    Ok(Query(values))
}

impl Query {
    /// The parameters as they go on to another node.
    pub(super) fn encoded(&self) -> String {
        form_urlencoded::Serializer::new(String::new()).extend_pairs(&self.0).finish()
    }

    /// A text that is not empty.
    pub(super) fn text(&self, key: &str) -> Result<Option<&str>, Refused> {
        match self.0.get(key).map(String::as_str) {
            Some("") => Err(Refused::bad_request(format!("{key} is empty"))),
            value => Ok(value),
        }
    }

    /// A value that is parsed; `expected` says what would be right.
    pub(super) fn parsed<T: FromStr>(&self, key: &str, expected: &str) -> Result<Option<T>, Refused> {
        let Some(text) = self.text(key)? else { return Ok(None) };
        let wrong = |_| Refused::bad_request(format!("{key} {text:?}: expected {expected}"));
        text.parse().map(Some).map_err(wrong)
    }

    /// One of these values, by its name.
    pub(super) fn one_of<T: Copy>(&self, key: &str, choices: &[(&str, T)]) -> Result<Option<T>, Refused> {
        let Some(text) = self.text(key)? else { return Ok(None) };
        let found = choices.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
        let names = || choices.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        found.map(Some).ok_or_else(|| Refused::bad_request(format!("{key} {text:?}: expected one of {}", names())))
    }

    /// How many answers are wanted, from 1 to `max`.
    pub(super) fn limit(&self, default: usize, max: usize) -> Result<usize, Refused> {
        let expected = format!("a number from 1 to {max}");
        match self.parsed::<usize>("limit", &expected)? {
            None => Ok(default),
            Some(limit) if (1..=max).contains(&limit) => Ok(limit),
            Some(limit) => Err(wrong("limit", limit, &expected)),
        }
    }
}

/// A value that cannot be used.
pub(super) fn wrong(key: &str, value: impl Display, expected: &str) -> Refused {
    Refused::bad_request(format!("{key} {value}: expected {expected}"))
}

/// Reads a body: JSON of at most 16 KiB, or nothing.
pub(super) async fn body<B>(headers: &HeaderMap, body: B) -> Result<Option<Value>, Refused>
where
    B: Body<Data = Bytes> + Unpin,
{
    let bytes = read_body(body, BODY_BYTES_MAX).await.map_err(|bad| match bad {
        BadBody::CutOff => Refused::bad_request("the body ends before its end"),
        BadBody::TooLong => Refused::body_too_large(format!("the body has more than {BODY_BYTES_MAX} bytes")),
    })?;
    if bytes.is_empty() {
        return Ok(None);
    }
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    if !media_type.eq_ignore_ascii_case("application/json") {
        return Err(Refused::media_type("expected Content-Type: application/json"));
    }
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| Refused::bad_request(format!("the body is not JSON: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_strings_are_decoded_and_strict() {
        let known = &["user", "limit"][..];
        let user = |text: &str| {
            let query = query(Some(text), known).ok()?;
            query.text("user").ok()?.map(str::to_owned)
        };
        assert_eq!(user("user=zo%C3%AB%26+%2B&limit=1").as_deref(), Some("zo\u{eb}& +"));
        assert_eq!(user("limit=1"), None);
        for bad in ["user=%FF", "user=a&user=b", "usr=a", "user=", "user", "=a"] {
            assert_eq!(user(bad), None, "{bad}");
        }
        for (text, limit) in [("", Some(7)), ("limit=1", Some(1)), ("limit=9", Some(9)), ("limit=0", None)] {
            assert_eq!(query(Some(text), known).ok().and_then(|query| query.limit(7, 9).ok()), limit, "{text}");
        }
        for bad in ["limit=10", "limit=-1", "limit=x", "limit=99999999999999999999"] {
            assert!(query(Some(bad), known).is_ok_and(|query| query.limit(7, 9).is_err()), "{bad}");
        }
    }
}
