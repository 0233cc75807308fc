//! Metered: `POST /api/v1/turn/credential?secretKey=KEY` makes a credential, and a key of its own with which a page fetches it again:
//! `GET /api/v1/turn/credentials?apiKey=KEY`. With one of our keys the latter makes a new credential. `POST
//! /api/v1/turn/credential/disable?secretKey=KEY` and `DELETE /api/v1/turn/credential?secretKey=KEY` revoke one, `DELETE
//! /api/v2/turn/credential/by_label?secretKey=KEY&label=LABEL` all of a user. A project's paths are the same for the key whose id it is.
//! Lists of credentials are not there: nobody remembers any.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hyper::StatusCode;
use serde_json::{Value, json};

use super::super::api_keys::KnownKey;
use super::super::issue::LimitTexts;
use super::super::issuer::{Issuer, KeyWish};
use super::super::refused::Refused;
use super::super::reply::Reply;
use super::super::request::Asked;
use super::super::stats::Outcome;
use crate::auth::Revocation;
use crate::http::{Answer, json as json_answer};

/// What a credential's own key begins with.
const FETCH_PREFIX: &str = "tsf_";

/// A bare list of entries, one URL each.
pub(super) fn fetch(issuer: &Issuer, asked: &Asked<'_>, origin: Option<&str>) -> Result<Answer, Refused> {
    let given = asked.parameter("apiKey")?.ok_or_else(|| Refused::bad_request("expected an API key: ?apiKey=KEY"))?;
    let (key, username, password) = match given.strip_prefix(FETCH_PREFIX).and_then(unsealed) {
        Some((id, username, seal)) => {
            let known = issuer.sealed_credential(&id, &username, &seal, asked.now_unix);
            let (key, password) = known.ok_or_else(|| {
                Refused::unauthorized(
                    "this is no key of a credential, or the credential has expired or is revoked; make another one",
                )
            })?;
            issuer.admit(key, origin, asked)?;
            // Whoever has the credential has this one.
            asked.has_secret_key.set(false);
            (key, username, password)
        }
        None => {
            let key = issuer.authenticate(given.as_bytes(), origin, asked)?;
            let user = issuer.user(key, None)?;
            let ttl_secs = key.bounds.ttl_max.as_secs();
            let wish = KeyWish { user: &user, ttl_secs, realm: None, limits: LimitTexts::default() };
            let issued = issuer.issue(key, &wish, asked)?;
            (key, issued.username, issued.password)
        }
    };
    let urls = issuer.urls(key, None);
    let mut servers: Vec<_> = urls.stun.iter().map(|url| json!({ "urls": url })).collect();
    servers.extend(urls.turn.iter().map(|url| json!({ "urls": url, "username": username, "credential": *password })));
    Ok(json_answer(StatusCode::OK, &Value::Array(servers)))
}

pub(super) fn create(
    issuer: &Issuer,
    asked: &Asked<'_>,
    origin: Option<&str>,
    project: Option<&str>,
) -> Result<Answer, Refused> {
    let key = authenticate(issuer, asked, origin, project)?;
    let body = asked.json_fields()?;
    let ttl_secs = match body.get("expiryInSeconds") {
        // There, it lives for ever then.
        None => key.bounds.ttl_max.as_secs(),
        Some(secs) => secs
            .as_u64()
            .filter(|secs| *secs > 0)
            .ok_or_else(|| Refused::bad_request("expiryInSeconds: expected a whole number of seconds from 1"))?,
    };
    // By which it is found there; it is the user here.
    let label = body.get("label").and_then(Value::as_str);
    let user = issuer.user(key, label)?;
    let wish = KeyWish { user: &user, ttl_secs, realm: None, limits: LimitTexts::default() };
    let issued = issuer.issue(key, &wish, asked)?;
    let fetch_key = issuer.seal(key, &issued.username).map(|seal| sealed(&key.bounds.id, &issued.username, &seal));
    let answer = json!({
        "username": issued.username,
        "password": *issued.password,
        "expiryInSeconds": issued.ttl_secs,
        "label": label.unwrap_or_default(),
        "apiKey": fetch_key,
    });
    Ok(json_answer(StatusCode::OK, &answer))
}

/// Revokes the credential that the body names, and answers so.
pub(super) fn revoke(
    issuer: &Issuer,
    asked: &Asked<'_>,
    origin: Option<&str>,
    project: Option<&str>,
    answer: &Value,
) -> Result<Reply, Refused> {
    let key = authenticate(issuer, asked, origin, project)?;
    let body = asked.json_fields()?;
    let username = body.get("username").and_then(Value::as_str);
    let username = username.ok_or_else(|| Refused::bad_request("username is missing: which credential is revoked"))?;
    revoked(issuer.revocation(key, username, asked.now_unix)?, answer)
}

/// Revokes all credentials of a label, which is a user here. Nobody knows how many they are: it is one user.
pub(super) fn revoke_label(
    issuer: &Issuer,
    asked: &Asked<'_>,
    origin: Option<&str>,
    project: Option<&str>,
) -> Result<Reply, Refused> {
    let key = authenticate(issuer, asked, origin, project)?;
    // In the query without a project, in the body with one.
    let label = match asked.parameter("label")? {
        Some(label) => label,
        None => match asked.json_fields()?.remove("label") {
            Some(Value::String(label)) => label.into(),
            _ => return Err(Refused::bad_request("label is missing: whose credentials are revoked")),
        },
    };
    revoked(issuer.revocation_of_user(key, &label, asked.now_unix)?, &json!({ "deleted": 1 }))
}

fn revoked(revocation: Revocation, answer: &Value) -> Result<Reply, Refused> {
    let answer = json_answer(StatusCode::OK, answer);
    Ok(Reply { answer, outcome: Outcome::Revoked, revokes: Some(revocation) })
}

/// The key of a request. A project's is known by its id, too.
fn authenticate<'i>(
    issuer: &'i Issuer,
    asked: &Asked<'_>,
    origin: Option<&str>,
    project: Option<&str>,
) -> Result<&'i KnownKey, Refused> {
    let secret_key = asked.parameter("secretKey")?;
    let Some(id) = project else {
        let given = secret_key.ok_or_else(|| Refused::unauthorized("expected an API key: ?secretKey=KEY"))?;
        return issuer.authenticate(given.as_bytes(), origin, asked);
    };
    let given = match secret_key {
        None => asked.parameter("projectApiKey")?,
        given => given,
    };
    let given =
        given.ok_or_else(|| Refused::unauthorized("expected an API key: ?projectApiKey=KEY or ?secretKey=KEY"))?;
    issuer.authenticate_as(given.as_bytes(), id, origin, asked)
}

/// What the credential's own key consists of: nothing has to be remembered.
fn sealed(id: &str, username: &str, seal: &[u8]) -> String {
    let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    format!("{FETCH_PREFIX}{}.{}.{}", text(id.as_bytes()), text(username.as_bytes()), text(seal))
}

fn unsealed(text: &str) -> Option<(String, String, Vec<u8>)> {
    let mut parts = text.split('.').map(|part| URL_SAFE_NO_PAD.decode(part).ok());
    let (id, username, seal) = (parts.next()??, parts.next()??, parts.next()??);
    let is_whole = parts.next().is_none();
    is_whole.then(|| Some((String::from_utf8(id).ok()?, String::from_utf8(username).ok()?, seal)))?
}
