//! A hashed timer wheel.
//!
//! A timer is a hint that something about a slot may be due: the owner re-checks and re-arms. Moving a deadline later
//! therefore costs nothing, and nothing ticks when nothing is due.

use std::num::NonZeroU32;

/// Microseconds per tick: 2^18, about a quarter of a second. Timers fire at most so much late, never early.
const TICK_BITS: u32 = 18;
/// Slots of the wheel: a turn takes about nine minutes; later deadlines are looked at once per turn.
const SLOTS: usize = 2048;
/// Slots keep room for so many entries when they have been emptied.
const KEPT_CAPACITY: usize = 32;

/// One timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Timer {
    /// The tick it fires at, which its owner compares with the one it is armed for.
    pub(super) tick: u64,
    /// The owner's slot.
    pub(super) slot: u32,
}

/// Where an owner's timer is, until it fires or is cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Armed {
    /// The tick it fires at.
    pub(super) tick: u64,
    /// Its place in the slot, counted from 1, so that no timer needs no room of its own.
    place: NonZeroU32,
}

/// The wheel.
pub(super) struct Wheel {
    slots: Box<[Vec<Timer>]>,
    occupied: [u64; SLOTS / 64],
    /// Every tick before this one has been taken.
    cursor: u64,
    len: usize,
}

impl Wheel {
    pub(super) fn new() -> Self {
        Self { slots: (0..SLOTS).map(|_| Vec::new()).collect(), occupied: [0; SLOTS / 64], cursor: 0, len: 0 }
    }

    /// The tick to fire at for a deadline: when it has certainly passed, or sooner if it is over a turn away.
    pub(super) fn tick_for(&mut self, now_micros: u64, deadline_micros: u64) -> u64 {
        if self.len == 0 {
            self.cursor = self.cursor.max(now_micros >> TICK_BITS);
        }
        let due = deadline_micros.saturating_add((1 << TICK_BITS) - 1) >> TICK_BITS;
        due.clamp(self.cursor, self.cursor.saturating_add(SLOTS as u64 - 1))
    }

    /// Adds a timer for a tick that [`Self::tick_for`] gave just now.
    pub(super) fn add(&mut self, timer: Timer) -> Armed {
        let index = (timer.tick % SLOTS as u64) as usize;
        let mut place = NonZeroU32::MIN;
        if let (Some(slot), Some(word)) = (self.slots.get_mut(index), self.occupied.get_mut(index / 64)) {
            place = place.saturating_add(slot.len() as u32);
            slot.push(timer);
            *word |= 1 << (index % 64);
            self.len += 1;
        }
        Armed { tick: timer.tick, place }
    }

    /// Takes the timer of an owner out. Another one may take its place: the owner of that one, and where it is now, are
    /// returned, for the owner to know.
    ///
    /// What is gone must leave nothing behind: a client that makes and ends allocations as fast as it can would fill the
    /// wheel with timers of nobody, each for as long as its allocation was meant to live.
    #[must_use]
    pub(super) fn cancel(&mut self, owner: u32, armed: Armed) -> Option<(u32, Armed)> {
        let index = (armed.tick % SLOTS as u64) as usize;
        let (slot, word) = (self.slots.get_mut(index)?, self.occupied.get_mut(index / 64)?);
        let at = armed.place.get() as usize - 1;
        // One that is being fired is in the wheel no more.
        if slot.get(at) != Some(&Timer { tick: armed.tick, slot: owner }) {
            return None;
        }
        slot.swap_remove(at);
        self.len -= 1;
        let moved = slot.get(at).map(|moved| (moved.slot, Armed { tick: moved.tick, place: armed.place }));
        if slot.is_empty() {
            *word &= !(1 << (index % 64));
        }
        if slot.capacity() > KEPT_CAPACITY && slot.len() < slot.capacity() / 4 {
            slot.shrink_to(KEPT_CAPACITY.max(slot.len() * 2));
        }
        moved
    }

