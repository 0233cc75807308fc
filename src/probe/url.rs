//! The URIs of STUN and TURN servers: `stun:` and `stuns:` (RFC 7064), `turn:` and `turns:` (RFC 7065).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use thiserror::Error;

use crate::addr::Transport;

const PORT: u16 = 3478;
const PORT_OVER_TLS: u16 = 5349;

/// The four schemes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// STUN over UDP.
    Stun,
    /// STUN over TLS.
    Stuns,
    /// TURN over UDP or TCP.
    Turn,
    /// TURN over TLS or DTLS.
    Turns,
}

impl Scheme {
    /// The name in a URI.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stun => "stun",
            Self::Stuns => "stuns",
            Self::Turn => "turn",
            Self::Turns => "turns",
        }
    }

    /// Whether it asks for TLS.
    pub fn is_secure(self) -> bool {
        matches!(self, Self::Stuns | Self::Turns)
    }

    /// Whether it asks for a relay.
    pub fn is_turn(self) -> bool {
        matches!(self, Self::Turn | Self::Turns)
    }
}

/// A server's host, as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Host {
    /// A name to look up.
    Name(String),
    /// An address.
    Ip(IpAddr),
}

/// A URI that has been read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TurnUrl {
    /// The scheme.
    pub scheme: Scheme,
    pub(super) host: Host,
    /// What the certificate has to be for, if that is not the host.
    pub(super) certificate_name: Option<Host>,
    /// The port; 3478 and with TLS 5349 unless written.
    pub port: u16,
    /// How the server is reached.
    pub transport: Transport,
    /// Where Chromium asks of a `stuns:` URL, by plain UDP: it knows no other port for STUN than 3478 unless one is written.
    pub(super) chromium_stun_port: u16,
}

/// A URI as browsers take it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct InBrowser {
    /// What they ask, and how.
    pub(super) url: TurnUrl,
    /// The scheme as written.
    pub(super) scheme: Scheme,
    /// Whether DTLS is written, which they do not speak.
    pub(super) asks_for_dtls: bool,
}

/// Why a text is not such a URI.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("\"{}\": {problem}", text.escape_debug())]
pub struct UrlError {
    text: String,
    problem: UrlProblem,
}

impl UrlError {
    /// Whether browsers take the URL all the same, and then find no such host.
    pub(super) fn is_of_a_host_that_browsers_look_up(&self) -> bool {
        match &self.problem {
            UrlProblem::Character(c) => c.is_alphanumeric() && !c.is_ascii(),
            UrlProblem::HostCharacter(c) => "~%!$&'()*+,;=".contains(*c),
            UrlProblem::HostParts(_) => true,
            UrlProblem::NotIpv4(host) => host.split('.').count() != 4,
            _ => false,
        }
    }
}

/// What is wrong in it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
enum UrlProblem {
    #[error("'{}' is not a character of a URL; an international name is written in its xn-- form", .0.escape_debug())]
    Character(char),
    #[error("a URL begins with stun:, stuns:, turn: or turns:")]
    NoScheme,
    #[error("{0}: is not stun:, stuns:, turn: or turns:")]
    UnknownScheme(String),
    #[error("there is no // after {}: (RFC 7064, RFC 7065)", .0.name())]
    Slashes(Scheme),
    #[error("a user does not belong into the URL: give --user")]
    User,
    #[error("there is no # in such a URL")]
    Fragment,
    #[error("the ] of the IPv6 address is missing")]
    OpenBracket,
    #[error("{0:?} after the IPv6 address is no port")]
    AfterBracket(String),
    #[error("an IPv6 address goes into brackets: [{0}]")]
    NoBrackets(String),
    #[error("there is more than one port")]
    TwoPorts,
    #[error("port {0:?} is not a number from 1 to 65535")]
    Port(String),
    #[error("{0:?} is not an IPv6 address")]
    NotIpv6(String),
    #[error("{0:?} is not an IPv4 address")]
    NotIpv4(String),
    #[error("the host is missing")]
    NoHost,
    #[error("'{0}' does not belong into a host name")]
    HostCharacter(char),
    #[error("{0:?} is not a host name: its parts have 1 to 63 characters, the whole up to 253")]
    HostParts(String),
    #[error("{}: URLs have nothing after the port (RFC 7064)", .0.name())]
    StunQuery(Scheme),
    #[error("?{0} is not ?transport=udp or tcp")]
    UnknownQuery(String),
    #[error(
        "turns: over UDP is DTLS, which takes a program that was built with the cargo feature dtls; openssl s_client -dtls1_2 -connect \
         HOST:PORT shows whether a server speaks it"
    )]
    Dtls,
    #[error("transport {0:?} is not udp or tcp")]
    UnknownTransport(String),
}

