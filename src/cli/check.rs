//! `turnstone check`: looks for what would stop the server, or disappoint its clients, without starting it.

use std::net::{SocketAddr, TcpListener, UdpSocket};

use clap::{Args, ValueEnum};
use serde_json::json;

use crate::addr::Transport;
use crate::config::{Admin, Config, ConfigError, Endpoint, Metrics, RelayAddress};

use super::certificate;
use super::input::ConfigFlags;
use super::output::{CliError, Exit, Printer, unix_now};

/// Descriptors beside relays and client connections: listeners, epoll, logs, and some to spare.
const DESCRIPTORS_TO_SPARE: u64 = 256;

/// Read the configuration and look for mistakes in it, in the certificate and in the machine.
#[derive(Args)]
#[command(after_help = "Exit code 0 without errors, 1 for warnings with --strict, 2 for errors.")]
pub(super) struct CheckArgs {
    /// Treat warnings as a failure.
    #[arg(long)]
    strict: bool,

    /// Also try whether the listeners can be bound; not while the server runs.
    #[arg(long)]
    bind: bool,

    /// How to print the findings.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,

    #[command(flatten)]
    flags: ConfigFlags,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    /// A line each.
    Text,
    /// One object.
    Json,
}

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    Ok,
    /// Worth knowing; nothing is wrong.
    Note,
    Warning,
    Error,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// What was found, in the order it was looked for.
#[derive(Default)]
pub(super) struct Findings {
    list: Vec<(Level, String, String)>,
}

impl Findings {
    pub(super) fn add(&mut self, level: Level, subject: &str, message: String) {
        self.list.push((level, subject.to_owned(), message));
    }

    fn count(&self, level: Level) -> usize {
        self.list.iter().filter(|(found, ..)| *found == level).count()
    }
}

pub(super) fn run(args: &CheckArgs, printer: &mut Printer) -> Result<Exit, CliError> {
    let mut findings = Findings::default();
    match args.flags.read(false).and_then(|reading| Ok((reading.load(false)?, reading))) {
        Ok((loaded, reading)) => {
            findings.add(Level::Ok, "configuration", summary(&loaded.config, &reading.source.name));
            for warning in loaded.warnings {
                findings.add(Level::Warning, &warning.place.to_string(), warning.message);
            }
            check_mode(&mut findings, &reading.source.name, reading.source.mode);
            check_config(&mut findings, &loaded.config, args.bind);
        }
        Err(ConfigError { problems }) => {
            for problem in problems {
                findings.add(Level::Error, &problem.place.to_string(), problem.message);
            }
        }
    }
    print(&findings, args.format, printer)?;
    Ok(match (findings.count(Level::Error), findings.count(Level::Warning)) {
        (0, 0) => Exit::Success,
        (0, _) if args.strict => Exit::CheckFailed,
        (0, _) => Exit::Success,
        _ => Exit::Usage,
    })
}

fn print(findings: &Findings, format: Format, printer: &mut Printer) -> Result<(), CliError> {
    let (errors, warnings) = (findings.count(Level::Error), findings.count(Level::Warning));
    match format {
        Format::Text => {
            for (level, subject, message) in &findings.list {
                printer.line(format_args!("{:<8} {subject}: {message}", level.name()))?;
            }
            printer.line(format_args!("{}, {}", counted(errors, "error"), counted(warnings, "warning")))
        }
        Format::Json => {
            let list: Vec<_> = findings
                .list
                .iter()
                .map(|(level, subject, message)| json!({ "level": level.name(), "subject": subject, "message": message }))
                .collect();
            printer.line(json!({ "findings": list, "errors": errors, "warnings": warnings }))
        }
    }
}

fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

fn summary(config: &Config, name: &str) -> String {
    let listeners: Vec<_> =
        config.listeners.iter().map(|listener| format!("{} {}", listener.transport, listener.address)).collect();
    format!(
        "{name}: {}; {}, {}; {} workers",
        listeners.join(", "),
        counted(config.auth.secrets.len(), "secret"),
        counted(config.auth.users.len(), "static user"),
        config.workers
    )
}

fn check_mode(findings: &mut Findings, name: &str, mode: Option<u32>) {
    match mode {
        Some(mode) if mode & 0o022 != 0 => {
            let message =
                format!("others than its owner may change it (mode {:04o}); run: chmod go-w {name}", mode & 0o7777);
            findings.add(Level::Warning, name, message);
        }
        Some(_) => findings.add(Level::Ok, name, "only its owner may change it".to_owned()),
        None => {}
    }
}

