//! `docs/reference.md` against the table: every key has its entry, and what the table knows of it stands there word by word.
//!
//! `TURNSTONE_WRITE_REFERENCE=1 cargo test --lib reference` writes those lines. The text of an entry is written by hand.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use super::super::overrides::{ADMIN_ENV, ADMIN_TOKEN_ENV, CONFIG_ENV};
use super::super::units::{duration_text, size_text};
use super::tests::in_part;
use super::*;

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/reference.md");
const WRITE: &str = "TURNSTONE_WRITE_REFERENCE";
/// What the lines of facts begin with.
const FACTS: [&str; 4] = ["- Value: ", "- Default: ", "- Change: ", "- Set by: "];
const TOP_LEVEL: &str = "Top level";

#[test]
fn the_reference_has_every_key_and_says_of_it_what_the_table_says() {
    let text = fs::read_to_string(PATH).unwrap();
    let mut page = Page::of(&text);
    if std::env::var_os(WRITE).is_some() {
        // New entries are in the contents from the second time on.
        let written = Page::of(&page.written).written;
        fs::write(PATH, &written).unwrap();
        page = Page::of(&written);
    }
    let problems = page.problems.join("\n");
    assert!(
        problems.is_empty(),
        "{problems}\n\nTo write all lines that are made from the table: {WRITE}=1 cargo test --lib reference"
    );
}

#[test]
fn what_is_wrong_in_the_reference_is_named_with_its_line_and_what_is_expected() {
    let text = fs::read_to_string(PATH).unwrap();
    let (workers, entry) = ("### workers\n", "### turn\n\n- Value: `true` or `false`\n- Default: `true`\n");
    let software = "- Default: none: SOFTWARE is not sent\n";
    for (from, to, expected) in [
        ("- Default: `0`\n", "- Default: `2`\n", "workers: expected below it:\n- Default: `0`"),
        (
            "- Change: takes a restart\n",
            "- Change: applied by a reload\n",
            "expected below it:\n- Change: takes a restart",
        ),
        (
            "`TURNSTONE_WORKERS`\n",
            "`TURNSTONE_WORKER`\n",
            "the table of keys does not say \"- Set by: `--workers NUMBER`, `TURNSTONE_WORKER`\"",
        ),
        (
            entry,
            "",
            "no entry of turn; add, with a text:\n\n### turn\n\n- Value: `true` or `false`\n- Default: `true`\n- Change: ",
        ),
        (workers, "### wokers\n", "wokers: there is no such key: take its entry out"),
        (workers, "### relay.ports\n", "relay.ports: it is below the heading of []"),
        (entry, &format!("{entry}- Set by: nothing\n"), "turn: the table of keys does not say \"- Set by: nothing\""),
        (entry, &format!("{entry}{entry}"), "turn: it has two entries"),
        ("## [relay]\n", "## [[relay]]\n", "[[relay]]: there is no such table (expected [relay])"),
        // A default in code would be one of the table.
        (software, "- Default: `turnstone`\n", "the table of keys does not say \"- Default: `turnstone`\""),
        ("- [Variables and flags]", "- [Variables]", "Contents: its list is not that of the keys"),
    ] {
        assert!(text.contains(from), "{from}");
        let problems = Page::of(&text.replacen(from, to, 1)).problems.join("\n");
        assert!(problems.contains(expected) && problems.contains("docs/reference.md:"), "{to:?}: {problems}");
    }
    let (start, end) = (text.find(workers).unwrap(), text.find("### turn\n").unwrap());
    let without_text = text.replacen(
        text.get(start..end).unwrap(),
        &format!("{workers}\n{}\n\n", facts(find("workers").unwrap(), None).join("\n")),
        1,
    );
    let problems = Page::of(&without_text).problems;
    assert!(matches!(&problems[..], [problem] if problem.contains("workers: it has no text")), "{problems:?}");
}

