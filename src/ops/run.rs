//! Running the server: from a valid configuration to the last drained allocation.

use std::fmt;
use std::net::SocketAddr;

use crate::addr::Transport;
use crate::config::Config;

/// What the server listens on, with real ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// Each listener's transport and address, in the order of the configuration.
    pub listeners: Vec<(Transport, SocketAddr)>,
}

/// Why the server could not start, or stopped.
#[derive(Debug)]
pub struct RunError(String);

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Runs until a signal ends it. `on_ready` is called once, when every listener is bound.
///
/// # Errors
/// [`RunError`] when a socket cannot be opened or a worker fails.
pub fn run(config: Config, on_ready: impl FnOnce(&Bound)) -> Result<(), RunError> {
    let _ = (config, on_ready);
    Err(RunError("not built yet".to_owned()))
}
