//! Relay ports that several allocations share: which of them a datagram from a peer is for.
//!
//! No RFC has this. A port is told apart by the peer: an endpoint (address and port) belongs to the allocation that has bound a channel
//! to it or sent to it, and what comes from an endpoint that nobody has named goes to the allocation that alone has a permission for
//! its address. Both tables only suggest an allocation: whether it may be sent the datagram, its own permissions decide, as ever
//! (`route`), so that an entry that is out of date sends nobody what he must not have.

use std::net::IpAddr;

use hashbrown::HashTable;

use crate::addr::PeerAddr;
use crate::clock::{Now, SECOND};
use crate::reject::{Dropped, Reason};

use super::hash::AddressHash;
use super::output::ToClient;
use super::relays::{RelayId, Relays};
use super::server::Server;

/// After so long without a datagram to or from it, an endpoint may be taken over by another allocation of the same user: a browser
/// that calls anew goes to the same peer while its old allocation lives on.
const SILENT_MICROS: u64 = 30 * SECOND;
/// Allocations with a permission for one address that are told apart: beyond one, an early datagram is nobody's.
const HOLDERS: usize = 4;
/// How long an allocation whose peers are all in use is not looked through again.
const FULL_MICROS: u64 = SECOND;
/// Tables smaller than this are not worth making smaller.
const SHRINK_MIN: usize = 1024;

/// Whose the peers of shared ports are. A port goes by the relay id of its socket, an allocation's share of it by another one.
#[derive(Default)]
pub(super) struct SharedPorts {
    endpoints: HashTable<Endpoint>,
    addresses: HashTable<Permitted>,
    /// By the index of an allocation's relay.
    claims: Vec<Option<Box<Claims>>>,
}

/// A peer's address and port at one of our ports, and whose it is.
#[derive(Clone, Copy)]
struct Endpoint {
    port: RelayId,
    peer: PeerAddr,
    relay: RelayId,
    /// When it was sent to by an indication, named by a request, or heard of last.
    used_micros: u64,
}

/// A peer's address at one of our ports, and who has a permission for it.
#[derive(Clone, Copy)]
struct Permitted {
    port: RelayId,
    ip: IpAddr,
    /// Those who are known, each with the end of its permission.
    holders: [Option<(RelayId, u64)>; HOLDERS],
    /// Until when there are more than are known.
    more_until_micros: u64,
    /// Relays that have it in their claims.
    claims: u32,
}

/// What one relay has in the tables.
struct Claims {
    relay: RelayId,
    port: RelayId,
    peers: Vec<PeerAddr>,
    ips: Vec<IpAddr>,
    full_until_micros: u64,
}

/// Why an allocation does not get a peer's endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unclaimed {
    /// It is another allocation's on the same port.
    Taken,
    /// The allocation has as many as it may have.
    Full,
}

impl Unclaimed {
    pub(super) fn reason(self) -> Reason {
        match self {
            Self::Taken => Reason::PeerEndpointTaken,
            Self::Full => Reason::TooManyPeers,
        }
    }
}

impl Server {
    /// Takes note of a relay that has been opened, if its port is shared.
    pub(super) fn share<R: Relays>(&mut self, relay: RelayId, relays: &R) {
        if let Some(port) = relays.shared_port(relay) {
            self.shared_ports.get_or_insert_default().add(relay, port);
        }
    }

    /// The same of an allocation that has come from elsewhere, with all that it has. An endpoint that is another's here stays that.
    pub(super) fn share_moved<R: Relays>(&mut self, now: Now, slot: u32, relays: &R) {
        let Some(allocation) = self.allocations.get(slot) else { return };
        let open: Vec<_> =
            allocation.relays().filter(|relay| relay.open).map(|relay| (relay.id, relay.relayed)).collect();
        let peers: Vec<_> = allocation.channels.iter().map(|channel| channel.peer).collect();
        let permissions: Vec<_> = allocation.permissions.iter().collect();
        for (id, relayed) in open {
            self.share(id, relays);
            for (ip, until_micros) in permissions.iter().filter(|(ip, _)| ip.is_ipv4() == relayed.get().is_ipv4()) {
                self.note_permission(now, id, *ip, *until_micros);
            }
            for peer in peers.iter().filter(|peer| peer.family() == relayed.family()) {
                let _ = self.claim(now, id, *peer);
            }
        }
    }

    /// Forgets a relay that is about to be closed or to leave.
    pub(super) fn unshare(&mut self, relay: RelayId) {
        if let Some(shared) = &mut self.shared_ports {
            shared.forget(&self.hash, relay);
        }
    }

