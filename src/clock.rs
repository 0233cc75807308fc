//! Injected time: the protocol core never reads a clock.

/// One reading of both clocks, taken once per batch of packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Now {
    /// Monotonic microseconds since an arbitrary origin. Every lifetime is counted on this clock.
    pub micros: u64,
    /// Seconds since the Unix epoch, for what is stated in calendar time: credential expiry and nonces.
    pub unix_secs: u64,
}

/// Microseconds in a second.
pub const SECOND: u64 = 1_000_000;

impl Now {
    /// The monotonic moment `secs` seconds from now.
    pub fn after_secs(self, secs: u32) -> u64 {
        self.micros.saturating_add(u64::from(secs) * SECOND)
    }
}
