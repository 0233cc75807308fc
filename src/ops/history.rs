//! Figures over the last quarter of an hour, for the page: what the counters have come to in each few seconds. It is kept only where
//! there is a page.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::time::{MissedTickBehavior, interval};

use super::lately::is_usual;
use super::workers::Workers;
use crate::addr::Transport;
use crate::counters::{self, Counters, Histogram};
use crate::fleet::Samples;
use crate::net::sys;
use crate::reject::{Dropped, Reason};
use crate::traffic::{Direction, Traffic};

/// How long the time of a sample is.
pub(super) const INTERVAL: Duration = Duration::from_secs(5);
/// Samples that are kept: 15 minutes.
pub(super) const SAMPLES_MAX: usize = 180;
const TRANSPORTS: usize = Transport::ALL.len();
const REASONS: usize = Reason::ALL.len();

/// The last samples.
#[derive(Default)]
pub(super) struct History {
    kept: Mutex<VecDeque<Sample>>,
}

/// What one interval has come to.
struct Sample {
    number: u64,
    at_unix: u64,
    micros: u64,
    live: [u64; TRANSPORTS],
    made: u64,
    to_peers: Traffic,
    to_clients: Traffic,
    /// Those that there were.
    refused: Vec<(Reason, u64)>,
    dropped: u64,
    relay: Option<Times>,
    setup: Option<Times>,
    round_trip: Option<Times>,
}

/// Half of what was counted took no longer than the first, and 99 of a hundred no longer than the second.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Times {
    p50_micros: f64,
    p99_micros: f64,
}

impl History {
    /// Takes samples for ever, of what is counted from now on.
    pub(super) fn keep(self: Arc<Self>, workers: Workers) -> impl Future<Output = ()> + Send {
        let (mut before, mut number) = (Totals::of(&workers.counters), 0);
        async move {
            let mut tick = interval(INTERVAL);
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            tick.tick().await;
            loop {
                tick.tick().await;
                let now = Totals::of(&workers.counters);
                number += 1;
                let mut sample = now.since(&before, number);
                sample.round_trip = Times::of_each(workers.some_round_trips().await);
                self.push(sample);
                before = now;
            }
        }
    }

    fn push(&self, sample: Sample) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= SAMPLES_MAX {
            kept.pop_front();
        }
        kept.push_back(sample);
    }

    /// The samples after the one of this number, the oldest first.
    pub(super) fn after(&self, number: u64) -> Value {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = kept.iter().filter(|sample| sample.number > number);
        json!({
            "interval_secs": INTERVAL.as_secs(),
            "samples_max": SAMPLES_MAX,
            "samples": wanted.map(Sample::shown).collect::<Vec<_>>(),
        })
    }
}

impl History {
    /// The same in short, for who shows several nodes.
    pub(super) fn samples(&self) -> Samples {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let each = |of: fn(&Sample) -> u64| kept.iter().map(of).collect();
        Samples {
            interval_secs: INTERVAL.as_secs(),
            sessions: each(|sample| sample.live.iter().sum()),
            bytes_per_sec: each(|sample| {
                let bytes = u128::from(sample.to_peers.bytes) + u128::from(sample.to_clients.bytes);
                u64::try_from(bytes * 1_000_000 / u128::from(sample.micros.max(1))).unwrap_or(u64::MAX)
            }),
            refused: each(|sample| {
                sample.refused.iter().filter(|(reason, _)| !is_usual(*reason)).map(|(_, count)| count).sum()
            }),
        }
    }
}

impl Sample {
    fn shown(&self) -> Value {
        let live = Transport::ALL.iter().zip(self.live);
        let refused = self.refused.iter().map(|(reason, count)| (reason.label().to_owned(), (*count).into()));
        json!({
            "number": self.number,
            "at_unix": self.at_unix,
            "secs": self.micros as f64 / 1e6,
            "allocations": live.map(|(transport, count)| (transport.name().to_owned(), count.into())).collect::<Map<_, _>>(),
            "made": self.made,
            "to_peers": self.to_peers,
            "to_clients": self.to_clients,
            "refused": refused.collect::<Map<_, _>>(),
            "dropped": self.dropped,
            "relay_micros": self.relay.map(Times::shown),
            "setup_micros": self.setup.map(Times::shown),
            "round_trip_micros": self.round_trip.map(Times::shown),
        })
    }
}

impl Times {
    fn shown(self) -> Value {
        json!({ "p50": self.p50_micros.round(), "p99": self.p99_micros.round() })
    }

    /// From the times themselves.
    fn of_each(mut micros: Vec<u32>) -> Option<Self> {
        micros.sort_unstable();
        let at = |hundredths: usize| micros.get((micros.len().checked_sub(1)? * hundredths).div_ceil(100)).copied();
        at(50).zip(at(99)).map(|(p50, p99)| Self { p50_micros: p50.into(), p99_micros: p99.into() })
    }

    /// From what was counted in each class, as far as classes say it.
    fn of(bounds_micros: &[u64], counts: &[u64]) -> Option<Self> {
        let total: u64 = counts.iter().sum();
        let below = |share: f64| {
            let wanted = share * total as f64;
            let (mut seen, mut lower) = (0.0, 0.0);
            for (bound, count) in bounds_micros.iter().zip(counts) {
                let (upper, count) = (*bound as f64, *count as f64);
                if count > 0.0 && seen + count >= wanted {
                    return lower + (upper - lower) * (wanted - seen) / count;
                }
                seen += count;
                lower = upper;
            }
            // Of what is above the last bound, only that is known.
            lower
        };
        (total > 0).then(|| Self { p50_micros: below(0.5), p99_micros: below(0.99) })
    }
}

