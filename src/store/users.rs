//! The static users of a store: each is looked up when a request needs him.

use redis::{Cmd, cmd, from_redis_value};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

use super::error::StoreError;
use super::handle::Store;
use super::secrets::without_line_end;
use super::stats::{Part, UserResult};
use super::value::{start_of, text_of};
use crate::auth::{KnownCredential, StoredKeys};
use crate::config::{StoreConfig, StoreLayout, StorePlace};
use crate::hook::read_answer;

/// Users who are known on while the store is lost.
const KEPT_MAX: usize = 16_384;
/// And for so long after they were found there: one who was deleted is not found again.
const KEPT_FOR: Duration = Duration::from_secs(86_400);
/// So much of a name is told.
const NAME_CHARS_MAX: usize = 100;
/// A longer value is nobody's: the store is not asked for it, since any stranger can have it looked up.
const VALUE_BYTES_MAX: usize = 4096;
const VALUE: &str = "a value of at most 4096 bytes";
/// Answers by which a user of coturn's is found, if there is one, and the keys that each is about.
const SCANS_MAX: usize = 20;
const SCANNED_AT_ONCE: usize = 500;

/// Looks users up.
pub struct StoreUsers {
    store: Store,
    kept: Mutex<Kept>,
    /// The last one whose value could not be used.
    unusable: Mutex<Option<Name>>,
}

impl StoreUsers {
    /// Those of a store.
    pub fn new(store: Store) -> Self {
        Self { store, kept: Mutex::default(), unusable: Mutex::default() }
    }

    /// The credential of a user of a realm; `None` if there is none. While the store is lost, a user who was known is known on.
    ///
    /// # Errors
    /// Nobody can say.
    pub async fn find(&self, realm: &str, username: &str) -> Result<Option<KnownCredential>, StoreError> {
        let name = (realm.to_owned(), username.to_owned());
        let found = match questions(self.store.config(), realm, username) {
            Questions::Own(questions) => self.own(&questions).await,
            Questions::Coturn(questions) => self.of_coturn(&questions).await,
        };
        let stats = self.store.stats();
        match &found {
            Ok(credential) => {
                stats.count_user(if credential.is_some() { UserResult::Known } else { UserResult::Unknown });
                stats.is_well(Part::Users);
                if self.unusable().take_if(|unusable| *unusable == name).is_some() {
                    stats.is_well(Part::UserValues);
                }
                self.kept().set(name, credential.clone());
                found
            }
            Err(error) => {
                if let Some(credential) = self.kept().get(&name).filter(|_| error.is_loss()) {
                    stats.count_user(UserResult::Kept);
                    return Ok(Some(credential));
                }
                stats.count_user(UserResult::Failed);
                self.tell(error, name);
                found
            }
        }
    }

    async fn own(&self, [len, value]: &[Cmd; 2]) -> Result<Option<KnownCredential>, StoreError> {
        const USERS: StoreError = StoreError::Unexpected("a hash of users");
        match from_redis_value::<usize>(self.store.command(len).await?).map_err(|_| USERS)? {
            // Nobody, or nothing that stands for him.
            0 => return Ok(None),
            1..=VALUE_BYTES_MAX => {}
            _ => return Err(StoreError::Unexpected(VALUE)),
        }
        let value: Option<Vec<u8>> = from_redis_value(self.store.command(value).await?).map_err(|_| USERS)?;
        value.map(|value| of_value(&Zeroizing::new(value))).transpose()
    }

    async fn of_coturn(&self, questions: &[Cmd; 4]) -> Result<Option<KnownCredential>, StoreError> {
        let get = async |question: &Cmd| text_of(self.store.command(question).await?, VALUE_BYTES_MAX, VALUE);
        let [key, password, old_key, old_password] = questions;
        let (key, password, old_key, old_password) =
            tokio::join!(get(key), get(password), get(old_key), get(old_password));
        for (key, password) in [(key?, password?), (old_key?, old_password?)] {
            if let Some(key) = key {
                return of_coturn_key(&key).map(Some);
            }
            if let Some(password) = password {
                return of_password(without_line_end(&password)).map(Some);
            }
        }
        Ok(None)
    }

