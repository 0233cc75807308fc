//! CreatePermission (RFC 8656 section 10.2): all of its peers or none.

use std::net::IpAddr;

use crate::addr::{Family, PeerAddr};
use crate::reject::{Reason, Reject};
use turnstone_stun::AttributeType;

use super::allocation::in_secs;
use super::peer::{Peer, judge};
use super::request::Request;
use super::server::Server;

impl Server {
    pub(super) fn create_permission(
        &mut self,
        request: &Request<'_>,
        slot: u32,
        reply: &mut Vec<u8>,
    ) -> Result<(), Reject> {
        let (now, settings) = (request.now, request.settings);
        let peers = read_peers(request)?;
        let allocation = self.allocations.get_mut(slot).ok_or(Reason::AllocationMismatch)?;
        if let Some(peer) = peers.iter().find(|peer| !allocation.reaches(**peer, now.micros)) {
            return Err(Reject::of_peer(Reason::PeerFamilyMismatch, peer.get()));
        }
        let judges = allocation.judged_by(settings, self.generation);
        for peer in &peers {
            judge(&settings.peer_policies, judges, Peer::Ip(peer.ip()))
                .map_err(|denied| Reject::of_denied(denied, peer.get()))?;
        }
        let mut ips: Vec<IpAddr> = peers.iter().map(|peer| peer.ip()).collect();
        ips.sort_unstable();
        ips.dedup();
        if !allocation.permissions.has_room_for(&self.hash, &ips, now.micros, settings.max_peers_per_allocation) {
            return Err(Reason::TooManyPeers.into());
        }
        let until_micros = in_secs(now, settings.lifetimes.permission_secs);
        if settings.guard.is_on() {
            let has_new = ips.iter().any(|ip| !allocation.permissions.permits(&self.hash, *ip, now.micros));
            let user = &request.auth.identity.user;
            self.shared.guard.note_peers(&settings.guard, user, (&ips, has_new), until_micros, now.micros)?;
        }
        for ip in &ips {
            allocation.permissions.install(&self.hash, *ip, until_micros);
        }
        if self.shared_ports.is_some() {
            let live = |ip: IpAddr| allocation.live_relay(Family::of(ip), now.micros).map(|relay| (relay.id, ip));
            let on_relays: Vec<_> = ips.into_iter().filter_map(live).collect();
            on_relays.into_iter().for_each(|(relay, ip)| self.note_permission(now, relay, ip, until_micros));
        }
        self.arm(now, slot);
        request.responder.success(reply, |_| {});
        Ok(())
    }
}

fn read_peers(request: &Request<'_>) -> Result<Vec<PeerAddr>, Reject> {
    let mut peers = Vec::with_capacity(1);
    let mut form = Ok(());
    for attribute in request.message.attributes().filter(|found| found.kind == AttributeType::XOR_PEER_ADDRESS) {
        match request.peer(attribute.value) {
            Ok(peer) => peers.push(peer),
            // A value that cannot be decoded goes before a peer that is forbidden.
            Err(reject) if reject.reason == Reason::PeerForm => form = Err(reject),
            Err(reject) => return Err(reject),
        }
    }
    form?;
    if peers.is_empty() {
        return Err(Reason::MissingAttribute.into());
    }
    Ok(peers)
}
