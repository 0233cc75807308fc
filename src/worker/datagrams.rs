//! Datagrams in: from clients at the listeners, from peers at the relay sockets, and from other workers' allocations.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;

use super::encapsulate::Wrapping;
use super::plan::{Pieces, Via, Way};
use super::{ListenerSocket, Worker, log};
use crate::addr::{ClientAddr, Family, FiveTuple, PeerAddr, Transport};
use crate::clock::Now;
use crate::counters::Direction;
use crate::net::sys::{Datagram, read_error_queue};
use crate::net::{HEADROOM, RelayOwner, Span};
use crate::reject::Dropped;
use crate::turn::{Client, DatagramPath, Encapsulation, Outcome, Path, RelayId, ToClient, ToPeer};

/// Datagrams taken from a listener at once, at most.
pub(super) const LISTENER_DEPTH: usize = 64;
/// Messages that one read of a listener should not bring many more of, each datagram being up to 64 that the kernel has
/// coalesced.
const LISTENER_MESSAGES: usize = 512;
/// Messages taken from a relay socket that has become readable before others have their turn.
const RELAY_MESSAGES: usize = 64;
/// ICMP errors passed on per turn of a relay socket.
const ICMP_BURST: usize = 4;
/// What a STUN message counts for beside a packet of payload.
const STUN_WEIGHT: u32 = 8;

/// A payload inside the arena and what is known of its datagram.
#[derive(Clone, Copy)]
pub(super) struct Payload {
    pub(super) span: Span,
    /// Bytes in front of the payload that may be overwritten.
    pub(super) room: usize,
    pub(super) tos: u8,
}

impl Worker {
    /// Datagrams of clients.
    pub(super) fn on_datagrams(&mut self, now: Now, listener: u32) {
        self.make_room(now, LISTENER_DEPTH);
        let Some(ListenerSocket::Udp { socket, depth, .. }) = self.listeners.get_mut(listener as usize) else { return };
        let first = self.next_slot;
        let Ok(count) = self.recv.receive(socket.as_fd(), &mut self.arena, first, *depth) else { return };
        self.next_slot += count;
        let mut messages = 0;
        for index in 0..count {
            let Some(datagram) = self.recv.datagram(&self.arena, first, index) else { continue };
            if let Some(drops) = datagram.kernel_drops {
                self.count_kernel_drops(listener, drops);
            }
            // A relay that is a client of ours would make one datagram into many, whatever way it has found to the listener.
            if self.own_relays.sent(datagram.source) {
                self.drop_packet(Dropped::OwnRelay);
                continue;
            }
            if datagram.truncated {
                self.drop_packet(Dropped::Malformed);
                continue;
            }
            let Some(client) = self.client_of(listener, &datagram) else { continue };
            for (at, len) in segments(&datagram) {
                let room = if at == 0 { HEADROOM } else { 0 };
                let message = Payload { span: datagram.span.part(at, len), room, tos: datagram.tos };
                self.on_client_message(now, &client, message);
                messages += 1;
            }
        }
        if let Some(ListenerSocket::Udp { depth, .. }) = self.listeners.get_mut(listener as usize) {
            *depth = next_listener_depth(*depth, count, messages);
        }
    }

    /// One datagram, or one frame of a stream, of a client.
    pub(super) fn on_client_message(&mut self, now: Now, client: &Client, message: Payload) {
        let bytes = self.arena.get(message.span);
        let transport = client.five_tuple.transport;
        self.spent += 1;
        match bytes.first().map(|first| first >> 6) {
            Some(1) => {
                let routed = self.server.route_channel_data(now, &client.five_tuple, bytes);
                if log::wants_messages() {
                    self.log_channel_data(client, self.arena.get(message.span), routed.as_ref().err().copied());
                }
                match routed {
                    Ok((way, range)) => {
                        let payload = message.inner(range.start, range.len());
                        self.relay_to_peer(now, transport, way, payload);
                    }
                    Err(reason) => self.drop_packet(reason),
                }
            }
            Some(0) => {
                self.reply.clear();
                self.spent += STUN_WEIGHT;
                let outcome = self.server.handle_message(now, client, bytes, &mut self.relays, &mut self.reply);
                if log::wants_requests() {
                    self.log_message(client, self.arena.get(message.span), &outcome);
                }
                match outcome {
                    Outcome::Reply => {
                        self.counters.answers.add(1);
                        self.answer(now, client, false);
                    }
                    Outcome::ToPeer(way, range) => {
                        let payload = message.inner(range.start, range.len());
                        self.relay_to_peer(now, transport, way, payload);
                    }
                    Outcome::Dropped(reason) => self.drop_packet(reason),
                }
            }
            _ => {
                if log::wants_messages() {
                    log::log_dropped(client, bytes.len(), Dropped::Malformed);
                }
                self.drop_packet(Dropped::Malformed);
            }
        }
    }

