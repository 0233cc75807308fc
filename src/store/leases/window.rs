//! How many calls of a server are under way at once.
//!
//! A store has as many callers as there are servers. When it comes back, each of them has all its shares to say anew; if all of them sent as
//! much as they can at once, the last call would be answered after its time, sent again, and so for ever: the store would only do what nobody
//! waits for any more. So a server begins with few, sends more while answers are quick, and fewer when they are slow, before they are late.

/// At the start, after a loss, and at least.
const FEW: u32 = 2;
/// At most; they go out together.
const MANY: u32 = 128;
const PARTS: u32 = 16;
/// An answer is quick that takes so much longer than the way there and back, as the quickest one of late shows it. Allocates wait for
/// 200 ms ([`super::node::WAIT_MICROS`]).
const QUICK_MICROS: u64 = 20_000;
/// One that takes as long as this is quick in any case, and one that takes longer than that is not: so a store that is slow for long, and
/// not far, has a bound.
const QUICK_BOUNDS_MICROS: (u64, u64) = (40_000, 120_000);
/// It is slow if it takes so much longer than a quick one.
const SLOW_MICROS: u64 = 60_000;
/// The quickest one is of the last two periods.
const PERIOD_MICROS: u64 = 30_000_000;

/// How many may be under way, in parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    parts: u32,
    /// The quickest answer of this period, and of the one before.
    quickest_micros: [u64; 2],
    period_since_micros: u64,
}

impl Default for Window {
    fn default() -> Self {
        Self { parts: FEW * PARTS, quickest_micros: [u64::MAX; 2], period_since_micros: 0 }
    }
}

impl Window {
    /// How many more may be sent.
    pub(super) fn room(self, under_way: usize) -> usize {
        ((self.parts / PARTS) as usize).saturating_sub(under_way)
    }

    /// A call was answered after so long.
    pub(super) fn answered(&mut self, now_micros: u64, waited_micros: u64) {
        let quickest = self.quickest(now_micros, waited_micros);
        let (least, most) = QUICK_BOUNDS_MICROS;
        let quick_micros = (quickest + QUICK_MICROS).clamp(least, most);
        if waited_micros <= quick_micros {
            self.parts = (self.parts + 1).min(MANY * PARTS);
        } else if waited_micros > quick_micros + SLOW_MICROS {
            self.parts = (self.parts - self.parts / PARTS).max(FEW * PARTS);
        }
    }

    /// A call was not.
    pub(super) fn failed(&mut self) {
        self.parts = FEW * PARTS;
    }

    fn quickest(&mut self, now_micros: u64, waited_micros: u64) -> u64 {
        if now_micros.saturating_sub(self.period_since_micros) >= PERIOD_MICROS {
            self.quickest_micros = [u64::MAX, self.quickest_micros[0]];
            self.period_since_micros = now_micros;
        }
        let [now, before] = &mut self.quickest_micros;
        *now = waited_micros.min(*now);
        *before.min(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    #[test]
    fn it_grows_while_answers_are_quick_and_shrinks_before_they_are_late() {
        let mut window = Window::default();
        assert_eq!((window.room(0), window.room(1), window.room(9)), (2, 1, 0));
        window.answered(SECOND, 500);
        (0..10_000).for_each(|_| window.answered(SECOND, 40_000));
        assert_eq!(window.room(0), MANY as usize);
        (0..10).for_each(|_| window.answered(SECOND, 100_000));
        assert_eq!(window.room(0), MANY as usize, "neither quick nor slow");
        (0..20).for_each(|_| window.answered(SECOND, 100_001));
        assert!((20..60).contains(&window.room(0)), "{window:?}");
        (0..10_000).for_each(|_| window.answered(SECOND, 100_001));
        assert_eq!(window.room(0), FEW as usize);
        (0..1_000).for_each(|_| window.answered(SECOND, 0));
        window.failed();
        assert_eq!(window.room(0), FEW as usize);
    }

    #[test]
    fn a_store_that_is_far_away_is_no_slow_one() {
        let mut window = Window::default();
        (0..3_000).for_each(|_| window.answered(SECOND, 95_000));
        assert_eq!(window.room(0), MANY as usize);
        // What was near is slow when it takes as long, until it has done so for a minute.
        let mut window = Window::default();
        window.answered(SECOND, 500);
        (0..3_000).for_each(|_| window.answered(20 * SECOND, 101_000));
        (0..3_000).for_each(|_| window.answered(40 * SECOND, 101_000));
        assert_eq!(window.room(0), FEW as usize);
        (0..3_000).for_each(|_| window.answered(80 * SECOND, 101_000));
        assert_eq!(window.room(0), MANY as usize);
        // However long it goes on: Allocates do not wait any longer.
        (0..3_000).for_each(|second| window.answered((100 + second) * SECOND, 181_000));
        assert_eq!(window.room(0), FEW as usize);
    }
}
