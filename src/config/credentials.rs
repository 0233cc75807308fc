//! The credentials API, and the keys of those who may ask it, as `[credentials]` has them.

use std::time::Duration;

use super::endpoint::Endpoint;
use super::value::Choices;
use crate::policy::RateLimit;

/// The credentials API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialsApi {
    /// Where it listens.
    pub listen: Endpoint,
    /// Whether it speaks TLS, with the certificates of `[tls]`.
    pub tls: bool,
    /// Whether it may do without on an address that others reach.
    pub allow_plain_http: bool,
    /// Whether a proxy in front names the client's address in X-Forwarded-For.
    pub forwarded_for: bool,
    /// Requests of an IPv4 /24 or IPv6 /64; `None` is unlimited.
    pub per_network: Option<RateLimit>,
    /// The services in whose words it is asked, too.
    pub shapes: Vec<Shape>,
    /// Whether there is a page with a self-test.
    pub test_page: bool,
    /// Who may ask.
    pub keys: Vec<ApiKey>,
}

/// The key of somebody who may ask for credentials, and what for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    /// Its name, in logs.
    pub id: String,
    /// SHA-256 of the key, which is random and long: nothing slower is needed against guessing.
    pub sha256: [u8; 32],
    /// The longest life of a credential.
    pub ttl_max: Duration,
    /// What the name of a user begins with.
    pub user_prefix: String,
    /// The origins of pages that may ask with it.
    pub origins: Vec<Origin>,
    /// The realms that credentials may be for, the first one if nobody says; that of `[auth]` if there are none.
    pub realms: Vec<String>,
    /// Requests with it; `None` is unlimited.
    pub rate: Option<RateLimit>,
}

/// A service whose requests are answered as that service does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Cloudflare Realtime.
    Cloudflare,
    /// Twilio's Network Traversal Service.
    Twilio,
    /// Metered.
    Metered,
    /// The TURN REST draft.
    TurnRest,
    /// STUNner's authentication service.
    Stunner,
}

impl Shape {
    pub(super) const NAMES: &Choices<Self> = &[
        ("cloudflare", Self::Cloudflare),
        ("twilio", Self::Twilio),
        ("metered", Self::Metered),
        ("turn-rest", Self::TurnRest),
        ("stunner", Self::Stunner),
    ];
}

/// Whose pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Anybody's.
    Any,
    /// Those of one origin (RFC 6454), as browsers write it.
    One(String),
}

impl CredentialsApi {
    /// Its listener and the connections that it may have.
    pub const SOCKETS_MAX: u64 = 257;

    /// Puts back what only a restart changes: whether there is the API, and where it listens.
    pub(super) fn keep_until_restart(new: &mut Option<Self>, running: &Option<Self>) {
        match (new.as_mut(), running) {
            (Some(new), Some(running)) => {
                new.listen.clone_from(&running.listen);
                (new.tls, new.allow_plain_http) = (running.tls, running.allow_plain_http);
            }
            (_, running) => new.clone_from(running),
        }
    }
}
