//! What a reload changes: one configuration compared with another, key by key, without a secret in it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::{Config, Usage};
use crate::addr::Family;

/// What becomes of a changed value on reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It holds from now on, for running allocations too.
    Applied,
    /// The old value stays until the server is started anew.
    NeedsRestart,
}

/// One changed key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The key with its section, e.g. `quota.allocations-per-user`.
    pub key: String,
    /// The value before, as in `turnserver.toml`; `-` when there was none.
    pub before: String,
    /// The value now.
    pub after: String,
    /// Whether it counts at once.
    pub effect: Effect,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} -> {}", self.key, self.before, self.after)
    }
}

/// Keys, or whole sections, that only a restart changes: sockets, threads and what is made with them.
const NEEDS_RESTART: &[&str] =
    &["workers", "listen", "relay", "streams", "auth.nonce-lifetime", "log.format", "metrics", "admin"];

impl Config {
    /// The differences between the running configuration and a `new` one, in the order of their keys.
    pub fn changes(&self, new: &Self) -> Vec<Change> {
        let (before, after) = (self.flat(), new.flat());
        let keys: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
        let recorded = &new.usage;
        // A share of other ports than those that are kept.
        let waits_for_ports = |key: &str| new.quota_shares.has(key) && self.relay.ports != new.relay.ports;
        let mut changes = Vec::new();
        for key in keys {
            let (old, new) = (before.get(key), after.get(key));
            if old != new {
                let shown = |value: Option<&String>| value.cloned().unwrap_or_else(|| "-".to_owned());
                let still_used = new.is_none() && key.starts_with("tls.") && self.has_tls_listener();
                let fixed =
                    key.strip_prefix("usage.").is_some_and(|key| Usage::needs_restart(&self.usage, recorded, key));
                let effect =
                    if still_used || fixed || waits_for_ports(key) { Effect::NeedsRestart } else { effect(key) };
                changes.push(Change { key: key.clone(), before: shown(old), after: shown(new), effect });
            }
        }
        changes.extend(self.secret_changes(new));
        changes.extend(self.user_changes(new));
        changes.extend(self.webhook_query_change(new));
        changes.extend(self.webhook_token_change(new));
        changes.extend(self.admin_token_change(new));
        changes
    }

    /// Takes over the running relay addresses where both look for them on the host: they are followed without a reload.
    pub fn follow_relays(&mut self, running: &Self) {
        for family in Family::ALL {
            let autos = (self.relay.auto_of(family), running.relay.auto_of(family));
            if autos.0.is_some() && autos.0 == autos.1 {
                self.relay.set(family, running.relay.of(family));
            }
        }
    }

    /// Puts the running values back where only a restart changes them, so that the rest fits the sockets there are.
    pub fn keep_until_restart(&mut self, running: &Self) {
        self.workers = running.workers;
        self.listeners.clone_from(&running.listeners);
        self.relay = running.relay;
        self.quota_shares.apply(&mut self.quota, &self.relay);
        self.streams = running.streams;
        self.auth.nonce_lifetime_secs = running.auth.nonce_lifetime_secs;
        self.log.format = running.log.format;
        self.metrics.clone_from(&running.metrics);
        Usage::keep_until_restart(&mut self.usage, &running.usage);
        self.admin.clone_from(&running.admin);
        if self.tls.is_none() && running.has_tls_listener() {
            self.tls.clone_from(&running.tls);
        }
    }

    fn has_tls_listener(&self) -> bool {
        self.listeners.iter().any(|listener| listener.transport.is_encrypted())
    }

    /// Every key that has a printable value.
    fn flat(&self) -> BTreeMap<String, String> {
        let mut flat = BTreeMap::new();
        // What is written by `to_toml` is TOML.
        for (key, value) in self.to_toml().parse::<toml::Table>().unwrap_or_default() {
            match value {
                toml::Value::Table(section) => {
                    flat.extend(section.into_iter().map(|(name, value)| (format!("{key}.{name}"), value.to_string())));
                }
                value => {
                    flat.insert(key, value.to_string());
                }
            }
        }
        let mut listeners: Vec<_> =
            self.listeners.iter().map(|listener| format!("{}/{}", listener.transport, listener.address)).collect();
        listeners.sort();
        flat.insert("listen".to_owned(), listeners.join(" "));
        flat
    }

