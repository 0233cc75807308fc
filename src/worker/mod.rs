//! One worker: a thread with its own listener sockets, allocations, relay sockets and buffers. Nothing on the packet path is
//! shared with another worker.
//!
//! The loop is one plain epoll: datagrams, streams, relay sockets and the mailbox alike; only connections without an allocation have
//! one of their own behind it. What a wake-up brings is received into the arena, routed by the core, joined into runs, and flushed
//! before the next wait.

mod clients;
mod elsewhere;
mod ends;
mod forward;
mod inbox;
mod jobs;
mod last_ends;
mod log;
mod loops;
mod mail;
mod mailbox;
mod moving;
mod observers;
mod outbox;
mod peak;
mod plan;
mod random;
mod relay_socket;
mod relay_sockets;
mod reservations;
mod ring;
mod room;
mod run;
mod shared_sockets;
mod shortage;
mod tcp_link;
mod tcp_relays;
mod tcp_turns;
mod token;
mod waiting;

use std::io;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use rustls::ServerConfig;

pub use clients::WorkerListener;
pub use last_ends::LastEnd;
pub use mailbox::{Command, Mailbox, Reply};
pub use moving::Whereabouts;
pub(crate) use random::fill_from_system;
pub use reservations::Reservations;
pub(crate) use ring::KEPT as REFUSALS_KEPT;
pub use shortage::{Shortage, Shortages};

use crate::config::{RelayChoice, Streams};
use crate::counters::Counters;
use crate::dtls;
use crate::hook::{EventSender, HookSender};
use crate::net::sys::{Descriptors, Epoll, Interest};
use crate::net::{Pipes, RelayPorts};
use crate::store::leases::LeaseSender;
use crate::stream::ConnectionLimits;
use crate::turn::{AllocationIds, Server, Settings, Shared};
use crate::usage::UsageSender;

use clients::{ClientSources, Clients};
use inbox::Inbox;
use jobs::Jobs;
use loops::LoopWatch;
use mail::Mail;
use moving::Parked;
use observers::Observers;
use outbox::Outbox;
use relay_sockets::{ListenerRelays, RelaySockets, RelaySources};
use run::Pace;
use token::Token;

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
    /// Where the allocations are that have moved.
    pub whereabouts: Arc<Whereabouts>,
    /// Warnings that something has run out.
    pub shortages: Arc<Shortages>,
    /// The limits on stream connections.
    pub connection_limits: Arc<ConnectionLimits>,
    /// The TLS configuration, replaced when certificates are.
    pub tls: Arc<ArcSwapOption<ServerConfig>>,
    /// The same of DTLS.
    pub dtls: Arc<ArcSwapOption<dtls::Context>>,
    /// Options of stream connections.
    pub streams: Streams,
    /// Every worker's mailbox, by worker number.
    pub mailboxes: Vec<Arc<Mailbox>>,
    /// Who may have how many descriptors.
    pub descriptors: Descriptors,
    /// Takes questions about users, if anybody is asked.
    pub hook: Option<HookSender>,
    /// Takes questions about quotas that hold over several servers, if there is a store.
    pub leases: Option<LeaseSender>,
    /// Takes what is told of allocations, if anybody is told.
    pub events: Option<EventSender>,
    /// Takes what the allocations have used, if that is recorded.
    pub usage: Option<UsageSender>,
    /// Whether peers on this host's loopback are allowed (`serve --dev`).
    pub loopback_peers: bool,
    /// Which of several relay addresses an allocation gets.
    pub relay_choice: RelayChoice,
    /// Whether allocations share the relay ports, of which each worker has some.
    pub shared_ports: bool,
    /// Whether the kernel segments datagrams (UDP GSO).
    pub gso: bool,
}

/// A worker, to be run on a thread of its own: rooms, each with a state of its own. What a message comes to is in `forward`, whose
/// turn it is, and when what was gathered is sent, in `run`.
pub struct Worker {
    server: Server,
    /// What has been received.
    inbox: Inbox,
    /// The paths to clients.
    clients: Clients,
    /// The sockets towards peers.
    relays: RelaySockets,
    /// What is to be sent.
    outbox: Outbox,
    /// What comes from and goes to other threads.
    mail: Mail,
    /// Where the allocations are that have moved.
    whereabouts: Arc<Whereabouts>,
    /// Data that waits for its allocation.
    parked: Parked,
    /// Whom to ask what requests wait for.
    hook: Option<HookSender>,
    leases: Option<LeaseSender>,
    /// What goes over all allocations.
    jobs: Jobs,
    /// What goes round, if that is looked for.
    loops: Option<Box<LoopWatch>>,
    /// What counts, logs and records.
    observers: Observers,
    /// What bytes go through from one connection to another.
    pipes: Pipes,
    pace: Pace,
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
        let mail = Mail::new(number, &context.mailboxes);
        if let Some(fd) = mail.wake_fd() {
            epoll.add(fd, Token::Mailbox.pack(), Interest::Read)?;
        }
        let of_clients = ClientSources {
            limits: context.connection_limits,
            descriptors: context.descriptors,
            tls: context.tls,
            dtls: context.dtls,
            options: context.streams,
        };
        let of_relays = RelaySources {
            ports: context.relay_ports,
            reservations: context.reservations,
            descriptors: context.descriptors,
            fill_random: fill_from_system,
            loopback_peers: context.loopback_peers,
            choice: context.relay_choice,
            by_listener: listeners.iter().filter_map(ListenerRelays::of).collect(),
            sharing_workers: context.shared_ports.then_some(context.mailboxes.len() as u16),
        };
        let loops = LoopWatch::of(&context.settings);
        let server = Server::new(context.settings, context.shared, Box::new(fill_from_system))
            .with_ids(AllocationIds::of_worker(number));
        Ok(Self {
            server,
            inbox: Inbox::new(),
            clients: Clients::new(Arc::clone(&epoll), listeners, of_clients)?,
            relays: RelaySockets::new(number, Arc::clone(&epoll), Arc::clone(&counters), of_relays),
            outbox: Outbox::new(context.gso),
            mail,
            whereabouts: Arc::clone(&context.whereabouts),
            parked: Parked::default(),
            hook: context.hook.map(|hook| hook.of_worker(number)),
            leases: context.leases.map(|leases| leases.of_worker(number)),
            jobs: Jobs::default(),
            loops,
            observers: Observers::new(counters, context.usage, context.events, context.shortages, context.whereabouts),
            pipes: Pipes::new(context.descriptors),
            pace: Pace::new(epoll),
        })
    }
}
