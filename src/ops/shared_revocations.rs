//! What is revoked for all servers that share a store: put there, and put in force here when another server has.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::auth::{Revocation, Revocations, Revoked};
use crate::config::{WrittenRevocation, revocation_of_store};
use crate::store::{MEMBERS_MAX, Members, Part, RevocationEvent, Store, StoreError, StoreRevocations};

/// Events that wait.
pub(super) const EVENTS_MAX: usize = 1024;

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
        let is_it = |of: &Revocation| of.realm.as_deref() == realm && of.whose == *whose;
        let all: Vec<_> = self.members().keys().cloned().collect();
        let members: Vec<_> =
            all.into_iter().filter(|member| self.read(member, 0).is_some_and(|of| is_it(&of))).collect();
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

    /// Puts in force what the store has.
    pub(super) fn put_in_force(&self) {
        let now_unix = unix_now();
        let mut problems = 0;
        let mut revoked = Vec::new();
        for (member, until_unix) in self.members().iter().filter(|(_, until)| **until > now_unix) {
            match self.read(member, *until_unix) {
                Some(revocation) => revoked.push(revocation),
                None => problems += 1,
            }
        }
        let unread = StoreError::Unexpected("revocations that can be read");
        if problems > 0 && self.store.stats().trouble(Part::RevocationsRead, &unread) {
            tracing::error!(
                problems,
                "what the store says is revoked cannot be read, and that much of it is not in force"
            );
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

    fn read(&self, member: &str, until_unix: u64) -> Option<Revocation> {
        revocation_of_store(member, &self.default_realm(), until_unix).ok()
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
