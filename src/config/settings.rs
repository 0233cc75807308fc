//! From the configuration to the snapshot the protocol core works by.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::auth::{AccessTokens, AskPolicy, Credentials, CredentialsBuilder, NonceKeys, SharedSecret, Users};
use crate::policy::{PeerAcl, PeerPolicies, PeerRules, PolicyName};
use crate::turn::{Alternates, NatDiscovery, Realm, Redirect, Settings};

use super::error::{ConfigError, Place};
use super::hook::Hook;
use super::snapshot::{Config, OwnAddresses};
use super::store::StoreConfig;

impl Config {
    /// Builds the snapshot: the keys of the users, and the peer rules with what the server knows of itself.
    ///
    /// # Errors
    /// A realm or a rule that cannot be used.
    pub fn settings(&self, nonce_keys: Arc<NonceKeys>, own: OwnAddresses) -> Result<Settings, ConfigError> {
        let credentials = |realm: &str, users: &Arc<Users>, secrets: &[SharedSecret], username_limits: bool| {
            let builder = Credentials::builder(realm, Arc::clone(&nonce_keys));
            let of = || if realm == self.auth.realm { "[auth]".to_owned() } else { format!("[[realm]] {realm:?}") };
            let builder = builder.users(Arc::clone(users)).secrets(self.with_stored(realm, secrets));
            // Access tokens are for the realm of [auth] alone.
            let tokens = if realm == self.auth.realm { self.auth.tokens.clone() } else { AccessTokens::default() };
            let lifetime_max_secs = self.auth.credential_lifetime_max.map(|max| max.as_secs());
            let builder = builder.username_limits(username_limits).lifetime_max(lifetime_max_secs);
            let builder = self.ask_policy().into_iter().fold(builder, CredentialsBuilder::asking);
            let built = builder.access_tokens(tokens).build();
            built.map_err(|error| ConfigError::one(Place::Source(of()), error.to_string()))
        };
        let auth = &self.auth;
        let default_realm = credentials(&auth.realm, &auth.users, &auth.secrets, auth.username_limits)?;
        let peer_policies = compile_policies(self.peer_policy_rules(own), |name, rules| {
            PeerAcl::compile(rules).map_err(|error| {
                let section = name.map_or("[peers]".to_owned(), |name| format!("[[peers.policy]] {name:?}"));
                ConfigError::one(Place::Source(section), format!("{:?}: {}", error.rule, error.problem))
            })
        })?;
        let default_policy = Arc::clone(peer_policies.default_policy());
        let redirect = self.redirect_but_own(default_policy.rules());
        let settings = Settings::builder(Arc::new(default_realm), default_policy)
            .peer_policies(peer_policies)
            .server_names(&auth.server_names)
            .lifetimes(self.lifetimes)
            .on_expiry(self.auth.on_expiry)
            .quota(self.quota)
            .bandwidth(self.bandwidth)
            .guard(self.guard)
            .unauthenticated(self.unauthenticated)
            .max_peers_per_allocation(self.max_peers_per_allocation)
            .rfc5766_channel_numbers(self.rfc5766_channel_numbers)
            .nat_discovery(self.nat_discovery.clone())
            .rfc3489(self.rfc3489)
            .mobility(self.mobility)
            .redirect(redirect)
            .tcp_relays(self.tcp_relays.is_offered.then_some(self.tcp_relays.limits))
            .software(self.software.clone())
            .default_family(self.relay.default_family)
            .turn(self.turn);
        let settings = self.realms.iter().try_fold(settings, |settings, of| {
            let username_limits = of.username_limits.unwrap_or(auth.username_limits);
            let realm = Realm::new(credentials(&of.name, &of.users, &of.secrets, username_limits)?)
                .quota(of.quota.of(self.quota))
                .bandwidth(of.bandwidth)
                .on_expiry(of.on_expiry.unwrap_or(auth.on_expiry))
                .peer_policy(of.peers)
                .server_names(of.server_names.clone());
            Ok::<_, ConfigError>(settings.realm(realm))
        })?;
        Ok(settings.build())
    }

    /// How requests wait for the answer of who is asked about users, if anybody is.
    pub fn ask_policy(&self) -> Option<AskPolicy> {
        let of_store = self.store.as_ref().filter(|store| store.users).map(StoreConfig::policy);
        match (self.hook.as_ref().map(Hook::policy), of_store) {
            // One is asked after the other.
            (Some(mut policy), Some(of_store)) => {
                policy.deadline_millis = policy.deadline_millis.saturating_add(of_store.deadline_millis);
                policy.md5_only = of_store.md5_only;
                Some(policy)
            }
            (of_hook, of_store) => of_hook.or(of_store),
        }
    }

    /// The shared secrets of a realm: those of the configuration, which mint if there are any, and those of the store.
    pub fn with_stored(&self, realm: &str, configured: &[SharedSecret]) -> Vec<SharedSecret> {
        let mut secrets = configured.to_vec();
        let stored = self.stored_secrets.get(realm).into_iter().flatten();
        secrets.extend(stored.filter(|stored| configured.iter().all(|secret| secret.id != stored.id)).cloned());
        secrets
    }

    /// The realms that have no shared secret of their own, and whether the configuration or its application of `[hook]` knows users of them.
    pub fn without_secrets(&self) -> Vec<(String, bool)> {
        let auth = &self.auth;
        let default = (&auth.realm, &auth.secrets, &auth.users);
        let all = std::iter::once(default).chain(self.realms.iter().map(|of| (&of.name, &of.secrets, &of.users)));
        let is_asked = self.hook.is_some() || auth.tokens.is_on();
        let without = all.filter(|(_, secrets, _)| secrets.is_empty());
        without.map(|(name, _, users)| (name.clone(), is_asked || !users.is_empty())).collect()
    }

