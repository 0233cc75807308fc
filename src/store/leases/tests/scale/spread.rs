//! How many users each of many servers gets, and what becomes of its neighbours when others die.

use super::world::Chance;

pub(super) const NODES: usize = 1_000;
const USERS: usize = 4_000_000;
/// So many resolvers ask for everybody; the n-th is asked by a share that goes with 1/n.
const RESOLVERS: usize = 20_000;
/// Answers of a resolver in the time of a call: a TTL of a minute, calls of five.
const ANSWERS: usize = 5;
/// Addresses in each answer. Clients try the first, and a resolver gives them in another order each time.
const ADDRESSES: usize = 8;
/// Where users are, for anycast.
const PLACES: usize = 40_000;

/// Users of the mean server in a hundred parts, of the busiest one in a hundred, and of the busiest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spread {
    pub(super) percent_99: u64,
    pub(super) percent_most: u64,
}

/// With all servers, and after a tenth has died at once. A hundred is the mean with all.
pub(super) type BeforeAndAfter = (Spread, Spread);

fn is_dead(node: usize) -> bool {
    node.is_multiple_of(10)
}

fn spread(mut loads: Vec<u64>) -> Spread {
    loads.sort_unstable();
    let mean = (USERS / NODES) as u64;
    let percent = |load: u64| (load * 100 + mean / 2) / mean;
    Spread { percent_99: percent(loads[NODES * 99 / 100]), percent_most: percent(loads[NODES - 1]) }
}

/// Each user takes one by chance, of those that are alive.
pub(super) fn by_chance(seed: u64) -> BeforeAndAfter {
    let of = |dies: bool| {
        let mut chance = Chance(seed);
        let mut loads = vec![0; NODES];
        (0..USERS).for_each(|_| loads[alive(&mut chance, dies)] += 1);
        spread(loads)
    };
    (of(false), of(true))
}

/// Users come by resolvers that keep an answer for a while.
pub(super) fn by_resolvers(seed: u64) -> BeforeAndAfter {
    let weights: Vec<u64> = (1..=RESOLVERS as u64).map(|rank| 1_000_000_000 / rank).collect();
    let all: u64 = weights.iter().sum();
    let of = |dies: bool| {
        let mut chance = Chance(seed);
        let mut loads = vec![0; NODES];
        for weight in &weights {
            let users = USERS as u64 * 1_000 * weight / all;
            for _ in 0..ANSWERS * ADDRESSES {
                loads[alive(&mut chance, dies)] += users / (ANSWERS * ADDRESSES) as u64;
            }
        }
        spread(loads.into_iter().map(|load| load / 1_000).collect())
    };
    (of(false), of(true))
}

/// Users take the nearest one. Both are anywhere.
pub(super) fn by_anycast(seed: u64) -> BeforeAndAfter {
    const WIDTH: u64 = 1 << 20;
    let mut chance = Chance(seed);
    let mut point = || (chance.between(0, WIDTH) as i64, chance.between(0, WIDTH) as i64);
    let nodes: Vec<_> = (0..NODES).map(|_| point()).collect();
    let places: Vec<_> = (0..PLACES).map(|_| point()).collect();
    let of = |dies: bool| {
        let mut loads = vec![0; NODES];
        for (x, y) in &places {
            let nearest = (0..NODES)
                .filter(|node| !(dies && is_dead(*node)))
                .min_by_key(|node| (nodes[*node].0 - x).pow(2) + (nodes[*node].1 - y).pow(2));
            loads[nearest.unwrap()] += (USERS / PLACES) as u64;
        }
        spread(loads)
    };
    (of(false), of(true))
}

fn alive(chance: &mut Chance, dies: bool) -> usize {
    loop {
        let node = chance.between(0, NODES as u64) as usize;
        if !(dies && is_dead(node)) {
            return node;
        }
    }
}
