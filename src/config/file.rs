//! From `turnserver.toml`, variables and flags to a [`Config`].

use std::path::PathBuf;
use std::sync::Arc;

use toml::de::DeTable;

use super::access::{parse_path, read_auth, read_readers, read_realms};
use super::acme_reader::read_acme;
use super::admin::read_admin;
use super::credentials_reader::{Beside, read_credentials};
use super::error::{ConfigError, Place, ValueError};
use super::fleet_reader::{self, read_fleet};
use super::hook_reader::read_hook;
use super::listen::{check_listener_realms, read_listeners, read_tls};
use super::nat_discovery::read_nat_discovery;
use super::operation::{read_drain, read_metrics, read_redirect};
use super::overrides::Overrides;
use super::peers::{read_peers, warn_about_unused};
use super::reader::{Document, Section};
use super::records::read_usage;
use super::relay::{check_listener_relays, check_relay_ports, read_relay, warn_about_peers};
use super::revocations::read_revocations;
use super::sections::{
    read_bandwidth, read_guard, read_lifetimes, read_limits, read_log, read_quota, read_rfc3489, read_streams,
};
use super::snapshot::Config;
use super::source::{Loaded, Source, Surroundings};
use super::store_reader::{check_fleet_quota, read_store};
use super::tcp_relays::{check_tcp_ports, read_tcp_relays};
use super::words::{quoted_line, syntax_words};

const SOFTWARE_CHARS_MAX: usize = 127;

impl Config {
    /// Reads a configuration. Flags win over variables, variables over the file, the file over the defaults.
    ///
    /// # Errors
    /// Every problem found.
    pub fn parse(source: &Source, overrides: &Overrides, around: &Surroundings<'_>) -> Result<Loaded, ConfigError> {
        let document = Document::new(&source.name, &source.text, overrides);
        let (table, syntax_errors) = DeTable::parse_recoverable(&source.text);
        let is_toml = syntax_errors.is_empty();
        for error in syntax_errors {
            let (place, line) = match error.span() {
                Some(span) => (document.place(span.clone()), document.line(&span)),
                None => (document.whole(), ""),
            };
            document.problem_of_line(place, quoted_line(line).unwrap_or_else(|| syntax_words(&source.text, &error)));
        }
        // What is read out of broken TOML would only hide what broke it.
        let config = match is_toml {
            true => Some(read(&document, &Section::root(&document, table.get_ref()), source, around)),
            false => None,
        };
        for name in overrides.unknown_env() {
            if !source.text.contains(name.as_str()) {
                document.warning(Place::Source(name.clone()), "not a variable that turnstone knows; it is ignored");
            }
        }
        let warnings = document.finish()?;
        let config = config.ok_or_else(|| ConfigError::one(Place::Source(source.name.clone()), "not TOML"))?;
        Ok(Loaded { config, warnings })
    }
}

