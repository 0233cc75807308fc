//! Running the server: from a valid configuration to the end of the last worker.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::counters::Counters;
use super::notify;
use crate::addr::{Family, Transport};
use crate::auth::NonceKeys;
use crate::config::{Config, Listener, OwnAddresses};
use crate::listener::{ConnectionLimits, load_tls};
use crate::net::{OwnRelays, bind_tcp_listener, bind_udp_listener, interface_addresses, sys};
use crate::turn::{EndReason, Settings, Shared};
use crate::worker::{Command, Mailbox, Reservations, Worker, WorkerContext, WorkerListener, fill_from_system};

/// What the server listens on, with real ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// Each listener's transport and address, in the order of the configuration.
    pub listeners: Vec<(Transport, SocketAddr)>,
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("listening on")?;
        self.listeners.iter().try_for_each(|(transport, address)| write!(f, " {transport}/{address}"))
    }
}

/// Why the server could not start, or stopped.
#[derive(Debug)]
pub struct RunError(String);

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for RunError {}

impl RunError {
    fn new(what: impl fmt::Display, problem: impl fmt::Display) -> Self {
        Self(format!("{what}: {problem}"))
    }
}

/// What the caller wants to know and can provide while the server runs.
pub struct Hooks<'a> {
    /// Called once, when every listener is bound.
    pub on_ready: Box<dyn FnOnce(&Bound) + 'a>,
    /// Reads the configuration again, for SIGHUP; the error is one line for the log.
    pub reload: Box<dyn Fn() -> Result<Config, String> + 'a>,
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// [`RunError`] when a socket cannot be opened or a worker fails.
pub fn run(config: Config, hooks: Hooks<'_>) -> Result<(), RunError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| RunError::new("cannot start the control runtime", error))?;
    runtime.block_on(async {
        // Signals first: one that comes during the start is not lost.
        let signals = Signals::new().map_err(|error| RunError::new("cannot listen to signals", error))?;
        let server = RunningServer::start(config)?;
        let status = server.bound.to_string();
        tracing::info!(version = env!("CARGO_PKG_VERSION"), workers = server.workers.len(), "{status}");
        notify::ready(&status);
        (hooks.on_ready)(&server.bound);
        server.supervise(signals, &hooks.reload).await
    })
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }
}

struct RunningServer {
    bound: Bound,
    config: Config,
    context: WorkerContext,
    nonce_keys: Arc<NonceKeys>,
    workers: Vec<thread::JoinHandle<io::Result<()>>>,
    ended: tokio::sync::mpsc::UnboundedReceiver<usize>,
}

