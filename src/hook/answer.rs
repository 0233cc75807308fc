//! What an application answers: a credential, or that there is no such user; and to an event, whether the allocation may live.

use serde::Deserialize;
use serde_json::Value;
use zeroize::Zeroizing;

use super::exchange::HookError;
use crate::auth::{KnownCredential, StoredKeys, UsernameLimits};
use crate::text::is_deceptive;

const USER_BYTES_MAX: usize = 508;

/// What is in an answer. One with another field is not used: a limit whose name is misspelt must not be taken for none.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    password: Option<String>,
    /// Both keys, as in a file of users: `0xMD5,0xSHA256`.
    key: Option<String>,
    /// Whom quotas count on.
    user: Option<String>,
    /// Unix seconds.
    expires: Option<u64>,
    /// How long it is used before it is asked for again.
    ttl: Option<u32>,
    /// As in a username with limits.
    bw: Option<Value>,
    alloc: Option<Value>,
    peers: Option<Value>,
}

/// Reads an answer; `None` is nobody.
///
/// # Errors
/// It cannot be used.
pub fn read(status: u16, body: &[u8]) -> Result<Option<KnownCredential>, HookError> {
    match status {
        200 => credential(body).map(Some),
        403 | 404 => Ok(None),
        other => Err(HookError::Status(other)),
    }
}

/// What is said to an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is taken note of.
    Noted,
    /// The allocation is to end.
    End,
}

/// What is in an answer to an event. Whoever ends an allocation says so: the error page of a proxy on the way ends none.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EventForm {
    #[serde(default)]
    end: bool,
}

