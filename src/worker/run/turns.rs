//! The turn of each listener, connection, relay and mailbox, and the flush: before more is received than there is room for, and when
//! a message has left no room for the next.

use std::io;
use std::sync::atomic::Ordering;

use crate::addr::PeerAddr;
use crate::clock::Now;
use crate::net::sys::{Ready, clocks};
use crate::reject::Dropped;
use crate::turn::{Client, MessageKind, RelayId, StreamId};
use crate::worker::clients::{Reading, Takes};
use crate::worker::forward::STUN_WEIGHT;
use crate::worker::inbox::{Payload, segments};
use crate::worker::jobs::Job;
use crate::worker::loops::LoopWatch;
use crate::worker::mailbox::Command;
use crate::worker::relay_socket::Read;
use crate::worker::relay_sockets::Turn;
use crate::worker::room::Room;
use crate::worker::{Worker, clients};

/// Messages taken from a relay socket before others have their turn.
const RELAY_MESSAGES: usize = 64;
/// Messages of one connection that are handled in its turn; as many datagrams leave with one call.
const MESSAGES_PER_TURN: u32 = 64;
/// ICMP errors passed on per turn of a relay socket.
const ICMP_BURST: usize = 4;

impl Worker {
    /// Orders and questions. What goes over all allocations becomes a job.
    pub(super) fn serve_mailbox(&mut self, now: Now) {
        for (id, client) in self.mail.take_clients() {
            self.bind(now, id, client);
        }
        for command in self.mail.take() {
            match command {
                Command::Apply(settings, reply) => {
                    self.loops = LoopWatch::of(&settings);
                    self.server.apply(settings);
                    self.jobs.tell_judgement(reply);
                }
                Command::Ping(seen) => {
                    // Who asks may read the counters next, and compares with the time of asking: this wake-up began before.
                    self.observers.report(&mut self.server);
                    seen.store(clocks().0, Ordering::Release);
                }
                Command::Others(others) => self.server.set_others(others),
                Command::Drain(alternates) => {
                    self.server.set_alternates(alternates);
                    self.server.set_draining(true);
                }
                Command::List { filter, after, limit, reply } => {
                    self.jobs.add(Job::List(self.server.listing(filter, after, limit), reply));
                }
                Command::Show(id, reply) => reply(self.server.show(now, id)),
                Command::Users(reply) => self.jobs.add(Job::Users(self.server.totals(), reply)),
                Command::Refusals(reply) => reply(self.observers.last_refusals()),
                Command::LastEnds(reply) => reply(self.observers.last_ends()),
                Command::RoundTrips(reply) => reply(self.clients.some_round_trips()),
                Command::Kick(filter, id, reply) => {
                    self.jobs.add(Job::Kick(self.server.kicking(filter, id), 0, reply));
                }
                Command::EndRevoked(reply) => self.jobs.add(Job::Kick(self.server.ending_revoked(), 0, reply)),
                Command::EndRefused(id) => {
                    self.jobs.add(Job::Kick(self.server.ending_refused(id), 0, Box::new(|_| {})));
                }
                Command::Answered(id, answer) => drop(self.server.answer(now, id, answer)),
                Command::Stop(reason) => {
                    self.server.end_all(now, reason, &mut self.relays);
                    self.pace.end();
                    self.observers.begin_end();
                }
            }
        }
        self.serve_moving(now);
    }

    /// Datagrams of clients, or connections.
    pub(super) fn serve_listener(&mut self, now: Now, number: u32) {
        match self.clients.datagrams(number) {
            Some(_) => self.serve_datagrams(now, number),
            None => self.clients.accept(now, number, &self.server, &self.observers),
        }
    }

    fn serve_datagrams(&mut self, now: Now, number: u32) {
        self.make_room(now, clients::DEPTH_MAX);
        let Some(Ok(count)) = self.clients.datagrams(number).map(|listener| listener.receive(&mut self.inbox)) else {
            return;
        };
        let mut messages = 0;
        while let Some(datagram) = self.inbox.next_datagram() {
            let Some(listener) = self.clients.datagrams(number) else { return };
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
            let (takes, is_proxied) = (listener.takes(), listener.is_proxied(&datagram));
            for message in segments(&datagram) {
                messages += 1;
                if is_proxied {
                    self.serve_proxied(now, &client, takes, message);
                    continue;
                }
                let bytes = self.inbox.bytes(message.span);
                let kind = MessageKind::of_datagram(bytes);
                if takes != Takes::Plain {
                    if takes.is_dtls(bytes) {
                        self.serve_dtls(now, &client, message);
                        continue;
                    }
                    if takes == Takes::Dtls {
                        self.observers.counters().drop_packet(Dropped::Malformed);
                        continue;
                    }
                }
                let room = self.on_client_message(now, &client, kind, message);
                self.make_room_again(now, room);
            }
        }
        if let Some(listener) = self.clients.datagrams(number) {
            listener.note_read(count, messages);
        }
    }

