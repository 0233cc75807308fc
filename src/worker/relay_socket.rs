//! One relay: its socket, the one for its busiest peer, and how much is read from them.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use super::inbox::Inbox;
use crate::addr::RelayedAddr;
use crate::net::sys::{IcmpError, kernel_drops, read_error_queue};
use crate::net::{PortLease, bind_connected};

/// Datagrams in a row to one peer after which the relay gets a socket connected to it.
///
/// A connected socket saves a quarter of a microsecond per datagram and costs about eight to make.
pub(super) const BUSY_AFTER: u32 = 64;
/// Datagrams taken from a relay socket at once, at most.
const DEPTH_MAX: u8 = 32;
/// Messages that one read should not bring many more of, each datagram being up to 64 that the kernel has coalesced.
const READ_MESSAGES: usize = 512;

/// A relay socket; dropping it closes the socket and gives the port back.
pub(super) struct RelaySocket {
    relayed: RelayedAddr,
    socket: Socket,
    /// The kernel's drops at it that have been counted.
    drops: u32,
    /// The port; a share of another relay's socket has none.
    lease: Option<PortLease>,
    depth: Depth,
    waiting: Waiting,
    busy: Option<BusyPeer>,
    /// The peer that was sent to last, and how many datagrams in a row.
    last_peer: Option<SocketAddr>,
    in_a_row: u32,
}

/// What a relay sends from.
enum Socket {
    Own(OwnedFd),
    /// One of a port that allocations share.
    Shared(Arc<OwnedFd>),
}

impl AsFd for Socket {
    #[inline]
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Own(socket) => socket.as_fd(),
            Self::Shared(socket) => socket.as_fd(),
        }
    }
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

/// What one read of a relay socket has brought.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Read {
    /// Datagrams that were asked for, and that came.
    pub(super) asked: usize,
    pub(super) datagrams: usize,
    /// What they are when each train is taken apart.
    pub(super) messages: usize,
    /// The kernel's drops, if it has told.
    pub(super) drops: Option<u32>,
}

/// How many datagrams to ask a relay socket for.
#[derive(Clone, Copy)]
struct Depth {
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
    fn next(self) -> usize {
        usize::from(self.next.clamp(2, self.max))
    }

    /// Takes note of a read that asked for `asked` datagrams and brought `count`, of `messages` in all.
    ///
    /// One more than there is shows the end; asking for many in vain costs.
    fn note(&mut self, asked: usize, count: usize, messages: usize) {
        let each = messages.div_ceil(count.max(1)).max(1);
        let room = u8::try_from(READ_MESSAGES / each).unwrap_or(u8::MAX);
        self.max = room.min(self.max.saturating_add(1)).clamp(2, DEPTH_MAX);
        self.next = if count == asked { DEPTH_MAX } else { (count as u8).saturating_add(1) };
    }
}

impl RelaySocket {
    pub(super) fn new(socket: OwnedFd, lease: PortLease) -> Self {
        Self::with(RelayedAddr::new(lease.external_address()), Socket::Own(socket), Some(lease))
    }

    /// The socket of a port that allocations share, and what they share.
    pub(super) fn shared(socket: OwnedFd, lease: PortLease) -> (Self, Arc<OwnedFd>) {
        let socket = Arc::new(socket);
        let relayed = RelayedAddr::new(lease.external_address());
        (Self::with(relayed, Socket::Shared(Arc::clone(&socket)), Some(lease)), socket)
    }

    /// One allocation's share of it.
    pub(super) fn share(relayed: RelayedAddr, socket: Arc<OwnedFd>) -> Self {
        Self::with(relayed, Socket::Shared(socket), None)
    }

    fn with(relayed: RelayedAddr, socket: Socket, lease: Option<PortLease>) -> Self {
        Self {
            relayed,
            socket,
            drops: 0,
            lease,
            depth: Depth::default(),
            waiting: Waiting::default(),
            busy: None,
            last_peer: None,
            in_a_row: 0,
        }
    }

    /// The relayed transport address.
    pub(super) fn relayed(&self) -> RelayedAddr {
        self.relayed
    }

    /// The port it holds.
    pub(super) fn lease(&self) -> Option<&PortLease> {
        self.lease.as_ref()
    }

    /// Whether it stays with its worker: other allocations use its socket.
    pub(super) fn is_shared(&self) -> bool {
        matches!(self.socket, Socket::Shared(_))
    }

    /// How many datagrams to ask for next.
    pub(super) fn depth(&self) -> usize {
        self.depth.next()
    }

