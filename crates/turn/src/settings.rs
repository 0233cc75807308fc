//! The configuration snapshot the core works by, and what all workers share.

use std::net::IpAddr;
use std::sync::Arc;

use crate::addr::Family;
use crate::auth::{Credentials, Revocations};
use crate::policy::{
    AnswerBudgets, BandwidthLimits, Guard, GuardLimits, PeerAcl, PeerPolicies, QuotaLimits, Quotas, RateLimit,
    UserBandwidths,
};

use super::connection_ids::ConnectionIds;
use super::discovery::NatDiscovery;
use super::realm::{OnExpiry, Realm};
use super::redirect::{Redirect, RelayedRate};
use super::retransmit::DigestKey;
use super::server_names::ServerNames;
use super::ticket::TicketKey;
use crate::user::{RealmId, User};

/// Lifetimes in seconds (RFC 8656 sections 7.2, 9 and 12).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    /// Allocation lifetime when the client asks for none or less. Default 600.
    pub allocation_default_secs: u32,
    /// The longest allocation lifetime granted. Default 3600.
    pub allocation_max_secs: u32,
    /// Permission lifetime, 300 by the RFC.
    pub permission_secs: u32,
    /// Channel binding lifetime, 600 by the RFC.
    pub channel_secs: u32,
}

impl Default for Lifetimes {
    fn default() -> Self {
        Self { allocation_default_secs: 600, allocation_max_secs: 3600, permission_secs: 300, channel_secs: 600 }
    }
}

/// The address family of a relay for a client that names none (no REQUESTED-ADDRESS-FAMILY).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DefaultFamily {
    /// Always this one. IPv4 is what RFC 8656 section 7.2 says.
    Always(Family),
    /// That of the client's own address, if there are relays of it; IPv4 otherwise.
    AsClient,
}

impl Default for DefaultFamily {
    fn default() -> Self {
        Self::Always(Family::V4)
    }
}

/// Permissions and channel bindings of one allocation, where nobody says otherwise: more than any conference needs.
const PEERS_PER_ALLOCATION_MAX: usize = 128;

/// TCP relays (RFC 6062), where they are offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpRelays {
    /// Connections to peers that one allocation may have, those included that have just failed. 32 by default.
    pub connections_per_allocation: usize,
    /// The same of all allocations of a user, on all workers. 128 by default.
    pub connections_per_user: usize,
}

impl Default for TcpRelays {
    fn default() -> Self {
        Self { connections_per_allocation: 32, connections_per_user: 128 }
    }
}

/// One immutable snapshot: who may do what. A reload builds a new one and hands it to every worker's [`Server`](super::Server).
#[derive(Clone, Debug)]
pub struct Settings {
    /// The default realm.
    pub(super) realm: Realm,
    /// The others, by their ids.
    realms: Vec<Realm>,
    realm_by_server_name: ServerNames<RealmId>,
    pub(super) peer_policies: Arc<PeerPolicies>,
    pub(super) lifetimes: Lifetimes,
    pub(super) guard: GuardLimits,
    pub(super) unauthenticated: Option<RateLimit>,
    pub(super) max_peers_per_allocation: usize,
    pub(super) rfc5766_channel_numbers: bool,
    pub(super) nat_discovery: Vec<NatDiscovery>,
    pub(super) rfc3489: bool,
    pub(super) tcp_relays: Option<TcpRelays>,
    pub(super) software: Option<String>,
    pub(super) turn: bool,
    pub(super) default_family: DefaultFamily,
    pub(super) mobility: bool,
    pub(super) redirect: Option<Arc<Redirect>>,
}

