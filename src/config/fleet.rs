//! `[fleet]`: the nodes that are run as one, where they ask each other, and what they show each other for it.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use super::endpoint::Endpoint;
use super::error::ValueError;
use super::secret::AdminToken;
use super::urls::{parse_host, split_port};

/// The port of a node that is named without one.
const PORT: u16 = 9640;

/// The nodes of a fleet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FleetConfig {
    /// What this node is called; its host's name if nobody says.
    pub name: Option<String>,
    /// Where the others ask this one; `None` where it only asks.
    pub listen: Option<Endpoint>,
    /// Whether what goes over the network may do without TLS.
    pub plain_http: bool,
    /// Who they are; this one may be among them.
    pub nodes: Vec<NodeSource>,
    /// What all of them show each other.
    pub token: Option<AdminToken>,
    /// Whom their certificates are trusted by, in place of the system's authorities.
    pub ca: Option<PathBuf>,
    /// The name in their certificates, if it is not the one in each URL.
    pub certificate_name: Option<String>,
}

/// One node, or a name in DNS that says which there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeSource {
    /// One.
    Url(NodeUrl),
    /// The SRV records of a name (RFC 2782), each a node with TLS.
    Srv(SrvName),
}

/// Where a node is asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum NodeUrl {
    /// Over TLS.
    Https {
        /// A name or an address; one of IPv6 has no brackets.
        host: String,
        /// Its port.
        port: u16,
    },
    /// Without.
    Http {
        /// As with TLS.
        host: String,
        /// Its port.
        port: u16,
    },
    /// At a socket in the file system.
    Unix(PathBuf),
}

/// A name such as `_turnstone._tcp.example.org`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SrvName(String);

impl FleetConfig {
    /// More nodes are more than one table, and one page, can show.
    pub const NODES_MAX: usize = 256;
    /// The sockets that asking and being asked may take: each node asked how it is and, by a search, for sessions, and who asks this one.
    pub const SOCKETS_MAX: u64 = 2 * Self::NODES_MAX as u64 + 128;

    /// A fleet of these nodes, and nothing else said of it.
    pub fn of_nodes(nodes: Vec<NodeSource>) -> Self {
        Self { name: None, listen: None, plain_http: false, nodes, token: None, ca: None, certificate_name: None }
    }

    /// A node as `nodes` has it.
    ///
    /// # Errors
    /// Why it is none.
    pub fn parse_node(text: &str) -> Result<NodeSource, ValueError> {
        if text.starts_with('_') {
            return SrvName::parse(text).map(NodeSource::Srv);
        }
        NodeUrl::parse(text).map(NodeSource::Url)
    }

    /// Puts back what only a restart changes: where it listens, and the token.
    pub(super) fn keep_until_restart(new: &mut Option<Self>, running: &Option<Self>) {
        match (new.as_mut(), running) {
            (Some(new), Some(running)) => {
                new.listen.clone_from(&running.listen);
                new.token.clone_from(&running.token);
                new.plain_http = running.plain_http;
            }
            (_, running) => new.clone_from(running),
        }
    }
}

impl NodeUrl {
    fn parse(text: &str) -> Result<Self, ValueError> {
        let wrong = || ValueError::is_not(text, "the URL of a node");
        if let Some(path) = text.strip_prefix("unix:") {
            let path = PathBuf::from(path);
            return if path.is_absolute() { Ok(Self::Unix(path)) } else { Err(wrong()) };
        }
        let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
        // A token in a URL would end up in logs and lists of processes.
        if rest.contains('@') {
            return Err(ValueError::Text("a URL with a user or a password, which belongs into token-file"));
        }
        let (host, port) = split_port(rest.strip_suffix('/').unwrap_or(rest)).ok_or_else(wrong)?;
        let host = parse_host(host)?.trim_matches(['[', ']']).to_ascii_lowercase();
        let port = port.unwrap_or(PORT);
        match scheme {
            "https" => Ok(Self::Https { host, port }),
            "http" => Ok(Self::Http { host, port }),
            _ => Err(wrong()),
        }
    }

    /// The host that a token would go to in the clear over a network.
    pub fn in_the_clear(&self) -> Option<&str> {
        match self {
            Self::Http { host, .. } if !host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()) => Some(host),
            _ => None,
        }
    }

    /// Its host; a socket has none.
    pub fn host(&self) -> &str {
        match self {
            Self::Https { host, .. } | Self::Http { host, .. } => host,
            Self::Unix(_) => "",
        }
    }

    /// Its address, if it has one that is no name.
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Https { host, port } | Self::Http { host, port } => Some(SocketAddr::new(host.parse().ok()?, *port)),
            Self::Unix(_) => None,
        }
    }
}

