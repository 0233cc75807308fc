//! Preparation of usernames, realms and passwords (RFC 8265 OpaqueString; RFC 4013 where RFC 5389 clients differ).

/// A string that OpaqueString does not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrepareError;

/// Prepares a password, username or realm (RFC 8265 section 4.2).
///
/// # Errors
/// [`PrepareError`] when it is empty or has a character that is not allowed.
pub fn prepare(text: &str) -> Result<String, PrepareError> {
    let _ = text;
    todo!()
}