impl TurnUrl {
    /// Reads a URI as browsers do: `stuns:` is plain STUN over UDP (Chromium), and `turns:` is TLS over TCP whatever its transport
    /// says (Chromium and Firefox).
    pub(super) fn in_browser(text: &str) -> Result<InBrowser, UrlError> {
        let wrong = |problem| UrlError { text: text.to_owned(), problem };
        let parts = split(text).map_err(wrong)?;
        let asked = read_query(parts.scheme, parts.query).map_err(wrong)?;
        let scheme = parts.scheme;
        let mut url = parts.url(match (scheme, asked) {
            (Scheme::Turn, Some(Asked::Tcp)) => Transport::Tcp,
            (Scheme::Turns, _) => Transport::Tls,
            _ => Transport::Udp,
        });
        if scheme == Scheme::Stuns {
            (url.scheme, url.port) = (Scheme::Stun, url.chromium_stun_port);
        }
        Ok(InBrowser { url, scheme, asks_for_dtls: (scheme, asked) == (Scheme::Turns, Some(Asked::Udp)) })
    }

    /// Takes another name, for the certificate of a server whose address is known.
    pub(super) fn set_name(&mut self, name: String) {
        self.host = Host::Name(name);
        self.certificate_name = None;
    }

    /// What the certificate has to be for.
    pub(super) fn name(&self) -> &Host {
        self.certificate_name.as_ref().unwrap_or(&self.host)
    }
}

impl FromStr for TurnUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        split(text)
            .and_then(|parts| {
                let transport = read_transport(parts.scheme, parts.query)?;
                Ok(parts.url(transport))
            })
            .map_err(|problem| UrlError { text: text.to_owned(), problem })
    }
}

impl fmt::Display for TurnUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.scheme.name())?;
        write!(f, "{}:{}", self.host, self.port)?;
        match (self.scheme.is_turn(), self.transport) {
            (false, _) => Ok(()),
            (true, Transport::Udp | Transport::Dtls) => f.write_str("?transport=udp"),
            (true, Transport::Tcp | Transport::Tls) => f.write_str("?transport=tcp"),
        }
    }
}

/// As in a URI.
impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Ip(IpAddr::V4(ip)) => write!(f, "{ip}"),
            Self::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
        }
    }
}

/// Reads a host, perhaps with a port, as they are in a URI.
pub(super) fn read_authority(text: &str) -> Result<(Host, Option<u16>), UrlError> {
    let read = || {
        let (host, port) = split_port(text)?;
        Ok((read_host(host)?, port.map(read_port).transpose()?))
    };
    read().map_err(|problem| UrlError { text: text.to_owned(), problem })
}

/// Reads a host without a port.
pub(super) fn read_name(text: &str) -> Result<Host, UrlError> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok(Host::Ip(ip));
    }
    read_host(text).map_err(|problem| UrlError { text: text.to_owned(), problem })
}

/// A URI taken apart.
struct Parts<'t> {
    scheme: Scheme,
    host: Host,
    port: Option<u16>,
    query: Option<&'t str>,
}

impl Parts<'_> {
    fn url(self, transport: Transport) -> TurnUrl {
        let default = if self.scheme.is_secure() { PORT_OVER_TLS } else { PORT };
        TurnUrl {
            scheme: self.scheme,
            host: self.host,
            certificate_name: None,
            port: self.port.unwrap_or(default),
            transport,
            chromium_stun_port: self.port.unwrap_or(PORT),
        }
    }
}

fn split(text: &str) -> Result<Parts<'_>, UrlProblem> {
    if let Some(bad) = text.chars().find(|c| !c.is_ascii_graphic()) {
        return Err(UrlProblem::Character(bad));
    }
    let (scheme, rest) = text.split_once(':').ok_or(UrlProblem::NoScheme)?;
    let scheme = [Scheme::Stun, Scheme::Stuns, Scheme::Turn, Scheme::Turns]
        .into_iter()
        .find(|known| known.name().eq_ignore_ascii_case(scheme))
        .ok_or_else(|| UrlProblem::UnknownScheme(scheme.to_owned()))?;
    if rest.starts_with("//") {
        return Err(UrlProblem::Slashes(scheme));
    }
    if rest.contains('@') {
        return Err(UrlProblem::User);
    }
    if rest.contains('#') {
        return Err(UrlProblem::Fragment);
    }
    let (authority, query) = match rest.split_once('?') {
        Some((authority, query)) => (authority, Some(query)),
        None => (rest, None),
    };
    let (host, port) = split_port(authority)?;
    let host = read_host(host)?;
    let port = port.map(read_port).transpose()?;
    Ok(Parts { scheme, host, port, query })
}

