//! `turnstone revoke`: credentials that are good no longer.

use std::io::IsTerminal;

use clap::{ArgGroup, Args};
use hyper::Method;
use serde_json::{Map, Value, json};

use super::super::output::{CliError, Exit, Printer, printable, utc_text};
use super::answers::{Revocation, RevocationList, Revoked, Undone, print_json, read};
use super::client::{Call, Client};
use super::text::{Table, count};
use super::whereabouts::AdminFlags;
use crate::clock::span;
use crate::config::parse_duration;
use crate::wall_clock::unix_now;

/// Revoke credentials, whose sessions end at once, or list what is revoked.
#[derive(Args)]
#[command(group = ArgGroup::new("whose").required(true), after_help = "Examples:
  turnstone revoke 1764259200:alice
  turnstone revoke --user alice
  turnstone revoke --user alice --issued-before now --lifetime 1d
  turnstone revoke --key old-secret --yes
  turnstone revoke --list
  turnstone revoke --user alice --undo

A user is revoked for 30 days, or as long as --for says. Who is good by no time, a static user or
one whom the application of [hook] knows, is good again then: to end that, take the user out of
the configuration, the store or the application. With --issued-before, what is issued later is
good: a time-limited username says only when it expires, and counts as issued --lifetime before
that. It must be as long as your service issues credentials at most; credential-lifetime-max in
[auth] says it for all. Static users have no time of issue, and are revoked only without
--issued-before.

Of servers that share a store, the others do the same as soon as they hear of it.

Exit code 1 when there was nothing to undo, or when it is not on the other servers yet.")]
pub(in crate::cli) struct RevokeArgs {
    /// One credential: the whole username, such as 1764259200:alice
    #[arg(group = "whose", value_name = "USERNAME")]
    username: Option<String>,

    /// All credentials of this user: the user part of time-limited usernames, a static user, or the user of a token.
    #[arg(long, group = "whose", value_name = "NAME")]
    user: Option<String>,

    /// All credentials made with this shared secret or key of access tokens, by its id.
    #[arg(long, group = "whose", value_name = "ID")]
    key: Option<String>,

    /// All credentials; needs --issued-before.
    #[arg(long, group = "whose", requires = "issued_before")]
    everybody: bool,

    /// Show what is revoked.
    #[arg(long, group = "whose")]
    list: bool,

    /// In this realm, if it is not that of [auth].
    #[arg(long, value_name = "NAME", conflicts_with = "list")]
    realm: Option<String>,

    /// Only what was issued before this: now, Unix seconds, or such as 2026-11-30T12:00:00Z
    #[arg(long, value_name = "TIME", conflicts_with_all = ["list", "username"])]
    issued_before: Option<String>,

    /// For how long credentials are issued at most, such as 1d [default: credential-lifetime-max in [auth]]
    #[arg(long, value_name = "DURATION", requires = "issued_before", value_parser = secs)]
    lifetime: Option<u64>,

    /// For how long it is revoked, such as 7d [default: 30d, or until no such credential is good any more]
    #[arg(long = "for", value_name = "DURATION", conflicts_with_all = ["list", "issued_before"], value_parser = secs)]
    for_secs: Option<u64>,

    /// Undo it.
    #[arg(long, conflicts_with_all = ["list", "issued_before", "for_secs"])]
    undo: bool,

    /// Don't ask before a key or everybody is revoked; required there without a terminal.
    #[arg(long, short)]
    yes: bool,

    /// Print the API's answer.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    server: AdminFlags,
}

