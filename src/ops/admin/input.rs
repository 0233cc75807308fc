//! What comes with a request: the query string and the body, both read strictly.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

use super::error::Refused;

/// The parameters of a query string, decoded.
pub(super) struct Query(BTreeMap<String, String>);

/// Reads a query string that may have these keys, each once.
pub(super) fn query(text: Option<&str>, known: &[&str]) -> Result<Query, Refused> {
    let mut values = BTreeMap::new();
    for (key, value) in form_urlencoded::parse(text.unwrap_or_default().as_bytes()) {
        if !known.contains(&key.as_ref()) {
            let expected = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            return Err(Refused::bad_request(format!("unknown parameter {key:?}; expected {expected}")));
        }
        // What is not UTF-8 is decoded to this; it must not name anybody.
        if value.contains(char::REPLACEMENT_CHARACTER) {
            return Err(Refused::bad_request(format!("{key} is not UTF-8")));
        }
        if values.insert(key.to_string(), value.into_owned()).is_some() {
            return Err(Refused::bad_request(format!("{key} is there twice")));
        }
    }
    Ok(Query(values))
}

impl Query {
    /// A text that is not empty.
    pub(super) fn text(&self, key: &str) -> Result<Option<&str>, Refused> {
        match self.0.get(key).map(String::as_str) {
            Some("") => Err(Refused::bad_request(format!("{key} is empty"))),
            value => Ok(value),
        }
    }

    /// A value that is parsed; `expected` says what would be right.
    pub(super) fn parsed<T: FromStr>(&self, key: &str, expected: &str) -> Result<Option<T>, Refused> {
        let Some(text) = self.text(key)? else { return Ok(None) };
        let wrong = |_| Refused::bad_request(format!("{key} {text:?}: expected {expected}"));
        text.parse().map(Some).map_err(wrong)
    }

    /// One of these values, by its name.
    pub(super) fn one_of<T: Copy>(&self, key: &str, choices: &[(&str, T)]) -> Result<Option<T>, Refused> {
        let Some(text) = self.text(key)? else { return Ok(None) };
        let found = choices.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
        let names = || choices.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        found.map(Some).ok_or_else(|| Refused::bad_request(format!("{key} {text:?}: expected one of {}", names())))
    }

    /// How many answers are wanted, from 1 to `max`.
    pub(super) fn limit(&self, default: usize, max: usize) -> Result<usize, Refused> {
        let expected = format!("a number from 1 to {max}");
        match self.parsed::<usize>("limit", &expected)? {
            None => Ok(default),
            Some(limit) if (1..=max).contains(&limit) => Ok(limit),
            Some(limit) => Err(wrong("limit", limit, &expected)),
        }
    }
}

/// A value that cannot be used.
pub(super) fn wrong(key: &str, value: impl Display, expected: &str) -> Refused {
    Refused::bad_request(format!("{key} {value}: expected {expected}"))
}
