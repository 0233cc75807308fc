//! Responses remembered for retransmitted requests (RFC 8489 section 6.3.1).
//!
//! An allocation remembers the response to its last request; a released allocation leaves a tombstone. Only requests whose
//! MESSAGE-INTEGRITY verified are remembered, and only over UDP: streams do not retransmit.

use std::collections::VecDeque;
use std::fmt;
use std::hash::Hasher;
use std::sync::OnceLock;

use hashbrown::HashTable;
use siphasher::sip128::{Hasher128, SipHasher13 as SipHasher13x128};

use crate::addr::FiveTuple;

use super::hash::five_tuple_words;

/// How long a response is remembered (RFC 8489 section 6.3.1).
pub(super) const REMEMBERED_SECS: u32 = 40;
/// Tombstones kept at most; the oldest go first.
const MAX_TOMBSTONES: usize = 1024;

/// Identifies a request by all its bytes and its 5-tuple.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct RequestDigest(pub(super) u128);

impl RequestDigest {
    fn hash(self) -> u64 {
        self.0 as u64
    }
}

/// The key of the digests, which all workers share: an allocation that moves is followed by copies of its last request.
#[derive(Default)]
pub struct DigestKey(OnceLock<[u8; 16]>);

impl DigestKey {
    /// The key of a process whose allocations move to this one.
    pub fn new(key: [u8; 16]) -> Self {
        Self(key.into())
    }

    /// The key; `None` as long as there is no server.
    pub fn get(&self) -> Option<[u8; 16]> {
        self.0.get().copied()
    }

    /// A server's digester; the first one takes the key from the CSPRNG.
    pub(super) fn digester(&self, fill_random: &mut dyn FnMut(&mut [u8])) -> Digester {
        let mut random = [0; 16];
        fill_random(&mut random);
        Digester::new(*self.0.get_or_init(|| random))
    }
}

impl fmt::Debug for DigestKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DigestKey(..)")
    }
}

/// Digests requests under a secret key, so that nobody finds two with the same digest.
pub(super) struct Digester(SipHasher13x128);

impl Digester {
    pub(super) fn new(key: [u8; 16]) -> Self {
        Self(SipHasher13x128::new_with_key(&key))
    }

    pub(super) fn digest(&self, five_tuple: &FiveTuple, request: &[u8]) -> RequestDigest {
        let mut hasher = self.0;
        for word in five_tuple_words(five_tuple) {
            hasher.write_u64(word);
        }
        hasher.write(request);
        RequestDigest(hasher.finish128().as_u128())
    }
}

/// A response and the request it answers.
pub(super) struct Remembered {
    pub(super) request: RequestDigest,
    pub(super) response: Box<[u8]>,
    pub(super) until_micros: u64,
}

/// The response to the release of an allocation, and where that one had been.
pub(super) struct Tombstone {
    pub(super) five_tuple: FiveTuple,
    pub(super) remembered: Remembered,
}

/// Responses of allocations that are no more.
#[derive(Default)]
pub(super) struct Tombstones {
    /// In the order of their ends.
    queue: VecDeque<Tombstone>,
    /// Their digests: most requests are no copy, and must not cost a walk along the queue. A digest is its own hash.
    known: HashTable<RequestDigest>,
}

impl Tombstones {
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(super) fn add(&mut self, now_micros: u64, tombstone: Tombstone) {
        self.sweep(now_micros);
        if self.queue.len() >= MAX_TOMBSTONES {
            self.forget_oldest();
        }
        let Remembered { request, until_micros, .. } = tombstone.remembered;
        self.known.insert_unique(request.hash(), request, |request| request.hash());
        // One that has moved here may be older than the last one.
        let at = self.queue.partition_point(|other| other.remembered.until_micros <= until_micros);
        self.queue.insert(at, tombstone);
    }