impl Settings {
    /// Who may allocate, and which peers may be reached, must be said; the rest has defaults that are safe on the Internet.
    pub fn builder(credentials: Arc<Credentials>, peer_acl: Arc<PeerAcl>) -> SettingsBuilder {
        let (first_port, last_port) = peer_acl.rules().relay_ports;
        let ports = u32::from(last_port.saturating_sub(first_port)) + 1;
        let of_family = |is: fn(&IpAddr) -> bool| peer_acl.rules().relay_addresses.iter().filter(|ip| is(ip)).count();
        let addresses = [of_family(IpAddr::is_ipv4), of_family(IpAddr::is_ipv6)];
        let addresses = addresses.into_iter().filter(|count| *count > 0).min().unwrap_or(1);
        let ports = ports.saturating_mul(u32::try_from(addresses).unwrap_or(u32::MAX));
        let realm = Realm {
            credentials,
            quota: QuotaLimits::for_ports(ports),
            bandwidth: BandwidthLimits::default(),
            on_expiry: OnExpiry::default(),
            peer_policy: None,
            server_names: Vec::new(),
            counts: Arc::default(),
        };
        SettingsBuilder(Self {
            realm,
            realms: Vec::new(),
            realm_by_server_name: ServerNames::default(),
            peer_policies: Arc::new(PeerPolicies::new(peer_acl)),
            lifetimes: Lifetimes::default(),
            guard: GuardLimits::default(),
            unauthenticated: Some(RateLimit::default()),
            max_peers_per_allocation: PEERS_PER_ALLOCATION_MAX,
            rfc5766_channel_numbers: false,
            nat_discovery: Vec::new(),
            rfc3489: false,
            tcp_relays: None,
            software: None,
            turn: true,
            default_family: DefaultFamily::default(),
            mobility: false,
            redirect: None,
        })
    }

    /// Who may allocate in the default realm.
    pub fn credentials(&self) -> &Arc<Credentials> {
        &self.realm.credentials
    }

    /// The default realm.
    pub fn default_realm(&self) -> &Realm {
        &self.realm
    }

    /// The realms beside the default one.
    pub fn realms(&self) -> &[Realm] {
        &self.realms
    }

    /// The realm that a server name chooses: a client that has asked for it in a handshake comes in by that realm.
    pub fn realm_by_server_name(&self, name: &str) -> Option<RealmId> {
        self.realm_by_server_name.get(name).copied()
    }

    /// The realm that a client has come in by: the default one if it is no more.
    #[inline]
    pub(super) fn realm_of(&self, client: RealmId) -> &Realm {
        if client == RealmId::DEFAULT {
            return &self.realm;
        }
        let found = self.realms.binary_search_by_key(&client, Realm::id);
        found.ok().and_then(|at| self.realms.get(at)).unwrap_or(&self.realm)
    }

    /// Whether there are other realms than that of `[auth]`.
    pub fn has_realms(&self) -> bool {
        !self.realms.is_empty()
    }

    /// The name of a realm, by what clients know it by; `None` if it is no more.
    pub fn realm_name(&self, id: RealmId) -> Option<&str> {
        let realm = self.realm_of(id);
        (realm.id() == id).then(|| realm.credentials.realm())
    }

    /// Whether somebody is asked about the users of the realm of this name.
    pub(super) fn asks_in(&self, name: &str) -> bool {
        let mut realms = std::iter::once(&self.realm).chain(&self.realms);
        realms.any(|realm| realm.credentials.realm() == name && realm.credentials.asks().is_some())
    }

    /// The quotas of a realm's users: its own, and that of the whole server.
    pub(super) fn quota_in(&self, realm: &Realm) -> QuotaLimits {
        QuotaLimits { total: self.realm.quota.total, ..realm.quota }
    }

    /// The realm that a user is one of; `None` if it is no more.
    pub(super) fn realm_of_user(&self, user: &User) -> Option<&Realm> {
        let Some(name) = user.realm() else { return Some(&self.realm) };
        Some(self.realm_of(RealmId::of(name))).filter(|realm| realm.is_of(user))
    }

    /// What is taken for abuse.
    pub fn guard(&self) -> &GuardLimits {
        &self.guard
    }

    /// Which peers may be reached, by default.
    pub fn peer_acl(&self) -> &Arc<PeerAcl> {
        self.peer_policies.default_policy()
    }

    /// The policies that say which peers may be reached.
    pub fn peer_policies(&self) -> &Arc<PeerPolicies> {
        &self.peer_policies
    }

    /// The same settings with other peer policies, for when the host's addresses have changed.
    pub fn with_peer_policies(&self, peer_policies: Arc<PeerPolicies>) -> Self {
        Self { peer_policies, ..self.clone() }
    }