    /// Takes note of a permission.
    pub(super) fn note_permission(&mut self, now: Now, relay: RelayId, ip: IpAddr, until_micros: u64) {
        let Some(shared) = self.shared_ports.as_deref_mut() else { return };
        let Some(claims) = shared.claims_of(relay) else { return };
        if claims.ips.len() >= 2 * self.settings.max_peers_per_allocation && !claims.ips.contains(&ip) {
            let mut ips = std::mem::take(&mut claims.ips);
            let hash = &self.hash;
            let slot = self.allocations.find_relay(relay);
            let mut allocation = slot.and_then(|slot| self.allocations.get_mut(slot));
            ips.retain(|ip| {
                let keep = allocation.as_mut().is_some_and(|of| of.permissions.permits(hash, *ip, now.micros));
                if !keep {
                    shared.forget_address(hash, relay, *ip);
                }
                keep
            });
            if let Some(claims) = shared.claims_of(relay) {
                claims.ips = ips;
            }
        }
        shared.permit(&self.hash, now.micros, relay, (ip, until_micros));
    }

    /// Makes a peer's endpoint an allocation's own, if its relay is on a shared port.
    ///
    /// # Errors
    /// Why it is not to be had.
    pub(super) fn claim(&mut self, now: Now, relay: RelayId, peer: PeerAddr) -> Result<(), Unclaimed> {
        let Some(shared) = self.shared_ports.as_deref_mut() else { return Ok(()) };
        let Some(port) = shared.claims_of(relay).map(|claims| claims.port) else { return Ok(()) };
        if let Some(endpoint) = shared.endpoint_mut(&self.hash, port, peer) {
            let owner = endpoint.relay;
            if owner == relay {
                endpoint.used_micros = now.micros;
                return Ok(());
            }
            let is_silent = endpoint.used_micros.saturating_add(SILENT_MICROS) <= now.micros;
            if self.holds(now, owner, peer) && !(is_silent && self.are_of_one_user(owner, relay)) {
                return Err(Unclaimed::Taken);
            }
        }
        self.make_room(now, relay)?;
        if let Some(shared) = &mut self.shared_ports {
            shared.set_owner(&self.hash, Endpoint { port, peer, relay, used_micros: now.micros });
        }
        Ok(())
    }

    /// Sees to it that a relay may have one more endpoint: those that it may not send to any more, or has not for long, give way.
    fn make_room(&mut self, now: Now, relay: RelayId) -> Result<(), Unclaimed> {
        let limit = self.settings.max_peers_per_allocation;
        let Some(shared) = self.shared_ports.as_deref_mut() else { return Ok(()) };
        let Some(claims) = shared.claims_of(relay).filter(|claims| claims.peers.len() >= limit) else { return Ok(()) };
        if claims.full_until_micros > now.micros {
            return Err(Unclaimed::Full);
        }
        let (mut peers, port) = (std::mem::take(&mut claims.peers), claims.port);
        let hash = &self.hash;
        let slot = self.allocations.find_relay(relay);
        let mut allocation = slot.and_then(|slot| self.allocations.get_mut(slot));
        peers.retain(|peer| {
            let Some(endpoint) = shared.endpoint_mut(hash, port, *peer).filter(|of| of.relay == relay) else {
                return false;
            };
            let is_silent = endpoint.used_micros.saturating_add(SILENT_MICROS) <= now.micros;
            let keep = allocation.as_mut().is_some_and(|of| {
                of.channels.by_peer(hash, *peer, now.micros).is_some()
                    || (!is_silent && of.permissions.permits(hash, peer.ip(), now.micros))
            });
            if !keep {
                shared.forget_endpoint(hash, port, *peer, relay);
            }
            keep
        });
        let is_full = peers.len() >= limit;
        if let Some(claims) = shared.claims_of(relay) {
            claims.peers = peers;
            claims.full_until_micros = now.micros + FULL_MICROS;
        }
        if is_full { Err(Unclaimed::Full) } else { Ok(()) }
    }

    /// Routes a datagram that a peer has sent to a shared port.
    #[inline(never)]
    pub(super) fn route_from_shared(
        &mut self,
        now: Now,
        port: RelayId,
        peer: PeerAddr,
        len: usize,
    ) -> Result<ToClient, Dropped> {
        let shared = self.shared_ports.as_deref_mut().ok_or(Dropped::NoAllocation)?;
        if let Some(endpoint) = shared.endpoint_mut(&self.hash, port, peer) {
            endpoint.used_micros = now.micros;
            let owner = endpoint.relay;
            let slot = self.allocations.find_relay(owner);
            match slot.map(|slot| self.route_to_slot(now, slot, owner, peer, len)) {
                // It has let go of this peer: it is as if nobody had named it.
                None | Some(Err(Dropped::NoPermission | Dropped::NoAllocation)) => {}
                Some(routed) => return routed,
            }
        }
        let relay = self.sole_holder(now, port, peer)?;
        let slot = self.allocations.find_relay(relay).ok_or(Dropped::NoAllocation)?;
        self.route_to_slot(now, slot, relay, peer, len)
    }

