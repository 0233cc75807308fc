//! `turnstone config`: the effective configuration, without secrets; and what the reference says of a key.

use clap::{Args, Subcommand};

use crate::text::json_pretty;

use super::input::ConfigFlags;
use super::output::{CliError, Exit, Printer};
use super::reference::{self, ReferenceArgs};

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
        /// Print it as JSON.
        #[arg(long)]
        json: bool,

        #[command(flatten)]
        flags: ConfigFlags,
    },
    Reference(ReferenceArgs),
}

pub(super) fn run(args: &ConfigCommand, printer: &mut Printer) -> Result<Exit, CliError> {
    let (json, flags) = match &args.command {
        ConfigSubcommand::Show { json, flags } => (json, flags),
        ConfigSubcommand::Reference(args) => return reference::run(args, printer),
    };
    let text = flags.read(false)?.load(false)?.config.to_toml();
    if !*json {
        printer.print(&text)?;
        return Ok(Exit::Success);
    }
    let failed = |error: toml::de::Error| CliError::Failed(Exit::RunTime, format!("error: {error}"));
    let table: toml::Table = text.parse().map_err(failed)?;
    printer.line(json_pretty(&table))?;
    Ok(Exit::Success)
}