    /// Secrets are told by their ids.
    fn secret_changes(&self, new: &Self) -> Option<Change> {
        let (old, new) = (&self.auth, &new.auth);
        let ids =
            |auth: &super::Auth| auth.secrets.iter().map(|secret| secret.id.clone()).collect::<Vec<_>>().join(" ");
        let pairs = |auth: &super::Auth| {
            auth.secrets.iter().map(|secret| (secret.id.clone(), secret.bytes.clone())).collect::<Vec<_>>()
        };
        if pairs(old) == pairs(new) {
            return None;
        }
        let (before, after) = (ids(old), ids(new));
        let note = if before == after { " (another secret under the same id)" } else { "" };
        let after = format!("{after}{note}");
        Some(Change { key: "auth.secrets".to_owned(), before, after, effect: Effect::Applied })
    }

    /// A query is told by its being another one.
    fn webhook_query_change(&self, new: &Self) -> Option<Change> {
        let (old, new) = (self.usage.as_ref()?.webhook.as_ref()?, new.usage.as_ref()?.webhook.as_ref()?);
        let (before, after) = (old.url.to_string(), new.url.to_string());
        // Where the rest differs, that is told.
        if old.url == new.url || before != after {
            return None;
        }
        let after = format!("{after} (another query)");
        Some(Change { key: "usage.webhook".to_owned(), before, after, effect: Effect::NeedsRestart })
    }

    /// A token is told by its being there.
    fn webhook_token_change(&self, new: &Self) -> Option<Change> {
        let (old, new) = (self.usage.as_ref()?.webhook.as_ref()?, new.usage.as_ref()?.webhook.as_ref()?);
        if old.token == new.token {
            return None;
        }
        let shown = |token: &Option<_>, there: &str| if token.is_some() { there.to_owned() } else { "-".to_owned() };
        let after = if old.token.is_some() { "another token" } else { "a token" };
        Some(Change {
            key: "usage.webhook-token".to_owned(),
            before: shown(&old.token, "a token"),
            after: shown(&new.token, after),
            effect: if old.url == new.url { Effect::Applied } else { Effect::NeedsRestart },
        })
    }

    /// The token of the admin API is told by whether there is one.
    fn admin_token_change(&self, new: &Self) -> Option<Change> {
        let token = |config: &Self| config.admin.as_ref().and_then(|admin| admin.token.clone());
        let (old, new) = (token(self), token(new));
        if old == new {
            return None;
        }
        let before = if old.is_some() { "set" } else { "-" };
        let after = match (&old, &new) {
            (Some(_), Some(_)) => "set (another one)",
            (_, Some(_)) => "set",
            _ => "-",
        };
        let (before, after) = (before.to_owned(), after.to_owned());
        Some(Change { key: "admin.token".to_owned(), before, after, effect: Effect::NeedsRestart })
    }

    /// Static users are told by their numbers.
    fn user_changes(&self, new: &Self) -> Option<Change> {
        let (added, removed, changed) = self.auth.users.changes(&new.auth.users);
        if added + removed + changed == 0 {
            return None;
        }
        let before = self.auth.users.len().to_string();
        let after =
            format!("{} ({added} added, {removed} removed, {changed} with another password)", new.auth.users.len());
        Some(Change { key: "auth.users".to_owned(), before, after, effect: Effect::Applied })
    }
}

fn effect(key: &str) -> Effect {
    let needs = |prefix: &&str| key == *prefix || key.strip_prefix(*prefix).is_some_and(|rest| rest.starts_with('.'));
    if NEEDS_RESTART.iter().any(needs) { Effect::NeedsRestart } else { Effect::Applied }
}