/// Reads an answer to an event.
///
/// # Errors
/// The event was not taken, or what is said cannot be used.
pub fn read_to_event(status: u16, body: &[u8]) -> Result<Verdict, HookError> {
    if !(200..300).contains(&status) {
        return Err(HookError::Status(status));
    }
    if body.trim_ascii().is_empty() {
        return Ok(Verdict::Noted);
    }
    let form: EventForm = serde_json::from_slice(body)
        .map_err(|_| HookError::Malformed(r#"expected nothing, {} or {"end": true}"#.to_owned()))?;
    Ok(if form.end { Verdict::End } else { Verdict::Noted })
}

fn credential(body: &[u8]) -> Result<KnownCredential, HookError> {
    // Of serde's text only what is no part of the answer: it may quote a password.
    let form: Form = serde_json::from_slice(body).map_err(|error| {
        let text = error.to_string();
        let unknown = text.strip_prefix("unknown field `").and_then(|rest| rest.split('`').next());
        // One that somebody may have misspelt.
        let is_name =
            |field: &&str| field.len() <= 32 && field.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        HookError::Malformed(match unknown {
            Some(field) => format!("it has an unknown field {}", Some(field).filter(is_name).unwrap_or("(not shown)")),
            None => format!("it is not the JSON object that is expected (column {})", error.column()),
        })
    })?;
    let bad = |why: &str| HookError::Malformed(why.to_owned());
    let (password, key) = (form.password.map(Zeroizing::new), form.key.map(Zeroizing::new));
    let credential = match (&password, &key) {
        (Some(password), None) => KnownCredential::from_password(password)
            .map_err(|_| bad("the password is empty or has a character that no password may have"))?,
        (None, Some(key)) => {
            let keys: StoredKeys = key.parse().map_err(|_| bad("key is not 0xMD5,0xSHA256"))?;
            let (Some(md5), Some(sha256)) = (keys.md5(), keys.sha256()) else {
                return Err(bad("key has not both keys, 0xMD5,0xSHA256"));
            };
            KnownCredential::from_keys(*md5, *sha256)
        }
        _ => return Err(bad("there is neither a password nor a key, or both")),
    };
    let credential = match form.user {
        Some(user) if user.is_empty() || user.len() > USER_BYTES_MAX || user.contains(is_deceptive) => {
            return Err(bad("user is empty, too long, or has a character that no name may have"));
        }
        Some(user) => credential.counting_on(user),
        None => credential,
    };
    let credential = form.expires.into_iter().fold(credential, KnownCredential::expiring_at);
    let credential = form.ttl.into_iter().fold(credential, KnownCredential::valid_for_secs);
    Ok(credential.limited_to(limits([("bw", form.bw), ("alloc", form.alloc), ("peers", form.peers)])?))
}

/// They are written as in a username, and read in the same way.
fn limits(given: [(&str, Option<Value>); 3]) -> Result<UsernameLimits, HookError> {
    let mut text = String::new();
    for (key, value) in given {
        let value = match value {
            None | Some(Value::Null) => continue,
            Some(Value::String(value)) if !value.contains(';') => value,
            Some(Value::Number(value)) => value.to_string(),
            Some(_) => return Err(HookError::Malformed(format!("{key} is neither a text nor a number"))),
        };
        text += &format!(";{key}={value}");
    }
    let read = UsernameLimits::split(&text).map_err(|error| HookError::Malformed(error.to_string()))?;
    Ok(read.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_strictly_and_never_quote_a_password() {
        let known = |text: &str| read(200, text.as_bytes()).map(|known| format!("{:?}", known.unwrap()));
        for good in [
            r#"{"password": "s3cret"}"#,
            r#"{"password": "s3cret", "user": "tenant", "expires": 1800000000, "ttl": 0, "bw": "2M", "alloc": 4, "peers": "sfu"}"#,
            r#"{"password": "s3cret", "bw": null}"#,
            r#"{"key": "0x00000000000000000000000000000000,0x0000000000000000000000000000000000000000000000000000000000000000"}"#,
        ] {
            assert!(!known(good).unwrap().contains("s3cret"), "{good}");
        }
        for (bad, why) in [
            ("", "not the JSON object"),
            ("s3cret", "not the JSON object"),
            (r#"["s3cret"]"#, "not the JSON object"),
            ("{}", "neither a password nor a key"),
            (r#"{"password": "s3cret", "bandwith": "2M"}"#, "unknown field bandwith"),
            (r#"{"password": {"s3cret": 1}}"#, "not the JSON object"),
            (r#"{"password": ""}"#, "the password is empty"),
            (r#"{"password": "s3cret", "key": "0x"}"#, "or both"),
            (r#"{"key": "0x00000000000000000000000000000000"}"#, "not both keys"),
            (r#"{"password": "s3cret", "user": ""}"#, "user is empty"),
            (r#"{"password": "s3cret", "alloc": "many"}"#, "alloc"),
            (r#"{"password": "s3cret", "peers": "a;alloc=9"}"#, "peers is neither"),
            (r#"{"password": "s3cret", "bw": ["2M"]}"#, "bw is neither"),
        ] {
            let told = known(bad).unwrap_err().to_string();
            assert!(told.contains(why) && !told.contains("s3cret"), "{bad}: {told}");
        }
        for (body, verdict) in [
            ("", Some(Verdict::Noted)),
            (" \r\n", Some(Verdict::Noted)),
            ("{}", Some(Verdict::Noted)),
            (r#"{"end": false}"#, Some(Verdict::Noted)),
            (r#"{"end": true}"#, Some(Verdict::End)),
            (r#"{"end": 1}"#, None),
            (r#"{"End": true}"#, None),
            (r#"{"end": true, "why": "s3cret"}"#, None),
            ("<html>403</html>", None),
            ("OK", None),
        ] {
            let told = read_to_event(200, body.as_bytes());
            assert_eq!(told.as_ref().ok(), verdict.as_ref(), "{body}");
            assert!(!told.is_err_and(|error| error.to_string().contains("s3cret")), "{body}");
        }
        assert_eq!(read_to_event(204, b"").unwrap(), Verdict::Noted);
        for status in [199, 302, 401, 403, 404, 500] {
            assert!(read_to_event(status, br#"{"end": true}"#).is_err(), "{status}");
        }
        assert!(matches!((read(404, b"{"), read(403, b"")), (Ok(None), Ok(None))));
        for status in [201, 204, 302, 400, 401, 429, 500] {
            assert!(read(status, br#"{"password": "s3cret"}"#).is_err(), "{status}");
        }
    }
}
