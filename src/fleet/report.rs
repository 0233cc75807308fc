//! What a node says of itself: written by the one that is asked, read, and not believed further than it could be true, by the one that asks.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::addr::Transport;
use crate::text::is_deceptive;

/// Beyond these, a figure is none. A server has fewer ports than that, and no network card is as fast.
const SESSIONS_MAX: u64 = 10_000_000;
const BYTES_PER_SEC_MAX: u64 = 10_000_000_000_000;
const COUNT_MAX: u64 = 1_000_000_000_000;
const NAME_CHARS_MAX: usize = 64;
const TEXT_CHARS_MAX: usize = 200;
const PROBLEMS_MAX: usize = 16;
const ADDRESSES_MAX: usize = 32;
/// A quarter of an hour.
const SAMPLES_MAX: usize = 180;
/// What stands in place of characters that deceive.
const REPLACED: char = '\u{fffd}';

/// A node at a glance.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct NodeReport {
    /// What it is called.
    pub(crate) name: String,
    pub(crate) version: String,
    /// A random number of this run.
    pub(crate) instance: String,
    pub(crate) started_unix: u64,
    /// `serving` or `draining`.
    pub(crate) state: String,
    /// Whether it is ready for clients.
    pub(crate) ready: bool,
    pub(crate) sessions: u64,
    /// What it relays, the mean of the last seconds, both directions together.
    pub(crate) bytes_per_sec: u64,
    /// Requests that it has refused within a minute, without those that every client meets.
    pub(crate) refused_last_minute: u64,
    /// Newcomers that it has sent to others within a minute. Nodes of earlier versions do not say this, and the next.
    #[serde(default)]
    pub(crate) redirected_last_minute: u64,
    /// Its clock.
    #[serde(default)]
    pub(crate) now_unix: Option<u64>,
    /// Of a hundred parts of what it takes before it sends clients to others; `None` where it sends nobody.
    pub(crate) load_percent: Option<u64>,
    /// Whether it takes clients that another node sends there. It has said so to the one that asked for it alone.
    pub(crate) room: bool,
    /// Where clients reach it.
    pub(crate) clients: Vec<ClientAddress>,
    /// What is wrong, in words.
    pub(crate) problems: Vec<String>,
    /// Its last minutes, for who has asked for them.
    #[serde(default)]
    pub(crate) samples: Option<Samples>,
}

/// What a node has heard that others are called, by where it asks them.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Names {
    pub(crate) names: Vec<Named>,
}

/// What one is called.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Named {
    pub(crate) url: String,
    pub(crate) name: String,
}

/// Where clients reach a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ClientAddress {
    pub(crate) transport: String,
    pub(crate) address: SocketAddr,
}

/// Figures of the last minutes, the oldest first, each of one interval.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Samples {
    pub(crate) interval_secs: u64,
    pub(crate) sessions: Vec<u64>,
    pub(crate) bytes_per_sec: Vec<u64>,
    pub(crate) refused: Vec<u64>,
}

