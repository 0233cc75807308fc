//! What requests are answered by: the keys, secrets and URLs of one configuration.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::api_keys::{ApiKeys, KnownKey};
use super::issue::{About, Issued, LimitTexts, UsernameRules, Wish};
use super::minted::Minted;
use super::refused::Refused;
use super::request::Asked;
use super::urls::{URLS_MAX, few, is_stun, offered_urls, stun_urls};
use crate::addr::Transport;
use crate::auth::{Identity, Revocation, Revocations, SharedSecret, TimeLimited, UsernameLimits, mint};
use crate::config::{Config, CredentialsApi, Shape, WaysIn, revocation_of, revocation_of_user};
use crate::policy::{AnswerBudgets, PolicyName, RateLimit, RateLimiter};
use crate::user::User;

/// How many times of what a network may ask for it may connect: what is between them is told why it gets nothing.
const FLOOD_TIMES: u32 = 4;
/// By how much a credential's life may be shorter than was asked for, to be another one than those made before: so many seconds, and this
/// part of it.
const SHORTER_SECS_MAX: u64 = 30;
const SHORTER_PART: u64 = 20;

/// What outlives a reload: what networks have asked for, how often they have connected, and which usernames have been made.
pub(super) struct Lasting {
    requests: Arc<AnswerBudgets>,
    connections: Arc<AnswerBudgets>,
    minted: Arc<Minted>,
    /// What is revoked in the server.
    revocations: Arc<Revocations>,
}

impl Lasting {
    pub(super) fn new(revocations: Arc<Revocations>) -> Self {
        Self { requests: Arc::default(), connections: Arc::default(), minted: Arc::default(), revocations }
    }
}

/// An immutable snapshot; a reload makes another one.
pub(super) struct Issuer {
    keys: ApiKeys,
    default_realm: String,
    /// The secret that each realm's credentials are made with.
    secrets: HashMap<String, SharedSecret>,
    /// The realms in which limits in usernames are read.
    with_username_limits: HashSet<String>,
    policies: Vec<PolicyName>,
    /// The URLs at which each realm's credentials are good.
    urls: HashMap<String, Urls>,
    shapes: Vec<Shape>,
    pub(super) forwarded_for: bool,
    pub(super) test_page: bool,
    requests: RateLimiter,
    connections: RateLimiter,
    minted: Arc<Minted>,
    revocations: Arc<Revocations>,
}

/// Where credentials are good.
#[derive(Debug, Default)]
pub(super) struct Urls {
    /// What is handed out in our own words.
    pub(super) own: Vec<String>,
    /// What is handed out in the words of others, of TURN alone.
    pub(super) turn: Vec<String>,
    /// Likewise of STUN alone.
    pub(super) stun: Vec<String>,
}

impl Urls {
    fn new(own: Vec<String>, are_given: bool) -> Self {
        let (mut stun, mut turn): (Vec<_>, Vec<_>) = own.iter().cloned().partition(|url| is_stun(url));
        if !are_given {
            stun = stun_urls(&own);
            turn = few(turn, URLS_MAX.saturating_sub(stun.len()));
        }
        Self { own, turn, stun }
    }

    /// Both of these, STUN first.
    pub(super) fn all(&self) -> Vec<String> {
        [&*self.stun, &*self.turn].concat()
    }
}

/// What is asked for with a key.
pub(super) struct KeyWish<'w> {
    pub(super) user: &'w str,
    pub(super) ttl_secs: u64,
    /// The key's first one, if nobody says.
    pub(super) realm: Option<&'w str>,
    pub(super) limits: LimitTexts<'w>,
}

