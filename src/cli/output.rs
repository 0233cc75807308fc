//! Standard output and standard error, and how a command ends.

use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

pub(super) use crate::clock::utc_text;
use crate::config::ConfigError;

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
#[derive(Debug)]
pub(super) enum CliError {
    /// Nobody reads the output any more.
    ClosedPipe,
    /// A message for standard error, and the exit code.
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

/// Writes to the two standard streams, without a panic when one is closed.
pub(super) struct Printer {
    out: io::Stdout,
}

impl Printer {
    pub(super) fn new() -> Self {
        Self { out: io::stdout() }
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

    /// Prints a question to standard error; the answer comes on the same line.
    pub(super) fn prompt(&mut self, question: impl fmt::Display) {
        let _ = write!(io::stderr().lock(), "{question}");
    }
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

/// Seconds since the Unix epoch; 0 if the clock is before it.
pub(super) fn unix_now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
