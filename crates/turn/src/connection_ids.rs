//! CONNECTION-ID (RFC 6062 section 6.2.1): one for each connection to a peer, unique in the process, because ConnectionBind may come to
//! another worker than the one that has the connection.

use std::sync::Arc;

use crate::auth::{HeldCredential, Identity};
use crate::policy::{Place, Places};
use crate::user::User;

use turnstone_stun::{Key, PasswordAlgorithm};

/// A connection between a TCP relay and a peer, until it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(u32);

impl ConnectionId {
    /// The value of CONNECTION-ID.
    pub fn value(self) -> u32 {
        self.0
    }

    pub(super) fn from_wire(value: [u8; 4]) -> Self {
        Self(u32::from_be_bytes(value))
    }
}

/// The connections of all workers, and how many each user has.
#[derive(Debug)]
pub struct ConnectionIds {
    places: Arc<Places<Offer>>,
    most: usize,
}

impl Default for ConnectionIds {
    fn default() -> Self {
        Self::at_most(usize::MAX)
    }
}

/// A connection that waits for a ConnectionBind.
struct Offer {
    worker: u16,
    owner: Owner,
}

/// Who may bind a connection: whoever has made its allocation, with the same credential (RFC 6062 section 4.3).
#[derive(Clone)]
pub(super) struct Owner {
    pub(super) identity: Identity,
    pub(super) key: Key,
    pub(super) algorithm: PasswordAlgorithm,
}

impl Owner {
    /// What its request is verified with.
    pub(super) fn credential(&self) -> HeldCredential<'_> {
        HeldCredential { identity: &self.identity, key: &self.key, algorithm: self.algorithm }
    }

    fn is(&self, identity: &Identity) -> bool {
        self.identity.username == identity.username && self.identity.user == identity.user
    }
}

/// Why there is no place for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoPlace {
    /// The user has as many as allowed.
    OfUser,
    /// All users together have as many as there are sockets for.
    InTotal,
}

/// Why a connection cannot be bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotOffered {
    /// There is none of this id that waits.
    Unknown,
    /// It is another user's.
    OfAnother,
}

impl ConnectionIds {
    /// For `most` connections, over all workers and users: as many as there are sockets for.
    pub fn at_most(most: usize) -> Self {
        Self { places: Arc::default(), most }
    }

    /// Whether there are as many as there may be.
    pub fn is_full(&self) -> bool {
        self.len() >= self.most
    }

    /// How many connections there are, on all workers.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// An id, from the CSPRNG, for a connection of a user who may have `most`.
    pub(super) fn hold(
        &self,
        user: &User,
        most: usize,
        now_micros: u64,
        fill_random: &mut dyn FnMut(&mut [u8]),
    ) -> Result<ConnectionHold, NoPlace> {
        // Two workers that come at once may both have the last one.
        if self.is_full() {
            return Err(NoPlace::InTotal);
        }
        let number = || {
            let mut number = [0; 4];
            fill_random(&mut number);
            u32::from_be_bytes(number)
        };
        self.places.hold(user, most, now_micros, number).map(ConnectionHold).ok_or(NoPlace::OfUser)
    }

    /// Takes a connection that waits, for one of its owner's; returns the worker that has it. It is offered no more.
    pub(super) fn claim(&self, id: ConnectionId, identity: &Identity) -> Result<u16, NotOffered> {
        let claim = |offer: &mut Option<Offer>| match offer {
            None => Err(NotOffered::Unknown),
            Some(Offer { owner, .. }) if !owner.is(identity) => Err(NotOffered::OfAnother),
            Some(Offer { worker, .. }) => {
                let worker = *worker;
                *offer = None;
                Ok(worker)
            }
        };
        self.places.look(id.0, claim).unwrap_or(Err(NotOffered::Unknown))
    }

    /// Who may bind a connection that waits.
    pub(super) fn owner(&self, id: ConnectionId) -> Option<Owner> {
        self.places.look(id.0, |offer| offer.as_ref().map(|offer| offer.owner.clone())).flatten()
    }
}

/// A connection's id, and its place among those of its user, until it is dropped.
pub(super) struct ConnectionHold(Place<Offer>);

impl ConnectionHold {
    pub(super) fn id(&self) -> ConnectionId {
        ConnectionId(self.0.number())
    }

    /// Gives it back, but lets it count for its user until then.
    pub(super) fn cool(self, until_micros: u64) {
        self.0.cool(until_micros);
    }

    /// Lets the connection, which this worker has, wait for its owner.
    pub(super) fn offer(&self, worker: u16, owner: Owner) {
        self.0.put(Offer { worker, owner });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(name: &str) -> Owner {
        let identity = Identity::new(name.into(), User::fixed(name));
        Owner { identity, key: Key::short_term(b"key"), algorithm: PasswordAlgorithm::Md5 }
    }

    #[test]
    fn an_id_is_unique_claimed_once_and_by_its_owner_alone() {
        let ids = ConnectionIds::at_most(3);
        // The same number comes again: the one after it is taken.
        let mut numbers = [1, 1, 2, 3].into_iter();
        let mut random = |number: &mut [u8]| number.fill(numbers.next().unwrap());
        let user = User::fixed("ann");
        let first = ids.hold(&user, 2, 0, &mut random).unwrap();
        let second = ids.hold(&user, 2, 0, &mut random).unwrap();
        assert_eq!((first.id().value(), second.id().value()), (0x0101_0101, 0x0202_0202));
        assert_eq!(ids.hold(&user, 2, 0, &mut random).err(), Some(NoPlace::OfUser));
        let third = ids.hold(&User::fixed("bob"), 2, 0, &mut random).unwrap();
        assert_eq!(ids.hold(&User::fixed("eve"), 2, 0, &mut random).err(), Some(NoPlace::InTotal));
        drop(third);
        assert!(!ids.is_full());
        let (ann, bob) = (owner("ann"), owner("bob"));
        assert_eq!(ids.claim(first.id(), &ann.identity), Err(NotOffered::Unknown));
        first.offer(3, owner("ann"));
        assert_eq!(ids.claim(first.id(), &bob.identity), Err(NotOffered::OfAnother));
        assert_eq!(ids.claim(first.id(), &ann.identity), Ok(3));
        assert_eq!(ids.claim(first.id(), &ann.identity), Err(NotOffered::Unknown));
        assert_eq!(ids.len(), 2, "it is no other's until it ends");
        drop(first);
        drop(second);
        assert!(ids.is_empty());
    }
}
