//! The directives with a counterpart here, read into [`Conf`] the way coturn understands them: of a repeated one that has
//! a single value, the last counts.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use zeroize::Zeroizing;

use crate::auth::{TimeLimited, Users};

use super::operation::Operation;
use super::peers::PeerRange;
use super::syntax::Entry;
use super::table::Treatment;
use super::{Finding, FindingKind};

/// Takes one entry into a [`Conf`].
pub(super) type Reader = fn(&mut Conf, &Entry<'_>);

const COTURN_THREADS_MAX: u64 = 128;

/// A value and the line it is on.
#[derive(Clone, Debug)]
pub(super) struct At<T> {
    pub(super) line: usize,
    pub(super) value: T,
}

/// What a `turnserver.conf` says, as far as it has a counterpart.
#[derive(Default)]
pub(super) struct Conf {
    pub(super) findings: Vec<Finding>,
    pub(super) listening_port: Option<At<u16>>,
    pub(super) tls_listening_port: Option<At<u16>>,
    pub(super) listening_ips: Vec<At<IpAddr>>,
    /// Whether there is a listening-ip, readable or not: then it is not every address that is meant.
    pub(super) names_listening_ip: bool,
    pub(super) aux_servers: Vec<At<SocketAddr>>,
    pub(super) no_udp: bool,
    pub(super) no_tcp: bool,
    pub(super) no_tls: bool,
    pub(super) no_dtls: bool,
    pub(super) no_tcp_relay: bool,
    pub(super) relay_ips: Vec<At<IpAddr>>,
    /// Public address, and private one if given.
    pub(super) external_ips: Vec<At<(IpAddr, Option<IpAddr>)>>,
    pub(super) workers: Option<u64>,
    pub(super) min_port: Option<At<u16>>,
    pub(super) max_port: Option<At<u16>>,
    pub(super) no_auth: bool,
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
    pub(super) denied: Vec<At<PeerRange>>,
    pub(super) allowed: Vec<At<PeerRange>>,
    pub(super) stun_only: bool,
    pub(super) software: bool,
    pub(super) rfc5766_channel_numbers: Option<bool>,
    pub(super) certificate: Option<At<String>>,
    pub(super) key: Option<At<String>>,
    pub(super) no_tls12: bool,
    pub(super) log_level: Option<&'static str>,
    pub(super) operation: Operation,
}

impl Conf {
    pub(super) fn take(&mut self, entry: &Entry<'_>, treatment: Treatment) {
        match treatment {
            Treatment::Read(read) => read(self, entry),
            Treatment::Always(what) => match self.switch(entry) {
                Some(true) => self.note(entry, what),
                Some(false) => self.lost(entry, &format!("it cannot be turned off: {what}")),
                None => {}
            },
            Treatment::Missing(why) => match self.switch(entry) {
                Some(true) => self.lost(entry, why),
                Some(false) => self.note(entry, "off, as it always is here"),
                None => {}
            },
            Treatment::Without(why) => self.lost(entry, why),
            Treatment::Needless(why) => self.note(entry, why),
        }
    }

    /// A name that coturn does not know either; it warns in its log and goes on.
    pub(super) fn unknown(&mut self, entry: &Entry<'_>) {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        // A secret could follow, where a separator is missing.
        let end = entry.name.find(|c| !plain(c)).unwrap_or(entry.name.len()).min(60);
        let name = entry.name.get(..end).unwrap_or("");
        let bare = name.trim_start_matches('-');
        let hint = match super::table::find(bare) {
            Some(_) if name != bare => "; in a file, directives have no dashes in front",
            Some(_) => "; coturn wants `name=value`",
            None => "; coturn ignores it, too",
        };
        let name = if name.is_empty() { "?" } else { name };
        self.find(Some(entry.line), name, FindingKind::Unknown, &format!("not a directive of coturn{hint}"));
    }

    pub(super) fn too_long(&mut self, line: usize) {
        let message = "coturn reads only 1023 bytes of a line; it is left out";
        self.find(Some(line), "?", FindingKind::Invalid, message);
    }

    pub(super) fn find(&mut self, line: Option<usize>, directive: &str, kind: FindingKind, message: &str) {
        self.findings.push(Finding { line, directive: directive.to_owned(), kind, message: message.to_owned() });
    }

    pub(super) fn note(&mut self, entry: &Entry<'_>, message: &str) {
        self.find(Some(entry.line), entry.name, FindingKind::Note, message);
    }

    pub(super) fn lost(&mut self, entry: &Entry<'_>, message: &str) {
        self.find(Some(entry.line), entry.name, FindingKind::NotConverted, message);
    }

    fn invalid(&mut self, entry: &Entry<'_>, message: &str) {
        self.find(Some(entry.line), entry.name, FindingKind::Invalid, message);
    }

    pub(super) fn switch(&mut self, entry: &Entry<'_>) -> Option<bool> {
        let on = entry.switch();
        if on.is_none() {
            self.invalid(entry, "neither on nor off, at which coturn would not start; left out");
        }
        on
    }

    fn number(&mut self, entry: &Entry<'_>) -> Option<u64> {
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
            Ok(port) => Some(At { line: entry.line, value: port }),
            Err(_) => {
                self.invalid(entry, "not a port; left out");
                None
            }
        }
    }

    fn text(&mut self, entry: &Entry<'_>) -> Option<String> {
        if entry.value.is_empty() {
            self.invalid(entry, "it has no value; left out");
            return None;
        }
        if entry.has_comment_in_value() {
            self.note(entry, "a comment after a value is part of the value, for coturn: taken over with it");
        } else if entry.value.ends_with(';') {
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
                self.invalid(entry, "not an IP address; left out (write the address if it is a name)");
                None
            }
        }
    }

    pub(super) fn listening_port(&mut self, entry: &Entry<'_>) {
        self.listening_port = self.port(entry);
    }

    pub(super) fn tls_listening_port(&mut self, entry: &Entry<'_>) {
        self.tls_listening_port = self.port(entry);
    }

    pub(super) fn listening_ip(&mut self, entry: &Entry<'_>) {
        self.names_listening_ip = true;
        if let Some(value) = self.address(entry, entry.value) {
            self.listening_ips.push(At { line: entry.line, value });
        }
    }

    pub(super) fn aux_server(&mut self, entry: &Entry<'_>) {
        match entry.value.parse::<SocketAddr>() {
            Ok(value) if value.port() != 0 && !value.ip().is_multicast() => {
                if self.address(entry, &value.ip().to_string()).is_some() {
                    self.aux_servers.push(At { line: entry.line, value });
                }
            }
            _ => self.invalid(entry, "not ADDRESS:PORT; left out"),
        }
    }

    pub(super) fn no_udp(&mut self, entry: &Entry<'_>) {
        self.no_udp = self.switch(entry).unwrap_or(self.no_udp);
    }

    pub(super) fn no_tcp(&mut self, entry: &Entry<'_>) {
        self.no_tcp = self.switch(entry).unwrap_or(self.no_tcp);
    }

    pub(super) fn no_tls(&mut self, entry: &Entry<'_>) {
        self.no_tls = self.switch(entry).unwrap_or(self.no_tls);
    }

    pub(super) fn no_dtls(&mut self, entry: &Entry<'_>) {
        match self.switch(entry) {
            Some(true) => self.no_dtls = true,
            Some(false) => self.lost(entry, "DTLS is not supported; clients use turns: over TLS on TCP"),
            None => {}
        }
    }

    pub(super) fn no_tcp_relay(&mut self, entry: &Entry<'_>) {
        match self.switch(entry) {
            Some(true) => self.no_tcp_relay = true,
            Some(false) => self.lost(entry, "TCP relays (RFC 6062) are not offered; browsers do not use them"),
            None => {}
        }
    }

    pub(super) fn relay_ip(&mut self, entry: &Entry<'_>) {
        match self.address(entry, entry.value) {
            Some(ip) if ip.is_unspecified() => self.invalid(entry, "a wildcard, but clients are told it; left out"),
            Some(value) => self.relay_ips.push(At { line: entry.line, value }),
            None => {}
        }
    }

    pub(super) fn external_ip(&mut self, entry: &Entry<'_>) {
        let (public, private) = match entry.value.split_once('/') {
            Some((public, private)) => (public, Some(private)),
            None => (entry.value, None),
        };
        let Some(public) = self.address(entry, public) else { return };
        let private = match private.map(|private| self.address(entry, private)) {
            Some(None) => return,
            Some(private) => private,
            None => None,
        };
        if public.is_unspecified() || private.is_some_and(|private| private.is_unspecified()) {
            self.invalid(entry, "a wildcard; left out");
        } else if private.is_some_and(|private| private.is_ipv4() != public.is_ipv4()) {
            self.invalid(entry, "the two addresses are of different families; left out");
        } else {
            self.external_ips.push(At { line: entry.line, value: (public, private) });
        }
    }

    pub(super) fn relay_threads(&mut self, entry: &Entry<'_>) {
        if let Some(threads) = self.number(entry) {
            self.workers = Some(threads.clamp(1, COTURN_THREADS_MAX));
        }
    }

    pub(super) fn min_port(&mut self, entry: &Entry<'_>) {
        self.min_port = self.port(entry);
    }

    pub(super) fn max_port(&mut self, entry: &Entry<'_>) {
        self.max_port = self.port(entry);
    }

    pub(super) fn default_family(&mut self, entry: &Entry<'_>) {
        match entry.value {
            "ipv4" => self.note(entry, "IPv4, as RFC 8656 has it, is the default here"),
            _ => self.lost(entry, "a client that names no family gets an IPv4 relay, as RFC 8656 has it"),
        }
    }

    pub(super) fn lt_cred_mech(&mut self, entry: &Entry<'_>) {
        match self.switch(entry) {
            Some(true) => self.note(entry, "long-term credentials are always required"),
            Some(false) => self.lost(entry, "it cannot be turned off: long-term credentials are always required"),
            None => {}
        }
    }

    pub(super) fn no_auth(&mut self, entry: &Entry<'_>) {
        self.no_auth = self.switch(entry).unwrap_or(self.no_auth);
        if self.no_auth {
            let message = "an open relay is refused: every client needs a credential; `turnstone credentials` makes one, \
                           README.md shows how an application does";
            self.lost(entry, message);
        }
    }

    /// Present is on, whatever its value: coturn does not look at it.
    pub(super) fn use_auth_secret(&mut self, _entry: &Entry<'_>) {
        self.use_auth_secret = true;
    }

    pub(super) fn static_auth_secret(&mut self, entry: &Entry<'_>) {
        self.use_auth_secret = true;
        let Some(secret) = self.text(entry).map(Zeroizing::new) else { return };
        if let Err(problem) = super::super::check_secret(secret.as_bytes()) {
            self.lost(entry, &format!("{problem}, and give it to the application that makes credentials"));
        } else if self.secrets.contains(&secret) {
            self.note(entry, "the same secret again; once is enough");
        } else {
            self.secrets.push(secret);
        }
    }

    pub(super) fn rest_api_separator(&mut self, entry: &Entry<'_>) {
        if !entry.value.is_empty() && !entry.value.starts_with(':') {
            self.lost(entry, "the expiry and the name in a username are separated by `:`; change the application");
        }
    }

    pub(super) fn user(&mut self, entry: &Entry<'_>) {
        let Some(text) = self.text(entry).map(Zeroizing::new) else { return };
        let Some((name, password)) = text.split_once(':') else {
            return self.invalid(entry, "not name:password; left out");
        };
        let password = password.trim_start_matches([' ', '\t']);
        if name.is_empty() || password.is_empty() {
            return self.invalid(entry, "the name or the password is empty; left out");
        }
        if password.starts_with("0x") {
            let message = "a hashed key (0x...) cannot be turned back into a password, and a key for MD5 is of no use with \
                           SHA-256; set a new password, or use time-limited credentials";
            return self.lost(entry, message);
        }
        if TimeLimited::parse(name).is_some() {
            let message = "the name looks like the username of a time-limited credential; give this user another name";
            return self.lost(entry, message);
        }
        if let Err(error) = Users::default().insert(name, password) {
            return self.lost(entry, &format!("{error}; give this user another name or password"));
        }
        self.users.push(At { line: entry.line, value: (name.to_owned(), Zeroizing::new(password.to_owned())) });
    }

    pub(super) fn realm(&mut self, entry: &Entry<'_>) {
        let Some(realm) = self.text(entry) else { return };
        match super::super::access::parse_realm(&realm) {
            Ok(realm) => self.realm = Some(realm),
            Err(problem) => self.invalid(entry, &format!("{problem}; left out")),
        }
    }

    pub(super) fn server_name(&mut self, entry: &Entry<'_>) {
        let message =
            "coturn uses it for OAuth only; taken as the host name in the URLs that `turnstone credentials` prints";
        match super::super::access::parse_host(entry.value) {
            Ok(host) => {
                self.public_host = Some(host);
                self.note(entry, message);
            }
            Err(_) => {
                self.note(entry, "coturn uses it for OAuth only, which is not offered; not a host name, left out")
            }
        }
    }

    pub(super) fn stale_nonce(&mut self, entry: &Entry<'_>) {
        let Some(secs) = (if entry.value.is_empty() { Some(600) } else { self.number(entry) }) else { return };
        match secs {
            0 => self.note(entry, "nonces that never expire are not offered; they live for 10 minutes"),
            30..=86_400 => {}
            _ => self.note(entry, "from 30 seconds to a day here; the nearest of these is taken"),
        }
        self.nonce_secs = Some(if secs == 0 { 600 } else { secs.clamp(30, 86_400) });
    }

    pub(super) fn user_quota(&mut self, entry: &Entry<'_>) {
        self.per_user = self.quota(entry);
    }

    pub(super) fn total_quota(&mut self, entry: &Entry<'_>) {
        self.total = self.quota(entry);
    }

    /// 0 is unlimited.
    fn quota(&mut self, entry: &Entry<'_>) -> Option<u64> {
        let quota = self.number(entry)?;
        Some(quota.min(u64::from(u32::MAX))).filter(|quota| *quota > 0)
    }

    pub(super) fn max_bps(&mut self, entry: &Entry<'_>) {
        self.max_bytes_per_sec = None;
        match self.number(entry) {
            None | Some(0) => {}
            Some(bytes @ 1..1000) => {
                let message = format!("{bytes} bytes a second are less than one packet; left out (the unit is bytes)");
                self.lost(entry, &message);
            }
            Some(bytes) => {
                self.note(entry, "the number is bytes a second, per direction; written as bits a second");
                self.max_bytes_per_sec = Some(bytes.min(1_000_000_000_000));
            }
        }
    }

    pub(super) fn max_allocate_lifetime(&mut self, entry: &Entry<'_>) {
        let secs = if entry.value.is_empty() { Some(3600) } else { self.number(entry) };
        let Some(secs) = secs.filter(|secs| *secs > 0) else { return };
        if !(10..=86_400).contains(&secs) {
            self.note(entry, "from 10 seconds to a day here; the nearest of these is taken");
        }
        self.allocation_max_secs = Some(secs.clamp(10, 86_400));
    }

    pub(super) fn channel_lifetime(&mut self, entry: &Entry<'_>) {
        self.fixed_lifetime(entry, 600, "channels live for 10 minutes, as RFC 8656 has it");
    }

    pub(super) fn permission_lifetime(&mut self, entry: &Entry<'_>) {
        self.fixed_lifetime(entry, 300, "permissions live for 5 minutes, as RFC 8656 has it");
    }

    fn fixed_lifetime(&mut self, entry: &Entry<'_>, secs: u64, message: &str) {
        let wanted = if entry.value.is_empty() { Some(secs) } else { self.number(entry) };
        match wanted {
            Some(wanted) if wanted != secs => self.lost(entry, message),
            _ => {}
        }
    }

    pub(super) fn max_allocate_timeout(&mut self, entry: &Entry<'_>) {
        if let Some(secs) = self.number(entry).filter(|secs| *secs > 0) {
            self.note(
                entry,
                "taken as idle-timeout in [streams]; over UDP nothing is kept before a client has proven itself",
            );
            self.idle_secs = Some(secs.clamp(1, 3600));
        }
    }

    pub(super) fn unauthorized_rps(&mut self, entry: &Entry<'_>) {
        match self.number(entry) {
            Some(rps @ 101..) => {
                self.unauthenticated_rps = Some(rps.min(1_000_000));
                self.note(entry, "counts per IPv4 /24 and IPv6 /64 here, not per address");
            }
            Some(_) => {
                let message = "coturn counts per address, this server per IPv4 /24 and IPv6 /64, with 100 a second: a \
                               smaller number would hit the clients behind a shared address; the default is kept";
                self.note(entry, message);
            }
            None => {}
        }
    }

    pub(super) fn denied_peer(&mut self, entry: &Entry<'_>) {
        match PeerRange::parse(entry.value) {
            Ok((value, is_network)) => {
                if is_network {
                    self.note(
                        entry,
                        "coturn 4.6 ignores a network in this form, and denies nothing; it is denied here",
                    );
                }
                self.denied.push(At { line: entry.line, value });
            }
            Err(problem) => self.invalid(entry, &format!("{problem}; nothing is denied by it, in coturn neither")),
        }
    }

    pub(super) fn allowed_peer(&mut self, entry: &Entry<'_>) {
        match PeerRange::parse(entry.value) {
            Ok((_, true)) => {
                let message = "coturn 4.6 ignores a network in this form, so that it is left out; write FIRST-LAST";
                self.lost(entry, message);
            }
            Ok((value, false)) => self.allowed.push(At { line: entry.line, value }),
            Err(problem) => self.invalid(entry, &format!("{problem}; left out")),
        }
    }

    pub(super) fn stun_only(&mut self, entry: &Entry<'_>) {
        self.stun_only = self.switch(entry).unwrap_or(self.stun_only);
    }

    pub(super) fn software_attribute(&mut self, entry: &Entry<'_>) {
        self.software = self.switch(entry).unwrap_or(self.software);
    }

    pub(super) fn rfc5766_channel_numbers(&mut self, entry: &Entry<'_>) {
        self.rfc5766_channel_numbers = self.switch(entry).or(self.rfc5766_channel_numbers);
    }

    pub(super) fn cert(&mut self, entry: &Entry<'_>) {
        self.certificate = self.path(entry);
    }

    pub(super) fn pkey(&mut self, entry: &Entry<'_>) {
        self.key = self.path(entry);
    }

    fn path(&mut self, entry: &Entry<'_>) -> Option<At<String>> {
        let value = self.text(entry)?;
        if !value.starts_with('/') {
            self.note(entry, "a relative path is relative to turnserver.toml here; better write it from /");
        }
        Some(At { line: entry.line, value })
    }

    pub(super) fn no_tlsv1_2(&mut self, entry: &Entry<'_>) {
        self.no_tls12 = self.switch(entry).unwrap_or(self.no_tls12);
    }

    pub(super) fn verbose(&mut self, entry: &Entry<'_>) {
        if self.switch(entry) == Some(true) {
            self.note(entry, "log.level info has a line per allocation; log.level = \"debug\" says more");
        }
    }

    pub(super) fn very_verbose(&mut self, entry: &Entry<'_>) {
        if self.switch(entry) == Some(true) {
            self.log_level = Some("debug");
        }
    }

    pub(super) fn log_min_level(&mut self, entry: &Entry<'_>) {
        self.log_level = match entry.value.to_ascii_lowercase().as_str() {
            "error" => Some("error"),
            "warn" | "warning" => Some("warn"),
            "info" | "control" => Some("info"),
            "debug" => Some("debug"),
            _ => return self.invalid(entry, "not a level; log.level stays at info"),
        };
    }
}
