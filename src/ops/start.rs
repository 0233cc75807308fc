//! The start: everything that the server needs, opened and put together.

use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::addresses::{AddressWatch, offer};
use super::admin::{AdminApi, Api, NodeApi};
use super::certificates::{Certificates, Loading, files_of};
use super::error::RunError;
use super::file_watch::{Seen, Watch};
use super::fleet::Fleet;
use super::history::History;
use super::hooks::PagePort;
use super::lately::Minute;
use super::leases::Leases;
use super::listeners::{self, Bound};
use super::metrics::Metrics;
use super::monitor::Monitor;
use super::orders::Orders;
use super::public_address::PublicAddresses;
use super::put_in_force;
use super::readings::Readings;
use super::revocations::Revoker;
use super::revoke_orders;
use super::server::{CredentialsEndpoint, NodeEndpoint, Relayed, Server, Telling};
use super::shared_revocations::{self, SharedRevocations};
use super::status::Status;
use super::stored;
use super::workers::{Threads, Workers};
use crate::acme::{Answers, Keeper, Tools};
use crate::auth::NonceKeys;
use crate::config::{Config, Endpoint, WantedSockets, lasts};
use crate::credentials::CredentialsService;
use crate::hook;
use crate::http::{self, EndpointListener, Limits};
use crate::net::{Inherited, RelayPorts, sys};
use crate::regular_file;
use crate::store::{self, Store};
use crate::stream::{ConnectionLimits, Validations};
use crate::turn::{ConnectionIds, Shared};
use crate::usage::UsageRecords;
use crate::wall_clock::unix_now;
use crate::worker::{Command, Reservations, WorkerContext, fill_from_system};

/// A server whose workers run.
pub(super) struct Started {
    pub(super) server: Server,
    pub(super) bound: Bound,
    pub(super) threads: Threads,
    /// The endpoints.
    pub(super) tasks: Vec<JoinHandle<()>>,
    pub(super) orders: Option<Orders>,
}

