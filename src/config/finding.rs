//! How the public address of a relay is found where nobody has written it down.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use crate::policy::default_denials;

use super::value::{Choices, name_of};

/// How public addresses are found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Finding {
    /// Who says it; `None` where an address of this host is its own public one, or `external-ip` has it.
    pub by: Option<FoundBy>,
    /// Whom to ask, in this order: `external-ip-sources`.
    pub sources: Vec<AddressSource>,
    /// How often.
    pub interval: Duration,
}

/// Who says what the public address is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FoundBy {
    /// An address of this host that is public is its own; for others, the sources are asked.
    Auto,
    /// The host's resolver, of this name.
    Name(String),
}

/// Somebody who is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AddressSource {
    /// The metadata service of a cloud, at 169.254.169.254.
    Metadata(Cloud),
    /// A STUN server.
    Stun(StunServer),
}

/// A STUN server, asked over UDP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StunServer {
    /// A name or an address.
    pub host: String,
    /// Its port.
    pub port: u16,
}

/// A cloud whose metadata service knows the public address that it maps to a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cloud {
    /// Amazon EC2, by its version 2, which wants a token.
    Aws,
    /// Microsoft Azure.
    Azure,
    /// DigitalOcean.
    DigitalOcean,
    /// Google Compute Engine.
    Gcp,
    /// Hetzner Cloud.
    Hetzner,
    /// OpenStack, and what else answers as the first version of EC2.
    OpenStack,
}

pub(super) const CLOUDS: &Choices<Cloud> = &[
    ("aws", Cloud::Aws),
    ("azure", Cloud::Azure),
    ("digitalocean", Cloud::DigitalOcean),
    ("gcp", Cloud::Gcp),
    ("hetzner", Cloud::Hetzner),
    ("openstack", Cloud::OpenStack),
];

impl Cloud {
    /// As the configuration has it.
    pub fn name(self) -> &'static str {
        name_of(CLOUDS, &self).unwrap_or("unknown")
    }
}

impl fmt::Display for FoundBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Name(name) => write!(f, "name:{name}"),
        }
    }
}

impl fmt::Display for AddressSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Metadata(cloud) => write!(f, "metadata:{}", cloud.name()),
            Self::Stun(server) => write!(f, "stun:{server}"),
        }
    }
}

impl fmt::Display for StunServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// Whether a host of the Internet may have this address: it is in none of the ranges that IANA has set aside.
pub fn is_public(ip: IpAddr) -> bool {
    let mut special = default_denials().filter(|(first, _, _)| first.is_ipv4() == ip.is_ipv4());
    !special.any(|(first, last, _)| (first..=last).contains(&ip))
}
