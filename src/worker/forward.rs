//! One message through the rooms: from a client to the server or a peer, from a peer to the client of its relay. What is to be sent
//! is gathered; each step says whether there is room for another.

use super::clients::Came;
use super::inbox::{Decrypted, Payload};
use super::mailbox::{Between, Handover};
use super::plan::Pieces;
use super::room::Room;
use super::{Worker, log};
use crate::addr::{Family, PeerAddr, Transport};
use crate::clock::Now;
use crate::net::RelayOwner;
use crate::net::sys::IcmpError;
use crate::reject::Dropped;
use crate::traffic::Direction;
use crate::turn::{
    ChannelData, Client, DatagramPath, Detour, Encapsulation, MessageKind, Outcome, OwnSender, Path, RelayId,
    SessionId, ToClient, ToPeer, Wrapping, is_nested_without_end,
};

/// What a STUN message counts for beside a packet of payload.
pub(super) const STUN_WEIGHT: u32 = 8;

/// What a DTLS session has brought, decrypted.
pub(super) struct Opened {
    pub(super) id: SessionId,
    pub(super) client: Client,
    pub(super) messages: Decrypted,
}

impl Worker {
    /// A datagram of DTLS. The messages in it, if a session is open for it, are decrypted where it lies.
    pub(super) fn on_dtls(&mut self, now: Now, client: &Client, datagram: Payload) -> (Option<Opened>, Room) {
        // The rest is counted with the messages in it.
        self.pace.spend(2);
        let reply = self.outbox.new_reply();
        let bytes = self.inbox.bytes(datagram.span);
        let id = match self.clients.on_dtls(now, client, bytes, &mut self.server, &self.observers, reply) {
            Came::Open(id) => id,
            Came::Answered => return (None, self.answer(client, false)),
            Came::Done => return (None, Room::Left),
            Came::Dropped(reason) => return (None, self.drop_packet(reason)),
        };
        let client = self.clients.receive_by_dtls(now, id, self.inbox.bytes(datagram.span));
        let messages = self.inbox.replace(datagram, self.clients.opened());
        if let Some(way) = self.clients.way_of(id) {
            // Something of the handshake that the client has missed, or an alert.
            self.send_records((way, None), 0);
        }
        (client.map(|client| Opened { id, client, messages }), self.inbox.room())
    }

    /// The turn of a DTLS session that arrives.
    pub(super) fn on_dtls_arriving(&mut self, now: Now) -> Room {
        if let Some((way, replaced)) = self.clients.arrive_by_dtls(now, &self.observers) {
            self.send_records((way, None), 0);
            if let Some(five_tuple) = replaced {
                self.server.client_gone(now, &five_tuple, &mut self.relays);
            }
        }
        self.inbox.room()
    }

    /// One datagram, or one frame of a stream, of a client.
    pub(super) fn on_client_message(
        &mut self,
        now: Now,
        client: &Client,
        kind: Option<MessageKind>,
        message: Payload,
    ) -> Room {
        let bytes = self.inbox.bytes(message.span);
        let transport = client.five_tuple.transport;
        self.pace.spend(1);
        match kind {
            Some(MessageKind::ChannelData(header)) => {
                let routed = self.server.route_channel_data(now, &client.five_tuple, header);
                if log::wants_messages() {
                    log::channel_data(client, header.number(), bytes.len(), routed.as_ref().err().copied());
                }
                match routed {
                    Ok(way) => {
                        let payload = message.inner(ChannelData::HEADER_LEN, header.payload_len());
                        self.relay_to_peer(now, transport, &way, payload)
                    }
                    Err(Dropped::Moving) => self.wait_for_allocation(client, message),
                    Err(reason) => self.drop_packet(reason),
                }
            }
            Some(MessageKind::Stun) => {
                self.pace.spend(STUN_WEIGHT);
                let reply = self.outbox.new_reply();
                let outcome = self.server.handle_message(now, client, bytes, &mut self.relays, reply);
                if log::wants_requests() {
                    log::message(&self.server, client, bytes, &outcome, reply);
                }
                match outcome {
                    Outcome::Reply => {
                        self.observers.counters().answers.add(1);
                        self.answer(client, false)
                    }
                    Outcome::Detour(detour) => {
                        self.observers.counters().answers.add(1);
                        self.answer_elsewhere(client, detour)
                    }
                    Outcome::ToPeer(way, range) => {
                        let payload = message.inner(range.start, range.len());
                        self.relay_to_peer(now, transport, &way, payload)
                    }
                    // A Connect, which is answered when its peer has; or somebody is asked about its user.
                    Outcome::Waits => Room::Left,
                    Outcome::Binds(binding) => {
                        self.observers.counters().answers.add(1);
                        self.clients.begin_binding(binding, self.outbox.reply());
                        Room::Left
                    }
                    Outcome::Elsewhere(id) => self.pass_request_on(client, id, message),
                    Outcome::Dropped(Dropped::Moving) => self.wait_for_allocation(client, message),
                    Outcome::Dropped(reason) => self.drop_packet(reason),
                }
            }
            None => {
                if log::wants_messages() {
                    log::malformed(client, bytes);
                }
                self.drop_packet(Dropped::Malformed)
            }
        }
    }