    /// Queues `self.reply` for a client. Over a stream, what is droppable gives way when the client does not read it.
    fn answer(&mut self, now: Now, client: &Client, droppable: bool) {
        if self.reply.len() > self.arena.scratch_left() {
            self.send_gathered(now);
        }
        let Some(span) = self.arena.store(&self.reply) else { return };
        match client.path {
            Path::Datagrams(path) => self.outbox.add_single_to_client(way_to_client(path, 0), Pieces::whole(span)),
            Path::Stream(id) => self.streams.queue_frame(id, Pieces::whole(span), droppable),
        }
    }

    /// Queues a payload for a peer, or hands it to our own allocation there.
    fn relay_to_peer(&mut self, now: Now, transport: Transport, way: ToPeer, payload: Payload) {
        if way.own_relay {
            return self.relay_to_own(now, transport, way, payload);
        }
        self.relay_to_socket(transport, way, payload);
    }

    fn relay_to_socket(&mut self, transport: Transport, way: ToPeer, payload: Payload) {
        self.counters.payload.count(transport, way.peer.family(), Direction::ToPeers, payload.span.len as usize);
        let relay = way.relay;
        let way = Way {
            via: Via::Relay(relay),
            to: way.peer.get(),
            from_ip: None,
            tos: payload.tos,
            dont_fragment: way.dont_fragment,
        };
        self.outbox.add_to_peer(relay, way, Pieces::whole(payload.span));
    }

    /// The peer is a relayed address of this process: no socket in between.
    fn relay_to_own(&mut self, now: Now, transport: Transport, way: ToPeer, payload: Payload) {
        let Some(from) = self.relays.get(way.relay).map(|relay| relay.relayed.as_peer()) else { return };
        let Some(owner) = self.own_relays.owner(way.peer.get()) else {
            // Relaying from loopback, the ports of the range are also those of every other program on this host.
            if self.context.loopback_peers && way.peer.ip().is_loopback() {
                return self.relay_to_socket(transport, way, payload);
            }
            return self.drop_packet(Dropped::NoAllocation);
        };
        self.counters.payload.count(transport, way.peer.family(), Direction::ToPeers, payload.span.len as usize);
        self.counters.own_relayed.count(payload.span.len as usize);
        if owner.worker == self.number {
            self.relay_from_peer(now, relay_id(owner), from, payload);
        } else if let Some(batch) = self.handovers.get_mut(usize::from(owner.worker)) {
            batch.push(from, way.peer.get(), payload.tos, self.arena.get(payload.span));
            if batch.is_full() {
                self.flush_handovers();
            }
        }
    }

    /// Payload from other workers' allocations, at most `packets`.
    pub(super) fn on_handover(&mut self, now: Now, packets: usize) {
        let mut inbox = std::mem::take(&mut self.inbox);
        for _ in 0..packets {
            let Some((packet, range)) = inbox.next() else { break };
            // The port may have changed hands since: the owner is asked anew.
            let owner = self.own_relays.owner(packet.to).filter(|owner| owner.worker == self.number);
            let Some(owner) = owner else {
                self.drop_packet(Dropped::NoAllocation);
                continue;
            };
            self.make_room(now, 1);
            let span = self.arena.slot(self.next_slot).part(0, range.len());
            self.next_slot += 1;
            self.arena.get_mut(span).copy_from_slice(inbox.bytes(range));
            let payload = Payload { span, room: HEADROOM, tos: packet.tos };
            self.relay_from_peer(now, relay_id(owner), packet.from, payload);
        }
        self.inbox = inbox;
    }

