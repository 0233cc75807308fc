//! The running server as the control runtime has it: what is in force, and who is told when that changes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use rustls::ServerConfig;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::addresses::{AddressWatch, Looked};
use super::certificates::{Certificates, Loading};
use super::drain::Draining;
use super::file_watch::Watch;
use super::fleet::Fleet;
use super::hooks::Hooks;
use super::lately::Minute;
use super::leases::Leases;
use super::listeners::Bound;
use super::public_address::{self, PublicAddresses, Round};
use super::readings::Readings;
use super::revocations::Revoker;
use super::status::Status;
use super::workers::{Judging, Workers};
use crate::acme::Keeper;
use crate::addr::Transport;
use crate::auth::NonceKeys;
use crate::config::{Config, ConfigError, Endpoint, FleetConfig};
use crate::counters;
use crate::credentials::CredentialsService;
use crate::dtls;
use crate::hook::{EventControl, HookControl};
use crate::http;
use crate::store::{Following, Store};
use crate::stream::https_config;
use crate::turn::{RelayedRate, Settings};
use crate::usage::UsageRecords;
use crate::worker::Command;

/// How long the end of the server waits for an application that is told of allocations.
const TELLING_LIMIT: Duration = Duration::from_secs(3);

pub(super) struct Server {
    /// What is in force.
    pub(super) config: Config,
    pub(super) workers: Workers,
    pub(super) status: Arc<Status>,
    pub(super) addresses: AddressWatch,
    /// Looks for public addresses, if the configuration wants it.
    pub(super) public: Option<PublicAddresses>,
    pub(super) certificates: Watch,
    /// What they are loaded with.
    pub(super) loading: Loading,
    /// Gets those that the server gets for itself.
    pub(super) acme: Keeper,
    pub(super) revoker: Arc<Revoker>,
    pub(super) revocations_watch: Watch,
    /// When to look at the files of secrets, where they are followed.
    pub(super) secrets_watch: Watch,
    /// What is being read from files.
    pub(super) readings: Readings<Then>,
    /// The certificates in use.
    pub(super) in_use: Option<Certificates>,
    pub(super) draining: Option<Draining>,
    pub(super) hook: Option<HookControl>,
    pub(super) store: Option<Store>,
    pub(super) leases: Option<Leases>,
    pub(super) telling: Option<Telling>,
    /// What is followed there.
    pub(super) following: Option<Following>,
    pub(super) usage: Option<UsageRecords>,
    pub(super) settings: Arc<Settings>,
    pub(super) tls: Arc<ArcSwapOption<ServerConfig>>,
    pub(super) dtls: Arc<ArcSwapOption<dtls::Context>>,
    pub(super) credentials: Option<CredentialsEndpoint>,
    pub(super) node_endpoint: Option<NodeEndpoint>,
    pub(super) nonce_keys: Arc<NonceKeys>,
    pub(super) relayed: Relayed,
    pub(super) minute: Minute,
    pub(super) fleet: Option<Arc<Fleet>>,
    /// Where clients reach it, as bound.
    pub(super) bound: Bound,
}

