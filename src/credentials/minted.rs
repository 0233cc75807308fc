//! Which usernames have been made lately, so that no two who ask are given the same credential.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// How many are remembered, at most: a later one takes the place of another. A power of two.
const SLOTS: usize = 8192;

/// A memory of fixed size that forgets. What it has forgotten is made a second time: that is how it would be without it.
pub(super) struct Minted {
    /// Of random keys, so that nobody chooses whom to push out.
    hasher: RandomState,
    slots: Box<[AtomicU64]>,
}

impl Default for Minted {
    fn default() -> Self {
        Self { hasher: RandomState::new(), slots: (0..SLOTS).map(|_| AtomicU64::new(0)).collect() }
    }
}

impl Minted {
    /// Whether a username is new in its realm, as far as is known. It is not any more.
    pub(super) fn is_first(&self, realm: &str, username: &str) -> bool {
        let hash = self.hasher.hash_one((realm, username));
        let slot = usize::try_from(hash % SLOTS as u64).ok().and_then(|index| self.slots.get(index));
        slot.is_none_or(|slot| slot.swap(hash, Relaxed) != hash)
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
        assert_eq!((known, minted.slots.len()), (0, SLOTS));
    }
}
