//! Standard output and standard error, and how a command ends.

use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

pub(super) use crate::clock::utc_text;
use thiserror::Error;

use crate::config::ConfigError;
use crate::ops::terminal::shows_colours;
use crate::probe::Status;

/// How a command ends; documented in `--help`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    Success = 0,
    CheckFailed = 1,
    Usage = 2,
    RunTime = 3,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command ends early.
#[derive(Debug, Error)]
pub(super) enum CliError {
    /// Nobody reads the output any more.
    #[error("nobody reads the output")]
    ClosedPipe,
    /// A message for standard error, and the exit code.
    #[error("{1}")]
    Failed(Exit, String),
}

impl CliError {
    pub(super) fn usage(message: impl fmt::Display) -> Self {
        Self::Failed(Exit::Usage, format!("error: {message}"))
    }
}

impl From<ConfigError> for CliError {
    fn from(error: ConfigError) -> Self {
        Self::Failed(Exit::Usage, error.to_string())
    }
}

impl From<io::Error> for CliError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::ClosedPipe,
            _ => Self::Failed(Exit::RunTime, format!("error: cannot write: {error}")),
        }
    }
}

/// How a word is to be taken, where the terminal shows colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    Good,
    Aside,
    Warning,
    Bad,
}

impl Tone {
    pub(super) fn of(status: Status) -> Self {
        match status {
            Status::Ok => Self::Good,
            Status::Note => Self::Aside,
            Status::Warn => Self::Warning,
            Status::Fail => Self::Bad,
        }
    }

    /// Select Graphic Rendition (ECMA-48).
    fn rendition(self) -> &'static str {
        match self {
            Self::Good => "32",
            Self::Aside => "36",
            Self::Warning => "33",
            Self::Bad => "1;31",
        }
    }
}

/// Writes to the two standard streams, without a panic when one is closed.
pub(super) struct Printer {
    out: io::Stdout,
    colours: bool,
}

impl Printer {
    pub(super) fn new() -> Self {
        let out = io::stdout();
        Self { colours: shows_colours(&out), out }
    }

    /// Whether standard output is a terminal that shows colours.
    pub(super) fn shows_colours(&self) -> bool {
        self.colours
    }

    /// A word, in its colour where standard output shows colours.
    pub(super) fn toned(&self, tone: Tone, word: &str) -> String {
        match self.colours {
            true => format!("\x1b[{}m{word}\x1b[0m", tone.rendition()),
            false => word.to_owned(),
        }
    }

    /// A step's line, whose first word is its status.
    pub(super) fn step_line(&mut self, status: Status, line: &str) -> Result<(), CliError> {
        let (word, rest) = line.split_at_checked(status.name().len()).unwrap_or((line, ""));
        let word = self.toned(Tone::of(status), word);
        self.line(format_args!("{word}{rest}"))
    }

    /// Prints to standard output as it is.
    pub(super) fn print(&mut self, text: &str) -> Result<(), CliError> {
        let mut out = self.out.lock();
        out.write_all(text.as_bytes())?;
        Ok(out.flush()?)
    }

    /// Prints a line to standard output.
    pub(super) fn line(&mut self, line: impl fmt::Display) -> Result<(), CliError> {
        self.print(&format!("{line}\n"))
    }

    /// Prints a line to standard error. Where that is closed there is nowhere left to say so.
    pub(super) fn error(&mut self, line: impl fmt::Display) {
        let _ = writeln!(io::stderr().lock(), "{line}");
    }

    /// Asks a question on the terminal, and waits for the answer.
    pub(super) fn is_confirmed(&mut self, question: impl fmt::Display) -> Result<bool, CliError> {
        let _ = write!(io::stderr().lock(), "{question} [y/N] ");
        let mut answer = String::new();
        let read = io::stdin().read_line(&mut answer);
        read.map_err(|error| CliError::usage(format_args!("cannot read the answer: {error}")))?;
        Ok(["y", "yes"].contains(&answer.trim().to_ascii_lowercase().as_str()))
    }
}

/// How wide text is.
const COLUMNS: usize = 100;

/// Lines of at most [`COLUMNS`], as far as words allow it; how far the first one and the others are indented.
pub(super) fn wrapped(text: &str, first: usize, others: usize) -> String {
    let mut out = " ".repeat(first);
    let mut column = first;
    for (index, word) in text.split(' ').enumerate() {
        let width = word.chars().count();
        if index > 0 && column + 1 + width > COLUMNS {
            out.push('\n');
            out.push_str(&" ".repeat(others));
            column = others;
        } else if index > 0 {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += width;
    }
    out
}

/// What helps somebody who may not read the configuration or a secret.
fn permission_hint(message: &str) -> Option<&'static str> {
    let is_refused = message.contains("permission denied");
    (is_refused && !rustix::process::geteuid().is_root()).then_some(
        "hint: configuration and secrets are for root and the service; run it with sudo, or name readable ones with --config \
         and --secret-file",
    )
}

/// What helps somebody who has written a key that there is not.
fn reference_hint(message: &str) -> Option<&'static str> {
    let hint = "hint: turnstone config reference lists all keys, and says with a name what one of them is for";
    message.contains(": unknown key \"").then_some(hint)
}

/// What helps with an error, beside what it says itself.
pub(super) fn hints(message: &str) -> impl Iterator<Item = &'static str> {
    permission_hint(message).into_iter().chain(reference_hint(message))
}

/// Text that somebody else chose, without anything that moves the cursor, colours the terminal or turns the direction of writing.
pub(super) fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\'' | '"' => shown.push(c),
            c => shown.extend(c.escape_debug()),
        }
    }
    shown
}
