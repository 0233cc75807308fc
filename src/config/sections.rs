//! The sections of `turnserver.toml` that stand for themselves: quotas, bandwidth, lifetimes, limits, streams, log.

use std::time::Duration;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

use crate::policy::{AllocationRate, BandwidthLimits, GuardLimits, QuotaLimits, RateLimit, SuspensionLimits};
use crate::turn::Lifetimes;

use super::error::{Located, ValueError};
use super::keys::{LOG_FORMATS, LOG_OUTPUTS};
use super::reader::{Document, Section, or_default};
use super::realm::QuotaChanges;
use super::snapshot::{Log, QuotaShares, Relay, Streams};
use super::units::duration_text;
use super::value::choose;

pub(super) fn read_quota(root: &Section<'_, '_>, relay: &Relay) -> (QuotaLimits, QuotaShares) {
    let section = root.section("quota");
    let limit = |key| section.limit(key).map(|limit| limit.value.map(narrow));
    let (per_user, reservations) = (limit("allocations-per-user"), limit("reservations-per-user"));
    let total = limit("allocations-total").flatten();
    let burst = section.number("allocations-per-user-burst").map(|burst| narrow(burst.value));
    let rate = limit("allocations-per-user-per-second").flatten();
    let fleet_per_user = limit("fleet-allocations-per-user").flatten();
    section.report_unknown_keys();
    let rate = rate.map(|per_second| AllocationRate {
        per_second,
        burst: burst.unwrap_or_else(|| per_second.max(AllocationRate::default().burst)),
    });
    // What is not given follows from the relay ports.
    let shares = QuotaShares { per_user: per_user.is_none(), reservations: reservations.is_none() };
    let mut quota = QuotaLimits {
        per_user: per_user.flatten(),
        fleet_per_user,
        total,
        of_realm: None,
        rate,
        reservations_per_user: reservations.flatten(),
    };
    shares.apply(&mut quota, relay);
    (quota, shares)
}

/// Where a realm's quotas differ from those of `[quota]`.
pub(super) fn read_realm_quota(realm: &Section<'_, '_>) -> QuotaChanges {
    let section = realm.subsection("realm.quota");
    let limit = |key| section.limit(key).map(|limit| limit.value.map(narrow));
    let burst = section.number("allocations-per-user-burst").map(|burst| narrow(burst.value));
    let per_second = limit("allocations-per-user-per-second");
    section.report_unknown_keys();
    if let (Some(_), None) = (burst, per_second) {
        let message = "expected allocations-per-user-per-second beside allocations-per-user-burst";
        section.problem("allocations-per-user-burst", section.place(), message);
    }
    let rate = per_second.map(|per_second| {
        per_second.map(|per_second| AllocationRate {
            per_second,
            burst: burst.unwrap_or_else(|| per_second.max(AllocationRate::default().burst)),
        })
    });
    QuotaChanges {
        per_user: limit("allocations-per-user"),
        fleet_per_user: limit("fleet-allocations-per-user"),
        of_realm: limit("allocations-total").flatten(),
        rate,
        reservations: limit("reservations-per-user"),
    }
}

/// A realm's bandwidth caps.
pub(super) fn read_realm_bandwidth(realm: &Section<'_, '_>) -> BandwidthLimits {
    bandwidth_of(&realm.subsection("realm.bandwidth"))
}

pub(super) fn read_bandwidth(root: &Section<'_, '_>) -> BandwidthLimits {
    bandwidth_of(&root.section("bandwidth"))
}

fn bandwidth_of(section: &Section<'_, '_>) -> BandwidthLimits {
    section.report_unknown_keys();
    BandwidthLimits {
        per_allocation: or_default(section.rate("per-allocation")),
        per_user: or_default(section.rate("per-user")),
        packets_per_allocation: or_default(section.limit("packets-per-allocation")),
        packets_per_user: or_default(section.limit("packets-per-user")),
    }
}

pub(super) fn read_guard(root: &Section<'_, '_>) -> GuardLimits {
    let section = root.section("guard");
    let suspend_for = or_default(section.duration("suspend-for"));
    let suspend_after = or_default(section.limit("suspend-after"));
    let guard = GuardLimits {
        peers_per_user: or_default(section.limit("peers-per-user")).map(narrow),
        new_peers_per_minute: or_default(section.limit("new-peers-per-minute")).map(narrow),
        loop_packets_per_second: or_default(section.limit("loop-packets-per-second")).map(narrow),
        suspension: suspend_after
            .map(|probes| SuspensionLimits { probes: narrow(probes), secs: narrow(suspend_for.as_secs()) }),
    };
    section.report_unknown_keys();
    guard
}

