//! Follows what every server of a fleet has to have in memory: shared secrets, and the key of nonces.
//!
//! It is read at each connection and every few seconds. What was read last stays in force while the store is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use redis::cmd;
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use zeroize::Zeroizing;

use super::error::StoreError;
use super::handle::Store;
use super::secrets::{self, Stored};
use super::stats::Part;
use super::users;
use super::value::{start_of, text_of};
use crate::config::{StoredSecrets, check_secret};
use crate::wall_clock::unix_now;

/// How often it is read.
const INTERVAL: Duration = Duration::from_secs(5);
/// No key of nonces is longer.
const NONCE_KEY_BYTES_MAX: usize = 4096;
const NONCE_KEY_NAME: &str = "nonce-key";
const NONCE_KEY: &str = "a key of nonces of 16 to 4096 bytes";

/// What there is to be followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The realms whose secrets are wanted.
    pub realms: Vec<String>,
    /// Whether the key of nonces is.
    pub nonce_key: bool,
    /// The realms that have no secret but those of the store, and whether somebody else knows users of them.
    pub without_secrets: Vec<(String, bool)>,
}

/// What was found.
#[derive(Clone, Default)]
pub struct Followed {
    /// Those that are valid now.
    pub secrets: StoredSecrets,
    /// What nonces are made with.
    pub nonce_key: Option<Zeroizing<[u8; 32]>>,
    /// Whether it has been read at all.
    pub is_read: bool,
}

/// The supervisor's end.
pub struct Following {
    wanted: watch::Sender<Wanted>,
    found: watch::Receiver<Arc<Followed>>,
}

impl Following {
    /// Follows something else from now on.
    pub fn want(&self, wanted: Wanted) {
        self.wanted.send_if_modified(|known| std::mem::replace(known, wanted.clone()) != wanted);
    }

    /// The next change of what was found.
    pub async fn changed(&mut self) -> Arc<Followed> {
        if self.found.changed().await.is_err() {
            // It is over with the server.
            std::future::pending::<()>().await;
        }
        Arc::clone(&self.found.borrow_and_update())
    }
}

/// What follows.
pub struct Follower {
    store: Store,
    wanted: watch::Receiver<Wanted>,
    found: watch::Sender<Arc<Followed>>,
    known: BTreeMap<String, Vec<Stored>>,
    /// What is wrong, by realm, as it was told last.
    told: BTreeMap<String, String>,
    /// The realms that have had a secret in force.
    had_secrets: BTreeSet<String>,
    /// Those that have none, as it was told last.
    told_without: Vec<String>,
    /// The text that nonces are made with, which is written where there is none.
    nonce_text: Zeroizing<String>,
}

/// Both ends. `nonce_text` is random, and put into a store that has none yet.
pub fn follow(store: Store, wanted: Wanted, nonce_text: Zeroizing<String>) -> (Following, Follower) {
    let (send_wanted, wanted) = watch::channel(wanted);
    let (send_found, found) = watch::channel(Arc::default());
    let follower = Follower {
        store,
        wanted,
        found: send_found,
        known: BTreeMap::new(),
        told: BTreeMap::new(),
        had_secrets: BTreeSet::new(),
        told_without: Vec::new(),
        nonce_text,
    };
    (Following { wanted: send_wanted, found }, follower)
}

