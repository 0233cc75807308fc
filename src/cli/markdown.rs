//! The little Markdown that `docs/reference.md` has, for a terminal and for manual pages.

/// A part of the page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Block<'t> {
    /// `## Title`: 2 and the title.
    Heading(usize, &'t str),
    /// What the table of keys knows of a key: `Default: ...`.
    Fact(String),
    /// A point of a list.
    Item(String),
    Paragraph(String),
    /// Lines that are shown as they are.
    Code(Vec<&'t str>),
}

/// What the facts of a key begin with.
const FACTS: [&str; 4] = ["Value: ", "Default: ", "Change: ", "Set by: "];

pub(super) fn blocks(text: &str) -> Vec<Block<'_>> {
    let mut blocks: Vec<Block<'_>> = Vec::new();
    let mut lines = text.lines();
    // Whether a line may go on with what the last block says.
    let mut is_open = false;
    while let Some(line) = lines.next() {
        let hashes = line.bytes().take_while(|byte| *byte == b'#').count();
        if line.starts_with("```") {
            blocks.push(Block::Code(lines.by_ref().take_while(|line| !line.starts_with("```")).collect()));
            is_open = false;
        } else if let (1.., Some(title)) = (hashes, line.get(hashes..).and_then(|rest| rest.strip_prefix(' '))) {
            blocks.push(Block::Heading(hashes, title));
            is_open = false;
        } else if let Some(point) = line.strip_prefix("- ") {
            let is_fact = FACTS.iter().any(|fact| point.starts_with(fact));
            blocks.push(if is_fact { Block::Fact(point.to_owned()) } else { Block::Item(point.to_owned()) });
            is_open = true;
        } else if line.is_empty() {
            is_open = false;
        } else if let (true, Some(Block::Fact(text) | Block::Item(text) | Block::Paragraph(text))) =
            (is_open, blocks.last_mut())
        {
            *text += " ";
            *text += line.trim_start();
        } else {
            blocks.push(Block::Paragraph(line.to_owned()));
            is_open = true;
        }
    }
    blocks
}

/// A part of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Span {
    Plain(String),
    Code(String),
}

/// What a line consists of. Of a link it is the text: there is nothing to follow it with.
pub(super) fn spans(line: &str) -> Vec<Span> {
    let mut spans = Vec::new();
    for (index, part) in line.split('`').enumerate() {
        match index % 2 {
            _ if part.is_empty() => {}
            0 => spans.push(Span::Plain(without_targets(part))),
            _ => spans.push(Span::Code(part.to_owned())),
        }
    }
    spans
}

/// The line without marks.
pub(super) fn plain(line: &str) -> String {
    let texts = spans(line).into_iter().map(|(Span::Plain(text) | Span::Code(text))| text);
    texts.collect()
}

/// `[text](target)` as `text`.
fn without_targets(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once("](") {
        let (Some(start), Some((_, behind))) = (before.rfind('['), behind.split_once(')')) else { break };
        let (lead, label) = before.split_at(start);
        out += lead;
        out += label.get(1..).unwrap_or_default();
        rest = behind;
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_told_apart_and_their_lines_joined() {
        let text = "# Page\n\nOne\ntwo.\n- first\n  goes on\n- Default: `1`\n\nthree\n\n```toml\n# no heading\n\n- a\n```\nfour\n";
        let expected = [
            Block::Heading(1, "Page"),
            Block::Paragraph("One two.".to_owned()),
            Block::Item("first goes on".to_owned()),
            Block::Fact("Default: `1`".to_owned()),
            Block::Paragraph("three".to_owned()),
            Block::Code(vec!["# no heading", "", "- a"]),
            Block::Paragraph("four".to_owned()),
        ];
        assert_eq!(blocks(text), expected);
    }

    #[test]
    fn links_and_code_lose_their_marks_and_brackets_of_tables_stay() {
        assert_eq!(
            plain("as [relay.ports](#relayports) of [relay], `a](b` (x)"),
            "as relay.ports of [relay], a](b (x)"
        );
        assert_eq!(plain("[[realm]], see [a](#b) and [c](#d)."), "[[realm]], see a and c.");
        assert_eq!(
            spans("a `b` c"),
            [Span::Plain("a ".to_owned()), Span::Code("b".to_owned()), Span::Plain(" c".to_owned())]
        );
    }
}
