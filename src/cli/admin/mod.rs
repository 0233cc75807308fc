//! The commands that see and change a running server, all through its admin API (`docs/admin-api.openapi.json`).

mod answers;
mod client;
mod control;
mod explain;
mod sessions;
mod status;
mod text;
mod top;
mod whereabouts;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::output::{CliError, Exit, Printer};
use crate::text::json_pretty;

pub(super) use control::{DrainArgs, LogLevelArgs, ReloadArgs, drain, log_level, reload};
pub(super) use explain::{ExplainArgs, explain};
pub(super) use sessions::{KickArgs, SessionsArgs, ShowArgs, kick, sessions, show};
pub(super) use status::{StatusArgs, status};
pub(super) use top::{TopArgs, top};

/// Prints the API's answer.
fn print_json(answer: &Value, printer: &mut Printer) -> Result<(), CliError> {
    printer.line(json_pretty(answer))
}

/// What is used of an answer. Fields that this version does not know are left alone.
fn read<T: DeserializeOwned>(answer: Value) -> Result<T, CliError> {
    serde_json::from_value(answer).map_err(|error| {
        let message = format!("error: the server's answer is not understood ({error}); is it of another version?");
        CliError::Failed(Exit::RunTime, message)
    })
}
