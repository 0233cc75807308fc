//! What became of requests, for metrics.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What became of a request, or of a connection that did not come to one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// A credential was made.
    Issued,
    /// A credential was revoked.
    Revoked,
    /// Something else was answered: what a browser asks before a request, or the description of the API.
    Informed,
    /// A field, a parameter or the body is wrong.
    BadRequest,
    /// There was no key, or one that nobody has.
    Unauthorized,
    /// The key is not for pages of that origin.
    Origin,
    /// The key is not for that user, lifetime or realm.
    Bounds,
    /// No such path.
    NotFound,
    /// The path has other methods.
    Method,
    /// The body is too long.
    BodyTooLarge,
    /// The body did not come in time.
    TooSlow,
    /// More than the key may ask for.
    KeyRate,
    /// More than the client's network may ask for.
    NetworkRate,
    /// The system gave no random bytes, or something could not be revoked.
    Failed,
    /// So much more than that that the connection was closed unread.
    Flood,
    /// The TLS handshake failed, or was not over in time.
    Handshake,
}

impl Outcome {
    /// All of them, for metrics that start at zero.
    pub(crate) const ALL: [Self; 16] = [
        Self::Issued,
        Self::Revoked,
        Self::Informed,
        Self::BadRequest,
        Self::Unauthorized,
        Self::Origin,
        Self::Bounds,
        Self::NotFound,
        Self::Method,
        Self::BodyTooLarge,
        Self::TooSlow,
        Self::KeyRate,
        Self::NetworkRate,
        Self::Failed,
        Self::Flood,
        Self::Handshake,
    ];

    /// The stable name used as a metric label and in the log.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Issued => "issued",
            Self::Revoked => "revoked",
            Self::Informed => "informed",
            Self::BadRequest => "bad-request",
            Self::Unauthorized => "unauthorized",
            Self::Origin => "origin",
            Self::Bounds => "bounds",
            Self::NotFound => "not-found",
            Self::Method => "method",
            Self::BodyTooLarge => "body-too-large",
            Self::TooSlow => "too-slow",
            Self::KeyRate => "key-rate",
            Self::NetworkRate => "network-rate",
            Self::Failed => "failed",
            Self::Flood => "flood",
            Self::Handshake => "tls-handshake",
        }
    }
}

/// Counts since the start; read by anyone.
#[derive(Debug, Default)]
pub(crate) struct CredentialsStats([AtomicU64; Outcome::ALL.len()]);

impl CredentialsStats {
    pub(crate) fn get(&self, outcome: Outcome) -> u64 {
        self.0.get(outcome as usize).map_or(0, |count| count.load(Relaxed))
    }

    pub(super) fn count(&self, outcome: Outcome) {
        if let Some(count) = self.0.get(outcome as usize) {
            count.fetch_add(1, Relaxed);
        }
    }
}
