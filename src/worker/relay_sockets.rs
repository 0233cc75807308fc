//! One worker's relay sockets, in slots that the core knows by [`RelayId`].

mod opening;

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use super::WorkerListener;
use super::peak::Peak;
use super::relay_socket::{Read, RelaySocket, Waiting};
use super::reservations::Reservations;
use super::shared_sockets::{Place, SharedPort, SharedSockets};
use super::tcp_relays::TcpRelays;
use super::token::Token;
use crate::addr::{Family, FiveTuple, PeerAddr, SocketKind};
use crate::clock::Now;
use crate::config::RelayChoice;
use crate::counters::Counters;
use crate::net::sys::{Descriptors, Epoll, Interest};
use crate::net::{AddressPorts, PortLease, RelayAddresses, RelayOwner, RelayPorts, bind_relay, bind_shared_relay};
use crate::turn::slots::Slots;
use crate::turn::{OpenRelay, PortRequest, RelayError, RelayId, ReservationToken};

/// Ports tried before giving up when other processes hold ports of the range.
const BIND_TRIES_MAX: usize = 512;
/// Slots one worker can have; the owner table has 20 bits for it.
const SLOTS_MAX: u32 = 1 << 20;

/// All of a worker's relay sockets.
pub(super) struct RelaySockets {
    worker: u16,
    ports: Arc<RelayPorts>,
    reservations: Arc<Reservations>,
    fill_random: fn(&mut [u8]),
    relays: Slots<RelaySocket>,
    tcp: TcpRelays,
    sockets: Sockets,
    /// The relay addresses of this process, this worker's and the others'.
    addresses: RelayAddresses,
    /// Those that may have more to read, and wait for their turn.
    waiting: VecDeque<Turn>,
    peak: Peak,
    /// Whether peers on this host's loopback are allowed.
    loopback_peers: bool,
    choice: RelayChoice,
    by_listener: Vec<ListenerRelays>,
    /// The ports that this worker's allocations share, if they do.
    shared: Option<SharedSockets>,
}

/// What relay sockets are made from.
pub(super) struct RelaySources {
    pub(super) ports: Arc<RelayPorts>,
    pub(super) reservations: Arc<Reservations>,
    pub(super) descriptors: Descriptors,
    pub(super) fill_random: fn(&mut [u8]),
    /// Whether peers on this host's loopback are allowed.
    pub(super) loopback_peers: bool,
    /// Which of several addresses.
    pub(super) choice: RelayChoice,
    /// The listeners whose clients have relay addresses of their own.
    pub(super) by_listener: Vec<ListenerRelays>,
    /// How many workers there are, if allocations share the ports that each of them has.
    pub(super) sharing_workers: Option<u16>,
}

/// The relay addresses of one listener's clients.
pub(super) struct ListenerRelays {
    kind: SocketKind,
    address: SocketAddr,
    relays: Arc<[IpAddr]>,
}

impl ListenerRelays {
    /// What a listener says; `None` when its clients get what all get.
    pub(super) fn of(listener: &WorkerListener) -> Option<Self> {
        let kind = listener.transports.first()?.socket_kind();
        let relays = &listener.options.relay;
        (!relays.is_empty()).then(|| Self { kind, address: listener.address, relays: relays.as_slice().into() })
    }

    fn is_of(&self, five_tuple: &FiveTuple) -> bool {
        let server = five_tuple.server;
        let is_same_ip = self.address.ip() == server.ip()
            || (self.address.ip().is_unspecified() && self.address.is_ipv4() == server.is_ipv4());
        five_tuple.transport.socket_kind() == self.kind && server.port() == self.address.port() && is_same_ip
    }
}

fn has_family(relays: &[IpAddr], family: Family) -> bool {
    relays.iter().any(|ip| Family::of(*ip) == family)
}

/// One of a relay's two sockets, to be read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn {
    pub(super) id: RelayId,
    /// The one that is connected to the busiest peer.
    pub(super) busy: bool,
    /// Its error queue, too.
    pub(super) error: bool,
}

