//! Directives about listeners, relays and TLS, read into [`Conf`].

use std::net::SocketAddr;

use super::conf::{At, Conf};
use super::syntax::Entry;

const COTURN_THREADS_MAX: u64 = 128;

impl Conf {
    pub(super) fn listening_port(&mut self, entry: &Entry<'_>) {
        self.listening_port = self.port(entry);
    }

    pub(super) fn tls_listening_port(&mut self, entry: &Entry<'_>) {
        self.tls_listening_port = self.port(entry);
    }

    /// What they mean depends on the addresses.
    pub(super) fn alt_listening_port(&mut self, entry: &Entry<'_>) {
        self.alt_listening_port = self.alternative(entry);
    }

    pub(super) fn alt_tls_listening_port(&mut self, entry: &Entry<'_>) {
        self.alt_tls_listening_port = self.alternative(entry);
    }

    fn alternative(&mut self, entry: &Entry<'_>) -> Option<At<u16>> {
        let port = self.port(entry);
        if port.is_none() && entry.number() == Some(0) {
            self.harmless(entry, "0 is the port after the usual one, which nobody is told");
        }
        port
    }

    /// What comes of it depends on the addresses.
    pub(super) fn rfc5780(&mut self, entry: &Entry<'_>) {
        match self.switch(entry) {
            Some(true) => self.rfc5780 = Some(entry.spot),
            Some(false) => self.rfc5780 = None,
            None => {}
        }
    }

    pub(super) fn no_rfc5780(&mut self, entry: &Entry<'_>) {
        match self.switch(entry) {
            Some(true) => {
                self.no_rfc5780 = true;
                self.harmless(entry, "RFC 5780 is not offered without [nat-discovery]");
            }
            Some(false) => self.rfc5780 = Some(entry.spot),
            None => {}
        }
    }

    pub(super) fn rfc3489(&mut self, entry: &Entry<'_>) {
        if let Some(on) = self.switch(entry) {
            self.rfc3489 = on;
        }
    }

    pub(super) fn no_rfc3489(&mut self, entry: &Entry<'_>) {
        if let Some(off) = self.switch(entry) {
            self.rfc3489 = !off;
        }
    }

    pub(super) fn listening_ip(&mut self, entry: &Entry<'_>) {
        self.names_listening_ip = true;
        if let Some(value) = self.address(entry, entry.value) {
            self.listening_ips.push(At { spot: entry.spot, value });
        }
    }

    pub(super) fn aux_server(&mut self, entry: &Entry<'_>) {
        match entry.value.parse::<SocketAddr>() {
            Ok(value) if value.port() != 0 && !value.ip().is_multicast() => {
                if self.address(entry, &value.ip().to_string()).is_some() {
                    self.aux_servers.push(At { spot: entry.spot, value });
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
            Some(false) => self.dtls(&Entry { value: "", ..*entry }),
            None => {}
        }
    }

    /// A program without DTLS would refuse a listener that names it.
    pub(super) fn dtls(&mut self, entry: &Entry<'_>) {
        self.dtls = self.switch(entry).unwrap_or(self.dtls);
        if self.dtls && !cfg!(feature = "dtls") {
            let message = "left out: this program has no DTLS, which browsers do not use; build it with the cargo feature dtls for other \
                           clients, and import again";
            self.lost(entry, message);
            self.dtls = false;
        }
    }

    pub(super) fn tcp_proxy_port(&mut self, entry: &Entry<'_>) {
        self.tcp_proxy_port = self.port(entry);
        if self.tcp_proxy_port.is_some() {
            let message = "the [[listen]] for it stands in the result as a comment: it wants the addresses of the proxies (proxy-from), which \
                           coturn does not ask for, so that anybody could say there to be anybody";
            self.lost(entry, message);
        }
    }

    /// coturn then relays by TCP alone.
    pub(super) fn no_udp_relay(&mut self, entry: &Entry<'_>) {
        if self.switch(entry) == Some(true) {
            self.tcp_relay = self.tcp_relay.or(Some(true));
            let message = "UDP relays cannot be turned off; TCP relays (RFC 6062), which are all that is left in coturn then, are offered";
            self.lost(entry, message);
        }
    }

    pub(super) fn no_tcp_relay(&mut self, entry: &Entry<'_>) {
        if let Some(is_off) = self.switch(entry) {
            self.tcp_relay = Some(!is_off);
        }
    }

    pub(super) fn relay_ip(&mut self, entry: &Entry<'_>) {
        match self.address(entry, entry.value) {
            Some(ip) if ip.is_unspecified() => self.invalid(entry, "a wildcard, but clients are told it; left out"),
            Some(value) => self.relay_ips.push(At { spot: entry.spot, value }),
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
            self.external_ips.push(At { spot: entry.spot, value: (public, private) });
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
            "ipv4" => self.address_family = Some("ipv4"),
            "ipv6" => self.address_family = Some("ipv6"),
            "keep" => self.address_family = Some("as-client"),
            _ => self.invalid(entry, "neither ipv4, ipv6 nor keep"),
        }
    }

    pub(super) fn multiplex_peer(&mut self, entry: &Entry<'_>) {
        self.multiplexes = self.switch(entry).unwrap_or(self.multiplexes);
    }

    pub(super) fn multiplex_peer_port(&mut self, entry: &Entry<'_>) {
        self.multiplex_port = self.port(entry);
    }

    pub(super) fn multiplex_peer_max_peers(&mut self, entry: &Entry<'_>) {
        self.multiplex_peers = self.number(entry).map(|peers| peers.clamp(1, 65_535));
    }

    pub(super) fn keep_address_family(&mut self, entry: &Entry<'_>) {
        if self.switch(entry) == Some(true) {
            self.address_family = Some("as-client");
        }
    }

    pub(super) fn stun_only(&mut self, entry: &Entry<'_>) {
        self.stun_only = self.switch(entry).unwrap_or(self.stun_only);
    }

    pub(super) fn software_attribute(&mut self, entry: &Entry<'_>) {
        match self.switch(entry) {
            Some(true) => self.software = Some("turnstone".to_owned()),
            Some(false) => self.software = None,
            None => {}
        }
    }

    pub(super) fn mobility(&mut self, entry: &Entry<'_>) {
        self.mobility = self.switch(entry).or(self.mobility);
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
            let message = "coturn looks for a relative path in /etc and elsewhere; here it is relative to the folder of \
                           turnserver.toml, /etc/turnstone: write it from /";
            self.note(entry, message);
        }
        Some(At { spot: entry.spot, value })
    }

    pub(super) fn no_tlsv1_2(&mut self, entry: &Entry<'_>) {
        self.no_tls12 = self.switch(entry).unwrap_or(self.no_tls12);
    }
}
