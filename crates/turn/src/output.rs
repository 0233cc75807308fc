//! What goes into the server and what comes out of it, as plain values.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;

use crate::addr::{ClientAddr, FiveTuple, PeerAddr, RelayedAddr, Transport};
use crate::policy::Suspension;
use crate::reject::Dropped;
use crate::traffic::Traffic;
use crate::user::{RealmId, User};

use super::connection_ids::ConnectionId;
use super::discovery::Detour;
use super::ids::AllocationId;
use super::path::Path;
use super::refusal::Refusal;
use super::relays::RelayId;

/// Where a message came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// The 5-tuple.
    pub five_tuple: FiveTuple,
    /// How to reach it.
    pub path: Path,
    /// The realm that it has come in by: it is challenged for that one, and known in no other.
    pub realm: RealmId,
}

impl Client {
    /// One whose datagrams come to the only socket, number 0, of a server at `server`. A server behind a wildcard address, or with
    /// several sockets, says more in its [`Path`].
    pub fn over_udp(client: SocketAddr, server: SocketAddr) -> Self {
        let five_tuple = FiveTuple { transport: Transport::Udp, client: ClientAddr::new(client), server };
        Self { five_tuple, path: Path::back_to(client), realm: RealmId::DEFAULT }
    }
}

/// What to do after a message of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// `reply` holds a message for the same client.
    Reply,
    /// `reply` holds a message for the same client, which leaves from another address of ours or goes to another port of the client's
    /// (RFC 5780). It comes only where the settings have [`NatDiscovery`](crate::NatDiscovery).
    Detour(Detour),
    /// Send this part of the input to a peer (Send indication or ChannelData).
    ToPeer(ToPeer, Range<usize>),
    /// Nothing is sent yet: the request waits for an answer from outside, which [`Server::poll_ask`](crate::Server::poll_ask) asks for. It
    /// waits for nothing unless the settings' credentials are [`asking`](crate::auth::CredentialsBuilder::asking), or it is a Connect,
    /// which waits for its peer: [`Server::poll_notice`](crate::Server::poll_notice) has its response.
    Waits,
    /// Nothing is sent yet: another server has the allocation that the request is for. Pass the request on to that one, for
    /// [`Server::handle_passed_on`](crate::Server::handle_passed_on). It never is elsewhere for who has one server.
    Elsewhere(AllocationId),
    /// The client's connection becomes that of a peer's data (RFC 6062 section 5.4). `reply` holds the success response, to be sent once
    /// [`Server::bind_connection`](crate::Server::bind_connection) of the worker that has the peer's connection has agreed: nothing else
    /// is sent before or after it, and what follows the request is for the peer. If it does not agree, the connection is closed.
    Binds(Binding),
    /// Nothing is sent.
    Dropped(Dropped),
}

/// A connection to a peer that was taken for a client's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The connection.
    pub connection: ConnectionId,
    /// The worker that has it.
    pub worker: u16,
}

/// A payload's way to its peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ToPeer {
    /// The relay socket to send from.
    pub relay: RelayId,
    /// The peer.
    pub peer: PeerAddr,
    /// The peer is one of our own relayed addresses: the payload can be handed over in process. It must be where the host cannot reach
    /// that address by itself, as behind a NAT that does not hairpin; sent from the socket, it takes the way through the kernel.
    pub own_relay: bool,
    /// DONT-FRAGMENT was in the Send indication.
    pub dont_fragment: bool,
}

/// A payload's way to its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ToClient {
    /// The client.
    pub client: Client,
    /// How to wrap the payload.
    pub encapsulation: Encapsulation,
}

/// ChannelData or a Data indication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encapsulation {
    /// ChannelData with this channel number.
    Channel(u16),
    /// A Data indication from this peer, with this transaction id.
    Data {
        /// XOR-PEER-ADDRESS.
        peer: PeerAddr,
        /// Random.
        transaction_id: [u8; 12],
    },
}

/// Why an allocation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EndReason {
    /// Refresh with lifetime 0.
    Released,
    /// The lifetime ran out.
    Expired,
    /// The client's connection closed.
    ClientGone,
    /// The credential expired and the policy is `cut`.
    CredentialExpired,
    /// It moved to another worker, which had no descriptor or slot for its relay sockets.
    MoveFailed,
    /// An operator ended it.
    Kicked,
    /// Its credential was revoked.
    Revoked,
    /// An application that was told of it did not want it.
    HookRefused,
    /// Its realm was taken out of the configuration.
    RealmRemoved,
    /// The server stops.
    Shutdown,
}