    fn tell(&self, error: &StoreError, name: Name) {
        // That it is lost has been told by who keeps the connection.
        if error.is_loss() {
            return;
        }
        // Whoever sends requests has chosen it.
        let user: String = name.1.chars().take(NAME_CHARS_MAX).collect();
        let realm = &name.0;
        let stats = self.store.stats();
        if !matches!(error, StoreError::Unexpected(_) | StoreError::Unusable(_)) {
            if stats.trouble(Part::Users, error) {
                tracing::warn!(%error, ?user, ?realm, "users in the store cannot be looked up: they cannot allocate (told once a minute)");
            }
            return;
        }
        if stats.trouble(Part::UserValues, &format!("the user {user:?} of the realm {realm:?}: {error}")) {
            tracing::warn!(%error, ?user, ?realm, "a user in the store cannot be used, perhaps others neither: they cannot allocate (told once a minute)");
        }
        *self.unusable() = Some(name);
    }

    fn unusable(&self) -> std::sync::MutexGuard<'_, Option<Name>> {
        self.unusable.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What asks for a user.
enum Questions {
    /// A field of a hash: neither a realm nor a name can be taken for a part of another. How long it is, and what it is: not in one script, for
    /// which the store would want the right to write there.
    Own(Box<[Cmd; 2]>),
    /// `redis-userdb` of coturn, and where it had users before it had realms: a key and a password each.
    Coturn(Box<[Cmd; 4]>),
}

/// Whether a realm has a user; `None` if that cannot be said without looking at all that is there.
///
/// # Errors
/// The store does not say.
pub(super) async fn has_any(store: &Store, realm: &str) -> Result<Option<bool>, StoreError> {
    let config = store.config();
    match (config.users, config.layout, &config.url.place) {
        (false, ..) => Ok(Some(false)),
        (_, StoreLayout::Own, _) => {
            let count = store.command(cmd("HLEN").arg(format!("{}:users:{realm}", config.prefix))).await?;
            let count: u64 = from_redis_value(count).map_err(|_| StoreError::Unexpected("a hash of users"))?;
            Ok(Some(count > 0))
        }
        // Each of its nodes has some of them.
        (_, StoreLayout::Coturn, StorePlace::Cluster(_)) => Ok(None),
        (_, StoreLayout::Coturn, _) => {
            let mut cursor = "0".to_owned();
            for _ in 0..SCANS_MAX {
                let mut scan = cmd("SCAN");
                scan.arg(&cursor).arg("MATCH").arg("turn/*user/*").arg("COUNT").arg(SCANNED_AT_ONCE);
                let (next, keys): (String, Vec<Vec<u8>>) =
                    from_redis_value(store.command(&scan).await?).map_err(|_| StoreError::Unexpected("keys"))?;
                let whose = [format!("turn/realm/{realm}/user/"), "turn/user/".to_owned()];
                if keys.iter().any(|key| whose.iter().any(|whose| key.starts_with(whose.as_bytes()))) {
                    return Ok(Some(true));
                }
                if next == "0" {
                    return Ok(Some(false));
                }
                cursor = next;
            }
            Ok(None)
        }
    }
}

/// Asks a store what a server does that looks for a user.
pub(super) async fn try_to_find(store: &Store, realm: &str) -> Result<(), StoreError> {
    if !store.config().users {
        return Ok(());
    }
    // No client has this name.
    let asked: Box<[Cmd]> = match questions(store.config(), realm, "") {
        Questions::Own(questions) => questions,
        Questions::Coturn(questions) => questions,
    };
    for question in &asked {
        store.command(question).await?;
    }
    Ok(())
}

fn questions(config: &StoreConfig, realm: &str, username: &str) -> Questions {
    match config.layout {
        StoreLayout::Own => {
            let key = format!("{}:users:{realm}", config.prefix);
            let questions = ["HSTRLEN", "HGET"].map(|name| cmd(name).arg(&key).arg(username).to_owned());
            Questions::Own(Box::new(questions))
        }
        StoreLayout::Coturn => {
            let (of_realm, of_all) = (format!("turn/realm/{realm}/user/{username}"), format!("turn/user/{username}"));
            let names = [(&of_realm, "key"), (&of_realm, "password"), (&of_all, "key"), (&of_all, "password")];
            let questions = names.map(|(whose, what)| start_of(&format!("{whose}/{what}"), VALUE_BYTES_MAX));
            Questions::Coturn(Box::new(questions))
        }
    }
}

/// Reads what stands for a user: a password, both keys, or an object as an application of `[hook]` answers.
///
/// # Errors
/// It is nothing of these; not a word of it is repeated.
pub fn of_value(value: &[u8]) -> Result<KnownCredential, StoreError> {
    const EXPECTED: StoreError =
        StoreError::Unexpected("a password, 0xMD5,0xSHA256, or an object with one of them, as docs/store.md has it");
    if value.first() == Some(&b'{') {
        // It names a field, and repeats no value.
        let read = read_answer(200, value).map_err(|error| StoreError::Unusable(error.to_string()))?;
        return read.ok_or(EXPECTED);
    }
    let value = without_line_end(value);
    let text = std::str::from_utf8(value).map_err(|_| EXPECTED)?;
    if !StoredKeys::is_meant(text) {
        return of_password(value);
    }
    let keys: StoredKeys = text.parse().map_err(|_| EXPECTED)?;
    match (keys.md5(), keys.sha256()) {
        (Some(md5), Some(sha256)) => Ok(KnownCredential::from_keys(*md5, *sha256)),
        _ => Err(StoreError::Unexpected("both keys of a user, 0xMD5,0xSHA256")),
    }
}

fn of_password(value: &[u8]) -> Result<KnownCredential, StoreError> {
    let password = std::str::from_utf8(value).ok().and_then(|text| KnownCredential::from_password(text).ok());
    password.ok_or(StoreError::Unexpected("a password that a client can have"))
}

/// Reads coturn's key of a user: 32 hexadecimal digits.
///
/// # Errors
/// It is something else.
pub fn of_coturn_key(value: &[u8]) -> Result<KnownCredential, StoreError> {
    let text = Zeroizing::new(format!("0x{}", String::from_utf8_lossy(value).trim()));
    let md5 = text.parse::<StoredKeys>().ok().and_then(|keys| keys.md5().copied());
    md5.map(KnownCredential::from_md5)
        .ok_or(StoreError::Unexpected("a key of 32 hexadecimal digits, which turnadmin writes"))
}

type Name = (String, String);

/// The users who were known last, in two halves: when the newer one is full, the older one is forgotten. Each with when that was.
#[derive(Default)]
struct Kept {
    newer: HashMap<Name, (KnownCredential, Instant)>,
    older: HashMap<Name, (KnownCredential, Instant)>,
}

impl Kept {
    fn set(&mut self, name: Name, credential: Option<KnownCredential>) {
        let Some(credential) = credential else {
            self.newer.remove(&name);
            self.older.remove(&name);
            return;
        };
        if self.newer.len() >= KEPT_MAX / 2 && !self.newer.contains_key(&name) {
            self.older = std::mem::take(&mut self.newer);
        }
        self.newer.insert(name, (credential, Instant::now()));
    }

