//! The shared secrets of a realm as a store has them.

use std::collections::{BTreeMap, HashMap};

use redis::{Cmd, Value, cmd, from_redis_value};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::error::StoreError;
use super::handle::Store;
use super::value::size_of;
use crate::auth::SharedSecret;
use crate::config::{StoreConfig, StoreLayout, check_secret};

/// More secrets that are valid are more than one realm should have: each is tried for a request.
const SECRETS_MAX: usize = 64;
/// And with those that are over, which nobody has deleted.
const READ_MAX: usize = 256;
/// What they take in the store, more than as many of the longest do: an answer is bounded, see `link`.
const READ_BYTES_MAX: usize = 512 << 10;
const SECRET_BYTES_MAX: usize = 1024;
const ID_BYTES_MAX: usize = 64;
/// Those that cannot be used and are named.
const TOLD_MAX: usize = 5;
const NOT_LOOKED_AT: &str = "what was in force is until there is less, one that was deleted meanwhile, too";

/// A secret, and until when it is one.
#[derive(Clone)]
pub struct Stored {
    /// With its id.
    pub secret: SharedSecret,
    /// In Unix seconds.
    pub valid_until: Option<u64>,
}

impl Stored {
    pub(super) fn is_valid(&self, now_unix: u64) -> bool {
        self.valid_until.is_none_or(|until| now_unix < until)
    }
}

/// What a realm has, and what is wrong with some of it: the id, and why.
#[derive(Default)]
pub(super) struct Found {
    pub(super) secrets: Vec<Stored>,
    pub(super) problems: BTreeMap<String, String>,
    /// There are more than can be in force, and why.
    pub(super) too_many: Option<String>,
}

/// A value that is more than the secret itself.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    secret: String,
    /// Unix seconds.
    valid_until: Option<u64>,
}

/// Reads the secrets of a realm.
///
/// # Errors
/// The store does not say, or has more than can be looked at.
pub(super) async fn read(store: &Store, realm: &str, now_unix: u64) -> Result<Found, StoreError> {
    let (key, [count, size, all]) = questions(store.config(), realm);
    match read_as::<usize>(store.command(&count).await?, "a number")? {
        0 => return Ok(Found::default()),
        count if count > READ_MAX => {
            let problem = format!("{key:?} has {count} secrets, more than {READ_MAX}: {NOT_LOOKED_AT}");
            return Err(StoreError::Unusable(problem));
        }
        _ => {}
    }
    let unsized_because = match store.command(&size).await {
        // What is gone meanwhile has none.
        Ok(size) => match read_as::<Option<usize>>(size, "a size")? {
            Some(size) if size > READ_BYTES_MAX => {
                let problem = format!(
                    "the secrets in {key:?} take {size} bytes, more than {READ_BYTES_MAX}; a secret has {SECRET_BYTES_MAX} at most: {NOT_LOOKED_AT}"
                );
                return Err(StoreError::Unusable(problem));
            }
            _ => None,
        },
        // A user from before this was asked may read them all the same.
        Err(StoreError::Refused(why)) => Some(why),
        Err(error) => return Err(error),
    };
    let all = store.command(&all).await?;
    let mut found = match store.config().layout {
        StoreLayout::Own => read_own(all),
        StoreLayout::Coturn => read_coturn(all),
    }?;
    found.secrets.retain(|stored| stored.is_valid(now_unix));
    if let Some(why) = unsized_because {
        found.problems.insert(key.clone(), format!("how large they are the store refuses to say: {why}"));
    }
    let count = found.secrets.len();
    if count > SECRETS_MAX {
        found.too_many =
            Some(format!("{key:?} has {count} secrets that are valid, more than {SECRETS_MAX}: none is added"));
    }
    Ok(found)
}

impl Found {
    /// What is wrong, in one line; nothing if nothing is.
    pub(super) fn problem(&self) -> String {
        let problems = &self.problems;
        let mut told: Vec<_> = self.too_many.iter().cloned().collect();
        told.extend(problems.iter().take(TOLD_MAX).map(|(id, why)| format!("{id}: {why}")));
        if problems.len() > TOLD_MAX {
            told.push(format!("and {} more", problems.len() - TOLD_MAX));
        }
        told.join("; ")
    }

    /// Takes what is to be in force in place of what was: of too many, those that were there before and still are.
    pub(super) fn put_into(self, known: &mut Vec<Stored>) {
        let mut secrets = self.secrets;
        if self.too_many.is_some() {
            let is_same = |one: &SharedSecret, other: &SharedSecret| one.id == other.id && one.bytes == other.bytes;
            secrets.retain(|stored| known.iter().any(|known| is_same(&known.secret, &stored.secret)));
        }
        *known = secrets;
    }
}

/// Where a realm has its secrets, and what asks how many there are, how large, and for all of them.
pub(super) fn questions(config: &StoreConfig, realm: &str) -> (String, [Cmd; 3]) {
    let (key, names) = match config.layout {
        StoreLayout::Own => (format!("{}:secrets:{realm}", config.prefix), ["HLEN", "HGETALL"]),
        StoreLayout::Coturn => (format!("turn/realm/{realm}/secret"), ["SCARD", "SMEMBERS"]),
    };
    let [count, all] = names.map(|name| cmd(name).arg(&key).to_owned());
    let questions = [count, size_of(&key), all];
    (key, questions)
}

