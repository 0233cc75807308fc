//! What the caller wants to know and can provide while the server runs.

use std::net::SocketAddr;
use std::sync::Arc;

use super::error::Unread;
use super::listeners::Bound;
use super::log::LogControl;
use crate::config::{AdminToken, Loaded};
use crate::net::Inherited;

/// What the caller wants to know and can provide while the server runs.
pub struct Hooks<'a> {
    /// The sockets that this process was started with.
    pub inherited: Inherited,
    /// Called once, when the server is ready: every listener is bound, and there is an address to relay from.
    pub on_ready: Box<dyn FnOnce(&Bound) + 'a>,
    /// Where a try-out shows the page, beside the admin API.
    pub page_port: Option<PagePort>,
    /// Reads the configuration again, for a reload.
    pub reload: ReadAgain,
    /// The configuration file, to be shown.
    pub config_file: Option<String>,
    /// Changes the log's filter on reload.
    pub log: LogControl,
}

/// Reads the configuration again, on a thread that may wait for a disk.
pub type ReadAgain = Arc<dyn Fn() -> Result<Loaded, Unread> + Send + Sync>;

/// A port on loopback with the page and the admin API, for a browser, which reaches no socket in the file system.
pub struct PagePort {
    /// Where it is.
    pub address: SocketAddr,
    /// What the page has to show.
    pub token: AdminToken,
}

impl Hooks<'_> {
    /// Calls `on_ready`.
    pub(super) fn ready(&mut self, bound: &Bound) {
        std::mem::replace(&mut self.on_ready, Box::new(|_| {}))(bound);
    }
}
