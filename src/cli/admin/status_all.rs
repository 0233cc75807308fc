//! `turnstone status --all`: the nodes of a fleet in one table.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::super::output::{CliError, Exit, Printer};
use super::answers::print_json;
use super::fleet::{LIMIT, ask_all, exit};
use super::text::{Table, bit_rate, count};
use crate::config::{FleetConfig, NodeSource};
use crate::fleet::{Answered, Asker, Names, NodeReport};

/// So many nodes are asked what silent ones are called, and have so long.
const HEARD_BY_MAX: usize = 3;
const HEARD_LIMIT: Duration = Duration::from_secs(1);

/// `turnstone status --all`
pub(super) fn status_all(fleet: &FleetConfig, as_json: bool, printer: &mut Printer) -> Result<Exit, CliError> {
    let question = |node: Arc<Asker>| async move { node.report("", LIMIT).await.map_err(|error| error.told()) };
    let answered: Vec<Answered<NodeReport>> = ask_all(fleet, question)?;
    let heard = heard(fleet, &answered);
    let reports = || answered.iter().filter_map(|node| node.answer.as_ref().ok());
    let mut instances: Vec<(&str, &str)> = Vec::new();
    let mut table = Table::new(&[
        "NODE",
        "VERSION",
        "STATE",
        ">SESSIONS",
        ">BIT RATE",
        ">REFUSED",
        ">REDIRECTED",
        ">LOAD",
        "WHAT IS WRONG",
    ]);
    let (mut shown, mut sums, mut silent) = (Vec::new(), Sums::default(), 0);
    for Answered { url, answer, .. } in &answered {
        let report = match answer {
            Ok(report) => report,
            Err(why) => {
                silent += 1;
                let name = heard.iter().find_map(|names| names.of(url));
                shown.push(json!({ "url": url, "name": name, "failure": why }));
                let (name, why) = match name {
                    Some(name) => (name, format!("{url}: {why}")),
                    None => (url.clone(), why.clone()),
                };
                let dash = || "-".to_owned();
                let state = "NO ANSWER".to_owned();
                table.row([name, dash(), state, dash(), dash(), dash(), dash(), dash(), why]);
                continue;
            }
        };
        let same = instances.iter().find(|(instance, _)| *instance == report.instance).map(|(_, url)| *url);
        let mut problems = report.problems.clone();
        match same {
            Some(first) => problems.insert(0, format!("{url} is the same node as {first}; counted once")),
            None => {
                instances.push((&report.instance, url));
                sums.add(report);
            }
        }
        if reports().any(|other| other.name == report.name && other.instance != report.instance) {
            problems.insert(0, format!("another node is called {}, too; this one is {url}", report.name));
        }
        shown.push(json!({ "url": url, "report": report, "same_as": same }));
        table.row([
            report.name.clone(),
            report.version.clone(),
            state(report).to_owned(),
            report.sessions.to_string(),
            bit_rate(report.bytes_per_sec as f64),
            report.refused_last_minute.to_string(),
            report.redirected_last_minute.to_string(),
            report.load_percent.map_or_else(|| "-".to_owned(), |load| format!("{load} %")),
            if problems.is_empty() { "-".to_owned() } else { problems.join("; ") },
        ]);
    }
    if as_json {
        let sums = json!({
            "nodes": answered.len(),
            "answering": answered.len() - silent,
            "sessions": sums.sessions,
            "bytes_per_sec": sums.bytes_per_sec,
            "refused_last_minute": sums.refused,
            "redirected_last_minute": sums.redirected,
        });
        print_json(&json!({ "nodes": shown, "sums": sums }), printer)?;
    } else {
        table.row([
            format!("all {}", count(answered.len() as u64, "node")),
            String::new(),
            if silent > 0 { format!("{silent} SILENT") } else { String::new() },
            sums.sessions.to_string(),
            bit_rate(sums.bytes_per_sec as f64),
            sums.refused.to_string(),
            sums.redirected.to_string(),
        ]);
        printer.print(&table.to_string())?;
    }
    Ok(exit(silent))
}

/// What nodes that answer have heard that silent ones are called.
fn heard(fleet: &FleetConfig, answered: &[Answered<NodeReport>]) -> Vec<Names> {
    let (answering, silent): (Vec<_>, Vec<_>) = answered.iter().partition(|node| node.answer.is_ok());
    let nodes: Vec<_> = answering.iter().filter_map(|node| node.node.clone()).take(HEARD_BY_MAX).collect();
    if nodes.is_empty() || silent.iter().all(|node| node.node.is_none()) {
        return Vec::new();
    }
    let few = FleetConfig { nodes: nodes.into_iter().map(NodeSource::Url).collect(), ..fleet.clone() };
    let question = |node: Arc<Asker>| async move {
        node.json::<Names>("/v1/node/names", HEARD_LIMIT).await.map_err(|error| error.to_string())
    };
    let heard = ask_all(&few, question).unwrap_or_default();
    heard.into_iter().filter_map(|node| node.answer.ok()).collect()
}

#[derive(Default)]
struct Sums {
    sessions: u64,
    bytes_per_sec: u64,
    refused: u64,
    redirected: u64,
}

impl Sums {
    fn add(&mut self, report: &NodeReport) {
        self.sessions = self.sessions.saturating_add(report.sessions);
        self.bytes_per_sec = self.bytes_per_sec.saturating_add(report.bytes_per_sec);
        self.refused = self.refused.saturating_add(report.refused_last_minute);
        self.redirected = self.redirected.saturating_add(report.redirected_last_minute);
    }
}

fn state(report: &NodeReport) -> &str {
    match (report.state.as_str(), report.ready) {
        ("serving", true) => "ready",
        ("serving", false) => "not ready",
        (state, _) => state,
    }
}
