//! What the configuration needs to know of the machine; `ops::host` finds it out.

use std::net::{Ipv4Addr, Ipv6Addr};

/// The machine, as far as defaults depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host {
    /// Cores this process may use (affinity and cgroup limits included).
    pub cores: usize,
    /// The IPv4 address that packets to the outside leave from.
    pub ipv4: Option<Ipv4Addr>,
    /// The IPv6 address that packets to the outside leave from.
    pub ipv6: Option<Ipv6Addr>,
    /// Whether IPv6 sockets can be opened at all.
    pub has_ipv6: bool,
}
