//! The answers of the admin API, as far as the commands use them.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::super::output::{CliError, Exit, Printer};
use crate::text::json_pretty;

/// Prints an answer as it is.
pub(super) fn print_json(answer: &Value, printer: &mut Printer) -> Result<(), CliError> {
    printer.line(json_pretty(answer))
}

/// What is used of an answer. Fields that this version does not know are left alone.
pub(super) fn read<T: DeserializeOwned>(answer: Value) -> Result<T, CliError> {
    serde_json::from_value(answer).map_err(|error| {
        let message = format!("error: the server's answer is not understood ({error}); is it of another version?");
        CliError::Failed(Exit::RunTime, message)
    })
}

use crate::traffic::Traffic;

#[derive(Serialize, Deserialize)]
pub(super) struct SessionPage {
    pub(super) sessions: Vec<Session>,
    pub(super) next_cursor: Option<String>,
}

/// A session; `P` and `C` are its permissions and channels, numbers in a list and objects on their own.
#[derive(Serialize, Deserialize)]
pub(super) struct Session<P = u64, C = u64, N = u64> {
    pub(super) id: String,
    pub(super) transport: String,
    pub(super) client: String,
    pub(super) server: String,
    pub(super) username: String,
    pub(super) user: String,
    pub(super) realm: Option<String>,
    pub(super) credential_expires_unix: Option<u64>,
    pub(super) relayed: Vec<Expiring>,
    pub(super) started_unix: u64,
    pub(super) age_secs: u64,
    pub(super) to_peers: Traffic,
    pub(super) to_client: Traffic,
    pub(super) throttled_packets: u64,
    pub(super) permissions: P,
    pub(super) channels: C,
    /// Only of TCP relays; servers of earlier versions do not say it.
    #[serde(default = "none")]
    pub(super) connections: Option<N>,
}

fn none<N>() -> Option<N> {
    None
}

/// A session with its peers.
pub(super) type SessionDetail = Session<Vec<Expiring>, Vec<Channel>, Vec<Connection>>;

/// A relayed transport address, or the address of a permission.
#[derive(Serialize, Deserialize)]
pub(super) struct Expiring {
    pub(super) address: String,
    pub(super) expires_in_secs: u64,
}

#[derive(Deserialize)]
pub(super) struct Channel {
    pub(super) number: u16,
    pub(super) peer: String,
    pub(super) expires_in_secs: u64,
}

#[derive(Deserialize)]
pub(super) struct Connection {
    pub(super) peer: String,
    pub(super) state: String,
}

#[derive(Deserialize)]
pub(super) struct Ended {
    pub(super) ended: u64,
}

#[derive(Deserialize)]
pub(super) struct UserList {
    pub(super) users: Vec<UserTotal>,
    pub(super) total_users: u64,
}

#[derive(Clone, Deserialize)]
pub(super) struct UserTotal {
    pub(super) user: String,
    pub(super) realm: Option<String>,
    pub(super) sessions: u64,
    pub(super) to_peers: Traffic,
    pub(super) to_client: Traffic,
}

#[derive(Serialize, Deserialize)]
pub(super) struct RefusalList {
    pub(super) refusals: Vec<Refusal>,
    pub(super) kept_since_unix: Option<u64>,
    pub(super) as_peer: Option<AsPeer>,
    /// Servers of earlier versions do not say this and the next.
    #[serde(default)]
    pub(super) ended: Vec<LastEnd>,
    #[serde(default)]
    pub(super) revoked: Vec<Revocation>,
}

