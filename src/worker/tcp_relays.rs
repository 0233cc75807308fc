//! A worker's TCP relays (RFC 6062): the sockets that listen, and the connections with peers. Whose turn it is, and what a turn comes to,
//! is in `tcp_turns`.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use super::shortage::has_run_out;
use super::tcp_link::{Bound, CHUNK_BYTES, Link, LinkStage};
use super::token::Token;
use crate::addr::{Family, PeerAddr, RelayedAddr, Transport};
use crate::counters::Counters;
use crate::net::sys::{Descriptors, Epoll, Interest, Ready};
use crate::net::{PortLease, RelayAddresses, RelayPorts, bind_tcp_relay, connect_from, tune_accepted, tune_data};
use crate::stream::DataConnection;
use crate::turn::slots::{SlotId, Slots};
use crate::turn::{ConnectError, ConnectionId, OpenRelay, RelayError, RelayId};

/// Ports tried before giving up when other processes hold ports of the range.
const BIND_TRIES_MAX: usize = 512;

/// How long a relay rests when there is no descriptor for a peer.
const REST_MICROS: u64 = 100_000;

/// All TCP relays of a worker, and their connections.
pub(super) struct TcpRelays {
    epoll: Arc<Epoll>,
    descriptors: Descriptors,
    counters: Arc<Counters>,
    listening: Slots<Listening>,
    links: Slots<Link>,
    by_id: HashMap<ConnectionId, SlotId>,
    /// Relays that peers have connected to, and connections that something can be done for.
    accepting: VecDeque<RelayId>,
    /// Relays that have found no descriptor, and until when they rest.
    resting: VecDeque<(u64, RelayId)>,
    runnable: VecDeque<SlotId>,
    due: BTreeSet<(u64, SlotId)>,
    /// Room for what is copied; none before there is something.
    pub(super) scratch: Box<[u8]>,
    /// Whether peers on this host's loopback are allowed.
    loopback_peers: bool,
}

/// A relay that listens.
struct Listening {
    socket: TcpListener,
    lease: PortLease,
    is_listed: bool,
}

/// What a client's connection brings along when it is bound.
pub(super) struct ClientSide {
    pub(super) connection: DataConnection,
    pub(super) transport: Transport,
    /// What came behind the request.
    pub(super) rest: Vec<u8>,
    /// What the request is answered with.
    pub(super) success: Vec<u8>,
}

impl TcpRelays {
    pub(super) fn new(
        epoll: Arc<Epoll>,
        descriptors: Descriptors,
        counters: Arc<Counters>,
        loopback_peers: bool,
    ) -> Self {
        Self {
            epoll,
            descriptors,
            counters,
            listening: Slots::default(),
            links: Slots::default(),
            by_id: HashMap::new(),
            accepting: VecDeque::new(),
            resting: VecDeque::new(),
            runnable: VecDeque::new(),
            due: BTreeSet::new(),
            scratch: Box::default(),
            loopback_peers,
        }
    }

    /// Takes a socket that listens at the address of a lease.
    fn install(&mut self, socket: OwnedFd, lease: PortLease) -> Result<OpenRelay, RelayError> {
        let relayed = RelayedAddr::new(lease.external_address());
        let id = RelayId::from(self.listening.next_id());
        let watched = self.epoll.add(socket.as_fd(), Token::TcpRelay(id).pack(), Interest::ReadEdge);
        watched.map_err(|_| RelayError::System)?;
        lease.set_listens();
        self.listening.insert(Listening { socket: socket.into(), lease, is_listed: false });
        if self.scratch.is_empty() {
            self.scratch = vec![0; CHUNK_BYTES].into();
        }
        Ok(OpenRelay { id, relayed, reservation: None })
    }

