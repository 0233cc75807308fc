//! `[store]`: the Redis or Valkey that the servers of a fleet share.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use zeroize::Zeroizing;

use crate::auth::{AskPolicy, SharedSecret};
use crate::policy::WithoutShare;

use super::error::ValueError;
use super::hook::ask_policy;
use super::secret::{Readers, SecretError, read_key_file};
use super::urls::{parse_host, split_port};
use super::value::Choices;

const PASSWORD_BYTES_MAX: usize = 4096;
const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

/// The store, and how it is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreConfig {
    /// Where it is.
    pub url: StoreUrl,
    /// The password of the URL's user, or of the default one.
    pub password: Option<StorePassword>,
    /// Whom a store with TLS is trusted by, in place of the system's authorities.
    pub ca: Option<PathBuf>,
    /// The certificate that this server shows to the store.
    pub certificate: Option<StoreCertificate>,
    /// What its keys begin with.
    pub prefix: String,
    /// What this server is called there; its host's name if nobody says.
    pub node: Option<String>,
    /// How long one command may take.
    pub timeout: Duration,
    /// How quotas over the fleet are kept while it cannot be reached.
    pub on_loss: WithoutShare,
    /// How long a server's share of them is good that it does not renew.
    pub lease: Duration,
    /// How it has secrets and users.
    pub layout: StoreLayout,
    /// Whether it is asked about usernames that nobody configured.
    pub users: bool,
    /// How long such a user is used before he is asked about again.
    pub known_for: Duration,
    /// How long a name is known to be nobody's.
    pub unknown_for: Duration,
}

/// How a store has secrets and users.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StoreLayout {
    /// As docs/store.md says.
    #[default]
    Own,
    /// As coturn's `redis-userdb` does.
    Coturn,
}

impl StoreLayout {
    /// As they are written.
    pub(super) const NAMES: &Choices<Self> = &[("turnstone", Self::Own), ("coturn", Self::Coturn)];

    /// As it is written.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, layout)| *layout == self).map_or("", |(name, _)| name)
    }
}

/// The shared secrets of a store, by their realms.
pub type StoredSecrets = BTreeMap<String, Vec<SharedSecret>>;

/// What is granted of quotas over the fleet while the store cannot be reached.
pub(super) const ON_LOSS: &Choices<WithoutShare> =
    &[("local-share", WithoutShare::LocalShare), ("refuse", WithoutShare::Refuse), ("allow", WithoutShare::Allow)];

/// A certificate and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreCertificate {
    /// PEM, the whole chain.
    pub certificate: PathBuf,
    /// PEM.
    pub key: PathBuf,
    /// Who may read the key's file.
    pub key_readers: Readers,
}

impl StoreCertificate {
    /// Reads the key's PEM.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn read_key(&self) -> Result<Zeroizing<Vec<u8>>, SecretError> {
        read_key_file(&self.key, self.key_readers)
    }
}

/// Where the store is. There is no password in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreUrl {
    /// As written.
    text: String,
    /// What answers there.
    pub place: StorePlace,
    /// Whether it is spoken to over TLS.
    pub tls: bool,
    /// The user of its access control list.
    pub user: Option<String>,
    /// The number of the database.
    pub database: u32,
}

/// Hosts and ports; an IPv6 address has no brackets.
pub type HostPort = (String, u16);

/// What answers at a store's URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StorePlace {
    /// One server.
    One(HostPort),
    /// One server, at a socket in the file system.
    Unix(PathBuf),
    /// Sentinels, which know the server that has the role of the primary now.
    Sentinel {
        /// Each of them.
        sentinels: Vec<HostPort>,
        /// What they call it.
        name: String,
    },
    /// Some nodes of a cluster, which know the others.
    Cluster(Vec<HostPort>),
}

