//! Preparation of usernames, realms and passwords (RFC 8265 OpaqueString; RFC 4013 where RFC 5389 clients differ).

use std::fmt;

use precis_profiles::OpaqueString;
use precis_profiles::precis_core::profile::PrecisFastInvocation;
use zeroize::Zeroizing;

/// A string that OpaqueString does not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrepareError;

impl fmt::Display for PrepareError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("is empty or has a character that RFC 8265 (OpaqueString) does not allow")
    }
}

impl std::error::Error for PrepareError {}

/// Prepares a password, username or realm (RFC 8265 section 4.2).
///
/// # Errors
/// [`PrepareError`] when it is empty or has a character that is not allowed.
pub fn prepare(text: &str) -> Result<String, PrepareError> {
    OpaqueString::enforce(text).map(Into::into).map_err(|_| PrepareError)
}

/// A password as a client of RFC 5389 prepares it (SASLprep, RFC 4013); `None` when that is not possible.
pub(super) fn prepare_rfc5389(password: &str) -> Option<Zeroizing<String>> {
    stringprep::saslprep(password).ok().map(|prepared| Zeroizing::new(prepared.into_owned()))
}
