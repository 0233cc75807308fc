//! `turnstone config reference`: an entry of `docs/reference.md`, which the program has in it.

use clap::Args;

use crate::config::nearest;
use crate::import::{Counterpart, counterpart, directives};

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
  turnstone config reference TURNSTONE_REALM       what a variable or a flag sets
  turnstone config reference denied-peer-ip        what stands for a directive of coturn
  turnstone config reference user quota            the keys whose names or texts have these words")]
pub(super) struct ReferenceArgs {
    /// A key, a table, a variable, a directive of coturn, or words to look for; all keys without one.
    #[arg(value_name = "NAME")]
    words: Vec<String>,
}

/// Shorter words are in everything.
const WORD_MIN: usize = 3;
/// As many are listed of what is found by words.
const FOUND_MAX: usize = 15;

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

    /// All that is said of it.
    fn text(&self) -> String {
        let texts = self.blocks.iter().map(|block| match block {
            Block::Heading(_, title) => (*title).to_owned(),
            Block::Fact(text) | Block::Item(text) | Block::Paragraph(text) => plain(text),
            Block::Code(lines) => lines.join(" "),
        });
        texts.collect::<Vec<_>>().join(" ")
    }

    fn first_sentence(&self) -> String {
        let paragraph = self.blocks.iter().find_map(|block| match block {
            Block::Paragraph(text) => Some(plain(text)),
            _ => None,
        });
        let text = paragraph.unwrap_or_default();
        text.split_once(". ").map_or(text.clone(), |(first, _)| format!("{first}."))
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
    if args.words.is_empty() {
        list(&entries, printer)?;
        return Ok(Exit::Success);
    }
    let asked = args.words.join(" ");
    let name = asked.trim_matches(['[', ']', '-']);
    let named = matching(&entries, name);
    if !named.is_empty() {
        print_all(&named, printer)?;
        return Ok(Exit::Success);
    }
    match counterpart(name) {
        Some(Counterpart::Keys(keys)) => {
            printer.line(format_args!("{name} is coturn's; here it is {}", keys.join(", ")))?;
            printer.line("")?;
            let found: Vec<_> = keys.iter().flat_map(|key| matching(&entries, key)).collect();
            print_all(&found, printer)?;
        }
        Some(Counterpart::Told(why)) => {
            printer.line(wrapped(&format!("{name} is coturn's, and has no key here: {why}"), 0, 2))?;
        }
        None => print_found(&entries, &asked, printer)?,
    }
    Ok(Exit::Success)
}

fn print_all(entries: &[&Entry<'_>], printer: &mut Printer) -> Result<(), CliError> {
    for (index, entry) in entries.iter().enumerate() {
        if index > 0 {
            printer.line("")?;
        }
        entry.print(printer)?;
    }
    Ok(())
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
fn matching<'e, 't>(entries: &'e [Entry<'t>], name: &str) -> Vec<&'e Entry<'t>> {
    let entry_or_below = |entry: &Entry<'_>| {
        let table = entry.name().rsplit_once('.').map_or(TOP_LEVEL, |(table, _)| table);
        let is_below = || entry.is_key() && table == name;
        (entry.is_key() || entry.is_table()) && (entry.name() == name || is_below())
    };
    let any_table = |entry: &Entry<'_>| entry.name().rsplit_once('.').is_some_and(|(_, last)| last == name);
    let set_by = |entry: &Entry<'_>| entry.is_set_by(name);
    let ways: [&dyn Fn(&Entry<'_>) -> bool; 3] = [&entry_or_below, &any_table, &set_by];
    let mut found = ways.into_iter().map(|way| entries.iter().filter(|entry| way(entry)).collect::<Vec<_>>());
    found.find(|found| !found.is_empty()).unwrap_or_default()
}

/// Lists the entries that have all the words in their name, or else in what is said of them.
fn print_found(entries: &[Entry<'_>], asked: &str, printer: &mut Printer) -> Result<(), CliError> {
    let words: Vec<_> = words(asked).filter(|word| word.len() >= WORD_MIN).collect();
    let among = || entries.iter().filter(|entry| entry.is_key() || entry.is_table());
    let mut found: Vec<_> = among().filter(|entry| has_all(&words, entry.name())).collect();
    // The shorter the name, the more of it was meant.
    found.sort_by_key(|entry| entry.name().len());
    let where_ = if found.is_empty() { "in what the reference says of" } else { "in the name of" };
    if found.is_empty() {
        found = among().filter(|entry| has_all(&words, &entry.text())).collect();
    }
    if words.is_empty() || found.is_empty() {
        return Err(unknown(entries, asked));
    }
    printer.line(format_args!("nothing has the name {asked:?}; it is {where_}:"))?;
    let width = found.iter().take(FOUND_MAX).map(|entry| entry.name().len()).max().unwrap_or_default();
    for entry in found.iter().take(FOUND_MAX) {
        printer.line(format_args!("  {:<width$}  {}", entry.name(), entry.first_sentence()))?;
    }
    if let Some(more @ 1..) = found.len().checked_sub(FOUND_MAX) {
        printer.line(format_args!("and {more} more"))?;
    }
    Ok(())
}

fn words(text: &str) -> impl Iterator<Item = String> {
    text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_lowercase)
}

/// Whether each of the words begins one of the text.
fn has_all(wanted: &[String], text: &str) -> bool {
    let known: Vec<_> = words(text).collect();
    wanted.iter().all(|word| known.iter().any(|known| known.starts_with(word.as_str())))
}

fn unknown(entries: &[Entry<'_>], asked: &str) -> CliError {
    let name = asked.trim_matches(['[', ']', '-']);
    let keys = || entries.iter().filter(|entry| entry.is_key() || entry.is_table()).map(Entry::name);
    let last_names = keys().filter_map(|key| key.rsplit_once('.')).map(|(_, last)| last);
    let names: Vec<_> = keys().chain(last_names).collect();
    let names = [names, directives().collect()].concat();
    let meant = nearest(name, &names).map_or(String::new(), |meant| format!(" (did you mean {meant}?)"));
    let message =
        format!("no key, table, variable or flag {asked:?}{meant}; turnstone config reference lists all keys");
    CliError::usage(message)
}
