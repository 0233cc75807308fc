//! What is shown of tables and secrets, and how a change of them is told without a secret.

use std::fmt::Write;

use super::realm::RealmConfig;
use super::snapshot::{Auth, Config, ListenOptions, Web};
use super::units::rate_text;
use super::value::{ON_EXPIRY, PEER_MODES, name_of, quoted};
use crate::auth::TokenKey;
use crate::policy::PolicyName;

pub(super) fn listen_lines(config: &Config) -> String {
    let mut lines = String::new();
    for (index, first) in config.listeners.iter().enumerate() {
        // Those that share a socket are in one table again.
        let (before, behind) = (config.listeners.iter().take(index), config.listeners.iter().skip(index + 1));
        if before.clone().any(|other| other.shares_socket(first)) {
            continue;
        }
        let all = std::iter::once(first).chain(behind.filter(|other| other.shares_socket(first)));
        let (added, written): (Vec<_>, Vec<_>) = all.partition(|listener| listener.options.is_for_discovery);
        let address = first.address;
        // What nobody has written is not shown as if it were.
        if let [listener, ..] = added.as_slice() {
            let _ = write!(lines, "\n# [[listen]] {} {address}, added by [nat-discovery]\n", listener.transport);
        }
        let Some(first) = written.first() else { continue };
        let names: Vec<_> = written.iter().map(|listener| quoted(listener.transport.name())).collect();
        let transports = if names.len() == 1 { names.concat() } else { format!("[{}]", names.join(", ")) };
        // Writing to a string cannot fail.
        let _ = write!(lines, "\n[[listen]]\naddress = \"{address}\"\ntransport = {transports}\n");
        lines += &option_lines(&first.options);
    }
    lines
}

fn option_lines(options: &ListenOptions) -> String {
    let ListenOptions { proxy_from, realm, relay, web, is_for_discovery: _ } = options;
    let mut lines = String::new();
    if !relay.is_empty() {
        let addresses: Vec<_> = relay.iter().map(|address| quoted(&address.to_string())).collect();
        let _ = writeln!(lines, "relay = [{}]", addresses.join(", "));
    }
    if !proxy_from.is_empty() {
        let networks: Vec<_> = proxy_from.iter().map(|network| quoted(&network.to_string())).collect();
        let _ = writeln!(lines, "proxy-from = [{}]", networks.join(", "));
    }
    if let Some(realm) = realm {
        let _ = writeln!(lines, "realm = {}", quoted(realm));
    }
    if let Some(Web { address, proxy_header, turn_names }) = web {
        let names: Vec<_> = turn_names.iter().map(|name| quoted(name)).collect();
        let _ = writeln!(lines, "web = \"{address}\"\nweb-proxy-header = {proxy_header}");
        let _ = if names.is_empty() { Ok(()) } else { writeln!(lines, "turn-names = [{}]", names.join(", ")) };
    }
    lines
}

pub(super) fn listen_change(old: &Config, new: &Config) -> Option<(String, String)> {
    let texts = |config: &Config| {
        let listeners = config.listeners.iter().map(|listener| {
            let options = option_lines(&listener.options);
            let options: Vec<_> = options.lines().map(|line| format!(" {line}")).collect();
            format!("{}/{}{}", listener.transport, listener.address, options.concat())
        });
        let mut listeners: Vec<_> = listeners.collect();
        listeners.sort();
        listeners.join(" ")
    };
    let (before, after) = (texts(old), texts(new));
    (before != after).then_some((before, after))
}

pub(super) fn secrets_lines(config: &Config) -> String {
    let line = |out: &mut String, id: &str, bytes: usize| {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "# [[auth.secrets]] id = {}, {bytes} bytes", quoted(id));
    };
    let mut lines = String::new();
    config.auth.secrets.iter().for_each(|secret| line(&mut lines, &secret.id, secret.bytes.len()));
    lines
}

/// Secrets are told by their ids.
pub(super) fn secrets_change(old: &Config, new: &Config) -> Option<(String, String)> {
    let ids = |auth: &Auth| auth.secrets.iter().map(|secret| secret.id.clone()).collect::<Vec<_>>().join(" ");
    let pairs =
        |auth: &Auth| auth.secrets.iter().map(|secret| (secret.id.clone(), secret.bytes.clone())).collect::<Vec<_>>();
    if pairs(&old.auth) == pairs(&new.auth) {
        return None;
    }
    let (before, after) = (ids(&old.auth), ids(&new.auth));
    let note = if before == after { " (another secret under the same id)" } else { "" };
    Some((before, format!("{after}{note}")))
}

pub(super) fn token_keys_lines(config: &Config) -> String {
    let keys = config.auth.tokens.keys.iter();
    keys.map(|key| format!("# [[auth.token-keys]] id = {}\n", quoted(key.id()))).collect()
}

