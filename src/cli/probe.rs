//! `turnstone probe`: every step of a client at a STUN or TURN server, checked and explained.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::addr::Family;
use crate::probe::{self, CertificateName, Comparison, ConnectTo, Options, Progress, Report, Roots, Status};
use crate::text::json_pretty;

use super::ice_servers::{Asking, Subject, Wanted};
use super::login::Login;
use super::output::{CliError, Exit, Printer};

const AFTER_HELP: &str = "\
From DNS to data through the relay, at this server or any other.

Examples:
  ssh turn.example.org sudo turnstone credentials --user probe --ttl 10m --json |
    turnstone probe turn:turn.example.org --credential -
  turnstone probe turns:turn.example.org:443?transport=tcp -u alice --password-env PW --format json
  turnstone probe stun:stun.example.org stuns:stun.example.org -4
  turnstone probe -                  # then paste the iceServers of a page, and Ctrl-D
  turnstone probe https://turn.example.org:8443/v1/credentials \\
    --post '{\"user\": \"probe\"}' --api-key-file key
  turnstone probe --compare turn:old.example.org turn:new.example.org --credential credential.json
  turnstone probe turns:turn.example.org:443 --connect-to 203.0.113.7 --credential credential.json
  turnstone probe turns:203.0.113.7:443 --server-name turn.example.org --credential credential.json

