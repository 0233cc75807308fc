//! `turnstone reload`, `drain` and `log-level`: changing the running server.

use std::io::IsTerminal;
use std::thread::sleep;
use std::time::Duration;

use clap::Args;
use hyper::Method;
use serde_json::json;

use crate::config::parse_duration;
use crate::wall_clock::unix_now;

use super::super::output::{CliError, Exit, Printer, printable};
use super::answers::{Change, Drain, Judgement, LogLevel, Reload, Status, print_json, read};
use super::client::{Call, Client, ClientError};
use super::status;
use super::text::{Table, count};
use super::whereabouts::AdminFlags;

/// How often a drain is looked at.
const WAIT_INTERVAL: Duration = Duration::from_millis(500);
/// Looks in a row that may fail.
const FAILURES_MAX: u32 = 60;

/// Read configuration and certificates again, and print what changed.
#[derive(Args)]
#[command(after_help = "Examples:
  turnstone reload --dry-run
  turnstone reload --strict

A configuration that is not valid is refused with its mistakes, and the running one stays. The
server reads the file it was started with; --config here only says where its admin API is.

Exit code 2 when it was refused, 1 only with --strict: something needs a restart, or there is a
warning.")]
pub(in crate::cli) struct ReloadArgs {
    /// Only print what a reload would change.
    #[arg(long)]
    dry_run: bool,

    /// Exit with 1 when something needs a restart, or there is a warning.
    #[arg(long)]
    strict: bool,

    /// Print the API's answer.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    server: AdminFlags,
}

/// Take no new allocation, and end the server with its last one.
#[derive(Args)]
#[command(after_help = "Examples:
  turnstone drain --deadline 1h
  turnstone drain --deadline none --wait

While it drains, the same again changes the deadline.")]
pub(in crate::cli) struct DrainArgs {
    /// How long allocations may live on, such as 30m or 1h, at most 1d; none is without an end [default: [drain] deadline of
    /// the server's configuration]
    #[arg(long, value_name = "DURATION", value_parser = drain_deadline)]
    deadline: Option<DrainDeadline>,

    /// Show how many allocations are left, until the server has ended.
    #[arg(long)]
    wait: bool,

    /// Print the API's answer.
    #[arg(long, conflicts_with = "wait")]
    json: bool,

    #[command(flatten)]
    server: AdminFlags,
}

/// Show the filter of the server's log, or change it until the next reload.
#[derive(Args)]
#[command(after_help = "Example: turnstone log-level info,turnstone::turn=debug")]
pub(in crate::cli) struct LogLevelArgs {
    /// A level (error, warn, info, debug, trace, off), or directives of which each ends in one.
    filter: Option<String>,

    /// Print the API's answer.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    server: AdminFlags,
}

#[derive(Clone, Copy)]
enum DrainDeadline {
    Secs(u64),
    None,
}

/// `turnstone reload`
pub(in crate::cli) fn reload(args: &ReloadArgs, printer: &mut Printer) -> Result<Exit, CliError> {
    let dry_run = args.dry_run.then_some("true");
    let answer = args.server.client()?.ask(Call::new(Method::POST, "/v1/reload").query("dry_run", dry_run))?;
    if args.json {
        print_json(&answer, printer)?;
    }
    let reload: Reload = read(answer)?;
    if !args.json {
        printer.line(match (reload.applied, reload.changes.is_empty()) {
            (true, _) => format!("reloaded: configuration {} is in force", reload.generation),
            (false, true) => "valid; a reload would change nothing".to_owned(),
            (false, false) => "valid; nothing was changed".to_owned(),
        })?;
        if !reload.changes.is_empty() {
            printer.print(&changes(&reload).to_string())?;
        }
        if let Some(sessions) = reload.sessions.as_ref().filter(|sessions| sessions.judged > 0) {
            printer.line(judgement(sessions))?;
        }
        let now_unix = unix_now();
        for name in reload.acme.iter().filter(|name| !name.has_certificate || name.failure.is_some()) {
            printer.line(format_args!(
                "certificate of {} by ACME: {}",
                name.name,
                status::next_attempt(name, now_unix)
            ))?;
        }
        for warning in &reload.warnings {
            printer.line(format_args!("warning: {}", printable(warning)))?;
        }
    }
    let is_noted = !reload.warnings.is_empty() || reload.changes.iter().any(needs_restart);
    Ok(if args.strict && is_noted { Exit::CheckFailed } else { Exit::Success })
}