/// Keys are told by their ids.
pub(super) fn token_keys_change(old: &Config, new: &Config) -> Option<(String, String)> {
    let (old, new) = (&old.auth.tokens.keys, &new.auth.tokens.keys);
    let ids = |keys: &[TokenKey]| keys.iter().map(TokenKey::id).collect::<Vec<_>>().join(" ");
    if old == new {
        return None;
    }
    let (before, after) = (ids(old), ids(new));
    let note = if before == after { " (another key, or other times, under the same id)" } else { "" };
    Some((before, format!("{after}{note}")))
}

pub(super) fn users_lines(config: &Config) -> String {
    format!("# [[auth.users]] and users-file: {}\n", config.auth.users.len())
}

/// Static users are told by their numbers.
pub(super) fn users_change(old: &Config, new: &Config) -> Option<(String, String)> {
    let (old, new) = (&old.auth.users, &new.auth.users);
    let (added, removed, changed) = old.changes(new);
    let after = format!("{} ({added} added, {removed} removed, {changed} with another password)", new.len());
    (added + removed + changed > 0).then(|| (old.len().to_string(), after))
}

pub(super) fn certificate_lines(config: &Config) -> String {
    let mut lines = String::new();
    for pair in config.tls.iter().flat_map(|tls| &tls.others).filter(|pair| !pair.is_acme) {
        let path = |path: &std::path::Path| quoted(&path.to_string_lossy());
        // Writing to a string cannot fail.
        let _ = write!(
            lines,
            "\n[[tls.certificates]]\ncertificate = {}\nkey = {}\n",
            path(&pair.certificate),
            path(&pair.key)
        );
        if !pair.names.is_empty() {
            let names: Vec<_> = pair.names.iter().map(|name| quoted(name)).collect();
            let _ = writeln!(lines, "names = [{}]", names.join(", "));
        }
    }
    lines
}

/// Certificates are told by their files.
pub(super) fn certificate_change(old: &Config, new: &Config) -> Option<(String, String)> {
    let texts = |config: &Config| {
        let pairs = config.tls.iter().flat_map(|tls| &tls.others).filter(|pair| !pair.is_acme);
        let texts: Vec<_> = pairs
            .map(|pair| format!("{} {} {}", pair.certificate.display(), pair.key.display(), pair.names.join(" ")))
            .collect();
        if texts.is_empty() { "-".to_owned() } else { texts.join(", ") }
    };
    let (before, after) = (texts(old), texts(new));
    (before != after).then_some((before, after))
}

/// An external account's key is secret.
pub(super) fn external_key_lines(config: &Config) -> String {
    let account = config.acme.as_ref().and_then(|acme| acme.external_account.as_ref());
    if account.is_some() { "# acme-eab-key: there is one\n".to_owned() } else { String::new() }
}

/// So it is when it changes.
pub(super) fn external_key_change(old: &Config, new: &Config) -> Option<(String, String)> {
    let key = |config: &Config| Some(config.acme.as_ref()?.external_account.as_ref()?.key.clone());
    there(key(old), key(new), ["a key", "another key"])
}

pub(super) fn realm_lines(config: &Config) -> String {
    let mut out = String::new();
    for realm in &config.realms {
        // Writing to a string cannot fail.
        let _ = write!(out, "\n[[realm]]\nname = {}\n", quoted(&realm.name));
        if !realm.server_names.is_empty() {
            let names: Vec<_> = realm.server_names.iter().map(|name| quoted(name)).collect();
            let _ = writeln!(out, "sni = [{}]", names.join(", "));
        }
        if let Some(host) = &realm.public_host {
            let _ = writeln!(out, "public-host = {}", quoted(host));
        }
        if !realm.urls.is_empty() {
            let urls: Vec<_> = realm.urls.iter().map(|url| quoted(url)).collect();
            let _ = writeln!(out, "urls = [{}]", urls.join(", "));
        }
        let on_expiry = realm.on_expiry.unwrap_or(config.auth.on_expiry);
        let _ = writeln!(out, "on-expiry = {}", quoted(name_of(ON_EXPIRY, &on_expiry).unwrap_or_default()));
        let _ = writeln!(out, "username-limits = {}", realm.username_limits.unwrap_or(config.auth.username_limits));
        if let Some(peers) = realm.peers {
            let _ = writeln!(out, "peers = \"{peers}\"");
        }
        for secret in &realm.secrets {
            let _ = writeln!(out, "# [[realm.secrets]] id = {}, {} bytes", quoted(&secret.id), secret.bytes.len());
        }
        let _ = writeln!(out, "# [[realm.users]] and users-file: {}", realm.users.len());
        let quota = realm.quota.of(config.quota);
        let number = |limit: Option<u32>| limit.map_or_else(|| "\"unlimited\"".to_owned(), |limit| limit.to_string());
        let _ = write!(
            out,
            "[realm.quota]\nallocations-per-user = {}\nfleet-allocations-per-user = {}\nallocations-total = {}\n\
             allocations-per-user-per-second = {}\n",
            number(quota.per_user),
            number(quota.fleet_per_user),
            number(quota.of_realm),
            number(quota.rate.map(|rate| rate.per_second))
        );
        if let Some(rate) = quota.rate {
            let _ = writeln!(out, "allocations-per-user-burst = {}", rate.burst);
        }
        let _ = writeln!(out, "reservations-per-user = {}", number(quota.reservations_per_user));
        let rate = |bytes: Option<u64>| bytes.map_or_else(|| "unlimited".to_owned(), rate_text);
        let packets = |limit: Option<u64>| limit.map_or_else(|| "\"unlimited\"".to_owned(), |limit| limit.to_string());
        let bandwidth = &realm.bandwidth;
        let _ = write!(
            out,
            "[realm.bandwidth]\nper-allocation = \"{}\"\nper-user = \"{}\"\npackets-per-allocation = {}\npackets-per-user = {}\n",
            rate(bandwidth.per_allocation),
            rate(bandwidth.per_user),
            packets(bandwidth.packets_per_allocation),
            packets(bandwidth.packets_per_user)
        );
    }
    out
}

