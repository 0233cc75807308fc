//! The one place where peer policy is asked.

use std::net::IpAddr;

use crate::addr::PeerAddr;
use crate::clock::{Now, SECOND};
use crate::policy::{PeerAcl, Verdict};
use crate::reject::{Dropped, Reason};
use turnstone_stun::Method;

use super::refusal::{Excerpt, Refusal};
use super::server::Server;

/// What is asked about: permissions have no port (RFC 8656 section 9).
#[derive(Clone, Copy, Debug)]
pub(super) enum Peer {
    /// CreatePermission, and permissions at a reload.
    Ip(IpAddr),
    /// ChannelBind, Send, an inbound datagram, and channels at a reload.
    Address(PeerAddr),
}

/// Judges a peer. Every method and the inbound path come here; a channel keeps the verdict of its binding.
pub(super) fn judge(acl: &PeerAcl, peer: Peer) -> Result<Verdict, Reason> {
    match peer {
        Peer::Ip(ip) => acl.judge_ip(ip),
        Peer::Address(peer) => acl.judge(peer),
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
    /// Drops data whose peer policy denies, though there is a permission for its address: permissions have no port, and an address
    /// of our relays is also this host's. Nobody is answered; that an operator can find out why, it is told once a second.
    #[cold]
    pub(super) fn refuse_data(
        &mut self,
        now: Now,
        slot: u32,
        method: Method,
        (peer, reason): (PeerAddr, Reason),
    ) -> Dropped {
        if let Some(allocation) = self.allocations.get_mut(slot) {
            let refused = &mut allocation.refused_data;
            refused.untold = refused.untold.saturating_add(1);
            if refused.tell_micros <= now.micros {
                refused.tell_micros = now.micros + SECOND;
                let times = std::mem::take(&mut refused.untold);
                self.events.tell(Refusal {
                    unix_secs: now.unix_secs,
                    reason,
                    method,
                    client: allocation.client.five_tuple.client,
                    transport: allocation.client.five_tuple.transport,
                    username: Excerpt::of(allocation.identity.username.as_bytes()),
                    peer: Some(peer.get()),
                    times,
                });
            }
        }
        Dropped::PeerDenied
    }
}