impl StoreUrl {
    /// Reads a URL.
    ///
    /// # Errors
    /// Why it is none.
    pub(super) fn parse(text: &str) -> Result<Self, ValueError> {
        // Nothing before an `@` is repeated: there may be a password.
        let shown = text.rsplit_once('@').map_or(text, |(_, rest)| rest);
        let wrong = || ValueError::is_not(shown, "such a URL");
        let url = |place, tls, user: Option<&str>, database| Self {
            text: text.to_owned(),
            place,
            tls,
            user: user.map(str::to_owned),
            database,
        };
        if let Some(path) = text.strip_prefix("unix:") {
            let path = PathBuf::from(path);
            return if path.is_absolute() { Ok(url(StorePlace::Unix(path), false, None, 0)) } else { Err(wrong()) };
        }
        let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
        let (tls, kind) = match scheme {
            "redis" | "valkey" => (false, "one"),
            "rediss" | "valkeys" => (true, "one"),
            "redis-sentinel" | "valkey-sentinel" => (false, "sentinel"),
            "rediss-sentinel" | "valkeys-sentinel" => (true, "sentinel"),
            "redis-cluster" | "valkey-cluster" => (false, "cluster"),
            "rediss-cluster" | "valkeys-cluster" => (true, "cluster"),
            _ => return Err(ValueError::is_not(scheme, "a scheme that is offered")),
        };
        let (user, rest) = rest.rsplit_once('@').map_or((None, rest), |(user, rest)| (Some(user), rest));
        if user.is_some_and(|user| user.contains(':')) {
            return Err(ValueError::Text("a URL with a password, which belongs into password-file"));
        }
        let is_name = |name: &str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'%');
        if user.is_some_and(|user| !is_name(user)) || rest.contains(['?', '#', '%']) {
            return Err(wrong());
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let default_port = if kind == "sentinel" { SENTINEL_PORT } else { PORT };
        let hosts = authority.split(',').map(|host| host_and_port(host, default_port)).collect::<Option<Vec<_>>>();
        let hosts = hosts.ok_or_else(wrong)?;
        let number = |text: &str| if text.is_empty() { Some(0) } else { text.parse().ok() };
        let (place, database) = match (kind, hosts.as_slice()) {
            ("one", [host]) => (StorePlace::One(host.clone()), number(path).ok_or_else(wrong)?),
            ("sentinel", [_, ..]) => {
                let (name, database) = path.split_once('/').unwrap_or((path, ""));
                if !is_name(name) {
                    return Err(ValueError::lacks(shown, "name of what the sentinels watch, such as /mymaster"));
                }
                let place = StorePlace::Sentinel { sentinels: hosts, name: name.to_owned() };
                (place, number(database).ok_or_else(wrong)?)
            }
            ("cluster", [_, ..]) if path.is_empty() => (StorePlace::Cluster(hosts), 0),
            _ => return Err(wrong()),
        };
        Ok(url(place, tls, user, database))
    }

    /// The addresses in it that are no names.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        let hosts: &[HostPort] = match &self.place {
            StorePlace::One(host) => std::slice::from_ref(host),
            StorePlace::Unix(_) => &[],
            StorePlace::Sentinel { sentinels, .. } => sentinels,
            StorePlace::Cluster(nodes) => nodes,
        };
        hosts.iter().filter_map(|(host, port)| Some(SocketAddr::new(host.parse::<IpAddr>().ok()?, *port)))
    }

    /// A host that is reached in the clear over a network.
    pub(super) fn in_the_clear(&self) -> Option<&str> {
        let hosts: &[HostPort] = match &self.place {
            StorePlace::One(host) => std::slice::from_ref(host),
            StorePlace::Unix(_) => &[],
            StorePlace::Sentinel { sentinels: hosts, .. } | StorePlace::Cluster(hosts) => hosts,
        };
        let is_near = |host: &str| host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        hosts.iter().map(|(host, _)| host.as_str()).find(|host| !self.tls && !is_near(host))
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn host_and_port(text: &str, default_port: u16) -> Option<HostPort> {
    let (host, port) = split_port(text)?;
    let host = parse_host(host).ok()?;
    Some((host.trim_matches(['[', ']']).to_owned(), port.unwrap_or(default_port)))
}

/// The store's password. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct StorePassword(Zeroizing<String>);

impl StorePassword {
    /// A password of these bytes; `None` if it can be none.
    pub(super) fn new(bytes: &[u8]) -> Option<Self> {
        let is_fit = matches!(bytes.len(), 1..=PASSWORD_BYTES_MAX);
        let text = std::str::from_utf8(bytes).ok().filter(|_| is_fit)?;
        Some(Self(Zeroizing::new(text.to_owned())))
    }

    /// The password, for the store.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for StorePassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StorePassword(..)")
    }
}