pub(super) fn start(config: Config, inherited: Inherited, page_port: Option<PagePort>) -> Result<Started, RunError> {
    let descriptors = share_out_descriptors(&config);
    let (status, mut watch) = (Arc::new(Status::new()), Watch::new());
    let (tls, dtls) = (Arc::new(ArcSwapOption::empty()), Arc::new(ArcSwapOption::empty()));
    let validations: Arc<Validations> = Arc::default();
    let loading = Loading { has_dtls: config.has_dtls_listener(), validations: Arc::clone(&validations) };
    let mut in_use = None;
    if let Some(files) = &config.tls {
        let each = files_of(files);
        watch.judged(Seen::of(&each));
        let loaded = Certificates::load(files, &loading, None).map_err(|error| {
            // One that can be read but not used may be half renewed: the rest comes in a moment.
            let lasts = files
                .each()
                .iter()
                .any(|pair| !pair.is_acme && regular_file::open(&pair.certificate).is_err_and(|error| lasts(&error)));
            RunError::Certificate { error, lasts }
        })?;
        status.set_certificates(loaded.facts());
        tls.store(Some(Arc::clone(&loaded.config)));
        dtls.store(loaded.dtls.clone());
        in_use = Some(loaded);
    }
    let listeners::Opened { mut bound, per_worker: sockets } = listeners::open(&config, inherited)?;
    let monitor =
        config.metrics.as_ref().map(|metrics| bind_endpoint(&metrics.listen, "metrics.listen")).transpose()?;
    let admin = config.admin.as_ref().map(|admin| bind_endpoint(&admin.listen, "admin.listen")).transpose()?;
    let credentials = config.credentials.as_ref();
    let credentials = credentials.map(|api| bind_endpoint(&api.listen, "credentials.listen")).transpose()?;
    let node = config.fleet.as_ref().and_then(|fleet| fleet.listen.as_ref());
    let node = node.map(|listen| bind_endpoint(listen, "fleet.listen")).transpose()?;
    let acme_http = config.acme.as_ref().and_then(|acme| acme.challenges.http);
    let acme_http = acme_http.map(|address| bind_endpoint(&Endpoint::Tcp(address), "acme-http")).transpose()?;
    let mut endpoints: Vec<SocketAddr> = bound.listeners.iter().map(|(_, address)| *address).collect();
    let has_page = config.admin.as_ref().is_some_and(|admin| admin.page);
    let page_port = page_port.map(|PagePort { mut address, token }| {
        // It may have been taken since somebody saw that it was free; any other one does.
        let bound = EndpointListener::bind(&Endpoint::Tcp(address)).or_else(|_| {
            address.set_port(0);
            bind_endpoint(&Endpoint::Tcp(address), "admin.listen")
        });
        bound.map(|listener| (listener, token))
    });
    let page_port = page_port.transpose()?;
    bound.page = match &page_port {
        Some((listener, _)) => listener.address(),
        None => admin.as_ref().filter(|_| has_page).and_then(EndpointListener::address),
    };
    endpoints.extend(bound.page);
    endpoints.extend(
        [&monitor, &admin, &credentials, &node, &acme_http].into_iter().flatten().filter_map(EndpointListener::address),
    );
    endpoints.extend(config.store.iter().flat_map(|store| store.url.addresses()));
    endpoints.extend(config.hook.as_ref().and_then(|hook| hook.url.address()));
    endpoints.extend(config.hook_events.as_ref().and_then(|events| events.url.address()));
    endpoints.extend(config.usage.iter().flat_map(|usage| &usage.webhook).filter_map(|webhook| webhook.address));
    let mut master = [0; 32];
    match &config.auth.nonce_key {
        Some(shared) => master = **shared,
        None => fill_from_system(&mut master),
    }
    let nonce_keys = Arc::new(NonceKeys::new(master, config.auth.nonce_lifetime_secs));
    let relay_ports = RelayPorts::new(&[], config.relay.ports);
    offer(&config, &relay_ports);
    let mut addresses = AddressWatch::new(bound.clone(), endpoints, Arc::clone(&relay_ports))?;
    let settings = Arc::new(config.settings(Arc::clone(&nonce_keys), addresses.own(&config))?);
    status.set_settings(Arc::clone(&settings));
    addresses.warn_of_own_alternates(&config, settings.peer_policies());
    let reservations_max = (config.relay.ports_of_family() / 4).max(1) as usize;
    let reservations = Arc::new(Reservations::new(reservations_max));
    let workers = Workers::new(config.workers).map_err(RunError::Mailbox)?;
    let usage = config.usage.as_ref().map(|usage| {
        let (stats, instance) = (Arc::clone(&status.usage), format!("{:08x}", status.instance()));
        UsageRecords::start(usage, &instance, config.workers, stats, workers.ask_for_usage()).map_err(RunError::Usage)
    });
    let usage = usage.transpose()?;
    let shared =
        Shared { connection_ids: Arc::new(ConnectionIds::at_most(peers_max(&descriptors))), ..Shared::default() };
    let mut secrets_watch = Watch::new();
    if config.follow_secrets {
        secrets_watch.judged(Seen::of(&config.secret_files));
    }
    let mut revocations_watch = Watch::new();
    revocations_watch.begin();
    let mut tasks = Vec::new();
    let (mut store, mut following, mut directory) = (None, None, None);
    if let Some(settings) = &config.store {
        let (handle, keeper) = Store::new(settings);
        tasks.push(tokio::spawn(keeper.run()));
        let handle = status.store.get_or_init(|| handle).clone();
        let (ends, follower) = store::follow(handle.clone(), stored::wanted(&config), stored::fresh_text());
        tasks.push(tokio::spawn(follower.run()));
        directory = settings.users.then(|| stored::directory(&handle));
        (store, following) = (Some(handle), Some(ends));
    }
    let revocations = Arc::clone(&shared.revocations);
    let put = store.as_ref().map(|store| {
        let run = stored::fresh_text();
        Arc::new(SharedRevocations::new(store, revocations, &config.auth.realm, run.get(..16).unwrap_or(&run)))
    });
    let revoker = Arc::new(Revoker::load(&config, Arc::clone(&shared.revocations), put.clone()));
    if let Some(put) = put {
        let (send, events) = mpsc::channel(shared_revocations::EVENTS_MAX);
        tasks.push(tokio::spawn(put.follower().follow(unix_now, send)));
        tasks.push(tokio::spawn(put_in_force::run(put, events, Arc::clone(&revoker), workers.clone())));
    }
    let (mut hook, mut hook_control) = (None, None);
    if config.hook.is_some() || directory.is_some() {
        let (sender, control, asker) =
            hook::new(config.hook.as_ref(), directory, Arc::clone(&status.hook), workers.take_answers());
        if let Some(settings) = &config.hook {
            tracing::info!(url = %settings.url, "asking about users that are not configured");
        }
        (hook, hook_control) = (Some(sender), Some(control));
        tasks.push(tokio::spawn(asker.run()));
    }
    let leases = store.as_ref().zip(config.store.as_ref());
    let leases = leases.map(|of| Leases::start(of, &config, &shared.quotas, &status, &workers));
    let (lease_sender, leases) = leases.unzip();
    let (mut events, mut telling) = (None, None);
    if let Some(wanted) = &config.hook_events {
        let mailboxes = workers.mailboxes.clone();
        // It may have moved to another one.
        let end = move |id| mailboxes.iter().for_each(|mailbox| mailbox.send(Command::EndRefused(id)));
        let instance = format!("{:08x}", status.instance());
        let (sender, control, teller) = hook::tell(wanted, instance, Arc::clone(&status.events), Box::new(end));
        tracing::info!(url = %wanted.url, "telling of allocations");
        events = Some(sender);
        telling = Some(Telling { control, task: tokio::spawn(teller.run()) });
    }
    let context = WorkerContext {
        hook,
        leases: lease_sender,
        events,
        settings: Arc::clone(&settings),
        shared: shared.clone(),
        relay_ports: Arc::clone(&relay_ports),
        reservations: Arc::clone(&reservations),
        whereabouts: Arc::default(),
        shortages: Arc::default(),
        connection_limits: ConnectionLimits::new(
            places(&config, &descriptors),
            config.streams.connections_per_ip_max,
            config.streams.unallocated_per_network_max,
        ),
        tls: Arc::clone(&tls),
        dtls: Arc::clone(&dtls),
        streams: config.streams,
        usage: usage.as_ref().map(UsageRecords::sender),
        mailboxes: workers.mailboxes.clone(),
        descriptors: descriptors.of_each(config.workers),
        loopback_peers: config.peers.allow_loopback,
        relay_choice: config.relay.choice,
        shared_ports: config.relay.shared,
        gso: gso_available(),
    };
    let threads = Threads::start(sockets, &workers, &context)?;
    if let Some(listener) = monitor {
        tracing::info!(endpoint = %listener.endpoint, "serving /metrics, /healthz and /readyz");
        // A socket in the file system is beyond the reach of web pages.
        let any_host = config.metrics.as_ref().is_none_or(|metrics| metrics.allow_remote)
            || matches!(listener.endpoint, Endpoint::Unix(_));
        let metrics = Metrics::new(
            workers.counters.clone(),
            Arc::clone(&relay_ports),
            reservations,
            &shared,
            Arc::clone(&status),
        );
        let monitor = Monitor { any_host, metrics, status: Arc::clone(&status), workers: workers.clone() };
        tasks.push(tokio::spawn(listener.serve(Arc::new(monitor), Limits::NEAR, None)));
    }
    let fleet = Fleet::new(&config, &bound, &status, &workers, &relay_ports);
    let (mut orders, mut node_endpoint) = (None, None);
    if admin.is_some() || node.is_some() {
        let history = (has_page || page_port.is_some() || node.is_some()).then(Arc::<History>::default);
        if let Some(history) = &history {
            tasks.push(tokio::spawn(Arc::clone(history).keep(workers.clone())));
        }
        let guard = Arc::clone(&shared.guard);
        let (api, received) = Api::new(
            Arc::clone(&status),
            workers.clone(),
            relay_ports,
            guard,
            Arc::clone(&revoker),
            bound.clone(),
            (history, fleet.clone()),
        );
        orders = Some(received);
        let api = Arc::new(api);
        if let (Some(listener), Some(settings)) = (node, &config.fleet) {
            let endpoint = NodeEndpoint::new(&listener.endpoint, settings);
            endpoint.use_certificates(in_use.as_ref());
            tracing::info!(endpoint = %listener.endpoint, tls = endpoint.tls.is_some(), "serving the nodes of the fleet");
            let handler = Arc::new(NodeApi::new(settings.token.clone(), Arc::clone(&api)));
            tasks.push(tokio::spawn(listener.serve(handler, Limits::FLEET, endpoint.tls.clone())));
            node_endpoint = Some(endpoint);
        }
        if let (Some(listener), Some(admin)) = (admin, config.admin.clone()) {
            tracing::info!(endpoint = %listener.endpoint, "serving the admin API");
            let at_endpoint = AdminApi::new(&listener.endpoint, admin.page, admin.token, Arc::clone(&api))
                .shown_at(admin.page_origins);
            tasks.push(tokio::spawn(listener.serve(Arc::new(at_endpoint), Limits::NEAR, None)));
            if let Some((listener, token)) = page_port {
                let at_port = AdminApi::new(&listener.endpoint, true, Some(token), api);
                tasks.push(tokio::spawn(listener.serve(Arc::new(at_port), Limits::NEAR, None)));
            }
        }
    }
    if let Some(fleet) = &fleet {
        tasks.push(tokio::spawn(Arc::clone(fleet).run()));
    }
    let credentials = credentials.zip(config.credentials.as_ref()).map(|(listener, api)| {
        let listeners = bound.listeners.clone();
        let (revocations, stats) = (Arc::clone(&revoker.revocations), Arc::clone(&status.credentials));
        let (service, orders) = CredentialsService::new(api, &config, &listeners, revocations, stats);
        tasks.push(tokio::spawn(revoke_orders::carry_out(orders, Arc::clone(&revoker), workers.clone())));
        let (service, tls) = (Arc::new(service), api.tls.then(http::Tls::default));
        let endpoint = CredentialsEndpoint { service: Arc::clone(&service), tls: tls.clone(), listeners };
        endpoint.use_certificates(in_use.as_ref());
        tracing::info!(endpoint = %listener.endpoint, tls = api.tls, keys = api.keys.len(), "serving the credentials API");
        tasks.push(tokio::spawn(listener.serve(service, Limits::FAR, tls)));
        endpoint
    });
    let answers: Arc<Answers> = Arc::default();
    if let Some(listener) = acme_http {
        tracing::info!(endpoint = %listener.endpoint, "answering what a certificate authority asks over HTTP");
        tasks.push(tokio::spawn(listener.serve(Arc::clone(&answers), Limits::BRIEF, None)));
    }
    // The workers run, and can be asked.
    let tools = Tools { validations, answers, stats: Arc::clone(&status.acme) };
    let acme = Keeper::start(config.acme.as_ref(), tools);
    let public = PublicAddresses::start(&config.relay.finding, Arc::clone(&status.public_addresses));
    let server = Server {
        config,
        workers,
        status,
        addresses,
        public,
        certificates: watch,
        loading,
        acme,
        revoker,
        revocations_watch,
        secrets_watch,
        readings: Readings::new(),
        in_use,
        draining: None,
        hook: hook_control,
        store,
        leases,
        telling,
        following,
        usage,
        settings,
        tls,
        dtls,
        credentials,
        node_endpoint,
        nonce_keys,
        relayed: Relayed::new(Arc::clone(&shared.relayed)),
        minute: Minute::default(),
        fleet,
        bound: bound.clone(),
    };
    Ok(Started { server, bound, threads, tasks, orders })
}

