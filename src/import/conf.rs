//! What a configuration says, as far as it has a counterpart here: [`Conf`], and how values are taken into it, with a finding
//! where one makes no sense.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use zeroize::Zeroizing;

use super::findings::{Finding, FindingKind, Grade, Spot};
use super::range::PeerRange;
use super::syntax::Entry;

/// A value and where it is.
#[derive(Clone, Debug)]
pub(super) struct At<T> {
    pub(super) spot: Spot,
    pub(super) value: T,
}

/// Which server a configuration was for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Origin {
    #[default]
    Coturn,
    Eturnal,
}

/// What a configuration says, as far as it has a counterpart.
#[derive(Default)]
pub(super) struct Conf {
    pub(super) origin: Origin,
    pub(super) findings: Vec<Finding>,
    /// Whom the directive that is being read concerns.
    pub(super) about: Grade,
    /// The switches that are on.
    pub(super) on: HashSet<&'static str>,
    /// What is lost only if another directive turns on what it belongs to.
    pub(super) parts: Vec<(Spot, &'static str, Grade, Part)>,
    /// Whether a secret was on a command line.
    pub(super) is_secret_seen: bool,
    /// Where the first user with a key in place of a password is.
    pub(super) stored_key: Option<Spot>,
    pub(super) listening_port: Option<At<u16>>,
    pub(super) tls_listening_port: Option<At<u16>>,
    pub(super) alt_listening_port: Option<At<u16>>,
    pub(super) alt_tls_listening_port: Option<At<u16>>,
    pub(super) listening_ips: Vec<At<IpAddr>>,
    /// Whether there is a listening-ip, readable or not: then it is not every address that is meant.
    pub(super) names_listening_ip: bool,
    pub(super) aux_servers: Vec<At<SocketAddr>>,
    /// eturnal's listeners, which name their transports.
    pub(super) extra_listeners: Vec<At<Extra>>,
    pub(super) no_udp: bool,
    pub(super) no_tcp: bool,
    pub(super) no_tls: bool,
    pub(super) no_dtls: bool,
    /// Asked for, which coturn wants since 4.17.
    pub(super) dtls: bool,
    /// The port for connections of proxies.
    pub(super) tcp_proxy_port: Option<At<u16>>,
    pub(super) no_rfc5780: bool,
    /// Where it is asked for.
    pub(super) rfc5780: Option<Spot>,
    /// What is made of it.
    pub(super) nat_discovery: Option<NatDiscovery>,
    pub(super) rfc3489: bool,
    /// Said by no-tcp-relay, one way or the other; coturn offers them where nothing is said.
    pub(super) tcp_relay: Option<bool>,
    pub(super) relay_ips: Vec<At<IpAddr>>,
    /// Public address, and private one if given.
    pub(super) external_ips: Vec<At<(IpAddr, Option<IpAddr>)>>,
    /// The address family of clients that name none.
    pub(super) address_family: Option<&'static str>,
    /// Whether allocations share relay ports, from which port on, and how many peers each may have.
    pub(super) multiplexes: bool,
    pub(super) multiplex_port: Option<At<u16>>,
    pub(super) multiplex_peers: Option<u64>,
    pub(super) workers: Option<u64>,
    pub(super) min_port: Option<At<u16>>,
    pub(super) max_port: Option<At<u16>>,
    pub(super) no_auth: bool,
    pub(super) lt_cred_mech: bool,
    pub(super) use_auth_secret: bool,
    pub(super) secrets: Vec<Zeroizing<String>>,
    pub(super) users: Vec<At<(String, Zeroizing<String>)>>,
    pub(super) realm: Option<String>,
    pub(super) public_host: Option<String>,
    /// The name that access tokens are for.
    pub(super) server_name: Option<String>,
    /// Whether access tokens (RFC 7635) are taken.
    pub(super) oauth: bool,
    pub(super) nonce_secs: Option<u64>,
    pub(super) per_user: Option<u64>,
    pub(super) total: Option<u64>,
    pub(super) max_bytes_per_sec: Option<u64>,
    pub(super) allocation_max_secs: Option<u64>,
    pub(super) idle_secs: Option<u64>,
    pub(super) unauthenticated_rps: Option<u64>,
    pub(super) peers_per_allocation: Option<u64>,
    pub(super) denied: Vec<At<PeerRange>>,
    pub(super) allowed: Vec<At<PeerRange>>,
    pub(super) stun_only: bool,
    pub(super) software: Option<String>,
    pub(super) rfc5766_channel_numbers: Option<bool>,
    pub(super) mobility: Option<bool>,
    /// Servers of `[redirect]`, as they are written there.
    pub(super) alternates: Vec<String>,
    pub(super) on_expiry: Option<&'static str>,
    pub(super) certificate: Option<At<String>>,
    pub(super) key: Option<At<String>>,
    pub(super) no_tls12: bool,
    pub(super) log_level: Option<&'static str>,
    pub(super) operation: Operation,
    /// coturn's users and secrets in Redis.
    pub(super) store: Option<At<Store>>,
}

/// Where coturn has users and secrets in Redis.
pub(super) struct Store {
    pub(super) url: String,
    pub(super) password: Option<Zeroizing<String>>,
}

/// The addresses and ports for RFC 5780.
pub(super) struct NatDiscovery {
    pub(super) addresses: Vec<IpAddr>,
    pub(super) ports: [u16; 2],
}

/// A listener that names its transports itself.
#[derive(Clone, Debug)]
pub(super) struct Extra {
    pub(super) ip: IpAddr,
    pub(super) port: u16,
    pub(super) transports: Vec<&'static str>,
    /// Whether a header of a proxy is in front of each connection.
    pub(super) is_proxied: bool,
}

/// What a configuration says of ways to watch and to rule the server.
#[derive(Default)]
pub(super) struct Operation {
    /// The place that turns it on.
    pub(super) prometheus: Option<Spot>,
    pub(super) port: Option<At<u16>>,
    pub(super) address: Option<At<IpAddr>>,
    /// Another path than /metrics.
    pub(super) path: Option<Spot>,
    pub(super) cli: Option<bool>,
    pub(super) cli_password: Option<Spot>,
    pub(super) web_admin: bool,
    pub(super) redis_statistics: bool,
}

/// What belongs to something that may be off, and then does nothing.
#[derive(Clone, Copy)]
pub(super) struct Part {
    /// Whether what it belongs to is on, when all is read.
    pub(super) is_used: fn(&Conf) -> bool,
    /// Said when it is not.
    pub(super) unused: &'static str,
    /// Why it has no counterpart, and what to do.
    pub(super) why: &'static str,
}

impl Conf {
    /// Whether a directive is there and not turned off.
    pub(super) fn has(&self, directive: &str) -> bool {
        self.on.contains(directive)
    }

