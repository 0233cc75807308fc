//! One worker's relay sockets, in slots that the core knows by [`RelayId`].

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use super::plan::RunHint;
use super::reservations::Reservations;
use super::token::Token;
use crate::addr::{Family, RelayedAddr};
use crate::net::sys::{Epoll, Interest};
use crate::net::{OwnRelays, PortLease, RelayOwner, bind_relay};
use crate::turn::{OpenRelay, PortRequest, RelayError, RelayId, Relays, ReservationToken};

/// Ports tried before giving up when other processes hold ports of the range.
const BIND_TRIES_MAX: usize = 512;
/// Slots one worker can have; the owner table has 20 bits for it.
const SLOTS_MAX: usize = 1 << 20;

/// A relay socket; dropping it closes the socket and gives the port back.
pub(super) struct RelaySocket {
    pub(super) relayed: RelayedAddr,
    socket: OwnedFd,
    _lease: PortLease,
    /// The open run towards a peer, and the one towards the client.
    pub(super) to_peer: RunHint,
    pub(super) to_client: RunHint,
    /// How many datagrams the last read found; the next one asks for a few more.
    pub(super) depth: u8,
}

impl RelaySocket {
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Takes the socket's pending error, if there is one.
    pub(super) fn clear_error(&self) {
        let _ = socket2::SockRef::from(&self.socket).take_error();
    }
}

struct Slot {
    generation: u32,
    relay: Option<RelaySocket>,
}

/// All of a worker's relay sockets.
pub(super) struct RelaySockets {
    worker: u16,
    epoll: Arc<Epoll>,
    own: Arc<OwnRelays>,
    reservations: Arc<Reservations>,
    fill_random: fn(&mut [u8]),
    slots: Vec<Slot>,
    free: Vec<u32>,
}

impl RelaySockets {
    pub(super) fn new(
        worker: u16,
        epoll: Arc<Epoll>,
        own: Arc<OwnRelays>,
        reservations: Arc<Reservations>,
        fill_random: fn(&mut [u8]),
    ) -> Self {
        Self { worker, epoll, own, reservations, fill_random, slots: Vec::new(), free: Vec::new() }
    }

    /// The relay socket of an id, unless it was closed.
    pub(super) fn get_mut(&mut self, id: RelayId) -> Option<&mut RelaySocket> {
        let slot = self.slots.get_mut(id.index as usize)?;
        if slot.generation == id.generation { slot.relay.as_mut() } else { None }
    }

    /// The relay socket of an id, unless it was closed.
    pub(super) fn get(&self, id: RelayId) -> Option<&RelaySocket> {
        let slot = self.slots.get(id.index as usize)?;
        if slot.generation == id.generation { slot.relay.as_ref() } else { None }
    }

    fn bind(&self, lease: PortLease) -> Result<(OwnedFd, PortLease), io::Error> {
        let ip = self.own.bind_address(lease.family()).ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok((bind_relay(SocketAddr::new(ip, lease.port()))?, lease))
    }

    /// Binds a free port that `fits`, in random order; with `pair` also the port after it.
    fn bind_free(
        &self,
        family: Family,
        even: bool,
        pair: bool,
    ) -> Result<[Option<(OwnedFd, PortLease)>; 2], RelayError> {
        if !self.own.supports(family) {
            return Err(RelayError::NoFamily);
        }
        let mut random = [0; 4];
        (self.fill_random)(&mut random);
        let mut tries = 0;
        for port in self.own.candidates(family, u32::from_ne_bytes(random)) {
            if even && port % 2 != 0 {
                continue;
            }
            let Some(lease) = self.own.claim(family, port) else { continue };
            let next = if pair { port.checked_add(1).and_then(|port| self.own.claim(family, port)) } else { None };
            if pair && next.is_none() {
                continue;
            }
            let bound =
                self.bind(lease).and_then(|first| Ok([Some(first), next.map(|lease| self.bind(lease)).transpose()?]));
            match bound {
                Ok(sockets) => return Ok(sockets),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && tries < BIND_TRIES_MAX => tries += 1,
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(RelayError::NoPort),
                Err(_) => return Err(RelayError::System),
            }
        }
        Err(RelayError::NoPort)
    }

    /// Puts a bound socket into a slot and makes it known.
    fn install(&mut self, socket: OwnedFd, lease: PortLease) -> Result<OpenRelay, RelayError> {
        let external = self.own.external_address(lease.family()).ok_or(RelayError::NoFamily)?;
        let relayed = RelayedAddr::new(SocketAddr::new(external, lease.port()));
        let index = match self.free.pop() {
            Some(index) => index,
            None if self.slots.len() < SLOTS_MAX => {
                self.slots.push(Slot { generation: 0, relay: None });
                (self.slots.len() - 1) as u32
            }
            None => return Err(RelayError::System),
        };
        let Some(slot) = self.slots.get_mut(index as usize) else { return Err(RelayError::System) };
        let id = RelayId { index, generation: slot.generation };
        if self.epoll.add(socket.as_fd(), Token::relay(id).pack(), Interest::Read).is_err() {
            self.free.push(index);
            return Err(RelayError::System);
        }
        lease.set_owner(RelayOwner { worker: self.worker, index, generation: slot.generation });
        slot.relay = Some(RelaySocket {
            relayed,
            socket,
            _lease: lease,
            to_peer: RunHint::default(),
            to_client: RunHint::default(),
            depth: 0,
        });
        Ok(OpenRelay { id, relayed, reservation: None })
    }
}

impl Relays for RelaySockets {
    fn supports(&self, family: Family) -> bool {
        self.own.supports(family)
    }

    fn open(&mut self, now_micros: u64, family: Family, port: PortRequest<'_>) -> Result<OpenRelay, RelayError> {
        let user = match port {
            PortRequest::Any | PortRequest::Even => None,
            PortRequest::EvenAndReserveNext { user } => Some(user),
        };
        if user.is_some_and(|user| !self.reservations.has_room(now_micros, user)) {
            return Err(RelayError::NoPort);
        }
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

    fn open_reserved(&mut self, now_micros: u64, token: ReservationToken, user: &str) -> Result<OpenRelay, RelayError> {
        let reserved = self.reservations.redeem(now_micros, token, user).ok_or(RelayError::UnknownToken)?;
        self.install(reserved.socket, reserved.lease)
    }

    fn close(&mut self, relay: RelayId) {
        if let Some(slot) = self.slots.get_mut(relay.index as usize) {
            if slot.generation == relay.generation && slot.relay.take().is_some() {
                slot.generation = slot.generation.wrapping_add(1);
                self.free.push(relay.index);
            }
        }
    }
}