fn split_port(authority: &str) -> Result<(&str, Option<&str>), UrlProblem> {
    if authority.starts_with('[') {
        let end = authority.find(']').ok_or(UrlProblem::OpenBracket)?;
        let (host, rest) = authority.split_at(end + 1);
        return match rest.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None if rest.is_empty() => Ok((host, None)),
            None => Err(UrlProblem::AfterBracket(rest.to_owned())),
        };
    }
    if authority.parse::<Ipv6Addr>().is_ok() {
        return Err(UrlProblem::NoBrackets(authority.to_owned()));
    }
    match authority.split_once(':') {
        Some((_, port)) if port.contains(':') => Err(UrlProblem::TwoPorts),
        Some((host, port)) => Ok((host, Some(port))),
        None => Ok((authority, None)),
    }
}

fn read_port(port: &str) -> Result<u16, UrlProblem> {
    let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let number = if digits { port.parse().ok().filter(|&number| number != 0) } else { None };
    number.ok_or_else(|| UrlProblem::Port(port.to_owned()))
}

fn read_host(host: &str) -> Result<Host, UrlProblem> {
    if let Some(inner) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        let ip = inner.parse::<Ipv6Addr>().map_err(|_| UrlProblem::NotIpv6(inner.to_owned()))?;
        return Ok(Host::Ip(IpAddr::V6(ip)));
    }
    if host.is_empty() {
        return Err(UrlProblem::NoHost);
    }
    if let Ok(ip) = host.parse::<Ipv4Addr>() {
        return Ok(Host::Ip(IpAddr::V4(ip)));
    }
    let labels = host.strip_suffix('.').unwrap_or(host);
    if let Some(bad) = host.chars().find(|c| !c.is_ascii_alphanumeric() && !"-._".contains(*c)) {
        return Err(UrlProblem::HostCharacter(bad));
    }
    if labels.len() > 253 || labels.split('.').any(|label| label.is_empty() || label.len() > 63) {
        return Err(UrlProblem::HostParts(host.to_owned()));
    }
    if labels.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit())) {
        return Err(UrlProblem::NotIpv4(host.to_owned()));
    }
    Ok(Host::Name(host.to_owned()))
}

/// What `?transport=` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Udp,
    Tcp,
}

fn read_transport(scheme: Scheme, query: Option<&str>) -> Result<Transport, UrlProblem> {
    match (read_query(scheme, query)?, scheme.is_secure()) {
        (None | Some(Asked::Udp), false) => Ok(Transport::Udp),
        (Some(Asked::Tcp), false) => Ok(Transport::Tcp),
        (None | Some(Asked::Tcp), true) => Ok(Transport::Tls),
        (Some(Asked::Udp), true) if cfg!(feature = "dtls") => Ok(Transport::Dtls),
        (Some(Asked::Udp), true) => Err(UrlProblem::Dtls),
    }
}

