//! `turnstone import`: another server's configuration as a `turnserver.toml`, and a table of what needs an operator's eye.

use std::fs::OpenOptions;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::config::Source;
use crate::import::{Finding, FindingKind, Grade, Import, Spot, import, import_coturn};

use super::output::{CliError, Exit, Printer, wrapped};

const INPUT_BYTES_MAX: u64 = 1 << 20;

/// Convert the configuration of coturn or eturnal.
///
/// The file is coturn's turnserver.conf or eturnal's eturnal.yml. The configuration goes to standard output. What could not
/// be taken over, what is different here, and what to do about it goes to standard error: first what concerns clients, then
/// security, operation, and what changes nothing.
#[derive(Args)]
#[command(after_help = "\
Examples:
  turnstone import /etc/turnserver.conf --output turnserver.toml
  turnstone import --args -- -n --realm=example.org --use-auth-secret --min-port=49160

Exit code 0 when there is a result, 1 with --strict when something was not converted, 2 when the input cannot be read.")]
pub(super) struct ImportArgs {
    /// The turnserver.conf or eturnal.yml; `-` is standard input.
    #[arg(value_name = "FILE", required_unless_present = "args")]
    input: Option<PathBuf>,

    /// Write the result to this file, which must not exist yet, with mode 0600.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,

    /// End with 1 when something was not converted.
    #[arg(long)]
    strict: bool,

    /// Convert coturn's command line, which follows after `--`: alone, or beside its file.
    #[arg(long, requires = "arguments")]
    args: bool,

    /// The words of that command line.
    #[arg(last = true, value_name = "ARGUMENT", requires = "args")]
    arguments: Vec<String>,
}

pub(super) fn run(args: &ImportArgs, printer: &mut Printer) -> Result<Exit, CliError> {
    let text = args.input.as_deref().map(read).transpose()?;
    let imported = match text {
        Some(text) if args.arguments.is_empty() => {
            let name = args.input.as_deref().unwrap_or(Path::new("-")).display();
            if is_toml(&text) {
                let message = "this is a turnserver.toml already, and needs no conversion; turnstone check looks for mistakes in it";
                return Err(CliError::usage(format_args!("{name}: {message}")));
            }
            import(&text).map_err(|problem| CliError::usage(format_args!("{name}: {problem}")))?
        }
        text => import_coturn(text.as_deref().unwrap_or(""), &args.arguments),
    };
    match &args.output {
        Some(path) => write_private(path, imported.toml.as_bytes())?,
        None => printer.print(&imported.toml)?,
    }
    print_table(&imported.findings, printer);
    printer.error(summary(&imported.findings));
    if imported.has_secrets && args.output.is_none() {
        printer.error("secrets are in the output: keep it in a file that only its owner can read (chmod 600)");
    }
    print_next(&imported, args.output.as_deref(), printer);
    Ok(if args.strict && imported.is_lossy() { Exit::CheckFailed } else { Exit::Success })
}

/// Whether a text has tables of TOML, which neither coturn's nor eturnal's files have.
fn is_toml(text: &str) -> bool {
    text.parse::<toml::Table>().is_ok_and(|table| table.values().any(|value| value.is_table() || value.is_array()))
}

fn read(path: &Path) -> Result<String, CliError> {
    if path != Path::new("-") {
        return Ok(Source::read(path)?.text);
    }
    let mut bytes = Vec::new();
    let read = std::io::stdin().lock().take(INPUT_BYTES_MAX + 1).read_to_end(&mut bytes);
    let read = read.map_err(|error| CliError::usage(format_args!("cannot read standard input: {error}")))?;
    if read as u64 > INPUT_BYTES_MAX {
        return Err(CliError::usage("standard input is larger than 1 MiB"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let byte = error.utf8_error().valid_up_to();
        CliError::usage(format_args!("standard input: byte {byte} is not UTF-8"))
    })
}

/// There is never a moment at which others could read it.
fn write_private(path: &Path, bytes: &[u8]) -> Result<(), CliError> {
    let shown = path.display();
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::AlreadyExists => CliError::usage(format_args!("{shown} exists; it is not overwritten")),
            _ => CliError::usage(format_args!("cannot create {shown}: {error}")),
        })?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    written.map_err(|error| CliError::Failed(Exit::RunTime, format!("error: cannot write {shown}: {error}")))
}

/// Findings that say the same, once.
struct Group<'f> {
    kind: FindingKind,
    message: &'f str,
    spots: Vec<Spot>,
    directives: Vec<&'f str>,
}

