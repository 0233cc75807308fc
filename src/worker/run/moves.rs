//! Allocations whose clients come back to another worker (RFC 8016): their requests are passed on, and they move when data comes.

use crate::addr::FiveTuple;
use crate::clock::Now;
use crate::reject::Dropped;
use crate::turn::{AllocationId, Client, EndReason, MessageKind, MoveOrder, Outcome, Parcel, Relays};
use crate::worker::forward::STUN_WEIGHT;
use crate::worker::moving::{Arrival, Moving};
use crate::worker::{Worker, log};

/// Workers that a request is passed on to until it finds its allocation, which may be moving meanwhile.
const HOPS_MAX: u8 = 4;

impl Worker {
    /// What other workers have said.
    pub(super) fn serve_moving(&mut self, now: Now) {
        for moving in self.mail.take_moving() {
            match moving {
                Moving::Request { from, client, id, message, hops } => {
                    self.on_passed_on(now, (from, hops), client, id, message);
                }
                Moving::Answer { client, reply, pending, owner } => {
                    match pending {
                        Some(id) => self.server.expect(now, client.five_tuple, id, owner),
                        None => self.server.expect_no_more(&client.five_tuple),
                    }
                    self.outbox.new_reply().extend_from_slice(&reply);
                    let room = self.answer(&client, false);
                    self.make_room_again(now, room);
                }
                Moving::Claim { by, id, five_tuple } => {
                    // What is gathered goes by its sockets.
                    self.flush(now);
                    match self.server.take_out_for(now, id, &five_tuple) {
                        Some((client, parcel)) => self.hand_over(by, client, parcel),
                        None => self.say(by, Moving::Forget { five_tuple }),
                    }
                }
                Moving::Forget { five_tuple } => {
                    self.server.expect_no_more(&five_tuple);
                    self.forget_parked(&five_tuple);
                }
                Moving::Cancel { by, five_tuple } => self.server.cancel_move(&five_tuple, by),
                Moving::Arrival(arrival) => self.on_arrival(now, *arrival),
            }
        }
    }

    /// What the server wants done by other workers.
    pub(super) fn follow_move_orders(&mut self, now: Now) {
        while let Some(order) = self.server.poll_move() {
            match order {
                MoveOrder::HandOver { id, five_tuple, to } => {
                    if let Some((client, parcel)) = self.server.take_out_for(now, id, &five_tuple) {
                        self.hand_over(to, client, parcel);
                    }
                }
                MoveOrder::Forget { five_tuple, at } => self.say(at, Moving::Forget { five_tuple }),
                MoveOrder::Cancel { five_tuple, at } => {
                    let by = self.relays.worker();
                    self.say(at, Moving::Cancel { by, five_tuple });
                }
                // This worker knows no others.
                _ => {}
            }
        }
    }

    /// A request of a client of another worker.
    fn on_passed_on(
        &mut self,
        now: Now,
        (from, hops): (u16, u8),
        client: Client,
        id: AllocationId,
        message: Box<[u8]>,
    ) {
        let owner = self.whereabouts.of(id);
        if owner != self.relays.worker() && hops < HOPS_MAX {
            return self.say(owner, Moving::Request { from, client, id, message, hops: hops + 1 });
        }
        self.pace.spend(STUN_WEIGHT);
        if from == self.relays.worker() {
            // What waited before it has been done.
            let room = self.handle_late(now, &client, &message);
            return self.make_room_again(now, room);
        }
        let reply = self.outbox.new_reply();
        let outcome = self.server.handle_passed_on(now, &client, Some(from), &message, &mut self.relays, reply);
        if log::wants_requests() {
            log::message(&self.server, &client, &message, &outcome, reply);
        }
        match outcome {
            Outcome::Reply => {
                self.observers.counters().answers.add(1);
                let (reply, owner) = (self.outbox.reply().into(), self.relays.worker());
                let pending = self.server.pending_move(&client.five_tuple);
                self.say(from, Moving::Answer { client, reply, pending, owner });
            }
            Outcome::Dropped(reason) => self.observers.counters().drop_packet(reason),
            Outcome::ToPeer(..) | Outcome::Detour(_) | Outcome::Waits | Outcome::Binds(_) | Outcome::Elsewhere(_) => {}
        }
    }

