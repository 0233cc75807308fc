//! The static users of a realm, found by USERNAME or by USERHASH.
//!
//! There may be a million of them: each is a record of fixed size in a few large pieces of memory, which are never copied, and has no
//! heap of its own.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};

use secrecy::{ExposeSecret, SecretString};
use turnstone_stun::{Key, PasswordAlgorithm, userhash};
use zeroize::Zeroize;

use super::algorithms::Offer;
use super::number_index::NumberIndex;
use super::password::{Passwords, PrepareError, prepare};
use super::stored_keys::StoredKeys;

/// Longest username in bytes (RFC 8489 section 14.3: fewer than 509).
pub(super) const USERNAME_MAX: usize = 508;

/// Records in one piece of memory.
const PIECE: usize = 256;

/// The static users of a realm, as their keys: passwords are not kept, but for the one of [`Users::first`]. Neither is ever printed, and
/// both are zeroed when dropped.
///
/// The keys are good in this realm only (RFC 8489 section 9.2.2).
pub struct Users {
    realm: String,
    /// All names, one after the other.
    names: String,
    pieces: Vec<Vec<Record>>,
    by_name: NumberIndex,
    by_userhash: NumberIndex,
    hasher: RandomState,
    /// Keys of passwords that SASLprep makes others of, by the user's number: few have one.
    rfc5389_keys: HashMap<u32, Key>,
    first: Option<(String, SecretString)>,
    md5_only: Option<u32>,
    sha256_only: Option<u32>,
}

/// One user.
struct Record {
    name_at: u32,
    name_len: u16,
    has_md5: bool,
    has_sha256: bool,
    is_stored: bool,
    md5: [u8; 16],
    sha256: [u8; 32],
}

impl Drop for Record {
    fn drop(&mut self) {
        self.md5.zeroize();
        self.sha256.zeroize();
    }
}

/// Why a user is refused. It names the user, never the password.
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
    /// All names together are longer than 4 GiB.
    #[error("user {0:?} is one too many")]
    TooMany(String),
}

impl Users {
    /// None yet.
    pub fn of_realm(realm: &str) -> Self {
        Self {
            // One that cannot be prepared is refused with its credentials.
            realm: prepare(realm).unwrap_or_else(|PrepareError| realm.to_owned()),
            names: String::new(),
            pieces: Vec::new(),
            by_name: NumberIndex::default(),
            by_userhash: NumberIndex::default(),
            hasher: RandomState::new(),
            rfc5389_keys: HashMap::new(),
            first: None,
            md5_only: None,
            sha256_only: None,
        }
    }

    /// Prepares names and passwords as RFC 8265 OpaqueString asks.
    ///
    /// # Errors
    /// [`UsersError`] names the first user that is refused.
    pub fn from_pairs<N: AsRef<str>, P: AsRef<str>>(
        realm: &str,
        pairs: impl IntoIterator<Item = (N, P)>,
    ) -> Result<Self, UsersError> {
        let mut users = Self::of_realm(realm);
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
        let prepared = self.prepare_name(name)?;
        let passwords = Passwords::prepare(password).map_err(|PrepareError| UsersError::Password(name.to_owned()))?;
        let keys = StoredKeys::derive(&prepared, &self.realm, passwords.opaque());
        let number = self.add(name, &prepared, &keys, false)?;
        if let Some(password) = passwords.rfc5389() {
            let key = |realm: &str| {
                let password = password.expose_secret().as_bytes();
                Key::long_term(PasswordAlgorithm::Md5, prepared.as_bytes(), realm.as_bytes(), password)
            };
            self.rfc5389_keys.insert(number, key(&self.realm));
        }
        if self.first.as_ref().is_none_or(|(first, _)| prepared < *first) {
            self.first = Some((prepared, passwords.into_opaque()));
        }
        Ok(())
    }

    /// Adds one user whose password nobody here knows. Nothing can tell whether the keys are for this realm.
    ///
    /// # Errors
    /// As [`Self::from_pairs`].
    pub fn insert_keys(&mut self, name: &str, keys: &StoredKeys) -> Result<(), UsersError> {
        let prepared = self.prepare_name(name)?;
        self.add(name, &prepared, keys, true).map(drop)
    }

