//! Room for entries: what the credentials API has of it, and what gives way to what.
//!
//! The store has room for half as many as a server: what it has none for is in force where it is known, and offered again until it has.

use std::cmp::Reverse;
use std::sync::Arc;

use super::{Known, RevokedEntries, is_over};
use crate::auth::Revoked;
use crate::store::{Asker, BELIEVED_MAX, ENTRIES_MAX, Entry, EntryId};

/// Entries of the credentials API: the rest is for the operator, who has more at stake.
pub(super) const OF_API_MAX: usize = ENTRIES_MAX / 2;
/// Those of one realm, whose keys do not take all of it from the others.
pub(super) const OF_REALM_MAX: usize = OF_API_MAX / 4 * 3;
/// What gives way at once.
const AT_ONCE: usize = 1000;

/// What an entry is worth: one gives way to those that are worth more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Worth {
    /// The credentials API asked for it, and it is over or undone.
    NothingOfApi,
    /// It is over or undone.
    Nothing,
    /// The credentials API asked for it, and it is in force.
    OfApi,
    OfOperator,
}

/// Whose room is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ops) enum UsedUp {
    /// That of one realm.
    OfRealm,
    /// That of all.
    OfAll,
}

/// Entries as they are.
pub(in crate::ops) type States = Vec<(String, Entry)>;

/// What the credentials API has of a realm.
#[derive(Debug, Default)]
pub(super) struct OfApi {
    entries: usize,
    /// When something was last looked for that gives way: all of it is gone through for that.
    looked_unix: Option<u64>,
}

impl RevokedEntries {
    /// Has what is over or undone give way to one more of the credentials API, if there is no room for it.
    ///
    /// # Errors
    /// There is none, and all of it is in force.
    pub(in crate::ops) fn make_room_for_api(
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
    pub(super) fn make_room(&mut self, asker: Asker, now_unix: u64) -> bool {
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
                let is_needed = known.entry.is_undone() && until_unix > over_unix && self.unsent.contains(text);
                (!is_needed && may(known, worth)).then_some((worth, until_unix, text))
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
    pub(in crate::ops) fn to_let_go(&self) -> States {
        self.gone.iter().map(|(text, entry)| (text.clone(), *entry)).collect()
    }

    /// The store has let these go.
    pub(in crate::ops) fn are_gone(&mut self, gone: &[(String, Entry)]) {
        for (text, entry) in gone {
            if self.gone.get(text) == Some(entry) {
                self.gone.remove(text);
            }
        }
    }

    /// One that was so has given way in the store. What is in force here stays so. Returns whether there is one less.
    pub(in crate::ops) fn has_given_way(&mut self, text: &str, was: &Entry, now_unix: u64) -> bool {
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
    pub(in crate::ops) fn giving_way_to(&self, refused: &[String], now_unix: u64) -> (States, States) {
        let over_unix = self.over_unix(now_unix);
        let found = refused.iter().filter_map(|text| Some((text, self.entries.get(text)?)));
        let wanted = found.map(|(text, known)| (known.worth(over_unix), text, known.entry));
        let mut wanted: Vec<_> = wanted.filter(|(worth, ..)| *worth >= Worth::OfApi).collect();
        wanted.sort_by_key(|(worth, ..)| Reverse(*worth));
        let Some((most, ..)) = wanted.first() else { return Default::default() };
        let in_store = self.entries.iter().filter(|(text, _)| !self.unsent.contains(*text));
        let lesser =
            in_store.map(|(text, known)| (known.worth(over_unix), known.entry.until_unix(), text, known.entry));
        let mut lesser: Vec<_> = lesser.filter(|(worth, ..)| worth < most).collect();
        lesser.sort_unstable_by_key(|(worth, until_unix, ..)| (*worth, *until_unix));
        let pairs = wanted.into_iter().zip(lesser).take(AT_ONCE);
        let pairs = pairs.take_while(|((worth, ..), (lesser, ..))| lesser < worth);
        pairs.map(|((_, text, entry), (_, _, lesser, state))| ((lesser.clone(), state), (text.clone(), entry))).unzip()
    }

    /// The store has no room for these. What is over needs none.
    pub(super) fn are_refused(&mut self, refused: &[String], now_unix: u64) {
        let over_unix = self.over_unix(now_unix);
        for text in refused {
            match self.entries.get(text) {
                Some(known) if known.entry.until_unix() <= over_unix => drop(self.take_out(text)),
                Some(_) => drop(self.refused.insert(text.clone())),
                None => {}
            }
        }
    }

    /// How many the store has no room for.
    pub(in crate::ops) fn refused_len(&self) -> usize {
        self.refused.len()
    }

    pub(super) fn put_in(&mut self, text: String, known: Known) {
        let (realm, asker) = (Arc::clone(&known.id.realm), known.id.asker);
        if self.entries.insert(text, known).is_none() && asker == Asker::CredentialsApi {
            self.of_api.entry(realm).or_default().entries += 1;
        }
    }

    pub(super) fn take_out(&mut self, text: &str) -> Option<Known> {
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

    pub(super) fn id_of(&self, realm: Option<&Arc<str>>, whose: &Revoked, asker: Asker) -> EntryId {
        let realm = Arc::clone(realm.unwrap_or(&self.default_realm));
        EntryId { realm, whose: whose.clone(), by: Arc::clone(&self.run), asker }
    }

    /// Forgets what can matter no more.
    pub(super) fn forget_what_is_over(&mut self, now_unix: u64) {
        let over_unix = self.over_unix(now_unix);
        self.forget(|_, known| is_over(&known.entry, over_unix));
    }

    pub(super) fn forget(&mut self, is_over: impl Fn(&str, &Known) -> bool) {
        let over = self.entries.iter().filter(|(text, known)| is_over(text, known));
        let over: Vec<_> = over.map(|(text, _)| text.clone()).collect();
        for text in over {
            self.take_out(&text);
        }
        self.of_api.retain(|_, of| of.entries > 0);
    }
}

impl Known {
    fn worth(&self, over_unix: u64) -> Worth {
        let is_in_force = !self.entry.is_undone() && self.entry.until_unix() > over_unix;
        match (is_in_force, self.id.asker) {
            (false, Asker::CredentialsApi) => Worth::NothingOfApi,
            (false, Asker::Operator) => Worth::Nothing,
            (true, Asker::CredentialsApi) => Worth::OfApi,
            (true, Asker::Operator) => Worth::OfOperator,
        }
    }
}