    /// A datagram that a proxy has passed on.
    fn serve_proxied(&mut self, now: Now, proxy: &Client, takes: Takes, datagram: Payload) {
        let unwrapped = clients::unwrap_proxied(now, proxy, datagram, &self.inbox, &self.observers);
        let Some((client, message)) = unwrapped else { return };
        let bytes = self.inbox.bytes(message.span);
        let refused = if self.relays.sent(client.five_tuple.client.get()) {
            // As without a proxy.
            Some(Dropped::OwnRelay)
        } else {
            (takes == Takes::Dtls && !takes.is_dtls(bytes)).then_some(Dropped::Malformed)
        };
        if let Some(reason) = refused {
            return self.observers.counters().drop_packet(reason);
        }
        if takes.is_dtls(bytes) {
            return self.serve_dtls(now, &client, message);
        }
        let kind = MessageKind::of_datagram(bytes);
        let room = self.on_client_message(now, &client, kind, message);
        self.make_room_again(now, room);
    }

    /// A datagram of DTLS, and the messages in it.
    fn serve_dtls(&mut self, now: Now, client: &Client, datagram: Payload) {
        let (opened, room) = self.on_dtls(now, client, datagram);
        self.make_room_again(now, room);
        let Some(opened) = opened else { return };
        for message in opened.messages.iter() {
            let kind = MessageKind::of_datagram(self.inbox.bytes(message.span));
            let room = self.on_client_message(now, &opened.client, kind, message);
            self.make_room_again(now, room);
        }
        self.clients.note_session(now, opened.id, &self.server);
    }

    /// The turn of the next DTLS session that arrives.
    pub(super) fn serve_dtls_arriving(&mut self, now: Now) {
        let room = self.on_dtls_arriving(now);
        self.make_room_again(now, room);
    }

    /// The turn of a connection: as many messages as one turn allows.
    pub(super) fn serve_stream(&mut self, now: Now, id: StreamId, ready: Ready) {
        if ready.writable {
            self.clients.on_writable(now, id, &self.server, &self.observers);
        }
        if !ready.readable && !ready.error {
            return;
        }
        // One slot for the plaintext, one for the ciphertext.
        self.make_room(now, 2);
        if let Some(reading) = self.clients.read(id, &mut self.inbox) {
            self.serve_messages(now, reading);
        }
    }

    /// The turn of a connection that arrives. It may bring its first messages. Behind the header of a proxy it has another one at once.
    pub(super) fn serve_arriving(&mut self, now: Now, id: StreamId) {
        self.make_room(now, 4);
        if let Some(reading) = self.clients.arrive(now, id, &mut self.inbox, &self.server, &self.observers) {
            self.serve_messages(now, reading);
        }
    }

    fn serve_messages(&mut self, now: Now, mut reading: Reading) {
        let (client, until) = (reading.client(), self.pace.spent() + MESSAGES_PER_TURN);
        while self.pace.spent() < until
            && let Some((kind, message)) =
                self.clients.next_message(now, &mut reading, &self.inbox, &self.server, &self.observers)
        {
            let room = self.on_client_message(now, &client, Some(kind), message);
            self.make_room_again(now, room);
            if let Some((binding, success)) = self.clients.take_binding() {
                // What it was answered before goes first.
                self.send_gathered(now);
                return self.take_for_data(now, &reading, binding, success);
            }
        }
        let is_turn_over = self.pace.spent() >= until;
        self.clients.keep(now, &reading, is_turn_over, &self.inbox, &self.server, &self.observers);
    }

    /// Payload from other workers' allocations, at most `packets`.
    pub(super) fn serve_mail(&mut self, now: Now, packets: usize) {
        for _ in 0..packets {
            if self.mail.has_payload() {
                self.make_room(now, 1);
            }
            let Some((packet, bytes)) = self.mail.next_payload() else { break };
            let payload = self.inbox.copy(bytes, packet.tos);
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
                let room = self.on_peer_message(now, id, (peer, None), payload);
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
            self.pace.spend(STUN_WEIGHT);
            let Some(error) = relay.next_icmp_error(busy, count == 0) else { return false };
            let room = self.on_icmp_error(now, id, &error);
            self.make_room_again(now, room);
        }
        true
    }

    /// Gathers what clients are told that they have not just asked for.
    pub(super) fn send_notices(&mut self, now: Now) {
        while let Some(notice) = self.server.poll_notice() {
            let room = self.on_notice(&notice);
            self.make_room_again(now, room);
        }
    }

    /// Flushes when fewer than `slots` receive slots are left, so that the next datagrams have a place.
    fn make_room(&mut self, now: Now, slots: usize) {
        if !self.inbox.has_room(slots) {
            self.flush(now);
        }
    }

    /// Sees to it that there is room for the next message, after what one has said of it.
    #[inline]
    pub(in crate::worker) fn make_room_again(&mut self, now: Now, room: Room) {
        match room {
            Room::Left => {}
            Room::MailFull => self.send_mail(),
            Room::Full => self.send_gathered(now),
        }
    }

    /// Ends the batch: sends what it has gathered; afterwards every receive slot and the scratch space are free.
    pub(super) fn flush(&mut self, now: Now) {
        self.send_gathered(now);
        self.inbox.clear_slots();
    }

    /// Sends what has been gathered so far and frees the scratch space.
    fn send_gathered(&mut self, now: Now) {
        let listener = |number| self.clients.datagram_fd(number);
        self.outbox.send(self.inbox.arena(), &mut self.relays, listener, self.observers.counters());
        self.clients.write(now, self.inbox.arena(), &self.server, &self.observers);
        self.send_mail();
        self.inbox.clear_scratch();
        self.observers.time_relayed(now);
    }

    fn send_mail(&mut self) {
        let lost = self.mail.send();
        self.observers.counters().mailbox_drops.add(lost as u64);
    }
}
