//! Values in numbered slots that are used again, each use told from the ones before: the slot table of allocations, relay sockets
//! and connections alike.

/// Where a value is: an index that tables can be indexed by, and which use of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SlotId {
    /// The slot's index: small and dense.
    pub index: u32,
    /// Counts the insertions of the table, so that who keeps the id of a value that is gone does not find the next one in its
    /// slot, not even if the slot itself went and came back meanwhile.
    pub generation: u32,
}

/// Values by [`SlotId`]. A value's slot is found without a search; the slot of a value that is gone is the next to be used.
#[derive(Debug)]
pub struct Slots<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    next_generation: u32,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self { slots: Vec::new(), free: Vec::new(), next_generation: 0 }
    }
}

impl<T> Slots<T> {
    /// The id that the next value will have, for one that has to know its own.
    pub fn next_id(&self) -> SlotId {
        let index = self.free.last().copied().unwrap_or(self.slots.len() as u32);
        SlotId { index, generation: self.next_generation }
    }

    /// Adds a value, under the id that [`Self::next_id`] has told.
    pub fn insert(&mut self, value: T) -> SlotId {
        let id = self.next_id();
        self.next_generation = self.next_generation.wrapping_add(1);
        let used = Slot { generation: id.generation, value: Some(value) };
        match self.free.pop().and_then(|index| self.slots.get_mut(index as usize)) {
            Some(slot) => *slot = used,
            None => self.slots.push(used),
        }
        id
    }

    /// The value with this id, unless it was removed.
    #[inline]
    pub fn get(&self, id: SlotId) -> Option<&T> {
        let slot = self.slots.get(id.index as usize)?;
        if slot.generation == id.generation { slot.value.as_ref() } else { None }
    }

    /// The same, to change.
    #[inline]
    pub fn get_mut(&mut self, id: SlotId) -> Option<&mut T> {
        let slot = self.slots.get_mut(id.index as usize)?;
        if slot.generation == id.generation { slot.value.as_mut() } else { None }
    }

    /// The value in a slot, for who keeps no index of a value that is gone.
    #[inline]
    pub fn at(&self, index: u32) -> Option<&T> {
        self.slots.get(index as usize)?.value.as_ref()
    }

    /// The same, to change.
    #[inline]
    pub fn at_mut(&mut self, index: u32) -> Option<&mut T> {
        self.slots.get_mut(index as usize)?.value.as_mut()
    }

    /// Lets the value with this id become another one, which keeps its slot and its id.
    pub fn change<R>(&mut self, id: SlotId, change: impl FnOnce(T) -> (T, R)) -> Option<R> {
        let slot = self.slots.get_mut(id.index as usize).filter(|slot| slot.generation == id.generation)?;
        let (value, result) = change(slot.value.take()?);
        slot.value = Some(value);
        Some(result)
    }

    /// Takes the value with this id out.
    pub fn remove(&mut self, id: SlotId) -> Option<T> {
        self.get(id)?;
        self.remove_at(id.index)
    }

    /// Takes the value in a slot out.
    pub fn remove_at(&mut self, index: u32) -> Option<T> {
        let value = self.slots.get_mut(index as usize)?.value.take()?;
        self.free.push(index);
        Some(value)
    }

    /// Takes all values out.
    pub fn drain(&mut self) -> impl Iterator<Item = T> + use<T> {
        self.free = Vec::new();
        std::mem::take(&mut self.slots).into_iter().filter_map(|slot| slot.value)
    }

    /// How many values there are.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many slots there are, in use or not.
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// Gives memory back that a peak has left.
    pub fn shrink(&mut self) {
        let used = self.slots.iter().rposition(|slot| slot.value.is_some()).map_or(0, |last| last + 1);
        self.slots.truncate(used);
        self.slots.shrink_to_fit();
        self.free.retain(|index| (*index as usize) < used);
        self.free.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_value_is_found_by_its_id_and_not_by_that_of_an_earlier_one_in_its_slot() {
        let mut slots = Slots::default();
        let first = slots.insert("first");
        assert_eq!((slots.get(first), slots.at(0), slots.len()), (Some(&"first"), Some(&"first"), 1));
        assert_eq!(slots.remove(first), Some("first"));
        assert_eq!(slots.remove(first), None);
        assert_eq!((slots.get(first), slots.at(0), slots.is_empty()), (None, None, true));
        let told = slots.next_id();
        let second = slots.insert("second");
        assert_eq!((second, second.index), (told, first.index), "the slot is used again");
        assert!(slots.get(first).is_none() && slots.get_mut(first).is_none() && slots.remove(first).is_none());
        assert_eq!((slots.get(second), slots.slots()), (Some(&"second"), 1));
    }

    #[test]
    fn slots_that_went_and_came_back_are_told_from_what_they_were() {
        let mut slots = Slots::default();
        let ids: Vec<SlotId> = (0..1000).map(|n| slots.insert(n)).collect();
        for id in ids.iter().filter(|id| id.index != 10) {
            assert!(slots.remove(*id).is_some());
        }
        slots.shrink();
        assert_eq!((slots.slots(), slots.len()), (11, 1));
        assert!(slots.slots.capacity() < 100 && slots.free.capacity() < 100);
        let again: Vec<SlotId> = (0..999).map(|n| slots.insert(n)).collect();
        assert_eq!(slots.slots(), 1000, "no slot is left out");
        assert!(ids.iter().all(|id| slots.get(*id).is_none() == (id.index != 10)));
        assert!(again.iter().all(|id| slots.get(*id).is_some()));
    }

    #[test]
    fn a_value_that_becomes_another_keeps_its_slot_and_its_id() {
        let mut slots = Slots::default();
        let (gone, id) = (slots.insert(1), slots.insert(2));
        slots.remove(gone);
        assert_eq!(slots.change(id, |value| (value + 10, value)), Some(2));
        assert_eq!((slots.get(id), slots.len()), (Some(&12), 1));
        assert_eq!(slots.change(gone, |value| (value, ())), None);
    }

    #[test]
    fn who_takes_all_leaves_a_table_that_knows_none_of_them() {
        let mut slots = Slots::default();
        let ids: Vec<SlotId> = (0..5).map(|n| slots.insert(n)).collect();
        slots.remove(ids[2]);
        assert_eq!(slots.drain().collect::<Vec<_>>(), [0, 1, 3, 4]);
        assert_eq!((slots.len(), slots.slots()), (0, 0));
        slots.insert(9);
        assert!(ids.iter().all(|id| slots.get(*id).is_none()));
    }

    proptest! {
        #[test]
        fn a_table_holds_what_a_map_would(steps in prop::collection::vec((0u8..8, any::<prop::sample::Index>()), 0..300)) {
            let (mut slots, mut map, mut known) = (Slots::default(), HashMap::new(), Vec::new());
            for (n, (step, pick)) in steps.into_iter().enumerate() {
                match step {
                    0..4 => {
                        let id = slots.insert(n);
                        prop_assert!(map.insert(id, n).is_none());
                        known.push(id);
                    }
                    4..7 if !known.is_empty() => {
                        let id = *pick.get(&known);
                        prop_assert_eq!(slots.remove(id), map.remove(&id));
                    }
                    _ => slots.shrink(),
                }
                prop_assert_eq!(slots.len(), map.len());
                prop_assert!(known.iter().all(|id| slots.get(*id) == map.get(id)));
            }
        }
    }
}
