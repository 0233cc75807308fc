//! Tests that cannot run on this machine say so, and not only where nobody looks: the output of a test that passes is hidden.

use std::fs::OpenOptions;
use std::io::Write as _;

/// Says that a test, or what is left of it, is not run, and why. `tests/run` shows the reasons at its end; with
/// `SKIPPED_TESTS=FILE` they are appended to that file.
#[allow(clippy::print_stderr, unreachable_pub)]
pub fn skipped(why: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    eprintln!("skipped: {test}: {why}");
    let Some(path) = std::env::var_os("SKIPPED_TESTS") else { return };
    let mut file = OpenOptions::new().append(true).create(true).open(path).unwrap();
    writeln!(file, "{test}: {}", why.trim().replace('\n', "; ")).unwrap();
}