impl Issuer {
    /// `listeners` are those of the configuration, with their real ports.
    pub(super) fn new(
        api: &CredentialsApi,
        config: &Config,
        listeners: &[(Transport, SocketAddr)],
        lasting: &Lasting,
    ) -> Self {
        let auth = &config.auth;
        let of_auth = (&auth.realm, &auth.secrets);
        let realms = std::iter::once(of_auth).chain(config.realms.iter().map(|realm| (&realm.name, &realm.secrets)));
        let secrets = realms.filter_map(|(name, secrets)| {
            let secrets = config.with_stored(name, secrets);
            Some((name.clone(), secrets.into_iter().next()?))
        });
        let in_realms = config.realms.iter().map(|of| (&of.name, of.username_limits.unwrap_or(auth.username_limits)));
        let with_username_limits = std::iter::once((&auth.realm, auth.username_limits)).chain(in_realms);
        let with_username_limits = with_username_limits.filter(|(_, are_read)| *are_read);
        let ways = WaysIn::new(config);
        let mut urls = HashMap::new();
        for realm in std::iter::once(None).chain(config.realms.iter().map(Some)) {
            let (name, given) = realm.map_or((&auth.realm, &auth.urls), |realm| (&realm.name, &realm.urls));
            urls.insert(name.clone(), Urls::new(offered_urls(&ways, listeners, realm), !given.is_empty()));
        }
        let of_connections = api.per_network.map(|RateLimit { per_second, burst }| RateLimit {
            per_second: per_second.saturating_mul(FLOOD_TIMES),
            burst: burst.saturating_mul(FLOOD_TIMES),
        });
        Self {
            keys: ApiKeys::new(&api.keys, api.per_network.is_some()),
            default_realm: auth.realm.clone(),
            secrets: secrets.collect(),
            with_username_limits: with_username_limits.map(|(name, _)| name.clone()).collect(),
            policies: config.peer_policies.iter().map(|(name, _)| *name).collect(),
            urls,
            shapes: api.shapes.clone(),
            forwarded_for: api.forwarded_for,
            test_page: api.test_page,
            requests: RateLimiter::new(api.per_network, Arc::clone(&lasting.requests)),
            connections: RateLimiter::new(of_connections, Arc::clone(&lasting.connections)),
            minted: Arc::clone(&lasting.minted),
            revocations: Arc::clone(&lasting.revocations),
        }
    }

    /// Whether a connection from there is not one of a flood. Behind a proxy all of them come from there.
    pub(super) fn admits(&self, from: Option<IpAddr>, now_micros: u64) -> bool {
        self.forwarded_for || from.is_none_or(|from| self.connections.allow(now_micros, from))
    }

    /// The URLs at which a credential made with a key is good, in this realm or the key's first one.
    pub(super) fn urls(&self, key: &KnownKey, realm: Option<&str>) -> &Urls {
        static NONE: Urls = Urls { own: Vec::new(), turn: Vec::new(), stun: Vec::new() };
        let realm = realm.or_else(|| self.realms_of(key).first().map(String::as_str));
        realm.and_then(|realm| self.urls.get(realm)).unwrap_or(&NONE)
    }

    pub(super) fn shapes(&self) -> &[Shape] {
        &self.shapes
    }

    /// Whether pages of an origin may ask with one of the keys.
    pub(super) fn any_key_is_for(&self, origin: &str) -> bool {
        self.keys.any_is_for(origin)
    }

    /// Takes a request out of the budget of a network, if there is one.
    pub(super) fn take(&self, from: Option<IpAddr>, now_micros: u64) -> Result<(), Refused> {
        match from.is_none_or(|from| self.requests.allow(now_micros, from)) {
            true => Ok(()),
            false => Err(Refused::network_rate()),
        }
    }

    /// The key that is given, if its pages may ask, and not too often.
    pub(super) fn authenticate(
        &self,
        given: &[u8],
        origin: Option<&str>,
        asked: &Asked<'_>,
    ) -> Result<&KnownKey, Refused> {
        let key = self.keys.find(given).ok_or_else(|| {
            Refused::unauthorized("nobody has this key; turnstone credentials key makes one for [[credentials.keys]]")
        })?;
        self.admit(key, origin, asked)?;
        Ok(key)
    }

