//! YAML as a tree of texts, each with its line: what a configuration needs of it, and nothing that grows by being read.

use saphyr_parser::{Event, Parser, ScalarStyle};

/// A configuration is flat.
const DEPTH_MAX: usize = 16;

/// A value and the line it begins on, from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) line: usize,
    pub(super) node: Node,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Node {
    /// A text, a number or a switch; nothing at all is the empty text.
    Scalar(String),
    List(Vec<Item>),
    /// Names and values, in the order of the text.
    Map(Vec<(String, Item)>),
}

impl Item {
    /// The values of a list; a single value stands for itself, and nothing for none.
    pub(super) fn as_list(&self) -> Vec<&Item> {
        match &self.node {
            Node::List(items) => items.iter().collect(),
            Node::Scalar(text) if text.is_empty() => Vec::new(),
            _ => vec![self],
        }
    }

    pub(super) fn as_text(&self) -> Option<&str> {
        match &self.node {
            Node::Scalar(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn as_map(&self) -> &[(String, Item)] {
        match &self.node {
            Node::Map(entries) => entries,
            _ => &[],
        }
    }
}

/// Why a text is not read; without a word of it, because secrets are in it, but with the line, from 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum YamlError {
    /// It is not YAML.
    #[error("line {0}: this is no YAML")]
    NotYaml(usize),
    /// It is the beginning of YAML.
    #[error("the YAML ends too early")]
    TooEarly,
    /// It goes deeper than a configuration does.
    #[error("line {0}: more than {DEPTH_MAX} levels, which no configuration has")]
    TooDeep(usize),
    /// Something other than a text has a value.
    #[error("line {0}: a name is expected")]
    NoName(usize),
    /// A value that is written elsewhere.
    #[error("line {0}: aliases (*name) are not read; write the value itself")]
    Alias(usize),
}

/// Reads the first document.
///
/// # Errors
/// Where it is no YAML, or what is not read; without a word of the text, in which secrets are.
pub(super) fn read(text: &str) -> Result<Item, YamlError> {
    let mut events = Parser::new_from_str(text);
    loop {
        match next(&mut events)? {
            (Event::StreamStart | Event::DocumentStart(_) | Event::Nothing, _) => {}
            (Event::StreamEnd | Event::DocumentEnd, line) => {
                return Ok(Item { line, node: Node::Scalar(String::new()) });
            }
            (event, line) => return item(event, line, &mut events, 0),
        }
    }
}

type Events<'i> = Parser<'i, saphyr_parser::StrInput<'i>>;

fn next<'i>(events: &mut Events<'i>) -> Result<(Event<'i>, usize), YamlError> {
    match events.next_event() {
        Some(Ok((event, span))) => Ok((event, span.start.line())),
        Some(Err(error)) => Err(YamlError::NotYaml(error.marker().line())),
        None => Err(YamlError::TooEarly),
    }
}

fn item(event: Event<'_>, line: usize, events: &mut Events<'_>, depth: usize) -> Result<Item, YamlError> {
    if depth > DEPTH_MAX {
        return Err(YamlError::TooDeep(line));
    }
    let node = match event {
        Event::Scalar(text, style, ..) => {
            let is_null = style == ScalarStyle::Plain && matches!(&*text, "~" | "null" | "Null" | "NULL");
            Node::Scalar(if is_null { String::new() } else { text.into_owned() })
        }
        Event::SequenceStart(..) => {
            let mut list = Vec::new();
            loop {
                match next(events)? {
                    (Event::SequenceEnd, _) => break Node::List(list),
                    (event, line) => list.push(item(event, line, events, depth + 1)?),
                }
            }
        }
        Event::MappingStart(..) => {
            let mut entries = Vec::new();
            loop {
                let (event, line) = next(events)?;
                if matches!(event, Event::MappingEnd) {
                    break Node::Map(entries);
                }
                let Event::Scalar(name, ..) = event else {
                    return Err(YamlError::NoName(line));
                };
                let (event, _) = next(events)?;
                let value = item(event, line, events, depth + 1)?;
                entries.push((name.into_owned(), value));
            }
        }
        Event::Alias(_) => return Err(YamlError::Alias(line)),
        _ => return Err(YamlError::NotYaml(line)),
    };
    Ok(Item { line, node })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_lists_and_texts_keep_their_lines() {
        let tree =
            read("# c\na: 1 # c\nb:\n  - \"x: y\"\n  - {k: v, l: [1, 2]}\nc: ~\n'd e': |\n  two\n  lines\n").unwrap();
        let names: Vec<_> = tree.as_map().iter().map(|(name, item)| (name.as_str(), item.line)).collect();
        assert_eq!(names, [("a", 2), ("b", 3), ("c", 6), ("d e", 7)]);
        let value = |index: usize| &tree.as_map()[index].1;
        assert_eq!((value(0).as_text(), value(2).as_text()), (Some("1"), Some("")));
        assert_eq!(value(3).as_text(), Some("two\nlines\n"));
        let list = value(1).as_list();
        assert_eq!((list[0].as_text(), list[0].line, list[1].line), (Some("x: y"), 4, 5));
        assert_eq!(list[1].as_map()[1].1.as_list().len(), 2);
        assert_eq!((value(0).as_list().len(), value(2).as_list().len()), (1, 0));
    }

    #[test]
    fn what_is_not_read_is_named_by_line_only() {
        for (text, expected) in [
            ("a: [hunter2", "line"),
            ("a: hunter2: x", "line 1"),
            ("a: &x hunter2\nb: *x", "line 2: aliases"),
            ("? [hunter2]\n: b", "line 1: a name"),
            (&format!("a: {}", "[".repeat(400)), "line"),
            (&format!("a:{}", " [".repeat(100_000)), "line"),
            (&"- ".repeat(400), "line 1: more than 16 levels"),
            ("a: \"hunter2", "line"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(expected) && !error.contains("hunter2"), "{error}");
        }
        assert_eq!(read("").unwrap().as_text(), Some(""));
    }
}
