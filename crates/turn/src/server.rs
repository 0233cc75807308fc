//! The server: one per worker. Inputs are borrowed messages, outputs are values.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::addr::{Family, FiveTuple};
use crate::clock::Now;
use crate::policy::RateLimiter;
use crate::reject::{Dropped, Reason};
use crate::user::RealmId;
use turnstone_stun::{Class, Message, Method, ParseError};

use super::allocation::Allocation;
use super::allocations::Allocations;
use super::connect::TcpSide;
use super::events::{Events, RefusalCounts};
use super::hash::AddressHash;
use super::ids::AllocationIds;
use super::message_kind::MessageKind;
use super::moves::Moves;
use super::output::{Client, EndReason, Event, Outcome};
use super::pass::Judging;
use super::pending::Pending;
use super::realm::OnExpiry;
use super::redirect::{Alternates, Other};
use super::relays::Relays;
use super::retransmit::{Digester, Tombstones};
use super::settings::{Settings, Shared};
use super::shared_ports::SharedPorts;
use super::ticket::Sealer;
use super::timer::{Armed, Timer, Wheel};
use super::transaction::TransactionIds;

/// Allocations looked at in one [`Server::handle_timeout`].
const SWEEPS_MAX: usize = 64;

/// Fills a buffer from the CSPRNG.
pub type FillRandom = Box<dyn FnMut(&mut [u8]) + Send>;

/// One worker's TURN server.
pub struct Server {
    pub(super) settings: Arc<Settings>,
    /// How many snapshots there have been, this one included.
    pub(super) generation: u32,
    pub(super) shared: Shared,
    pub(super) hash: AddressHash,
    pub(super) allocations: Allocations,
    pub(super) limiter: RateLimiter,
    pub(super) transaction_ids: TransactionIds,
    pub(super) fill_random: FillRandom,
    pub(super) digester: Digester,
    pub(super) tombstones: Tombstones,
    pub(super) events: Events,
    pub(super) ids: AllocationIds,
    pub(super) draining: bool,
    pub(super) alternates: Arc<Alternates>,
    pub(super) others: Arc<[Other]>,
    pub(super) refused_with: Option<(Reason, Option<SocketAddr>)>,
    pub(super) judging: Option<Judging>,
    pub(super) pending: Option<Box<Pending>>,
    /// None while no relay port is shared.
    pub(super) shared_ports: Option<Box<SharedPorts>>,
    pub(super) moves: Moves,
    pub(super) tcp: TcpSide,
    wheel: Wheel,
    /// Timers that have fired, and how many of them have been looked at.
    due: Vec<Timer>,
    due_done: usize,
}

impl Server {
    /// A server without allocations, the only one of its process or worker 0 of it. `fill_random` is the CSPRNG.
    pub fn new(settings: Arc<Settings>, shared: Shared, mut fill_random: FillRandom) -> Self {
        Self {
            limiter: RateLimiter::new(settings.unauthenticated, Arc::clone(&shared.answer_budgets)),
            hash: AddressHash::new(&mut *fill_random),
            transaction_ids: TransactionIds::new(&mut *fill_random),
            digester: shared.request_digests.digester(&mut *fill_random),
            moves: Moves::new(Sealer::new(Arc::clone(&shared.tickets), &mut *fill_random)),
            fill_random,
            settings,
            generation: 1,
            shared,
            allocations: Allocations::new(),
            tombstones: Tombstones::default(),
            events: Events::default(),
            ids: AllocationIds::of_worker(0),
            draining: false,
            alternates: Arc::default(),
            others: Arc::default(),
            refused_with: None,
            wheel: Wheel::new(),
            due: Vec::new(),
            due_done: 0,
            judging: None,
            pending: None,
            shared_ports: None,
            tcp: TcpSide::default(),
        }
    }

    /// The same as another worker of the process, or as one that goes on from where another process has stopped.
    #[must_use]
    pub fn with_ids(mut self, ids: AllocationIds) -> Self {
        self.ids = ids;
        self
    }

    /// Where its ids go on.
    pub fn ids(&self) -> AllocationIds {
        self.ids
    }

