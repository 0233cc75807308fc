//! From the configuration to the snapshot the protocol core works by.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::auth::{Credentials, NonceKeys};
use crate::policy::{PeerAcl, PeerRules};
use crate::turn::{NatDiscovery, Settings};

use super::error::{ConfigError, Place};
use super::snapshot::{Config, OwnAddresses};

impl Config {
    /// Builds the snapshot: the keys of the users, and the peer rules with what the server knows of itself.
    ///
    /// # Errors
    /// A realm or a rule that cannot be used.
    pub fn settings(&self, nonce_keys: Arc<NonceKeys>, own: OwnAddresses) -> Result<Settings, ConfigError> {
        let credentials = Credentials::builder(&self.auth.realm, nonce_keys)
            .users(self.auth.users.clone())
            .secrets(self.auth.secrets.clone())
            .access_tokens(self.auth.tokens.clone())
            .build()
            .map_err(|error| ConfigError::one(Place::Source("[auth]".to_owned()), error.to_string()))?;
        let peer_acl = PeerAcl::compile(&self.peer_rules(own)).map_err(|error| {
            let message = format!("{:?}: {}", error.rule, error.problem);
            ConfigError::one(Place::Source("[peers]".to_owned()), message)
        })?;
        let settings = Settings::builder(Arc::new(credentials), Arc::new(peer_acl))
            .lifetimes(self.lifetimes)
            .on_expiry(self.auth.on_expiry)
            .quota(self.quota)
            .bandwidth(self.bandwidth)
            .unauthenticated(self.unauthenticated)
            .max_peers_per_allocation(self.max_peers_per_allocation)
            .rfc5766_channel_numbers(self.rfc5766_channel_numbers)
            .nat_discovery(self.nat_discovery.clone())
            .rfc3489(self.rfc3489)
            .software(self.software.clone())
            .default_family(self.relay.default_family)
            .turn(self.turn);
        Ok(settings.build())
    }

    /// The operator's rules, and the addresses that are our own: listeners and interfaces, to be denied, and relay
    /// addresses, to be reachable on the relay ports.
    pub fn peer_rules(&self, own: OwnAddresses) -> PeerRules {
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
