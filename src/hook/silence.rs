//! That nobody answers: not of a few users, on whom the application may hang, but as far as one can see of everybody.

use std::time::{Duration, Instant};

/// So many events in a row without an answer.
const SILENT_MAX: u32 = 5;
/// And for so long, until that is told.
const SILENT_FOR: Duration = Duration::from_secs(3);
/// Between what is tried and what is tried next, and twice as long each time.
const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(4);

/// Whose an event without an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    /// Of a user whose last one had an answer.
    OfKnown,
    /// Of one who has not had any event of late.
    OfNew,
    /// The last one had none, either.
    Again,
}

/// Whose events may be told now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum May {
    Everybodys,
    /// Of users whose last one had an answer.
    OfKnown,
    Nobodys,
}

/// What was not answered since the last event that was.
#[derive(Debug, Default)]
pub(super) struct Silence {
    in_a_row: u32,
    since: Option<Instant>,
    /// How many users these were of: however often the same few fail, they hold up nobody else.
    users: u32,
    /// How many of these had been answered before: all others may be new ones that somebody makes up, and hold up only their like.
    known: u32,
    tries: Option<Tries>,
    pub(super) told_at: Option<Instant>,
    pub(super) is_told: bool,
}

/// As many as are told at once may try, and then there is a pause.
#[derive(Debug)]
struct Tries {
    left: usize,
    next: Instant,
    pause: Duration,
}

impl Silence {
    /// Notes that an event had no answer.
    pub(super) fn note(&mut self, whose: Whose, now: Instant) {
        self.in_a_row = self.in_a_row.saturating_add(1);
        self.since.get_or_insert(now);
        self.users = self.users.saturating_add(u32::from(whose != Whose::Again));
        self.known = self.known.saturating_add(u32::from(whose == Whose::OfKnown));
        if self.users >= SILENT_MAX && self.tries.is_none() {
            self.tries = Some(Tries { left: 0, next: now + PAUSE_MIN, pause: PAUSE_MIN * 2 });
        }
    }

    /// Notes that one had. Returns whether it was told that there are none.
    pub(super) fn end(&mut self) -> bool {
        let is_told = self.is_told;
        *self = Self { told_at: self.told_at, ..Self::default() };
        is_told
    }

    /// Whether nobody answers.
    pub(super) fn is_of_all(&self, now: Instant) -> bool {
        let is_long = self.since.is_some_and(|since| now.saturating_duration_since(since) >= SILENT_FOR);
        self.in_a_row >= SILENT_MAX && is_long
    }

    /// Whose event may be told now, where so many are told at once.
    pub(super) fn may_begin(&mut self, at_once: usize, now: Instant) -> May {
        let Some(tries) = &mut self.tries else { return May::Everybodys };
        if tries.left == 0 && now >= tries.next {
            tries.left = at_once;
        }
        match (tries.left, self.known) {
            (1.., _) => May::Everybodys,
            (0, ..SILENT_MAX) => May::OfKnown,
            (0, _) => May::Nobodys,
        }
    }

    /// Notes that one is being told.
    pub(super) fn begun(&mut self, now: Instant) {
        let Some(tries) = self.tries.as_mut().filter(|tries| tries.left > 0) else { return };
        tries.left -= 1;
        if tries.left == 0 {
            tries.next = now + tries.pause;
            tries.pause = (tries.pause * 2).min(PAUSE_MAX);
        }
    }

    /// When one may be told again, if none may be now.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        self.tries.as_ref().filter(|tries| tries.left == 0 && tries.next > now).map(|tries| tries.next)
    }
}