    /// Gathers the reply for a client. Over a stream, what is droppable gives way when the client does not read it.
    pub(super) fn answer(&mut self, client: &Client, droppable: bool) -> Room {
        if let Some(pieces) = self.inbox.store(self.outbox.reply()) {
            self.send_to_client((client.path, None), 0, pieces, droppable);
        }
        self.inbox.room()
    }

    /// Gathers the reply from another of our addresses, or to another port of the client.
    fn answer_elsewhere(&mut self, client: &Client, detour: Detour) -> Room {
        let Some(path) = self.clients.detour(client, detour) else {
            self.observers.counters().send_errors.add(1);
            return Room::Left;
        };
        if let Some(pieces) = self.inbox.store(self.outbox.reply()) {
            self.observers.counters().detours.add(1);
            self.outbox.add_to_client(None, path, 0, pieces);
        }
        self.inbox.room()
    }

    /// Gathers a payload for a peer, or hands it to our own allocation there.
    fn relay_to_peer(&mut self, now: Now, transport: Transport, way: &ToPeer, payload: Payload) -> Room {
        if self.relays.shares_ports() {
            self.server.note_sent(way, self.inbox.bytes(payload.span));
        }
        if way.own_relay {
            self.relay_to_own(now, transport, way, payload)
        } else {
            self.relay_to_socket(transport, way, payload)
        }
    }

    fn relay_to_socket(&mut self, transport: Transport, way: &ToPeer, payload: Payload) -> Room {
        let counters = self.observers.counters();
        counters.payload.count(transport, way.peer.family(), Direction::ToPeers, payload.len());
        self.outbox.add_to_peer(way, payload);
        Room::Left
    }

    /// The peer is a relayed address of this process: no socket in between.
    fn relay_to_own(&mut self, now: Now, transport: Transport, way: &ToPeer, payload: Payload) -> Room {
        let Some(from) = self.relays.get(way.relay).map(|relay| relay.relayed().as_peer()) else { return Room::Left };
        let Some(owner) = self.relays.owner(way.peer.get()) else {
            // Relaying from loopback, the ports of the range are also those of every other program on this host.
            if self.relays.may_be_foreign(way.peer) {
                return self.relay_to_socket(transport, way, payload);
            }
            return self.drop_packet(Dropped::NoAllocation);
        };
        let counters = self.observers.counters();
        counters.payload.count(transport, way.peer.family(), Direction::ToPeers, payload.len());
        counters.own_relayed.count(payload.len());
        let own = self.relays.worker();
        if owner.worker == own {
            let sender = OwnSender { worker: None, relay: way.relay };
            return self.on_peer_message(now, relay_id(owner), (from, Some(sender)), payload);
        }
        let sender = OwnSender { worker: Some(own), relay: way.relay };
        let between = Between { from, sender, to: way.peer.get() };
        self.mail.add(owner.worker, between, payload.tos, self.inbox.bytes(payload.span))
    }

    /// One payload from another worker's allocation.
    pub(super) fn on_handed_over(&mut self, now: Now, packet: Handover, payload: Payload) -> Room {
        // The port may have changed hands since: the owner is asked anew.
        let between = packet.between;
        match self.relays.owner(between.to) {
            Some(owner) if owner.worker == self.relays.worker() => {
                self.on_peer_message(now, relay_id(owner), (between.from, Some(between.sender)), payload)
            }
            // Its allocation has moved since.
            Some(owner) => self.mail.add(owner.worker, between, payload.tos, self.inbox.bytes(payload.span)),
            None => self.drop_packet(Dropped::NoAllocation),
        }
    }

