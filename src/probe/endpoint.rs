//! The steps at one address of a server: connect, TLS, Binding, the 401, and then its relays.

use std::net::SocketAddr;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{CertificateError, Error};

use crate::client::tls;

use crate::addr::{Family, SocketKind};
use crate::client::client::{Answer, ClientError, Request};
use crate::clock::span;
use crate::stun::{AttributeType, ErrorCode, Message};

use super::Context;
use super::WARN_DAYS_LEFT;
use super::link::{Handshake, Link, TlsFailure};
use super::relay;
use super::report::{Recorder, Status, Step};
use super::session::{Reply, Session};
use super::url::{Host, Scheme, TurnUrl};
use super::verdict::{Failure, io_words, is_no_route, printable};

/// Takes all steps and records each.
pub(super) fn probe(context: &Context<'_>, url: &TurnUrl, address: SocketAddr, recorder: &mut Recorder<'_>) {
    take_steps(context, url, address, recorder);
    if url.scheme == Scheme::Stuns {
        ask_as_chromium(context, address).into_iter().for_each(|step| recorder.add(step));
    }
}

/// Chromium asks the port of a `stuns:` URL by plain UDP, never by TLS.
fn ask_as_chromium(context: &Context<'_>, address: SocketAddr) -> Option<Step> {
    let started = Instant::now();
    let timeout = context.options.timeout;
    let asked = Link::open(SocketKind::Udp, address, timeout).and_then(|link| Session::new(link, None, timeout));
    let answer = match asked {
        // What there is to say is said.
        Err(error) if is_no_route(&error) => return None,
        Err(error) => Err(Failure::Io(error)),
        Ok(mut session) => session.request(Request::Binding),
    };
    let step = |status, message: String| Step::new("binding-udp", status, started.elapsed(), message);
    Some(match answer {
        Ok(Reply { answer: Answer::Mapped { mapped }, .. }) => {
            step(Status::Ok, format!("plain UDP is answered, too, as Chromium asks: seen as {mapped}"))
                .fact("mapped", mapped.to_string())
        }
        Ok(_) => step(Status::Warn, "an answer to another request".to_owned()),
        Err(failure) => {
            let words = failure.words(SocketKind::Udp);
            let message = format!(
                "{words}. Chromium asks the port of a stuns: URL by plain UDP: it gets no server-reflexive candidate here, \
                 and waits for one; udp beside tls on this port cures that"
            );
            with_code(step(Status::Warn, message), &failure)
        }
    })
}

fn take_steps(context: &Context<'_>, url: &TurnUrl, address: SocketAddr, recorder: &mut Recorder<'_>) {
    let mut dialer = Dialer { context, url, address, alpn: Some(alpn_of(url)) };
    let Some(mut session) = dialer.open_first(recorder) else { return };
    if !reach(context, url, &mut session, recorder) {
        return;
    }
    let Some(credential) = &context.credential else {
        let message = "no credential was given: no relay was tried (--credential, or --user with --password-env or --password-file)";
        recorder.add(Step::new("allocate", Status::Note, Duration::ZERO, message));
        return;
    };
    drop(session);
    let mut families = Vec::new();
    for family in [Family::V4, Family::V6] {
        match relay::probe(&dialer, credential, family, recorder) {
            relay::Outcome::Relays => families.push(family),
            relay::Outcome::NotOffered => {}
            relay::Outcome::Failed => return,
        }
    }
    if families.is_empty() {
        let message = "the server relays neither IPv4 nor IPv6";
        recorder.add(Step::new("allocate", Status::Fail, Duration::ZERO, message));
    }
}

/// Opens connections to the address, the later ones as the first one could be opened.
pub(super) struct Dialer<'a> {
    pub(super) context: &'a Context<'a>,
    pub(super) url: &'a TurnUrl,
    pub(super) address: SocketAddr,
    alpn: Option<&'static str>,
}

