//! The TURN REST draft (draft-uberti-behave-turn-rest-00): `GET /?service=turn&username=USER&key=KEY`, or POST with that query; and, with a lifetime besides,
//! STUNner's authentication service, which also has `GET /ice`. Of STUNner's parameters those that choose among gateways are taken and
//! mean nothing: there is one.

use hyper::StatusCode;
use serde_json::{Value, json};

use super::super::api_keys::KnownKey;
use super::super::issue::{Issued, LimitTexts};
use super::super::issuer::{Issuer, KeyWish, Urls};
use super::super::refused::Refused;
use super::super::request::Asked;
use super::super::urls::ice_servers;
use crate::http::{Answer, json as json_answer};

const TTL_DEFAULT_SECS: u64 = 86_400;

/// `username`, `password`, `ttl` and `uris`.
pub(super) fn issue(
    issuer: &Issuer,
    asked: &Asked<'_>,
    origin: Option<&str>,
    has_ttl: bool,
) -> Result<Answer, Refused> {
    let (issued, urls) = made(issuer, asked, origin, has_ttl)?;
    let answer = json!({
        "username": issued.username,
        "password": *issued.password,
        "ttl": issued.ttl_secs,
        "uris": urls.turn,
    });
    Ok(json_answer(StatusCode::OK, &answer))
}

/// What goes into `new RTCPeerConnection()` as it is.
pub(super) fn ice(issuer: &Issuer, asked: &Asked<'_>, origin: Option<&str>) -> Result<Answer, Refused> {
    let policy = asked.parameter("iceTransportPolicy")?.unwrap_or("all".into());
    if !matches!(&*policy, "all" | "relay") {
        return Err(Refused::bad_request(format!("iceTransportPolicy {policy:?}: expected all or relay")));
    }
    let (issued, urls) = made(issuer, asked, origin, true)?;
    let mut answer = ice_servers(&urls.turn, &issued.username, &issued.password);
    if let Value::Object(fields) = &mut answer {
        fields.insert("iceTransportPolicy".to_owned(), policy.into());
    }
    Ok(json_answer(StatusCode::OK, &answer))
}

fn made<'i>(
    issuer: &'i Issuer,
    asked: &Asked<'_>,
    origin: Option<&str>,
    has_ttl: bool,
) -> Result<(Issued, &'i Urls), Refused> {
    let given = asked.parameter("key")?;
    let key: &KnownKey = match &given {
        Some(given) => issuer.authenticate(given.as_bytes(), origin, asked)?,
        None if asked.has_authorization() => issuer.authenticate(asked.bearer()?, origin, asked)?,
        None => {
            return Err(Refused::unauthorized(
                "expected an API key: &key=KEY, or the header Authorization: Bearer KEY",
            ));
        }
    };
    if asked.parameter("service")?.as_deref() != Some("turn") {
        return Err(Refused::bad_request("service: expected turn"));
    }
    let ttl = if has_ttl { asked.parameter("ttl")? } else { None };
    let ttl_secs =
        match ttl {
            None => TTL_DEFAULT_SECS,
            Some(text) => text.parse().ok().filter(|secs| *secs > 0).ok_or_else(|| {
                Refused::bad_request(format!("ttl {text:?}: expected a whole number of seconds from 1"))
            })?,
        };
    // The answer, or the name in it, says what it comes to.
    let ttl_secs = ttl_secs.min(key.bounds.ttl_max.as_secs());
    let user = issuer.user(key, asked.parameter("username")?.as_deref())?;
    let wish = KeyWish { user: &user, ttl_secs, realm: None, limits: LimitTexts::default() };
    Ok((issuer.issue(key, &wish, asked)?, issuer.urls(key, None)))
}
