//! What one server of a fleet knows to be revoked: the entries of all servers, of which the store's and its own are made one.
//!
//! What is revoked here, or undone, is in its entries at once. Nothing but `undo` and the end of its time takes an entry out of force, here or
//! on any other server: not what the store lacks, nor an older copy of it, nor an answer that is late. What the store has not taken yet is
//! given to it until it has.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::auth::{Revocation, Revocations, Revoked, TooManyRevocations};
use crate::config::RevocationError;
use crate::store::{Asker, BELIEVED_MAX, Entries, Entry, EntryId, NotAnEntry, line_of_entry, start_of_ids};

mod room;

pub(super) use room::UsedUp;
use room::{AT_ONCE, Known, OF_API_MAX, OF_REALM_MAX, OfApi, States, Worth, is_over};

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
        let mut known =
            self.entries.get(&text).cloned().unwrap_or(Known { id, entry: Entry::default(), undone_unix: None });
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
                known.undone_unix = Some(now_unix);
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
        // Where the store has one of this id, it takes what changes it.
        self.refused.remove(&text);
        let merged = before.merged(entry);
        if merged == before || self.gone.get(&text) == Some(&entry) {
            return Change::Nothing;
        }
        if !self.entries.contains_key(&text) && self.is_full_for(id.asker, now_unix) {
            self.is_full = true;
            return Change::Nothing;
        }
        let was_undone = before != Entry::default() && before.is_undone();
        let since = self.entries.get(&text).and_then(|known| known.undone_unix);
        let undone_unix = if merged.is_undone() && !was_undone { Some(now_unix) } else { since };
        self.put_in(text, Known { id: id.clone(), entry: merged, undone_unix });
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
            self.put_in(text, Known { id: id.clone(), entry: before.merged(entry), undone_unix: None });
        }
    }

    /// What the store is to be given, but what it had no room for.
    pub(super) fn to_give(&self) -> Vec<(String, Entry)> {
        self.states_of(self.unsent.difference(&self.refused))
    }

    /// What it had no room for, and may have now, what is worth most first.
    pub(super) fn to_give_again(&self, now_unix: u64) -> Vec<(String, Entry)> {
        let over_unix = self.over_unix(now_unix);
        let mut known: Vec<_> = self.refused.iter().filter_map(|text| Some((text, self.entries.get(text)?))).collect();
        known.sort_by_key(|(text, known)| Reverse(self.need(text, known, over_unix)));
        known.into_iter().map(|(text, known)| (text.clone(), known.entry)).collect()
    }

    /// What room in the store an entry is worth: to be heard of, what the operator has undone needs it, too.
    fn need(&self, text: &str, known: &Known, over_unix: u64) -> Worth {
        let is_unheard = known.entry.is_undone() && known.entry.until_unix() > over_unix && self.unsent.contains(text);
        if is_unheard { Worth::OfOperator } else { known.worth(over_unix) }
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
        self.refused.remove(&text);
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

    /// Has what is over or undone give way to one more of the credentials API, if there is no room for it.
    ///
    /// # Errors
    /// There is none, and all of it is in force.
    pub(super) fn make_room_for_api(
        &mut self,
        realm: Option<&Arc<str>>,
        whose: &Revoked,
        now_unix: u64,
    ) -> Result<(), UsedUp> {
        let id = self.id_of(realm, whose, Asker::CredentialsApi);
        if self.entries.contains_key(&id.text()) {
            return Ok(());
        }
        let Some(used) = self.used_by_api(&id.realm) else { return Ok(()) };
        let of_realm = self.of_api.entry(Arc::clone(&id.realm)).or_default();
        if of_realm.looked_unix.replace(now_unix) != Some(now_unix) {
            self.let_go(now_unix, |known, worth| {
                worth == Worth::NothingOfApi && (used == UsedUp::OfAll || known.id.realm == id.realm)
            });
        }
        self.used_by_api(&id.realm).map_or(Ok(()), Err)
    }

    fn used_by_api(&self, realm: &str) -> Option<UsedUp> {
        if self.of_api.values().map(|of| of.entries).sum::<usize>() >= OF_API_MAX {
            return Some(UsedUp::OfAll);
        }
        let of_realm = self.of_api.get(realm);
        of_realm.is_some_and(|of| of.entries >= OF_REALM_MAX).then_some(UsedUp::OfRealm)
    }

    /// Makes room here for one more, in whatever way there is. Returns whether there is some.
    fn make_room(&mut self, asker: Asker, now_unix: u64) -> bool {
        if self.entries.len() >= BELIEVED_MAX {
            self.forget_what_is_over(now_unix);
        }
        if self.entries.len() >= BELIEVED_MAX {
            let most = if asker == Asker::Operator { Worth::OfOperator } else { Worth::OfApi };
            self.let_go(now_unix, |_, worth| worth < most);
        }
        self.entries.len() < BELIEVED_MAX
    }

    /// Has some of what may give way do so, what is worth least first, then what ends first; of what is in force, one alone.
    fn let_go(&mut self, now_unix: u64, may: impl Fn(&Known, Worth) -> bool) {
        let over_unix = self.over_unix(now_unix);
        let mut found: Vec<_> = self
            .entries
            .iter()
            .filter_map(|(text, known)| {
                let (worth, until_unix) = (known.worth(over_unix), known.entry.until_unix());
                // What the store has not heard to be undone would come back from it.
                let is_needed = self.need(text, known, over_unix) != worth;
                (!is_needed && known.may_go(over_unix, now_unix) && may(known, worth))
                    .then_some((worth, until_unix, text))
            })
            .collect();
        found.sort_unstable();
        let worthless = found.partition_point(|(worth, ..)| *worth < Worth::OfApi);
        let texts: Vec<_> =
            found.into_iter().take(worthless.clamp(1, AT_ONCE)).map(|(_, _, text)| text.clone()).collect();
        for text in texts {
            let is_sent = !self.unsent.contains(&text);
            let Some(known) = self.take_out(&text) else { continue };
            self.renew(&known.id.realm, &known.id.whose, now_unix);
            if is_sent {
                self.gone.insert(text, known.entry);
            }
        }
    }

    /// What has given way here, and is to do so in the store.
    pub(super) fn to_let_go(&self) -> States {
        self.gone.iter().map(|(text, entry)| (text.clone(), *entry)).collect()
    }

    /// The store has let these go.
    pub(super) fn are_gone(&mut self, gone: &[(String, Entry)]) {
        for (text, entry) in gone {
            if self.gone.get(text) == Some(entry) {
                self.gone.remove(text);
            }
        }
    }

    /// One that was so has given way in the store. What is in force here stays so. Returns whether there is one less.
    pub(super) fn has_given_way(&mut self, text: &str, was: &Entry, now_unix: u64) -> bool {
        let Some(known) = self.entries.get(text) else { return false };
        if known.entry.merged(*was) != *was {
            self.unsent.insert(text.to_owned());
        } else if known.worth(self.over_unix(now_unix)) >= Worth::OfApi {
            self.unsent.insert(text.to_owned());
            self.refused.insert(text.to_owned());
        } else {
            return self.take_out(text).is_some();
        }
        false
    }

    /// What the store has no room for gets that of what is worth less: which entries are to give way, and which are given again then.
    pub(super) fn giving_way_to<'t>(
        &self,
        refused: impl IntoIterator<Item = &'t String>,
        now_unix: u64,
    ) -> (States, States) {
        let over_unix = self.over_unix(now_unix);
        let found = refused.into_iter().filter_map(|text| Some((text, self.entries.get(text)?)));
        let wanted = found.map(|(text, known)| (self.need(text, known, over_unix), text, known.entry));
        let mut wanted: Vec<_> = wanted.filter(|(worth, ..)| *worth >= Worth::OfApi).collect();
        wanted.sort_by_key(|(worth, ..)| Reverse(*worth));
        let Some((most, ..)) = wanted.first() else { return Default::default() };
        let in_store = self.entries.iter().filter(|(text, _)| !self.unsent.contains(*text));
        let in_store = in_store.filter(|(_, known)| known.may_go(over_unix, now_unix));
        let lesser =
            in_store.map(|(text, known)| (known.worth(over_unix), known.entry.until_unix(), text, known.entry));
        let mut lesser: Vec<_> = lesser.filter(|(worth, ..)| worth < most).collect();
        lesser.sort_unstable_by_key(|(worth, until_unix, ..)| (*worth, *until_unix));
        let pairs = wanted.into_iter().zip(lesser).take(AT_ONCE);
        let pairs = pairs.take_while(|((worth, ..), (lesser, ..))| lesser < worth);
        pairs.map(|((_, text, entry), (_, _, lesser, state))| ((lesser.clone(), state), (text.clone(), entry))).unzip()
    }

    /// The store has no room for these. What is over needs none.
    fn are_refused(&mut self, refused: &[String], now_unix: u64) {
        let over_unix = self.over_unix(now_unix);
        for text in refused {
            match self.entries.get(text) {
                Some(known) if known.entry.until_unix() <= over_unix => drop(self.take_out(text)),
                Some(_) => drop(self.refused.insert(text.clone())),
                None => {}
            }
        }
    }

    /// The same to all that it has no room for.
    pub(super) fn giving_way_to_all(&self, now_unix: u64) -> (States, States) {
        self.giving_way_to(&self.refused, now_unix)
    }

    /// How many the store has no room for.
    pub(super) fn refused_len(&self) -> usize {
        self.refused.len()
    }

    fn put_in(&mut self, text: String, known: Known) {
        let (realm, asker) = (Arc::clone(&known.id.realm), known.id.asker);
        if self.entries.insert(text, known).is_none() && asker == Asker::CredentialsApi {
            self.of_api.entry(realm).or_default().entries += 1;
        }
    }

    fn take_out(&mut self, text: &str) -> Option<Known> {
        let known = self.entries.remove(text)?;
        for ids in [&mut self.unsent, &mut self.recent, &mut self.refused] {
            ids.remove(text);
        }
        if known.id.asker == Asker::CredentialsApi
            && let Some(of_realm) = self.of_api.get_mut(&known.id.realm)
        {
            of_realm.entries = of_realm.entries.saturating_sub(1);
        }
        Some(known)
    }

    fn id_of(&self, realm: Option<&Arc<str>>, whose: &Revoked, asker: Asker) -> EntryId {
        let realm = Arc::clone(realm.unwrap_or(&self.default_realm));
        EntryId { realm, whose: whose.clone(), by: Arc::clone(&self.run), asker }
    }

    /// Forgets what can matter no more.
    fn forget_what_is_over(&mut self, now_unix: u64) {
        let over_unix = self.over_unix(now_unix);
        self.forget(|_, known| is_over(&known.entry, over_unix));
    }

    fn forget(&mut self, is_over: impl Fn(&str, &Known) -> bool) {
        let over = self.entries.iter().filter(|(text, known)| is_over(text, known));
        let over: Vec<_> = over.map(|(text, _)| text.clone()).collect();
        for text in over {
            self.take_out(&text);
        }
        self.of_api.retain(|_, of| of.entries > 0);
    }
}

/// What is shown of an entry that cannot be read.
const SHOWN_CHARS_MAX: usize = 200;

#[cfg(test)]
mod tests;
