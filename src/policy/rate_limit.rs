//! The budget for answers to unauthenticated requests, per /24 and /64, in a table of fixed size.

use std::net::IpAddr;

/// A token bucket's parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// Answers per second and prefix.
    pub per_second: u32,
    /// Answers that may be sent at once after silence.
    pub burst: u32,
}

/// Buckets in a fixed table with a keyed hash; one per worker.
#[derive(Debug)]
pub struct RateLimiter {}

impl RateLimiter {
    /// `None` as limit means unlimited. `seed` keys the hash.
    pub fn new(limit: Option<RateLimit>, seed: u64) -> Self {
        let _ = (limit, seed);
        todo!()
    }

    /// Takes one token of the prefix of `ip`; `false` when it has none.
    pub fn allow(&mut self, now_micros: u64, ip: IpAddr) -> bool {
        let _ = (now_micros, ip);
        todo!()
    }

    /// Replaces the limit at reload.
    pub fn set_limit(&mut self, limit: Option<RateLimit>) {
        let _ = limit;
        todo!()
    }
}