    /// The same settings with other servers to send clients to, likewise.
    #[must_use]
    pub fn with_redirect(mut self, redirect: Option<Arc<Redirect>>) -> Self {
        self.redirect = redirect;
        self
    }

    /// Goes on counting where the settings before have stopped: a realm is the same if its name is.
    #[must_use]
    pub fn counting_on(mut self, before: &Self) -> Self {
        for realm in std::iter::once(&mut self.realm).chain(&mut self.realms) {
            let of_before = match realm.id() {
                RealmId::DEFAULT => Some(&before.realm),
                id => Some(before.realm_of(id)).filter(|before| before.id() == id),
            };
            if let Some(of_before) = of_before.filter(|of| of.credentials.realm() == realm.credentials.realm()) {
                realm.counts = Arc::clone(&of_before.counts);
            }
        }
        self
    }
}

/// Builds [`Settings`]; see [`Settings::builder`].
#[derive(Clone, Debug)]
pub struct SettingsBuilder(Settings);

impl SettingsBuilder {
    /// Another realm. Of two of the same name, or with the same server name, the later one counts.
    pub fn realm(mut self, realm: Realm) -> Self {
        let settings = &mut self.0;
        for name in &realm.server_names {
            settings.realm_by_server_name.entry(name).insert_entry(realm.id());
        }
        match settings.realms.binary_search_by_key(&realm.id(), Realm::id) {
            Ok(at) => settings.realms.splice(at..=at, [realm]).for_each(drop),
            Err(at) => settings.realms.insert(at, realm),
        }
        self
    }

    /// The server names that choose the default realm, as [`Realm::server_names`] do another one.
    pub fn server_names(mut self, names: &[String]) -> Self {
        for name in names {
            self.0.realm_by_server_name.entry(name).insert_entry(RealmId::DEFAULT);
        }
        self
    }

    /// Policies beside the default one, which credentials can name. None by default.
    pub fn peer_policies(mut self, policies: PeerPolicies) -> Self {
        self.0.peer_policies = Arc::new(policies);
        self
    }

    /// Lifetimes of allocations, permissions and channels. Those of RFC 8656 by default.
    pub fn lifetimes(mut self, lifetimes: Lifetimes) -> Self {
        self.0.lifetimes = lifetimes;
        self
    }

    /// What becomes of allocations whose credential has expired. They are kept by default.
    pub fn on_expiry(mut self, on_expiry: OnExpiry) -> Self {
        self.0.realm.on_expiry = on_expiry;
        self
    }

    /// Allocation quotas. By default those of [`QuotaLimits::for_ports`], for the relay ports in the peer policy:
    /// one allocation a user if that names none.
    pub fn quota(mut self, quota: QuotaLimits) -> Self {
        self.0.realm.quota = quota;
        self
    }

    /// Bandwidth caps. None by default.
    pub fn bandwidth(mut self, bandwidth: BandwidthLimits) -> Self {
        self.0.realm.bandwidth = bandwidth;
        self
    }

    /// What is taken for abuse. Nothing by default.
    pub fn guard(mut self, guard: GuardLimits) -> Self {
        self.0.guard = guard;
        self
    }

    /// The budget for answers to unauthenticated UDP requests per /24 and /64, over all workers; `None` is unlimited, which makes
    /// the server useful for reflecting traffic at others.
    pub fn unauthenticated(mut self, unauthenticated: Option<RateLimit>) -> Self {
        self.0.unauthenticated = unauthenticated;
        self
    }

    /// How many permissions, and how many channel bindings, one allocation may have. 128 by default.
    pub fn max_peers_per_allocation(mut self, max: usize) -> Self {
        self.0.max_peers_per_allocation = max;
        self
    }

    /// Whether ChannelBind may name a channel of RFC 5766's wider range (0x4000-0x7FFE) and not only RFC 8656's. No by default.
    pub fn rfc5766_channel_numbers(mut self, may: bool) -> Self {
        self.0.rfc5766_channel_numbers = may;
        self
    }

