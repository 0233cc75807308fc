//! `--all`: the same of every node of a fleet, all of which are asked at once, each by itself: one that hangs costs the others nothing.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use super::super::input::secret_readers;
use super::super::output::{CliError, Exit};
use super::client::runtime;
use super::whereabouts::AdminFlags;
use crate::config::{AdminToken, FleetConfig, Source, Surroundings, read_private_file, trim_line_end};
use crate::fleet::{self, Answered, Asker};
use crate::ops::host;

/// All questions and their answers.
pub(super) const LIMIT: Duration = Duration::from_secs(5);

/// The flags of commands that can ask a whole fleet.
#[derive(Args)]
#[command(next_help_heading = "The nodes of a fleet")]
pub(super) struct FleetFlags {
    /// Ask all nodes of [fleet] in the configuration file.
    #[arg(long)]
    all: bool,

    /// Ask these nodes, in place of those of the file; with commas in between. As in nodes of [fleet].
    #[arg(long, value_name = "URL", value_delimiter = ',', conflicts_with_all = ["admin", "admin_token_file"])]
    nodes: Vec<String>,

    /// File with the token of the nodes, readable by its owner only [default: that of [fleet] in the file]
    #[arg(long, value_name = "FILE")]
    fleet_token_file: Option<PathBuf>,

    /// File with the certificate authorities of the nodes [default: ca of [fleet], else those of the system]
    #[arg(long, value_name = "FILE")]
    fleet_ca: Option<PathBuf>,
}

impl FleetFlags {
    /// The nodes to ask; none where only one server is meant.
    pub(super) fn nodes(&self, server: &AdminFlags) -> Result<Option<FleetConfig>, CliError> {
        if !self.all && self.nodes.is_empty() {
            return match (&self.fleet_token_file, &self.fleet_ca) {
                (None, None) => Ok(None),
                _ => Err(CliError::usage(
                    "--fleet-token-file and --fleet-ca are for several nodes; expected --all or --nodes",
                )),
            };
        }
        let token = self.token()?;
        let configured = configured(server, token.is_none(), self.nodes.is_empty())?;
        let mut fleet = match configured {
            Some(fleet) => fleet,
            None if self.nodes.is_empty() => {
                let (file, _) = server.config_file();
                let message = format!(
                    "{}: no nodes in [fleet]; name them there, as in nodes = [\"https://turn1.example.org:9640\"], or with --nodes",
                    file.display()
                );
                return Err(CliError::usage(message));
            }
            None => FleetConfig::of_nodes(Vec::new()),
        };
        if !self.nodes.is_empty() {
            let nodes = self.nodes.iter().map(|text| FleetConfig::parse_node(text));
            fleet.nodes = nodes.collect::<Result<_, _>>().map_err(|problem| {
                CliError::usage(format!("--nodes: {problem}; expected such as https://turn1.example.org:9640"))
            })?;
        }
        fleet.token = token.or(fleet.token);
        fleet.ca = self.fleet_ca.clone().or(fleet.ca);
        Ok(Some(fleet))
    }

    fn token(&self) -> Result<Option<AdminToken>, CliError> {
        let Some(path) = &self.fleet_token_file else { return Ok(None) };
        let wrong = |problem: &dyn std::fmt::Display| CliError::usage(format!("--fleet-token-file: {problem}"));
        let bytes = read_private_file(path, None, secret_readers()).map_err(|problem| wrong(&problem))?;
        AdminToken::new(trim_line_end(bytes)).map(Some).map_err(|problem| wrong(&problem))
    }
}

/// `[fleet]` of the configuration. A file that is only the default one may be absent where it is not needed.
fn configured(server: &AdminFlags, wants_token: bool, is_needed: bool) -> Result<Option<FleetConfig>, CliError> {
    let (file, is_named) = server.config_file();
    let source = match Source::read(&file) {
        Ok(source) => source,
        Err(_) if !is_needed && !is_named => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let env = |name: &str| std::env::var(name).ok();
    let around = Surroundings { host: host::detect(), env: &env, dev: false };
    match FleetConfig::for_client(&source, &around, wants_token) {
        Ok(fleet) => Ok(fleet),
        Err(_) if !is_needed && !is_named => Ok(None),
        Err(error) => Err(CliError::usage(format!(
            "[fleet] cannot be used:\n{error}\nhint: --nodes says which nodes there are, --fleet-token-file their token"
        ))),
    }
}

/// Asks every node the same, and has all answers within the limit, in the order of the nodes.
pub(super) fn ask_all<T, F>(
    fleet: &FleetConfig,
    question: impl Fn(Arc<Asker>) -> F,
) -> Result<Vec<Answered<T>>, CliError>
where
    T: Send + 'static,
    F: Future<Output = Result<T, String>> + Send + 'static,
{
    let runtime = runtime().map_err(|error| CliError::Failed(Exit::RunTime, format!("error: {error}")))?;
    let answered = runtime.block_on(fleet::ask_all(fleet, LIMIT, question));
    // A resolver that hangs is not waited for.
    runtime.shutdown_background();
    if answered.is_empty() {
        return Err(CliError::Failed(Exit::RunTime, "error: there are no nodes to ask".to_owned()));
    }
    Ok(answered)
}

/// 1 when a node does not answer.
pub(super) fn exit(silent: usize) -> Exit {
    if silent > 0 { Exit::CheckFailed } else { Exit::Success }
}