/// What opening and closing a socket takes.
struct Sockets {
    epoll: Arc<Epoll>,
    descriptors: Descriptors,
    counters: Arc<Counters>,
    /// Relays that have a socket connected to their busiest peer.
    busy: usize,
}

impl RelaySockets {
    pub(super) fn new(worker: u16, epoll: Arc<Epoll>, counters: Arc<Counters>, from: RelaySources) -> Self {
        let RelaySources {
            ports,
            reservations,
            descriptors,
            fill_random,
            loopback_peers,
            choice,
            by_listener,
            sharing_workers,
        } = from;
        Self {
            worker,
            addresses: ports.addresses(),
            ports,
            reservations,
            fill_random,
            relays: Slots::default(),
            tcp: TcpRelays::new(Arc::clone(&epoll), descriptors, Arc::clone(&counters), loopback_peers),
            sockets: Sockets { epoll, descriptors, counters, busy: 0 },
            waiting: VecDeque::new(),
            peak: Peak::default(),
            loopback_peers,
            choice,
            by_listener,
            shared: sharing_workers.map(|workers| SharedSockets::new(worker, workers)),
        }
    }

    /// Whether allocations share their ports.
    #[inline]
    pub(super) fn shares_ports(&self) -> bool {
        self.shared.is_some()
    }

    /// The number of this worker.
    pub(super) fn worker(&self) -> u16 {
        self.worker
    }

    /// Who has a relayed transport address of this process.
    pub(super) fn owner(&mut self, relayed: SocketAddr) -> Option<RelayOwner> {
        self.addresses.owner(relayed)
    }

    /// Whether a datagram that came from this address was sent by a relay of this process.
    pub(super) fn sent(&mut self, source: SocketAddr) -> bool {
        self.addresses.sent(source)
    }

    /// Whether a relayed address that nobody has may be another program's.
    pub(super) fn may_be_foreign(&self, peer: PeerAddr) -> bool {
        self.loopback_peers && peer.ip().is_loopback()
    }

    /// Whether it is a socket's turn that has become readable: not if it waits already, or is no more.
    pub(super) fn is_next(&mut self, turn: Turn) -> bool {
        let Some(waiting) = self.waiting_mut(turn) else { return false };
        waiting.error |= turn.error && waiting.is_listed;
        !waiting.is_listed
    }

    /// Lets a socket wait for its turn; one that waits already keeps its place.
    pub(super) fn wait_for_turn(&mut self, turn: Turn) {
        let Some(waiting) = self.waiting_mut(turn) else { return };
        waiting.error |= turn.error;
        if !std::mem::replace(&mut waiting.is_listed, true) {
            self.waiting.push_back(turn);
        }
    }

    /// How many wait for their turn.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The socket whose turn it is, unless it has been closed meanwhile.
    pub(super) fn next_turn(&mut self) -> Option<Turn> {
        let turn = self.waiting.pop_front()?;
        let error = std::mem::take(self.waiting_mut(turn)?).error;
        Some(Turn { error, ..turn })
    }

    /// Takes note of what a read has brought.
    pub(super) fn note_read(&mut self, id: RelayId, busy: bool, read: Read) {
        let drops = self.get_mut(id).map_or(0, |relay| relay.note_read(busy, read));
        if drops > 0 {
            self.sockets.counters.relay_drops.add(u64::from(drops));
        }
    }

    fn waiting_mut(&mut self, turn: Turn) -> Option<&mut Waiting> {
        self.get_mut(turn.id)?.waiting_mut(turn.busy)
    }

    /// The TCP relays and their connections.
    pub(super) fn tcp(&mut self) -> &mut TcpRelays {
        &mut self.tcp
    }

    /// Whether a TCP relay or one of its connections waits for its turn.
    pub(super) fn has_tcp_waiting(&self) -> bool {
        self.tcp.has_waiting()
    }

    /// The relayed address behind the address that a connection has come from, if that is a TCP relay of ours.
    pub(super) fn tcp_relayed_at(&mut self, source: SocketAddr) -> SocketAddr {
        self.addresses.tcp_relayed_at(source).unwrap_or(source)
    }

