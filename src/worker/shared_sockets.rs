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
    open: HashMap<Place, SharedPort>,
    shares: HashMap<RelayId, Place>,
}

/// One that is open.
pub(super) struct SharedPort {
    /// Of its socket.
    pub(super) id: RelayId,
    pub(super) relayed: RelayedAddr,
    pub(super) socket: Arc<OwnedFd>,
    pub(super) shares: u32,
}

impl SharedSockets {
    /// Those of one of so many workers.
    pub(super) fn new(worker: u16, workers: u16) -> Self {
        Self { worker, workers: workers.max(1), open: HashMap::new(), shares: HashMap::new() }
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
        places.sort_by_cached_key(|place| self.open.get(place).map_or(0, |port| port.shares));
        places
    }

    /// Whether the port at a place is open.
    pub(super) fn is_open(&self, place: Place) -> bool {
        self.open.contains_key(&place)
    }

    pub(super) fn add(&mut self, place: Place, port: SharedPort) {
        self.open.insert(place, port);
    }

    /// Gives a relay a share of an open port.
    pub(super) fn share(&mut self, place: Place, relay: RelayId) -> Option<(RelayedAddr, Arc<OwnedFd>)> {
        let port = self.open.get_mut(&place)?;
        port.shares += 1;
        self.shares.insert(relay, place);
        Some((port.relayed, Arc::clone(&port.socket)))
    }

    /// The port that a relay has a share of.
    pub(super) fn port_of(&self, relay: RelayId) -> Option<RelayId> {
        Some(self.open.get(self.shares.get(&relay)?)?.id)
    }

    /// Takes a relay's share back; returns the port if that was the last one.
    pub(super) fn close(&mut self, relay: RelayId) -> Option<RelayId> {
        let place = self.shares.remove(&relay)?;
        let port = self.open.get_mut(&place)?;
        port.shares = port.shares.saturating_sub(1);
        let is_last = port.shares == 0;
        if is_last { self.open.remove(&place).map(|port| port.id) } else { None }
    }
}
