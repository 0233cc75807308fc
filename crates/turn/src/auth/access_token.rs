//! Third-party authorization (RFC 7635): access tokens that an authorization server has made for this server's clients.
//!
//! A token is sealed with a key that both servers share. In it are the session key, by which its requests are signed, and how long it
//! is good. It says nothing of who its client is: whoever has the same token is one user, and another token is another one.

use std::fmt;
use std::sync::Arc;

use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes128Gcm, Aes256Gcm, KeyInit};
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, Zeroizing};

use crate::clock::Now;
use crate::reject::Reason;
use crate::user::User;
use turnstone_stun::{Key, Message};

use super::identity::{Identity, Origin};

/// How far the two servers' clocks may be apart, in seconds (RFC 7635 section 7).
const DELTA_SECS: u64 = 5;
/// AES-GCM's nonce and tag (RFC 5116 section 5).
const NONCE_LEN: usize = 12;
const TAG_LEN: usize = 16;
/// Timestamp and lifetime.
const TIMES_LEN: usize = 12;
/// The longest session key: what HMAC takes as it is, with much to spare.
const SESSION_KEY_MAX: usize = 256;
/// The shortest: what cannot be guessed.
const SESSION_KEY_MIN: usize = 16;
/// What coturn's client and server take of a session key, whatever its length, for HMAC-SHA1: as much as an MD5 key has. The RFC
/// takes it whole. The answer is signed as the request was.
const COTURN_KEY_LEN: usize = 16;
const SEALED_MAX: usize = 2 + SESSION_KEY_MAX + TIMES_LEN;
/// Seconds are in the upper 48 bits of a timestamp.
const FRACTION_BITS: u32 = 16;
/// Bytes of a token's digest that tell its user from others.
const USER_DIGEST_LEN: usize = 6;

/// How tokens are encrypted (RFC 7518 section 5.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TokenAlgorithm {
    /// AES in Galois/Counter Mode with a 256-bit key, which every server has.
    #[default]
    A256Gcm,
    /// With a 128-bit key.
    A128Gcm,
}

impl TokenAlgorithm {
    /// Bytes of a key. Of a longer one these are the first, as in RFC 7635 appendix A.
    pub fn key_len(self) -> usize {
        match self {
            Self::A256Gcm => 32,
            Self::A128Gcm => 16,
        }
    }
}

/// A key that tokens are sealed with. Never printed.
#[derive(Clone)]
pub struct TokenKey {
    id: Arc<str>,
    cipher: Cipher,
    /// Tells the key from others, and nothing else of it.
    digest: [u8; 32],
    /// Unix seconds from which on, and up to which, it opens tokens.
    valid: (u64, u64),
}

#[derive(Clone)]
enum Cipher {
    A256(Box<Aes256Gcm>),
    A128(Box<Aes128Gcm>),
}

/// A key with too few bytes for its algorithm: how many there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a key of {0} bytes is too short for its algorithm")]
pub struct TokenKeyTooShort(pub usize);

impl TokenKey {
    /// A key by its id, which is the USERNAME of those who have a token of it.
    ///
    /// # Errors
    /// There are too few bytes for the algorithm.
    pub fn new(id: &str, algorithm: TokenAlgorithm, bytes: &[u8]) -> Result<Self, TokenKeyTooShort> {
        let short = TokenKeyTooShort(bytes.len());
        let bytes = bytes.get(..algorithm.key_len()).ok_or(short)?;
        let cipher = match algorithm {
            TokenAlgorithm::A256Gcm => Cipher::A256(Box::new(Aes256Gcm::new_from_slice(bytes).map_err(|_| short)?)),
            TokenAlgorithm::A128Gcm => Cipher::A128(Box::new(Aes128Gcm::new_from_slice(bytes).map_err(|_| short)?)),
        };
        let digest = Sha256::digest(bytes).into();
        Ok(Self { id: id.into(), cipher, digest, valid: (0, u64::MAX) })
    }

    /// The same key, good only from one moment up to another, in Unix seconds; `None` is no bound.
    #[must_use]
    pub fn valid(self, not_before_unix: Option<u64>, not_after_unix: Option<u64>) -> Self {
        Self { valid: (not_before_unix.unwrap_or(0), not_after_unix.unwrap_or(u64::MAX)), ..self }
    }

    /// Whether it opens tokens at this moment.
    pub fn is_valid_at(&self, unix_secs: u64) -> bool {
        (self.valid.0..=self.valid.1).contains(&unix_secs)
    }