    /// The same for a key that is named beside it.
    pub(super) fn authenticate_as(
        &self,
        given: &[u8],
        id: &str,
        origin: Option<&str>,
        asked: &Asked<'_>,
    ) -> Result<&KnownKey, Refused> {
        let key = self.keys.find(given).filter(|key| key.bounds.id == id).ok_or_else(|| {
            Refused::unauthorized("the key is not the one of this id; ids are those of [[credentials.keys]], and turnstone credentials key makes a new key")
        })?;
        self.admit(key, origin, asked)?;
        Ok(key)
    }

    /// Fails unless pages of an origin may ask with a key, and that not too often.
    pub(super) fn admit(&self, key: &KnownKey, origin: Option<&str>, asked: &Asked<'_>) -> Result<(), Refused> {
        asked.has_secret_key.set(key.bounds.origins.is_empty());
        if let Some(origin) = origin.filter(|origin| !key.is_for(origin)) {
            let id = &key.bounds.id;
            let message = format!("the key {id:?} is not for pages of {origin:?}; add that to its origins");
            return Err(Refused::origin(message));
        }
        if !key.take_of_network(asked.address, asked.now_micros) {
            return Err(Refused::key_rate_of_network(&key.bounds.id));
        }
        key.take(asked.now_micros).map_err(|secs| Refused::key_rate(&key.bounds.id, secs))
    }

    /// The user that is named, or one that nobody is yet, where services have credentials without a name.
    ///
    /// # Errors
    /// The system has no randomness.
    pub(super) fn user(&self, key: &KnownKey, named: Option<&str>) -> Result<String, Refused> {
        match named.filter(|named| !named.is_empty()) {
            Some(named) => Ok(named.to_owned()),
            None => Ok(format!("{}{}", key.bounds.user_prefix, random_name()?)),
        }
    }

    /// What shows that a username was made with a key, to who has nothing but the username: for shapes that fetch it again.
    pub(super) fn seal(&self, key: &KnownKey, username: &str) -> Option<[u8; 32]> {
        let secret = self.secrets.get(self.realms_of(key).first()?)?;
        let mut mac = Hmac::<Sha256>::new_from_slice(&secret.bytes).ok()?;
        // Passwords are of another hash: neither can be taken for the other.
        [b"turnstone fetch\0", key.bounds.id.as_bytes(), b"\0", username.as_bytes()]
            .iter()
            .for_each(|part| mac.update(part));
        Some(mac.finalize().into_bytes().into())
    }

    /// The password of a username with the right seal, and the key that it was made with, until it expires or is revoked.
    pub(super) fn sealed_credential(
        &self,
        id: &str,
        username: &str,
        seal: &[u8],
        now_unix: u64,
    ) -> Option<(&KnownKey, Zeroizing<String>)> {
        let key = self.keys.by_id(id)?;
        let is_sealed: bool = self.seal(key, username)?.ct_eq(seal).into();
        let realm = self.realms_of(key).first()?;
        let secret = self.secrets.get(realm)?;
        let parsed = TimeLimited::parse(self.without_limits(realm, username));
        let is_live = parsed.is_some_and(|parsed| {
            parsed.expires_unix > now_unix && !self.is_revoked(realm, secret, username, parsed, now_unix)
        });
        (is_sealed && is_live).then(|| (key, mint(&secret.bytes, username)))
    }

    /// What revokes a credential that a key can have made: in its first realm, of its users, and good for no longer than it allows.
    /// A key in a page is anybody's, and revokes nothing.
    pub(super) fn revocation(&self, key: &KnownKey, username: &str, now_unix: u64) -> Result<Revocation, Refused> {
        let bounds = &key.bounds;
        may_revoke(key)?;
        let parsed = TimeLimited::parse(UsernameLimits::plain(username));
        let latest_unix = now_unix.saturating_add(bounds.ttl_max.as_secs());
        let is_its = |of: &TimeLimited<'_>| of.user.starts_with(&bounds.user_prefix) && of.expires_unix <= latest_unix;
        if !parsed.as_ref().is_some_and(is_its) {
            let message = format!("{username:?} is no username of a credential that this key can have made");
            return Err(Refused::out_of_bounds("username_not_allowed", message));
        }
        revocation_of(username, self.revoked_realm(key), now_unix).map_err(Refused::bad_request)
    }