fn read(document: &Document<'_>, root: &Section<'_, '_>, source: &Source, around: &Surroundings<'_>) -> Config {
    let wanted_workers = root.number("workers");
    let wanted = wanted_workers.as_ref().and_then(|workers| usize::try_from(workers.value).ok()).unwrap_or_default();
    let mut workers = if wanted == 0 { around.host.cores.max(1) } else { wanted };
    let software = root.text("software", |text| match text.chars().count() {
        0 => Err(ValueError::Text("empty")),
        1..=SOFTWARE_CHARS_MAX if !text.chars().any(char::is_control) => Ok(text.to_owned()),
        _ => Err(ValueError::Text("too long, or has control characters")),
    });
    let (secret_readers, follow_secrets) = (read_readers(document, root), root.boolean("follow-secrets"));
    let (turn, rfc5766_channel_numbers) = (root.boolean("turn"), root.boolean("rfc5766-channel-numbers"));
    let mobility = root.boolean("mobility");
    let mut listeners = read_listeners(document, root, around.host);
    let nat_discovery = read_nat_discovery(document, root, &mut listeners, around.dev);
    let state_directory = read_state_directory(root, source, around);
    let tls_section = root.section("tls");
    let acme = read_acme(document, &tls_section, (source, around), &listeners, state_directory.as_deref());
    let tls = read_tls(document, &tls_section, source, &listeners, acme.as_ref());
    let relay = read_relay(document, root, turn, around);
    let tcp_relays = read_tcp_relays(root);
    if turn {
        check_relay_ports(document, &relay, &listeners);
        check_listener_relays(document, &relay.value, &listeners);
    }
    let ports = relay.value.ports_of_address() as usize;
    if relay.value.shared && workers > ports {
        // Each worker has shared ports of its own.
        workers = ports;
        if let (true, Some(named)) = (wanted > ports, wanted_workers) {
            let message = format!("{wanted} workers have only {ports} shared relay ports; expected a port for each");
            document.problem(named.place, message);
        }
    }
    if mobility && relay.value.shared && workers > 1 {
        let message = "an allocation on a shared relay port cannot move to another worker; set workers = 1, or relay from ports that are not \
                       shared";
        root.problem("mobility", root.place(), message);
    }
    if turn && tcp_relays.is_offered {
        check_tcp_ports(document, (&relay.value, relay.place.clone()), &listeners);
    }
    let ((quota, quota_shares), bandwidth) = (read_quota(root, &relay.value), read_bandwidth(root));
    let (unauthenticated, max_peers_per_allocation) = read_limits(root);
    let (lifetimes, streams) = (read_lifetimes(root), read_streams(document, root));
    let (peers, peer_policies) = read_peers(document, root, around.dev);
    let log = read_log(root);
    if turn {
        warn_about_peers(document, root, &relay.value, &peers);
    }
    let metrics = read_metrics(root, source, &listeners);
    let admin = read_admin(document, root, source, around, &listeners, metrics.as_ref());
    let drain = read_drain(root, &listeners, &relay.value, around);
    let redirect = read_redirect(root, &listeners, &relay.value, around).map(Arc::new);
    let usage = read_usage(document, root, source, around);
    let store = read_store(document, root, source, around);
    let (hook, hook_events) = read_hook(document, root, source, around);
    let auth = read_auth(document, root, source, turn, around);
    let realms = read_realms(document, root, source, around, &auth, &peer_policies);
    warn_about_unused(document, &peer_policies, &auth, &realms);
    check_listener_realms(document, &listeners, &auth, &realms);
    check_fleet_quota(document, root, &quota, &realms);
    let beside = Beside {
        listeners: &listeners,
        tls: tls.as_ref(),
        metrics: metrics.as_ref(),
        admin: admin.as_ref(),
        auth: &auth,
        realms: &realms,
        has_store: store.is_some(),
    };
    let credentials = read_credentials(document, root, source, &beside);
    let beside = fleet_reader::Beside {
        listeners: &listeners,
        tls: tls.as_ref(),
        endpoints: [
            ("[metrics]", metrics.as_ref().map(|metrics| &metrics.listen)),
            ("[admin]", admin.as_ref().map(|admin| &admin.listen)),
            ("[credentials]", credentials.as_ref().map(|api| &api.listen)),
        ],
    };
    let fleet = read_fleet(document, root, source, around, &beside);
    root.report_unknown_keys();
    let mut config = Config {
        workers,
        listeners: listeners.into_iter().map(|listener| listener.value).collect(),
        tls,
        acme,
        relay: relay.value,
        tcp_relays,
        auth,
        realms,
        peers,
        peer_policies: peer_policies.into_iter().map(|policy| policy.value).collect(),
        guard: read_guard(root),
        lifetimes,
        quota,
        quota_shares,
        bandwidth,
        unauthenticated,
        max_peers_per_allocation,
        streams,
        software: software.map(|software| software.value),
        log,
        metrics,
        admin,
        credentials,
        drain,
        redirect,
        hook,
        store,
        fleet,
        hook_events,
        stored_secrets: Arc::default(),
        usage,
        turn,
        rfc5766_channel_numbers,
        nat_discovery,
        rfc3489: read_rfc3489(root),
        mobility,
        state_directory,
        secret_readers,
        follow_secrets,
        secret_files: document.secret_files(),
    };
    match read_revocations(&config) {
        Ok(revocations) => config.auth.revocations = revocations,
        Err(error) => error.problems.into_iter().for_each(|problem| document.problem(problem.place, problem.message)),
    }
    config
}

/// Where state is kept: what the file says, or the first directory that the service manager gives (StateDirectory=).
fn read_state_directory(root: &Section<'_, '_>, source: &Source, around: &Surroundings<'_>) -> Option<PathBuf> {
    let given = root.text("state-directory", |text| parse_path(text, &source.directory));
    let of_manager = || {
        let directories = (around.env)("STATE_DIRECTORY")?;
        directories.split(':').next().filter(|first| !first.is_empty()).map(PathBuf::from)
    };
    given.map(|directory| directory.value).or_else(of_manager)
}
