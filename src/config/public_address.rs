//! `external-ip = "auto"` or `"name:…"`, and whom to ask.

use std::net::IpAddr;
use std::time::Duration;

use crate::addr::Family;

use super::error::{Located, ValueError};
use super::finding::{AddressSource, CLOUDS, Finding, FoundBy, StunServer};
use super::reader::{Document, Section};
use super::snapshot::{ExternalIp, Relay};
use super::urls::parse_host;
use super::value::choose;

/// Most that are asked: each is asked once in an interval, and all are read by people.
const SOURCES_MAX: usize = 8;
const STUN_PORT: u16 = 3478;

/// One entry of `external-ip`.
#[derive(Clone, Debug)]
pub(super) enum Written {
    Address(ExternalIp),
    Found(FoundBy),
}

/// An address or pair by `address`, or how it is found.
pub(super) fn parse_external(
    text: &str,
    address: fn(&str) -> Result<ExternalIp, ValueError>,
) -> Result<Written, ValueError> {
    match text.strip_prefix("name:") {
        _ if text == "auto" => Ok(Written::Found(FoundBy::Auto)),
        Some(name) if name.parse::<IpAddr>().is_ok() || name.starts_with('[') => {
            Err(ValueError::unfit(text, "an address and no name; write it without \"name:\""))
        }
        Some(name) => Ok(Written::Found(FoundBy::Name(parse_host(name)?))),
        None => address(text).map(Written::Address),
    }
}

/// Takes the written addresses out, and the one entry that says how others are found.
pub(super) fn split(
    document: &Document<'_>,
    written: Vec<Located<Written>>,
) -> (Vec<Located<ExternalIp>>, Option<Located<FoundBy>>) {
    let (mut addresses, mut found) = (Vec::new(), None);
    for Located { value, place } in written {
        match value {
            Written::Address(value) => addresses.push(Located { value, place }),
            Written::Found(_) if found.is_some() => {
                document.problem(place, "a second \"auto\" or \"name:\" in external-ip; expected one, which is for each family without a written address");
            }
            Written::Found(value) => found = Some(Located { value, place }),
        }
    }
    (addresses, found)
}

/// `metadata:aws`, or `stun:stun.example.org:3478`.
fn parse_source(text: &str) -> Result<AddressSource, ValueError> {
    if let Some(cloud) = text.strip_prefix("metadata:") {
        return choose(
            CLOUDS,
            cloud,
            "a cloud whose metadata is known: aws, azure, digitalocean, gcp, hetzner or openstack",
        )
        .map(AddressSource::Metadata);
    }
    let Some(server) = text.strip_prefix("stun:") else {
        return Err(ValueError::is_not(text, "\"metadata:CLOUD\" or \"stun:HOST:PORT\""));
    };
    let (host, port) = match server.rsplit_once(':') {
        // The colons of an address in brackets are not that of a port.
        Some((host, port)) if !port.ends_with(']') => {
            let port: Option<u16> = port.parse().ok().filter(|port| *port != 0);
            (host, port.ok_or_else(|| ValueError::is_not(text, "\"stun:HOST:PORT\""))?)
        }
        _ => (server, STUN_PORT),
    };
    let host = parse_host(host)?;
    let host = host.trim_matches(['[', ']']).to_owned();
    Ok(AddressSource::Stun(StunServer { host, port }))
}

/// Reads whom to ask.
pub(super) fn read_finding(
    document: &Document<'_>,
    section: &Section<'_, '_>,
    by: Option<&Located<FoundBy>>,
    has_written: bool,
    interval: Duration,
) -> Finding {
    let key = "external-ip-sources";
    let written = section.texts(key, parse_source);
    if let Some(beyond) = written.get(SOURCES_MAX) {
        section.problem(key, beyond.place.clone(), format!("more than {SOURCES_MAX}"));
    }
    for (index, source) in written.iter().enumerate() {
        if written.iter().take(index).any(|earlier| earlier.value == source.value) {
            section.problem(key, source.place.clone(), format!("{} is written twice", source.value));
        }
    }
    if let Some(first) = written.first() {
        let place = first.place.clone();
        match by.map(|by| &by.value) {
            Some(FoundBy::Auto) => {}
            Some(FoundBy::Name(_)) => {
                document.problem(place, format!("{key} in [relay]: external-ip has a name, so that nobody else is asked; expected external-ip = \"auto\""));
            }
            // The doctor compares.
            None if has_written => {}
            None => {
                document.problem(place, format!("{key} in [relay]: nobody is asked without external-ip = \"auto\""))
            }
        }
    }
    Finding {
        by: by.map(|by| by.value.clone()),
        sources: written.into_iter().map(|source| source.value).collect(),
        interval,
    }
}

/// Of a family, one address can be found.
pub(super) fn check_found(document: &Document<'_>, by: &Located<FoundBy>, relay: &Relay) {
    for family in Family::ALL {
        if relay.sought(family).count() > 1 {
            let message = format!(
                "which of the {family} addresses does {:?} stand for? expected PUBLIC/PRIVATE for all but one of them",
                by.value.to_string()
            );
            document.problem(by.place.clone(), message);
        }
    }
}
