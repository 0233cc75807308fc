//! One worker: a thread with its own listener sockets, allocations, relay sockets and buffers. Nothing on the packet path is
//! shared with another worker.
//!
//! The loop is one plain epoll: datagrams, streams, relay sockets and the mailbox alike; only connections without an allocation have
//! one of their own behind it. What a wake-up brings is received into the arena, routed by the core, joined into runs, and flushed
//! before the next wait.

mod datagrams;
mod encapsulate;
mod ends;
mod jobs;
mod log;
mod mailbox;
mod outbox;
mod plan;
mod random;
mod refusals;
mod relay_sockets;
mod reservations;
mod rounds;
mod run;
mod shortage;
mod stream_table;
mod streams;
mod token;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arc_swap::ArcSwapOption;
use rustls::ServerConfig;

pub use mailbox::{Command, Mailbox, Reply};
pub(crate) use random::fill_from_system;
pub(crate) use refusals::KEPT as REFUSALS_KEPT;
pub use reservations::Reservations;
pub use shortage::{Shortage, Shortages};

use crate::addr::Transport;
use crate::clock::Now;
use crate::config::Streams;
use crate::counters::Counters;
use crate::net::sys::{Descriptors, Epoll, Events, Interest, RecvBatch, clocks, kernel_drops, trim_memory};
use crate::net::{Arena, RelayAddresses, RelayPorts};
use crate::reject::Dropped;
use crate::stream::ConnectionLimits;
use crate::turn::{Event, Server, Settings, Shared};
use crate::usage::UsageSender;

use ends::Ends;
use jobs::{Job, Jobs};
use mailbox::{HandoverBatch, Inbox};
use outbox::Outbox;
use refusals::RefusalRing;
use relay_sockets::RelaySockets;
use rounds::Backlog;
use stream_table::StreamTable;
use token::Token;

/// Receive slots: what one batch can hold.
const SLOTS: usize = 128;
/// Scratch space for answers and for headers that have no room in front of their payload.
const SCRATCH: usize = 512 * 1024;
/// Scratch that must be free before more is received.
const SCRATCH_RESERVE: usize = 128 * 1024;
const EVENTS: usize = 256;
/// Slots of relay sockets below which memory is not worth giving back.
const PEAK_MIN: usize = 1024;
/// The longest wait between looks at the clock while something is due later, in milliseconds.
const WAIT_MAX_MS: u64 = 60_000;

/// A listener socket of one worker.
pub struct WorkerListener {
    /// The transport.
    pub transport: Transport,
    /// The address it is bound to, with the real port.
    pub address: SocketAddr,
    /// The socket: UDP bound, or TCP listening.
    pub socket: OwnedFd,
}

/// What all workers are given alike.
#[derive(Clone)]
pub struct WorkerContext {
    /// The first configuration snapshot.
    pub settings: Arc<Settings>,
    /// Counters that hold over all workers.
    pub shared: Shared,
    /// The relay ports.
    pub relay_ports: Arc<RelayPorts>,
    /// The reserved ports.
    pub reservations: Arc<Reservations>,
    /// Warnings that something has run out.
    pub shortages: Arc<Shortages>,
    /// The limits on stream connections.
    pub connection_limits: Arc<ConnectionLimits>,
    /// The TLS configuration, replaced when certificates are.
    pub tls: Arc<ArcSwapOption<ServerConfig>>,
    /// Options of stream connections.
    pub streams: Streams,
    /// Every worker's mailbox, by worker number.
    pub mailboxes: Vec<Arc<Mailbox>>,
    /// Who may have how many descriptors.
    pub descriptors: Descriptors,
    /// Takes what the allocations have used, if that is recorded.
    pub usage: Option<UsageSender>,
    /// Whether peers on this host's loopback are allowed (`serve --dev`).
    pub loopback_peers: bool,
    /// Whether the kernel segments datagrams (UDP GSO).
    pub gso: bool,
}

enum ListenerSocket {
    Udp { socket: OwnedFd, address: SocketAddr, kernel_drops: u32, depth: usize },
    Tcp { socket: TcpListener, transport: Transport },
}

