//! The turns of TCP relays (RFC 6062): connections are accepted, made, bound, and their bytes moved, a part of it each round.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use super::Worker;
use super::clients::Reading;
use super::room::Room;
use super::shortage::{Shortage, has_run_out};
use super::tcp_link::{HALF_CLOSED_MICROS, LinkStage, LinkState, Means};
use super::tcp_relays::ClientSide;
use crate::addr::PeerAddr;
use crate::clock::Now;
use crate::net::{reset_on_close, take_error};
use crate::reject::Dropped;
use crate::traffic::Direction;
use crate::turn::slots::SlotId;
use crate::turn::{Binding, ConnectError, ConnectionId, Notice, RelayId};

/// Connections accepted in one round, and of one relay before others have their turn.
const ACCEPTED_PER_ROUND: usize = 32;
const ACCEPTED_PER_TURN: usize = 4;
/// Bytes moved in one round, and connections that have a turn: both are about as long as a round of packets.
const BYTES_PER_ROUND: usize = 512 * 1024;
const TURNS_PER_ROUND: usize = 64;
/// How long a connection rests whose bandwidth is used up.
const PAUSE_MICROS: u64 = 20_000;

impl Worker {
    /// A part of what waits at TCP relays.
    pub(super) fn serve_tcp(&mut self, now: Now) {
        let (accepting, runnable) = self.relays.tcp().waiting();
        let mut accepted = 0;
        for _ in 0..accepting {
            if accepted >= ACCEPTED_PER_ROUND {
                break;
            }
            if let Some(relay) = self.relays.tcp().next_to_accept() {
                accepted += self.accept_peers(now, relay);
            }
        }
        let mut moved = 0;
        for _ in 0..runnable.min(TURNS_PER_ROUND) {
            if moved >= BYTES_PER_ROUND {
                break;
            }
            if let Some(slot) = self.relays.tcp().next_runnable() {
                moved += self.serve_link(now, slot);
            }
        }
    }

    /// Accepts what waits at a relay. Returns how many connections there were.
    fn accept_peers(&mut self, now: Now, relay: RelayId) -> usize {
        for count in 0..ACCEPTED_PER_TURN {
            match self.relays.tcp().accept(relay) {
                None => return count,
                Some(Ok((socket, source))) => self.on_peers_connection(now, relay, socket, source),
                Some(Err(error)) if has_run_out(&error) => {
                    self.observers.note_shortage(now.micros, Shortage::Sockets);
                    self.relays.tcp().rest(now.micros, relay);
                    return count + 1;
                }
                // The peer has given up in between.
                Some(Err(_)) => {}
            }
        }
        self.relays.tcp().wait_to_accept(relay);
        ACCEPTED_PER_TURN
    }

    /// A peer has connected to a relay.
    fn on_peers_connection(&mut self, now: Now, relay: RelayId, socket: OwnedFd, source: SocketAddr) {
        let source = self.relays.tcp_relayed_at(source);
        let peer = PeerAddr::new(source).map_err(|_| Dropped::PeerDenied);
        match peer.and_then(|peer| Ok((peer, self.server.accepted(now, relay, peer)?))) {
            Ok((peer, (id, gave_way))) => {
                if let Some(gave_way) = gave_way {
                    self.relays.tcp().disconnect(gave_way);
                    self.observers.counters().drop_packet(Dropped::TooManyConnections);
                }
                if self.relays.tcp().keep(id, socket, peer.family()).is_err() {
                    self.observers.note_shortage(now.micros, Shortage::Sockets);
                    self.server.connection_gone(id);
                }
            }
            Err(reason) => {
                reset_on_close(&socket);
                self.observers.counters().drop_packet(reason);
                if reason == Dropped::TooManyConnections && self.server.has_all_connections() {
                    self.observers.note_shortage(now.micros, Shortage::Sockets);
                }
            }
        }
    }