    /// The id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Makes a token as an authorization server does. `nonce` must never come twice with one key. `None` when the session key is
    /// longer or shorter than is taken.
    pub fn seal(&self, server_name: &str, nonce: [u8; NONCE_LEN], session: &SessionKey<'_>) -> Option<Vec<u8>> {
        let mut sealed = Zeroizing::new(Vec::with_capacity(SEALED_MAX));
        if !(SESSION_KEY_MIN..=SESSION_KEY_MAX).contains(&session.key.len()) {
            return None;
        }
        sealed.extend_from_slice(&u16::try_from(session.key.len()).ok()?.to_be_bytes());
        sealed.extend_from_slice(session.key);
        sealed.extend_from_slice(&(session.made_unix << FRACTION_BITS).to_be_bytes());
        sealed.extend_from_slice(&session.lifetime_secs.to_be_bytes());
        let (aad, text) = (server_name.as_bytes(), sealed.as_mut_slice());
        let tag = match &self.cipher {
            Cipher::A256(cipher) => cipher.encrypt_inout_detached(&nonce.into(), aad, text.into()).ok()?,
            Cipher::A128(cipher) => cipher.encrypt_inout_detached(&nonce.into(), aad, text.into()).ok()?,
        };
        Some([&(NONCE_LEN as u16).to_be_bytes()[..], &nonce, &sealed, &tag].concat())
    }

    /// Takes the seal off in place; whether it was this server's and nobody has changed it.
    fn unseal(&self, server_name: &str, nonce: [u8; NONCE_LEN], text: &mut [u8], tag: [u8; TAG_LEN]) -> bool {
        let aad = server_name.as_bytes();
        match &self.cipher {
            Cipher::A256(cipher) => cipher.decrypt_inout_detached(&nonce.into(), aad, text.into(), &tag.into()),
            Cipher::A128(cipher) => cipher.decrypt_inout_detached(&nonce.into(), aad, text.into(), &tag.into()),
        }
        .is_ok()
    }
}

impl PartialEq for TokenKey {
    fn eq(&self, other: &Self) -> bool {
        let cipher = |key: &Self| std::mem::discriminant(&key.cipher);
        (&self.id, cipher(self), self.digest, self.valid) == (&other.id, cipher(other), other.digest, other.valid)
    }
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenKey({:?}, ..)", self.id)
    }
}

/// What is in a token.
#[derive(Clone, Copy)]
pub struct SessionKey<'k> {
    /// The key that its requests are signed with, from 16 to 256 bytes.
    pub key: &'k [u8],
    /// When it was made, in Unix seconds.
    pub made_unix: u64,
    /// For how long it is good.
    pub lifetime_secs: u32,
}

/// Whose tokens are taken.
#[derive(Clone, Debug, Default)]
pub struct AccessTokens {
    /// The name by which authorization servers know this server, which THIRD-PARTY-AUTHORIZATION carries; a token is for it alone.
    pub server_name: String,
    /// The keys; none turns third-party authorization off.
    pub keys: Vec<TokenKey>,
}

impl AccessTokens {
    /// Whether any token is taken.
    pub fn is_on(&self) -> bool {
        !self.keys.is_empty()
    }

    /// Checks a request by its ACCESS-TOKEN and the id of the token's key, its USERNAME. Nothing is allocated for a token that the
    /// authorization server has not made: a forged one costs one look over its bytes.
    ///
    /// # Errors
    /// The reason, whose code is 401.
    pub(super) fn verify(
        &self,
        now: Now,
        message: &Message<'_>,
        key_id: &[u8],
        token: &[u8],
    ) -> Result<(Identity, Key), Reason> {
        let key = self.keys.iter().find(|key| key.id.as_bytes() == key_id).ok_or(Reason::UnknownTokenKey)?;
        if !key.is_valid_at(now.unix_secs) {
            return Err(Reason::TokenKeyExpired);
        }
        let mut text = Zeroizing::new([0; SEALED_MAX]);
        let session = self.open(key, token, &mut text)?;
        let left_secs = left_secs(now, &session).ok_or(Reason::TokenExpired)?;
        let candidates = [session.key, session.key.get(..COTURN_KEY_LEN).unwrap_or_default()].map(Key::short_term);
        let signed = candidates.into_iter().find(|mac_key| message.verify_integrity(mac_key));
        let mac_key = signed.ok_or(Reason::WrongSessionKey)?;
        let digest = Sha256::digest(token);
        let mut name = format!("{}/", key.id);
        digest.iter().take(USER_DIGEST_LEN).for_each(|byte| name.push_str(&format!("{byte:02x}")));
        let identity = Identity::new(Arc::clone(&key.id), User::token(name));
        let identity = identity.expiring(now.unix_secs.saturating_add(left_secs));
        Ok((identity.made_by(Origin::token(session.made_unix)), mac_key))
    }

