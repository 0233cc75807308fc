//! One worker's relay sockets, in slots that the core knows by [`RelayId`].

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use super::reservations::Reservations;
use super::token::Token;
use crate::addr::{Family, RelayedAddr};
use crate::counters::Counters;
use crate::net::sys::{Descriptors, Epoll, Interest, kernel_drops};
use crate::net::{PortLease, RelayOwner, RelayPorts, bind_connected, bind_relay};
use crate::turn::slots::{SlotId, Slots};
use crate::turn::{OpenRelay, PortRequest, RelayError, RelayId, Relays, ReservationToken};
use crate::user::User;

/// Ports tried before giving up when other processes hold ports of the range.
const BIND_TRIES_MAX: usize = 512;
/// Datagrams in a row to one peer after which the relay gets a socket connected to it.
///
/// A connected socket saves a quarter of a microsecond per datagram and costs about eight to make.
const BUSY_AFTER: u32 = 64;
/// Datagrams taken from a relay socket at once, at most.
const DEPTH_MAX: u8 = 32;
/// Messages that one read should not bring many more of, each datagram being up to 64 that the kernel has coalesced.
const READ_MESSAGES: usize = 512;
/// Slots one worker can have; the owner table has 20 bits for it.
const SLOTS_MAX: u32 = 1 << 20;

/// A relay socket; dropping it closes the socket and gives the port back.
pub(super) struct RelaySocket {
    pub(super) relayed: RelayedAddr,
    socket: OwnedFd,
    /// The kernel's drops at it that have been counted.
    drops: u32,
    _lease: PortLease,
    pub(super) depth: Depth,
    waiting: Waiting,
    busy: Option<BusyPeer>,
    /// The peer that was sent to last, and how many datagrams in a row.
    last_peer: Option<SocketAddr>,
    in_a_row: u32,
}

/// The peer that gets most, and the socket connected to it.
struct BusyPeer {
    peer: SocketAddr,
    socket: OwnedFd,
    drops: u32,
    waiting: Waiting,
}

/// Whether a socket is in the list of those that wait for their turn, and whether its error queue does, too.
#[derive(Clone, Copy, Default)]
pub(super) struct Waiting {
    pub(super) is_listed: bool,
    pub(super) error: bool,
}

/// How many datagrams to ask a relay socket for.
#[derive(Clone, Copy)]
pub(super) struct Depth {
    next: u8,
    /// The most: fewer while each is a train of many that the kernel has coalesced.
    max: u8,
}

impl Default for Depth {
    fn default() -> Self {
        Self { next: 0, max: DEPTH_MAX }
    }
}

impl Depth {
    pub(super) fn next(self) -> usize {
        usize::from(self.next.clamp(2, self.max))
    }

    /// Takes note of a read that asked for `asked` datagrams and brought `count`, of `messages` in all.
    ///
    /// One more than there is shows the end; asking for many in vain costs.
    pub(super) fn note(&mut self, asked: usize, count: usize, messages: usize) {
        let each = messages.div_ceil(count.max(1)).max(1);
        let room = u8::try_from(READ_MESSAGES / each).unwrap_or(u8::MAX);
        self.max = room.min(self.max.saturating_add(1)).clamp(2, DEPTH_MAX);
        self.next = if count == asked { DEPTH_MAX } else { (count as u8).saturating_add(1) };
    }
}