    /// The turn of a connection. Returns how many bytes have moved.
    fn serve_link(&mut self, now: Now, slot: SlotId) -> usize {
        let Some((link, _)) = self.relays.tcp().link(slot) else { return 0 };
        let id = link.id;
        match &link.stage {
            LinkStage::Connecting => {
                match take_error(&link.peer_fd()) {
                    None => {
                        link.stage = LinkStage::Unbound { brought_by_peer: false };
                        if !self.server.connected(now, id, Ok(())) {
                            self.relays.tcp().remove(slot);
                        }
                    }
                    Some(_) => {
                        self.relays.tcp().remove(slot);
                        self.server.connected(now, id, Err(ConnectError::Failed));
                    }
                }
                0
            }
            LinkStage::Unbound { .. } => {
                if take_error(&link.peer_fd()).is_some() || link.has_gone_silently() {
                    self.end_link(slot, id);
                }
                0
            }
            LinkStage::Bound(_) => self.move_bytes(now, slot, id),
        }
    }

    fn move_bytes(&mut self, now: Now, slot: SlotId, id: ConnectionId) -> usize {
        let server = &mut self.server;
        let is_metered = server.is_metered(id);
        let Some((link, scratch)) = self.relays.tcp().link(slot) else { return 0 };
        let mut pay = |direction, bytes| server.admit_bytes(now, id, direction, bytes);
        let over = link.turn(&mut Means {
            pipes: &mut self.pipes,
            scratch,
            pay: if is_metered { Some(&mut pay) } else { None },
        });
        let LinkStage::Bound(bound) = &link.stage else { return 0 };
        let (transport, family) = (bound.client_transport(), link.family);
        for (direction, bytes) in [(Direction::ToPeers, over.to_peer), (Direction::ToClients, over.to_client)] {
            if bytes > 0 {
                self.server.count_bytes(id, direction, bytes);
                self.observers.counters().payload.count(transport, family, direction, bytes);
            }
        }
        let moved = over.to_peer + over.to_client;
        if moved > 0 {
            link.moved_micros = now.micros;
        }
        let silent_until = link.is_half_closed().then(|| link.moved_micros + HALF_CLOSED_MICROS);
        let is_forsaken = silent_until.is_some_and(|until| until <= now.micros);
        match over.state {
            LinkState::Broken => {
                link.reset();
                self.end_link(slot, id);
            }
            LinkState::Done => self.end_link(slot, id),
            LinkState::Waits if is_forsaken => self.end_link(slot, id),
            LinkState::Waits => self.relays.tcp().look_again_at(slot, silent_until),
            LinkState::Paused => self.relays.tcp().look_again_at(slot, Some(now.micros + PAUSE_MICROS)),
            LinkState::GoesOn => self.relays.tcp().make_runnable(slot),
        }
        moved
    }

    fn end_link(&mut self, slot: SlotId, id: ConnectionId) {
        self.relays.tcp().remove(slot);
        self.server.connection_gone(id);
    }

    /// Takes the connection that a ConnectionBind came by to the peer's. That may be another worker's.
    pub(super) fn take_for_data(&mut self, now: Now, reading: &Reading, binding: Binding, success: Vec<u8>) {
        let rest = self.inbox.bytes(reading.rest()).to_vec();
        let Some((connection, transport)) = self.clients.take_for_data(reading, &self.observers) else { return };
        let client = ClientSide { connection, transport, rest, success };
        if binding.worker == self.relays.worker() {
            self.bind(now, binding.connection, client);
        } else {
            self.mail.hand_client_over(binding.worker, binding.connection, client);
        }
    }

    /// Binds a client's connection to the peer's, which is this worker's; closes it if that is no more.
    pub(super) fn bind(&mut self, now: Now, id: ConnectionId, client: ClientSide) {
        if self.server.bind_connection(id) && !self.relays.tcp().bind(now.micros, id, client) {
            self.relays.tcp().disconnect(id);
            self.server.connection_gone(id);
        }
    }

    /// Gathers a message for a client that has not just asked for it.
    pub(super) fn on_notice(&mut self, notice: &Notice) -> Room {
        self.outbox.new_reply().extend_from_slice(&notice.message);
        self.observers.counters().answers.add(u64::from(!notice.droppable));
        self.answer(&notice.client, notice.droppable)
    }
}
