//! The `iceServers` of a page (W3C WebRTC, RTCIceServer), in the shapes in which APIs and code have them.

use std::fmt;

use serde_json::{Map, Value};
use thiserror::Error;
use zeroize::Zeroizing;

use super::script::{self, ScriptError};
use crate::probe::report::Status;

/// More URLs are no list for a page any more.
const URLS_MAX: usize = 64;
/// The fields of an entry that browsers know, or knew.
const KNOWN: [&str; 5] = ["urls", "url", "username", "credential", "credentialType"];

/// The servers that a page would use.
pub struct IceServers {
    pub(super) entries: Vec<Entry>,
    /// About the whole list.
    pub(super) remarks: Vec<Remark>,
}

/// An RTCIceServer.
pub(super) struct Entry {
    pub(super) urls: Vec<String>,
    pub(super) username: Option<String>,
    pub(super) credential: Option<Zeroizing<String>>,
    pub(super) remarks: Vec<Remark>,
}

/// What a browser has to say of it.
pub(super) struct Remark {
    pub(super) status: Status,
    pub(super) words: String,
}

/// Why a text has no such servers.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum IceServersError {
    /// It is no array or object.
    #[error("{0}")]
    Script(#[from] ScriptError),
    /// Neither is it a list of servers, nor has it one.
    #[error(
        "no iceServers in it: expected an array of {{urls, username, credential}}, an object with iceServers, or one such entry"
    )]
    NoServers,
    /// The list is empty.
    #[error("the list of servers is empty")]
    Empty,
    /// An entry is something else.
    #[error("entry {0} is not an object with urls")]
    NotAnEntry(usize),
    /// Nobody uses so many.
    #[error("more than {URLS_MAX} URLs")]
    TooMany,
}

impl IceServers {
    /// Reads what is pasted from a page's code, or what an API has answered.
    ///
    /// # Errors
    /// When there are no servers in it, or values that code would compute.
    pub fn read(text: &str) -> Result<Self, IceServersError> {
        let mut remarks = Vec::new();
        let entries = match script::read(text)? {
            Value::Array(entries) => entries,
            Value::Object(fields) => list_of(fields, &mut remarks)?,
            _ => return Err(IceServersError::NoServers),
        };
        if entries.is_empty() {
            return Err(IceServersError::Empty);
        }
        let entries = entries.into_iter().enumerate().map(|(index, entry)| match entry {
            Value::Object(fields) => Ok(Entry::of(fields)),
            _ => Err(IceServersError::NotAnEntry(index + 1)),
        });
        let entries: Vec<Entry> = entries.collect::<Result<_, _>>()?;
        if entries.iter().map(|entry| entry.urls.len()).sum::<usize>() > URLS_MAX {
            return Err(IceServersError::TooMany);
        }
        Ok(Self { entries, remarks })
    }

    /// Whether any entry has a credential.
    pub fn has_credential(&self) -> bool {
        self.entries.iter().any(|entry| entry.credential.is_some())
    }

    pub(super) fn urls(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().flat_map(|entry| entry.urls.iter().map(String::as_str))
    }
}

/// Without what is secret.
impl fmt::Debug for IceServers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.urls()).finish()
    }
}

fn list_of(mut fields: Map<String, Value>, remarks: &mut Vec<Remark>) -> Result<Vec<Value>, IceServersError> {
    // The latter is Twilio's.
    for name in ["iceServers", "ice_servers"] {
        match fields.remove(name) {
            Some(Value::Array(entries)) => return Ok(entries),
            Some(entry @ Value::Object(_)) => {
                let words = format!("{name} is one object, and browsers want an array (TypeError): put [ ] around it");
                remarks.push(Remark { status: Status::Fail, words });
                return Ok(vec![entry]);
            }
            Some(_) => return Err(IceServersError::NoServers),
            None => {}
        }
    }
    if fields.contains_key("urls") || fields.contains_key("url") {
        return Ok(vec![Value::Object(fields)]);
    }
    // The TURN REST draft's.
    match (fields.remove("uris"), fields.remove("username"), fields.remove("password")) {
        (Some(uris), Some(username), Some(password)) => {
            let words = "the words of the TURN REST draft: a page makes urls of uris, and credential of password";
            remarks.push(Remark { status: Status::Note, words: words.to_owned() });
            let entry = [("urls", uris), ("username", username), ("credential", password)];
            Ok(vec![entry.into_iter().map(|(name, value)| (name.to_owned(), value)).collect::<Map<_, _>>().into()])
        }
        _ => Err(IceServersError::NoServers),
    }
}

