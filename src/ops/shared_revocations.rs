//! What is revoked for all servers that share a store: put there, and put in force here when another server has.

use std::collections::{BTreeMap, HashSet};
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
}

impl SharedRevocations {
    pub(super) fn new(store: &Store, revocations: Arc<Revocations>, default_realm: &str) -> Self {
        Self {
            store: store.clone(),
            stored: StoreRevocations::new(store.clone()),
            revocations,
            members: Mutex::default(),
            default_realm: Mutex::new(default_realm.to_owned()),
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
        let mut unread: Vec<(String, RevocationError)> = Vec::new();
        for (member, until_unix) in self.members().iter().filter(|(_, until)| **until > now_unix) {
            match revocation_of_store(member, &default_realm, *until_unix) {
                Ok(revocation) => revoked.push(revocation),
                Err(error) => unread.push((member.clone(), error)),
            }
        }
        if let Some((first, error)) = unread.first() {
            let whose = unread.iter().filter_map(|(member, _)| revoked_of_store(member, &default_realm).ok());
            let whose: HashSet<_> = whose.collect();
            let is_unread = |of: &Revocation| whose.contains(&(of.realm.clone(), of.whose.clone()));
            revoked.extend(self.revocations.stored().into_iter().filter(is_unread));
            let problem = StoreError::Unexpected("revocations that can be read");
            if self.store.stats().trouble(Part::RevocationsRead, &problem) {
                let first: String = first.chars().take(SHOWN_CHARS_MAX).collect();
                tracing::error!(
                    problems = unread.len(), ?first, %error,
                    "what the store says is revoked cannot be read, and that much of it is not in force if it was not before"
                );
            }
        }
        self.store.stats().set_revocations(revoked.len());
        if let Err(error) = self.revocations.replace_stored(&revoked) {
            tracing::error!(%error, "what the store says is revoked is not in force");
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
