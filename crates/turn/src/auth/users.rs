//! Static users, found by USERNAME or by USERHASH.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use secrecy::{ExposeSecret, SecretString};

use crate::user::User;
use turnstone_stun::{Key, PasswordAlgorithm, userhash};

use super::identity::Identity;
use super::password::{PrepareError, prepare, prepare_rfc5389};

/// Longest username in bytes (RFC 8489 section 14.3: fewer than 509).
pub(super) const USERNAME_MAX: usize = 508;

/// The static users of the realm. Passwords are never printed and are zeroed when dropped.
#[derive(Clone, Default)]
pub struct Users {
    by_name: HashMap<Arc<str>, Passwords>,
}

/// Why a list of users is refused. It names the user, never the password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UsersError {
    /// The name is empty or has a character that OpaqueString does not allow.
    #[error("user {0:?}: the name {PrepareError}")]
    Name(String),
    /// The name is longer than 508 bytes (RFC 8489 section 14.3).
    #[error("user {0:?}: the name is longer than {USERNAME_MAX} bytes")]
    NameTooLong(String),
    /// The password is empty or has a character that OpaqueString does not allow.
    #[error("user {0:?}: the password {PrepareError}")]
    Password(String),
    /// The name was given twice, perhaps in two spellings that OpaqueString makes one.
    #[error("user {0:?} is given twice")]
    Duplicate(String),
}

impl Users {
    /// Prepares names and passwords as RFC 8265 OpaqueString asks.
    ///
    /// # Errors
    /// [`UsersError`] names the first user that is refused.
    pub fn from_pairs<N: AsRef<str>, P: AsRef<str>>(
        pairs: impl IntoIterator<Item = (N, P)>,
    ) -> Result<Self, UsersError> {
        let mut users = Self::default();
        for (name, password) in pairs {
            users.insert(name.as_ref(), password.as_ref())?;
        }
        Ok(users)
    }

    /// Adds one user.
    ///
    /// # Errors
    /// As [`Self::from_pairs`].
    pub fn insert(&mut self, name: &str, password: &str) -> Result<(), UsersError> {
        let prepared = prepare(name).map_err(|_| UsersError::Name(name.to_owned()))?;
        if prepared.len() > USERNAME_MAX {
            return Err(UsersError::NameTooLong(name.to_owned()));
        }
        if self.by_name.contains_key(prepared.as_str()) {
            return Err(UsersError::Duplicate(name.to_owned()));
        }
        let passwords = Passwords::prepare(password).map_err(|PrepareError| UsersError::Password(name.to_owned()))?;
        self.by_name.insert(prepared.into(), passwords);
        Ok(())
    }

    /// How many users `new` has more, how many it has no more, and how many have another password there.
    pub fn changes(&self, new: &Self) -> (usize, usize, usize) {
        let kept = new.by_name.iter().filter_map(|(name, passwords)| Some((self.by_name.get(name)?, passwords)));
        let (mut same, mut changed) = (0, 0);
        for (old, new) in kept {
            match old.opaque.expose_secret() == new.opaque.expose_secret() {
                true => same += 1,
                false => changed += 1,
            }
        }
        let kept = same + changed;
        (new.len() - kept, self.len() - kept, changed)
    }

    /// The user whose name comes first, and the prepared password: for who tries out the server on its own host.
    pub fn first(&self) -> Option<(&str, &SecretString)> {
        let (name, passwords) = self.by_name.iter().min_by_key(|(name, _)| *name)?;
        Some((name, &passwords.opaque))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }
}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Users({} users)", self.len())
    }
}

/// A password, prepared.
#[derive(Clone)]
pub(super) struct Passwords {
    opaque: SecretString,
    /// What SASLprep makes of the password, where it differs: most users have one key to try, not two.
    rfc5389: Option<SecretString>,
}

impl Passwords {
    pub(super) fn prepare(password: &str) -> Result<Self, PrepareError> {
        let opaque = prepare(password)?;
        let rfc5389 = prepare_rfc5389(password)
            .filter(|saslprep| **saslprep != opaque)
            .map(|saslprep| SecretString::from(saslprep.as_str()));
        Ok(Self { opaque: opaque.into(), rfc5389 })
    }
}

/// The static users with their keys in one realm.
pub(super) struct Directory {
    by_name: HashMap<Arc<str>, StaticUser>,
    by_hash: HashMap<[u8; 32], Arc<str>>,
}

impl Directory {
    pub(super) fn new(users: &Users, realm: &str) -> Self {
        let mut directory = Self { by_name: HashMap::new(), by_hash: HashMap::new() };
        for (name, passwords) in &users.by_name {
            directory.by_hash.insert(userhash(name.as_bytes(), realm.as_bytes()), Arc::clone(name));
            directory.by_name.insert(Arc::clone(name), StaticUser::new(name, realm, passwords));
        }
        directory
    }

    pub(super) fn len(&self) -> usize {
        self.by_name.len()
    }

    pub(super) fn by_name(&self, username: &str) -> Option<&StaticUser> {
        self.by_name.get(username)
    }

