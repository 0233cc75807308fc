//! The long-term credential mechanism, server side (RFC 8489 section 9.2.4).

use std::fmt;
use std::sync::Arc;

use crate::addr::FiveTuple;
use crate::clock::Now;
use crate::reject::Reason;
use crate::text::is_deceptive;
use crate::user::{RealmId, User};
use turnstone_stun::{AttributeType, Encoder, IntegrityKind, Key, Message, Method, PasswordAlgorithm, userhash};

use super::access_token::AccessTokens;
use super::algorithms::Offer;
use super::asked::{AskPolicy, AskedUser};
use super::identity::{Identity, KeyId, Origin};
use super::nonce::{Features, NonceHolder, NonceKeys, NonceScope, NonceState};
use super::password::{PrepareError, prepare};
use super::time_limited::{NOT_SECONDS, SharedSecret, TimeLimited, password_of};
use super::username_limits::UsernameLimits;
use super::users::{StaticUser, USERNAME_MAX, Users};

/// How far the clocks of who mints credentials and of this server may be apart.
const CLOCKS_SECS: u64 = 60;
/// Longest realm in characters (RFC 8489 section 14.9: fewer than 128).
const REALM_MAX_CHARS: usize = 127;

/// A request that passed.
#[derive(Debug)]
pub struct Authenticated {
    /// Who.
    pub identity: Identity,
    /// The key that verified, for the response and for the allocation to hold.
    pub key: Key,
    /// The password algorithm of `key`.
    pub algorithm: PasswordAlgorithm,
    /// Which integrity attribute the response carries.
    ///
    /// RFC 8489 section 9.2.4 asks for MESSAGE-INTEGRITY-SHA256, unless the request had neither PASSWORD-ALGORITHMS nor
    /// PASSWORD-ALGORITHM. A request that has both and yet is protected by MESSAGE-INTEGRITY alone (against section 9.2.5,
    /// but there are such clients, which choose MD5 from our list) gets MESSAGE-INTEGRITY, the one its sender can verify.
    pub integrity: IntegrityKind,
}

/// The credential an allocation was made with; it stays good for that allocation's requests after the secret was rotated
/// away or the credential expired (what the caller makes of expiry is `OnExpiry`'s matter).
#[derive(Clone, Copy, Debug)]
pub struct HeldCredential<'a> {
    /// Who made the allocation.
    pub identity: &'a Identity,
    /// Its key.
    pub key: &'a Key,
    /// The algorithm of `key`.
    pub algorithm: PasswordAlgorithm,
}

/// An immutable snapshot of who may allocate; `Arc`-shared by all workers.
///
/// USERHASH is understood for static users. Time-limited usernames are not known beforehand and cannot be found by their
/// hash, nor can usernames that others are asked about, nor the ids of access tokens' keys; so the nonce's anonymity bit, which obliges
/// clients to send USERHASH, is set only when there are static users and nothing else.
pub struct Credentials {
    realm: Arc<str>,
    /// The realm's name if it is not the default one.
    label: Option<Arc<str>>,
    id: RealmId,
    users: Arc<Users>,
    offer: Offer,
    secrets: Vec<(KeyId, SharedSecret)>,
    tokens: AccessTokens,
    username_limits: bool,
    lifetime_max_secs: Option<u64>,
    nonce_keys: Arc<NonceKeys>,
    features: Features,
    asks: Option<AskPolicy>,
    /// Verified with when the user is unknown, so that the answer takes as long as for a wrong password.
    nobody: Key,
}

/// Builds [`Credentials`]; see [`Credentials::builder`].
#[derive(Debug)]
pub struct CredentialsBuilder {
    realm: String,
    users: Arc<Users>,
    secrets: Vec<SharedSecret>,
    tokens: AccessTokens,
    username_limits: bool,
    lifetime_max_secs: Option<u64>,
    nonce_keys: Arc<NonceKeys>,
    asks: Option<AskPolicy>,
}

