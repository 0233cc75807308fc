//! The round: one wait, what it brings, what has waited for its turn, and the sending of it all. Only here is decided when to flush:
//! before more is received than there is room for, when a message has left no room for the next, and before the next wait.

use std::io;

use super::forward::STUN_WEIGHT;
use super::inbox::segments;
use super::listeners::{self, ListenerSocket};
use super::relay_socket::Read;
use super::relay_sockets::Turn;
use super::room::Room;
use super::{WAIT_MAX_MS, Worker, now};
use crate::addr::PeerAddr;
use crate::clock::Now;
use crate::net::sys::{Events, trim_memory};
use crate::reject::Dropped;
use crate::turn::{MessageKind, RelayId};

/// Messages taken from a relay socket before others have their turn.
const RELAY_MESSAGES: usize = 64;
/// ICMP errors passed on per turn of a relay socket.
const ICMP_BURST: usize = 4;

impl Worker {
    /// One wait, what it brings, and what has waited for its turn; all of it is sent before the next wait.
    pub(super) fn round(&mut self, events: &mut Events) -> io::Result<()> {
        let count = self.epoll.wait(events, self.wait_ms())?;
        let now = now();
        self.on_events(now, events, count);
        self.serve_backlog(now);
        self.work_on_jobs(now);
        self.on_time(now);
        self.flush(now);
        self.report();
        self.observers.time_setups(now);
        self.give_memory_back();
        Ok(())
    }

    /// How long the loop may sleep, in milliseconds; without end when nothing is due.
    fn wait_ms(&self) -> i32 {
        if self.has_backlog() {
            return 0;
        }
        let due =
            [self.server.next_timeout(), self.streams.next_timeout(), self.relays.next_timeout(), self.observers.due()];
        let Some(due) = due.into_iter().flatten().min() else { return -1 };
        let wait = due.saturating_sub(self.observers.flushed_micros()).div_ceil(1000).min(WAIT_MAX_MS);
        i32::try_from(wait).unwrap_or(i32::MAX)
    }

    /// Datagrams of clients.
    pub(super) fn serve_listener(&mut self, now: Now, number: u32) {
        self.make_room(now, listeners::DEPTH_MAX);
        let Some(ListenerSocket::Udp(listener)) = self.listeners.get_mut(number as usize) else { return };
        let Ok(count) = listener.receive(&mut self.inbox) else { return };
        let mut messages = 0;
        while let Some(datagram) = self.inbox.next_datagram() {
            let Some(ListenerSocket::Udp(listener)) = self.listeners.get_mut(number as usize) else { return };
            if let Some(drops) = datagram.kernel_drops {
                self.observers.counters().listener_drops.add(u64::from(listener.new_drops(drops)));
            }
            // A relay that is a client of ours would make one datagram into many, whatever way it has found to the listener.
            let refused = if self.relays.sent(datagram.source) {
                Some(Dropped::OwnRelay)
            } else {
                datagram.truncated.then_some(Dropped::Malformed)
            };
            if let Some(reason) = refused {
                self.observers.counters().drop_packet(reason);
                continue;
            }
            let Some(client) = listener.client(number, &datagram) else { continue };
            for message in segments(&datagram) {
                let kind = MessageKind::of_datagram(self.inbox.bytes(message.span));
                let room = self.on_client_message(now, &client, kind, message);
                self.make_room_again(now, room);
                messages += 1;
            }
        }
        if let Some(ListenerSocket::Udp(listener)) = self.listeners.get_mut(number as usize) {
            listener.note_read(count, messages);
        }
    }

    /// Payload from other workers' allocations, at most `packets`.
    pub(super) fn serve_mail(&mut self, now: Now, packets: usize) {
        for _ in 0..packets {
            if self.mail.has_payload() {
                self.make_room(now, 1);
            }
            let Some((packet, bytes)) = self.mail.next_payload() else { break };
            let payload = self.inbox.copy(packet, bytes);
            let room = self.on_handed_over(now, packet, payload);
            self.make_room_again(now, room);
        }
    }