    /// Whether coturn serves TLS.
    pub(super) fn has_tls(&self) -> bool {
        self.certificate.is_some() && self.key.is_some() && !self.no_tls
    }

    pub(super) fn too_long(&mut self, spot: Spot) {
        let message = "coturn reads only 1023 bytes of a line; it is left out";
        self.find(Some(spot), "?", FindingKind::Invalid, Grade::Clients, message);
    }

    pub(super) fn find(&mut self, spot: Option<Spot>, directive: &str, kind: FindingKind, grade: Grade, message: &str) {
        let (directive, message) = (directive.to_owned(), message.to_owned());
        self.findings.push(Finding { spot, directive, kind, grade, message });
    }

    /// Something is other than before, and known to be.
    pub(super) fn note(&mut self, entry: &Entry<'_>, message: &str) {
        self.find(Some(entry.spot), entry.name, FindingKind::Note, self.about, message);
    }

    /// Nothing is other than before.
    pub(super) fn harmless(&mut self, entry: &Entry<'_>, message: &str) {
        self.find(Some(entry.spot), entry.name, FindingKind::Note, Grade::Harmless, message);
    }

    pub(super) fn lost(&mut self, entry: &Entry<'_>, message: &str) {
        self.find(Some(entry.spot), entry.name, FindingKind::NotConverted, self.about, message);
    }

    pub(super) fn invalid(&mut self, entry: &Entry<'_>, message: &str) {
        self.find(Some(entry.spot), entry.name, FindingKind::Invalid, self.about, message);
    }

    pub(super) fn switch(&mut self, entry: &Entry<'_>) -> Option<bool> {
        let on = entry.switch();
        if on.is_none() {
            self.invalid(entry, "neither on nor off, at which coturn would not start; left out");
        }
        on
    }

    pub(super) fn number(&mut self, entry: &Entry<'_>) -> Option<u64> {
        let number = entry.number();
        if number.is_none() {
            self.invalid(entry, "not a whole number; left out");
        }
        number
    }

    pub(super) fn port(&mut self, entry: &Entry<'_>) -> Option<At<u16>> {
        match u16::try_from(self.number(entry)?) {
            // coturn's default.
            Ok(0) => None,
            Ok(port) => Some(At { spot: entry.spot, value: port }),
            Err(_) => {
                self.invalid(entry, "not a port; left out");
                None
            }
        }
    }

    pub(super) fn text(&mut self, entry: &Entry<'_>) -> Option<String> {
        if entry.value.is_empty() {
            self.invalid(entry, "it has no value, which belongs on the same line; left out");
            return None;
        }
        let is_in_file = matches!(entry.spot, Spot::Line(_));
        if is_in_file && entry.has_comment_in_value() {
            self.note(entry, "a comment after a value is part of the value, for coturn: taken over with it");
        } else if is_in_file && entry.value.ends_with(';') {
            self.note(entry, "a semicolon at the end is part of the value, for coturn: taken over with it");
        }
        Some(entry.value.to_owned())
    }

    /// A unicast or wildcard address; coturn takes names too and resolves them at its start.
    pub(super) fn address(&mut self, entry: &Entry<'_>, text: &str) -> Option<IpAddr> {
        let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
        match bare.parse::<IpAddr>() {
            Ok(ip) if ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST) || ip.to_canonical() != ip => {
                self.invalid(entry, "a multicast, broadcast or IPv4-mapped address; left out");
                None
            }
            Ok(ip) => Some(ip),
            Err(_) => {
                let message = match entry.has_comment_in_value() {
                    true => "not an IP address, because what looks like a comment is part of the value; left out",
                    false => "not an IP address; left out (write the address if it is a name)",
                };
                self.invalid(entry, message);
                None
            }
        }
    }
}
