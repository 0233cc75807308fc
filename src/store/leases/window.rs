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
/// An answer within this is quick; Allocates wait for 200 ms.
const QUICK_MICROS: u64 = 40_000;
const SLOW_MICROS: u64 = 100_000;

/// How many may be under way, in parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window(u32);

impl Default for Window {
    fn default() -> Self {
        Self(FEW * PARTS)
    }
}

impl Window {
    /// How many more may be sent.
    pub(super) fn room(self, under_way: usize) -> usize {
        ((self.0 / PARTS) as usize).saturating_sub(under_way)
    }

    /// A call was answered after so long.
    pub(super) fn answered(&mut self, waited_micros: u64) {
        if waited_micros <= QUICK_MICROS {
            self.0 = (self.0 + 1).min(MANY * PARTS);
        } else if waited_micros > SLOW_MICROS {
            self.0 = (self.0 - self.0 / PARTS).max(FEW * PARTS);
        }
    }

    /// A call was not.
    pub(super) fn failed(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_while_answers_are_quick_and_shrinks_before_they_are_late() {
        let mut window = Window::default();
        assert_eq!((window.room(0), window.room(1), window.room(9)), (2, 1, 0));
        (0..10_000).for_each(|_| window.answered(QUICK_MICROS));
        assert_eq!(window.room(0), MANY as usize);
        (0..10).for_each(|_| window.answered(SLOW_MICROS));
        assert_eq!(window.room(0), MANY as usize, "neither quick nor slow");
        (0..20).for_each(|_| window.answered(SLOW_MICROS + 1));
        assert!((20..60).contains(&window.room(0)), "{window:?}");
        (0..10_000).for_each(|_| window.answered(SLOW_MICROS + 1));
        assert_eq!(window.room(0), FEW as usize);
        (0..1_000).for_each(|_| window.answered(0));
        window.failed();
        assert_eq!(window.room(0), FEW as usize);
    }
}