fn read_query(scheme: Scheme, query: Option<&str>) -> Result<Option<Asked>, UrlProblem> {
    let Some(query) = query else { return Ok(None) };
    if !scheme.is_turn() {
        return Err(UrlProblem::StunQuery(scheme));
    }
    let value = query.strip_prefix("transport=").ok_or_else(|| UrlProblem::UnknownQuery(query.to_owned()))?;
    match value.to_ascii_lowercase().as_str() {
        "udp" => Ok(Some(Asked::Udp)),
        "tcp" => Ok(Some(Asked::Tcp)),
        _ => Err(UrlProblem::UnknownTransport(value.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> TurnUrl {
        text.parse().unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn every_form_is_read_with_its_defaults() {
        for (text, whole) in [
            ("stun:turn.example.org", "stun:turn.example.org:3478"),
            ("STUNS:turn.example.org", "stuns:turn.example.org:5349"),
            ("turn:192.0.2.1", "turn:192.0.2.1:3478?transport=udp"),
            ("turn:a_b-c.example.:80?transport=tcp", "turn:a_b-c.example.:80?transport=tcp"),
            ("turn:localhost?transport=UDP", "turn:localhost:3478?transport=udp"),
            ("turns:[2001:db8::1]", "turns:[2001:db8::1]:5349?transport=tcp"),
            ("turns:[::1]:443?transport=tcp", "turns:[::1]:443?transport=tcp"),
        ] {
            let url = parse(text);
            assert_eq!(url.to_string(), whole);
            assert_eq!(parse(whole).to_string(), whole);
        }
        assert_eq!(parse("turns:a").transport, Transport::Tls);
        assert_eq!(parse("stuns:a").transport, Transport::Tls);
        assert_eq!(parse("turn:a?transport=tcp").transport, Transport::Tcp);
    }

    #[test]
    fn browsers_ask_stuns_by_plain_udp_and_turns_by_tls_over_tcp() {
        for (text, taken, asks_for_dtls) in [
            ("stun:a", "stun:a:3478", false),
            ("stuns:a", "stun:a:3478", false),
            ("stuns:[::1]:443", "stun:[::1]:443", false),
            ("turn:a?transport=TCP", "turn:a:3478?transport=tcp", false),
            ("turns:a", "turns:a:5349?transport=tcp", false),
            ("turns:a:443?transport=tcp", "turns:a:443?transport=tcp", false),
            ("turns:a:443?transport=udp", "turns:a:443?transport=tcp", true),
        ] {
            let found = TurnUrl::in_browser(text).unwrap();
            assert_eq!((found.url.to_string().as_str(), found.asks_for_dtls), (taken, asks_for_dtls), "{text}");
        }
        for text in ["stun:a?transport=udp", "turn:a?transport=tls", "turn:a?x=1", "turn://a", "turn:u@a", "http:a"] {
            assert!(TurnUrl::in_browser(text).is_err(), "{text}");
        }
        assert_eq!(parse("stuns:a").chromium_stun_port, 3478);
    }

    #[test]
    fn turns_over_udp_is_dtls_where_that_is_built_in() {
        let text = "turns:a:443?transport=udp";
        match text.parse::<TurnUrl>() {
            Ok(url) if cfg!(feature = "dtls") => {
                assert_eq!((url.transport, url.to_string()), (Transport::Dtls, text.to_owned()))
            }
            Err(error) if !cfg!(feature = "dtls") => {
                assert!(error.to_string().contains("cargo feature dtls"), "{error}")
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_not_such_a_url_is_refused_with_the_place() {
        let long = format!("turn:{}", "a".repeat(64));
        for (text, problem) in [
            ("", "begins with stun:"),
            ("turn.example.org", "begins with stun:"),
            ("http:a", "http: is not"),
            ("turn://a", "no //"),
            ("turn:", "host is missing"),
            ("turn:?transport=udp", "host is missing"),
            ("turn::3478", "host is missing"),
            ("turn:a:", "port \"\""),
            ("turn:a:0", "port \"0\""),
            ("turn:a:65536", "port \"65536\""),
            ("turn:a:+80", "port \"+80\""),
            ("turn:a:1:2", "more than one port"),
            ("turn:::1", "goes into brackets"),
            ("turn:[::1", "] of the IPv6 address"),
            ("turn:[::1]80", "is no port"),
            ("turn:[fe80::1%25eth0]", "not an IPv6 address"),
            ("turn:[192.0.2.1]", "not an IPv6 address"),
            ("turn:192.0.2.256", "not an IPv4 address"),
            ("turn:192.0.2", "not an IPv4 address"),
            ("turn:a..b", "not a host name"),
            (&long, "not a host name"),
            ("turn:a/b", "'/' does not belong"),
            ("turn:a%41", "'%' does not belong"),
            ("turn:user:secret@a", "give --user"),
            ("turn:a#b", "no #"),
            ("turn:a b", "is not a character"),
            ("turn:b\u{fc}cher.example", "xn--"),
            ("stun:a?transport=udp", "nothing after the port"),
            ("turn:a?", "is not ?transport="),
            ("turn:a?transport=sctp", "not udp or tcp"),
            ("turn:a?transport=udp&x=1", "not udp or tcp"),
        ] {
            let error = text.parse::<TurnUrl>().unwrap_err().to_string();
            assert!(error.contains(problem), "{text:?}: {error}");
        }
    }
}