impl Entry {
    fn of(mut fields: Map<String, Value>) -> Self {
        let mut remarks = Vec::new();
        let mut remark = |status, words: String| remarks.push(Remark { status, words });
        let urls = match (fields.remove("urls"), fields.remove("url")) {
            (Some(urls), _) => urls,
            (None, Some(url)) => {
                let words =
                    "url is of an old draft, which Chromium and Firefox still take and others need not: write urls";
                remark(Status::Warn, words.to_owned());
                url
            }
            (None, None) => {
                remark(Status::Fail, "urls is missing: new RTCPeerConnection throws a TypeError".to_owned());
                Value::Array(Vec::new())
            }
        };
        let urls = match urls {
            Value::Array(urls) if urls.is_empty() && remarks.is_empty() => {
                let words = "urls is empty: new RTCPeerConnection throws a SyntaxError".to_owned();
                remarks.push(Remark { status: Status::Fail, words });
                Vec::new()
            }
            Value::Array(urls) => urls.into_iter().map(|url| dom_string("urls", url, &mut remarks)).collect(),
            url => vec![dom_string("urls", url, &mut remarks)],
        };
        let username = fields.remove("username").map(|value| dom_string("username", value, &mut remarks));
        let credential = fields.remove("credential").map(|value| dom_string("credential", value, &mut remarks));
        if let Some(kind) = fields.remove("credentialType").filter(|kind| kind != "password") {
            let kind = kind.as_str().unwrap_or("that").escape_debug().to_string();
            let words = format!("browsers know passwords alone: of credentialType {kind}, Firefox throws a TypeError");
            remarks.push(Remark { status: Status::Fail, words });
        }
        for name in fields.keys().filter(|name| !KNOWN.contains(&name.as_str())) {
            let hint = match name.as_str() {
                "password" | "pass" | "secret" => " (its name is credential)",
                "user" | "login" | "userName" => " (its name is username)",
                "uri" | "uris" | "server" | "host" => " (its name is urls)",
                _ => "",
            };
            let name: String = name.escape_debug().take(40).collect();
            remarks.push(Remark { status: Status::Note, words: format!("browsers ignore the field {name}{hint}") });
        }
        Self { urls, username, credential: credential.map(Zeroizing::new), remarks }
    }
}

/// What a browser makes of a value where it wants a text (Web IDL, DOMString).
fn dom_string(name: &str, value: Value, remarks: &mut Vec<Remark>) -> String {
    let (text, what) = match value {
        Value::String(text) => return text,
        Value::Number(number) => (number.to_string(), "a number"),
        Value::Bool(flag) => (flag.to_string(), "a boolean"),
        Value::Null => ("null".to_owned(), "null"),
        Value::Array(_) | Value::Object(_) => ("[object Object]".to_owned(), "an object"),
    };
    remarks.push(Remark { status: Status::Warn, words: format!("{name} is {what}, of which browsers make a text") });
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> IceServers {
        IceServers::read(text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    fn words(servers: &IceServers) -> String {
        let all = servers.remarks.iter().chain(servers.entries.iter().flat_map(|entry| &entry.remarks));
        all.map(|remark| format!("{}: {}\n", remark.status.name(), remark.words)).collect()
    }

    #[test]
    fn each_shape_gives_the_same_servers() {
        for text in [
            "[{urls: ['turn:a'], username: 'u', credential: 'p'}]",
            "[{urls: 'turn:a', username: 'u', credential: 'p', credentialType: 'password'}]",
            "{iceServers: [{urls: 'turn:a', username: 'u', credential: 'p'}], iceTransportPolicy: 'relay'}",
            "{urls: 'turn:a', username: 'u', credential: 'p'}",
            "{\"username\": \"u\", \"credential\": \"p\", \"ttl\": 60, \"iceServers\": [{\"credential\": \"p\", \"urls\": [\"turn:a\"], \"username\": \"u\"}]}",
        ] {
            let servers = read(text);
            let [entry] = &servers.entries[..] else { panic!("{text}") };
            assert_eq!((entry.urls.join(" "), entry.username.as_deref()), ("turn:a".to_owned(), Some("u")), "{text}");
            assert_eq!(entry.credential.as_deref().map(String::as_str), Some("p"), "{text}");
            assert_eq!(words(&servers), "", "{text}");
            assert!(servers.has_credential() && !format!("{servers:?}").contains('p'));
        }
    }

    #[test]
    fn what_browsers_stumble_over_is_said() {
        for (text, expected) in [
            ("{iceServers: {urls: 'stun:a'}}", "fail: iceServers is one object"),
            ("{ice_servers: [{url: 'stun:a', urls: 'stun:a'}]}", ""),
            ("{username: 'u', password: 'p', ttl: 1, uris: ['turn:a']}", "note: the words of the TURN REST draft"),
            ("[{url: 'stun:a'}]", "warn: url is of an old draft"),
            ("[{}]", "fail: urls is missing: new RTCPeerConnection throws a TypeError"),
            ("[{urls: []}]", "fail: urls is empty: new RTCPeerConnection throws a SyntaxError"),
            (
                "[{urls: 'turn:a', username: 7, credential: null}]",
                "warn: username is a number, of which browsers make a text\nwarn: credential is null",
            ),
            (
                "[{urls: 'turn:a', credentialType: 'oauth'}]",
                "fail: browsers know passwords alone: of credentialType oauth",
            ),
            (
                "[{urls: 'turn:a', username: 'u', password: 'p'}]",
                "note: browsers ignore the field password (its name is credential)",
            ),
        ] {
            let found = words(&read(text));
            assert!(found.starts_with(expected) && found.is_empty() == expected.is_empty(), "{text}: {found}");
        }
    }

    #[test]
    fn what_has_no_servers_is_refused() {
        let many = format!("[{{urls: [{}]}}]", "'stun:a',".repeat(URLS_MAX + 1));
        for (text, expected) in [
            ("{}", IceServersError::NoServers),
            ("{error: {code: 'unauthorized'}}", IceServersError::NoServers),
            ("{iceServers: 'turn:a'}", IceServersError::NoServers),
            ("[]", IceServersError::Empty),
            ("[{urls: 'stun:a'}, 'stun:a']", IceServersError::NotAnEntry(2)),
            (&many, IceServersError::TooMany),
        ] {
            assert_eq!(IceServers::read(text).unwrap_err(), expected, "{text:.40}");
        }
    }
}