impl Follower {
    /// Follows for ever.
    pub async fn run(mut self) {
        let mut connections = self.store.connections();
        let mut tick = interval(INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut nonce_key = None;
        let mut is_read = false;
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                changed = connections.changed() => if changed.is_err() { return },
                changed = self.wanted.changed() => if changed.is_err() { return },
            }
            let wanted = self.wanted.borrow_and_update().clone();
            if self.store.is_connected() {
                is_read |= self.read_secrets(&wanted.realms).await;
                if wanted.nonce_key {
                    nonce_key = self.follow_nonce_key().await.or(nonce_key);
                }
            }
            self.known.retain(|realm, _| wanted.realms.contains(realm));
            let found = Followed { secrets: self.valid(unix_now()), nonce_key: nonce_key.clone(), is_read };
            self.store.stats().set_secrets(found.secrets.values().map(Vec::len).sum());
            self.tell_without(&wanted, &found.secrets).await;
            self.found.send_if_modified(|known| {
                let has_changed = !is_same(known, &found);
                if has_changed {
                    *known = Arc::new(found.clone());
                }
                has_changed
            });
        }
    }

    /// Returns whether all of them could be read.
    async fn read_secrets(&mut self, realms: &[String]) -> bool {
        let mut refused = None;
        for realm in realms {
            let problem = match secrets::read(&self.store, realm, unix_now()).await {
                Ok(found) => {
                    let problem = found.problem();
                    if !problem.is_empty() {
                        refused = Some(StoreError::Unusable(format!("of {realm:?}, {problem}")));
                    }
                    found.put_into(self.known.entry(realm.clone()).or_default());
                    problem
                }
                Err(error) if error.is_loss() => return false,
                // What is there is not what was there before, which stays in force.
                Err(error) => {
                    let problem = error.to_string();
                    refused = Some(error);
                    problem
                }
            };
            let told = self.told.entry(realm.clone()).or_default();
            if !problem.is_empty() && *told != problem {
                tracing::warn!(?realm, %problem, "secrets of the store cannot be used");
            }
            *told = problem;
        }
        // What is wrong with it has been told with the realm.
        match refused {
            Some(error) => drop(self.store.stats().trouble(Part::Secrets, &error)),
            None => self.store.stats().is_well(Part::Secrets),
        }
        true
    }

    /// A realm that has nobody's secret any more, or has none and no users either, lets nobody in.
    async fn tell_without(&mut self, wanted: &Wanted, in_force: &StoredSecrets) {
        self.had_secrets.extend(in_force.keys().cloned());
        let mut without = Vec::new();
        for (realm, has_others) in &wanted.without_secrets {
            let is_empty = self.known.contains_key(realm) && !in_force.contains_key(realm);
            if is_empty && (self.had_secrets.contains(realm) || !has_others && self.has_no_user(realm).await) {
                without.push(realm.clone());
            }
        }
        for realm in without.iter().filter(|realm| !self.told_without.contains(realm)) {
            tracing::warn!(
                ?realm,
                "no secret is in force: neither the store nor the configuration has one for this realm, so that every time-limited \
                 credential is refused (401); if the store was emptied, put its secrets and users back (docs/store.md)"
            );
        }
        self.store.stats().set_without_secrets(without.clone());
        self.told_without = without;
    }

    /// Whether the store knows no user of a realm, as far as it can say.
    async fn has_no_user(&self, realm: &str) -> bool {
        users::has_any(&self.store, realm).await == Ok(Some(false))
    }

    async fn follow_nonce_key(&mut self) -> Option<Zeroizing<[u8; 32]>> {
        match self.read_nonce_key().await {
            Ok(key) => {
                self.store.stats().is_well(Part::NonceKey);
                Some(key)
            }
            Err(error) => {
                if !error.is_loss() && self.store.stats().trouble(Part::NonceKey, &error) {
                    tracing::warn!(%error, "the key of nonces in the store cannot be used: a client that comes from another server is challenged anew (438)");
                }
                None
            }
        }
    }

    /// The key that all servers make nonces with. The first one that finds none puts one there; after the store has lost it, the same.
    async fn read_nonce_key(&mut self) -> Result<Zeroizing<[u8; 32]>, StoreError> {
        let mut text = nonce_text_in(&self.store).await?;
        if text.is_none() {
            let put = cmd("SET").arg(self.store.key(NONCE_KEY_NAME)).arg(self.nonce_text.as_str()).arg("NX").to_owned();
            self.store.command(&put).await?;
            text = nonce_text_in(&self.store).await?;
        }
        self.nonce_text = text.ok_or(StoreError::Unexpected(NONCE_KEY))?;
        Ok(Zeroizing::new(Sha256::digest(self.nonce_text.as_bytes()).into()))
    }

    fn valid(&self, now_unix: u64) -> StoredSecrets {
        let of_realm = |stored: &Vec<Stored>| {
            stored.iter().filter(|stored| stored.is_valid(now_unix)).map(|of| of.secret.clone()).collect()
        };
        let realms = self.known.iter().map(|(realm, stored)| (realm.clone(), of_realm(stored)));
        realms.filter(|(_, secrets): &(String, Vec<_>)| !secrets.is_empty()).collect()
    }
}

/// The text that the store has nonces made with, if it has one.
pub(super) async fn nonce_text_in(store: &Store) -> Result<Option<Zeroizing<String>>, StoreError> {
    let answer = store.command(&start_of(&store.key(NONCE_KEY_NAME), NONCE_KEY_BYTES_MAX)).await?;
    let Some(text) = text_of(answer, NONCE_KEY_BYTES_MAX, NONCE_KEY)? else { return Ok(None) };
    let text = std::str::from_utf8(&text).ok().filter(|text| check_secret(text.as_bytes()).is_ok());
    text.map(|text| Some(Zeroizing::new(text.to_owned()))).ok_or(StoreError::Unexpected(NONCE_KEY))
}

fn is_same(one: &Followed, other: &Followed) -> bool {
    let pairs = |followed: &Followed| {
        let all =
            followed.secrets.iter().flat_map(|(realm, secrets)| secrets.iter().map(move |secret| (realm, secret)));
        all.map(|(realm, secret)| (realm.clone(), secret.id.clone(), secret.bytes.clone())).collect::<Vec<_>>()
    };
    one.is_read == other.is_read && one.nonce_key == other.nonce_key && pairs(one) == pairs(other)
}
