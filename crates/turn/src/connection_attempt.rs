//! Connections that peers make to a TCP relay, and the ConnectionAttempt that tells the client of each (RFC 6062 section 5.3).

use crate::addr::PeerAddr;
use crate::clock::Now;
use crate::reject::Dropped;
use turnstone_stun::{AttributeType, Class, Encoder, Method, TransactionId};

use super::allocation::in_secs;
use super::connect::{Notice, owner_of};
use super::connection_ids::ConnectionId;
use super::connections::{CONNECTION_SECS, PeerConnection, Stage};
use super::peer::{Peer, judge};
use super::relays::RelayId;
use super::server::Server;

impl Server {
    /// A peer has connected to a TCP relay. Its connection waits for a ConnectionBind under the id returned; nothing of it is to be
    /// read before [`Self::bind_connection`]. The client is told by [`Self::poll_notice`]. If a second id is returned, that connection has
    /// given way and is to be closed: what peers bring leaves half of the allocation's places and a quarter of its user's to Connects.
    ///
    /// # Errors
    /// Why the connection is to be closed.
    pub fn accepted(
        &mut self,
        now: Now,
        relay: RelayId,
        peer: PeerAddr,
    ) -> Result<(ConnectionId, Option<ConnectionId>), Dropped> {
        let slot = self.tcp.relays.get(&relay).copied().ok_or(Dropped::NoAllocation)?;
        let limits = self.settings.tcp_relays.unwrap_or_default();
        let allocation = self.allocations.get_mut(slot).ok_or(Dropped::NoAllocation)?;
        if allocation.live_relay(peer.family(), now.micros).is_none_or(|live| live.id != relay) {
            return Err(Dropped::NoAllocation);
        }
        if !allocation.permissions.permits(&self.hash, peer.ip(), now.micros) {
            return Err(Dropped::NoPermission);
        }
        let judges = allocation.judged_by(&self.settings, self.generation);
        if let Err(denied) = judge(&self.settings.peer_policies, judges, Peer::Address(peer)) {
            return Err(self.refuse_data(now, slot, Method::CONNECTION_ATTEMPT, (peer, denied)));
        }
        let connections = allocation.connections.as_deref_mut().ok_or(Dropped::NoAllocation)?;
        connections.forget_failed(now);
        let most_waiting = limits.connections_per_allocation.div_ceil(2);
        let gives_way = connections.gives_way(peer.ip(), most_waiting).map_err(|_| Dropped::TooManyConnections)?;
        let freed = usize::from(gives_way.is_some());
        if connections.len() >= limits.connections_per_allocation.saturating_add(freed) {
            return Err(Dropped::TooManyConnections);
        }
        // One whose Connect failed at the same time is the same connection in the end, for which there is a place.
        if let Some(known) = connections.with_peer(peer) {
            if known.is_open() {
                return Err(Dropped::TooManyConnections);
            }
            let failed = known.hold.id();
            connections.remove(failed);
        }
        let (client, owner) = (allocation.client, owner_of(allocation));
        let user = &owner.identity.user;
        let most = limits.connections_per_user - limits.connections_per_user / 4 + freed;
        let hold = self.shared.connection_ids.hold(user, most, now.micros, &mut *self.fill_random);
        let hold = hold.map_err(|_| Dropped::TooManyConnections)?;
        let id = hold.id();
        hold.offer(self.ids.next().worker(), owner);
        if let Some(gives_way) = gives_way {
            self.connection_gone(gives_way);
        }
        let stage = Stage::Unbound { until_micros: in_secs(now, CONNECTION_SECS), brought_by_peer: true };
        self.add_connection(now, slot, PeerConnection { hold, peer, stage });

        let mut message = Vec::new();
        let transaction_id = TransactionId(self.transaction_ids.next());
        Encoder::new(&mut message, Class::Indication, Method::CONNECTION_ATTEMPT, transaction_id)
            .u32(AttributeType::CONNECTION_ID, id.value())
            .xor_address(AttributeType::XOR_PEER_ADDRESS, peer.get());
        self.tcp.notices.push_back(Notice { client, message: message.into(), droppable: true });
        Ok((id, gives_way))
    }
}
