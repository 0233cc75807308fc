//! `turnstone explain`: why a user, or whoever is at an address, was refused, or is in no session any more.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use clap::Args;
use form_urlencoded::Serializer;
use serde_json::json;

use crate::auth::TimeLimited;
use crate::clock::span;
use crate::config::FleetConfig;
use crate::fleet::{Answered, Asker, NodeError, told_apart};
use crate::wall_clock::unix_now;

use super::super::output::{CliError, Exit, Printer, printable, utc_text};
use super::answers::{AsPolicy, AsPort, LastEnd, Refusal, RefusalList, SessionPage, print_json, read};
use super::client::Call;
use super::fleet::{FleetFlags, LIMIT as FLEET_LIMIT, ask_all, exit};
use super::revoke::revocation_text;
use super::text::{Table, count, with_realm};
use super::whereabouts::AdminFlags;

/// As many as the API tells at once.
const LIMIT: &str = "1000";

/// Say why a user or an address was refused, and how sessions ended.
#[derive(Args)]
#[command(after_help = "Examples:
  turnstone explain alice
  turnstone explain 198.51.100.7
  turnstone explain alice --all

The newest refusal comes first. The 401 that every client gets to its first request is not kept.
Of a user it also says what revokes credentials of his, and of a user or a client's address how the
last sessions ended.
For an address, it also says whether clients may have it as a peer now, and by which rule: of an
address without a port, also at each port that was refused.

With --all, every node of [fleet] is asked, at which the user or the client has sessions now, too.

Exit code 0 also when nothing is kept; with --all 1 when a node does not answer.")]
pub(in crate::cli) struct ExplainArgs {
    /// A username, the user part of a time-limited credential, an IP address, or ADDRESS:PORT.
    #[arg(value_name = "USER|ADDRESS")]
    whom: String,

    /// It is a user, even if it looks like an address.
    #[arg(long)]
    user: bool,

    /// Only refusals of clients in this realm.
    #[arg(long, value_name = "NAME")]
    realm: Option<String>,

    /// Print the API's answer.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    fleet: FleetFlags,

    #[command(flatten)]
    server: AdminFlags,
}

/// `turnstone explain`
pub(in crate::cli) fn explain(args: &ExplainArgs, printer: &mut Printer) -> Result<Exit, CliError> {
    let whom = args.whom.as_str();
    let is_address = !args.user && (whom.parse::<IpAddr>().is_ok() || whom.parse::<SocketAddr>().is_ok());
    let key = if is_address { "address" } else { "user" };
    if let Some(nodes) = args.fleet.nodes(&args.server)? {
        let question = Question { key, whom, realm: args.realm.as_deref() };
        return explain_all(&nodes, &question, args.json, printer);
    }
    let call = Call::get("/v1/refusals").query(key, Some(whom)).query("realm", args.realm.as_deref());
    let answer = args.server.client()?.ask(call.query("limit", Some(LIMIT)))?;
    if args.json {
        print_json(&answer, printer)?;
        return Ok(Exit::Success);
    }
    show(&read(answer)?, whom, printer)?;
    Ok(Exit::Success)
}

/// Prints what one server keeps of somebody.
fn show(list: &RefusalList, whom: &str, printer: &mut Printer) -> Result<(), CliError> {
    let (now_unix, shown) = (unix_now(), printable(whom));
    let since = list.kept_since_unix.map_or_else(String::new, |since| {
        format!("; everything since {} is kept ({})", utc_text(since), span(now_unix.saturating_sub(since)))
    });
    let groups = groups(&list.refusals);
    match groups.is_empty() {
        true => printer.line(format_args!("no refusal of {shown}{since}"))?,
        false => {
            printer.print(&table(&groups, now_unix).to_string())?;
            printer.line(format_args!("{}{since}", count(list.refusals.len() as u64, "refusal")))?;
        }
    }
    let ends = ends(&list.ended);
    if !ends.is_empty() {
        printer.print(&table_of_ends(&ends, now_unix).to_string())?;
        let ended = ends.iter().fold(0_u64, |sum, (_, times)| sum.saturating_add(*times));
        printer.line(format_args!("{} ended, of those that are kept", count(ended, "session")))?;
    }
    for revocation in &list.revoked {
        printer.line(revocation_text(revocation))?;
    }
    if let Some(peer) = &list.as_peer {
        let verdict = |allowed| if allowed { "allowed" } else { "denied" };
        let now = verdict(peer.allowed);
        printer.line(format_args!("as a peer, {shown} is {now} now: {}", printable(&peer.explanation)))?;
        for AsPolicy { policy, allowed, explanation } in &peer.policies {
            let now = verdict(*allowed);
            let (policy, explanation) = (printable(policy), printable(explanation));
            printer.line(format_args!("  by the peer policy {policy:?} it is {now} now: {explanation}"))?;
        }
        for AsPort { port, allowed, explanation } in &peer.ports {
            let now = verdict(*allowed);
            printer.line(format_args!("  at port {port} it is {now} now: {}", printable(explanation)))?;
        }
    }
    Ok(())
}

