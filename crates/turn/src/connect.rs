//! Connect (RFC 6062 section 5.2), which is answered when the peer has, and what becomes of connections afterwards.

use std::collections::{HashMap, VecDeque};

use crate::addr::SocketKind;
use crate::clock::Now;
use crate::policy::Verdict;
use crate::reject::{Reason, Reject};
use crate::traffic::Direction;
use turnstone_stun::{AttributeType, Method};

use super::allocation::{Allocation, in_secs};
use super::connection_ids::{ConnectionId, NoPlace, Owner};
use super::connections::{CONNECTION_SECS, LateResponse, PeerConnection, Stage};
use super::output::Client;
use super::pass::Judgement;
use super::peer::{Peer, judge};
use super::refusal::{Excerpt, Refusal};
use super::relays::{ConnectError, RelayId, Relays};
use super::request::Request;
use super::response::Responder;
use super::server::Server;

/// The TCP side of a server: which allocation has which connection and which TCP relay, and what is to be sent to clients.
#[derive(Default)]
pub(super) struct TcpSide {
    /// Slots of allocations.
    pub(super) connections: HashMap<ConnectionId, u32>,
    /// The same, by their TCP relays.
    pub(super) relays: HashMap<RelayId, u32>,
    /// Responses to Connect, and ConnectionAttempt indications.
    pub(super) notices: VecDeque<Notice>,
}

/// A message to a client that answers nothing that it has just sent, for [`Server::poll_notice`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The client.
    pub client: Client,
    /// The message.
    pub message: Box<[u8]>,
    /// Whether the client can do without it if it does not read: peers bring about any number of ConnectionAttempts.
    pub droppable: bool,
}

impl Server {
    /// Begins a connection to a peer. The response comes when that has an end: nothing is written now.
    pub(super) fn connect<R: Relays>(
        &mut self,
        request: &Request<'_>,
        slot: u32,
        relays: &mut R,
    ) -> Result<(), Reject> {
        let (now, settings) = (request.now, request.settings);
        let limits = settings.tcp_relays.unwrap_or_default();
        let peer = request.message.get(AttributeType::XOR_PEER_ADDRESS).ok_or(Reason::MissingAttribute)?;
        let peer = request.peer(peer)?;
        let refused = |reason| Reject::of_peer(reason, peer.get());
        let allocation = self.allocations.get_mut(slot).ok_or(Reason::AllocationMismatch)?;
        let connections = allocation.connections.as_deref_mut().ok_or(Reason::WrongRelayTransport)?;
        connections.forget_failed(now);
        if let Some(known) = connections.with_peer(peer) {
            return Err(refused(if known.is_open() { Reason::ConnectionExists } else { Reason::ConnectionFailed }));
        }
        let count = connections.len();
        let relay = allocation.live_relay(peer.family(), now.micros);
        let relay = relay.ok_or_else(|| refused(Reason::PeerFamilyMismatch))?.id;
        let judges = allocation.judged_by(settings, self.generation);
        let verdict = judge(&settings.peer_policies, judges, Peer::Address(peer))
            .map_err(|denied| Reject::of_denied(denied, peer.get()))?;
        if count >= limits.connections_per_allocation {
            return Err(refused(Reason::TooManyConnections));
        }
        let user = &allocation.identity.user;
        let hold =
            self.shared.connection_ids.hold(user, limits.connections_per_user, now.micros, &mut *self.fill_random);
        let hold = hold.map_err(|no_place| match no_place {
            NoPlace::OfUser => refused(Reason::UserConnections),
            NoPlace::InTotal => refused(Reason::SystemError),
        })?;
        if settings.guard.is_on() {
            // A peer counts for as long as its connection may be on its way.
            let until_micros = in_secs(now, CONNECTION_SECS);
            self.shared.guard.note_peers(&settings.guard, user, (&[peer.ip()], true), until_micros, now.micros)?;
        }
        let id = hold.id();
        relays.connect(relay, id, peer, verdict == Verdict::OwnRelay).map_err(|error| refused(reason_of(error)))?;
        let (integrity, key) = (request.auth.integrity, request.auth.key.clone());
        let response = Box::new(LateResponse { asked: request.responder.request, integrity, key });
        let stage = Stage::Connecting { until_micros: in_secs(now, CONNECTION_SECS), response };
        self.add_connection(now, slot, PeerConnection { hold, peer, stage });
        Ok(())
    }