/// Why credentials cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialsError {
    /// The realm is empty or has a character that is not allowed; quotes are not, since clients strip them
    /// (RFC 8489 section 9.2.2).
    #[error("the realm has a quote, {PrepareError}")]
    Realm,
    /// The realm has more than 127 characters (RFC 8489 section 14.9).
    #[error("the realm has more than {REALM_MAX_CHARS} characters")]
    RealmTooLong,
    /// The users' keys are for another realm.
    #[error("the users are of the realm {0:?}")]
    UsersOfAnotherRealm(String),
    /// PASSWORD-ALGORITHMS is sent before the user is known (RFC 8489 section 9.2.4), and there is no algorithm that all users have a key of.
    #[error(
        "user {md5:?} has only an MD5 key and user {sha256:?} only a SHA-256 key, so that no password algorithm is for both; give one of them \
         both keys, or a password"
    )]
    NoCommonAlgorithm {
        /// One who has only an MD5 key.
        md5: String,
        /// One who has only a SHA-256 key.
        sha256: String,
    },
    /// The shared secret of this id is empty.
    #[error("shared secret {0:?} is empty")]
    EmptySecret(String),
}

impl CredentialsBuilder {
    /// The static users, of the same realm. None by default.
    pub fn users(mut self, users: impl Into<Arc<Users>>) -> Self {
        self.users = users.into();
        self
    }

    /// The shared secrets of time-limited credentials; each is tried in turn. None by default.
    pub fn secrets(mut self, secrets: Vec<SharedSecret>) -> Self {
        self.secrets = secrets;
        self
    }

    /// Whose access tokens are taken (RFC 7635). Nobody's by default.
    pub fn access_tokens(mut self, tokens: AccessTokens) -> Self {
        self.tokens = tokens;
        self
    }

    /// Whether what follows a `;` in a time-limited username is read as [`UsernameLimits`]. Not by default: it would be part of the name.
    pub fn username_limits(mut self, are_read: bool) -> Self {
        self.username_limits = are_read;
        self
    }

    /// How far ahead a time-limited credential may expire, in seconds, give or take a minute for the clocks; one that is good for longer is refused.
    /// No limit by default.
    pub fn lifetime_max(mut self, lifetime_max_secs: Option<u64>) -> Self {
        self.lifetime_max_secs = lifetime_max_secs;
        self
    }

    /// Has the server ask for the credentials of usernames that are neither static nor time-limited: see
    /// [`Server::poll_ask`](crate::Server::poll_ask). By default nobody is asked, and they are refused.
    pub fn asking(mut self, policy: AskPolicy) -> Self {
        self.asks = Some(policy);
        self
    }

    /// Prepares the realm and derives the keys of the static users.
    ///
    /// # Errors
    /// [`CredentialsError`] says what is refused.
    pub fn build(self) -> Result<Credentials, CredentialsError> {
        let realm = prepare(&self.realm).map_err(|PrepareError| CredentialsError::Realm)?;
        if realm.contains('"') {
            return Err(CredentialsError::Realm);
        }
        if realm.chars().count() > REALM_MAX_CHARS {
            return Err(CredentialsError::RealmTooLong);
        }
        if let Some(secret) = self.secrets.iter().find(|secret| secret.bytes.is_empty()) {
            return Err(CredentialsError::EmptySecret(secret.id.clone()));
        }
        if !self.users.is_empty() && self.users.realm() != realm {
            return Err(CredentialsError::UsersOfAnotherRealm(self.users.realm().to_owned()));
        }
        let md5_only = self.asks.is_some_and(|asks| asks.md5_only);
        let offer =
            self.users.offer(md5_only).map_err(|(md5, sha256)| CredentialsError::NoCommonAlgorithm { md5, sha256 })?;
        Ok(Credentials {
            offer,
            features: Features {
                password_algorithms: true,
                username_anonymity: !self.users.is_empty()
                    && self.secrets.is_empty()
                    && !self.tokens.is_on()
                    && self.asks.is_none(),
            },
            users: self.users,
            realm: realm.into(),
            label: None,
            id: RealmId::DEFAULT,
            secrets: self.secrets.into_iter().map(|secret| (KeyId::of(&secret.id), secret)).collect(),
            tokens: self.tokens,
            username_limits: self.username_limits,
            lifetime_max_secs: self.lifetime_max_secs,
            nonce_keys: self.nonce_keys,
            asks: self.asks,
            nobody: Key::long_term(PasswordAlgorithm::Sha256, b"", b"", b""),
        })
    }
}

