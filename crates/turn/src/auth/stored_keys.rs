//! The keys of a user whose password is not stored (RFC 8489 section 9.2.2), as coturn writes the one it knows.

use std::fmt;
use std::str::FromStr;

use secrecy::{ExposeSecret, SecretString};
use turnstone_stun::{Key, PasswordAlgorithm};
use zeroize::Zeroizing;

use super::password::{PrepareError, prepare};

/// The MD5 or the SHA-256 digest of `username:realm:password`, or both: as text `0x` and hexadecimal digits, the two apart by a comma.
/// coturn's `turnadmin -k` prints the MD5 one in this form. Never printed by `Debug`.
///
/// Whoever has a key can use it as its user in its realm; the password itself is not to be had from it but by guessing.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredKeys {
    md5: Option<Zeroizing<[u8; 16]>>,
    sha256: Option<Zeroizing<[u8; 32]>>,
}

/// Why a text is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoredKeysError {
    /// After `0x` there are other characters than hexadecimal digits, or another number of them.
    #[error(
        "the key after 0x is neither 32 hexadecimal digits (MD5) nor 64 (SHA-256); is it cut off? turnstone credentials hash makes one, and \
         a password must not be 0x and hexadecimal digits"
    )]
    Digits,
    /// Two keys by one algorithm, or more than two.
    #[error("there are two keys by one algorithm")]
    Twice,
}

impl StoredKeys {
    /// One or both of them; `None` of neither.
    pub fn new(md5: Option<[u8; 16]>, sha256: Option<[u8; 32]>) -> Option<Self> {
        (md5.is_some() || sha256.is_some())
            .then(|| Self { md5: md5.map(Zeroizing::new), sha256: sha256.map(Zeroizing::new) })
    }

    /// Both keys of a password, which is prepared as RFC 8265 OpaqueString asks, and so are name and realm.
    ///
    /// # Errors
    /// One of them is empty or has a character that is not allowed.
    pub fn of_password(username: &str, realm: &str, password: &str) -> Result<Self, PrepareError> {
        let password = SecretString::from(prepare(password)?);
        Ok(Self::derive(&prepare(username)?, &prepare(realm)?, &password))
    }

    /// As [`Self::of_password`], of what is prepared.
    pub(super) fn derive(username: &str, realm: &str, password: &SecretString) -> Self {
        let key = |algorithm| {
            let password = password.expose_secret().as_bytes();
            Key::long_term(algorithm, username.as_bytes(), realm.as_bytes(), password)
        };
        let (md5, sha256) = (key(PasswordAlgorithm::Md5), key(PasswordAlgorithm::Sha256));
        Self {
            md5: md5.as_bytes().try_into().ok().map(Zeroizing::new),
            sha256: sha256.as_bytes().try_into().ok().map(Zeroizing::new),
        }
    }

    /// Whether a text is meant as keys and not as a password: it begins with `0x` and has as many characters as a key, or nothing but
    /// hexadecimal digits, of which some were lost. coturn takes all that begins with `0x` for a key.
    pub fn is_meant(text: &str) -> bool {
        let is_one = |digits: &str| {
            let is_hex = || digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            matches!(digits.len(), 32 | 64) || !digits.is_empty() && is_hex()
        };
        text.split(',').all(|key| key.strip_prefix("0x").is_some_and(is_one))
    }

    /// The MD5 key.
    pub fn md5(&self) -> Option<&[u8; 16]> {
        self.md5.as_deref()
    }

    /// The SHA-256 key.
    pub fn sha256(&self) -> Option<&[u8; 32]> {
        self.sha256.as_deref()
    }

    /// The keys as they are written.
    pub fn to_text(&self) -> Zeroizing<String> {
        let keys = [self.md5().map(<[u8; 16]>::as_slice), self.sha256().map(<[u8; 32]>::as_slice)];
        let keys: Vec<_> = keys.into_iter().flatten().map(hex).collect();
        Zeroizing::new(keys.iter().map(|key| key.as_str()).collect::<Vec<_>>().join(","))
    }
}

