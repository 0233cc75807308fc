//! Plain words for what can go wrong, and for what an address is.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use crate::addr::{Reach, SocketKind};
use crate::auth::TimeLimited;
use crate::client::{ClientError, Credential, io_words};
use crate::clock::span;
use crate::stun::{AttributeType, ErrorCode, Message, Method};

use super::report::Step;

/// Bytes of a foreign answer that are shown.
const SHOWN_BYTES: usize = 40;

/// Why a request got no success.
#[derive(Debug)]
pub(super) enum Failure {
    Io(io::Error),
    /// The server closed the connection.
    Closed,
    Silent {
        sends: u32,
        waited: Duration,
    },
    /// Bytes that are neither STUN nor ChannelData.
    NotStun(Vec<u8>),
    /// The request itself came back.
    Echoed,
    /// The server's answer, and why it is no success.
    Client {
        error: ClientError,
        response: Vec<u8>,
    },
}

impl Failure {
    /// The server's error code, when it refused.
    pub(super) fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Client { error: ClientError::Refused { code, .. }, .. } => Some(*code),
            _ => None,
        }
    }

    fn is_of_allocate(&self) -> bool {
        matches!(self, Self::Client { error: ClientError::Refused { method, .. }, .. } if *method == Method::ALLOCATE)
    }

    /// The answer that was no success.
    pub(super) fn response(&self) -> Option<Message<'_>> {
        match self {
            Self::Client { response, .. } => Message::parse(response).ok(),
            _ => None,
        }
    }

    /// In words; `kind` tells how the server was reached.
    pub(super) fn words(&self, kind: SocketKind) -> String {
        match self {
            Self::Io(error) => io_words(error, kind),
            Self::Closed => "the server closed the connection without an answer".into(),
            Self::Silent { sends, waited } => {
                let secs = waited.as_secs_f64();
                match kind {
                    SocketKind::Udp => format!(
                        "no answer within {secs:.1} s ({sends} transmissions): a firewall drops UDP, or there is no STUN server"
                    ),
                    SocketKind::Tcp => {
                        format!("connected, but no answer within {secs:.1} s: this is hardly a STUN server")
                    }
                }
            }
            Self::NotStun(bytes) => {
                let shown = bytes.get(..bytes.len().min(SHOWN_BYTES)).unwrap_or_default();
                format!("not a STUN server: it says \"{}\"", shown.escape_ascii())
            }
            Self::Echoed => "not a STUN server: it sends back what it gets (an echo service)".into(),
            Self::Client { error, .. } => error.to_string(),
        }
    }

    /// In words, with what an operator would look at next.
    pub(super) fn advice(&self, kind: SocketKind, credential: Option<&Credential>, now_unix: u64) -> String {
        let words = self.words(kind);
        let hint = match self.code() {
            Some(ErrorCode::UNAUTHENTICATED | ErrorCode::WRONG_CREDENTIALS) => match credential.map(age) {
                Some(Some(expires_unix)) if expires_unix <= now_unix => {
                    format!("the credential expired {} ago, says its username", span(now_unix - expires_unix))
                }
                Some(Some(_)) => {
                    "the password does not fit the username, the server has another secret (perhaps one was read with the line end behind it), or \
                     the credential has been revoked; on the server, turnstone credentials verify says which"
                        .into()
                }
                _ => "wrong user or password, or the user has been revoked".into(),
            },
            Some(ErrorCode::QUOTA_REACHED) => "the user's or the server's quota is reached".into(),
            Some(ErrorCode::INSUFFICIENT_CAPACITY) => {
                "no relay port is left, the relay address is not usable, or the server drains and takes no new clients (turnstone status)".into()
            }
            Some(ErrorCode::FORBIDDEN) if self.is_of_allocate() => {
                "this user may have no relay; perhaps he is suspended for peers that are denied ([guard] suspend-after, which such probes use up: \
                 turnstone suspensions lists and lifts them)"
                    .into()
            }
            Some(ErrorCode::TRY_ALTERNATE) => match self.response().as_ref().and_then(alternate) {
                Some(alternate) => format!("the server sends clients to {alternate}, each time that it was asked"),
                None => "the server sends clients elsewhere and does not say where".into(),
            },
            _ => return words,
        };
        format!("{words}: {hint}")
    }
}

/// Whether a socket cannot be used because this machine has no way there, which says nothing about the server.
pub(super) fn is_no_route(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NetworkUnreachable | io::ErrorKind::AddrNotAvailable)
        || error.raw_os_error() == Some(libc::EAFNOSUPPORT)
}

/// Why nobody on the Internet can send to an address; `None` when they can.
pub fn not_public(ip: IpAddr) -> Option<&'static str> {
    match Reach::of(ip) {
        Reach::Unspecified => Some("the unspecified address"),
        Reach::Loopback => Some("a loopback address"),
        Reach::Private => Some("a private address"),
        Reach::Link => Some("a link-local address"),
        Reach::Shared => Some("an address of carrier-grade NAT"),
        Reach::Many if ip.to_canonical().is_ipv4() => Some("a multicast or broadcast address"),
        Reach::Many => Some("a multicast address"),
        _ => None,
    }
}

/// A text of the server's, safe to print.
pub(super) fn printable(bytes: &[u8]) -> String {
    let shown = bytes.get(..bytes.len().min(128)).unwrap_or_default();
    String::from_utf8_lossy(shown).escape_debug().collect()
}

fn age(credential: &Credential) -> Option<u64> {
    TimeLimited::parse(&credential.username).map(|parsed| parsed.expires_unix)
}

fn alternate(response: &Message<'_>) -> Option<std::net::SocketAddr> {
    response.address(AttributeType::ALTERNATE_SERVER)
}

/// Adds the server's error code to the facts, when there is one.
pub(super) fn with_code(step: Step, failure: &Failure) -> Step {
    match failure.code() {
        Some(code) => step.fact("error_code", code.value()),
        None => step,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_nobody_can_reach_are_named() {
        for (ip, expected) in [
            ("0.0.0.0", Some("the unspecified address")),
            ("127.0.0.1", Some("a loopback address")),
            ("172.16.0.1", Some("a private address")),
            ("169.254.169.254", Some("a link-local address")),
            ("100.64.0.1", Some("an address of carrier-grade NAT")),
            ("100.128.0.1", None),
            ("198.51.100.1", None),
            ("::1", Some("a loopback address")),
            ("fd00::1", Some("a private address")),
            ("fe80::1", Some("a link-local address")),
            ("::ffff:10.0.0.1", Some("a private address")),
            ("2001:db8::1", None),
        ] {
            assert_eq!(not_public(ip.parse().unwrap()), expected, "{ip}");
        }
    }
}