impl RunningServer {
    fn start(config: Config) -> Result<Self, RunError> {
        let tls = Arc::new(ArcSwapOption::empty());
        if let Some(files) = &config.tls {
            tls.store(Some(load_tls(files).map_err(|error| RunError(error.to_string()))?));
        }
        let sockets = bind_listeners(&config)?;
        let bound = Bound {
            listeners: sockets
                .first()
                .map(|first| first.iter().map(|listener| (listener.transport, listener.address)).collect())
                .unwrap_or_default(),
        };
        let mut master = [0; 32];
        fill_from_system(&mut master);
        let nonce_keys = Arc::new(NonceKeys::new(master, config.auth.nonce_lifetime_secs));
        let relay = |family| config.relay.of(family).map(|relay| (relay.bind, relay.external));
        let own_relays = OwnRelays::new(relay(Family::V4), relay(Family::V6), config.relay.ports);
        let reservations_max = (own_relays.capacity() / 8).max(1) as usize;
        let mailboxes = (0..config.workers)
            .map(|_| Mailbox::new().map(Arc::new))
            .collect::<io::Result<Vec<_>>>()
            .map_err(|error| RunError::new("cannot make a mailbox", error))?;
        let context = WorkerContext {
            settings: Arc::new(settings(&config, &bound, &nonce_keys)?),
            shared: Shared::default(),
            own_relays,
            reservations: Arc::new(Reservations::new(reservations_max)),
            connection_limits: ConnectionLimits::new(
                config.streams.connections_max,
                config.streams.connections_per_ip_max,
            ),
            tls,
            streams: config.streams,
            mailboxes,
            busy_sockets_max: busy_sockets_max(config.workers),
            loopback_peers: config.peers.allow_loopback,
            gso: gso_available(),
        };
        let (end, ended) = tokio::sync::mpsc::unbounded_channel();
        let mut workers = Vec::with_capacity(config.workers);
        for (number, listeners) in sockets.into_iter().enumerate() {
            let failed = |error| RunError::new(format!("cannot start worker {number}"), error);
            let counters = Arc::new(Counters::default());
            let worker = Worker::new(number as u16, listeners, counters, context.clone()).map_err(failed)?;
            let end = EndNotice { number, end: end.clone() };
            let thread = thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
                let _notice = end;
                worker.run()
            });
            workers.push(thread.map_err(failed)?);
        }
        Ok(Self { bound, config, context, nonce_keys, workers, ended })
    }

    async fn supervise(
        mut self,
        mut signals: Signals,
        reload: &dyn Fn() -> Result<Config, String>,
    ) -> Result<(), RunError> {
        let alive: Vec<_> = self.context.mailboxes.iter().map(|_| Arc::new(AtomicU64::new(0))).collect();
        let interval = notify::watchdog_interval();
        let mut tick = tokio::time::interval(interval.unwrap_or(Duration::from_secs(3600)));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut asked_micros = 0;
        loop {
            tokio::select! {
                _ = signals.terminate.recv() => break,
                _ = signals.interrupt.recv() => break,
                _ = signals.hang_up.recv() => {
                    notify::reloading();
                    self.reload(reload);
                    notify::ready(&self.bound.to_string());
                }
                _ = tick.tick(), if interval.is_some() => {
                    // Only when every worker has answered the last question does the service manager hear from us.
                    if alive.iter().all(|seen| seen.load(Ordering::Relaxed) >= asked_micros) {
                        notify::watchdog();
                        asked_micros = sys::clocks().0;
                        for (mailbox, seen) in self.context.mailboxes.iter().zip(&alive) {
                            mailbox.send(Command::Ping(Arc::clone(seen)));
                        }
                    } else {
                        tracing::warn!("a worker does not answer");
                    }
                }
                number = self.ended.recv() => {
                    return Err(self.worker_failed(number));
                }
            }
        }
        tracing::info!("stopping");
        notify::stopping();
        for mailbox in &self.context.mailboxes {
            mailbox.send(Command::Stop(EndReason::Shutdown));
        }
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
        Ok(())
    }

    /// Reads configuration and certificates again and hands both to the workers; what is bad leaves the running one.
    fn reload(&mut self, read: &dyn Fn() -> Result<Config, String>) {
        let loaded = read().and_then(|config| {
            let tls = config.tls.as_ref().map(load_tls).transpose().map_err(|error| error.to_string())?;
            let settings = settings(&config, &self.bound, &self.nonce_keys).map_err(|error| error.to_string())?;
            Ok((config, tls, settings))
        });
        match loaded {
            Ok((config, tls, settings)) => {
                let needs_restart = self.restart_needed(&config);
                self.config = config;
                self.context.tls.store(tls);
                let settings = Arc::new(settings);
                for mailbox in &self.context.mailboxes {
                    mailbox.send(Command::Apply(Arc::clone(&settings)));
                }
                tracing::info!("configuration reloaded");
                if !needs_restart.is_empty() {
                    tracing::warn!(sections = ?needs_restart, "changes that take effect only after a restart");
                }
            }
            Err(problem) => tracing::error!(%problem, "reload refused, the running configuration stays"),
        }
    }

    /// The sections whose changes a reload cannot apply.
    fn restart_needed(&self, new: &Config) -> Vec<&'static str> {
        let old = &self.config;
        let changed = [
            ("listen", old.listeners != new.listeners),
            ("relay", old.relay != new.relay),
            ("workers", old.workers != new.workers),
            ("streams", old.streams != new.streams),
            ("log", old.log != new.log),
            ("nonce-lifetime", old.auth.nonce_lifetime_secs != new.auth.nonce_lifetime_secs),
        ];
        changed.into_iter().filter(|(_, changed)| *changed).map(|(name, _)| name).collect()
    }

    fn worker_failed(&mut self, number: Option<usize>) -> RunError {
        let number = number.unwrap_or_default();
        if number >= self.workers.len() {
            return RunError(format!("worker {number} ended"));
        }
        match self.workers.swap_remove(number).join() {
            Ok(Ok(())) => RunError(format!("worker {number} ended")),
            Ok(Err(error)) => RunError::new(format!("worker {number}"), error),
            Err(_) => RunError(format!("worker {number} panicked")),
        }
    }
}

/// Says that a worker's thread has ended, however it ended.
struct EndNotice {
    number: usize,
    end: tokio::sync::mpsc::UnboundedSender<usize>,
}

impl Drop for EndNotice {
    fn drop(&mut self) {
        let _ = self.end.send(self.number);
    }
}

/// Binds every listener once per worker. A port of 0 is chosen by the first worker's socket.
fn bind_listeners(config: &Config) -> Result<Vec<Vec<WorkerListener>>, RunError> {
    let mut addresses: Vec<Listener> = config.listeners.clone();
    let mut workers = Vec::with_capacity(config.workers);
    for _ in 0..config.workers {
        let mut listeners = Vec::with_capacity(addresses.len());
        for Listener { address, transport } in &mut addresses {
            let failed = |error| RunError::new(format!("cannot listen on {transport}/{address}"), error);
            let bound = match transport {
                Transport::Udp => bind_udp_listener(*address),
                Transport::Tcp | Transport::Tls => bind_tcp_listener(*address),
            };
            let socket = bound.map_err(failed)?;
            let local = socket2::SockRef::from(&socket).local_addr().map_err(failed)?;
            *address = local.as_socket().unwrap_or(*address);
            listeners.push(WorkerListener { transport: *transport, address: *address, socket });
        }
        workers.push(listeners);
    }
    Ok(workers)
}

fn settings(config: &Config, bound: &Bound, nonce_keys: &Arc<NonceKeys>) -> Result<Settings, RunError> {
    let own = OwnAddresses {
        endpoints: bound.listeners.iter().map(|(_, address)| *address).collect(),
        addresses: interface_addresses().map_err(|error| RunError::new("cannot list interface addresses", error))?,
    };
    config.settings(Arc::clone(nonce_keys), own).map_err(|error| RunError(error.to_string()))
}

fn gso_available() -> bool {
    std::net::UdpSocket::bind(("127.0.0.1", 0)).is_ok_and(|socket| sys::enable_udp_gso_probe(socket.as_fd()))
}

/// Descriptors for connected sockets of busy peers: an eighth of all, they are a gain and those of allocations a need.
fn busy_sockets_max(workers: usize) -> usize {
    usize::try_from(sys::descriptor_limit() / 8).unwrap_or(usize::MAX) / workers.max(1)
}