    fn prepare_name(&self, name: &str) -> Result<String, UsersError> {
        let prepared = prepare(name).map_err(|PrepareError| UsersError::Name(name.to_owned()))?;
        if prepared.len() > USERNAME_MAX {
            return Err(UsersError::NameTooLong(name.to_owned()));
        }
        if self.number_by_name(&prepared).is_some() {
            return Err(UsersError::Duplicate(name.to_owned()));
        }
        Ok(prepared)
    }

    fn add(&mut self, given: &str, name: &str, keys: &StoredKeys, is_stored: bool) -> Result<u32, UsersError> {
        let too_many = || UsersError::TooMany(given.to_owned());
        let number = u32::try_from(self.len()).map_err(|_| too_many())?;
        let name_at = u32::try_from(self.names.len()).map_err(|_| too_many())?;
        let name_len = u16::try_from(name.len()).map_err(|_| too_many())?;
        let (md5, sha256) = (keys.md5(), keys.sha256());
        let record = Record {
            name_at,
            name_len,
            has_md5: md5.is_some(),
            has_sha256: sha256.is_some(),
            is_stored,
            md5: md5.copied().unwrap_or_default(),
            sha256: sha256.copied().unwrap_or_default(),
        };
        match (md5, sha256) {
            (Some(_), None) => self.md5_only = self.md5_only.or(Some(number)),
            (None, Some(_)) => self.sha256_only = self.sha256_only.or(Some(number)),
            _ => {}
        }
        self.names.push_str(name);
        match self.pieces.last_mut().filter(|piece| piece.len() < PIECE) {
            Some(piece) => piece.push(record),
            None => {
                let mut piece = Vec::with_capacity(PIECE);
                piece.push(record);
                self.pieces.push(piece);
            }
        }
        self.by_name.insert(self.hasher.hash_one(name), number);
        self.by_userhash.insert(hash_of(&userhash(name.as_bytes(), self.realm.as_bytes())), number);
        Ok(number)
    }

    /// How many users `new` has more, how many it has no more, and how many have another key there.
    pub fn changes(&self, new: &Self) -> (usize, usize, usize) {
        if std::ptr::eq(self, new) {
            return (0, 0, 0);
        }
        let (mut same, mut changed) = (0, 0);
        for user in new.records().filter_map(|record| Some((self.by_name(new.name_of(record)?)?.record, record))) {
            let keys = |record: &Record| (record.md5, record.sha256, record.has_md5, record.has_sha256);
            match keys(user.0) == keys(user.1) {
                true => same += 1,
                false => changed += 1,
            }
        }
        let kept = same + changed;
        (new.len() - kept, self.len() - kept, changed)
    }

    /// Of the users whose passwords were given the one whose name comes first, and the prepared password: for who tries out the server on
    /// its own host.
    pub fn first(&self) -> Option<(&str, &SecretString)> {
        self.first.as_ref().map(|(name, password)| (name.as_str(), password))
    }

    /// Whether the user of a name was given as a key, of which nobody here knows the password.
    pub fn is_stored_as_key(&self, name: &str) -> bool {
        self.by_name(name).is_some_and(|user| user.record.is_stored)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        let full = self.pieces.len().saturating_sub(1) * PIECE;
        full + self.pieces.last().map_or(0, Vec::len)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// The realm that the keys are for, prepared.
    pub fn realm(&self) -> &str {
        &self.realm
    }

    /// What a client can be offered: the password algorithms that every user has a key of.
    ///
    /// # Errors
    /// There is none: the names of two users who have none in common.
    pub(super) fn offer(&self, others_have_md5_only: bool) -> Result<Offer, (String, String)> {
        let name = |number| self.record(number).and_then(|record| self.name_of(record)).unwrap_or_default().to_owned();
        match (self.md5_only, self.sha256_only) {
            (None, Some(sha256)) if others_have_md5_only => Err(("of the store".to_owned(), name(sha256))),
            (None, None) if !others_have_md5_only => Ok(Offer::Both),
            (_, None) => Ok(Offer::Md5),
            (None, Some(_)) => Ok(Offer::Sha256),
            (Some(md5), Some(sha256)) => Err((name(md5), name(sha256))),
        }
    }

    /// The user of a name.
    pub(super) fn by_name(&self, username: &str) -> Option<StaticUser<'_>> {
        self.user(self.number_by_name(username)?)
    }