    /// What revokes all credentials of a user that keys can have made by now in a key's first realm: this key, or another one that is for
    /// the user, too, and may make them live longer.
    pub(super) fn revocation_of_user(&self, key: &KnownKey, user: &str, now_unix: u64) -> Result<Revocation, Refused> {
        may_revoke(key)?;
        may_name(key, user)?;
        let realm = self.realms_of(key).first();
        if realm.is_some_and(|realm| self.without_limits(realm, user) != user) {
            let message = format!("{user:?} is the name of no user: a semicolon begins the limits of a username");
            return Err(Refused::bad_request(message));
        }
        let makes = |other: &&KnownKey| {
            let realms = self.realms_of(other);
            user.starts_with(&other.bounds.user_prefix) && realm.is_some_and(|realm| realms.contains(realm))
        };
        let lifetimes = self.keys.iter().filter(makes).map(|other| other.bounds.ttl_max.as_secs());
        let lifetime_secs = lifetimes.max().unwrap_or(key.bounds.ttl_max.as_secs());
        revocation_of_user(user, lifetime_secs, self.revoked_realm(key), now_unix).map_err(Refused::bad_request)
    }

    /// The first realm of a key, as revocations name it.
    fn revoked_realm(&self, key: &KnownKey) -> Option<Arc<str>> {
        self.label_of(self.realms_of(key).first()?)
    }

    /// What a realm is called among users: the default one is nothing.
    fn label_of(&self, realm: &str) -> Option<Arc<str>> {
        (realm != self.default_realm).then(|| realm.into())
    }

