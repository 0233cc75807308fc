//! Words that are no directives, which may be a secret that stands where a directive should: only what is made of the words
//! of directives is ever shown.

use super::conf::Conf;
use super::findings::{FindingKind, Grade, Spot};
use super::syntax::Entry;
use super::table;
use crate::config::edits;

/// Longer ones are no directives, however they begin.
const NAME_BYTES_MAX: usize = 48;

impl Conf {
    /// A name that coturn does not know either; it says "Bad configuration format" in its log and goes on.
    pub(super) fn unknown(&mut self, entry: &Entry<'_>) {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        // A secret could follow, where a separator is missing.
        let end = entry.name.find(|c| !plain(c)).unwrap_or(entry.name.len());
        let name = entry.name.get(..end).unwrap_or("");
        let bare = name.trim_start_matches('-');
        let (shown, hint) = match nearest(bare) {
            Some(known) if known == bare && name != bare => {
                (name, "; in a file there are no dashes in front, and the value follows on the same line".to_owned())
            }
            Some(known) if known == bare => (name, "; coturn wants `name=value`".to_owned()),
            Some(known) => (name, format!("; coturn ignores it, too; did you mean {known}?")),
            None if is_made_of_known_words(bare) => (name, "; coturn ignores it, too".to_owned()),
            None => ("?", "; coturn ignores it, too; not shown here, because it could be a secret".to_owned()),
        };
        self.find(
            Some(entry.spot),
            shown,
            FindingKind::Unknown,
            Grade::Operation,
            &format!("not a directive of coturn{hint}"),
        );
    }

    /// A word of a command line that belongs to no option.
    pub(super) fn stray(&mut self, spot: Spot) {
        let message = "belongs to no option; coturn ignores it, too; not shown here, because it could be a secret";
        self.find(Some(spot), "?", FindingKind::Unknown, Grade::Operation, message);
    }
}

/// The directive of this name, or one that differs by a letter or two.
fn nearest(name: &str) -> Option<&'static str> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return None;
    }
    let allowed = if name.len() < 6 { 0 } else { 2 };
    let lower = name.to_ascii_lowercase().replace('_', "-");
    let near = table::all().map(|(known, _)| known).filter(|known| known.len().abs_diff(lower.len()) <= allowed);
    let near = near.map(|known| (edits(&lower, known), known));
    let exact = table::all().find(|(known, _)| *known == name).map(|(known, _)| known);
    exact.or_else(|| near.min().filter(|(distance, _)| *distance <= allowed).map(|(_, known)| known))
}

fn is_made_of_known_words(name: &str) -> bool {
    let known = |word: &str| table::all().any(|(directive, _)| directive.split('-').any(|known| known == word));
    !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.split('-').all(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_compared_by_letters() {
        assert_eq!(nearest("listning-port"), Some("listening-port"));
        assert_eq!(nearest("static_auth_secret"), Some("static-auth-secret"));
        assert_eq!((nearest("usr"), nearest("0123456789abcdef")), (None, None));
    }

    #[test]
    fn only_words_of_directives_are_shown() {
        assert!(is_made_of_known_words("relay-listening-port") && is_made_of_known_words("tls"));
        assert!(!is_made_of_known_words("hunter2-port") && !is_made_of_known_words(""));
    }
}
