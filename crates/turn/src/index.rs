//! Positions by key, for lists that have grown too long to scan.

use hashbrown::HashTable;

/// Lists up to this length are scanned and have no index.
pub(super) const SCANNED: usize = 8;

/// Finds positions in a list by a hash of their key. Costs a pointer until the list is long.
#[derive(Default)]
pub(super) struct Index(Option<Box<HashTable<u32>>>);

impl Index {
    /// Whether there is an index; if not, the list is short and is scanned.
    #[inline]
    pub(super) fn is_built(&self) -> bool {
        self.0.is_some()
    }

    /// The position with this hash for which `is_it` holds.
    #[inline]
    pub(super) fn find(&self, hash: u64, is_it: impl Fn(usize) -> bool) -> Option<usize> {
        let table = self.0.as_deref()?;
        table.find(hash, |position| is_it(*position as usize)).map(|position| *position as usize)
    }

    /// Takes note of the entry just pushed; `hash_at` hashes the entry at a position, `len` counts it.
    pub(super) fn pushed(&mut self, len: usize, hash_at: impl Fn(usize) -> u64) {
        match self.0.as_deref_mut() {
            Some(table) => {
                let position = len.saturating_sub(1);
                table.insert_unique(hash_at(position), position as u32, |other| hash_at(*other as usize));
            }
            None if len > SCANNED => self.rebuild(len, hash_at),
            None => {}
        }
    }

    /// Starts anew after positions have changed.
    pub(super) fn rebuild(&mut self, len: usize, hash_at: impl Fn(usize) -> u64) {
        if len <= SCANNED {
            self.0 = None;
            return;
        }
        let mut table = Box::new(HashTable::with_capacity(len));
        for position in 0..len {
            table.insert_unique(hash_at(position), position as u32, |other| hash_at(*other as usize));
        }
        self.0 = Some(table);
    }
}
