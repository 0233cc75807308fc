//! What one server has revoked of somebody, and whether that was undone, as the store and the servers have it and make one of two.
//!
//! Only the server that made an entry revokes more in it, and counts that; whoever undoes it says up to which count. So of two states of one
//! entry it is plain, without a clock, what comes of them, in whatever order and however often they come together.

use std::fmt;
use std::str::FromStr;

use crate::auth::{IssuedBefore, Revocation};

/// The largest number that a script in the store still counts with.
const NUMBER_MAX: u64 = (1 << 53) - 1;

/// One state of an entry. Zero is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// How often it was revoked, or more than that.
    pub revoked: u64,
    /// Up to which of these times it was undone.
    pub undone: u64,
    /// Until when all is revoked, in Unix seconds.
    pub all_until_unix: u64,
    /// What was issued before this is revoked, in Unix seconds.
    pub issued_before_unix: u64,
    /// For how long it is good, if it does not say when it was issued.
    pub lifetime_secs: u64,
    /// Until when that is revoked, in Unix seconds.
    pub issued_until_unix: u64,
}

/// Not six numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("its state is not six numbers")]
pub struct NotAnEntry;

impl Entry {
    /// Revokes something in it, beside what is revoked in it already. `count` is how often its server has revoked anything: an entry that
    /// has been forgotten, and is made again, goes on from there.
    pub fn revoke(&mut self, revocation: &Revocation, count: u64) {
        if self.is_undone() {
            *self = Self { revoked: self.revoked.max(self.undone), undone: self.undone, ..Self::default() };
        }
        self.revoked = self.revoked.saturating_add(1).max(count).min(NUMBER_MAX);
        let until_unix = revocation.until_unix.min(NUMBER_MAX);
        match revocation.issued_before {
            None => self.all_until_unix = self.all_until_unix.max(until_unix),
            Some(IssuedBefore { unix, lifetime_secs }) => {
                self.issued_before_unix = self.issued_before_unix.max(unix.min(NUMBER_MAX));
                self.lifetime_secs = self.lifetime_secs.max(lifetime_secs.min(NUMBER_MAX));
                self.issued_until_unix = self.issued_until_unix.max(until_unix);
            }
        }
    }

    /// Undoes all that is revoked in it. Returns whether something was.
    pub fn undo(&mut self) -> bool {
        let was_in_force = !self.is_undone();
        self.undone = self.undone.max(self.revoked);
        was_in_force
    }

    /// Whether nothing of it is revoked any more.
    pub fn is_undone(&self) -> bool {
        self.undone >= self.revoked
    }

    /// When it says nothing any more, undone or not.
    pub fn until_unix(&self) -> u64 {
        self.all_until_unix.max(self.issued_until_unix)
    }

    /// What comes of two states. The script `MERGE` does the same.
    #[must_use]
    pub fn merged(self, other: Self) -> Self {
        let undone = self.undone.max(other.undone);
        let of = match self.revoked.cmp(&other.revoked) {
            std::cmp::Ordering::Less => other,
            std::cmp::Ordering::Greater => self,
            std::cmp::Ordering::Equal => Self {
                all_until_unix: self.all_until_unix.max(other.all_until_unix),
                issued_before_unix: self.issued_before_unix.max(other.issued_before_unix),
                lifetime_secs: self.lifetime_secs.max(other.lifetime_secs),
                issued_until_unix: self.issued_until_unix.max(other.issued_until_unix),
                ..self
            },
        };
        Self { undone, ..of }
    }

    /// What it revokes, each with its end.
    pub fn terms(&self) -> impl Iterator<Item = (Option<IssuedBefore>, u64)> + use<> {
        let (is_undone, of) = (self.is_undone(), *self);
        let all = Some((None, of.all_until_unix));
        let issued = IssuedBefore { unix: of.issued_before_unix, lifetime_secs: of.lifetime_secs };
        let issued = Some((Some(issued), of.issued_until_unix));
        [all, issued].into_iter().flatten().filter(move |(_, until_unix)| !is_undone && *until_unix > 0)
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { revoked, undone, all_until_unix, issued_before_unix, lifetime_secs, issued_until_unix } = self;
        write!(f, "{revoked} {undone} {all_until_unix} {issued_before_unix} {lifetime_secs} {issued_until_unix}")
    }
}

impl FromStr for Entry {
    type Err = NotAnEntry;

    fn from_str(text: &str) -> Result<Self, NotAnEntry> {
        let mut numbers = [0; 6];
        let mut words = text.split(' ');
        for number in &mut numbers {
            let word = words.next().filter(|word| word.bytes().all(|byte| byte.is_ascii_digit()));
            let read = word.and_then(|word| word.parse().ok()).filter(|read| *read <= NUMBER_MAX);
            *number = read.ok_or(NotAnEntry)?;
        }
        let [revoked, undone, all_until_unix, issued_before_unix, lifetime_secs, issued_until_unix] = numbers;
        let entry = Self { revoked, undone, all_until_unix, issued_before_unix, lifetime_secs, issued_until_unix };
        if words.next().is_none() { Ok(entry) } else { Err(NotAnEntry) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry() -> impl Strategy<Value = Entry> {
        (0..4_u64, 0..4_u64, 0..4_u64, 0..4_u64, 0..4_u64, 0..4_u64).prop_map(
            |(revoked, undone, all, issued, secs, until)| Entry {
                revoked,
                undone,
                all_until_unix: all,
                issued_before_unix: issued,
                lifetime_secs: secs,
                issued_until_unix: until,
            },
        )
    }

    proptest! {
        #[test]
        fn in_whatever_order_and_however_often_states_meet_the_same_comes_of_them(
            one in entry(), other in entry(), third in entry(),
        ) {
            prop_assert_eq!(one.merged(other), other.merged(one));
            prop_assert_eq!(one.merged(other).merged(third), one.merged(other.merged(third)));
            prop_assert_eq!(one.merged(other).merged(other), one.merged(other));
            prop_assert_eq!(one.to_string().parse(), Ok(one));
        }
    }

    #[test]
    fn what_is_revoked_after_it_was_undone_is_in_force_and_what_was_undone_is_not() {
        let until = |until_unix| Revocation {
            realm: None,
            whose: crate::auth::Revoked::Everybody,
            issued_before: None,
            until_unix,
        };
        let mut entry = Entry::default();
        assert!(entry.is_undone() && entry.terms().next().is_none());
        entry.revoke(&until(900), 1);
        let before = entry;
        assert!(entry.undo() && !entry.undo());
        assert_eq!((entry.terms().count(), entry.until_unix()), (0, 900));
        assert_eq!(before.merged(entry), entry);
        entry.revoke(&until(500), 2);
        assert_eq!(entry.terms().collect::<Vec<_>>(), [(None, 500)]);
        assert_eq!(before.merged(entry), entry, "the state of before brings nothing back");
        entry.revoke(&until(400), 3);
        assert_eq!(entry.terms().collect::<Vec<_>>(), [(None, 500)]);
        // Who undid the first one did not know of the others.
        let mut undone = before;
        undone.undo();
        assert_eq!(entry.merged(undone), entry);
    }

    #[test]
    fn what_is_no_state_is_refused() {
        for text in [
            "",
            "1 0 5 0 0",
            "1 0 5 0 0 0 0",
            "1 0 -5 0 0 0",
            "1 0 +5 0 0 0",
            "1  0 5 0 0 0",
            "1 0 9007199254740992 0 0 0",
        ] {
            assert_eq!(text.parse::<Entry>(), Err(NotAnEntry), "{text}");
        }
    }
}
