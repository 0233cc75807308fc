//! Numbers found by the hash of what they stand for: half the memory of a map, and no copy of the keys.

/// Marks a place that is free. No number is as high.
const FREE: u64 = u64::MAX;

/// Open addressing with linear probing: each place has 32 bits of the hash and the number.
#[derive(Default)]
pub(super) struct NumberIndex {
    /// A power of two of places, at most three quarters of them taken.
    places: Vec<u64>,
    taken: usize,
}

impl NumberIndex {
    /// Adds a number, which is below `u32::MAX`.
    pub(super) fn insert(&mut self, hash: u64, number: u32) {
        if (self.taken + 1) * 4 > self.places.len() * 3 {
            let wider = vec![FREE; (self.places.len() * 2).max(16)];
            for entry in std::mem::replace(&mut self.places, wider).into_iter().filter(|entry| *entry != FREE) {
                self.put(entry);
            }
        }
        self.put(hash & !u64::from(u32::MAX) | u64::from(number));
        self.taken += 1;
    }

    /// The number of this hash that `is_it`.
    pub(super) fn find(&self, hash: u64, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        let tag = hash >> 32;
        let mask = self.places.len().checked_sub(1)?;
        let mut at = tag as usize & mask;
        loop {
            match *self.places.get(at)? {
                FREE => return None,
                entry if entry >> 32 == tag && is_it(entry as u32) => return Some(entry as u32),
                _ => at = (at + 1) & mask,
            }
        }
    }

    fn put(&mut self, entry: u64) {
        let Some(mask) = self.places.len().checked_sub(1) else { return };
        let mut at = (entry >> 32) as usize & mask;
        while let Some(place) = self.places.get_mut(at) {
            if *place == FREE {
                *place = entry;
                return;
            }
            at = (at + 1) & mask;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_one_hash_are_told_apart_by_what_they_stand_for() {
        let mut index = NumberIndex::default();
        assert_eq!(index.find(1 << 40, |_| true), None);
        for number in 0..1000 {
            index.insert(u64::from(number % 7) << 32, number);
        }
        for number in 0..1000 {
            assert_eq!(index.find(u64::from(number % 7) << 32, |found| found == number), Some(number));
        }
        assert_eq!(index.find(0, |found| found == 1), None);
        assert_eq!(index.find(9 << 32, |_| true), None);
        assert!(index.places.len() <= 2048, "{}", index.places.len());
    }

    #[test]
    fn a_hash_whose_bits_are_all_set_is_none_that_is_free() {
        let mut index = NumberIndex::default();
        index.insert(u64::MAX, u32::MAX - 1);
        assert_eq!(index.find(u64::MAX, |_| true), Some(u32::MAX - 1));
    }
}
