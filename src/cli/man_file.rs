//! `turnstone man turnserver.toml`: the reference of every option, which is the shipped file itself, as a manual page of section 5.

use clap_mangen::roff::{Roff, bold, roman};

/// The name that the page is asked for by.
pub(super) const PAGE: &str = "turnserver.toml";
const REFERENCE: &str = include_str!("../../turnserver.toml");

/// A line of the reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line<'r> {
    /// Between paragraphs of one comment.
    Blank,
    /// Between comments and options.
    End,
    /// In front of a section and what is said of it.
    Rule,
    /// `[relay]`, `[[listen]]`, also where it is an example.
    Section(&'r str),
    /// `key = value`, active, default or example.
    Key(&'r str),
    /// Text; what is indented is shown as it is.
    Text(&'r str),
}

impl<'r> Line<'r> {
    fn of(line: &'r str) -> Self {
        let bare = line.strip_prefix('#').unwrap_or(line);
        let rest = bare.trim();
        let is_key = |text: &str| {
            let key = text.split_once(" = ").map_or("", |(key, _)| key);
            !key.is_empty()
                && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        };
        match rest {
            "" if line.is_empty() => Self::End,
            "" => Self::Blank,
            _ if rest.starts_with("----") => Self::Rule,
            _ if rest.starts_with('[') && rest.ends_with(']') && !rest.contains(' ') => Self::Section(rest),
            _ if is_key(rest) => Self::Key(rest),
            _ => Self::Text(bare.strip_prefix(' ').unwrap_or(bare)),
        }
    }
}

/// The page.
pub(super) fn page() -> Roff {
    let mut roff = Roff::new();
    roff.control("TH", ["turnserver.toml", "5", "", env!("CARGO_PKG_VERSION"), "Turnstone"]);
    roff.control("SH", ["NAME"])
        .text([roman("turnserver.toml \u{2013} configuration of turnstone, a STUN/TURN server")]);
    roff.control("SH", ["DESCRIPTION"]);
    let mut text: Vec<&str> = Vec::new();
    let mut keys: Vec<&str> = Vec::new();
    let mut section = "";
    // What stands in front of a section is said of it.
    let mut is_of_next = false;
    for line in REFERENCE.lines().map(Line::of) {
        match line {
            Line::Section(name) => {
                if !keys.is_empty() {
                    write(&mut roff, &mut keys, &mut text);
                }
                if name != section {
                    roff.control("SH", [name]);
                }
                (section, is_of_next) = (name, false);
                if !text.is_empty() {
                    write(&mut roff, &mut keys, &mut text);
                }
            }
            Line::Key(key) => keys.push(key),
            Line::Text(line) => {
                if !keys.is_empty() {
                    write(&mut roff, &mut keys, &mut text);
                }
                text.push(line);
            }
            Line::Rule => {
                write(&mut roff, &mut keys, &mut text);
                is_of_next = true;
            }
            Line::End if !is_of_next => write(&mut roff, &mut keys, &mut text),
            Line::Blank | Line::End if keys.is_empty() => text.push(""),
            Line::Blank | Line::End => write(&mut roff, &mut keys, &mut text),
        }
    }
    write(&mut roff, &mut keys, &mut text);
    roff.control("SH", ["SEE ALSO"]).text([bold("turnstone"), roman("(1), "), bold("turnstone-check"), roman("(1)")]);
    roff
}

/// Keys in bold with the text before them below; text alone as paragraphs.
fn write(roff: &mut Roff, keys: &mut Vec<&str>, text: &mut Vec<&str>) {
    while text.last().is_some_and(|line| line.is_empty()) {
        text.pop();
    }
    if !keys.is_empty() {
        roff.control("PP", []).control("nf", []);
        for key in keys.drain(..) {
            roff.text([bold(key)]);
        }
        roff.control("fi", []).control("RS", ["4"]);
        paragraphs(roff, text);
        roff.control("RE", []);
        return;
    }
    roff.control("PP", []);
    paragraphs(roff, text);
}

fn paragraphs(roff: &mut Roff, text: &mut Vec<&str>) {
    for line in text.drain(..) {
        match line {
            "" => roff.control("PP", []),
            _ if line.starts_with(' ') => roff.control("br", []).text([roman(line)]),
            _ => roff.text([roman(line)]),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_told_apart() {
        assert_eq!(Line::of("[relay]"), Line::Section("[relay]"));
        assert_eq!(Line::of("# [[listen]]"), Line::Section("[[listen]]"));
        assert_eq!(Line::of("#ports = \"1-2\""), Line::Key("ports = \"1-2\""));
        assert_eq!(Line::of("# env = \"X\""), Line::Key("env = \"X\""));
        assert_eq!(
            Line::of("# With mode = \"sfu\", what is reachable."),
            Line::Text("With mode = \"sfu\", what is reachable.")
        );
        assert_eq!((Line::of("# -----"), Line::of("#"), Line::of("")), (Line::Rule, Line::Blank, Line::End));
    }

    #[test]
    fn what_is_said_of_a_section_is_below_its_heading_and_what_is_said_of_the_file_is_no_options() {
        let page = page().to_roff().replace("\\-", "-");
        let places: Vec<_> = [
            "every option, with its default",
            "\\fBworkers = 0",
            ".SH [[listen]]",
            "any number of [[listen]]",
            "\\fBaddress = ",
            ".SH [peers]",
            "Which peers may be reached",
            "\\fBmode = ",
            ".SH [quota]",
            "How many allocations",
            "\\fBallocations-per-user = 4096",
        ]
        .into_iter()
        .map(|text| page.find(text).unwrap_or_else(|| panic!("no {text}: {page}")))
        .collect();
        assert!(places.is_sorted(), "{places:?}");
        assert_eq!(page.matches(".SH [[listen]]").count(), 1);
    }

    #[test]
    fn every_option_of_the_reference_is_on_the_page() {
        let page = page().to_roff().replace("\\-", "-");
        let mut keys = 0;
        for line in REFERENCE.lines() {
            match Line::of(line) {
                Line::Key(key) => {
                    keys += 1;
                    let name = key.split_once(" = ").unwrap().0;
                    assert!(page.contains(&format!("\\fB{name} = ")), "{name}");
                }
                Line::Section(name) => assert!(page.contains(&format!(".SH {name}\n")), "{name}"),
                _ => {}
            }
        }
        assert!(keys > 50, "{keys}");
    }
}
