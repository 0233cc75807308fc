//! `turnstone sessions`, `show` and `kick`: live allocations, one with its peers, and the end of some.

use std::io::IsTerminal;
use std::net::{IpAddr, SocketAddr};

use clap::{ArgGroup, Args, ValueEnum};
use hyper::Method;
use serde_json::{Value, json};

use crate::clock::span;

use super::super::output::{CliError, Exit, Printer, printable, utc_text};
use super::answers::{Ended, Expiring, Session, SessionDetail, SessionPage, print_json, read};
use super::client::{Call, Client};
use super::text::{Fields, Table, bytes, count, traffic, with_realm};
use super::whereabouts::AdminFlags;

const LIMIT_DEFAULT: usize = 100;
/// As many as one answer of the API holds.
const PAGE_MAX: usize = 1000;
/// Sessions that are named before they are ended.
const NAMED_MAX: usize = 10;

/// List the live sessions (allocations) of the running server.
#[derive(Args)]
#[command(after_help = "Examples:
  turnstone sessions --user alice
  turnstone sessions --peer 198.51.100.20 --all --json

All filters that are given must match. Exit code 0 also when there is none.")]
pub(in crate::cli) struct SessionsArgs {
    /// Sessions of this user: the whole username, or the user part of a time-limited credential.
    #[arg(long, value_name = "NAME")]
    user: Option<String>,

    /// Sessions in this realm.
    #[arg(long, value_name = "NAME")]
    realm: Option<String>,

    /// Sessions of the client at this IP address.
    #[arg(long, value_name = "IP")]
    client: Option<IpAddr>,

    /// Sessions with a permission for, or a channel to, this IP address.
    #[arg(long, value_name = "IP")]
    peer: Option<IpAddr>,

    /// The session with this relayed transport address.
    #[arg(long, value_name = "ADDRESS:PORT")]
    relayed: Option<SocketAddr>,

    /// Sessions of clients over this transport.
    #[arg(long)]
    transport: Option<TransportArg>,

    /// How many at most.
    #[arg(long, value_name = "NUMBER", default_value_t = LIMIT_DEFAULT, value_parser = at_least_one)]
    limit: usize,

    /// List all of them.
    #[arg(long, conflicts_with = "limit")]
    all: bool,

    /// Print the API's answer.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    server: AdminFlags,
}

/// Show one live session with its permissions and channels.
#[derive(Args)]
#[command(after_help = "Exit code 1 when there is no such session (any more).")]
pub(in crate::cli) struct ShowArgs {
    /// The session's id, as turnstone sessions prints it.
    #[arg(value_parser = session_id)]
    id: String,

    /// Print the API's answer.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    server: AdminFlags,
}

/// End a session, or all sessions of a user.
#[derive(Args)]
#[command(group = ArgGroup::new("whom").required(true), after_help = "Examples:
  turnstone kick 5f3a9c1e-0-17
  turnstone kick --user mallory --yes

Their credential stays good: change the secret or remove the user to keep them out.

It shows what will end, and asks, unless --yes is given. Exit code 1 when nothing was ended.")]
pub(in crate::cli) struct KickArgs {
    /// The session's id, as turnstone sessions prints it.
    #[arg(group = "whom", value_parser = session_id)]
    id: Option<String>,

    /// All sessions of this user: the whole username, or the user part of a time-limited credential.
    #[arg(long, group = "whom", value_name = "NAME")]
    user: Option<String>,

    /// Only this user's in this realm.
    #[arg(long, value_name = "NAME", requires = "user")]
    realm: Option<String>,

    /// Don't ask; required where there is no terminal.
    #[arg(long, short)]
    yes: bool,

    /// Print the API's answer.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    server: AdminFlags,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum TransportArg {
    Udp,
    Tcp,
    Tls,
    Dtls,
}

