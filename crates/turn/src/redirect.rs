//! Where new clients are sent by ALTERNATE-SERVER (RFC 8489 section 10): while the server drains, and to share the load with others.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

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

/// Servers that clients are sent to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Alternates {
    /// The servers. Of several for a transport and family, each gets as many clients.
    pub servers: Vec<AlternateServer>,
    /// The name in their certificate if it is not the one that clients asked for, for ALTERNATE-DOMAIN (RFC 8489 section 14.16).
    pub domain: Option<String>,
}

/// A server of the same kind, which has room for clients of others, and how much it has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Other {
    /// Where clients reach it. One that they reach at several addresses is there several times.
    pub server: AlternateServer,
    /// Of a hundred parts of what it takes before it sends clients away itself.
    pub load_percent: u16,
}

/// Which new clients are sent away while the server does not drain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// Where to. Those who are sent away by a drain that names no servers go there, too.
    pub alternates: Alternates,
    /// To those that have less to do, [`Server::set_others`], and to the alternates only where a drain finds none of them. The name in their
    /// certificate is that of the alternates.
    pub by_load: bool,
    /// Of a hundred clients, so many; which ones depends on their address and port.
    pub share_percent: u8,
    /// Only while so many allocations live at all workers together; 0 is no threshold.
    pub from_allocations: u32,
    /// Or while so many bytes a second are relayed, by [`Shared::relayed`](crate::Shared::relayed).
    pub from_bytes_per_sec: Option<u64>,
}

/// How much all workers relay, as whoever runs them has measured it. Nothing is measured here.
#[derive(Debug, Default)]
pub struct RelayedRate(AtomicU64);

impl RelayedRate {
    /// So much was relayed of late, in bytes a second.
    pub fn set(&self, bytes_per_sec: u64) {
        self.0.store(bytes_per_sec, Ordering::Relaxed);
    }

