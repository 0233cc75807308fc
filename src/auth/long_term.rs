//! The long-term credential mechanism, server side (RFC 8489 section 9.2.4).

use std::sync::Arc;

use crate::addr::ClientAddr;
use crate::clock::Now;
use crate::reject::Reason;
use crate::stun::{Encoder, IntegrityKind, Key, Message, PasswordAlgorithm};

use super::nonce::NonceKeys;
use super::rest::SharedSecret;
use super::users::Users;

/// Who sent an authenticated request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The whole username, as in USERNAME.
    pub username: Arc<str>,
    /// What quotas and bandwidth count on: the user part of a time-limited username, else the username.
    pub user: Arc<str>,
    /// When the credential expires (seconds since the Unix epoch); `None` for a static user.
    pub expires_unix: Option<u64>,
}

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
pub struct Credentials {}

/// What [`Credentials`] is built from.
pub struct CredentialsBuilder {
    /// The realm; prepared by `build`.
    pub realm: String,
    /// Static users.
    pub users: Users,
    /// Shared secrets of time-limited credentials; each is tried in turn.
    pub secrets: Vec<SharedSecret>,
    /// The nonce keys, which outlive reloads.
    pub nonce_keys: Arc<NonceKeys>,
}

impl Credentials {
    /// The realm.
    pub fn realm(&self) -> &str {
        todo!()
    }

    /// Checks a request in the order of RFC 8489 section 9.2.4, but the nonce before username and MAC, so that a forged
    /// message costs no key derivation. Allocates nothing before the MAC has verified.
    ///
    /// `held` is the credential of the allocation on this 5-tuple, if any: a request with the same username is verified
    /// with its key first.
    ///
    /// # Errors
    /// The reason; its `code()` is 400, 401 or 438. For 401 and 438 the response gets [`Self::challenge`].
    pub fn authenticate(
        &self,
        now: Now,
        client: ClientAddr,
        message: &Message<'_>,
        held: Option<HeldCredential<'_>>,
    ) -> Result<Authenticated, Reason> {
        let _ = (now, client, message, held);
        todo!()
    }

    /// Appends REALM, NONCE and PASSWORD-ALGORITHMS to a 401 or 438 response.
    pub fn challenge(&self, now: Now, client: ClientAddr, response: &mut Encoder<'_>) {
        let _ = (now, client, response);
        todo!()
    }
}
