//! Text from outside: which characters no name needs, and JSON without them.

use std::fmt;

use serde::Serialize;

/// Whether a character can steer a terminal, turn the direction of writing, or hide: control characters (C1 included), marks
/// and overrides of direction, separators of lines, characters without width, tags, and code points that are no characters.
///
/// RFC 8265 (OpaqueString) allows none of them. It also disallows what joins and varies emoji, and every character younger
/// than its tables; those do no harm, and a name with one is let be.
pub fn is_deceptive(c: char) -> bool {
    let is_no_character = matches!(c, '\u{FDD0}'..='\u{FDEF}') || u32::from(c) & 0xFFFE == 0xFFFE;
    c.is_control()
        || is_no_character
        || matches!(
            c,
            '\u{AD}'
                | '\u{61C}'
                | '\u{180E}'
                | '\u{200B}'
                | '\u{200E}'..='\u{200F}'
                | '\u{2028}'..='\u{202E}'
                | '\u{2060}'..='\u{206F}'
                | '\u{FEFF}'
                | '\u{FFF9}'..='\u{FFFB}'
                | '\u{E0000}'..='\u{E007F}'
        )
}

/// A value as JSON in one line; characters that deceive are written as `\uXXXX`.
pub fn json(value: &impl Serialize) -> String {
    // Text and numbers always are JSON.
    escape(serde_json::to_string(value).unwrap_or_default())
}

/// The same over several lines, for reading.
pub fn json_pretty(value: &impl Serialize) -> String {
    escape(serde_json::to_string_pretty(value).unwrap_or_default())
}

/// Outside of its strings JSON has no character that is escaped here, but for the ends of lines.
fn escape(json: String) -> String {
    let is_bad = |c: char| c != '\n' && is_deceptive(c);
    if !json.contains(is_bad) {
        return json;
    }
    let mut escaped = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        match c {
            // A string takes everything.
            c if is_bad(c) => drop(write_json_escape(&mut escaped, c)),
            c => escaped.push(c),
        }
    }
    escaped
}

/// A character as JSON has it when it is not written as it is.
pub fn write_json_escape(out: &mut dyn fmt::Write, c: char) -> fmt::Result {
    c.encode_utf16(&mut [0; 2]).iter().try_for_each(|unit| write!(out, "\\u{unit:04x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every_char() -> impl Iterator<Item = char> {
        (0..=0x10_FFFF).filter_map(char::from_u32)
    }

    #[test]
    fn json_has_no_character_that_deceives_and_reads_back_the_same() {
        let all: String = every_char().filter(|c| is_deceptive(*c)).chain("zo\u{eb} \u{1f600}\n\"\\".chars()).collect();
        for text in [json(&all), json_pretty(&serde_json::json!({ "name": &all, "list": [&all] }))] {
            assert!(!text.chars().any(|c| c != '\n' && is_deceptive(c)));
            assert!(text.contains("\\u009b") && text.contains("\\u202e") && text.contains("\\udb40\\udc7f"));
            let read: serde_json::Value = serde_json::from_str(&text).unwrap();
            let name = read.as_str().or(read["name"].as_str()).unwrap();
            assert_eq!(name, all);
        }
    }

    #[test]
    fn what_is_harmless_stays_as_it_is() {
        let name = "zo\u{eb} \u{30de}\u{30c8} \u{5d0} \u{1f468}\u{200d}\u{1f469} \u{2764}\u{fe0f}";
        assert!(!name.chars().any(is_deceptive));
        assert_eq!(json(&name), format!("\"{name}\""));
    }

    #[test]
    fn what_is_shown_on_terminals_has_none_of_them() {
        for c in every_char().filter(|c| is_deceptive(*c)) {
            assert!(c.escape_debug().count() > 1, "{c:?}");
        }
    }
}
