//! The `turnstone` binary.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use turnstone::cli::bench;

#[derive(Parser)]
#[command(name = "turnstone", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Put load on a TURN server and report what it costs
    Bench(bench::BenchArgs),
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Bench(args) => bench::run(args),
    }
}
