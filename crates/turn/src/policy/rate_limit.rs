//! The budgets for answers to unauthenticated requests: per /24 and /64, per wider prefix, and one for all, in tables of fixed size that
//! the workers share.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// The budget of one /24 or /64. If either is zero, nothing is answered. Wider prefixes have multiples of it: [`RateLimit::WIDE`],
/// [`RateLimit::FAR`], [`RateLimit::ALL`]. By default 100 answers a second, and 500 at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// Answers per second and prefix.
    pub per_second: u32,
    /// Answers that may be sent at once after silence.
    pub burst: u32,
}

impl Default for RateLimit {
    fn default() -> Self {
        Self { per_second: 100, burst: 500 }
    }
}

impl RateLimit {
    /// What an IPv4 /16 or an IPv6 /48 may have, in budgets of one /24 or /64.
    pub const WIDE: u32 = 10;
    /// The same of an IPv6 /32.
    pub const FAR: u32 = 100;
    /// The same of the whole Internet.
    pub const ALL: u32 = 1000;
}

/// Fifths of the budget of a wider prefix that are kept for what is quiet inside of it.
const RESERVE_FIFTHS: u64 = 1;

const BUCKETS_PER_SET: usize = 4;
/// Sets of /24 and /64 networks: 256 KiB.
const NEAR_SETS: usize = 4096;
/// Sets of /16 and /48 networks: 64 KiB.
const WIDE_SETS: usize = 1024;
/// Sets of /32 networks: 16 KiB.
const FAR_SETS: usize = 256;

/// What has been answered, shared by all workers: 336 KiB, allocated once there is a limit and never grown.
///
/// A prefix can be only in the set its keyed hash selects, and is told from the others there by all 64 bits of the hash, so that two
/// prefixes share one budget with a chance of one in 2^64 per pair. When a set is full, a newcomer takes the place of the
/// bucket with the most tokens, which is the one that has least to lose, and takes over its debt, except that it always has one
/// answer left:
///
/// - Nobody is starved by an attacker who fills the table, because a prefix that is not in it has an answer left.
/// - A prefix that is hammered has the emptiest bucket of its set and stays. To have it forgotten, an attacker must make
///   four newcomers hit its set, and gains one answer by that. Not knowing the key, the attacker pays some 4 × 4096
///   requests from as many other prefixes for it.
///
/// An answer is taken from the budgets of all prefixes around the client, from near to far until one has none. That of a wider one
/// is spent when somebody forges many sources inside of it. A fifth of it is then still there for what is quiet: what has
/// asked for less than half of its own burst beyond its own rate. So a few that ask too much leave their neighbours an answer, and
/// prefixes that are attacked leave one to all others.
///
/// Two workers that meet in one bucket may lose sight of an answer of each other's. Nothing depends on its being exact.
#[derive(Debug, Default)]
pub struct AnswerBudgets {
    limit: Mutex<Option<RateLimit>>,
    tables: OnceLock<Tables>,
    key: RandomState,
}

/// One worker's view of the budgets: the limit of its configuration, and the tables of all.
///
/// A forged source uses up the budget of the prefix it names, whose clients are then answered late; over TCP and TLS, where
/// a source cannot be forged, no budget applies.
#[derive(Debug)]
pub struct RateLimiter {
    paces: Option<Paces>,
    budgets: Arc<AnswerBudgets>,
}

#[derive(Debug)]
struct Tables {
    near: Table,
    wide: Table,
    far: Table,
    all: Bucket,
    all_reserve: Bucket,
}

#[derive(Debug)]
struct Table(Box<[Set]>);

/// One cache line.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Set([Bucket; BUCKETS_PER_SET]);

/// A token bucket kept as one point in time (generic cell rate algorithm): the later, the emptier. An unused entry is a
/// full bucket that nobody owns.
#[derive(Debug, Default)]
struct Bucket {
    hash: AtomicU64,
    paid_until_nanos: AtomicU64,
}

/// The paces of all budgets under one limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Paces {
    near: Pace,
    wide: Shares,
    far: Shares,
    all: Shares,
}

/// The budget of a wider prefix in two parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shares {
    open: Pace,
    reserve: Pace,
}

/// A budget in nanoseconds: it may answer when that does not put it further than `window` ahead of the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pace {
    per_answer_nanos: u64,
    window_nanos: u64,
}

/// A part of the budget of a prefix.
#[derive(Clone, Copy)]
enum Share {
    /// For everybody.
    Open,
    /// For what is quiet.
    Reserve,
}

/// A prefix around a client that is wider than a /24 or /64.
#[derive(Clone, Copy)]
enum Wider {
    Wide(u64),
    Far(u64),
    All,
}

