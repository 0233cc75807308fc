//! coturn's ways to watch and to rule the running server, as `[metrics]`, `[admin]` and `[usage]`.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::conf::{At, Conf};
use super::findings::{FindingKind, Grade, Spot};
use super::syntax::Entry;

/// coturn's default.
const PROMETHEUS_PORT: u16 = 9641;

const ADMIN: &str = "\
# For turnstone status, sessions, explain and others: a socket for the server's user and group,
# as in the configuration that the installation brings.
[admin]
listen = \"unix:/run/turnstone/admin.sock\"
";
const PAGE: &str = "page = true\n";
const USAGE: &str = "\
# In place of redis-statsdb: a record of what each allocation has used. The systemd unit makes the
# directory. For an application that follows sessions as they come and go: [hook] events.
#[usage]
#file = \"/var/log/turnstone/usage.jsonl\"
";

/// Whether a client can be sent there.
fn is_for_clients(address: SocketAddr) -> bool {
    let ip = address.ip();
    !(ip.is_unspecified() || ip.is_multicast() || ip.is_loopback() || address.port() == 0)
}

/// `[metrics]`.
pub(super) struct Metrics {
    listen: SocketAddr,
    allow_remote: bool,
}

impl Conf {
    /// eturnal's `mod_stats_prometheus`, with its own default for the port.
    pub(super) fn prometheus_of_eturnal(&mut self, spot: Spot, port: Option<u16>, address: Option<IpAddr>) {
        self.operation.prometheus = Some(spot);
        self.operation.port = Some(At { spot, value: port.unwrap_or(8081) });
        self.operation.address = address.filter(|ip| !ip.is_multicast()).map(|value| At { spot, value });
    }
}

impl Conf {
    /// Whether the telnet interface (which wants a password, or since 4.17 to be turned on) is served.
    pub(super) fn has_cli(&self) -> bool {
        self.operation.cli.unwrap_or(self.operation.cli_password.is_some())
    }

    pub(super) fn prometheus(&mut self, entry: &Entry<'_>) {
        if let Some(on) = self.switch(entry) {
            self.operation.prometheus = on.then_some(entry.spot);
        }
    }

    pub(super) fn prometheus_port(&mut self, entry: &Entry<'_>) {
        self.operation.port = self.port(entry);
    }

    pub(super) fn prometheus_address(&mut self, entry: &Entry<'_>) {
        let ip = self.address(entry, entry.value);
        self.operation.address = ip.map(|value| At { spot: entry.spot, value });
    }

    pub(super) fn prometheus_path(&mut self, entry: &Entry<'_>) {
        self.operation.path = (entry.value != "/metrics").then_some(entry.spot);
    }

    pub(super) fn alternate_server(&mut self, entry: &Entry<'_>) {
        self.alternate(entry, &["udp", "tcp"], 3478);
    }

    pub(super) fn tls_alternate_server(&mut self, entry: &Entry<'_>) {
        self.alternate(entry, &["tls"], 5349);
    }

    pub(super) fn udp_alternate_server(&mut self, entry: &Entry<'_>) {
        self.alternate(entry, &["udp"], 3478);
    }

    pub(super) fn tcp_alternate_server(&mut self, entry: &Entry<'_>) {
        self.alternate(entry, &["tcp"], 3478);
    }

