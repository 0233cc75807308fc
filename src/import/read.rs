//! What a configuration says, as far as it has a counterpart here: [`Conf`], which coturn's directives are read into the way
//! coturn understands them (of a repeated one that has a single value, the last counts), and `eturnal.yml`, too.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use zeroize::Zeroizing;

use super::arguments;
use super::findings::{Finding, FindingKind, Grade, Spot};
use super::listeners::Extra;
use super::operation::Operation;
use super::peers::PeerRange;
use super::placeholder;
use super::syntax::Entry;
use super::table::{self, Treatment};

/// Takes one entry into a [`Conf`].
pub(super) type Reader = fn(&mut Conf, &Entry<'_>);

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
    on: HashSet<&'static str>,
    /// What is lost only if another directive turns on what it belongs to.
    parts: Vec<(Spot, &'static str, Grade, table::Part)>,
    /// Whether a secret was on a command line.
    pub(super) is_secret_seen: bool,
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
    pub(super) no_rfc5780: bool,
    pub(super) no_tcp_relay: bool,
    pub(super) relay_ips: Vec<At<IpAddr>>,
    /// Public address, and private one if given.
    pub(super) external_ips: Vec<At<(IpAddr, Option<IpAddr>)>>,
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
    pub(super) on_expiry: Option<&'static str>,
    pub(super) certificate: Option<At<String>>,
    pub(super) key: Option<At<String>>,
    pub(super) no_tls12: bool,
    pub(super) log_level: Option<&'static str>,
    pub(super) operation: Operation,
}

impl Conf {
    pub(super) fn take(&mut self, entry: &Entry<'_>) {
        let Some((name, grade, treatment)) = table::find(entry.name) else { return self.unknown(entry) };
        self.about = grade;
        if placeholder::is_template(entry.value) {
            return self.template(entry);
        }
        if entry.switch() != Some(false) {
            self.on.insert(name);
        }
        match treatment {
            Treatment::Read(read) => read(self, entry),
            Treatment::Always(what) => match self.switch(entry) {
                Some(true) => self.harmless(entry, what),
                Some(false) => self.note(entry, &format!("it cannot be turned off: {what}")),
                None => {}
            },
            Treatment::Missing(why) => match self.switch(entry) {
                Some(true) => self.lost(entry, why),
                Some(false) => self.harmless(entry, "off, as it always is here"),
                None => {}
            },
            Treatment::Without(_) | Treatment::Part(_) if entry.is_nothing() && !arguments::is_switch(name) => {
                self.harmless(entry, "nothing, or 0, leaves it off, in coturn and here");
            }
            Treatment::Without(why) => self.lost(entry, why),
            Treatment::Part(part) => self.parts.push((entry.spot, name, grade, part)),
            Treatment::Needless(why) => self.harmless(entry, why),
        }
    }

    /// Says what became of directives that belong to others, when all are read.
    pub(super) fn judge_parts(&mut self) {
        for (spot, name, grade, part) in std::mem::take(&mut self.parts) {
            match (part.is_used)(self) {
                true => self.find(Some(spot), name, FindingKind::NotConverted, grade, part.why),
                false => self.find(Some(spot), name, FindingKind::Note, Grade::Harmless, part.unused),
            }
        }
    }

    /// Whether a directive is there and not turned off.
    pub(super) fn has(&self, directive: &str) -> bool {
        self.on.contains(directive)
    }

    /// A value that a template's engine was to fill in. Where a directive by its being there means something, it still does.
    fn template(&mut self, entry: &Entry<'_>) {
        match entry.name {
            "listening-ip" => self.names_listening_ip = true,
            "static-auth-secret" | "use-auth-secret" => self.use_auth_secret = true,
            _ => {}
        }
        let message = "a placeholder that nobody has filled in, left out: import the file that the running server reads, or \
                       write the value by hand";
        self.invalid(entry, message);
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
