//! The sections of `turnserver.toml` that stand for themselves: peers, bandwidth, lifetimes, limits, streams, log.

use std::time::Duration;

use tracing_subscriber::EnvFilter;

use crate::policy::{BandwidthLimits, OwnService, PeerAcl, PeerRules, RateLimit};
use crate::turn::Lifetimes;

use super::error::Located;
use super::reader::{Document, Section};
use super::{Log, LogFormat, Streams, units};

const DAY: Duration = Duration::from_secs(86_400);
/// Less than one packet a second is no cap but a refusal.
const RATE_MIN_BYTES: u64 = 1000;
const RULE: &str = r#"networks such as "10.0.0.0/8", addresses, or ranges such as "10.0.0.1-10.0.0.9""#;

pub(super) fn read_peers(document: &Document<'_>, root: &Section<'_, '_>, dev: bool) -> PeerRules {
    let section = root.section("peers");
    let own = |text: &str| Ok(text.to_owned());
    let mut denied = section.texts("denied", RULE, own).unwrap_or_default();
    let allowed = section.texts("allowed", RULE, own).unwrap_or_default();
    let prefixes = r#"IPv6 prefixes such as "2001:db8:64::/96""#;
    let mut nat64_prefixes = section.texts("nat64-prefixes", prefixes, own).unwrap_or_default();
    let denied_ports = section.numbers("denied-ports", "an array of ports from 1 to 65535", 1..=65535);
    let default_deny_all = section.text("default", r#""public" or "deny""#, |text| match text {
        "public" => Ok(false),
        "deny" => Ok(true),
        _ => Err(format!("{text:?} is not a default")),
    });
    let service = r#"services of this host such as "203.0.113.7:10000" or "203.0.113.7:20000-20999""#;
    let own_services = section.texts("own-services", service, str::parse::<OwnService>).unwrap_or_default();
    section.report_unknown_keys();
    let default_deny_all = default_deny_all.is_some_and(|deny| deny.value);

    // Each rule by itself, so that every malformed one is named with its place.
    let refuse = |key: &str, rule: &Located<String>, expected: &str, rules: PeerRules| {
        let error = PeerAcl::compile(&rules).err()?;
        let message = format!("{key} in [peers]: {:?}: {}; expected {expected}", error.rule, error.problem);
        document.problem(rule.place.clone(), message);
        Some(())
    };
    let one = |rule: &Located<String>| vec![rule.value.clone()];
    denied
        .retain(|rule| refuse("denied", rule, RULE, PeerRules { denied: one(rule), ..PeerRules::default() }).is_none());
    nat64_prefixes.retain(|rule| {
        let rules = PeerRules { nat64_prefixes: one(rule), ..PeerRules::default() };
        refuse("nat64-prefixes", rule, prefixes, rules).is_none()
    });
    let denied: Vec<String> = denied.into_iter().map(|rule| rule.value).collect();
    for rule in &allowed {
        let rules = PeerRules { denied: denied.clone(), allowed: one(rule), default_deny_all, ..PeerRules::default() };
        refuse("allowed", rule, RULE, rules);
    }
    let values = |rules: Vec<Located<String>>| rules.into_iter().map(|rule| rule.value).collect();
    PeerRules {
        denied,
        allowed: values(allowed),
        nat64_prefixes: values(nat64_prefixes),
        default_deny_all,
        own_services: own_services.into_iter().map(|service| service.value).collect(),
        allow_loopback: dev,
        denied_ports: denied_ports
            .unwrap_or_default()
            .into_iter()
            .filter_map(|port| u16::try_from(port.value).ok())
            .collect(),
        ..PeerRules::default()
    }
}

