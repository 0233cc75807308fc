//! The commands that see and change a running server, all through its admin API (`docs/admin-api.openapi.json`).

mod answers;
mod client;
mod control;
mod explain;
mod fleet;
mod revoke;
mod revoked;
mod sessions;
mod status;
mod status_all;
mod store;
mod suspensions;
mod text;
mod top;
mod whereabouts;

pub(super) use control::{DrainArgs, LogLevelArgs, ReloadArgs, drain, log_level, reload};
pub(super) use explain::{ExplainArgs, explain};
pub(super) use revoke::{RevokeArgs, revoke};
pub(super) use revoked::{Known, ask_whether_revoked};
pub(super) use sessions::{KickArgs, SessionsArgs, ShowArgs, kick, sessions, show};
pub(super) use status::{StatusArgs, status};
pub(super) use store::{StoreCommand, store};
pub(super) use suspensions::{SuspensionsArgs, suspensions};
pub(super) use top::{TopArgs, top};
pub(super) use whereabouts::AdminAddress;