impl StoreConfig {
    /// Connections with it, each node of a cluster twice, and files that are read.
    pub(super) const SOCKETS_MAX: u64 = 32;

    /// How requests wait for it.
    pub fn policy(&self) -> AskPolicy {
        let mut policy = ask_policy(self.timeout, self.known_for, self.unknown_for);
        policy.md5_only = self.layout == StoreLayout::Coturn;
        policy
    }

    /// Puts back what only a restart changes: everything but the password.
    pub(super) fn keep_until_restart(new: &mut Option<Self>, running: &Option<Self>) {
        let both = new.as_ref().zip(running.as_ref());
        let password = both.filter(|(new, running)| new.url == running.url).map(|(new, _)| new.password.clone());
        new.clone_from(running);
        if let (Some(password), Some(store)) = (password, new) {
            store.password = password;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_of_servers_sentinels_and_clusters() {
        let host = |host: &str, port| (host.to_owned(), port);
        let read = |text: &str| {
            let StoreUrl { place, tls, user, database, .. } = StoreUrl::parse(text).unwrap();
            (place, tls, user, database)
        };
        let one = |of| StorePlace::One(of);
        assert_eq!(read("redis://localhost"), (one(host("localhost", 6379)), false, None, 0));
        let with_user = (one(host("a.example", 7)), true, Some("turnstone".to_owned()), 2);
        assert_eq!(read("rediss://turnstone@a.example:7/2"), with_user);
        assert_eq!(read("valkey://[::1]:6380/"), (one(host("::1", 6380)), false, None, 0));
        assert_eq!(read("unix:/run/redis.sock"), (StorePlace::Unix("/run/redis.sock".into()), false, None, 0));
        let sentinels = vec![host("a", 26379), host("b", 5)];
        let sentinel = StorePlace::Sentinel { sentinels, name: "mymaster".to_owned() };
        assert_eq!(read("redis-sentinel://a,b:5/mymaster/3"), (sentinel, false, None, 3));
        let cluster = StorePlace::Cluster(vec![host("a", 1), host("b", 6379)]);
        assert_eq!(read("rediss-cluster://u@a:1,b"), (cluster, true, Some("u".to_owned()), 0));
    }

    #[test]
    fn what_is_no_url_is_refused_and_a_password_in_one_is_not_repeated() {
        for bad in [
            "",
            "redis:",
            "http://a",
            "redis://",
            "redis://a,b",
            "redis://a/x",
            "redis://a/1?protocol=3",
            "redis://@a",
            "redis://u:hunter2@a",
            "redis://:hunter2@a",
            "redis-sentinel://a",
            "redis-sentinel://a/m/x",
            "redis-cluster://a/1",
            "redis://a:0",
            "unix:redis.sock",
        ] {
            let told = StoreUrl::parse(bad).unwrap_err().to_string();
            assert!(!told.contains("hunter2"), "{told}");
        }
        assert!(!format!("{:?}", StorePassword::new(b"hunter2").unwrap()).contains("hunter2"));
    }

    #[test]
    fn a_store_beyond_this_host_is_in_the_clear_without_tls() {
        let of = |text: &str| StoreUrl::parse(text).unwrap().in_the_clear().map(str::to_owned);
        assert_eq!(of("redis://127.0.0.1"), None);
        assert_eq!(of("rediss://a.example"), None);
        assert_eq!(of("redis-cluster://localhost,a.example").as_deref(), Some("a.example"));
        let addresses: Vec<_> = StoreUrl::parse("redis-cluster://192.0.2.1:7,a").unwrap().addresses().collect();
        assert_eq!(addresses, ["192.0.2.1:7".parse().unwrap()]);
    }
}
