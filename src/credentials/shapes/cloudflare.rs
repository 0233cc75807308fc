//! Cloudflare Realtime: `POST /v1/turn/keys/ID/credentials/generate-ice-servers`, and `.../generate` as it was before.

use hyper::StatusCode;
use serde_json::{Value, json};

use super::super::issue::LimitTexts;
use super::super::issuer::{Issuer, KeyWish};
use super::super::refused::Refused;
use super::super::request::Asked;
use super::super::urls::ice_servers;
use crate::http::{Answer, json as json_answer};

const TTL_DEFAULT_SECS: u64 = 86_400;

pub(super) fn issue(
    issuer: &Issuer,
    asked: &Asked<'_>,
    origin: Option<&str>,
    id: &str,
    is_list: bool,
) -> Result<Answer, Refused> {
    let key = issuer.authenticate_as(asked.bearer()?, id, origin, asked.now_micros)?;
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
    let answer = match is_list {
        true => ice_servers(&issuer.all_urls(), &issued.username, &issued.password),
        false => json!({ "iceServers": {
            "urls": issuer.all_urls(), "username": issued.username, "credential": *issued.password,
        } }),
    };
    Ok(json_answer(StatusCode::CREATED, &answer))
}