fn check_config(findings: &mut Findings, config: &Config, bind: bool) {
    for listener in config.listeners.iter().filter(|listener| listener.address.port() == 0) {
        let message = format!("{} {}: port 0 is another one at every start", listener.transport, listener.address);
        findings.add(Level::Warning, "listener", message);
    }
    if let Some(tls) = &config.tls {
        certificate::check(findings, tls, config.auth.public_host.as_deref(), unix_now());
    }
    if config.turn {
        for relay in [config.relay.ipv4, config.relay.ipv6].into_iter().flatten() {
            check_relay(findings, relay);
        }
        check_ephemeral_ports(findings, config.relay.ports);
    }
    check_descriptors(findings, config);
    if bind {
        config
            .listeners
            .iter()
            .for_each(|listener| check_bind(findings, "listener", listener.transport, listener.address));
        if let Some(Metrics { listen: Endpoint::Tcp(address), .. }) = config.metrics {
            check_bind(findings, "metrics", Transport::Tcp, address);
        }
        if let Some(Admin { listen: Endpoint::Tcp(address), .. }) = config.admin {
            check_bind(findings, "admin", Transport::Tcp, address);
        }
    }
}

fn check_relay(findings: &mut Findings, relay: RelayAddress) {
    match UdpSocket::bind((relay.bind, 0)) {
        Ok(_) if relay.bind == relay.external => findings.add(Level::Ok, "relay", format!("from {}", relay.bind)),
        Ok(_) => findings.add(Level::Ok, "relay", format!("from {}, known outside as {}", relay.bind, relay.external)),
        Err(error) => {
            let message = format!("{} is not an address of this host: {error}", relay.bind);
            findings.add(Level::Error, "relay", message);
        }
    }
}

fn check_ephemeral_ports(findings: &mut Findings, (low, high): (u16, u16)) {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut bounds = range.split_whitespace().filter_map(|bound| bound.parse::<u16>().ok());
    if let (Some(first), Some(last)) = (bounds.next(), bounds.next())
        && first <= high
        && low <= last
    {
        let message = format!(
            "{low}-{high} overlap with net.ipv4.ip_local_port_range, {first}-{last}: a port that another program of this \
             host has taken is passed over"
        );
        findings.add(Level::Note, "relay ports", message);
    }
}

/// Each relay and each client connection is a descriptor.
fn check_descriptors(findings: &mut Findings, config: &Config) {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let Some(limit) = line.and_then(|line| line.split_whitespace().nth(1)).and_then(|hard| hard.parse::<u64>().ok())
    else {
        return;
    };
    let families = u64::from(config.relay.ipv4.is_some()) + u64::from(config.relay.ipv6.is_some());
    let ports = u64::from(config.relay.ports.1.saturating_sub(config.relay.ports.0)) + 1;
    let relays = if config.turn { ports * families } else { 0 };
    let has_streams = config.listeners.iter().any(|listener| listener.transport.is_stream());
    let streams = if has_streams { config.streams.connections_max as u64 } else { 0 };
    let needed = relays.saturating_add(streams).saturating_add(DESCRIPTORS_TO_SPARE);
    if needed > limit {
        let message = format!(
            "{relays} relays and {streams} connections may need {needed} descriptors, but this process may have {limit}; \
             raise LimitNOFILE of the unit (ulimit -n), or narrow the port range"
        );
        findings.add(Level::Warning, "descriptors", message);
    } else {
        findings.add(Level::Ok, "descriptors", format!("{needed} at most, {limit} allowed"));
    }
}

fn check_bind(findings: &mut Findings, subject: &str, transport: Transport, address: SocketAddr) {
    let bound = match transport {
        Transport::Udp => UdpSocket::bind(address).map(drop),
        Transport::Tcp | Transport::Tls => TcpListener::bind(address).map(drop),
    };
    let message = format!("{transport} {address}");
    match bound {
        Ok(()) => findings.add(Level::Ok, subject, format!("{message} can be bound")),
        Err(error) => {
            let hint = match error.kind() {
                std::io::ErrorKind::AddrInUse => "; is the server running?",
                std::io::ErrorKind::PermissionDenied => "; ports below 1024 need CAP_NET_BIND_SERVICE",
                _ => "",
            };
            findings.add(Level::Error, subject, format!("{message} cannot be bound: {error}{hint}"));
        }
    }
}
