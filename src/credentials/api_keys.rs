//! The keys of those who may ask for credentials: found by their hash, in the same time whether there is one or not.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::config::{ApiKey, Origin};
use crate::policy::RateLimit;

/// What keys begin with, so that who finds one, a person or a scanner of repositories, knows what it is.
pub(crate) const PREFIX: &str = "tsk_";
const RANDOM_BYTES: usize = 32;
const SECOND_NANOS: u64 = 1_000_000_000;

/// A new key, as it is given to whoever may ask. The configuration has its hash.
pub(crate) struct ApiKeyText(Zeroizing<String>);

impl ApiKeyText {
    /// A key that nobody has.
    ///
    /// # Errors
    /// The system has no randomness.
    pub(crate) fn random() -> Result<Self, getrandom::Error> {
        let mut random = Zeroizing::new([0; RANDOM_BYTES]);
        getrandom::fill(random.as_mut_slice())?;
        let mut text = Zeroizing::new(PREFIX.to_owned());
        URL_SAFE_NO_PAD.encode_string(random.as_slice(), &mut text);
        Ok(Self(text))
    }

    /// A key that there is already, such as the token of an account elsewhere. `None` if it is too short to be random, or fits
    /// into no header.
    pub(crate) fn existing(text: Zeroizing<String>) -> Option<Self> {
        (text.len() >= 16 && text.bytes().all(|byte| byte.is_ascii_graphic())).then_some(Self(text))
    }

    /// The key.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }

    /// `sha256` of the configuration.
    pub(crate) fn sha256_text(&self) -> String {
        Sha256::digest(self.0.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// The keys of a configuration.
pub(super) struct ApiKeys(Vec<KnownKey>);

/// A key, and how much has been asked for with it.
pub(super) struct KnownKey {
    pub(super) bounds: ApiKey,
    paid_until_nanos: AtomicU64,
}

impl ApiKeys {
    pub(super) fn new(keys: &[ApiKey]) -> Self {
        let known = |bounds: &ApiKey| KnownKey { bounds: bounds.clone(), paid_until_nanos: AtomicU64::new(0) };
        Self(keys.iter().map(known).collect())
    }

    /// The key that these bytes are. All are looked at, whichever it is.
    pub(super) fn find(&self, given: &[u8]) -> Option<&KnownKey> {
        let hash = Sha256::digest(given);
        let mut found = None;
        for key in &self.0 {
            if key.bounds.sha256.ct_eq(hash.as_slice()).into() {
                found = Some(key);
            }
        }
        found
    }

    /// The key of an id.
    pub(super) fn by_id(&self, id: &str) -> Option<&KnownKey> {
        self.0.iter().find(|key| key.bounds.id == id)
    }

    /// Whether pages of an origin may ask with one of the keys.
    pub(super) fn any_is_for(&self, origin: &str) -> bool {
        self.0.iter().any(|key| key.is_for(origin))
    }
}

impl KnownKey {
    /// Whether pages of an origin may ask with it.
    pub(super) fn is_for(&self, origin: &str) -> bool {
        self.bounds.origins.iter().any(|known| match known {
            Origin::Any => true,
            Origin::One(known) => known == origin,
        })
    }

    /// Takes one request out of its budget; else how many seconds it has to wait.
    pub(super) fn take(&self, now_micros: u64) -> Result<(), u64> {
        let Some(RateLimit { per_second, burst }) = self.bounds.rate else { return Ok(()) };
        let each_nanos = SECOND_NANOS / u64::from(per_second.max(1));
        let now_nanos = now_micros.saturating_mul(1000);
        let latest_nanos = now_nanos.saturating_add(each_nanos.saturating_mul(u64::from(burst)));
        let paid = self.paid_until_nanos.fetch_update(Relaxed, Relaxed, |until_nanos| {
            let paid = until_nanos.max(now_nanos).saturating_add(each_nanos);
            (paid <= latest_nanos).then_some(paid)
        });
        let wait = |until_nanos: u64| until_nanos.saturating_add(each_nanos).saturating_sub(latest_nanos);
        paid.map(drop).map_err(|until_nanos| wait(until_nanos).div_ceil(SECOND_NANOS).max(1))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    pub(in crate::credentials) fn key(id: &str, text: &str) -> ApiKey {
        ApiKey {
            id: id.to_owned(),
            sha256: Sha256::digest(text).into(),
            ttl_max: Duration::from_secs(86_400),
            user_prefix: String::new(),
            origins: Vec::new(),
            realms: Vec::new(),
            rate: None,
        }
    }

    #[test]
    fn a_new_key_is_found_by_what_the_configuration_has_of_it() {
        let (one, other) = (ApiKeyText::random().unwrap(), ApiKeyText::random().unwrap());
        assert!(one.expose().starts_with(PREFIX) && one.expose().len() == PREFIX.len() + 43);
        assert_ne!(one.expose(), other.expose());
        let keys = ApiKeys::new(&[key("a", other.expose()), key("b", one.expose())]);
        let found = |text: &str| keys.find(text.as_bytes()).map(|key| key.bounds.id.as_str());
        assert_eq!(found(one.expose()), Some("b"));
        assert_eq!(found(other.expose()), Some("a"));
        for wrong in ["", PREFIX, &one.expose()[1..], &format!("{} ", one.expose()), &one.sha256_text()] {
            assert_eq!(found(wrong), None);
        }
        assert_eq!(one.sha256_text().len(), 64);
        let text = |text: &str| ApiKeyText::existing(Zeroizing::new(text.to_owned())).is_some();
        assert!(text("0123456789abcdef") && !text("0123456789abcde") && !text("0123456789 abcdef"));
    }

    #[test]
    fn a_rate_lets_a_burst_through_and_then_one_at_a_time_and_says_how_long_to_wait() {
        let rate = Some(RateLimit { per_second: 2, burst: 3 });
        let keys = ApiKeys::new(&[ApiKey { rate, ..key("a", "a") }, key("b", "b")]);
        let (limited, unlimited) = (keys.find(b"a").unwrap(), keys.find(b"b").unwrap());
        let start = 5_000_000;
        for _ in 0..3 {
            assert_eq!(limited.take(start), Ok(()));
        }
        assert_eq!(limited.take(start), Err(1));
        assert_eq!(limited.take(start + 499_999), Err(1));
        assert_eq!(limited.take(start + 500_000), Ok(()));
        assert_eq!(limited.take(start + 500_000), Err(1), "the refused ones have cost nothing");
        assert!((0..1000).all(|_| unlimited.take(start) == Ok(())));
    }
}
