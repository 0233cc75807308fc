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

use super::addresses::{self, AddressWatch};
use super::admin::{AdminApi, Order, Orders, Shown};
use super::certificates::{self, Stamp, Watch};
use super::drain::{self, Draining};
use super::endpoint::EndpointListener;
use super::http::Monitor;
use super::listeners;
use super::log::LogControl;
use super::metrics::Metrics;
use super::notify;
use super::status::Status;
use crate::addr::Transport;
use crate::auth::NonceKeys;
use crate::config::{Config, Endpoint, Loaded, OwnAddresses, Unusable, Wanted, WantedSockets, lasts, why};
use crate::counters::Counters;
use crate::net::{Inherited, RelayPorts, sys};
use crate::stream::ConnectionLimits;
use crate::turn::{AllocationFilter, EndReason, Settings, Shared};
use crate::usage::{AskWorker, UsageRecords};
use crate::worker::{Command, Mailbox, Reservations, Worker, WorkerContext, fill_from_system};

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
pub struct RunError {
    message: String,
    /// The key in `turnserver.toml` that asks for what failed, with its section.
    pub key: Option<&'static str>,
    /// Whether it stays so until somebody changes something: starting again does not help.
    pub lasts: bool,
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for RunError {}

impl RunError {
    /// Something that may be otherwise at the next try.
    pub(super) fn new(what: impl fmt::Display, problem: impl fmt::Display) -> Self {
        Self { message: format!("{what}: {problem}"), key: None, lasts: false }
    }

    /// Something that `key` asks for.
    pub(super) fn of_key(key: &'static str, lasts: bool, message: String) -> Self {
        Self { message, key: Some(key), lasts }
    }
}

impl From<Unusable> for RunError {
    fn from(Unusable { key, message, lasts }: Unusable) -> Self {
        Self::of_key(key, lasts, message)
    }
}

/// What the caller wants to know and can provide while the server runs.
pub struct Hooks<'a> {
    /// The sockets that this process was started with.
    pub inherited: Inherited,
    /// Called once, when the server is ready: every listener is bound, and there is an address to relay from.
    pub on_ready: Box<dyn FnOnce(&Bound) + 'a>,
    /// Reads the configuration again, for a reload; the error is one text for the log.
    pub reload: Box<dyn Fn() -> Result<Loaded, String> + 'a>,
    /// The configuration file, to be shown.
    pub config_file: Option<String>,
    /// Changes the log's filter on reload.
    pub log: LogControl,
}

impl Hooks<'_> {
    fn ready(&mut self, bound: &Bound) {
        std::mem::replace(&mut self.on_ready, Box::new(|_| {}))(bound);
    }
}

/// Runs until SIGTERM or SIGINT, or until a drain that SIGTERM or SIGUSR1 began is over.
///
/// # Errors
/// [`RunError`] when a socket cannot be opened or a worker fails.
pub fn run(config: Config, mut hooks: Hooks<'_>) -> Result<(), RunError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| RunError::new("cannot start the control runtime", error))?;
    runtime.block_on(async {
        // Signals first: one that comes during the start is not lost.
        let signals = Signals::new().map_err(|error| RunError::new("cannot listen to signals", error))?;
        let mut server = RunningServer::start(config, std::mem::take(&mut hooks.inherited))?;
        let status = server.bound.to_string();
        tracing::info!(version = env!("CARGO_PKG_VERSION"), workers = server.workers.len(), "{status}");
        if server.follow_addresses() {
            hooks.ready(&server.bound);
        }
        server.supervise(signals, &mut hooks).await
    })
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    user_1: Signal,
    user_2: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            user_1: signal(SignalKind::user_defined1())?,
            user_2: signal(SignalKind::user_defined2())?,
        })
    }
}