/// A hash of ids.
fn read_own(all: Value) -> Result<Found, StoreError> {
    let mut found = Found::default();
    let all: HashMap<Vec<u8>, Vec<u8>> = read_as(all, "a hash of secrets")?;
    for (id, value) in all {
        let id = String::from_utf8_lossy(&id).into_owned();
        match of_value(&id, Zeroizing::new(value)) {
            Ok(stored) => found.secrets.push(stored),
            Err(why) => drop(found.problems.insert(id.escape_debug().to_string(), why)),
        }
    }
    // Whoever mints takes the first: one without an end, or with the latest.
    found.secrets.sort_by(|one, other| {
        let end = |of: &Stored| std::cmp::Reverse(of.valid_until.unwrap_or(u64::MAX));
        end(one).cmp(&end(other)).then_with(|| one.secret.id.cmp(&other.secret.id))
    });
    Ok(found)
}

/// A set; coturn's secrets have no names.
fn read_coturn(all: Value) -> Result<Found, StoreError> {
    let mut found = Found::default();
    let all: Vec<Vec<u8>> = read_as(all, "a set of secrets")?;
    for bytes in all.into_iter().map(Zeroizing::new) {
        let bytes = Zeroizing::new(without_line_end(&bytes).to_vec());
        let digest: [u8; 32] = Sha256::digest(&*bytes).into();
        let id = digest.iter().take(4).fold("coturn-".to_owned(), |id, byte| format!("{id}{byte:02x}"));
        match checked(&bytes) {
            Ok(()) => found.secrets.push(Stored { secret: SharedSecret { id, bytes }, valid_until: None }),
            Err(why) => drop(found.problems.insert(id, why)),
        }
    }
    found.secrets.sort_by(|one, other| one.secret.id.cmp(&other.secret.id));
    found.secrets.dedup_by(|one, other| one.secret.id == other.secret.id);
    Ok(found)
}

fn read_as<T: redis::FromRedisValue>(value: Value, what: &'static str) -> Result<T, StoreError> {
    from_redis_value(value).map_err(|_| StoreError::Unexpected(what))
}

/// Reads one value: the secret itself, or an object that says until when it is one.
///
/// # Errors
/// Why it is none, without a word of it.
pub fn of_value(id: &str, value: Zeroizing<Vec<u8>>) -> Result<Stored, String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    if id.is_empty() || id.len() > ID_BYTES_MAX || !id.bytes().all(allowed) {
        return Err("the id is not of at most 64 letters, digits, dots, dashes and underscores".to_owned());
    }
    let (bytes, valid_until) = match value.first() {
        Some(b'{') => {
            // serde's text may quote the secret.
            let form: Form = serde_json::from_slice(&value).map_err(|error| {
                format!("it is not {{\"secret\": ..., \"valid_until\": ...}} (column {})", error.column())
            })?;
            (Zeroizing::new(form.secret.into_bytes()), form.valid_until)
        }
        _ => (Zeroizing::new(without_line_end(&value).to_vec()), None),
    };
    checked(&bytes)?;
    Ok(Stored { secret: SharedSecret { id: id.to_owned(), bytes }, valid_until })
}

/// A value as it was meant: who puts it there from a command's output or a file (`redis-cli -x`) has the end of a line behind it.
pub(super) fn without_line_end(value: &[u8]) -> &[u8] {
    let line = value.strip_suffix(b"\n");
    line.map_or(value, |line| line.strip_suffix(b"\r").unwrap_or(line))
}

fn checked(bytes: &[u8]) -> Result<(), String> {
    if bytes.len() > SECRET_BYTES_MAX {
        return Err(format!("the secret has more than {SECRET_BYTES_MAX} bytes"));
    }
    check_secret(bytes).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_secret_of_coturn_with_and_without_the_end_of_a_line_is_one() {
        let set = ["0123456789abcdef\n", "0123456789abcdef"].map(|text| Value::BulkString(text.into()));
        let found = read_coturn(Value::Array(set.into())).unwrap_or_default();
        let bytes: Vec<_> = found.secrets.iter().map(|stored| stored.secret.bytes.to_vec()).collect();
        assert_eq!(bytes, [b"0123456789abcdef"]);
    }

    #[test]
    fn a_value_is_a_secret_or_an_object_with_one_and_is_never_quoted() {
        let read = |id: &str, value: &str| {
            let stored = of_value(id, Zeroizing::new(value.as_bytes().to_vec()))?;
            Ok::<_, String>((String::from_utf8_lossy(&stored.secret.bytes).into_owned(), stored.valid_until))
        };
        let long = "0123456789abcdef";
        assert_eq!(read("a", long), Ok((long.to_owned(), None)));
        for end in ["\n", "\r\n"] {
            assert_eq!(read("a", &format!("{long}{end}")), Ok((long.to_owned(), None)));
        }
        // One of them, and nothing else.
        assert_eq!(read("a", &format!("{long} \n\n")), Ok((format!("{long} \n"), None)));
        assert!(read("a", "0123456789abcde\n").is_err());
        let with_end = format!(r#"{{"secret": "{long}", "valid_until": 1800000000}}"#);
        assert_eq!(read("2026-11", &with_end), Ok((long.to_owned(), Some(1_800_000_000))));
        for (id, value) in [
            ("a", "hunter2"),
            ("a", ""),
            ("", long),
            ("a b", long),
            ("a", r#"{"secret": "hunter2hunter2hunter2", "valid-until": 1}"#),
            ("a", r#"{"secret": hunter2hunter2hunter2}"#),
            ("a", r#"{"secret": "hunter2"}"#),
            ("a", &"hunter2".repeat(200)),
        ] {
            let why = read(id, value).unwrap_err();
            assert!(!why.contains("hunter2"), "{why}");
        }
    }
}
