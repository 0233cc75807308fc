//! Values as they are written: why one is refused, and how one is shown.

use std::fmt;
use std::time::Duration;

use crate::turn::OnExpiry;

use super::error::ValueError;
use super::units::{duration_text, rate_text, size_text};

/// A key's value, as it is compared and shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Boolean(bool),
    Number(u64),
    Text(String),
    Duration(Duration),
    /// In bytes.
    Size(u64),
    /// In bytes per second.
    Rate(u64),
    List(Vec<Self>),
}

/// In the syntax of TOML.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boolean(value) => value.fmt(f),
            Self::Number(value) => value.fmt(f),
            Self::Text(text) => f.write_str(&quoted(text)),
            Self::Duration(duration) => write!(f, "\"{}\"", duration_text(*duration)),
            Self::Size(bytes) => write!(f, "\"{}\"", size_text(*bytes)),
            Self::Rate(bytes) => write!(f, "\"{}\"", rate_text(*bytes)),
            Self::List(values) => {
                let values: Vec<_> = values.iter().map(ToString::to_string).collect();
                write!(f, "[{}]", values.join(", "))
            }
        }
    }
}

/// A text in the syntax of TOML.
pub(crate) fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// The names of a closed choice, and what they stand for.
pub(super) type Choices<T> = [(&'static str, T)];

/// What may become of allocations whose credential has expired.
pub(super) const ON_EXPIRY: &Choices<OnExpiry> =
    &[("keep", OnExpiry::Keep), ("no-refresh", OnExpiry::NoRefresh), ("cut", OnExpiry::Cut)];

/// Whether peers that no rule names are denied.
pub(super) const PEER_MODES: &Choices<bool> = &[("p2p", false), ("sfu", true)];

/// The value of a name.
pub(super) fn choose<T: Copy>(choices: &Choices<T>, text: &str, what: &'static str) -> Result<T, ValueError> {
    let found = choices.iter().find(|(name, _)| *name == text);
    found.map(|(_, value)| *value).ok_or_else(|| ValueError::is_not(text, what))
}

/// The name of a value.
pub(super) fn name_of<T: PartialEq>(choices: &Choices<T>, value: &T) -> Option<&'static str> {
    choices.iter().find(|(_, known)| known == value).map(|(name, _)| *name)
}
