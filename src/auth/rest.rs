//! Time-limited credentials (the "TURN REST API" scheme): username `expiry[:user]`, password base64(HMAC-SHA1(secret, username)).

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha1::{Digest, Sha1};
use zeroize::Zeroizing;

/// One shared secret. Never printed.
#[derive(Clone)]
pub struct SharedSecret {
    /// The name the operator gave it, for logs and `credentials verify`.
    pub id: String,
    /// The secret's bytes.
    pub bytes: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for SharedSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedSecret({:?}, ..)", self.id)
    }
}

/// A username of the scheme, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeLimited<'a> {
    /// When the credential expires, seconds since the Unix epoch.
    pub expires_unix: u64,
    /// The part beside the timestamp, or the empty string; quotas count on it.
    pub user: &'a str,
}

impl<'a> TimeLimited<'a> {
    /// Reads a username. `None` when neither side of the first `:` is a timestamp.
    ///
    /// The form is `timestamp` or `timestamp:user`. As coturn does, `user:timestamp` is read too when the part before the
    /// first `:` is not all digits; a user whose name is all digits cannot come first, it would be taken for the timestamp.
    pub fn parse(username: &'a str) -> Option<Self> {
        let (before, after) = username.split_once(':').unwrap_or((username, ""));
        let (expires_unix, user) = match parse_timestamp(before) {
            Some(expires_unix) => (expires_unix, after),
            None => (parse_timestamp(after)?, before),
        };
        Some(Self { expires_unix, user })
    }
}

/// The password of a username under a secret: 28 characters of base64.
pub fn mint(secret: &[u8], username: &str) -> Zeroizing<String> {
    let password = password_of(secret, username.as_bytes());
    Zeroizing::new(password.iter().copied().map(char::from).collect())
}

/// As [`mint`], without heap.
pub(super) fn password_of(secret: &[u8], username: &[u8]) -> Zeroizing<[u8; 28]> {
    let mut password = Zeroizing::new([0; 28]);
    // 20 bytes make 28 characters: the output fits.
    let _ = STANDARD.encode_slice(hmac_sha1(secret, username), &mut *password);
    password
}

pub(super) fn hmac_sha1(secret: &[u8], data: &[u8]) -> [u8; 20] {
    // The key as HMAC uses it: one block of 64 bytes, a longer key by its digest (RFC 2104 section 2).
    let mut block = Zeroizing::new([0; 64]);
    if secret.len() <= block.len() {
        block.iter_mut().zip(secret).for_each(|(to, from)| *to = *from);
    } else {
        block.iter_mut().zip(Sha1::digest(secret)).for_each(|(to, from)| *to = from);
    }
    let mut mac = Hmac::<Sha1>::new((&*block).into());
    mac.update(data);
    mac.finalize().into_bytes().into()
}

fn parse_timestamp(text: &str) -> Option<u64> {
    // `parse` alone would also take a sign.
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}