/// The counters of all workers at one moment.
struct Totals {
    micros: u64,
    unix_secs: u64,
    live: [u64; TRANSPORTS],
    made: u64,
    to_peers: Traffic,
    to_clients: Traffic,
    refused: [u64; REASONS],
    dropped: u64,
    relay: Classes,
    setup: Classes,
}

struct Classes {
    bounds_micros: &'static [u64],
    counts: Vec<u64>,
}

impl Totals {
    fn of(workers: &[Arc<Counters>]) -> Self {
        let (micros, unix_secs) = sys::clocks();
        let all = |list: fn(&Counters) -> &[counters::Counter], len: usize| {
            (0..len).map(|index| counters::sum_at(workers, list, index)).sum()
        };
        let payload =
            |direction| counters::sum_traffic(workers, |counters: &Counters| counters.payload.total(direction));
        Self {
            micros,
            unix_secs,
            live: Transport::ALL.map(|transport| counters::live_allocations(workers, transport)),
            made: all(|counters| &counters.allocated, TRANSPORTS),
            to_peers: payload(Direction::ToPeers),
            to_clients: payload(Direction::ToClients),
            refused: std::array::from_fn(|index| counters::sum_at(workers, |counters| &counters.refused, index)),
            dropped: all(|counters| &counters.dropped, Dropped::ALL.len()),
            relay: Classes::of(workers, |counters| &counters.relay_times),
            setup: Classes::of(workers, |counters| &counters.setup_times),
        }
    }

    fn since(&self, before: &Self, number: u64) -> Sample {
        let refused = Reason::ALL.iter().zip(self.refused.iter().zip(before.refused));
        let refused = refused.map(|(reason, (now, before))| (*reason, now.saturating_sub(before)));
        Sample {
            number,
            at_unix: self.unix_secs,
            micros: self.micros.saturating_sub(before.micros),
            live: self.live,
            made: self.made.saturating_sub(before.made),
            to_peers: difference(self.to_peers, before.to_peers),
            to_clients: difference(self.to_clients, before.to_clients),
            refused: refused.filter(|(_, count)| *count > 0).collect(),
            dropped: self.dropped.saturating_sub(before.dropped),
            relay: self.relay.since(&before.relay),
            setup: self.setup.since(&before.setup),
            round_trip: None,
        }
    }
}

impl Classes {
    fn of(workers: &[Arc<Counters>], histogram: fn(&Counters) -> &Histogram) -> Self {
        let mut of_workers = workers.iter().map(|counters| histogram(counters));
        let Some(first) = of_workers.next() else { return Self { bounds_micros: &[], counts: Vec::new() } };
        let mut counts: Vec<u64> = first.classes().iter().map(counters::Counter::get).collect();
        for other in of_workers {
            for (count, class) in counts.iter_mut().zip(other.classes()) {
                *count += class.get();
            }
        }
        Self { bounds_micros: first.bounds_micros(), counts }
    }

    fn since(&self, before: &Self) -> Option<Times> {
        let counts: Vec<_> =
            self.counts.iter().zip(&before.counts).map(|(now, before)| now.saturating_sub(*before)).collect();
        Times::of(self.bounds_micros, &counts)
    }
}

fn difference(now: Traffic, before: Traffic) -> Traffic {
    Traffic { packets: now.packets.saturating_sub(before.packets), bytes: now.bytes.saturating_sub(before.bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_inside_of_their_class() {
        let times = |counts: &[u64]| Times::of(&[100, 200, 400], counts);
        assert_eq!(times(&[0, 0, 0, 0]), None);
        assert_eq!(times(&[0, 100, 0, 0]), Some(Times { p50_micros: 150.0, p99_micros: 199.0 }));
        let Some(Times { p50_micros, p99_micros }) = times(&[98, 0, 0, 2]) else { panic!("there are some") };
        assert!((p50_micros - 51.0).abs() < 0.1, "{p50_micros}");
        assert_eq!(p99_micros, 400.0, "beyond the last bound, it is the bound");
    }

    #[test]
    fn of_some_round_trips_the_middle_and_the_slowest_are_told() {
        let of = |micros: &[u32]| Times::of_each(micros.to_vec()).map(|times| (times.p50_micros, times.p99_micros));
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[70]), Some((70.0, 70.0)));
        assert_eq!(of(&[30, 10, 20]), Some((20.0, 30.0)));
        assert_eq!(of(&(0..=100).rev().collect::<Vec<_>>()), Some((50.0, 99.0)));
    }

    #[test]
    fn a_sample_has_what_came_since_the_one_before_and_the_oldest_go() {
        let counters = vec![Arc::new(Counters::default()), Arc::new(Counters::default())];
        let history = History::default();
        let mut before = Totals::of(&counters);
        for number in 1..=SAMPLES_MAX as u64 + 2 {
            for counters in &counters {
                counters.allocation_made(Transport::Tcp);
                counters.relay_times.observe(30, 4);
            }
            let now = Totals::of(&counters);
            history.push(now.since(&before, number));
            before = now;
        }
        let shown = history.after(0);
        let samples = shown["samples"].as_array().unwrap();
        assert_eq!((samples.len(), &samples[0]["number"]), (SAMPLES_MAX, &json!(3)));
        let last = &samples[SAMPLES_MAX - 1];
        assert_eq!(last["made"], 2);
        assert_eq!(last["allocations"]["tcp"], 2 * (SAMPLES_MAX as u64 + 2));
        assert_eq!((&last["setup_micros"], &last["relay_micros"]["p50"]), (&Value::Null, &json!(38.0)));
        assert_eq!(history.after(SAMPLES_MAX as u64 + 1)["samples"].as_array().unwrap().len(), 1);
        assert_eq!(history.after(u64::MAX)["samples"], json!([]));
    }
}