/// A bucket as it was found, and the pace of its budget.
struct Account<'t> {
    bucket: &'t Bucket,
    /// The hash of a prefix that has no bucket yet, and takes this one.
    newcomer: Option<u64>,
    paid_until_nanos: u64,
    pace: Pace,
}

impl RateLimiter {
    /// `None` as limit means unlimited.
    pub fn new(limit: Option<RateLimit>, budgets: Arc<AnswerBudgets>) -> Self {
        let mut limiter = Self { paces: None, budgets };
        limiter.set_limit(limit);
        limiter
    }

    /// Replaces the limit at reload. With the first worker that has another one, every prefix starts with a full bucket.
    pub fn set_limit(&mut self, limit: Option<RateLimit>) {
        self.budgets.begin(limit);
        self.paces = limit.map(Paces::new);
    }

    /// Takes one answer out of the budgets of all prefixes around `ip`; `false` when one of them has none.
    pub fn allow(&self, now_micros: u64, ip: IpAddr) -> bool {
        let Some(paces) = &self.paces else { return true };
        self.take(paces, now_micros.saturating_mul(1000), ip).is_some()
    }

    fn take(&self, paces: &Paces, now_nanos: u64, ip: IpAddr) -> Option<()> {
        let budgets = &*self.budgets;
        let (near, wider) = prefixes(ip);
        let near = budgets.near(near, paces.near, now_nanos)?;
        let mut asker_is_quiet = near.is_quiet(now_nanos);
        near.charge(now_nanos)?;
        for prefix in wider.into_iter().flatten() {
            let shares = paces.of(prefix);
            let open = budgets.wider(prefix, Share::Open, shares.open, now_nanos)?;
            let prefix_is_quiet = open.is_quiet(now_nanos);
            if open.charge(now_nanos).is_none() {
                let reserve = || budgets.wider(prefix, Share::Reserve, shares.reserve, now_nanos);
                asker_is_quiet.then(reserve)??.charge(now_nanos)?;
            }
            asker_is_quiet = prefix_is_quiet;
        }
        Some(())
    }
}

impl AnswerBudgets {
    fn begin(&self, limit: Option<RateLimit>) {
        let mut current = self.limit.lock().unwrap_or_else(PoisonError::into_inner);
        if *current != limit {
            *current = limit;
            self.tables.get().into_iter().for_each(Tables::forget);
        }
    }

    fn near(&self, prefix: u64, pace: Pace, now_nanos: u64) -> Option<Account<'_>> {
        self.tables().near.account(self.key.hash_one(prefix), pace, now_nanos)
    }

    fn wider(&self, prefix: Wider, share: Share, pace: Pace, now_nanos: u64) -> Option<Account<'_>> {
        let tables = self.tables();
        let hash = |prefix: u64| self.key.hash_one((share as u8, prefix));
        match (prefix, share) {
            (Wider::Wide(prefix), _) => tables.wide.account(hash(prefix), pace, now_nanos),
            (Wider::Far(prefix), _) => tables.far.account(hash(prefix), pace, now_nanos),
            (Wider::All, Share::Open) => Some(tables.all.account(None, pace, now_nanos)),
            (Wider::All, Share::Reserve) => Some(tables.all_reserve.account(None, pace, now_nanos)),
        }
    }

    fn tables(&self) -> &Tables {
        self.tables.get_or_init(|| Tables {
            near: Table::new(NEAR_SETS),
            wide: Table::new(WIDE_SETS),
            far: Table::new(FAR_SETS),
            all: Bucket::default(),
            all_reserve: Bucket::default(),
        })
    }
}

impl Tables {
    fn forget(&self) {
        let sets = [&self.near, &self.wide, &self.far].into_iter().flat_map(|table| &table.0);
        let buckets = sets.flat_map(|set| &set.0).chain([&self.all, &self.all_reserve]);
        buckets.for_each(|bucket| bucket.paid_until_nanos.store(0, Relaxed));
    }
}

impl Table {
    fn new(sets: usize) -> Self {
        Self(std::iter::repeat_with(Set::default).take(sets).collect())
    }

    fn account(&self, hash: u64, pace: Pace, now_nanos: u64) -> Option<Account<'_>> {
        let Set(buckets) = self.0.get((hash % self.0.len().max(1) as u64) as usize)?;
        if let Some(own) = buckets.iter().find(|bucket| bucket.hash.load(Relaxed) == hash) {
            return Some(own.account(None, pace, now_nanos));
        }
        let fullest = buckets.iter().min_by_key(|bucket| bucket.paid_until_nanos.load(Relaxed))?;
        Some(fullest.account(Some(hash), pace, now_nanos))
    }
}