    /// The addresses between which clients find out how their NAT behaves (RFC 5780), at most one pair of each family. None by default:
    /// CHANGE-REQUEST, RESPONSE-PORT and PADDING are then unknown attributes.
    pub fn nat_discovery(mut self, pairs: Vec<NatDiscovery>) -> Self {
        self.0.nat_discovery = pairs;
        self
    }

    /// Whether Binding requests of RFC 3489 are answered, which have no magic cookie. No by default.
    pub fn rfc3489(mut self, may: bool) -> Self {
        self.0.rfc3489 = may;
        self
    }

    /// Whether clients may have TCP relays (RFC 6062), and how many connections. `None`, the default, offers none: they reach any service
    /// that speaks TCP, and no browser uses them.
    pub fn tcp_relays(mut self, tcp_relays: Option<TcpRelays>) -> Self {
        self.0.tcp_relays = tcp_relays;
        self
    }

    /// SOFTWARE in responses. None by default.
    pub fn software(mut self, software: Option<String>) -> Self {
        self.0.software = software;
        self
    }

    /// Whether TURN is offered, or only STUN Binding. It is by default.
    pub fn turn(mut self, turn: bool) -> Self {
        self.0.turn = turn;
        self
    }

    /// The address family of relays for clients that name none. IPv4 by default, as RFC 8656 says.
    pub fn default_family(mut self, family: DefaultFamily) -> Self {
        self.0.default_family = family;
        self
    }

    /// Whether clients that ask for it get a ticket by which they keep their allocation when their address changes (RFC 8016). Not by
    /// default.
    pub fn mobility(mut self, mobility: bool) -> Self {
        self.0.mobility = mobility;
        self
    }

    /// Which new clients are sent to other servers. None by default.
    pub fn redirect(mut self, redirect: Option<Arc<Redirect>>) -> Self {
        self.0.redirect = redirect;
        self
    }

    /// The settings.
    pub fn build(self) -> Settings {
        self.0
    }
}

/// What the workers of one process share: counters that must hold over all of them, and what has to be the same for all. Each
/// [`Server`](super::Server) gets a clone.
#[derive(Clone, Debug, Default)]
pub struct Shared {
    /// Live allocations per user and in total.
    pub quotas: Arc<Quotas>,
    /// Users' bandwidth buckets.
    pub user_bandwidths: Arc<UserBandwidths>,
    /// What users have asked for that may be abuse.
    pub guard: Arc<Guard>,
    /// Credentials that are good no longer.
    pub revocations: Arc<Revocations>,
    /// What strangers have been answered.
    pub answer_budgets: Arc<AnswerBudgets>,
    /// The key by which copies of requests are known again.
    pub request_digests: Arc<DigestKey>,
    /// The key of mobility tickets.
    pub tickets: Arc<TicketKey>,
    /// How much is relayed, for [`Redirect`].
    pub relayed: Arc<RelayedRate>,
    /// Connections to peers over TCP.
    pub connection_ids: Arc<ConnectionIds>,
}

#[cfg(test)]
mod tests {
    use crate::auth::NonceKeys;
    use crate::policy::PeerRules;

    use super::*;

    #[test]
    fn what_nobody_sets_is_safe_on_the_internet() {
        let credentials = Credentials::builder("example.org", Arc::new(NonceKeys::new([7; 32], 600))).build().unwrap();
        let relay_addresses = vec!["5.45.96.1".parse().unwrap()];
        let rules = PeerRules { relay_addresses, relay_ports: (50_000, 50_999), ..PeerRules::default() };
        let peer_acl = Arc::new(PeerAcl::compile(&rules).unwrap());
        let settings = Settings::builder(Arc::new(credentials), peer_acl).build();
        for denied in ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "fe80::1"] {
            assert!(settings.peer_acl().judge_ip(denied.parse().unwrap()).is_err(), "{denied}");
        }
        let quota = settings.realm.quota;
        assert_eq!((quota.per_user, quota.reservations_per_user, quota.total), (Some(250), Some(125), None));
        assert!(quota.rate.is_some() && settings.unauthenticated.is_some());
        assert_eq!((settings.max_peers_per_allocation, settings.rfc5766_channel_numbers), (128, false));
    }
}
