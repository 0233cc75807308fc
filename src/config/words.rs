//! Plain words for what is easily got wrong: misspelt keys, text without quotes.

/// Parts of names whose values are not shown: secrets of ours, and of coturn's.
const SECRET_NAMES: [&str; 7] = ["secret", "password", "token", "user", "pwd", "statsdb", "credential"];

/// The known key that an unknown one was probably meant to be.
pub(crate) fn nearest<'k>(unknown: &str, known: &[&'k str]) -> Option<&'k str> {
    let meant = unknown.to_lowercase().replace('_', "-");
    let distances = known.iter().map(|key| (edits(&meant, key), *key));
    let (distance, key) = distances.min()?;
    // A third of the letters wrong is another word.
    (distance <= (meant.chars().count() / 3).min(3)).then_some(key)
}

/// The single edits between two words, a swap of neighbours being one (optimal string alignment).
pub(crate) fn edits(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    let mut last = None;
    for (at, c) in one.chars().enumerate() {
        let mut next = vec![at + 1];
        for (index, o) in other.iter().enumerate() {
            let cell = |row: &[usize], index: usize| row.get(index).copied().unwrap_or(usize::MAX - 1);
            let mut cost = cell(&row, index) + usize::from(c != *o);
            cost = cost.min(cell(&row, index + 1) + 1).min(cell(&next, index) + 1);
            let swapped = index > 0 && last == Some(*o) && other.get(index - 1) == Some(&c);
            if swapped {
                cost = cost.min(cell(&before, index - 1) + 1);
            }
            next.push(cost);
        }
        before = std::mem::replace(&mut row, next);
        last = Some(c);
    }
    row.last().copied().unwrap_or_default()
}

/// Of a line that is not TOML because its value is a text without quotes: how it must be written.
pub(super) fn quoted_line(line: &str) -> Option<String> {
    let (key, value) = line.split_once('=')?;
    let (key, value) = (key.trim(), value.split(" #").next().unwrap_or_default().trim());
    let is_key = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let is_quoted = value.starts_with(['"', '\'', '[', '{']);
    if key.is_empty() || !key.chars().all(is_key) || value.is_empty() || is_quoted || value.contains(['"', '\\']) {
        return None;
    }
    // A secret is not shown, nor what a URL has as its query or in front of its host.
    let is_secret = SECRET_NAMES.iter().any(|word| key.contains(word)) || value.contains(['?', '@']);
    Some(format!("a text must be in quotes: {key} = \"{}\"", if is_secret { "..." } else { value }))
}

/// Why a text is not TOML.
pub(super) fn syntax_words(text: &str, error: &toml::de::Error) -> String {
    let twice = || second_time(text, error.span()?.start);
    let twice = if error.message().contains("duplicate key") { twice() } else { None };
    twice.unwrap_or_else(|| error.message().trim().replace('\n', "; "))
}

/// Of a line with a table or a key that is there a second time: where the first one is, and what to do. `start` is where the second is.
fn second_time(text: &str, start: usize) -> Option<String> {
    let number = text.get(..start)?.matches('\n').count();
    let written = |line: &'_ str| line.split('#').next().unwrap_or(line).trim().to_owned();
    let lines: Vec<_> = text.lines().map(written).collect();
    let second = lines.get(number)?;
    let before = lines.get(..number)?;
    if second.starts_with('[') {
        let first = before.iter().position(|line| line == second)? + 1;
        return Some(format!("{second} is there a second time (first in line {first}): put its keys into one"));
    }
    let key = |line: &'_ str| line.split_once('=').map(|(key, _)| key.trim().to_owned());
    let name = key(second)?;
    let table = before.iter().rposition(|line| line.starts_with('['));
    let shown =
        table.and_then(|at| lines.get(at)).map_or("at the top level".to_owned(), |header| format!("in {header}"));
    let from = table.map_or(0, |at| at + 1);
    let first = from + before.iter().skip(from).position(|line| key(line).as_ref() == Some(&name))? + 1;
    Some(format!("{name} {shown} is there a second time (first in line {first}): leave one of them out"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_twice_is_named_with_where_the_first_is() {
        let text = "workers = 1\n[quota] # a\nallocations-total = 5\n[relay]\nports = \"1\"\nports=\"2\"\n [quota]\n";
        let at = |needle: &str| second_time(text, text.rfind(needle).unwrap());
        let said = "[quota] is there a second time (first in line 2): put its keys into one";
        assert_eq!(at("quota]").as_deref(), Some(said));
        let said = "ports in [relay] is there a second time (first in line 5): leave one of them out";
        assert_eq!(at("ports").as_deref(), Some(said));
        let twice = "workers = 1\nturn = true\nworkers = 2\n";
        let said = "workers at the top level is there a second time (first in line 1): leave one of them out";
        assert_eq!(second_time(twice, twice.rfind("workers").unwrap()).as_deref(), Some(said));
        for (text, start) in [("a = 1\n", 0), ("", 0), ("[a]\n", 1), ("a = 1", 99), ("\u{e9} = 1", 1)] {
            assert_eq!(second_time(text, start), None, "{text}");
        }
    }

    #[test]
    fn a_misspelt_key_is_known_and_another_word_is_not() {
        let known = ["external-ip", "ports", "ipv4", "level", "workers"];
        for (unknown, meant) in [
            ("wokers", Some("workers")),
            ("wrokers", Some("workers")),
            ("external_ip", Some("external-ip")),
            ("External-IP", Some("external-ip")),
            ("port", Some("ports")),
            ("levle", Some("level")),
            ("foo", None),
            ("x", None),
            ("", None),
            ("relay", None),
        ] {
            assert_eq!(nearest(unknown, &known), meant, "{unknown}");
        }
        assert_eq!(edits("kitten", "sitting"), 3);
        assert_eq!((edits("ab", "ba"), edits("", "abc")), (1, 3));
    }

    #[test]
    fn a_text_without_quotes_is_shown_with_them() {
        let quoted = |line| quoted_line(line).unwrap_or_default();
        assert_eq!(quoted("ports = 49152-65535 # all"), "a text must be in quotes: ports = \"49152-65535\"");
        assert_eq!(quoted("  realm=example.org"), "a text must be in quotes: realm = \"example.org\"");
        assert_eq!(quoted("secret = 3f9a-77"), "a text must be in quotes: secret = \"...\"");
        for line in [
            "user=alice:hunter2",
            "webhook = https://billing.example.org/turn?key=hunter2",
            "webhook = https://alice:hunter2@billing.example.org/",
            "redis-userdb=ip=127.0.0.1 password=hunter2",
            "redis-statsdb=ip=127.0.0.1 password=hunter2",
            "pkey-pwd=hunter2",
        ] {
            let said = quoted(line);
            assert!(said.ends_with(" = \"...\"") && !said.contains("hunter2"), "{said}");
        }
        for line in ["workers = ", "[relay", "a = \"b", "a = [1", "nonsense", "a b = c"] {
            assert_eq!(quoted_line(line), None, "{line}");
        }
    }
}