    /// How many timers there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Moves every timer that is due to `due`.
    pub(super) fn take_due(&mut self, now_micros: u64, due: &mut Vec<Timer>) {
        let end = now_micros >> TICK_BITS;
        while self.len > 0 {
            let Some(tick) = self.next_tick().filter(|tick| *tick <= end) else { break };
            let index = (tick % SLOTS as u64) as usize;
            if let (Some(slot), Some(word)) = (self.slots.get_mut(index), self.occupied.get_mut(index / 64)) {
                self.len -= slot.len();
                due.append(slot);
                *word &= !(1 << (index % 64));
                slot.shrink_to(KEPT_CAPACITY);
            }
            self.cursor = tick + 1;
        }
        self.cursor = self.cursor.max(end + 1);
    }

    /// When the next timer fires, in microseconds.
    pub(super) fn next_micros(&self) -> Option<u64> {
        (self.len > 0).then(|| self.next_tick()).flatten().map(|tick| tick << TICK_BITS)
    }

    /// Gives memory back after a peak.
    pub(super) fn shrink(&mut self) {
        self.slots.iter_mut().for_each(Vec::shrink_to_fit);
    }

    /// The first occupied tick from the cursor on; every timer lies within one turn of it.
    fn next_tick(&self) -> Option<u64> {
        let start = (self.cursor % SLOTS as u64) as usize;
        let words = self.occupied.len();
        for step in 0..=words {
            let at = (start / 64 + step) % words;
            let mut word = *self.occupied.get(at)?;
            if step == 0 {
                word &= u64::MAX << (start % 64);
            } else if step == words {
                word &= !(u64::MAX << (start % 64));
            }
            if word != 0 {
                let index = at * 64 + word.trailing_zeros() as usize;
                return Some(self.cursor + ((index + SLOTS - start) % SLOTS) as u64);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SECOND;

    fn arm(wheel: &mut Wheel, now: u64, deadline: u64, slot: u32) -> u64 {
        let tick = wheel.tick_for(now, deadline);
        wheel.add(Timer { tick, slot });
        tick
    }

    /// What the owners of timers know of them.
    #[derive(Default)]
    struct Owners(std::collections::HashMap<u32, Armed>);

    impl Owners {
        fn arm(&mut self, wheel: &mut Wheel, now: u64, deadline: u64, owner: u32) {
            let tick = wheel.tick_for(now, deadline);
            self.0.insert(owner, wheel.add(Timer { tick, slot: owner }));
        }

        fn cancel(&mut self, wheel: &mut Wheel, owner: u32) {
            let armed = self.0.remove(&owner).unwrap();
            if let Some((moved, armed)) = wheel.cancel(owner, armed) {
                self.0.insert(moved, armed);
            }
        }
    }

    #[test]
    fn a_cancelled_timer_is_gone_and_the_others_fire_and_can_be_cancelled_still() {
        let (mut wheel, mut owners, mut due) = (Wheel::new(), Owners::default(), Vec::new());
        // Many owners to a tick, so that cancelling one moves others about.
        (0..4000).for_each(|owner| owners.arm(&mut wheel, 0, u64::from(owner % 5) * SECOND + 1, owner));
        (0..4000).filter(|owner| owner % 3 != 0).for_each(|owner| owners.cancel(&mut wheel, owner));
        assert_eq!(wheel.len(), owners.0.len());
        wheel.take_due(10 * SECOND, &mut due);
        let mut fired: Vec<u32> = due.iter().map(|timer| timer.slot).collect();
        fired.sort_unstable();
        assert_eq!(fired, (0..4000).step_by(3).collect::<Vec<_>>());
        assert_eq!((wheel.len(), wheel.next_micros()), (0, None));
    }

    #[test]
    fn a_timer_that_has_fired_cannot_be_cancelled_and_no_other_is_in_its_place() {
        let (mut wheel, mut owners, mut due) = (Wheel::new(), Owners::default(), Vec::new());
        owners.arm(&mut wheel, 0, SECOND, 1);
        let fired = owners.0[&1];
        wheel.take_due(2 * SECOND, &mut due);
        // The same place of the wheel, one turn later.
        owners.arm(&mut wheel, 2 * SECOND, ((fired.tick + SLOTS as u64) << TICK_BITS) - 1, 1);
        assert_eq!(wheel.cancel(1, fired), None);
        assert_eq!(wheel.len(), 1);
    }

    #[test]
    fn a_slot_that_many_timers_were_cancelled_in_gives_its_memory_back() {
        let (mut wheel, mut owners) = (Wheel::new(), Owners::default());
        (0..10_000).for_each(|owner| owners.arm(&mut wheel, 0, SECOND, owner));
        (0..10_000).for_each(|owner| owners.cancel(&mut wheel, owner));
        let kept: usize = wheel.slots.iter().map(Vec::capacity).sum();
        assert!(kept <= 2 * KEPT_CAPACITY, "{kept}");
        assert_eq!((wheel.len(), wheel.next_micros()), (0, None));
    }

    #[test]
    fn after_a_peak_the_memory_of_its_timers_is_given_back() {
        let (mut wheel, mut due) = (Wheel::new(), Vec::new());
        for tick in 1..400 {
            (0..100).for_each(|owner| _ = arm(&mut wheel, 0, tick * SECOND, owner));
        }
        arm(&mut wheel, 0, 450 * SECOND, 7);
        wheel.take_due(400 * SECOND, &mut due);
        let kept = |wheel: &Wheel| wheel.slots.iter().map(Vec::capacity).sum::<usize>();
        assert!(kept(&wheel) > 1000, "what it keeps for the next ones");
        wheel.shrink();
        assert_eq!((kept(&wheel), wheel.len()), (1, 1));
    }

    #[test]
    fn a_timer_fires_at_its_deadline_and_less_than_a_tick_late() {
        for deadline in [1, 500_000, 40 * SECOND, 300 * SECOND, 500 * SECOND] {
            let mut wheel = Wheel::new();
            let now = 12_345 * SECOND + 678;
            arm(&mut wheel, now, now + deadline, 7);
            let at = wheel.next_micros().unwrap();
            assert!(at >= now + deadline && at < now + deadline + (1 << TICK_BITS), "{deadline}: {}", at - now);
            let mut due = Vec::new();
            wheel.take_due(at - 1, &mut due);
            assert!(due.is_empty(), "nothing fires early");
            wheel.take_due(at, &mut due);
            assert_eq!(due.len(), 1);
            assert_eq!(wheel.next_micros(), None);
        }
    }

    #[test]
    fn a_deadline_beyond_one_turn_is_looked_at_within_the_turn() {
        let mut wheel = Wheel::new();
        arm(&mut wheel, 0, 3600 * SECOND, 1);
        assert!(wheel.next_micros().unwrap() < 540 * SECOND);
    }

    #[test]
    fn timers_fire_in_order_and_none_is_lost_over_random_jumps() {
        let mut wheel = Wheel::new();
        let mut now = 0;
        let mut seed = 1u64;
        let mut random = |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) % below
        };
        let (mut added, mut fired) = (0, 0);
        let mut due = Vec::new();
        for _ in 0..20_000 {
            arm(&mut wheel, now, now + random(500 * SECOND), 0);
            added += 1;
            now += random(SECOND);
            due.clear();
            wheel.take_due(now, &mut due);
            assert!(due.iter().all(|timer| timer.tick << TICK_BITS <= now));
            assert!(due.is_sorted_by_key(|timer| timer.tick));
            fired += due.len();
            assert!(wheel.next_micros().is_none_or(|at| at > now));
        }
        due.clear();
        wheel.take_due(now + 1000 * SECOND, &mut due);
        fired += due.len();
        assert_eq!((wheel.len, fired), (0, added));
    }

    #[test]
    fn a_long_silence_fires_everything_once() {
        let mut wheel = Wheel::new();
        for slot in 0..100 {
            arm(&mut wheel, 0, u64::from(slot) * SECOND, slot);
        }
        let mut due = Vec::new();
        wheel.take_due(1_000_000 * SECOND, &mut due);
        assert_eq!(due.len(), 100);
        arm(&mut wheel, 1_000_000 * SECOND, 1_000_001 * SECOND, 1);
        let at = wheel.next_micros().unwrap();
        assert!((1_000_001 * SECOND..1_000_002 * SECOND).contains(&at));
    }
}