/// `turnstone sessions`
pub(in crate::cli) fn sessions(args: &SessionsArgs, printer: &mut Printer) -> Result<Exit, CliError> {
    let text = |value: Option<&dyn ToString>| value.map(ToString::to_string);
    let client = text(args.client.as_ref().map(|ip| ip as _));
    let peer = text(args.peer.as_ref().map(|ip| ip as _));
    let relayed = text(args.relayed.as_ref().map(|address| address as _));
    let transport = args.transport.map(|transport| match transport {
        TransportArg::Udp => "udp",
        TransportArg::Tcp => "tcp",
        TransportArg::Tls => "tls",
        TransportArg::Dtls => "dtls",
    });
    let filter = [
        ("user", args.user.as_deref()),
        ("realm", args.realm.as_deref()),
        ("client", client.as_deref()),
        ("peer", peer.as_deref()),
        ("relayed", relayed.as_deref()),
        ("transport", transport),
    ];
    let limit = if args.all { usize::MAX } else { args.limit };
    let list = list(&args.server.client()?, &filter, limit)?;
    if args.json {
        print_json(&list, printer)?;
        return Ok(Exit::Success);
    }
    let page: SessionPage = read(list)?;
    if page.sessions.is_empty() {
        let which = if filter.iter().any(|(_, value)| value.is_some()) { "such session" } else { "session" };
        printer.line(format_args!("no {which}"))?;
        return Ok(Exit::Success);
    }
    printer.print(&table(&page.sessions).to_string())?;
    if page.next_cursor.is_some() {
        printer.line(format_args!("the first {}; --all lists all of them", page.sessions.len()))?;
    }
    Ok(Exit::Success)
}

/// `turnstone show`
pub(in crate::cli) fn show(args: &ShowArgs, printer: &mut Printer) -> Result<Exit, CliError> {
    let answer = args.server.client()?.ask(Call::get(path_of(&args.id)))?;
    if args.json {
        print_json(&answer, printer)?;
        return Ok(Exit::Success);
    }
    let session: SessionDetail = read(answer)?;
    printer.print(&detail(&session).to_string())?;
    Ok(Exit::Success)
}

/// `turnstone kick`
pub(in crate::cli) fn kick(args: &KickArgs, printer: &mut Printer) -> Result<Exit, CliError> {
    let client = args.server.client()?;
    if !args.yes {
        if !std::io::stdin().is_terminal() {
            return Err(CliError::usage("there is no terminal to ask on; expected --yes"));
        }
        if !is_confirmed(args, &client, printer)? {
            printer.error("nothing was ended");
            return Ok(Exit::CheckFailed);
        }
    }
    let call = match &args.id {
        Some(id) => Call::new(Method::DELETE, path_of(id)),
        None => Call::new(Method::DELETE, "/v1/sessions")
            .query("user", args.user.as_deref())
            .query("realm", args.realm.as_deref()),
    };
    let answer = client.ask(call)?;
    if args.json {
        print_json(&answer, printer)?;
    }
    let Ended { ended } = read(answer)?;
    if !args.json {
        printer.line(format_args!("ended {}", count(ended, "session")))?;
    }
    Ok(if ended == 0 { Exit::CheckFailed } else { Exit::Success })
}

/// Shows what would be ended, and asks.
fn is_confirmed(args: &KickArgs, client: &Client, printer: &mut Printer) -> Result<bool, CliError> {
    let question = match (&args.id, &args.user) {
        (Some(id), _) => {
            let session: SessionDetail = read(client.ask(Call::get(path_of(id)))?)?;
            printer.error(detail(&session));
            "end this session?".to_owned()
        }
        (None, user) => {
            let page: SessionPage =
                read(list(client, &[("user", user.as_deref()), ("realm", args.realm.as_deref())], PAGE_MAX)?)?;
            let (named, rest) = page.sessions.split_at(page.sessions.len().min(NAMED_MAX));
            if named.is_empty() {
                printer.error("no such session");
                return Ok(false);
            }
            printer.error(table(named));
            let or_more = if page.next_cursor.is_some() { " or more" } else { "" };
            if !rest.is_empty() {
                printer.error(format_args!("and {}{or_more}\n", count(rest.len() as u64, "other")));
            }
            let user = printable(user.as_deref().unwrap_or_default());
            format!("end {}{or_more} of {user}?", count(page.sessions.len() as u64, "session"))
        }
    };
    printer.is_confirmed(question)
}

