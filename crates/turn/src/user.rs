//! Whom quotas, rates, bandwidth caps and reservations count on.

use std::sync::Arc;

/// A user.
///
/// A static user and the user of a time-limited credential are two, though their names be one: who mints the credentials
/// chooses the names in them, and that is not who gave the static user a password. One whose credential was asked for is a third.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct User {
    name: Arc<str>,
    kind: UserKind,
}

/// How a user is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum UserKind {
    /// By a password of the configuration.
    Static,
    /// By a time-limited credential.
    TimeLimited,
    /// By a credential that was asked for: see [`AskPolicy`](crate::auth::AskPolicy).
    Asked,
    /// By an access token (RFC 7635).
    Token,
}

impl UserKind {
    /// The stable name in records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Static => "static",
            Self::TimeLimited => "time-limited",
            Self::Asked => "asked",
            Self::Token => "token",
        }
    }
}

impl User {
    /// A user of the configuration.
    pub fn fixed(name: impl Into<Arc<str>>) -> Self {
        Self { name: name.into(), kind: UserKind::Static }
    }

    /// The user in a time-limited username.
    pub fn time_limited(name: impl Into<Arc<str>>) -> Self {
        Self { name: name.into(), kind: UserKind::TimeLimited }
    }

    /// A user whose credential was asked for.
    pub fn asked(name: impl Into<Arc<str>>) -> Self {
        Self { name: name.into(), kind: UserKind::Asked }
    }

    /// The holder of an access token; the name is of the token.
    pub fn token(name: impl Into<Arc<str>>) -> Self {
        Self { name: name.into(), kind: UserKind::Token }
    }

    /// The name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// How the user is known.
    pub fn kind(&self) -> UserKind {
        self.kind
    }
}