    /// Opens a relay on a free port of an address that `may_be` holds for; [`RelayError::NoAddress`] when there is none.
    pub(super) fn open(
        &mut self,
        ports: &RelayPorts,
        family: Family,
        random: u32,
        may_be: impl Fn(IpAddr, IpAddr) -> bool,
    ) -> Result<OpenRelay, RelayError> {
        if !ports.supports(family) {
            return Err(RelayError::NoFamily);
        }
        let (mut tries, mut failure) = (0, RelayError::NoAddress);
        for address in ports.least_used(family, random, may_be) {
            failure = RelayError::NoPort;
            for lease in address.candidates(random).filter_map(|port| address.claim(port)) {
                match bind_tcp_relay(lease.bind_address()).and_then(|socket| self.descriptors.admit(socket)) {
                    Ok(socket) => return self.install(socket, lease),
                    Err(error) if error.kind() == io::ErrorKind::AddrInUse && tries < BIND_TRIES_MAX => tries += 1,
                    Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(RelayError::NoPort),
                    Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
                        failure = RelayError::NoAddress;
                        break;
                    }
                    Err(_) => return Err(RelayError::System),
                }
            }
        }
        Err(failure)
    }

    pub(super) fn close(&mut self, relay: RelayId) {
        self.listening.remove(relay.into());
    }

    /// Begins a connection with a peer.
    pub(super) fn connect(
        &mut self,
        addresses: &mut RelayAddresses,
        (relay, id): (RelayId, ConnectionId),
        peer: PeerAddr,
        own_relay: bool,
    ) -> Result<(), ConnectError> {
        let from = self.listening.get(relay.into()).ok_or(ConnectError::System)?.lease.bind_address();
        let to = if own_relay { self.own_relay(addresses, peer).ok_or(ConnectError::Failed)? } else { peer.get() };
        let socket = connect_from(from, to).map_err(|error| connect_error(&error))?;
        let socket = self.descriptors.admit(socket).map_err(|_| ConnectError::System)?;
        self.add(id, socket, peer.family(), LinkStage::Connecting).map_err(|_| ConnectError::System)
    }

    /// Where a relay of ours is bound. What else listens in the range of our relays is none of a client's business.
    fn own_relay(&self, addresses: &mut RelayAddresses, peer: PeerAddr) -> Option<SocketAddr> {
        let is_foreign = self.loopback_peers && peer.ip().is_loopback();
        addresses.tcp_bound_at(peer.get()).or_else(|| is_foreign.then(|| peer.get()))
    }

    /// The next connection of a peer with a relay, and where it came from; `None` when there is none.
    pub(super) fn accept(&mut self, relay: RelayId) -> Option<io::Result<(OwnedFd, SocketAddr)>> {
        let listening = self.listening.get(relay.into())?;
        match listening.socket.accept() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            accepted => Some(accepted.and_then(|(socket, source)| {
                let socket = self.descriptors.admit(socket.into())?;
                tune_accepted(&socket)?;
                Ok((socket, source))
            })),
        }
    }

    /// Lets a relay whose peers cannot be accepted for want of descriptors rest for a while.
    pub(super) fn rest(&mut self, now_micros: u64, relay: RelayId) {
        let Some(listening) = self.listening.get_mut(relay.into()) else { return };
        if !std::mem::replace(&mut listening.is_listed, true) {
            self.resting.push_back((now_micros + REST_MICROS, relay));
        }
    }

    /// Keeps an accepted connection until it is bound.
    pub(super) fn keep(&mut self, id: ConnectionId, socket: OwnedFd, family: Family) -> io::Result<()> {
        self.add(id, socket, family, LinkStage::Unbound { brought_by_peer: true })
    }

    fn add(&mut self, id: ConnectionId, socket: OwnedFd, family: Family, stage: LinkStage) -> io::Result<()> {
        let slot = self.links.next_id();
        self.epoll.add(socket.as_fd(), Token::Peer(slot).pack(), Interest::Edge)?;
        self.links.insert(Link::new(id, socket, family, stage));
        self.by_id.insert(id, slot);
        self.note_count();
        Ok(())
    }

    /// Binds a connection to a client's. Whether it has; if not, the client's is closed.
    pub(super) fn bind(&mut self, now_micros: u64, id: ConnectionId, client: ClientSide) -> bool {
        let Some(slot) = self.by_id.get(&id).copied() else { return false };
        let Some(link) = self.links.get_mut(slot).filter(|link| matches!(link.stage, LinkStage::Unbound { .. })) else {
            return false;
        };
        let ClientSide { connection, transport, rest, success } = client;
        let fd = connection.fd();
        if self.epoll.add(fd, Token::PeersClient(slot).pack(), Interest::Edge).is_err() {
            return false;
        }
        tune_data(&fd);
        tune_data(&link.peer_fd());
        link.moved_micros = now_micros;
        link.bind(connection, transport, rest, success);
        self.counters.peer_connections_bound.add(1);
        self.make_runnable(slot);
        true
    }

    /// Closes a connection in order, and its client's.
    pub(super) fn disconnect(&mut self, id: ConnectionId) {
        if let Some(slot) = self.by_id.get(&id).copied() {
            self.remove(slot);
        }
    }

    /// Takes a connection out, with all that is noted of it.
    pub(super) fn remove(&mut self, slot: SlotId) -> Option<Link> {
        let link = self.links.remove(slot)?;
        self.by_id.remove(&link.id);
        if let Some(due) = link.due_micros {
            self.due.remove(&(due, slot));
        }
        self.note_count();
        Some(link)
    }

    /// A relay has become readable: peers have connected to it.
    pub(super) fn wait_to_accept(&mut self, relay: RelayId) {
        let Some(listening) = self.listening.get_mut(relay.into()) else { return };
        if !std::mem::replace(&mut listening.is_listed, true) {
            self.accepting.push_back(relay);
        }
    }

    /// A side of a connection has become ready for something.
    pub(super) fn on_ready(&mut self, slot: SlotId, of_client: bool, ready: Ready) {
        if let Some(link) = self.links.get_mut(slot) {
            link.note_ready(of_client, ready);
            self.make_runnable(slot);
        }
    }

    /// Lets a connection wait for its turn.
    pub(super) fn make_runnable(&mut self, slot: SlotId) {
        let Some(link) = self.links.get_mut(slot) else { return };
        if !std::mem::replace(&mut link.is_listed, true) {
            self.runnable.push_back(slot);
        }
    }

    /// Has a connection looked at again at a time.
    pub(super) fn look_again_at(&mut self, slot: SlotId, due_micros: Option<u64>) {
        let Some(link) = self.links.get_mut(slot).filter(|link| link.due_micros != due_micros) else { return };
        if let Some(before) = std::mem::replace(&mut link.due_micros, due_micros) {
            self.due.remove(&(before, slot));
        }
        if let Some(due) = due_micros {
            self.due.insert((due, slot));
        }
    }

    /// Lets those wait for their turn whose time has come.
    pub(super) fn on_time(&mut self, now_micros: u64) {
        while let Some((_, relay)) = self.resting.pop_front_if(|(until, _)| *until <= now_micros) {
            self.accepting.push_back(relay);
        }
        while let Some((due, slot)) = self.due.first().copied().filter(|(due, _)| *due <= now_micros) {
            self.due.remove(&(due, slot));
            if let Some(link) = self.links.get_mut(slot) {
                link.due_micros = None;
            }
            self.make_runnable(slot);
        }
    }

    /// When [`Self::on_time`] has something to do.
    pub(super) fn next_timeout(&self) -> Option<u64> {
        let rested = self.resting.front().map(|(until, _)| *until);
        self.due.first().map(|(due, _)| *due).into_iter().chain(rested).min()
    }

    /// Whether something waits for its turn.
    pub(super) fn has_waiting(&self) -> bool {
        !self.runnable.is_empty() || !self.accepting.is_empty()
    }

    /// How many relays wait to have connections accepted, and how many connections for their turn.
    pub(super) fn waiting(&self) -> (usize, usize) {
        (self.accepting.len(), self.runnable.len())
    }

    /// The relay whose turn it is.
    pub(super) fn next_to_accept(&mut self) -> Option<RelayId> {
        let relay = self.accepting.pop_front()?;
        self.listening.get_mut(relay.into())?.is_listed = false;
        Some(relay)
    }

    /// The connection whose turn it is.
    pub(super) fn next_runnable(&mut self) -> Option<SlotId> {
        let slot = self.runnable.pop_front()?;
        self.links.get_mut(slot)?.is_listed = false;
        Some(slot)
    }

    /// A connection, with what its turn needs.
    pub(super) fn link(&mut self, slot: SlotId) -> Option<(&mut Link, &mut [u8])> {
        Some((self.links.get_mut(slot)?, &mut self.scratch))
    }

    fn note_count(&self) {
        self.counters.peer_connections.set(self.by_id.len() as u64);
    }
}

