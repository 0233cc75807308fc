//! What is known of each node, and when which of them is asked for what.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::{Notify, Semaphore};

use super::relies::{HookHealth, Relies};
use crate::addr::Transport;
use crate::config::{Config, FleetConfig, NodeSource};
use crate::credentials::client_addresses;
use crate::fleet::{Asker, NodeReport};
use crate::http::network_of;
use crate::net::RelayPorts;
use crate::ops::leases::has_fleet_quota;
use crate::ops::listeners::Bound;
use crate::ops::status::Status;
use crate::ops::workers::Workers;
use crate::policy::WithoutShare;
use crate::turn::{Other, Redirect};

/// Questions at a time, and as many again for searches: one for each node, so that those that hang are waited for by nobody.
const ASKED_MAX: usize = FleetConfig::NODES_MAX;
/// How long a node that has said so sends nobody away, from after it was asked: the client that was sent here in the last moment of
/// that word has some seconds to get here.
pub(super) const PROMISE: Duration = Duration::from_secs(10);

/// The fleet.
pub(in crate::ops) struct Fleet {
    /// This run of this server.
    pub(super) instance: String,
    pub(super) workers: Workers,
    pub(super) relay_ports: Arc<RelayPorts>,
    pub(super) status: Arc<Status>,
    pub(super) settled: ArcSwap<Settled>,
    pub(super) nodes: ArcSwap<Vec<Arc<Node>>>,
    /// Networks that the list of nodes leads to.
    pub(super) networks: ArcSwap<HashSet<IpAddr>>,
    /// Names of nodes that lead to none, and why.
    pub(super) unnamed: ArcSwap<Vec<(String, String)>>,
    pub(super) has_changed: Notify,
    /// Whether a node was not trusted since it was read who is.
    pub(super) is_doubted: AtomicBool,
    pub(super) has_doubt: Notify,
    pub(super) hook: Mutex<HookHealth>,
    pub(super) places: Semaphore,
    pub(super) search_places: Arc<Semaphore>,
    /// Decides which of a node's addresses clients of this one are sent to.
    pub(super) chance: u64,
    pub(super) watched_until: Mutex<Option<Instant>>,
    pub(super) promised_until: Mutex<Option<Instant>>,
    pub(super) published: Mutex<Arc<[Other]>>,
}

/// What the configuration in force says.
pub(super) struct Settled {
    pub(super) fleet: FleetConfig,
    pub(super) redirect: Option<Arc<Redirect>>,
    /// The most allocations that it makes.
    pub(super) allocations_total: Option<u32>,
    pub(super) relies: Relies,
    /// Where clients reach this node.
    pub(super) clients: Vec<(Transport, SocketAddr)>,
}

/// One of the nodes.
pub(in crate::ops) struct Node {
    pub(in crate::ops) asker: Arc<Asker>,
    pub(super) is_asked: AtomicBool,
    pub(super) seen: Arc<Mutex<Seen>>,
}

/// What is known of one.
#[derive(Clone, Default)]
pub(in crate::ops) struct Seen {
    /// What it said last, and when.
    pub(in crate::ops) report: Option<(Arc<NodeReport>, Instant)>,
    /// The same of the last minutes.
    pub(in crate::ops) samples: Option<(Arc<NodeReport>, Instant)>,
    /// Why there is no answer to the last question.
    pub(in crate::ops) failure: Option<String>,
    pub(in crate::ops) room_until: Option<Instant>,
    pub(in crate::ops) asked: Option<Instant>,
}

impl Fleet {
    pub(in crate::ops) fn new(
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
            networks: ArcSwap::default(),
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
    pub(in crate::ops) fn configure(&self, config: &Config, bound: &Bound) {
        let Some(settled) = Settled::of(config, bound) else { return };
        self.settled.store(Arc::new(settled));
        self.has_changed.notify_one();
    }

    /// What this node is called.
    pub(in crate::ops) fn name(&self) -> Option<String> {
        self.settled.load().fleet.name.clone()
    }

    /// Where clients reach this node.
    pub(in crate::ops) fn clients(&self) -> Vec<(Transport, SocketAddr)> {
        self.settled.load().clients.clone()
    }

    pub(in crate::ops) fn nodes(&self) -> Vec<Arc<Node>> {
        self.nodes.load().iter().map(Arc::clone).collect()
    }

    /// Names that lead to no node, and why.
    pub(in crate::ops) fn unnamed(&self) -> Arc<Vec<(String, String)>> {
        self.unnamed.load_full()
    }

    /// Whether the list of nodes leads there.
    pub(in crate::ops) fn leads_to(&self, address: IpAddr) -> bool {
        self.networks.load().contains(&network_of(address))
    }

    /// Notes where the list leads to, as it has been found so far.
    pub(super) fn note_networks(&self) {
        let networks: HashSet<_> =
            self.nodes.load().iter().flat_map(|node| node.asker.addresses()).map(network_of).collect();
        if networks != **self.networks.load() {
            self.networks.store(Arc::new(networks));
        }
    }

    /// Whether a node is this one.
    pub(in crate::ops) fn is_self(&self, report: &NodeReport) -> bool {
        report.instance == self.instance
    }

    /// The places of those that search.
    pub(in crate::ops) fn search_places(&self) -> Arc<Semaphore> {
        Arc::clone(&self.search_places)
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

    pub(super) fn by_load(&self) -> Option<&Arc<Redirect>> {
        self.redirect.as_ref().filter(|redirect| redirect.by_load)
    }

    pub(super) fn has_names(&self) -> bool {
        self.fleet.nodes.iter().any(|node| matches!(node, NodeSource::Srv(_)))
    }
}

impl Node {
    pub(in crate::ops) fn seen(&self) -> Seen {
        lock(&self.seen).clone()
    }
}

pub(super) fn random() -> u64 {
    let mut bytes = [0; 8];
    crate::worker::fill_from_system(&mut bytes);
    u64::from_ne_bytes(bytes)
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
