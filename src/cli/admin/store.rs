//! `turnstone store status`: the store of `[store]` as the running server has it.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use serde::Deserialize;

use super::super::output::{CliError, Exit, Printer, utc_text};
use super::answers::{print_json, read};
use super::client::Call;
use super::text::{Fields, count};
use super::whereabouts::AdminFlags;
use crate::clock::span;
use crate::wall_clock::unix_now;

/// Look at the store that the servers of a fleet share.
#[derive(Args)]
pub(in crate::cli) struct StoreCommand {
    #[command(subcommand)]
    what: StoreQuestion,
}

#[derive(Subcommand)]
enum StoreQuestion {
    Status(StoreStatusArgs),
}

/// Show whether the store answers, and what of it the running server knows.
#[derive(Args)]
#[command(after_help = "Exit code 1 when the store does not answer, or refuses something that it is used for.")]
struct StoreStatusArgs {
    /// Print the API's answer.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    server: AdminFlags,
}

/// What is used of an answer.
#[derive(Deserialize)]
struct StoreState {
    url: String,
    node: String,
    prefix: String,
    layout: String,
    connected: bool,
    since_unix: Option<u64>,
    connections: u64,
    problem: Option<String>,
    problems: BTreeMap<String, String>,
    latency_micros: u64,
    commands: BTreeMap<String, u64>,
    leases: LeaseState,
    secrets: u64,
    revocations: u64,
    users: BTreeMap<String, u64>,
}

/// This server's shares of quotas over the fleet.
#[derive(Deserialize)]
struct LeaseState {
    users: u64,
    allocations: u64,
    servers: u64,
    lost: bool,
    wanted: bool,
}

/// `turnstone store`
pub(in crate::cli) fn store(command: &StoreCommand, printer: &mut Printer) -> Result<Exit, CliError> {
    let StoreQuestion::Status(args) = &command.what;
    let answer = args.server.client()?.ask(Call::get("/v1/store"))?;
    if args.json {
        print_json(&answer, printer)?;
    }
    let state: StoreState = read(answer)?;
    if !args.json {
        printer.print(&screen(&state).to_string())?;
    }
    Ok(if state.connected && state.problems.is_empty() { Exit::Success } else { Exit::CheckFailed })
}

fn screen(state: &StoreState) -> Fields {
    let mut fields = Fields::default();
    fields.add("store", &state.url);
    let since = state.since_unix.map(|since| {
        let for_secs = unix_now().saturating_sub(since);
        format!(" since {}, {}", utc_text(since), span(for_secs))
    });
    let is_there = if state.connected { "connected" } else { "NOT CONNECTED" };
    fields.add("state", format!("{is_there}{}", since.unwrap_or_default()));
    if let Some(problem) = &state.problem {
        let when = if state.connected { "the last time: " } else { "" };
        fields.add("problem", format!("{when}{problem}"));
    }
    for (part, problem) in &state.problems {
        fields.add("problem", format!("{part}: {problem}"));
    }
    fields.add("connections", state.connections.to_string());
    fields.add("answers in", format!("{:.1} ms", state.latency_micros as f64 / 1e3));
    let by_result = |of: &BTreeMap<String, u64>| {
        let counts: Vec<_> = of.iter().map(|(result, count)| format!("{count} {result}")).collect();
        counts.join(", ")
    };
    fields.add("commands", by_result(&state.commands));
    fields.add("secrets", format!("{} in force", state.secrets));
    fields.add("revoked", format!("{} in force", state.revocations));
    fields.add("users", by_result(&state.users));
    let LeaseState { users, allocations, servers, lost, wanted } = state.leases;
    let here = format!("{}, {} here", count(users, "user"), count(allocations, "allocation"));
    let quotas = match (servers, lost) {
        _ if !wanted => "no limit holds over all servers (fleet-allocations-per-user)".to_owned(),
        (0, _) => "not shared yet".to_owned(),
        (_, true) => format!("NOT SHARED NOW, on-loss holds; {here}"),
        (1, false) => format!("shared, with no other server yet; {here}"),
        (_, false) => format!("shared among {servers} servers; {here}"),
    };
    fields.add("quotas", quotas);
    fields.add("this node", &state.node);
    let of_coturn = if state.layout == "coturn" { ", users and secrets in turn/realm/..." } else { "" };
    fields.add("keys", format!("{}:...{of_coturn}", state.prefix));
    fields
}
