//! Who may use the API. On a port, a web page that the operator's browser shows must not reach it either, but for the API's own.
//! A socket that shows a page is one that somebody has led a port to.

use hyper::Request;
use hyper::header::AUTHORIZATION;

use super::super::web_page::{refuse_other_pages, refuse_web_pages};
use super::error::Refused;
use crate::config::AdminToken;

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

/// Checks its token, if one is configured.
pub(super) fn check_token<B>(request: &Request<B>, token: Option<&AdminToken>) -> Result<(), Refused> {
    let Some(token) = token else { return Ok(()) };
    let Some(given) = request.headers().get(AUTHORIZATION) else {
        return Err(Refused::unauthorized("expected the header Authorization: Bearer TOKEN"));
    };
    match bearer(given.as_bytes()) {
        Some(given) if token.is(given) => Ok(()),
        Some(_) => Err(Refused::unauthorized("the token is wrong")),
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
