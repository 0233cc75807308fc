//! Room for entries: what the credentials API has of it, and what gives way to what.
//!
//! The store has room for half as many as a server: what it has none for is in force where it is known, and offered again until it has.

use crate::store::{Asker, ENTRIES_MAX, Entry, EntryId, KEPT_SECS};

/// Entries of the credentials API: the rest is for the operator, who has more at stake.
pub(super) const OF_API_MAX: usize = ENTRIES_MAX / 2;
/// Those of one realm, whose keys do not take all of it from the others.
pub(super) const OF_REALM_MAX: usize = OF_API_MAX / 4 * 3;
/// By then, servers have heard of what is undone, but for those that are away.
const HEARD_SECS: u64 = 60;
/// What gives way at once.
pub(super) const AT_ONCE: usize = 1000;

/// What an entry is worth: one gives way to those that are worth more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Worth {
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
    pub(super) entries: usize,
    /// When something was last looked for that gives way: all of it is gone through for that.
    pub(super) looked_unix: Option<u64>,
}

/// An entry that is known.
#[derive(Clone)]
pub(super) struct Known {
    pub(super) id: EntryId,
    pub(super) entry: Entry,
    /// When it was heard of last that it is undone.
    pub(super) undone_unix: Option<u64>,
}

impl Known {
    /// Whether it may give way: not while it has just been undone, and somebody may not have heard of that.
    pub(super) fn may_go(&self, over_unix: u64, now_unix: u64) -> bool {
        let is_of_late = self.undone_unix.is_some_and(|since| now_unix.abs_diff(since) <= HEARD_SECS);
        !(is_of_late && self.entry.is_undone()) || self.entry.until_unix() <= over_unix
    }

    pub(super) fn worth(&self, over_unix: u64) -> Worth {
        let is_in_force = !self.entry.is_undone() && self.entry.until_unix() > over_unix;
        match (is_in_force, self.id.asker) {
            (false, Asker::CredentialsApi) => Worth::NothingOfApi,
            (false, Asker::Operator) => Worth::Nothing,
            (true, Asker::CredentialsApi) => Worth::OfApi,
            (true, Asker::Operator) => Worth::OfOperator,
        }
    }
}

/// Whether it can matter no more, by a clock that may be wrong by so much.
pub(super) fn is_over(entry: &Entry, now_unix: u64) -> bool {
    entry.until_unix().saturating_add(KEPT_SECS) < now_unix
}