    fn bytes_per_sec(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Redirect {
    /// Whether there is something that has to be reached first.
    fn has_threshold(&self) -> bool {
        self.from_allocations > 0 || self.from_bytes_per_sec.is_some()
    }
}

impl Alternates {
    /// The server for a client: of its transport and family; those named for its transport go before those for all.
    fn of(&self, five_tuple: &FiveTuple, draw: u64) -> Option<SocketAddr> {
        let family = Family::of(five_tuple.client.get().ip());
        let with = |transport: Option<Transport>| {
            let fits = move |alternate: &&AlternateServer| {
                alternate.transport == transport && Family::of(alternate.address.ip()) == family
            };
            let count = self.servers.iter().filter(fits).count() as u64;
            let nth = usize::try_from(draw.checked_rem(count)?).ok()?;
            self.servers.iter().filter(fits).nth(nth).map(|alternate| alternate.address)
        };
        with(Some(five_tuple.transport)).or_else(|| with(None))
    }
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

    /// The servers that have room at present, if clients are sent away by load. None of them may send anybody here meanwhile: whoever names
    /// them sees to it.
    pub fn set_others(&mut self, others: Arc<[Other]>) {
        self.others = others;
    }

    /// Whether an Allocate is redirected that nobody has authenticated. Chromium takes the realm and the nonce of the server that
    /// challenged it along to the alternate, and gives up when they are stale there: it must be redirected before it has any.
    pub(super) fn redirects_stranger(&self, five_tuple: &FiveTuple, message: &Message<'_>) -> bool {
        message.method() == Method::ALLOCATE && (self.redirects(five_tuple) || self.is_above(five_tuple))
    }

    /// Whether a client's Allocate is redirected, whether it has been challenged or not: the same client gets the same answer, so that
    /// none is first challenged and then sent away.
    pub(super) fn redirects(&self, five_tuple: &FiveTuple) -> bool {
        let by_share = |of: &&Arc<Redirect>| !of.by_load && !of.has_threshold() && self.is_of_share(of, five_tuple);
        let wanted = self.draining || self.settings.redirect.as_ref().filter(by_share).is_some();
        wanted && self.alternate(five_tuple).is_some()
    }

    /// Whether a client is sent away because the server has too many. Who has been challenged already is served.
    fn is_above(&self, five_tuple: &FiveTuple) -> bool {
        let is_above = |of: &&Arc<Redirect>| {
            let by_count = of.from_allocations > 0 && self.shared.quotas.in_use() >= of.from_allocations;
            let by_rate = of.from_bytes_per_sec.is_some_and(|from| self.shared.relayed.bytes_per_sec() >= from);
            (by_count || by_rate) && self.is_of_share(of, five_tuple)
        };
        self.settings.redirect.as_ref().filter(is_above).is_some() && self.alternate(five_tuple).is_some()
    }

    fn is_of_share(&self, redirect: &Redirect, five_tuple: &FiveTuple) -> bool {
        self.draw(five_tuple) >> 64 < u128::from(redirect.share_percent) * (u128::from(u64::MAX) + 1) / 100
    }

    /// The alternate server for a client, and the name in its certificate.
    fn alternate(&self, five_tuple: &FiveTuple) -> Option<(SocketAddr, Option<&str>)> {
        let of = |alternates: &'_ Alternates| alternates.of(five_tuple, self.draw(five_tuple) as u64);
        let of_drain = || Some((of(&self.alternates)?, self.alternates.domain.as_deref()));
        let of_redirect = || {
            let Redirect { alternates, by_load, .. } = &**self.settings.redirect.as_ref()?;
            let less_loaded = by_load.then(|| self.less_loaded(five_tuple)).flatten();
            let named = || (!by_load || self.draining).then(|| of(alternates)).flatten();
            let server = less_loaded.or_else(named)?;
            Some((server, alternates.domain.as_deref()))
        };
        self.draining.then(of_drain).flatten().or_else(of_redirect)
    }

    /// The one with less to do of two that a client's 5-tuple draws among those of its transport and family. Who is told of the same servers
    /// for a second must not have all its clients go to one of them: of two servers, the one with more to do gets a quarter.
    fn less_loaded(&self, five_tuple: &FiveTuple) -> Option<SocketAddr> {
        let family = Family::of(five_tuple.client.get().ip());
        let fits = |other: &&Other| {
            let AlternateServer { transport, address } = other.server;
            transport.is_none_or(|transport| transport == five_tuple.transport) && Family::of(address.ip()) == family
        };
        let count = self.others.iter().filter(fits).count() as u64;
        let draw = self.draw(five_tuple) as u64;
        let drawn = |draw: u64| {
            let nth = usize::try_from(draw.checked_rem(count)?).ok()?;
            self.others.iter().filter(fits).nth(nth)
        };
        let (one, other) = drawn(draw & 0xffff_ffff).zip(drawn(draw >> 32))?;
        let less = if other.load_percent < one.load_percent { other } else { one };
        Some(less.server.address)
    }

    /// A number that a client's 5-tuple and a secret decide: which clients are sent away, and where to.
    fn draw(&self, five_tuple: &FiveTuple) -> u128 {
        self.digester.digest(five_tuple, b"redirect").0
    }

    /// Writes where the client shall go. The second ALTERNATE-SERVER, of the other family, that RFC 8489 section 10 would like is left
    /// out: libjuice takes the last one, whatever its own family.
    pub(super) fn write_alternate(&self, five_tuple: &FiveTuple, encoder: &mut Encoder<'_>) {
        let Some((alternate, domain)) = self.alternate(five_tuple) else { return };
        encoder.address(AttributeType::ALTERNATE_SERVER, alternate);
        if let Some(domain) = domain.filter(|_| five_tuple.transport.is_encrypted()) {
            encoder.attribute(AttributeType::ALTERNATE_DOMAIN, domain.as_bytes());
        }
    }
}