/// Realms are told by their names, and by what has changed of those that stay.
pub(super) fn realm_change(old: &Config, new: &Config) -> Option<(String, String)> {
    let names = |config: &Config| {
        let names: Vec<_> = config.realms.iter().map(|realm| realm.name.clone()).collect();
        if names.is_empty() { "-".to_owned() } else { names.join(" ") }
    };
    let notes: Vec<_> = new
        .realms
        .iter()
        .filter_map(|realm| {
            let before = old.realms.iter().find(|before| before.name == realm.name)?;
            let mut notes = Vec::new();
            let secrets = |of: &RealmConfig| {
                of.secrets.iter().map(|secret| (secret.id.clone(), secret.bytes.clone())).collect::<Vec<_>>()
            };
            if secrets(before) != secrets(realm) {
                notes.push("other secrets".to_owned());
            }
            let (added, removed, changed) = before.users.changes(&realm.users);
            if added + removed + changed > 0 {
                notes.push(format!("users: {added} added, {removed} removed, {changed} with another password"));
            }
            if before.peers != realm.peers {
                let name = |peers: Option<PolicyName>| peers.map_or_else(|| "-".to_owned(), |peers| peers.to_string());
                notes.push(format!("peers: {} -> {}", name(before.peers), name(realm.peers)));
            }
            if (&before.server_names, before.on_expiry, before.username_limits, before.quota, before.bandwidth)
                != (&realm.server_names, realm.on_expiry, realm.username_limits, realm.quota, realm.bandwidth)
            {
                notes.push("other settings".to_owned());
            }
            (!notes.is_empty()).then(|| format!("{} ({})", realm.name, notes.join("; ")))
        })
        .collect();
    let (before, after) = (names(old), names(new));
    if before == after && notes.is_empty() {
        return None;
    }
    let after = if notes.is_empty() { after } else { format!("{after}: {}", notes.join(", ")) };
    Some((before, after))
}

/// A policy is shown whole, as it is written.
pub(super) fn policies_lines(config: &Config) -> String {
    let list = |values: Vec<String>| format!("[{}]", values.join(", "));
    let texts = |texts: &[String]| list(texts.iter().map(|text| quoted(text)).collect());
    let lines = config.peer_policies.iter().map(|(name, rules)| {
        let mode = name_of(PEER_MODES, &rules.default_deny_all).unwrap_or_default();
        format!(
            "\n[[peers.policy]]\nname = \"{name}\"\nmode = \"{mode}\"\nrelays = {}\ndenied = {}\nallowed = {}\ndenied-ports = \
             {}\nown-services = {}\n",
            !rules.deny_relays,
            texts(&rules.denied),
            texts(&rules.allowed),
            list(rules.denied_ports.iter().map(ToString::to_string).collect()),
            texts(&rules.own_services.iter().map(ToString::to_string).collect::<Vec<_>>()),
        )
    });
    lines.collect()
}

/// Policies are told by their names.
pub(super) fn policies_change(old: &Config, new: &Config) -> Option<(String, String)> {
    if old.peer_policies == new.peer_policies {
        return None;
    }
    let names = |config: &Config| {
        let names: Vec<_> = config.peer_policies.iter().map(|(name, _)| name.to_string()).collect();
        if names.is_empty() { "-".to_owned() } else { names.join(" ") }
    };
    let (before, after) = (names(old), names(new));
    let note = if before == after { " (other rules under the same names)" } else { "" };
    Some((before, format!("{after}{note}")))
}

