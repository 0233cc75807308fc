//! Send indications (RFC 8656 section 11.2). Indications are not authenticated; the permission is what counts.

use std::ops::Range;

use crate::addr::PeerAddr;
use crate::clock::Now;
use crate::policy::Verdict;
use crate::reject::{DeniedPeer, Dropped};
use turnstone_stun::{AttributeType, Message, Method, decode_xor_address};

use super::output::{Client, Outcome, ToPeer};
use super::peer::{Peer, judge};
use super::response::is_known;
use super::server::Server;

impl Server {
    pub(super) fn send(&mut self, now: Now, client: &Client, message: &Message<'_>) -> Outcome {
        match self.try_send(now, client, message) {
            Ok((to_peer, payload)) => Outcome::ToPeer(to_peer, payload),
            Err(dropped) => Outcome::Dropped(dropped),
        }
    }

    fn try_send(
        &mut self,
        now: Now,
        client: &Client,
        message: &Message<'_>,
    ) -> Result<(ToPeer, Range<usize>), Dropped> {
        let mut peer = None;
        let mut data = None;
        let mut dont_fragment = false;
        for attribute in message.attributes() {
            match attribute.kind {
                AttributeType::XOR_PEER_ADDRESS if peer.is_none() => peer = Some(attribute.value),
                AttributeType::DATA if data.is_none() => data = Some(attribute.value),
                AttributeType::DONT_FRAGMENT => dont_fragment = true,
                kind if kind.comprehension_required() && !is_known(kind) => return Err(Dropped::Malformed),
                _ => {}
            }
        }
        let (Some(peer), Some(data)) = (peer, data) else { return Err(Dropped::Malformed) };
        let peer = decode_xor_address(peer, message.transaction_id()).ok_or(Dropped::Malformed)?;
        let peer = PeerAddr::new(peer).map_err(|_| Dropped::PeerDenied)?;

        let slot = match self.allocations.find(&self.hash, &client.five_tuple) {
            Some(slot) => slot,
            None => self.slot_of_data(now, &client.five_tuple)?,
        };
        let allocation = self.allocations.get_mut(slot).ok_or(Dropped::NoAllocation)?;
        if !allocation.is_live(now.micros) {
            return Err(Dropped::NoAllocation);
        }
        // Data on a TCP allocation goes by data connections (RFC 6062 section 4.5).
        if allocation.is_tcp() {
            return Err(Dropped::Ignored);
        }
        if !allocation.permissions.permits(&self.hash, peer.ip(), now.micros) {
            return Err(Dropped::NoPermission);
        }
        let relay = allocation.live_relay(peer.family(), now.micros).ok_or(Dropped::NoPermission)?.id;
        let judges = allocation.judged_by(&self.settings, self.generation);
        let verdict = match judge(&self.settings.peer_policies, judges, Peer::Address(peer)) {
            Ok(verdict) => verdict,
            Err(denied) => return Err(self.refuse_data(now, slot, Method::SEND, (peer, denied))),
        };
        let allocation = if self.shared_ports.is_some() {
            if let Err(unclaimed) = self.claim(now, relay, peer, verdict == Verdict::OwnRelay) {
                let denied = DeniedPeer { reason: unclaimed.reason(), policy: None };
                self.refuse_data(now, slot, Method::SEND, (peer, denied));
                return Err(Dropped::PeerEndpointTaken);
            }
            self.allocations.get_mut(slot).ok_or(Dropped::NoAllocation)?
        } else {
            allocation
        };
        if !allocation.meter.admit_to_peer(now.micros, peer.family(), data.len()) {
            allocation.throttled += 1;
            self.events.throttled_to_peer(data.len());
            return Err(Dropped::Bandwidth);
        }
        allocation.to_peers.count(data.len());
        let start = data.as_ptr().addr().wrapping_sub(message.as_bytes().as_ptr().addr());
        let own_relay = verdict == Verdict::OwnRelay;
        let to_peer = ToPeer { relay, peer, own_relay, dont_fragment };
        Ok((to_peer, start..start + data.len()))
    }
}