    /// Receives up to `depth` datagrams; returns how many there were. `None` when there is no such socket.
    pub(super) fn receive(&self, busy: bool, inbox: &mut Inbox, depth: usize) -> Option<io::Result<usize>> {
        Some(inbox.receive(self.reading_fd(busy)?, depth))
    }

    /// The next ICMP error that came back to one of the two sockets.
    pub(super) fn next_icmp_error(&self, busy: bool, is_first: bool) -> Option<IcmpError> {
        let socket = self.reading_fd(busy)?;
        let error = read_error_queue(socket);
        if error.is_none() && is_first {
            // The queue had no room for it: while it is pending, every event tells of it.
            let _ = socket2::SockRef::from(&socket).take_error();
        }
        error
    }

    /// Takes note of what a read has brought; returns how many drops of the kernel are new.
    pub(super) fn note_read(&mut self, busy: bool, read: Read) -> u32 {
        self.depth.note(read.asked, read.datagrams, read.messages);
        read.drops.map_or(0, |drops| self.new_drops(busy, drops))
    }

    /// The socket connected to the busiest peer, if there is one, or the one for all others.
    pub(super) fn reading_fd(&self, busy: bool) -> Option<BorrowedFd<'_>> {
        if busy { self.busy.as_ref().map(|busy| busy.socket.as_fd()) } else { Some(self.socket.as_fd()) }
    }

    /// Whether one of the two sockets waits for its turn; `None` when there is no such socket.
    pub(super) fn waiting_mut(&mut self, busy: bool) -> Option<&mut Waiting> {
        if busy { self.busy.as_mut().map(|busy| &mut busy.waiting) } else { Some(&mut self.waiting) }
    }

    /// Takes over what the kernel reports of its drops at a socket; returns how many are new.
    fn new_drops(&mut self, busy: bool, drops: u32) -> u32 {
        let counted = if busy { self.busy.as_mut().map(|busy| &mut busy.drops) } else { Some(&mut self.drops) };
        counted.map_or(0, |counted| drops.wrapping_sub(std::mem::replace(counted, drops)))
    }

    /// The socket to send to `peer` with, and whether it is connected to it.
    pub(super) fn fd_towards(&self, peer: SocketAddr) -> (BorrowedFd<'_>, bool) {
        match &self.busy {
            Some(busy) if busy.peer == peer => (busy.socket.as_fd(), true),
            _ => (self.socket.as_fd(), false),
        }
    }

    /// Counts `datagrams` to `peer`; whether it has become worth a connected socket.
    pub(super) fn has_become_busy(&mut self, peer: SocketAddr, datagrams: u16) -> bool {
        if self.busy.as_ref().is_some_and(|busy| busy.peer == peer) || self.is_shared() {
            return false;
        }
        if self.last_peer != Some(peer) {
            (self.last_peer, self.in_a_row) = (Some(peer), 0);
        }
        let before = self.in_a_row;
        self.in_a_row = before.saturating_add(u32::from(datagrams));
        before < BUSY_AFTER && self.in_a_row >= BUSY_AFTER
    }

    /// Whether it has a socket for its busiest peer.
    pub(super) fn has_busy(&self) -> bool {
        self.busy.is_some()
    }

    /// A socket of the same port that is connected to a peer.
    pub(super) fn connected_to(&self, peer: SocketAddr) -> io::Result<OwnedFd> {
        match &self.socket {
            Socket::Own(socket) => bind_connected(socket, peer),
            // What a peer sends there would come to a socket of one allocation and not to the one that is told apart.
            Socket::Shared(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Closes the socket for the busiest peer; returns the drops that no datagram has reported, and whether it waited.
    pub(super) fn close_busy(&mut self) -> Option<(u32, Waiting)> {
        self.busy.take().map(|busy| (busy.last_drops(), busy.waiting))
    }

    /// Gives it a socket for its busiest peer. Where the one before it waited, it waits: the list names the relay and not the socket.
    pub(super) fn set_busy(&mut self, peer: SocketAddr, socket: OwnedFd, waiting: Waiting) {
        self.busy = Some(BusyPeer { peer, socket, drops: 0, waiting });
    }

    /// Drops that no datagram after them has reported.
    pub(super) fn last_drops(&self) -> u32 {
        if self.lease.is_none() {
            return 0;
        }
        unreported(self.socket.as_fd(), self.drops).wrapping_add(self.busy.as_ref().map_or(0, BusyPeer::last_drops))
    }
}

impl BusyPeer {
    /// Drops that no datagram after them has reported.
    fn last_drops(&self) -> u32 {
        unreported(self.socket.as_fd(), self.drops)
    }
}

fn unreported(socket: BorrowedFd<'_>, counted: u32) -> u32 {
    kernel_drops(socket).map_or(0, |drops| drops.wrapping_sub(counted))
}
