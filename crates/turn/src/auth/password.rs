//! Preparation of usernames, realms and passwords (RFC 8265 OpaqueString; RFC 4013 where RFC 5389 clients differ).

use precis_profiles::OpaqueString;
use precis_profiles::precis_core::profile::PrecisFastInvocation;
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

/// A string that OpaqueString does not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is empty or has a character that RFC 8265 (OpaqueString) does not allow")]
pub struct PrepareError;

/// Prepares a password, username or realm (RFC 8265 section 4.2).
///
/// # Errors
/// [`PrepareError`] when it is empty or has a character that is not allowed.
pub fn prepare(text: &str) -> Result<String, PrepareError> {
    if is_plain(text) {
        return Ok(text.to_owned());
    }
    OpaqueString::enforce(text).map(Into::into).map_err(|_| PrepareError)
}

/// A password as a client of RFC 5389 prepares it (SASLprep, RFC 4013); `None` when that is not possible.
pub(super) fn prepare_rfc5389(password: &str) -> Option<Zeroizing<String>> {
    stringprep::saslprep(password).ok().map(|prepared| Zeroizing::new(prepared.into_owned()))
}

/// Whether both preparations leave a text as it is: most are printable ASCII.
fn is_plain(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

/// A password, prepared.
#[derive(Clone)]
pub(super) struct Passwords {
    opaque: SecretString,
    /// What SASLprep makes of the password, where it differs: most users have one key to try, not two.
    rfc5389: Option<SecretString>,
}

impl Passwords {
    pub(super) fn prepare(password: &str) -> Result<Self, PrepareError> {
        let opaque = SecretString::from(prepare(password)?);
        if is_plain(password) {
            return Ok(Self { opaque, rfc5389: None });
        }
        let rfc5389 = prepare_rfc5389(password)
            .filter(|saslprep| saslprep.as_str() != opaque.expose_secret())
            .map(|saslprep| SecretString::from(saslprep.as_str()));
        Ok(Self { opaque, rfc5389 })
    }

    pub(super) fn opaque(&self) -> &SecretString {
        &self.opaque
    }

    pub(super) fn into_opaque(self) -> SecretString {
        self.opaque
    }

    pub(super) fn rfc5389(&self) -> Option<&SecretString> {
        self.rfc5389.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printable_ascii_stays_as_it_is() {
        let ascii: String = (' '..='~').collect();
        assert_eq!(prepare(&ascii).as_ref(), Ok(&ascii));
        assert_eq!(OpaqueString::enforce(&ascii).unwrap(), ascii, "as the profile itself has it");
        assert_eq!(prepare_rfc5389(&ascii).unwrap().as_str(), ascii);
        for text in ["", "\t", "\u{7f}", "a\u{e9}"] {
            assert!(!is_plain(text), "{text:?}");
        }
    }

    #[test]
    fn foreign_spaces_become_spaces_and_accents_are_composed() {
        assert_eq!(prepare("pass\u{3000}word"), Ok("pass word".to_owned()));
        assert_eq!(prepare("e\u{301}"), Ok("\u{e9}".to_owned()));
        assert_eq!(
            prepare("\u{30DE}\u{30C8}\u{30EA}\u{30C3}\u{30AF}\u{30B9}"),
            Ok("\u{30DE}\u{30C8}\u{30EA}\u{30C3}\u{30AF}\u{30B9}".to_owned())
        );
    }

    #[test]
    fn empty_strings_and_control_characters_are_refused() {
        for text in ["", "a\nb", "a\0", "tab\t", "\u{7f}"] {
            assert_eq!(prepare(text), Err(PrepareError), "{text:?}");
        }
    }

    #[test]
    fn whatever_deceives_is_refused() {
        let all = (0..=0x10_FFFF).filter_map(char::from_u32).filter(|c| crate::text::is_deceptive(*c));
        for c in all {
            assert_eq!(prepare(&format!("a{c}b")), Err(PrepareError), "{c:?}");
        }
    }

    #[test]
    fn the_sample_password_of_rfc_5769_is_prepared_by_saslprep_but_refused_by_opaque_string() {
        let raw = "The\u{AD}M\u{AA}tr\u{2168}";
        assert_eq!(prepare(raw), Err(PrepareError));
        assert_eq!(prepare_rfc5389(raw).unwrap().as_str(), "TheMatrIX");
    }

    #[test]
    fn compatibility_characters_tell_the_two_preparations_apart() {
        assert_eq!(prepare("\u{2168}"), Ok("\u{2168}".to_owned()));
        assert_eq!(prepare_rfc5389("\u{2168}").unwrap().as_str(), "IX");
    }
}
