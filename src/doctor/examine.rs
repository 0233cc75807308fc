//! Collects what each check looks at, and makes them one after the other.

use std::collections::HashSet;
use std::net::ToSocketAddrs;
use std::time::Instant;

use crate::config::{Config, ConfigError, Finding, StoredSecrets, TlsFiles};
use crate::net::sys;
use crate::probe::{Status, Step, Target, WARN_DAYS_LEFT};
use crate::public_address;
use crate::store::Wanted;
use crate::wall_clock::unix_now;

use super::process::{self, Server};
use super::{Configured, Options, Progress, Report, finding};
use super::{
    acme, alternates, buffers, certificate, choices, clients, clock, credentials, files, firewall, fleet, health, hook,
    host, listeners, network, page, ports, service, store,
};

/// Makes every check; `progress` is called as each ends. Without a configuration, those that need none.
pub fn run(
    configured: Result<Configured<'_>, &ConfigError>,
    options: &Options,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Report {
    let now_unix = unix_now();
    let mut doctor = Doctor { options, progress, now_unix, checks: Vec::new(), listeners: Vec::new() };
    let started = Instant::now();
    match configured {
        Ok(configured) => doctor.examine(configured),
        Err(error) => {
            for problem in &error.problems {
                doctor.found([finding("configuration", Status::Fail, problem.to_string())]);
            }
            doctor.look_at_clock(None);
            doctor.look_at_buffers(None);
        }
    }
    Report::new(doctor.checks, doctor.listeners, now_unix, started.elapsed())
}

struct Doctor<'a, 'p> {
    options: &'a Options,
    progress: &'a mut (dyn FnMut(Progress<'_>) + 'p),
    now_unix: u64,
    checks: Vec<Step>,
    listeners: Vec<Target>,
}

impl Doctor<'_, '_> {
    fn examine(&mut self, configured: Configured<'_>) {
        let Configured { config, source, overrides, warnings, .. } = configured;
        self.found([match warnings {
            0 => finding("configuration", Status::Ok, format!("read from {}", source.name)),
            _ => {
                let warnings = if warnings == 1 { "a warning".to_owned() } else { format!("{warnings} warnings") };
                let message = format!("read from {}, with {warnings}; see turnstone check", source.name);
                finding("configuration", Status::Note, message)
            }
        }]);
        let server = self.find_server(config);
        self.look_at_files(configured, &server);
        if let Ok(service) = service::Service::find(None, None) {
            self.found(service.judge(service::Plan { config, source, overrides }));
        }
        if server.is_running {
            acme::wait_for_first_ones(config, acme::FIRST_ONE_LIMIT, &mut |step| self.found([step]));
        }
        let certificates = certificate::judge_all(config, self.now_unix, WARN_DAYS_LEFT);
        // What clients without a server name are sent.
        let name = certificates.first().and_then(|judged| judged.name.clone());
        self.look_at_clock(certificates.iter().filter_map(|judged| judged.not_before_unix).max());
        certificates.into_iter().for_each(|judged| self.found(judged.steps));
        self.found(acme::judge(config));
        let resolve = |name: &str| (name, 0).to_socket_addrs().map(|found| found.map(|address| address.ip()).collect());
        self.found(acme::judge_names(config, &host::addresses(), &resolve));
        self.found(clients::judge(config));
        self.found(choices::judge(config));
        self.look_at_descriptors(config, &server);
        if config.turn {
            let read = |name: &str| host::text(&format!("/proc/sys/net/ipv4/{name}")).unwrap_or_default();
            let (taken, reserved) = (read("ip_local_port_range"), read("ip_local_reserved_ports"));
            self.found(ports::judge_ephemeral(config.relay.ports, &taken, &reserved));
            self.found([ports::judge_quota(config)]);
            self.found(network::judge_relays(config, &host::addresses(), &host::can_bind));
            let ask = |finding: &Finding, bind| public_address::ask_once(finding, bind);
            self.found(network::judge_public_addresses(config, &ask));
            self.found([network::judge_container(config, &host::container())]);
        }
        self.look_at_buffers(Some((config, &server)));
        self.found(firewall::judge(config, &host::firewall(self.options.timeout)));
        if let Some(metrics) = &config.metrics
            && server.may_run()
        {
            self.found(health::judge(&metrics.listen, self.options.timeout));
        }
        if let Some(admin) = &config.admin {
            self.found(page::judge(admin));
            if server.may_run() {
                self.found(page::judge_running(admin, self.options.timeout));
            }
        }
        self.found(credentials::judge(config));
        if let Some(api) = &config.credentials
            && server.may_run()
        {
            self.found(credentials::judge_running(api, self.options.timeout));
        }
        let mut stored = StoredSecrets::new();
        if let Some(shared) = &config.store {
            let realms = std::iter::once(&config.auth.realm).chain(config.realms.iter().map(|realm| &realm.name));
            let wanted = Wanted {
                realms: realms.cloned().collect(),
                nonce_key: config.auth.nonce_key.is_none(),
                without_secrets: config.without_secrets(),
            };
            let (step, secrets) = store::judge(shared, &wanted, self.options.timeout);
            stored = secrets;
            self.found([step]);
        }
        if let Some(nodes) = &config.fleet {
            self.found(fleet::judge(nodes, &crate::store::host_name(), self.options.timeout));
        }
        self.found(hook::judge(config, self.options.timeout));
        self.found(listeners::judge_stuns(config));
        self.found(listeners::judge_webs(config, self.options.timeout));
        self.found(alternates::judge(config, self.options));
        for listener in &server.open {
            let name = config.auth.public_host.as_deref().or(name.as_deref());
            let credential = listeners::credential_at(config, &stored, listener, name, self.now_unix);
            match listeners::probe(config, listener, name, credential, self.options, self.progress) {
                Ok(target) => self.listeners.push(target),
                Err(error) => self.found([finding("probe", Status::Warn, error.to_string())]),
            }
        }
    }

