//! `turnstone status`: the server at a glance.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use clap::Args;

use crate::clock::span;
use crate::reject::Reason;
use crate::wall_clock::unix_now;

use super::super::output::{CliError, Exit, Printer, utc_text};
use super::answers::{AcmeName, DrainUnderWay, HookHealth, HookProblem, RelayAddress, Status, print_json, read};
use super::client::Call;
use super::fleet::FleetFlags;
use super::status_all::status_all;
use super::text::{Fields, count, traffic};
use super::whereabouts::AdminFlags;

/// Show the state of the running server, or of all nodes of a fleet.
#[derive(Args)]
#[command(after_help = "Examples:
  turnstone status
  turnstone status --all
  turnstone status --nodes https://turn1.example.org:9640 --fleet-token-file token

With --all, a line for each node of [fleet], and the sums; all are asked at once, and have five
seconds. REFUSED counts the last minute, without the steps that every client goes through;
REDIRECTED those who were sent to another server in it. LOAD is of what a node takes before it
sends clients to others.

Exit code 1 when a node does not answer.")]
pub(in crate::cli) struct StatusArgs {
    /// Print the API's answer.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    fleet: FleetFlags,

    #[command(flatten)]
    server: AdminFlags,
}

/// `turnstone status`
pub(in crate::cli) fn status(args: &StatusArgs, printer: &mut Printer) -> Result<Exit, CliError> {
    if let Some(nodes) = args.fleet.nodes(&args.server)? {
        return status_all(&nodes, args.json, printer);
    }
    let answer = args.server.client()?.ask(Call::get("/v1/status"))?;
    match args.json {
        true => print_json(&answer, printer)?,
        false => printer.print(&screen(&read(answer)?).to_string())?,
    }
    Ok(Exit::Success)
}

fn screen(status: &Status) -> Fields {
    let now_unix = unix_now();
    let mut fields = Fields::default();
    fields.add("turnstone", format!("{}, process {}, instance {}", status.version, status.pid, status.instance));
    fields.add("state", state(status, now_unix));
    fields.add("started", format!("{}, {} ago", utc_text(status.started_unix), span(status.uptime_secs)));
    let file = status.config_file.as_deref().unwrap_or("no file");
    let refused = match status.config_refused {
        true => "; the LAST RELOAD WAS REFUSED: the log says why, and so does turnstone check",
        false => "",
    };
    fields.add("configuration", format!("{file}, generation {}{refused}", status.config_generation));
    fields.add("log level", &status.log_level);
    let listeners = status.listeners.iter().map(|listener| format!("{} {}", listener.transport, listener.address));
    fields.list("listeners", listeners);
    fields.add("workers", status.workers.to_string());
    if let Some(not_after) = status.certificate_not_after_unix {
        let left = match not_after.checked_sub(now_unix) {
            Some(secs) => format!("for another {}", span(secs)),
            None => "EXPIRED".to_owned(),
        };
        fields.add("certificate", format!("until {}, {left}", utc_text(not_after)));
    }
    if let Some(store) = &status.store {
        let problem = store.problem.as_deref().filter(|_| !store.connected);
        let state = match problem {
            Some(problem) => format!("NOT CONNECTED: {problem}"),
            None if !store.problems.is_empty() => {
                let parts: Vec<_> = store.problems.keys().map(String::as_str).collect();
                format!("connected, but there is a problem with {} (turnstone store status)", parts.join(", "))
            }
            None if store.connected => "connected".to_owned(),
            None => "not connected yet".to_owned(),
        };
        fields.add("store", format!("{}, {state}", store.url));
    }
    if let Some(hook) = &status.hook {
        if let Some(questions) = &hook.questions {
            fields.add("hook", hook_health(questions, "question", now_unix));
        }
        if let Some(events) = &hook.events {
            let waiting = count(hook.events_waiting, "event");
            fields.add("hook events", format!("{}; {waiting} to be told", hook_health(events, "event", now_unix)));
        }
    }
    if !status.acme.is_empty() {
        fields.list("by ACME", status.acme.iter().map(|name| acme_name(name, now_unix)));
    }
    if status.wrong_tokens > 0 {
        fields.add("wrong tokens", format!("{} at the admin API; the log says from where", status.wrong_tokens));
    }
    let by_transport = listed(&status.allocations_by_transport).map(|list| format!(" ({list})")).unwrap_or_default();
    fields.add("allocations", format!("{}{by_transport}", status.allocations));
    fields.add("connections", status.connections.to_string());
    fields.list("relayed at", status.relay_addresses.iter().map(|relay| relayed_at(relay, now_unix)));
    let ports = status.ports.iter().map(|(family, ports)| format!("{family} {} of {}", ports.used, ports.total));
    fields.list("relay ports", ports);
    fields.add("to peers", traffic(status.traffic.to_peers));
    fields.add("to clients", traffic(status.traffic.to_clients));
    fields.add("in between", format!("{}, from one allocation to another", traffic(status.traffic.own_relayed)));
    // Every client's first request is answered so; it is no fault.
    let mut refused = status.refused.clone();
    let challenged = refused.remove(Reason::MissingIntegrity.label()).unwrap_or(0);
    fields.add("challenged", count(challenged, "request"));
    fields.add("refused", listed(&refused).unwrap_or_else(|| "nothing".to_owned()));
    fields.add("dropped", listed(&status.dropped).unwrap_or_else(|| "nothing".to_owned()));
    fields
}