    /// Datagrams, or ICMP errors, of peers: up to some number, then others have their turn. The sockets are edge-triggered;
    /// returns the turn of the rest if there may be more.
    pub(super) fn serve_relay(&mut self, now: Now, turn: Turn, readable: bool) -> Option<Turn> {
        let Turn { id, busy, error } = turn;
        let mut has_errors = error && self.serve_icmp_errors(now, id, busy);
        let rest = |error: bool| Some(Turn { id, busy, error });
        if !readable {
            return rest(true).filter(|_| has_errors);
        }
        let mut is_retry = false;
        let mut messages = 0;
        while messages < RELAY_MESSAGES {
            let relay = self.relays.get(id)?;
            let asked = relay.depth();
            if !self.inbox.has_room(asked) {
                self.flush(now);
                continue;
            }
            let datagrams = match relay.receive(busy, &mut self.inbox, asked)? {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return rest(true).filter(|_| has_errors),
                // The kernel has told of a pending ICMP error in place of the datagrams, which do not wait until there is none.
                Err(_) if !is_retry => {
                    (is_retry, has_errors) = (true, true);
                    continue;
                }
                Err(_) => return rest(true),
            };
            let read = self.pass_peers_datagrams_on(now, id, Read { asked, datagrams, ..Read::default() });
            self.relays.note_read(id, busy, read);
            if datagrams < asked {
                return rest(true).filter(|_| has_errors);
            }
            messages += read.messages;
        }
        rest(has_errors)
    }

    /// What a read of a relay socket has brought.
    fn pass_peers_datagrams_on(&mut self, now: Now, id: RelayId, mut read: Read) -> Read {
        while let Some(datagram) = self.inbox.next_datagram() {
            read.drops = datagram.kernel_drops.or(read.drops);
            let Ok(peer) = PeerAddr::new(datagram.source) else { continue };
            for payload in segments(&datagram) {
                let room = self.on_peer_message(now, id, peer, payload);
                self.make_room_again(now, room);
                read.messages += 1;
            }
        }
        read
    }

    /// Whether there may be more.
    fn serve_icmp_errors(&mut self, now: Now, id: RelayId, busy: bool) -> bool {
        for count in 0..ICMP_BURST {
            let Some(relay) = self.relays.get(id) else { return false };
            self.spent += STUN_WEIGHT;
            let Some(error) = relay.next_icmp_error(busy, count == 0) else { return false };
            let room = self.on_icmp_error(now, id, &error);
            self.make_room_again(now, room);
        }
        true
    }

    /// Flushes when fewer than `slots` receive slots are left, so that the next datagrams have a place.
    pub(super) fn make_room(&mut self, now: Now, slots: usize) {
        if !self.inbox.has_room(slots) {
            self.flush(now);
        }
    }

    /// Sees to it that there is room for the next message, after what one has said of it.
    #[inline]
    pub(super) fn make_room_again(&mut self, now: Now, room: Room) {
        match room {
            Room::Left => {}
            Room::MailFull => self.send_mail(),
            Room::Full => self.send_gathered(now),
        }
    }

    /// Ends the batch: sends what it has gathered; afterwards every receive slot and the scratch space are free.
    fn flush(&mut self, now: Now) {
        self.send_gathered(now);
        self.inbox.clear_slots();
    }

    /// Sends what has been gathered so far and frees the scratch space.
    fn send_gathered(&mut self, now: Now) {
        self.outbox.send(self.inbox.arena(), &mut self.relays, &self.listeners, self.observers.counters());
        self.flush_streams(now);
        self.send_mail();
        self.inbox.clear_scratch();
        self.observers.time_relayed(now);
    }

    fn send_mail(&mut self) {
        let lost = self.mail.send();
        self.observers.counters().mailbox_drops.add(lost as u64);
    }

    /// Gives memory back after a peak of allocations.
    fn give_memory_back(&mut self) {
        if self.relays.is_past_peak(self.server.allocations()) {
            self.server.shrink();
            self.relays.shrink();
            self.outbox.shrink(self.relays.slots());
            trim_memory();
        }
    }
}