/// As many sessions as are wanted, page by page, as one answer of the API.
fn list(client: &Client, filter: &[(&str, Option<&str>)], limit: usize) -> Result<Value, CliError> {
    let mut found: Vec<Value> = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let page_limit = limit.saturating_sub(found.len()).min(PAGE_MAX).to_string();
        let call = Call::get("/v1/sessions").query("limit", Some(&page_limit)).query("cursor", cursor.as_deref());
        let call = filter.iter().fold(call, |call, (key, value)| call.query(key, *value));
        let mut page = client.ask(call)?;
        let next = page.get("next_cursor").and_then(Value::as_str).map(str::to_owned);
        if let Some(Value::Array(sessions)) = page.get_mut("sessions").map(Value::take) {
            found.extend(sessions);
        }
        if next.is_none() || found.len() >= limit {
            return Ok(json!({ "sessions": found, "next_cursor": next }));
        }
        cursor = next;
    }
}

fn table(sessions: &[Session]) -> Table {
    let mut table = Table::new(&["ID", "TRANSPORT", "CLIENT", "RELAYED", "USER", ">AGE", ">TO PEERS", ">TO CLIENT"]);
    for session in sessions {
        let relayed: Vec<_> = session.relayed.iter().map(|relayed| relayed.address.as_str()).collect();
        table.row([
            session.id.clone(),
            session.transport.clone(),
            session.client.clone(),
            relayed.join(" "),
            with_realm(&session.user, session.realm.as_deref()),
            span(session.age_secs),
            bytes(session.to_peers.bytes),
            bytes(session.to_client.bytes),
        ]);
    }
    table
}

fn detail(session: &SessionDetail) -> Fields {
    let until = |expiring: &Expiring| format!("{}, for another {}", expiring.address, span(expiring.expires_in_secs));
    let mut fields = Fields::default();
    fields.add("session", &session.id);
    fields.add("user", with_realm(&session.user, session.realm.as_deref()));
    if session.username != session.user {
        fields.add("username", &session.username);
    }
    if let Some(expires_unix) = session.credential_expires_unix {
        fields.add("credential", format!("until {}", utc_text(expires_unix)));
    }
    fields.add("client", format!("{} over {}", session.client, session.transport));
    fields.add("server", &session.server);
    fields.list("relayed", session.relayed.iter().map(until));
    fields.add("started", format!("{}, {} ago", utc_text(session.started_unix), span(session.age_secs)));
    fields.add("to peers", traffic(session.to_peers));
    fields.add("to client", traffic(session.to_client));
    if session.throttled_packets > 0 {
        fields.add("throttled", format!("{} dropped by bandwidth caps", count(session.throttled_packets, "packet")));
    }
    fields.list("permissions", session.permissions.iter().map(until));
    let channel = |number: u16, peer: &str, secs| format!("{number:#06x} to {peer}, for another {}", span(secs));
    fields.list("channels", session.channels.iter().map(|one| channel(one.number, &one.peer, one.expires_in_secs)));
    if let Some(connections) = &session.connections {
        fields.list("connections", connections.iter().map(|one| format!("with {}, {}", one.peer, one.state)));
    }
    fields
}

fn path_of(id: &str) -> String {
    format!("/v1/sessions/{id}")
}

fn session_id(text: &str) -> Result<String, String> {
    let is_id = text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f' | b'-'));
    match is_id && text.split('-').count() == 3 {
        true => Ok(text.to_owned()),
        false => Err("not an id such as 5f3a9c1e-0-17".to_owned()),
    }
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("not a number from 1".to_owned()),
        Ok(number) => Ok(number),
    }
}
