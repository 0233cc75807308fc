//! What one server of a fleet knows to be revoked: the entries of all servers, of which the store's and its own are made one.
//!
//! What is revoked here, or undone, is in its entries at once. Nothing but `undo` and the end of its time takes an entry out of force, here or
//! on any other server: not what the store lacks, nor an older copy of it, nor an answer that is late. What the store has not taken yet is
//! given to it until it has.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::auth::{Revocation, Revocations, Revoked, TooManyRevocations};
use crate::config::RevocationError;
use crate::store::{Asker, BELIEVED_MAX, Entries, Entry, EntryId, KEPT_SECS, NotAnEntry, line_of_entry, start_of_ids};

mod room;

use room::OfApi;
pub(super) use room::UsedUp;

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

/// What is known, and put in force in the third list of `Revocations`.
pub(super) struct RevokedEntries {
    revocations: Arc<Revocations>,
    entries: BTreeMap<String, Known>,
    /// The ids of those that the store is not known to have as they are here.
    unsent: BTreeSet<String>,
    /// Of these, those that it had no room for.
    refused: BTreeSet<String>,
    /// What has given way here, and is to do so in the store, which has it so.
    gone: BTreeMap<String, Entry>,
    /// What the credentials API has of it, by realm.
    of_api: BTreeMap<Arc<str>, OfApi>,
    /// How often something was revoked here.
    count: u64,
    /// The ids of those that have changed here since all of them were written into the state directory.
    recent: BTreeSet<String>,
    /// What the store has that cannot be read.
    unread: BTreeMap<String, RevocationError>,
    /// There is no room for some of it.
    is_full: bool,
    /// When there was none last.
    full_unix: Option<u64>,
    default_realm: Arc<str>,
    /// What the store's clock said last, in Unix seconds.
    store_unix: Option<u64>,
    /// The name of this run in the ids of its own entries.
    run: Arc<str>,
}

#[derive(Clone)]
struct Known {
    id: EntryId,
    entry: Entry,
}

impl RevokedEntries {
    /// Nothing. `run` is a random name that no run has had before.
    pub(super) fn new(revocations: Arc<Revocations>, default_realm: &str, run: &str) -> Self {
        Self {
            revocations,
            entries: BTreeMap::new(),
            unsent: BTreeSet::new(),
            refused: BTreeSet::new(),
            gone: BTreeMap::new(),
            of_api: BTreeMap::new(),
            count: 0,
            recent: BTreeSet::new(),
            unread: BTreeMap::new(),
            is_full: false,
            full_unix: None,
            default_realm: default_realm.into(),
            store_unix: None,
            run: run.into(),
        }
    }

    /// Revokes something, in force at once. Returns what is in force of the same.
    pub(super) fn revoke(
        &mut self,
        revocation: &Revocation,
        asker: Asker,
        now_unix: u64,
    ) -> Result<Revocation, TooManyRevocations> {
        let id = self.id_of(revocation.realm.as_ref(), &revocation.whose, asker);
        let text = id.text();
        if !self.entries.contains_key(&text) && !self.make_room(asker, now_unix) {
            return Err(TooManyRevocations);
        }
        let in_force = self.revocations.add_stored(revocation)?;
        let mut known = self.entries.get(&text).cloned().unwrap_or(Known { id, entry: Entry::default() });
        self.count += 1;
        known.entry.revoke(revocation, self.count);
        self.put_in(text.clone(), known);
        self.has_changed(text);
        Ok(in_force)
    }

    /// Undoes all that is known of somebody. Returns how much that was.
    pub(super) fn undo(&mut self, realm: Option<&str>, whose: &Revoked, now_unix: u64) -> usize {
        let realm_name = realm.map_or_else(|| Arc::clone(&self.default_realm), Arc::from);
        let mut removed = 0;
        for text in self.ids_of(&realm_name, whose) {
            let Some(known) = self.entries.get_mut(&text) else { continue };
            let terms = known.entry.terms().filter(|(_, until_unix)| *until_unix > now_unix).count();
            if known.entry.undo() {
                removed += terms;
                self.has_changed(text);
            }
        }
        self.renew(&realm_name, whose, now_unix);
        removed
    }