impl RelaySocket {
    /// The socket connected to the busiest peer, if there is one, or the one for all others.
    pub(super) fn reading_fd(&self, busy: bool) -> Option<BorrowedFd<'_>> {
        if busy { self.busy.as_ref().map(|busy| busy.socket.as_fd()) } else { Some(self.socket.as_fd()) }
    }

    /// Whether one of the two sockets waits for its turn; `None` when there is no such socket.
    pub(super) fn waiting_mut(&mut self, busy: bool) -> Option<&mut Waiting> {
        if busy { self.busy.as_mut().map(|busy| &mut busy.waiting) } else { Some(&mut self.waiting) }
    }

    /// Takes over what the kernel reports of its drops at a socket; returns how many are new.
    pub(super) fn new_drops(&mut self, busy: bool, drops: u32) -> u32 {
        let counted = if busy { self.busy.as_mut().map(|busy| &mut busy.drops) } else { Some(&mut self.drops) };
        counted.map_or(0, |counted| drops.wrapping_sub(std::mem::replace(counted, drops)))
    }

    /// The socket to send to `peer` with, and whether it is connected to it.
    fn fd_towards(&self, peer: SocketAddr) -> (BorrowedFd<'_>, bool) {
        match &self.busy {
            Some(busy) if busy.peer == peer => (busy.socket.as_fd(), true),
            _ => (self.socket.as_fd(), false),
        }
    }

    /// Counts `datagrams` to `peer`; whether it has become worth a connected socket.
    fn has_become_busy(&mut self, peer: SocketAddr, datagrams: u16) -> bool {
        if self.busy.as_ref().is_some_and(|busy| busy.peer == peer) {
            return false;
        }
        if self.last_peer != Some(peer) {
            (self.last_peer, self.in_a_row) = (Some(peer), 0);
        }
        let before = self.in_a_row;
        self.in_a_row = before.saturating_add(u32::from(datagrams));
        before < BUSY_AFTER && self.in_a_row >= BUSY_AFTER
    }
}

impl BusyPeer {
    /// Drops that no datagram after them has reported.
    fn last_drops(&self) -> u32 {
        unreported(&self.socket, self.drops)
    }
}

fn unreported(socket: &OwnedFd, counted: u32) -> u32 {
    kernel_drops(socket.as_fd()).map_or(0, |drops| drops.wrapping_sub(counted))
}

/// All of a worker's relay sockets.
pub(super) struct RelaySockets {
    worker: u16,
    ports: Arc<RelayPorts>,
    reservations: Arc<Reservations>,
    fill_random: fn(&mut [u8]),
    relays: Slots<RelaySocket>,
    sockets: Sockets,
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
    pub(super) fn new(
        worker: u16,
        epoll: Arc<Epoll>,
        ports: Arc<RelayPorts>,
        reservations: Arc<Reservations>,
        counters: Arc<Counters>,
        fill_random: fn(&mut [u8]),
        descriptors: Descriptors,
    ) -> Self {
        let sockets = Sockets { epoll, descriptors, counters, busy: 0 };
        Self { worker, ports, reservations, fill_random, relays: Slots::default(), sockets }
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
        let relay = self.relays.get_mut(slot(id))?;
        if relay.has_become_busy(peer, datagrams) {
            self.sockets.connect_busy(relay, id, peer);
        }
        Some(relay.fd_towards(peer))
    }

    /// The relay socket of an id, unless it was closed.
    pub(super) fn get_mut(&mut self, id: RelayId) -> Option<&mut RelaySocket> {
        self.relays.get_mut(slot(id))
    }

    /// The relay socket of an id, unless it was closed.
    pub(super) fn get(&self, id: RelayId) -> Option<&RelaySocket> {
        self.relays.get(slot(id))
    }

    /// Binds a free port that `fits`, in random order; with `pair` also the port after it.
    fn bind_free(
        &self,
        family: Family,
        even: bool,
        pair: bool,
    ) -> Result<[Option<(OwnedFd, PortLease)>; 2], RelayError> {
        if !self.ports.supports(family) {
            return Err(RelayError::NoFamily);
        }
        if !self.ports.has_address(family) {
            return Err(RelayError::NoAddress);
        }
        let mut random = [0; 4];
        (self.fill_random)(&mut random);
        let mut tries = 0;
        for port in self.ports.candidates(family, u32::from_ne_bytes(random)) {
            if even && port % 2 != 0 {
                continue;
            }
            let Some(lease) = self.ports.claim(family, port) else { continue };
            let next = if pair { port.checked_add(1).and_then(|port| self.ports.claim(family, port)) } else { None };
            if pair && next.is_none() {
                continue;
            }
            let bound = self
                .sockets
                .bind(lease)
                .and_then(|first| Ok([Some(first), next.map(|lease| self.sockets.bind(lease)).transpose()?]));
            match bound {
                Ok(sockets) => return Ok(sockets),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && tries < BIND_TRIES_MAX => tries += 1,
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(RelayError::NoPort),
                Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => return Err(RelayError::NoAddress),
                Err(_) => return Err(RelayError::System),
            }
        }
        Err(RelayError::NoPort)
    }