impl Credentials {
    /// The credentials of a realm: nobody's, until the builder is given users or shared secrets. The nonce keys outlive reloads.
    pub fn builder(realm: &str, nonce_keys: Arc<NonceKeys>) -> CredentialsBuilder {
        CredentialsBuilder {
            realm: realm.to_owned(),
            users: Arc::new(Users::of_realm(realm)),
            secrets: Vec::new(),
            tokens: AccessTokens::default(),
            username_limits: false,
            lifetime_max_secs: None,
            nonce_keys,
            asks: None,
        }
    }

    /// The keys that nonces are made with.
    pub(crate) fn nonce_keys(&self) -> &NonceKeys {
        &self.nonce_keys
    }

    /// The bounds of asking, if anybody is asked.
    pub fn asks(&self) -> Option<&AskPolicy> {
        self.asks.as_ref()
    }

    /// The realm.
    pub fn realm(&self) -> &str {
        &self.realm
    }

    /// The same of a realm that is not the default one: its users are known as its own from now on, and its nonces are good only there.
    pub(crate) fn beside_the_default_realm(mut self) -> Self {
        self.id = RealmId::of(&self.realm);
        self.label = Some(Arc::clone(&self.realm));
        self
    }

    /// What clients and nonces know the realm by.
    pub(crate) fn id(&self) -> RealmId {
        self.id
    }

    /// The realm's name if it is not the default one.
    pub(crate) fn label(&self) -> Option<&Arc<str>> {
        self.label.as_ref()
    }

    /// Checks a request in the order of RFC 8489 section 9.2.4, but the nonce before username and MAC, so that a forged
    /// message costs no key derivation. Allocates nothing before the MAC has verified.
    ///
    /// `held` is the credential of the allocation on this 5-tuple, if any: a request with the same username is verified
    /// with its key first, whatever the credential's expiry. A request of another username authenticates as if there were
    /// no allocation; that it may not use the allocation is for the caller to see.
    ///
    /// The nonce may be that of another connection from the same address where there is a credential `held`, and for ConnectionBind.
    ///
    /// A static user's name goes before a time-limited reading of the same name. Static names were prepared; the text of a
    /// time-limited one comes from whoever mints credentials, and often from that one's users: it is looked at here, before
    /// anything keeps it.
    ///
    /// Where there is an access token, its key's id is in place of a username (RFC 7635), and nobody's name.
    ///
    /// # Errors
    /// The reason; its `code()` is 400, 401, 420 or 438. For 401 and 438 the response gets [`Self::challenge`]. An unknown user
    /// and a wrong password are both answered by 401.
    pub fn authenticate(
        &self,
        now: Now,
        five_tuple: &FiveTuple,
        message: &Message<'_>,
        held: Option<HeldCredential<'_>>,
    ) -> Result<Authenticated, Reason> {
        // Sent again by somebody else, a request on an allocation's 5-tuple finds no allocation, and a ConnectionBind no connection.
        let any_port = held.is_some() || message.method() == Method::CONNECTION_BIND;
        let holder = NonceHolder::of(five_tuple).or_another_port(any_port);
        let Checked { user, token, algorithm, legacy, integrity } = self.check(now, holder, message)?;
        let (identity, key) = match held {
            Some(held)
                if held.algorithm == algorithm
                    && self.is_same_user(user, held.identity)
                    && message.verify_integrity(held.key) =>
            {
                (held.identity.clone(), held.key.clone())
            }
            _ => match (token, user) {
                (Some(token), ClaimedUser::Name(key_id)) => {
                    let (mut identity, key) = self.tokens.verify(now, message, key_id, token)?;
                    identity.user = identity.user.in_realm(self.label.clone());
                    (identity, key)
                }
                (Some(_), ClaimedUser::Hash(_)) => return Err(Reason::UnknownTokenKey),
                (None, user) => self.verify(now, message, user, algorithm, legacy).map_err(|reason| match user {
                    ClaimedUser::Name(name) if reason == Reason::UnknownUser && self.lacks_token(name) => {
                        Reason::TokenMissing
                    }
                    _ => reason,
                })?,
            },
        };
        Ok(Authenticated { identity, key, algorithm, integrity })
    }