/// What is to be done with what has been read.
pub(super) type Then = Box<dyn FnOnce(&mut Server, &Hooks<'_>) + Send>;

/// What is relayed of late, of all workers together.
pub(super) struct Relayed {
    rate: Arc<RelayedRate>,
    bytes_per_sec: u64,
    /// What had been relayed a second ago.
    before: Option<u64>,
}

impl Relayed {
    /// To be written where the workers read it.
    pub(super) fn new(rate: Arc<RelayedRate>) -> Self {
        Self { rate, bytes_per_sec: 0, before: None }
    }

    /// A second has passed since the last time. What counts is the mean of a few of them: one picture that is larger than others is no load.
    fn measure(&mut self, total: u64) {
        let last = self.before.replace(total).map_or(0, |before| total.saturating_sub(before));
        self.bytes_per_sec = (self.bytes_per_sec * 3 + last) / 4;
        self.rate.set(self.bytes_per_sec);
    }
}

/// What tells an application of allocations.
pub(super) struct Telling {
    pub(super) control: EventControl,
    pub(super) task: JoinHandle<()>,
}

impl Telling {
    /// Waits until everything is told of workers that have ended; some seconds at most.
    pub(super) async fn finish(mut self) {
        if timeout(TELLING_LIMIT, &mut self.task).await.is_err() {
            self.task.abort();
            // What it was not told is counted, and in the log, when it ends.
            let _ = self.task.await;
        }
    }
}

/// The endpoint of the credentials API.
pub(super) struct CredentialsEndpoint {
    pub(super) service: Arc<CredentialsService>,
    /// Its TLS, if it has any.
    pub(super) tls: Option<http::Tls>,
    /// The listeners whose URLs it hands out.
    pub(super) listeners: Vec<(Transport, SocketAddr)>,
}

impl CredentialsEndpoint {
    pub(super) fn use_certificates(&self, certificates: Option<&Certificates>) {
        if let Some(tls) = &self.tls {
            tls.store(certificates.map(|certificates| https_config(&certificates.config)));
        }
    }
}

/// Where the nodes of the fleet ask this one.
pub(super) struct NodeEndpoint {
    /// Its TLS, if what goes there may cross a network.
    pub(super) tls: Option<http::Tls>,
}

impl NodeEndpoint {
    pub(super) fn new(endpoint: &Endpoint, fleet: &FleetConfig) -> Self {
        let is_near = match endpoint {
            Endpoint::Unix(_) => true,
            Endpoint::Tcp(address) => address.ip().is_loopback(),
        };
        Self { tls: (!is_near && !fleet.plain_http).then(http::Tls::default) }
    }

    pub(super) fn use_certificates(&self, certificates: Option<&Certificates>) {
        if let Some(tls) = &self.tls {
            tls.store(certificates.map(|certificates| https_config(&certificates.config)));
        }
    }
}

impl Server {
    /// The snapshot that a configuration makes for the workers, with what the server knows of itself.
    pub(super) fn settings_of(&self, config: &Config) -> Result<Settings, ConfigError> {
        let settings = config.settings(Arc::clone(&self.nonce_keys), self.addresses.own(config))?;
        Ok(settings.counting_on(&self.settings))
    }

    /// Hands a snapshot to every worker.
    pub(super) fn apply(&mut self, settings: Arc<Settings>) -> Judging {
        self.status.set_settings(Arc::clone(&settings));
        self.addresses.warn_of_own_alternates(&self.config, settings.peer_policies());
        let judging = self.workers.apply(&settings);
        judging.keeping(std::mem::replace(&mut self.settings, settings))
    }

    /// Has the listeners use these certificates from now on, or none.
    pub(super) fn use_certificates(&mut self, certificates: Option<Certificates>) {
        self.status.set_certificates(certificates.as_ref().map(Certificates::facts).unwrap_or_default());
        self.tls.store(certificates.as_ref().map(|certificates| Arc::clone(&certificates.config)));
        self.dtls.store(certificates.as_ref().and_then(|certificates| certificates.dtls.clone()));
        if let Some(endpoint) = &self.credentials {
            endpoint.use_certificates(certificates.as_ref());
        }
        if let Some(endpoint) = &self.node_endpoint {
            endpoint.use_certificates(certificates.as_ref());
        }
        self.in_use = certificates;
    }

    /// Has credentials made by the configuration in force.
    pub(super) fn renew_credentials(&self) {
        if let (Some(endpoint), Some(api)) = (&self.credentials, &self.config.credentials) {
            endpoint.service.reload(api, &self.config, &endpoint.listeners);
        }
    }

    /// Has the nodes of the fleet asked by the configuration in force.
    pub(super) fn renew_fleet(&self) {
        if let Some(fleet) = &self.fleet {
            fleet.configure(&self.config, &self.bound);
        }
    }

    /// What is said next of the public addresses.
    pub(super) async fn public_addresses_round(public: &mut Option<PublicAddresses>) -> Round {
        match public {
            Some(public) => public.round().await,
            None => std::future::pending().await,
        }
    }

    /// Looks at the host's addresses, and follows them and what was said of the public ones: relays, peer policy, readiness. Returns
    /// whether the server is ready for the first time now.
    pub(super) fn follow_addresses(&mut self, round: Option<Round>) -> bool {
        let Looked { has_answer, has_changed } = self.addresses.look();
        let relay = self.config.relay.clone();
        if let Some((public, round)) = self.public.as_mut().zip(round) {
            public.take(round, &mut self.config.relay, &self.status.public_addresses);
        }
        self.addresses.follow_relays(&mut self.config, &relay);
        if let Some(public) = &self.public {
            public.seek(&self.config.relay, has_changed);
        }
        if self.config.relay != relay {
            self.renew_credentials();
            self.renew_fleet();
        }
        if let Some(policies) = self.addresses.changed_policies(&self.config, self.settings.peer_policies()) {
            let redirect = self.config.redirect_but_own(policies.default_policy().rules());
            let settings = self.settings.with_peer_policies(Arc::new(policies)).with_redirect(redirect);
            // Nobody waits for the end of it.
            let _ = self.apply(Arc::new(settings));
            if self.draining.is_some() {
                self.send_drain();
            }
        }
        self.status.set_relays(public_address::facts(self.public.as_ref(), &self.config.relay));
        let is_first = self.addresses.tell_readiness(&self.config, self.public.as_ref(), &self.status);
        self.addresses.rest(has_answer);
        is_first
    }

    /// Whether it has to be known what the server has done of late: redirects may depend on it, and the operator may look at it.
    pub(super) fn is_measured(&self) -> bool {
        let by_rate = self.config.redirect.as_ref().is_some_and(|redirect| redirect.from_bytes_per_sec.is_some());
        by_rate || self.fleet.is_some() || self.config.admin.is_some()
    }

    /// Measures what the workers do, once a second.
    pub(super) fn measure(&mut self) {
        self.relayed.measure(counters::sum(&self.workers.counters, |counters| counters.payload.bytes()));
        self.status.lately.set_bytes_per_sec(self.relayed.bytes_per_sec);
        self.minute.tick(&self.workers.counters, &self.status.lately);
    }

    /// Gives a drain under way another deadline, counted from now on, or none; begins one where there is none. Without a deadline
    /// it lasts until the last allocation has ended.
    pub(super) fn drain_until(&mut self, deadline: Option<Duration>) -> &Draining {
        if let Some(draining) = &mut self.draining {
            draining.set_deadline(deadline);
        } else {
            self.status.set_draining();
            self.send_drain();
        }
        let alternates = self.config.drain.alternates.servers.len();
        self.draining.get_or_insert_with(|| Draining::new(&self.workers, deadline, alternates))
    }

    /// The deadline that the configuration gives to drains that nobody waits for; zero is none.
    pub(super) fn configured_deadline(&self) -> Option<Duration> {
        Some(self.config.drain.deadline).filter(|deadline| !deadline.is_zero())
    }

    /// Tells the workers, the alternate servers included.
    pub(super) fn send_drain(&self) {
        let rules = self.settings.peer_policies().default_policy().rules();
        let alternates = Arc::new(Config::alternates_but_own(&self.config.drain.alternates, rules));
        self.workers.tell(|| Command::Drain(Arc::clone(&alternates)));
    }

    /// Whether a drain under way is over.
    pub(super) fn has_drained(&mut self) -> bool {
        self.draining.as_mut().is_some_and(|draining| draining.is_over(&self.workers))
    }
}