    /// Datagrams, or ICMP errors, of peers: up to some number, then others have their turn. The sockets are edge-triggered;
    /// whether it may have more.
    pub(super) fn on_relay(&mut self, now: Now, id: RelayId, busy: bool, readable: bool, error: bool) -> More {
        let mut has_errors = error && self.on_icmp_errors(now, id, busy);
        let nothing_more = |has_errors| if has_errors { More::WithErrors } else { More::None };
        if !readable {
            return nothing_more(has_errors);
        }
        let mut is_retry = false;
        let mut messages = 0;
        while messages < RELAY_MESSAGES {
            let Some(depth) = self.relays.get(id).map(|relay| relay.depth.next()) else { return More::None };
            self.make_room(now, depth);
            let first = self.next_slot;
            let Some(socket) = self.relays.get(id).and_then(|relay| relay.reading_fd(busy)) else { return More::None };
            let count = match self.recv.receive(socket, &mut self.arena, first, depth) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return nothing_more(has_errors),
                // The kernel has told of a pending ICMP error in place of the datagrams, which do not wait until there is none.
                Err(_) if !is_retry => {
                    (is_retry, has_errors) = (true, true);
                    continue;
                }
                Err(_) => return More::WithErrors,
            };
            self.next_slot += count;
            let here = self.on_peer_datagrams(now, id, busy, first, count);
            if let Some(relay) = self.relays.get_mut(id) {
                relay.depth.note(depth, count, here);
            }
            if count < depth {
                return nothing_more(has_errors);
            }
            messages += here;
        }
        if has_errors { More::WithErrors } else { More::Datagrams }
    }

    /// What a read of a relay socket has brought; returns how many messages that was.
    fn on_peer_datagrams(&mut self, now: Now, id: RelayId, busy: bool, first: usize, count: usize) -> usize {
        let mut messages = 0;
        for index in 0..count {
            let Some(datagram) = self.recv.datagram(&self.arena, first, index) else { continue };
            if let Some(drops) = datagram.kernel_drops {
                self.count_relay_drops(id, busy, drops);
            }
            let Ok(peer) = PeerAddr::new(datagram.source) else { continue };
            for (at, len) in segments(&datagram) {
                let room = if at == 0 { HEADROOM } else { 0 };
                let payload = Payload { span: datagram.span.part(at, len), room, tos: datagram.tos };
                self.relay_from_peer(now, id, peer, payload);
                messages += 1;
            }
        }
        messages
    }

    /// Routes a peer's payload to the relay's client.
    fn relay_from_peer(&mut self, now: Now, relay: RelayId, peer: PeerAddr, payload: Payload) {
        self.spent += 1;
        let routed = self.server.route_from_peer(now, relay, peer, payload.span.len as usize);
        if log::wants_messages() {
            self.log_from_peer(relay, peer, payload.span.len as usize, routed.as_ref().err().copied());
        }
        match routed {
            Ok(way) => self.relay_to_client(now, relay, peer.family(), &way, payload),
            Err(reason) => self.drop_packet(reason),
        }
    }

    fn relay_to_client(&mut self, now: Now, relay: RelayId, family: Family, way: &ToClient, payload: Payload) {
        let transport = way.client.five_tuple.transport;
        let len = payload.span.len as usize;
        let Some(wrapping) = Wrapping::new(way.encapsulation, len, transport.framing()) else { return };
        self.counters.payload.count(transport, family, Direction::ToClients, len);
        let header = wrapping.header();
        let mut pieces = Pieces { padding: self.arena.zeros(wrapping.padding), ..Pieces::default() };
        if payload.room >= header.len() {
            pieces.payload = self.arena.prepend(header, payload.span);
        } else {
            if header.len() > self.arena.scratch_left() {
                self.send_gathered(now);
            }
            let Some(stored) = self.arena.store(header) else { return };
            pieces.header = stored;
            pieces.payload = payload.span;
        }
        let to = match way.client.path {
            Path::Datagrams(path) => way_to_client(path, payload.tos),
            Path::Stream(id) => return self.streams.queue_frame(id, pieces, true),
        };
        match way.encapsulation {
            Encapsulation::Channel(_) => self.outbox.add_to_client(relay, to, pieces),
            Encapsulation::Data { .. } => self.outbox.add_single_to_client(to, pieces),
        }
    }

    /// Whether there may be more.
    fn on_icmp_errors(&mut self, now: Now, id: RelayId, busy: bool) -> bool {
        for count in 0..ICMP_BURST {
            let Some(socket) = self.relays.get(id).and_then(|relay| relay.reading_fd(busy)) else { return false };
            self.spent += STUN_WEIGHT;
            let Some(error) = read_error_queue(socket) else {
                if count == 0 {
                    // The queue had no room for it: while it is pending, every event tells of it.
                    let _ = socket2::SockRef::from(&socket).take_error();
                }
                return false;
            };
            self.reply.clear();
            let icmp = (error.kind, error.code, error.info.to_be_bytes());
            if let Some(client) = self.server.handle_icmp(now, id, error.destination, icmp, &mut self.reply) {
                self.counters.icmp_errors.add(1);
                // Peers can bring about any number of them.
                self.answer(now, &client, true);
            }
        }
        true
    }

    fn client_of(&self, listener: u32, datagram: &Datagram) -> Option<Client> {
        let Some(ListenerSocket::Udp { address, .. }) = self.listeners.get(listener as usize) else { return None };
        let server = server_address(*address, datagram.local_ip);
        let client = ClientAddr::new(datagram.source);
        // Source port 0 cannot be answered.
        (datagram.source.port() != 0).then_some(())?;
        let five_tuple = FiveTuple { transport: Transport::Udp, client, server };
        let from_ip = address.ip().is_unspecified().then(|| server.ip());
        Some(Client { five_tuple, path: Path::Datagrams(DatagramPath { socket: listener, to: client.get(), from_ip }) })
    }

    fn count_kernel_drops(&mut self, listener: u32, drops: u32) {
        if let Some(ListenerSocket::Udp { kernel_drops, .. }) = self.listeners.get_mut(listener as usize) {
            self.counters.listener_drops.add(u64::from(drops.wrapping_sub(*kernel_drops)));
            *kernel_drops = drops;
        }
    }

    fn count_relay_drops(&mut self, id: RelayId, busy: bool, drops: u32) {
        if let Some(relay) = self.relays.get_mut(id) {
            self.counters.relay_drops.add(u64::from(relay.new_drops(busy, drops)));
        }
    }
}

