//! The configuration as values: an immutable snapshot of what `turnserver.toml`, the environment and the flags come to.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use zeroize::Zeroizing;

use crate::addr::{Family, LoggedAddresses, SocketKind, Transport};
use crate::auth::{AccessTokens, Revocation, SharedSecret, Users};
use crate::policy::{BandwidthLimits, GuardLimits, PeerRules, PolicyName, QuotaLimits, RateLimit};
use crate::turn::{Alternates, DefaultFamily, Lifetimes, NatDiscovery, OnExpiry, Redirect, TcpRelays};
use crate::user::RealmId;

use super::acme::Acme;
use super::credentials::CredentialsApi;
use super::endpoint::Endpoint;
use super::finding::{Finding, FoundBy, is_public};
use super::fleet::FleetConfig;
use super::hook::{Hook, HookEvents};
use super::realm::RealmConfig;
use super::secret::{AdminToken, Readers, SecretError, read_key_file};
use super::store::{StoreConfig, StoredSecrets};
use super::usage::Usage;

/// A complete, valid configuration. It is an immutable snapshot; a reload builds another one.
#[derive(Clone, Debug)]
pub struct Config {
    /// Worker threads, at least 1; already resolved to the cores this process may use when the file says 0.
    pub workers: usize,
    /// Where clients reach the server; at least one.
    pub listeners: Vec<Listener>,
    /// Certificate and key; present when a listener is TLS.
    pub tls: Option<TlsFiles>,
    /// Which certificates the server gets for itself; none by default.
    pub acme: Option<Acme>,
    /// Where relayed transport addresses come from.
    pub relay: Relay,
    /// Whether clients may have TCP relays (RFC 6062).
    pub tcp_relays: TcpChoice,
    /// Who may allocate.
    pub auth: Auth,
    /// Further realms, each with its own users and secrets, by their names.
    pub realms: Vec<RealmConfig>,
    /// Peer rules. `own_endpoints`, `own_addresses` and `relay_*` are filled in by [`Config::settings`].
    pub peers: PeerRules,
    /// The rules of the peer policies that have a name; what the server knows of itself is filled in for them, too.
    pub peer_policies: Vec<(PolicyName, PeerRules)>,
    /// Lifetimes in seconds.
    pub lifetimes: Lifetimes,
    /// Allocation quotas.
    pub quota: QuotaLimits,
    /// Which of them follow from the number of relay ports.
    pub quota_shares: QuotaShares,
    /// Bandwidth caps in bytes per second.
    pub bandwidth: BandwidthLimits,
    /// What is taken for abuse.
    pub guard: GuardLimits,
    /// Budget for answers to unauthenticated requests per /24 and /64; `None` is unlimited.
    pub unauthenticated: Option<RateLimit>,
    /// Permissions and channel bindings one allocation may have (each).
    pub max_peers_per_allocation: usize,
    /// Client connections over TCP and TLS.
    pub streams: Streams,
    /// SOFTWARE in responses; none by default.
    pub software: Option<String>,
    /// Logs.
    pub log: Log,
    /// The endpoint for metrics and health; none by default.
    pub metrics: Option<Metrics>,
    /// The admin API; none by default.
    pub admin: Option<Admin>,
    /// The credentials API; none by default.
    pub credentials: Option<CredentialsApi>,
    /// How the server stops.
    pub drain: Drain,
    /// Which new clients are sent to other servers; none by default.
    pub redirect: Option<Arc<Redirect>>,
    /// Who is asked about usernames that nobody configured; nobody by default.
    pub hook: Option<Hook>,
    /// What the servers of a fleet share; nothing by default.
    pub store: Option<StoreConfig>,
    /// The nodes that are run as one; none by default.
    pub fleet: Option<FleetConfig>,
    /// What is told of allocations, and to whom.
    pub hook_events: Option<HookEvents>,
    /// The shared secrets that are there, by their realms: those of a running server.
    pub stored_secrets: Arc<StoredSecrets>,
    /// Records of what each allocation has used; none by default.
    pub usage: Option<Usage>,
    /// Whether TURN is offered, or only STUN Binding.
    pub turn: bool,
    /// Whether channel numbers of RFC 5766 beyond 0x4FFF may be bound.
    pub rfc5766_channel_numbers: bool,
    /// The pairs of addresses for NAT behaviour discovery; none by default.
    pub nat_discovery: Vec<NatDiscovery>,
    /// Whether clients of RFC 3489 are answered.
    pub rfc3489: bool,
    /// Whether clients may keep their allocation when their address changes (RFC 8016).
    pub mobility: bool,
    /// Where the server keeps what has to outlive it, if anywhere.
    pub state_directory: Option<PathBuf>,
    /// Who may read the files that secrets come from.
    pub secret_readers: Readers,
    /// Whether a change of those files is taken for a reload.
    pub follow_secrets: bool,
    /// The files that secrets and users were read from.
    pub secret_files: Vec<PathBuf>,
}

