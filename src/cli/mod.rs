//! The commands. This is the only place that prints.

mod admin;
mod api_key;
mod bench;
mod check;
mod credentials;
mod dev;
mod dev_socket;
mod doctor;
mod hash;
mod health;
mod ice_servers;
mod import;
mod input;
mod login;
mod man;
mod man_file;
mod markdown;
mod output;
mod paste;
mod probe;
mod reference;
mod serve;
mod show;
mod token;
mod verify;

use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use output::{CliError, Exit, Printer, hints};

/// What help is wrapped at.
const HELP_COLUMNS: usize = 100;

const EXIT_CODES: &str = "\
Exit codes:
  0  success
  1  a check found something, such as warnings with --strict, or there is no such session
  2  wrong usage or configuration
  3  a failure while running";

const EXAMPLES: &str = "\
Examples:
  turnstone serve --dev                          try it: no configuration needed
  sudo turnstone check                           read the configuration and look for mistakes
  sudo turnstone doctor                          look at the host and the running server, too
  sudo turnstone credentials --user alice        make a credential
  turnstone probe turn:turn.example.org          try it from elsewhere";

/// A STUN/TURN server for WebRTC.
#[derive(Parser)]
#[command(name = "turnstone", version, about, after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
#[command(max_term_width = HELP_COLUMNS, arg_required_else_help = true, subcommand_required = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Serve(serve::ServeArgs),
    Bench(bench::BenchArgs),
    Check(check::CheckArgs),
    Probe(probe::ProbeArgs),
    Doctor(doctor::DoctorArgs),
    Health(health::HealthArgs),
    Credentials(credentials::CredentialsArgs),
    Config(show::ConfigCommand),
    Import(import::ImportArgs),
    Status(admin::StatusArgs),
    Sessions(admin::SessionsArgs),
    Show(admin::ShowArgs),
    Kick(admin::KickArgs),
    Top(admin::TopArgs),
    Explain(admin::ExplainArgs),
    Revoke(admin::RevokeArgs),
    Suspensions(admin::SuspensionsArgs),
    Store(admin::StoreCommand),
    Reload(admin::ReloadArgs),
    Drain(admin::DrainArgs),
    LogLevel(admin::LogLevelArgs),
    Man(man::ManArgs),
    /// Print a completion script for a shell.
    #[command(after_help = "Example: turnstone completions bash > /etc/bash_completion.d/turnstone")]
    Completions {
        /// The shell.
        #[arg(value_enum)]
        shell: Shell,
    },
}

/// Reads the command line, does what it says, and returns the exit code.
pub fn run() -> ExitCode {
    // Before anything is read: every command may come to hold a secret.
    crate::net::sys::forbid_core_dumps();
    crate::net::sys::look_up_without_libraries();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help on a closed pipe is nobody's loss.
            let _ = error.print();
            if let Some(file) = stray_file(&error) {
                Printer::new().error(format_args!("\ntip: a configuration file is named with --config {file}"));
            }
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let is_service = matches!(cli.command, Command::Serve(_));
    let mut printer = Printer::new();
    let result = match cli.command {
        Command::Serve(args) => serve::run(&args, &mut printer),
        Command::Bench(args) => bench::run(&args, &mut printer),
        Command::Check(args) => check::run(&args, &mut printer),
        Command::Probe(args) => probe::run(&args, &mut printer),
        Command::Doctor(args) => doctor::run(&args, &mut printer),
        Command::Health(args) => health::run(&args, &mut printer),
        Command::Credentials(args) => credentials::run(&args, &mut printer),
        Command::Config(args) => show::run(&args, &mut printer),
        Command::Import(args) => import::run(&args, &mut printer),
        Command::Status(args) => admin::status(&args, &mut printer),
        Command::Sessions(args) => admin::sessions(&args, &mut printer),
        Command::Show(args) => admin::show(&args, &mut printer),
        Command::Kick(args) => admin::kick(&args, &mut printer),
        Command::Top(args) => admin::top(&args, &mut printer),
        Command::Explain(args) => admin::explain(&args, &mut printer),
        Command::Revoke(args) => admin::revoke(&args, &mut printer),
        Command::Store(command) => admin::store(&command, &mut printer),
        Command::Suspensions(args) => admin::suspensions(&args, &mut printer),
        Command::Reload(args) => admin::reload(&args, &mut printer),
        Command::Drain(args) => admin::drain(&args, &mut printer),
        Command::LogLevel(args) => admin::log_level(&args, &mut printer),
        Command::Man(args) => man::run(&args, Cli::command(), &mut printer),
        Command::Completions { shell } => completions(shell, &mut printer),
    };
    match result {
        Ok(exit) => exit.into(),
        Err(CliError::ClosedPipe) => Exit::Success.into(),
        Err(CliError::Failed(exit, message)) => {
            // The service is not started by a person who could use sudo.
            match is_service {
                true => printer.error(crate::ops::log::start_error(&message)),
                false => {
                    printer.error(&message);
                    hints(&message).for_each(|hint| printer.error(hint));
                }
            }
            exit.into()
        }
    }
}

/// The argument that nobody expected, if it looks like a configuration file.
fn stray_file(error: &clap::Error) -> Option<&str> {
    match (error.kind(), error.get(ContextKind::InvalidArg)?) {
        (ErrorKind::UnknownArgument, ContextValue::String(argument)) => {
            Some(argument.as_str()).filter(|argument| [".toml", ".conf"].iter().any(|end| argument.ends_with(end)))
        }
        _ => None,
    }
}

fn completions(shell: Shell, printer: &mut Printer) -> Result<Exit, CliError> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "turnstone", &mut script);
    printer.print(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Success)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_all_below(command: clap::Command) -> Vec<clap::Command> {
        let below: Vec<_> = command.get_subcommands().cloned().flat_map(with_all_below).collect();
        std::iter::once(command).chain(below).collect()
    }

    #[test]
    fn no_line_of_help_is_broken_twice() {
        for command in with_all_below(Cli::command()) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let mut lines = help.lines().peekable();
            while let Some(line) = lines.next() {
                // A paragraph in one line is wrapped where it is shown.
                let is_paragraph = !line.starts_with(' ') && lines.peek().is_none_or(|next| next.is_empty());
                let columns = line.chars().count();
                assert!(columns <= HELP_COLUMNS || is_paragraph, "{}, {columns} columns: {line}", command.get_name());
            }
        }
    }
}