    /// Gives an allocation away, with its sockets.
    fn hand_over(&mut self, to: u16, client: Client, parcel: Parcel) {
        let ids: Vec<_> = parcel.relays().map(|relay| relay.id).collect();
        let mut relays = Vec::with_capacity(ids.len());
        for id in ids {
            match self.relays.give_away(id, to) {
                Some(relay) => relays.push((id, relay)),
                // A share of a port cannot go; the configuration rules it out, and the allocation ends where it arrives.
                None => self.relays.close(id),
            }
        }
        // The record of its start goes before others of it.
        self.observers.report(&mut self.server);
        let id = parcel.id();
        self.say(to, Moving::Arrival(Box::new(Arrival { client, parcel, relays })));
        self.whereabouts.set(id, to);
    }

    /// An allocation comes here, and data may wait for it.
    fn on_arrival(&mut self, now: Now, Arrival { client, parcel, relays }: Arrival) {
        let id = parcel.id();
        let taken: Vec<_> = relays
            .into_iter()
            .map(|(before, relay)| (before, self.relays.take_over(relay).ok().map(|open| open.id)))
            .collect();
        let moved = |before| taken.iter().find(|(of, _)| *of == before).and_then(|(_, now)| *now);
        match self.server.put_in(now, client, parcel, moved, &mut self.relays) {
            Ok(()) => self.whereabouts.set(id, self.relays.worker()),
            Err(returned) => {
                taken.iter().filter_map(|(_, now)| *now).for_each(|relay| self.relays.close(relay));
                tracing::warn!(
                    target: "turnstone::worker",
                    allocation = %id,
                    "an allocation ended because the worker that it moved to could not take it over: {}; is the limit of open files (LimitNOFILE) reached?",
                    returned.error
                );
                let summary = returned.parcel.end(now, EndReason::MoveFailed);
                self.observers.note_end(summary);
                return self.whereabouts.forget(id);
            }
        }
        if !self.clients.is_open(&client) {
            self.server.client_gone(now, &client.five_tuple, &mut self.relays);
            return self.forget_parked(&client.five_tuple);
        }
        for (client, message) in self.parked.take(&client.five_tuple) {
            if !self.inbox.has_room(1) {
                self.flush(now);
            }
            let payload = self.inbox.copy(&message, 0);
            let kind = MessageKind::of_datagram(&message);
            let room = self.on_client_message(now, &client, kind, payload);
            self.make_room_again(now, room);
        }
    }

    /// No allocation comes for what waits.
    fn forget_parked(&mut self, five_tuple: &FiveTuple) {
        for _ in self.parked.take(five_tuple) {
            self.observers.counters().drop_packet(Dropped::NoAllocation);
        }
    }

    fn say(&mut self, to: u16, moving: Moving) {
        if !self.mail.pass_on(to, moving) {
            self.observers.counters().mailbox_drops.add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::sys::clocks;
    use crate::turn::{AllocationFilter, DatagramPath, Path, SessionId, StreamId};
    use crate::user::RealmId;
    use crate::worker::run::rounds::tests::Driven;

    #[test]
    fn an_allocation_that_arrives_for_a_session_or_connection_that_is_gone_ends_as_if_it_had_just_closed() {
        let session = Path::Session(SessionId { index: 7, generation: 1 });
        let stream = Path::Stream(StreamId { index: 7, generation: 1 });
        for (gone, left) in [(None, 1), (Some(session), 0), (Some(stream), 0)] {
            let mut driven = Driven::new();
            let _call = driven.call();
            let (micros, unix_secs) = clocks();
            let now = Now { micros, unix_secs };
            let worker = &mut driven.worker;
            let mut listing = worker.server.listing(AllocationFilter::default(), None, 1);
            worker.server.list(now, &mut listing, usize::MAX);
            let view = listing.into_found().pop().unwrap();
            let parcel = worker.server.take_out(now, view.id).unwrap();
            let ids: Vec<_> = parcel.relays().map(|relay| relay.id).collect();
            let relays = ids.into_iter().map(|id| (id, worker.relays.give_away(id, 0).unwrap())).collect();
            let path = Path::Datagrams(DatagramPath { socket: 0, to: view.five_tuple.client.get(), from_ip: None });
            let (five_tuple, path) = (view.five_tuple, gone.unwrap_or(path));
            let client = Client { five_tuple, path, realm: RealmId::DEFAULT };
            assert!(driven.mailbox.pass_on(Moving::Arrival(Box::new(Arrival { client, parcel, relays }))));
            driven.round();
            assert_eq!(driven.worker.server.allocations(), left, "{gone:?}");
        }
    }
}
