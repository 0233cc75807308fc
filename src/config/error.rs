//! What is wrong with a configuration, and where.

use std::fmt;
use std::net::SocketAddr;

/// Every problem found in a configuration, in the order of the file. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The problems.
    pub problems: Vec<Problem>,
}

impl ConfigError {
    /// One problem.
    pub fn one(place: Place, message: impl Into<String>) -> Self {
        Self { problems: vec![Problem { place, message: message.into() }] }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// One thing that is wrong, or that an operator should know.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// What is wrong and what was expected.
    pub message: String,
}

impl fmt::Display for Problem {
    /// One line: control characters that a value, or the name of a file, brought along are escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in format!("{}: {}", self.place, self.message).chars() {
            if c.is_control() { write!(f, "{}", c.escape_default())? } else { write!(f, "{c}")? }
        }
        Ok(())
    }
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A place in a file.
    At {
        /// The file as the user named it.
        file: String,
        /// The line, from 1.
        line: usize,
        /// The column in characters, from 1.
        column: usize,
    },
    /// A flag, an environment variable, or a file as a whole.
    Source(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At { file, line, column } => write!(f, "{file}:{line}:{column}"),
            Self::Source(source) => f.write_str(source),
        }
    }
}

/// What is wrong with a value. Who reads the file adds the place, the key and what was expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ValueError {
    /// A value that is not what it should be.
    #[error("{0:?} is not {1}")]
    IsNot(String, &'static str),
    /// A part, such as a unit, of a value that is not what it should be.
    #[error("{0:?} in {1:?} is not {2}")]
    PartIsNot(String, String, &'static str),
    /// A value that is what cannot be used here.
    #[error("{0:?} is {1}")]
    Unfit(String, &'static str),
    /// A value in which something is missing.
    #[error("{0:?} has no {1}")]
    Lacks(String, &'static str),
    /// Nothing at all in place of a duration.
    #[error("an empty string is not a duration")]
    Empty,
    /// More than can be counted.
    #[error("{0:?} is too large")]
    TooLarge(String),
    /// A range whose ends are swapped.
    #[error("{0:?} is reversed")]
    Reversed(String),
    /// A text that is too short or too long, or has characters that it may not have.
    #[error("it is {0}")]
    Text(&'static str),
    /// A duration or a size that is smaller or larger than the two that follow.
    #[error("{0:?} is not from {1} to {2}")]
    NotWithin(String, String, String),
    /// A number that is too small or too large.
    #[error("{0} is out of range")]
    OutOfRange(String),
    /// Ports that only root may use.
    #[error("{0:?} begins below 1024")]
    WellKnownPorts(String),
    /// A listener without `udp://` or the like.
    #[error("{0:?} names no transport")]
    NoTransport(String),
    /// The admin API where others than this host would reach it.
    #[error(
        "{0} is not a loopback address, and whoever reaches the admin API rules the server; put a proxy with TLS in front"
    )]
    NotLoopback(SocketAddr),
    /// A webhook's URL with what belongs elsewhere.
    #[error("it has a user or a password, which belong into webhook-token-file")]
    Userinfo,
    /// A webhook's URL with a part that is for browsers.
    #[error("{0:?} has a fragment, which is never sent")]
    Fragment(String),
    /// A webhook without TLS that is not on this host.
    #[error("{0:?} would send users and their traffic in the clear")]
    InTheClear(String),
    /// A log filter that cannot be parsed, and why.
    #[error("{0:?} is not a filter: {1}")]
    Filter(String, String),
}

impl ValueError {
    pub(super) fn is_not(text: &str, what: &'static str) -> Self {
        Self::IsNot(text.to_owned(), what)
    }

    pub(super) fn part(part: &str, text: &str, what: &'static str) -> Self {
        Self::PartIsNot(part.to_owned(), text.to_owned(), what)
    }

    pub(super) fn unfit(text: &str, what: &'static str) -> Self {
        Self::Unfit(text.to_owned(), what)
    }

    pub(super) fn lacks(text: &str, what: &'static str) -> Self {
        Self::Lacks(text.to_owned(), what)
    }
}

/// A value together with where it was written.
#[derive(Clone, Debug)]
pub(crate) struct Located<T> {
    pub(crate) value: T,
    pub(crate) place: Place,
}