fn print_table(findings: &[Finding], printer: &mut Printer) {
    for grade in Grade::ALL {
        let mut groups: Vec<Group<'_>> = Vec::new();
        for Finding { spot, directive, kind, message, .. } in findings.iter().filter(|finding| finding.grade == grade) {
            let group = match groups.iter_mut().find(|group| group.kind == *kind && group.message == message) {
                Some(group) => group,
                None => {
                    groups.push(Group { kind: *kind, message, spots: Vec::new(), directives: Vec::new() });
                    let Some(group) = groups.last_mut() else { continue };
                    group
                }
            };
            // Findings are in the order of their places.
            group.spots.extend(spot.filter(|spot| group.spots.last() != Some(spot)));
            if !group.directives.contains(&directive.as_str()) {
                group.directives.push(directive);
            }
        }
        if !groups.is_empty() {
            printer.error(format_args!("{}: {}", grade.name(), meaning(grade)));
        }
        for group in groups {
            let places = places(&group.spots);
            let kind = match group.kind {
                FindingKind::Note => String::new(),
                kind => format!(": {}", kind.name()),
            };
            printer.error(wrapped(&format!("{places}{}{kind}", group.directives.join(", ")), 2, 6));
            printer.error(wrapped(group.message, 6, 6));
        }
    }
}

fn meaning(grade: Grade) -> &'static str {
    match grade {
        Grade::Clients => "what they can do, or how they do it, changes",
        Grade::Security => "who gets in, and what they reach",
        Grade::Operation => "how the server is watched and run",
        Grade::Harmless => "nothing changes",
    }
}

/// Such as `lines 3, 5 `.
fn places(spots: &[Spot]) -> String {
    let named = |name: &str, number: &dyn Fn(&Spot) -> Option<usize>| {
        let numbers: Vec<String> = spots.iter().filter_map(number).map(|number| number.to_string()).collect();
        match numbers.len() {
            0 => String::new(),
            1 => format!("{name} {} ", numbers.join("")),
            _ => format!("{name}s {} ", numbers.join(", ")),
        }
    };
    let line = |spot: &Spot| if let Spot::Line(number) = spot { Some(*number) } else { None };
    let argument = |spot: &Spot| if let Spot::Argument(number) = spot { Some(*number) } else { None };
    format!("{}{}", named("line", &line), named("argument", &argument))
}

fn summary(findings: &[Finding]) -> String {
    let lost = |grade| findings.iter().filter(|finding| finding.is_lost() && finding.grade == grade).count();
    let total = findings.iter().filter(|finding| finding.is_lost()).count();
    let by_grade: Vec<String> = Grade::ALL
        .into_iter()
        .filter(|grade| lost(*grade) > 0)
        .map(|grade| format!("{}: {}", grade.name(), lost(grade)))
        .collect();
    let graded = if by_grade.is_empty() { String::new() } else { format!(" ({})", by_grade.join(", ")) };
    let notes = findings.len() - total;
    format!("{total} not converted{graded}, {notes} note{}", if notes == 1 { "" } else { "s" })
}

/// The way from a file to a server that has taken the other one's place.
fn print_next(imported: &Import, output: Option<&Path>, printer: &mut Printer) {
    let Some(file) = output.map(Path::display) else {
        printer.error("next: run it again with --output turnserver.toml, which says how to go on");
        return;
    };
    printer.error(format_args!(
        "next, on the server's host:
  sudo install -b -m 0640 -o root -g turnstone {file} /etc/turnstone/turnserver.toml
  sudo turnstone check
  sudo systemctl disable --now {from}    # it has the ports, and its allocations end
  sudo systemctl enable --now turnstone
  sudo turnstone doctor",
        from = imported.from
    ));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_before_column_100_and_no_word_is_cut() {
        let text = "word ".repeat(60) + &"x".repeat(120);
        let lines = wrapped(&text, 2, 6);
        assert!(lines.lines().all(|line| line.len() <= 100 || line.trim() == "x".repeat(120)), "{lines}");
        assert_eq!(lines.split_whitespace().count(), 61);
        assert!(lines.starts_with("  word") && lines.lines().skip(1).all(|line| line.starts_with("      ")));
    }

    #[test]
    fn places_are_named_together() {
        let spots = [Spot::Line(3), Spot::Line(12), Spot::Argument(1)];
        assert_eq!(places(&spots), "lines 3, 12 argument 1 ");
        assert_eq!((places(&spots[..1]), places(&[])), ("line 3 ".to_owned(), String::new()));
    }
}
