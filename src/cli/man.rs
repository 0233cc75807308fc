//! `turnstone man`: the man page, from the same definitions as `--help`.

use clap::Args;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use crate::config::{ADMIN_ENV, ADMIN_TOKEN_ENV, CONFIG_ENV, DEFAULT_FILE, overridable};

use super::man_file;
use super::output::{CliError, Exit, Printer};

/// Print the man page in roff; of a command, when one is named, or of turnserver.toml.
#[derive(Args)]
#[command(after_help = "Examples:
  turnstone man | man -l -
  turnstone man credentials verify | man -l -
  turnstone man turnserver.toml | man -l -")]
pub(super) struct ManArgs {
    /// The command, such as: credentials verify; or turnserver.toml.
    command: Vec<String>,
}

pub(super) fn run(args: &ManArgs, root: clap::Command, printer: &mut Printer) -> Result<Exit, CliError> {
    if args.command == [man_file::PAGE] {
        printer.print(&man_file::page().to_roff())?;
        return Ok(Exit::Success);
    }
    let mut root = root;
    root.build();
    let mut command = root;
    for name in &args.command {
        let found = command.get_subcommands().find(|subcommand| subcommand.get_name() == name).cloned();
        command = found.ok_or_else(|| CliError::usage(format!("no command {name:?}")))?;
    }
    let mut page = Vec::new();
    render(command, args.command.is_empty(), &mut page)?;
    printer.print(&String::from_utf8_lossy(&page))?;
    Ok(Exit::Success)
}

fn render(command: clap::Command, is_root: bool, page: &mut Vec<u8>) -> Result<(), CliError> {
    let commands: Vec<_> = command.get_subcommands().filter(|sub| sub.get_name() != "help").cloned().collect();
    let man = Man::new(command.disable_help_subcommand(true)).section("1").manual("Turnstone");
    man.render_title(page)?;
    man.render_name_section(page)?;
    man.render_synopsis_section(page)?;
    man.render_description_section(page)?;
    man.render_options_section(page)?;
    if !commands.is_empty() {
        render_commands(&commands, page)?;
    }
    if is_root {
        environment().to_writer(page)?;
        closing().to_writer(page)?;
    } else {
        man.render_extra_section(page)?;
    }
    Ok(())
}

fn render_commands(commands: &[clap::Command], page: &mut Vec<u8>) -> Result<(), CliError> {
    let mut roff = Roff::new();
    roff.control("SH", ["COMMANDS"]);
    for command in commands {
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        let name = command.get_bin_name().unwrap_or(command.get_name());
        roff.control("TP", []).text([bold(name)]).text([roman(about)]);
    }
    roff.control("PP", []).text([roman("Each has a page of its own (turnstone man COMMAND) and --help.")]);
    roff.to_writer(page)?;
    Ok(())
}

fn environment() -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["ENVIRONMENT"]);
    roff.text([roman(
        "A variable wins over the configuration file, a flag over a variable. An empty one counts as unset.",
    )]);
    roff.control("TP", []).text([bold(CONFIG_ENV)]).text([roman("the configuration file, as --config")]);
    for overridable in overridable() {
        let as_flag = match (overridable.flag, overridable.list) {
            (Some(flag), true) => format!("{}; separated by commas, as --{flag}", overridable.help),
            (Some(flag), false) => format!("{}; as --{flag}", overridable.help),
            (None, _) => format!("{}; there is no flag, because everybody can read a command line", overridable.help),
        };
        roff.control("TP", []).text([bold(overridable.env)]).text([roman(as_flag)]);
    }
    let others = "any other key of the configuration file that is in no array of tables: TURNSTONE_QUOTA_ALLOCATIONS_PER_USER is \
                  allocations-per-user in [quota]; values of a list are separated by commas";
    roff.control("TP", []).text([bold("TURNSTONE_TABLE_KEY")]).text([roman(others)]);
    let admin = "where the admin API listens, for the commands that use it; as --admin";
    roff.control("TP", []).text([bold(ADMIN_ENV)]).text([roman(admin)]);
    roff.control("TP", []).text([bold(ADMIN_TOKEN_ENV)]).text([roman("the token that these commands show there")]);
    let credentials = "where systemd puts the credentials that [[auth.secrets]] and [[auth.users]] name";
    roff.control("TP", []).text([bold("CREDENTIALS_DIRECTORY")]).text([roman(credentials)]);
    roff
}

fn closing() -> Roff {
    let mut roff = Roff::new();
    let sections: [(&str, &[(&str, &str)]); 3] = [
        (
            "FILES",
            &[
                (DEFAULT_FILE, "the configuration; turnserver.toml(5) has every key"),
                ("/run/turnstone/admin.sock", "where the admin API listens, as that file has it"),
                ("/etc/turnstone/secret", "the shared secret, as that file has it; readable by its owner only"),
            ],
        ),
        (
            "SIGNALS",
            &[
                ("TERM", "stop the server, after a drain if [drain] has a deadline; a second one at once"),
                ("INT", "stop the server at once"),
                ("USR1", "drain the server: no new allocation, and the end with the last one"),
                ("HUP", "read configuration and certificates again"),
                ("USR2", "read the certificate again"),
            ],
        ),
        (
            "EXIT STATUS",
            &[
                ("0", "success"),
                (
                    "1",
                    "a check found something: a credential that is not valid, or warnings with --strict; or there is no such session",
                ),
                ("2", "wrong usage or configuration"),
                ("3", "a failure while running"),
            ],
        ),
    ];
    for (title, entries) in sections {
        roff.control("SH", [title]);
        for (term, meaning) in entries {
            roff.control("TP", []).text([bold(*term)]).text([roman(*meaning)]);
        }
    }
    roff.control("SH", ["SEE ALSO"]).text([bold("turnserver.toml"), roman("(5)")]);
    roff.control("SH", ["STANDARDS"]);
    roff.text([roman("STUN is RFC 8489, TURN is RFC 8656, the URLs are those of RFC 7064 and RFC 7065.")]);
    roff
}
