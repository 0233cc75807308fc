//! `turnstone doctor`: the server's host and every listener, looked at on the spot.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::config::{ConfigError, Loaded};
use crate::doctor::{self, Configured, Options, Progress};
use crate::probe::{Roots, Status};
use crate::text::json_pretty;

use super::input::{ConfigFlags, Reading};
use super::output::{CliError, Exit, Printer};
use super::probe::{FAILED, print_progress, timeout};

const AFTER_HELP: &str = "\
Examples:
  sudo turnstone doctor
  sudo turnstone doctor --json --strict
  turnstone doctor --config ./turnserver.toml --ca authority.pem

Checks: configuration, server (is it running, and does it listen), files (modes and owners),
  certificate, chain, key, clock, clock-sync, descriptors, relay ports, relay-address, container,
  udp-losses, buffers, backlog, firewall, health ([metrics]), and for every listener the steps of
  turnstone probe.
It sends packets only to this host's own addresses, so that it cannot see a firewall outside of it:
run turnstone probe from elsewhere for that. As root it sees more: the server's process, secrets,
firewall rules.

Exit codes, those of turnstone probe:
  0  healthy, perhaps with warnings
  1  healthy, with warnings (only with --strict)
  2  a check failed, or wrong usage
  3  the report could not be written";

/// Look at this host and at the server on it: limits, ports, firewall, buffers, addresses, clock, secrets, certificate, and
/// every listener as a client sees it.
#[derive(Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct DoctorArgs {
    /// The server's process, instead of the one that has the listeners open.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pid: Option<u32>,

    /// PEM file with the certificate authorities that the server's certificate is judged by, instead of the system's.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,

    /// The longest that one step may take, in seconds, 0.1 to 600.
    #[arg(long, default_value = "5", value_name = "SECONDS", value_parser = timeout)]
    timeout: Duration,

    /// Exit with 1 when there are warnings.
    #[arg(long)]
    strict: bool,

    /// How to print the result; json is described in the README.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,

    /// The same as --format json.
    #[arg(long, conflicts_with = "format")]
    json: bool,

    #[command(flatten)]
    flags: ConfigFlags,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

pub(super) fn run(args: &DoctorArgs, printer: &mut Printer) -> Result<Exit, CliError> {
    let options =
        Options { pid: args.pid, roots: args.ca.clone().map_or(Roots::System, Roots::File), timeout: args.timeout };
    let read: Result<(Reading, Loaded), ConfigError> = args
        .flags
        .read(false)
        .and_then(|reading| Ok((reading.load(false)?, reading)))
        .map(|(loaded, reading)| (reading, loaded));
    let secret_file = std::env::var_os("TURNSTONE_SECRET_FILE").filter(|path| !path.is_empty());
    let configured = read.as_ref().map(|(reading, loaded)| Configured {
        config: &loaded.config,
        source: &reading.source,
        secret_file: secret_file.as_deref().map(Path::new),
        warnings: loaded.warnings.len(),
    });
    let as_text = args.format == Format::Text && !args.json;
    let mut printed = Ok(());
    let report = doctor::run(configured, &options, &mut |progress| {
        if as_text && printed.is_ok() {
            printed = match progress {
                Progress::Check(step) => {
                    printer.line(format_args!("{:<4}  {:<14} {}", step.status.name(), step.step, step.message))
                }
                Progress::Listener(progress) => print_progress(progress, printer),
            };
        }
    });
    let exit = match report.verdict {
        Status::Fail => FAILED,
        Status::Warn if args.strict => Exit::CheckFailed,
        _ => Exit::Success,
    };
    // Whoever has stopped reading still learns the verdict.
    let written = printed.and_then(|()| match as_text {
        true => printer.line(format_args!("\n{}", report.summary())),
        false => printer.line(json_pretty(&report)),
    });
    match written {
        Ok(()) | Err(CliError::ClosedPipe) => Ok(exit),
        Err(error) => Err(error),
    }
}