/// One transport at one listening address. Transports that are told apart by their first bytes may have the same address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Address and port; the address may be unspecified, the port is 0 only in tests.
    pub address: SocketAddr,
    /// The transport.
    pub transport: Transport,
    /// What else its table says: one value for all listeners of one `[[listen]]`.
    pub options: Arc<ListenOptions>,
}

impl Listener {
    /// Whether both have the same socket: they are of one table then. A port that is to be chosen is another one for each.
    pub fn shares_socket(&self, other: &Self) -> bool {
        self.address == other.address
            && self.address.port() != 0
            && self.transport.socket_kind() == other.transport.socket_kind()
    }
}

/// What a `[[listen]]` says beside its addresses and transports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListenOptions {
    /// The proxies whose connections begin with a header that says whose they are (PROXY protocol).
    pub proxy_from: Vec<IpNet>,
    /// The relay addresses of its clients, by either half; of a family with none in it, all.
    pub relay: Vec<IpAddr>,
    /// The realm of clients that come in here, if it is not that of `[auth]`.
    pub realm: Option<String>,
    /// The web server that shares the port of the tls listeners.
    pub web: Option<Web>,
    /// Whether no table says it: `[nat-discovery]` has added it.
    pub is_for_discovery: bool,
}

/// A web server that gets the connections that are for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Web {
    /// Where it is, with TLS of its own.
    pub address: SocketAddr,
    /// Whether it gets a header first that says whose connection it is (PROXY protocol).
    pub proxy_header: bool,
    /// Server names that are not the web server's; if there are none, names do not count.
    pub turn_names: Vec<String>,
}

impl ListenOptions {
    /// That realm, as the core knows it.
    pub fn realm_id(&self) -> RealmId {
        self.realm.as_deref().map(RealmId::of).unwrap_or_default()
    }
}

/// PEM files of the TLS listeners.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate chain, the server's own first.
    pub certificate: PathBuf,
    /// The private key: PKCS#8, PKCS#1 or SEC1.
    pub key: PathBuf,
    /// The lowest version offered.
    pub min_version: TlsVersion,
    /// Who may read the key, besides its group.
    pub key_readers: Readers,
    /// The server names that it is for; those of the certificate if there are none.
    pub names: Vec<String>,
    /// Whether the server gets it for itself: there may be none yet.
    pub is_acme: bool,
    /// Further certificates, chosen by the server name that a client asks for.
    pub others: Vec<TlsPair>,
}

/// A further certificate and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsPair {
    /// The certificate chain.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
    /// The server names that it is for; those of the certificate if there are none.
    pub names: Vec<String>,
    /// Whether the server gets it for itself: there may be none yet.
    pub is_acme: bool,
}

impl TlsFiles {
    /// Each certificate by itself; the first one is for clients that ask for none of their names.
    pub fn each(&self) -> Vec<Self> {
        let others = self.others.iter().map(|pair| {
            let TlsPair { certificate, key, names, is_acme } = pair.clone();
            Self { certificate, key, names, is_acme, others: Vec::new(), ..*self }
        });
        std::iter::once(Self { others: Vec::new(), ..self.clone() }).chain(others).collect()
    }

    /// Reads the key's PEM. Its group may read it, as certificate tools arrange; everybody only if the configuration says so.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn read_key(&self) -> Result<Zeroizing<Vec<u8>>, SecretError> {
        read_key_file(&self.key, self.key_readers)
    }
}

/// TCP relays (RFC 6062).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpChoice {
    /// Whether clients may have them.
    pub is_offered: bool,
    /// How many connections with peers.
    pub limits: TcpRelays,
}

/// A TLS version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246).
    #[default]
    Tls12,
    /// TLS 1.3 (RFC 8446).
    Tls13,
}

