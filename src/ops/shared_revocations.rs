//! What is revoked for all servers that share a store: given to it, and put in force here when another server has.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::revoked_entries::{Change, RevokedEntries, UsedUp};
use crate::auth::{Revocation, Revocations, Revoked, TooManyRevocations};
use crate::store::{Asker, ENTRIES_MAX, Entry, Given, Part, RevocationEvent, Store, StoreError, StoreRevocations};
use crate::wall_clock::unix_now;

/// Events that wait.
pub(super) const EVENTS_MAX: usize = 1024;

/// Of what the store had no room for, so much is tried again before it says that it still has none.
const TRIED_AT_ONCE: usize = 100;

/// The end of those who revoke.
pub(super) struct SharedRevocations {
    store: Store,
    stored: StoreRevocations,
    revocations: Arc<Revocations>,
    known: Mutex<RevokedEntries>,
    /// What the clock said last, in Unix seconds.
    looked_unix: AtomicU64,
}

impl SharedRevocations {
    /// `run` is random, see [`RevokedEntries::new`].
    pub(super) fn new(store: &Store, revocations: Arc<Revocations>, default_realm: &str, run: &str) -> Self {
        let known = RevokedEntries::new(Arc::clone(&revocations), default_realm, run);
        let stored = StoreRevocations::new(store.clone());
        Self { store: store.clone(), stored, revocations, known: Mutex::new(known), looked_unix: AtomicU64::new(0) }
    }

    /// What follows the store.
    pub(super) fn follower(&self) -> StoreRevocations {
        self.stored.clone()
    }

    /// Revokes something, here at once. Returns what is in force of the same.
    pub(super) fn revoke(&self, revocation: &Revocation, asker: Asker) -> Result<Revocation, TooManyRevocations> {
        self.known().revoke(revocation, asker, unix_now())
    }

    /// Whether the credentials API may have one more revoked. What is over or undone gives way to it.
    pub(super) fn make_room_for_api(&self, revocation: &Revocation) -> Result<(), UsedUp> {
        self.known().make_room_for_api(revocation.realm.as_ref(), &revocation.whose, unix_now())
    }

    /// Undoes it, here at once. Returns how much that was.
    pub(super) fn undo(&self, realm: Option<&str>, whose: &Revoked) -> usize {
        self.known().undo(realm, whose, unix_now())
    }

    /// Whether the store has what is known here of somebody.
    pub(super) fn is_shared(&self, realm: Option<&str>, whose: &Revoked) -> bool {
        self.known().is_shared(realm, whose)
    }

    /// Gives the store what it is not known to have, but what it had no room for. Returns how much of that it had not.
    pub(super) async fn publish(&self) -> usize {
        self.give(false).await
    }

    /// The same, and what it had no room for, which it may have now.
    pub(super) async fn publish_again(&self) -> usize {
        self.give(true).await
    }

    async fn give(&self, again: bool) -> usize {
        let stats = self.store.stats();
        stats.set_revocations(self.revocations.stored_len());
        let (gone, entries) = {
            let known = self.known();
            (known.to_let_go(), known.to_give())
        };
        let mut given = Ok(Given::default());
        if self.store.is_connected() && !(gone.is_empty() && entries.is_empty() && !again) {
            given = self.give_all(&gone, &entries, again).await;
        }
        let known = self.known();
        let (is_all_given, without_room) = (known.is_all_given(), known.refused_len());
        drop(known);
        let problem = match &given {
            Err(error) => Some(error.clone()),
            Ok(_) => (without_room > 0).then(|| {
                StoreError::Refused(format!(
                    "FULL it has room for {ENTRIES_MAX} entries, and none for {without_room} more, which are in force where they are known; \
                     what is over makes room, and so does to undo something"
                ))
            }),
        };
        match problem {
            None if is_all_given => stats.is_well(Part::RevocationsWritten),
            Some(error) if !error.is_loss() && stats.trouble(Part::RevocationsWritten, &error) => {
                tracing::error!(%error, "what is revoked here, or undone, is not so on the other servers; it is tried again");
            }
            _ => {}
        }
        given.map_or(0, |given| given.changed)
    }

    async fn give_all(
        &self,
        gone: &[(String, Entry)],
        entries: &[(String, Entry)],
        again: bool,
    ) -> Result<Given, StoreError> {
        self.stored.let_go(gone).await?;
        self.known().are_gone(gone);
        let mut all = self.give_some(entries).await?;
        let old = if again { self.known().to_give_again(unix_now()) } else { Vec::new() };
        for some in old.chunks(TRIED_AT_ONCE) {
            let given = self.give_some(some).await?;
            let has_none = given.refused.len() == some.len();
            all.changed += given.changed;
            all.refused.extend(given.refused);
            if has_none {
                break;
            }
        }
        let (way, wanted) = match again {
            true => self.known().giving_way_to_all(unix_now()),
            false => self.known().giving_way_to(&all.refused, unix_now()),
        };
        if !way.is_empty() {
            self.stored.let_go(&way).await?;
            let now_unix = unix_now();
            for (text, was) in &way {
                self.known().has_given_way(text, was, now_unix);
            }
            all.changed += self.give_some(&wanted).await?.changed;
        }
        Ok(all)
    }

    async fn give_some(&self, entries: &[(String, Entry)]) -> Result<Given, StoreError> {
        let given = self.stored.give(entries).await?;
        self.known().given(entries, &given.refused, unix_now());
        Ok(given)
    }

    /// Takes an event. What changes one thing is in force then, for all else [`Self::put_in_force`] is called.
    pub(super) async fn take(&self, event: RevocationEvent) -> Change {
        match event {
            RevocationEvent::Changed(id, entry) => self.known().learn(id, entry, unix_now()),
            RevocationEvent::Gone(id, Some(was)) if self.known().has_given_way(&id, &was, unix_now()) => Change::Other,
            RevocationEvent::Gone(..) => Change::Nothing,
            RevocationEvent::All(entries, store_unix) => {
                let lacks = self.known().meet(entries, store_unix, unix_now());
                let changed = self.publish().await;
                if lacks && changed > 0 {
                    tracing::warn!(
                        entries = changed,
                        "the store lacked what is revoked, or undone: it is given what is known here (it was emptied, or has come back from an older copy)"
                    );
                }
                Change::All
            }
        }
    }

    /// Puts in force all that is known.
    pub(super) fn put_in_force(&self) {
        self.known().put_in_force(unix_now());
        self.tell();
    }

    /// The realm of `[auth]` has another name: entries have the names of their realms.
    pub(super) fn set_default_realm(&self, name: &str) {
        if self.known().set_default_realm(name, unix_now()) {
            self.tell();
        }
    }

    /// Says what is in force, and what is not.
    pub(super) fn tell(&self) {
        let stats = self.store.stats();
        stats.set_revocations(self.revocations.stored_len());
        let problems = self.known().problems();
        if problems.is_empty() {
            return stats.is_well(Part::RevocationsInForce);
        }
        let problem = StoreError::Unusable(problems.join("; "));
        if stats.trouble(Part::RevocationsInForce, &problem) {
            tracing::error!(%problem, "something that the store says is revoked is not in force, unless it was before (told once a minute)");
        }
    }

    /// What there was no room for may have some now, and what seemed over by a clock that was set back since is not.
    pub(super) fn look_again(&self) {
        let now_unix = unix_now();
        let was_set_back = self.looked_unix.swap(now_unix, Ordering::Relaxed) > now_unix;
        if was_set_back || self.known().is_full() {
            self.put_in_force();
        }
    }

    /// What is known.
    pub(super) fn known(&self) -> MutexGuard<'_, RevokedEntries> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