    /// Whose endpoint this is at a shared port, for an ICMP error: by what it quotes only.
    pub(super) fn endpoint_owner(&mut self, port: RelayId, peer: PeerAddr) -> Option<RelayId> {
        let shared = self.shared_ports.as_deref_mut()?;
        shared.endpoint_mut(&self.hash, port, peer).map(|endpoint| endpoint.relay)
    }

    /// The one relay on a port that has a permission for a peer's address.
    fn sole_holder(&mut self, now: Now, port: RelayId, peer: PeerAddr) -> Result<RelayId, Dropped> {
        let shared = self.shared_ports.as_deref_mut().ok_or(Dropped::NoAllocation)?;
        let permitted = *shared.permitted(&self.hash, port, peer.ip()).ok_or(Dropped::NoPermission)?;
        let mut sole = None;
        for (relay, until_micros) in permitted.holders.into_iter().flatten() {
            if until_micros > now.micros && self.holds(now, relay, peer) && sole.replace(relay).is_some() {
                return Err(Dropped::SeveralPermissions);
            }
        }
        if permitted.more_until_micros > now.micros {
            return Err(Dropped::SeveralPermissions);
        }
        sole.ok_or(Dropped::NoPermission)
    }

    /// Whether a relay lives and its allocation may be sent what this peer sends.
    fn holds(&mut self, now: Now, relay: RelayId, peer: PeerAddr) -> bool {
        let Some(slot) = self.allocations.find_relay(relay) else { return false };
        let Some(allocation) = self.allocations.get_mut(slot) else { return false };
        allocation.live_relay(peer.family(), now.micros).is_some_and(|live| live.id == relay)
            && (allocation.channels.by_peer(&self.hash, peer, now.micros).is_some()
                || allocation.permissions.permits(&self.hash, peer.ip(), now.micros))
    }

    fn are_of_one_user(&self, one: RelayId, other: RelayId) -> bool {
        let user = |relay| {
            let allocation = self.allocations.get(self.allocations.find_relay(relay)?)?;
            Some(&allocation.identity.user)
        };
        user(one).is_some_and(|one| user(other) == Some(one))
    }
}

impl SharedPorts {
    fn add(&mut self, relay: RelayId, port: RelayId) {
        let index = relay.index as usize;
        if index >= self.claims.len() {
            self.claims.resize_with(index + 1, || None);
        }
        if let Some(claims) = self.claims.get_mut(index) {
            let (peers, ips) = (Vec::new(), Vec::new());
            *claims = Some(Box::new(Claims { relay, port, peers, ips, full_until_micros: 0 }));
        }
    }

    fn claims_of(&mut self, relay: RelayId) -> Option<&mut Claims> {
        let claims = self.claims.get_mut(relay.index as usize)?.as_deref_mut();
        claims.filter(|claims| claims.relay == relay)
    }

    fn endpoint_mut(&mut self, hash: &AddressHash, port: RelayId, peer: PeerAddr) -> Option<&mut Endpoint> {
        self.endpoints.find_mut(hash.peer_at(port, peer), |of| of.port == port && of.peer == peer)
    }

    fn set_owner(&mut self, hash: &AddressHash, endpoint: Endpoint) {
        let Endpoint { port, peer, relay, .. } = endpoint;
        match self.endpoint_mut(hash, port, peer) {
            Some(known) => *known = endpoint,
            None => {
                let at = hash.peer_at(port, peer);
                self.endpoints.insert_unique(at, endpoint, |of| hash.peer_at(of.port, of.peer));
            }
        }
        if let Some(claims) = self.claims_of(relay).filter(|claims| !claims.peers.contains(&peer)) {
            claims.peers.push(peer);
        }
    }

    fn permitted(&mut self, hash: &AddressHash, port: RelayId, ip: IpAddr) -> Option<&mut Permitted> {
        self.addresses.find_mut(hash.ip_at(port, ip), |of| of.port == port && of.ip == ip)
    }