impl Bucket {
    fn account(&self, newcomer: Option<u64>, pace: Pace, now_nanos: u64) -> Account<'_> {
        let paid_until = self.paid_until_nanos.load(Relaxed);
        let paid_until_nanos = match newcomer {
            None => paid_until,
            Some(_) => {
                let one_answer_left = pace.window_nanos.saturating_sub(pace.per_answer_nanos);
                paid_until.min(now_nanos.saturating_add(one_answer_left))
            }
        };
        Account { bucket: self, newcomer, paid_until_nanos, pace }
    }
}

impl Account<'_> {
    /// Whether less than half of the burst is used.
    fn is_quiet(&self, now_nanos: u64) -> bool {
        self.newcomer.is_some() || self.paid_until_nanos <= now_nanos.saturating_add(self.pace.window_nanos / 2)
    }

    /// Takes an answer, if there is one.
    fn charge(&self, now_nanos: u64) -> Option<()> {
        let after_one = |paid_until: u64| paid_until.max(now_nanos).saturating_add(self.pace.per_answer_nanos);
        let latest = now_nanos.saturating_add(self.pace.window_nanos);
        let paid_until_nanos = &self.bucket.paid_until_nanos;
        if let Some(hash) = self.newcomer {
            let paid_until = Some(after_one(self.paid_until_nanos)).filter(|paid_until| *paid_until <= latest)?;
            self.bucket.hash.store(hash, Relaxed);
            paid_until_nanos.store(paid_until, Relaxed);
            return Some(());
        }
        let charged = |paid_until: u64| Some(after_one(paid_until)).filter(|after| *after <= latest);
        paid_until_nanos.fetch_update(Relaxed, Relaxed, charged).ok().map(drop)
    }
}

impl Paces {
    fn new(limit: RateLimit) -> Self {
        let shares = |times: u32| {
            let fifths = |fifths: u64| Pace::new(limit, u64::from(times) * fifths, 5);
            Shares { open: fifths(5 - RESERVE_FIFTHS), reserve: fifths(RESERVE_FIFTHS) }
        };
        Self {
            near: Pace::new(limit, 1, 1),
            wide: shares(RateLimit::WIDE),
            far: shares(RateLimit::FAR),
            all: shares(RateLimit::ALL),
        }
    }

    fn of(&self, prefix: Wider) -> Shares {
        match prefix {
            Wider::Wide(_) => self.wide,
            Wider::Far(_) => self.far,
            Wider::All => self.all,
        }
    }
}

impl Pace {
    /// The pace of `times / of` such limits.
    fn new(limit: RateLimit, times: u64, of: u64) -> Self {
        let [per_second, burst] = [limit.per_second, limit.burst].map(|one| u64::from(one) * times / of);
        match 1_000_000_000_u64.checked_div(per_second) {
            // More than one answer a nanosecond is one.
            Some(per_answer_nanos) => {
                let per_answer_nanos = per_answer_nanos.max(1);
                Self { per_answer_nanos, window_nanos: per_answer_nanos.saturating_mul(burst) }
            }
            None => Self { per_answer_nanos: 1, window_nanos: 0 },
        }
    }
}

/// The /24 or /64 as a number, and the prefixes around it, from near to far. IPv4 is behind the first bits of multicast, where no IPv6
/// client can be. An IPv4-mapped address is the client's IPv4 address.
fn prefixes(ip: IpAddr) -> (u64, [Option<Wider>; 3]) {
    const V4: u64 = 0xff << 56;
    match ip.to_canonical() {
        IpAddr::V4(v4) => {
            let bits = u64::from(v4.to_bits());
            (V4 | bits >> 8, [Some(Wider::Wide(V4 | bits >> 16)), Some(Wider::All), None])
        }
        IpAddr::V6(v6) => {
            let network = (v6.to_bits() >> 64) as u64;
            (network, [Some(Wider::Wide(network >> 16)), Some(Wider::Far(network >> 32)), Some(Wider::All)])
        }
    }
}

/// The networks around a client that bounds are kept for besides the one for all, from near to far: the /24 or /64 and the wider prefixes,
/// each with how many times as much as the first it may have. The numbers of two are different if these are the same.
pub(crate) fn networks(ip: IpAddr) -> impl Iterator<Item = (u32, u64)> {
    let (near, wider) = prefixes(ip);
    let wider = wider.into_iter().flatten().filter_map(|prefix| match prefix {
        Wider::Wide(prefix) => Some((RateLimit::WIDE, prefix)),
        Wider::Far(prefix) => Some((RateLimit::FAR, prefix)),
        Wider::All => None,
    });
    std::iter::once((1, near)).chain(wider)
}

#[cfg(test)]
mod tests;
