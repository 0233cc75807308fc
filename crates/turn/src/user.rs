//! Whom quotas, rates, bandwidth caps and reservations count on.

use std::sync::Arc;

use sha2::{Digest, Sha256};

/// A user.
///
/// Users of two realms are two, whatever their names.
///
/// A static user and the user of a time-limited credential are two, though their names be one: who mints the credentials
/// chooses the names in them, and that is not who gave the static user a password. One whose credential was asked for is a third.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct User(Arc<Parts>);

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Parts {
    realm: Option<Arc<str>>,
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
        Self::new(name.into(), UserKind::Static)
    }

    /// The user in a time-limited username.
    pub fn time_limited(name: impl Into<Arc<str>>) -> Self {
        Self::new(name.into(), UserKind::TimeLimited)
    }

    /// A user whose credential was asked for.
    pub fn asked(name: impl Into<Arc<str>>) -> Self {
        Self::new(name.into(), UserKind::Asked)
    }

    /// The user of that name in one of several realms; `None` is the default one.
    #[must_use]
    pub fn in_realm(mut self, realm: Option<Arc<str>>) -> Self {
        if self.0.realm != realm {
            Arc::make_mut(&mut self.0).realm = realm;
        }
        self
    }

    fn new(name: Arc<str>, kind: UserKind) -> Self {
        Self(Arc::new(Parts { realm: None, name, kind }))
    }

    /// The realm, if it is not the default one.
    pub fn realm(&self) -> Option<&Arc<str>> {
        self.0.realm.as_ref()
    }

    /// Whether it is one of the realm of this name; `None` is the default one.
    pub fn is_in_realm(&self, name: Option<&str>) -> bool {
        self.realm().map(|realm| &**realm) == name
    }

    /// The holder of an access token; the name is of the token.
    pub fn token(name: impl Into<Arc<str>>) -> Self {
        Self::new(name.into(), UserKind::Token)
    }

    /// The name.
    pub fn name(&self) -> &Arc<str> {
        &self.0.name
    }

    /// How the user is known.
    pub fn kind(&self) -> UserKind {
        self.0.kind
    }
}

/// One of several realms, as a number that is the same in every process: clients and nonces carry it. The default realm has a number of
/// its own, whatever its name. Two names of one number are possible, if hardly in practice: who configures realms has to look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RealmId(u32);

impl RealmId {
    /// The realm of clients that nothing else is said of.
    pub const DEFAULT: Self = Self(0);

    /// The realm of this name, beside the default one.
    pub fn of(name: &str) -> Self {
        let digest: [u8; 32] = Sha256::digest(name).into();
        let first = digest.first_chunk().map_or(1, |bytes| u32::from_be_bytes(*bytes));
        Self(first.max(1))
    }

    /// The number.
    pub fn to_bits(self) -> u32 {
        self.0
    }
}
