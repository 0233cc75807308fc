//! Connections to an address of a server: connect, TLS, the certificate, ALPN.

use std::io;
use std::net::SocketAddr;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{AlertDescription, CertificateError, Error as TlsError};
use thiserror::Error;

use crate::addr::{SocketKind, Transport};
use crate::client::io_words;
use crate::client::tls;
use crate::clock::span;

use super::context::{Context, WARN_DAYS_LEFT};
use super::link::Link;
use super::report::{Recorder, Status, Step};
use super::session::Session;
use super::tls::{Handshake, TlsFailure};
use super::url::{Host, TurnUrl};
use super::verdict::is_no_route;

/// Why a further connection cannot be used.
#[derive(Debug, Error)]
pub(super) enum Unopened {
    #[error("{}", io_words(error, *kind))]
    Link { error: io::Error, kind: SocketKind },
    #[error("{}", tls_words(.0))]
    Tls(TlsFailure),
    #[error("another certificate than before, which is not trusted: {0}")]
    Untrusted(TlsError),
    #[error("{0}")]
    Session(io::Error),
}

impl From<TlsFailure> for Unopened {
    fn from(failure: TlsFailure) -> Self {
        Self::Tls(failure)
    }
}

/// Opens connections to the address, the later ones as the first one could be opened.
pub(super) struct Dialer<'a> {
    pub(super) context: &'a Context<'a>,
    url: &'a TurnUrl,
    pub(super) address: SocketAddr,
    alpn: Option<&'static str>,
}

impl<'a> Dialer<'a> {
    pub(super) fn new(context: &'a Context<'a>, url: &'a TurnUrl, address: SocketAddr) -> Self {
        Self { context, url, address, alpn: Some(alpn_of(url)) }
    }

    pub(super) fn socket_kind(&self) -> SocketKind {
        self.url.transport.socket_kind()
    }

    /// A further client, after the first one was let through.
    ///
    /// # Errors
    /// [`Unopened`].
    pub(super) fn open(&self) -> Result<Session, Unopened> {
        let options = self.context.options;
        let kind = self.socket_kind();
        let mut link = self.link(kind).map_err(|error| Unopened::Link { error, kind })?;
        if self.url.scheme.is_secure() {
            let (shaken, _, verdict) = self.start_tls(link, self.alpn)?;
            link = shaken;
            if let (Err(error), false) = (verdict, options.insecure || options.past_certificate) {
                return Err(Unopened::Untrusted(error));
            }
        }
        Session::new(link, self.context.credential.clone(), options.timeout).map_err(Unopened::Session)
    }

    /// The first client, without a credential, each step recorded; `None` when there is no getting in.
    pub(super) fn open_first(&mut self, recorder: &mut Recorder<'_>) -> Option<Session> {
        let mut link = self.connect(recorder)?;
        if self.url.scheme.is_secure() {
            link = self.shake_hands(link, recorder)?;
        }
        match Session::new(link, None, self.context.options.timeout) {
            Ok(session) => Some(session),
            Err(error) => {
                recorder.add(Step::new("connect", Status::Fail, Duration::ZERO, error.to_string()));
                None
            }
        }
    }

    fn link(&self, kind: SocketKind) -> io::Result<Link> {
        let mut link = Link::open(kind, self.address, self.context.options.timeout)?;
        if self.context.options.proxy_header {
            link.speak_for_itself()?;
        }
        Ok(link)
    }

    fn connect(&self, recorder: &mut Recorder<'_>) -> Option<Link> {
        let started = Instant::now();
        let step = |status, message: String| Step::new("connect", status, started.elapsed(), message);
        match self.link(self.socket_kind()) {
            Ok(link) => {
                let local = link.local().map_or_else(|_| String::new(), |local| local.to_string());
                let what = match self.socket_kind() {
                    SocketKind::Udp => "socket open",
                    SocketKind::Tcp => "connected",
                };
                recorder.add(step(Status::Ok, format!("{what}, from {local}")).fact("local", local));
                Some(link)
            }
            Err(error) if is_no_route(&error) => {
                let message = format!("not tried: this machine has no route there ({error})");
                recorder.add(step(Status::Warn, message).fact("no_route", true));
                None
            }
            Err(error) => {
                recorder.add(step(Status::Fail, io_words(&error, self.socket_kind())));
                None
            }
        }
    }

    /// The handshake, the certificate and ALPN. A server that knows no protocol we offer is asked again without.
    fn shake_hands(&mut self, link: Link, recorder: &mut Recorder<'_>) -> Option<Link> {
        let started = Instant::now();
        let mut shaken = self.start_tls(link, self.alpn);
        let refused_alpn = matches!(shaken, Err(TlsFailure::NoProtocol));
        if refused_alpn {
            self.alpn = None;
            shaken = match self.link(self.socket_kind()) {
                Ok(fresh) => self.start_tls(fresh, None),
                Err(error) => Err(TlsFailure::Io(error)),
            };
        }
        let took = started.elapsed();
        let (link, handshake, verdict) = match shaken {
            Ok(shaken) => shaken,
            Err(failure) => {
                recorder.add(Step::new("tls", Status::Fail, took, tls_words(&failure)));
                return None;
            }
        };
        recorder.add(Step::new("tls", Status::Ok, took, handshake.version).fact("version", handshake.version));
        let insecure = self.context.options.insecure;
        let certificate = certificate_step(&handshake.chain, verdict, insecure, self.context.now_unix);
        let trusted = certificate.status != Status::Fail;
        recorder.add(certificate);
        recorder.add(alpn_step(alpn_of(self.url), handshake.alpn.as_deref(), refused_alpn));
        (trusted || self.context.options.past_certificate).then_some(link)
    }