/// Why what a node says is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReportError {
    #[error("the answer is not that of a node of this version: {0}")]
    Form(String),
    #[error("{0} is not what a server can have")]
    Figure(&'static str),
    #[error("it says more than a node has to say: {0}")]
    TooMuch(&'static str),
}

impl NodeReport {
    /// Reads an answer.
    ///
    /// # Errors
    /// It is none, or cannot be true.
    pub(crate) fn read(body: &[u8]) -> Result<Self, ReportError> {
        let mut report: Self = serde_json::from_slice(body)
            .map_err(|error| ReportError::Form(clean(&error.to_string(), TEXT_CHARS_MAX)))?;
        report.check()?;
        for (text, chars_max) in [
            (&mut report.name, NAME_CHARS_MAX),
            (&mut report.version, NAME_CHARS_MAX),
            (&mut report.instance, NAME_CHARS_MAX),
            (&mut report.state, NAME_CHARS_MAX),
        ] {
            *text = clean(text, chars_max);
        }
        for problem in &mut report.problems {
            *problem = clean(problem, TEXT_CHARS_MAX);
        }
        report.clients.retain(ClientAddress::is_fit);
        Ok(report)
    }

    fn check(&self) -> Result<(), ReportError> {
        let most = |what, value: u64, max| if value <= max { Ok(()) } else { Err(ReportError::Figure(what)) };
        most("the number of sessions", self.sessions, SESSIONS_MAX)?;
        most("its bit rate", self.bytes_per_sec, BYTES_PER_SEC_MAX)?;
        most("the number of refusals", self.refused_last_minute, COUNT_MAX)?;
        most("the number of clients sent away", self.redirected_last_minute, COUNT_MAX)?;
        most("its clock", self.now_unix.unwrap_or(0), COUNT_MAX)?;
        most("its load", self.load_percent.unwrap_or(0), COUNT_MAX)?;
        let few = |what, count, max| if count <= max { Ok(()) } else { Err(ReportError::TooMuch(what)) };
        few("problems", self.problems.len(), PROBLEMS_MAX)?;
        few("addresses", self.clients.len(), ADDRESSES_MAX)?;
        let Some(samples) = &self.samples else { return Ok(()) };
        for (list, max) in [
            (&samples.sessions, SESSIONS_MAX),
            (&samples.bytes_per_sec, BYTES_PER_SEC_MAX),
            (&samples.refused, COUNT_MAX),
        ] {
            few("samples", list.len(), SAMPLES_MAX)?;
            list.iter().try_for_each(|value| most("a sample", *value, max))?;
        }
        Ok(())
    }

    /// Keeps what is said of a node within what those who read it take.
    pub(crate) fn bounded(mut self) -> Self {
        self.problems.truncate(PROBLEMS_MAX);
        self.problems.iter_mut().for_each(|problem| *problem = clean(problem, TEXT_CHARS_MAX));
        self.clients.truncate(ADDRESSES_MAX);
        self
    }
}

impl Names {
    /// What the node there is called.
    pub(crate) fn of(&self, url: &str) -> Option<String> {
        let named = self.names.iter().find(|named| named.url == url)?;
        Some(clean(&named.name, NAME_CHARS_MAX))
    }
}

impl ClientAddress {
    /// The transport, if it is one that is known here.
    pub(crate) fn transport(&self) -> Option<Transport> {
        Transport::ALL.into_iter().find(|transport| transport.name() == self.transport)
    }

    /// Whether a client can go there.
    fn is_fit(&self) -> bool {
        let (ip, port) = (self.address.ip(), self.address.port());
        let is_broadcast = matches!(ip, std::net::IpAddr::V4(v4) if v4.is_broadcast());
        port > 0 && !ip.is_unspecified() && !ip.is_multicast() && !is_broadcast && self.transport().is_some()
    }
}

/// Text without characters that deceive, and no longer than this.
fn clean(text: &str, chars_max: usize) -> String {
    let shown = text.chars().map(|c| if c.is_control() || is_deceptive(c) { REPLACED } else { c });
    shown.take(chars_max).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn report() -> Value {
        json!({
            "name": "turn1", "version": "0.1.0", "instance": "0a", "started_unix": 1, "state": "serving", "ready": true,
            "sessions": 3, "bytes_per_sec": 1000, "refused_last_minute": 0, "load_percent": 12, "room": true,
            "clients": [{ "transport": "udp", "address": "203.0.113.1:3478" }], "problems": [],
            "what-later-versions-say": true,
        })
    }

    fn read_with(change: impl FnOnce(&mut Value)) -> Result<NodeReport, ReportError> {
        let mut value = report();
        change(&mut value);
        NodeReport::read(value.to_string().as_bytes())
    }

    #[test]
    fn what_cannot_be_true_is_not_taken() {
        assert_eq!(read_with(|_| {}).unwrap().sessions, 3);
        for (field, lie) in [
            ("sessions", json!(1_000_000_000_000_000_000_u64)),
            ("sessions", json!(-1)),
            ("sessions", json!(1e300)),
            ("bytes_per_sec", json!(u64::MAX)),
            ("refused_last_minute", json!(u64::MAX)),
            ("redirected_last_minute", json!(u64::MAX)),
            ("now_unix", json!(u64::MAX)),
            ("load_percent", json!(u64::MAX)),
            ("name", json!(["turn1"])),
            ("problems", json!(vec!["x"; 17])),
            ("clients", json!(vec![json!({ "transport": "udp", "address": "203.0.113.1:1" }); 33])),
            ("clients", json!([{ "transport": "udp", "address": "turn.example.org:3478" }])),
            ("samples", json!({ "interval_secs": 5, "sessions": vec![1; 181], "bytes_per_sec": [], "refused": [] })),
            ("samples", json!({ "interval_secs": 5, "sessions": [u64::MAX], "bytes_per_sec": [], "refused": [] })),
        ] {
            assert!(read_with(|value| value[field] = lie.clone()).is_err(), "{field}: {lie}");
        }
        for bad in [&b""[..], b"null", b"<html>", b"\xff\xff", b"{}", b"[[[[[[["] {
            assert!(NodeReport::read(bad).is_err());
        }
    }

    #[test]
    fn texts_are_cut_and_cannot_deceive_and_addresses_are_ones_that_clients_can_go_to() {
        let read = read_with(|value| {
            value["name"] = json!(format!("\u{1b}[2J\u{202e}{}", "n".repeat(500)));
            value["problems"] = json!(["a\nb", "p".repeat(1000)]);
            value["clients"] = ["0.0.0.0:3478", "255.255.255.255:1", "224.0.0.1:1", "203.0.113.1:0", "203.0.113.1:1"]
                .into_iter()
                .map(|address| json!({ "transport": "udp", "address": address }))
                .chain([json!({ "transport": "carrier-pigeon", "address": "203.0.113.1:1" })])
                .collect();
        });
        let read = read.unwrap();
        assert_eq!(read.name.chars().count(), NAME_CHARS_MAX);
        assert!(!read.name.contains(['\u{1b}', '\u{202e}']) && !read.problems[0].contains('\n'));
        assert_eq!(read.problems[1].len(), TEXT_CHARS_MAX);
        assert_eq!(read.clients.len(), 1);
    }
}
