//! Stateless nonces: keyed, rotating, bound to the client's address (RFC 8489 sections 9.2 and 18.1).

use crate::addr::ClientAddr;

/// The security-feature bits a nonce cookie carries (RFC 8489 section 18.1, erratum 6290: bit 0 is the least significant).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// Bit 0: PASSWORD-ALGORITHMS was offered with this nonce.
    pub password_algorithms: bool,
    /// Bit 1: USERHASH may be used in place of USERNAME.
    pub username_anonymity: bool,
}

/// A nonce as sent: ASCII, at most 48 bytes.
#[derive(Clone, Copy, Debug)]
pub struct Nonce {
    bytes: [u8; 48],
    len: u8,
}

impl Nonce {
    /// The bytes for the NONCE attribute.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }
}

/// What a nonce in a request turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NonceState {
    /// Ours, this client's, within its lifetime.
    Fresh(Features),
    /// Ours but too old, another client's, or not ours at all.
    Stale,
}

/// The keys nonces are made with; shared by all workers.
pub struct NonceKeys {}

impl NonceKeys {
    /// `master` comes from the CSPRNG (or from the fleet's configuration); `lifetime_secs` is how long a nonce is fresh.
    pub fn new(master: [u8; 32], lifetime_secs: u32) -> Self {
        let _ = (master, lifetime_secs);
        todo!()
    }

    /// A fresh nonce for `client`.
    pub fn issue(&self, unix_secs: u64, client: ClientAddr, features: Features) -> Nonce {
        let _ = (unix_secs, client, features);
        todo!()
    }

    /// Judges a nonce of a request from `client`.
    pub fn check(&self, unix_secs: u64, client: ClientAddr, nonce: &[u8]) -> NonceState {
        let _ = (unix_secs, client, nonce);
        todo!()
    }
}
