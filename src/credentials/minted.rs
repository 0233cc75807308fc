//! Which usernames have been made lately, so that no two who ask are given the same credential.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};

/// How many are remembered, at most, in so many sets of which each has room for a few: of two that share one place, each would push the
/// other out whenever it is asked about, and both would be made again and again.
const SETS: usize = 1024;
const OF_A_SET: usize = 8;

/// A memory of fixed size that forgets. What it has forgotten is made a second time: that is how it would be without it.
pub(super) struct Minted {
    /// Of random keys, so that nobody chooses whom to push out.
    hasher: RandomState,
    /// In each, the latest first.
    sets: Mutex<Box<[[u64; OF_A_SET]]>>,
}

impl Default for Minted {
    fn default() -> Self {
        Self { hasher: RandomState::new(), sets: Mutex::new(vec![[0; OF_A_SET]; SETS].into_boxed_slice()) }
    }
}

impl Minted {
    /// Whether a username is new in its realm, as far as is known. It is not any more.
    pub(super) fn is_first(&self, realm: &str, username: &str) -> bool {
        let hash = self.hasher.hash_one((realm, username));
        let mut sets = self.sets.lock().unwrap_or_else(PoisonError::into_inner);
        let index = usize::try_from(hash % SETS as u64).unwrap_or_default();
        let Some(set) = sets.get_mut(index) else { return true };
        if set.contains(&hash) {
            return false;
        }
        set.rotate_right(1);
        set[0] = hash;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_username_is_new_once_in_each_realm_and_the_memory_does_not_grow() {
        let minted = Minted::default();
        assert!(minted.is_first("a", "1:alice") && !minted.is_first("a", "1:alice"));
        assert!(minted.is_first("b", "1:alice") && minted.is_first("a", "2:alice"));
        let known = (0..100_000).filter(|number| !minted.is_first("a", &format!("{number}:bob"))).count();
        assert_eq!((known, minted.sets.lock().unwrap().len()), (0, SETS));
    }

    #[test]
    fn what_one_user_is_given_within_a_second_is_remembered_whatever_shares_its_place() {
        let minted = Minted::default();
        for user in 0..2000 {
            let first = |time: u64| minted.is_first("a", &format!("{time}:{user}"));
            assert!((0..30).all(first), "{user}");
            assert!(!(0..30).any(first), "{user}");
        }
    }
}