    /// A peer's payload to a relay; of one of our own relays, which one has sent it.
    #[inline]
    pub(super) fn on_peer_message(
        &mut self,
        now: Now,
        relay: RelayId,
        (peer, sender): (PeerAddr, Option<OwnSender>),
        payload: Payload,
    ) -> Room {
        self.pace.spend(1);
        let datagram = self.inbox.bytes(payload.span);
        let routed = match sender {
            None => self.server.route_from_peer(now, relay, peer, datagram),
            Some(sender) => self.server.route_from_own(now, relay, (peer, sender), datagram),
        };
        if log::wants_messages() {
            log::packet_of_peer(&self.relays, relay, peer, payload.len(), routed.as_ref().err().copied());
        }
        match routed {
            // The packet alone: its source may be forged.
            Ok(_) if self.loops.is_some() && is_nested_without_end(datagram) => self.drop_packet(Dropped::Loop),
            Ok(way) if self.goes_round(now, relay, peer, &payload) => {
                self.server.cut_loop(now, &way.client.five_tuple, peer);
                self.drop_packet(Dropped::Loop)
            }
            Ok(way) => self.relay_to_client(relay, peer.family(), &way, payload),
            Err(reason) => self.drop_packet(reason),
        }
    }

    /// Whether a packet is one of a loop, where those are looked for.
    #[inline]
    fn goes_round(&mut self, now: Now, relay: RelayId, peer: PeerAddr, payload: &Payload) -> bool {
        let Some(loops) = &mut self.loops else { return false };
        loops.is_next(now.micros) && loops.look(now.micros, relay, peer, self.inbox.bytes(payload.span))
    }

    fn relay_to_client(&mut self, relay: RelayId, family: Family, way: &ToClient, payload: Payload) -> Room {
        let transport = way.client.five_tuple.transport;
        let len = payload.len();
        let Some(wrapping) = Wrapping::new(way.encapsulation, len, transport.framing()) else { return Room::Left };
        self.observers.counters().payload.count(transport, family, Direction::ToClients, len);
        if let Some(pieces) = self.inbox.wrap(&wrapping, payload) {
            let flow = match way.encapsulation {
                Encapsulation::Channel(_) => Some(relay),
                Encapsulation::Data { .. } => None,
            };
            self.send_to_client((way.client.path, flow), payload.tos, pieces, true);
        }
        self.inbox.room()
    }

    /// An ICMP error that came back to a relay.
    pub(super) fn on_icmp_error(&mut self, now: Now, relay: RelayId, error: &IcmpError) -> Room {
        let icmp = (error.kind, error.code, error.info.to_be_bytes());
        let reply = self.outbox.new_reply();
        let Some(client) = self.server.handle_icmp(now, relay, error.destination, icmp, reply) else {
            return Room::Left;
        };
        self.observers.counters().icmp_errors.add(1);
        // Peers can bring about any number of them.
        self.answer(&client, true)
    }

    /// Gathers what is sent to a client; a relay's datagrams in a row make a flow.
    fn send_to_client(&mut self, (path, flow): (Path, Option<RelayId>), tos: u8, pieces: Pieces, droppable: bool) {
        match path {
            Path::Datagrams(path) => self.outbox.add_to_client(flow, path, tos, pieces),
            Path::Stream(id) => self.clients.gather(id, pieces, droppable),
            Path::Session(id) => {
                let parts = pieces.spans().map(|span| self.inbox.bytes(span));
                match self.clients.send_by_dtls(id, parts) {
                    Some(way) => self.send_records((way, flow), tos),
                    None => self.observers.counters().send_errors.add(1),
                }
            }
        }
    }

    /// Gathers what a DTLS session has to send.
    fn send_records(&mut self, (way, flow): (DatagramPath, Option<RelayId>), tos: u8) {
        for datagram in self.clients.sealed().iter() {
            if let Some(pieces) = self.inbox.store(datagram) {
                self.outbox.add_to_client(flow, way, tos, pieces);
            }
        }
    }

    pub(super) fn drop_packet(&self, reason: Dropped) -> Room {
        self.observers.counters().drop_packet(reason);
        Room::Left
    }
}

fn relay_id(owner: RelayOwner) -> RelayId {
    RelayId { index: owner.index, generation: owner.generation }
}