    /// How a connection that [`Relays::connect`] has begun has ended up. The client is answered by [`Self::poll_notice`]. A connection
    /// that is not known any more is `false`: it is to be closed.
    pub fn connected(&mut self, now: Now, id: ConnectionId, result: Result<(), ConnectError>) -> bool {
        let worker = self.ids.next().worker();
        let Some((slot, allocation)) = self.of_connection(id) else { return false };
        let owner = owner_of(allocation);
        let Some(connection) = allocation.connections.as_deref_mut().and_then(|all| all.get_mut(id)) else {
            return false;
        };
        match result {
            Err(error) => self.fail_connection(now, slot, id, reason_of(error).into()),
            Ok(()) => {
                let until_micros = in_secs(now, CONNECTION_SECS);
                let unbound = Stage::Unbound { until_micros, brought_by_peer: false };
                let Stage::Connecting { response, .. } = std::mem::replace(&mut connection.stage, unbound) else {
                    return true;
                };
                connection.hold.offer(worker, owner);
                let client = allocation.client;
                self.answer_late(client, &response, None, Some(id));
            }
        }
        self.arm(now, slot);
        true
    }

    /// A connection to a peer has ended by itself. Nobody is told: the client sees it by its own data connection, or by its
    /// ConnectionBind that is refused.
    pub fn connection_gone(&mut self, id: ConnectionId) {
        if let Some((_, allocation)) = self.of_connection(id) {
            if let Some(connections) = &mut allocation.connections {
                connections.remove(id);
            }
            self.tcp.connections.remove(&id);
        }
    }

    /// Binds a connection, on the worker that has it: [`Outcome::Binds`](crate::Outcome::Binds) says which. Returns whether it is still
    /// there.
    pub fn bind_connection(&mut self, id: ConnectionId) -> bool {
        let Some((_, allocation)) = self.of_connection(id) else { return false };
        let connection = allocation.connections.as_deref_mut().and_then(|all| all.get_mut(id));
        let Some(connection) = connection.filter(|connection| matches!(connection.stage, Stage::Unbound { .. })) else {
            return false;
        };
        connection.stage = Stage::Bound;
        true
    }

    /// Whether so many bytes of a bound connection may pass now; takes them out of the bandwidth if so. What may not pass waits: the
    /// connection is not read meanwhile.
    pub fn admit_bytes(&mut self, now: Now, id: ConnectionId, direction: Direction, bytes: usize) -> bool {
        let Some((_, allocation)) = self.of_connection(id) else { return false };
        let connection = allocation.connections.as_deref_mut().and_then(|all| all.get_mut(id));
        let Some(family) = connection.map(|connection| connection.peer.family()) else { return false };
        match direction {
            Direction::ToPeers => allocation.meter.admit_to_peer(now.micros, family, bytes),
            Direction::ToClients => allocation.meter.admit_to_client(now.micros, family, bytes),
        }
    }

    /// Counts bytes of a bound connection that have passed.
    pub fn count_bytes(&mut self, id: ConnectionId, direction: Direction, bytes: usize) {
        let Some((_, allocation)) = self.of_connection(id) else { return };
        match direction {
            Direction::ToPeers => allocation.to_peers.count(bytes),
            Direction::ToClients => allocation.to_client.count(bytes),
        }
    }

    /// Whether there are as many connections as there may be, of all users and servers of the process.
    pub fn has_all_connections(&self) -> bool {
        self.shared.connection_ids.is_full()
    }

    /// Whether bandwidth is limited on a connection: where not, [`Self::admit_bytes`] never refuses.
    pub fn is_metered(&mut self, id: ConnectionId) -> bool {
        self.of_connection(id).is_none_or(|(_, allocation)| allocation.meter.is_limited())
    }

    /// The next message to a client that answers nothing it has just sent: to be asked until `None` after [`Self::connected`],
    /// [`Self::accepted`](crate::Server::accepted), [`Self::handle_timeout`] and [`Self::judge`].
    pub fn poll_notice(&mut self) -> Option<Notice> {
        self.tcp.notices.pop_front()
    }

    /// Closes connections whose time is over: those that no peer has answered, and those that nobody has bound.
    pub(super) fn sweep_connections<R: Relays>(&mut self, now: Now, slot: u32, relays: &mut R) {
        while let Some(connections) =
            self.allocations.get(slot).and_then(|allocation| allocation.connections.as_deref())
            && let Some(id) = connections.overdue(now)
        {
            let is_open = connections.iter().any(|connection| connection.hold.id() == id && connection.is_open());
            if is_open {
                relays.disconnect(id);
                self.fail_connection(now, slot, id, Reason::ConnectionTimedOut.into());
            }
            // One that has failed by this keeps its place for a while; all others are gone.
            let Some(connections) = self.allocations.get_mut(slot).and_then(|of| of.connections.as_deref_mut()) else {
                return;
            };
            connections.forget_failed(now);
        }
    }

