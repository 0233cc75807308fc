//! The data path: ChannelData from clients (RFC 8656 section 12.6) and datagrams from peers (sections 11.3 and 12.7).
//!
//! No heap, no clock, no lock: two look-ups each, lifetimes by comparison.

use crate::addr::{FiveTuple, PeerAddr};
use crate::clock::Now;
use crate::reject::Dropped;
use turnstone_stun::Method;

use super::allocation::Allocation;
use super::channels::{Channel, RFC5766_NUMBERS};
use super::events::Events;
use super::message_kind::ChannelData;
use super::output::{Encapsulation, ToClient, ToPeer};
use super::peer::{Peer, judge};
use super::relays::{OwnSender, RelayId};
use super::server::Server;

impl Server {
    /// Routes one ChannelData message; returns the way of its payload.
    ///
    /// # Errors
    /// Why the packet is dropped.
    #[inline]
    pub fn route_channel_data(
        &mut self,
        now: Now,
        five_tuple: &FiveTuple,
        message: ChannelData,
    ) -> Result<ToPeer, Dropped> {
        let (number, len) = (message.number(), message.payload_len());
        if !RFC5766_NUMBERS.contains(&number) {
            return Err(Dropped::Malformed);
        }
        let slot = match self.allocations.find(&self.hash, five_tuple) {
            Some(slot) => slot,
            None => self.slot_of_data(now, five_tuple)?,
        };
        let allocation = self.allocations.get_mut(slot).ok_or(Dropped::NoAllocation)?;
        let Some(channel) = allocation.channels.by_number(&self.hash, number, now.micros) else {
            return Err(if allocation.is_live(now.micros) { Dropped::NoChannel } else { Dropped::NoAllocation });
        };
        let Channel { peer, own_relay, is_guest, .. } = *channel;
        let relay = allocation.live_relay(peer.family(), now.micros).ok_or(Dropped::NoAllocation)?.id;
        let allocation = if is_guest {
            self.may_send_as_guest(now, slot, (relay, peer, own_relay))?;
            self.allocations.get_mut(slot).ok_or(Dropped::NoAllocation)?
        } else {
            allocation
        };
        if !allocation.meter.admit_to_peer(now.micros, peer.family(), len) {
            allocation.throttled += 1;
            self.events.throttled_to_peer(len);
            return Err(Dropped::Bandwidth);
        }
        allocation.to_peers.count(len);
        Ok(ToPeer { relay, peer, own_relay, dont_fragment: false })
    }

    /// Routes one datagram that `peer` sent to a relay socket.
    ///
    /// # Errors
    /// Why the packet is dropped.
    #[inline]
    pub fn route_from_peer(
        &mut self,
        now: Now,
        relay: RelayId,
        peer: PeerAddr,
        datagram: &[u8],
    ) -> Result<ToClient, Dropped> {
        match self.allocations.find_relay(relay) {
            Some(slot) => self.route_to_slot(now, slot, relay, peer, datagram.len()),
            None => self.route_from_shared(now, relay, (peer, None), datagram),
        }
    }

    /// The same of what one of our own relays, which is at `peer`, sends to another one.
    ///
    /// # Errors
    /// Why the packet is dropped.
    #[inline]
    pub fn route_from_own(
        &mut self,
        now: Now,
        relay: RelayId,
        (peer, sender): (PeerAddr, OwnSender),
        datagram: &[u8],
    ) -> Result<ToClient, Dropped> {
        match self.allocations.find_relay(relay) {
            Some(slot) => self.route_to_slot(now, slot, relay, peer, datagram.len()),
            None => self.route_from_shared(now, relay, (peer, Some(sender)), datagram),
        }
    }

    /// Routes it to the allocation in a slot, which has this relay.
    #[inline]
    pub(super) fn route_to_slot(
        &mut self,
        now: Now,
        slot: u32,
        relay: RelayId,
        peer: PeerAddr,
        len: usize,
    ) -> Result<ToClient, Dropped> {
        let allocation = self.allocations.get_mut(slot).ok_or(Dropped::NoAllocation)?;
        if allocation.live_relay(peer.family(), now.micros).is_none_or(|live| live.id != relay) {
            return Err(Dropped::NoAllocation);
        }
        // A bound channel permits its peer for as long as it is bound, 600 s and not only 300: clients such as aioice refresh the
        // binding and nothing else, and expect what coturn does.
        if let Some(channel) = allocation.channels.by_peer(&self.hash, peer, now.micros) {
            let number = channel.number;
            admit_to_client(now, allocation, &mut self.events, peer, len)?;
            return Ok(ToClient { client: allocation.client, encapsulation: Encapsulation::Channel(number) });
        }
        if !allocation.permissions.permits(&self.hash, peer.ip(), now.micros) {
            return Err(Dropped::NoPermission);
        }
        let judges = allocation.judged_by(&self.settings, self.generation);
        if let Err(denied) = judge(&self.settings.peer_policies, judges, Peer::Address(peer)) {
            return Err(self.refuse_data(now, slot, Method::DATA, (peer, denied)));
        }
        admit_to_client(now, allocation, &mut self.events, peer, len)?;
        let encapsulation = Encapsulation::Data { peer, transaction_id: self.transaction_ids.next() };
        Ok(ToClient { client: allocation.client, encapsulation })
    }
}

/// Takes a datagram for a client out of the bandwidth, and counts it.
#[inline]
fn admit_to_client(
    now: Now,
    allocation: &mut Allocation,
    events: &mut Events,
    peer: PeerAddr,
    len: usize,
) -> Result<(), Dropped> {
    if !allocation.meter.admit_to_client(now.micros, peer.family(), len) {
        allocation.throttled += 1;
        events.throttled_to_client(len);
        return Err(Dropped::Bandwidth);
    }
    allocation.to_client.count(len);
    Ok(())
}