    /// The user of a USERHASH.
    pub(super) fn by_hash(&self, hash: &[u8; 32]) -> Option<StaticUser<'_>> {
        let is_it = |number| {
            let name = self.record(number).and_then(|record| self.name_of(record));
            name.is_some_and(|name| userhash(name.as_bytes(), self.realm.as_bytes()) == *hash)
        };
        self.user(self.by_userhash.find(hash_of(hash), is_it)?)
    }

    fn number_by_name(&self, name: &str) -> Option<u32> {
        let is_it = |number| self.record(number).and_then(|record| self.name_of(record)) == Some(name);
        self.by_name.find(self.hasher.hash_one(name), is_it)
    }

    fn user(&self, number: u32) -> Option<StaticUser<'_>> {
        let record = self.record(number)?;
        Some(StaticUser { name: self.name_of(record)?, record, rfc5389: self.rfc5389_keys.get(&number) })
    }

    fn record(&self, number: u32) -> Option<&Record> {
        self.pieces.get(number as usize / PIECE)?.get(number as usize % PIECE)
    }

    fn records(&self) -> impl Iterator<Item = &Record> {
        self.pieces.iter().flatten()
    }

    fn name_of(&self, record: &Record) -> Option<&str> {
        let at = record.name_at as usize;
        self.names.get(at..at + usize::from(record.name_len))
    }
}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Users({} users)", self.len())
    }
}

/// A USERHASH is as evenly spread as any hash.
fn hash_of([a, b, c, d, e, f, g, h, ..]: &[u8; 32]) -> u64 {
    u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h])
}

/// A user who was found.
pub(super) struct StaticUser<'u> {
    pub(super) name: &'u str,
    record: &'u Record,
    rfc5389: Option<&'u Key>,
}

