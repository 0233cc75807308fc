//! Prices, rates, and the buckets that bandwidth caps are kept by.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::addr::Family;

/// What the smallest packet counts for. A packet costs this server, and every machine behind it, as much time as a thousand bytes do,
/// however few it has: a cap on bytes must be one on packets, too. Speech, at 50 packets a second, is hardly touched.
pub(super) const PACKET_BYTES_MIN: u64 = 128;
/// The largest datagram counts for less, which could otherwise never pass a small cap.
const BURST_BYTES_MIN: u64 = 65_600;
/// A key frame of a megabit.
const BURST_PACKETS_MIN: u64 = 100;

/// What a packet counts for in bytes: as on the peer's side, in both directions.
#[inline]
pub(super) fn price(peer: Family, payload: usize) -> u64 {
    let headers = match peer {
        Family::V4 => 20 + 8,
        Family::V6 => 40 + 8,
    };
    (payload as u64).saturating_add(headers).max(PACKET_BYTES_MIN)
}

/// The rates of bytes and of packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Rates {
    pub(super) bytes: Option<Rate>,
    pub(super) packets: Option<Rate>,
}

impl Rates {
    pub(super) fn new(bytes_per_sec: Option<u64>, packets_per_sec: Option<u64>) -> Self {
        Self {
            bytes: bytes_per_sec.map(|rate| Rate::new(rate, BURST_BYTES_MIN)),
            packets: packets_per_sec.map(|rate| Rate::new(rate, BURST_PACKETS_MIN)),
        }
    }

    /// Where the points in time go when a packet passes; `None` when it may not.
    pub(super) fn charge(&self, paid: Paid, now_nanos: u64, price: u64) -> Option<Paid> {
        let charge = |rate: Option<Rate>, until_nanos, amount| match rate {
            None => Some(until_nanos),
            Some(rate) => rate.charge(until_nanos, now_nanos, amount),
        };
        Some(Paid {
            bytes_until_nanos: charge(self.bytes, paid.bytes_until_nanos, price)?,
            packets_until_nanos: charge(self.packets, paid.packets_until_nanos, 1)?,
        })
    }
}

/// A rate as the time that a byte, or a packet, takes and the time that the burst takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rate {
    /// In 1/65,536 nanosecond. This and the cost of a packet are rounded up, so that the cap is never exceeded; a packet
    /// of 1200 bytes at 10 Gbit/s pays 0.1 % too much by that, and less at lower rates.
    per_unit: u64,
    window_nanos: u64,
}

impl Rate {
    fn new(per_sec: u64, burst_min: u64) -> Self {
        if per_sec == 0 {
            return Self { per_unit: u64::MAX, window_nanos: 0 };
        }
        let per_unit = (1_000_000_000_u64 << 16).div_ceil(per_sec);
        Self { per_unit, window_nanos: cost_nanos(per_unit, per_sec.max(burst_min)) }
    }

    /// Where the point in time goes when so many pass; `None` when they may not.
    fn charge(self, paid_until_nanos: u64, now_nanos: u64, amount: u64) -> Option<u64> {
        let charged = paid_until_nanos.max(now_nanos).checked_add(cost_nanos(self.per_unit, amount))?;
        (charged <= self.latest_nanos(now_nanos)).then_some(charged)
    }

    /// How far ahead the point in time may be.
    fn latest_nanos(self, now_nanos: u64) -> u64 {
        now_nanos.saturating_add(self.window_nanos)
    }
}

fn cost_nanos(per_unit: u64, amount: u64) -> u64 {
    match per_unit.checked_mul(amount) {
        Some(cost) => cost.div_ceil(1 << 16),
        None => u64::try_from((u128::from(per_unit) * u128::from(amount)) >> 16).unwrap_or(u64::MAX),
    }
}

