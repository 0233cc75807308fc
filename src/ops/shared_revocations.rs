//! What is revoked for all servers that share a store: put there, and put in force here when another server has.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::revocations::unix_now;
use crate::auth::{Revocation, Revocations, Revoked};
use crate::config::{RevocationError, WrittenRevocation, revocation_of_store, revoked_of_store};
use crate::store::{MEMBERS_MAX, Members, Part, RevocationEvent, Store, StoreError, StoreRevocations};

/// Events that wait.
pub(super) const EVENTS_MAX: usize = 1024;
/// What is shown of an entry that cannot be read.
const SHOWN_CHARS_MAX: usize = 200;
/// How often what is over is taken out of what is known.
const FORGET_SECS: u64 = 60;

/// The end of those who revoke.
pub(super) struct SharedRevocations {
    store: Store,
    stored: StoreRevocations,
    revocations: Arc<Revocations>,
    known: Mutex<Known>,
}

/// What has come of events. Of two, the greater counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Change {
    Nothing,
    /// Something is revoked no longer, or cannot be read.
    Other,
    /// Something more is revoked.
    Revoked,
    /// All of it has to be put in force anew.
    All,
}

/// What the store has.
#[derive(Default)]
struct Known {
    /// As it is written there.
    members: BTreeMap<String, Member>,
    /// Those of them that cannot be read.
    unread: BTreeSet<String>,
    /// There is no room for some of it.
    is_full: bool,
    /// When what is over is looked for, in Unix seconds.
    forget_unix: u64,
    default_realm: String,
}

struct Member {
    until_unix: u64,
    read: Result<Revocation, RevocationError>,
}

impl SharedRevocations {
    pub(super) fn new(store: &Store, revocations: Arc<Revocations>, default_realm: &str) -> Self {
        let known = Known { default_realm: default_realm.to_owned(), ..Known::default() };
        let stored = StoreRevocations::new(store.clone());
        Self { store: store.clone(), stored, revocations, known: Mutex::new(known) }
    }

