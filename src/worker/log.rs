//! What a worker logs of its clients. A level that is off costs one branch: the packet path asks before it makes a line.
//!
//! Targets are names that stay, so that a filter can have one of them alone: `turnstone::turn` each request,
//! `turnstone::auth` each refused credential, `turnstone::message` each message and packet.

use std::fmt;

use super::relay_sockets::RelaySockets;
use crate::addr::{FiveTuple, Logged, PeerAddr, RelayedAddr};
use crate::reject::{Dropped, Reason};
use crate::stun::{AttributeType, Class, ErrorCode, Message};
use crate::turn::{AllocationId, AllocationSummary, Client, Outcome, RelayId, Server};

/// A username is shown up to so many characters.
const USERNAME_CHARS_MAX: usize = 96;

/// The line of an allocation that has ended.
pub(super) fn ended(summary: &AllocationSummary) {
    tracing::info!(
        target: "turnstone::worker",
        user = &*summary.username,
        realm = summary.user.realm().map(|realm| &**realm),
        transport = %summary.five_tuple.transport,
        client = %Logged(summary.five_tuple.client.get()),
        server = %summary.five_tuple.server,
        relayed = %Addresses(&summary.relayed),
        seconds = summary.duration_micros / 1_000_000,
        to_peers_packets = summary.to_peers.packets,
        to_peers_bytes = summary.to_peers.bytes,
        to_client_packets = summary.to_client.packets,
        to_client_bytes = summary.to_client.bytes,
        throttled_packets = summary.throttled,
        reason = summary.reason.label(),
        "allocation ended"
    );
}

/// Whether requests and messages of clients are logged.
#[inline]
pub(super) fn wants_requests() -> bool {
    tracing::enabled!(target: "turnstone::turn", tracing::Level::DEBUG)
        || tracing::enabled!(target: "turnstone::auth", tracing::Level::DEBUG)
        || wants_messages()
}

/// Whether messages and packets are logged.
#[inline]
pub(super) fn wants_messages() -> bool {
    tracing::enabled!(target: "turnstone::message", tracing::Level::TRACE)
}

/// What a STUN message of a client came to, and the answer.
#[cold]
pub(super) fn message(server: &Server, client: &Client, bytes: &[u8], outcome: &Outcome, reply: &[u8]) {
    let Ok(message) = Message::parse(bytes) else {
        return match outcome {
            Outcome::Reply | Outcome::Detour(_) => classic(server, client, bytes.len()),
            Outcome::ToPeer(..) | Outcome::Waits | Outcome::Elsewhere(_) | Outcome::Binds(_) | Outcome::Dropped(_) => {
                no_message(client, bytes.len(), Dropped::Malformed);
            }
        };
    };
    let (method, five_tuple) = (message.method().name(), &client.five_tuple);
    let (from, transport) = (Logged(five_tuple.client.get()), five_tuple.transport);
    let class = message.class();
    let length = bytes.len();
    tracing::trace!(target: "turnstone::message", client = %from, %transport, %method, ?class, length, outcome = %name_of(outcome), "message");
    if class != Class::Request {
        return;
    }
    let username = Username::of(&message);
    let user = username.0.as_str();
    let refused = match outcome {
        Outcome::Dropped(reason) => {
            let reason = reason.label();
            tracing::debug!(target: "turnstone::turn", client = %from, %transport, %method, %reason, user, "not answered");
            return;
        }
        // Its answer is logged when it comes.
        Outcome::Waits | Outcome::Elsewhere(_) => return,
        Outcome::Reply | Outcome::Detour(_) | Outcome::ToPeer(..) | Outcome::Binds(_) => server.refused_with(),
    };
    let code = error_code(reply).map(ErrorCode::value);
    let Some((reason, peer)) = refused else {
        // A copy of an earlier request gets its answer again, which may have been a refusal.
        match code {
            None => {
                tracing::debug!(target: "turnstone::turn", client = %from, %transport, %method, user, "answered")
            }
            Some(code) => {
                tracing::debug!(target: "turnstone::turn", client = %from, %transport, %method, code, user, "refused again");
            }
        }
        return;
    };
    let code = code.unwrap_or(reason.code().value());
    let label = reason.label();
    if is_about_credential(reason) {
        // systemd/fail2ban has a filter for this line: the address comes before anything that the client chose.
        tracing::debug!(target: "turnstone::auth", client = %from, %transport, %method, code, reason = %label, user, "authentication refused");
        return;
    }
    let peer = peer.map(|peer| Logged(peer).to_string());
    tracing::debug!(target: "turnstone::turn", client = %from, %transport, %method, code, reason = %label, peer, user, "refused");
}

