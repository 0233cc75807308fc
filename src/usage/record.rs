//! What a record says, and its line of JSON. `docs/usage-records.md` is for those who read them.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::addr::{ClientAddr, FiveTuple, RelayedAddr};
use crate::auth::UsernameLimits;
use crate::clock::civil;
use crate::text::json;
use crate::traffic::Traffic;
use crate::turn::{AllocationId, AllocationSummary, AllocationView, EndReason};
use crate::user::User;

/// The version of the schema. A field may be added under the same number; none changes its meaning or goes.
const SCHEMA: u32 = 1;

/// What is known of an allocation at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(super) kind: Kind,
    pub(crate) at: SystemTime,
    pub(crate) id: AllocationId,
    pub(super) five_tuple: FiveTuple,
    pub(super) username: Arc<str>,
    pub(crate) user: User,
    pub(super) relayed: Vec<RelayedAddr>,
    pub(super) age_micros: u64,
    pub(super) to_peers: Traffic,
    pub(super) to_client: Traffic,
    pub(super) throttled: u64,
}

/// Which of the records of an allocation it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Start,
    Interim,
    Stop(EndReason),
}

impl Session {
    /// An allocation that was made just now.
    pub(crate) fn start(
        at: SystemTime,
        id: AllocationId,
        five_tuple: FiveTuple,
        (username, user): (Arc<str>, User),
        relayed: Vec<RelayedAddr>,
    ) -> Self {
        Self {
            kind: Kind::Start,
            at,
            id,
            five_tuple,
            username,
            user,
            relayed,
            age_micros: 0,
            to_peers: Traffic::default(),
            to_client: Traffic::default(),
            throttled: 0,
        }
    }

    /// An allocation that lives.
    pub(super) fn interim(at: SystemTime, now_micros: u64, view: AllocationView) -> Self {
        Self {
            kind: Kind::Interim,
            at,
            id: view.id,
            five_tuple: view.five_tuple,
            username: view.username,
            user: view.user,
            relayed: view.relayed.into_iter().map(|(relayed, _)| relayed).collect(),
            age_micros: now_micros.saturating_sub(view.made_micros),
            to_peers: view.to_peers,
            to_client: view.to_client,
            throttled: view.throttled,
        }
    }

    /// An allocation that has ended.
    pub(crate) fn stop(at: SystemTime, summary: &AllocationSummary) -> Self {
        Self {
            kind: Kind::Stop(summary.reason),
            at,
            id: summary.id,
            five_tuple: summary.five_tuple,
            username: Arc::clone(&summary.username),
            user: summary.user.clone(),
            relayed: summary.relayed.clone(),
            age_micros: summary.duration_micros,
            to_peers: summary.to_peers,
            to_client: summary.to_client,
            throttled: summary.throttled,
        }
    }

    /// Whether it is the beginning that is recorded.
    pub(crate) fn is_start(&self) -> bool {
        self.kind == Kind::Start
    }

    /// Whose it is.
    pub(crate) fn client(&self) -> ClientAddr {
        self.five_tuple.client
    }

    /// The record's line, its end included.
    pub(crate) fn line(&self, server: &str, seq: u64) -> String {
        self.line_as(format!("{server}-{}", self.id), None, server, seq)
    }

    /// The same under the name of a session that stands for so many.
    pub(super) fn merged_line(&self, number: u64, sessions: u64, server: &str, seq: u64) -> String {
        self.line_as(format!("{server}-merged-{number}"), Some(sessions), server, seq)
    }

    fn line_as(&self, session: String, sessions: Option<u64>, server: &str, seq: u64) -> String {
        let (kind, reason) = match self.kind {
            Kind::Start => ("start", None),
            Kind::Interim => ("interim", None),
            Kind::Stop(reason) => ("stop", Some(reason.label())),
        };
        let started = self.at.checked_sub(Duration::from_micros(self.age_micros)).unwrap_or(UNIX_EPOCH);
        let record = SessionRecord {
            head: Head { schema: SCHEMA, kind, at: timestamp(self.at), seq, server },
            session,
            sessions,
            username: &self.username,
            user: self.user.name(),
            realm: self.user.realm().map(|realm| &**realm),
            limits: UsernameLimits::text_of(&self.username, self.user.name()),
            credential: self.user.kind().name(),
            transport: self.five_tuple.transport.name(),
            client: self.five_tuple.client.to_string(),
            server_address: self.five_tuple.server.to_string(),
            relayed: self.relayed.iter().map(ToString::to_string).collect(),
            started_at: timestamp(started),
            duration_secs: (self.age_micros / 1000) as f64 / 1000.0,
            to_peers: self.to_peers,
            to_client: self.to_client,
            throttled_packets: self.throttled,
            reason,
        };
        line(&record)
    }
}

/// The line of a server that starts.
pub(crate) fn server_start_line(at: SystemTime, server: &str, seq: u64) -> String {
    server_line("server-start", at, server, seq)
}

/// The line of a record about the server itself: `server-start` or `server-stop`.
pub(super) fn server_line(kind: &'static str, at: SystemTime, server: &str, seq: u64) -> String {
    line(&ServerRecord {
        head: Head { schema: SCHEMA, kind, at: timestamp(at), seq, server },
        version: env!("CARGO_PKG_VERSION"),
    })
}

#[derive(Serialize)]
struct Head<'a> {
    schema: u32,
    #[serde(rename = "type")]
    kind: &'static str,
    at: String,
    seq: u64,
    server: &'a str,
}

#[derive(Serialize)]
struct SessionRecord<'a> {
    #[serde(flatten)]
    head: Head<'a>,
    session: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    sessions: Option<u64>,
    username: &'a str,
    user: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    realm: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limits: Option<&'a str>,
    credential: &'static str,
    transport: &'static str,
    client: String,
    server_address: String,
    relayed: Vec<String>,
    started_at: String,
    duration_secs: f64,
    to_peers: Traffic,
    to_client: Traffic,
    throttled_packets: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
}

#[derive(Serialize)]
struct ServerRecord<'a> {
    #[serde(flatten)]
    head: Head<'a>,
    version: &'static str,
}

fn line(record: &impl Serialize) -> String {
    let mut line = json(record);
    line.push('\n');
    line
}

/// RFC 3339, in UTC, with milliseconds.
pub(super) fn timestamp(at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let [year, month, day, hour, minute, second] = civil(since.as_secs());
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", since.subsec_millis())
}

/// The same without what a file's name should not have, in seconds.
pub(super) fn compact_timestamp(at: SystemTime) -> String {
    let [year, month, day, hour, minute, second] = civil(at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs());
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_rfc_3339_has_it() {
        for (millis, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_001, "2000-02-29T00:00:00.001Z"),
            (1_709_251_199_000, "2024-02-29T23:59:59.000Z"),
            (1_795_201_200_123, "2026-11-20T19:00:00.123Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(timestamp(UNIX_EPOCH + Duration::from_millis(millis)), expected);
        }
        assert_eq!(compact_timestamp(UNIX_EPOCH + Duration::from_secs(1_795_201_200)), "20261120T190000Z");
    }
}
