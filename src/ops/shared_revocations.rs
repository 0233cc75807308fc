//! What is revoked for all servers that share a store: put there, and put in force here when another server has.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::auth::{Revocation, Revocations, Revoked};
use crate::config::{RevocationError, WrittenRevocation, revocation_of_store, revoked_of_store};
use crate::store::{MEMBERS_MAX, Members, Part, RevocationEvent, Store, StoreError, StoreRevocations};

/// Events that wait.
pub(super) const EVENTS_MAX: usize = 1024;
/// What is shown of an entry that cannot be read.
const SHOWN_CHARS_MAX: usize = 200;

/// The end of those who revoke.
pub(super) struct SharedRevocations {
    store: Store,
    stored: StoreRevocations,
    revocations: Arc<Revocations>,
    /// What the store has, as it is written there.
    members: Mutex<Members>,
    default_realm: Mutex<String>,
    /// When the first of what cannot be read is over, in Unix seconds.
    unread_until_unix: AtomicU64,
}

impl SharedRevocations {
    pub(super) fn new(store: &Store, revocations: Arc<Revocations>, default_realm: &str) -> Self {
        Self {
            store: store.clone(),
            stored: StoreRevocations::new(store.clone()),
            revocations,
            members: Mutex::default(),
            default_realm: Mutex::new(default_realm.to_owned()),
            unread_until_unix: AtomicU64::new(u64::MAX),
        }
    }

    /// The realm of `[auth]` has another name.
    pub(super) fn set_default_realm(&self, name: &str) {
        name.clone_into(&mut self.default_realm.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// What follows the store.
    pub(super) fn follower(&self) -> StoreRevocations {
        self.stored.clone()
    }

    /// Puts what is revoked here alone into the store. Returns whether all of it is there now.
    pub(super) async fn publish(&self) -> bool {
        let own = self.revocations.asked_for();
        if own.is_empty() {
            self.store.stats().is_well(Part::RevocationsWritten);
            return true;
        }
        if !self.store.is_connected() {
            return false;
        }
        let written: Members = own.iter().map(|revocation| self.written(revocation)).collect();
        match self.stored.add(&written, unix_now()).await {
            Ok(()) => {
                self.members().extend(written);
                self.revocations.settle(&own);
                self.store.stats().is_well(Part::RevocationsWritten);
                true
            }
            Err(error) => {
                if !error.is_loss() && self.store.stats().trouble(Part::RevocationsWritten, &error) {
                    tracing::error!(%error, "what is revoked here is not revoked on the other servers");
                }
                false
            }
        }
    }

    /// Undoes for all servers what is in the store. Returns how much that was.
    ///
    /// # Errors
    /// The store cannot be reached.
    pub(super) async fn undo(&self, realm: Option<&str>, whose: &Revoked) -> Result<usize, StoreError> {
        let default_realm = self.default_realm();
        // Whatever its times are, and whether they can be read.
        let is_it = |member: &&String| {
            revoked_of_store(member, &default_realm)
                .is_ok_and(|(of, revoked)| of.as_deref() == realm && revoked == *whose)
        };
        let members: Vec<_> = self.members().keys().filter(is_it).cloned().collect();
        if members.is_empty() {
            return Ok(0);
        }
        self.stored.remove(&members).await?;
        self.members().retain(|member, _| !members.contains(member));
        self.put_in_force();
        Ok(members.len())
    }

    /// Takes an event.
    pub(super) async fn take(&self, event: RevocationEvent) {
        match event {
            RevocationEvent::Added(member, until) => {
                let mut members = self.members();
                if members.len() < MEMBERS_MAX || members.contains_key(&member) {
                    let known = members.entry(member).or_default();
                    *known = until.max(*known);
                }
            }
            RevocationEvent::Removed(member) => {
                self.members().remove(&member);
            }
            RevocationEvent::All { members, was_emptied: false } => {
                *self.members() = members;
                self.publish().await;
            }
            RevocationEvent::All { members, was_emptied: true } => {
                let mut ours = self.known();
                ours.extend(members);
                if !ours.is_empty() {
                    tracing::warn!(
                        revoked = ours.len(),
                        "the store has lost what was revoked: it is given what is known here"
                    );
                }
                if let Err(error) = self.stored.add(&ours, unix_now()).await {
                    tracing::error!(%error, "the store could not be given what is revoked");
                }
                *self.members() = ours;
                self.publish().await;
            }
        }
    }

    /// What is known to have been in the store: before a restart, too.
    fn known(&self) -> Members {
        let mut known = self.members().clone();
        if known.is_empty() {
            known = self.revocations.stored().iter().map(|revocation| self.written(revocation)).collect();
        }
        let now_unix = unix_now();
        known.retain(|_, until| *until > now_unix);
        known
    }

    /// Puts in force what the store has. What cannot be read of it is told, and what has been in force of the same stays so.
    pub(super) fn put_in_force(&self) {
        let (now_unix, default_realm) = (unix_now(), self.default_realm());
        let mut revoked = Vec::new();
        let mut unread: Vec<(String, u64, RevocationError)> = Vec::new();
        for (member, until_unix) in self.members().iter().filter(|(_, until)| **until > now_unix) {
            match revocation_of_store(member, &default_realm, *until_unix) {
                Ok(revocation) => revoked.push(revocation),
                Err(error) => unread.push((member.clone(), *until_unix, error)),
            }
        }
        let first_until_unix = unread.iter().map(|(_, until_unix, _)| *until_unix).min();
        self.unread_until_unix.store(first_until_unix.unwrap_or(u64::MAX), Ordering::Relaxed);
        let mut problem = None;
        if let Some((first, _, error)) = unread.first() {
            let whose = unread.iter().filter_map(|(member, ..)| revoked_of_store(member, &default_realm).ok());
            let whose: HashSet<_> = whose.collect();
            let is_unread = |of: &Revocation| whose.contains(&(of.realm.clone(), of.whose.clone()));
            revoked.extend(self.revocations.stored().into_iter().filter(is_unread));
            let first: String = first.chars().take(SHOWN_CHARS_MAX).collect();
            problem = Some(format!("{} of what is revoked, the first {first:?}: {error}", unread.len()));
        }
        match self.revocations.replace_stored(&revoked) {
            Ok(()) => self.store.stats().set_revocations(revoked.len()),
            Err(error) => problem = Some(format!("all {} of what is revoked: {error}", revoked.len())),
        }
        let Some(problem) = problem.map(StoreError::Unusable) else {
            return self.store.stats().is_well(Part::RevocationsInForce);
        };
        if self.store.stats().trouble(Part::RevocationsInForce, &problem) {
            tracing::error!(%problem, "something that the store says is revoked is not in force, unless it was before (told once a minute)");
        }
    }

    /// What could not be read may be over, which no event tells.
    pub(super) fn look_again(&self) {
        if unix_now() >= self.unread_until_unix.load(Ordering::Relaxed) {
            self.put_in_force();
        }
    }

    /// As it is written there: with the name of its realm, and without its end.
    fn written(&self, revocation: &Revocation) -> (String, u64) {
        let mut written = WrittenRevocation::from(revocation);
        written.until = None;
        written.realm.get_or_insert_with(|| self.default_realm().clone());
        (written.line(), revocation.until_unix)
    }

    fn default_realm(&self) -> String {
        self.default_realm.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What the store has.
    pub(super) fn members(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, u64>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