    /// Says whether a token is good, and if not, why: for people.
    pub fn diagnose(&self, now: Now, token: &[u8]) -> TokenDiagnosis {
        let mut text = Zeroizing::new([0; SEALED_MAX]);
        for key in &self.keys {
            let Ok(session) = self.open(key, token, &mut text) else { continue };
            let key_id = key.id.to_string();
            return match left_secs(now, &session) {
                _ if !key.is_valid_at(now.unix_secs) => TokenDiagnosis::KeyExpired { key_id },
                Some(seconds_left) => TokenDiagnosis::Valid { key_id, seconds_left },
                None if session.made_unix > now.unix_secs => TokenDiagnosis::Future { key_id },
                None => TokenDiagnosis::Expired { key_id },
            };
        }
        TokenDiagnosis::Unreadable { server_name: self.server_name.clone() }
    }

    /// Whether there is a key of this id.
    pub(super) fn has_key(&self, id: &[u8]) -> bool {
        self.keys.iter().any(|key| key.id.as_bytes() == id)
    }

    /// Opens a token into `text`.
    ///
    /// # Errors
    /// It is not of the form (RFC 7635 section 6.2), or is sealed by another key or for another server.
    pub(super) fn open<'t>(
        &self,
        key: &TokenKey,
        token: &[u8],
        text: &'t mut [u8; SEALED_MAX],
    ) -> Result<SessionKey<'t>, Reason> {
        let (nonce, sealed, tag) = parts(token).ok_or(Reason::TokenMalformed)?;
        let text = text.get_mut(..sealed.len()).ok_or(Reason::TokenMalformed)?;
        text.copy_from_slice(sealed);
        if !key.unseal(&self.server_name, nonce, text, tag) {
            text.zeroize();
            return Err(Reason::TokenUnreadable);
        }
        session_in(text).ok_or(Reason::TokenMalformed)
    }
}

/// The nonce, what is sealed, and the tag.
fn parts(token: &[u8]) -> Option<([u8; NONCE_LEN], &[u8], [u8; TAG_LEN])> {
    let (nonce_len, rest) = token.split_first_chunk::<2>()?;
    if usize::from(u16::from_be_bytes(*nonce_len)) != NONCE_LEN {
        return None;
    }
    let (nonce, rest) = rest.split_first_chunk::<NONCE_LEN>()?;
    let (sealed, tag) = rest.split_last_chunk::<TAG_LEN>()?;
    Some((*nonce, sealed, *tag))
}

/// What an authorization server has sealed.
fn session_in(text: &[u8]) -> Option<SessionKey<'_>> {
    let (key_len, rest) = text.split_first_chunk::<2>()?;
    let (key, times) = rest.split_at_checked(usize::from(u16::from_be_bytes(*key_len)))?;
    let (made, lifetime) = times.split_first_chunk::<8>()?;
    let lifetime_secs = u32::from_be_bytes(lifetime.try_into().ok()?);
    let made_unix = u64::from_be_bytes(*made) >> FRACTION_BITS;
    (key.len() >= SESSION_KEY_MIN).then_some(SessionKey { key, made_unix, lifetime_secs })
}

/// What is to be said of a token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenDiagnosis {
    /// It is good.
    #[error("valid: of the key {key_id:?}, for {seconds_left} seconds more")]
    Valid {
        /// The key's id, to be sent as USERNAME.
        key_id: String,
        /// How long it is still good.
        seconds_left: u64,
    },
    /// Its time is over.
    #[error("not valid: it is of the key {key_id:?} and has expired")]
    Expired {
        /// The key's id.
        key_id: String,
    },
    /// It is from the future.
    #[error(
        "not valid: it is of the key {key_id:?}, made in the future: the clock here or at the authorization server is wrong"
    )]
    Future {
        /// The key's id.
        key_id: String,
    },
    /// Its key is not good yet, or any more.
    #[error(
        "not valid: its key {key_id:?} is not good at this moment (not-before and not-after in [[auth.token-keys]])"
    )]
    KeyExpired {
        /// The key's id.
        key_id: String,
    },
    /// No key opens it.
    #[error(
        "not valid: no key in [[auth.token-keys]] opens it for {server_name:?}: it is of another key or algorithm, or for another \
         server, or not whole"
    )]
    Unreadable {
        /// For whom it would have to be.
        server_name: String,
    },
}

/// For how long a token is still good: `lifetime + Delta - abs(RDnew - TS)`, and never longer than it was made for (RFC 7635 sections
/// 7 and 9).
fn left_secs(now: Now, session: &SessionKey<'_>) -> Option<u64> {
    let lifetime_secs = u64::from(session.lifetime_secs);
    let left = (lifetime_secs + DELTA_SECS).checked_sub(now.unix_secs.abs_diff(session.made_unix))?;
    (left > 0).then(|| left.min(lifetime_secs))
}

#[cfg(test)]
mod tests;