impl StaticUser<'_> {
    /// The key by an algorithm, if there is one.
    pub(super) fn key(&self, algorithm: PasswordAlgorithm) -> Option<Key> {
        let record = self.record;
        match algorithm {
            PasswordAlgorithm::Md5 => record.has_md5.then(|| Key::from_md5(record.md5)),
            PasswordAlgorithm::Sha256 => record.has_sha256.then(|| Key::from_sha256(record.sha256)),
        }
    }

    /// The key a client of RFC 5389 has, where SASLprep makes the password another than OpaqueString does.
    pub(super) fn rfc5389_key(&self) -> Option<&Key> {
        self.rfc5389
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_is_found_by_name_and_by_hash_with_the_key_of_the_rfc_example() {
        let users = Users::from_pairs("realm", [("user", "pass"), ("other", "pass")]).unwrap();
        let user = users.by_name("user").unwrap();
        // RFC 8489 section 9.2.2.
        let expected = 0x8493_fbc5_3ba5_82fb_4c04_4c45_6bdc_40eb_u128;
        assert_eq!(user.key(PasswordAlgorithm::Md5).unwrap().as_bytes(), expected.to_be_bytes());
        assert_eq!(user.key(PasswordAlgorithm::Sha256).unwrap().as_bytes().len(), 32);
        assert_eq!(users.by_hash(&userhash(b"user", b"realm")).unwrap().name, "user");
        assert!(users.by_hash(&userhash(b"user", b"other realm")).is_none());
        assert!(users.by_name("User").is_none());
        assert_eq!(users.first().map(|(name, _)| name), Some("other"));
    }

    #[test]
    fn userhash_of_the_rfc_sample_is_found() {
        let name = "\u{30DE}\u{30C8}\u{30EA}\u{30C3}\u{30AF}\u{30B9}";
        let users = Users::from_pairs("example.org", [(name, "TheMatrIX")]).unwrap();
        let hash = [
            0x4a, 0x3c, 0xf3, 0x8f, 0xef, 0x69, 0x92, 0xbd, 0xa9, 0x52, 0xc6, 0x78, 0x04, 0x17, 0xda, 0x0f, 0x24, 0x81,
            0x94, 0x15, 0x56, 0x9e, 0x60, 0xb2, 0x05, 0xc4, 0x6e, 0x41, 0x40, 0x7f, 0x17, 0x04,
        ];
        assert_eq!(users.by_hash(&hash).unwrap().name, name);
    }

    #[test]
    fn duplicate_names_are_refused_also_in_two_spellings() {
        let composed = "Andr\u{e9}";
        let decomposed = "Andre\u{301}";
        for second in [composed, decomposed] {
            assert_eq!(
                Users::from_pairs("realm", [(composed, "a"), (second, "b")]).unwrap_err(),
                UsersError::Duplicate(second.to_owned())
            );
        }
    }

    #[test]
    fn bad_names_and_passwords_are_refused_by_name() {
        let refused = |name: &str, password: &str| Users::from_pairs("realm", [(name, password)]).unwrap_err();
        assert_eq!(refused("", "x"), UsersError::Name(String::new()));
        assert_eq!(refused("a\n", "x"), UsersError::Name("a\n".to_owned()));
        assert_eq!(refused("a", ""), UsersError::Password("a".to_owned()));
        assert_eq!(refused("a", "hidden\u{0}"), UsersError::Password("a".to_owned()));
        assert_eq!(refused(&"n".repeat(509), "x"), UsersError::NameTooLong("n".repeat(509)));
        assert!(Users::from_pairs("realm", [("n".repeat(508), "x")]).is_ok());
        assert!(!refused("a", "hidden\u{0}").to_string().contains("hidden"));
    }

    #[test]
    fn password_is_never_printed() {
        let users = Users::from_pairs("realm", [("alice", "hidden")]).unwrap();
        assert_eq!(format!("{users:?}"), "Users(1 users)");
    }

    /// Some users, by numbers, with keys that are told apart.
    fn many(count: u32) -> Users {
        let mut users = Users::of_realm("realm");
        for n in 0..count {
            let mut md5 = [7; 16];
            md5[..4].copy_from_slice(&n.to_be_bytes());
            users.insert_keys(&format!("user{n}"), &StoredKeys::new(Some(md5), Some([9; 32])).unwrap()).unwrap();
        }
        users
    }

    #[test]
    fn each_of_many_is_found_by_name_and_by_hash_and_nobody_else_is() {
        let users = many(5000);
        assert_eq!(users.len(), 5000);
        for n in 0..5000_u32 {
            let name = format!("user{n}");
            let key = users.by_name(&name).unwrap().key(PasswordAlgorithm::Md5).unwrap();
            assert_eq!(key.as_bytes()[..4], n.to_be_bytes());
            assert_eq!(users.by_hash(&userhash(name.as_bytes(), b"realm")).unwrap().name, name);
        }
        assert!(users.by_name("user5000").is_none() && users.by_name("").is_none());
        assert!(users.by_hash(&userhash(b"user5000", b"realm")).is_none());
        assert!(users.first().is_none(), "nobody's password is known");
    }

    #[test]
    fn changes_are_counted_by_name_and_key() {
        let (old, mut new) = (many(300), many(299));
        new.insert("user1000", "x").unwrap();
        assert_eq!(old.changes(&new), (1, 1, 0));
        assert_eq!(old.changes(&old), (0, 0, 0));
        let mut other = Users::of_realm("realm");
        other.insert("user1", "x").unwrap();
        assert_eq!(old.changes(&other), (0, 299, 1));
    }

    #[test]
    fn what_is_offered_is_what_all_users_have_a_key_of() {
        let keys =
            |md5: bool, sha256: bool| StoredKeys::new(md5.then_some([1; 16]), sha256.then_some([2; 32])).unwrap();
        let mut users = Users::from_pairs("realm", [("plain", "x")]).unwrap();
        assert_eq!((users.offer(false), users.offer(true)), (Ok(Offer::Both), Ok(Offer::Md5)));
        users.insert_keys("both", &keys(true, true)).unwrap();
        assert_eq!(users.offer(false), Ok(Offer::Both));
        users.insert_keys("old", &keys(true, false)).unwrap();
        assert_eq!(users.offer(false), Ok(Offer::Md5));
        assert!(users.by_name("old").unwrap().key(PasswordAlgorithm::Sha256).is_none());
        users.insert_keys("new", &keys(false, true)).unwrap();
        assert_eq!(users.offer(false), Err(("old".to_owned(), "new".to_owned())));
        let mut users = Users::of_realm("realm");
        users.insert_keys("new", &keys(false, true)).unwrap();
        assert_eq!(users.offer(false), Ok(Offer::Sha256));
        assert!(users.offer(true).is_err(), "others have MD5 keys alone");
    }

    #[test]
    fn a_record_is_small() {
        assert!(size_of::<Record>() <= 60, "{}", size_of::<Record>());
    }
}