/// A worker, to be run on a thread of its own.
pub struct Worker {
    number: u16,
    epoll: Arc<Epoll>,
    /// Watches the connections without an allocation; the other one watches it.
    strangers: Epoll,
    stranger_events: Events,
    listeners: Vec<ListenerSocket>,
    server: Server,
    relays: RelaySockets,
    /// The relay addresses of this process, this worker's and the others'.
    own_relays: RelayAddresses,
    streams: StreamTable,
    arena: Arena,
    next_slot: usize,
    recv: RecvBatch,
    /// What has not had its turn yet.
    backlog: Backlog,
    /// Messages handled in this round, by which rounds are bounded.
    spent: u32,
    reply: Vec<u8>,
    outbox: Outbox,
    handovers: Vec<HandoverBatch>,
    inbox: Inbox,
    jobs: Jobs,
    counters: Arc<Counters>,
    context: WorkerContext,
    refusals_reported: u64,
    refusals: RefusalRing,
    ends: Ends,
    /// The most allocations since memory was last given back.
    peak: usize,
    /// When something was last sent, or might have been.
    flushed_micros: u64,
    /// Packets of payload whose time to their sending has been taken.
    timed_packets: u64,
    /// Allocations made since the last flush.
    made: u64,
    stopped: bool,
}

impl Worker {
    /// Sets the worker up: everything that can fail is done here, before the thread starts.
    ///
    /// # Errors
    /// When epoll refuses a socket or the process is out of descriptors.
    pub fn new(
        number: u16,
        listeners: Vec<WorkerListener>,
        counters: Arc<Counters>,
        context: WorkerContext,
    ) -> io::Result<Self> {
        let epoll = Arc::new(Epoll::new()?);
        let mut sockets = Vec::with_capacity(listeners.len());
        for (index, listener) in listeners.into_iter().enumerate() {
            epoll.add(listener.socket.as_fd(), Token::Listener(index as u32).pack(), Interest::Read)?;
            let WorkerListener { transport, address, socket } = listener;
            sockets.push(match transport {
                Transport::Udp => {
                    // A socket from before a restart has dropped datagrams that were counted then.
                    let kernel_drops = kernel_drops(socket.as_fd()).unwrap_or_default();
                    ListenerSocket::Udp { socket, address, kernel_drops, depth: datagrams::LISTENER_DEPTH }
                }
                Transport::Tcp | Transport::Tls => ListenerSocket::Tcp { socket: TcpListener::from(socket), transport },
            });
        }
        if let Some(mailbox) = context.mailboxes.get(usize::from(number)) {
            epoll.add(mailbox.wake_fd().as_fd(), Token::Mailbox.pack(), Interest::Read)?;
        }
        let strangers = Epoll::new()?;
        epoll.add(strangers.as_fd(), Token::Strangers.pack(), Interest::Read)?;
        let relays = RelaySockets::new(
            number,
            Arc::clone(&epoll),
            Arc::clone(&context.relay_ports),
            Arc::clone(&context.reservations),
            Arc::clone(&counters),
            fill_from_system,
            context.descriptors,
        );
        let server = Server::new(Arc::clone(&context.settings), context.shared.clone(), Box::new(fill_from_system));
        Ok(Self {
            number,
            epoll,
            strangers,
            stranger_events: Events::new(EVENTS),
            listeners: sockets,
            server,
            relays,
            own_relays: context.relay_ports.addresses(),
            streams: StreamTable::new(&context.streams),
            arena: Arena::new(SLOTS, SCRATCH),
            next_slot: 0,
            recv: RecvBatch::new(SLOTS),
            backlog: Backlog::default(),
            spent: 0,
            reply: Vec::with_capacity(2048),
            outbox: Outbox::new(context.gso),
            handovers: context.mailboxes.iter().map(|_| HandoverBatch::default()).collect(),
            inbox: Inbox::default(),
            jobs: Jobs::default(),
            counters,
            context,
            refusals_reported: 0,
            refusals: RefusalRing::new(),
            ends: Ends::default(),
            peak: 0,
            flushed_micros: clocks().0,
            timed_packets: 0,
            made: 0,
            stopped: false,
        })
    }

    /// Runs until a [`Command::Stop`].
    ///
    /// # Errors
    /// When epoll itself fails.
    pub fn run(mut self) -> io::Result<()> {
        let mut events = Events::new(EVENTS);
        while !self.stopped {
            self.round(&mut events)?;
        }
        self.close_streams();
        Ok(())
    }

    fn on_listener(&mut self, now: Now, index: u32) {
        match self.listeners.get(index as usize) {
            Some(ListenerSocket::Udp { .. }) => self.on_datagrams(now, index),
            Some(ListenerSocket::Tcp { .. }) => self.on_accept(now, index),
            None => {}
        }
    }

