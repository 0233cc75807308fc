//! `turnstone config reference`: an entry of `docs/reference.md`, which the program has in it.

use clap::Args;

use crate::config::nearest;

use super::markdown::{Block, blocks, plain};
use super::output::{CliError, Exit, Printer, wrapped};

/// The page.
pub(super) const REFERENCE: &str = include_str!("../../docs/reference.md");
/// What stands before the heading of keys that are in no table.
const TOP_LEVEL: &str = "Top level";

/// Print what the reference says of a key, or of a table.
#[derive(Args)]
#[command(after_help = "Examples:
  turnstone config reference                       every key with its default
  turnstone config reference relay.ports
  turnstone config reference relay                 a table with all its keys
  turnstone config reference TURNSTONE_REALM       what a variable or a flag sets")]
pub(super) struct ReferenceArgs {
    /// A key, a table, or a variable; all keys without one.
    name: Option<String>,
}

/// A heading of the page with what is below it.
struct Entry<'t> {
    level: usize,
    title: &'t str,
    blocks: Vec<Block<'t>>,
}

impl Entry<'_> {
    /// The name of its table or key, as `config::keys` has it.
    fn name(&self) -> &str {
        self.title.trim_matches(['[', ']'])
    }

    fn is_table(&self) -> bool {
        self.level == 2 && (self.title.starts_with('[') || self.title == TOP_LEVEL)
    }

    fn is_key(&self) -> bool {
        self.level == 3
    }

    fn fact(&self, name: &str) -> Option<&str> {
        self.blocks.iter().find_map(|block| match block {
            Block::Fact(fact) => fact.strip_prefix(name)?.strip_prefix(": "),
            _ => None,
        })
    }

    /// Whether this variable, or this flag with its dashes or without, sets it.
    fn is_set_by(&self, name: &str) -> bool {
        let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        let words = self.fact("Set by").into_iter().flat_map(|fact| fact.split(move |c| !is_of_name(c)));
        let mut names = words.filter_map(|word| match word.strip_prefix("--") {
            Some(flag) => Some(flag),
            None => word.starts_with("TURNSTONE_").then_some(word),
        });
        names.any(|word| word == name)
    }

    fn print(&self, printer: &mut Printer) -> Result<(), CliError> {
        printer.line(self.title)?;
        // Facts are lines of one block.
        let mut is_after_fact = true;
        for block in &self.blocks {
            let is_fact = matches!(block, Block::Fact(_));
            if !(is_fact && is_after_fact) {
                printer.line("")?;
            }
            is_after_fact = is_fact;
            match block {
                Block::Heading(..) => {}
                Block::Fact(text) => printer.line(wrapped(&plain(text), 2, 4))?,
                Block::Item(text) => printer.line(wrapped(&format!("- {}", plain(text)), 2, 4))?,
                Block::Paragraph(text) => printer.line(wrapped(&plain(text), 2, 2))?,
                Block::Code(lines) => {
                    for line in lines {
                        printer.line(format!("    {line}").trim_end())?;
                    }
                }
            }
        }
        Ok(())
    }
}

pub(super) fn run(args: &ReferenceArgs, printer: &mut Printer) -> Result<Exit, CliError> {
    let entries = entries();
    let Some(name) = &args.name else {
        list(&entries, printer)?;
        return Ok(Exit::Success);
    };
    let found = matching(&entries, name)?;
    for (index, entry) in found.into_iter().enumerate() {
        if index > 0 {
            printer.line("")?;
        }
        entry.print(printer)?;
    }
    Ok(Exit::Success)
}

fn entries() -> Vec<Entry<'static>> {
    let mut entries: Vec<Entry<'static>> = Vec::new();
    for block in blocks(REFERENCE) {
        match (block, entries.last_mut()) {
            (Block::Heading(level, title), _) => entries.push(Entry { level, title, blocks: Vec::new() }),
            (block, Some(entry)) => entry.blocks.push(block),
            (_, None) => {}
        }
    }
    entries
}

/// Every key with its default.
fn list(entries: &[Entry<'_>], printer: &mut Printer) -> Result<(), CliError> {
    let mut is_first = true;
    for entry in entries {
        let default = entry.fact("Default").map(plain);
        match default {
            _ if entry.is_table() => {
                if !std::mem::take(&mut is_first) {
                    printer.line("")?;
                }
                printer.line(entry.title)?;
            }
            Some(default) if entry.is_key() => printer.line(format_args!("  {:<48} {default}", entry.title))?,
            _ => {}
        }
    }
    Ok(())
}

/// What somebody means who names a key with its table or without, a table, a variable or a flag.
fn matching<'e, 't>(entries: &'e [Entry<'t>], asked: &str) -> Result<Vec<&'e Entry<'t>>, CliError> {
    let name = asked.trim_matches(['[', ']', '-']);
    let entry_or_below = |entry: &Entry<'_>| {
        let table = entry.name().rsplit_once('.').map_or(TOP_LEVEL, |(table, _)| table);
        let is_below = || entry.is_key() && table == name;
        (entry.is_key() || entry.is_table()) && (entry.name() == name || is_below())
    };
    let any_table = |entry: &Entry<'_>| entry.name().rsplit_once('.').is_some_and(|(_, last)| last == name);
    let set_by = |entry: &Entry<'_>| entry.is_set_by(name);
    let ways: [&dyn Fn(&Entry<'_>) -> bool; 3] = [&entry_or_below, &any_table, &set_by];
    for way in ways {
        let found: Vec<_> = entries.iter().filter(|entry| way(entry)).collect();
        if !found.is_empty() {
            return Ok(found);
        }
    }
    let keys = || entries.iter().filter(|entry| entry.is_key() || entry.is_table()).map(Entry::name);
    let last_names = keys().filter_map(|key| key.rsplit_once('.')).map(|(_, last)| last);
    let names: Vec<_> = keys().chain(last_names).collect();
    let meant = nearest(name, &names).map_or(String::new(), |meant| format!(" (did you mean {meant}?)"));
    let message =
        format!("no key, table, variable or flag {asked:?}{meant}; turnstone config reference lists all keys");
    Err(CliError::usage(message))
}
