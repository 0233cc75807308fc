//! Makes a time-limited credential: checks what is asked for, and signs it.

use zeroize::Zeroizing;

use crate::auth::{SharedSecret, UsernameLimits, UsernameLimitsError, mint, prepare};
use crate::policy::PolicyName;

/// What fits into USERNAME (RFC 8489 section 14.3).
const USERNAME_BYTES_MAX: usize = 508;
/// The longest life of a credential.
pub(crate) const TTL_MAX_SECS: u64 = 366 * 86_400;

/// What a credential is asked for.
#[derive(Clone, Copy)]
pub(crate) struct Wish<'w> {
    /// Whom it is for.
    pub(crate) user: &'w str,
    /// How long it is good: from 1 to [`TTL_MAX_SECS`].
    pub(crate) ttl_secs: u64,
    /// What its user may have at most.
    pub(crate) limits: LimitTexts<'w>,
}

/// Limits as they are written in a username.
#[derive(Clone, Copy, Default)]
pub(crate) struct LimitTexts<'w> {
    pub(crate) bandwidth: Option<&'w str>,
    pub(crate) allocations: Option<&'w str>,
    pub(crate) peers: Option<&'w str>,
}

/// What the server reads in usernames.
#[derive(Clone, Copy)]
pub(crate) struct UsernameRules<'r> {
    /// Whether limits are read.
    pub(crate) limits: bool,
    /// The peer policies that there are.
    pub(crate) policies: &'r [PolicyName],
}

/// A credential.
pub(crate) struct Issued {
    pub(crate) username: String,
    pub(crate) password: Zeroizing<String>,
    pub(crate) ttl_secs: u64,
    pub(crate) expires_unix: u64,
}

/// Which part of a wish cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum About {
    User,
    Bandwidth,
    Allocations,
    Peers,
}

/// Why a credential cannot be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WishError {
    #[error("{0:?} is empty, too long, or has a character that a username cannot have")]
    User(String),
    #[error("a name has no ; where username-limits is true")]
    Semicolon,
    #[error("the name is too long")]
    TooLong,
    #[error(
        "the server would take it for a part of the user's name; set username-limits = true in [auth] or in the [[realm]]"
    )]
    LimitsOff(About),
    #[error("{1:?} has a ;")]
    LimitSemicolon(About, String),
    #[error("{1:?}: {2}")]
    Limit(About, String, UsernameLimitsError),
    #[error("no [[peers.policy]] has the name \"{0}\"")]
    NoPolicy(PolicyName),
}

impl WishError {
    /// What it is about.
    pub(crate) fn about(&self) -> About {
        match self {
            Self::User(_) | Self::Semicolon | Self::TooLong => About::User,
            Self::LimitsOff(about) | Self::LimitSemicolon(about, _) | Self::Limit(about, ..) => *about,
            Self::NoPolicy(_) => About::Peers,
        }
    }
}

impl Wish<'_> {
    /// Makes the credential.
    ///
    /// # Errors
    /// What cannot be had.
    pub(crate) fn issue(
        &self,
        secret: &SharedSecret,
        rules: UsernameRules<'_>,
        now_unix: u64,
    ) -> Result<Issued, WishError> {
        let expires_unix = now_unix.saturating_add(self.ttl_secs);
        let mut username = format!("{expires_unix}:{}", self.user);
        let is_fit = !self.user.is_empty() && username.len() <= USERNAME_BYTES_MAX;
        if !is_fit || prepare(&username).as_deref() != Ok(&username) {
            return Err(WishError::User(self.user.to_owned()));
        }
        let limits = self.limits.items(rules)?;
        if rules.limits && self.user.contains(';') {
            return Err(WishError::Semicolon);
        }
        username.push_str(&limits);
        if username.len() > USERNAME_BYTES_MAX {
            return Err(WishError::TooLong);
        }
        let password = mint(&secret.bytes, &username);
        Ok(Issued { username, password, ttl_secs: self.ttl_secs, expires_unix })
    }
}

impl LimitTexts<'_> {
    /// What follows the name in the username.
    fn items(&self, rules: UsernameRules<'_>) -> Result<String, WishError> {
        let all = [
            (About::Bandwidth, "bw", self.bandwidth),
            (About::Allocations, "alloc", self.allocations),
            (About::Peers, "peers", self.peers),
        ];
        let mut items = String::new();
        for (about, key, value) in all {
            let Some(value) = value else { continue };
            if !rules.limits {
                return Err(WishError::LimitsOff(about));
            }
            if value.contains(';') {
                return Err(WishError::LimitSemicolon(about, value.to_owned()));
            }
            let item = format!(";{key}={value}");
            let (_, limits) =
                UsernameLimits::split(&item).map_err(|error| WishError::Limit(about, value.to_owned(), error))?;
            if let Some(name) = limits.peers
                && !rules.policies.contains(&name)
            {
                return Err(WishError::NoPolicy(name));
            }
            items.push_str(&item);
        }
        Ok(items)
    }
}
