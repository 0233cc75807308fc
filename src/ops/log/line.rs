//! How a line of the log looks: one line an event, whatever is in it, with the priority that the journal reads in front.

use std::fmt;
use std::io::IsTerminal;
use std::os::fd::AsFd;

use rustix::fs::fstat;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::text::{is_deceptive, write_json_escape};

/// Where the log goes, as far as it cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sink {
    /// A terminal that shows colours.
    Colours,
    /// The journal: it wants a priority (`sd-daemon(3)`) and has a clock of its own.
    Journal,
    /// A file, a pipe, or a terminal without colours.
    Plain,
}

impl Sink {
    /// What a stream is.
    pub(super) fn of(stream: &(impl AsFd + IsTerminal)) -> Self {
        let journal = std::env::var("JOURNAL_STREAM").ok();
        let file = fstat(stream).ok().map(|stat| (stat.st_dev, stat.st_ino));
        if is_journal(journal.as_deref(), file) {
            return Self::Journal;
        }
        if crate::ops::terminal::shows_colours(stream) { Self::Colours } else { Self::Plain }
    }
}

/// What a line that is an error has in front where it goes past the log: the journal's priority, or nothing.
pub(super) fn error_prefix() -> String {
    match Sink::of(&std::io::stderr()) {
        Sink::Journal => format!("<{}>", priority(Level::ERROR)),
        Sink::Colours | Sink::Plain => String::new(),
    }
}

/// Whether `JOURNAL_STREAM` names this very file: the variable is inherited by programs whose output was redirected since.
fn is_journal(stream: Option<&str>, file: Option<(u64, u64)>) -> bool {
    let named = stream.and_then(|stream| stream.split_once(':'));
    let named = named.and_then(|(device, inode)| Some((device.parse().ok()?, inode.parse().ok()?)));
    named.is_some() && named == file
}

/// What escapes look like in a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Escapes {
    /// `\u{9b}`
    Text,
    /// `\u009b`
    Json,
}

/// A line as `inner` has it, kept to one line, with the priority in front for the journal.
pub(super) struct Line<F> {
    pub(super) inner: F,
    pub(super) sink: Sink,
    pub(super) escapes: Escapes,
}

impl<S, N, F> FormatEvent<S, N> for Line<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut line = String::with_capacity(256);
        self.inner.format_event(context, Writer::new(&mut line), event)?;
        if self.sink == Sink::Journal {
            write!(writer, "<{}>", priority(*event.metadata().level()))?;
        }
        write_on_one_line(&mut writer, line.trim_matches(['\n', ' ']), self.escapes, self.sink == Sink::Colours)?;
        writer.write_char('\n')
    }
}

/// syslog(3)'s number of a level.
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    }
}

/// Writes nothing that ends the line, moves the cursor or turns the direction of writing.
fn write_on_one_line(out: &mut dyn fmt::Write, line: &str, escapes: Escapes, colours: bool) -> fmt::Result {
    let mut plain_from = 0;
    for (at, c) in line.char_indices() {
        // What sets colours is the formatter's own: it escapes the others.
        if !is_deceptive(c) || (colours && c == '\u{1b}') {
            continue;
        }
        out.write_str(line.get(plain_from..at).unwrap_or_default())?;
        match escapes {
            Escapes::Text => write!(out, "{}", c.escape_default())?,
            Escapes::Json => write_json_escape(out, c)?,
        }
        plain_from = at + c.len_utf8();
    }
    out.write_str(line.get(plain_from..).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(line: &str, escapes: Escapes, colours: bool) -> String {
        let mut out = String::new();
        write_on_one_line(&mut out, line, escapes, colours).unwrap();
        out
    }

    #[test]
    fn a_line_is_one_line_whatever_is_in_it() {
        let evil = "a\nb\u{9b}1m\u{202e}z\u{1b}[2J \u{e4}";
        let text = written(evil, Escapes::Text, false);
        assert_eq!(text, "a\\nb\\u{9b}1m\\u{202e}z\\u{1b}[2J \u{e4}");
        let json = written("{\"a\":\"\u{9b}\u{202e}\u{2028}\u{e4}\"}", Escapes::Json, false);
        assert_eq!(json, "{\"a\":\"\\u009b\\u202e\\u2028\u{e4}\"}");
        let read: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(read["a"], "\u{9b}\u{202e}\u{2028}\u{e4}");
        assert_eq!(written("\u{1b}[2mx\n", Escapes::Text, true), "\u{1b}[2mx\\n");
    }

    #[test]
    fn the_journal_is_known_by_device_and_inode() {
        assert!(is_journal(Some("8:123"), Some((8, 123))));
        for (stream, file) in [
            (Some("8:124"), Some((8, 123))),
            (Some("8:123"), None),
            (Some("8"), Some((8, 123))),
            (Some(""), None),
            (None, None),
        ] {
            assert!(!is_journal(stream, file), "{stream:?} {file:?}");
        }
    }

    #[test]
    fn levels_have_the_priorities_of_syslog() {
        let levels = [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE];
        assert_eq!(levels.map(priority), [3, 4, 6, 7, 7]);
    }
}