fn changes(reload: &Reload) -> Table {
    let mut table = Table::new(&["EFFECT", "KEY", "BEFORE", "AFTER"]);
    for change in &reload.changes {
        let effect = match (reload.applied, needs_restart(change)) {
            (true, false) => "applied",
            (true, true) => "needs a restart",
            (false, false) => "would be applied",
            (false, true) => "would need a restart",
        };
        table.row([effect.to_owned(), change.key.clone(), change.before.clone(), change.after.clone()]);
    }
    table
}

/// What came of a reload for the sessions there were.
fn judgement(sessions: &Judgement) -> String {
    let ended = [
        (sessions.ended, "session"),
        (sessions.permissions_ended, "permission"),
        (sessions.channels_ended, "channel"),
        (sessions.connections_ended, "connection"),
    ];
    let ended: Vec<_> =
        ended.into_iter().filter(|(number, _)| *number > 0).map(|(number, of)| count(number, of)).collect();
    let ended =
        if ended.is_empty() { "none lost anything by it".to_owned() } else { format!("ended: {}", ended.join(", ")) };
    format!("{} judged by it; {ended}", count(sessions.judged, "live session"))
}

fn needs_restart(change: &Change) -> bool {
    change.effect == "needs-restart"
}

/// `turnstone drain`
pub(in crate::cli) fn drain(args: &DrainArgs, printer: &mut Printer) -> Result<Exit, CliError> {
    let client = args.server.client()?;
    let call = Call::new(Method::POST, "/v1/drain");
    let call = match args.deadline {
        None => call,
        Some(DrainDeadline::Secs(secs)) => call.body(json!({ "deadline_secs": secs })),
        Some(DrainDeadline::None) => call.body(json!({ "deadline_secs": null })),
    };
    // Which server it is that ends: another may take its place.
    let instance = match args.wait {
        true => Some(read::<Status>(client.ask(Call::get("/v1/status"))?)?.instance),
        false => None,
    };
    let answer = client.ask(call)?;
    if args.json {
        print_json(&answer, printer)?;
        return Ok(Exit::Success);
    }
    let Drain { deadline_unix } = read(answer)?;
    let end = status::deadline(deadline_unix, unix_now());
    printer.line(format_args!("draining: no new allocations; the server ends with the last one, {end}"))?;
    match instance {
        Some(instance) => wait_for_end(&client, &instance, printer),
        None => Ok(Exit::Success),
    }
}

/// Shows the allocations that are left whenever their number changes, until the server is gone.
fn wait_for_end(client: &Client, instance: &str, printer: &mut Printer) -> Result<Exit, CliError> {
    // On a terminal, one line is written over and over.
    let (start, end) = if std::io::stdout().is_terminal() { ("\r\x1b[K", "") } else { ("", "\n") };
    let mut shown = None;
    let mut failures = 0;
    loop {
        let status: Status = match client.ask(Call::get("/v1/status")) {
            Ok(answer) => read(answer)?,
            Err(ClientError::NobodyThere(_)) => break,
            Err(error @ ClientError::Refused { status: 400..500, .. }) => return Err(error.into()),
            // It is busy, or about to end; but something else may be there now, and would never say so.
            Err(error) => {
                failures += 1;
                if failures > FAILURES_MAX {
                    return Err(error.into());
                }
                sleep(WAIT_INTERVAL);
                continue;
            }
        };
        failures = 0;
        if status.instance != instance {
            break;
        }
        if shown != Some(status.allocations) {
            printer.print(&format!("{start}{} left{end}", count(status.allocations, "allocation")))?;
            shown = Some(status.allocations);
        }
        sleep(WAIT_INTERVAL);
    }
    printer.line(format_args!("{start}the server has ended"))?;
    Ok(Exit::Success)
}

/// `turnstone log-level`
pub(in crate::cli) fn log_level(args: &LogLevelArgs, printer: &mut Printer) -> Result<Exit, CliError> {
    let call = match &args.filter {
        Some(filter) => Call::new(Method::PUT, "/v1/log-level").body(json!({ "level": filter })),
        None => Call::get("/v1/log-level"),
    };
    let answer = args.server.client()?.ask(call)?;
    if args.json {
        print_json(&answer, printer)?;
        return Ok(Exit::Success);
    }
    let LogLevel { level } = read(answer)?;
    let until = if args.filter.is_some() { " (until the next reload or restart)" } else { "" };
    printer.line(format_args!("{}{until}", printable(&level)))?;
    Ok(Exit::Success)
}

fn drain_deadline(text: &str) -> Result<DrainDeadline, String> {
    if text == "none" {
        return Ok(DrainDeadline::None);
    }
    let time = parse_duration(text).map_err(|problem| format!("{problem}; expected such as 30m or 1h, or none"))?;
    match time.subsec_millis() {
        0 => Ok(DrainDeadline::Secs(time.as_secs())),
        _ => Err("not a number of whole seconds".to_owned()),
    }
}
