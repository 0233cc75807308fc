//! What a long measurement says while it runs.

use std::fmt;
use std::time::Duration;

/// Where a measurement is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Progress {
    /// Clients are being set up.
    SetUp {
        /// How many have what they need.
        done: usize,
        /// How many there will be.
        of: usize,
    },
    /// Under load, not yet measured.
    WarmUp {
        /// For how long.
        elapsed: Duration,
        /// How long it takes.
        of: Duration,
    },
    /// Measured.
    Measured {
        /// For how long.
        elapsed: Duration,
        /// How long it takes.
        of: Duration,
        /// Units that arrive per second now.
        per_second: f64,
    },
    /// Waiting for what is still in flight.
    Drain,
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SetUp { done, of } => write!(f, "setting up clients: {done} of {of}"),
            Self::WarmUp { elapsed, of } => {
                write!(f, "warming up: {:.1} of {:.1} s", elapsed.as_secs_f64(), of.as_secs_f64())
            }
            Self::Measured { elapsed, of, per_second } => {
                let (elapsed, of) = (elapsed.as_secs_f64(), of.as_secs_f64());
                write!(f, "measuring: {elapsed:.1} of {of:.1} s, {per_second:.0}/s")
            }
            Self::Drain => f.write_str("waiting for what is in flight"),
        }
    }
}
