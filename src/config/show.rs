//! A configuration as TOML again, every default spelled out; secrets and passwords only by name.

use std::fmt::Write;
use std::time::Duration;

use crate::addr::Family;
use crate::turn::{AlternateServer, OnExpiry};

use super::units::{duration_text, rate_text, size_text};
use super::{Config, LogFormat, TlsVersion, Usage};

impl Config {
    /// The effective configuration in the syntax of `turnserver.toml`. It has no secret in it: secrets and the number of
    /// static users are comments.
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = self.write_toml(&mut text);
        text
    }

    fn write_toml(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "workers = {}\nturn = {}", self.workers, self.turn)?;
        writeln!(out, "rfc5766-channel-numbers = {}", self.rfc5766_channel_numbers)?;
        writeln!(out, "secret-files-readable-by = \"{}\"", self.secret_readers.name())?;
        if let Some(software) = &self.software {
            writeln!(out, "software = {}", quoted(software))?;
        }
        for listener in &self.listeners {
            writeln!(out, "\n[[listen]]\naddress = \"{}\"\ntransport = \"{}\"", listener.address, listener.transport)?;
        }
        if let Some(tls) = &self.tls {
            let version = match tls.min_version {
                TlsVersion::Tls12 => "1.2",
                TlsVersion::Tls13 => "1.3",
            };
            let (certificate, key) = (tls.certificate.to_string_lossy(), tls.key.to_string_lossy());
            writeln!(out, "\n[tls]\ncertificate = {}\nkey = {}", quoted(&certificate), quoted(&key))?;
            writeln!(out, "min-version = \"{version}\"")?;
        }
        self.write_relay(out)?;
        self.write_auth(out)?;
        self.write_peers(out)?;
        writeln!(out, "\n[quota]\nallocations-per-user = {}", limit(self.quota.per_user))?;
        writeln!(out, "allocations-total = {}", limit(self.quota.total))?;
        let rate = self.quota.rate;
        writeln!(out, "allocations-per-user-per-second = {}", limit(rate.map(|rate| rate.per_second)))?;
        if let Some(rate) = rate {
            writeln!(out, "allocations-per-user-burst = {}", rate.burst)?;
        }
        writeln!(out, "reservations-per-user = {}", limit(self.quota.reservations_per_user))?;
        let rate = |rate: Option<u64>| rate.map_or_else(|| "unlimited".to_owned(), rate_text);
        writeln!(out, "\n[bandwidth]\nper-allocation = \"{}\"", rate(self.bandwidth.per_allocation))?;
        writeln!(out, "per-user = \"{}\"", rate(self.bandwidth.per_user))?;
        writeln!(out, "packets-per-allocation = {}", limit(self.bandwidth.packets_per_allocation))?;
        writeln!(out, "packets-per-user = {}", limit(self.bandwidth.packets_per_user))?;
        let secs = |secs: u32| duration_text(Duration::from_secs(secs.into()));
        writeln!(out, "\n[lifetimes]\nallocation-default = \"{}\"", secs(self.lifetimes.allocation_default_secs))?;
        writeln!(out, "allocation-max = \"{}\"", secs(self.lifetimes.allocation_max_secs))?;
        let per_second = self.unauthenticated.map(|limit| limit.per_second);
        writeln!(out, "\n[limits]\nunauthenticated-replies-per-second = {}", limit(per_second))?;
        if let Some(unauthenticated) = self.unauthenticated {
            writeln!(out, "unauthenticated-replies-burst = {}", unauthenticated.burst)?;
        }
        writeln!(out, "peers-per-allocation = {}", self.max_peers_per_allocation)?;
        self.write_streams(out)?;
        let format = match self.log.format {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        };
        writeln!(out, "\n[log]\nlevel = {}\nformat = \"{format}\"", quoted(&self.log.filter))?;
        writeln!(out, "addresses = \"{}\"", self.log.addresses.name())?;
        if let Some(metrics) = &self.metrics {
            writeln!(out, "\n[metrics]\nlisten = {}", quoted(&metrics.listen.to_string()))?;
            writeln!(out, "allow-remote = {}", metrics.allow_remote)?;
        }
        if let Some(admin) = &self.admin {
            writeln!(out, "\n[admin]\nlisten = {}", quoted(&admin.listen.to_string()))?;
            if let Some(token) = &admin.token {
                writeln!(out, "# token, {} bytes", token.len())?;
            }
        }
        let alternates: Vec<_> = self.drain.alternates.servers.iter().map(alternate).collect();
        writeln!(out, "\n[drain]\ndeadline = \"{}\"", duration_text(self.drain.deadline))?;
        writeln!(out, "alternate-server = {}", list(&alternates))?;
        if let Some(domain) = &self.drain.alternates.domain {
            writeln!(out, "alternate-domain = {}", quoted(domain))?;
        }
        self.usage.as_ref().map_or(Ok(()), |usage| write_usage(out, usage))
    }

    fn write_relay(&self, out: &mut String) -> std::fmt::Result {
        let relay = self.relay;
        let bind = |family| match (relay.of(family), relay.auto_of(family)) {
            (Some(address), _) => address.bind.to_string(),
            // What is looked for, and not there yet.
            (None, Some(_)) => "auto".to_owned(),
            (None, None) => "off".to_owned(),
        };
        writeln!(out, "\n[relay]\nipv4 = \"{}\"\nipv6 = \"{}\"", bind(Family::V4), bind(Family::V6))?;
        let external = |family| match relay.of(family) {
            Some(address) => Some(address.external).filter(|external| *external != address.bind),
            None => relay.auto_of(family)?.external,
        };
        let external: Vec<_> = Family::ALL.into_iter().filter_map(external).map(|ip| format!("\"{ip}\"")).collect();
        if !external.is_empty() {
            writeln!(out, "external-ip = [{}]", external.join(", "))?;
        }
        writeln!(out, "ports = \"{}-{}\"", relay.ports.0, relay.ports.1)
    }

    fn write_auth(&self, out: &mut String) -> std::fmt::Result {
        let auth = &self.auth;
        let on_expiry = match auth.on_expiry {
            OnExpiry::Keep => "keep",
            OnExpiry::NoRefresh => "no-refresh",
            OnExpiry::Cut => "cut",
        };
        writeln!(out, "\n[auth]\nrealm = {}", quoted(&auth.realm))?;
        if let Some(public_host) = &auth.public_host {
            writeln!(out, "public-host = {}", quoted(public_host))?;
        }
        let nonce_lifetime = duration_text(Duration::from_secs(auth.nonce_lifetime_secs.into()));
        writeln!(out, "on-expiry = \"{on_expiry}\"\nnonce-lifetime = \"{nonce_lifetime}\"")?;
        for secret in &auth.secrets {
            writeln!(out, "# [[auth.secrets]] id = {}, {} bytes", quoted(&secret.id), secret.bytes.len())?;
        }
        writeln!(out, "# [[auth.users]] and users-file: {}", auth.users.len())
    }

    fn write_peers(&self, out: &mut String) -> std::fmt::Result {
        let peers = &self.peers;
        let default = if peers.default_deny_all { "deny" } else { "public" };
        let ports: Vec<_> = peers.denied_ports.iter().map(u16::to_string).collect();
        writeln!(out, "\n[peers]\ndefault = \"{default}\"\ndenied = {}", list(&peers.denied))?;
        writeln!(out, "allowed = {}\ndenied-ports = [{}]", list(&peers.allowed), ports.join(", "))?;
        let services: Vec<_> = peers.own_services.iter().map(ToString::to_string).collect();
        writeln!(out, "own-services = {}", list(&services))?;
        writeln!(out, "nat64-prefixes = {}", list(&peers.nat64_prefixes))
    }

    fn write_streams(&self, out: &mut String) -> std::fmt::Result {
        let streams = &self.streams;
        writeln!(out, "\n[streams]\nqueue = \"{}\"", duration_text(streams.queue))?;
        writeln!(out, "queue-bytes-max = \"{}\"", size_text(streams.queue_bytes_max as u64))?;
        writeln!(out, "idle-timeout = \"{}\"", duration_text(streams.idle_timeout))?;
        writeln!(out, "handshake-timeout = \"{}\"", duration_text(streams.handshake_timeout))?;
        writeln!(out, "allocation-timeout = \"{}\"", duration_text(streams.allocation_timeout))?;
        writeln!(out, "connections-max = {}", streams.connections_max)?;
        writeln!(out, "connections-per-ip-max = {}", limit(streams.connections_per_ip_max))?;
        writeln!(out, "unallocated-per-network-max = {}", limit(streams.unallocated_per_network_max))
    }
}