    /// Who has the sockets that the configuration asks for.
    fn find_server(&mut self, config: &Config) -> Server {
        let sockets = host::sockets();
        let inodes: HashSet<u64> = sockets.iter().flatten().map(|socket| socket.inode).collect();
        let owners = host::socket_owners(&inodes);
        let (server, steps) = process::find(config, sockets, &owners, host::server_processes(), self.options.pid);
        self.found(steps);
        server
    }

    fn look_at_files(&mut self, configured: Configured<'_>, server: &Server) {
        let Configured { config, source, secret_file, .. } = configured;
        let server_uid = server.pid.and_then(host::uid_of);
        let own_uid = host::uid_of(std::process::id());
        let trusted: Vec<u32> = [Some(0), server_uid, own_uid].into_iter().flatten().collect();
        let mut list = vec![(source.name.clone().into(), files::Kind::Configuration)];
        let secrets = source.secret_files().into_iter().chain(secret_file.map(Into::into));
        list.extend(secrets.map(|path| (path, files::Kind::Secret)));
        list.extend(config.tls.iter().flat_map(TlsFiles::each).map(|tls| (tls.key, files::Kind::Key)));
        for (path, kind) in list {
            if let Some(state) = files::State::read(&path) {
                self.found(files::judge(&path, kind, state, config.secret_readers, &trusted));
            }
        }
    }

    fn look_at_clock(&mut self, not_before_unix: Option<u64>) {
        let inputs = clock::Inputs {
            now_unix: self.now_unix,
            synchronised: sys::clock_is_synchronised(),
            told_by_timesyncd: host::exists("/run/systemd/timesync/synchronized"),
            program_written_unix: host::program_written_unix(),
            not_before_unix,
        };
        self.found(clock::judge(&inputs));
    }

    fn look_at_descriptors(&mut self, config: &Config, server: &Server) {
        let limits = |of: &str| host::text(&format!("/proc/{of}/limits"));
        let (text, whose) = match server.pid.and_then(|pid| Some((limits(&pid.to_string())?, pid))) {
            Some((text, pid)) => (text, process::Whose::Server(pid)),
            None => (limits("self").unwrap_or_default(), process::Whose::ThisProcess),
        };
        self.found(process::judge_descriptors(config, &text, whose));
    }

    fn look_at_buffers(&mut self, running: Option<(&Config, &Server)>) {
        let lost = running.map_or(
            0,
            |(config, server)| {
                if server.is_running { buffers::dropped_at(config, &server.sockets) } else { 0 }
            },
        );
        let counters = buffers::Counters {
            ipv4: host::text("/proc/net/snmp").map(|text| buffers::read_snmp(&text)).unwrap_or_default(),
            ipv6: host::text("/proc/net/snmp6").map(|text| buffers::read_snmp6(&text)).unwrap_or_default(),
            at_server: lost,
        };
        self.found(buffers::judge_losses(&counters));
        let core =
            |name: &str| host::text(&format!("/proc/sys/net/core/{name}")).and_then(|text| text.trim().parse().ok());
        let limits = buffers::Limits {
            granted: host::granted_buffer(),
            rmem_max: core("rmem_max"),
            wmem_max: core("wmem_max"),
            rmem_default: core("rmem_default"),
        };
        self.found(buffers::judge_limits(&limits, counters.has_full_buffers()));
        let softnet = host::text("/proc/net/softnet_stat").unwrap_or_default();
        self.found(buffers::judge_backlog(core("netdev_max_backlog"), &softnet));
    }

    fn found(&mut self, steps: impl IntoIterator<Item = Step>) {
        for step in steps {
            (self.progress)(Progress::Check(&step));
            self.checks.push(step);
        }
    }
}
