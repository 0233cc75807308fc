//! What a worker tells of itself: its counters, the last refusals, lines and records of allocations, and times.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use super::ends::Ends;
use super::last_ends::{LastEnd, LastEnds};
use super::log;
use super::moving::Whereabouts;
use super::ring::Ring;
use super::shortage::{Shortage, Shortages};
use crate::addr::Logged;
use crate::clock::{Now, SECOND};
use crate::counters::{BadHeader, Counters};
use crate::hook::EventSender;
use crate::net::sys::clocks;
use crate::turn::{AllocationSummary, Event, Refusal, Server};
use crate::usage::UsageSender;

/// The time between two lines about loops.
const LOOP_LINES_MICROS: u64 = 60 * SECOND;

/// Everything that looks on.
pub(super) struct Observers {
    counters: Arc<Counters>,
    usage: Option<UsageSender>,
    events: Option<EventSender>,
    shortages: Arc<Shortages>,
    whereabouts: Arc<Whereabouts>,
    refusals: Ring<Refusal>,
    refusals_reported: u64,
    last_ends: LastEnds,
    ends: Ends,
    /// When something was last sent, or might have been.
    flushed_micros: u64,
    /// Packets of payload whose time to their sending has been taken.
    timed_packets: u64,
    /// Allocations made since the last flush.
    made: u64,
    /// When a loop was told of last.
    loop_told_micros: Option<u64>,
    is_end: bool,
}

impl Observers {
    pub(super) fn new(
        counters: Arc<Counters>,
        usage: Option<UsageSender>,
        events: Option<EventSender>,
        shortages: Arc<Shortages>,
        whereabouts: Arc<Whereabouts>,
    ) -> Self {
        Self {
            counters,
            usage,
            events,
            shortages,
            whereabouts,
            refusals: Ring::new(),
            refusals_reported: 0,
            last_ends: LastEnds::new(),
            ends: Ends::default(),
            flushed_micros: clocks().0,
            timed_packets: 0,
            made: 0,
            loop_told_micros: None,
            is_end: false,
        }
    }

    #[inline]
    pub(super) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Something has run out.
    #[cold]
    pub(super) fn note_shortage(&self, now_micros: u64, shortage: Shortage) {
        self.shortages.note(now_micros, shortage);
    }

    /// A connection from a proxy is closed for its header.
    #[cold]
    pub(super) fn note_header(&self, now_micros: u64, proxy: SocketAddr, why: BadHeader, problem: &dyn fmt::Display) {
        self.counters.refuse_header(why);
        self.shortages.note_header(now_micros, proxy, problem);
    }

    /// The worker is about to end: from now on sums are not waited for, and records wait for room.
    pub(super) fn begin_end(&mut self) {
        self.is_end = true;
    }

    /// Counts and logs what the core reports.
    pub(super) fn report(&mut self, server: &mut Server) {
        while let Some(event) = server.poll_event() {
            self.note(event);
        }
        self.ends.sum_up(self.flushed_micros, self.is_end);
        let refusals = server.refusals();
        if refusals.total() != self.refusals_reported {
            self.refusals_reported = refusals.total();
            self.counters.set_refused(refusals);
        }
        self.counters.stranger_replies.set(server.stranger_replies());
        self.counters.classic_replies.set(server.classic_replies());
        let (to_peers, to_clients) = server.throttled_bytes();
        for (counter, bytes) in self.counters.throttled_bytes.iter().zip([to_peers, to_clients]) {
            counter.set(bytes);
        }
        self.counters.allocations.set(server.allocations() as u64);
    }

