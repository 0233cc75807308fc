//! The steps at one address of a server: connect, TLS, Binding, the 401, and then its relays and what else it offers.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::addr::{Family, SocketKind, Transport};
use crate::client::{Answer, ClientError, Request};
use crate::stun::{AttributeType, ErrorCode, Message};

use super::context::{Context, REDIRECTS_MAX, Redirects};
use super::dial::Dialer;
use super::link::Link;
use super::nat;
use super::offers;
use super::relay;
use super::report::{Recorder, Status, Step};
use super::session::{Reply, Session};
use super::url::{Scheme, TurnUrl};
use super::verdict::{Failure, is_no_route, printable, with_code};

/// Another server that clients are sent to (RFC 8489 section 10).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Alternate {
    pub(super) address: SocketAddr,
    /// The name in its certificate, if it is not the one that was asked for.
    pub(super) domain: Option<String>,
}

/// Takes all steps and records each. Where the server sends clients elsewhere, it says so.
pub(super) fn probe(
    context: &Context<'_>,
    url: &TurnUrl,
    address: SocketAddr,
    recorder: &mut Recorder<'_>,
) -> Option<Alternate> {
    let alternate = take_steps(context, url, address, recorder);
    if url.scheme == Scheme::Stuns {
        let asked = SocketAddr::new(address.ip(), url.chromium_stun_port);
        ask_as_chromium(context, asked).into_iter().for_each(|step| recorder.add(step));
    }
    alternate
}

/// Chromium asks the port of a `stuns:` URL, or 3478, by plain UDP, never by TLS.
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
            let port = address.port();
            step(Status::Ok, format!("plain UDP to port {port} is answered, too, as Chromium asks: seen as {mapped}"))
                .fact("mapped", mapped.to_string())
        }
        Ok(_) => step(Status::Warn, "an answer to another request".to_owned()),
        Err(failure) => {
            let words = failure.words(SocketKind::Udp);
            let message = format!(
                "{words}. Chromium asks port {} of a stuns: URL by plain UDP: it gets no server-reflexive candidate here, \
                 and waits for one; udp beside tls on this port cures that",
                address.port()
            );
            with_code(step(Status::Warn, message), &failure)
        }
    })
}

fn take_steps(
    context: &Context<'_>,
    url: &TurnUrl,
    address: SocketAddr,
    recorder: &mut Recorder<'_>,
) -> Option<Alternate> {
    let mut dialer = Dialer::new(context, url, address);
    let mut session = dialer.open_first(recorder)?;
    match reach(context, (url, address), &mut session, recorder) {
        Reached::Challenge => {}
        Reached::Nothing => return None,
        Reached::Redirect(alternate) => return Some(alternate),
    }
    let Some(credential) = &context.credential else {
        let message = "no credential was given: no relay was tried (--credential, or --user with --password-env or --password-file)";
        recorder.add(Step::new("allocate", Status::Note, Duration::ZERO, message));
        return None;
    };
    drop(session);
    let mut families = Vec::new();
    for family in [Family::V4, Family::V6] {
        match relay::probe(&dialer, credential, family, recorder) {
            relay::Outcome::Relays => families.push(family),
            relay::Outcome::NotOffered => {}
            relay::Outcome::Failed => return None,
        }
    }
    if families.is_empty() {
        let message = "the server relays neither IPv4 nor IPv6";
        recorder.add(Step::new("allocate", Status::Fail, Duration::ZERO, message));
        return None;
    }
    offers::probe(&dialer, recorder);
    None
}

/// How far a client without a credential gets.
enum Reached {
    /// To the 401.
    Challenge,
    /// To another server.
    Redirect(Alternate),
    /// Nowhere from where relays could be tried.
    Nothing,
}

/// Binding, and with TURN the Allocate without credentials.
fn reach(
    context: &Context<'_>,
    (url, address): (&TurnUrl, SocketAddr),
    session: &mut Session,
    recorder: &mut Recorder<'_>,
) -> Reached {
    let started = Instant::now();
    let binding = session.request(Request::Binding);
    let took = started.elapsed();
    let kind = url.transport.socket_kind();
    let failure = match binding {
        Ok(reply) => {
            recorder.add(binding_step(&reply, session.local(), took));
            if let (Transport::Udp, Some(other)) = (url.transport, other_address(&reply)) {
                recorder.add(nat::discover(address, other, context.options.timeout));
            }
            return match url.scheme.is_turn() {
                true => challenge(context, kind, session, recorder),
                false => Reached::Nothing,
            };
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
                return challenged(context, kind, session, (allocate, asked.elapsed()), recorder);
            }
            false
        }
        _ => false,
    };
    recorder.add(step(Status::Fail, failure.words(kind)));
    match answers && url.scheme.is_turn() {
        true => challenge(context, kind, session, recorder),
        false => Reached::Nothing,
    }
}