impl EndReason {
    /// Every reason, for metrics that start at zero.
    pub const ALL: &'static [Self] = &[
        Self::Released,
        Self::Expired,
        Self::ClientGone,
        Self::CredentialExpired,
        Self::MoveFailed,
        Self::Kicked,
        Self::Revoked,
        Self::HookRefused,
        Self::RealmRemoved,
        Self::Shutdown,
    ];

    /// The stable name used as a metric label and in logs.
    pub fn label(self) -> &'static str {
        match self {
            Self::Released => "released",
            Self::Expired => "expired",
            Self::ClientGone => "client-gone",
            Self::CredentialExpired => "credential-expired",
            Self::MoveFailed => "move-failed",
            Self::Kicked => "kicked",
            Self::Revoked => "revoked",
            Self::HookRefused => "hook-refused",
            Self::RealmRemoved => "realm-removed",
            Self::Shutdown => "shutdown",
        }
    }
}

/// What a frequent allocation must have carried, in both directions together, to be told of by itself: a second of audio.
const TOLD_FROM_BYTES: u64 = 10_000;

/// Whether an allocation gets lines and records of its own. Figures only grow: what is once told of stays so.
pub fn is_told_alone(is_frequent: bool, to_peers: Traffic, to_client: Traffic) -> bool {
    !is_frequent || to_peers.bytes.saturating_add(to_client.bytes) >= TOLD_FROM_BYTES
}

/// The one record of an ended allocation.
#[derive(Clone, Debug)]
pub struct AllocationSummary {
    /// The allocation.
    pub id: AllocationId,
    /// Its 5-tuple.
    pub five_tuple: FiveTuple,
    /// The whole username.
    pub username: Arc<str>,
    /// What quotas count on.
    pub user: User,
    /// Whether the user makes more allocations than are told of one by one.
    pub is_frequent: bool,
    /// The relayed transport addresses.
    pub relayed: Vec<RelayedAddr>,
    /// How long it lived, in microseconds.
    pub duration_micros: u64,
    /// Payload from client to peers.
    pub to_peers: Traffic,
    /// Payload from peers to client.
    pub to_client: Traffic,
    /// Payload packets dropped by bandwidth caps.
    pub throttled: u64,
    /// Why it ended.
    pub reason: EndReason,
}

/// What happened besides the direct answer; logs, metrics, usage records and a later XDP plane follow these.
#[derive(Clone, Debug)]
pub enum Event {
    /// An allocation was made.
    Allocated {
        /// The allocation.
        id: AllocationId,
        /// Its 5-tuple.
        five_tuple: FiveTuple,
        /// The whole username.
        username: Arc<str>,
        /// What quotas count on.
        user: User,
        /// Whether the user makes more allocations than are told of one by one.
        is_frequent: bool,
        /// Its relayed transport addresses: one, or one of each family.
        relayed: Vec<RelayedAddr>,
    },
    /// A client keeps its allocation at another 5-tuple (RFC 8016).
    Moved {
        /// The allocation.
        id: AllocationId,
        /// Its 5-tuple before.
        from: FiveTuple,
        /// Its 5-tuple now.
        five_tuple: FiveTuple,
        /// The whole username.
        username: Arc<str>,
        /// Whether the user's allocations move more often than is told of one by one.
        is_frequent: bool,
    },
    /// A channel was bound or refreshed: this route may be taken until `until_micros`.
    RouteBound {
        /// The allocation.
        id: AllocationId,
        /// The client's side.
        five_tuple: FiveTuple,
        /// The channel number.
        channel: u16,
        /// The relay.
        relay: RelayId,
        /// The peer.
        peer: PeerAddr,
        /// Until when, if nothing refreshes it.
        until_micros: u64,
    },
    /// A route is no more.
    RouteGone {
        /// The allocation.
        id: AllocationId,
        /// The channel number.
        channel: u16,
    },
    /// An allocation ended.
    Ended(Box<AllocationSummary>),
    /// A request was refused.
    Refused(Refusal),
    /// A loop was cut: see [`Server::cut_loop`](crate::Server::cut_loop).
    LoopCut {
        /// The allocation.
        id: AllocationId,
        /// Its user.
        user: User,
        /// Its client.
        client: ClientAddr,
        /// The peer that has lost its channel and permission.
        peer: PeerAddr,
    },
    /// A user was suspended.
    Suspended {
        /// Who, and until when.
        suspension: Suspension,
        /// The client whose request it was that made it so.
        client: ClientAddr,
    },
}