/// A Binding request of RFC 3489 that was answered.
#[cold]
fn classic(server: &Server, client: &Client, length: usize) {
    let (from, transport) = (Logged(client.five_tuple.client.get()), client.five_tuple.transport);
    tracing::trace!(target: "turnstone::message", client = %from, %transport, method = "Binding", length, "message of RFC 3489");
    let refused = server.refused_with().map(|(reason, _)| reason.label());
    tracing::debug!(target: "turnstone::turn", client = %from, %transport, method = "Binding", refused, "answered as by RFC 3489");
}

/// A client keeps its allocation at another address.
pub(super) fn moved(id: AllocationId, from: &FiveTuple, to: &FiveTuple, username: &str) {
    tracing::info!(
        target: "turnstone::worker",
        allocation = %id,
        user = username,
        from = %Logged(from.client.get()),
        from_transport = %from.transport,
        to = %Logged(to.client.get()),
        to_transport = %to.transport,
        "allocation moved with its client"
    );
}

/// ChannelData of a client.
#[cold]
pub(super) fn channel_data(client: &Client, channel: u16, length: usize, dropped: Option<Dropped>) {
    let (from, transport) = (Logged(client.five_tuple.client.get()), client.five_tuple.transport);
    let dropped = dropped.map(Dropped::label);
    tracing::trace!(target: "turnstone::message", client = %from, %transport, channel, length, dropped, "channel data");
}

/// A packet of a peer.
#[cold]
pub(super) fn packet_of_peer(
    relays: &RelaySockets,
    relay: RelayId,
    peer: PeerAddr,
    length: usize,
    dropped: Option<Dropped>,
) {
    let relayed = relays.get(relay).map(|relay| relay.relayed().to_string()).unwrap_or_default();
    let (from, dropped) = (Logged(peer.get()), dropped.map(Dropped::label));
    tracing::trace!(target: "turnstone::message", peer = %from, relayed, length, dropped, "packet of a peer");
}

/// A datagram of a client that is no message, or less of one than it says.
#[cold]
pub(super) fn malformed(client: &Client, bytes: &[u8]) {
    if bytes.first().is_some_and(|first| first >> 6 == 1) {
        let number = bytes.first_chunk().map_or(0, |number| u16::from_be_bytes(*number));
        return channel_data(client, number, bytes.len(), Some(Dropped::Malformed));
    }
    no_message(client, bytes.len(), Dropped::Malformed);
}

/// Bytes of a client that are no message.
#[cold]
fn no_message(client: &Client, length: usize, reason: Dropped) {
    let (from, transport) = (Logged(client.five_tuple.client.get()), client.five_tuple.transport);
    tracing::trace!(target: "turnstone::message", client = %from, %transport, length, dropped = %reason.label(), "no message");
}

/// Reasons that a nonce of ours went before, so that the client receives at its address: nobody else can be made to look
/// like the one who guesses.
fn is_about_credential(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::WrongPassword
            | Reason::UnknownUser
            | Reason::WrongRealm
            | Reason::CredentialExpired
            | Reason::TimestampInMilliseconds
            | Reason::AmbiguousExpiry
            | Reason::MalformedUsername
            | Reason::PasswordAlgorithmMismatch
            | Reason::UnknownTokenKey
            | Reason::TokenKeyExpired
            | Reason::TokenMissing
            | Reason::TokenMalformed
            | Reason::TokenUnreadable
            | Reason::TokenExpired
            | Reason::WrongSessionKey
    )
}

fn name_of(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Reply => "answer",
        Outcome::Detour(_) => "answer-elsewhere",
        Outcome::ToPeer(..) => "to-peer",
        Outcome::Waits => "waits",
        Outcome::Elsewhere(_) => "elsewhere",
        Outcome::Binds(_) => "binds",
        Outcome::Dropped(reason) => reason.label(),
    }
}

fn error_code(reply: &[u8]) -> Option<ErrorCode> {
    Message::parse(reply).ok()?.error_code()
}

/// The USERNAME of a request, which nobody may have verified.
struct Username(String);

impl Username {
    fn of(message: &Message<'_>) -> Self {
        let bytes = message.get(AttributeType::USERNAME).unwrap_or_default();
        let text = String::from_utf8_lossy(bytes);
        let mut shown: String = text.chars().take(USERNAME_CHARS_MAX).collect();
        if shown.len() < text.len() {
            shown.push('…');
        }
        Self(shown)
    }
}

/// Relayed transport addresses, one or two, as a log line has them.
struct Addresses<'a>(&'a [RelayedAddr]);

impl fmt::Display for Addresses<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().enumerate().try_for_each(|(at, address)| write!(f, "{}{address}", if at > 0 { " " } else { "" }))
    }
}
