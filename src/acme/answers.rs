//! What a certificate authority is answered over HTTP (HTTP-01, RFC 8555 section 8.3): the key authorization of a token, and nothing else.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hyper::body::Incoming;
use hyper::{Method, Request, StatusCode};

use crate::http::{Answer, Caller, Handler, response};
use crate::net::sys;
use crate::policy::{RateLimit, RateLimiter};

/// Connections of one network. An authority makes a few for each name, from several networks; a silent one holds a place for a second.
const PER_NETWORK: RateLimit = RateLimit { per_second: 20, burst: 60 };
const PATH: &str = "/.well-known/acme-challenge/";
const TEXT: &str = "text/plain; charset=utf-8";
const OCTETS: &str = "application/octet-stream";

/// The tokens that are asked for now.
#[derive(Debug)]
pub(crate) struct Answers {
    expected: Mutex<HashMap<String, Expected>>,
    connections: RateLimiter,
}

impl Default for Answers {
    fn default() -> Self {
        Self { expected: Mutex::default(), connections: RateLimiter::new(Some(PER_NETWORK), Arc::default()) }
    }
}

#[derive(Clone, Debug)]
struct Expected {
    key_authorization: String,
    shown: Arc<AtomicU64>,
}

/// A token that is asked for; until this is dropped.
pub(super) struct ExpectedToken {
    of: Arc<Answers>,
    token: String,
    shown: Arc<AtomicU64>,
}

impl Answers {
    pub(super) fn expect(self: &Arc<Self>, token: &str, key_authorization: &str) -> ExpectedToken {
        let expected = Expected { key_authorization: key_authorization.to_owned(), shown: Arc::default() };
        let shown = Arc::clone(&expected.shown);
        self.lock().insert(token.to_owned(), expected);
        ExpectedToken { of: Arc::clone(self), token: token.to_owned(), shown }
    }

    fn answer(&self, method: &Method, path: &str) -> Answer {
        let expected = path.strip_prefix(PATH).and_then(|token| self.lock().get(token).cloned());
        match expected {
            Some(expected) if matches!(*method, Method::GET | Method::HEAD) => {
                expected.shown.fetch_add(1, Ordering::Relaxed);
                response(StatusCode::OK, OCTETS, expected.key_authorization)
            }
            _ => response(StatusCode::NOT_FOUND, TEXT, "nothing is here but answers for a certificate authority\n"),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Expected>> {
        self.expected.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Handler for Answers {
    /// Nobody else's silent connections keep an authority out.
    fn admits(&self, from: Option<IpAddr>) -> bool {
        from.is_none_or(|from| self.connections.allow(sys::clocks().0, from))
    }

    async fn respond(&self, request: Request<Incoming>, caller: &Caller) -> Answer {
        caller.has_asked();
        self.answer(request.method(), request.uri().path())
    }
}

impl ExpectedToken {
    /// How often somebody has asked for it.
    pub(super) fn shown(&self) -> u64 {
        self.shown.load(Ordering::Relaxed)
    }
}

impl Drop for ExpectedToken {
    fn drop(&mut self) {
        self.of.lock().remove(&self.token);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_token_that_is_expected_is_answered_and_only_as_long_as_it_is() {
        let answers = Arc::new(Answers::default());
        let ask = |method: &Method, path: &str| answers.answer(method, path).status().as_u16();
        let (get, path) = (&Method::GET, "/.well-known/acme-challenge/token");
        assert_eq!(ask(get, path), 404);
        let token = answers.expect("token", "token.thumbprint");
        assert_eq!(ask(get, path), 200);
        assert_eq!(token.shown(), 1);
        for (method, path) in [
            (&Method::POST, path),
            (get, "/"),
            (get, "/.well-known/acme-challenge/"),
            (get, "/.well-known/acme-challenge/token/"),
            (get, "/.well-known/acme-challenge/../acme-challenge/token"),
            (get, "/.well-known/acme-challenge//token"),
            (get, "/.WELL-KNOWN/acme-challenge/token"),
        ] {
            assert_eq!(ask(method, path), 404, "{method} {path}");
        }
        drop(token);
        assert_eq!(ask(get, path), 404);
    }

    #[test]
    fn the_connections_of_one_network_leave_room_for_those_of_an_authority() {
        let answers = Answers::default();
        let of = |last: u8| Some(IpAddr::from([203, 0, 113, last]));
        let admitted = (0..1000).filter(|number| answers.admits(of((number % 250) as u8))).count();
        assert!((60..200).contains(&admitted), "{admitted} of 1000 at once");
        assert!(answers.admits(Some(IpAddr::from([198, 51, 100, 1]))));
    }
}
