//! One worker: a thread with its own listener sockets, allocations, relay sockets and buffers. Nothing on the packet path is
//! shared with another worker.
//!
//! The loop is one plain epoll: datagrams, streams, relay sockets and the mailbox alike; only connections without an allocation have
//! one of their own behind it. What a wake-up brings is received into the arena, routed by the core, joined into runs, and flushed
//! before the next wait.

mod encapsulate;
mod ends;
mod forward;
mod inbox;
mod jobs;
mod listeners;
mod log;
mod mail;
mod mailbox;
mod observers;
mod outbox;
mod plan;
mod random;
mod refusals;
mod relay_socket;
mod relay_sockets;
mod reservations;
mod room;
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
use crate::net::RelayPorts;
use crate::net::sys::{Descriptors, Epoll, Events, Interest, clocks};
use crate::stream::ConnectionLimits;
use crate::turn::{AllocationIds, Server, Settings, Shared};
use crate::usage::UsageSender;

use inbox::Inbox;
use jobs::{Job, Jobs};
use listeners::{DatagramListener, ListenerSocket};
use mail::Mail;
use observers::Observers;
use outbox::Outbox;
use relay_sockets::{RelaySockets, RelaySources};
use stream_table::StreamTable;
use token::Token;

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

/// A worker, to be run on a thread of its own.
pub struct Worker {
    epoll: Arc<Epoll>,
    /// Watches the connections without an allocation; the other one watches it.
    strangers: Epoll,
    stranger_events: Events,
    listeners: Vec<ListenerSocket>,
    streams: StreamTable,
    server: Server,
    inbox: Inbox,
    relays: RelaySockets,
    outbox: Outbox,
    mail: Mail,
    jobs: Jobs,
    observers: Observers,
    context: WorkerContext,
    /// Messages handled in this round, by which rounds are bounded.
    spent: u32,
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
                Transport::Udp => ListenerSocket::Udp(DatagramListener::new(socket, address)),
                Transport::Tcp | Transport::Tls => ListenerSocket::Tcp { socket: TcpListener::from(socket), transport },
            });
        }
        let mail = Mail::new(number, &context.mailboxes);
        if let Some(fd) = mail.wake_fd() {
            epoll.add(fd, Token::Mailbox.pack(), Interest::Read)?;
        }
        let strangers = Epoll::new()?;
        epoll.add(strangers.as_fd(), Token::Strangers.pack(), Interest::Read)?;
        let relays = RelaySockets::new(number, Arc::clone(&epoll), Arc::clone(&counters), relay_sources(&context));
        let server = Server::new(Arc::clone(&context.settings), context.shared.clone(), Box::new(fill_from_system))
            .with_ids(AllocationIds::of_worker(number));
        Ok(Self {
            epoll,
            strangers,
            stranger_events: Events::new(EVENTS),
            listeners: sockets,
            streams: StreamTable::new(&context.streams),
            server,
            inbox: Inbox::new(),
            relays,
            outbox: Outbox::new(context.gso),
            mail,
            jobs: Jobs::default(),
            observers: Observers::new(counters, context.usage.clone(), Arc::clone(&context.shortages)),
            context,
            spent: 0,
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
            Some(ListenerSocket::Udp(_)) => self.serve_listener(now, index),
            Some(ListenerSocket::Tcp { .. }) => self.on_accept(now, index),
            None => {}
        }
    }

    fn on_mailbox(&mut self, now: Now) {
        for command in self.mail.take() {
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
                Command::Refusals(reply) => reply(self.observers.last_refusals()),
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
        self.relays.sweep(now);
        self.close_idle_streams(now);
        self.resume_accepting(now);
    }

    /// Counts and logs what the core reports.
    fn report(&mut self) {
        self.observers.report(&mut self.server, self.stopped);
    }
}

fn relay_sources(context: &WorkerContext) -> RelaySources {
    RelaySources {
        ports: Arc::clone(&context.relay_ports),
        reservations: Arc::clone(&context.reservations),
        descriptors: context.descriptors,
        fill_random: fill_from_system,
        loopback_peers: context.loopback_peers,
    }
}

fn now() -> Now {
    let (micros, unix_secs) = clocks();
    Now { micros, unix_secs }
}