fn bind_endpoint(endpoint: &Endpoint, key: &'static str) -> Result<EndpointListener, RunError> {
    EndpointListener::bind(endpoint).map_err(|error| RunError::Endpoint { key, endpoint: endpoint.clone(), error })
}

fn gso_available() -> bool {
    std::net::UdpSocket::bind(("127.0.0.1", 0)).is_ok_and(|socket| sys::enable_udp_gso_probe(socket.as_fd()))
}

/// How many connections and DTLS sessions there may be. Of these, only connections need a descriptor each.
fn places(config: &Config, descriptors: &sys::Descriptors) -> usize {
    let (most, wanted) = (config.streams.connections_max, config.wanted_sockets());
    let of = |descriptors| usize::try_from(descriptors).unwrap_or(usize::MAX);
    match (wanted.connections, wanted.web) {
        (0, _) => most,
        (_, 0) => most.min(of(descriptors.connections)),
        // Half of them may go on to a web server, which takes one more each.
        _ => most.min(of(descriptors.connections)).min(of(descriptors.outward.web.saturating_mul(2))),
    }
}

/// How many connections with peers of TCP relays there may be, all users together. Where they are offered only later, by a reload, none
/// are planned, and they take a part of what others do not need at the time.
fn peers_max(descriptors: &sys::Descriptors) -> usize {
    let most = if descriptors.outward.peers > 0 { descriptors.outward.peers } else { descriptors.limit / 8 };
    usize::try_from(most).unwrap_or(usize::MAX)
}

/// Shares out the descriptors there are: as many as the hard limit allows.
fn share_out_descriptors(config: &Config) -> sys::Descriptors {
    let WantedSockets { listeners, relays, connections, peers, web } = config.wanted_sockets();
    let outward = sys::Outward { peers, web };
    let descriptors = sys::Descriptors::share_out(sys::raise_open_files(), listeners, relays, connections, outward);
    let sys::Descriptors { limit, needed, connections, outward, .. } = descriptors;
    if needed > limit {
        tracing::warn!(
            connections,
            peers = outward.peers,
            web = outward.web,
            "this process may have {limit} descriptors (open files), and what is configured may need {needed}: it takes at most \
             {connections} connections of clients, and relays have the rest. Raise the limit (LimitNOFILE= of the unit, ulimit -n), or \
             lower connections-max in [streams] or the number of ports in [relay]"
        );
    }
    descriptors
}