    /// Whether a name that is nobody's is that of a key, with which a token has to come. Where somebody is asked, it may be a user's, too.
    fn lacks_token(&self, name: &[u8]) -> bool {
        self.asks.is_none() && self.tokens.has_key(name)
    }

    /// Checks a request that [`Self::authenticate`] knew no user of, by the credential that was asked for; `None` if it is nobody's, which
    /// takes as long as a wrong password.
    pub(crate) fn authenticate_asked(
        &self,
        now: Now,
        five_tuple: &FiveTuple,
        message: &Message<'_>,
        user: Option<&AskedUser>,
    ) -> Result<Authenticated, Reason> {
        let holder = NonceHolder::of(five_tuple).or_another_port(message.method() == Method::CONNECTION_BIND);
        let Checked { algorithm, legacy, integrity, .. } = self.check(now, holder, message)?;
        let Some(user) = user else {
            self.verify_nobody(message);
            return Err(Reason::UnknownUser);
        };
        let rfc5389_key = user.keys.rfc5389_key().filter(|_| legacy);
        let mut keys = user.keys.key(algorithm).into_iter().chain(rfc5389_key);
        let key = keys.find(|key| message.verify_integrity(key)).ok_or(Reason::WrongPassword)?.clone();
        let identity = user.identity.clone();
        if identity.expires_unix().is_some_and(|expires| expires < now.unix_secs) {
            return Err(Reason::CredentialExpired);
        }
        Ok(Authenticated { identity, key, algorithm, integrity })
    }

