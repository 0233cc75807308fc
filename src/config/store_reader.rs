//! Reads `[store]`.

use crate::policy::QuotaLimits;

use super::access::{parse_path, read_secret};
use super::error::ValueError;
use super::reader::{Document, Section, or_default};
use super::realm::RealmConfig;
use super::secret::trim_line_end;
use super::source::{Source, Surroundings};
use super::store::{ON_LOSS, StoreCertificate, StoreConfig, StoreLayout, StorePassword, StoreUrl};
use super::value::choose;

const PASSWORD_SOURCES: [&str; 4] = ["password-credential", "password-file", "password-env", "password"];
/// What only a store over TLS has.
const OF_TLS: [&str; 3] = ["ca", "certificate", "key"];
const PREFIX_BYTES_MAX: usize = 64;
const NODE_BYTES_MAX: usize = 64;

pub(super) fn read_store(
    document: &Document<'_>,
    root: &Section<'_, '_>,
    source: &Source,
    around: &Surroundings<'_>,
) -> Option<StoreConfig> {
    let section = root.section("store");
    let url = section.text("url", StoreUrl::parse);
    let path = |key| section.text(key, |text| parse_path(text, &source.directory)).map(|path| path.value);
    let (ca, certificate, key) = (path("ca"), path("certificate"), path("key"));
    let prefix = section.text("prefix", parse_prefix);
    let node = section.text("node", parse_node);
    let timeout = section.duration("timeout");
    let on_loss = section.text("on-loss", |text| choose(ON_LOSS, text, "such a choice"));
    let lease = section.duration("lease");
    let layout = section.text("layout", |text| choose(StoreLayout::NAMES, text, "such a choice"));
    let users = section.boolean("users");
    let (known_for, unknown_for) = (section.duration("known-for"), section.duration("unknown-for"));
    let password = read_secret(document, source, around, &section, PASSWORD_SOURCES).and_then(|found| {
        let password = StorePassword::new(&trim_line_end(found.value));
        if password.is_none() {
            let message = "the password in [store] is empty, too long, or not UTF-8; expected up to 4096 bytes";
            document.problem(found.place, message);
        }
        password
    });
    section.report_unknown_keys();
    if !section.has("url")
        && let Some(given) = PASSWORD_SOURCES.iter().chain(&OF_TLS).find(|key| section.has(key))
    {
        section.problem(given, section.place(), "there is no url that it is for");
    }
    if section.has("certificate") != section.has("key") {
        let lone = if section.has("key") { "key" } else { "certificate" };
        section.problem(lone, section.place(), "certificate and key belong together");
    }
    let url = url?;
    if !url.value.tls
        && let Some(given) = OF_TLS.iter().find(|key| section.has(key))
    {
        section.problem(given, url.place.clone(), "the url is not one of TLS (rediss://)");
    }
    if let Some(host) = url.value.in_the_clear() {
        let message = format!("secrets and keys go to {host} in the clear; rediss:// is the same over TLS");
        document.warning(url.place.clone(), message);
    }
    let key_readers = document.secret_readers();
    let certificate = certificate.zip(key).map(|(certificate, key)| StoreCertificate { certificate, key, key_readers });
    Some(StoreConfig {
        url: url.value,
        password,
        ca,
        certificate,
        prefix: or_default(prefix),
        node: node.map(|node| node.value),
        timeout: or_default(timeout),
        on_loss: or_default(on_loss),
        lease: or_default(lease),
        layout: or_default(layout),
        users,
        known_for: or_default(known_for),
        unknown_for: or_default(unknown_for),
    })
}

/// Quotas over the fleet want somebody who shares them out.
pub(super) fn check_fleet_quota(
    document: &Document<'_>,
    root: &Section<'_, '_>,
    quota: &QuotaLimits,
    realms: &[RealmConfig],
) {
    if root.section("store").has("url") {
        return;
    }
    let key = "fleet-allocations-per-user";
    let wants = "it needs the store that the servers of the fleet share; expected a url in [store]";
    if quota.fleet_per_user.is_some() {
        let section = root.section("quota");
        section.problem(key, section.place(), wants);
    }
    for realm in realms.iter().filter(|realm| realm.quota.fleet_per_user.flatten().is_some()) {
        document.problem(document.whole(), format!("{key} of realm {:?}: {wants}", realm.name));
    }
}

/// Braces would say which part of a key chooses its place in a cluster.
fn parse_prefix(text: &str) -> Result<String, ValueError> {
    let allowed =
        |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'{' | b'}' | b'*' | b'?' | b'[' | b']' | b'\\');
    match text.len() {
        1..=PREFIX_BYTES_MAX if text.bytes().all(allowed) => Ok(text.to_owned()),
        _ => Err(ValueError::is_not(text, "such a prefix")),
    }
}

fn parse_node(text: &str) -> Result<String, ValueError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    match text.len() {
        1..=NODE_BYTES_MAX if text.bytes().all(allowed) => Ok(text.to_owned()),
        _ => Err(ValueError::is_not(text, "such a name")),
    }
}
