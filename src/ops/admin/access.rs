//! Who may use the API. On a port, a web page that the operator's browser shows must not reach it either, but for the API's own.
//! A socket that shows a page is one that somebody has led a port to.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::Request;
use hyper::header::AUTHORIZATION;

use super::super::web_page::{refuse_other_pages, refuse_web_pages};
use super::error::Refused;
use crate::addr::LoggedIp;
use crate::config::AdminToken;

/// Between two lines about wrong tokens.
const TOLD_AGAIN: Duration = Duration::from_secs(60);

/// Which web pages may send requests.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Pages {
    /// Requests of pages are like any other: no browser reaches the endpoint.
    Unreached,
    None,
    /// The page that the endpoint shows.
    Own,
}

/// Checks where a request comes from. `is_document` is whether it is for the page itself.
/// `origins` is where a proxy shows it.
pub(super) fn check_origin<B>(
    request: &Request<B>,
    pages: Pages,
    origins: &[String],
    is_document: bool,
) -> Result<(), Refused> {
    match pages {
        Pages::Unreached => Ok(()),
        Pages::None => refuse_web_pages(request).map_err(Refused::forbidden),
        Pages::Own => refuse_other_pages(request, origins, is_document).map_err(Refused::forbidden),
    }
}

/// Wrong tokens that were shown: somebody who looks for the right one, or a program with an old one.
#[derive(Debug, Default)]
pub(in crate::ops) struct WrongTokens {
    shown: AtomicU64,
    told: Mutex<Option<Instant>>,
}

impl WrongTokens {
    pub(in crate::ops) fn shown(&self) -> u64 {
        self.shown.load(Ordering::Relaxed)
    }

    /// Counts one, and says so in the log, once a minute at most. `from` is nobody at a socket in the file system.
    fn note(&self, from: Option<IpAddr>) {
        let shown = self.shown.fetch_add(1, Ordering::Relaxed) + 1;
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_some_and(|told| told.elapsed() < TOLD_AGAIN) {
            return;
        }
        *told = Some(Instant::now());
        let from = from.map_or_else(|| "a socket".to_owned(), |ip| LoggedIp(ip).to_string());
        tracing::warn!(
            %from, shown,
            "a wrong token was shown to the admin API, or to [fleet] listen: a program has an old one, or somebody looks for the right one"
        );
    }
}

/// Checks its token, if one is configured.
pub(super) fn check_token<B>(
    request: &Request<B>,
    token: Option<&AdminToken>,
    (wrong, from): (&WrongTokens, Option<IpAddr>),
) -> Result<(), Refused> {
    let Some(token) = token else { return Ok(()) };
    let Some(given) = request.headers().get(AUTHORIZATION) else {
        return Err(Refused::unauthorized("expected the header Authorization: Bearer TOKEN"));
    };
    match bearer(given.as_bytes()) {
        Some(given) if token.is(given) => Ok(()),
        Some(_) => {
            wrong.note(from);
            Err(Refused::unauthorized("the token is wrong"))
        }
        None => Err(Refused::unauthorized("the header Authorization is not Bearer TOKEN")),
    }
}

fn bearer(header: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = header.split_at_checked(6)?;
    let token = token.strip_prefix(b" ")?;
    scheme.eq_ignore_ascii_case(b"Bearer").then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bearer_token_is_all_that_follows_the_space() {
        assert_eq!(bearer(b"Bearer abc"), Some(b"abc".as_slice()));
        assert_eq!(bearer(b"bearer abc "), Some(b"abc ".as_slice()));
        for header in ["", "Bearer", "Basic abc", "Bearerabc", "Token abc"] {
            assert_eq!(bearer(header.as_bytes()), None, "{header}");
        }
    }
}
