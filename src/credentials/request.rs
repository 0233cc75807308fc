//! A request as it has come, and what is read of it.

use std::borrow::Cow;
use std::cell::Cell;
use std::net::{IpAddr, SocketAddr};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap};
use hyper::http::request::Parts;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::refused::Refused;

const FORWARDED_FOR: &str = "x-forwarded-for";

/// A request, whole.
pub(super) struct Asked<'r> {
    pub(super) head: &'r Parts,
    pub(super) body: &'r [u8],
    /// The client's address, if it is known.
    pub(super) address: Option<IpAddr>,
    pub(super) now_micros: u64,
    pub(super) now_unix: u64,
    /// Whether a key came with it that is for no page, and so known to its holder alone.
    pub(super) has_secret_key: Cell<bool>,
}

impl<'r> Asked<'r> {
    /// The token of `Authorization: Bearer`.
    pub(super) fn bearer(&self) -> Result<&'r [u8], Refused> {
        let expected = "expected the header Authorization: Bearer KEY";
        let given = self.authorization().ok_or_else(|| Refused::unauthorized(expected))?;
        after_scheme(given, b"Bearer").ok_or_else(|| Refused::unauthorized(expected))
    }

    /// The user and the password of `Authorization: Basic`.
    pub(super) fn basic(&self) -> Result<(String, Zeroizing<String>), Refused> {
        let expected = || Refused::unauthorized("expected the header Authorization: Basic, of an id and a key");
        let given = self.authorization().and_then(|given| after_scheme(given, b"Basic")).ok_or_else(expected)?;
        let decoded = Zeroizing::new(STANDARD.decode(given.trim_ascii()).map_err(|_| expected())?);
        let text = std::str::from_utf8(&decoded).map_err(|_| expected())?;
        let (user, password) = text.split_once(':').ok_or_else(expected)?;
        Ok((user.to_owned(), Zeroizing::new(password.to_owned())))
    }

    pub(super) fn has_authorization(&self) -> bool {
        self.head.headers.contains_key(AUTHORIZATION)
    }

    /// A parameter of the query.
    pub(super) fn parameter(&self, name: &str) -> Result<Option<Cow<'r, str>>, Refused> {
        only(self.head.uri.query().unwrap_or_default().as_bytes(), name)
    }

    /// A field of a form in the body.
    pub(super) fn form(&self, name: &str) -> Result<Option<Cow<'r, str>>, Refused> {
        only(self.body, name)
    }

    /// The fields of a JSON object in the body; none where there is no body.
    pub(super) fn json_fields(&self) -> Result<Map<String, Value>, Refused> {
        if self.body.is_empty() {
            return Ok(Map::new());
        }
        let body = serde_json::from_slice(self.body);
        match body.map_err(|error| Refused::bad_request(format!("the body is not JSON: {error}")))? {
            Value::Object(fields) => Ok(fields),
            _ => Err(Refused::bad_request("the body is not a JSON object")),
        }
    }

    /// Fails unless the body is of a type, or there is none.
    pub(super) fn expect_type(&self, expected: &str) -> Result<(), Refused> {
        let content_type =
            self.head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let media_type = content_type.split(';').next().unwrap_or_default().trim();
        match self.body.is_empty() || media_type.eq_ignore_ascii_case(expected) {
            true => Ok(()),
            false => Err(Refused::media_type(expected)),
        }
    }

    /// The one header that there may be.
    fn authorization(&self) -> Option<&'r [u8]> {
        let mut all = self.head.headers.get_all(AUTHORIZATION).into_iter();
        all.next().filter(|_| all.next().is_none()).map(|value| value.as_bytes())
    }
}

/// The value of a name that may be there once.
fn only<'t>(encoded: &'t [u8], name: &str) -> Result<Option<Cow<'t, str>>, Refused> {
    let mut values = form_urlencoded::parse(encoded).filter(|(key, _)| key == name).map(|(_, value)| value);
    let value = values.next();
    match values.next() {
        None => Ok(value),
        Some(_) => Err(Refused::bad_request(format!("{name} is there twice"))),
    }
}

fn after_scheme<'h>(header: &'h [u8], scheme: &[u8]) -> Option<&'h [u8]> {
    let (given, rest) = header.split_at_checked(scheme.len())?;
    given.eq_ignore_ascii_case(scheme).then(|| rest.strip_prefix(b" "))?
}

/// The client's address as the proxy in front has written it: the last one, because those before are what the client itself says.
pub(super) fn forwarded_for(headers: &HeaderMap) -> Option<IpAddr> {
    let last = headers.get_all(FORWARDED_FOR).into_iter().next_back()?.to_str().ok()?;
    let last = last.rsplit(',').next().unwrap_or_default().trim();
    let bare = last.trim_start_matches('[').trim_end_matches(']');
    bare.parse()
        .ok()
        .or_else(|| last.parse().ok().map(|address: SocketAddr| address.ip()))
        .map(|ip: IpAddr| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    #[test]
    fn a_bearer_token_is_all_that_follows_the_space() {
        assert_eq!(after_scheme(b"Bearer abc", b"Bearer"), Some(b"abc".as_slice()));
        assert_eq!(after_scheme(b"bearer abc ", b"Bearer"), Some(b"abc ".as_slice()));
        for header in ["", "Bearer", "Basic abc", "Bearerabc", "Token abc"] {
            assert_eq!(after_scheme(header.as_bytes(), b"Bearer"), None, "{header}");
        }
    }

    #[test]
    fn of_forwarded_addresses_the_proxy_s_own_word_counts() {
        let read = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(FORWARDED_FOR, HeaderValue::from_str(value).unwrap());
            }
            forwarded_for(&headers).map(|ip| ip.to_string())
        };
        assert_eq!(read(&["203.0.113.7"]).as_deref(), Some("203.0.113.7"));
        assert_eq!(read(&["10.0.0.1, 203.0.113.7"]).as_deref(), Some("203.0.113.7"));
        assert_eq!(read(&["10.0.0.1", "203.0.113.8:4711"]).as_deref(), Some("203.0.113.8"));
        assert_eq!(read(&["[2001:db8::1]:4711"]).as_deref(), Some("2001:db8::1"));
        assert_eq!(read(&["::ffff:203.0.113.7"]).as_deref(), Some("203.0.113.7"));
        for bad in [&[][..], &[""], &["unknown"], &["203.0.113.7,"]] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
    }
}
