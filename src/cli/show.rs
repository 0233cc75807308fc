//! `turnstone config show`: the effective configuration, without secrets.

use clap::{Args, Subcommand};

use super::input::ConfigFlags;
use super::output::{CliError, Exit, Printer};

/// Look at the configuration.
#[derive(Args)]
pub(super) struct ConfigCommand {
    #[command(subcommand)]
    command: ConfigSubcommand,
}

#[derive(Subcommand)]
enum ConfigSubcommand {
    /// Print the effective configuration: the file, variables, flags and defaults in one, without secrets.
    Show {
        #[command(flatten)]
        flags: ConfigFlags,
    },
}

pub(super) fn run(args: &ConfigCommand, printer: &mut Printer) -> Result<Exit, CliError> {
    let ConfigSubcommand::Show { flags } = &args.command;
    let config = flags.read(false)?.load(false)?.config;
    printer.print(&config.to_toml())?;
    Ok(Exit::Success)
}