    /// Takes an entry as the store has it, or as it was kept over a restart.
    pub(super) fn learn(&mut self, text: String, entry: Option<Entry>, now_unix: u64) -> Change {
        let (id, before) = match self.entries.get(&text) {
            Some(known) => (known.id.clone(), known.entry),
            None => match EntryId::of_text(&text) {
                Ok(id) => (id, Entry::default()),
                Err(error) => return self.cannot_read(text, error),
            },
        };
        let Some(entry) = entry else {
            return self.cannot_read(text, RevocationError::Form(NotAnEntry.to_string()));
        };
        self.unread.remove(&text);
        let merged = before.merged(entry);
        if merged == before || self.gone.get(&text) == Some(&entry) {
            return Change::Nothing;
        }
        if !self.entries.contains_key(&text) && self.is_full_for(id.asker, now_unix) {
            self.is_full = true;
            return Change::Nothing;
        }
        self.put_in(text, Known { id: id.clone(), entry: merged });
        self.renew(&id.realm, &id.whose, now_unix);
        if merged.is_undone() || merged.until_unix() <= now_unix { Change::Other } else { Change::Revoked }
    }

    /// Takes all that the store has, and notes what it lacks of what is known here. Returns whether it lacks what it was thought to have.
    pub(super) fn meet(&mut self, stored: Entries, store_unix: u64, now_unix: u64) -> bool {
        self.store_unix = Some(store_unix);
        self.unread.clear();
        self.is_full = false;
        let mut lacks = false;
        let over_unix = self.over_unix(now_unix);
        let lacking: Vec<_> = self
            .entries
            .iter()
            .filter(|(text, known)| {
                let of_store = stored.get(*text).copied().flatten().unwrap_or_default();
                // By the store's clock alone: else a server whose clock is behind gives again what the others forget, for ever.
                known.entry.merged(of_store) != of_store && !is_over(&known.entry, store_unix)
            })
            .map(|(text, _)| text.clone())
            .collect();
        for text in lacking {
            lacks |= self.unsent.insert(text);
        }
        self.forget(|text, known| is_over(&known.entry, over_unix) && !stored.contains_key(text));
        for (text, entry) in stored {
            self.learn(text, entry, now_unix);
        }
        lacks
    }

    /// Takes what a state directory has, which the store may have or not.
    pub(super) fn restore(&mut self, id: &EntryId, entry: Entry) {
        let text = id.text();
        let before = self.entries.get(&text).map(|known| known.entry).unwrap_or_default();
        if self.entries.len() < BELIEVED_MAX || self.entries.contains_key(&text) {
            self.put_in(text, Known { id: id.clone(), entry: before.merged(entry) });
        }
    }

    /// What the store is to be given, but what it had no room for.
    pub(super) fn to_give(&self) -> Vec<(String, Entry)> {
        self.states_of(self.unsent.difference(&self.refused))
    }

    /// What it had no room for, and may have now.
    pub(super) fn to_give_again(&self) -> Vec<(String, Entry)> {
        self.states_of(&self.refused)
    }