impl SrvName {
    fn parse(text: &str) -> Result<Self, ValueError> {
        let wrong = || ValueError::is_not(text, "a name of SRV records such as _turnstone._tcp.example.org");
        let name = text.strip_suffix('.').unwrap_or(text);
        let mut labels = name.splitn(3, '.');
        let (service, protocol, domain) = (labels.next(), labels.next(), labels.next());
        let is_service = service.is_some_and(|label| label.len() > 1 && label.starts_with('_'));
        match (is_service, protocol, domain) {
            (true, Some("_tcp"), Some(domain)) if domain.contains('.') => {
                parse_host(name).map_err(|_| wrong())?;
                Ok(Self(name.to_ascii_lowercase()))
            }
            _ => Err(wrong()),
        }
    }

    /// The whole name.
    pub fn name(&self) -> &str {
        &self.0
    }

    /// The domain that it speaks for: the token goes to no host outside of it, whatever the records say.
    pub fn domain(&self) -> &str {
        self.0.splitn(3, '.').nth(2).unwrap_or_default()
    }

    /// Whether a host is in that domain.
    pub fn covers(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        host == self.domain() || host.strip_suffix(self.domain()).is_some_and(|before| before.ends_with('.'))
    }
}

impl fmt::Display for NodeUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, host, port) = match self {
            Self::Https { host, port } => ("https", host, port),
            Self::Http { host, port } => ("http", host, port),
            Self::Unix(path) => return write!(f, "unix:{}", path.display()),
        };
        match host.contains(':') {
            true => write!(f, "{scheme}://[{host}]:{port}"),
            false => write!(f, "{scheme}://{host}:{port}"),
        }
    }
}

impl fmt::Display for NodeSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(url) => url.fmt(f),
            Self::Srv(name) => f.write_str(name.name()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_urls_without_a_path_or_names_of_srv_records() {
        for (text, shown) in [
            ("https://turn1.example.org:9641", "https://turn1.example.org:9641"),
            ("https://Turn1.example.org/", "https://turn1.example.org:9640"),
            ("https://[2001:db8::1]", "https://[2001:db8::1]:9640"),
            ("http://127.0.0.1:1", "http://127.0.0.1:1"),
            ("unix:/run/a.sock", "unix:/run/a.sock"),
            ("_turnstone._tcp.Example.org.", "_turnstone._tcp.example.org"),
        ] {
            assert_eq!(FleetConfig::parse_node(text).unwrap().to_string(), shown);
        }
        for bad in [
            "",
            "turn1.example.org",
            "ftp://a",
            "https://",
            "https://a/v1/status",
            "https://a?b",
            "https://a#b",
            "https://a:0",
            "https://a:99999",
            "unix:a",
            "_turnstone._udp.example.org",
            "_turnstone._tcp",
            "_turnstone._tcp.org",
            "_._tcp.example.org",
            "_a._tcp.exa mple.org",
        ] {
            assert!(FleetConfig::parse_node(bad).is_err(), "{bad}");
        }
        let told = FleetConfig::parse_node("https://hunter2@a").unwrap_err().to_string();
        assert!(!told.contains("hunter2"), "{told}");
    }

    #[test]
    fn a_token_goes_in_the_clear_to_loopback_addresses_alone() {
        let clear = |text: &str| match FleetConfig::parse_node(text).unwrap() {
            NodeSource::Url(url) => url.in_the_clear().map(str::to_owned),
            NodeSource::Srv(_) => None,
        };
        for near in ["http://127.0.0.1", "http://[::1]", "https://a.example", "unix:/a"] {
            assert_eq!(clear(near), None, "{near}");
        }
        // A name may be anybody's, "localhost" as well, where the resolver says so.
        for far in ["http://10.0.0.1", "http://a.example", "http://localhost", "http://127.0.0.1.example"] {
            assert!(clear(far).is_some(), "{far}");
        }
    }

    #[test]
    fn srv_records_lead_to_no_host_outside_of_their_domain() {
        let NodeSource::Srv(name) = FleetConfig::parse_node("_turnstone._tcp.example.org").unwrap() else { panic!() };
        assert!(["example.org", "a.example.org", "A.B.Example.ORG"].iter().all(|host| name.covers(host)));
        assert!(
            ["org", "evilexample.org", "example.org.evil", "", "a.example.org."].iter().all(|host| !name.covers(host))
        );
    }
}