/// How a session ended, or several of one user, one right after the other.
#[derive(Serialize, Deserialize)]
pub(super) struct LastEnd {
    pub(super) at_unix: u64,
    pub(super) reason: String,
    pub(super) explanation: String,
    pub(super) times: u64,
    pub(super) client: String,
    pub(super) transport: String,
    #[serde(default)]
    pub(super) realm: Option<String>,
    pub(super) user: String,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Refusal {
    pub(super) at_unix: u64,
    pub(super) code: u16,
    pub(super) reason: String,
    pub(super) method: String,
    pub(super) client: String,
    pub(super) transport: String,
    #[serde(default)]
    pub(super) realm: Option<String>,
    pub(super) username: String,
    pub(super) username_complete: bool,
    pub(super) peer: Option<String>,
    pub(super) explanation: String,
    #[serde(default = "once")]
    pub(super) times: u64,
    pub(super) normal: bool,
}

fn once() -> u64 {
    1
}

#[derive(Deserialize)]
pub(super) struct SuspensionList {
    pub(super) suspensions: Vec<Suspension>,
    pub(super) total: u64,
}

#[derive(Deserialize)]
pub(super) struct Suspension {
    pub(super) user: String,
    #[serde(default)]
    pub(super) realm: Option<String>,
    pub(super) credential: String,
    pub(super) until_unix: u64,
    pub(super) left_secs: u64,
}

#[derive(Deserialize)]
pub(super) struct Lifted {
    pub(super) lifted: u64,
}

#[derive(Deserialize)]
pub(super) struct RevocationList {
    pub(super) revocations: Vec<Revocation>,
    pub(super) total: u64,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Revocation {
    pub(super) username: Option<String>,
    pub(super) user: Option<String>,
    pub(super) key: Option<String>,
    pub(super) realm: Option<String>,
    pub(super) issued_before_unix: Option<u64>,
    #[serde(default)]
    pub(super) lifetime_secs: Option<u64>,
    pub(super) until_unix: Option<u64>,
    pub(super) source: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct Revoked {
    pub(super) revocation: Revocation,
    pub(super) ended: u64,
    pub(super) kept: bool,
    /// Whether servers that share a store hear of it now; an older server does not say.
    #[serde(default)]
    pub(super) shared: Option<bool>,
}

#[derive(Deserialize)]
pub(super) struct Undone {
    pub(super) removed: u64,
    pub(super) listed: u64,
    pub(super) kept: bool,
    /// As of what is revoked.
    #[serde(default)]
    pub(super) shared: Option<bool>,
}

/// What the peer policy makes of an address now.
#[derive(Serialize, Deserialize)]
pub(super) struct AsPeer {
    pub(super) allowed: bool,
    pub(super) explanation: String,
    #[serde(default)]
    pub(super) ports: Vec<AsPort>,
    #[serde(default)]
    pub(super) policies: Vec<AsPolicy>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct AsPolicy {
    pub(super) policy: String,
    pub(super) allowed: bool,
    pub(super) explanation: String,
}

/// The same of one of its ports.
#[derive(Serialize, Deserialize)]
pub(super) struct AsPort {
    pub(super) port: u16,
    pub(super) allowed: bool,
    pub(super) explanation: String,
}

#[derive(Deserialize)]
pub(super) struct Status {
    pub(super) version: String,
    pub(super) instance: String,
    pub(super) pid: u32,
    pub(super) started_unix: u64,
    pub(super) uptime_secs: u64,
    pub(super) state: String,
    #[serde(default)]
    pub(super) not_ready: Option<String>,
    pub(super) drain: Option<DrainUnderWay>,
    pub(super) config_generation: u64,
    /// An older server does not say.
    #[serde(default)]
    pub(super) config_refused: bool,
    pub(super) config_file: Option<String>,
    pub(super) workers: u64,
    pub(super) listeners: Vec<Listener>,
    pub(super) allocations: u64,
    pub(super) allocations_by_transport: BTreeMap<String, u64>,
    pub(super) ports: BTreeMap<String, Ports>,
    #[serde(default)]
    pub(super) relay_addresses: Vec<RelayAddress>,
    pub(super) traffic: Relayed,
    pub(super) refused: BTreeMap<String, u64>,
    pub(super) dropped: BTreeMap<String, u64>,
    pub(super) connections: u64,
    pub(super) certificate_not_after_unix: Option<u64>,
    #[serde(default)]
    pub(super) store: Option<StoreGlance>,
    #[serde(default)]
    pub(super) hook: Option<HookGlance>,
    #[serde(default)]
    pub(super) acme: Vec<AcmeName>,
    #[serde(default)]
    pub(super) wrong_tokens: u64,
    pub(super) log_level: String,
}

/// The store of a fleet.
#[derive(Deserialize)]
pub(super) struct StoreGlance {
    pub(super) url: String,
    pub(super) connected: bool,
    pub(super) problem: Option<String>,
    #[serde(default)]
    pub(super) problems: BTreeMap<String, String>,
}

/// The application of `[hook]`.
#[derive(Deserialize)]
pub(super) struct HookGlance {
    pub(super) questions: Option<HookHealth>,
    pub(super) events: Option<HookHealth>,
    pub(super) events_waiting: u64,
}

#[derive(Deserialize)]
pub(super) struct HookHealth {
    pub(super) url: String,
    pub(super) answered_unix: Option<u64>,
    pub(super) silent_since_unix: Option<u64>,
    pub(super) unanswered: u64,
    pub(super) problem: Option<HookProblem>,
}

#[derive(Deserialize)]
pub(super) struct HookProblem {
    pub(super) at_unix: u64,
    pub(super) username: Option<String>,
    pub(super) message: String,
}

#[derive(Deserialize)]
pub(super) struct AcmeName {
    pub(super) name: String,
    pub(super) has_certificate: bool,
    // Servers of earlier versions do not say it.
    #[serde(default)]
    pub(super) not_after_unix: Option<u64>,
    pub(super) next_attempt_unix: u64,
    pub(super) failures: u64,
    pub(super) failure: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct RelayAddress {
    pub(super) bind: String,
    pub(super) external: Option<String>,
    pub(super) source: String,
    pub(super) confirmed_unix: Option<u64>,
    pub(super) failure: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct DrainUnderWay {
    pub(super) deadline_unix: Option<u64>,
    pub(super) allocations_left: u64,
}

#[derive(Deserialize)]
pub(super) struct Listener {
    pub(super) transport: String,
    pub(super) address: String,
}

#[derive(Deserialize)]
pub(super) struct Ports {
    pub(super) used: u64,
    pub(super) total: u64,
}

#[derive(Deserialize)]
pub(super) struct Relayed {
    pub(super) to_peers: Traffic,
    pub(super) to_clients: Traffic,
    pub(super) own_relayed: Traffic,
}

#[derive(Deserialize)]
pub(super) struct Reload {
    pub(super) applied: bool,
    pub(super) generation: u64,
    pub(super) changes: Vec<Change>,
    pub(super) warnings: Vec<String>,
    pub(super) sessions: Option<Judgement>,
    // Servers of earlier versions do not say it.
    #[serde(default)]
    pub(super) acme: Vec<AcmeName>,
}

#[derive(Deserialize)]
pub(super) struct Judgement {
    pub(super) judged: u64,
    pub(super) ended: u64,
    pub(super) permissions_ended: u64,
    pub(super) channels_ended: u64,
    // Servers of earlier versions do not say it.
    #[serde(default)]
    pub(super) connections_ended: u64,
}

#[derive(Deserialize)]
pub(super) struct Change {
    pub(super) key: String,
    pub(super) before: String,
    pub(super) after: String,
    pub(super) effect: String,
}

#[derive(Deserialize)]
pub(super) struct Drain {
    pub(super) deadline_unix: Option<u64>,
}

#[derive(Deserialize)]
pub(super) struct LogLevel {
    pub(super) level: String,
}
