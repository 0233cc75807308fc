//! The last of something that a worker keeps for whoever asks later, in a fixed amount of memory.

/// How many are kept.
pub(crate) const KEPT: usize = 512;

/// The last [`KEPT`] entries; the oldest make room for new ones.
pub(super) struct Ring<T> {
    entries: Vec<T>,
    oldest: usize,
}

impl<T: Clone> Ring<T> {
    /// An empty ring with all the memory it will have: what it keeps has not always been authenticated.
    pub(super) fn new() -> Self {
        Self { entries: Vec::with_capacity(KEPT), oldest: 0 }
    }

    pub(super) fn push(&mut self, new: T) {
        if self.entries.len() < KEPT {
            self.entries.push(new);
        } else if let Some(entry) = self.entries.get_mut(self.oldest) {
            *entry = new;
            self.oldest = (self.oldest + 1) % KEPT;
        }
    }

    /// The one that came last.
    pub(super) fn newest_mut(&mut self) -> Option<&mut T> {
        let newest = self.oldest.checked_sub(1).or_else(|| self.entries.len().checked_sub(1))?;
        self.entries.get_mut(newest)
    }

    pub(super) fn oldest_first(&self) -> Vec<T> {
        let (newer, older) = self.entries.split_at(self.oldest.min(self.entries.len()));
        older.iter().chain(newer).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_make_room_and_the_newest_is_known() {
        let mut ring = Ring::new();
        assert_eq!(ring.newest_mut(), None);
        (0..10).for_each(|number| ring.push(number));
        assert_eq!(ring.oldest_first(), (0..10).collect::<Vec<_>>());
        assert_eq!(ring.newest_mut(), Some(&mut 9));
        for number in 10..1200 {
            ring.push(number);
            assert_eq!(ring.newest_mut(), Some(&mut { number }));
        }
        assert_eq!(ring.oldest_first(), (1200 - KEPT..1200).collect::<Vec<_>>());
    }
}