    /// Takes those of a 5-tuple out: they go where its allocation goes, or a late copy of the release of an earlier one would
    /// end it there.
    pub(super) fn take(&mut self, five_tuple: &FiveTuple) -> Vec<Tombstone> {
        let is_of = |tombstone: &Tombstone| tombstone.five_tuple == *five_tuple;
        if !self.queue.iter().any(is_of) {
            return Vec::new();
        }
        let (taken, kept): (Vec<_>, Vec<_>) = std::mem::take(&mut self.queue).into_iter().partition(is_of);
        self.queue = kept.into();
        taken.iter().for_each(|tombstone| self.forget(tombstone.remembered.request));
        taken
    }

    pub(super) fn find(&self, now_micros: u64, request: RequestDigest) -> Option<&[u8]> {
        self.known.find(request.hash(), |known| *known == request)?;
        let found = self.queue.iter().map(|tombstone| &tombstone.remembered).find(|found| found.request == request)?;
        (found.until_micros > now_micros).then_some(&*found.response)
    }

    /// Forgets what is too old.
    pub(super) fn sweep(&mut self, now_micros: u64) {
        while self.queue.front().is_some_and(|oldest| oldest.remembered.until_micros <= now_micros) {
            self.forget_oldest();
        }
        if self.queue.is_empty() {
            *self = Self::default();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some(oldest) = self.queue.pop_front() {
            self.forget(oldest.remembered.request);
        }
    }

    fn forget(&mut self, request: RequestDigest) {
        if let Ok(entry) = self.known.find_entry(request.hash(), |known| *known == request) {
            entry.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::{ClientAddr, Transport};

    fn tombstone(client: u16, request: RequestDigest, until_micros: u64) -> Tombstone {
        let client = ClientAddr::new(([192, 0, 2, 1], client).into());
        let five_tuple = FiveTuple { transport: Transport::Udp, client, server: ([192, 0, 2, 2], 3478).into() };
        let response = until_micros.to_be_bytes().into();
        Tombstone { five_tuple, remembered: Remembered { request, response, until_micros } }
    }

    #[test]
    fn those_of_a_5_tuple_go_with_it_and_are_forgotten_in_their_time_where_they_come_to() {
        let (mut left, mut right) = (Tombstones::default(), Tombstones::default());
        let digest = |n: u64| RequestDigest(u128::from(n));
        (0..6).for_each(|n| left.add(0, tombstone(n as u16 % 2, digest(n), 100 + n)));
        right.add(0, tombstone(0, digest(9), 103));
        let taken = left.take(&tombstone(1, digest(0), 0).five_tuple);
        assert_eq!((taken.len(), left.queue.len(), left.known.len()), (3, 3, 3));
        taken.into_iter().for_each(|moved| right.add(0, moved));
        assert!(left.find(0, digest(1)).is_none() && left.find(0, digest(2)).is_some());
        assert_eq!(right.find(0, digest(1)), Some(&101u64.to_be_bytes()[..]));
        right.sweep(103);
        assert_eq!((right.queue.len(), right.known.len()), (1, 1), "the oldest are in front");
        assert!(right.find(0, digest(5)).is_some());
    }

    #[test]
    fn tombstones_are_found_until_they_are_too_old_or_too_many() {
        let mut tombstones = Tombstones::default();
        let digest = |n: u64| RequestDigest(u128::from(n) << 64 | u128::from(n % 7));
        for n in 0..2000 {
            tombstones.add(0, tombstone(1, digest(n), 1000 + n));
        }
        let found = |tombstones: &Tombstones, now, n| tombstones.find(now, digest(n)).is_some();
        let first = 2000 - MAX_TOMBSTONES as u64;
        assert!(!found(&tombstones, 0, first - 1) && found(&tombstones, 0, first) && found(&tombstones, 0, 1999));
        assert_eq!(tombstones.find(0, digest(1500)), Some(&2500u64.to_be_bytes()[..]));
        assert!(!found(&tombstones, 2500, 1500), "too old");
        tombstones.sweep(2500);
        assert_eq!((tombstones.queue.len(), tombstones.known.len()), (499, 499));
        assert!(!found(&tombstones, 2000, 1500) && found(&tombstones, 2500, 1501));
        tombstones.sweep(3000);
        assert!(tombstones.is_empty() && tombstones.known.is_empty());
    }
}
