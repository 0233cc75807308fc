//! Standard output and standard error, and how a command ends.

use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

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
}

/// A UTC time such as `2026-11-20T16:13:27Z`.
pub(super) fn utc_text(unix_secs: u64) -> String {
    let (days, secs) = (unix_secs / 86_400, unix_secs % 86_400);
    // Days to a civil date with years that begin in March, so that the leap day is the last one.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (secs / 3600, secs / 60 % 60, secs % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Seconds since the Unix epoch; 0 if the clock is before it.
pub(super) fn unix_now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_utc() {
        for (unix_secs, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_583_020_799, "2020-02-29T23:59:59Z"),
            (1_700_000_000, "2023-11-14T22:13:20Z"),
            (4_102_444_800, "2100-01-01T00:00:00Z"),
        ] {
            assert_eq!(utc_text(unix_secs), text);
        }
    }
}