pub(super) struct RunningServer {
    pub(super) bound: Bound,
    /// Our own addresses that are no listeners of clients are in here, too: no peer may have them.
    pub(super) endpoints: Vec<SocketAddr>,
    pub(super) addresses: AddressWatch,
    pub(super) config: Config,
    pub(super) context: WorkerContext,
    pub(super) counters: Vec<Arc<Counters>>,
    pub(super) status: Arc<Status>,
    pub(super) watch: Watch,
    pub(super) draining: Option<Draining>,
    pub(super) usage: Option<UsageRecords>,
    /// The endpoints.
    tasks: Vec<tokio::task::JoinHandle<()>>,
    orders: Option<Orders>,
    nonce_keys: Arc<NonceKeys>,
    workers: Vec<thread::JoinHandle<io::Result<()>>>,
    ended: tokio::sync::mpsc::UnboundedReceiver<usize>,
}

impl RunningServer {
    fn start(config: Config, inherited: Inherited) -> Result<Self, RunError> {
        let descriptors = share_out_descriptors(&config);
        let addresses = AddressWatch::new()?;
        let (status, mut watch) = (Arc::new(Status::new()), Watch::new());
        let tls = Arc::new(ArcSwapOption::empty());
        if let Some(files) = &config.tls {
            watch.judged(files, Stamp::of(files));
            let certificate = certificates::load(files).map_err(|problem| {
                // One that can be read but not used may be half renewed: the rest comes in a moment.
                let stays = std::fs::File::open(&files.certificate).is_err_and(|error| lasts(&error));
                RunError::of_key("tls", stays, problem)
            })?;
            status.set_certificate_not_after(Some(certificate.not_after_unix));
            tls.store(Some(certificate.config));
        }
        let listeners::Opened { bound, per_worker: sockets } = listeners::open(&config, inherited)?;
        let bound = Bound { listeners: bound };
        let monitor =
            config.metrics.as_ref().map(|metrics| bind_endpoint(&metrics.listen, "metrics.listen")).transpose()?;
        let admin = config.admin.as_ref().map(|admin| bind_endpoint(&admin.listen, "admin.listen")).transpose()?;
        let mut endpoints: Vec<_> = bound.listeners.iter().map(|(_, address)| *address).collect();
        endpoints.extend([&monitor, &admin].into_iter().flatten().filter_map(EndpointListener::address));
        endpoints.extend(config.usage.iter().flat_map(|usage| &usage.webhook).filter_map(|webhook| webhook.address));
        let mut master = [0; 32];
        fill_from_system(&mut master);
        let nonce_keys = Arc::new(NonceKeys::new(master, config.auth.nonce_lifetime_secs));
        let relay_ports = RelayPorts::new(None, None, config.relay.ports);
        addresses::offer(&config, &relay_ports);
        let reservations_max = (relay_ports.capacity() / 4).max(1) as usize;
        let mailboxes = (0..config.workers)
            .map(|_| Mailbox::new().map(Arc::new))
            .collect::<io::Result<Vec<_>>>()
            .map_err(|error| RunError::new("cannot make a mailbox", error))?;
        let usage = config.usage.as_ref().map(|usage| {
            let (stats, ask) = (Arc::clone(&status.usage), ask_worker(&mailboxes));
            let instance = format!("{:08x}", status.instance());
            UsageRecords::start(usage, &instance, config.workers, stats, ask).map_err(RunError::from)
        });
        let usage = usage.transpose()?;
        let context = WorkerContext {
            settings: Arc::new(settings(&config, addresses.own(&config, &endpoints, &relay_ports), &nonce_keys)?),
            shared: Shared::default(),
            relay_ports,
            reservations: Arc::new(Reservations::new(reservations_max)),
            shortages: Arc::default(),
            connection_limits: ConnectionLimits::new(
                config.streams.connections_max.min(usize::try_from(descriptors.connections).unwrap_or(usize::MAX)),
                config.streams.connections_per_ip_max,
                config.streams.unallocated_per_network_max,
            ),
            tls,
            streams: config.streams,
            usage: usage.as_ref().map(UsageRecords::sender),
            mailboxes,
            descriptors: descriptors.of_each(config.workers),
            loopback_peers: config.peers.allow_loopback,
            gso: gso_available(),
        };
        status.set_peer_acl(Arc::clone(&context.settings.peer_acl));
        let (end, ended) = tokio::sync::mpsc::unbounded_channel();
        let mut workers = Vec::with_capacity(config.workers);
        let counters: Vec<_> = sockets.iter().map(|_| Arc::new(Counters::default())).collect();
        for (number, (listeners, counters)) in sockets.into_iter().zip(&counters).enumerate() {
            let failed = |error| RunError::new(format!("cannot start worker {number}"), error);
            let worker =
                Worker::new(number as u16, listeners, Arc::clone(counters), context.clone()).map_err(failed)?;
            let end = EndNotice { number, end: end.clone() };
            let thread = thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
                let _notice = end;
                worker.run()
            });
            workers.push(thread.map_err(failed)?);
        }
        let mut tasks = Vec::new();
        if let Some(listener) = monitor {
            tracing::info!(endpoint = %listener.endpoint, "serving /metrics, /healthz and /readyz");
            let metrics = Metrics::new(
                counters.clone(),
                Arc::clone(&context.relay_ports),
                Arc::clone(&context.reservations),
                Arc::clone(&status),
            );
            let mailboxes = context.mailboxes.clone();
            // A socket in the file system is beyond the reach of web pages.
            let any_host = config.metrics.as_ref().is_none_or(|metrics| metrics.allow_remote)
                || matches!(listener.endpoint, Endpoint::Unix(_));
            let monitor = Monitor { any_host, metrics, status: Arc::clone(&status), mailboxes };
            tasks.push(tokio::spawn(listener.serve(Arc::new(monitor))));
        }
        let mut orders = None;
        if let (Some(listener), Some(admin)) = (admin, config.admin.clone()) {
            tracing::info!(endpoint = %listener.endpoint, "serving the admin API");
            let (api, received) = AdminApi::new(
                admin,
                Shown {
                    status: Arc::clone(&status),
                    mailboxes: context.mailboxes.clone(),
                    counters: counters.clone(),
                    relay_ports: Arc::clone(&context.relay_ports),
                    bound: bound.clone(),
                },
            );
            orders = Some(received);
            tasks.push(tokio::spawn(listener.serve(Arc::new(api))));
        }
        Ok(Self {
            bound,
            endpoints,
            addresses,
            config,
            context,
            counters,
            status,
            watch,
            draining: None,
            usage,
            tasks,
            orders,
            nonce_keys,
            workers,
            ended,
        })
    }

    async fn supervise(mut self, mut signals: Signals, hooks: &mut Hooks<'_>) -> Result<(), RunError> {
        let alive: Vec<_> = self.context.mailboxes.iter().map(|_| Arc::new(AtomicU64::new(0))).collect();
        let interval = notify::watchdog_interval();
        let mut tick = tokio::time::interval(interval.unwrap_or(Duration::from_secs(3600)));
        let mut drain_tick = tokio::time::interval(drain::LOOK_INTERVAL);
        for tick in [&mut tick, &mut drain_tick] {
            tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        }
        let mut asked_micros = 0;
        let mut orders = self.orders.take();
        loop {
            tokio::select! {
                _ = signals.terminate.recv() => {
                    let deadline = self.config.drain.deadline;
                    if self.draining.is_some() || deadline.is_zero() {
                        break;
                    }
                    self.begin_drain(Some(deadline));
                }
                _ = signals.user_1.recv() => {
                    if self.draining.is_some() {
                        break;
                    }
                    self.begin_drain(self.configured_deadline());
                }
                _ = signals.interrupt.recv() => break,
                // What the certificate hooks of coturn send.
                _ = signals.user_2.recv() => self.reload_certificate(),
                () = self.watch.due(), if self.config.tls.is_some() => self.watch_certificate(),
                () = self.addresses.due() => {
                    if self.follow_addresses() {
                        hooks.ready(&self.bound);
                    }
                }
                _ = drain_tick.tick(), if self.draining.is_some() => {
                    if self.has_drained() {
                        break;
                    }
                }
                _ = signals.hang_up.recv() => {
                    // What comes of it is in the log.
                    self.reload_and_notify(hooks, drop);
                }
                Some(order) = next_order(&mut orders) => {
                    if self.obey(order, hooks) {
                        // The answer goes out before the drain can be over.
                        drain_tick.reset();
                    }
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
        if let Some(usage) = self.usage.take() {
            usage.stop();
        }
        for task in self.tasks.drain(..) {
            task.abort();
            let _ = task.await;
        }
        Ok(())
    }

    /// The snapshot for the workers, with what the server knows of itself.
    pub(super) fn settings(&self, config: &Config) -> Result<Settings, RunError> {
        let own = self.addresses.own(config, &self.endpoints, &self.context.relay_ports);
        settings(config, own, &self.nonce_keys)
    }

    fn worker_failed(&mut self, number: Option<usize>) -> RunError {
        let number = number.unwrap_or_default();
        if number >= self.workers.len() {
            return RunError::new(format!("worker {number}"), "it ended");
        }
        match self.workers.swap_remove(number).join() {
            Ok(Ok(())) => RunError::new(format!("worker {number}"), "it ended"),
            Ok(Err(error)) => RunError::new(format!("worker {number}"), error),
            Err(_) => RunError::new(format!("worker {number}"), "it panicked"),
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

/// The next order of the admin API, if there is one.
async fn next_order(orders: &mut Option<Orders>) -> Option<Order> {
    orders.as_mut()?.recv().await
}

fn bind_endpoint(endpoint: &Endpoint, key: &'static str) -> Result<EndpointListener, RunError> {
    EndpointListener::bind(endpoint).map_err(|error| {
        let problem = match endpoint {
            Endpoint::Unix(path) => why(path, Wanted::Write, &error),
            Endpoint::Tcp(address) => why_not_bound(*address, &error),
        };
        RunError::of_key(key, lasts(&error), format!("cannot listen on {endpoint}: {problem}"))
    })
}

/// Why a port cannot be listened on, with what helps.
pub(super) fn why_not_bound(address: SocketAddr, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied if address.port() < 1024 => {
            format!("{error}: ports below 1024 need CAP_NET_BIND_SERVICE, which the systemd unit grants")
        }
        io::ErrorKind::AddrInUse => {
            format!("{error}: another program has it; sudo ss -lnp 'sport = :{}' shows which", address.port())
        }
        _ => error.to_string(),
    }
}

fn settings(config: &Config, own: OwnAddresses, nonce_keys: &Arc<NonceKeys>) -> Result<Settings, RunError> {
    config.settings(Arc::clone(nonce_keys), own).map_err(|error| RunError::of_key("peers", true, error.to_string()))
}

/// Lets the writer of usage records ask a worker for its live allocations.
fn ask_worker(mailboxes: &[Arc<Mailbox>]) -> AskWorker {
    let mailboxes = mailboxes.to_vec();
    Box::new(move |worker, after, limit, take| {
        let Some(mailbox) = mailboxes.get(worker) else { return };
        let reply = Box::new(move |views| take(sys::clocks().0, views));
        mailbox.send(Command::List { filter: AllocationFilter::default(), after, limit, reply });
    })
}

fn gso_available() -> bool {
    std::net::UdpSocket::bind(("127.0.0.1", 0)).is_ok_and(|socket| sys::enable_udp_gso_probe(socket.as_fd()))
}

/// Shares out the descriptors there are: as many as the hard limit allows.
fn share_out_descriptors(config: &Config) -> sys::Descriptors {
    let WantedSockets { listeners, relays, connections } = config.wanted_sockets();
    let descriptors = sys::Descriptors::share_out(sys::raise_open_files(), listeners, relays, connections);
    let sys::Descriptors { limit, needed, connections, .. } = descriptors;
    if needed > limit {
        tracing::warn!(
            limit,
            needed,
            connections,
            "this process may have fewer descriptors than [relay] ports and [streams] connections-max may need: it accepts at most \
             so many connections, and the relays have the rest; raise LimitNOFILE= of the unit (ulimit -n), or lower the two"
        );
    }
    descriptors
}