    /// The username to ask about, after [`Self::authenticate`] knew no user of it. A hash names nobody who could be asked about, and
    /// what no name needs is not handed on.
    pub(crate) fn unknown_name<'m>(&self, message: &Message<'m>) -> Option<&'m str> {
        let name = message.get(AttributeType::USERNAME).filter(|name| (1..=USERNAME_MAX).contains(&name.len()))?;
        std::str::from_utf8(name).ok().filter(|name| !name.contains(is_deceptive))
    }

    /// Whether a request has a nonce of ours that its client may use and that is fresh.
    pub(crate) fn has_fresh_nonce(&self, now: Now, five_tuple: &FiveTuple, message: &Message<'_>) -> bool {
        let nonce = message.get(AttributeType::NONCE);
        nonce.is_some_and(|nonce| {
            self.nonce_keys.check(now.unix_secs, NonceHolder::of(five_tuple), self.nonce_scope(), nonce)
                != NonceState::Stale
        })
    }

    /// Takes as long as a wrong password would.
    pub(crate) fn verify_nobody(&self, message: &Message<'_>) {
        std::hint::black_box(message.verify_integrity(&self.nobody));
    }

    /// Everything up to the MAC.
    #[inline(always)]
    fn check<'m>(&self, now: Now, holder: NonceHolder, message: &Message<'m>) -> Result<Checked<'m>, Reason> {
        let protection = message.integrity().ok_or(Reason::MissingIntegrity)?;
        let claim = Claim::read(message).ok_or(Reason::IncompleteCredential)?;
        let NonceState::Fresh(features) = self.nonce_keys.check(now.unix_secs, holder, self.nonce_scope(), claim.nonce)
        else {
            return Err(Reason::StaleNonce);
        };
        if claim.token.is_some() && !self.tokens.is_on() {
            // RFC 7635 section 7: it was not asked for.
            return Err(Reason::UnknownAttribute);
        }
        let (algorithm, legacy) = claim.password_algorithm(features, self.offer)?;
        if claim.realm != self.realm.as_bytes() {
            return Err(Reason::WrongRealm);
        }
        let integrity = if legacy { IntegrityKind::Sha1 } else { protection };
        Ok(Checked { user: claim.user, token: claim.token, algorithm, legacy, integrity })
    }

    /// Appends REALM, NONCE and PASSWORD-ALGORITHMS to a 401 or 438 response.
    pub fn challenge(&self, now: Now, five_tuple: &FiveTuple, response: &mut Encoder<'_>) {
        let nonce =
            self.nonce_keys.issue(now.unix_secs, NonceHolder::of(five_tuple), self.nonce_scope(), self.features);
        response
            .attribute(AttributeType::REALM, self.realm.as_bytes())
            .attribute(AttributeType::NONCE, nonce.as_bytes())
            .attribute(AttributeType::PASSWORD_ALGORITHMS, self.offer.list());
        if self.tokens.is_on() {
            response.attribute(AttributeType::THIRD_PARTY_AUTHORIZATION, self.tokens.server_name.as_bytes());
        }
    }

    /// Where its nonces are good. One that came with another offer is stale: who has it must hear of this one.
    pub fn nonce_scope(&self) -> NonceScope {
        NonceScope { realm: self.id, offer: self.offer as u8 }
    }

    fn is_same_user(&self, claimed: ClaimedUser<'_>, identity: &Identity) -> bool {
        let username = identity.username.as_bytes();
        if identity.user.realm() != self.label() {
            return false;
        }
        match claimed {
            ClaimedUser::Name(name) => name == username,
            ClaimedUser::Hash(hash) => hash == userhash(username, self.realm.as_bytes()),
        }
    }

    fn verify(
        &self,
        now: Now,
        message: &Message<'_>,
        claimed: ClaimedUser<'_>,
        algorithm: PasswordAlgorithm,
        legacy: bool,
    ) -> Result<(Identity, Key), Reason> {
        match claimed {
            ClaimedUser::Hash(hash) => {
                if let Some(user) = <&[u8; 32]>::try_from(hash).ok().and_then(|hash| self.users.by_hash(hash)) {
                    return self.verify_static(message, &user, algorithm, legacy);
                }
            }
            ClaimedUser::Name(name) if name.len() <= USERNAME_MAX => {
                if let Ok(name) = std::str::from_utf8(name) {
                    if let Some(user) = self.users.by_name(name) {
                        return self.verify_static(message, &user, algorithm, legacy);
                    }
                    if !self.secrets.is_empty()
                        && let Some(time_limited) = TimeLimited::parse(self.without_limits(name))
                    {
                        return self.verify_time_limited(now, message, name, time_limited, algorithm);
                    }
                }
            }
            ClaimedUser::Name(_) => {}
        }
        // Where somebody is asked, the credential that is known by now is verified with instead.
        if self.asks.is_none() {
            self.verify_nobody(message);
        }
        Err(Reason::UnknownUser)
    }

    fn verify_static(
        &self,
        message: &Message<'_>,
        user: &StaticUser<'_>,
        algorithm: PasswordAlgorithm,
        legacy: bool,
    ) -> Result<(Identity, Key), Reason> {
        let Some(key) = user.key(algorithm) else {
            self.verify_nobody(message);
            return Err(Reason::NoKeyOfAlgorithm);
        };
        let rfc5389_key = user.rfc5389_key().filter(|_| legacy);
        let mut keys = std::iter::once(key).chain(rfc5389_key.cloned());
        let key = keys.find(|key| message.verify_integrity(key)).ok_or(Reason::WrongPassword)?;
        let username: Arc<str> = user.name.into();
        let user = User::fixed(Arc::clone(&username)).in_realm(self.label.clone());
        Ok((Identity::new(username, user), key))
    }

    /// A time-limited username without its limits, if they are read here.
    fn without_limits<'n>(&self, username: &'n str) -> &'n str {
        if self.username_limits { UsernameLimits::plain(username) } else { username }
    }

    fn verify_time_limited(
        &self,
        now: Now,
        message: &Message<'_>,
        username: &str,
        time_limited: TimeLimited<'_>,
        algorithm: PasswordAlgorithm,
    ) -> Result<(Identity, Key), Reason> {
        for (id, secret) in &self.secrets {
            let password = password_of(&secret.bytes, username.as_bytes());
            let key = Key::long_term(algorithm, username.as_bytes(), self.realm.as_bytes(), &*password);
            if !message.verify_integrity(&key) {
                continue;
            }
            if time_limited.expires_unix >= NOT_SECONDS {
                return Err(Reason::TimestampInMilliseconds);
            }
            if time_limited.expires_unix < now.unix_secs {
                return Err(Reason::CredentialExpired);
            }
            let last_unix = self.lifetime_max_secs.map(|secs| now.unix_secs.saturating_add(secs + CLOCKS_SECS));
            if last_unix.is_some_and(|last_unix| time_limited.expires_unix > last_unix) {
                return Err(Reason::ExpiryTooFar);
            }
            if time_limited.is_ambiguous(now.unix_secs) {
                return Err(Reason::AmbiguousExpiry);
            }
            if username.contains(is_deceptive) {
                return Err(Reason::MalformedUsername);
            }
            let limits = match self.username_limits {
                true => UsernameLimits::split(username).map_err(|_| Reason::UsernameLimits)?.1,
                false => UsernameLimits::default(),
            };
            let user = match time_limited.user {
                "" => User::time_limited(self.without_limits(username)),
                user => User::time_limited(user),
            };
            let user = user.in_realm(self.label.clone());
            let limits = (!limits.is_empty()).then(|| Arc::new(limits));
            let identity = Identity::new(username.into(), user).expiring(time_limited.expires_unix);
            return Ok((identity.limited_to(limits).made_by(Origin::secret(*id)), key));
        }
        Err(Reason::WrongPassword)
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("realm", &self.realm)
            .field("users", &self.users.len())
            .field("secrets", &self.secrets)
            .finish_non_exhaustive()
    }
}

