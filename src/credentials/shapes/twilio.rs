//! Twilio's Network Traversal Service: `POST /2010-04-01/Accounts/SID/Tokens.json`. The account's SID is the id of a key, its auth token
//! the key.

use hyper::StatusCode;
use serde_json::json;

use super::super::issue::LimitTexts;
use super::super::issuer::{Issuer, KeyWish};
use super::super::refused::Refused;
use super::super::request::Asked;
use crate::clock::civil;
use crate::http::{Answer, json as json_answer};

/// Twilio's default, and the most.
const TTL_MAX_SECS: u64 = 86_400;

pub(super) fn issue(
    issuer: &Issuer,
    asked: &Asked<'_>,
    origin: Option<&str>,
    account: &str,
) -> Result<Answer, Refused> {
    let (id, given) = asked.basic()?;
    // An API key's SID may stand before the token; the account is then in the path alone.
    let key = issuer.authenticate_as(given.as_bytes(), &id, origin, asked)?;
    let ttl_secs = match asked.form("Ttl")? {
        None => TTL_MAX_SECS,
        Some(text) => text.parse().ok().filter(|secs| (1..=TTL_MAX_SECS).contains(secs)).ok_or_else(|| {
            Refused::bad_request(format!("Ttl: expected a whole number of seconds from 1 to {TTL_MAX_SECS}"))
        })?,
    };
    // The answer has the lifetime in it.
    let ttl_secs = ttl_secs.min(key.bounds.ttl_max.as_secs());
    let user = issuer.user(key, None)?;
    let wish = KeyWish { user: &user, ttl_secs, realm: None, limits: LimitTexts::default() };
    let issued = issuer.issue(key, &wish, asked)?;
    let urls = issuer.urls(key, None);
    let mut servers: Vec<_> = urls.stun.iter().map(|url| json!({ "url": url, "urls": url })).collect();
    servers.extend(
        urls.turn
            .iter()
            .map(|url| json!({ "url": url, "urls": url, "username": issued.username, "credential": *issued.password })),
    );
    let now = rfc_2822(asked.now_unix);
    let answer = json!({
        "account_sid": account,
        "username": issued.username,
        "password": *issued.password,
        // A text, there.
        "ttl": issued.ttl_secs.to_string(),
        "date_created": now,
        "date_updated": now,
        "ice_servers": servers,
    });
    Ok(json_answer(StatusCode::CREATED, &answer))
}

/// As Twilio's packages read an error.
pub(super) fn refuse(refused: &Refused) -> Answer {
    let status = refused.status.as_u16();
    let code = match status {
        401 => 20_003,
        405 => 20_004,
        status => 20_000 + u32::from(status),
    };
    let body = json!({
        "code": code,
        "message": refused.message,
        "more_info": format!("https://www.twilio.com/docs/errors/{code}"),
        "status": status,
    });
    refused.answer_as(&body, "Basic realm=\"turnstone\"")
}

/// `Fri, 27 Nov 2026 15:00:00 +0000`
fn rfc_2822(unix_secs: u64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let [year, month, day, hour, minute, second] = civil(unix_secs);
    let name = |names: &[&'static str], index: u64| {
        usize::try_from(index).ok().and_then(|index| names.get(index)).copied().unwrap_or_default()
    };
    // The first of all days was a Thursday.
    let (weekday, month) = (name(&DAYS, unix_secs / 86_400 % 7), name(&MONTHS, month.saturating_sub(1)));
    format!("{weekday}, {day:02} {month} {year} {hour:02}:{minute:02}:{second:02} +0000")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_mail() {
        assert_eq!(rfc_2822(0), "Thu, 01 Jan 1970 00:00:00 +0000");
        assert_eq!(rfc_2822(951_782_399), "Mon, 28 Feb 2000 23:59:59 +0000");
        assert_eq!(rfc_2822(1_795_791_600), "Fri, 27 Nov 2026 15:00:00 +0000");
    }
}
