//! ChannelBind (RFC 8656 section 12.2).

use crate::policy::Verdict;
use crate::reject::{Reason, Reject};
use turnstone_stun::AttributeType;

use super::allocation::in_secs;
use super::channels::{Channel, NUMBERS, RFC5766_NUMBERS};
use super::output::Event;
use super::peer::{Peer, judge};
use super::request::Request;
use super::server::Server;

impl Server {
    /// Binds a channel or refreshes it, and the permission of its peer.
    pub(super) fn channel_bind(&mut self, request: &Request<'_>, slot: u32, reply: &mut Vec<u8>) -> Result<(), Reject> {
        let (now, settings) = (request.now, request.settings);
        let [high, low, _, _] = request.fixed(AttributeType::CHANNEL_NUMBER)?.ok_or(Reason::MissingAttribute)?;
        let number = u16::from_be_bytes([high, low]);
        let peer = request.message.get(AttributeType::XOR_PEER_ADDRESS).ok_or(Reason::MissingAttribute)?;
        let numbers = if settings.rfc5766_channel_numbers { RFC5766_NUMBERS } else { NUMBERS };
        if !numbers.contains(&number) {
            return Err(Reason::ChannelConflict.into());
        }
        let peer = request.peer(peer)?;
        let allocation = self.allocations.get_mut(slot).ok_or(Reason::AllocationMismatch)?;
        if allocation.is_tcp() {
            return Err(Reject::of_peer(Reason::WrongRelayTransport, peer.get()));
        }
        let is_new =
            allocation.channels.check(&self.hash, number, peer, now.micros).map_err(|_| Reason::ChannelConflict)?;
        let relay = allocation.live_relay(peer.family(), now.micros);
        let relay = relay.ok_or_else(|| Reject::of_peer(Reason::PeerFamilyMismatch, peer.get()))?.id;
        let judges = allocation.judged_by(settings, self.generation);
        let verdict = judge(&settings.peer_policies, judges, Peer::Address(peer))
            .map_err(|denied| Reject::of_denied(denied, peer.get()))?;
        let limit = settings.max_peers_per_allocation;
        if !allocation.permissions.has_room_for(&self.hash, &[peer.ip()], now.micros, limit) {
            return Err(Reason::TooManyPeers.into());
        }
        let until_micros = in_secs(now, settings.lifetimes.channel_secs);
        if settings.guard.is_on() {
            let has_new = is_new && !allocation.permissions.permits(&self.hash, peer.ip(), now.micros);
            let user = &request.auth.identity.user;
            self.shared.guard.note_peers(&settings.guard, user, (&[peer.ip()], has_new), until_micros, now.micros)?;
        }
        let id = allocation.id;
        if is_new {
            // An expired binding of the number or the peer must not be found in place of the new one.
            allocation.drop_expired_channels(&self.hash, now, &mut self.events);
            if allocation.channels.len() >= limit {
                return Err(Reason::TooManyPeers.into());
            }
        }
        let permitted_until = in_secs(now, settings.lifetimes.permission_secs);
        let own_relay = verdict == Verdict::OwnRelay;
        let mut is_guest = false;
        if self.shared_ports.is_some() {
            let claimed = self.claim(now, relay, peer, own_relay);
            is_guest = !claimed.map_err(|unclaimed| Reject::of_peer(unclaimed.reason(), peer.get()))?;
            self.note_permission(now, relay, peer.ip(), permitted_until);
        }
        let allocation = self.allocations.get_mut(slot).ok_or(Reason::AllocationMismatch)?;
        allocation.channels.bind(&self.hash, Channel { number, own_relay, is_guest, peer, until_micros });
        allocation.permissions.install(&self.hash, peer.ip(), permitted_until);
        self.events.push(Event::RouteBound {
            id,
            five_tuple: *request.five_tuple(),
            channel: number,
            relay,
            peer,
            until_micros,
        });
        self.arm(now, slot);
        request.responder.success(reply, |_| {});
        Ok(())
    }
}
