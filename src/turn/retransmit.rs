//! Responses remembered for retransmitted requests (RFC 8489 section 6.3.1).
//!
//! An allocation remembers the response to its last request; a released allocation leaves a tombstone. Only requests whose
//! MESSAGE-INTEGRITY verified are remembered, and only over UDP: streams do not retransmit.

use std::collections::VecDeque;
use std::hash::Hasher;

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
pub(super) struct Tombstones(VecDeque<Remembered>);

impl Tombstones {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn add(&mut self, now_micros: u64, remembered: Remembered) {
        self.sweep(now_micros);
        if self.0.len() >= MAX_TOMBSTONES {
            self.0.pop_front();
        }
        self.0.push_back(remembered);
    }

    pub(super) fn find(&self, now_micros: u64, request: RequestDigest) -> Option<&[u8]> {
        let found = self.0.iter().find(|tombstone| tombstone.request == request)?;
        (found.until_micros > now_micros).then_some(&*found.response)
    }

    /// Forgets what is too old.
    pub(super) fn sweep(&mut self, now_micros: u64) {
        while self.0.front().is_some_and(|oldest| oldest.until_micros <= now_micros) {
            self.0.pop_front();
        }
        if self.0.is_empty() {
            self.0 = VecDeque::new();
        }
    }
}
