//! The syntax of `turnserver.conf`, as coturn's own reader has it: a directive a line, `name=value`, `name value` or `name`.

use super::findings::Spot;

/// coturn reads lines into a buffer of this size; a longer one falls apart.
const LINE_BYTES_MAX: usize = 1023;

/// One directive as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry<'a> {
    pub(super) spot: Spot,
    pub(super) name: &'a str,
    /// Empty when there is none.
    pub(super) value: &'a str,
}

/// The directives of a file; `Err` is the number of a line that coturn cannot hold.
///
/// Comments are whole lines: what follows a value belongs to it. Any run of blanks and equals signs separates name and
/// value. A quote counts only as the first character of a value, and then takes one away at its end.
pub(super) fn lines(text: &str) -> impl Iterator<Item = Result<Entry<'_>, usize>> {
    text.split('\n').enumerate().filter_map(|(index, line)| {
        let number = index + 1;
        if line.len() > LINE_BYTES_MAX && !line.trim_start_matches(is_space).starts_with('#') {
            return Some(Err(number));
        }
        // The end of a string, in C.
        let line = line.split('\0').next().unwrap_or("").trim_matches(is_space);
        if line.is_empty() || line.starts_with('#') {
            return None;
        }
        let end = line.find(is_separator).unwrap_or(line.len());
        let (name, rest) = line.split_at(end);
        Some(Ok(Entry { spot: Spot::Line(number), name, value: unquoted(rest.trim_start_matches(is_separator)) }))
    })
}

pub(super) fn unquoted(value: &str) -> &str {
    match value.strip_prefix('"') {
        Some(inner) => {
            let inner = inner.trim_end_matches(is_space);
            inner.strip_suffix('"').unwrap_or(inner)
        }
        None => value,
    }
}

fn is_separator(c: char) -> bool {
    matches!(c, ' ' | '=' | '\t')
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n' | '\u{b}' | '\u{c}')
}

impl Entry<'_> {
    /// A switch: on when there is no value. coturn looks at the first letters only.
    pub(super) fn switch(&self) -> Option<bool> {
        let lower = self.value.to_ascii_lowercase();
        match lower.as_bytes() {
            [] | [b'1' | b'y' | b't', ..] | [b'o', b'n', ..] => Some(true),
            [b'0' | b'n' | b'f', ..] | [b'o', b'f', ..] => Some(false),
            _ => None,
        }
    }

    /// A whole number. coturn stops at the first character that is no digit, so that a comment may follow; anything else
    /// that follows is a mistake.
    pub(super) fn number(&self) -> Option<u64> {
        let digits = self.value.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.value.len());
        let (number, rest) = self.value.split_at(digits);
        let ends = rest.is_empty() || rest.starts_with(|c: char| is_space(c) || matches!(c, '#' | ';'));
        number.parse().ok().filter(|_| ends)
    }

    /// Whether it has no value, or a number that is zero, which is how coturn has most things turned off.
    pub(super) fn is_nothing(&self) -> bool {
        self.value.is_empty() || self.number() == Some(0)
    }

    /// Whether its value lets somebody in.
    pub(super) fn has_secret(&self) -> bool {
        matches!(self.name, "static-auth-secret" | "user" | "cli-password" | "pkey-pwd" | "stateless-nonce-secret")
            || self.name.ends_with("-userdb")
                && ["password=", "passwd=", "pwd=", "secret="].iter().any(|word| self.value.contains(word))
    }

    /// Whether the value has something after it that looks like a comment, but belongs to it.
    pub(super) fn has_comment_in_value(&self) -> bool {
        self.value.contains(" #") || self.value.contains("\t#")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(text: &str) -> Vec<(usize, &str, &str)> {
        lines(text).map(|line| line.unwrap()).map(|entry| (line_of(&entry), entry.name, entry.value)).collect()
    }

    fn line_of(entry: &Entry<'_>) -> usize {
        match entry.spot {
            Spot::Line(line) => line,
            Spot::Argument(_) => 0,
        }
    }

    #[test]
    fn lines_are_taken_apart_as_coturn_does() {
        let text = "# comment\n\nrealm=a.b\r\n  realm = a b \nlt-cred-mech\nlistening-port\t= \t3478\nuser=a:b=c\n\
                    cipher-list=\"A B\"  \npidfile=\"/x\nrealm=a\"b\"\nuser==x:y\n";
        assert_eq!(
            entries(text),
            [
                (3, "realm", "a.b"),
                (4, "realm", "a b"),
                (5, "lt-cred-mech", ""),
                (6, "listening-port", "3478"),
                (7, "user", "a:b=c"),
                (8, "cipher-list", "A B"),
                (9, "pidfile", "/x"),
                (10, "realm", "a\"b\""),
                (11, "user", "x:y"),
            ]
        );
    }

    #[test]
    fn a_line_too_long_for_coturn_is_named_and_a_long_comment_is_not() {
        let text = format!("#{}\nuser=a:{}\n", "x".repeat(2000), "x".repeat(2000));
        assert_eq!(lines(&text).collect::<Vec<_>>(), [Err(2)]);
    }

    #[test]
    fn switches_and_numbers_are_read_as_coturn_does() {
        let entry = |value| Entry { spot: Spot::Line(1), name: "x", value };
        for (value, expected) in
            [("", Some(true)), ("on", Some(true)), ("True", Some(true)), ("0", Some(false)), ("OFF", Some(false))]
        {
            assert_eq!(entry(value).switch(), expected, "{value}");
        }
        assert_eq!(entry("maybe").switch(), None);
        for (value, expected) in
            [("12", Some(12)), ("12 # twelve", Some(12)), ("12;", Some(12)), ("12M", None), ("", None), ("-1", None)]
        {
            assert_eq!(entry(value).number(), expected, "{value}");
        }
    }
}
