//! What to probe, and what all steps share.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::addr::Family;
use crate::client::Credential;
use crate::client::tls::{Roots, TrustError};
use crate::wall_clock::unix_now;

use super::place::{CertificateName, ConnectTo};
use super::tls::TlsSetup;
use super::url::TurnUrl;

/// A certificate with fewer days left is a warning: renewals come 30 days before the end, and one that has failed for 9 days
/// needs somebody.
pub const WARN_DAYS_LEFT: u64 = 21;

/// What to probe.
#[derive(Clone, Debug)]
pub struct Options {
    /// The servers, probed one after the other.
    pub urls: Vec<TurnUrl>,
    /// The credential for `turn:` and `turns:`; without one, the probe ends at the server's 401.
    pub credential: Option<Credential>,
    /// Which authorities the server's certificate is judged by.
    pub roots: Roots,
    /// Go on where the certificate is not trusted; the certificate is then a warning, whatever it is.
    pub insecure: bool,
    /// Take the other steps, too, where the certificate is not trusted, which stays a failure.
    pub past_certificate: bool,
    /// Whether connections begin with the header of a proxy that speaks for itself (PROXY protocol).
    pub proxy_header: bool,
    /// Where servers are asked in place of where their URLs say; those that clients are sent to are asked where they are.
    pub connect_to: Option<ConnectTo>,
    /// What their certificates have to be for, if that is not the URL's host.
    pub certificate_name: Option<CertificateName>,
    /// Only addresses of this family.
    pub family: Option<Family>,
    /// The longest that one step may take.
    pub timeout: Duration,
    /// Send to the relayed address as a peer would, from a socket of this host's own.
    pub relay_reach: bool,
    /// Ask for permissions towards private addresses, which a safe relay refuses.
    pub safety: bool,
    /// Send data through a TCP relay (RFC 6062), to a peer on this host.
    pub tcp_relay: bool,
}

/// So many servers in a row are no load balancing any more.
pub(super) const REDIRECTS_MAX: usize = 5;

/// What becomes of a redirection to another server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Redirects {
    /// It is named.
    Named,
    /// The other server is probed, too, unless it is one of these, which were asked before.
    Followed(Vec<SocketAddr>),
}

/// What all steps share.
pub(super) struct Context<'a> {
    pub(super) options: &'a Options,
    pub(super) redirects: Redirects,
    pub(super) credential: Option<Arc<Credential>>,
    pub(super) tls: Option<TlsSetup>,
    pub(super) now_unix: u64,
}

impl<'a> Context<'a> {
    pub(super) fn new(options: &'a Options, needs_tls: bool) -> Result<Self, TrustError> {
        let credential = options.credential.clone().map(Arc::new);
        let mut context = Self { options, redirects: Redirects::Named, credential, tls: None, now_unix: unix_now() };
        if needs_tls {
            context.read_authorities()?;
        }
        Ok(context)
    }

    /// What TLS needs.
    pub(super) fn read_authorities(&mut self) -> Result<(), TrustError> {
        self.tls = Some(TlsSetup::new(&self.options.roots)?);
        Ok(())
    }
}