    /// Which clients are sent to which servers, of which none is at an address that the server knows to be its own.
    pub fn redirect_but_own(&self, rules: &PeerRules) -> Option<Arc<Redirect>> {
        let redirect = self.redirect.as_ref()?;
        let alternates = Self::alternates_but_own(&redirect.alternates, rules);
        Some(match alternates.servers.len() == redirect.alternates.servers.len() {
            true => Arc::clone(redirect),
            false => Arc::new(Redirect { alternates, ..Redirect::clone(redirect) }),
        })
    }

    /// Servers that clients are sent to, without those at addresses of this one: a client would go round in a circle. The rules know all
    /// addresses of this moment.
    pub fn alternates_but_own(alternates: &Alternates, rules: &PeerRules) -> Alternates {
        let mut alternates = alternates.clone();
        alternates.servers.retain(|server| !is_own(server.address, rules));
        alternates
    }

    /// The servers of `[redirect]` and `[drain]` that are this one itself.
    pub fn own_alternates(&self, rules: &PeerRules) -> Vec<SocketAddr> {
        let redirect = self.redirect.iter().flat_map(|redirect| &redirect.alternates.servers);
        let mut own: Vec<_> = redirect.chain(&self.drain.alternates.servers).map(|server| server.address).collect();
        own.retain(|address| is_own(*address, rules));
        own.sort_unstable();
        own.dedup();
        own
    }

    /// The rules of every peer policy, the default one first, with the addresses that are our own.
    pub fn peer_policy_rules(&self, own: OwnAddresses) -> PolicyRules {
        let default = self.peer_rules(own);
        let named = self.peer_policies.iter().map(|(name, rules)| {
            let rules = PeerRules {
                own_endpoints: default.own_endpoints.clone(),
                own_addresses: default.own_addresses.clone(),
                own_networks: default.own_networks.clone(),
                relay_addresses: default.relay_addresses.clone(),
                relay_ports: default.relay_ports,
                ..rules.clone()
            };
            (*name, rules)
        });
        let named = named.collect();
        PolicyRules { default, named }
    }

    /// The operator's rules, and the addresses that are our own: listeners and interfaces, to be denied, and relay
    /// addresses, to be reachable on the relay ports.
    fn peer_rules(&self, own: OwnAddresses) -> PeerRules {
        let mut relays = self.relay.addresses.clone();
        relays.extend(own.earlier_relays);
        let is_external = |ip: IpAddr| relays.iter().any(|relay| relay.external == ip);
        let mut own_addresses = own.addresses;
        own_addresses.extend(relays.iter().map(|relay| relay.bind).filter(|bind| !is_external(*bind)));
        // What is reached by its public half is ours as well, unless it is where relays are.
        let pairs = self.nat_discovery.iter().flat_map(|pair| pair.external);
        own_addresses.extend(pairs.filter(|external| !is_external(*external)));
        own_addresses.sort_unstable();
        own_addresses.dedup();
        // A listener on the private half is reached by the public one, too.
        let mut own_endpoints = own.endpoints;
        let mapped = own_endpoints.iter().flat_map(|endpoint| {
            let halves = relays.iter().filter(|relay| relay.bind == endpoint.ip());
            halves.map(|relay| SocketAddr::new(relay.external, endpoint.port()))
        });
        own_endpoints.extend(mapped.collect::<Vec<_>>());
        own_endpoints.extend(self.nat_discovery.iter().flat_map(NatDiscovery::external_endpoints));
        PeerRules {
            own_endpoints,
            own_addresses,
            own_networks: own.networks,
            relay_addresses: relays.iter().map(|relay| relay.external).collect(),
            relay_ports: self.relay.ports,
            ..self.peers.clone()
        }
    }
}

/// Whether one of our listeners answers at an address. One at a wildcard does at every address of the host, and where relays are reached.
fn is_own(address: SocketAddr, rules: &PeerRules) -> bool {
    let ip = address.ip();
    let is_host = ip.is_loopback() || rules.own_addresses.contains(&ip) || rules.relay_addresses.contains(&ip);
    rules.own_endpoints.iter().any(|endpoint| {
        *endpoint == address || endpoint.ip().is_unspecified() && endpoint.port() == address.port() && is_host
    })
}

/// The rules of all peer policies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyRules {
    /// Those of `[peers]`.
    pub default: PeerRules,
    /// Those of each `[[peers.policy]]`.
    pub named: Vec<(PolicyName, PeerRules)>,
}

impl PolicyRules {
    /// What was compiled.
    pub fn of(policies: &PeerPolicies) -> Self {
        let named = policies.named().map(|(name, acl)| (name, acl.rules().clone()));
        Self { default: policies.default_policy().rules().clone(), named: named.collect() }
    }
}

/// Compiles every policy in the same way.
///
/// # Errors
/// That of the first that cannot be compiled.
pub fn compile_policies<E>(
    rules: PolicyRules,
    mut compile: impl FnMut(Option<PolicyName>, &PeerRules) -> Result<PeerAcl, E>,
) -> Result<PeerPolicies, E> {
    let mut policies = PeerPolicies::new(Arc::new(compile(None, &rules.default)?));
    for (name, rules) in &rules.named {
        policies = policies.with(*name, Arc::new(compile(Some(*name), rules)?));
    }
    Ok(policies)
}