    /// Why the message handled last was refused, and the peer that it was about; `None` when it was not.
    pub fn refused_with(&self) -> Option<(Reason, Option<SocketAddr>)> {
        self.refused_with
    }

    /// Handles one datagram of a client, STUN or ChannelData.
    #[inline]
    pub fn handle_datagram<R: Relays>(
        &mut self,
        now: Now,
        client: &Client,
        datagram: &[u8],
        relays: &mut R,
        reply: &mut Vec<u8>,
    ) -> Outcome {
        match MessageKind::of_datagram(datagram) {
            Some(kind) => self.handle(now, client, (kind, datagram), relays, reply),
            None => {
                self.refused_with = None;
                Outcome::Dropped(Dropped::Malformed)
            }
        }
    }

    /// Handles one message of a client, whose kind is known. Streams are cut by [`first_frame`](crate::framing::first_frame).
    #[inline]
    pub fn handle<R: Relays>(
        &mut self,
        now: Now,
        client: &Client,
        (kind, message): (MessageKind, &[u8]),
        relays: &mut R,
        reply: &mut Vec<u8>,
    ) -> Outcome {
        match kind {
            MessageKind::Stun => self.handle_message(now, client, message, relays, reply),
            MessageKind::ChannelData(channel_data) => {
                self.refused_with = None;
                match self.route_channel_data(now, &client.five_tuple, channel_data) {
                    Ok(to) => Outcome::ToPeer(to, channel_data.payload()),
                    Err(reason) => Outcome::Dropped(reason),
                }
            }
        }
    }

    /// Handles one STUN message (first byte 0-3) of a client. The answer, if any, is appended to `reply`.
    pub fn handle_message<R: Relays>(
        &mut self,
        now: Now,
        client: &Client,
        message: &[u8],
        relays: &mut R,
        reply: &mut Vec<u8>,
    ) -> Outcome {
        self.refused_with = None;
        let message = match Message::parse(message) {
            Ok(message) => message,
            Err(ParseError::NoMagicCookie) => return self.classic_binding(now, client, message, reply),
            Err(_) => return Outcome::Dropped(Dropped::Malformed),
        };
        match (message.class(), message.method()) {
            (Class::Request, Method::BINDING) => self.binding(now, client, &message, reply),
            (Class::Request, _) => self.turn_request(now, client, &message, relays, reply),
            (Class::Indication, Method::SEND) => self.send(now, client, &message),
            // A Binding indication keeps a NAT binding alive and asks for nothing.
            (Class::Indication | Class::Success | Class::Error, _) => Outcome::Dropped(Dropped::Ignored),
        }
    }

    /// The client's connection closed: its allocation ends (RFC 8656 section 7), and what it has waiting is not answered. A mobile one
    /// (RFC 8016) waits two minutes for its client to come back.
    pub fn client_gone<R: Relays>(&mut self, now: Now, five_tuple: &FiveTuple, relays: &mut R) {
        if let Some(pending) = &mut self.pending {
            pending.forget_client(five_tuple);
        }
        if self.is_new_way_gone(five_tuple) {
            return;
        }
        if let Some(slot) = self.live_slot(now, five_tuple, relays) {
            match self.allocations.get(slot).is_some_and(|allocation| allocation.mobile.is_some()) {
                true if self.settings.mobility => self.lose_way(now, slot),
                _ => self.end(now, slot, EndReason::ClientGone, relays),
            }
        }
    }

    /// Ends what has expired: the next of it, when much expires at once.
    pub fn handle_timeout<R: Relays>(&mut self, now: Now, relays: &mut R) {
        self.tombstones.sweep(now.micros);
        self.expire_moves(now);
        if let Some(pending) = &mut self.pending {
            pending.expire(now.micros);
        }
        if !self.has_due() {
            self.due.clear();
            self.due.shrink_to(64);
            self.due_done = 0;
            self.wheel.take_due(now.micros, &mut self.due);
        }
        for _ in 0..SWEEPS_MAX {
            let Some(timer) = self.due.get(self.due_done).copied() else { break };
            self.due_done += 1;
            let Some(allocation) = self.allocations.get_mut(timer.slot) else { continue };
            if allocation.armed.is_some_and(|armed| armed.tick == timer.tick) {
                allocation.armed = None;
                self.sweep(now, timer.slot, relays);
            }
        }
    }