    fn permit(&mut self, hash: &AddressHash, now_micros: u64, relay: RelayId, (ip, until_micros): (IpAddr, u64)) {
        let Some(claims) = self.claims_of(relay) else { return };
        let (port, is_new) = (claims.port, !claims.ips.contains(&ip));
        if is_new {
            claims.ips.push(ip);
        }
        if self.permitted(hash, port, ip).is_none() {
            let new = Permitted { port, ip, holders: [None; HOLDERS], more_until_micros: 0, claims: 0 };
            self.addresses.insert_unique(hash.ip_at(port, ip), new, |of| hash.ip_at(of.port, of.ip));
        }
        let Some(permitted) = self.permitted(hash, port, ip) else { return };
        permitted.claims += u32::from(is_new);
        let holders = &mut permitted.holders;
        let own = holders.iter().position(|holder| holder.is_some_and(|(known, _)| known == relay));
        let free = || holders.iter().position(|holder| holder.is_none_or(|(_, until)| until <= now_micros));
        match own.or_else(free).and_then(|place| holders.get_mut(place)) {
            Some(place) => *place = Some((relay, until_micros)),
            None => permitted.more_until_micros = permitted.more_until_micros.max(until_micros),
        }
    }

    pub(super) fn forget(&mut self, hash: &AddressHash, relay: RelayId) {
        let Some(place) = self.claims.get_mut(relay.index as usize) else { return };
        let Some(claims) = place.take_if(|claims| claims.relay == relay) else { return };
        for peer in &claims.peers {
            self.forget_endpoint(hash, claims.port, *peer, relay);
        }
        for ip in &claims.ips {
            self.forget_address_at(hash, claims.port, relay, *ip);
        }
        if self.endpoints.capacity() > SHRINK_MIN && self.endpoints.len() < self.endpoints.capacity() / 8 {
            self.endpoints.shrink_to_fit(|of| hash.peer_at(of.port, of.peer));
        }
        if self.addresses.capacity() > SHRINK_MIN && self.addresses.len() < self.addresses.capacity() / 8 {
            self.addresses.shrink_to_fit(|of| hash.ip_at(of.port, of.ip));
        }
    }

    fn forget_endpoint(&mut self, hash: &AddressHash, port: RelayId, peer: PeerAddr, relay: RelayId) {
        let is_it = |of: &Endpoint| of.port == port && of.peer == peer && of.relay == relay;
        if let Ok(entry) = self.endpoints.find_entry(hash.peer_at(port, peer), is_it) {
            entry.remove();
        }
    }

    fn forget_address(&mut self, hash: &AddressHash, relay: RelayId, ip: IpAddr) {
        if let Some(port) = self.claims_of(relay).map(|claims| claims.port) {
            self.forget_address_at(hash, port, relay, ip);
        }
    }

    fn forget_address_at(&mut self, hash: &AddressHash, port: RelayId, relay: RelayId, ip: IpAddr) {
        let is_it = |of: &Permitted| of.port == port && of.ip == ip;
        let Ok(mut entry) = self.addresses.find_entry(hash.ip_at(port, ip), is_it) else { return };
        let permitted = entry.get_mut();
        permitted.claims = permitted.claims.saturating_sub(1);
        for holder in &mut permitted.holders {
            holder.take_if(|(known, _)| *known == relay);
        }
        if permitted.claims == 0 {
            entry.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::hash::test_hash;
    use super::*;

    #[test]
    fn what_a_relay_had_is_gone_with_it_and_memory_with_that() {
        let (hash, mut shared) = (test_hash(), SharedPorts::default());
        let id = |index| RelayId { index, generation: index + 7 };
        let peer = |n: u32| PeerAddr::new(([8, 8, (n >> 8) as u8, n as u8], 4000).into()).unwrap();
        for n in 0..5000 {
            let (relay, port) = (id(n + 2), id(n % 2));
            shared.add(relay, port);
            shared.set_owner(&hash, Endpoint { port, peer: peer(n), relay, used_micros: 0 });
            shared.permit(&hash, 0, relay, (peer(n).ip(), 10));
            shared.permit(&hash, 0, relay, (peer(1).ip(), 10));
        }
        assert_eq!((shared.endpoints.len(), shared.addresses.len()), (5000, 5001));
        assert_eq!(shared.permitted(&hash, id(0), peer(1).ip()).unwrap().claims, 2500);
        // An earlier use of the same slot is not meant.
        shared.forget(&hash, RelayId { index: 2, generation: 0 });
        assert_eq!(shared.endpoints.len(), 5000);
        (0..5000).for_each(|n| shared.forget(&hash, id(n + 2)));
        assert!(shared.endpoints.is_empty() && shared.addresses.is_empty());
        assert!(shared.endpoints.capacity() <= SHRINK_MIN && shared.addresses.capacity() <= SHRINK_MIN);
    }
}