pub(super) fn read_limits(root: &Section<'_, '_>) -> (Option<RateLimit>, usize) {
    let section = root.section("limits");
    section.report_unknown_keys();
    let per_second = or_default(section.limit("unauthenticated-replies-per-second")).map(narrow);
    let burst = narrow(or_default(section.number("unauthenticated-replies-burst")));
    let unauthenticated = per_second.map(|per_second| RateLimit { per_second, burst: burst.max(per_second) });
    (unauthenticated, count(or_default(section.number("peers-per-allocation"))))
}

pub(super) fn read_rfc3489(root: &Section<'_, '_>) -> bool {
    let section = root.section("compatibility");
    section.report_unknown_keys();
    section.boolean("rfc3489")
}

pub(super) fn read_lifetimes(root: &Section<'_, '_>) -> Lifetimes {
    let section = root.section("lifetimes");
    let (default, max) = (section.duration("allocation-default"), section.duration("allocation-max"));
    section.report_unknown_keys();
    let place = max.as_ref().filter(|_| section.has("allocation-max")).map(|max| max.place.clone());
    let secs = |duration: Option<Located<Duration>>| narrow(or_default(duration).as_secs());
    let (allocation_default_secs, mut allocation_max_secs) = (secs(default), secs(max));
    if allocation_max_secs < allocation_default_secs {
        match place {
            Some(place) => {
                let default = duration_text(Duration::from_secs(allocation_default_secs.into()));
                let message = format!("it is less than allocation-default, which is {default}");
                section.problem("allocation-max", place, message);
            }
            // A longer default is then the most there is.
            None => allocation_max_secs = allocation_default_secs,
        }
    }
    Lifetimes { allocation_default_secs, allocation_max_secs, ..Lifetimes::default() }
}

pub(super) fn read_streams(document: &Document<'_>, root: &Section<'_, '_>) -> Streams {
    let section = root.section("streams");
    section.report_unknown_keys();
    let duration = |key| or_default(section.duration(key));
    let max = section.number("connections-max");
    let per_ip = section.limit("connections-per-ip-max");
    if let (Some(max), Some(Located { value: Some(per_ip), .. })) = (&max, &per_ip)
        && section.has("connections-max")
        && section.has("connections-per-ip-max")
        && *per_ip > max.value
    {
        document.warning(max.place.clone(), "connections-per-ip-max in [streams] is more than connections-max");
    }
    Streams {
        queue: duration("queue"),
        queue_bytes_max: count(or_default(section.size("queue-bytes-max"))),
        idle_timeout: duration("idle-timeout"),
        handshake_timeout: duration("handshake-timeout"),
        allocation_timeout: duration("allocation-timeout"),
        connections_max: count(or_default(max)),
        connections_per_ip_max: or_default(per_ip).map(count),
        unallocated_per_network_max: or_default(section.limit("unallocated-per-network-max")).map(count),
    }
}

pub(super) fn read_log(root: &Section<'_, '_>) -> Log {
    let section = root.section("log");
    section.report_unknown_keys();
    Log {
        format: or_default(section.text("format", |text| choose(LOG_FORMATS, text, "a format"))),
        filter: or_default(section.text("level", |text| check_log_filter(text).map(|()| text.to_owned()))),
        output: or_default(section.text("output", |text| choose(LOG_OUTPUTS, text, "a stream"))),
        addresses: or_default(section.text("addresses", str::parse)),
    }
}

/// Checks a log filter. A bare word must be a level: `EnvFilter` would take a misspelt one for the name of a module.
///
/// # Errors
/// What is wrong with it.
pub fn check_log_filter(text: &str) -> Result<(), ValueError> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    for directive in text.split(',').map(str::trim) {
        let level = directive.rsplit_once('=').map_or(directive, |(_, level)| level);
        if !LEVELS.contains(&level.to_ascii_lowercase().as_str()) {
            return Err(ValueError::is_not(level, "a level"));
        }
    }
    let is_wrong = |error: ParseError| ValueError::Filter(text.to_owned(), error.to_string());
    EnvFilter::builder().parse(text).map(|_| ()).map_err(is_wrong)
}

fn narrow(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

pub(super) fn count(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
