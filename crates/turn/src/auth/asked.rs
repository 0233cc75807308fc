//! Credentials that somebody else knows: what is asked for, within which bounds, and what an answer brings.

use std::fmt;
use std::sync::Arc;

use crate::user::User;
use secrecy::ExposeSecret;
use turnstone_stun::{Key, PasswordAlgorithm};

use super::identity::Identity;
use super::password::{Passwords, PrepareError};
use super::username_limits::UsernameLimits;

/// Whether, and within which bounds, requests wait for the credential of a username that nobody configured. All bounds are those of one
/// server, which is one worker's.
///
/// ```
/// use turnstone_turn::auth::AskPolicy;
///
/// let mut asks = AskPolicy::default();
/// asks.deadline_millis = 2_000;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AskPolicy {
    /// How long a request waits at most, in milliseconds. Default 5000: clients give up after 9.5 seconds (libwebrtc) to 39.5
    /// (RFC 8489 section 6.2.1).
    pub deadline_millis: u32,
    /// Requests that wait at once. Default 4096, of 2 KiB at most each.
    pub waiting_max: usize,
    /// Requests of one IPv4 /24 or IPv6 /64 that wait at once; a /16 or /48 may have ten times as many, a /32 of IPv6 a hundred times, but
    /// none of them more than half of all. Default 64. One client has eight at most.
    pub waiting_per_network_max: usize,
    /// Credentials that are kept for the next request of their user. Default 4096.
    pub known_max: usize,
    /// How long a credential is kept, in seconds, if its answer does not say. Default 60. For so long a password that was changed is
    /// refused, and one that was revoked is good.
    pub known_secs: u32,
    /// Usernames that are kept as those of nobody. Default 4096.
    pub unknown_max: usize,
    /// How long they are, in seconds, and how long a credential is that has expired. Default 5. Whoever tries a name again later can tell
    /// by the time it takes whether it is kept, and so whether it is somebody's; where that must not be, this is `known_secs`.
    pub unknown_secs: u32,
    /// Whether those who are asked about have MD5 keys alone ([`KnownCredential::from_md5`]). Nothing else is offered to anybody in the realm
    /// then, since PASSWORD-ALGORITHMS is sent before anybody knows who asks. Not by default.
    pub md5_only: bool,
}

impl Default for AskPolicy {
    fn default() -> Self {
        Self {
            deadline_millis: 5_000,
            waiting_max: 4096,
            waiting_per_network_max: 64,
            known_max: 4096,
            known_secs: 60,
            unknown_max: 4096,
            unknown_secs: 5,
            md5_only: false,
        }
    }
}

/// A credential, as an answer brings it. Never printed.
#[derive(Clone)]
pub struct KnownCredential {
    secret: Secret,
    user: Option<Arc<str>>,
    limits: UsernameLimits,
    expires_unix: Option<u64>,
    valid_secs: Option<u32>,
}

#[derive(Clone)]
enum Secret {
    Password(Passwords),
    Keys { md5: Key, sha256: Option<Key> },
}

impl KnownCredential {
    /// One of a password.
    ///
    /// # Errors
    /// The password is empty or has a character that RFC 8265 OpaqueString does not allow.
    pub fn from_password(password: &str) -> Result<Self, PrepareError> {
        Ok(Self::new(Secret::Password(Passwords::prepare(password)?)))
    }

    /// One of keys, for whoever does not store passwords: the MD5 and the SHA-256 digest of `username:realm:password`
    /// (RFC 8489 section 9.2.2).
    pub fn from_keys(md5: [u8; 16], sha256: [u8; 32]) -> Self {
        Self::new(Secret::Keys { md5: Key::from_md5(md5), sha256: Some(Key::from_sha256(sha256)) })
    }

    /// One of the MD5 key alone, for realms where nothing else is offered ([`AskPolicy::md5_only`]).
    pub fn from_md5(md5: [u8; 16]) -> Self {
        Self::new(Secret::Keys { md5: Key::from_md5(md5), sha256: None })
    }

    fn new(secret: Secret) -> Self {
        Self { secret, user: None, limits: UsernameLimits::default(), expires_unix: None, valid_secs: None }
    }

    /// Whom quotas and bandwidth count on, if that is not the username.
    #[must_use]
    pub fn counting_on(mut self, user: impl Into<Arc<str>>) -> Self {
        self.user = Some(user.into());
        self
    }

    /// What its user may do, where that is less than the configuration grants.
    #[must_use]
    pub fn limited_to(mut self, limits: UsernameLimits) -> Self {
        self.limits = limits;
        self
    }

