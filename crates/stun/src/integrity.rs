//! MESSAGE-INTEGRITY, MESSAGE-INTEGRITY-SHA256, long-term keys and USERHASH (RFC 8489 sections 9.2, 14.4 to 14.6).

use hmac::{Hmac, KeyInit, Mac};
use md5::Md5;
use sha1::Sha1;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroize;

use super::attribute::PasswordAlgorithm;
use super::header::HEADER_LEN;

/// Which of the integrity attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum IntegrityKind {
    /// MESSAGE-INTEGRITY: HMAC-SHA1, 20 bytes.
    Sha1,
    /// MESSAGE-INTEGRITY-SHA256: HMAC-SHA256, 32 bytes.
    Sha256,
}

impl IntegrityKind {
    /// Length in bytes of the value. RFC 8489 section 14.6 lets a STUN usage allow HMAC-SHA256 to be cut; TURN does not.
    pub(crate) fn value_len(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
        }
    }
}

/// An HMAC key; zeroed when dropped and never printed.
#[derive(Clone)]
pub struct Key(Bytes);

#[derive(Clone)]
enum Bytes {
    Md5([u8; 16]),
    Sha256([u8; 32]),
    Password(Box<[u8]>),
}

impl Key {
    /// The long-term credential's key (RFC 8489 section 9.2.2): the digest of `username:realm:password`.
    ///
    /// `realm` and `password` are given as prepared (RFC 8265 OpaqueString); `username` as it is on the wire.
    pub fn long_term(algorithm: PasswordAlgorithm, username: &[u8], realm: &[u8], password: &[u8]) -> Self {
        let parts: [&[u8]; 5] = [username, b":", realm, b":", password];
        match algorithm {
            PasswordAlgorithm::Md5 => {
                let mut digest = Md5::new();
                parts.iter().for_each(|part| digest.update(part));
                Self(Bytes::Md5(digest.finalize().into()))
            }
            PasswordAlgorithm::Sha256 => {
                let mut digest = Sha256::new();
                parts.iter().for_each(|part| digest.update(part));
                Self(Bytes::Sha256(digest.finalize().into()))
            }
        }
    }

    /// The short-term credential's key (RFC 8489 section 9.1.1): the password itself, as prepared. ICE uses it.
    pub fn short_term(password: &[u8]) -> Self {
        Self(Bytes::Password(password.into()))
    }

    /// The long-term credential's key of whoever stores the digest in place of the password, by the MD5 algorithm.
    pub fn from_md5(digest: [u8; 16]) -> Self {
        Self(Bytes::Md5(digest))
    }

    /// As [`Self::from_md5`], by the SHA-256 algorithm.
    pub fn from_sha256(digest: [u8; 32]) -> Self {
        Self(Bytes::Sha256(digest))
    }

    /// The key's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Bytes::Md5(digest) => digest,
            Bytes::Sha256(digest) => digest,
            Bytes::Password(password) => password,
        }
    }
}

impl PartialEq for Key {
    /// In constant time, like every comparison of secrets; only the lengths are not one.
    fn eq(&self, other: &Self) -> bool {
        bool::from(self.as_bytes().ct_eq(other.as_bytes()))
    }
}

impl Eq for Key {}

impl Drop for Key {
    fn drop(&mut self) {
        match &mut self.0 {
            Bytes::Md5(digest) => digest.zeroize(),
            Bytes::Sha256(digest) => digest.zeroize(),
            Bytes::Password(password) => password.zeroize(),
        }
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(..)")
    }
}

/// USERHASH: SHA-256 of `username:realm` (RFC 8489 section 14.4).
pub fn userhash(username: &[u8], realm: &[u8]) -> [u8; 32] {
    let mut digest = Sha256::new();
    digest.update(username);
    digest.update(b":");
    digest.update(realm);
    digest.finalize().into()
}

