//! What became of questions.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What came of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// A credential.
    Known,
    /// There is no such user.
    Unknown,
    /// No answer, or none that can be used.
    Failed,
    /// It was not asked, because too many failed before.
    NotAsked,
    /// It was not asked, because the client's network has asked for too much.
    TooOften,
    /// It was not asked, because nobody waited for its answer any more.
    TooLate,
    /// It was not asked, because too many waited for their turn.
    NoRoom,
}

impl Told {
    /// Every one, for metrics that start at zero.
    pub const ALL: [Self; 7] =
        [Self::Known, Self::Unknown, Self::Failed, Self::NotAsked, Self::TooOften, Self::TooLate, Self::NoRoom];

    /// The stable name used as a metric label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Known => "known",
            Self::Unknown => "unknown",
            Self::Failed => "failed",
            Self::NotAsked => "not-asked",
            Self::TooOften => "too-often",
            Self::TooLate => "too-late",
            Self::NoRoom => "no-room",
        }
    }
}

/// Counted by whoever asks, read by the endpoints.
#[derive(Debug, Default)]
pub struct HookStats {
    told: [AtomicU64; Told::ALL.len()],
    is_broken: AtomicBool,
}

impl HookStats {
    pub(super) fn count(&self, told: Told) {
        if let Some(count) = self.told.get(told as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How often.
    pub fn of(&self, told: Told) -> u64 {
        self.told.get(told as usize).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    pub(super) fn set_broken(&self, is_broken: bool) {
        self.is_broken.store(is_broken, Ordering::Relaxed);
    }

    /// Whether nobody is asked at the moment.
    pub fn is_broken(&self) -> bool {
        self.is_broken.load(Ordering::Relaxed)
    }
}
