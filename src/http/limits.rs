//! How much time and room each kind of endpoint gives to connections.

use std::time::Duration;

use crate::config::{Acme, CredentialsApi};

/// How much time and room connections get.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    /// Connections beyond this wait for one that gives way.
    pub(crate) connections: usize,
    /// How long a connection may have asked for nothing before it has to give way to another one.
    pub(crate) silent: Duration,
    /// The same of one from a network that nobody has shown the token from of late, where an endpoint notes who has, and nobody is expected from.
    pub(crate) silent_unknown: Duration,
    /// Connections of one network that have asked for nothing: beyond these, they give way at once.
    pub(crate) silent_of_network: usize,
    /// The head of a request must be there within this; a TLS handshake before it gets as much again.
    pub(crate) head: Duration,
}

impl Limits {
    /// For programs on this host and next to it.
    pub(crate) const NEAR: Self = Self {
        connections: 64,
        silent: Duration::from_millis(200),
        silent_unknown: Duration::from_millis(200),
        silent_of_network: 64,
        head: Duration::from_secs(2),
    };
    /// For the few questions of a certificate authority, from anywhere.
    pub(crate) const BRIEF: Self = Self {
        connections: Acme::HTTP_SOCKETS_MAX as usize - 1,
        silent: Duration::from_secs(1),
        silent_unknown: Duration::from_secs(1),
        silent_of_network: 16,
        head: Duration::from_secs(4),
    };
    /// For the nodes of a fleet and who looks at them, somewhere on the network.
    pub(crate) const FLEET: Self = Self {
        connections: 64,
        silent: Duration::from_secs(1),
        // However many addresses somebody has: who waits is not to wait for him.
        silent_unknown: Duration::ZERO,
        silent_of_network: 16,
        head: Duration::from_secs(4),
    };
    /// For browsers and servers anywhere: several round trips around the world.
    pub(crate) const FAR: Self = Self {
        connections: CredentialsApi::SOCKETS_MAX as usize - 1,
        silent: Duration::from_secs(1),
        silent_unknown: Duration::from_secs(1),
        // Browsers behind one address are many.
        silent_of_network: CredentialsApi::SOCKETS_MAX as usize,
        head: Duration::from_secs(4),
    };
}
