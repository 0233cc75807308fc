//! Cloudflare Realtime: `POST /v1/turn/keys/ID/credentials/generate-ice-servers`, `.../generate` as it was before, and
//! `POST /v1/turn/keys/ID/credentials/USERNAME/revoke`.

use hyper::StatusCode;
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use super::super::issue::LimitTexts;
use super::super::issuer::{Issuer, KeyWish};
use super::super::refused::Refused;
use super::super::reply::Reply;
use super::super::request::Asked;
use super::super::stats::Outcome;
use super::super::urls::ice_servers;
use crate::http::{Answer, JSON, json as json_answer, response};

const TTL_DEFAULT_SECS: u64 = 86_400;

pub(super) fn issue(
    issuer: &Issuer,
    asked: &Asked<'_>,
    origin: Option<&str>,
    id: &str,
    is_list: bool,
) -> Result<Answer, Refused> {
    let key = issuer.authenticate_as(asked.bearer()?, id, origin, asked)?;
    let body = asked.json_fields()?;
    let ttl_secs = match body.get("ttl") {
        None => TTL_DEFAULT_SECS.min(key.bounds.ttl_max.as_secs()),
        Some(ttl) => ttl
            .as_u64()
            .filter(|secs| *secs > 0)
            .ok_or_else(|| Refused::bad_request("ttl: expected a whole number of seconds from 1"))?,
    };
    // For whom it is counted there; it is the user here.
    let user = issuer.user(key, body.get("customIdentifier").and_then(Value::as_str))?;
    let wish = KeyWish { user: &user, ttl_secs, realm: None, limits: LimitTexts::default() };
    let issued = issuer.issue(key, &wish, asked)?;
    let urls = issuer.urls(key, None).all();
    let answer = match is_list {
        true => ice_servers(&urls, &issued.username, &issued.password),
        false => json!({ "iceServers": {
            "urls": urls, "username": issued.username, "credential": *issued.password,
        } }),
    };
    Ok(json_answer(StatusCode::CREATED, &answer))
}

pub(super) fn revoke(
    issuer: &Issuer,
    asked: &Asked<'_>,
    origin: Option<&str>,
    id: &str,
    username: &str,
) -> Result<Reply, Refused> {
    let key = issuer.authenticate_as(asked.bearer()?, id, origin, asked)?;
    let username = percent_decode_str(username).decode_utf8();
    let username = username.map_err(|_| Refused::bad_request("the username in the path is not UTF-8"))?;
    let revokes = Some(issuer.revocation(key, &username, asked.now_unix)?);
    Ok(Reply { answer: response(StatusCode::NO_CONTENT, JSON, ""), outcome: Outcome::Revoked, revokes })
}
