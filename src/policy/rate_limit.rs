//! The budget for answers to unauthenticated requests, per /24 and /64, in a table of fixed size.

use std::hash::Hasher;
use std::net::IpAddr;

use siphasher::sip::SipHasher13;

/// A token bucket's parameters. If either is zero, nothing is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// Answers per second and prefix.
    pub per_second: u32,
    /// Answers that may be sent at once after silence.
    pub burst: u32,
}

const SETS: usize = 4096;
const BUCKETS_PER_SET: usize = 4;

/// Buckets in a fixed table with a keyed hash; one per worker.
///
/// The table has 4096 sets of 4 buckets of 16 bytes: 256 KiB, allocated once and never grown; without a limit there is no
/// table. A prefix can be only in the set its hash selects, and is told from the others there by all 64 bits of the hash,
/// so that two prefixes share one budget with a chance of one in 2^64 per pair.
///
/// When a set is full, a newcomer takes the place of the bucket with the most tokens, which is the one that has least to
/// lose, and takes over its debt, except that it always gets one answer:
///
/// - Nobody is starved by an attacker who fills the table, because a prefix that is not in it is always answered.
/// - A prefix that is hammered has the emptiest bucket of its set and stays. To have it forgotten, an attacker must make
///   four newcomers hit its set, and gains one answer by that. Not knowing the key, the attacker pays some 4 × 4096
///   requests from as many other prefixes for it.
///
/// A forged source uses up the budget of the prefix it names, whose clients are then answered late; over TCP and TLS, where
/// a source cannot be forged, no budget applies.
#[derive(Debug)]
pub struct RateLimiter {
    pace: Option<Pace>,
    sets: Box<[Set]>,
    key: (u64, u64),
}

/// The limit in nanoseconds: a prefix may be answered when that does not put it further than `window` ahead of the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pace {
    per_answer_nanos: u64,
    window_nanos: u64,
}

/// One cache line.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(64))]
struct Set([Bucket; BUCKETS_PER_SET]);

/// A token bucket kept as one point in time (generic cell rate algorithm): the later, the emptier. An unused entry is a
/// full bucket that nobody owns.
#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    hash: u64,
    paid_until_nanos: u64,
}

impl RateLimiter {
    /// `None` as limit means unlimited. `seed` keys the hash.
    pub fn new(limit: Option<RateLimit>, seed: u64) -> Self {
        let key = (seed, seed.rotate_left(32) ^ 0x9e37_79b9_7f4a_7c15);
        let mut limiter = Self { pace: None, sets: Box::default(), key };
        limiter.set_limit(limit);
        limiter
    }

    /// Takes one token of the prefix of `ip`; `false` when it has none.
    pub fn allow(&mut self, now_micros: u64, ip: IpAddr) -> bool {
        let Some(pace) = self.pace else { return true };
        let hash = self.hash(prefix(ip));
        let Some(Set(buckets)) = self.sets.get_mut(hash as usize % SETS) else { return false };
        let now_nanos = now_micros.saturating_mul(1000);
        if let Some(bucket) = buckets.iter_mut().find(|bucket| bucket.hash == hash) {
            return bucket.take(pace, now_nanos);
        }
        let Some(bucket) = buckets.iter_mut().min_by_key(|bucket| bucket.paid_until_nanos) else { return false };
        let one_answer_left = now_nanos.saturating_add(pace.window_nanos.saturating_sub(pace.per_answer_nanos));
        let newcomer = Bucket { hash, paid_until_nanos: bucket.paid_until_nanos.min(one_answer_left) };
        *bucket = newcomer;
        bucket.take(pace, now_nanos)
    }

    /// Replaces the limit at reload. When it differs, every prefix starts with a full bucket.
    pub fn set_limit(&mut self, limit: Option<RateLimit>) {
        let pace = limit.map(Pace::new);
        if pace == self.pace {
            return;
        }
        self.pace = pace;
        self.sets = match pace {
            Some(_) => vec![Set::default(); SETS].into_boxed_slice(),
            None => Box::default(),
        };
    }

    fn hash(&self, prefix: u64) -> u64 {
        let mut hasher = SipHasher13::new_with_keys(self.key.0, self.key.1);
        hasher.write_u64(prefix);
        hasher.finish()
    }
}

impl Pace {
    fn new(limit: RateLimit) -> Self {
        match 1_000_000_000_u64.checked_div(u64::from(limit.per_second)) {
            Some(per_answer_nanos) => {
                Self { per_answer_nanos, window_nanos: per_answer_nanos * u64::from(limit.burst) }
            }
            None => Self { per_answer_nanos: 1, window_nanos: 0 },
        }
    }
}

impl Bucket {
    fn take(&mut self, pace: Pace, now_nanos: u64) -> bool {
        let paid_until_nanos = self.paid_until_nanos.max(now_nanos).saturating_add(pace.per_answer_nanos);
        let has_token = paid_until_nanos <= now_nanos.saturating_add(pace.window_nanos);
        if has_token {
            self.paid_until_nanos = paid_until_nanos;
        }
        has_token
    }
}