pub(super) fn read_bandwidth(root: &Section<'_, '_>) -> BandwidthLimits {
    let section = root.section("bandwidth");
    let rate = |key| {
        let rate = section.text(key, units::RATE, |text| match text {
            "unlimited" => Ok(None),
            _ => match units::parse_rate(text)? {
                0..RATE_MIN_BYTES => Err(format!("{text:?} is less than one packet a second (8kbit/s)")),
                rate => Ok(Some(rate)),
            },
        });
        rate.and_then(|rate| rate.value)
    };
    let packets = |key| {
        let limit =
            section.limit(key, r#"a whole number of packets a second from 1, or "unlimited""#, 1..=u64::from(u32::MAX));
        limit.and_then(|limit| limit.value)
    };
    let bandwidth = BandwidthLimits {
        per_allocation: rate("per-allocation"),
        per_user: rate("per-user"),
        packets_per_allocation: packets("packets-per-allocation"),
        packets_per_user: packets("packets-per-user"),
    };
    section.report_unknown_keys();
    bandwidth
}

pub(super) fn read_limits(root: &Section<'_, '_>) -> (Option<RateLimit>, usize) {
    const RATE_MAX: u64 = 1_000_000;
    let section = root.section("limits");
    let expected = r#"a whole number from 1 to 1000000, or "unlimited""#;
    let per_second = section.limit("unauthenticated-replies-per-second", expected, 1..=RATE_MAX);
    let burst = section.number("unauthenticated-replies-burst", "a whole number from 1 to 1000000", 1..=RATE_MAX);
    let peers = section.number("peers-per-allocation", "a whole number from 1 to 65535", 1..=65535);
    section.report_unknown_keys();
    let narrow = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    let default = RateLimit::default();
    let per_second = per_second.map_or(Some(default.per_second), |limit| limit.value.map(narrow));
    let burst = burst.map_or(default.burst, |burst| narrow(burst.value));
    let unauthenticated = per_second.map(|per_second| RateLimit { per_second, burst: burst.max(per_second) });
    (unauthenticated, peers.and_then(|peers| usize::try_from(peers.value).ok()).unwrap_or(128))
}

pub(super) fn read_lifetimes(document: &Document<'_>, root: &Section<'_, '_>) -> Lifetimes {
    let section = root.section("lifetimes");
    let defaults = Lifetimes::default();
    let duration = |key| duration(&section, key, Duration::from_secs(10)..=DAY);
    let (default, max) = (duration("allocation-default"), duration("allocation-max"));
    section.report_unknown_keys();
    let secs = |given: &Option<Located<Duration>>, otherwise: u32| {
        given.as_ref().and_then(|given| u32::try_from(given.value.as_secs()).ok()).unwrap_or(otherwise)
    };
    let allocation_default_secs = secs(&default, defaults.allocation_default_secs);
    let allocation_max_secs = secs(&max, defaults.allocation_max_secs.max(allocation_default_secs));
    if allocation_max_secs < allocation_default_secs {
        let place = max.or(default).map_or_else(|| section.place(), |given| given.place);
        let default = units::duration_text(Duration::from_secs(allocation_default_secs.into()));
        let message = format!("allocation-max in [lifetimes]: it is less than allocation-default, which is {default}");
        document.problem(place, message);
    }
    Lifetimes { allocation_default_secs, allocation_max_secs, ..defaults }
}

pub(super) fn read_streams(document: &Document<'_>, root: &Section<'_, '_>) -> Streams {
    let section = root.section("streams");
    let connections = "a whole number from 1 to 10000000";
    let (second, hour) = (Duration::from_secs(1), Duration::from_secs(3600));
    let queue = duration(&section, "queue", Duration::from_millis(10)..=Duration::from_secs(10));
    let queue_bytes_max = section.text("queue-bytes-max", units::SIZE, |text| match units::parse_size(text)? {
        bytes @ 65_536..=67_108_864 => Ok(bytes),
        _ => Err(format!("{text:?} is not from 64KiB to 64MiB")),
    });
    let idle_timeout = duration(&section, "idle-timeout", second..=hour);
    let handshake_timeout = duration(&section, "handshake-timeout", second..=hour);
    let allocation_timeout = duration(&section, "allocation-timeout", second..=DAY);
    let connections_max = section.number("connections-max", connections, 1..=10_000_000);
    let per_ip = r#"a whole number from 1, or "unlimited""#;
    let connections_per_ip_max = section.limit("connections-per-ip-max", per_ip, 1..=10_000_000);
    let unallocated_per_network_max = section.limit("unallocated-per-network-max", per_ip, 1..=10_000_000);
    section.report_unknown_keys();
    let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let connections_max_value = connections_max.as_ref().map_or(10_000, |max| count(max.value));
    let per_ip = connections_per_ip_max.map_or(Some(1000), |limit| limit.value.map(count));
    if let (Some(max), Some(per_ip)) = (&connections_max, per_ip)
        && per_ip > connections_max_value
        && per_ip != 1000
    {
        document.warning(max.place.clone(), "connections-per-ip-max in [streams] is more than connections-max");
    }
    Streams {
        queue: queue.map_or(Duration::from_millis(200), |queue| queue.value),
        queue_bytes_max: queue_bytes_max.map_or(1 << 20, |bytes| count(bytes.value)),
        idle_timeout: idle_timeout.map_or(Duration::from_secs(60), |timeout| timeout.value),
        handshake_timeout: handshake_timeout.map_or(Duration::from_secs(10), |timeout| timeout.value),
        allocation_timeout: allocation_timeout.map_or(Duration::from_secs(120), |timeout| timeout.value),
        connections_max: connections_max_value,
        connections_per_ip_max: per_ip,
        unallocated_per_network_max: unallocated_per_network_max.map_or(Some(2000), |limit| limit.value.map(count)),
    }
}

pub(super) fn read_log(root: &Section<'_, '_>) -> Log {
    let section = root.section("log");
    let level = section.text("level", r#"error, warn, info, debug, trace, or "info,turnstone::turn=debug""#, |text| {
        check_log_filter(text).map(|()| text.to_owned())
    });
    let format = section.text("format", r#""text" or "json""#, |text| match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err(format!("{text:?} is not a format")),
    });
    let addresses = section.text("addresses", r#""full", "prefix" or "off""#, str::parse);
    section.report_unknown_keys();
    Log {
        format: format.map(|format| format.value).unwrap_or_default(),
        filter: level.map_or_else(|| "info".to_owned(), |level| level.value),
        addresses: addresses.map(|addresses| addresses.value).unwrap_or_default(),
    }
}

/// Checks a log filter. A bare word must be a level: `EnvFilter` would take a misspelt one for the name of a module.
///
/// # Errors
/// What is wrong with it.
pub fn check_log_filter(text: &str) -> Result<(), String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    for directive in text.split(',').map(str::trim) {
        let level = directive.rsplit_once('=').map_or(directive, |(_, level)| level);
        if !LEVELS.contains(&level.to_ascii_lowercase().as_str()) {
            return Err(format!("{level:?} is not a level"));
        }
    }
    EnvFilter::builder().parse(text).map(|_| ()).map_err(|error| format!("{text:?} is not a filter: {error}"))
}

pub(super) fn duration(
    section: &Section<'_, '_>,
    key: &'static str,
    range: std::ops::RangeInclusive<Duration>,
) -> Option<Located<Duration>> {
    section.text(key, units::DURATION, |text| {
        let duration = units::parse_duration(text)?;
        if !range.contains(&duration) {
            let (low, high) = (units::duration_text(*range.start()), units::duration_text(*range.end()));
            return Err(format!("{text:?} is not from {low} to {high}"));
        }
        Ok(duration)
    })
}
