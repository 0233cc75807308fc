//! `POST /v1/credentials`: the API in our own words.

use hyper::StatusCode;
use serde_json::{Map, Value, json};

use super::api_keys::KnownKey;
use super::issue::LimitTexts;
use super::issuer::{Issuer, KeyWish};
use super::refused::Refused;
use super::request::Asked;
use super::urls::ice_servers;
use crate::http::{Answer, JSON, json as json_answer};

/// How long a credential is good if nobody says.
const TTL_DEFAULT_SECS: u64 = 12 * 3600;
const FIELDS: [&str; 6] = ["user", "ttl", "realm", "bw", "alloc", "peers"];

/// Makes a credential for whoever the body names.
pub(super) fn issue(issuer: &Issuer, key: &KnownKey, asked: &Asked<'_>) -> Result<Answer, Refused> {
    asked.expect_type(JSON)?;
    let fields = asked.json_fields()?;
    if let Some(unknown) = fields.keys().find(|name| !FIELDS.contains(&name.as_str())) {
        return Err(Refused::bad_request(format!("unknown field {unknown:?}; expected {}", FIELDS.join(", "))));
    }
    let user =
        text(&fields, "user")?.ok_or_else(|| Refused::bad_request("user is missing: whom the credential is for"))?;
    let ttl_secs = number(&fields, "ttl", "a whole number of seconds from 1")?;
    let bandwidth = match fields.get("bw") {
        Some(Value::Number(bits)) => Some(bits.to_string()),
        _ => text(&fields, "bw")?.map(str::to_owned),
    };
    let allocations = number(&fields, "alloc", "a whole number from 1")?.map(|number| number.to_string());
    let limits = LimitTexts {
        bandwidth: bandwidth.as_deref(),
        allocations: allocations.as_deref(),
        peers: text(&fields, "peers")?,
    };
    let ttl_secs = ttl_secs.unwrap_or_else(|| TTL_DEFAULT_SECS.min(key.bounds.ttl_max.as_secs()));
    let realm = text(&fields, "realm")?;
    let wish = KeyWish { user, ttl_secs, realm, limits };
    let issued = issuer.issue(key, &wish, asked)?;
    let mut answer = json!({
        "username": issued.username,
        "credential": *issued.password,
        "ttl": issued.ttl_secs,
        "expires": issued.expires_unix,
    });
    if let (Value::Object(answer), Value::Object(servers)) =
        (&mut answer, ice_servers(&issuer.urls(key, realm).own, &issued.username, &issued.password))
    {
        answer.extend(servers);
    }
    Ok(json_answer(StatusCode::CREATED, &answer))
}

fn text<'f>(fields: &'f Map<String, Value>, name: &str) -> Result<Option<&'f str>, Refused> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(Refused::bad_request(format!("{name} is not a text"))),
    }
}

fn number(fields: &Map<String, Value>, name: &str, expected: &str) -> Result<Option<u64>, Refused> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_u64().filter(|number| *number > 0) {
            Some(number) => Ok(Some(number)),
            None => Err(Refused::bad_request(format!("{name}: expected {expected}"))),
        },
    }
}
