//! The one place where peer policy is asked.

use std::net::IpAddr;

use crate::addr::PeerAddr;
use crate::policy::{PeerAcl, Verdict};
use crate::reject::Reason;

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
