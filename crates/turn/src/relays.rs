//! The relay sockets, as the core sees them: a trait the worker implements, and a fake in tests.

use thiserror::Error;

use crate::addr::{Family, FiveTuple, PeerAddr, RelayedAddr};
use crate::slots::SlotId;
use crate::user::User;

use super::connection_ids::ConnectionId;

/// A relay socket of this worker. `index` is small and dense, so that tables can be indexed by it: keep the sockets in
/// [`Slots`](crate::slots::Slots).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RelayId {
    /// The slot.
    pub index: u32,
    /// Counts the uses of the slot, so that a late event of an earlier use is recognised.
    pub generation: u32,
}

impl From<SlotId> for RelayId {
    fn from(SlotId { index, generation }: SlotId) -> Self {
        Self { index, generation }
    }
}

impl From<RelayId> for SlotId {
    fn from(RelayId { index, generation }: RelayId) -> Self {
        Self { index, generation }
    }
}

/// One of our own relays, as the sender of a payload to a relay whose port is shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnSender {
    /// The worker that has it, if that is another one than has the receiver.
    pub worker: Option<u16>,
    /// The relay.
    pub relay: RelayId,
}

impl OwnSender {
    /// Whether it is this relay of the receiver's worker.
    pub(super) fn is_here(self, relay: RelayId) -> bool {
        self.worker.is_none() && self.relay == relay
    }
}

/// The value of RESERVATION-TOKEN (RFC 8656 section 18.10), from the CSPRNG.
pub type ReservationToken = [u8; 8];

/// Which port the allocation asks for (RFC 8656 section 7.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortRequest<'a> {
    /// Any.
    Any,
    /// EVEN-PORT with R = 0.
    Even,
    /// EVEN-PORT with R = 1: also reserve the next port for 30 seconds, for the same user.
    EvenAndReserveNext {
        /// The user who may redeem the token.
        user: &'a User,
        /// How many reservations the user may have; `None` is unlimited.
        per_user_max: Option<u32>,
    },
}

/// A relay socket that was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenRelay {
    /// Its id, until [`Relays::close`].
    pub id: RelayId,
    /// The relayed transport address that clients and peers see.
    pub relayed: RelayedAddr,
    /// The token of the reserved next port, for [`PortRequest::EvenAndReserveNext`].
    pub reservation: Option<ReservationToken>,
}

/// Why no relay socket could be opened, and the error code that the client gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RelayError {
    /// No relay address of that family is configured: 440.
    #[error("no relay address of the family is configured")]
    NoFamily,
    /// No free port: 508.
    #[error("no port is free")]
    NoPort,
    /// The user has as many reservations as allowed: 486.
    #[error("the user has as many reservations as allowed")]
    UserReservations,
    /// As many ports are reserved as may be: 508.
    #[error("as many ports are reserved as may be")]
    NoReservation,
    /// The token is unknown, expired, or another user's: 508.
    #[error("the token is unknown, expired, or another user's")]
    UnknownToken,
    /// EVEN-PORT, or a reservation, where allocations share their ports: 508.
    #[error("allocations share their ports")]
    SharedPorts,
    /// The family has no relay address at this moment: 508.
    #[error("the family has no relay address at this moment")]
    NoAddress,
    /// The operating system refused, e.g. no file descriptor left: 508.
    #[error("the operating system refused")]
    System,
}

/// Why a connection to a peer was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ConnectError {
    /// The peer refused it or cannot be reached: 447.
    #[error("the peer refused the connection or cannot be reached")]
    Failed,
    /// The operating system has no socket left for it: 508.
    #[error("the operating system refused")]
    System,
}

/// Opens and closes relay sockets. Dropping a socket gives its port back.
pub trait Relays {
    /// Whether a relay address of this family is configured.
    fn supports(&self, family: Family) -> bool;

    /// Opens a relay socket on a random port of the range.
    ///
    /// # Errors
    /// See [`RelayError`].
    fn open(&mut self, now_micros: u64, family: Family, port: PortRequest<'_>) -> Result<OpenRelay, RelayError>;

    /// The same for a client: which of several relay addresses it gets can depend on where it has come to. By default it does not.
    ///
    /// # Errors
    /// See [`RelayError`].
    fn open_for(
        &mut self,
        five_tuple: &FiveTuple,
        now_micros: u64,
        family: Family,
        port: PortRequest<'_>,
    ) -> Result<OpenRelay, RelayError> {
        let _ = five_tuple;
        self.open(now_micros, family, port)
    }

    /// Opens the reserved port of a token; tokens work on any worker. By default no token is known, which is right where
    /// [`Self::open`] refuses [`PortRequest::EvenAndReserveNext`] with [`RelayError::NoReservation`].
    ///
    /// # Errors
    /// [`RelayError::UnknownToken`].
    fn open_reserved(
        &mut self,
        now_micros: u64,
        token: ReservationToken,
        user: &User,
    ) -> Result<OpenRelay, RelayError> {
        let _ = (now_micros, token, user);
        Err(RelayError::UnknownToken)
    }

    /// The socket that a relay shares with others, by the id under which what comes to it is handed to
    /// [`Server::route_from_peer`](crate::Server::route_from_peer); `None` for one that has its own, as all have by default. The server
    /// then tells by the peer whose a datagram is, and wants to know what is sent ([`Server::note_sent`](crate::Server::note_sent)), and
    /// which relay of ours sends to another one ([`Server::route_from_own`](crate::Server::route_from_own)).
    fn shared_port(&self, relay: RelayId) -> Option<RelayId> {
        let _ = relay;
        None
    }

    /// Closes a relay socket and gives its port back.
    fn close(&mut self, relay: RelayId);

    /// Opens a TCP relay (RFC 6062): a socket that listens on a random port of the range, for this client. Its ids are apart from those of other relays.
    /// Only asked where the settings offer TCP relays.
    ///
    /// # Errors
    /// See [`RelayError`].
    fn open_tcp(&mut self, client: &FiveTuple, family: Family) -> Result<OpenRelay, RelayError> {
        let _ = (client, family);
        Err(RelayError::System)
    }

    /// Closes a TCP relay and gives its port back. Its connections are closed before.
    fn close_tcp(&mut self, relay: RelayId) {
        let _ = relay;
    }

    /// Begins a connection from a TCP relay's address to a peer; [`Server::connected`](crate::Server::connected) is told how it ends, but
    /// not from here. `own_relay`: the address is in the range of our own relays, which others on this host listen in, too; only a TCP
    /// relay of ours may be connected to there.
    ///
    /// # Errors
    /// [`ConnectError`], if that is certain at once.
    fn connect(
        &mut self,
        relay: RelayId,
        connection: ConnectionId,
        peer: PeerAddr,
        own_relay: bool,
    ) -> Result<(), ConnectError> {
        let _ = (relay, connection, peer, own_relay);
        Err(ConnectError::System)
    }

    /// Closes a connection to a peer, bound or not, and the client's side of it. [`Server`](crate::Server) is not told of its end.
    fn disconnect(&mut self, connection: ConnectionId) {
        let _ = connection;
    }
}
