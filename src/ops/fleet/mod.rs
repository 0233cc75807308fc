//! The nodes of `[fleet]` as the running server knows them: asked for the page while somebody looks at it, and for their load where clients
//! are sent away by load, and all of them now and then, so that it is known who is silent. One that hangs holds up nobody.

mod follow;
mod room;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::{Notify, Semaphore};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::leases::has_fleet_quota;
use super::listeners::Bound;
use super::status::Status;
use super::workers::Workers;
use crate::addr::Transport;
use crate::config::{Config, FleetConfig, NodeSource};
use crate::credentials::client_addresses;
use crate::fleet::{Asked, Asker, NodeReport, Nodes};
use crate::net::RelayPorts;
use crate::policy::WithoutShare;
use crate::turn::{Other, Redirect};
use room::{HookHealth, Relies};

/// One question and its answer.
const ASK_LIMIT: Duration = Duration::from_secs(2);
/// Questions at a time, and as many again for searches: one for each node, so that those that hang are waited for by nobody.
const ASKED_MAX: usize = FleetConfig::NODES_MAX;
/// How many nodes are asked for room in a second: two of them are drawn for each client, and more make no better choice.
const ASKED_FOR_ROOM: usize = 8;
/// How often a page has all of them asked, and for how long after it was last fetched.
const WATCH_TICKS: u64 = 2;
const WATCHED: Duration = Duration::from_secs(15);
/// How long who opens the page waits for the first answers.
const FIRST_LIMIT: Duration = Duration::from_millis(1500);
/// How long another node's word that it has room is good, from before it was asked.
const ROOM_IS_GOOD: Duration = Duration::from_secs(3);
/// How long a node that has said so sends nobody away, from after it was asked: the client that was sent here in the last moment of
/// [`ROOM_IS_GOOD`] has some seconds to get here.
const PROMISE: Duration = Duration::from_secs(10);
/// Who has not been asked for so long is asked how he is, so many in a second: all of them within half a minute.
const ASKED_AGAIN: Duration = Duration::from_secs(30);
/// The same of one that did not answer: somebody may wait for it.
const SILENT_AGAIN: Duration = Duration::from_secs(10);
const ASKED_AGAIN_MAX: usize = FleetConfig::NODES_MAX.div_ceil(ASKED_AGAIN.as_secs() as usize);

/// The fleet.
pub(super) struct Fleet {
    /// This run of this server.
    instance: String,
    workers: Workers,
    relay_ports: Arc<RelayPorts>,
    status: Arc<Status>,
    settled: ArcSwap<Settled>,
    nodes: ArcSwap<Vec<Arc<Node>>>,
    /// Names of nodes that lead to none, and why.
    unnamed: ArcSwap<Vec<(String, String)>>,
    has_changed: Notify,
    /// Whether a node was not trusted since it was read who is.
    is_doubted: AtomicBool,
    has_doubt: Notify,
    hook: Mutex<HookHealth>,
    places: Semaphore,
    search_places: Arc<Semaphore>,
    /// Decides which of a node's addresses clients of this one are sent to.
    chance: u64,
    watched_until: Mutex<Option<Instant>>,
    promised_until: Mutex<Option<Instant>>,
    published: Mutex<Arc<[Other]>>,
}

/// What the configuration in force says.
struct Settled {
    fleet: FleetConfig,
    redirect: Option<Arc<Redirect>>,
    /// The most allocations that it makes.
    allocations_total: Option<u32>,
    relies: Relies,
    /// Where clients reach this node.
    clients: Vec<(Transport, SocketAddr)>,
}

/// One of the nodes.
pub(super) struct Node {
    pub(super) asker: Arc<Asker>,
    is_asked: AtomicBool,
    seen: Arc<Mutex<Seen>>,
}

/// What a node is asked for beside its state.
#[derive(Clone, Copy, Default)]
struct Wanted {
    /// Whether it takes clients of this one.
    room: bool,
    /// Its last minutes.
    samples: bool,
}

/// What is known of one.
#[derive(Clone, Default)]
pub(super) struct Seen {
    /// What it said last, and when.
    pub(super) report: Option<(Arc<NodeReport>, Instant)>,
    /// The same of the last minutes.
    pub(super) samples: Option<(Arc<NodeReport>, Instant)>,
    /// Why there is no answer to the last question.
    pub(super) failure: Option<String>,
    pub(super) room_until: Option<Instant>,
    pub(super) asked: Option<Instant>,
}