/// The prefix as a number: the first half of an IPv6 address, or a /24 behind the first bits of multicast, where no client
/// can be. An IPv4-mapped address is the client's IPv4 address.
fn prefix(ip: IpAddr) -> u64 {
    match ip.to_canonical() {
        IpAddr::V4(v4) => 0xff << 56 | u64::from(v4.to_bits() >> 8),
        IpAddr::V6(v6) => (v6.to_bits() >> 64) as u64,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;
    use crate::clock::SECOND;

    const LIMIT: RateLimit = RateLimit { per_second: 10, burst: 20 };

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn answers(limiter: &mut RateLimiter, now_micros: u64, ip: IpAddr, requests: u32) -> u32 {
        (0..requests).map(|_| u32::from(limiter.allow(now_micros, ip))).sum()
    }

    #[test]
    fn a_prefix_gets_its_burst_and_then_its_rate() {
        let mut limiter = RateLimiter::new(Some(LIMIT), 1);
        assert_eq!(answers(&mut limiter, 0, ip("192.0.2.1"), 100), 20);
        assert_eq!(answers(&mut limiter, SECOND, ip("192.0.2.1"), 100), 10);
        assert_eq!(answers(&mut limiter, 100 * SECOND, ip("192.0.2.1"), 100), 20);
    }

    #[test]
    fn hosts_of_one_prefix_share_the_budget_and_neighbours_have_their_own() {
        let mut limiter = RateLimiter::new(Some(LIMIT), 2);
        assert_eq!(answers(&mut limiter, 0, ip("192.0.2.1"), 20), 20);
        for same in ["192.0.2.0", "192.0.2.255", "::ffff:192.0.2.7"] {
            assert!(!limiter.allow(0, ip(same)), "{same}");
        }
        for other in ["192.0.1.255", "192.0.3.0", "::c000:0201"] {
            assert!(limiter.allow(0, ip(other)), "{other}");
        }
        assert_eq!(answers(&mut limiter, 0, ip("2001:db8:0:1::"), 30), 20);
        assert!(!limiter.allow(0, ip("2001:db8:0:1:ffff:ffff:ffff:ffff")));
        assert!(limiter.allow(0, ip("2001:db8::ffff:ffff:ffff:ffff")));
        assert!(limiter.allow(0, ip("2001:db8:0:2::")));
    }

    #[test]
    fn no_limit_answers_everything_without_a_table() {
        let mut limiter = RateLimiter::new(None, 3);
        assert_eq!(answers(&mut limiter, 0, ip("192.0.2.1"), 1000), 1000);
        assert!(limiter.sets.is_empty());
    }

    #[test]
    fn a_limit_of_zero_answers_nothing() {
        for limit in [RateLimit { per_second: 0, burst: 5 }, RateLimit { per_second: 5, burst: 0 }] {
            let mut limiter = RateLimiter::new(Some(limit), 4);
            assert_eq!(answers(&mut limiter, 0, ip("192.0.2.1"), 10), 0);
            assert_eq!(answers(&mut limiter, 60 * SECOND, ip("192.0.2.1"), 10), 0);
        }
    }

    #[test]
    fn a_new_limit_holds_at_once_and_an_equal_one_forgives_nothing() {
        let mut limiter = RateLimiter::new(Some(LIMIT), 5);
        assert_eq!(answers(&mut limiter, 0, ip("192.0.2.1"), 100), 20);
        limiter.set_limit(Some(LIMIT));
        assert_eq!(answers(&mut limiter, 0, ip("192.0.2.1"), 100), 0);
        limiter.set_limit(Some(RateLimit { per_second: 1, burst: 3 }));
        assert_eq!(answers(&mut limiter, 0, ip("192.0.2.1"), 100), 3);
        limiter.set_limit(None);
        assert_eq!(answers(&mut limiter, 0, ip("192.0.2.1"), 100), 100);
    }

    #[test]
    fn a_million_sources_free_nobody_starve_nobody_and_cost_no_memory() {
        let mut limiter = RateLimiter::new(Some(LIMIT), 6);
        let (table, sets) = (limiter.sets.as_ptr(), limiter.sets.len());
        assert_eq!(sets * size_of::<Set>(), 256 * 1024);
        let victim = ip("198.51.100.1");
        let sources = 1_000_000_u32;
        let (mut victims_answers, mut sources_refused) = (0, 0);
        for source in 0..sources {
            let network = u128::from(source) << 64 | 0x2a00 << 112;
            // A million requests in one second, and as many that claim to come from the victim.
            let now_micros = u64::from(source);
            sources_refused += u32::from(!limiter.allow(now_micros, IpAddr::V6(Ipv6Addr::from_bits(network))));
            victims_answers += u32::from(limiter.allow(now_micros, victim));
        }
        assert_eq!(sources_refused, 0, "each source asked only once");
        let budget = LIMIT.burst + LIMIT.per_second;
        let freed = sources / (SETS * BUCKETS_PER_SET) as u32;
        assert!(victims_answers >= budget - 1, "{victims_answers}");
        assert!(victims_answers <= budget + 2 * freed, "{victims_answers}");
        assert!(limiter.allow(SECOND, IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9))), "a newcomer is answered");
        assert_eq!((limiter.sets.as_ptr(), limiter.sets.len()), (table, sets));
    }
}