    fn note(&mut self, event: Event) {
        match event {
            Event::Allocated { id, five_tuple, username, user, is_frequent, relayed } => {
                self.made += 1;
                self.counters.allocation_made(five_tuple.transport);
                if let Some(events) = &self.events {
                    events.started(id, five_tuple, (Arc::clone(&username), user.clone()), relayed.clone());
                }
                if let Some(usage) = self.usage.as_ref().filter(|_| !is_frequent) {
                    usage.started(id, five_tuple, (username, user), relayed);
                }
            }
            Event::Ended(summary) => {
                let transport = summary.five_tuple.transport;
                self.counters.allocation_ended(transport, summary.reason, summary.duration_micros);
                self.ends.log(self.flushed_micros, &summary);
                self.last_ends.note(self.flushed_micros, &summary);
                self.whereabouts.forget(summary.id);
                if let Some(events) = &self.events {
                    events.ended(&summary);
                }
                if let Some(usage) = &self.usage {
                    usage.ended(&summary, self.is_end);
                }
            }
            Event::Refused(refusal) => {
                if let Some(shortage) = Shortage::behind(refusal.reason) {
                    self.note_shortage(self.flushed_micros, shortage);
                }
                self.refusals.push(refusal);
            }
            Event::Moved { id, from, five_tuple, username, is_frequent } => {
                self.counters.allocation_moved(from.transport, five_tuple.transport);
                match is_frequent {
                    true => self.ends.note_move(self.flushed_micros),
                    false => log::moved(id, &from, &five_tuple, &username),
                }
            }
            Event::LoopCut { id, user, client, peer } => {
                self.counters.loops_cut.add(1);
                // One that is made again and again does not fill the log.
                if self.loop_told_micros.is_none_or(|told| self.flushed_micros >= told + LOOP_LINES_MICROS) {
                    self.loop_told_micros = Some(self.flushed_micros);
                    let (client, peer) = (Logged(client.get()), Logged(peer.get()));
                    tracing::warn!(
                        %id, user = ?user.name(), realm = user.realm().map(|realm| &**realm), %client, %peer,
                        "packets went round a loop between a relay and a peer ([guard] loop-packets-per-second): the peer has lost its \
                         permission; turnstone kick USER ends the allocation"
                    );
                }
            }
            Event::Suspended { suspension, client } => {
                let secs = suspension.until_micros.saturating_sub(self.flushed_micros) / SECOND;
                let client = Logged(client.get());
                tracing::warn!(
                    user = ?suspension.user.name(), realm = suspension.user.realm().map(|realm| &**realm), %client, secs,
                    "a user is suspended for peers that are denied ([guard] suspend-after): no new allocation, and no new peer; \
                     turnstone suspensions --lift USER ends that, turnstone explain USER shows the peers"
                );
            }
            Event::RouteBound { .. } | Event::RouteGone { .. } => {}
        }
    }

    /// An allocation has ended between two servers.
    pub(super) fn note_end(&mut self, summary: AllocationSummary) {
        self.note(Event::Ended(Box::new(summary)));
    }

    /// The last refusals, the oldest first.
    pub(super) fn last_refusals(&self) -> Vec<Refusal> {
        self.refusals.oldest_first()
    }

    /// How the last allocations ended, in no order.
    pub(super) fn last_ends(&self) -> Vec<LastEnd> {
        self.last_ends.all()
    }

    /// Notes the time since the wake-up for every packet relayed since the last flush. One reading of the clock for all of
    /// them, and the same one tells the loop how long it may sleep.
    pub(super) fn time_relayed(&mut self, now: Now) {
        self.flushed_micros = clocks().0;
        let packets = self.counters.payload.packets();
        let relayed = packets.wrapping_sub(self.timed_packets);
        if relayed > 0 {
            self.timed_packets = packets;
            self.counters.relay_times.observe(self.flushed_micros.saturating_sub(now.micros), relayed);
        }
    }

    /// Notes the time since the wake-up for every allocation whose answer has been sent.
    pub(super) fn time_setups(&mut self, now: Now) {
        if self.made > 0 {
            self.counters.setup_times.observe(self.flushed_micros.saturating_sub(now.micros), self.made);
            self.made = 0;
        }
    }

    /// When something was last sent, or might have been.
    pub(super) fn flushed_micros(&self) -> u64 {
        self.flushed_micros
    }

    /// When [`Self::report`] has something to do by itself.
    pub(super) fn due(&self) -> Option<u64> {
        self.ends.due()
    }
}
