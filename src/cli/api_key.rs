//! `turnstone credentials key`: makes a key for the credentials API.

use clap::Args;
use serde_json::json;
use zeroize::Zeroizing;

use super::input::read_stdin;
use super::output::{CliError, Exit, Printer};
use crate::config::quoted;
use crate::credentials::{API_KEY_PREFIX, ApiKeyText};

/// Make a key for the credentials API.
///
/// The key is printed once, and kept nowhere: give it to the back end or the page that asks for credentials. The configuration gets its
/// hash, which is printed with it: the key cannot be found out from that.
#[derive(Args)]
#[command(after_help = "turnstone credentials key --id backend
turnstone credentials key --id AC00000000000000000000000000000000 --stdin < auth-token")]
pub(super) struct KeyArgs {
    /// Its name in the configuration and in logs.
    #[arg(long, value_name = "ID", default_value = "backend")]
    id: String,

    /// Take a key that there is already from standard input, such as a token of another service; it is not printed.
    #[arg(long)]
    stdin: bool,

    /// Print one JSON object: id, key and sha256.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &KeyArgs, printer: &mut Printer) -> Result<Exit, CliError> {
    let id_is_fit = matches!(args.id.len(), 1..=64)
        && args.id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if !id_is_fit {
        let message = format!("--id: {:?}: expected at most 64 letters, digits, dots, dashes and underscores", args.id);
        return Err(CliError::usage(message));
    }
    let key = if args.stdin { existing()? } else { fresh()? };
    let sha256 = key.sha256_text();
    if args.json {
        let mut shown = json!({ "id": args.id, "sha256": sha256 });
        if let Some(fields) = shown.as_object_mut().filter(|_| !args.stdin) {
            fields.insert("key".to_owned(), key.expose().into());
        }
        printer.line(shown)?;
        return Ok(Exit::Success);
    }
    if !args.stdin {
        printer
            .line(format_args!("key, for whoever asks for credentials; it is shown only now:\n\n{}\n", key.expose()))?;
    }
    printer.line(format_args!(
        "for turnserver.toml, then turnstone reload:\n\n[[credentials.keys]]\nid = {}\nsha256 = \"{sha256}\"",
        quoted(&args.id)
    ))?;
    Ok(Exit::Success)
}

fn fresh() -> Result<ApiKeyText, CliError> {
    ApiKeyText::random().map_err(|error| CliError::usage(format!("no randomness for a key: {error}")))
}

fn existing() -> Result<ApiKeyText, CliError> {
    let text = Zeroizing::new(read_stdin().map_err(|error| CliError::usage(format!("cannot read the key: {error}")))?);
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = Zeroizing::new(line.strip_suffix('\r').unwrap_or(line).to_owned());
    ApiKeyText::existing(line).ok_or_else(|| {
        let message = format!(
            "--stdin: expected a random key of at least 16 printable characters without spaces, such as {API_KEY_PREFIX}..."
        );
        CliError::usage(message)
    })
}
