//! `turnstone check`: looks for what would stop the server, or disappoint its clients, without starting it.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde_json::json;

use crate::addr::{SocketKind, Transport};
use crate::config::{Admin, Config, CredentialsApi, Endpoint, Finding, FleetConfig, FoundBy, Metrics, RelayAddress};
use crate::doctor::service::{Plan, Service};
use crate::doctor::{self, certificate};
use crate::probe::{Status, Step};
use crate::text;
use crate::wall_clock::unix_now;

use super::input::ConfigFlags;
use super::output::{CliError, Exit, Printer, Tone, hints};

/// Look for mistakes in the configuration, the certificate and the machine.
#[derive(Args)]
#[command(after_help = "\
What the server will read and write is judged for the user and the sandbox of the installed
systemd unit, else for whoever runs this; for another user than your own that takes root. The host,
the running server and what a client would see are looked at by turnstone doctor.

Exit code 0 without errors, 1 for warnings with --strict, 2 for errors.")]
pub(super) struct CheckArgs {
    /// The configuration file; the same as --config FILE.
    #[arg(value_name = "FILE", conflicts_with = "config")]
    file: Option<PathBuf>,

    /// Treat warnings as a failure.
    #[arg(long)]
    strict: bool,

    /// Also try whether the listeners can be bound; not while the server runs.
    #[arg(long)]
    bind: bool,

    /// The user that the server will run as, by name or number, instead of the unit's.
    #[arg(long, value_name = "NAME")]
    user: Option<String>,

    /// The systemd unit that will start it, instead of the installed one; drop-ins are in FILE.d.
    #[arg(long, value_name = "FILE")]
    unit: Option<PathBuf>,

    /// How to print the findings.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,

    /// The same as --format json.
    #[arg(long, conflicts_with = "format")]
    json: bool,

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
enum Level {
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

impl Level {
    fn tone(self) -> Tone {
        match self {
            Self::Ok => Tone::Good,
            Self::Note => Tone::Aside,
            Self::Warning => Tone::Warning,
            Self::Error => Tone::Bad,
        }
    }
}

/// What was found, in the order it was looked for.
#[derive(Default)]
struct Findings {
    list: Vec<(Level, String, String)>,
}

impl Findings {
    fn add(&mut self, level: Level, subject: &str, message: String) {
        self.list.push((level, subject.to_owned(), message));
    }

    fn take(&mut self, steps: impl IntoIterator<Item = Step>) {
        for Step { step, status, message, .. } in steps {
            let level = match status {
                Status::Ok => Level::Ok,
                Status::Note => Level::Note,
                Status::Warn => Level::Warning,
                Status::Fail => Level::Error,
            };
            self.add(level, step, message);
        }
    }

    fn count(&self, level: Level) -> usize {
        self.list.iter().filter(|(found, ..)| *found == level).count()
    }
}

pub(super) fn run(args: &CheckArgs, printer: &mut Printer) -> Result<Exit, CliError> {
    let service = Service::find(args.user.as_deref(), args.unit.as_deref()).map_err(CliError::usage)?;
    let mut findings = Findings::default();
    let flags = args.file.as_ref().map_or_else(|| args.flags.clone(), |file| args.flags.with_file(file));
    match flags.read(false).and_then(|reading| Ok((reading.load(false)?, reading))) {
        Ok((loaded, reading)) => {
            findings.add(Level::Ok, "configuration", summary(&loaded.config, &reading.source.name));
            for warning in loaded.warnings {
                findings.add(Level::Warning, &warning.place.to_string(), warning.message);
            }
            check_mode(&mut findings, &reading.source.name, reading.source.mode);
            check_config(&mut findings, &loaded.config, args.bind, service.is_running_this());
            let plan = Plan { config: &loaded.config, source: &reading.source, overrides: &reading.overrides };
            findings.take(service.judge(plan));
        }
        Err(error) => {
            hints(&error.to_string()).for_each(|hint| printer.error(hint));
            for problem in error.problems {
                findings.add(Level::Error, &problem.place.to_string(), problem.message);
            }
        }
    }
    let format = if args.json { Format::Json } else { args.format };
    print(&findings, format, printer)?;
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
                let shown = printer.toned(level.tone(), &format!("{:<8}", level.name()));
                printer.line(format_args!("{shown} {subject}: {message}"))?;
            }
            printer.line(format_args!("{}, {}", counted(errors, "error"), counted(warnings, "warning")))
        }
        Format::Json => {
            let list: Vec<_> = findings
                .list
                .iter()
                .map(|(level, subject, message)| json!({ "level": level.name(), "subject": subject, "message": message }))
                .collect();
            printer.line(text::json(&json!({ "findings": list, "errors": errors, "warnings": warnings })))
        }
    }
}

fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

