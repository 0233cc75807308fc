//! The name of a peer policy, which credentials carry, refusals tell and policies have.

use std::fmt;
use std::str::FromStr;

/// The name of a peer policy: up to 32 ASCII letters, digits, dots, dashes and underscores, so that it can stand in a username, a log
/// line and a label as it is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PolicyName {
    bytes: [u8; Self::BYTES_MAX],
    len: u8,
}

/// A text that cannot be the name of a peer policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a name has 1 to {} letters, digits, dots, dashes and underscores", PolicyName::BYTES_MAX)]
pub struct PolicyNameError;

impl PolicyName {
    /// The longest name.
    pub const BYTES_MAX: usize = 32;

    /// The name as text.
    pub fn as_str(&self) -> &str {
        // It was made of ASCII.
        self.bytes.get(..usize::from(self.len)).and_then(|name| std::str::from_utf8(name).ok()).unwrap_or_default()
    }
}

impl FromStr for PolicyName {
    type Err = PolicyNameError;

    fn from_str(text: &str) -> Result<Self, PolicyNameError> {
        let may = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        if text.is_empty() || text.len() > Self::BYTES_MAX || !text.bytes().all(may) {
            return Err(PolicyNameError);
        }
        let mut bytes = [0; Self::BYTES_MAX];
        bytes.iter_mut().zip(text.bytes()).for_each(|(to, from)| *to = from);
        Ok(Self { bytes, len: text.len() as u8 })
    }
}

impl fmt::Display for PolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for PolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> PolicyName {
        text.parse().unwrap()
    }

    #[test]
    fn a_name_is_what_can_stand_in_a_username() {
        for good in ["sfu", "a", "A.b-c_9", "12345678901234567890123456789012"] {
            assert_eq!(name(good).as_str(), good);
            assert_eq!(format!("{} {:?}", name(good), name(good)), format!("{good} {good:?}"));
        }
        for bad in ["", "a b", "a;b", "a=b", "zo\u{eb}", "123456789012345678901234567890123", "a\n"] {
            assert_eq!(bad.parse::<PolicyName>(), Err(PolicyNameError), "{bad:?}");
        }
    }
}
