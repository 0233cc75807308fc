//! All allocations of one server, by slot, by 5-tuple, by relay and by id.

use std::collections::BTreeMap;

use crate::addr::FiveTuple;

use super::allocation::Allocation;
use super::five_tuple::FiveTuples;
use super::hash::AddressHash;
use super::ids::AllocationId;
use super::output::Client;
use super::relays::RelayId;
use super::slots::Slots;

/// A slot that is in use by no allocation.
const NONE: u32 = u32::MAX;

/// The slot an allocation is in and the use of the relay it belongs to.
#[derive(Clone, Copy)]
struct RelayEntry {
    generation: u32,
    slot: u32,
}

/// Slots are reused; who keeps a slot over time must look whether it is still the same allocation's.
pub(super) struct Allocations {
    slots: Slots<Box<Allocation>>,
    five_tuples: FiveTuples,
    relays: Vec<RelayEntry>,
    /// The slots by id: what goes over all of them does it in this order, and takes up where it has left off.
    ids: BTreeMap<AllocationId, u32>,
}

impl Allocations {
    pub(super) fn new() -> Self {
        Self { slots: Slots::default(), five_tuples: FiveTuples::new(), relays: Vec::new(), ids: BTreeMap::new() }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// The slot of the allocation on a 5-tuple.
    #[inline]
    pub(super) fn find(&mut self, hash: &AddressHash, five_tuple: &FiveTuple) -> Option<u32> {
        self.five_tuples.find(hash, five_tuple)
    }

    /// Whether a 5-tuple has an allocation.
    pub(super) fn contains(&self, hash: &AddressHash, five_tuple: &FiveTuple) -> bool {
        self.five_tuples.contains(hash, five_tuple)
    }

    /// The slot of the allocation that has a relay open.
    #[inline]
    pub(super) fn find_relay(&self, relay: RelayId) -> Option<u32> {
        let entry = self.relays.get(relay.index as usize)?;
        (entry.generation == relay.generation && entry.slot != NONE).then_some(entry.slot)
    }

    #[inline]
    pub(super) fn get(&self, slot: u32) -> Option<&Allocation> {
        self.slots.at(slot).map(Box::as_ref)
    }

    #[inline]
    pub(super) fn get_mut(&mut self, slot: u32) -> Option<&mut Allocation> {
        self.slots.at_mut(slot).map(Box::as_mut)
    }

    /// The slot of the allocation with this id.
    pub(super) fn find_id(&self, id: AllocationId) -> Option<u32> {
        self.ids.get(&id).copied()
    }

    /// The highest id there is.
    pub(super) fn last_id(&self) -> Option<AllocationId> {
        self.ids.last_key_value().map(|(id, _)| *id)
    }

    /// The allocation with the lowest id that is at least this one, and its slot.
    pub(super) fn first_from(&self, id: AllocationId) -> Option<(AllocationId, u32)> {
        self.ids.range(id..).next().map(|(id, slot)| (*id, *slot))
    }

    /// Adds an allocation with the relays it has open. TCP relays have ids of their own, and are not found here.
    pub(super) fn insert(&mut self, hash: &AddressHash, allocation: Box<Allocation>) -> u32 {
        let slot = self.slots.next_id().index;
        if !allocation.is_away() {
            self.five_tuples.insert(hash, &allocation.client.five_tuple, slot);
        }
        self.ids.insert(allocation.id, slot);
        for relay in allocation.relays().filter(|relay| relay.open && !allocation.is_tcp()) {
            let index = relay.id.index as usize;
            if index >= self.relays.len() {
                self.relays.resize(index + 1, RelayEntry { generation: 0, slot: NONE });
            }
            if let Some(entry) = self.relays.get_mut(index) {
                *entry = RelayEntry { generation: relay.id.generation, slot };
            }
        }
        self.slots.insert(allocation).index
    }

    /// Takes an allocation out, with its 5-tuple and the relays it still has open.
    pub(super) fn remove(&mut self, hash: &AddressHash, slot: u32) -> Option<Box<Allocation>> {
        let allocation = self.slots.remove_at(slot)?;
        if !allocation.is_away() {
            self.five_tuples.remove(hash, &allocation.client.five_tuple);
        }
        self.ids.remove(&allocation.id);
        for relay in allocation.relays().filter(|relay| relay.open && !allocation.is_tcp()) {
            self.forget_relay(relay.id);
        }
        Some(allocation)
    }

    /// The client of an allocation comes by another 5-tuple from now on, which must not be in use.
    pub(super) fn set_client(&mut self, hash: &AddressHash, slot: u32, client: Client) {
        let Some(allocation) = self.slots.at_mut(slot) else { return };
        if !allocation.is_away() {
            self.five_tuples.remove(hash, &allocation.client.five_tuple);
        }
        if let Some(mobile) = &mut allocation.mobile {
            mobile.is_away = false;
        }
        allocation.client = client;
        self.five_tuples.insert(hash, &client.five_tuple, slot);
    }

    /// The 5-tuple of a mobile allocation is its client's no more.
    pub(super) fn set_away(&mut self, hash: &AddressHash, slot: u32) {
        let Some(allocation) = self.slots.at_mut(slot).filter(|allocation| !allocation.is_away()) else { return };
        let five_tuple = allocation.client.five_tuple;
        if let Some(mobile) = &mut allocation.mobile {
            mobile.is_away = true;
            self.five_tuples.remove(hash, &five_tuple);
        }
    }

    /// Gives memory back that a peak has left.
    pub(super) fn shrink(&mut self, hash: &AddressHash) {
        self.slots.shrink();
        let open = self.relays.iter().rposition(|entry| entry.slot != NONE).map_or(0, |last| last + 1);
        self.relays.truncate(open);
        self.relays.shrink_to_fit();
        self.five_tuples.shrink(hash);
    }

    /// A relay is about to be closed while its allocation lives on.
    pub(super) fn forget_relay(&mut self, relay: RelayId) {
        if let Some(entry) = self.relays.get_mut(relay.index as usize)
            && entry.generation == relay.generation
        {
            entry.slot = NONE;
        }
    }
}