    /// A username without its limits, if they are read in the realm.
    fn without_limits<'n>(&self, realm: &str, username: &'n str) -> &'n str {
        if self.with_username_limits.contains(realm) { UsernameLimits::plain(username) } else { username }
    }

    /// Whether the server would refuse a credential that is good otherwise.
    fn is_revoked(
        &self,
        realm: &str,
        secret: &SharedSecret,
        username: &str,
        parsed: TimeLimited<'_>,
        now_unix: u64,
    ) -> bool {
        if self.revocations.is_empty() {
            return false;
        }
        let user = User::time_limited(parsed.user).in_realm(self.label_of(realm));
        let identity = Identity::of_time_limited(username.into(), user, parsed.expires_unix, &secret.id);
        self.revocations.covers(&identity, now_unix)
    }

    fn realms_of<'k>(&'k self, key: &'k KnownKey) -> &'k [String] {
        match key.bounds.realms.as_slice() {
            [] => std::slice::from_ref(&self.default_realm),
            realms => realms,
        }
    }

    /// Makes a credential within the bounds of a key.
    pub(super) fn issue(&self, key: &KnownKey, wish: &KeyWish<'_>, asked: &Asked<'_>) -> Result<Issued, Refused> {
        let bounds = &key.bounds;
        let ttl_max_secs = bounds.ttl_max.as_secs();
        if wish.ttl_secs > ttl_max_secs {
            let message =
                format!("ttl {} is more than the {ttl_max_secs} that max-ttl of the key allows", wish.ttl_secs);
            return Err(Refused::out_of_bounds("ttl_not_allowed", message));
        }
        may_name(key, wish.user)?;
        let realms = self.realms_of(key);
        let realm = match wish.realm {
            None => realms.first(),
            Some(name) => realms.iter().find(|realm| *realm == name),
        };
        let Some(realm) = realm else {
            let message = format!("the key is for the realms {}", realms.join(", "));
            return Err(Refused::out_of_bounds("realm_not_allowed", message));
        };
        // A configuration without one is refused.
        let secret = self
            .secrets
            .get(realm)
            .ok_or_else(|| Refused::out_of_bounds("realm_not_allowed", format!("the realm {realm:?} has no secret")))?;
        let rules = UsernameRules { limits: self.with_username_limits.contains(realm), policies: &self.policies };
        let made = |ttl_secs: u64| {
            Wish { user: wish.user, ttl_secs, limits: wish.limits }.issue(secret, rules, asked.now_unix)
        };
        let is_revoked = |issued: &Issued| {
            let parsed = TimeLimited { expires_unix: issued.expires_unix, user: wish.user };
            self.is_revoked(realm, secret, &issued.username, parsed, asked.now_unix)
        };
        let issued = self.first_made(realm, wish.ttl_secs, made, is_revoked).map_err(|error| {
            let field = match error.about() {
                About::User => "user",
                About::Bandwidth => "bw",
                About::Allocations => "alloc",
                About::Peers => "peers",
            };
            Refused::bad_request(format!("{field}: {error}"))
        })?;
        if is_revoked(&issued) {
            return Err(Refused::revoked(wish.user));
        }
        tracing::debug!(target: "turnstone::credentials", key = %bounds.id, user = ?wish.user, ttl_secs = wish.ttl_secs, "credential made");
        Ok(issued)
    }

    /// A credential that nobody has been given yet: two for one user that expire in the same second would be one and the same, and could
    /// not be revoked alone. So the second one lives a second less, within bounds; beyond them, and where what lives less is revoked, it is
    /// the same.
    fn first_made<E>(
        &self,
        realm: &str,
        ttl_secs: u64,
        made: impl Fn(u64) -> Result<Issued, E>,
        is_revoked: impl Fn(&Issued) -> bool,
    ) -> Result<Issued, E> {
        let shorter_max = SHORTER_SECS_MAX.min(ttl_secs / SHORTER_PART);
        let mut good = None;
        for shorter in 0..=shorter_max {
            let issued = made(ttl_secs - shorter)?;
            if is_revoked(&issued) {
                continue;
            }
            if self.minted.is_first(realm, &issued.username) {
                return Ok(issued);
            }
            good.get_or_insert(issued);
        }
        good.map_or_else(|| made(ttl_secs), Ok)
    }
}

/// Fails for a key in a page, which is anybody's.
fn may_revoke(key: &KnownKey) -> Result<(), Refused> {
    if !key.is_public() {
        return Ok(());
    }
    let message =
        format!("the key {:?} has origins: whoever opens the page has it, and revokes nothing", key.bounds.id);
    Err(Refused::out_of_bounds("revocation_not_allowed", message))
}

/// Fails for a user whom a key is not for.
fn may_name(key: &KnownKey, user: &str) -> Result<(), Refused> {
    let prefix = &key.bounds.user_prefix;
    if user.starts_with(prefix) {
        return Ok(());
    }
    let message = format!("the key is for users whose names begin with {prefix:?}");
    Err(Refused::out_of_bounds("user_not_allowed", message))
}

/// A name that nobody else has: 72 random bits.
fn random_name() -> Result<String, Refused> {
    let mut random = [0; 9];
    getrandom::fill(&mut random).map_err(|_| Refused::no_randomness())?;
    Ok(URL_SAFE_NO_PAD.encode(random))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn with_stun_there_are_no_more_urls_than_browsers_like() {
        let own = [
            "turn:a:3478?transport=udp",
            "turn:a:3478?transport=tcp",
            "turn:a:443?transport=udp",
            "turns:a:443?transport=tcp",
        ];
        let own = own.map(str::to_owned).to_vec();
        let urls = Urls::new(own.clone(), false);
        assert_eq!(urls.own, own);
        let all = ["stun:a:3478", "turn:a:3478?transport=udp", "turn:a:443?transport=udp", "turns:a:443?transport=tcp"];
        assert_eq!(urls.all(), all);
        // What is written is what is meant.
        assert_eq!(Urls::new(own.clone(), true).all(), own);
    }
}
