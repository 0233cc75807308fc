//! What is counted of payload, and where it goes.

use serde::{Deserialize, Serialize};

/// Packets and bytes of payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Packets.
    pub packets: u64,
    /// Bytes, without headers.
    pub bytes: u64,
}

impl Traffic {
    /// Counts one packet.
    #[inline]
    pub fn count(&mut self, len: usize) {
        self.packets += 1;
        self.bytes += len as u64;
    }
}

impl std::ops::AddAssign for Traffic {
    /// Adds up to what the numbers hold.
    fn add_assign(&mut self, more: Self) {
        self.packets = self.packets.saturating_add(more.packets);
        self.bytes = self.bytes.saturating_add(more.bytes);
    }
}

/// Where payload goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From clients to peers.
    ToPeers,
    /// From peers to clients.
    ToClients,
}

impl Direction {
    /// Both, for metrics that start at zero.
    pub const ALL: [Self; 2] = [Self::ToPeers, Self::ToClients];

    /// The stable name used as a metric label.
    pub fn label(self) -> &'static str {
        match self {
            Self::ToPeers => "to-peers",
            Self::ToClients => "to-clients",
        }
    }
}
