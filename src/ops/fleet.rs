//! The nodes of `[fleet]` as the running server knows them: asked for the page while somebody looks at it, and for their load where clients
//! are sent away by load. One that hangs holds up nobody.
//!
//! Sent away by load is nobody twice: a node that says it has room takes everybody for a while, whatever becomes of its load, and another
//! one goes by that word for less than half of that while ([`ROOM_IS_GOOD`], [`PROMISE`]).

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::{Notify, Semaphore};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::listeners::Bound;
use super::status::Status;
use super::workers::Workers;
use crate::addr::{Family, Transport};
use crate::config::{Config, FleetConfig, NodeSource, NodeUrl};
use crate::credentials::client_addresses;
use crate::fleet::{Asker, Members, NodeReport, members};
use crate::net::RelayPorts;
use crate::turn::{AlternateServer, Alternates, Other, Redirect};
use crate::worker::Command;

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
/// Above this load a node has no room for clients of others.
const ROOM_BELOW_PERCENT: u64 = 90;
/// How often DNS is asked who the nodes are.
const MEMBERS_TICKS: u64 = 30;

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
    /// Whether what has changed is the section itself, and not only what a file named there holds.
    is_other: AtomicBool,
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
            is_other: AtomicBool::new(false),
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
        let before = self.settled.swap(Arc::new(settled));
        if config.fleet.as_ref() != Some(&before.fleet) {
            self.is_other.store(true, Ordering::Release);
        }
        self.has_changed.notify_one();
    }

    /// Asks for ever.
    pub(super) async fn run(self: Arc<Self>) {
        let mut tick = interval(Duration::from_secs(1));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.renew_members(true).await;
        for ticks in 0_u64.. {
            tokio::select! {
                _ = tick.tick() => {}
                () = self.has_changed.notified() => self.renew_members(self.is_other.swap(false, Ordering::AcqRel)).await,
            }
            if ticks % MEMBERS_TICKS == MEMBERS_TICKS - 1 && self.settled.load().has_names() {
                let fleet = Arc::clone(&self);
                tokio::spawn(async move { fleet.renew_members(false).await });
            }
            let by_load = self.settled.load().by_load().is_some();
            let wanted = match ticks.is_multiple_of(WATCH_TICKS) && self.is_watched() {
                true => Some((self.nodes(), Wanted { room: by_load, samples: true })),
                false => by_load.then(|| (self.some(ASKED_FOR_ROOM), Wanted { room: true, samples: false })),
            };
            let (nodes, wanted) = wanted.unwrap_or_default();
            for node in nodes {
                tokio::spawn(Arc::clone(&self).ask(node, wanted));
            }
            self.publish();
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

    /// Of a hundred parts of what this node takes before it sends clients to others, or can take at all.
    pub(super) fn load_percent(&self) -> Option<u64> {
        let settled = self.settled.load();
        let redirect = settled.by_load()?;
        let parts = |is: u64, most: u64| (most > 0).then(|| is.saturating_mul(100) / most);
        let by_count = parts(self.workers.live_allocations(), redirect.from_allocations.into());
        let by_rate = redirect.from_bytes_per_sec.and_then(|from| parts(self.status.lately.bytes_per_sec(), from));
        let by_total = settled.allocations_total.and_then(|total| parts(self.workers.live_allocations(), total.into()));
        // Of the family that has least left: who comes may want either.
        let ports = |family| parts(self.relay_ports.used(family).into(), self.relay_ports.capacity(family).into());
        [by_count, by_rate, by_total, ports(Family::V4), ports(Family::V6)].into_iter().max().flatten()
    }

    /// Whether this node takes clients of others.
    pub(super) fn has_room(&self) -> bool {
        let is_there = !self.status.draining() && self.status.not_ready().is_none();
        is_there && self.load_percent().is_some_and(|load| load < ROOM_BELOW_PERCENT)
    }

    /// Says that it has room, if it has: from now on it takes everybody for a while.
    pub(super) fn promise_room(&self) -> bool {
        if !self.has_room() {
            return false;
        }
        *lock(&self.promised_until) = Some(Instant::now() + PROMISE);
        self.publish();
        true
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

    /// Finds out who the nodes are. Those that were there stay while a name is not found; `is_new` is whether the list is another one.
    async fn renew_members(&self, is_new: bool) {
        let settled = self.settled.load_full();
        let Members { nodes: askers, unnamed, is_complete } = members(&settled.fleet).await;
        // Another list has come into force meanwhile.
        if !Arc::ptr_eq(&settled, &self.settled.load_full()) && !is_new {
            return;
        }
        let before = self.nodes.load_full();
        let nodes = askers.into_iter().map(|asker| {
            let known = before.iter().find(|node| node.asker.url() == asker.url());
            let seen = known.map(|node| Arc::clone(&node.seen)).unwrap_or_default();
            Arc::new(Node { asker, is_asked: AtomicBool::new(false), seen })
        });
        let mut nodes: Vec<_> = nodes.collect();
        if !is_complete && !is_new {
            let is_missing = |known: &&Arc<Node>| nodes.iter().all(|node| node.asker.url() != known.asker.url());
            let missing: Vec<_> = before.iter().filter(is_missing).map(Arc::clone).collect();
            nodes.extend(missing);
            nodes.truncate(FleetConfig::NODES_MAX);
        }
        self.nodes.store(Arc::new(nodes));
        if *self.unnamed.load_full() != unnamed {
            for (name, problem) in &unnamed {
                tracing::warn!(name, problem, "nodes of the fleet are not found");
            }
        }
        self.unnamed.store(Arc::new(unnamed));
    }

    /// So many nodes, drawn by chance.
    fn some(&self, count: usize) -> Vec<Arc<Node>> {
        let mut nodes = self.nodes();
        for place in 0..count.min(nodes.len()) {
            let rest = (nodes.len() - place) as u64;
            let drawn = place + usize::try_from(random() % rest).unwrap_or(0);
            nodes.swap(place, drawn);
        }
        nodes.truncate(count);
        nodes
    }

    async fn ask(self: Arc<Self>, node: Arc<Node>, wanted: Wanted) {
        // One that hangs is not asked again meanwhile.
        let Some(_turn) = Turn::of(&node.is_asked) else { return };
        let Ok(_place) = self.places.acquire().await else { return };
        let asked = Instant::now();
        let Wanted { room, samples } = wanted;
        let answer = node.asker.report(&format!("?room={room}&samples={samples}"), ASK_LIMIT).await;
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

    /// Tells the workers where there is room, if that has changed.
    fn publish(&self) {
        // Held until the workers are told: of two at a time, the later one says what is so.
        let mut published = lock(&self.published);
        let others: Arc<[Other]> = self.others(Instant::now()).into();
        if *published != others {
            *published = Arc::clone(&others);
            self.workers.tell(|| Command::Others(Arc::clone(&others)));
        }
    }

    fn others(&self, now: Instant) -> Vec<Other> {
        let is_promised = lock(&self.promised_until).is_some_and(|until| now < until);
        if self.settled.load().by_load().is_none() || is_promised && !self.status.draining() {
            return Vec::new();
        }
        let mut others = Vec::new();
        for node in self.nodes() {
            let seen = node.seen();
            let Some((report, _)) = seen.report.filter(|_| seen.room_until.is_some_and(|until| now < until)) else {
                continue;
            };
            let load_percent = u16::try_from(report.load_percent.unwrap_or(0)).unwrap_or(u16::MAX);
            let servers = servers_of(&report, is_near(node.asker.url()), self.chance);
            others.extend(servers.map(|server| Other { server, load_percent }));
        }
        // A node that names one of our addresses would have clients go round.
        let Some(settings) = self.status.settings() else { return Vec::new() };
        let servers = others.iter().map(|other| other.server).collect();
        let rules = settings.peer_policies().default_policy().rules();
        let fit = Config::alternates_but_own(&Alternates { servers, domain: None }, rules).servers;
        others.retain(|other| fit.contains(&other.server));
        others
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

/// Where a node's clients come: at one address for each transport and family, which `chance` decides. Whoever draws among all nodes'
/// addresses then draws a node with many no more often than one with a single one.
fn servers_of(report: &NodeReport, is_near: bool, chance: u64) -> impl Iterator<Item = AlternateServer> {
    let kinds = Transport::ALL.into_iter().flat_map(|transport| Family::ALL.map(|family| (transport, family)));
    kinds.filter_map(move |(transport, family)| {
        let fit = || {
            report.clients.iter().filter(move |client| {
                let ip = client.address.ip();
                client.transport() == Some(transport) && Family::of(ip) == family && (is_near || !ip.is_loopback())
            })
        };
        let nth = usize::try_from(chance.checked_rem(fit().count() as u64)?).ok()?;
        Some(AlternateServer { transport: Some(transport), address: fit().nth(nth)?.address })
    })
}

/// Whether a node is on this host: its clients may be, too.
fn is_near(url: &NodeUrl) -> bool {
    matches!(url, NodeUrl::Unix(_)) || url.address().is_some_and(|address| address.ip().is_loopback())
}

fn random() -> u64 {
    let mut bytes = [0; 8];
    crate::worker::fill_from_system(&mut bytes);
    u64::from_ne_bytes(bytes)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_drawn_once_for_each_transport_and_family_however_many_addresses_it_names() {
        let client = |transport: &str, address: &str| serde_json::json!({ "transport": transport, "address": address });
        let many = (1..=29).map(|port| client("udp", &format!("198.51.100.66:{port}")));
        let few = [client("udp", "[2001:db8::1]:1"), client("tcp", "198.51.100.66:1"), client("tls", "127.0.0.1:1")];
        let report = serde_json::json!({
            "name": "n", "version": "1", "instance": "x", "started_unix": 1, "state": "serving", "ready": true, "sessions": 0,
            "bytes_per_sec": 0, "refused_last_minute": 0, "load_percent": 0, "room": true, "problems": [],
            "clients": many.chain(few).collect::<Vec<_>>(),
        });
        let report = NodeReport::read(report.to_string().as_bytes()).unwrap();
        let of = |is_near, chance| {
            let servers = servers_of(&report, is_near, chance);
            servers.map(|server| format!("{:?} {}", server.transport.unwrap(), server.address)).collect::<Vec<_>>()
        };
        let rest = ["Udp [2001:db8::1]:1", "Tcp 198.51.100.66:1"];
        assert_eq!(of(false, 0), [&["Udp 198.51.100.66:1"], &rest[..]].concat());
        assert_eq!(of(false, 30), [&["Udp 198.51.100.66:2"], &rest[..]].concat(), "another server names another one");
        assert_eq!(of(true, 0).len(), 4);
    }
}