    /// Puts a bound socket into a slot and makes it known.
    fn install(&mut self, socket: OwnedFd, lease: PortLease) -> Result<OpenRelay, RelayError> {
        let relayed = RelayedAddr::new(lease.external_address());
        let SlotId { index, generation } = self.relays.next_id();
        if index >= SLOTS_MAX {
            return Err(RelayError::System);
        }
        let id = RelayId { index, generation };
        let watched = self.sockets.epoll.add(socket.as_fd(), Token::Relay(id).pack(), Interest::ReadEdge);
        watched.map_err(|_| RelayError::System)?;
        lease.set_owner(RelayOwner { worker: self.worker, index, generation });
        self.relays.insert(RelaySocket {
            relayed,
            socket,
            drops: 0,
            _lease: lease,
            depth: Depth::default(),
            waiting: Waiting::default(),
            busy: None,
            last_peer: None,
            in_a_row: 0,
        });
        Ok(OpenRelay { id, relayed, reservation: None })
    }
}

impl Sockets {
    fn bind(&self, lease: PortLease) -> io::Result<(OwnedFd, PortLease)> {
        Ok((self.descriptors.admit(bind_relay(lease.bind_address())?)?, lease))
    }

    /// Gives a relay a socket connected to its busiest peer. That it cannot be had costs nothing but the gain.
    #[cold]
    fn connect_busy(&mut self, relay: &mut RelaySocket, id: RelayId, peer: SocketAddr) {
        if relay.busy.is_none() && self.busy as u64 >= self.descriptors.busy_sockets {
            return;
        }
        let mut waiting = Waiting::default();
        if let Some(before) = relay.busy.take() {
            self.busy -= 1;
            self.counters.relay_drops.add(u64::from(before.last_drops()));
            // The list names the relay and not the socket.
            waiting = before.waiting;
        }
        let socket = bind_connected(&relay.socket, peer).and_then(|socket| self.descriptors.admit(socket));
        let watched = socket.and_then(|socket| {
            self.epoll.add(socket.as_fd(), Token::BusyPeer(id).pack(), Interest::ReadEdge)?;
            Ok(socket)
        });
        if let Ok(socket) = watched {
            relay.busy = Some(BusyPeer { peer, socket, drops: 0, waiting });
            self.busy += 1;
        }
    }

    /// Counts what the kernel has dropped at a relay that is about to be closed.
    fn note_closed(&mut self, relay: &RelaySocket) {
        self.busy -= usize::from(relay.busy.is_some());
        let busy_drops = relay.busy.as_ref().map_or(0, BusyPeer::last_drops);
        let drops = unreported(&relay.socket, relay.drops);
        self.counters.relay_drops.add(u64::from(drops) + u64::from(busy_drops));
    }
}

impl Relays for RelaySockets {
    fn supports(&self, family: Family) -> bool {
        self.ports.supports(family)
    }

    fn open(&mut self, now_micros: u64, family: Family, port: PortRequest<'_>) -> Result<OpenRelay, RelayError> {
        let user = match port {
            PortRequest::Any | PortRequest::Even => None,
            PortRequest::EvenAndReserveNext { user, per_user_max } => {
                self.reservations.check_room(now_micros, user, per_user_max)?;
                Some(user)
            }
        };
        let [first, next] = self.bind_free(family, port != PortRequest::Any, user.is_some())?;
        let (socket, lease) = first.ok_or(RelayError::System)?;
        let mut open = self.install(socket, lease)?;
        if let (Some(user), Some((socket, lease))) = (user, next) {
            let mut token = ReservationToken::default();
            (self.fill_random)(&mut token);
            self.reservations.hold(now_micros, token, user, socket, lease);
            open.reservation = Some(token);
        }
        Ok(open)
    }

    fn open_reserved(
        &mut self,
        now_micros: u64,
        token: ReservationToken,
        user: &User,
    ) -> Result<OpenRelay, RelayError> {
        let reserved = self.reservations.redeem(now_micros, token, user).ok_or(RelayError::UnknownToken)?;
        self.install(reserved.socket, reserved.lease)
    }

    fn close(&mut self, relay: RelayId) {
        if let Some(closed) = self.relays.remove(slot(relay)) {
            self.sockets.note_closed(&closed);
        }
    }
}