/// A user or an address that all nodes are asked about.
struct Question<'a> {
    /// `user` or `address`.
    key: &'static str,
    whom: &'a str,
    realm: Option<&'a str>,
}

/// What a node knows of somebody.
struct Known {
    name: String,
    refusals: RefusalList,
    sessions: Option<SessionPage>,
}

/// `turnstone explain --all`
fn explain_all(
    fleet: &FleetConfig,
    question: &Question<'_>,
    as_json: bool,
    printer: &mut Printer,
) -> Result<Exit, CliError> {
    let target = |path: &str, key: &str, limit: &str| {
        let mut query = Serializer::new(String::new());
        query.append_pair(key, question.whom).append_pair("limit", limit);
        question.realm.map(|realm| query.append_pair("realm", realm));
        format!("{path}?{}", query.finish())
    };
    let refusals = target("/v1/refusals", question.key, LIMIT);
    // A client's address is one with or without a port, as it is written.
    let is_user = question.key == "user";
    let is_ip = question.whom.parse::<IpAddr>().is_ok();
    let sessions = (is_user || is_ip).then(|| target("/v1/sessions", if is_user { "user" } else { "client" }, "100"));
    let ask = |node: Arc<Asker>| {
        let (refusals, sessions) = (refusals.clone(), sessions.clone());
        async move {
            let failed = |error: NodeError| error.told();
            let name = node.report("", FLEET_LIMIT).await.map_err(failed)?.name;
            let refusals = node.json(&refusals, FLEET_LIMIT).await.map_err(failed)?;
            let sessions = match &sessions {
                Some(sessions) => Some(node.json(sessions, FLEET_LIMIT).await.map_err(failed)?),
                None => None,
            };
            Ok(Known { name, refusals, sessions })
        }
    };
    let answered: Vec<Answered<Known>> = ask_all(fleet, ask)?;
    let silent = answered.iter().filter(|node| node.answer.is_err()).count();
    if as_json {
        let shown = answered.into_iter().map(|Answered { url, answer, .. }| match answer {
            Ok(Known { name, refusals, sessions }) => {
                json!({ "url": url, "name": name, "refusals": refusals, "sessions": sessions })
            }
            Err(why) => json!({ "url": url, "failure": why }),
        });
        print_json(&json!({ "nodes": shown.collect::<Vec<_>>() }), printer)?;
        return Ok(exit(silent));
    }
    let mut table = Table::new(&["NODE", "USER", "CLIENT", "RELAYED", ">FOR"]);
    let mut found = 0_u64;
    let mut refused = Vec::new();
    let (mut clean, mut failed) = (Vec::new(), Vec::new());
    let names = told_apart(answered.iter().map(|Answered { url, answer, .. }| match answer {
        Ok(known) => (known.name.as_str(), url.as_str()),
        Err(_) => ("", url.as_str()),
    }));
    for (Answered { url, answer, .. }, name) in answered.into_iter().zip(names) {
        let Known { refusals: list, sessions: page, .. } = match answer {
            Ok(known) => known,
            Err(why) => {
                failed.push((url, why));
                continue;
            }
        };
        for session in page.iter().flat_map(|page| &page.sessions) {
            found += 1;
            table.row([
                name.clone(),
                with_realm(&session.user, session.realm.as_deref()),
                format!("{} {}", session.client, session.transport),
                session.relayed.iter().map(|relayed| relayed.address.as_str()).collect::<Vec<_>>().join(", "),
                span(session.age_secs),
            ]);
        }
        if list.refusals.is_empty() && list.ended.is_empty() && list.revoked.is_empty() {
            clean.push(printable(&name))
        } else {
            refused.push((name, list))
        }
    }
    let shown = printable(question.whom);
    match found {
        0 if sessions.is_some() && failed.is_empty() => printer.line(format_args!("no session of {shown} now"))?,
        0 if sessions.is_some() => printer.line(format_args!(
            "no session of {shown} now at the nodes that answer; {} did not",
            count(failed.len() as u64, "node")
        ))?,
        0 => {}
        _ => {
            printer.print(&table.to_string())?;
            let silent = match failed.len() {
                0 => String::new(),
                silent => format!(" at the nodes that answer; {} did not", count(silent as u64, "node")),
            };
            printer.line(format_args!("{}{silent}", count(found, "session")))?;
        }
    }
    for (name, list) in &refused {
        printer.line(format_args!("\nat {}:", printable(name)))?;
        show(list, question.whom, printer)?;
    }
    if !clean.is_empty() {
        printer.line(format_args!("\nno refusal of {shown} at {}", clean.join(", ")))?;
    }
    for (url, why) in &failed {
        printer.error(format_args!("{}: {}", printable(url), printable(why)));
    }
    Ok(exit(failed.len()))
}