/// Where relayed transport addresses come from. At least one address is present, or may come to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Relay {
    /// The relay addresses, each once, IPv4 before IPv6 and each family in its written order.
    pub addresses: Vec<RelayAddress>,
    /// The families whose address is `"auto"`: it is the host's, and follows it while the server runs.
    pub auto: Vec<Family>,
    /// What stands for an address outside: `external-ip`.
    pub externals: Vec<ExternalIp>,
    /// How what stands for the others is found.
    pub finding: Finding,
    /// What has been found, one of a family.
    pub found: Vec<IpAddr>,
    /// Addresses of this host whose public ones are not known yet.
    pub waiting: Vec<IpAddr>,
    /// Which of several addresses of a family an allocation gets.
    pub choice: RelayChoice,
    /// The family of clients that name none.
    pub default_family: DefaultFamily,
    /// Relay ports, inclusive at both ends.
    pub ports: (u16, u16),
    /// Whether allocations share them.
    pub shared: bool,
}

/// Most relay addresses of one family: a datagram is compared with each.
pub(super) const RELAY_ADDRESSES_MAX: usize = 16;

impl Relay {
    /// The relay addresses of a family.
    pub fn of(&self, family: Family) -> impl Iterator<Item = RelayAddress> {
        self.addresses.iter().copied().filter(move |address| Family::of(address.bind) == family)
    }

    /// Whether the address of a family is looked for on the host, and not written down.
    pub fn is_auto(&self, family: Family) -> bool {
        self.auto.contains(&family)
    }

    /// The addresses of this host that relays of a family are bound to, or will be once their public ones are known.
    pub fn binds(&self, family: Family) -> impl Iterator<Item = IpAddr> {
        let waiting = self.waiting.iter().copied().filter(move |bind| Family::of(*bind) == family);
        self.of(family).map(|address| address.bind).chain(waiting)
    }

    /// The addresses of this host whose public ones are looked for.
    pub fn sought(&self, family: Family) -> impl Iterator<Item = IpAddr> {
        let is_settled =
            |bind: IpAddr| self.finding.by.is_none() || self.written(bind).is_some() || self.is_its_own(bind);
        self.binds(family).filter(move |bind| !is_settled(*bind))
    }

    /// The relay address that an address of the host makes, if its public one is known.
    pub fn at(&self, bind: IpAddr) -> Option<RelayAddress> {
        let found = || self.found.iter().copied().find(|found| found.is_ipv4() == bind.is_ipv4());
        let external = match self.written(bind) {
            Some(external) => external.ip,
            None if self.finding.by.is_none() || self.is_its_own(bind) => bind,
            None => found()?,
        };
        Some(RelayAddress { bind, external })
    }

    /// What `external-ip` has written for an address of the host.
    pub fn written(&self, bind: IpAddr) -> Option<ExternalIp> {
        let of_family = || self.externals.iter().filter(|external| external.ip.is_ipv4() == bind.is_ipv4());
        let paired = of_family().find(|external| external.bind == Some(bind));
        paired.or_else(|| of_family().find(|external| external.bind.is_none())).copied()
    }

    /// Whether an address of the host needs no other one outside.
    fn is_its_own(&self, bind: IpAddr) -> bool {
        self.finding.by == Some(FoundBy::Auto) && is_public(bind)
    }

    /// Takes the address that a family has now, which is looked for on the host.
    pub fn set_auto(&mut self, family: Family, bind: Option<IpAddr>) {
        self.set_binds(family, bind);
    }

    /// Takes the public address of a family that has been found.
    pub fn set_found(&mut self, family: Family, ip: Option<IpAddr>) {
        self.found.retain(|found| Family::of(*found) != family);
        self.found.extend(ip);
        let binds: Vec<_> = self.binds(family).collect();
        self.set_binds(family, binds);
    }

    fn set_binds(&mut self, family: Family, binds: impl IntoIterator<Item = IpAddr>) {
        self.addresses.retain(|address| Family::of(address.bind) != family);
        self.waiting.retain(|bind| Family::of(*bind) != family);
        for bind in binds {
            match self.at(bind) {
                Some(address) => self.addresses.push(address),
                None => self.waiting.push(bind),
            }
        }
        self.addresses.sort_by_key(|address| !address.bind.is_ipv4());
    }

    /// How many ports a family has over all of its addresses: the family that has fewest.
    pub fn ports_of_family(&self) -> u32 {
        let counts = Family::ALL.map(|family| self.of(family).count());
        let fewest = counts.into_iter().filter(|count| *count > 0).min().unwrap_or(1);
        self.ports_of_address().saturating_mul(u32::try_from(fewest).unwrap_or(u32::MAX))
    }

