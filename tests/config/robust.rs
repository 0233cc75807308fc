//! Whatever is in the file: a configuration or an error, never a panic, and never a secret in the error.

use proptest::prelude::*;

use super::given;

const REFERENCE: &str = include_str!("../../docs/reference.md");

/// Of every table its keys with their defaults; and every example.
fn documents() -> Vec<String> {
    let mut documents = vec![String::new()];
    let mut key = "";
    for line in REFERENCE.lines() {
        if let Some(table) = line.strip_prefix("## ") {
            documents.push(if table.starts_with('[') { format!("{table}\n") } else { String::new() });
            key = "";
        } else if let Some(name) = line.strip_prefix("### ") {
            key = name.rsplit_once('.').map_or(name, |(_, name)| name);
        } else if let (Some(default), false) = (line.strip_prefix("- Default: `"), key.is_empty()) {
            let table = documents.last_mut().unwrap();
            *table += &format!("{key} = {}\n", default.trim_end_matches('`'));
        }
    }
    let examples = REFERENCE.split("```toml\n").skip(1).filter_map(|rest| rest.split_once("```"));
    documents.extend(examples.map(|(example, _)| example.to_owned()));
    documents.retain(|document| document.contains(" = "));
    documents.iter_mut().filter(|text| !text.contains("[[auth.secrets]]")).for_each(|text| *text += super::SECRET);
    documents
}

fn parse(text: &str) {
    match given(text).parse() {
        Ok(loaded) => {
            let _ = loaded.config.to_toml();
        }
        Err(error) => {
            assert!(!error.problems.is_empty());
            let _ = error.to_string();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,200}") {
        parse(&text);
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        parse(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn a_damaged_file_is_read_or_refused(
        which in any::<prop::sample::Index>(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3u8), 1..8)
    ) {
        let mut bytes = which.get(&documents()).clone().into_bytes();
        for (at, byte, kind) in damage {
            let at = at.index(bytes.len());
            match kind {
                0 => bytes[at] = byte,
                1 => { bytes.remove(at); }
                _ => bytes.insert(at, byte),
            }
        }
        parse(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn any_value_under_any_key_is_read_or_refused(
        which in any::<prop::sample::Index>(),
        line in any::<prop::sample::Index>(),
        value in prop_oneof![
            Just("\"\"".to_owned()), Just("-9223372036854775808".to_owned()), Just("9223372036854775807".to_owned()),
            Just("99999999999999999999999".to_owned()), Just("1e400".to_owned()), Just("nan".to_owned()),
            Just("true".to_owned()), Just("[]".to_owned()), Just("[[]]".to_owned()), Just("{}".to_owned()),
            Just("1979-05-27".to_owned()), Just("\"18446744073709551616d\"".to_owned()), Just("\"0-0\"".to_owned()),
            Just("0xffff_ffff_ffff_ffff".to_owned()), "\"[0-9.a-z:/*-]{0,20}\"",
        ]
    ) {
        let text = which.get(&documents()).clone();
        let lines: Vec<_> = text.lines().collect();
        let options: Vec<_> = (0..lines.len()).filter(|&at| lines[at].contains(" = ")).collect();
        let chosen = options[line.index(options.len())];
        let changed: Vec<_> = lines
            .iter()
            .enumerate()
            .map(|(at, line)| match line.split_once(" = ") {
                Some((key, _)) if at == chosen => format!("{key} = {value}"),
                _ => (*line).to_owned(),
            })
            .collect();
        parse(&changed.join("\n"));
    }
}

#[test]
fn deep_nesting_is_refused() {
    let text = format!("workers = {}", "[".repeat(100_000));
    assert!(given(&text).parse().is_err());
}

#[test]
fn no_secret_is_in_a_debug_dump() {
    let config = given(super::SECRET).config();
    let dump = format!("{config:?}");
    assert!(!dump.contains("0123456789abcdef") && !dump.contains("48, 49, 50"), "{dump}");
}
