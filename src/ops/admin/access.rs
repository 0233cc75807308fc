//! Who may use the API. On a port, a web page that the operator's browser shows must not reach it either.

use hyper::Request;
use hyper::header::AUTHORIZATION;

use super::super::web_page::refuse_web_pages;
use super::error::Refused;
use crate::config::AdminToken;

/// Checks where a request comes from, and its token if one is configured.
pub(super) fn check<B>(request: &Request<B>, is_port: bool, token: Option<&AdminToken>) -> Result<(), Refused> {
    if is_port {
        refuse_web_pages(request).map_err(Refused::forbidden)?;
    }
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
