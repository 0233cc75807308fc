//! What became of questions to the nodes, and how it is with them.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::exchange::NodeError;

/// What came of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// What the node says of itself.
    Answered,
    /// Nothing within the time limit.
    TimedOut,
    /// There is nobody, or no way there.
    Unreachable,
    /// Its certificate is not trusted, or nobody's could be.
    Untrusted,
    /// It has another token.
    Token,
    /// What it says cannot be used.
    Unusable,
}

impl Asked {
    /// Every one, for metrics that start at zero.
    pub const ALL: [Self; 6] =
        [Self::Answered, Self::TimedOut, Self::Unreachable, Self::Untrusted, Self::Token, Self::Unusable];

    /// The stable name used as a metric label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::TimedOut => "timed-out",
            Self::Unreachable => "unreachable",
            Self::Untrusted => "untrusted",
            Self::Token => "token",
            Self::Unusable => "unusable",
        }
    }

    pub(crate) fn of<T>(answer: &Result<T, NodeError>) -> Self {
        match answer {
            Ok(_) => Self::Answered,
            Err(NodeError::TimedOut(_)) => Self::TimedOut,
            Err(NodeError::Name(_) | NodeError::Connect(_) | NodeError::Socket(_)) => Self::Unreachable,
            Err(NodeError::Untrusted(_) | NodeError::NoTrust(_) | NodeError::InTheClear) => Self::Untrusted,
            Err(NodeError::Token) => Self::Token,
            Err(
                NodeError::Http(_)
                | NodeError::BrokenOff
                | NodeError::TooLong(_)
                | NodeError::Elsewhere(_)
                | NodeError::Status(_)
                | NodeError::Report(_)
                | NodeError::NotJson,
            ) => Self::Unusable,
        }
    }
}

/// How the other nodes are, at this moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Nodes {
    /// They have answered when they were asked last.
    pub answering: u64,
    /// They have not.
    pub silent: u64,
    /// They have not been asked yet.
    pub unasked: u64,
    /// Names of nodes, and hosts that they name, that lead to none.
    pub unnamed: u64,
    /// They take clients of this one. Only where clients are sent away by load.
    pub with_room: u64,
    /// Of a hundred parts of what this node takes itself before it sends clients away, if it does.
    pub load_percent: Option<u64>,
}

/// Counted by whoever asks, read by the endpoints.
#[derive(Debug, Default)]
pub struct FleetStats {
    is_on: AtomicBool,
    asked: [AtomicU64; Asked::ALL.len()],
    answering: AtomicU64,
    silent: AtomicU64,
    unasked: AtomicU64,
    unnamed: AtomicU64,
    with_room: AtomicU64,
    /// One more than it is; zero is none.
    load: AtomicU64,
}

impl FleetStats {
    pub(crate) fn count(&self, asked: Asked) {
        if let Some(count) = self.asked.get(asked as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How often.
    pub fn of(&self, asked: Asked) -> u64 {
        self.asked.get(asked as usize).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// From now on there is a fleet.
    pub(crate) fn set_nodes(&self, nodes: Nodes) {
        self.is_on.store(true, Ordering::Relaxed);
        for (place, value) in [
            (&self.answering, nodes.answering),
            (&self.silent, nodes.silent),
            (&self.unasked, nodes.unasked),
            (&self.unnamed, nodes.unnamed),
            (&self.with_room, nodes.with_room),
            (&self.load, nodes.load_percent.map_or(0, |load| load.saturating_add(1))),
        ] {
            place.store(value, Ordering::Relaxed);
        }
    }

    /// The other nodes; `None` where there is no fleet.
    pub fn nodes(&self) -> Option<Nodes> {
        let read = |place: &AtomicU64| place.load(Ordering::Relaxed);
        self.is_on.load(Ordering::Relaxed).then(|| Nodes {
            answering: read(&self.answering),
            silent: read(&self.silent),
            unasked: read(&self.unasked),
            unnamed: read(&self.unnamed),
            with_room: read(&self.with_room),
            load_percent: read(&self.load).checked_sub(1),
        })
    }
}