/// Where the relay of an id is.
fn slot(RelayId { index, generation }: RelayId) -> SlotId {
    SlotId { index, generation }
}

#[cfg(test)]
mod tests {
    use super::super::random::fill_from_system;
    use super::*;
    use std::net::{IpAddr, UdpSocket};

    /// The relay sockets of one address of this host, which no other test uses.
    fn relays(ip: &str, ports: (u16, u16), busy_sockets: u64, fill_random: fn(&mut [u8])) -> RelaySockets {
        let ip: IpAddr = ip.parse().unwrap();
        let mut descriptors = Descriptors::share_out(1 << 16, 0, 1000, 0);
        descriptors.busy_sockets = busy_sockets;
        RelaySockets::new(
            0,
            Arc::new(Epoll::new().unwrap()),
            RelayPorts::new(Some((ip, ip)), None, ports),
            Arc::new(Reservations::new(10)),
            Arc::default(),
            fill_random,
            descriptors,
        )
    }

    /// Sockets of somebody else.
    fn foreign(ip: &str, ports: impl Iterator<Item = u16>) -> Vec<UdpSocket> {
        ports.map(|port| UdpSocket::bind((ip, port)).unwrap()).collect()
    }

    #[test]
    fn ports_that_other_programs_hold_are_passed_over_and_given_back() {
        const IP: &str = "127.77.1.1";
        let mut relays = relays(IP, (20_000, 20_039), 0, fill_from_system);
        let mut others = foreign(IP, (20_000..=20_039).filter(|port| *port != 20_021));
        let open =
            |relays: &mut RelaySockets, port| relays.open(0, Family::V4, port).map(|open| open.relayed.get().port());
        assert_eq!(open(&mut relays, PortRequest::Any), Ok(20_021));
        for port in [PortRequest::Any, PortRequest::Even] {
            assert_eq!(open(&mut relays, port), Err(RelayError::NoPort));
        }
        assert_eq!(relays.ports.used(Family::V4), 1, "the ports that were tried are not held");
        // Of a pair, both have to be free.
        let user = User::fixed("ann");
        let pair = PortRequest::EvenAndReserveNext { user: &user, per_user_max: None };
        drop(others.remove(10));
        assert_eq!(open(&mut relays, pair), Err(RelayError::NoPort));
        drop(others.remove(10));
        assert_eq!(open(&mut relays, pair), Ok(20_010));
        assert_eq!(relays.ports.used(Family::V4), 3);
    }

    #[test]
    fn the_search_among_ports_that_other_programs_hold_has_an_end() {
        const IP: &str = "127.77.1.2";
        // With this random number, ports are tried in their order.
        let mut relays = relays(IP, (20_000, 20_999), 0, |random| random.fill(0));
        let mut others = foreign(IP, (20_000..).take(BIND_TRIES_MAX + 1));
        assert_eq!(relays.open(0, Family::V4, PortRequest::Any), Err(RelayError::NoPort));
        others.pop();
        let open = relays.open(0, Family::V4, PortRequest::Any).unwrap();
        assert_eq!(usize::from(open.relayed.get().port()), 20_000 + BIND_TRIES_MAX);
    }

    #[test]
    fn no_more_relays_than_allowed_have_a_socket_for_their_busiest_peer() {
        let mut relays = relays("127.77.1.3", (20_000, 20_009), 1, fill_from_system);
        let peers = [(); 2].map(|()| UdpSocket::bind("127.77.1.3:0").unwrap().local_addr().unwrap());
        let [first, second] = [(); 2].map(|()| relays.open(0, Family::V4, PortRequest::Any).unwrap().id);
        let mut connected = |id, peer, count| relays.towards(id, peer, count).unwrap().1;
        assert!(!connected(first, peers[0], BUSY_AFTER as u16 - 1) && connected(first, peers[0], 1));
        assert!(!connected(second, peers[0], 64) && !connected(second, peers[0], 64));
        // Another peer gets it in place of the first.
        assert!(connected(first, peers[1], 64) && !connected(first, peers[0], 1));
        relays.close(first);
        assert!(relays.towards(first, peers[1], 64).is_none());
        assert!(relays.towards(second, peers[1], 64).unwrap().1, "there is room again");
        assert_eq!(relays.sockets.busy, 1);
    }
}