iceServers are taken as a page has them in its code (JSON, or JavaScript without computed
values), or as an API answers them: from standard input (-), a file (@FILE), or an argument that
begins with [ or {, but other users of the host can read arguments. Each entry is asked as
browsers ask it, with its own credential: stuns: by plain UDP as Chromium does, turns: always by
TLS over TCP. What makes new RTCPeerConnection throw, or browsers leave a server out, is said
(steps ice-servers, entry, credential, browser). An API is asked once; redirects are not followed,
and --insecure is not for it.

--compare takes two servers (URLs, or two iceServers), and prints only what differs: steps, their
status, error codes, what is offered, address families, and times that are five times as long.

Steps: resolve, connect, tls, certificate, alpn, binding, unauthenticated (binding-udp for stuns:,
  nat over UDP where the server has another address for it, RFC 5780; redirect in place of
  unauthenticated where it sends clients to another server, which is probed next), third-party;
  then for IPv4 and IPv6 relays allocate, relayed-address, allocate-second, permission, echo-send,
  channel, echo-channel, relay-reach, safety, release, integrity; then mobility and, over tcp and
  tls, tcp-relay.
What a server may have off (third-party, mobility, tcp-relay) is \"off\" then, which is no fault.
turns: with ?transport=udp is DTLS; it takes a program built with the cargo feature dtls.
Without a credential it stops at the 401: nothing is relayed then. The secret need not leave the
server: a credential that is made there, as above, is enough. The echo is between two allocations of
one user, and stays inside of most servers; relay-reach sends to the relayed address as peers do.
Run from elsewhere, it sees closed relay ports and a wrong external-ip. SRV and NAPTR records are
not looked up.
On the server itself, turnstone doctor takes the same steps at every listener.

Exit codes, as monitoring systems in the manner of Nagios read them:
  0  it works, perhaps with warnings
  1  it works, with warnings (only with --strict)
  2  a step failed, or wrong usage
  3  the report could not be written
With --compare: 0 nothing differs, 1 something does, 2 both fail in the same way, or wrong usage.";
/// A step that failed. The number is that of wrong usage; monitoring systems call it critical.
pub(super) const FAILED: Exit = Exit::Usage;

/// Check any STUN or TURN server step by step, as a client.
#[derive(Args)]
#[command(after_help = AFTER_HELP, args_override_self = true)]
pub(super) struct ProbeArgs {
    /// Servers: stun:HOST, stuns:HOST, turn:HOST, turns:HOST, with :PORT and, for TURN, ?transport=udp or tcp; or the iceServers of
    /// a page: - for standard input, @FILE, https://..., which answers them, or themselves.
    #[arg(value_name = "URL", required = true)]
    wanted: Vec<Wanted>,
    /// Take the same steps at two servers and print what differs.
    #[arg(long, conflicts_with = "strict")]
    compare: bool,
    #[command(flatten)]
    asking: Asking,
    #[command(flatten)]
    login: Login,
    /// PEM file with the certificate authorities that the server's certificate is judged by, instead of the system's.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Go on when the certificate is not trusted; it is a warning then.
    #[arg(long)]
    insecure: bool,
    /// Ask here in place of what the URL's host resolves to: one node behind a public name. The port is the URL's unless given. What the
    /// certificate has to be for stays the URL's host.
    #[arg(long, value_name = "ADDRESS[:PORT]", conflicts_with = "compare")]
    connect_to: Option<ConnectTo>,
    /// Ask for this name by TLS (SNI), which the certificate then has to be for, in place of the URL's host. For stuns: and turns:.
    #[arg(long, value_name = "NAME")]
    server_name: Option<CertificateName>,
    /// Only the server's IPv4 addresses.
    #[arg(short = '4', long, conflicts_with = "ipv6")]
    ipv4: bool,
    /// Only the server's IPv6 addresses.
    #[arg(short = '6', long)]
    ipv6: bool,
    /// The longest that one step may take, in seconds, 0.1 to 600.
    #[arg(long, default_value = "5", value_name = "SECONDS", value_parser = timeout)]
    timeout: Duration,
    /// Don't send UDP straight to the relayed address, as peers do: for a server whose relay ports are closed to here on purpose.
    #[arg(long)]
    no_relay_reach: bool,
    /// Don't ask for permissions towards private addresses, which a safe relay refuses.
    #[arg(long)]
    no_safety: bool,
    /// Send data through a TCP relay (RFC 6062), over tcp and tls: the server connects back to a port that probe opens here.
    #[arg(long)]
    tcp_relay: bool,
    /// Exit with 1 when there are warnings.
    #[arg(long)]
    strict: bool,
    /// How to print the result; json is described in docs/probe.md.
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

/// What there is to do.
enum Task {
    Probe(Subject),
    Compare([Subject; 2]),
}

impl Task {
    /// Whether it is only of URLs without TLS.
    fn is_without_tls(&self) -> bool {
        let is_plain = |subject: &Subject| matches!(subject, Subject::Urls(urls) if !urls.iter().any(|url| url.scheme.is_secure()));
        match self {
            Self::Probe(subject) => is_plain(subject),
            Self::Compare(subjects) => subjects.iter().all(is_plain),
        }
    }
}

/// Runs the command.
pub(super) fn run(args: &ProbeArgs, printer: &mut Printer) -> Result<Exit, CliError> {
    let roots = args.ca.clone().map_or(Roots::System, Roots::File);
    let task = task(args, &roots, printer)?;
    let options = Options {
        urls: Vec::new(),
        credential: args.login.credential()?,
        roots,
        insecure: args.insecure,
        past_certificate: false,
        proxy_header: false,
        connect_to: args.connect_to.clone(),
        certificate_name: args.server_name.clone(),
        family: match (args.ipv4, args.ipv6) {
            (true, _) => Some(Family::V4),
            (_, true) => Some(Family::V6),
            _ => None,
        },
        timeout: args.timeout,
        relay_reach: !args.no_relay_reach,
        safety: !args.no_safety,
        tcp_relay: args.tcp_relay,
    };
    if options.certificate_name.is_some() && task.is_without_tls() {
        return Err(CliError::usage("--server-name is for TLS: give a stuns: or turns: URL, or leave it out"));
    }
    let has_own = |subject: &Subject| matches!(subject, Subject::IceServers(_));
    let have_own = match &task {
        Task::Probe(subject) => has_own(subject),
        Task::Compare(subjects) => subjects.iter().all(has_own),
    };
    if have_own && options.credential.is_some() {
        return Err(CliError::usage(
            "the entries of iceServers have credentials of their own: leave --user and the like out",
        ));
    }
    if args.insecure {
        printer.error("warning: --insecure: anybody between here and the server could pass for it");
    }
    let as_text = args.format == Format::Text && !args.json;
    let sha256 = args.login.sha256();
    let subject = match task {
        Task::Probe(subject) => subject,
        Task::Compare(subjects) => {
            let [a, b] = subjects.map(|subject| report(&subject, &options, sha256, &mut |_| ()));
            return print_comparison(&probe::compare(a?, b?), as_text, printer);
        }
    };
    let mut printed = Ok(());
    let report = report(&subject, &options, sha256, &mut |progress| {
        if as_text && printed.is_ok() {
            printed = print_progress(progress, printer);
        }
    })?;
    let exit = match report.verdict {
        Status::Fail => FAILED,
        Status::Warn if args.strict => Exit::CheckFailed,
        _ => Exit::Success,
    };
    // Whoever has stopped reading still learns the verdict.
    written(
        exit,
        printed.and_then(|()| match as_text {
            true => print_summary(&report, printer),
            false => printer.line(json_pretty(&report)),
        }),
    )
}

/// The verdict, and below it what is not well, where there is more than a terminal shows at once.
fn print_summary(report: &Report, printer: &mut Printer) -> Result<(), CliError> {
    printer.line(format_args!("\n{}", report.summary()))?;
    let addresses: usize = report.targets.iter().map(|target| target.addresses.len()).sum();
    let complaints = if addresses > 1 { report.complaints() } else { Vec::new() };
    complaints.iter().try_for_each(|(status, line)| printer.step_line(*status, line))
}

fn task(args: &ProbeArgs, roots: &Roots, printer: &mut Printer) -> Result<Task, CliError> {
    let wanted = &args.wanted[..];
    if args.asking.is_given() && !wanted.iter().any(|wanted| matches!(wanted, Wanted::Api(_))) {
        return Err(CliError::usage("--api-key-env, --api-key-file and --post are for an https:// URL"));
    }
    let mut read = |wanted: &Wanted| wanted.read(&args.asking, roots, args.timeout, printer);
    match (args.compare, wanted) {
        (true, [Wanted::Stdin, Wanted::Stdin]) => {
            Err(CliError::usage("only one of the two can come from standard input"))
        }
        (true, [a, b]) => Ok(Task::Compare([read(a)?, read(b)?])),
        (true, _) => Err(CliError::usage("--compare takes two servers: turnstone probe --compare URL URL")),
        (false, [one]) => read(one).map(Task::Probe),
        (false, several) => {
            let url = |wanted: &Wanted| match wanted {
                Wanted::Url(url) => Ok(url.clone()),
                _ => Err(CliError::usage(
                    "iceServers are probed alone: leave the other arguments out, or compare two with --compare",
                )),
            };
            Ok(Task::Probe(Subject::Urls(several.iter().map(url).collect::<Result<_, _>>()?)))
        }
    }
}

fn report(
    subject: &Subject,
    options: &Options,
    sha256: bool,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Report, CliError> {
    let report = match subject {
        Subject::Urls(urls) => probe::run(&Options { urls: urls.clone(), ..options.clone() }, progress),
        Subject::IceServers(servers) => probe::run_ice(options, servers, sha256, progress),
    };
    report.map_err(CliError::usage)
}

fn print_comparison(comparison: &Comparison, as_text: bool, printer: &mut Printer) -> Result<Exit, CliError> {
    let exit = match (comparison.differences.len(), comparison.both_fail()) {
        (0, true) => FAILED,
        (0, false) => Exit::Success,
        _ => Exit::CheckFailed,
    };
    written(
        exit,
        match as_text {
            true => printer.line(comparison),
            false => printer.line(json_pretty(comparison)),
        },
    )
}

/// The exit code, whether or not anybody reads the output to its end.
fn written(exit: Exit, written: Result<(), CliError>) -> Result<Exit, CliError> {
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