impl Fleet {
    pub(super) fn new(
        config: &Config,
        bound: &Bound,
        status: &Arc<Status>,
        workers: &Workers,
        relay_ports: &Arc<RelayPorts>,
    ) -> Option<Arc<Self>> {
        let settled = Settled::of(config, bound)?;
        Some(Arc::new(Self {
            instance: format!("{:08x}", status.instance()),
            workers: workers.clone(),
            relay_ports: Arc::clone(relay_ports),
            status: Arc::clone(status),
            settled: ArcSwap::from_pointee(settled),
            nodes: ArcSwap::default(),
            unnamed: ArcSwap::default(),
            has_changed: Notify::new(),
            is_doubted: AtomicBool::new(false),
            has_doubt: Notify::new(),
            hook: Mutex::default(),
            places: Semaphore::new(ASKED_MAX),
            search_places: Arc::new(Semaphore::new(ASKED_MAX)),
            chance: random(),
            watched_until: Mutex::default(),
            promised_until: Mutex::default(),
            published: Mutex::new(Arc::from([])),
        }))
    }

    /// Another configuration is in force, or the server is reached elsewhere. Whom `ca` names is read again in any case.
    pub(super) fn configure(&self, config: &Config, bound: &Bound) {
        let Some(settled) = Settled::of(config, bound) else { return };
        self.settled.store(Arc::new(settled));
        self.has_changed.notify_one();
    }

    /// Asks for ever.
    pub(super) async fn run(self: Arc<Self>) {
        tokio::join!(self.follow_members(), self.ask_for_ever());
    }

    async fn ask_for_ever(self: &Arc<Self>) {
        let mut tick = interval(Duration::from_secs(1));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for ticks in 0_u64.. {
            tick.tick().await;
            lock(&self.hook).look(&self.status.hook, Instant::now());
            let by_load = self.settled.load().by_load().is_some();
            let (nodes, wanted) = match ticks.is_multiple_of(WATCH_TICKS) && self.is_watched() {
                true => (self.nodes(), Wanted { room: by_load, samples: true }),
                false if by_load => (self.some(ASKED_FOR_ROOM), Wanted { room: true, samples: false }),
                false => Default::default(),
            };
            for node in nodes {
                tokio::spawn(Arc::clone(self).ask(node, wanted));
            }
            for node in self.overdue() {
                tokio::spawn(Arc::clone(self).ask(node, Wanted::default()));
            }
            self.publish();
            self.status.fleet.set_nodes(self.counted());
        }
    }

    /// What this node is called.
    pub(super) fn name(&self) -> Option<String> {
        self.settled.load().fleet.name.clone()
    }

    /// Where clients reach this node.
    pub(super) fn clients(&self) -> Vec<(Transport, SocketAddr)> {
        self.settled.load().clients.clone()
    }

    /// The nodes as they are known, for somebody who looks at them: they are asked from now on. The first time he waits for answers a little.
    pub(super) async fn watch(self: &Arc<Self>) {
        let was_watched = self.is_watched();
        *lock(&self.watched_until) = Some(Instant::now() + WATCHED);
        if !was_watched {
            let wanted = Wanted { room: false, samples: true };
            let ask = |node| tokio::spawn(Arc::clone(self).ask(node, wanted));
            let asked: Vec<_> = self.nodes().into_iter().map(ask).collect();
            // Questions go on that are not answered by then.
            let all = async {
                for answer in asked {
                    let _ = answer.await;
                }
            };
            let _ = timeout(FIRST_LIMIT, all).await;
        }
    }

    pub(super) fn nodes(&self) -> Vec<Arc<Node>> {
        self.nodes.load().iter().map(Arc::clone).collect()
    }

    /// Names that lead to no node, and why.
    pub(super) fn unnamed(&self) -> Arc<Vec<(String, String)>> {
        self.unnamed.load_full()
    }

    /// Whether a node is this one.
    pub(super) fn is_self(&self, report: &NodeReport) -> bool {
        report.instance == self.instance
    }

    /// The places of those that search.
    pub(super) fn search_places(&self) -> Arc<Semaphore> {
        Arc::clone(&self.search_places)
    }

    /// So many nodes, drawn by chance: most of them of those that have answered last time, so that others that hang, however many they
    /// are, do not take their turns.
    fn some(&self, count: usize) -> Vec<Arc<Node>> {
        let is_silent = |node: &Arc<Node>| lock(&node.seen).failure.is_some();
        let (silent, answering): (Vec<_>, Vec<_>) = self.nodes().into_iter().partition(is_silent);
        let few = silent.len().min(count / 4);
        let mut drawn = Self::drawn(answering, count - few);
        drawn.extend(Self::drawn(silent, few));
        drawn
    }

    fn drawn(mut nodes: Vec<Arc<Node>>, count: usize) -> Vec<Arc<Node>> {
        for place in 0..count.min(nodes.len()) {
            let rest = (nodes.len() - place) as u64;
            let drawn = place + usize::try_from(random() % rest).unwrap_or(0);
            nodes.swap(place, drawn);
        }
        nodes.truncate(count);
        nodes
    }

