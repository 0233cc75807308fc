//! What the caller wants to know and can provide while the server runs.

use super::error::Unread;
use super::listeners::Bound;
use super::log::LogControl;
use crate::config::Loaded;
use crate::net::Inherited;

/// What the caller wants to know and can provide while the server runs.
pub struct Hooks<'a> {
    /// The sockets that this process was started with.
    pub inherited: Inherited,
    /// Called once, when the server is ready: every listener is bound, and there is an address to relay from.
    pub on_ready: Box<dyn FnOnce(&Bound) + 'a>,
    /// Reads the configuration again, for a reload.
    pub reload: Box<dyn Fn() -> Result<Loaded, Unread> + 'a>,
    /// The configuration file, to be shown.
    pub config_file: Option<String>,
    /// Changes the log's filter on reload.
    pub log: LogControl,
}

impl Hooks<'_> {
    /// Calls `on_ready`.
    pub(super) fn ready(&mut self, bound: &Bound) {
        std::mem::replace(&mut self.on_ready, Box::new(|_| {}))(bound);
    }
}