impl FromStr for StoredKeys {
    type Err = StoredKeysError;

    fn from_str(text: &str) -> Result<Self, StoredKeysError> {
        let mut keys = Self { md5: None, sha256: None };
        for key in text.split(',') {
            let digits = key.strip_prefix("0x").ok_or(StoredKeysError::Digits)?.as_bytes();
            let before = match digits.len() {
                32 => keys.md5.replace(read_hex(digits).ok_or(StoredKeysError::Digits)?).is_some(),
                64 => keys.sha256.replace(read_hex(digits).ok_or(StoredKeysError::Digits)?).is_some(),
                _ => return Err(StoredKeysError::Digits),
            };
            if before {
                return Err(StoredKeysError::Twice);
            }
        }
        Ok(keys)
    }
}

impl fmt::Debug for StoredKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoredKeys(md5: {}, sha256: {})", self.md5.is_some(), self.sha256.is_some())
    }
}

fn read_hex<const N: usize>(digits: &[u8]) -> Option<Zeroizing<[u8; N]>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let mut bytes = Zeroizing::new([0; N]);
    let (pairs, _) = digits.as_chunks::<2>();
    for (byte, &[high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = u8::try_from(digit(high)? << 4 | digit(low)?).ok()?;
    }
    Some(bytes)
}

fn hex(bytes: &[u8]) -> Zeroizing<String> {
    let digit = |half: u8| char::from_digit(half.into(), 16).unwrap_or_default();
    let digits = bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]);
    Zeroizing::new("0x".chars().chain(digits).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8489 section 9.2.2.
    const MD5: &str = "0x8493fbc53ba582fb4c044c456bdc40eb";

    #[test]
    fn the_key_of_the_rfc_is_derived_read_and_written() {
        let keys = StoredKeys::of_password("user", "realm", "pass").unwrap();
        let text = keys.to_text();
        assert!(text.starts_with(MD5) && text.len() == 34 + 1 + 66, "{}", *text);
        assert_eq!(text.parse(), Ok(keys.clone()));
        let md5: StoredKeys = MD5.to_uppercase().replace("0X", "0x").parse().unwrap();
        assert_eq!((md5.md5(), md5.sha256()), (keys.md5(), None));
        let (first, second) = text.split_once(',').unwrap();
        assert_eq!(format!("{second},{first}").parse(), Ok(keys), "in either order");
    }

    #[test]
    fn what_is_no_key_is_refused_and_a_password_is_not_taken_for_one() {
        for text in ["", "0x", "0x12", &MD5[2..], &MD5.replace('8', "g"), &format!("{MD5},"), &MD5.replace('8', "+")] {
            assert_eq!(text.parse::<StoredKeys>(), Err(StoredKeysError::Digits), "{text}");
        }
        assert_eq!(format!("{MD5},{MD5}").parse::<StoredKeys>(), Err(StoredKeysError::Twice));
        assert!(StoredKeys::is_meant(MD5) && StoredKeys::is_meant(&MD5.replace('8', "g")));
        for len in [3, 7, 18, 26, 33, 35, 65] {
            let cut = format!("{MD5}{}", &MD5[2..]).chars().take(len).collect::<String>();
            assert!(StoredKeys::is_meant(&cut) && cut.parse::<StoredKeys>().is_err(), "{cut}");
        }
        for password in ["", "0x", "0xsecret", "0xdeadbeefg", "wonderland", &MD5[2..], &format!("{MD5},x")] {
            assert!(!StoredKeys::is_meant(password), "{password}");
        }
    }

    #[test]
    fn keys_are_never_printed() {
        let printed = format!("{:?}", MD5.parse::<StoredKeys>().unwrap());
        assert_eq!(printed, "StoredKeys(md5: true, sha256: false)");
    }
}
