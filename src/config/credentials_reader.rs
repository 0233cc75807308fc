//! Reads `[credentials]`: where the API listens, and the keys of those who may ask it.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Duration;

use super::access::parse_realm;
use super::admin::is_taken;
use super::credentials::{ApiKey, CredentialsApi, Shape};
use super::endpoint::Endpoint;
use super::error::{Located, ValueError};
use super::listen::check_endpoint;
use super::operation::parse_endpoint;
use super::origin::parse_origin;
use super::reader::{Document, Section, or_default};
use super::realm::RealmConfig;
use super::snapshot::{Admin, Auth, Listener, Metrics, TlsFiles};
use super::source::Source;
use super::value::choose;
use crate::addr::Transport;
use crate::auth::prepare;
use crate::policy::RateLimit;

/// More keys are more than one server should have: each request is compared with all of them.
const KEYS_MAX: usize = 1000;
const PREFIX_BYTES_MAX: usize = 64;
/// How many requests may come at once, in those of a second.
const BURST_SECS: u32 = 4;

/// What the API is read beside.
pub(super) struct Beside<'c> {
    /// Whether there may be secrets in a store.
    pub(super) has_store: bool,
    pub(super) listeners: &'c [Located<Listener>],
    pub(super) tls: Option<&'c TlsFiles>,
    pub(super) metrics: Option<&'c Metrics>,
    pub(super) admin: Option<&'c Admin>,
    pub(super) auth: &'c Auth,
    pub(super) realms: &'c [RealmConfig],
}

pub(super) fn read_credentials(
    document: &Document<'_>,
    root: &Section<'_, '_>,
    source: &Source,
    beside: &Beside<'_>,
) -> Option<CredentialsApi> {
    let section = root.section("credentials");
    let listen = section.text("listen", |text| parse_endpoint(text, source));
    let (tls, allow_plain_http) = (section.boolean("tls"), section.boolean("allow-plain-http"));
    let (forwarded_for, test_page) = (section.boolean("forwarded-for"), section.boolean("test-page"));
    let per_network = section.limit("requests-per-network-per-second");
    let shapes = section.texts("shapes", |text| choose(Shape::NAMES, text, "a shape that is known"));
    let keys = read_keys(document, &section, beside);
    section.report_unknown_keys();
    let Some(listen) = listen else {
        if !keys.is_empty() && !section.has("listen") {
            document.problem(section.place(), "[credentials] has keys but no listen");
        }
        return None;
    };
    let is_socket = matches!(listen.value, Endpoint::Unix(_));
    if is_socket && tls && section.has("tls") {
        section.problem("tls", listen.place.clone(), "a socket in the file system has no TLS; leave it out");
    }
    let tls = tls && !is_socket;
    if let Endpoint::Tcp(address) = listen.value {
        if tls && beside.tls.is_none() {
            let message = "HTTPS needs a certificate: expected [tls] with certificate and key, or tls = false behind a proxy that has one";
            section.problem("listen", listen.place.clone(), message);
        }
        if !tls && !allow_plain_http && !address.ip().is_loopback() {
            let message = format!(
                "{address} is not a loopback address, and keys and credentials would cross the network in the clear; set tls = true, \
                 listen on 127.0.0.1 behind a proxy with TLS, or, where the network in between is safe, set allow-plain-http = true"
            );
            section.problem("listen", listen.place.clone(), message);
        }
        check_endpoint(&section, address, &listen.place, beside.listeners);
        let is_bounded = per_network.as_ref().is_some_and(|limit| limit.value.is_some());
        if is_bounded
            && let Some(listener) = beside.listeners.iter().find(|listener| is_web_of(address, &listener.value))
        {
            let message = format!(
                "{address} is the web of the listener {}: all requests that come by it come from this host, and \
                 requests-per-network-per-second bounds them as those of one network, so that one flood has everybody refused; set it to \
                 \"unlimited\", and bound keys in pages by their requests-per-second",
                listener.value.address
            );
            document.warning(listen.place.clone(), message);
        }
    }
    let others = [
        ("[metrics]", beside.metrics.map(|metrics| &metrics.listen)),
        ("[admin]", beside.admin.map(|admin| &admin.listen)),
    ];
    for (name, other) in others {
        if other.is_some_and(|other| is_taken(&listen.value, other)) {
            let message = format!("{} overlaps listen in {name}", listen.value);
            section.problem("listen", listen.place.clone(), message);
        }
    }
    if keys.is_empty() && section.sections("keys").is_empty() {
        let message = "[credentials] has no keys, so nobody can ask; make one with: turnstone credentials key";
        document.warning(section.place(), message);
    }
    Some(CredentialsApi {
        listen: listen.value,
        tls,
        allow_plain_http,
        forwarded_for,
        per_network: per_network.and_then(|limit| limit.value).map(rate),
        shapes: shapes.into_iter().map(|shape| shape.value).collect(),
        test_page,
        keys,
    })
}

/// Whether what is for the web server of a listener goes on to this address.
fn is_web_of(address: SocketAddr, listener: &Listener) -> bool {
    let Some(web) = listener.options.web.as_ref().filter(|_| listener.transport == Transport::Tls) else {
        return false;
    };
    let (ip, of_web) = (address.ip(), web.address.ip());
    let is_there = ip == of_web || ip.is_unspecified() && of_web.is_loopback();
    is_there && address.port() == web.address.port()
}

