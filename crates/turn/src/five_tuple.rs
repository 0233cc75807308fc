//! The table of 5-tuples in use (RFC 8656 section 5).

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::addr::FiveTuple;

use super::hash::{AddressHash, FiveTupleWords, five_tuple_words};

/// Finds an allocation's slot by its 5-tuple; remembers the last hit, since packets come in runs.
pub(super) struct FiveTuples {
    table: HashTable<(FiveTupleWords, u32)>,
    last: Option<(FiveTupleWords, u32)>,
}

impl FiveTuples {
    pub(super) fn new() -> Self {
        Self { table: HashTable::new(), last: None }
    }

    /// The slot of a 5-tuple. The last hit is looked at where the caller is: for a packet, a call is much.
    #[inline(always)]
    pub(super) fn find(&mut self, hash: &AddressHash, five_tuple: &FiveTuple) -> Option<u32> {
        let words = five_tuple_words(five_tuple);
        if let Some((last, slot)) = self.last
            && is_same(&last, &words)
        {
            return Some(slot);
        }
        self.find_other(hash, words)
    }

    #[inline(never)]
    fn find_other(&mut self, hash: &AddressHash, words: FiveTupleWords) -> Option<u32> {
        let found = *self.table.find(hash.words(&words), |(key, _)| *key == words)?;
        self.last = Some(found);
        Some(found.1)
    }

    /// Whether a 5-tuple is in use.
    pub(super) fn contains(&self, hash: &AddressHash, five_tuple: &FiveTuple) -> bool {
        let words = five_tuple_words(five_tuple);
        self.table.find(hash.words(&words), |(key, _)| *key == words).is_some()
    }

    /// Takes a 5-tuple into use; it must not be in use.
    pub(super) fn insert(&mut self, hash: &AddressHash, five_tuple: &FiveTuple, slot: u32) {
        let words = five_tuple_words(five_tuple);
        let rehash = |(key, _): &(FiveTupleWords, u32)| hash.words(key);
        match self.table.entry(hash.words(&words), |(key, _)| *key == words, rehash) {
            Entry::Occupied(mut entry) => entry.get_mut().1 = slot,
            Entry::Vacant(entry) => {
                entry.insert((words, slot));
            }
        }
        self.last = Some((words, slot));
    }

    /// Gives memory back that a peak has left.
    pub(super) fn shrink(&mut self, hash: &AddressHash) {
        self.table.shrink_to_fit(|(key, _)| hash.words(key));
    }

    /// Gives a 5-tuple back.
    pub(super) fn remove(&mut self, hash: &AddressHash, five_tuple: &FiveTuple) {
        let words = five_tuple_words(five_tuple);
        if let Ok(entry) = self.table.find_entry(hash.words(&words), |(key, _)| *key == words) {
            entry.remove();
        }
        self.last = None;
    }
}

/// Without the call of memcmp that comparing arrays of this length is.
#[inline]
fn is_same(one: &FiveTupleWords, other: &FiveTupleWords) -> bool {
    one.iter().zip(other).fold(0, |differs, (one, other)| differs | (one ^ other)) == 0
}

#[cfg(test)]
mod tests {
    use super::super::hash::test_hash;
    use super::*;
    use crate::addr::{ClientAddr, Transport};

    #[test]
    fn after_a_peak_memory_is_given_back_and_who_stays_is_found() {
        let (mut tuples, hash) = (FiveTuples::new(), test_hash());
        let server = "203.0.113.5:3478".parse().unwrap();
        let tuple = |port: u16| {
            let client = ClientAddr::new(([192, 0, 2, 1], port).into());
            FiveTuple { transport: Transport::Udp, client, server }
        };
        (0..10_000).for_each(|port| tuples.insert(&hash, &tuple(port), u32::from(port)));
        (0..10_000).filter(|port| port % 1000 != 0).for_each(|port| tuples.remove(&hash, &tuple(port)));
        tuples.shrink(&hash);
        assert!(tuples.table.capacity() < 64, "{}", tuples.table.capacity());
        for port in 0..10_000 {
            let kept = (port % 1000 == 0).then_some(u32::from(port));
            assert_eq!(tuples.find(&hash, &tuple(port)), kept);
        }
    }
}