pub(super) fn admin_token_lines(config: &Config) -> String {
    let token = config.admin.as_ref().and_then(|admin| admin.token.as_ref());
    token.map_or_else(String::new, |token| format!("# token, {} bytes\n", token.as_bytes().len()))
}

/// The token of the admin API is told by whether there is one.
pub(super) fn admin_token_change(old: &Config, new: &Config) -> Option<(String, String)> {
    let token = |config: &Config| config.admin.as_ref().and_then(|admin| admin.token.clone());
    there(token(old), token(new), ["set", "set (another one)"])
}

pub(super) fn webhook_query_lines(config: &Config) -> String {
    let webhook = config.usage.as_ref().and_then(|usage| usage.webhook.as_ref());
    let has_query = webhook.is_some_and(|webhook| webhook.url.has_query());
    if has_query { "# webhook: its query is not shown\n".to_owned() } else { String::new() }
}

/// A query is told by its being another one; where the rest differs, that is told.
pub(super) fn webhook_query_change(old: &Config, new: &Config) -> Option<(String, String)> {
    let (old, new) = (old.usage.as_ref()?.webhook.as_ref()?, new.usage.as_ref()?.webhook.as_ref()?);
    (old.url != new.url).then(|| (old.url.to_string(), format!("{} (another query)", new.url)))
}

/// The query, which some want their key in, and the token.
pub(super) fn hook_lines(config: &Config) -> String {
    let Some(hook) = &config.hook else { return String::new() };
    let query = if hook.url.has_query() { "# url: its query is not shown\n" } else { "" };
    let token = if hook.token.is_some() { "# token: there is one\n" } else { "" };
    format!("{query}{token}")
}

pub(super) fn hook_change(old: &Config, new: &Config) -> Option<(String, String)> {
    let (old, new) = (old.hook.as_ref()?, new.hook.as_ref()?);
    if old.url != new.url {
        return Some((old.url.to_string(), format!("{} (another query)", new.url)));
    }
    there(old.token.clone(), new.token.clone(), ["a token", "another token"])
}

/// The query of the other place, and the token where nobody is asked.
pub(super) fn hook_events_lines(config: &Config) -> String {
    let Some(events) = &config.hook_events else { return String::new() };
    let has_query = events.is_elsewhere && events.url.has_query();
    let query = if has_query { "# events-url: its query is not shown\n" } else { "" };
    let token = if events.token.is_some() && config.hook.is_none() { "# token: there is one\n" } else { "" };
    format!("{query}{token}")
}

pub(super) fn hook_events_change(old: &Config, new: &Config) -> Option<(String, String)> {
    let is_alone = old.hook.is_none() && new.hook.is_none();
    let (old, new) = (old.hook_events.as_ref()?, new.hook_events.as_ref()?);
    if old.is_elsewhere && old.url != new.url {
        return Some((old.url.to_string(), format!("{} (another query)", new.url)));
    }
    there(old.token.clone(), new.token.clone(), ["a token", "another token"]).filter(|_| is_alone)
}

pub(super) fn nonce_key_lines(config: &Config) -> String {
    if config.auth.nonce_key.is_some() { "# nonce-key: there is one\n".to_owned() } else { String::new() }
}

pub(super) fn nonce_key_change(old: &Config, new: &Config) -> Option<(String, String)> {
    there(old.auth.nonce_key.clone(), new.auth.nonce_key.clone(), ["a key", "another key"])
}

pub(super) fn webhook_token_lines(config: &Config) -> String {
    let webhook = config.usage.as_ref().and_then(|usage| usage.webhook.as_ref());
    let has_token = webhook.is_some_and(|webhook| webhook.token.is_some());
    if has_token { "# webhook-token: there is one\n".to_owned() } else { String::new() }
}

/// So is the webhook's.
pub(super) fn webhook_token_change(old: &Config, new: &Config) -> Option<(String, String)> {
    let (old, new) = (old.usage.as_ref()?.webhook.as_ref()?, new.usage.as_ref()?.webhook.as_ref()?);
    there(old.token.clone(), new.token.clone(), ["a token", "another token"])
}

/// A secret of which there is at most one.
pub(super) fn there<T: PartialEq>(old: Option<T>, new: Option<T>, [one, other]: [&str; 2]) -> Option<(String, String)> {
    if old == new {
        return None;
    }
    let shown = |secret: &Option<T>, there: &str| if secret.is_some() { there } else { "-" }.to_owned();
    Some((shown(&old, one), shown(&new, if old.is_some() { other } else { one })))
}
