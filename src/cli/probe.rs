//! `turnstone probe`: every step of a client at a STUN or TURN server, checked and explained.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::addr::Family;
use crate::probe::{self, Options, Progress, Roots, Status, TurnUrl};
use crate::text::json_pretty;

use super::login::Login;
use super::output::{CliError, Exit, Printer};

const AFTER_HELP: &str = "\
From DNS to data through the relay, at this server or any other.

Examples:
  ssh turn.example.org sudo turnstone credentials --user probe --ttl 10m --json |
    turnstone probe turn:turn.example.org --credential -
  turnstone probe turns:turn.example.org:443?transport=tcp -u alice --password-env PW --format json
  turnstone probe stun:stun.example.org stuns:stun.example.org -4

Steps: resolve, connect, tls, certificate, alpn, binding, unauthenticated (binding-udp for stuns:,
  nat over UDP where the server has another address for it, RFC 5780; redirect in place of
  unauthenticated where it sends clients to another server, which is probed next), third-party;
  then for IPv4 and IPv6 relays allocate, relayed-address, allocate-second, permission, echo-send,
  channel, echo-channel, safety, release, integrity; then mobility and, over tcp and tls, tcp-relay.
What a server may have off (third-party, mobility, tcp-relay) is \"off\" then, which is no fault.
turns: with ?transport=udp is DTLS; it takes a program built with the cargo feature dtls.
Without a credential it stops at the 401: nothing is relayed then. The secret need not leave the
server: a credential that is made there, as above, is enough. The echo is between two allocations of
one user. SRV and NAPTR records are not looked up.
On the server itself, turnstone doctor takes the same steps at every listener.

Exit codes, as monitoring systems in the manner of Nagios read them:
  0  it works, perhaps with warnings
  1  it works, with warnings (only with --strict)
  2  a step failed, or wrong usage
  3  the report could not be written";
/// A step that failed. The number is that of wrong usage; monitoring systems call it critical.
pub(super) const FAILED: Exit = Exit::Usage;

/// Check any STUN or TURN server step by step, as a client.
#[derive(Args)]
#[command(after_help = AFTER_HELP, args_override_self = true)]
pub(super) struct ProbeArgs {
    /// Servers: stun:HOST, stuns:HOST, turn:HOST, turns:HOST, with :PORT and, for TURN, ?transport=udp or tcp.
    #[arg(value_name = "URL", required = true)]
    urls: Vec<TurnUrl>,
    #[command(flatten)]
    login: Login,
    /// PEM file with the certificate authorities that the server's certificate is judged by, instead of the system's.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Go on when the certificate is not trusted; it is a warning then.
    #[arg(long)]
    insecure: bool,
    /// Only the server's IPv4 addresses.
    #[arg(short = '4', long, conflicts_with = "ipv6")]
    ipv4: bool,
    /// Only the server's IPv6 addresses.
    #[arg(short = '6', long)]
    ipv6: bool,
    /// The longest that one step may take, in seconds, 0.1 to 600.
    #[arg(long, default_value = "5", value_name = "SECONDS", value_parser = timeout)]
    timeout: Duration,
    /// Don't ask for permissions towards private addresses, which a safe relay refuses.
    #[arg(long)]
    no_safety: bool,
    /// Send data through a TCP relay (RFC 6062), over tcp and tls: the server connects back to a port that probe opens here.
    #[arg(long)]
    tcp_relay: bool,
    /// Exit with 1 when there are warnings.
    #[arg(long)]
    strict: bool,
    /// How to print the result; json is described in the README.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    /// The same as --format json.
    #[arg(long, conflicts_with = "format")]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

/// Runs the command.
pub(super) fn run(args: &ProbeArgs, printer: &mut Printer) -> Result<Exit, CliError> {
    let options = Options {
        urls: args.urls.clone(),
        credential: args.login.credential()?,
        roots: args.ca.clone().map_or(Roots::System, Roots::File),
        insecure: args.insecure,
        past_certificate: false,
        proxy_header: false,
        family: match (args.ipv4, args.ipv6) {
            (true, _) => Some(Family::V4),
            (_, true) => Some(Family::V6),
            _ => None,
        },
        timeout: args.timeout,
        safety: !args.no_safety,
        tcp_relay: args.tcp_relay,
    };
    if args.insecure {
        printer.error("warning: --insecure: anybody between here and the server could pass for it");
    }
    let as_text = args.format == Format::Text && !args.json;
    let mut printed = Ok(());
    let report = probe::run(&options, &mut |progress| {
        if as_text && printed.is_ok() {
            printed = print_progress(progress, printer);
        }
    });
    let report = report.map_err(CliError::usage)?;
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

pub(super) fn print_progress(progress: Progress<'_>, printer: &mut Printer) -> Result<(), CliError> {
    match progress {
        Progress::Target(url) => printer.line(url),
        Progress::Endpoint { address, transport } => printer.line(format_args!("  {address} over {transport}")),
        Progress::Step(step) => {
            printer.print("    ")?;
            printer.step_line(step.status, &step.to_string())
        }
    }
}

pub(super) fn timeout(text: &str) -> Result<Duration, String> {
    let secs: f64 = text.parse().map_err(|_| format!("{text} is not a number of seconds"))?;
    if !(0.1..=600.0).contains(&secs) {
        return Err(format!("{text} is not from 0.1 to 600"));
    }
    Duration::try_from_secs_f64(secs).map_err(|error| error.to_string())
}
