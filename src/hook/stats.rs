//! What became of questions, and of events.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::health::Health;

/// How long an application counts as one that does not answer, after it has not for the last time.
pub(super) const BROKEN_KEPT: Duration = Duration::from_secs(120);

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
    broken: Broken,
    health: Health,
}

impl HookStats {
    /// How the application does that is asked.
    pub fn health(&self) -> &Health {
        &self.health
    }

    pub(crate) fn count(&self, told: Told) {
        if let Some(count) = self.told.get(told as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How often.
    pub fn of(&self, told: Told) -> u64 {
        self.told.get(told as usize).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    pub(super) fn broken(&self) -> &Broken {
        &self.broken
    }

    /// Whether nobody is asked at the moment, for clients of some network.
    pub fn is_broken(&self) -> bool {
        self.broken.is_at(Instant::now())
    }
}

/// What came of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToldOf {
    /// The application has taken note of it.
    Taken,
    /// It has, and did not want the allocation.
    Refused,
    /// It has not, for a reason that will not go away.
    Rejected,
    /// It has not, and will be told again.
    Retried,
    /// It was not told within a minute, or before the server stopped.
    TooOld,
    /// Too many waited, in all or of this user.
    NoRoom,
    /// Too many were on their way from the workers.
    LostInQueue,
}

impl ToldOf {
    /// Every one, for metrics that start at zero.
    pub const ALL: [Self; 7] =
        [Self::Taken, Self::Refused, Self::Rejected, Self::Retried, Self::TooOld, Self::NoRoom, Self::LostInQueue];

    /// The stable name used as a metric label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Taken => "taken",
            Self::Refused => "refused",
            Self::Rejected => "rejected",
            Self::Retried => "retried",
            Self::TooOld => "too-old",
            Self::NoRoom => "no-room",
            Self::LostInQueue => "queue-full",
        }
    }
}

/// Counted by whoever tells, read by the endpoints.
#[derive(Debug, Default)]
pub struct EventStats {
    told: [AtomicU64; ToldOf::ALL.len()],
    waiting: AtomicU64,
    broken: Broken,
    health: Health,
}

impl EventStats {
    /// How the application does that is told.
    pub fn health(&self) -> &Health {
        &self.health
    }

    pub(super) fn count(&self, told: ToldOf) {
        self.count_many(told, 1);
    }

    pub(super) fn count_many(&self, told: ToldOf, events: u64) {
        if let Some(count) = self.told.get(told as usize) {
            count.fetch_add(events, Ordering::Relaxed);
        }
    }

    /// How often.
    pub fn of(&self, told: ToldOf) -> u64 {
        self.told.get(told as usize).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    pub(super) fn set_waiting(&self, events: usize) {
        self.waiting.store(events as u64, Ordering::Relaxed);
    }

    /// How many wait to be told.
    pub fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::Relaxed)
    }

    pub(super) fn broken(&self) -> &Broken {
        &self.broken
    }

    /// Whether nobody answers at the moment.
    pub fn is_broken(&self) -> bool {
        self.broken.is_at(Instant::now())
    }
}

/// That an application does not answer, as it was found last. Nobody may ask any more, so that it is not found out that it does again.
#[derive(Debug, Default)]
pub(super) struct Broken(Mutex<Option<Instant>>);

impl Broken {
    /// It does not until then, if nothing else is found.
    pub(super) fn set(&self, until: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }

    pub(super) fn is_at(&self, now: Instant) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|until| now < until)
    }
}
