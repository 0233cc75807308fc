//! Whom the application has answered of late, and the turns of all others, which go by network: whoever makes up new names in one network
//! waits behind his own.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::Hash;
use std::net::IpAddr;

/// So many are remembered; whose answer is the longest ago is forgotten first.
const KNOWN_MAX: usize = 16_384;

/// Those whose last event or question had an answer.
#[derive(Debug, Default)]
pub(super) struct Known<T> {
    numbers: HashMap<T, u64>,
    order: BTreeMap<u64, T>,
    last: u64,
}

impl<T: Clone + Eq + Hash> Known<T> {
    pub(super) fn has(&self, who: &T) -> bool {
        self.numbers.contains_key(who)
    }

    /// Notes that there was an answer.
    pub(super) fn note(&mut self, who: T) {
        self.last += 1;
        if let Some(before) = self.numbers.insert(who.clone(), self.last) {
            self.order.remove(&before);
        }
        self.order.insert(self.last, who);
        if self.order.len() > KNOWN_MAX
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.numbers.remove(&oldest);
        }
    }

    /// Notes that there was none. Returns whether the one before had one.
    pub(super) fn forget(&mut self, who: &T) -> bool {
        let number = self.numbers.remove(who);
        number.is_some_and(|number| self.order.remove(&number).is_some())
    }
}

/// Whose turn it is: each network's, and in it of who came first.
#[derive(Debug)]
pub(super) struct ByNetwork<T> {
    turns: VecDeque<IpAddr>,
    of: HashMap<IpAddr, VecDeque<T>>,
}

impl<T> Default for ByNetwork<T> {
    fn default() -> Self {
        Self { turns: VecDeque::new(), of: HashMap::new() }
    }
}

impl<T> ByNetwork<T> {
    pub(super) fn push(&mut self, network: IpAddr, who: T) {
        let of = self.of.entry(network).or_default();
        if of.is_empty() {
            self.turns.push_back(network);
        }
        of.push_back(who);
    }

    /// The next one of the networks that may have a turn.
    pub(super) fn pop(&mut self, may: impl Fn(IpAddr) -> bool) -> Option<T> {
        let at = self.turns.iter().position(|network| may(*network))?;
        let network = self.turns.remove(at)?;
        let of = self.of.get_mut(&network)?;
        let who = of.pop_front();
        match of.is_empty() {
            true => drop(self.of.remove(&network)),
            false => self.turns.push_back(network),
        }
        who
    }

    /// How many there are of a network.
    pub(super) fn len_of(&self, network: IpAddr) -> usize {
        self.of.get(&network).map_or(0, VecDeque::len)
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.turns.is_empty() && self.of.is_empty()
    }
}

/// The /24 or /48 of a client.
pub(super) fn network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4((v4.to_bits() & !0xff).into()),
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & !0 << 80).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_network_has_its_turn_however_many_wait_in_another() {
        let (mut turns, [crowd, lone, shut]) =
            (ByNetwork::default(), ["192.0.2.0", "198.51.100.0", "203.0.113.0"].map(|ip| ip.parse().unwrap()));
        (0..1000).for_each(|n| turns.push(crowd, n));
        turns.push(shut, 5000);
        turns.push(lone, 2000);
        turns.push(lone, 2001);
        assert_eq!([crowd, lone, shut].map(|network| turns.len_of(network)), [1000, 2, 1]);
        let first: Vec<_> = (0..5).map_while(|_| turns.pop(|network| network != shut)).collect();
        assert_eq!(first, [0, 2000, 1, 2001, 2]);
        assert_eq!(turns.pop(|_| true), Some(5000));
        assert_eq!((0..2000).map_while(|_| turns.pop(|_| true)).count(), 997);
        assert!(turns.is_empty() && turns.pop(|_| true).is_none());
    }

    #[test]
    fn so_many_are_known_and_the_one_answered_the_longest_ago_is_forgotten_first() {
        let mut known = Known::default();
        for n in 0..KNOWN_MAX {
            known.note(n);
        }
        known.note(0);
        known.note(KNOWN_MAX);
        assert!(known.has(&0) && !known.has(&1) && known.has(&KNOWN_MAX));
        assert!(known.forget(&0) && !known.forget(&0) && !known.has(&0));
        for n in 0..3 * KNOWN_MAX {
            known.note(n % 7);
        }
        assert_eq!((known.numbers.len(), known.order.len()), (KNOWN_MAX, KNOWN_MAX));
    }
}