#[test]
fn every_link_into_the_reference_leads_to_a_heading() {
    let text = fs::read_to_string(PATH).unwrap();
    // From other pages, too.
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let docs = fs::read_dir(top.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let pages = docs.chain([top.join("README.md")]).filter(|path| path.extension().is_some_and(|name| name == "md"));
    for path in pages.collect::<Vec<_>>() {
        let page = fs::read_to_string(&path).unwrap();
        for target in page.split("reference.md#").skip(1).filter_map(|rest| rest.split_once(')')).map(|(to, _)| to) {
            let is_there = parts(&text).iter().any(|part| slug(part.title) == target);
            assert!(is_there, "{}: no heading of docs/reference.md for #{target}", path.display());
        }
    }
    let slugs: Vec<_> = parts(&text).iter().map(|part| slug(part.title)).collect();
    let unique: BTreeSet<_> = slugs.iter().collect();
    assert_eq!(slugs.len(), unique.len(), "two headings have one anchor");
    let mut links = 0;
    for (line, text) in text.lines().enumerate() {
        for target in text.split("](#").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target) {
            assert!(unique.contains(&target.to_owned()), "docs/reference.md:{}: no heading for #{target}", line + 1);
            links += 1;
        }
    }
    assert!(links > 200, "{links}");
}

/// The page as it should be, and what is wrong with the one that is there.
#[derive(Default)]
struct Page {
    written: String,
    problems: Vec<String>,
    seen: BTreeSet<&'static str>,
}

/// A heading with the lines below it.
struct Part<'t> {
    line: usize,
    level: usize,
    title: &'t str,
    body: Vec<&'t str>,
}

impl Page {
    fn of(text: &str) -> Self {
        let parts = parts(text);
        let mut page = Self::default();
        let mut section = None;
        for (index, part) in parts.iter().enumerate() {
            let bare = part.title.trim_matches(['[', ']']);
            let is_table = part.level == 2 && (part.title.starts_with('[') || part.title == TOP_LEVEL);
            if part.level == 2 {
                section = is_table.then_some(if part.title == TOP_LEVEL { "" } else { bare });
            }
            let body = match (part.level, part.title, section) {
                (2, "Contents", _) => page.with_list(part, "- [", &contents(&parts)),
                (2, "Variables and flags", _) => page.with_list(part, "- `", &variables()),
                (2, title, Some(section)) => page.table(part, title, section),
                (3, title, Some(section)) => page.key(part, title, section),
                (3, ..) => page.refuse(part, "it is in no table"),
                _ => part.body.iter().map(|line| format!("{line}\n")).collect(),
            };
            page.written += &format!("{} {}\n{body}", "#".repeat(part.level), part.title);
            let is_last_of_section = parts.get(index + 1).is_none_or(|next| next.level <= 2);
            if let (true, Some(section)) = (is_last_of_section, section) {
                page.add_missing(section);
            }
        }
        let without_section: BTreeSet<_> =
            in_file().filter(|key| !page.seen.contains(key.name)).map(|key| (key.section(), key.name)).collect();
        for (section, name) in without_section {
            page.problems
                .push(format!("docs/reference.md: no heading \"## [{section}]\" or \"## [[{section}]]\" for {name}"));
        }
        page
    }

    fn refuse(&mut self, part: &Part<'_>, why: &str) -> String {
        self.problems.push(format!("docs/reference.md:{}: {}: {why}", part.line, part.title));
        part.body.iter().map(|line| format!("{line}\n")).collect()
    }

    /// `## [relay]` has a text, `## [[listen]]` facts, too.
    fn table(&mut self, part: &Part<'_>, title: &str, section: &str) -> String {
        let key = find(section).filter(|key| matches!(key.kind, Kind::Tables));
        let expected = match (key, section) {
            (Some(_), _) => format!("[[{section}]]"),
            (None, "") => TOP_LEVEL.to_owned(),
            (None, _) => format!("[{section}]"),
        };
        if title != expected || (key.is_none() && !in_file().any(|key| key.section() == section)) {
            return self.refuse(part, &format!("there is no such table (expected {expected})"));
        }
        match key {
            Some(key) => self.entry(part, key),
            None => part.body.iter().map(|line| format!("{line}\n")).collect(),
        }
    }

    fn key(&mut self, part: &Part<'_>, title: &str, section: &str) -> String {
        match in_file().find(|key| key.name == title && !matches!(key.kind, Kind::Tables)) {
            None => self.refuse(part, "there is no such key: take its entry out"),
            Some(key) if key.section() != section => {
                self.refuse(part, &format!("it is below the heading of [{section}]"))
            }
            Some(key) => self.entry(part, key),
        }
    }