    /// Gives expired reservations back, and lets connections have their turn whose time has come.
    pub(super) fn on_time(&mut self, now: Now) {
        self.reservations.sweep(now.micros);
        self.tcp.on_time(now.micros);
    }

    /// When [`Self::on_time`] has something to do.
    pub(super) fn next_timeout(&self) -> Option<u64> {
        self.reservations.next_expiry().into_iter().chain(self.tcp.next_timeout()).min()
    }

    /// Whether there is memory worth giving back after a peak, now that there are `allocations`.
    pub(super) fn is_past_peak(&mut self, allocations: usize) -> bool {
        self.peak.note(allocations);
        self.peak.is_over(self.slots(), allocations)
    }

    /// Slots there are, in use or not.
    pub(super) fn slots(&self) -> usize {
        self.relays.slots()
    }

    /// Gives memory back after a peak.
    pub(super) fn shrink(&mut self) {
        self.relays.shrink();
    }

    /// The socket for `datagrams` from a relay to a peer, and whether it is connected to it; `None` when the relay has been closed
    /// since they were gathered, and they are lost with it.
    pub(super) fn towards(&mut self, id: RelayId, peer: SocketAddr, datagrams: u16) -> Option<(BorrowedFd<'_>, bool)> {
        let relay = self.relays.get_mut(id.into())?;
        if relay.has_become_busy(peer, datagrams) {
            self.sockets.connect_busy(relay, id, peer);
        }
        Some(relay.fd_towards(peer))
    }

    /// The relay socket of an id, unless it was closed.
    fn get_mut(&mut self, id: RelayId) -> Option<&mut RelaySocket> {
        self.relays.get_mut(id.into())
    }

    /// The relay socket of an id, unless it was closed.
    pub(super) fn get(&self, id: RelayId) -> Option<&RelaySocket> {
        self.relays.get(id.into())
    }

    /// Binds a free port in random order, at the least used of the addresses that `may_be` holds for; with `pair` also the port after it.
    fn bind_free(
        &self,
        family: Family,
        (even, pair): (bool, bool),
        may_be: impl Fn(IpAddr, IpAddr) -> bool,
    ) -> Result<[Option<(OwnedFd, PortLease)>; 2], RelayError> {
        if !self.ports.supports(family) {
            return Err(RelayError::NoFamily);
        }
        if !self.ports.has_address(family) {
            return Err(RelayError::NoAddress);
        }
        let mut random = [0; 4];
        (self.fill_random)(&mut random);
        let random = u32::from_ne_bytes(random);
        let mut tries = 0;
        let mut failure = RelayError::NoFamily;
        for address in self.ports.least_used(family, random, may_be) {
            match self.bind_at(&address, random, (even, pair), &mut tries) {
                Err(error @ (RelayError::NoPort | RelayError::NoAddress)) => failure = error,
                bound => return bound,
            }
        }
        Err(failure)
    }

    /// The same at one address.
    fn bind_at(
        &self,
        address: &AddressPorts,
        random: u32,
        (even, pair): (bool, bool),
        tries: &mut usize,
    ) -> Result<[Option<(OwnedFd, PortLease)>; 2], RelayError> {
        for port in address.candidates(random) {
            if even && port % 2 != 0 {
                continue;
            }
            let Some(lease) = address.claim(port) else { continue };
            let next = if pair { port.checked_add(1).and_then(|port| address.claim(port)) } else { None };
            if pair && next.is_none() {
                continue;
            }
            let bound = self
                .sockets
                .bind(lease)
                .and_then(|first| Ok([Some(first), next.map(|lease| self.sockets.bind(lease)).transpose()?]));
            match bound {
                Ok(sockets) => return Ok(sockets),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && *tries < BIND_TRIES_MAX => *tries += 1,
                Err(error) => return Err(bind_error(&error)),
            }
        }
        Err(RelayError::NoPort)
    }

