//! `turnstone serve`.

use std::sync::Arc;

use clap::Args;

use crate::config::Loaded;
use crate::net::Inherited;
use crate::ops;

use super::dev;
use super::input::ConfigFlags;
use super::output::{CliError, Exit, Printer};

/// Run the server.
#[derive(Args, Clone)]
#[command(
    after_help = "Signals: TERM stops the server, after a drain if [drain] has a deadline; USR1 drains it; a second one of them, or INT, stops it at once. HUP makes it read configuration and certificates again, USR2 certificates alone; certificates whose files change are read without either. Without any file, --dev runs it for a try-out."
)]
pub(super) struct ServeArgs {
    /// Try-out: make up a secret (or take that of TURNSTONE_SECRET), listen on loopback and on the LAN (UDP and TCP, no TLS:
    /// browsers refuse certificates that they do not know), allow loopback peers, and print a line for a page that is good
    /// for a day. With --config, that file's settings apply; without it, status, top and the other commands find the server
    /// by themselves. Not for the Internet.
    #[arg(long)]
    dev: bool,

    #[command(flatten)]
    flags: ConfigFlags,
}

pub(super) fn run(args: &ServeArgs, printer: &mut Printer) -> Result<Exit, CliError> {
    // First, while there is no other thread: variables are removed.
    let inherited = Inherited::take().map_err(CliError::usage)?;
    let mut reading = args.flags.read(args.dev)?;
    let mut port_taken = None;
    if args.dev && !reading.has_file {
        port_taken = dev::set_defaults(&mut reading.overrides)?;
    }
    let loaded = reading.load(args.dev).inspect_err(|_| {
        if !args.dev && !reading.has_file {
            printer.error("hint: there is no configuration file; to try the server without one: turnstone serve --dev");
        }
    })?;
    let config = loaded.config;
    if let Some(tls) = &config.tls {
        let mut given = tls.each().into_iter().filter(|pair| !pair.is_acme);
        given.try_for_each(|pair| pair.read_key().map(drop)).map_err(|problem| {
            let place = reading.source.place_of("tls.key", &reading.overrides);
            CliError::usage(format_args!("{place}: key in [tls]: {problem}"))
        })?;
    }
    let log = ops::log::init(&config.log).map_err(CliError::usage)?;
    for warning in &loaded.warnings {
        tracing::warn!(place = %warning.place, "{}", warning.message);
    }
    // A file says for itself whether there is a page.
    let page_port = if args.dev && !reading.has_file && config.admin.is_some() { dev::page_port() } else { None };
    let page_token = page_port.as_ref().map(|port| port.token.clone());
    let announcement =
        args.dev.then(|| dev::Announcement::new(&config, reading.has_file, port_taken.take(), page_token));
    let config_file = reading.has_file.then(|| reading.source.name.clone());
    let hooks = ops::Hooks {
        inherited,
        on_ready: Box::new(|bound| {
            if let Some(announcement) = announcement {
                // A closed standard output does not stop a server.
                let _ = announcement.print(bound, printer);
            }
        }),
        page_port,
        reload: {
            let args = args.clone();
            Arc::new(move || reload(&args))
        },
        config_file,
        log,
    };
    match ops::run(config, hooks) {
        Ok(()) => Ok(Exit::Success),
        Err(error) => {
            let place = error.key().map(|key| format!("{}: {key}: ", reading.source.place_of(key, &reading.overrides)));
            let exit = if error.lasts() { Exit::Usage } else { Exit::RunTime };
            Err(CliError::Failed(exit, format!("error: {}{error}", place.unwrap_or_default())))
        }
    }
}

/// Reads file, variables and flags again, for a reload.
fn reload(args: &ServeArgs) -> Result<Loaded, ops::Unread> {
    let reading = args.flags.read_again(args.dev)?;
    if !reading.has_file {
        return Err("there is no configuration file to read again".into());
    }
    Ok(reading.load(args.dev)?)
}