    /// When [`Self::handle_timeout`] is due, in monotonic microseconds: at once while there is more of what has expired, `None`
    /// when nothing can expire.
    pub fn next_timeout(&self) -> Option<u64> {
        if self.has_due() {
            return Some(0);
        }
        let deadline = self.pending.as_ref().and_then(|pending| pending.next_deadline());
        self.wheel.next_micros().into_iter().chain(deadline).chain(self.moves.next_deadline()).min()
    }

    fn has_due(&self) -> bool {
        self.due_done < self.due.len()
    }

    /// Gives memory back after a peak of allocations.
    pub fn shrink(&mut self) {
        self.allocations.shrink(&self.hash);
        self.wheel.shrink();
    }

    /// Ends every allocation, e.g. at shutdown.
    pub fn end_all<R: Relays>(&mut self, now: Now, reason: EndReason, relays: &mut R) {
        let mut pass = self.pass(None);
        while let Some(slot) = self.next_in(&mut pass) {
            self.end(now, slot, reason, relays);
        }
    }

    /// The realm that a server name leads to, for a client that has asked for it in its handshake.
    pub fn realm_by_server_name(&self, name: &str) -> Option<RealmId> {
        self.settings.realm_by_server_name(name)
    }

    /// Whether a client has an allocation, or is about to have one by a move that was granted.
    pub fn has_allocation(&self, five_tuple: &FiveTuple) -> bool {
        self.allocations.contains(&self.hash, five_tuple) || self.moves.knows(five_tuple)
    }

    /// Live allocations of this worker.
    pub fn allocations(&self) -> usize {
        self.allocations.len()
    }

    /// Timers that are set: one for each allocation at most.
    pub fn timers(&self) -> usize {
        self.wheel.len()
    }

