//! What workers say to each other of clients that come back to another one than has their allocation (RFC 8016), where allocations are
//! that have moved, and data that has come sooner than its allocation.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::relay_socket::RelaySocket;
use crate::addr::FiveTuple;
use crate::turn::{AllocationId, Client, Parcel, RelayId};

/// Data that may wait for allocations, in bytes, and messages of one client. A message counts for its place as well.
const PARKED_BYTES_MAX: usize = 256 << 10;
const PARKED_PER_CLIENT_MAX: usize = 16;
const PARKED_PLACE: usize = size_of::<(Client, Box<[u8]>)>();

/// What one worker has another do.
pub(super) enum Moving {
    /// Handle this request of one of my clients. The worker that it came to has the answer.
    Request { from: u16, client: Client, id: AllocationId, message: Box<[u8]>, hops: u8 },
    /// Send your client this answer. From now on its 5-tuple is the new one of this allocation, which the `owner` has, or of none.
    Answer { client: Client, reply: Box<[u8]>, pending: Option<AllocationId>, owner: u16 },
    /// Data has come to me for this allocation of yours: hand it over.
    Claim { by: u16, id: AllocationId, five_tuple: FiveTuple },
    /// No allocation comes to this 5-tuple.
    Forget { five_tuple: FiveTuple },
    /// Nobody is at this 5-tuple of mine any more that an allocation of yours was to move to.
    Cancel { by: u16, five_tuple: FiveTuple },
    /// Here it is.
    Arrival(Box<Arrival>),
}

/// An allocation that is handed over, with its relay sockets by the ids that they had.
pub(super) struct Arrival {
    pub(super) client: Client,
    pub(super) parcel: Parcel,
    pub(super) relays: Vec<(RelayId, RelaySocket)>,
}

impl Moving {
    /// The network of the client that has brought it about, if any number of it could come.
    pub(super) fn source(&self) -> Option<IpAddr> {
        let five_tuple = match self {
            Self::Request { client, .. } => &client.five_tuple,
            Self::Claim { five_tuple, .. } => five_tuple,
            Self::Answer { .. } | Self::Forget { .. } | Self::Cancel { .. } | Self::Arrival(_) => return None,
        };
        Some(match five_tuple.client.get().ip() {
            IpAddr::V6(ip) => IpAddr::V6((ip.to_bits() >> 64 << 64).into()),
            ip @ IpAddr::V4(_) => ip,
        })
    }
}

/// Where the allocations are that are not with the worker that made them. All workers share it; it is asked only about mobile clients,
/// and told of ends only while there is one in it.
#[derive(Default)]
pub struct Whereabouts {
    moved: Mutex<HashMap<AllocationId, u16>>,
    count: AtomicUsize,
}

impl Whereabouts {
    /// The worker that has an allocation, if it lives.
    pub(super) fn of(&self, id: AllocationId) -> u16 {
        self.lock().get(&id).copied().unwrap_or(id.worker())
    }

    /// An allocation is with this worker from now on.
    pub(super) fn set(&self, id: AllocationId, worker: u16) {
        let mut moved = self.lock();
        match worker == id.worker() {
            true => moved.remove(&id),
            false => moved.insert(id, worker),
        };
        self.count.store(moved.len(), Ordering::Release);
    }

    /// An allocation has ended.
    pub(super) fn forget(&self, id: AllocationId) {
        if self.count.load(Ordering::Acquire) > 0 {
            self.set(id, id.worker());
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<AllocationId, u16>> {
        self.moved.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Data of clients whose allocation is on its way, in the order of its coming.
#[derive(Default)]
pub(super) struct Parked {
    messages: VecDeque<(Client, Box<[u8]>)>,
    bytes: usize,
}

impl Parked {
    /// Keeps a message; returns how many its client has here now, or `None` when there is no room for it.
    pub(super) fn add(&mut self, client: Client, message: &[u8]) -> Option<usize> {
        let of_client = self.messages.iter().filter(|(of, _)| of.five_tuple == client.five_tuple).count();
        let weight = message.len() + PARKED_PLACE;
        if of_client >= PARKED_PER_CLIENT_MAX || self.bytes + weight > PARKED_BYTES_MAX {
            return None;
        }
        self.bytes += weight;
        self.messages.push_back((client, message.into()));
        Some(of_client + 1)
    }

    /// Whether a client has something here.
    pub(super) fn has(&self, five_tuple: &FiveTuple) -> bool {
        self.messages.iter().any(|(of, _)| of.five_tuple == *five_tuple)
    }

    /// Takes out what a client has here.
    pub(super) fn take(&mut self, five_tuple: &FiveTuple) -> Vec<(Client, Box<[u8]>)> {
        if !self.has(five_tuple) {
            return Vec::new();
        }
        let is_its = |(of, _): &(Client, Box<[u8]>)| of.five_tuple == *five_tuple;
        let (taken, kept): (Vec<_>, Vec<_>) = std::mem::take(&mut self.messages).into_iter().partition(is_its);
        self.bytes = kept.iter().map(|(_, message)| message.len() + PARKED_PLACE).sum();
        self.messages = kept.into();
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(n: u8) -> Client {
        Client::over_udp(([192, 0, 2, n], 4000).into(), ([192, 0, 2, 1], 1).into())
    }

    fn client_at(port: u16) -> Client {
        Client::over_udp(([192, 0, 2, 9], port).into(), ([192, 0, 2, 1], 1).into())
    }

    #[test]
    fn what_waits_for_an_allocation_is_bounded_by_client_and_in_all_and_comes_out_in_order() {
        let mut parked = Parked::default();
        assert!((1..=PARKED_PER_CLIENT_MAX).all(|count| parked.add(client(2), &[count as u8]) == Some(count)));
        assert_eq!(parked.add(client(2), b"x"), None);
        assert_eq!(parked.add(client(3), b"x"), Some(1));
        assert!(parked.add(client(4), &vec![0; PARKED_BYTES_MAX]).is_none());
        let taken: Vec<u8> = parked.take(&client(2).five_tuple).iter().map(|(_, message)| message[0]).collect();
        assert_eq!(taken, (1..=PARKED_PER_CLIENT_MAX as u8).collect::<Vec<_>>());
        assert_eq!((parked.bytes, parked.take(&client(2).five_tuple).len()), (1 + PARKED_PLACE, 0));
        // However short they are, a few thousand fill it: each newcomer is looked for among them.
        let most = (0..).take_while(|n| parked.add(client_at(*n), b"").is_some()).count();
        assert!(most < 4000, "{most}");
    }

    #[test]
    fn an_allocation_is_with_its_maker_unless_it_has_moved_and_not_come_back() {
        let (known, id) = (Whereabouts::default(), AllocationId::new(2, 7).unwrap());
        assert_eq!(known.of(id), 2);
        known.set(id, 5);
        assert_eq!(known.of(id), 5);
        known.set(id, 2);
        assert!(known.lock().is_empty());
        known.set(id, 1);
        known.forget(id);
        assert_eq!((known.of(id), known.count.load(Ordering::Acquire)), (2, 0));
    }
}
