//! Time-limited credentials (the "TURN REST API" scheme): username `expiry[:user]`, password base64(HMAC-SHA1(secret, username)).

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha1::{Digest, Sha1};
use zeroize::Zeroizing;

/// A timestamp from here on (the year 5138 in seconds, 1973 in milliseconds) is not in seconds.
pub(super) const NOT_SECONDS: u64 = 100_000_000_000;

/// How far ahead an expiry may be that is not to be told from a user's number: as long as `turnstone credentials` mints for.
const AMBIGUOUS_AFTER_SECS: u64 = 366 * 86_400;
/// Smaller numbers are no timestamps in use (the year 2001).
const TIMESTAMP_MIN: u64 = 1_000_000_000;

/// One shared secret. Never printed.
#[derive(Clone)]
pub struct SharedSecret {
    /// The name the operator gave it, for logs and `credentials verify`.
    pub id: String,
    /// The secret's bytes.
    pub bytes: Zeroizing<Vec<u8>>,
}

impl SharedSecret {
    /// A secret, as the service that mints credentials has it: bytes are taken as they are, not decoded.
    pub fn new(id: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Self {
        Self { id: id.into(), bytes: Zeroizing::new(bytes.into()) }
    }
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
    /// first `:` is not all digits; a user whose name is all digits cannot come first, it is taken for the timestamp:
    /// [`Self::is_ambiguous`] finds out where that would make the credential good for years.
    pub fn parse(username: &'a str) -> Option<Self> {
        let (before, after) = username.split_once(':').unwrap_or((username, ""));
        let (expires_unix, user) = match parse_timestamp(before) {
            Some(expires_unix) => (expires_unix, after),
            None => (parse_timestamp(after)?, before),
        };
        Some(Self { expires_unix, user })
    }

    /// Whether this may be `user:timestamp` of a user whose name is a number such as that of a telephone: the expiry as read
    /// is more than a year away, and the user as read is a timestamp that is not. Such a credential would live for years
    /// though it was minted for a day, so nobody accepts it.
    pub fn is_ambiguous(&self, now_unix: u64) -> bool {
        let far = now_unix.saturating_add(AMBIGUOUS_AFTER_SECS);
        self.expires_unix > far && parse_timestamp(self.user).is_some_and(|user| (TIMESTAMP_MIN..=far).contains(&user))
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

#[cfg(test)]
mod tests {
    use super::*;
    use turnstone_stun::{Key, PasswordAlgorithm};

    #[test]
    fn minted_passwords_and_keys_are_those_other_implementations_compute() {
        for (username, password, key) in [
            ("1735689600:alice", "HbvWA6hGDtdv3wflBolXLhvzs0w=", 0x15fe_1d29_1db1_4ef2_a00c_2065_59e9_d387_u128),
            ("1735689600", "vK3VkdJkUwA4MxbPUZFTbu9UJhk=", 0xb10c_2618_b587_2787_f320_660e_9f6e_7ca5),
        ] {
            let minted = mint(b"north", username);
            assert_eq!(*minted, password);
            let md5 = Key::long_term(PasswordAlgorithm::Md5, username.as_bytes(), b"example.org", minted.as_bytes());
            assert_eq!(md5.as_bytes(), key.to_be_bytes());
        }
    }

    #[test]
    fn secrets_of_any_length_give_the_hmac_of_rfc_2202() {
        let digest = |key: &[u8], data: &[u8]| hmac_sha1(key, data).map(|byte| format!("{byte:02x}")).concat();
        assert_eq!(digest(&[0x0b; 20], b"Hi There"), "b617318655057264e28bc0b6fb378c8ef146be00");
        assert_eq!(
            digest(&[0xaa; 80], b"Test Using Larger Than Block-Size Key - Hash Key First"),
            "aa4ae5e15272d00e95705637ce8a3b55ed402112"
        );
        let reference = |key: &[u8]| {
            let mut mac = Hmac::<Sha1>::new_from_slice(key).unwrap();
            mac.update(b"data");
            <[u8; 20]>::from(mac.finalize().into_bytes())
        };
        for len in [0, 1, 63, 64, 65, 200] {
            assert_eq!(hmac_sha1(&vec![9; len], b"data"), reference(&vec![9; len]), "{len}");
        }
    }

    #[test]
    fn usernames_are_read_as_coturn_reads_them() {
        let parse = |username| TimeLimited::parse(username).map(|parsed| (parsed.expires_unix, parsed.user));
        assert_eq!(parse("1735689600"), Some((1_735_689_600, "")));
        assert_eq!(parse("1735689600:alice"), Some((1_735_689_600, "alice")));
        assert_eq!(parse("1735689600:a:b"), Some((1_735_689_600, "a:b")));
        assert_eq!(parse("1735689600:42"), Some((1_735_689_600, "42")));
        assert_eq!(parse("1735689600:"), Some((1_735_689_600, "")));
        assert_eq!(parse("alice:1735689600"), Some((1_735_689_600, "alice")));
        assert_eq!(parse(":1735689600"), Some((1_735_689_600, "")));
    }

    #[test]
    fn usernames_without_a_timestamp_are_not_of_the_scheme() {
        for username in ["", ":", "alice", "alice:bob", "+1735689600", "-1:alice", "17e8", "99999999999999999999:a"] {
            assert_eq!(TimeLimited::parse(username), None, "{username}");
        }
    }

    #[test]
    fn a_number_before_a_timestamp_is_ambiguous_only_where_it_reads_as_a_far_expiry() {
        const NOW: u64 = 1_735_689_600;
        let ambiguous = |username: &str| TimeLimited::parse(username).unwrap().is_ambiguous(NOW);
        // A telephone's number and an expiry, to come or past.
        assert!(ambiguous("4915112345:1735776000") && ambiguous("49151123456:1735689000"));
        assert!(ambiguous("2012345678:1735776000") && ambiguous("9999999999:1234567890"));
        // The documented form, whatever number the user is.
        for username in ["1735776000:4915112345", "1735776000:1234567890", "1735776000:42", "1767225600:1735689600"] {
            assert!(!ambiguous(username), "{username}");
        }
        // Far on purpose: there is no other reading.
        for username in ["9999999999", "9999999999:42", "9999999999:alice", "9999999999:", "alice:9999999999"] {
            assert!(!ambiguous(username), "{username}");
        }
        // Read as expired, which is safe.
        assert!(!ambiguous("1234567890:1735776000"));
    }

    #[test]
    fn secret_is_never_printed() {
        let secret = SharedSecret::new("north", "hidden");
        assert_eq!(format!("{secret:?}"), r#"SharedSecret("north", ..)"#);
    }
}
