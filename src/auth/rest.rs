//! Time-limited credentials (the "TURN REST API" scheme): username `expiry[:user]`, password base64(HMAC-SHA1(secret, username)).

use zeroize::Zeroizing;

/// One shared secret. Never printed.
#[derive(Clone)]
pub struct SharedSecret {
    /// The name the operator gave it, for logs and `credentials verify`.
    pub id: String,
    /// The secret's bytes.
    pub bytes: Zeroizing<Vec<u8>>,
}

/// A username of the scheme, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeLimited<'a> {
    /// When the credential expires, seconds since the Unix epoch.
    pub expires_unix: u64,
    /// The part after the timestamp, or the empty string; quotas count on it.
    pub user: &'a str,
}

impl<'a> TimeLimited<'a> {
    /// Reads a username. `None` when neither side of the first `:` is a timestamp.
    pub fn parse(username: &'a str) -> Option<Self> {
        let _ = username;
        todo!()
    }
}

/// The password of a username under a secret: 28 characters of base64.
pub fn mint(secret: &[u8], username: &str) -> Zeroizing<String> {
    let _ = (secret, username);
    todo!()
}

/// What `credentials verify` found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Diagnosis {
    /// Valid under the secret of this id for so many more seconds.
    Valid {
        /// The secret's id.
        secret_id: String,
        /// Seconds left.
        seconds_left: u64,
    },
}

/// Says why a credential is refused, or that it is good.
pub fn diagnose(secrets: &[SharedSecret], username: &str, password: &str, now_unix: u64) -> Diagnosis {
    let _ = (secrets, username, password, now_unix);
    todo!()
}
