//! What is shown of tables and secrets, and how a change of them is told without a secret.

use std::fmt::Write;

use super::snapshot::{Auth, Config, ListenOptions};
use super::value::quoted;
use crate::auth::TokenKey;

pub(super) fn listen_lines(config: &Config) -> String {
    let mut lines = String::new();
    for (index, first) in config.listeners.iter().enumerate() {
        // Those that share a socket are in one table again.
        let (before, behind) = (config.listeners.iter().take(index), config.listeners.iter().skip(index + 1));
        if before.clone().any(|other| other.shares_socket(first)) {
            continue;
        }
        let sharing = behind.filter(|other| other.shares_socket(first));
        let sharing: Vec<_> = sharing.map(|listener| quoted(listener.transport.name())).collect();
        let (address, own) = (first.address, quoted(first.transport.name()));
        let transports = if sharing.is_empty() { own } else { format!("[{own}, {}]", sharing.join(", ")) };
        // Writing to a string cannot fail.
        let _ = write!(lines, "\n[[listen]]\naddress = \"{address}\"\ntransport = {transports}\n");
        lines += &option_lines(&first.options);
    }
    lines
}

fn option_lines(options: &ListenOptions) -> String {
    let ListenOptions { proxy_from, relay } = options;
    let mut lines = String::new();
    if !relay.is_empty() {
        let addresses: Vec<_> = relay.iter().map(|address| quoted(&address.to_string())).collect();
        let _ = writeln!(lines, "relay = [{}]", addresses.join(", "));
    }
    if !proxy_from.is_empty() {
        let networks: Vec<_> = proxy_from.iter().map(|network| quoted(&network.to_string())).collect();
        let _ = writeln!(lines, "proxy-from = [{}]", networks.join(", "));
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
fn there<T: PartialEq>(old: Option<T>, new: Option<T>, [one, other]: [&str; 2]) -> Option<(String, String)> {
    if old == new {
        return None;
    }
    let shown = |secret: &Option<T>, there: &str| if secret.is_some() { there } else { "-" }.to_owned();
    Some((shown(&old, one), shown(&new, if old.is_some() { other } else { one })))
}