    /// How many allocations of a family have room, as far as ports go. Shared ones are as good as a whole range.
    pub fn room(&self) -> u32 {
        const AS_GOOD_AS: u32 = 16_384;
        if self.shared { AS_GOOD_AS } else { self.ports_of_family() }
    }

    /// How many ports each address has.
    pub fn ports_of_address(&self) -> u32 {
        let (low, high) = self.ports;
        u32::from(high.saturating_sub(low)) + 1
    }
}

/// Which of several relay addresses of a family an allocation gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RelayChoice {
    /// The one with most free ports.
    #[default]
    LeastUsed,
    /// The one that the client has reached the server at, if it is one of them; else that with most free ports.
    Reached,
}

/// A public address, and the one of this host that it stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExternalIp {
    /// What clients and peers see.
    pub ip: IpAddr,
    /// The address of this host; `None` is the only one of the family.
    pub bind: Option<IpAddr>,
}

impl fmt::Display for ExternalIp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.bind {
            Some(bind) => write!(f, "{}/{bind}", self.ip),
            None => self.ip.fmt(f),
        }
    }
}

/// One relay address: never unspecified, because XOR-RELAYED-ADDRESS must be real.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayAddress {
    /// The address relay sockets are bound to.
    pub bind: IpAddr,
    /// The address clients and peers see: `bind` unless `external-ip` says otherwise.
    pub external: IpAddr,
}

/// Who may allocate.
#[derive(Clone, Debug)]
pub struct Auth {
    /// The realm (RFC 8489 section 9.2).
    pub realm: String,
    /// Shared secrets of time-limited credentials; each is tried in turn, the first one mints.
    pub secrets: Vec<SharedSecret>,
    /// Whether limits in time-limited usernames are read.
    pub username_limits: bool,
    /// How far ahead a time-limited credential may expire, in any realm; `None` is without limit.
    pub credential_lifetime_max: Option<Duration>,
    /// The file that lists what is revoked, in any realm.
    pub revocations_file: Option<PathBuf>,
    /// What it lists.
    pub revocations: Arc<[Revocation]>,
    /// Static users.
    pub users: Arc<Users>,
    /// Whose access tokens are taken (RFC 7635).
    pub tokens: AccessTokens,
    /// The server names (SNI) that lead into this realm whatever the listener's is.
    pub server_names: Vec<String>,
    /// What becomes of allocations whose credential expired.
    pub on_expiry: OnExpiry,
    /// What nonces are made with, if servers share it; else each start makes another one.
    pub nonce_key: Option<Zeroizing<[u8; 32]>>,
    /// How long a nonce is fresh.
    pub nonce_lifetime_secs: u32,
    /// The host name or address in printed URLs.
    pub public_host: Option<String>,
    /// The URLs of its credentials, in place of what follows from the listeners.
    pub urls: Vec<String>,
}

/// How many sockets a configuration may need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WantedSockets {
    /// Listeners, and what the workers wait with.
    pub listeners: u64,
    /// Relays, each a port.
    pub relays: u64,
    /// Client connections over TCP and TLS.
    pub connections: u64,
    /// Connections with peers of TCP relays, each of which has a client's.
    pub peers: u64,
    /// Connections with web servers that share a port, each of which has a client's.
    pub web: u64,
}

impl Config {
    /// Whether there is a listener for DTLS.
    pub fn has_dtls_listener(&self) -> bool {
        self.listeners.iter().any(|listener| listener.transport == Transport::Dtls)
    }

    pub(super) fn has_tls_listener(&self) -> bool {
        self.listeners.iter().any(|listener| listener.transport.is_encrypted())
    }

