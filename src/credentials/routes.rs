//! From a request to its answer: what there is, who may ask, and what pages may read.

use hyper::header::{HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::{Method, StatusCode};

use super::issuer::Issuer;
use super::refused::Refused;
use super::request::Asked;
use super::shapes::Foreign;
use super::stats::Outcome;
use super::{cors, own};
use crate::http::{Answer, JSON, response};

const OPENAPI: &str = include_str!("../../docs/credentials-api.openapi.json");

/// The answer to a request, and what it comes to.
pub(super) fn answer(issuer: &Issuer, asked: &Asked<'_>) -> (Answer, Outcome) {
    let origin = cors::origin_of(&asked.head.headers);
    let may_ask = origin.is_some_and(|origin| issuer.any_key_is_for(origin));
    let foreign = Foreign::of(asked.head.uri.path(), issuer.shapes());
    let answered = route(issuer, asked, foreign.as_ref(), origin, may_ask);
    let (mut answer, outcome) = answered.unwrap_or_else(|refused| {
        let answer = foreign.as_ref().map_or_else(|| refused.answer(), |foreign| foreign.refuse(&refused));
        (answer, refused.outcome)
    });
    cors::vary(&mut answer);
    answer.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Some(origin) = origin.filter(|_| may_ask) {
        // The page may read why it is refused, too.
        cors::expose_to(&mut answer, origin);
    }
    (answer, outcome)
}

fn route(
    issuer: &Issuer,
    asked: &Asked<'_>,
    foreign: Option<&Foreign<'_>>,
    origin: Option<&str>,
    may_ask: bool,
) -> Result<(Answer, Outcome), Refused> {
    issuer.take(asked.address, asked.now_micros)?;
    let (path, method) = (asked.head.uri.path(), &asked.head.method);
    let allowed = match (path, foreign) {
        (_, Some(foreign)) => foreign.method(),
        ("/v1/credentials", _) => Method::POST,
        ("/v1/openapi.json", _) => Method::GET,
        _ => return Err(Refused::not_found(format!("no path {path:?}; GET /v1/openapi.json lists them"))),
    };
    if method == Method::OPTIONS {
        return cors::preflight(origin, may_ask, allowed.as_str()).map(|answer| (answer, Outcome::Informed));
    }
    if *method != allowed {
        return Err(Refused::method(method, allowed.as_str()));
    }
    if let Some(foreign) = foreign {
        return foreign.issue(issuer, asked, origin).map(|answer| (answer, Outcome::Issued));
    }
    if allowed == Method::GET {
        return Ok((response(StatusCode::OK, JSON, OPENAPI), Outcome::Informed));
    }
    let key = issuer.authenticate(asked.bearer()?, origin, asked.now_micros)?;
    own::issue(issuer, key, asked).map(|answer| (answer, Outcome::Issued))
}