/// `turnstone revoke`
pub(in crate::cli) fn revoke(args: &RevokeArgs, printer: &mut Printer) -> Result<Exit, CliError> {
    let client = args.server.client()?;
    if args.list {
        return list(args, &client, printer);
    }
    if args.undo {
        return undo(args, &client, printer);
    }
    let is_large = args.key.is_some() || args.everybody;
    if is_large && !args.yes {
        if !std::io::stdin().is_terminal() {
            return Err(CliError::usage("there is no terminal to ask on; expected --yes"));
        }
        let question = format_args!("revoke {} and end the sessions?", whose(args));
        if !printer.is_confirmed(question)? {
            printer.error("nothing was revoked");
            return Ok(Exit::CheckFailed);
        }
    }
    let answer = client.ask(Call::new(Method::POST, "/v1/revocations").body(body(args)))?;
    if args.json {
        print_json(&answer, printer)?;
    }
    let Revoked { revocation, ended, kept, shared } = read(answer)?;
    if args.json {
        return Ok(exit_of(shared));
    }
    let until = until_text(&revocation);
    let others = match shared {
        None => "",
        Some(true) => " here; the other servers hear of it by the store now",
        Some(false) => " here",
    };
    printer.line(format_args!("revoked {until}; ended {}{others}", count(ended, "session")))?;
    if revocation.user.is_some() && revocation.issued_before_unix.is_none() && revocation.until_unix.is_some() {
        printer.line(
            "A static user of this name is good again then: take the user out of the configuration or the store, whichever has it, to end that",
        )?;
    }
    note_if_not_kept(kept, printer);
    note_if_not_shared(shared, "revoked", printer);
    Ok(exit_of(shared))
}

/// What was asked for is not done while other servers do not know of it.
fn exit_of(shared: Option<bool>) -> Exit {
    if shared == Some(false) { Exit::CheckFailed } else { Exit::Success }
}

fn note_if_not_shared(shared: Option<bool>, what: &str, printer: &mut Printer) {
    if shared == Some(false) {
        printer.error(format!(
            "note: {what} here, and not on the other servers yet: the store is lost, or does not take it (turnstone store status says why); \
             they hear of it as soon as it does"
        ));
    }
}

fn body(args: &RevokeArgs) -> Value {
    let mut body = Map::new();
    let texts = [("username", &args.username), ("user", &args.user), ("key", &args.key), ("realm", &args.realm)];
    for (field, text) in texts {
        body.extend(text.as_ref().map(|text| (field.to_owned(), json!(text))));
    }
    if args.everybody {
        body.insert("everybody".to_owned(), json!(true));
    }
    let moment = args.issued_before.as_deref().map(|text| match (text, text.parse::<u64>()) {
        ("now", _) => json!(unix_now()),
        (_, Ok(unix_secs)) => json!(unix_secs),
        _ => json!(text),
    });
    let until = args.for_secs.map(|secs| json!(unix_now().saturating_add(secs)));
    let others =
        [("issued_before", moment), ("lifetime_secs", args.lifetime.map(|secs| json!(secs))), ("until", until)];
    body.extend(others.into_iter().filter_map(|(field, value)| Some((field.to_owned(), value?))));
    Value::Object(body)
}

fn undo(args: &RevokeArgs, client: &Client, printer: &mut Printer) -> Result<Exit, CliError> {
    let call = Call::new(Method::DELETE, "/v1/revocations")
        .query("username", args.username.as_deref())
        .query("user", args.user.as_deref())
        .query("key", args.key.as_deref())
        .query("everybody", args.everybody.then_some("true"))
        .query("realm", args.realm.as_deref());
    let answer = client.ask(call)?;
    if args.json {
        print_json(&answer, printer)?;
    }
    let Undone { removed, listed, kept, shared } = read(answer)?;
    if !args.json {
        match removed {
            0 => printer.line(format_args!("{} is not revoked by a command", whose(args)))?,
            _ => printer.line(format_args!("{} is revoked no longer", whose(args)))?,
        }
        if listed > 0 {
            printer.error("note: the file of [auth] revocations lists it, too: take its line out");
        }
        note_if_not_kept(kept, printer);
        note_if_not_shared(shared, "undone", printer);
    }
    Ok(if removed > 0 { exit_of(shared) } else { Exit::CheckFailed })
}

