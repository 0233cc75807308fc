//! Transaction ids of the indications we send (RFC 8489 section 5: uniformly random).

use siphasher::sip128::SipHasher13;

/// A counter under a secret keyed hash: unpredictable, and no call to the system per packet.
pub(super) struct TransactionIds {
    hasher: SipHasher13,
    counter: u64,
}

impl TransactionIds {
    /// Takes its key from the CSPRNG.
    pub(super) fn new(fill_random: &mut dyn FnMut(&mut [u8])) -> Self {
        let mut key = [0; 16];
        fill_random(&mut key);
        Self { hasher: SipHasher13::new_with_key(&key), counter: 0 }
    }

    #[inline]
    pub(super) fn next(&mut self) -> [u8; 12] {
        self.counter += 1;
        let bits = self.hasher.hash(&self.counter.to_ne_bytes()).as_u128().to_ne_bytes();
        let mut id = [0; 12];
        for (to, from) in id.iter_mut().zip(bits) {
            *to = from;
        }
        id
    }
}