impl Dialer<'_> {
    pub(super) fn socket_kind(&self) -> SocketKind {
        self.url.transport.socket_kind()
    }

    /// A further client, after the first one was let through.
    ///
    /// # Errors
    /// In words.
    pub(super) fn open(&self) -> Result<Session, String> {
        let options = self.context.options;
        let mut link = Link::open(self.socket_kind(), self.address, options.timeout)
            .map_err(|error| io_words(&error, self.socket_kind()))?;
        if self.url.scheme.is_secure() {
            let (_, verdict) = self.start_tls(&mut link, self.alpn).map_err(|failure| tls_words(&failure))?;
            if let (Err(error), false) = (verdict, options.insecure || options.past_certificate) {
                return Err(format!("another certificate than before, which is not trusted: {error}"));
            }
        }
        Session::new(link, self.context.credential.clone(), options.timeout).map_err(|error| error.to_string())
    }

    /// The first client, without a credential, each step recorded; `None` when there is no getting in.
    fn open_first(&mut self, recorder: &mut Recorder<'_>) -> Option<Session> {
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

    fn connect(&self, recorder: &mut Recorder<'_>) -> Option<Link> {
        let started = Instant::now();
        let step = |status, message: String| Step::new("connect", status, started.elapsed(), message);
        match Link::open(self.socket_kind(), self.address, self.context.options.timeout) {
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
    fn shake_hands(&mut self, mut link: Link, recorder: &mut Recorder<'_>) -> Option<Link> {
        let started = Instant::now();
        let mut shaken = self.start_tls(&mut link, self.alpn);
        let refused_alpn = matches!(shaken, Err(TlsFailure::NoProtocol));
        if refused_alpn {
            self.alpn = None;
            match Link::open(SocketKind::Tcp, self.address, self.context.options.timeout) {
                Ok(fresh) => {
                    link = fresh;
                    shaken = self.start_tls(&mut link, None);
                }
                Err(error) => shaken = Err(TlsFailure::Io(error)),
            }
        }
        let took = started.elapsed();
        let (handshake, verdict) = match shaken {
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

    fn start_tls(&self, link: &mut Link, alpn: Option<&str>) -> Result<(Handshake, Result<(), Error>), TlsFailure> {
        let name = match &self.url.host {
            Host::Ip(ip) => ServerName::from(*ip),
            Host::Name(name) => ServerName::try_from(name.trim_end_matches('.').to_owned())
                .map_err(|_| TlsFailure::Tls(Error::General("this name cannot be in a certificate".into())))?,
        };
        let setup = self.context.tls.as_ref();
        let setup = setup.ok_or_else(|| TlsFailure::Tls(Error::General("TLS is not set up".into())))?;
        let (connection, verdict) = setup.connection(name, alpn).map_err(TlsFailure::Tls)?;
        let handshake = link.start_tls(connection, Instant::now() + self.context.options.timeout)?;
        let verdict = verdict.lock().unwrap_or_else(PoisonError::into_inner).take();
        Ok((handshake, verdict.unwrap_or(Err(Error::NoCertificatesPresented))))
    }
}

/// Binding, and with TURN the Allocate without credentials; whether relays are to be tried.
fn reach(context: &Context<'_>, url: &TurnUrl, session: &mut Session, recorder: &mut Recorder<'_>) -> bool {
    let started = Instant::now();
    let binding = session.request(Request::Binding);
    let took = started.elapsed();
    let kind = url.transport.socket_kind();
    let failure = match binding {
        Ok(reply) => {
            recorder.add(binding_step(&reply, session.local(), took));
            return url.scheme.is_turn() && challenge(context, kind, session, recorder);
        }
        Err(failure) => failure,
    };
    let step = |status, message| with_code(Step::new("binding", status, took, message), &failure);
    let answers = match &failure {
        Failure::Client { .. } => true,
        // Some servers have STUN turned off and answer nothing but TURN.
        Failure::Silent { .. } if url.scheme.is_turn() => {
            let asked = Instant::now();
            let allocate = session.request(ALLOCATE);
            if !matches!(allocate, Err(Failure::Silent { .. })) {
                recorder.add(step(Status::Warn, "no answer to Binding; TURN requests are answered".into()));
                let (step, goes_on) = challenge_step(context, kind, session, allocate, asked.elapsed());
                recorder.add(step);
                return goes_on;
            }
            false
        }
        _ => false,
    };
    recorder.add(step(Status::Fail, failure.words(kind)));
    answers && url.scheme.is_turn() && challenge(context, kind, session, recorder)
}

const ALLOCATE: Request = Request::Allocate { family: None, lifetime_secs: None };

fn challenge(context: &Context<'_>, kind: SocketKind, session: &mut Session, recorder: &mut Recorder<'_>) -> bool {
    let started = Instant::now();
    let outcome = session.request(ALLOCATE);
    let (step, goes_on) = challenge_step(context, kind, session, outcome, started.elapsed());
    recorder.add(step);
    goes_on
}

/// What an Allocate without credentials got: 401 with realm and nonce is right (RFC 8489 section 9.2.4).
fn challenge_step(
    context: &Context<'_>,
    kind: SocketKind,
    session: &mut Session,
    outcome: Result<Reply, Failure>,
    took: Duration,
) -> (Step, bool) {
    let step = |status, message: String| Step::new("unauthenticated", status, took, message);
    let failure = match outcome {
        Ok(reply) => {
            // The allocation that should not be is not left behind.
            let _ = session.request(Request::Refresh { lifetime_secs: 0 });
            let mut step = step(Status::Fail, "OPEN RELAY: anybody gets an allocation without a credential".into());
            if let Answer::Allocated { relayed, .. } = reply.answer {
                step = step.fact("relayed", relayed.to_string());
            }
            return (step, false);
        }
        Err(failure) => failure,
    };
    let challenge = failure
        .response()
        .filter(|_| matches!(&failure, Failure::Client { error, .. } if *error == ClientError::NoCredential));
    let Some(response) = challenge else {
        let words = failure.advice(kind, None, context.now_unix);
        let message = match failure.code() {
            // A server may redirect before it challenges (RFC 8489 section 10).
            Some(ErrorCode::TRY_ALTERNATE) => words,
            _ => format!("401 was expected: {words}"),
        };
        return (with_code(step(Status::Fail, message), &failure), false);
    };
    let code = response.error_code();
    let (realm, nonce) = (response.get(AttributeType::REALM), response.get(AttributeType::NONCE));
    let sha256 = response.get(AttributeType::PASSWORD_ALGORITHMS).is_some();
    let shown = realm.map(printable).unwrap_or_default();
    let (status, message) = match (code, realm, nonce) {
        (Some(ErrorCode::UNAUTHENTICATED), Some(_), Some(_)) => (Status::Ok, format!("401, realm \"{shown}\"")),
        (Some(ErrorCode::UNAUTHENTICATED), None, _) => (Status::Fail, "401 without REALM: no client can log in".into()),
        (Some(ErrorCode::UNAUTHENTICATED), _, None) => (Status::Fail, "401 without NONCE: no client can log in".into()),
        _ => (Status::Fail, "401 was expected, and a demand for a fresh nonce came (438)".into()),
    };
    let step = step(status, message)
        .fact("error_code", code.map(ErrorCode::value))
        .fact("realm", shown)
        .fact("sha256_offered", sha256);
    (step, status == Status::Ok)
}

fn binding_step(reply: &Reply, local: Option<SocketAddr>, took: Duration) -> Step {
    let Answer::Mapped { mapped } = reply.answer else {
        return Step::new("binding", Status::Fail, took, "an answer to another request");
    };
    let natted = local.map(|local| local != mapped);
    let message = match (local, natted) {
        (Some(local), Some(true)) => format!("seen as {mapped}; there is a NAT in between (here it is {local})"),
        _ => format!("seen as {mapped}, no NAT in between"),
    };
    let software = Message::parse(&reply.response).ok().and_then(|m| m.get(AttributeType::SOFTWARE).map(printable));
    Step::new("binding", Status::Ok, took, message)
        .fact("mapped", mapped.to_string())
        .fact("nat", natted)
        .fact("software", software)
}

fn certificate_step(chain: &[CertificateDer<'_>], verdict: Result<(), Error>, insecure: bool, now_unix: u64) -> Step {
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

fn certificate_words(error: &Error, expiry: &str) -> String {
    match error {
        Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            format!("certificate {expiry}")
        }
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "its issuer is not known here: the server does not send the whole chain, or a private authority needs --ca"
                .into()
        }
        Error::InvalidCertificate(CertificateError::BadSignature) => {
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
        TlsFailure::Closed => "the server closed the connection: this is hardly a TLS port".into(),
        TlsFailure::Silent => "no answer to the TLS handshake: this is hardly a TLS port".into(),
        TlsFailure::Io(error) => io_words(error, SocketKind::Tcp),
        TlsFailure::Tls(error @ Error::InvalidMessage(_)) => format!("the server does not speak TLS here ({error})"),
        TlsFailure::Tls(error) => error.to_string(),
    }
}

/// Adds the server's error code to the facts, when there is one.
pub(super) fn with_code(step: Step, failure: &Failure) -> Step {
    match failure.code() {
        Some(code) => step.fact("error_code", code.value()),
        None => step,
    }
}
