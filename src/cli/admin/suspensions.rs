//! `turnstone suspensions`: who is suspended by the abuse guard, and the end of that.

use clap::Args;
use hyper::Method;

use super::super::output::{CliError, Exit, Printer, printable, utc_text};
use super::answers::{Lifted, SuspensionList, print_json, read};
use super::client::Call;
use super::text::{Table, count, with_realm};
use super::whereabouts::AdminFlags;
use crate::clock::span;

/// Show the users who are suspended for peers that are denied, or lift a suspension.
#[derive(Args)]
#[command(after_help = "Examples:
  turnstone suspensions
  turnstone suspensions --lift alice
  turnstone suspensions --lift alice --realm b.example

`turnstone explain USER` shows which peers a user has asked for.

Exit code 1 when the user to lift was not suspended.")]
pub(in crate::cli) struct SuspensionsArgs {
    /// End the suspension of this user, as quotas count users.
    #[arg(long, value_name = "USER")]
    lift: Option<String>,

    /// Only of the user of this realm.
    #[arg(long, value_name = "NAME", requires = "lift")]
    realm: Option<String>,

    /// Print the API's answer.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    server: AdminFlags,
}

/// `turnstone suspensions`
pub(in crate::cli) fn suspensions(args: &SuspensionsArgs, printer: &mut Printer) -> Result<Exit, CliError> {
    let client = args.server.client()?;
    let Some(user) = &args.lift else {
        let answer = client.ask(Call::new(Method::GET, "/v1/suspensions"))?;
        if args.json {
            print_json(&answer, printer)?;
            return Ok(Exit::Success);
        }
        show(&read(answer)?, printer)?;
        return Ok(Exit::Success);
    };
    let call = Call::new(Method::DELETE, "/v1/suspensions");
    let answer = client.ask(call.query("user", Some(user.as_str())).query("realm", args.realm.as_deref()))?;
    if args.json {
        print_json(&answer, printer)?;
    }
    let Lifted { lifted } = read(answer)?;
    if !args.json {
        let shown = printable(user);
        printer.line(match lifted {
            0 => format!("{shown} is not suspended"),
            _ => format!("{shown} is suspended no longer"),
        })?;
    }
    Ok(if lifted > 0 { Exit::Success } else { Exit::CheckFailed })
}

fn show(list: &SuspensionList, printer: &mut Printer) -> Result<(), CliError> {
    if list.suspensions.is_empty() {
        return printer.line("nobody is suspended");
    }
    let mut table = Table::new(&["USER", "CREDENTIAL", "UNTIL", ">LEFT"]);
    for suspension in &list.suspensions {
        table.row([
            with_realm(&suspension.user, suspension.realm.as_deref()),
            suspension.credential.clone(),
            utc_text(suspension.until_unix),
            span(suspension.left_secs),
        ]);
    }
    printer.print(&table.to_string())?;
    printer.line(count(list.total, "suspension"))
}