    /// coturn sends every client to one of them, in turn.
    fn alternate(&mut self, entry: &Entry<'_>, transports: &[&str], port: u16) {
        if entry.value.is_empty() {
            return;
        }
        let ip = || entry.value.trim_matches(['[', ']']).parse::<IpAddr>().map(|ip| SocketAddr::new(ip, port));
        match entry.value.parse::<SocketAddr>().or_else(|_| ip()) {
            Ok(address) if is_for_clients(address) => {
                for server in transports.iter().map(|transport| format!("{transport}://{address}")) {
                    if !self.alternates.contains(&server) {
                        self.alternates.push(server);
                    }
                }
                self.note(entry, "every new client of the transport is sent there, as coturn does; share or from-allocations in [redirect] keep some");
            }
            _ => self.invalid(entry, "expected an address, or an address and port"),
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
                self.harmless(entry, "there is no telnet interface; the admin API is on a socket, not on a port");
            }
            Some(false) => {
                self.harmless(entry, "there is no telnet interface; the admin API is on a socket, not on a port")
            }
            None => {}
        }
    }

    /// Without one, coturn does not open its telnet interface.
    pub(super) fn cli_password(&mut self, entry: &Entry<'_>) {
        match entry.value.is_empty() {
            true => self.harmless(entry, "empty: coturn opens no telnet interface then"),
            false => self.operation.cli_password = Some(entry.spot),
        }
    }

    pub(super) fn web_admin(&mut self, entry: &Entry<'_>) {
        self.operation.web_admin = self.switch(entry).unwrap_or(self.operation.web_admin);
        if self.operation.web_admin {
            let message = "page = true shows a page at the admin API's socket ([admin]): ssh -L 9642:/run/turnstone/admin.sock leads a \
                           port to it; users and secrets are changed in turnserver.toml, which `systemctl reload turnstone` applies";
            self.note(entry, message);
        }
    }

    /// Says what becomes of the password, when it is known whether there is an interface that asks for it.
    fn judge_cli_password(&mut self) {
        let Some(spot) = self.operation.cli_password else { return };
        let (kind, grade, message) = match self.has_cli() {
            true => {
                let message = "the admin API stands for the telnet interface, on a socket that the server's user and group may \
                               use without a password; a token (token-file in [admin]) is for a port";
                (FindingKind::NotConverted, Grade::Operation, message)
            }
            false => (FindingKind::Note, Grade::Harmless, "with no-cli it does nothing, in coturn neither"),
        };
        self.find(Some(spot), "cli-password", kind, grade, message);
    }

    pub(super) fn redis_statsdb(&mut self, entry: &Entry<'_>) {
        self.operation.redis_statistics = true;
        let message = "statistics do not go to Redis, and nothing is published there; [usage] records what each allocation uses, in a file \
                       or to a webhook: it stands in the result as a comment; [hook] events tell an application of sessions as they come and go";
        self.lost(entry, message);
    }
}

/// Where metrics are served. `is_taken` says whether a listener has an address over TCP.
pub(super) fn metrics(conf: &mut Conf, is_taken: impl Fn(SocketAddr) -> bool) -> Option<Metrics> {
    conf.judge_cli_password();
    let (port, address, path) = (conf.operation.port.take(), conf.operation.address.take(), conf.operation.path);
    let Some(spot) = conf.operation.prometheus else {
        let parts = [
            (port.map(|at| at.spot), "prometheus-port"),
            (address.map(|at| at.spot), "prometheus-address"),
            (path, "prometheus-path"),
        ];
        for (spot, directive) in parts.into_iter().filter(|(spot, _)| spot.is_some()) {
            let message = "without prometheus it does nothing, in coturn neither";
            conf.find(spot, directive, FindingKind::Note, Grade::Harmless, message);
        }
        return None;
    };
    if path.is_some() {
        let message = "the path is /metrics: change metrics_path in the configuration of Prometheus";
        conf.find(path, "prometheus-path", FindingKind::NotConverted, Grade::Operation, message);
    }
    let port = port.map_or(PROMETHEUS_PORT, |at| at.value);
    let address = address.map(|at| at.value).filter(|ip| !ip.is_unspecified());
    let listen = SocketAddr::new(address.unwrap_or(Ipv4Addr::LOCALHOST.into()), port);
    if is_taken(listen) {
        let message = format!("a listener has {listen} over TCP; choose another port for listen in [metrics]");
        conf.find(Some(spot), "prometheus", FindingKind::NotConverted, Grade::Operation, &message);
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
    let message = format!("[metrics]; the metrics have other names (curl http://{listen}/metrics shows them){reach}");
    conf.find(Some(spot), "prometheus", FindingKind::Note, Grade::Operation, &message);
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
    if !conf.alternates.is_empty() {
        separate(out);
        let servers: Vec<_> = conf.alternates.iter().map(|server| format!("\"{server}\"")).collect();
        writeln!(out, "[redirect]\nalternate-server = [{}]", servers.join(", "))?;
    }
    separate(out);
    out.push_str(ADMIN);
    if conf.operation.web_admin {
        out.push_str(PAGE);
    }
    if conf.operation.redis_statistics {
        separate(out);
        out.push_str(USAGE);
    }
    Ok(())
}

pub(super) fn separate(out: &mut String) {
    if !out.ends_with("\n\n") {
        out.push('\n');
    }
}
