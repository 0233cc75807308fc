//! The one place where peer policy is asked.

use std::net::IpAddr;

use crate::addr::{FiveTuple, PeerAddr};
use crate::auth::Identity;
use crate::clock::{Now, SECOND};
use crate::policy::{PeerPolicies, PolicyChoice, Verdict};
use crate::reject::{DeniedPeer, Dropped};
use turnstone_stun::Method;

use super::output::Event;
use super::refusal::{Excerpt, Refusal};
use super::server::Server;
use super::settings::Settings;

/// What is asked about: permissions have no port (RFC 8656 section 9).
#[derive(Clone, Copy, Debug)]
pub(super) enum Peer {
    /// CreatePermission, and permissions at a reload.
    Ip(IpAddr),
    /// ChannelBind, Send, an inbound datagram, and channels at a reload.
    Address(PeerAddr),
}

/// Judges a peer. Every method and the inbound path come here; a channel keeps the verdict of its binding.
#[inline]
pub(super) fn judge(policies: &PeerPolicies, choice: PolicyChoice, peer: Peer) -> Result<Verdict, DeniedPeer> {
    match peer {
        Peer::Ip(ip) => policies.judge_ip(choice, ip),
        Peer::Address(peer) => policies.judge(choice, peer),
    }
}

/// The policies that judge the peers of whoever this is: that of the realm, and that which the credential names.
pub(super) fn choose(settings: &Settings, identity: &Identity) -> PolicyChoice {
    match settings.realm_of_user(&identity.user) {
        Some(realm) => settings.peer_policies.choose(realm.peer_policy, identity.peer_policy()),
        // It ends as soon as the snapshot has judged it.
        None => PolicyChoice::NOBODY,
    }
}

/// What an allocation's peers are judged by, and the snapshot that it was chosen from.
#[derive(Clone, Copy)]
pub(super) struct Judges {
    choice: PolicyChoice,
    generation: u32,
}

impl Judges {
    pub(super) fn new(choice: PolicyChoice, generation: u32) -> Self {
        Self { choice, generation }
    }

    /// Those of no snapshot: they are chosen when the first peer is judged.
    pub(super) fn nobody() -> Self {
        Self::new(PolicyChoice::NOBODY, 0)
    }

    /// Those of a snapshot; chosen anew, once, when another one has come.
    #[inline]
    pub(super) fn of(&mut self, settings: &Settings, identity: &Identity, generation: u32) -> PolicyChoice {
        if self.generation != generation {
            *self = Self::new(choose(settings, identity), generation);
        }
        self.choice
    }

    /// Has them chosen anew, wherever the allocation is now.
    pub(super) fn forget(&mut self) {
        self.generation = 0;
    }
}

/// The data of one allocation that policy refused.
#[derive(Clone, Copy, Default)]
pub(super) struct RefusedData {
    /// Datagrams that no refusal stands for yet.
    pub(super) untold: u32,
    /// When the next one is told.
    pub(super) tell_micros: u64,
}

impl Server {
    /// Cuts a loop that goes through a client's allocation and a peer: the peer loses its channel and its permission. Who wants the peer
    /// asks for it again.
    pub fn cut_loop(&mut self, now: Now, five_tuple: &FiveTuple, peer: PeerAddr) {
        let slot = self.allocations.find(&self.hash, five_tuple);
        let Some(allocation) = slot.and_then(|slot| self.allocations.get_mut(slot)) else { return };
        let (id, events) = (allocation.id, &mut self.events);
        allocation.channels.retain(&self.hash, |channel| {
            let keep = channel.peer != peer;
            if !keep {
                events.push(Event::RouteGone { id, channel: channel.number });
            }
            keep
        });
        allocation.permissions.retain(&self.hash, |ip, until_micros| ip != peer.ip() && until_micros > now.micros);
        let (user, client) = (allocation.identity.user.clone(), allocation.client.five_tuple.client);
        self.events.push(Event::LoopCut { id, user, client, peer });
    }

    /// Drops data whose peer policy denies, though there is a permission for its address: permissions have no port, and an address
    /// of our relays is also this host's. Nobody is answered; that an operator can find out why, it is told once a second.
    #[cold]
    pub(super) fn refuse_data(
        &mut self,
        now: Now,
        slot: u32,
        method: Method,
        (peer, denied): (PeerAddr, DeniedPeer),
    ) -> Dropped {
        if let Some(allocation) = self.allocations.get_mut(slot) {
            let refused = allocation.refused_data.get_or_insert_default();
            refused.untold = refused.untold.saturating_add(1);
            if refused.tell_micros <= now.micros {
                refused.tell_micros = now.micros + SECOND;
                let times = std::mem::take(&mut refused.untold);
                self.events.tell(Refusal {
                    unix_secs: now.unix_secs,
                    reason: denied.reason,
                    method,
                    client: allocation.client.five_tuple.client,
                    transport: allocation.client.five_tuple.transport,
                    realm: self.settings.realm_of(allocation.client.realm).id(),
                    username: Excerpt::of(allocation.identity.username.as_bytes()),
                    peer: Some(peer.get()),
                    policy: denied.policy,
                    times,
                });
            }
        }
        Dropped::PeerDenied
    }
}
