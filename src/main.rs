//! The `turnstone` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    turnstone::cli::run()
}