    /// Nodes that have not been asked for long, those for the longest time first.
    fn overdue(&self) -> Vec<Arc<Node>> {
        let nodes = self.nodes.load();
        let mut overdue: Vec<_> =
            nodes.iter().filter_map(|node| node.overdue_since().map(|asked| (asked, node))).collect();
        overdue.sort_by_key(|(asked, _)| *asked);
        overdue.into_iter().take(ASKED_AGAIN_MAX).map(|(_, node)| Arc::clone(node)).collect()
    }

    /// How the others are.
    fn counted(&self) -> Nodes {
        let unnamed = self.unnamed.load().len() as u64;
        let mut counted = Nodes { unnamed, load_percent: self.load_percent(), ..Nodes::default() };
        let now = Instant::now();
        for node in self.nodes.load().iter() {
            let seen = lock(&node.seen);
            match (&seen.report, &seen.failure) {
                (Some((report, _)), _) if self.is_self(report) => continue,
                (_, Some(_)) => counted.silent += 1,
                (Some(_), None) => counted.answering += 1,
                (None, None) => counted.unasked += 1,
            }
            counted.with_room += u64::from(seen.room_until.is_some_and(|until| now < until));
        }
        counted
    }

    async fn ask(self: Arc<Self>, node: Arc<Node>, wanted: Wanted) {
        // One that hangs is not asked again meanwhile.
        let Some(_turn) = Turn::of(&node.is_asked) else { return };
        let Ok(_place) = self.places.acquire().await else { return };
        let asked = Instant::now();
        lock(&node.seen).asked = Some(asked);
        let Wanted { room, samples } = wanted;
        let answer = node.asker.report(&format!("?room={room}&samples={samples}"), ASK_LIMIT).await;
        let came_of_it = Asked::of(&answer);
        self.status.fleet.count(came_of_it);
        if came_of_it == Asked::Untrusted {
            self.is_doubted.store(true, Ordering::Release);
            self.has_doubt.notify_one();
        }
        let mut seen = lock(&node.seen);
        match answer {
            Ok(report) => {
                let (is_self, report) = (self.is_self(&report), Arc::new(report));
                if room {
                    seen.room_until = (report.room && !is_self).then(|| asked + ROOM_IS_GOOD);
                }
                if report.samples.is_some() {
                    seen.samples = Some((Arc::clone(&report), asked));
                }
                if report.state != "serving" || !report.ready {
                    seen.room_until = None;
                }
                seen.report = Some((report, asked));
                seen.failure = None;
            }
            Err(error) => {
                (seen.failure, seen.room_until) = (Some(error.to_string()), None);
            }
        }
    }

    fn is_watched(&self) -> bool {
        lock(&self.watched_until).is_some_and(|until| Instant::now() < until)
    }
}

impl Settled {
    fn of(config: &Config, bound: &Bound) -> Option<Self> {
        Some(Self {
            fleet: config.fleet.clone()?,
            redirect: config.redirect.clone(),
            allocations_total: config.quota.total,
            relies: Relies {
                on_store: config.store.as_ref().is_some_and(|store| {
                    let is_refused = store.on_loss == WithoutShare::Refuse && has_fleet_quota(config);
                    is_refused || !config.without_secrets().is_empty()
                }),
                on_hook: config.hook.is_some(),
            },
            clients: client_addresses(config, &bound.listeners),
        })
    }

    fn by_load(&self) -> Option<&Arc<Redirect>> {
        self.redirect.as_ref().filter(|redirect| redirect.by_load)
    }

    fn has_names(&self) -> bool {
        self.fleet.nodes.iter().any(|node| matches!(node, NodeSource::Srv(_)))
    }
}

impl Node {
    /// When it was asked last, if it has to be asked again: `None` in it is never.
    fn overdue_since(&self) -> Option<Option<Instant>> {
        let seen = lock(&self.seen);
        let again = if seen.failure.is_some() { SILENT_AGAIN } else { ASKED_AGAIN };
        seen.asked.is_none_or(|asked| asked.elapsed() >= again).then_some(seen.asked)
    }

    pub(super) fn seen(&self) -> Seen {
        lock(&self.seen).clone()
    }
}

/// The turn of one question to a node, given back when it is dropped.
struct Turn<'n>(&'n AtomicBool);

impl<'n> Turn<'n> {
    fn of(is_asked: &'n AtomicBool) -> Option<Self> {
        (!is_asked.swap(true, Ordering::AcqRel)).then_some(Self(is_asked))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

fn random() -> u64 {
    let mut bytes = [0; 8];
    crate::worker::fill_from_system(&mut bytes);
    u64::from_ne_bytes(bytes)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
