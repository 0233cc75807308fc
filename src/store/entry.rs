//! What one server has revoked of somebody, and whether that was undone, as the store and the servers have it and make one of two.
//!
//! What is revoked of somebody as a whole, and what was issued before some moment, are two terms. Only the server that made an entry revokes
//! more in it, and counts that in the term; whoever undoes it says up to which count. So of two states of one entry it is plain, without a
//! clock, what comes of them, in whatever order and however often they come together; and to revoke more by one term brings nothing back
//! that was undone of the other.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use crate::auth::{IssuedBefore, Revocation};

/// The largest number that a script in the store still counts with.
const NUMBER_MAX: u64 = (1 << 53) - 1;

/// One state of an entry. Zero is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// How often all was revoked.
    pub all: Counts,
    /// Until when all is revoked, in Unix seconds.
    pub all_until_unix: u64,
    /// How often what was issued before some moment was revoked.
    pub issued: Counts,
    /// What was issued before this is revoked, in Unix seconds.
    pub issued_before_unix: u64,
    /// For how long it is good, if it does not say when it was issued.
    pub lifetime_secs: u64,
    /// Until when that is revoked, in Unix seconds.
    pub issued_until_unix: u64,
}

/// How it is with one of the two terms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// How often it was revoked, or more than that.
    pub revoked: u64,
    /// Up to which of these times it was undone.
    pub undone: u64,
}

/// Not eight numbers. (They were six for a while, which no release has written.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("its state is not eight numbers")]
pub struct NotAnEntry;

impl Counts {
    /// Once more. `count` is how often its server has revoked anything: an entry that has been forgotten, and is made again, goes on from
    /// there. Returns whether it was undone, so that what was revoked before counts no longer.
    fn revoke(&mut self, count: u64) -> bool {
        let was_undone = self.is_undone();
        self.revoked = self.revoked.max(self.undone).saturating_add(1).max(count).min(NUMBER_MAX);
        was_undone
    }

    fn undo(&mut self) {
        self.undone = self.undone.max(self.revoked);
    }

    fn is_undone(self) -> bool {
        self.undone >= self.revoked
    }

    /// What comes of two states of a term, with its numbers.
    fn merged<const N: usize>(one: (Self, [u64; N]), other: (Self, [u64; N])) -> (Self, [u64; N]) {
        let ((counts, numbers), (others, other_numbers)) = (one, other);
        let undone = counts.undone.max(others.undone);
        let numbers = match counts.revoked.cmp(&others.revoked) {
            Ordering::Less => other_numbers,
            Ordering::Greater => numbers,
            Ordering::Equal => {
                let mut pairs = numbers.into_iter().zip(other_numbers);
                std::array::from_fn(|_| pairs.next().map_or(0, |(one, other)| one.max(other)))
            }
        };
        (Self { revoked: counts.revoked.max(others.revoked), undone }, numbers)
    }
}

impl Entry {
    /// Revokes something in it, beside what is revoked in it already. `count` is how often its server has revoked anything.
    pub fn revoke(&mut self, revocation: &Revocation, count: u64) {
        let until_unix = revocation.until_unix.min(NUMBER_MAX);
        match revocation.issued_before {
            None => {
                if self.all.revoke(count) {
                    self.all_until_unix = 0;
                }
                self.all_until_unix = self.all_until_unix.max(until_unix);
            }
            Some(IssuedBefore { unix, lifetime_secs }) => {
                if self.issued.revoke(count) {
                    (self.issued_before_unix, self.lifetime_secs, self.issued_until_unix) = (0, 0, 0);
                }
                self.issued_before_unix = self.issued_before_unix.max(unix.min(NUMBER_MAX));
                self.lifetime_secs = self.lifetime_secs.max(lifetime_secs.min(NUMBER_MAX));
                self.issued_until_unix = self.issued_until_unix.max(until_unix);
            }
        }
    }

    /// Undoes all that is revoked in it. Returns whether something was.
    pub fn undo(&mut self) -> bool {
        let was_in_force = !self.is_undone();
        self.all.undo();
        self.issued.undo();
        was_in_force
    }