    fn entry(&mut self, part: &Part<'_>, key: &'static Key) -> String {
        if !self.seen.insert(key.name) {
            return self.refuse(part, "it has two entries");
        }
        let is_fact = |line: &&str| FACTS.iter().any(|fact| line.starts_with(fact));
        let head = part.body.iter().take_while(|line| line.is_empty() || is_fact(line)).count();
        let (head, text) = part.body.split_at(head);
        let expected = facts(key, head.iter().find_map(|line| line.strip_prefix("- Default: ")));
        for (line, found) in head.iter().enumerate().filter(|(_, line)| !line.is_empty()) {
            if !expected.iter().any(|fact| fact == found) {
                let line = part.line + 1 + line;
                self.problems
                    .push(format!("docs/reference.md:{line}: {}: the table of keys does not say {found:?}", key.name));
            }
        }
        let missing: Vec<_> =
            expected.iter().filter(|fact| !head.contains(&fact.as_str())).map(String::as_str).collect();
        if !missing.is_empty() {
            self.refuse(part, &format!("expected below it:\n{}", missing.join("\n")));
        }
        if text.iter().all(|line| line.is_empty()) {
            self.refuse(part, "it has no text: say what it is for, and why one would change it");
        }
        let text: String = text.iter().map(|line| format!("{line}\n")).collect();
        let written = format!("\n{}\n\n{text}", expected.join("\n"));
        let body: String = part.body.iter().map(|line| format!("{line}\n")).collect();
        let is_known_to_differ = self.problems.last().is_some_and(|problem| problem.contains(key.name));
        if written != body && !is_known_to_differ {
            self.refuse(part, "its lines are in another order, or lack the blank lines around them");
        }
        written
    }

    /// Below the last entry of a section: those that are not there.
    fn add_missing(&mut self, section: &str) {
        let is_missing = |key: &&Key| key.section() == section && !matches!(key.kind, Kind::Tables);
        for key in in_file().filter(is_missing) {
            if self.seen.insert(key.name) {
                let entry = format!("### {}\n\n{}\n\n", key.name, facts(key, None).join("\n"));
                self.problems
                    .push(format!("docs/reference.md: no entry of {}; add, with a text:\n\n{entry}", key.name));
                self.written += &entry;
            }
        }
    }

    /// A part whose lines from the first of these on are made from the table.
    fn with_list(&mut self, part: &Part<'_>, first: &str, list: &str) -> String {
        let text: String =
            part.body.iter().take_while(|line| !line.starts_with(first)).map(|line| format!("{line}\n")).collect();
        let text = if text.trim().is_empty() { String::new() } else { format!("{}\n", text.trim_end()) };
        let written = format!("{text}\n{list}\n");
        let body: String = part.body.iter().map(|line| format!("{line}\n")).collect();
        if written.trim_end() != body.trim_end() {
            let missing: Vec<_> = list.lines().filter(|line| !part.body.contains(line)).collect();
            let missing = missing.join("\n");
            self.refuse(part, &format!("its list is not that of the keys; these lines are expected in it:\n{missing}"));
        }
        if part.title == "Contents" { written + "\n" } else { written }
    }
}

/// The page by its headings; what is in a block of code is none.
fn parts(text: &str) -> Vec<Part<'_>> {
    let mut parts: Vec<Part<'_>> = Vec::new();
    let mut is_code = false;
    for (index, line) in text.lines().enumerate() {
        is_code ^= line.starts_with("```");
        match (heading(line).filter(|_| !is_code), parts.last_mut()) {
            (Some((level, title)), _) => parts.push(Part { line: index + 1, level, title, body: Vec::new() }),
            (None, Some(part)) => part.body.push(line),
            (None, None) => {}
        }
    }
    parts
}

fn heading(line: &str) -> Option<(usize, &str)> {
    let (hashes, title) = line.split_once(' ')?;
    (!hashes.is_empty() && hashes.bytes().all(|byte| byte == b'#')).then_some((hashes.len(), title))
}

/// What GitHub and others make of a heading, to link to it.
fn slug(title: &str) -> String {
    let kept = title.chars().filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | ' '));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

fn in_file() -> impl Iterator<Item = &'static Key> {
    all().filter(|key| !matches!(key.kind, Kind::Outside))
}