    /// The sockets that all of it may need.
    pub fn wanted_sockets(&self) -> WantedSockets {
        // An address that is waited for has relays one day.
        let addresses = ((self.relay.addresses.len() + self.relay.waiting.len()) as u64).max(1);
        let ports = u64::from(self.relay.ports_of_address());
        let has_streams = self.listeners.iter().any(|listener| listener.transport.socket_kind() == SocketKind::Tcp);
        let has_web = self.listeners.iter().any(|listener| listener.options.web.is_some());
        let connections = if has_streams { self.streams.connections_max as u64 } else { 0 };
        WantedSockets {
            // Each worker waits with two descriptors, and is woken by another one.
            listeners: self.workers as u64 * (self.listeners.len() as u64 + 3)
                + if self.credentials.is_some() { CredentialsApi::SOCKETS_MAX } else { 0 }
                + if self.fleet.is_some() { FleetConfig::SOCKETS_MAX } else { 0 }
                + self.hook.as_ref().map_or(0, |hook| hook.concurrency as u64)
                + self.hook_events.as_ref().map_or(0, |events| events.concurrency as u64)
                + self.acme.as_ref().map_or(0, |acme| {
                    let http = if acme.challenges.http.is_some() { Acme::HTTP_SOCKETS_MAX } else { 0 };
                    http + Acme::REQUEST_SOCKETS_MAX
                })
                + if self.store.is_some() { StoreConfig::SOCKETS_MAX } else { 0 },
            relays: if self.turn { ports * addresses } else { 0 },
            connections,
            peers: if self.turn && self.tcp_relays.is_offered { connections } else { 0 },
            web: if has_web { connections.div_ceil(2) } else { 0 },
        }
    }
}

/// Which quotas of one user are shares of the relay ports ([`QuotaLimits::for_ports`]), because nobody has said otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QuotaShares {
    /// Allocations.
    pub per_user: bool,
    /// Reserved ports.
    pub reservations: bool,
}

impl QuotaShares {
    /// Works out those that are shares.
    pub(super) fn apply(self, quota: &mut QuotaLimits, relay: &Relay) {
        let shares = QuotaLimits::for_ports(relay.room());
        if self.per_user {
            quota.per_user = shares.per_user;
        }
        if self.reservations {
            quota.reservations_per_user = shares.reservations_per_user;
        }
    }
}

/// Client connections over TCP and TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Streams {
    /// How old data that waits for a slow client may get before the oldest is dropped.
    pub queue: Duration,
    /// How many bytes may wait for one client.
    pub queue_bytes_max: usize,
    /// A connection without an allocation is closed after so long without a message.
    pub idle_timeout: Duration,
    /// A TLS handshake, and the first message, must be complete within this.
    pub handshake_timeout: Duration,
    /// A connection is closed when it has had no allocation for so long, whatever else it asks for.
    pub allocation_timeout: Duration,
    /// Connections over all workers.
    pub connections_max: usize,
    /// Connections per IPv4 address or IPv6 /64; `None` is unlimited.
    pub connections_per_ip_max: Option<usize>,
    /// Connections without an allocation per IPv4 /24 or IPv6 /48; `None` is unlimited.
    pub unallocated_per_network_max: Option<usize>,
}

/// Logs, on standard error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// Text or JSON.
    pub format: LogFormat,
    /// A level, or the directives of `tracing-subscriber`'s `EnvFilter`.
    pub filter: String,
    /// Where it goes.
    pub output: LogOutput,
    /// How much of clients' and peers' addresses is in it.
    pub addresses: LoggedAddresses,
}

/// Which stream the log goes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogOutput {
    /// Standard error.
    #[default]
    Stderr,
    /// Standard output.
    Stdout,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// One line for a human.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// The endpoint for metrics and health.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// Where it listens.
    pub listen: Endpoint,
    /// Whether it may listen on other addresses than loopback.
    pub allow_remote: bool,
}

/// The admin API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// Where it listens: a socket in the file system, or a port on loopback.
    pub listen: Endpoint,
    /// What a client must show; there always is one for a port.
    pub token: Option<AdminToken>,
    /// Whether it shows the page.
    pub page: bool,
    /// Where browsers see the page by a proxy that ends TLS: `https://ops.example.org`.
    pub page_origins: Vec<String>,
}

/// How the server stops.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Drain {
    /// How long allocations may live on after SIGTERM; zero ends them at once.
    pub deadline: Duration,
    /// Where clients are sent meanwhile.
    pub alternates: Alternates,
}

/// What the server learns of itself at the start, for the peer rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnAddresses {
    /// Listeners, the metrics endpoint and the admin API as bound.
    pub endpoints: Vec<SocketAddr>,
    /// The host's interface addresses.
    pub addresses: Vec<IpAddr>,
    /// Networks of which every address is delivered to the host.
    pub networks: Vec<IpNet>,
    /// Relay addresses from before the present ones, at which allocations live on.
    pub earlier_relays: Vec<RelayAddress>,
}