/// How the application of `[hook]` does.
fn hook_health(health: &HookHealth, what: &str, now_unix: u64) -> String {
    let url = &health.url;
    let ago = |unix: u64| span(now_unix.saturating_sub(unix));
    let problem = health.problem.as_ref();
    match (health.silent_since_unix, health.answered_unix) {
        (Some(since), _) => {
            let (ago, last) = (ago(since), count(health.unanswered, what));
            let problem = problem.map(|problem| format!(": {}", problem.message)).unwrap_or_default();
            format!("{url}, NO ANSWER to the last {last}, since {ago}{problem}")
        }
        (None, None) => format!("{url}, nothing was to be said to it yet"),
        (None, Some(_)) => match problem {
            None => format!("{url}, answers"),
            Some(HookProblem { at_unix, username, message }) => {
                let about = username.as_ref().map(|username| format!(" about {username:?}")).unwrap_or_default();
                format!("{url}, answers; what was wrong last{about}, {} ago: {message}", ago(*at_unix))
            }
        },
    }
}

/// `203.0.113.5 for 10.0.0.5, by stun 12s ago`.
fn relayed_at(relay: &RelayAddress, now_unix: u64) -> String {
    let RelayAddress { bind, external, source, confirmed_unix, failure } = relay;
    let mut shown = match external {
        Some(external) if external == bind => bind.clone(),
        Some(external) => format!("{external} for {bind}, by {source}"),
        None => format!("not yet: no public address is known for {bind}"),
    };
    if let Some(unix) = confirmed_unix {
        shown += &format!(" {} ago", span(now_unix.saturating_sub(*unix)));
    }
    if let Some(failure) = failure {
        shown += &format!("; {failure}");
    }
    shown
}

/// `serving`, or how far the drain is.
pub(super) fn state(status: &Status, now_unix: u64) -> String {
    match &status.drain {
        None => match &status.not_ready {
            Some(reason) => format!("{}, but not ready: {reason}", status.state),
            None => status.state.clone(),
        },
        Some(DrainUnderWay { deadline_unix, allocations_left }) => {
            let end = deadline(*deadline_unix, now_unix);
            format!("{}, {} left, {end}", status.state, count(*allocations_left, "allocation"))
        }
    }
}

/// When a drain ends at the latest.
pub(super) fn deadline(deadline_unix: Option<u64>, now_unix: u64) -> String {
    match deadline_unix {
        None => "without a deadline".to_owned(),
        Some(at) => format!("until {} (in {}) at the latest", utc_text(at), span(at.saturating_sub(now_unix))),
    }
}

/// How it stands with a certificate that the server gets for itself.
fn acme_name(of: &AcmeName, now_unix: u64) -> String {
    let AcmeName { name, has_certificate, not_after_unix, failures, failure, .. } = of;
    let valid = match (has_certificate, not_after_unix) {
        (false, _) => ", which has no certificate yet".to_owned(),
        (true, None) => String::new(),
        (true, Some(not_after)) => format!(", valid until {}", utc_text(*not_after)),
    };
    let next = next_attempt(of, now_unix);
    match failure {
        Some(failure) => format!("{name}{valid}: {} failed, {next}: {failure}", count(*failures, "attempt")),
        None if *has_certificate => format!("{name}{valid}, to be renewed at {}", utc_text(of.next_attempt_unix)),
        None => format!("{name}{valid}: {next}"),
    }
}

/// When a certificate is asked for again.
pub(super) fn next_attempt(of: &AcmeName, now_unix: u64) -> String {
    match of.next_attempt_unix.checked_sub(now_unix).filter(|secs| *secs > 0) {
        Some(secs) => format!("the next attempt is due in {}, at {}", span(secs), utc_text(of.next_attempt_unix)),
        None => "an attempt is under way".to_owned(),
    }
}

/// `wrong-password 3, no-port 1`: the greatest first, without zeros.
fn listed(counts: &BTreeMap<String, u64>) -> Option<String> {
    let mut shown: Vec<_> = counts.iter().filter(|(_, count)| **count > 0).collect();
    shown.sort_by_key(|(_, count)| Reverse(**count));
    let words: Vec<_> = shown.iter().map(|(name, count)| format!("{name} {count}")).collect();
    (!words.is_empty()).then(|| words.join(", "))
}
