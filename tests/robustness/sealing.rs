//! Access tokens as only who has the key can make them, whatever is inside. Shared by the robustness tests and the fuzz target.

use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes256Gcm, KeyInit};
use turnstone::auth::{AccessTokens, TokenAlgorithm, TokenKey};
use turnstone::clock::Now;

const KEY: [u8; 32] = [7; 32];
const SERVER: &str = "turn.example.org";
pub(crate) const NOW: Now = Now { micros: 0, unix_secs: 1_800_000_000 };

/// The tokens that are taken.
pub(crate) fn tokens() -> AccessTokens {
    let keys = vec![
        TokenKey::new("small", TokenAlgorithm::A128Gcm, &KEY).unwrap(),
        TokenKey::new("large", TokenAlgorithm::A256Gcm, &KEY).unwrap(),
    ];
    AccessTokens { server_name: SERVER.to_owned(), keys }
}

/// A token with these bytes under its seal.
pub(crate) fn seal(inside: &[u8]) -> Vec<u8> {
    let (nonce, mut text) = ([3; 12], inside.to_vec());
    let cipher = Aes256Gcm::new_from_slice(&KEY).unwrap();
    let tag = cipher.encrypt_inout_detached(&nonce.into(), SERVER.as_bytes(), text.as_mut_slice().into()).unwrap();
    [&[0, 12][..], &nonce, &text, &tag].concat()
}

/// For how many seconds bytes under a seal are good, read with other means than the server's (RFC 7635 sections 6.2 and 7).
pub(crate) fn seconds_left(inside: &[u8]) -> Option<u64> {
    let key_len = usize::from(*inside.first()?) << 8 | usize::from(*inside.get(1)?);
    if inside.len() != key_len + 14 || !(16..=256).contains(&key_len) {
        return None;
    }
    let number = |range: std::ops::Range<usize>| {
        inside[range].iter().fold(0_i128, |number, byte| number << 8 | i128::from(*byte))
    };
    let (made, lifetime) = (number(key_len + 2..key_len + 8), number(key_len + 10..key_len + 14));
    let left = lifetime + 5 - (i128::from(NOW.unix_secs) - made).abs();
    (left > 0).then(|| left.min(lifetime) as u64)
}