    /// Closes connections to peers that are denied now. Returns how many it has looked at.
    pub(super) fn judge_connections<R: Relays>(
        &mut self,
        now: Now,
        slot: u32,
        judgement: &mut Judgement,
        relays: &mut R,
    ) -> usize {
        let Some(allocation) = self.allocations.get_mut(slot) else { return 0 };
        let judges = allocation.judged_by(&self.settings, self.generation);
        let Some(connections) = &allocation.connections else { return 0 };
        let looked_at = connections.len();
        let denied = |connection: &PeerConnection| {
            let denied = judge(&self.settings.peer_policies, judges, Peer::Address(connection.peer)).err()?;
            let reject = Reject::of_denied(denied, connection.peer.get());
            connection.is_open().then_some((connection.hold.id(), reject))
        };
        for (id, reject) in connections.iter().filter_map(denied).collect::<Vec<_>>() {
            relays.disconnect(id);
            self.fail_connection(now, slot, id, reject);
            judgement.connections_ended += 1;
        }
        looked_at
    }

    /// Ends connections that an allocation has no more.
    pub(super) fn end_connections<R: Relays>(&mut self, now: Now, connections: Vec<PeerConnection>, relays: &mut R) {
        for connection in connections {
            let id = connection.hold.id();
            self.tcp.connections.remove(&id);
            if connection.is_open() {
                relays.disconnect(id);
            }
            connection.end(now);
        }
    }

    pub(super) fn add_connection(&mut self, now: Now, slot: u32, connection: PeerConnection) {
        let id = connection.hold.id();
        let Some(connections) = self.allocations.get_mut(slot).and_then(|of| of.connections.as_deref_mut()) else {
            return;
        };
        connections.add(connection);
        self.tcp.connections.insert(id, slot);
        self.arm(now, slot);
    }

    /// The allocation that has a connection, and its slot.
    pub(super) fn of_connection(&mut self, id: ConnectionId) -> Option<(u32, &mut Allocation)> {
        let slot = *self.tcp.connections.get(&id)?;
        Some((slot, self.allocations.get_mut(slot)?))
    }

    /// Ends a connection, whose socket is closed: its Connect is answered, if it has not been. One that was made for the client keeps
    /// its peer from being tried again at once; any other is forgotten.
    pub(super) fn fail_connection(&mut self, now: Now, slot: u32, id: ConnectionId, reject: Reject) {
        self.tcp.connections.remove(&id);
        let Some(allocation) = self.allocations.get_mut(slot) else { return };
        let (client, username) = (allocation.client, Excerpt::of(allocation.identity.username.as_bytes()));
        let Some(connections) = allocation.connections.as_deref_mut() else { return };
        let Some(connection) = connections.get_mut(id) else { return };
        let peer = connection.peer;
        let Some(response) = connection.fail(now) else {
            connections.remove(id);
            return;
        };
        self.events.refused(Refusal {
            unix_secs: now.unix_secs,
            reason: reject.reason,
            method: Method::CONNECT,
            client: client.five_tuple.client,
            transport: client.five_tuple.transport,
            realm: self.settings.realm_of(client.realm).id(),
            username,
            peer: Some(peer.get()),
            policy: reject.policy,
            times: 1,
        });
        self.answer_late(client, &response, Some(reject), None);
        self.arm(now, slot);
    }

    fn answer_late(
        &mut self,
        client: Client,
        response: &LateResponse,
        reject: Option<Reject>,
        connection: Option<ConnectionId>,
    ) {
        let LateResponse { asked, integrity, key } = response;
        let software = self.settings.software.as_deref();
        let responder = Responder { request: *asked, software, integrity: Some((*integrity, key)) };
        let mut message = Vec::new();
        match reject {
            Some(reject) => responder.error(&mut message, reject, |_| {}),
            None => responder.success(&mut message, |encoder| {
                if let Some(id) = connection {
                    encoder.u32(AttributeType::CONNECTION_ID, id.value());
                }
            }),
        }
        self.tcp.notices.push_back(Notice { client, message: message.into(), droppable: false });
    }
}

/// Whether a client's connection can have connections to peers: those over datagrams cannot (RFC 6062 section 4.1).
pub(super) fn is_over_tcp(client: &Client) -> bool {
    client.five_tuple.transport.socket_kind() == SocketKind::Tcp
}

/// Who may bind the connections of an allocation.
pub(super) fn owner_of(allocation: &Allocation) -> Owner {
    Owner { identity: allocation.identity.clone(), key: allocation.key.clone(), algorithm: allocation.algorithm }
}

/// What a client is told of a connection that was not made.
fn reason_of(error: ConnectError) -> Reason {
    match error {
        ConnectError::Failed => Reason::ConnectionFailed,
        ConnectError::System => Reason::SystemError,
    }
}