    /// The oldest event not yet taken.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop()
    }

    /// Refusals that were not reported as events because too many events waited.
    pub fn refusals_dropped(&self) -> u64 {
        self.events.refusals_dropped()
    }

    /// Requests refused since the start, reported as events or not.
    pub fn refusals(&self) -> &RefusalCounts {
        self.events.refusals()
    }

    /// Answers to requests that nobody has authenticated, Binding included, since the start.
    pub fn stranger_replies(&self) -> u64 {
        self.events.stranger_replies()
    }

    /// Answers to RFC 3489 clients since the start; they are among those to strangers.
    pub fn classic_replies(&self) -> u64 {
        self.events.classic_replies()
    }

    /// Bytes of payload that bandwidth caps have dropped since the start: to peers, and to clients.
    pub fn throttled_bytes(&self) -> (u64, u64) {
        self.events.throttled_bytes()
    }

    /// The slot of the live allocation on a 5-tuple, or on the one that it moves to; ends one whose time is over.
    pub(super) fn live_slot<R: Relays>(&mut self, now: Now, five_tuple: &FiveTuple, relays: &mut R) -> Option<u32> {
        let slot = match self.allocations.find(&self.hash, five_tuple) {
            Some(slot) => slot,
            None => self.moving_slot(five_tuple)?,
        };
        if self.allocations.get(slot)?.is_live(now.micros) {
            return Some(slot);
        }
        self.sweep(now, slot, relays);
        None
    }

    /// Sees to it that the wheel looks at an allocation when its next deadline passes.
    pub(super) fn arm(&mut self, now: Now, slot: u32) {
        let Some(allocation) = self.allocations.get_mut(slot) else { return };
        let Some(deadline) = allocation.next_deadline(now) else { return };
        let tick = self.wheel.tick_for(now.micros, deadline);
        if allocation.armed.is_some_and(|armed| armed.tick <= tick) {
            return;
        }
        let before = allocation.armed.replace(self.wheel.add(Timer { tick, slot }));
        self.disarm(slot, before);
    }

    /// Takes a timer of a slot out of the wheel.
    pub(super) fn disarm(&mut self, slot: u32, armed: Option<Armed>) {
        let Some((moved, armed)) = armed.and_then(|armed| self.wheel.cancel(slot, armed)) else { return };
        if let Some(allocation) = self.allocations.get_mut(moved) {
            allocation.armed = Some(armed);
        }
    }

    /// Ends what has expired of one allocation, or all of it, and arms it for what is left.
    pub(super) fn sweep<R: Relays>(&mut self, now: Now, slot: u32, relays: &mut R) {
        let Some(allocation) = self.allocations.get_mut(slot) else { return };
        if !allocation.is_live(now.micros) {
            let credential_over = allocation.identity.expires_unix().is_some_and(|expires| expires <= now.unix_secs);
            let realm = self.settings.realm_of_user(&allocation.identity.user);
            let cut = realm.is_some_and(|realm| realm.on_expiry == OnExpiry::Cut) && credential_over;
            let reason = match cut {
                true => EndReason::CredentialExpired,
                false if allocation.is_away() => EndReason::ClientGone,
                false => EndReason::Expired,
            };
            self.end(now, slot, reason, relays);
            return;
        }
        allocation.drop_expired_channels(&self.hash, now, &mut self.events);
        allocation.permissions.retain(&self.hash, |_, until_micros| until_micros > now.micros);
        allocation.remembered.take_if(|remembered| remembered.until_micros <= now.micros);
        for family in [Family::V4, Family::V6] {
            let over = |allocation: &Allocation| {
                allocation
                    .relays()
                    .any(|relay| relay.relayed.family() == family && relay.open && relay.until_micros <= now.micros)
            };
            if self.allocations.get(slot).is_some_and(over) {
                self.close_family(now, slot, family, relays);
            }
        }
        self.sweep_connections(now, slot, relays);
        self.arm(now, slot);
    }

    /// Closes one relay of a dual allocation, with the permissions and channels of its family.
    pub(super) fn close_family<R: Relays>(&mut self, now: Now, slot: u32, family: Family, relays: &mut R) {
        let Some(allocation) = self.allocations.get_mut(slot) else { return };
        let id = allocation.id;
        let events = &mut self.events;
        allocation.channels.retain(&self.hash, |channel| {
            let keep = channel.peer.family() != family;
            if !keep {
                events.push(Event::RouteGone { id, channel: channel.number });
            }
            keep
        });
        allocation.permissions.retain(&self.hash, |ip, _| Family::of(ip) != family);
        let connections = allocation.connections.as_deref_mut();
        let connections = connections.map(|all| all.take(|connection| connection.peer.family() == family));
        let is_tcp = allocation.is_tcp();
        let mut closed = None;
        for relay in allocation.relays_mut().filter(|relay| relay.open && relay.relayed.family() == family) {
            relay.open = false;
            closed = Some(relay.id);
        }
        self.end_connections(now, connections.unwrap_or_default(), relays);
        match closed {
            Some(relay) if is_tcp => {
                self.tcp.relays.remove(&relay);
                relays.close_tcp(relay);
            }
            Some(relay) => {
                self.allocations.forget_relay(relay);
                self.unshare(relay);
                relays.close(relay);
            }
            None => {}
        }
    }

    /// Ends an allocation: its relays are closed, its quota is given back, its summary is reported.
    pub(super) fn end<R: Relays>(&mut self, now: Now, slot: u32, reason: EndReason, relays: &mut R) {
        let Some(mut allocation) = self.allocations.remove(&self.hash, slot) else { return };
        if let Some(five_tuple) = allocation.mobile.as_ref().and_then(|mobile| mobile.pending) {
            self.moves.cancel(&five_tuple);
        }
        let connections = allocation.connections.as_deref_mut().map(|all| all.take(|_| true));
        self.end_connections(now, connections.unwrap_or_default(), relays);
        for relay in allocation.relays().filter(|relay| relay.open) {
            if allocation.is_tcp() {
                self.tcp.relays.remove(&relay.id);
                relays.close_tcp(relay.id);
            } else {
                self.unshare(relay.id);
                relays.close(relay.id);
            }
        }
        for channel in allocation.channels.iter() {
            self.events.push(Event::RouteGone { id: allocation.id, channel: channel.number });
        }
        self.events.push(Event::Ended(Box::new(allocation.summary(now, reason))));
        self.disarm(slot, allocation.armed);
    }
}
