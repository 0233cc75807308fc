//! From a request to its answer: what there is, who may ask, and what pages may read.

use hyper::header::{HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::http::request::Parts;
use hyper::{Method, StatusCode};

use super::issuer::Issuer;
use super::refused::Refused;
use super::reply::Reply;
use super::request::Asked;
use super::shapes::Foreign;
use super::stats::Outcome;
use super::{cors, own};
use crate::http::{Answer, JSON, response};

const OPENAPI: &str = include_str!("../../docs/credentials-api.openapi.json");

/// What comes of a request.
pub(super) fn reply(issuer: &Issuer, asked: &Asked<'_>) -> Reply {
    match route(issuer, asked) {
        Ok(reply) => Reply { answer: dressed(issuer, asked.head, reply.answer), ..reply },
        Err(refused) => refusal(issuer, asked.head, &refused),
    }
}

/// A refusal in the words in which was asked.
pub(super) fn refusal(issuer: &Issuer, head: &Parts, refused: &Refused) -> Reply {
    let foreign = Foreign::of(head.uri.path(), issuer.shapes());
    let answer = foreign.map_or_else(|| refused.answer(), |foreign| foreign.refuse(refused));
    Reply { answer: dressed(issuer, head, answer), outcome: refused.outcome, revokes: None }
}

/// The headers that every answer has.
fn dressed(issuer: &Issuer, head: &Parts, mut answer: Answer) -> Answer {
    cors::vary(&mut answer);
    answer.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Some(origin) = cors::origin_of(&head.headers).filter(|origin| issuer.any_key_is_for(origin)) {
        // The page may read why it is refused, too.
        cors::expose_to(&mut answer, origin);
    }
    answer
}

fn route(issuer: &Issuer, asked: &Asked<'_>) -> Result<Reply, Refused> {
    let reply = |answer, outcome| Reply { answer, outcome, revokes: None };
    let origin = cors::origin_of(&asked.head.headers);
    let foreign = Foreign::of(asked.head.uri.path(), issuer.shapes());
    issuer.take(asked.address, asked.now_micros)?;
    let (path, method) = (asked.head.uri.path(), &asked.head.method);
    let allowed = match (path, &foreign) {
        (_, Some(foreign)) => foreign.method(),
        ("/v1/credentials", _) => Method::POST,
        ("/v1/openapi.json", _) => Method::GET,
        _ => return Err(Refused::not_found(format!("no path {path:?}; GET /v1/openapi.json lists them"))),
    };
    if method == Method::OPTIONS {
        let may_ask = origin.is_some_and(|origin| issuer.any_key_is_for(origin));
        let answer = cors::preflight(origin, may_ask, allowed.as_str())?;
        return Ok(reply(answer, Outcome::Informed));
    }
    if *method != allowed {
        return Err(Refused::method(method, allowed.as_str()));
    }
    if let Some(foreign) = foreign {
        return foreign.carry_out(issuer, asked, origin);
    }
    if allowed == Method::GET {
        return Ok(reply(response(StatusCode::OK, JSON, OPENAPI), Outcome::Informed));
    }
    let key = issuer.authenticate(asked.bearer()?, origin, asked.now_micros)?;
    own::issue(issuer, key, asked).map(|answer| reply(answer, Outcome::Issued))
}