    fn start_tls(&self, mut link: Link, alpn: Option<&str>) -> Result<Shaken, TlsFailure> {
        let name = match self.url.name() {
            Host::Ip(ip) => ServerName::from(*ip),
            Host::Name(name) => ServerName::try_from(name.trim_end_matches('.').to_owned())
                .map_err(|_| TlsFailure::Tls(TlsError::General("this name cannot be in a certificate".into())))?,
        };
        let setup = self.context.tls.as_ref();
        let setup = setup.ok_or_else(|| TlsFailure::Tls(TlsError::General("TLS is not set up".into())))?;
        let deadline = Instant::now() + self.context.options.timeout;
        if self.url.transport == Transport::Dtls {
            let asked = match &name {
                ServerName::DnsName(name) => Some(name.as_ref()),
                _ => None,
            };
            let (link, handshake) = link.start_dtls(asked, alpn, deadline)?;
            let verdict = setup.judge(&handshake.chain, &name);
            return Ok((link, handshake, verdict));
        }
        let (connection, verdict) = setup.connection(name, alpn).map_err(TlsFailure::Tls)?;
        let handshake = link.start_tls(connection, deadline)?;
        let verdict = verdict.lock().unwrap_or_else(PoisonError::into_inner).take();
        Ok((link, handshake, verdict.unwrap_or(Err(TlsError::NoCertificatesPresented))))
    }
}

/// A connection with its handshake behind it, and what is to be said of the certificate.
type Shaken = (Link, Handshake, Result<(), TlsError>);

fn certificate_step(
    chain: &[CertificateDer<'_>],
    verdict: Result<(), TlsError>,
    insecure: bool,
    now_unix: u64,
) -> Step {
    let not_after = chain.first().and_then(super::tls::not_after_unix);
    let days_left = not_after.map(|end| (end as i64 - now_unix as i64).div_euclid(86_400));
    let expiry = match not_after {
        Some(end) if end < now_unix => format!("expired {} ago", span(now_unix - end)),
        Some(end) => format!("valid for another {}", span(end - now_unix)),
        None => "of unknown end".into(),
    };
    let soon = not_after.is_none_or(|end| end < now_unix + WARN_DAYS_LEFT * 86_400);
    let (status, message) = match (&verdict, insecure) {
        (Ok(()), false) if soon => (Status::Warn, format!("trusted, but only {expiry}")),
        (Ok(()), false) => (Status::Ok, format!("trusted, {expiry}")),
        (Ok(()), true) => (Status::Warn, format!("NOT CHECKED (--insecure), though it would be trusted; {expiry}")),
        (Err(error), true) => (
            Status::Warn,
            format!("NOT TRUSTED and accepted (--insecure): {}; {expiry}", certificate_words(error, &expiry)),
        ),
        (Err(error), false) => (Status::Fail, certificate_words(error, &expiry)),
    };
    Step::new("certificate", status, Duration::ZERO, message)
        .fact("trusted", verdict.is_ok())
        .fact("not_after_unix", not_after)
        .fact("days_left", days_left)
        .fact("chain_length", chain.len())
}

/// Why a certificate is not trusted, in words; `expiry` says of it when it ends.
pub(crate) fn certificate_words(error: &TlsError, expiry: &str) -> String {
    match error {
        TlsError::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            format!("certificate {expiry}")
        }
        TlsError::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "its issuer is not known here: the server does not send the whole chain, or a private authority needs --ca"
                .into()
        }
        TlsError::InvalidCertificate(CertificateError::BadSignature) => {
            "it is not signed by the authority that is known here under its issuer's name".into()
        }
        error => tls::certificate_words(error).unwrap_or_else(|| error.to_string()),
    }
}

/// RFC 7443: a server need not know ALPN, but one that does must know these names.
fn alpn_step(offered: &str, chosen: Option<&str>, refused: bool) -> Step {
    let (status, message) = match chosen {
        _ if refused => (Status::Warn, format!("the server refuses clients that ask for {offered} (RFC 7443)")),
        Some(chosen) if chosen == offered => (Status::Ok, chosen.to_owned()),
        Some(chosen) => (Status::Warn, format!("the server chose {chosen}, which was not offered")),
        None => (Status::Ok, "the server does not use it".to_owned()),
    };
    Step::new("alpn", status, Duration::ZERO, message).fact("offered", offered).fact("chosen", chosen)
}

fn alpn_of(url: &TurnUrl) -> &'static str {
    if url.scheme.is_turn() { "stun.turn" } else { "stun.nat-discovery" }
}

fn tls_words(failure: &TlsFailure) -> String {
    match failure {
        TlsFailure::NoProtocol => "the server refuses the protocols offered by ALPN".into(),
        TlsFailure::Dtls(what) => (*what).into(),
        TlsFailure::Closed => "the server closed the connection: this is hardly a TLS port".into(),
        TlsFailure::Silent => "no answer to the TLS handshake: this is hardly a TLS port".into(),
        TlsFailure::Io(error) => io_words(error, SocketKind::Tcp),
        TlsFailure::Tls(error @ TlsError::InvalidMessage(_)) => format!("the server does not speak TLS here ({error})"),
        TlsFailure::Tls(error @ TlsError::AlertReceived(AlertDescription::AccessDenied)) => format!(
            "{error}: the server has no certificate for this name (one by ACME may still be to come: turnstone status, on the server)"
        ),
        TlsFailure::Tls(error) => error.to_string(),
    }
}
