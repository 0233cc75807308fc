//! ICMP errors relayed as Data indications (RFC 8656 sections 11.5 and 18.13).

use std::net::SocketAddr;

use crate::addr::{Family, PeerAddr};
use crate::clock::Now;
use turnstone_stun::{AttributeType, Class, Encoder, Method, TransactionId};

use super::output::Client;
use super::relays::RelayId;
use super::server::Server;

impl Server {
    /// An ICMP error came back for a datagram sent from `relay` to `peer` (RFC 8656 section 11.5). Appends a Data
    /// indication with the ICMP attribute to `reply` and returns the client it is for; `None` without a permission.
    /// `icmp` is type, code and, for "too big" messages, the next hop's MTU as a 32-bit number.
    pub fn handle_icmp(
        &mut self,
        now: Now,
        relay: RelayId,
        peer: SocketAddr,
        icmp: (u8, u8, [u8; 4]),
        reply: &mut Vec<u8>,
    ) -> Option<Client> {
        let (kind, code, data) = icmp;
        let peer = PeerAddr::new(peer).ok()?;
        let (relayed, too_big) = match peer.family() {
            Family::V4 => (matches!(kind, 3 | 11), (kind, code) == (3, 4)),
            Family::V6 => (matches!(kind, 1..=3), kind == 2),
        };
        if !relayed {
            return None;
        }
        let (relay, slot) = match self.allocations.find_relay(relay) {
            Some(slot) => (relay, slot),
            None => {
                let owner = self.endpoint_owner(relay, peer)?;
                (owner, self.allocations.find_relay(owner)?)
            }
        };
        let allocation = self.allocations.get_mut(slot)?;
        allocation.live_relay(peer.family(), now.micros).filter(|live| live.id == relay)?;
        if !allocation.permissions.permits(&self.hash, peer.ip(), now.micros) {
            return None;
        }
        let [d0, d1, d2, d3] = if too_big { data } else { [0; 4] };
        let transaction_id = TransactionId(self.transaction_ids.next());
        Encoder::new(reply, Class::Indication, Method::DATA, transaction_id)
            .xor_address(AttributeType::XOR_PEER_ADDRESS, peer.get())
            .attribute(AttributeType::ICMP, &[0, 0, kind, code, d0, d1, d2, d3]);
        Some(allocation.client)
    }
}
