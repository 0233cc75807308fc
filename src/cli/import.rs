//! `turnstone import`: a `turnserver.conf` of coturn as a `turnserver.toml`, and a table of what needs an operator's eye.

use std::fs::OpenOptions;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::config::Source;
use crate::config::coturn::{Finding, FindingKind, import};

use super::output::{CliError, Exit, Printer};

const INPUT_BYTES_MAX: u64 = 1 << 20;

/// Convert coturn's turnserver.conf.
///
/// The configuration goes to standard output. What could not be taken over, what is different here, and what to do about
/// it goes to standard error, by line.
#[derive(Args)]
#[command(after_help = "\
Example: turnstone import /etc/turnserver.conf --output turnserver.toml && turnstone check --config turnserver.toml

Exit code 0 when there is a result, 1 with --strict when something was not converted, 2 when the input cannot be read.")]
pub(super) struct ImportArgs {
    /// The turnserver.conf; `-` is standard input.
    #[arg(value_name = "TURNSERVER.CONF")]
    input: PathBuf,

    /// Write the result to this file, which must not exist yet, with mode 0600.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,

    /// End with 1 when something was not converted.
    #[arg(long)]
    strict: bool,
}

pub(super) fn run(args: &ImportArgs, printer: &mut Printer) -> Result<Exit, CliError> {
    let text = read(&args.input)?;
    let imported = import(&text);
    match &args.output {
        Some(path) => write_private(path, imported.toml.as_bytes())?,
        None => printer.print(&imported.toml)?,
    }
    print_table(&imported.findings, printer);
    let lost = imported.findings.iter().filter(|finding| finding.kind != FindingKind::Note).count();
    printer.error(format_args!("{lost} not converted, {} notes", imported.findings.len() - lost));
    if imported.has_secrets && args.output.is_none() {
        printer.error("secrets are in the output: keep it in a file that only its owner can read (chmod 600)");
    }
    Ok(if args.strict && imported.is_lossy() { Exit::CheckFailed } else { Exit::Success })
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

fn print_table(findings: &[Finding], printer: &mut Printer) {
    let line_text = |finding: &Finding| finding.line.map_or_else(|| "-".to_owned(), |line| line.to_string());
    let width = |text: &dyn Fn(&Finding) -> usize| findings.iter().map(text).max().unwrap_or(0);
    let lines = width(&|finding| line_text(finding).len()).max(4);
    let directives = width(&|finding| finding.directive.len()).max(9);
    let kinds = width(&|finding| finding.kind.name().len());
    if !findings.is_empty() {
        printer
            .error(format_args!("{:>lines$}  {:directives$}  {:kinds$}  why, and what to do", "line", "directive", ""));
    }
    for finding in findings {
        let Finding { directive, kind, message, .. } = finding;
        let line = line_text(finding);
        printer.error(format_args!("{line:>lines$}  {directive:directives$}  {:kinds$}  {message}", kind.name()));
    }
}