/// The MAC over `covered`, the message bytes before the attribute; of HMAC-SHA1 the first 20 bytes are it.
pub(crate) fn compute(kind: IntegrityKind, key: &Key, covered: &[u8]) -> [u8; 32] {
    let length = (covered.len() + 4 + kind.value_len()).saturating_sub(HEADER_LEN) as u16;
    let (Some(kind_bytes), Some(rest)) = (covered.get(..2), covered.get(4..)) else {
        return [0; 32];
    };
    let mut out = [0; 32];
    match kind {
        IntegrityKind::Sha1 => {
            if let Ok(mut mac) = Hmac::<Sha1>::new_from_slice(key.as_bytes()) {
                mac.update(kind_bytes);
                mac.update(&length.to_be_bytes());
                mac.update(rest);
                for (to, from) in out.iter_mut().zip(mac.finalize().into_bytes()) {
                    *to = from;
                }
            }
        }
        IntegrityKind::Sha256 => {
            if let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key.as_bytes()) {
                mac.update(kind_bytes);
                mac.update(&length.to_be_bytes());
                mac.update(rest);
                out = mac.finalize().into_bytes().into();
            }
        }
    }
    out
}

/// Compares in constant time; a value of another length is never right.
pub(crate) fn verify(kind: IntegrityKind, key: &Key, covered: &[u8], value: &[u8]) -> bool {
    let mac = compute(kind, key, covered);
    mac.get(..kind.value_len()).is_some_and(|expected| bool::from(expected.ct_eq(value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn long_term_keys_are_digests_of_the_three_parts() {
        let key =
            |algorithm| Key::long_term(algorithm, b"1735689600:alice", b"example.org", b"HbvWA6hGDtdv3wflBolXLhvzs0w=");
        assert_eq!(hex(key(PasswordAlgorithm::Md5).as_bytes()), "15fe1d291db14ef2a00c206559e9d387");
        assert_eq!(key(PasswordAlgorithm::Sha256).as_bytes().len(), 32);
    }

    #[test]
    fn a_short_term_key_is_the_password_however_long() {
        // The MACs of ICE's longest password, beyond the block of the digests, were computed with Python's hmac.
        let key = Key::short_term(&[b'p'; 256]);
        let covered = [0; 20];
        assert_eq!(
            hex(&compute(IntegrityKind::Sha1, &key, &covered)[..20]),
            "6530f36836a3a924482872edb96b9fa30bc97e9f"
        );
        assert_eq!(
            hex(&compute(IntegrityKind::Sha256, &key, &covered)),
            "f53720d1a596cee967d229a4be90a05b6e04293283f4bde3d31d8a0e01a3824c"
        );
    }

    #[test]
    fn keys_are_equal_only_when_their_bytes_and_lengths_are() {
        let key = Key::short_term;
        assert_eq!(key(b"same"), key(b"same"));
        assert_ne!(key(b"same"), key(b"sane"));
        assert_ne!(key(b"same"), key(b"same\0"));
    }

    #[test]
    fn a_key_is_never_printed() {
        assert_eq!(format!("{:?}", Key::short_term(b"secret")), "Key(..)");
    }

    #[test]
    fn a_value_of_any_other_length_does_not_verify_however_right_its_bytes_are() {
        let key = Key::short_term(b"key");
        let covered = [0; 20];
        for kind in [IntegrityKind::Sha1, IntegrityKind::Sha256] {
            let mut mac = compute(kind, &key, &covered).to_vec();
            mac.push(0);
            for len in 0..=mac.len() {
                let whole = len == kind.value_len();
                assert_eq!(verify(kind, &key, &covered, &mac[..len]), whole, "{kind:?} {len}");
            }
        }
    }

    #[test]
    fn one_wrong_bit_does_not_verify() {
        let key = Key::short_term(b"key");
        for kind in [IntegrityKind::Sha1, IntegrityKind::Sha256] {
            let mut mac = compute(kind, &key, &[0; 20]);
            mac[kind.value_len() - 1] ^= 1;
            assert!(!verify(kind, &key, &[0; 20], &mac[..kind.value_len()]), "{kind:?}");
        }
    }
}