/// The lines of a key. Where the table has no default, what the page has in words stays.
fn facts(key: &'static Key, words: Option<&str>) -> Vec<String> {
    let words = words.filter(|words| !words.starts_with('`')).unwrap_or("none");
    let default = match key.default {
        None => words.to_owned(),
        Some(default) if is_bare(key, default) => format!("`{default}`"),
        Some(default) => format!("`\"{default}\"`"),
    };
    let table = find(key.section());
    let keeps = key.keep.is_some() || table.is_some_and(|table| table.keep.is_some());
    let change = match in_part(key) {
        Some(words) => words,
        None if keeps => "takes a restart",
        None => "applied by a reload",
    };
    let mut facts =
        vec![format!("- Value: {}", value(key)), format!("- Default: {default}"), format!("- Change: {change}")];
    // What stands in the place of whole tables is no key itself.
    let instead = format!("[[{}]]", key.name);
    let is_of_key = |set: &&Overridable| {
        set.key == key.name || (set.key != "listen" && set.help.contains(&format!("every {instead}")))
    };
    let set_by: Vec<_> = settable().filter(is_of_key).map(ways).collect();
    if !set_by.is_empty() {
        facts.push(format!("- Set by: {}", set_by.join("; ")));
    }
    facts
}

fn is_bare(key: &Key, default: &str) -> bool {
    matches!(key.kind, Kind::Boolean) || (!default.is_empty() && default.bytes().all(|byte| byte.is_ascii_digit()))
}

/// What may be written, with its range; quoted texts as code.
fn value(key: &Key) -> String {
    let size = |range: &std::ops::RangeInclusive<u64>| {
        format!("a size from \"{}\" to \"{}\"", size_text(*range.start()), size_text(*range.end()))
    };
    let duration = |range: &std::ops::RangeInclusive<Duration>| {
        format!("a duration from \"{}\" to \"{}\"", duration_text(*range.start()), duration_text(*range.end()))
    };
    let expected = match &key.kind {
        Kind::Boolean => return "`true` or `false`".to_owned(),
        Kind::Duration(range) => duration(range),
        Kind::DurationOrOff(range) => duration(range) + ", or \"off\"",
        Kind::Size(range) => size(range),
        Kind::SizeOrOff(range) => size(range) + ", or \"off\"",
        Kind::Texts(expected) if !expected.contains("array") => format!("{expected}; one, or an array"),
        _ => key.expected(),
    };
    let parts = expected.split('"').enumerate();
    parts.map(|(index, part)| if index % 2 == 1 { format!("`\"{part}\"`") } else { part.to_owned() }).collect()
}

fn ways(set: &Overridable) -> String {
    let Overridable { env, flag, list, value_name, .. } = set;
    match (flag, list) {
        (None, false) => format!("`{env}`"),
        (None, true) => format!("`{env}` separated by commas"),
        (Some(flag), false) => format!("`--{flag} {value_name}`, `{env}`"),
        (Some(flag), true) => format!("`--{flag} {value_name}` any number of times, `{env}` separated by commas"),
    }
}

fn contents(parts: &[Part<'_>]) -> String {
    let mut lines: Vec<String> = Vec::new();
    let mut is_table = false;
    for part in parts {
        let link = |name: &str| format!("[{name}](#{})", slug(part.title));
        match part.level {
            2 if part.title != "Contents" => {
                is_table = part.title.starts_with('[') || part.title == TOP_LEVEL;
                lines.push(format!("- {}", link(part.title)));
            }
            3 if is_table => {
                let name = part.title.rsplit_once('.').map_or(part.title, |(_, name)| name);
                let Some(line) = lines.last_mut() else { continue };
                // Writing to a string cannot fail.
                let _ = write!(line, "{} {}", if line.contains("): ") { "," } else { ":" }, link(name));
            }
            _ => {}
        }
    }
    lines.join("\n")
}

fn variables() -> String {
    let mut lines = vec![
        format!("- `{CONFIG_ENV}`, `--config FILE`: the configuration file"),
        format!("- `{ADMIN_ENV}`, `--admin`: where the admin API listens, for the commands that use it"),
        format!("- `{ADMIN_TOKEN_ENV}`: the token that these commands show there"),
    ];
    for set in overridable() {
        let flag = set.flag.map_or(String::new(), |flag| format!(", `--{flag} {}`", set.value_name));
        let key = find(set.key).filter(|key| !matches!(key.kind, Kind::Outside));
        let title =
            key.map(
                |key| if matches!(key.kind, Kind::Tables) { format!("[[{}]]", key.name) } else { key.name.to_owned() },
            );
        let link = title.map_or(String::new(), |title| format!("[{title}](#{}): ", slug(&title)));
        lines.push(format!("- `{}`{flag}: {link}{}", set.env, set.help));
    }
    lines.join("\n")
}