/// Token buckets, each kept as one point in time (generic cell rate algorithm): a packet moves it by the time that it takes at
/// the rate, and passes if the point is not further ahead of the clock than the burst takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Paid {
    /// The point in time of the bucket of bytes, in monotonic nanoseconds.
    pub bytes_until_nanos: u64,
    /// The same of the bucket of packets.
    pub packets_until_nanos: u64,
}

impl Paid {
    /// The same, but no bucket owes more than the burst of its rate.
    pub(super) fn bounded(self, rates: Rates, now_nanos: u64) -> Self {
        Self {
            bytes_until_nanos: forgiven(None, rates.bytes, self.bytes_until_nanos, now_nanos),
            packets_until_nanos: forgiven(None, rates.packets, self.packets_until_nanos, now_nanos),
        }
    }
}

/// A bucket that owes more than the burst of its new rate owes that burst.
pub(super) fn forgiven(old: Option<Rate>, new: Option<Rate>, paid_until_nanos: u64, now_nanos: u64) -> u64 {
    match new {
        Some(rate) if new != old => paid_until_nanos.min(rate.latest_nanos(now_nanos)),
        _ => paid_until_nanos,
    }
}

#[derive(Debug, Default)]
pub(super) struct UserBuckets {
    pub(super) to_peer: SharedPaid,
    pub(super) to_client: SharedPaid,
}

impl UserBuckets {
    pub(super) fn are_full(&self, now_nanos: u64) -> bool {
        self.all().all(|bucket| bucket.load(Ordering::Relaxed) <= now_nanos)
    }

    pub(super) fn forgive(&self, old: Rates, new: Rates, now_nanos: u64) {
        for paid in [&self.to_peer, &self.to_client] {
            let of_bytes = (&paid.bytes_until_nanos, old.bytes, new.bytes);
            let of_packets = (&paid.packets_until_nanos, old.packets, new.packets);
            for (bucket, old, new) in [of_bytes, of_packets] {
                bucket.fetch_min(forgiven(old, new, u64::MAX, now_nanos), Ordering::Relaxed);
            }
        }
    }

    fn all(&self) -> impl Iterator<Item = &AtomicU64> {
        [&self.to_peer, &self.to_client]
            .into_iter()
            .flat_map(|paid| [&paid.bytes_until_nanos, &paid.packets_until_nanos])
    }
}

/// [`Paid`] of a user, charged by every worker that has allocations of the user.
#[derive(Debug, Default)]
pub(super) struct SharedPaid {
    bytes_until_nanos: AtomicU64,
    packets_until_nanos: AtomicU64,
}

impl SharedPaid {
    pub(super) fn load(&self) -> Paid {
        Paid {
            bytes_until_nanos: self.bytes_until_nanos.load(Ordering::Relaxed),
            packets_until_nanos: self.packets_until_nanos.load(Ordering::Relaxed),
        }
    }

    /// Charges what was charged elsewhere, if that is more: all allocations of a user bring the same.
    pub(super) fn raise(&self, paid: Paid) {
        self.bytes_until_nanos.fetch_max(paid.bytes_until_nanos, Ordering::Relaxed);
        self.packets_until_nanos.fetch_max(paid.packets_until_nanos, Ordering::Relaxed);
    }

    pub(super) fn charge(&self, rates: &Rates, now_nanos: u64, price: u64) -> bool {
        let charge = |bucket: &AtomicU64, rate: Rate, amount| {
            let charged = |until_nanos| rate.charge(until_nanos, now_nanos, amount);
            bucket.fetch_update(Ordering::Relaxed, Ordering::Relaxed, charged).is_ok()
        };
        if rates.packets.is_some_and(|rate| !charge(&self.packets_until_nanos, rate, 1)) {
            return false;
        }
        let refused = rates.bytes.is_some_and(|rate| !charge(&self.bytes_until_nanos, rate, price));
        if refused && let Some(rate) = rates.packets {
            // It does not pass: what it was charged as a packet is given back.
            self.packets_until_nanos.fetch_sub(cost_nanos(rate.per_unit, 1), Ordering::Relaxed);
        }
        !refused
    }
}
