//! `turnstone doctor`: the server's host and every listener, looked at on the spot.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::config::{ConfigError, Loaded};
use crate::doctor::{self, Configured, Options, Progress};
use crate::probe::{self, Roots, Status, Step};
use crate::text::json_pretty;

use super::input::{ConfigFlags, Reading};
use super::output::{CliError, Exit, Printer};
use super::probe::{FAILED, print_progress, timeout};

const AFTER_HELP: &str = "\
Examples:
  sudo turnstone doctor              what is not well, and how much is
  sudo turnstone doctor --all        each check
  sudo turnstone doctor --json --strict
  turnstone doctor --config ./turnserver.toml --ca authority.pem

Checks: configuration, server (is it running, and does it listen), files (modes and owners),
  service (what its user and its unit's sandbox let it read and write),
  certificate, chain, key, acme, clock, clock-sync, descriptors, relay ports, relay-address,
  container, public-host, listener (what URLs lead to), udp-losses, buffers, backlog, firewall,
  health ([metrics]), and for every listener the steps of turnstone probe.
It sends packets only to this host's own addresses, so that it cannot see a firewall outside of it:
turnstone probe from elsewhere does, and sends to the relay ports as peers do (relay-reach). As root
it sees more: the server's process, secrets, firewall rules.

Exit codes, those of turnstone probe:
  0  healthy, perhaps with warnings
  1  healthy, with warnings (only with --strict)
  2  a check failed, or wrong usage
  3  the report could not be written";

/// Check this host, the server on it, and every listener as a client sees it.
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

    /// Show what is well, too, each on a line of its own; without it these are counted.
    #[arg(long, short)]
    all: bool,

    /// How to print the result; json is described in docs/probe.md.
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

/// What is well is counted, what is not is shown: a hundred lines of `ok` would hide it.
#[derive(Default)]
struct Folded {
    shows_all: bool,
    /// Checks of the host that are well.
    checks: Vec<&'static str>,
    url: String,
    /// The address that is being probed.
    endpoint: Option<String>,
    has_head: bool,
    steps: usize,
}

impl Folded {
    fn check(&mut self, step: &Step, printer: &mut Printer) -> Result<(), CliError> {
        if step.status == Status::Ok && !self.shows_all {
            if !self.checks.contains(&step.step) {
                self.checks.push(step.step);
            }
            return Ok(());
        }
        printer.step_line(step.status, &format!("{:<4}  {:<14} {}", step.status.name(), step.step, step.message))
    }

    fn listener(&mut self, progress: probe::Progress<'_>, printer: &mut Printer) -> Result<(), CliError> {
        if self.shows_all {
            return print_progress(progress, printer);
        }
        match progress {
            probe::Progress::Target(url) => {
                self.finish(printer)?;
                url.clone_into(&mut self.url);
            }
            probe::Progress::Endpoint { address, transport } => {
                self.finish(printer)?;
                self.endpoint = Some(format!("{address} over {transport}"));
            }
            probe::Progress::Step(step) if step.status == Status::Ok => self.steps += 1,
            probe::Progress::Step(_) => {
                if !std::mem::replace(&mut self.has_head, true) {
                    let endpoint =
                        self.endpoint.as_deref().map_or_else(String::new, |endpoint| format!(" at {endpoint}"));
                    printer.line(format_args!("{}{endpoint}", self.url))?;
                }
                print_progress(progress, printer)?;
            }
        }
        Ok(())
    }

    /// Says what was well since the last time.
    fn finish(&mut self, printer: &mut Printer) -> Result<(), CliError> {
        let checks = std::mem::take(&mut self.checks);
        if !checks.is_empty() {
            let (number, plural) = (checks.len(), if checks.len() == 1 { "" } else { "s" });
            let line = format!("ok    {number} check{plural} of this host: {}", checks.join(", "));
            printer.step_line(Status::Ok, &line)?;
        }
        let (steps, has_head) = (std::mem::take(&mut self.steps), std::mem::take(&mut self.has_head));
        let Some(endpoint) = self.endpoint.take() else { return Ok(()) };
        if steps > 0 {
            let plural = if steps == 1 { "" } else { "s" };
            let line = match has_head {
                true => format!("ok    {steps} more step{plural} there"),
                false => format!("ok    {steps} step{plural} of a client at {} ({endpoint})", self.url),
            };
            printer.step_line(Status::Ok, &line)?;
        }
        Ok(())
    }
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
        overrides: &reading.overrides,
        secret_file: secret_file.as_deref().map(Path::new),
        warnings: loaded.warnings.len(),
    });
    let as_text = args.format == Format::Text && !args.json;
    let mut printed = Ok(());
    let mut folded = Folded { shows_all: args.all, ..Folded::default() };
    let report = doctor::run(configured, &options, &mut |progress| {
        if as_text && printed.is_ok() {
            printed = match progress {
                Progress::Check(step) => folded.check(step, printer),
                Progress::Listener(progress) => folded.listener(progress, printer),
            };
        }
    });
    if as_text && printed.is_ok() {
        printed = folded.finish(printer);
    }
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
