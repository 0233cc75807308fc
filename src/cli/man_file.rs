//! `turnstone man turnserver.toml`: `docs/reference.md` as a manual page of section 5.

use clap_mangen::roff::{Inline, Roff, bold, roman};

use super::markdown::{Block, Span, blocks, spans};
use super::reference::REFERENCE;

/// The name that the page is asked for by.
pub(super) const PAGE: &str = "turnserver.toml";
/// Links from section to section, which a manual page has no use for.
const CONTENTS: &str = "Contents";

/// The page.
pub(super) fn page() -> Roff {
    let mut roff = Roff::new();
    roff.control("TH", ["turnserver.toml", "5", "", env!("CARGO_PKG_VERSION"), "Turnstone"]);
    // Names of keys are not to be broken, nor words pulled apart around them.
    roff.control("nh", []).control("ad", ["l"]);
    roff.control("SH", ["NAME"]).text([roman("turnserver.toml - configuration of turnstone, a STUN/TURN server")]);
    let mut is_in_contents = false;
    let mut before = None;
    for block in blocks(REFERENCE) {
        if let Block::Heading(_, title) = block {
            is_in_contents = title == CONTENTS;
        }
        if is_in_contents {
            continue;
        }
        write(&mut roff, &block, before.as_ref());
        before = Some(block);
    }
    let pages = [
        bold("turnstone"),
        roman("(1), "),
        bold("turnstone-config-reference"),
        roman("(1), "),
        bold("turnstone-check"),
        roman("(1)"),
    ];
    roff.control("SH", ["SEE ALSO"]).text(pages);
    roff
}

fn write(roff: &mut Roff, block: &Block<'_>, before: Option<&Block<'_>>) {
    match block {
        Block::Heading(1, _) => {
            roff.control("SH", ["DESCRIPTION"]);
        }
        Block::Heading(2, title) => {
            roff.control("SH", [*title]);
        }
        Block::Heading(_, title) => {
            roff.control("SS", [*title]);
        }
        Block::Fact(text) => {
            match before {
                Some(Block::Heading(..)) => {}
                Some(Block::Fact(_)) => _ = roff.control("br", []),
                _ => _ = roff.control("PP", []),
            }
            roff.text(inlines(text));
        }
        Block::Item(text) => {
            roff.control("IP", ["\\(bu", "2"]).text(inlines(text));
        }
        Block::Paragraph(text) => {
            if !matches!(before, Some(Block::Heading(..))) {
                roff.control("PP", []);
            }
            roff.text(inlines(text));
        }
        Block::Code(lines) => {
            roff.control("PP", []).control("RS", ["4"]).control("nf", []);
            for line in lines {
                roff.text([roman(*line)]);
            }
            roff.control("fi", []).control("RE", []);
        }
    }
}

fn inlines(text: &str) -> Vec<Inline> {
    let inline = |span| match span {
        Span::Plain(text) => roman(text),
        Span::Code(text) => bold(text),
    };
    spans(text).into_iter().map(inline).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_below_their_tables_with_their_facts_first() {
        let page = page().to_roff().replace("\\-", "-");
        let places: Vec<_> = [
            ".SH DESCRIPTION",
            "Every key of the configuration",
            ".SH \"Top level\"",
            ".SS workers\n",
            "Default: \\fB0\\fR",
            ".SH [[listen]]",
            ".SS listen.address",
            ".SH [peers]",
            "Which peers may be reached",
            ".SS peers.mode",
            "Default: \\fB\"p2p\"\\fR",
            ".SH [quota]",
        ]
        .into_iter()
        .map(|text| page.find(text).unwrap_or_else(|| panic!("no {text}: {page}")))
        .collect();
        assert!(places.is_sorted(), "{places:?}");
        assert!(!page.contains(".SH Contents") && !page.contains("](#"), "{page}");
    }

    #[test]
    fn every_entry_of_the_reference_is_on_the_page() {
        let page = page().to_roff().replace("\\-", "-");
        let keys: Vec<_> = REFERENCE.lines().filter_map(|line| line.strip_prefix("### ")).collect();
        for key in &keys {
            assert!(page.contains(&format!(".SS {key}\n")), "{key}");
        }
        assert!(keys.len() > 150, "{}", keys.len());
    }
}
