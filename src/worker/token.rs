//! What an epoll token stands for.

use crate::turn::slots::SlotId;
use crate::turn::{RelayId, StreamId};

/// The kind of a descriptor and which one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// The mailbox's eventfd.
    Mailbox,
    /// A listener, by its index.
    Listener(u32),
    /// A relay socket.
    Relay(RelayId),
    /// The socket a relay has for its busiest peer.
    BusyPeer(RelayId),
    /// A stream connection.
    Stream(StreamId),
    /// A TCP relay, which listens.
    TcpRelay(RelayId),
    /// A TCP relay's connection with a peer.
    Peer(SlotId),
    /// The client's connection that it is bound to.
    PeersClient(SlotId),
    /// What watches the connections without an allocation.
    Strangers,
}

const KIND_SHIFT: u32 = 60;
const INDEX_SHIFT: u32 = 32;
const INDEX_MASK: u64 = (1 << (KIND_SHIFT - INDEX_SHIFT)) - 1;

impl Token {
    pub(super) fn pack(self) -> u64 {
        let (kind, index, generation) = match self {
            Self::Mailbox => (0, 0, 0),
            Self::Listener(index) => (1, index, 0),
            Self::Relay(id) => (2, id.index, id.generation),
            Self::Stream(id) => (3, id.index, id.generation),
            Self::BusyPeer(id) => (4, id.index, id.generation),
            Self::Strangers => (5, 0, 0),
            Self::TcpRelay(id) => (6, id.index, id.generation),
            Self::Peer(id) => (7, id.index, id.generation),
            Self::PeersClient(id) => (8, id.index, id.generation),
        };
        (kind << KIND_SHIFT) | ((u64::from(index) & INDEX_MASK) << INDEX_SHIFT) | u64::from(generation)
    }

    pub(super) fn unpack(token: u64) -> Option<Self> {
        let index = ((token >> INDEX_SHIFT) & INDEX_MASK) as u32;
        let generation = token as u32;
        match token >> KIND_SHIFT {
            0 => Some(Self::Mailbox),
            1 => Some(Self::Listener(index)),
            2 => Some(Self::Relay(RelayId { index, generation })),
            3 => Some(Self::Stream(StreamId { index, generation })),
            4 => Some(Self::BusyPeer(RelayId { index, generation })),
            5 => Some(Self::Strangers),
            6 => Some(Self::TcpRelay(RelayId { index, generation })),
            7 => Some(Self::Peer(SlotId { index, generation })),
            8 => Some(Self::PeersClient(SlotId { index, generation })),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_survives_the_round_trip() {
        for token in [
            Token::Mailbox,
            Token::Listener(7),
            Token::Relay(RelayId { index: 0xF_FFFF, generation: u32::MAX }),
            Token::Stream(StreamId { index: 12, generation: 3 }),
            Token::BusyPeer(RelayId { index: 5, generation: 1 }),
            Token::Strangers,
            Token::TcpRelay(RelayId { index: 9, generation: 4 }),
            Token::Peer(SlotId { index: 10, generation: 5 }),
            Token::PeersClient(SlotId { index: 11, generation: 6 }),
        ] {
            assert_eq!(Token::unpack(token.pack()), Some(token));
        }
    }
}
