//! Latency histogram and per-flow sequence check.

/// Buckets per octave: a percentile is exact to one part in 64.
const SUB_BUCKETS: u64 = 64;
const SUB_BITS: u32 = SUB_BUCKETS.trailing_zeros();
/// Indices 0 to 63 hold the values below 64; then 64 per octave up to 2^64.
const BUCKETS: usize = (SUB_BUCKETS as usize) * (64 - SUB_BITS as usize + 1);

/// Counts of durations in nanoseconds, with logarithmic buckets of equal relative width.
#[derive(Clone, Debug)]
pub(super) struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS], total: 0, max: 0 }
    }
}

impl Histogram {
    /// Counts one value.
    pub(super) fn record(&mut self, nanos: u64) {
        if let Some(count) = self.counts.get_mut(bucket(nanos)) {
            *count += 1;
        }
        self.total += 1;
        self.max = self.max.max(nanos);
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.counts.fill(0);
        self.total = 0;
        self.max = 0;
    }

    /// The value that `share` (0 to 1) of the counted ones do not exceed; `None` when nothing was counted.
    pub(super) fn quantile(&self, share: f64) -> Option<u64> {
        if self.total == 0 {
            return None;
        }
        let wanted = ((share * self.total as f64).ceil() as u64).clamp(1, self.total);
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return Some(upper_bound(index).min(self.max));
            }
        }
        Some(self.max)
    }
}

fn bucket(value: u64) -> usize {
    if value < SUB_BUCKETS {
        return value as usize;
    }
    let octave = value.ilog2() - SUB_BITS;
    ((u64::from(octave) * SUB_BUCKETS) + (value >> octave)) as usize
}

/// The largest value of a bucket.
fn upper_bound(index: usize) -> u64 {
    let index = index as u64;
    if index < SUB_BUCKETS {
        return index;
    }
    let octave = index / SUB_BUCKETS - 1;
    let mantissa = u128::from(index % SUB_BUCKETS + SUB_BUCKETS);
    let bound = ((mantissa + 1) << octave) - 1;
    u64::try_from(bound).unwrap_or(u64::MAX)
}

/// What the arrival of a sequence number means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// The next one, after `skipped` that have not arrived (yet).
    InOrder {
        /// How many numbers were passed over.
        skipped: u64,
    },
    /// One that was passed over before.
    Late,
    /// One that has arrived before, or is too old to tell.
    Duplicate,
}

/// Follows the sequence numbers of one flow, remembering the last 64.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sequence {
    next: u64,
    /// Bit i: number `next - 1 - i` has arrived.
    seen: u64,
}

impl Sequence {
    /// Takes an arrived number.
    pub(super) fn arrive(&mut self, number: u64) -> Arrival {
        if let Some(skipped) = number.checked_sub(self.next) {
            let shift = u32::try_from(skipped + 1).unwrap_or(u32::MAX);
            self.seen = self.seen.checked_shl(shift).unwrap_or(0) | 1;
            self.next = number + 1;
            return Arrival::InOrder { skipped };
        }
        let age = self.next - 1 - number;
        let bit = u32::try_from(age).ok().and_then(|age| 1_u64.checked_shl(age));
        match bit {
            Some(bit) if self.seen & bit == 0 => {
                self.seen |= bit;
                Arrival::Late
            }
            _ => Arrival::Duplicate,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_in_its_bucket_and_the_buckets_are_narrow() {
        let mut value = 1_u64;
        while value < u64::MAX / 3 {
            for v in [value - 1, value, value + 1] {
                let bound = upper_bound(bucket(v));
                assert!(bound >= v, "{v} in a bucket up to {bound}");
                assert!(bound - v <= v / SUB_BUCKETS, "{v} in a bucket up to {bound}");
            }
            value = value * 3 / 2 + 1;
        }
        assert_eq!(upper_bound(bucket(u64::MAX)), u64::MAX);
    }

    #[test]
    fn quantiles_of_a_known_sequence_are_right_within_a_bucket() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.5), None);
        (1..=10_000).for_each(|v| histogram.record(v * 100));
        for (share, exact) in [(0.5, 500_000_u64), (0.9, 900_000), (0.99, 990_000), (0.999, 999_000)] {
            let got = histogram.quantile(share).unwrap();
            assert!(got >= exact && got - exact <= exact / SUB_BUCKETS, "{share}: {got} for {exact}");
        }
        assert_eq!(histogram.quantile(1.0), Some(1_000_000));
        assert_eq!((histogram.total, histogram.max), (10_000, 1_000_000));
        histogram.clear();
        assert_eq!(histogram.quantile(0.5), None);
    }

    #[test]
    fn loss_reordering_and_repetition_are_told_apart() {
        let mut flow = Sequence::default();
        assert_eq!(flow.arrive(0), Arrival::InOrder { skipped: 0 });
        assert_eq!(flow.arrive(1), Arrival::InOrder { skipped: 0 });
        assert_eq!(flow.arrive(4), Arrival::InOrder { skipped: 2 });
        assert_eq!(flow.arrive(3), Arrival::Late);
        assert_eq!(flow.arrive(3), Arrival::Duplicate);
        assert_eq!(flow.arrive(4), Arrival::Duplicate);
        assert_eq!(flow.arrive(1_000_000), Arrival::InOrder { skipped: 999_995 });
        assert_eq!(flow.arrive(2), Arrival::Duplicate);
        assert_eq!(flow.arrive(999_999), Arrival::Late);
        assert_eq!(flow.next, 1_000_001);
    }
}
