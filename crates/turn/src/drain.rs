//! Draining: no new allocation is made, and clients are sent to another server if there is one (RFC 8489 section 10).

use std::net::SocketAddr;
use std::sync::Arc;

use crate::addr::{Family, FiveTuple, Transport};
use turnstone_stun::{AttributeType, Encoder, Message, Method};

use super::server::Server;

/// Another server, for ALTERNATE-SERVER (RFC 8489 section 14.15).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AlternateServer {
    /// The client transport it is for; `None` is every transport.
    pub transport: Option<Transport>,
    /// Its address. Only clients that came over the same family are sent there.
    pub address: SocketAddr,
}

/// Where clients are sent while the server drains.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Alternates {
    /// The servers, one per family and transport.
    pub servers: Vec<AlternateServer>,
    /// The name in their certificate if it is not the one that clients asked for, for ALTERNATE-DOMAIN (RFC 8489 section 14.16).
    pub domain: Option<String>,
}

impl Server {
    /// While draining, no new allocation is made (300 with an alternate server for the client, 508 without one); those that
    /// live can be refreshed and used.
    pub fn set_draining(&mut self, draining: bool) {
        self.draining = draining;
    }

    /// The servers that clients are sent to while draining.
    pub fn set_alternates(&mut self, alternates: Arc<Alternates>) {
        self.alternates = alternates;
    }

    /// Whether a request that nobody has authenticated is redirected. Chromium takes the realm and the nonce of the server that
    /// challenged it along to the alternate, and gives up when they are stale there: it must be redirected before it has any.
    pub(super) fn redirects_stranger(&self, five_tuple: &FiveTuple, message: &Message<'_>) -> bool {
        self.draining && message.method() == Method::ALLOCATE && self.alternate(five_tuple).is_some()
    }

    /// The alternate server for a client: of its transport and family; one named for its transport goes first.
    pub(super) fn alternate(&self, five_tuple: &FiveTuple) -> Option<SocketAddr> {
        let family = Family::of(five_tuple.client.get().ip());
        let with = |transport: Option<Transport>| {
            let fits = |alternate: &&AlternateServer| {
                alternate.transport == transport && Family::of(alternate.address.ip()) == family
            };
            self.alternates.servers.iter().find(fits).map(|alternate| alternate.address)
        };
        with(Some(five_tuple.transport)).or_else(|| with(None))
    }

    /// Writes where the client shall go. The second ALTERNATE-SERVER, of the other family, that RFC 8489 section 10 would like is left
    /// out: libjuice takes the last one, whatever its own family.
    pub(super) fn write_alternate(&self, five_tuple: &FiveTuple, encoder: &mut Encoder<'_>) {
        if let Some(alternate) = self.alternate(five_tuple) {
            encoder.address(AttributeType::ALTERNATE_SERVER, alternate);
        }
        let domain = self.alternates.domain.as_deref().filter(|_| five_tuple.transport.is_encrypted());
        if let Some(domain) = domain {
            encoder.attribute(AttributeType::ALTERNATE_DOMAIN, domain.as_bytes());
        }
    }
}