/// Refusals that are alike but for time, port and, for peers, address.
struct Group<'r> {
    newest: &'r Refusal,
    times: u64,
    peers: BTreeSet<&'r str>,
}

/// The groups, the one with the newest refusal first.
fn groups(refusals: &[Refusal]) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for refusal in refusals {
        let peer = refusal.peer.as_deref().map(without_port);
        match groups.iter_mut().find(|group| is_alike(group.newest, refusal)) {
            Some(group) => {
                group.times = group.times.saturating_add(refusal.times);
                group.peers.extend(peer);
            }
            None => groups.push(Group { newest: refusal, times: refusal.times, peers: peer.into_iter().collect() }),
        }
    }
    groups
}

fn is_alike(one: &Refusal, other: &Refusal) -> bool {
    fn key(refusal: &Refusal) -> (u16, &str, &str, &str, &str, &str) {
        // How long a credential had expired grows with every attempt.
        let explanation = if refusal.reason == "credential-expired" { "" } else { &refusal.explanation };
        let client = without_port(&refusal.client);
        (refusal.code, &refusal.reason, &refusal.method, explanation, client, user_of(&refusal.username))
    }
    key(one) == key(other) && (&one.transport, &one.realm) == (&other.transport, &other.realm)
}

fn table(groups: &[Group<'_>], now_unix: u64) -> Table {
    let mut table = Table::new(&[">LAST", ">TIMES", "CODE", "REQUEST", "CLIENT", "USER", "PEER", "WHY"]);
    for group in groups {
        let Refusal { at_unix, code, method, client, transport, realm, username, username_complete, .. } = group.newest;
        let mut peers = group.peers.iter();
        let peer = match (peers.next(), peers.count()) {
            (None, _) => "-".to_owned(),
            (Some(peer), 0) => (*peer).to_owned(),
            (Some(peer), more) => format!("{peer} and {more} more"),
        };
        let user = match (user_of(username), username_complete) {
            ("", _) => "-".to_owned(),
            (user, true) => user.to_owned(),
            (user, false) => format!("{user}…"),
        };
        let user = with_realm(&user, realm.as_deref());
        let explanation = &group.newest.explanation;
        let normal = if group.newest.normal && !explanation.contains("normal") { " (normal)" } else { "" };
        table.row([
            format!("{} ago", span(now_unix.saturating_sub(*at_unix))),
            group.times.to_string(),
            code.to_string(),
            method.clone(),
            format!("{} {transport}", without_port(client)),
            user,
            peer,
            format!("{explanation}{normal}"),
        ]);
    }
    table
}

/// The ends that are alike but for time and port, the one with the newest first, and how many there were of each.
fn ends(ended: &[LastEnd]) -> Vec<(&LastEnd, u64)> {
    fn key(end: &LastEnd) -> (&str, &str, &str, &str, Option<&str>) {
        (&end.reason, without_port(&end.client), &end.transport, &end.user, end.realm.as_deref())
    }
    let mut ends: Vec<(&LastEnd, u64)> = Vec::new();
    for end in ended {
        match ends.iter_mut().find(|(newest, _)| key(newest) == key(end)) {
            Some((_, times)) => *times = times.saturating_add(end.times),
            None => ends.push((end, end.times)),
        }
    }
    ends
}

fn table_of_ends(ends: &[(&LastEnd, u64)], now_unix: u64) -> Table {
    let mut table = Table::new(&[">LAST", ">SESSIONS", "ENDED", "CLIENT", "USER", "WHY"]);
    for (end, times) in ends {
        table.row([
            format!("{} ago", span(now_unix.saturating_sub(end.at_unix))),
            times.to_string(),
            end.reason.clone(),
            format!("{} {}", without_port(&end.client), end.transport),
            with_realm(&end.user, end.realm.as_deref()),
            end.explanation.clone(),
        ]);
    }
    table
}

/// The user part of a time-limited credential's username.
fn user_of(username: &str) -> &str {
    TimeLimited::parse(username).map_or(username, |parsed| parsed.user)
}

fn without_port(address: &str) -> &str {
    let ip = address.rsplit_once(':').map_or(address, |(ip, _)| ip);
    ip.trim_start_matches('[').trim_end_matches(']')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_a_node_that_lies_do_not_run_over() {
        let much =
            |at_unix| Refusal { times: u64::MAX, ..refusal(at_unix, "unknown-user", "eve", None, "no such user") };
        assert_eq!(groups(&[much(2), much(1)])[0].times, u64::MAX);
    }

    fn refusal(at_unix: u64, reason: &str, username: &str, peer: Option<&str>, explanation: &str) -> Refusal {
        Refusal {
            at_unix,
            code: 403,
            reason: reason.to_owned(),
            method: "CreatePermission".to_owned(),
            client: format!("192.0.2.1:{at_unix}"),
            transport: "udp".to_owned(),
            realm: None,
            username: username.to_owned(),
            username_complete: true,
            peer: peer.map(str::to_owned),
            explanation: explanation.to_owned(),
            times: 1,
            normal: reason == "stale-nonce",
        }
    }

    #[test]
    fn refusals_that_are_alike_are_one_line_at_the_newest_time() {
        let refusals = [
            refusal(990, "peer-denied-by-default", "1700000000:alice", Some("10.0.0.1:0"), "private"),
            refusal(980, "stale-nonce", "alice", None, "too old"),
            refusal(970, "peer-denied-by-default", "1800000000:alice", Some("10.0.0.2:0"), "private"),
            refusal(960, "credential-expired", "1700000000:alice", None, "the credential had expired 2 s before"),
            refusal(950, "credential-expired", "1700000000:alice", None, "the credential had expired 1 s before"),
            refusal(940, "peer-denied-by-default", "1700000000:bob", Some("[fe80::1]:0"), "private"),
        ];
        let text = table(&groups(&refusals), 1000).to_string();
        let lines: Vec<Vec<_>> = text
            .lines()
            .skip(1)
            .map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect())
            .collect();
        let request = ["403", "CreatePermission", "192.0.2.1 udp"];
        let line = |last, times, user, peer, why| [&[last, times][..], &request, &[user, peer, why]].concat();
        assert_eq!(
            lines,
            [
                line("10 s ago", "2", "alice", "10.0.0.1 and 1 more", "private"),
                line("20 s ago", "1", "alice", "-", "too old (normal)"),
                line("40 s ago", "2", "alice", "-", "the credential had expired 2 s before"),
                line("60 s ago", "1", "bob", "fe80::1", "private"),
            ]
        );
    }
}
