//! Draining: no new allocation is made, and clients are sent to another server if there is one (RFC 8489 section 10).

use std::net::SocketAddr;
use std::sync::Arc;

use crate::addr::{Family, FiveTuple, Transport};

use super::server::Server;

/// Another server, for ALTERNATE-SERVER (RFC 8489 section 14.15).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AlternateServer {
    /// The client transport it is for; `None` is every transport.
    pub transport: Option<Transport>,
    /// Its address. Only clients that came over the same family are sent there.
    pub address: SocketAddr,
}

impl Server {
    /// While draining, no new allocation is made (300 with an alternate server for the client, 508 without one); those that
    /// live can be refreshed and used.
    pub fn set_draining(&mut self, draining: bool) {
        self.draining = draining;
    }

    /// The servers that clients are sent to while draining.
    pub fn set_alternates(&mut self, alternates: Arc<[AlternateServer]>) {
        self.alternates = alternates;
    }

    /// The alternate server for a client: of its transport and family; one named for its transport goes first.
    pub(super) fn alternate(&self, five_tuple: &FiveTuple) -> Option<SocketAddr> {
        let family = Family::of(five_tuple.client.get().ip());
        let with = |transport: Option<Transport>| {
            let fits = |alternate: &&AlternateServer| {
                alternate.transport == transport && Family::of(alternate.address.ip()) == family
            };
            self.alternates.iter().find(fits).map(|alternate| alternate.address)
        };
        with(Some(five_tuple.transport)).or_else(|| with(None))
    }
}
