//! The keys of those who may ask for credentials: found by their hash, in the same time whether there is one or not.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::config::{ApiKey, Origin};
use crate::policy::{RateLimit, RateLimiter};

/// What keys begin with, so that who finds one, a person or a scanner of repositories, knows what it is.
pub(crate) const PREFIX: &str = "tsk_";
const RANDOM_BYTES: usize = 32;
/// Of what a key in a page may be used, one network has this part.
const NETWORKS: u32 = 10;
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
    networks: Option<RateLimiter>,
}

impl ApiKeys {
    /// `by_network`: whether networks can be told apart.
    pub(super) fn new(keys: &[ApiKey], by_network: bool) -> Self {
        let known = |bounds: &ApiKey| {
            let mut key = KnownKey { bounds: bounds.clone(), paid_until_nanos: AtomicU64::new(0), networks: None };
            let share = |of: u32| (of / NETWORKS).max(1);
            let of_network =
                |rate: RateLimit| RateLimit { per_second: share(rate.per_second), burst: share(rate.burst) };
            let limit = bounds.rate.filter(|_| by_network && key.is_public()).map(of_network);
            key.networks = limit.map(|limit| RateLimiter::new(Some(limit), Arc::default()));
            key
        };
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

    pub(super) fn iter(&self) -> impl Iterator<Item = &KnownKey> {
        self.0.iter()
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

    /// Whether everybody has it who opens a page.
    pub(super) fn is_public(&self) -> bool {
        !self.bounds.origins.is_empty()
    }

    /// Takes one request out of a network's part of it, where it is in a page: one address must not take it from everybody. What
    /// comes from this host may be of any network.
    pub(super) fn take_of_network(&self, from: Option<IpAddr>, now_micros: u64) -> bool {
        let from = from.filter(|from| !from.to_canonical().is_loopback());
        let (Some(networks), Some(from)) = (&self.networks, from) else { return true };
        networks.allow(now_micros, from)
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
        let keys = ApiKeys::new(&[key("a", other.expose()), key("b", one.expose())], true);
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
        let keys = ApiKeys::new(&[ApiKey { rate, ..key("a", "a") }, key("b", "b")], true);
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

    #[test]
    fn one_network_has_a_tenth_of_a_key_in_a_page_and_leaves_others_theirs() {
        let rate = Some(RateLimit { per_second: 50, burst: 200 });
        let page = ApiKey { rate, origins: vec![Origin::Any], ..key("page", "page") };
        let keys = [page, ApiKey { rate, ..key("program", "program") }];
        let ip = |text: &str| Some(text.parse().unwrap());
        let start = 5_000_000;
        let taken = |key: &KnownKey, from: Option<IpAddr>, now: u64| {
            (0..1000).take_while(|_| key.take_of_network(from, now) && key.take(now).is_ok()).count()
        };
        let known = ApiKeys::new(&keys, true);
        let page = known.by_id("page").unwrap();
        assert_eq!(taken(page, ip("192.0.2.1"), start), 20);
        assert_eq!(taken(page, ip("::ffff:192.0.2.9"), start), 0, "the same network");
        assert_eq!(taken(page, ip("192.0.2.1"), start + 1_000_000), 5);
        assert_eq!(taken(page, ip("198.51.100.1"), start + 1_000_000), 20);
        assert_eq!(taken(page, ip("2001:db8::1"), start + 1_000_000), 20);
        let of_program = known.by_id("program").unwrap();
        assert_eq!(taken(of_program, ip("192.0.2.1"), start), 200);
        // Where one host stands for all, nobody is told from others.
        for from in [None, ip("127.0.0.1"), ip("::1"), ip("::ffff:127.0.0.1")] {
            assert!((0..100).all(|_| page.take_of_network(from, start)), "{from:?}");
        }
        let known = ApiKeys::new(&keys, false);
        assert_eq!(taken(known.by_id("page").unwrap(), ip("192.0.2.1"), start), 200);
    }
}