    fn get(&self, name: &Name) -> Option<KnownCredential> {
        let (credential, at) = self.newer.get(name).or_else(|| self.older.get(name))?;
        (at.elapsed() < KEPT_FOR).then(|| credential.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: &str =
        "0x00000000000000000000000000000000,0x0000000000000000000000000000000000000000000000000000000000000000";

    #[test]
    fn a_value_is_a_password_keys_or_an_object_and_is_never_quoted() {
        for good in ["hunter2", BOTH, r#"{"password": "hunter2", "alloc": 4}"#, "0xylophone"] {
            for end in ["", "\n", "\r\n"] {
                assert!(of_value(format!("{good}{end}").as_bytes()).is_ok(), "{good:?}{end:?}");
            }
        }
        let lone = BOTH.split(',').next().unwrap();
        for bad in [
            "",
            "\n",
            "hunter2\n\n",
            "hunter2\u{0}",
            lone,
            "0x12",
            r#"{"pasword": "hunter2"}"#,
            r#"{"password": "hunter2""#,
        ] {
            let told = of_value(bad.as_bytes()).unwrap_err().to_string();
            assert!(!told.contains("hunter2"), "{told}");
        }
        assert!(of_value(&[0xff, 0xfe]).is_err());
        assert!(of_coturn_key(b"8b83b40c22906c0c67a3c5bcc491bc14").is_ok());
        for bad in [&b""[..], b"hunter2", b"0x8b83b40c22906c0c67a3c5bcc491bc14", &[0xff; 32]] {
            assert!(of_coturn_key(bad).is_err());
        }
    }

    #[test]
    fn who_is_kept_is_bounded_and_who_is_known_to_be_nobody_is_forgotten() {
        let mut kept = Kept::default();
        let name = |n: usize| ("r".to_owned(), n.to_string());
        for n in 0..3 * KEPT_MAX {
            kept.set(name(n), Some(KnownCredential::from_md5([0; 16])));
            assert!(kept.newer.len() + kept.older.len() <= KEPT_MAX);
        }
        let newest = name(3 * KEPT_MAX - 1);
        assert!(kept.get(&newest).is_some() && kept.get(&name(0)).is_none());
        kept.set(newest.clone(), None);
        assert!(kept.get(&newest).is_none());
    }
}