    /// Opens a relay at one of the addresses that `may_be` holds for.
    fn open_at(
        &mut self,
        now_micros: u64,
        family: Family,
        port: PortRequest<'_>,
        may_be: impl Fn(IpAddr, IpAddr) -> bool,
    ) -> Result<OpenRelay, RelayError> {
        if self.shared.is_some() {
            return self.open_shared(family, port, may_be);
        }
        let user = match port {
            PortRequest::Any | PortRequest::Even => None,
            PortRequest::EvenAndReserveNext { user, per_user_max } => {
                self.reservations.check_room(now_micros, user, per_user_max)?;
                Some(user)
            }
        };
        let [first, next] = self.bind_free(family, (port != PortRequest::Any, user.is_some()), may_be)?;
        let (socket, lease) = first.ok_or(RelayError::System)?;
        let mut open = self.install(RelaySocket::new(socket, lease))?;
        if let (Some(user), Some((socket, lease))) = (user, next) {
            let mut token = ReservationToken::default();
            (self.fill_random)(&mut token);
            self.reservations.hold(now_micros, token, user, socket, lease);
            open.reservation = Some(token);
        }
        Ok(open)
    }

    /// Opens a share of the least used port that this worker has at one of the addresses that `may_be` holds for.
    fn open_shared(
        &mut self,
        family: Family,
        port: PortRequest<'_>,
        may_be: impl Fn(IpAddr, IpAddr) -> bool,
    ) -> Result<OpenRelay, RelayError> {
        if port != PortRequest::Any {
            return Err(RelayError::SharedPorts);
        }
        if !self.ports.supports(family) {
            return Err(RelayError::NoFamily);
        }
        if !self.ports.has_address(family) {
            return Err(RelayError::NoAddress);
        }
        let mut random = [0; 4];
        (self.fill_random)(&mut random);
        let addresses = self.ports.least_used(family, u32::from_ne_bytes(random), may_be);
        let Some(shared) = &self.shared else { return Err(RelayError::SharedPorts) };
        let mut failure = if addresses.is_empty() { RelayError::NoFamily } else { RelayError::NoPort };
        for place in shared.places(&addresses, u32::from_ne_bytes(random)) {
            let is_open = self.shared.as_ref().is_some_and(|shared| shared.is_open(place));
            match if is_open { Ok(()) } else { self.open_port(&addresses, place) } {
                Ok(()) => return self.install_share(place),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// Opens a port for allocations to share.
    fn open_port(&mut self, addresses: &[AddressPorts], place: Place) -> Result<(), RelayError> {
        let address = addresses.iter().find(|address| address.bind() == place.0);
        let lease = address.and_then(|address| address.claim(place.1)).ok_or(RelayError::NoPort)?;
        let socket = bind_shared_relay(lease.bind_address()).and_then(|socket| self.sockets.descriptors.admit(socket));
        let (relay, socket) = RelaySocket::shared(socket.map_err(|error| bind_error(&error))?, lease);
        let relayed = relay.relayed();
        let id = self.install(relay)?.id;
        if let Some(shared) = &mut self.shared {
            shared.add(place, SharedPort { id, relayed, socket, shares: 0 });
        }
        Ok(())
    }

    fn install_share(&mut self, place: Place) -> Result<OpenRelay, RelayError> {
        let id = self.next_id()?;
        let share = self.shared.as_mut().and_then(|shared| shared.share(place, id));
        let (relayed, socket) = share.ok_or(RelayError::System)?;
        self.relays.insert(RelaySocket::share(relayed, socket));
        Ok(OpenRelay { id, relayed, reservation: None })
    }

    /// Takes a relay out, with its sockets and its port, for [`Self::take_over`] by another worker. What has arrived at its sockets
    /// and is not read yet goes along; what is gathered to be sent from it is not: give it away after a flush. What other workers hand over
    /// for it goes to worker `to` from now on. `None` for one whose port other allocations share, which stays where it is.
    pub(super) fn give_away(&mut self, id: RelayId, to: u16) -> Option<RelaySocket> {
        if self.get(id)?.is_shared() {
            return None;
        }
        let mut relay = self.relays.remove(id.into())?;
        self.sockets.busy -= usize::from(relay.has_busy());
        for busy in [false, true] {
            if let Some(waiting) = relay.waiting_mut(busy) {
                // Its turn, if it waits for one here, finds nothing.
                *waiting = Waiting::default();
            }
            if let Some(socket) = relay.reading_fd(busy) {
                let _ = self.sockets.epoll.remove(socket);
            }
        }
        // Its slot there is not known yet; whoever has payload for it asks anew there.
        if let Some(lease) = relay.lease() {
            lease.set_owner(RelayOwner { worker: to, index: SLOTS_MAX - 1, generation: u32::MAX });
        }
        Some(relay)
    }

    /// Goes on with a relay that another worker has given away. Where it cannot be had, it is closed.
    pub(super) fn take_over(&mut self, mut relay: RelaySocket) -> Result<OpenRelay, RelayError> {
        let (id, busy_token) = (self.next_id()?, |id| Token::BusyPeer(id).pack());
        if let Some(socket) = relay.reading_fd(true) {
            let watched = self.sockets.epoll.add(socket, busy_token(id), Interest::ReadEdge);
            self.sockets.busy += 1;
            if watched.is_err() {
                self.sockets.note_closed(&relay);
                let _ = relay.close_busy();
                return Err(RelayError::System);
            }
        }
        self.install(relay)
    }

    fn next_id(&self) -> Result<RelayId, RelayError> {
        let id = RelayId::from(self.relays.next_id());
        if id.index >= SLOTS_MAX { Err(RelayError::System) } else { Ok(id) }
    }

    /// Puts a relay into a slot and makes it known.
    fn install(&mut self, relay: RelaySocket) -> Result<OpenRelay, RelayError> {
        let (id, relayed) = (self.next_id()?, relay.relayed());
        let watched = relay
            .reading_fd(false)
            .map(|socket| self.sockets.epoll.add(socket, Token::Relay(id).pack(), Interest::ReadEdge));
        if !matches!(watched, Some(Ok(()))) {
            self.sockets.note_closed(&relay);
            return Err(RelayError::System);
        }
        if let Some(lease) = relay.lease() {
            lease.set_owner(RelayOwner { worker: self.worker, index: id.index, generation: id.generation });
        }
        self.relays.insert(relay);
        Ok(OpenRelay { id, relayed, reservation: None })
    }
}

fn bind_error(error: &io::Error) -> RelayError {
    match error.kind() {
        io::ErrorKind::AddrInUse => RelayError::NoPort,
        io::ErrorKind::AddrNotAvailable => RelayError::NoAddress,
        _ => RelayError::System,
    }
}

impl Sockets {
    fn bind(&self, lease: PortLease) -> io::Result<(OwnedFd, PortLease)> {
        Ok((self.descriptors.admit(bind_relay(lease.bind_address())?)?, lease))
    }

    /// Gives a relay a socket connected to its busiest peer. That it cannot be had costs nothing but the gain.
    #[cold]
    fn connect_busy(&mut self, relay: &mut RelaySocket, id: RelayId, peer: SocketAddr) {
        if !relay.has_busy() && self.busy as u64 >= self.descriptors.busy_sockets {
            return;
        }
        let mut waiting = Waiting::default();
        if let Some((drops, waited)) = relay.close_busy() {
            self.busy -= 1;
            self.counters.relay_drops.add(u64::from(drops));
            waiting = waited;
        }
        let socket = relay.connected_to(peer).and_then(|socket| self.descriptors.admit(socket));
        let watched = socket.and_then(|socket| {
            self.epoll.add(socket.as_fd(), Token::BusyPeer(id).pack(), Interest::ReadEdge)?;
            Ok(socket)
        });
        if let Ok(socket) = watched {
            relay.set_busy(peer, socket, waiting);
            self.busy += 1;
        }
    }

    /// Counts what the kernel has dropped at a relay that is about to be closed.
    fn note_closed(&mut self, relay: &RelaySocket) {
        self.busy -= usize::from(relay.has_busy());
        self.counters.relay_drops.add(u64::from(relay.last_drops()));
    }
}

#[cfg(test)]
mod tests;