    /// When the credential expires, in Unix seconds. It is refused from then on, and asked for again, since it may have been renewed. What
    /// becomes of its allocations is [`OnExpiry`](crate::OnExpiry)'s matter.
    #[must_use]
    pub fn expiring_at(mut self, unix_secs: u64) -> Self {
        self.expires_unix = Some(unix_secs);
        self
    }

    /// How long it is used before it is asked for again, in place of [`AskPolicy::known_secs`]. With 0, only the requests that wait
    /// for it use it.
    #[must_use]
    pub fn valid_for_secs(mut self, secs: u32) -> Self {
        self.valid_secs = Some(secs);
        self
    }

    /// How long it is used before it is asked for again.
    pub(crate) fn valid_secs(&self, now_unix: u64, policy: &AskPolicy) -> u32 {
        let valid_secs = self.valid_secs.unwrap_or(policy.known_secs);
        let Some(expires_unix) = self.expires_unix else { return valid_secs };
        // Its last second is that of its expiry.
        let left_secs = expires_unix.saturating_add(1).saturating_sub(now_unix);
        valid_secs.min(u32::try_from(left_secs).unwrap_or(u32::MAX).max(policy.unknown_secs))
    }

    /// Its user in a realm; `label` is the realm again if it is not the default one.
    pub(crate) fn into_user(self, username: &Arc<str>, realm: &str, label: Option<&Arc<str>>) -> AskedUser {
        let user = User::asked(self.user.unwrap_or_else(|| Arc::clone(username))).in_realm(label.cloned());
        let keys = match self.secret {
            Secret::Password(passwords) => Keys::new(username, realm, &passwords),
            Secret::Keys { md5, sha256 } => Keys::of_digests(md5, sha256),
        };
        let limits = (!self.limits.is_empty()).then(|| Arc::new(self.limits));
        let identity = Identity::new(Arc::clone(username), user).limited_to(limits);
        let identity = match self.expires_unix {
            Some(expires_unix) => identity.expiring(expires_unix),
            None => identity,
        };
        AskedUser { identity, keys }
    }
}

impl fmt::Debug for KnownCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { user, expires_unix, valid_secs, .. } = self;
        write!(f, "KnownCredential(user: {user:?}, expires_unix: {expires_unix:?}, valid_secs: {valid_secs:?}, ..)")
    }
}

/// A user whose credential was asked for.
pub(crate) struct AskedUser {
    pub(super) identity: Identity,
    pub(super) keys: Keys,
}

/// A user's keys in one realm.
pub(super) struct Keys {
    md5: Key,
    sha256: Option<Key>,
    rfc5389: Option<Key>,
}

impl Keys {
    fn new(username: &str, realm: &str, passwords: &Passwords) -> Self {
        let key = |algorithm, password: &secrecy::SecretString| {
            Key::long_term(algorithm, username.as_bytes(), realm.as_bytes(), password.expose_secret().as_bytes())
        };
        Self {
            md5: key(PasswordAlgorithm::Md5, passwords.opaque()),
            sha256: Some(key(PasswordAlgorithm::Sha256, passwords.opaque())),
            rfc5389: passwords.rfc5389().map(|password| key(PasswordAlgorithm::Md5, password)),
        }
    }

    /// Those of somebody whose password nobody here knows.
    fn of_digests(md5: Key, sha256: Option<Key>) -> Self {
        Self { md5, sha256, rfc5389: None }
    }

    pub(super) fn key(&self, algorithm: PasswordAlgorithm) -> Option<&Key> {
        match algorithm {
            PasswordAlgorithm::Md5 => Some(&self.md5),
            PasswordAlgorithm::Sha256 => self.sha256.as_ref(),
        }
    }

    /// The key a client of RFC 5389 has, where SASLprep makes the password another than OpaqueString does.
    pub(super) fn rfc5389_key(&self) -> Option<&Key> {
        self.rfc5389.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_is_never_printed() {
        let credential = KnownCredential::from_password("hidden").unwrap().counting_on("tenant").valid_for_secs(9);
        let printed = format!("{credential:?}");
        assert!(printed.contains("tenant") && printed.contains('9') && !printed.contains("hidden"), "{printed}");
        assert!(!format!("{:?}", KnownCredential::from_keys([77; 16], [77; 32])).contains("77"));
    }

    #[test]
    fn a_password_that_no_client_can_have_is_refused() {
        assert!(KnownCredential::from_password("").is_err());
        assert!(KnownCredential::from_password("a\u{0}b").is_err());
    }
}