fn write_usage(out: &mut String, usage: &Usage) -> std::fmt::Result {
    let or_off = |text: Option<String>| text.unwrap_or_else(|| "off".to_owned());
    writeln!(out, "\n[usage]\ninterim = \"{}\"", or_off(usage.interim.map(duration_text)))?;
    if let Some(file) = &usage.file {
        writeln!(out, "file = {}", quoted(&file.path.to_string_lossy()))?;
        writeln!(out, "rotate-bytes = \"{}\"", or_off(file.rotate_bytes.map(size_text)))?;
        writeln!(
            out,
            "rotate-interval = \"{}\"\nkeep = {}",
            or_off(file.rotate_interval.map(duration_text)),
            limit(file.keep)
        )?;
    }
    if let Some(webhook) = &usage.webhook {
        writeln!(out, "webhook = {}", quoted(&webhook.url.to_string()))?;
        if webhook.url.has_query() {
            writeln!(out, "# webhook: its query is not shown")?;
        }
        writeln!(out, "webhook-timeout = \"{}\"", duration_text(webhook.timeout))?;
        if webhook.token.is_some() {
            writeln!(out, "# webhook-token: there is one")?;
        }
        writeln!(out, "spool-directory = {}", quoted(&webhook.spool_directory.to_string_lossy()))?;
        writeln!(out, "spool-bytes-max = \"{}\"", size_text(webhook.spool_bytes_max))?;
    }
    Ok(())
}

fn alternate(server: &AlternateServer) -> String {
    match server.transport {
        Some(transport) => format!("{transport}://{}", server.address),
        None => server.address.to_string(),
    }
}

fn limit<T: ToString>(limit: Option<T>) -> String {
    limit.map_or_else(|| "\"unlimited\"".to_owned(), |limit| limit.to_string())
}

fn list(texts: &[String]) -> String {
    let items: Vec<_> = texts.iter().map(|text| quoted(text)).collect();
    format!("[{}]", items.join(", "))
}

pub(crate) fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}
