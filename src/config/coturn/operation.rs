//! coturn's ways to watch and to rule the running server, as `[metrics]`, `[admin]` and `[usage]`.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::FindingKind;
use super::read::{At, Conf};
use super::syntax::Entry;
use super::write::separate;

/// coturn's default.
const PROMETHEUS_PORT: u16 = 9641;

const ADMIN: &str = "\
# In place of coturn's telnet interface or web administration: `turnstone status`, `sessions`, `kick` and others, and the API that
# they use, on a socket for the server's user and group. The systemd unit makes the directory.
[admin]
listen = \"unix:/run/turnstone/admin.sock\"
";
const USAGE: &str = "\
# In place of redis-statsdb: records of what each allocation has used. docs/usage-records.md describes them. The systemd unit
# makes the directory.
#[usage]
#file = \"/var/log/turnstone/usage.jsonl\"
";

/// What a `turnserver.conf` says of it.
#[derive(Default)]
pub(super) struct Operation {
    /// The line that turns it on.
    prometheus: Option<usize>,
    port: Option<At<u16>>,
    address: Option<At<IpAddr>>,
    cli: Option<bool>,
    has_cli_password: bool,
    web_admin: bool,
    redis_statistics: bool,
}

impl Operation {
    /// Whether the telnet interface (which wants a password, or since 4.17 to be turned on) or the web pages are served.
    fn has_admin(&self) -> bool {
        self.web_admin || self.cli.unwrap_or(self.has_cli_password)
    }
}

/// `[metrics]`.
pub(super) struct Metrics {
    listen: SocketAddr,
    allow_remote: bool,
}

impl Conf {
    pub(super) fn prometheus(&mut self, entry: &Entry<'_>) {
        if let Some(on) = self.switch(entry) {
            self.operation.prometheus = on.then_some(entry.line);
        }
    }

    pub(super) fn prometheus_port(&mut self, entry: &Entry<'_>) {
        self.operation.port = self.port(entry);
    }

    pub(super) fn prometheus_address(&mut self, entry: &Entry<'_>) {
        let ip = self.address(entry, entry.value);
        self.operation.address = ip.map(|value| At { line: entry.line, value });
    }

    pub(super) fn prometheus_path(&mut self, entry: &Entry<'_>) {
        if entry.value != "/metrics" {
            self.lost(entry, "the path is /metrics: change metrics_path in the configuration of Prometheus");
        }
    }

    pub(super) fn cli(&mut self, entry: &Entry<'_>) {
        self.operation.cli = self.switch(entry).or(self.operation.cli);
        if self.operation.cli == Some(true) {
            self.note(entry, "not telnet: `turnstone status`, `sessions`, `kick` and others stand for it, over the admin API's socket ([admin])");
        }
    }

    pub(super) fn no_cli(&mut self, entry: &Entry<'_>) {
        match self.switch(entry) {
            Some(true) => {
                self.operation.cli = Some(false);
                self.note(entry, "there is no telnet interface, and no admin API without [admin]");
            }
            Some(false) => self.note(entry, "cli-password turns the telnet interface on, here the admin API"),
            None => {}
        }
    }

    pub(super) fn cli_password(&mut self, entry: &Entry<'_>) {
        self.operation.has_cli_password = true;
        let message = "the admin API stands for the telnet interface, on a socket that the server's user and group may use \
                       without a password; a token (token-file in [admin]) is for a port";
        self.lost(entry, message);
    }

    pub(super) fn web_admin(&mut self, entry: &Entry<'_>) {
        self.operation.web_admin = self.switch(entry).unwrap_or(self.operation.web_admin);
        if self.operation.web_admin {
            let message = "there are no web pages: the admin API, on a socket, stands for them ([admin]); users and secrets \
                           are changed in turnserver.toml, which `systemctl reload turnstone` applies";
            self.lost(entry, message);
        }
    }

    pub(super) fn redis_statsdb(&mut self, entry: &Entry<'_>) {
        self.operation.redis_statistics = true;
        let message = "statistics do not go to Redis; [usage] records what each allocation uses, in a file or to a webhook: \
                       it stands in the result as a comment";
        self.lost(entry, message);
    }
}

/// Where metrics are served. `is_taken` says whether a listener has an address over TCP.
pub(super) fn metrics(conf: &mut Conf, is_taken: impl Fn(SocketAddr) -> bool) -> Option<Metrics> {
    let (port, address) = (conf.operation.port.take(), conf.operation.address.take());
    let Some(line) = conf.operation.prometheus else {
        for (line, directive) in
            [(port.map(|at| at.line), "prometheus-port"), (address.map(|at| at.line), "prometheus-address")]
        {
            if line.is_some() {
                conf.find(line, directive, FindingKind::Note, "without `prometheus` there are no metrics");
            }
        }
        return None;
    };
    let port = port.map_or(PROMETHEUS_PORT, |at| at.value);
    let address = address.map(|at| at.value).filter(|ip| !ip.is_unspecified());
    let listen = SocketAddr::new(address.unwrap_or(Ipv4Addr::LOCALHOST.into()), port);
    if is_taken(listen) {
        let message = format!("a listener has {listen} over TCP; choose another port for listen in [metrics]");
        conf.find(Some(line), "prometheus", FindingKind::NotConverted, &message);
        return None;
    }
    let allow_remote = !listen.ip().is_loopback();
    let reach = match (address, allow_remote) {
        (None, _) => {
            "; coturn serves them on every address, here it is loopback: for a Prometheus on another host, write an address of \
             this one and allow-remote = true, behind a firewall"
        }
        (Some(_), true) => ", with allow-remote: whoever reaches the address reads them",
        (Some(_), false) => "",
    };
    let message = format!("[metrics]; the metrics have other names, docs/grafana-dashboard.json shows them{reach}");
    conf.find(Some(line), "prometheus", FindingKind::Note, &message);
    Some(Metrics { listen, allow_remote })
}

pub(super) fn write(out: &mut String, conf: &Conf, metrics: Option<&Metrics>) -> std::fmt::Result {
    if let Some(Metrics { listen, allow_remote }) = metrics {
        separate(out);
        writeln!(out, "[metrics]\nlisten = \"{listen}\"")?;
        if *allow_remote {
            writeln!(out, "allow-remote = true")?;
        }
    }
    for (wanted, text) in [(conf.operation.has_admin(), ADMIN), (conf.operation.redis_statistics, USAGE)] {
        if wanted {
            separate(out);
            out.push_str(text);
        }
    }
    Ok(())
}
