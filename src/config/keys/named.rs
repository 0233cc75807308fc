//! What messages name is there: a remedy with a key that nobody knows sends who follows it from one error into the next.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::all;

/// Where there are texts about the configuration.
const FOLDERS: [&str; 2] = ["src", "crates/turn/src"];
/// Words that stand in front of `in [table]` or ` = "..."` and are no keys.
const WORDS: [&str; 10] = ["true", "own", "one", "is", "rule", "written", "token", "ports", "removed", "type"];

#[test]
fn keys_that_messages_name_are_in_the_table_of_keys() {
    let known: BTreeSet<&str> = all().map(|key| key.name).collect();
    let last: BTreeSet<&str> = known.iter().filter_map(|name| name.rsplit('.').next()).collect();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut unknown = Vec::new();
    let mut found = 0;
    for path in FOLDERS.iter().flat_map(|folder| sources(&root.join(folder))) {
        let text = texts_of(&fs::read_to_string(&path).unwrap());
        for (name, table) in named(&text) {
            let is_known = match &table {
                Some(table) => known.contains(&*format!("{table}.{name}")),
                None => last.contains(&*name),
            };
            found += 1;
            if !is_known && !WORDS.contains(&&*name) {
                unknown.push(format!("{}: {name} in [{}]", path.display(), table.unwrap_or_default()));
            }
        }
    }
    assert!(found > 100, "only {found} keys are named: the texts are not found any more");
    assert!(unknown.is_empty(), "there are no such keys:\n{}", unknown.join("\n"));
}

#[test]
fn keys_are_found_in_messages() {
    let found = |text: &str| named(&texts_of(text));
    let of = |name: &str, table: &str| (name.to_owned(), Some(table.to_owned()).filter(|table| !table.is_empty()));
    assert_eq!(found("\"set `default = \\\"deny\\\"` to\""), [of("default", "")]);
    assert_eq!(
        found("\"name = 5 in [guard], urls in \\\n         [[auth.a-b]]; x = true\""),
        [of("urls", "auth.a-b"), of("x", "")]
    );
    assert_eq!(found("// a = \"b\" in [c]\nlet a = \"b\";\nlet c = true;\n#[cfg(test)]\n\"a in [b]\""), []);
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            // Keys of other programs are in there.
            if entry.ends_with("import") {
                continue;
            }
            found.extend(sources(&entry));
        } else if entry.extension().is_some_and(|extension| extension == "rs") && !is_of_tests(&entry) {
            found.push(entry);
        }
    }
    found
}

fn is_of_tests(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    // The last writes configurations, of other programs, too.
    ["tests.rs", "reference.rs", "named.rs", "paste.rs", "unshown.rs"].contains(&name)
}

/// The string literals of a source, each as it is at run time; tests and comments are left out.
fn texts_of(source: &str) -> String {
    let code = source.split("#[cfg(test)]").next().unwrap_or_default();
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    let code = lines.collect::<Vec<_>>().join("\n");
    let mut texts = String::new();
    let mut chars = code.chars().peekable();
    let mut is_text = false;
    while let Some(c) = chars.next() {
        match (is_text, c) {
            (true, '\\') => match chars.next() {
                Some('\n') => while chars.next_if(|c| c.is_whitespace()).is_some() {},
                Some('n') => texts.push('\n'),
                Some(c) => texts.push(c),
                None => {}
            },
            (false, '\'') if chars.next_if_eq(&'"').is_some() => {}
            (_, '"') => {
                is_text = !is_text;
                texts.push('\n');
            }
            (true, c) => texts.push(c),
            (false, _) => {}
        }
    }
    texts
}

/// Every `NAME in [TABLE]` and `NAME = "VALUE"` or `NAME = true`.
fn named(text: &str) -> Vec<(String, Option<String>)> {
    let is_of_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let before = |at: usize| {
        let head = &text[..at];
        let name = &head[head.trim_end_matches(is_of_name).len()..];
        name.starts_with(|c: char| c.is_ascii_lowercase()).then(|| name.to_owned())
    };
    let mut found: Vec<(usize, String, Option<String>)> = Vec::new();
    for (at, _) in text.match_indices(" in [") {
        let rest = text[at + 5..].trim_start_matches('[');
        let table = &rest[..rest.len() - rest.trim_start_matches(|c| is_of_name(c) || c == '.').len()];
        if let Some(name) = before(at).filter(|_| !table.is_empty() && rest[table.len()..].starts_with(']')) {
            found.push((at, name, Some(table.to_owned())));
        }
    }
    for (at, _) in text.match_indices(" = ") {
        let rest = &text[at + 3..];
        let is_value = ["\"", "[\"", "true", "false"].iter().any(|start| rest.starts_with(start));
        if let Some(name) = before(at).filter(|_| is_value) {
            found.push((at, name, None));
        }
    }
    found.sort();
    found.into_iter().map(|(_, name, table)| (name, table)).collect()
}
