//! Relay ports that several allocations share: which of them a datagram from a peer is for.
//!
//! No RFC has this. A port is told apart by the peer: an endpoint (address and port) belongs to the allocation that it has answered, or
//! else to the first that has bound a channel to it or sent to it. ICE says more (RFC 8445 section 7): the answer to a check is for
//! whoever has sent it, and a check for whoever has used its names. So nobody loses a peer to who has only sent to it first, and relays of
//! ours that have the same address are told apart, which sender it is being known in process. What comes from an endpoint that
//! nobody has named goes to the allocation that alone has a permission for its address.
//!
//! All of this only suggests an allocation: whether it may be sent the datagram, its own permissions decide, as ever (`route`), so that an
//! entry that is out of date, or a forged one, sends nobody what he must not have.

mod ice;
mod tables;

use std::net::IpAddr;

use crate::addr::PeerAddr;
use crate::clock::{Now, SECOND};
use crate::reject::{DeniedPeer, Dropped, Reason};
use turnstone_stun::Method;

use super::nested::is_nested_without_end;
use super::output::{ToClient, ToPeer};
use super::relays::{OwnSender, RelayId, Relays};
use super::server::Server;
use ice::Ice;
pub(super) use tables::Tables as SharedPorts;
use tables::{Endpoint, Source};

/// After so long without a datagram to or from it, an endpoint may be taken over by another allocation of the same user, whose browser
/// calls anew; after so long without one from it, by anybody whom it answers.
const SILENT_MICROS: u64 = 30 * SECOND;
/// How long an allocation whose peers are all in use is not looked through again.
const FULL_MICROS: u64 = SECOND;

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

impl Endpoint {
    /// Whether its peer has not answered, or not for long, whose it is: another one that it answers gets it.
    fn is_open(&self, now: Now) -> bool {
        self.heard_micros.is_none_or(|heard| heard.saturating_add(SILENT_MICROS) <= now.micros)
    }

