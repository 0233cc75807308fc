//! The connections between an allocation's TCP relays and its peers (RFC 6062 section 5).

use std::net::IpAddr;

use crate::addr::PeerAddr;
use crate::clock::{Now, SECOND};

use super::connection_ids::{ConnectionHold, ConnectionId};
use super::response::Asked;
use turnstone_stun::{IntegrityKind, Key};

/// How long a peer may take to answer, and a connection to be bound (RFC 6062 section 5.2).
pub(super) const CONNECTION_SECS: u32 = 30;
/// How long a client is to wait before it tries the same peer again (RFC 6062 section 4.3). What has failed keeps its place for as
/// long: whoever looks for open ports of others has a slow time of it.
pub(super) const FAILED_SECS: u32 = 10;

/// Connections of one peer address that may wait to be bound: more than a client ever has of a peer at once.
const WAITING_OF_PEER_MAX: usize = 8;

/// One connection.
pub(super) struct PeerConnection {
    pub(super) hold: ConnectionHold,
    pub(super) peer: PeerAddr,
    pub(super) stage: Stage,
}

/// Peers may bring no further connection, and none gives way.
pub(super) struct Full;

/// How far a connection has come.
pub(super) enum Stage {
    /// The peer has not answered yet.
    Connecting { until_micros: u64, response: Box<LateResponse> },
    /// It waits for its ConnectionBind.
    Unbound { until_micros: u64, brought_by_peer: bool },
    /// Its bytes are relayed.
    Bound,
    /// There is none any more; the peer is not tried again for a while.
    Failed { until_micros: u64 },
}

/// What the response to a Connect needs, once the peer has answered.
pub(super) struct LateResponse {
    pub(super) asked: Asked,
    pub(super) integrity: IntegrityKind,
    pub(super) key: Key,
}

/// The connections of one allocation.
#[derive(Default)]
pub(super) struct Connections(Vec<PeerConnection>);

impl Connections {
    /// How many there are, and have just failed.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &PeerConnection> {
        self.0.iter()
    }

    pub(super) fn with_peer(&self, peer: PeerAddr) -> Option<&PeerConnection> {
        self.0.iter().find(|connection| connection.peer == peer)
    }

    pub(super) fn get_mut(&mut self, id: ConnectionId) -> Option<&mut PeerConnection> {
        self.0.iter_mut().find(|connection| connection.hold.id() == id)
    }

    pub(super) fn add(&mut self, connection: PeerConnection) {
        self.0.push(connection);
    }

    pub(super) fn remove(&mut self, id: ConnectionId) -> Option<PeerConnection> {
        let at = self.0.iter().position(|connection| connection.hold.id() == id)?;
        Some(self.0.swap_remove(at))
    }

    /// Which connection has to give way when a peer brings another one, of those that peers have brought and nobody has bound: `most` of
    /// all peers may wait, and a few of each. It is the oldest of the peer, or else of the peer that has the most.
    pub(super) fn gives_way(&self, ip: IpAddr, most: usize) -> Result<Option<ConnectionId>, Full> {
        let waiting: Vec<_> = self.0.iter().filter_map(PeerConnection::waiting).collect();
        let count_of = |ip: IpAddr| waiting.iter().filter(|(_, of, _)| *of == ip).count();
        let oldest_of = |ip: IpAddr| waiting.iter().filter(|(_, of, _)| *of == ip).min().map(|(.., id)| *id);
        let of_peer = count_of(ip);
        if of_peer >= WAITING_OF_PEER_MAX.min(most) {
            return Ok(oldest_of(ip));
        }
        if waiting.len() < most {
            return Ok(None);
        }
        let of_most = waiting.iter().map(|(_, of, _)| (count_of(*of), *of)).max();
        let of_most = of_most.filter(|(count, _)| *count > of_peer + 1).map(|(_, of)| of);
        oldest_of(of_most.unwrap_or(ip)).map(Some).ok_or(Full)
    }

    /// Takes out those that are meant.
    pub(super) fn take(&mut self, is_meant: impl Fn(&PeerConnection) -> bool) -> Vec<PeerConnection> {
        self.0.extract_if(.., |connection| is_meant(connection)).collect()
    }

    /// Forgets what has failed long enough ago.
    pub(super) fn forget_failed(&mut self, now: Now) {
        self.0.retain(
            |connection| !matches!(connection.stage, Stage::Failed { until_micros } if until_micros <= now.micros),
        );
    }

    /// One whose time is over.
    pub(super) fn overdue(&self, now: Now) -> Option<ConnectionId> {
        let is_over = |connection: &&PeerConnection| connection.until_micros().is_some_and(|until| until <= now.micros);
        self.0.iter().find(is_over).map(|connection| connection.hold.id())
    }

    /// When the first of them is over.
    pub(super) fn next_deadline(&self) -> Option<u64> {
        self.0.iter().filter_map(PeerConnection::until_micros).min()
    }
}

impl PeerConnection {
    /// Whether there is a socket.
    pub(super) fn is_open(&self) -> bool {
        !matches!(self.stage, Stage::Failed { .. })
    }

    /// Gives its place back. One that has failed, or that no peer has answered yet, counts for its user as if its allocation went on:
    /// whoever makes another allocation instead does not look for open ports faster.
    pub(super) fn end(self, now: Now) {
        match self.stage {
            Stage::Failed { until_micros } => self.hold.cool(until_micros),
            Stage::Connecting { .. } => self.hold.cool(failed_until(now)),
            Stage::Unbound { .. } | Stage::Bound => {}
        }
    }

    /// Of one that a peer has brought and nobody has bound: until when it waits, the peer's address, and its id.
    fn waiting(&self) -> Option<(u64, IpAddr, ConnectionId)> {
        match self.stage {
            Stage::Unbound { until_micros, brought_by_peer: true } => {
                Some((until_micros, self.peer.ip(), self.hold.id()))
            }
            _ => None,
        }
    }

    fn until_micros(&self) -> Option<u64> {
        match &self.stage {
            Stage::Connecting { until_micros, .. }
            | Stage::Unbound { until_micros, .. }
            | Stage::Failed { until_micros } => Some(*until_micros),
            Stage::Bound => None,
        }
    }

    /// Lets it fail; returns what its Connect is answered with, if that has not been.
    pub(super) fn fail(&mut self, now: Now) -> Option<Box<LateResponse>> {
        let failed = Stage::Failed { until_micros: failed_until(now) };
        match std::mem::replace(&mut self.stage, failed) {
            Stage::Connecting { response, .. } => Some(response),
            Stage::Unbound { .. } | Stage::Bound | Stage::Failed { .. } => None,
        }
    }
}

/// Until when what fails now keeps its place.
fn failed_until(now: Now) -> u64 {
    now.micros.saturating_add(u64::from(FAILED_SECS) * SECOND)
}
