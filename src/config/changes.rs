//! What a reload changes: one configuration compared with another, key by key, without a secret in it.

use std::fmt;

use std::sync::Arc;

use crate::addr::Family;

use super::error::{Place, Problem};
use super::keys;
use super::snapshot::Config;

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
    pub key: &'static str,
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

impl Config {
    /// The differences between the running configuration and a `new` one, in the order of their keys.
    pub fn changes(&self, new: &Self) -> Vec<Change> {
        let mut kept = new.clone();
        kept.keep_until_restart(self);
        let changes = keys::all().filter_map(|key| {
            let (before, after) = key.difference(self, new)?;
            // What the new configuration says is not what is then in force.
            let waits = key.difference(&kept, new).is_some();
            let effect = if waits { Effect::NeedsRestart } else { Effect::Applied };
            Some(Change { key: key.name, before, after, effect })
        });
        let mut changes: Vec<_> = changes.collect();
        changes.sort_by_key(|change| change.key);
        changes
    }

    /// What an operator should know of listeners that go on after a reload with a realm that is no more.
    pub fn listeners_without_realm(&self) -> Vec<Problem> {
        let is_there = |name: &String| *name == self.auth.realm || self.realms.iter().any(|realm| realm.name == *name);
        let lost = self.listeners.iter().filter_map(|listener| {
            let realm = listener.options.realm.as_ref().filter(|realm| !is_there(realm))?;
            let message = format!(
                "until a restart the {} listener {} still leads to the realm {realm:?}, which is no more: its clients are taken as of \
                 {:?}, the realm of [auth]",
                listener.transport, listener.address, self.auth.realm
            );
            Some(Problem { place: Place::Source("[[listen]] realm".to_owned()), message })
        });
        lost.collect()
    }

    /// What a reload that offers TCP relays cannot do: descriptors are shared out at the start.
    pub fn unplanned_peers(&self, running: &Self) -> Option<Problem> {
        let is_new = self.wanted_sockets().peers > 0 && running.wanted_sockets().peers == 0;
        let message = "no descriptors were planned for connections with peers when the server started: until a restart there are at most an \
                       eighth of all for these, which clients and relays may lack";
        is_new.then(|| Problem { place: Place::Source("[relay] tcp".to_owned()), message: message.to_owned() })
    }

    /// Takes over the running relay addresses where both look for them on the host: they are followed without a reload.
    pub fn follow_relays(&mut self, running: &Self) {
        let (new, running) = (&mut self.relay, &running.relay);
        if (&new.externals, &new.finding) != (&running.externals, &running.finding) {
            return;
        }
        for family in Family::ALL {
            new.set_found(family, running.found.iter().copied().find(|found| Family::of(*found) == family));
            if new.is_auto(family) && running.is_auto(family) {
                new.set_auto(family, running.binds(family).next());
            }
        }
    }

    /// Puts the running values back where only a restart changes them, so that the rest fits the sockets there are.
    pub fn keep_until_restart(&mut self, running: &Self) {
        self.stored_secrets = Arc::clone(&running.stored_secrets);
        keys::all().filter_map(|key| key.keep).for_each(|keep| keep(self, running));
    }
}