    fn is_silent(&self, now: Now) -> bool {
        self.used_micros.saturating_add(SILENT_MICROS) <= now.micros
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
        let peers: Vec<_> = allocation.channels.iter().map(|channel| (channel.peer, channel.own_relay)).collect();
        let permissions: Vec<_> = allocation.permissions.iter().collect();
        for (id, relayed) in open {
            self.share(id, relays);
            for (ip, until_micros) in permissions.iter().filter(|(ip, _)| ip.is_ipv4() == relayed.get().is_ipv4()) {
                self.note_permission(now, id, *ip, *until_micros);
            }
            for (peer, own_relay) in peers.iter().filter(|(peer, _)| peer.family() == relayed.family()) {
                if self.claim(now, id, *peer, *own_relay) != Ok(true) {
                    self.make_guest(id, *peer);
                }
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

    /// Takes note of what is about to be sent, where ports are shared: the answer to a check of ICE finds its way back by that.
    #[inline]
    pub fn note_sent(&mut self, way: &ToPeer, payload: &[u8]) {
        if let Some(shared) = self.shared_ports.as_deref_mut()
            && let Some(Ice::Check(id, names)) = Ice::read(payload)
        {
            shared.note_check((way.relay, way.peer), id, names);
        }
    }

    /// Whether data may go by a channel whose peer is or was another allocation's.
    #[cold]
    pub(super) fn may_send_as_guest(
        &mut self,
        now: Now,
        slot: u32,
        (relay, peer, own_relay): (RelayId, PeerAddr, bool),
    ) -> Result<(), Dropped> {
        if self.claim(now, relay, peer, own_relay).is_ok() {
            return Ok(());
        }
        let denied = DeniedPeer { reason: Reason::PeerEndpointTaken, policy: None };
        self.refuse_data(now, slot, Method::SEND, (peer, denied));
        Err(Dropped::PeerEndpointTaken)
    }

    /// Lets an allocation send to a peer, if its relay is on a shared port, and makes the endpoint its own if it is nobody's. Whether it
    /// is, or the peer is known by more than its address.
    ///
    /// # Errors
    /// Why it may not send. A relay of ours is never refused: who sends from there is known.
    pub(super) fn claim(
        &mut self,
        now: Now,
        relay: RelayId,
        peer: PeerAddr,
        own_relay: bool,
    ) -> Result<bool, Unclaimed> {
        let Some(shared) = self.shared_ports.as_deref_mut() else { return Ok(true) };
        let Some(port) = shared.claims_of(relay).map(|claims| claims.port) else { return Ok(true) };
        let source = Source { peer, own: None };
        if own_relay && shared.has_link(relay, peer) {
            return Ok(true);
        }
        if let Some(endpoint) = shared.endpoint_mut(&self.hash, port, source) {
            if endpoint.relay == relay {
                endpoint.used_micros = now.micros;
                return Ok(true);
            }
            let known = *endpoint;
            if self.holds(now, known.relay, peer) {
                if known.is_silent(now) && self.are_of_one_user(known.relay, relay) {
                    self.make_room(now, relay)?;
                    self.make_guest(known.relay, peer);
                } else if own_relay || known.is_open(now) {
                    return Ok(own_relay);
                } else {
                    return Err(Unclaimed::Taken);
                }
            }
        }
        match self.make_room(now, relay) {
            Err(_) if own_relay => return Ok(true),
            room => room?,
        }
        if let Some(shared) = &mut self.shared_ports {
            shared.set_owner(&self.hash, Endpoint { port, source, relay, used_micros: now.micros, heard_micros: None });
        }
        Ok(true)
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
            let source = Source { peer: *peer, own: None };
            let Some(endpoint) = shared.endpoint_mut(hash, port, source).filter(|of| of.relay == relay) else {
                return false;
            };
            let is_silent = endpoint.is_silent(now);
            let keep = allocation.as_mut().is_some_and(|of| {
                of.channels.by_peer(hash, *peer, now.micros).is_some()
                    || (!is_silent && of.permissions.permits(hash, peer.ip(), now.micros))
            });
            if !keep {
                shared.forget_endpoint(hash, port, source, relay);
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
        (peer, own): (PeerAddr, Option<OwnSender>),
        payload: &[u8],
    ) -> Result<ToClient, Dropped> {
        if is_nested_without_end(payload) {
            // Where all have one port, servers can be one another's clients without more.
            return Err(Dropped::Loop);
        }
        let shared = self.shared_ports.as_deref_mut().ok_or(Dropped::NoAllocation)?;
        let (source, len) = (Source { peer, own }, payload.len());
        // Nothing is read of what nobody has asked for.
        let is_awaited = shared.permitted(&self.hash, port, peer.ip()).is_some()
            || shared.endpoint_mut(&self.hash, port, source).is_some()
            || shared.endpoint_mut(&self.hash, port, Source { peer, own: None }).is_some();
        if !is_awaited {
            return Err(Dropped::NoPermission);
        }
        let ice = Ice::read(payload);
        let (whose, says_so) = match ice {
            Some(Ice::Answer(id, is_success)) => (shared.asker(port, peer, id), is_success),
            Some(Ice::Check(_, Some(names))) => (shared.named(port, names), true),
            _ => (None, false),
        };
        if let Some(relay) = whose
            && let Some(routed) = self.route_to_relay(now, relay, peer, len)
        {
            if says_so && routed.is_ok() {
                let is_named = matches!(ice, Some(Ice::Check(..)));
                self.has_answered(now, port, source, relay, is_named);
            }
            return routed;
        }
        let is_check = matches!(ice, Some(Ice::Check(_, Some(_))));
        for source in [Some(source), own.map(|_| Source { peer, own: None })].into_iter().flatten() {
            let Some(shared) = self.shared_ports.as_deref_mut() else { break };
            let Some(owner) = shared.endpoint_mut(&self.hash, port, source).map(|endpoint| endpoint.relay) else {
                continue;
            };
            let is_for_another =
                own.is_some_and(|own| own.is_here(owner)) || (own.is_some() && is_check && shared.has_names(owner));
            if is_for_another {
                continue;
            }
            // Who has let go of this peer: it is as if nobody had named it.
            let Some(routed) = self.route_to_relay(now, owner, peer, len) else { continue };
            if let Some(shared) = self.shared_ports.as_deref_mut()
                && let Some(endpoint) = shared.endpoint_mut(&self.hash, port, source)
            {
                endpoint.used_micros = now.micros;
                if ice.is_none() || endpoint.heard_micros.is_some() {
                    endpoint.heard_micros = Some(now.micros);
                }
            }
            if source.own.is_none() && ice.is_none() && routed.is_ok() {
                self.guess_link(now, port, Source { peer, own }, owner);
            }
            return routed;
        }
        let relay = self.sole_holder(now, port, source, is_check)?;
        let slot = self.allocations.find_relay(relay).ok_or(Dropped::NoAllocation)?;
        let routed = self.route_to_slot(now, slot, relay, peer, len);
        if ice.is_none() && routed.is_ok() {
            self.guess_link(now, port, source, relay);
        }
        routed
    }

    /// What a relay of ours has sent to another one without ICE it goes on to send to that one, whoever comes after it.
    fn guess_link(&mut self, now: Now, port: RelayId, source: Source, relay: RelayId) {
        let used_micros = now.micros;
        if source.own.is_some_and(|own| !own.is_here(relay))
            && let Some(shared) = &mut self.shared_ports
        {
            let link = Endpoint { port, source, relay, used_micros, heard_micros: Some(used_micros) };
            shared.link(&self.hash, link, true);
        }
    }

    /// Routes a datagram to a relay's allocation; `None` if that has gone, or has no permission for the peer.
    fn route_to_relay(
        &mut self,
        now: Now,
        relay: RelayId,
        peer: PeerAddr,
        len: usize,
    ) -> Option<Result<ToClient, Dropped>> {
        let slot = self.allocations.find_relay(relay)?;
        match self.route_to_slot(now, slot, relay, peer, len) {
            Err(Dropped::NoPermission | Dropped::NoAllocation) => None,
            routed => Some(routed),
        }
    }

    /// A source has answered a relay, or has sent a check by its names: it is the relay's, unless it is one that it answers, too.
    fn has_answered(&mut self, now: Now, port: RelayId, source: Source, relay: RelayId, is_named: bool) {
        let Some(shared) = self.shared_ports.as_deref_mut() else { return };
        let (used_micros, heard_micros) = (now.micros, Some(now.micros));
        let known = shared.endpoint_mut(&self.hash, port, source);
        if let Some(endpoint) = known {
            if endpoint.relay == relay {
                (endpoint.used_micros, endpoint.heard_micros) = (used_micros, heard_micros);
                return;
            }
            let known = *endpoint;
            let is_open = if source.own.is_some() { is_named } else { known.is_open(now) };
            if self.holds(now, known.relay, source.peer) {
                if !is_open {
                    return;
                }
                if source.own.is_none() {
                    self.make_guest(known.relay, source.peer);
                }
            }
        }
        let endpoint = Endpoint { port, source, relay, used_micros, heard_micros };
        if source.own.is_some() {
            if let Some(shared) = &mut self.shared_ports {
                shared.link(&self.hash, endpoint, false);
            }
        } else if self.make_room(now, relay).is_ok()
            && let Some(shared) = &mut self.shared_ports
        {
            shared.set_owner(&self.hash, endpoint);
        }
    }

    /// An endpoint becomes another allocation's: the earlier one's channel is a guest there, so that nobody sends in another one's name.
    fn make_guest(&mut self, relay: RelayId, peer: PeerAddr) {
        let slot = self.allocations.find_relay(relay);
        if let Some(allocation) = slot.and_then(|slot| self.allocations.get_mut(slot)) {
            allocation.channels.make_guest(&self.hash, peer);
        }
    }

    /// Whose endpoint this is at a shared port, for an ICMP error: by what it quotes only.
    pub(super) fn endpoint_owner(&mut self, port: RelayId, peer: PeerAddr) -> Option<RelayId> {
        let shared = self.shared_ports.as_deref_mut()?;
        shared.endpoint_mut(&self.hash, port, Source { peer, own: None }).map(|endpoint| endpoint.relay)
    }

    /// The one relay on a port that has a permission for a peer's address. What a relay of ours sends to its own port is for another one, if
    /// there is another one; and a check whose names nobody has used is for nobody who uses names.
    fn sole_holder(&mut self, now: Now, port: RelayId, source: Source, is_check: bool) -> Result<RelayId, Dropped> {
        let Source { peer, own } = source;
        let shared = self.shared_ports.as_deref_mut().ok_or(Dropped::NoAllocation)?;
        let permitted = *shared.permitted(&self.hash, port, peer.ip()).ok_or(Dropped::NoPermission)?;
        let (mut sole, mut sender) = (None, None);
        for (relay, until_micros) in permitted.holders.into_iter().flatten() {
            if until_micros <= now.micros || !self.holds(now, relay, peer) {
                continue;
            }
            let uses_names = self.shared_ports.as_deref_mut().is_some_and(|shared| shared.has_names(relay));
            if own.is_some_and(|own| own.is_here(relay)) {
                sender = Some(relay);
            } else if own.is_some() && is_check && uses_names {
                // It knows the one who calls it by other names.
            } else if sole.replace(relay).is_some() {
                return Err(Dropped::SeveralPermissions);
            }
        }
        if permitted.more_until_micros > now.micros {
            return Err(Dropped::SeveralPermissions);
        }
        sole.or(sender.filter(|_| !is_check)).ok_or(Dropped::NoPermission)
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