/// A request whose nonce is fresh and whose realm is ours, before its MAC is looked at.
struct Checked<'m> {
    user: ClaimedUser<'m>,
    /// ACCESS-TOKEN.
    token: Option<&'m [u8]>,
    algorithm: PasswordAlgorithm,
    /// MD5 for want of both attributes, as clients of RFC 5389 send requests.
    legacy: bool,
    /// See [`Authenticated::integrity`].
    integrity: IntegrityKind,
}

/// USERNAME or USERHASH, as sent; USERNAME counts when both are there.
#[derive(Clone, Copy)]
enum ClaimedUser<'a> {
    Name(&'a [u8]),
    Hash(&'a [u8]),
}

/// The attributes by which a request says who sent it.
struct Claim<'a> {
    user: ClaimedUser<'a>,
    realm: &'a [u8],
    nonce: &'a [u8],
    token: Option<&'a [u8]>,
    password_algorithm: Option<&'a [u8]>,
    password_algorithms: Option<&'a [u8]>,
}

impl<'a> Claim<'a> {
    /// `None` when the user, REALM or NONCE is missing. The first attribute of a type counts.
    fn read(message: &Message<'a>) -> Option<Self> {
        let (mut username, mut userhash, mut realm, mut nonce) = (None, None, None, None);
        let (mut token, mut password_algorithm, mut password_algorithms) = (None, None, None);
        for attribute in message.attributes() {
            let slot = match attribute.kind {
                AttributeType::USERNAME => &mut username,
                AttributeType::USERHASH => &mut userhash,
                AttributeType::REALM => &mut realm,
                AttributeType::NONCE => &mut nonce,
                AttributeType::ACCESS_TOKEN => &mut token,
                AttributeType::PASSWORD_ALGORITHM => &mut password_algorithm,
                AttributeType::PASSWORD_ALGORITHMS => &mut password_algorithms,
                _ => continue,
            };
            slot.get_or_insert(attribute.value);
        }
        let user = username.map(ClaimedUser::Name).or(userhash.map(ClaimedUser::Hash))?;
        Some(Self { user, realm: realm?, nonce: nonce?, token, password_algorithm, password_algorithms })
    }

    /// The algorithm of the request's key, and whether it is MD5 for want of both attributes, as clients of RFC 5389 send
    /// requests. `features` are those of the request's nonce, which is ours: they say what its challenge offered.
    fn password_algorithm(&self, features: Features, offer: Offer) -> Result<(PasswordAlgorithm, bool), Reason> {
        let offered: &[u8] = if features.password_algorithms { offer.list() } else { &[] };
        match (self.password_algorithm, self.password_algorithms) {
            (None, None) => Ok((PasswordAlgorithm::Md5, true)),
            (Some(chosen), Some(list)) if list == offered => {
                let algorithm = offer.chosen(chosen).map(|algorithm| (algorithm, false));
                algorithm.ok_or(Reason::PasswordAlgorithmMismatch)
            }
            _ => Err(Reason::PasswordAlgorithmMismatch),
        }
    }
}

#[cfg(test)]
mod tests;