    pub(super) fn by_hash(&self, hash: &[u8; 32]) -> Option<&StaticUser> {
        self.by_name(self.by_hash.get(hash)?)
    }
}

pub(super) struct StaticUser {
    pub(super) identity: Identity,
    pub(super) keys: Keys,
}

impl StaticUser {
    fn new(name: &Arc<str>, realm: &str, passwords: &Passwords) -> Self {
        let user = User::fixed(Arc::clone(name));
        let identity = Identity { username: Arc::clone(name), user, expires_unix: None };
        Self { identity, keys: Keys::new(name, realm, passwords) }
    }
}

/// A user's keys in one realm.
pub(super) struct Keys {
    md5: Key,
    sha256: Key,
    rfc5389: Option<Key>,
}

impl Keys {
    pub(super) fn new(username: &str, realm: &str, passwords: &Passwords) -> Self {
        let key = |algorithm, password: &SecretString| {
            Key::long_term(algorithm, username.as_bytes(), realm.as_bytes(), password.expose_secret().as_bytes())
        };
        Self {
            md5: key(PasswordAlgorithm::Md5, &passwords.opaque),
            sha256: key(PasswordAlgorithm::Sha256, &passwords.opaque),
            rfc5389: passwords.rfc5389.as_ref().map(|password| key(PasswordAlgorithm::Md5, password)),
        }
    }

    /// Those of somebody whose password nobody here knows.
    pub(super) fn of_digests(md5: Key, sha256: Key) -> Self {
        Self { md5, sha256, rfc5389: None }
    }

    pub(super) fn key(&self, algorithm: PasswordAlgorithm) -> &Key {
        match algorithm {
            PasswordAlgorithm::Md5 => &self.md5,
            PasswordAlgorithm::Sha256 => &self.sha256,
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
    fn user_is_found_by_name_and_by_hash_with_the_key_of_the_rfc_example() {
        let users = Users::from_pairs([("user", "pass"), ("other", "pass")]).unwrap();
        let directory = Directory::new(&users, "realm");
        let user = directory.by_name("user").unwrap();
        // RFC 8489 section 9.2.2.
        let expected = 0x8493_fbc5_3ba5_82fb_4c04_4c45_6bdc_40eb_u128;
        assert_eq!(user.keys.key(PasswordAlgorithm::Md5).as_bytes(), expected.to_be_bytes());
        assert_eq!(user.keys.key(PasswordAlgorithm::Sha256).as_bytes().len(), 32);
        assert_eq!(user.identity.expires_unix, None);
        assert_eq!(user.identity.user, User::fixed("user"));

        let by_hash = directory.by_hash(&userhash(b"user", b"realm")).unwrap();
        assert_eq!(by_hash.identity, user.identity);
        assert!(directory.by_hash(&userhash(b"user", b"other realm")).is_none());
        assert!(directory.by_name("User").is_none());
    }

    #[test]
    fn userhash_of_the_rfc_sample_is_found() {
        let name = "\u{30DE}\u{30C8}\u{30EA}\u{30C3}\u{30AF}\u{30B9}";
        let users = Users::from_pairs([(name, "TheMatrIX")]).unwrap();
        let hash = [
            0x4a, 0x3c, 0xf3, 0x8f, 0xef, 0x69, 0x92, 0xbd, 0xa9, 0x52, 0xc6, 0x78, 0x04, 0x17, 0xda, 0x0f, 0x24, 0x81,
            0x94, 0x15, 0x56, 0x9e, 0x60, 0xb2, 0x05, 0xc4, 0x6e, 0x41, 0x40, 0x7f, 0x17, 0x04,
        ];
        let directory = Directory::new(&users, "example.org");
        assert_eq!(&*directory.by_hash(&hash).unwrap().identity.username, name);
    }

    #[test]
    fn duplicate_names_are_refused_also_in_two_spellings() {
        let composed = "Andr\u{e9}";
        let decomposed = "Andre\u{301}";
        for second in [composed, decomposed] {
            assert_eq!(
                Users::from_pairs([(composed, "a"), (second, "b")]).unwrap_err(),
                UsersError::Duplicate(second.to_owned())
            );
        }
    }

    #[test]
    fn bad_names_and_passwords_are_refused_by_name() {
        let refused = |name: &str, password: &str| Users::from_pairs([(name, password)]).unwrap_err();
        assert_eq!(refused("", "x"), UsersError::Name(String::new()));
        assert_eq!(refused("a\n", "x"), UsersError::Name("a\n".to_owned()));
        assert_eq!(refused("a", ""), UsersError::Password("a".to_owned()));
        assert_eq!(refused("a", "hidden\u{0}"), UsersError::Password("a".to_owned()));
        assert_eq!(refused(&"n".repeat(509), "x"), UsersError::NameTooLong("n".repeat(509)));
        assert!(Users::from_pairs([("n".repeat(508), "x")]).is_ok());
        assert!(!refused("a", "hidden\u{0}").to_string().contains("hidden"));
    }

    #[test]
    fn password_is_never_printed() {
        let users = Users::from_pairs([("alice", "hidden")]).unwrap();
        assert_eq!(format!("{users:?}"), "Users(1 users)");
    }
}