impl Bound {
    /// The transport of the client's side.
    pub(super) fn client_transport(&self) -> Transport {
        self.transport
    }
}

/// What a client is answered when a connection could not even be begun.
fn connect_error(error: &io::Error) -> ConnectError {
    if has_run_out(error) { ConnectError::System } else { ConnectError::Failed }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::sys::Outward;

    fn relays(loopback_peers: bool) -> TcpRelays {
        let descriptors = Descriptors::share_out(1 << 16, 0, 1000, 0, Outward::default());
        TcpRelays::new(Arc::new(Epoll::new().unwrap()), descriptors, Arc::default(), loopback_peers)
    }

    #[test]
    fn in_the_range_of_relays_nothing_but_a_tcp_relay_of_ours_is_connected_to() {
        // Behind 1:1 NAT: peers know the external half.
        let (bind, external): (IpAddr, IpAddr) = ("127.77.2.1".parse().unwrap(), "198.51.100.7".parse().unwrap());
        let ports = RelayPorts::new(&[(bind, external)], (20_000, 20_009));
        let (mut addresses, mut tcp) = (ports.addresses(), relays(false));
        let relay = tcp.open(&ports, Family::V4, 3, |_, _| true).unwrap();
        let port = relay.relayed.get().port();
        let other = if port == 20_000 { 20_001 } else { 20_000 };
        let _another_program = TcpListener::bind((bind, other)).unwrap();
        let peer = |ip: IpAddr, port: u16| PeerAddr::new((ip, port).into()).unwrap();
        assert_eq!(tcp.own_relay(&mut addresses, peer(external, port)), Some((bind, port).into()));
        assert_eq!(tcp.own_relay(&mut addresses, peer(external, other)), None);
        assert_eq!(addresses.tcp_relayed_at((bind, port).into()), Some((external, port).into()));
        assert_eq!(addresses.tcp_relayed_at((bind, other).into()), None);
        assert_eq!(addresses.owner((external, port).into()), None, "no payload of a UDP relay finds its way there");
        tcp.close(relay.id);
        assert_eq!(tcp.own_relay(&mut addresses, peer(external, port)), None);
        assert_eq!(ports.used(Family::V4), 0);
        // All ports but the other program's are had, and no more.
        let opened = std::iter::from_fn(|| tcp.open(&ports, Family::V4, 5, |_, of| of == external).ok()).count();
        assert_eq!(opened, 9);
        assert_eq!(tcp.open(&ports, Family::V4, 5, |_, _| true).err(), Some(RelayError::NoPort));
        assert_eq!(tcp.open(&ports, Family::V6, 5, |_, _| true).err(), Some(RelayError::NoFamily));
    }
}