fn read_keys(document: &Document<'_>, section: &Section<'_, '_>, beside: &Beside<'_>) -> Vec<ApiKey> {
    let tables = section.sections("keys");
    if let Some(table) = tables.get(KEYS_MAX) {
        document.problem(table.place(), format!("more than {KEYS_MAX} keys"));
    }
    let (mut ids, mut hashes) = (HashSet::new(), HashSet::new());
    let mut keys = Vec::new();
    for table in &tables {
        let (id, sha256) = (table.text("id", parse_id), table.text("sha256", parse_sha256));
        for name in ["id", "sha256"].into_iter().filter(|name| !table.has(name)) {
            table.report_missing(name);
        }
        if let Some(id) = id.as_ref().filter(|id| !ids.insert(id.value.clone())) {
            document.problem(id.place.clone(), format!("a second key with the id {:?}", id.value));
        }
        if let Some(sha256) = sha256.as_ref().filter(|sha256| !hashes.insert(sha256.value)) {
            document.problem(sha256.place.clone(), "a second id of the same key");
        }
        let ttl_max = table.duration("max-ttl");
        let longest = beside.auth.credential_lifetime_max.unwrap_or(Duration::MAX);
        if let Some(ttl) = ttl_max.as_ref().filter(|ttl| table.has("max-ttl") && ttl.value > longest) {
            let message = "it is more than credential-lifetime-max in [auth], beyond which no credential is taken";
            table.problem("max-ttl", ttl.place.clone(), message);
        }
        let user_prefix = table.text("user-prefix", parse_prefix);
        let origins = table.texts("origins", parse_origin);
        let realms = table.texts("realms", parse_realm);
        let per_second = table.limit("requests-per-second");
        table.report_unknown_keys();
        check_realms(table, &realms, beside);
        let (Some(id), Some(sha256)) = (id, sha256) else { continue };
        keys.push(ApiKey {
            id: id.value,
            sha256: sha256.value,
            ttl_max: or_default(ttl_max).min(longest),
            user_prefix: or_default(user_prefix),
            origins: origins.into_iter().map(|origin| origin.value).collect(),
            realms: realms.into_iter().map(|realm| realm.value).collect(),
            rate: per_second.and_then(|limit| limit.value).map(rate),
        });
    }
    keys
}

/// Each realm of a key has a secret that credentials can be made with.
fn check_realms(table: &Section<'_, '_>, realms: &[Located<String>], beside: &Beside<'_>) {
    let secrets_of = |name: &str| match name == beside.auth.realm {
        true => Some(&beside.auth.secrets),
        false => beside.realms.iter().find(|realm| realm.name == name).map(|realm| &realm.secrets),
    };
    for realm in realms {
        match secrets_of(&realm.value) {
            None => table.problem("realms", realm.place.clone(), format_args!("there is no realm {:?}", realm.value)),
            Some(secrets) if secrets.is_empty() && !beside.has_store => {
                let message = format!("the realm {:?} has no secret to make credentials with", realm.value);
                table.problem("realms", realm.place.clone(), message);
            }
            Some(_) => {}
        }
    }
    if realms.is_empty() && beside.auth.secrets.is_empty() && !beside.has_store {
        let message =
            "the realm of [auth] has no secret to make credentials with; expected [[auth.secrets]], or other realms";
        table.problem("realms", table.place(), message);
    }
}

fn rate(per_second: u64) -> RateLimit {
    let per_second = u32::try_from(per_second).unwrap_or(u32::MAX);
    RateLimit { per_second, burst: per_second.saturating_mul(BURST_SECS) }
}

/// It is the name of the account for clients of Twilio, and stands in paths.
fn parse_id(text: &str) -> Result<String, ValueError> {
    let is_fit = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    match matches!(text.len(), 1..=64) && text.bytes().all(is_fit) {
        true => Ok(text.to_owned()),
        false => Err(ValueError::is_not(text, "an id")),
    }
}

fn parse_sha256(text: &str) -> Result<[u8; 32], ValueError> {
    // It is not shown: it may be the key itself, by mistake.
    let wrong = || ValueError::Text("not 64 hexadecimal digits; turnstone credentials key prints them");
    let mut hash = [0; 32];
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(wrong());
    }
    for (index, byte) in hash.iter_mut().enumerate() {
        let digits = text.get(2 * index..2 * index + 2).ok_or_else(wrong)?;
        *byte = u8::from_str_radix(digits, 16).map_err(|_| wrong())?;
    }
    Ok(hash)
}

fn parse_prefix(text: &str) -> Result<String, ValueError> {
    // Limits follow a `;`.
    let is_fit = text.is_empty() || prepare(text).as_deref() == Ok(text);
    match is_fit && text.len() <= PREFIX_BYTES_MAX && !text.contains(';') {
        true => Ok(text.to_owned()),
        false => Err(ValueError::unfit(text, "too long, or has a character that a user's name cannot have")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_64_digits_and_never_shown() {
        let hash = parse_sha256(&"0f".repeat(32)).unwrap();
        assert_eq!(hash, [0x0f; 32]);
        for bad in ["", "0f", &"0g".repeat(32), &"0f".repeat(33), &"é".repeat(32), "tsk_secret"] {
            let error = parse_sha256(bad).unwrap_err().to_string();
            assert!(bad.is_empty() || !error.contains(bad), "{error}");
        }
    }
}