    /// The realm of `[auth]` has another name: what is written means something else.
    pub(super) fn set_default_realm(&self, name: &str) {
        let mut known = self.known();
        if known.default_realm != name {
            name.clone_into(&mut known.default_realm);
            known.read_anew();
            drop(known);
            self.put_in_force();
        }
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
        let written: Vec<_> = {
            let known = self.known();
            own.iter().map(|revocation| known.written(revocation)).collect()
        };
        match self.stored.add(&written.iter().cloned().collect(), unix_now()).await {
            Ok(()) => {
                let mut known = self.known();
                for ((member, until_unix), revocation) in written.into_iter().zip(&own) {
                    known.members.insert(member, Member { until_unix, read: Ok(revocation.clone()) });
                }
                drop(known);
                self.revocations.settle(&own);
                self.store.stats().is_well(Part::RevocationsWritten);
                self.store.stats().set_revocations(self.revocations.stored_len());
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
        // Whatever its times are, and whether they can be read.
        let members: Vec<_> = {
            let known = self.known();
            let is_it = |(member, of): &(&String, &Member)| {
                known.whose(member, of).is_some_and(|(of, revoked)| of.as_deref() == realm && revoked == *whose)
            };
            known.members.iter().filter(is_it).map(|(member, _)| member.clone()).collect()
        };
        if members.is_empty() {
            return Ok(0);
        }
        self.stored.remove(&members).await?;
        for member in &members {
            self.forget(member);
        }
        self.tell();
        Ok(members.len())
    }

    /// Takes an event. What changes one thing is in force then, for all else [`Self::put_in_force`] is called.
    pub(super) async fn take(&self, event: RevocationEvent) -> Change {
        match event {
            RevocationEvent::Added(member, until_unix) => self.learn(member, until_unix),
            RevocationEvent::Removed(member) => self.forget(&member),
            RevocationEvent::All { members, was_emptied: false } => {
                self.known().replace(members);
                self.publish().await;
                Change::All
            }
            RevocationEvent::All { members, was_emptied: true } => {
                let mut ours = self.known_before();
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
                self.known().replace(ours);
                self.publish().await;
                Change::All
            }
        }
    }

    /// It is revoked.
    fn learn(&self, member: String, until_unix: u64) -> Change {
        let (mut known, now_unix) = (self.known(), unix_now());
        let is_known = known.members.get(&member);
        if is_known.is_some_and(|known| known.until_unix >= until_unix) || until_unix <= now_unix {
            return Change::Nothing;
        }
        if is_known.is_none() && known.members.len() >= MEMBERS_MAX {
            known.forget_what_is_over(now_unix);
            if known.members.len() >= MEMBERS_MAX {
                known.is_full = true;
                return Change::Nothing;
            }
        }
        let read = revocation_of_store(&member, &known.default_realm, until_unix);
        let change = match &read {
            Ok(revocation) => match self.revocations.add_stored(revocation) {
                Ok(()) => Change::Revoked,
                Err(_) => {
                    known.is_full = true;
                    Change::Nothing
                }
            },
            Err(_) => {
                known.unread.insert(member.clone());
                Change::Other
            }
        };
        known.members.insert(member, Member { until_unix, read });
        change
    }

    /// It is revoked no longer.
    fn forget(&self, member: &str) -> Change {
        let mut known = self.known();
        let Some(gone) = known.members.remove(member) else { return Change::Nothing };
        known.unread.remove(member);
        if let Some((realm, whose)) = known.whose(member, &gone) {
            let is_it = |of: &Option<Arc<str>>, revoked: &Revoked| *of == realm && *revoked == whose;
            let mut unread = known.unread.iter().filter_map(|member| known.revoked_of(member));
            // While something of the same cannot be read, what was in force of it stays.
            if !unread.any(|(of, revoked)| is_it(&of, &revoked)) {
                let left = known.members.values().filter_map(|member| member.read.as_ref().ok());
                let left: Vec<_> = left.filter(|left| is_it(&left.realm, &left.whose)).cloned().collect();
                self.revocations.renew_stored(realm.as_deref(), &whose, &left);
            }
        }
        Change::Other
    }

    /// What is known to have been in the store: before a restart, too.
    fn known_before(&self) -> Members {
        let known = self.known();
        let mut before: Members = match known.members.is_empty() {
            false => known.members.iter().map(|(member, of)| (member.clone(), of.until_unix)).collect(),
            true => self.revocations.stored().iter().map(|revocation| known.written(revocation)).collect(),
        };
        let now_unix = unix_now();
        before.retain(|_, until| *until > now_unix);
        before
    }

    /// Puts in force all that the store has. What has been in force of something that cannot be read stays so.
    pub(super) fn put_in_force(&self) {
        let mut known = self.known();
        known.forget_what_is_over(unix_now());
        let mut revoked: Vec<_> = known.members.values().filter_map(|of| of.read.as_ref().ok()).cloned().collect();
        let whose: HashSet<_> = known.unread.iter().filter_map(|member| known.revoked_of(member)).collect();
        if !whose.is_empty() {
            let is_unread = |of: &Revocation| whose.contains(&(of.realm.clone(), of.whose.clone()));
            revoked.extend(self.revocations.stored().into_iter().filter(is_unread));
        }
        known.is_full = self.revocations.replace_stored(&revoked).is_err();
        drop(known);
        self.tell();
    }

    /// Says what is in force, and what is not.
    pub(super) fn tell(&self) {
        let stats = self.store.stats();
        stats.set_revocations(self.revocations.stored_len());
        let known = self.known();
        let mut problems = Vec::new();
        let first =
            known.unread.first().and_then(|first| Some((first, known.members.get(first)?.read.as_ref().err()?)));
        if let Some((first, error)) = first {
            let shown: String = first.chars().take(SHOWN_CHARS_MAX).collect();
            problems.push(format!("{} of what is revoked, the first {shown:?}: {error}", known.unread.len()));
        }
        if known.is_full {
            problems.push(format!("what is revoked beyond {}, which is as much as there can be", Revocations::MAX));
        }
        drop(known);
        if problems.is_empty() {
            return stats.is_well(Part::RevocationsInForce);
        }
        let problem = StoreError::Unusable(problems.join("; "));
        if stats.trouble(Part::RevocationsInForce, &problem) {
            tracing::error!(%problem, "something that the store says is revoked is not in force, unless it was before (told once a minute)");
        }
    }

    /// What is over is told by no event.
    pub(super) fn look_again(&self) {
        let now_unix = unix_now();
        let mut known = self.known();
        let is_over = |member: &String| known.members.get(member).is_some_and(|of| of.until_unix <= now_unix);
        let is_all = known.is_full || known.unread.iter().any(is_over);
        if !is_all && now_unix >= known.forget_unix {
            known.forget_what_is_over(now_unix);
        }
        drop(known);
        if is_all {
            self.put_in_force();
        }
    }

    /// How much of it there is.
    pub(super) fn len(&self) -> usize {
        self.known().members.len()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// Takes these in place of what there was. What has been read is not read again.
    fn replace(&mut self, members: Members) {
        let mut before = std::mem::take(&mut self.members);
        for (member, until_unix) in members {
            let read = match before.remove(&member).map(|before| before.read) {
                Some(Ok(revocation)) => Ok(Revocation { until_unix, ..revocation }),
                Some(error) => error,
                None => revocation_of_store(&member, &self.default_realm, until_unix),
            };
            self.members.insert(member, Member { until_unix, read });
        }
        self.find_unread();
    }

    fn read_anew(&mut self) {
        for (member, of) in &mut self.members {
            of.read = revocation_of_store(member, &self.default_realm, of.until_unix);
        }
        self.find_unread();
    }

    fn find_unread(&mut self) {
        let unread = self.members.iter().filter(|(_, of)| of.read.is_err());
        self.unread = unread.map(|(member, _)| member.clone()).collect();
    }

    fn forget_what_is_over(&mut self, now_unix: u64) {
        self.forget_unix = now_unix.saturating_add(FORGET_SECS);
        self.members.retain(|_, of| of.until_unix > now_unix);
        let Self { members, unread, .. } = self;
        unread.retain(|member| members.contains_key(member));
    }

    /// Whom something is about, if that much can be read.
    fn whose(&self, member: &str, of: &Member) -> Option<(Option<Arc<str>>, Revoked)> {
        match &of.read {
            Ok(revocation) => Some((revocation.realm.clone(), revocation.whose.clone())),
            Err(_) => self.revoked_of(member),
        }
    }

    fn revoked_of(&self, member: &str) -> Option<(Option<Arc<str>>, Revoked)> {
        revoked_of_store(member, &self.default_realm).ok()
    }

    /// As it is written there: with the name of its realm, and without its end.
    fn written(&self, revocation: &Revocation) -> (String, u64) {
        let mut written = WrittenRevocation::from(revocation);
        written.until = None;
        written.realm.get_or_insert_with(|| self.default_realm.clone());
        (written.line(), revocation.until_unix)
    }
}