fn list(args: &RevokeArgs, client: &Client, printer: &mut Printer) -> Result<Exit, CliError> {
    let answer = client.ask(Call::get("/v1/revocations").query("limit", Some("1000")))?;
    if args.json {
        print_json(&answer, printer)?;
        return Ok(Exit::Success);
    }
    let RevocationList { revocations, total } = read(answer)?;
    if revocations.is_empty() {
        printer.line("nothing is revoked")?;
        return Ok(Exit::Success);
    }
    let mut table = Table::new(&["WHAT", "NAME", "REALM", "ISSUED BEFORE", "UNTIL", "BY"]);
    for revocation in &revocations {
        let (what, name) = what(revocation);
        table.row([
            what.to_owned(),
            name.unwrap_or_else(|| "-".to_owned()),
            revocation.realm.clone().unwrap_or_else(|| "-".to_owned()),
            revocation.issued_before_unix.map_or_else(|| "-".to_owned(), utc_text),
            revocation.until_unix.map_or_else(|| "-".to_owned(), utc_text),
            revocation.source.clone().unwrap_or_default(),
        ]);
    }
    printer.print(&table.to_string())?;
    if total > revocations.len() as u64 {
        printer.line(format_args!("the first {} of {total}", revocations.len()))?;
    }
    Ok(Exit::Success)
}

fn what(revocation: &Revocation) -> (&'static str, Option<String>) {
    let Revocation { username, user, key, .. } = revocation;
    match (username, user, key) {
        (Some(name), _, _) => ("username", Some(name.clone())),
        (_, Some(name), _) => ("user", Some(name.clone())),
        (_, _, Some(id)) => ("key", Some(id.clone())),
        _ => ("everybody", None),
    }
}

fn whose(args: &RevokeArgs) -> String {
    match (&args.username, &args.user, &args.key) {
        (Some(name), _, _) => printable(name),
        (_, Some(name), _) => format!("user {}", printable(name)),
        (_, _, Some(id)) => format!("key {}", printable(id)),
        _ => "everybody".to_owned(),
    }
}

fn until_text(revocation: &Revocation) -> String {
    match revocation.until_unix {
        Some(until_unix) => format!("until {}", utc_text(until_unix)),
        None => "for good".to_owned(),
    }
}

/// A line about something that is revoked: what, since when as far as that is known, until when, and by what.
pub(super) fn revocation_text(revocation: &Revocation) -> String {
    let (what, name) = what(revocation);
    let whose = name.map_or_else(|| what.to_owned(), |name| format!("{what} {}", printable(&name)));
    let realm =
        revocation.realm.as_deref().map_or_else(String::new, |realm| format!(" in the realm {}", printable(realm)));
    let issued = revocation.issued_before_unix.map_or_else(String::new, |unix| {
        let lifetime = revocation.lifetime_secs.map_or_else(String::new, |secs| format!(" for up to {}", span(secs)));
        format!(", what was issued{lifetime} before {}", utc_text(unix))
    });
    let by = match revocation.source.as_deref() {
        Some("file") => "by the file of [auth] revocations".to_owned(),
        Some("store") => "in the store that servers share (turnstone revoke --undo ends that)".to_owned(),
        _ => "by a command or the API (turnstone revoke --undo ends that)".to_owned(),
    };
    format!("{whose}{realm} is revoked {}{issued}, {by}", until_text(revocation))
}

fn note_if_not_kept(kept: bool, printer: &mut Printer) {
    if !kept {
        printer.error("note: it is forgotten at a restart, because the server has no state-directory");
    }
}

fn secs(text: &str) -> Result<u64, String> {
    match parse_duration(text) {
        Ok(time) if time.as_secs() > 0 && time.subsec_millis() == 0 => Ok(time.as_secs()),
        Ok(_) => Err("not a number of whole seconds from 1".to_owned()),
        Err(problem) => Err(format!("{problem}; expected such as 12h or 30d")),
    }
}