impl Payload {
    /// The part from `start`; what precedes it may be overwritten.
    fn inner(self, start: usize, len: usize) -> Self {
        Self { span: self.span.part(start, len), room: self.room + start, tos: self.tos }
    }
}

/// Whether a relay socket was read to its end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum More {
    /// It was.
    None,
    /// There may be more.
    Datagrams,
    /// There may be more, in the error queue too.
    WithErrors,
}

/// How many datagrams to ask a listener for after a read of `count` that were `messages` in all: fewer while the kernel
/// coalesces many, so that a client who sends trains of 64 keeps the loop no longer than others; and more again by one at a time,
/// so that few of his trains find the loop unprepared.
fn next_listener_depth(depth: usize, count: usize, messages: usize) -> usize {
    let each = messages.div_ceil(count.max(1)).max(1);
    (LISTENER_MESSAGES / each).min(depth + 1).clamp(4, LISTENER_DEPTH)
}

/// Offset and length of each datagram that was coalesced.
fn segments(datagram: &Datagram) -> impl Iterator<Item = (usize, usize)> + use<> {
    let (total, each) = (datagram.span.len as usize, datagram.segment_len.max(1));
    // An empty datagram is one segment of no bytes.
    (0..total.max(1)).step_by(each).map(move |at| (at, each.min(total - at)))
}

fn way_to_client(path: DatagramPath, tos: u8) -> Way {
    let DatagramPath { socket, to, from_ip } = path;
    Way { via: Via::Listener(socket), to, from_ip, tos, dont_fragment: false }
}

fn server_address(bound: SocketAddr, local_ip: Option<IpAddr>) -> SocketAddr {
    match local_ip {
        Some(ip) if bound.ip().is_unspecified() => SocketAddr::new(ip, bound.port()),
        _ => bound,
    }
}

fn relay_id(owner: RelayOwner) -> RelayId {
    RelayId { index: owner.index, generation: owner.generation }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trains_lower_the_depth_of_a_listener_at_once_and_it_grows_again_one_by_one() {
        assert_eq!(next_listener_depth(LISTENER_DEPTH, 64, 64), LISTENER_DEPTH);
        assert_eq!(next_listener_depth(LISTENER_DEPTH, 3, 3), LISTENER_DEPTH, "a short read says nothing of trains");
        let mut depth = next_listener_depth(LISTENER_DEPTH, 64, 64 * 64);
        assert_eq!(depth, 8, "eight trains of 64 at once");
        for grown in 9..=LISTENER_DEPTH {
            depth = next_listener_depth(depth, depth, depth);
            assert_eq!(depth, grown);
        }
        assert_eq!(next_listener_depth(depth, 0, 0), LISTENER_DEPTH);
    }
}
