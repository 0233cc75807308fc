//! What a server name (SNI, RFC 6066 section 3) chooses among several: a certificate, a realm.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// A value for each of some names. `*.example.org` stands for every name with one label more than `example.org` (RFC 9525 section 6.3);
/// a name itself goes before a wildcard. Case does not matter.
///
/// ```
/// use turnstone_turn::server_names::ServerNames;
///
/// let mut names = ServerNames::default();
/// names.entry("*.example.org").or_insert(1);
/// names.entry("turn.example.org").or_insert(2);
/// assert_eq!(names.get("TURN.example.org."), Some(&2));
/// assert_eq!(names.get("other.example.org"), Some(&1));
/// assert_eq!(names.get("a.b.example.org"), None);
/// ```
#[derive(Clone, Debug)]
pub struct ServerNames<T> {
    exact: HashMap<Box<str>, T>,
    /// By what follows the `*.`.
    wildcards: HashMap<Box<str>, T>,
}

impl<T> Default for ServerNames<T> {
    fn default() -> Self {
        Self { exact: HashMap::new(), wildcards: HashMap::new() }
    }
}

impl<T> ServerNames<T> {
    /// The value of a name, or of a name that begins with `*.`, to be seen or set.
    pub fn entry(&mut self, name: &str) -> Entry<'_, Box<str>, T> {
        let name = normal(name);
        match name.strip_prefix("*.") {
            Some(rest) => self.wildcards.entry(rest.into()),
            None => self.exact.entry(name.into()),
        }
    }

    /// The value that the name a client asks for chooses.
    pub fn get(&self, name: &str) -> Option<&T> {
        let name = normal(name);
        let by_wildcard = || self.wildcards.get(name.split_once('.').filter(|(first, _)| !first.is_empty())?.1);
        self.exact.get(&*name).or_else(by_wildcard)
    }

    /// Whether there is no name.
    pub fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.wildcards.is_empty()
    }
}

/// In small letters, and without the dot of the root.
fn normal(name: &str) -> Cow<'_, str> {
    let name = name.strip_suffix('.').unwrap_or(name);
    match name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => name.to_ascii_lowercase().into(),
        false => name.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_is_one_label_and_a_name_goes_before_it() {
        let mut names = ServerNames::default();
        for (value, name) in ["*.Example.org", "turn.example.org.", "example.org", "*.b.example.org"].iter().enumerate()
        {
            names.entry(name).or_insert(value);
        }
        for (name, chosen) in [
            ("a.example.org", Some(0)),
            ("TURN.EXAMPLE.ORG", Some(1)),
            ("example.org.", Some(2)),
            ("a.b.example.org", Some(3)),
            ("b.example.org", Some(0)),
            ("a.a.example.org", None),
            (".example.org", None),
            ("*.example.org", Some(0)),
            ("org", None),
            ("", None),
        ] {
            assert_eq!(names.get(name).copied(), chosen, "{name}");
        }
    }
}