fn summary(config: &Config, name: &str) -> String {
    let listeners: Vec<_> =
        config.listeners.iter().map(|listener| format!("{} {}", listener.transport, listener.address)).collect();
    let realms = &config.realms;
    let secrets = config.auth.secrets.len() + realms.iter().map(|realm| realm.secrets.len()).sum::<usize>();
    let users = config.auth.users.len() + realms.iter().map(|realm| realm.users.len()).sum::<usize>();
    let in_realms = if realms.is_empty() { String::new() } else { format!(" in {} realms", realms.len() + 1) };
    format!(
        "{name}: {}; {}, {}{in_realms}; {}",
        listeners.join(", "),
        counted(secrets, "secret"),
        counted(users, "static user"),
        counted(config.workers, "worker")
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

/// `is_service` is whether the running service asks, before it takes over a changed file.
fn check_config(findings: &mut Findings, config: &Config, bind: bool, is_service: bool) {
    for listener in config.listeners.iter().filter(|listener| listener.address.port() == 0) {
        let message = format!("{} {}: port 0 is another one at every start", listener.transport, listener.address);
        findings.add(Level::Warning, "listener", message);
    }
    for listener in config.listeners.iter().filter(|listener| is_elsewhere(listener.address.ip())) {
        let (transport, address) = (listener.transport, listener.address);
        let message = format!(
            "{transport} {address} is not an address of this host now: nobody reaches the server there until it is"
        );
        findings.add(Level::Warning, "listener", message);
    }
    for judged in certificate::judge_all(config, unix_now(), crate::probe::WARN_DAYS_LEFT) {
        findings.take(judged.steps);
    }
    findings.take(doctor::acme::judge(config));
    findings.take(doctor::clients::judge(config));
    findings.take(doctor::choices::judge(config));
    findings.take(doctor::credentials::judge(config));
    findings.take(config.store.iter().flat_map(doctor::store::judge_files));
    findings.take(config.fleet.iter().flat_map(doctor::fleet::judge_files));
    findings.take(config.admin.as_ref().and_then(doctor::page::judge));
    if config.turn {
        for relay in config.relay.addresses.iter().copied() {
            check_relay(findings, relay, is_service);
            findings.take(doctor::network::judge_external_ip(config, relay));
        }
        for bind in &config.relay.waiting {
            let message = match &config.relay.finding {
                Finding { by: Some(FoundBy::Auto), sources, .. } if sources.is_empty() => {
                    let message = format!(
                        "{bind} is no public address, and external-ip = \"auto\" has nobody to ask what stands for it: the server will relay \
                         nothing there; name somebody in external-ip-sources"
                    );
                    findings.add(Level::Warning, "public-address", message);
                    continue;
                }
                Finding { by: Some(FoundBy::Name(name)), .. } => {
                    format!("what stands for {bind} is asked of the resolver: {name}")
                }
                Finding { sources, .. } => {
                    let sources: Vec<_> = sources.iter().map(ToString::to_string).collect();
                    format!("what stands for {bind} is asked of {}", sources.join(", "))
                }
            };
            findings.add(Level::Ok, "public-address", message + " once the server runs; turnstone doctor asks now");
        }
        let read = |name: &str| std::fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).unwrap_or_default();
        let (taken, reserved) = (read("ip_local_port_range"), read("ip_local_reserved_ports"));
        findings.take(doctor::ports::judge_shared(config));
        findings.take(doctor::ports::judge_ephemeral(config.relay.ports, &taken, &reserved));
    }
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    findings.take(doctor::process::judge_descriptors(config, &limits, doctor::process::Whose::ThisProcess));
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
        if let Some(CredentialsApi { listen: Endpoint::Tcp(address), .. }) = config.credentials {
            check_bind(findings, "credentials", Transport::Tcp, address);
        }
        if let Some(FleetConfig { listen: Some(Endpoint::Tcp(address)), .. }) = config.fleet {
            check_bind(findings, "fleet", Transport::Tcp, address);
        }
        if let Some(address) = config.acme.as_ref().and_then(|acme| acme.challenges.http) {
            check_bind(findings, "acme-http", Transport::Tcp, address);
        }
    }
}

/// Whether the kernel says that an address is not here.
fn is_elsewhere(ip: IpAddr) -> bool {
    UdpSocket::bind((ip, 0)).is_err_and(|error| error.kind() == ErrorKind::AddrNotAvailable)
}

fn check_relay(findings: &mut Findings, relay: RelayAddress, is_service: bool) {
    match UdpSocket::bind((relay.bind, 0)) {
        Ok(_) if relay.bind == relay.external => findings.add(Level::Ok, "relay", format!("from {}", relay.bind)),
        Ok(_) => findings.add(Level::Ok, "relay", format!("from {}, known outside as {}", relay.bind, relay.external)),
        Err(error) => {
            let reason = match error.kind() {
                ErrorKind::AddrNotAvailable => String::new(),
                _ => format!(" ({error})"),
            };
            let message = format!(
                "{} is not an address of this host{reason}: the server waits for it, and relays nothing until it is",
                relay.bind
            );
            // One that the running server has lost, or waits for, must not keep other changes from it.
            findings.add(if is_service { Level::Warning } else { Level::Error }, "relay", message);
        }
    }
}

fn check_bind(findings: &mut Findings, subject: &str, transport: Transport, address: SocketAddr) {
    let bound = match transport.socket_kind() {
        SocketKind::Udp => UdpSocket::bind(address).map(drop),
        SocketKind::Tcp => TcpListener::bind(address).map(drop),
    };
    let message = format!("{transport} {address}");
    match bound {
        Ok(()) => findings.add(Level::Ok, subject, format!("{message} can be bound")),
        Err(error) => {
            let hint = match error.kind() {
                ErrorKind::AddrInUse => "; is the server running?",
                ErrorKind::PermissionDenied => "; ports below 1024 need CAP_NET_BIND_SERVICE",
                _ => "",
            };
            findings.add(Level::Error, subject, format!("{message} cannot be bound: {error}{hint}"));
        }
    }
}