const ALLOCATE: Request = Request::Allocate { family: None, lifetime_secs: None };

fn challenge(context: &Context<'_>, kind: SocketKind, session: &mut Session, recorder: &mut Recorder<'_>) -> Reached {
    let started = Instant::now();
    let outcome = session.request(ALLOCATE);
    challenged(context, kind, session, (outcome, started.elapsed()), recorder)
}

/// What an Allocate without credentials got: 401 with realm and nonce is right (RFC 8489 section 9.2.4), or 300 in its place
/// (section 10).
fn challenged(
    context: &Context<'_>,
    kind: SocketKind,
    session: &mut Session,
    (outcome, took): (Result<Reply, Failure>, Duration),
    recorder: &mut Recorder<'_>,
) -> Reached {
    let step = |status, message: String| Step::new("unauthenticated", status, took, message);
    let failure = match outcome {
        Ok(reply) => {
            // The allocation that should not be is not left behind.
            let _ = session.request(Request::Refresh { lifetime_secs: 0 });
            let mut step = step(Status::Fail, "OPEN RELAY: anybody gets an allocation without a credential".into());
            if let Answer::Allocated { relayed, .. } = reply.answer {
                step = step.fact("relayed", relayed.to_string());
            }
            recorder.add(step);
            return Reached::Nothing;
        }
        Err(failure) => failure,
    };
    if failure.code() == Some(ErrorCode::TRY_ALTERNATE) {
        return match failure.response().as_ref().and_then(alternate) {
            Some(alternate) => {
                recorder.add(redirect_step(context, &alternate, took));
                Reached::Redirect(alternate)
            }
            None => {
                let message = "300, which sends clients elsewhere, and without an ALTERNATE-SERVER that says where";
                recorder.add(with_code(Step::new("redirect", Status::Fail, took, message), &failure));
                Reached::Nothing
            }
        };
    }
    let challenge = failure
        .response()
        .filter(|_| matches!(&failure, Failure::Client { error, .. } if *error == ClientError::NoCredential));
    let Some(response) = challenge else {
        let words = failure.advice(kind, None, context.now_unix);
        recorder.add(with_code(step(Status::Fail, format!("401 was expected: {words}")), &failure));
        return Reached::Nothing;
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
    recorder.add(step);
    if status != Status::Ok {
        return Reached::Nothing;
    }
    recorder.add(third_party_step(&response));
    Reached::Challenge
}

/// Whether access tokens are taken (RFC 7635 section 4.1).
fn third_party_step(challenge: &Message<'_>) -> Step {
    let server_name = challenge.get(AttributeType::THIRD_PARTY_AUTHORIZATION).map(printable);
    let message = match &server_name {
        Some(name) => format!("access tokens for \"{name}\" are taken (RFC 7635)"),
        None => "off".to_owned(),
    };
    Step::new("third-party", Status::Ok, Duration::ZERO, message).fact("server_name", server_name)
}

/// Sending clients on is no fault, unless it sends them round in a circle.
fn redirect_step(context: &Context<'_>, alternate: &Alternate, took: Duration) -> Step {
    let address = alternate.address;
    let (status, message) = match &context.redirects {
        Redirects::Named => {
            (Status::Note, format!("new clients are sent to {address} (300), and nothing was relayed here"))
        }
        Redirects::Followed(asked) if asked.contains(&address) => (
            Status::Fail,
            format!("clients are sent back to {address} (300), which had sent them on: they go round in a circle"),
        ),
        Redirects::Followed(asked) if asked.len() >= REDIRECTS_MAX => {
            (Status::Fail, format!("clients are sent to {address} (300), the {REDIRECTS_MAX}th server in a row"))
        }
        Redirects::Followed(_) => {
            (Status::Note, format!("new clients are sent to {address} (300), which is probed next"))
        }
    };
    Step::new("redirect", status, took, message)
        .fact("error_code", ErrorCode::TRY_ALTERNATE.value())
        .fact("alternate_server", address.to_string())
        .fact("alternate_domain", alternate.domain.clone())
}

fn alternate(response: &Message<'_>) -> Option<Alternate> {
    let domain = response.get(AttributeType::ALTERNATE_DOMAIN).map(printable);
    Some(Alternate { address: response.address(AttributeType::ALTERNATE_SERVER)?, domain })
}

/// OTHER-ADDRESS, of a server that has NAT behaviour discovery.
fn other_address(reply: &Reply) -> Option<SocketAddr> {
    Message::parse(&reply.response).ok()?.address(AttributeType::OTHER_ADDRESS)
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