    /// Whether nothing of it is revoked any more.
    pub fn is_undone(&self) -> bool {
        self.all.is_undone() && self.issued.is_undone()
    }

    /// When it says nothing any more, undone or not.
    pub fn until_unix(&self) -> u64 {
        self.all_until_unix.max(self.issued_until_unix)
    }

    /// What comes of two states. The script `MERGE` does the same.
    #[must_use]
    pub fn merged(self, other: Self) -> Self {
        let all_of = |of: Self| (of.all, [of.all_until_unix]);
        let issued_of = |of: Self| (of.issued, [of.issued_before_unix, of.lifetime_secs, of.issued_until_unix]);
        let (all, [all_until_unix]) = Counts::merged(all_of(self), all_of(other));
        let (issued, [issued_before_unix, lifetime_secs, issued_until_unix]) =
            Counts::merged(issued_of(self), issued_of(other));
        Self { all, all_until_unix, issued, issued_before_unix, lifetime_secs, issued_until_unix }
    }

    /// What it revokes, each with its end.
    pub fn terms(&self) -> impl Iterator<Item = (Option<IssuedBefore>, u64)> + use<> {
        let issued = IssuedBefore { unix: self.issued_before_unix, lifetime_secs: self.lifetime_secs };
        let all = (self.all, None, self.all_until_unix);
        let terms = [all, (self.issued, Some(issued), self.issued_until_unix)].into_iter();
        terms.filter(|(counts, _, until_unix)| !counts.is_undone() && *until_unix > 0).map(|(_, of, until)| (of, until))
    }

    fn numbers(&self) -> [u64; 8] {
        let Self { all, issued, .. } = self;
        let (before, lifetime) = (self.issued_before_unix, self.lifetime_secs);
        let until = (self.all_until_unix, self.issued_until_unix);
        [all.revoked, all.undone, until.0, issued.revoked, issued.undone, before, lifetime, until.1]
    }

    fn of_numbers(numbers: [u64; 8]) -> Self {
        let [revoked, undone, all_until_unix, others, others_undone, before, lifetime, issued_until_unix] = numbers;
        Self {
            all: Counts { revoked, undone },
            all_until_unix,
            issued: Counts { revoked: others, undone: others_undone },
            issued_before_unix: before,
            lifetime_secs: lifetime,
            issued_until_unix,
        }
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers = self.numbers().map(|number| number.to_string());
        f.write_str(&numbers.join(" "))
    }
}

impl FromStr for Entry {
    type Err = NotAnEntry;

    fn from_str(text: &str) -> Result<Self, NotAnEntry> {
        let mut numbers = [0; 8];
        let mut words = text.split(' ');
        for number in &mut numbers {
            let word = words.next().filter(|word| word.bytes().all(|byte| byte.is_ascii_digit()));
            let read = word.and_then(|word| word.parse().ok()).filter(|read| *read <= NUMBER_MAX);
            *number = read.ok_or(NotAnEntry)?;
        }
        if words.next().is_none() { Ok(Self::of_numbers(numbers)) } else { Err(NotAnEntry) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry() -> impl Strategy<Value = Entry> {
        proptest::array::uniform8(0..4_u64).prop_map(Entry::of_numbers)
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
        // Who revokes by the other term meanwhile brings nothing back of this one.
        let (mut one, mut other) = (before, before);
        other.undo();
        one.revoke(&Revocation { issued_before: Some(IssuedBefore { unix: 5, lifetime_secs: 60 }), ..until(70) }, 2);
        assert_eq!(one.terms().count(), 2);
        assert!(one.merged(other).terms().all(|(issued_before, _)| issued_before.is_some()));
    }

    #[test]
    fn what_is_no_state_is_refused() {
        for text in [
            "",
            "1 0 5 0 0 0",
            "1 0 5 0 0 0 0",
            "1 0 5 0 0 0 0 0 0",
            "1 0 -5 0 0 0 0 0",
            "1 0 +5 0 0 0 0 0",
            "1  0 5 0 0 0 0 0",
            "1 0 9007199254740992 0 0 0 0 0",
        ] {
            assert_eq!(text.parse::<Entry>(), Err(NotAnEntry), "{text}");
        }
    }
}