    fn on_mailbox(&mut self, now: Now) {
        let Some(mailbox) = self.context.mailboxes.get(usize::from(self.number)).cloned() else { return };
        let commands = mailbox.take_commands();
        self.take_handover();
        for command in commands {
            match command {
                Command::Apply(settings, reply) => {
                    self.server.apply(settings);
                    self.jobs.tell_judgement(reply);
                }
                Command::Ping(seen) => {
                    // Who asks may read the counters next, and compares with the time of asking: this wake-up began before.
                    self.report();
                    seen.store(clocks().0, Ordering::Release);
                }
                Command::Drain(alternates) => {
                    self.server.set_alternates(alternates);
                    self.server.set_draining(true);
                }
                Command::List { filter, after, limit, reply } => {
                    self.jobs.add(Job::List(self.server.listing(filter, after, limit), reply));
                }
                Command::Show(id, reply) => reply(self.server.show(now, id)),
                Command::Users(reply) => self.jobs.add(Job::Users(self.server.totals(), reply)),
                Command::Refusals(reply) => reply(self.refusals.oldest_first()),
                Command::Kick(filter, id, reply) => {
                    self.jobs.add(Job::Kick(self.server.kicking(filter, id), 0, reply));
                }
                Command::Stop(reason) => {
                    self.server.end_all(now, reason, &mut self.relays);
                    self.stopped = true;
                }
            }
        }
    }

    fn on_time(&mut self, now: Now) {
        if self.server.next_timeout().is_some_and(|due| due <= now.micros) {
            self.server.handle_timeout(now, &mut self.relays);
        }
        self.context.reservations.sweep(now.micros);
        self.close_idle_streams(now);
        self.resume_accepting(now);
    }

    /// How long the loop may sleep, in milliseconds; without end when nothing is due.
    fn wait_ms(&self) -> i32 {
        if self.has_backlog() {
            return 0;
        }
        let reservations = self.context.reservations.next_expiry();
        let due = [self.server.next_timeout(), self.streams.next_timeout(), reservations, self.ends.due()];
        let Some(due) = due.into_iter().flatten().min() else { return -1 };
        let wait = due.saturating_sub(self.flushed_micros).div_ceil(1000).min(WAIT_MAX_MS);
        i32::try_from(wait).unwrap_or(i32::MAX)
    }

    /// Counts and logs what the core reports.
    fn report(&mut self) {
        while let Some(event) = self.server.poll_event() {
            match event {
                Event::Allocated { id, five_tuple, username, user, is_frequent, relayed } => {
                    self.made += 1;
                    self.counters.allocation_made(five_tuple.transport);
                    if let Some(usage) = self.context.usage.as_ref().filter(|_| !is_frequent) {
                        usage.started(self.number, id, five_tuple, (username, user), relayed);
                    }
                }
                Event::Ended(summary) => {
                    let transport = summary.five_tuple.transport;
                    self.counters.allocation_ended(transport, summary.reason, summary.duration_micros);
                    self.ends.log(self.flushed_micros, &summary);
                    if let Some(usage) = &self.context.usage {
                        usage.ended(self.number, &summary, self.stopped);
                    }
                }
                Event::Refused(refusal) => {
                    if let Some(shortage) = Shortage::behind(refusal.reason) {
                        self.context.shortages.note(self.flushed_micros, shortage);
                    }
                    self.refusals.push(refusal);
                }
                Event::RouteBound { .. } | Event::RouteGone { .. } => {}
            }
        }
        self.ends.sum_up(self.flushed_micros, self.stopped);
        let refusals = self.server.refusals();
        if refusals.total() != self.refusals_reported {
            self.refusals_reported = refusals.total();
            self.counters.set_refused(refusals);
        }
        self.counters.stranger_replies.set(self.server.stranger_replies());
        let (to_peers, to_clients) = self.server.throttled_bytes();
        for (counter, bytes) in self.counters.throttled_bytes.iter().zip([to_peers, to_clients]) {
            counter.set(bytes);
        }
        let live = self.server.allocations();
        self.counters.allocations.set(live as u64);
        self.peak = self.peak.max(live);
        if self.relays.slots() >= PEAK_MIN && live <= self.peak / 4 && live < self.peak {
            self.peak = live;
            self.server.shrink();
            self.relays.shrink();
            self.outbox.shrink(self.relays.slots());
            trim_memory();
        }
    }

    fn drop_packet(&self, reason: Dropped) {
        self.counters.drop_packet(reason);
    }
}

fn now() -> Now {
    let (micros, unix_secs) = clocks();
    Now { micros, unix_secs }
}
