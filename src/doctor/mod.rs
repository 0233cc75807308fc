//! What `turnstone doctor` looks at on the server's own host: the machine, the files, the network, and every listener as a
//! client sees it.
//!
//! Each check is a function of plain inputs (the text of a file of /proc, the configuration, a list of interfaces) that returns
//! findings; [`run`] collects the inputs and asks each. It sends packets only to this host's own addresses.

mod buffers;
pub mod certificate;
pub mod clients;
mod clock;
mod files;
mod firewall;
mod health;
mod host;
mod listeners;
pub mod network;
mod nftables;
pub mod ports;
pub mod process;
mod report;
pub mod service;
mod walk;

pub use report::{Progress, Report, SCHEMA};

use std::collections::HashSet;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::config::{Config, ConfigError, Overrides, Source};
use crate::net::sys;
use crate::probe::{Roots, Status, Step, Target, WARN_DAYS_LEFT};

use process::Server;

/// What to look at, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// The server's process, where the owner of the listeners is not to be looked for.
    pub pid: Option<u32>,
    /// Which authorities a listener's certificate is judged by.
    pub roots: Roots,
    /// The longest that one step at a listener may take.
    pub timeout: Duration,
}

/// A configuration that was read.
#[derive(Clone, Copy, Debug)]
pub struct Configured<'a> {
    /// What came of it.
    pub config: &'a Config,
    /// Where from.
    pub source: &'a Source,
    /// What won over it.
    pub overrides: &'a Overrides,
    /// A further file that holds a secret, named by a variable.
    pub secret_file: Option<&'a std::path::Path>,
    /// How many warnings there were.
    pub warnings: usize,
}

/// Makes every check; `progress` is called as each ends. Without a configuration, those that need none.
pub fn run(
    configured: Result<Configured<'_>, &ConfigError>,
    options: &Options,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Report {
    let now_unix = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
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
        let judged = config
            .tls
            .as_ref()
            .map(|tls| certificate::judge(tls, config.auth.public_host.as_deref(), self.now_unix, WARN_DAYS_LEFT));
        let judged = judged.unwrap_or_default();
        self.found(judged.steps);
        self.look_at_clock(judged.not_before_unix);
        self.found(clients::judge(config));
        self.look_at_descriptors(config, &server);
        if config.turn {
            let read = |name: &str| host::text(&format!("/proc/sys/net/ipv4/{name}")).unwrap_or_default();
            let (taken, reserved) = (read("ip_local_port_range"), read("ip_local_reserved_ports"));
            self.found(ports::judge_ephemeral(config.relay.ports, &taken, &reserved));
            self.found([ports::judge_quota(config)]);
            self.found(network::judge_relays(config, &host::addresses(), &host::can_bind));
            self.found([network::judge_container(config, &host::container())]);
        }
        self.look_at_buffers(Some((config, &server)));
        self.found(firewall::judge(config, &host::firewall(self.options.timeout)));
        if let Some(metrics) = &config.metrics
            && server.may_run()
        {
            self.found(health::judge(&metrics.listen, self.options.timeout));
        }
        self.found(listeners::judge_stuns(config));
        let credential = listeners::credential(&config.auth, self.now_unix);
        for listener in &server.open {
            let name = config.auth.public_host.as_deref().or(judged.name.as_deref());
            match listeners::probe(config, *listener, name, credential.clone(), self.options, self.progress) {
                Ok(target) => self.listeners.push(target),
                Err(problem) => self.found([finding("probe", Status::Warn, problem)]),
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
        list.extend(config.tls.as_ref().map(|tls| (tls.key.clone(), files::Kind::Key)));
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

/// A finding that took no time worth telling.
fn finding(check: &'static str, status: Status, message: impl Into<String>) -> Step {
    Step::new(check, status, Duration::ZERO, message)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::config::{Host, Overrides, Surroundings};

    /// A configuration with a secret; without anything else it is for loopback.
    pub(super) fn config(text: &str) -> Config {
        let listen = if text.contains("[[listen]]") {
            ""
        } else {
            "[[listen]]\naddress = \"127.0.0.1:3478\"\ntransport = \"udp\"\n"
        };
        let text = format!("{listen}{text}\n[[auth.secrets]]\nid = \"a\"\nsecret = \"0123456789abcdef\"\n");
        let source = Source { name: "test".to_owned(), text, ..Source::default() };
        let host = Host { cores: 1, ipv4: Some(Ipv4Addr::LOCALHOST), ipv6: None, has_ipv6: true };
        let around = Surroundings { host, env: &|_| None, dev: false };
        Config::parse(&source, &Overrides::default(), &around).unwrap().config
    }

    #[test]
    fn a_configuration_that_cannot_be_read_is_a_failure_and_the_machine_is_looked_at_all_the_same() {
        let options = Options { pid: None, roots: Roots::System, timeout: Duration::from_secs(5) };
        let error = ConfigError::one(crate::config::Place::Source("f.toml".to_owned()), "no".to_owned());
        let mut seen = 0;
        let report = run(Err(&error), &options, &mut |_| seen += 1);
        assert_eq!((report.verdict, report.checks[0].message.as_str()), (Status::Fail, "f.toml: no"));
        assert!(report.checks.iter().any(|step| step.step == "clock-sync"));
        assert_eq!(seen, report.checks.len());
    }
}