    fn states_of<'t>(&self, texts: impl IntoIterator<Item = &'t String>) -> Vec<(String, Entry)> {
        let known = texts.into_iter().filter_map(|text| Some((text, self.entries.get(text)?)));
        known.map(|(text, known)| (text.clone(), known.entry)).collect()
    }

    /// Whether the store has all of it.
    pub(super) fn is_all_given(&self) -> bool {
        self.unsent.is_empty()
    }

    /// The store has these, but for some that it has no room for. What has changed since is still to be given.
    pub(super) fn given(&mut self, given: &[(String, Entry)], refused: &[String], now_unix: u64) {
        let without: BTreeSet<_> = refused.iter().collect();
        for (text, entry) in given.iter().filter(|(text, _)| !without.contains(text)) {
            self.refused.remove(text);
            if self.entries.get(text).is_none_or(|known| known.entry == *entry) {
                self.unsent.remove(text);
            }
        }
        self.are_refused(refused, now_unix);
    }

    /// Whether the store has all that is known here of somebody.
    pub(super) fn is_shared(&self, realm: Option<&str>, whose: &Revoked) -> bool {
        let realm = realm.map_or_else(|| Arc::clone(&self.default_realm), Arc::from);
        self.ids_of(&realm, whose).iter().all(|text| !self.unsent.contains(text))
    }

    /// Whether there is no room for one that was heard of. All of it is gone through for that once in a second at most.
    fn is_full_for(&mut self, asker: Asker, now_unix: u64) -> bool {
        if self.entries.len() < BELIEVED_MAX {
            return false;
        }
        self.full_unix.replace(now_unix) == Some(now_unix) || !self.make_room(asker, now_unix)
    }

    /// The realm of `[auth]` has another name.
    pub(super) fn set_default_realm(&mut self, name: &str, now_unix: u64) -> bool {
        let has_changed = *self.default_realm != *name;
        if has_changed {
            self.default_realm = name.into();
            self.put_in_force(now_unix);
        }
        has_changed
    }

    /// Puts all that is known in force.
    pub(super) fn put_in_force(&mut self, now_unix: u64) {
        let all: Vec<_> = self.entries.values().flat_map(|known| self.revocations_of(known, now_unix)).collect();
        self.is_full = self.revocations.replace_stored(&all).is_err() || self.entries.len() >= BELIEVED_MAX;
    }

    /// What is wrong with it.
    pub(super) fn problems(&self) -> Vec<String> {
        let first = self.unread.first_key_value();
        let unread = first.map(|(text, error)| {
            let shown: String = text.chars().take(SHOWN_CHARS_MAX).collect();
            format!("{} of what is revoked, the first {shown:?}: {error}", self.unread.len())
        });
        let full = self.is_full.then(|| {
            format!("what is revoked beyond {BELIEVED_MAX} entries, which is as much as there can be; undo some")
        });
        unread.into_iter().chain(full).collect()
    }

    /// Whether some of it has no room.
    pub(super) fn is_full(&self) -> bool {
        self.is_full
    }

    /// How many entries there are.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The lines of all of them for the state directory, and what is written by that.
    pub(super) fn lines(&self) -> (Vec<String>, Vec<(String, Entry)>) {
        let lines = self.entries.values().map(|known| line_of_entry(&known.id, &known.entry)).collect();
        let recent = self.recent.iter().filter_map(|text| Some((text.clone(), self.entries.get(text)?.entry)));
        (lines, recent.collect())
    }

    /// The lines of those that have changed here since.
    pub(super) fn recent_lines(&self) -> Vec<String> {
        let recent = self.recent.iter().filter_map(|text| self.entries.get(text));
        recent.map(|known| line_of_entry(&known.id, &known.entry)).collect()
    }

    /// All of them have been written, these as they were then.
    pub(super) fn are_written(&mut self, written: &[(String, Entry)]) {
        for (text, entry) in written {
            if self.entries.get(text).is_none_or(|known| known.entry == *entry) {
                self.recent.remove(text);
            }
        }
    }

    fn cannot_read(&mut self, text: String, error: RevocationError) -> Change {
        if self.unread.len() < BELIEVED_MAX {
            self.unread.insert(text, error);
        }
        Change::Other
    }

    fn has_changed(&mut self, text: String) {
        self.unsent.insert(text.clone());
        self.recent.insert(text);
    }

    /// Puts in force what is known of somebody, in place of what was in force.
    fn renew(&mut self, realm: &Arc<str>, whose: &Revoked, now_unix: u64) {
        let ids = self.ids_of(realm, whose);
        let known = ids.iter().filter_map(|text| self.entries.get(text));
        let with: Vec<_> = known.flat_map(|known| self.revocations_of(known, now_unix)).collect();
        let realm = Some(&**realm).filter(|realm| **realm != *self.default_realm);
        if self.revocations.renew_stored(realm, whose, &with).is_err() {
            self.is_full = true;
        }
    }

    fn revocations_of(&self, known: &Known, now_unix: u64) -> impl Iterator<Item = Revocation> + use<> {
        let realm = Some(Arc::clone(&known.id.realm)).filter(|realm| **realm != *self.default_realm);
        let whose = known.id.whose.clone();
        let terms = known.entry.terms().filter(move |(_, until_unix)| *until_unix > now_unix);
        terms.map(move |(issued_before, until_unix)| Revocation {
            realm: realm.clone(),
            whose: whose.clone(),
            issued_before,
            until_unix,
        })
    }

    /// The ids of all entries about somebody.
    fn ids_of(&self, realm: &str, whose: &Revoked) -> Vec<String> {
        let start = start_of_ids(realm, whose);
        let from = self.entries.range(start.clone()..);
        from.take_while(|(text, _)| text.starts_with(&start)).map(|(text, _)| text.clone()).collect()
    }

    /// By a clock that is wrong, what is not over may look so: the store's counts, too.
    fn over_unix(&self, now_unix: u64) -> u64 {
        self.store_unix.map_or(now_unix, |store_unix| store_unix.min(now_unix))
    }
}

/// What is shown of an entry that cannot be read.
const SHOWN_CHARS_MAX: usize = 200;

/// Whether it can matter no more, by a clock that may be wrong by so much.
fn is_over(entry: &Entry, now_unix: u64) -> bool {
    entry.until_unix().saturating_add(KEPT_SECS) < now_unix
}

#[cfg(test)]
mod tests;
