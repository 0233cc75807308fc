//! The relay ports of one worker that its allocations share (`ports = "shared:..."`): which there are, which are open, and who has a
//! share of which.
//!
//! Each port is one worker's: were it several workers' (SO_REUSEPORT), the kernel would choose by the peer, and a peer's datagrams come
//! to a worker that does not have the allocation. A port is open while somebody has a share of it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::addr::RelayedAddr;
use crate::net::AddressPorts;
use crate::turn::RelayId;

/// An address that sockets are bound to, and a port.
pub(super) type Place = (IpAddr, u16);

/// A worker's shared ports.
pub(super) struct SharedSockets {
    worker: u16,
    workers: u16,
    open: Vec<SharedPort>,
    shares: HashMap<RelayId, RelayId>,
}

/// One that is open.
pub(super) struct SharedPort {
    pub(super) place: Place,
    /// Of its socket.
    pub(super) id: RelayId,
    pub(super) relayed: RelayedAddr,
    pub(super) socket: Arc<OwnedFd>,
    pub(super) shares: u32,
}

impl SharedSockets {
    /// Those of one of so many workers.
    pub(super) fn new(worker: u16, workers: u16) -> Self {
        Self { worker, workers: workers.max(1), open: Vec::new(), shares: HashMap::new() }
    }

    /// This worker's ports at these addresses, the least used one first; `random` decides among equals.
    pub(super) fn places(&self, addresses: &[AddressPorts], random: u32) -> Vec<Place> {
        let of_worker = |address: &AddressPorts| {
            let (bind, ports) = (address.bind(), address.ports());
            let first = *ports.start();
            let is_own = move |port: &u16| (port - first) % self.workers == self.worker;
            ports.filter(is_own).map(move |port| (bind, port)).collect::<Vec<_>>()
        };
        let mut places: Vec<Place> = addresses.iter().flat_map(of_worker).collect();
        let turn = random as usize % places.len().max(1);
        places.rotate_left(turn);
        places.sort_by_key(|place| self.open.iter().find(|port| port.place == *place).map_or(0, |port| port.shares));
        places
    }

    /// The port at a place, if it is open.
    pub(super) fn opened(&self, place: Place) -> Option<RelayId> {
        self.open.iter().find(|port| port.place == place).map(|port| port.id)
    }

    pub(super) fn add(&mut self, port: SharedPort) {
        self.open.push(port);
    }

    /// Gives a relay a share of a port.
    pub(super) fn share(&mut self, port: RelayId, relay: RelayId) -> Option<(RelayedAddr, Arc<OwnedFd>)> {
        let port = self.open.iter_mut().find(|open| open.id == port)?;
        port.shares += 1;
        self.shares.insert(relay, port.id);
        Some((port.relayed, Arc::clone(&port.socket)))
    }

    /// The port that a relay has a share of.
    pub(super) fn port_of(&self, relay: RelayId) -> Option<RelayId> {
        self.shares.get(&relay).copied()
    }

    /// Takes a relay's share back; returns the port if that was the last one.
    pub(super) fn close(&mut self, relay: RelayId) -> Option<RelayId> {
        let port = self.shares.remove(&relay)?;
        let at = self.open.iter().position(|open| open.id == port)?;
        let open = self.open.get_mut(at)?;
        open.shares = open.shares.saturating_sub(1);
        let is_last = open.shares == 0;
        is_last.then(|| self.open.swap_remove(at).id)
    }
}
