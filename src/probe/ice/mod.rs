//! `iceServers` as pages have them: read from code or an answer, and what browsers do with each entry.

mod browser;
mod script;
mod servers;

pub(super) use browser::{Planned, plan};
pub use script::ScriptError;
pub use servers::{IceServers, IceServersError};
