//! Responses remembered for retransmitted requests (RFC 8489 section 6.3.1).
//!
//! An allocation remembers the response to its last request; a released allocation leaves a tombstone. Only requests whose
//! MESSAGE-INTEGRITY verified are remembered, and only over UDP: streams do not retransmit.

use std::collections::VecDeque;
use std::hash::Hasher;

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
pub(super) struct RequestDigest(u128);

impl RequestDigest {
    fn hash(self) -> u64 {
        self.0 as u64
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

/// Responses of allocations that are no more.
#[derive(Default)]
pub(super) struct Tombstones {
    /// In the order of their ends.
    queue: VecDeque<Remembered>,
    /// Their digests: most requests are no copy, and must not cost a walk along the queue. A digest is its own hash.
    known: HashTable<RequestDigest>,
}

impl Tombstones {
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(super) fn add(&mut self, now_micros: u64, remembered: Remembered) {
        self.sweep(now_micros);
        if self.queue.len() >= MAX_TOMBSTONES {
            self.forget_oldest();
        }
        self.known.insert_unique(remembered.request.hash(), remembered.request, |request| request.hash());
        self.queue.push_back(remembered);
    }

    pub(super) fn find(&self, now_micros: u64, request: RequestDigest) -> Option<&[u8]> {
        self.known.find(request.hash(), |known| *known == request)?;
        let found = self.queue.iter().find(|tombstone| tombstone.request == request)?;
        (found.until_micros > now_micros).then_some(&*found.response)
    }

    /// Forgets what is too old.
    pub(super) fn sweep(&mut self, now_micros: u64) {
        while self.queue.front().is_some_and(|oldest| oldest.until_micros <= now_micros) {
            self.forget_oldest();
        }
        if self.queue.is_empty() {
            *self = Self::default();
        }
    }

    fn forget_oldest(&mut self) {
        let Some(oldest) = self.queue.pop_front() else { return };
        if let Ok(entry) = self.known.find_entry(oldest.request.hash(), |known| *known == oldest.request) {
            entry.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tombstones_are_found_until_they_are_too_old_or_too_many() {
        let mut tombstones = Tombstones::default();
        let digest = |n: u64| RequestDigest(u128::from(n) << 64 | u128::from(n % 7));
        for n in 0..2000 {
            let remembered =
                Remembered { request: digest(n), response: n.to_be_bytes().into(), until_micros: 1000 + n };
            tombstones.add(0, remembered);
        }
        let found = |tombstones: &Tombstones, now, n| tombstones.find(now, digest(n)).is_some();
        let first = 2000 - MAX_TOMBSTONES as u64;
        assert!(!found(&tombstones, 0, first - 1) && found(&tombstones, 0, first) && found(&tombstones, 0, 1999));
        assert_eq!(tombstones.find(0, digest(1500)), Some(&1500u64.to_be_bytes()[..]));
        assert!(!found(&tombstones, 2500, 1500), "too old");
        tombstones.sweep(2500);
        assert_eq!((tombstones.queue.len(), tombstones.known.len()), (499, 499));
        assert!(!found(&tombstones, 2000, 1500) && found(&tombstones, 2500, 1501));
        tombstones.sweep(3000);
        assert!(tombstones.is_empty() && tombstones.known.is_empty());
    }
}
