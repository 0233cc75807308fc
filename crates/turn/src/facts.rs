//! What has been answered, kept for a while and in bounded number.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::auth::{AskPolicy, AskedUser, Credentials, KnownCredential};
use crate::clock::{Now, SECOND};

/// What is known of a username.
#[derive(Clone)]
pub(super) enum Fact {
    /// Its credential.
    Known(Arc<AskedUser>),
    /// That it is nobody's.
    Unknown,
}

/// What is known of usernames, by their realms. Names that clients make up must not push out those of users, nor those of one realm those
/// of another, so each have bounds of their own.
#[derive(Default)]
pub(super) struct Facts {
    /// A few: every one that asks. Keys are good in one of them only.
    realms: BTreeMap<Box<str>, OfRealm>,
}

#[derive(Default)]
struct OfRealm {
    known: Bounded<Arc<AskedUser>>,
    unknown: Bounded<()>,
}

impl Facts {
    /// What is known of a username.
    pub(super) fn of(&mut self, now: Now, credentials: &Credentials, username: &str) -> Option<Fact> {
        let known = self.realms.get_mut(credentials.realm())?;
        if let Some(user) = known.known.get(now.micros, username) {
            return Some(Fact::Known(Arc::clone(user)));
        }
        known.unknown.get(now.micros, username).map(|()| Fact::Unknown)
    }

    /// Keeps the credential of a username.
    pub(super) fn learn(
        &mut self,
        now: Now,
        (credentials, policy): (&Credentials, &AskPolicy),
        username: &Arc<str>,
        credential: KnownCredential,
    ) -> Fact {
        let valid_secs = credential.valid_secs(now.unix_secs, policy);
        let user = Arc::new(credential.into_user(username, credentials.realm(), credentials.label()));
        let of_realm = self.of_realm(credentials);
        of_realm.unknown.forget(username);
        of_realm.known.insert(now.micros, Arc::clone(username), Arc::clone(&user), (valid_secs, policy.known_max));
        Fact::Known(user)
    }

    /// Keeps that a username is nobody's.
    pub(super) fn learn_unknown(
        &mut self,
        now: Now,
        (credentials, policy): (&Credentials, &AskPolicy),
        username: &Arc<str>,
    ) -> Fact {
        let of_realm = self.of_realm(credentials);
        of_realm.known.forget(username);
        of_realm.unknown.insert(now.micros, Arc::clone(username), (), (policy.unknown_secs, policy.unknown_max));
        Fact::Unknown
    }

    /// How many credentials and how many names of nobody are kept.
    pub(super) fn len(&self) -> (usize, usize) {
        let of = |len: fn(&OfRealm) -> usize| self.realms.values().map(len).sum();
        (of(|realm| realm.known.by_name.len()), of(|realm| realm.unknown.by_name.len()))
    }

    /// Forgets what was answered for realms that are no more, or ask no more.
    pub(super) fn keep_realms(&mut self, asks: impl Fn(&str) -> bool) {
        self.realms.retain(|realm, _| asks(realm));
    }

    fn of_realm(&mut self, credentials: &Credentials) -> &mut OfRealm {
        self.realms.entry(credentials.realm().into()).or_default()
    }
}

/// A map that forgets what has been in it for longest.
struct Bounded<V> {
    by_name: HashMap<Arc<str>, Entry<V>>,
    /// By age.
    names: BTreeMap<u64, Arc<str>>,
    next: u64,
}

struct Entry<V> {
    value: V,
    age: u64,
    until_micros: u64,
}

impl<V> Default for Bounded<V> {
    fn default() -> Self {
        Self { by_name: HashMap::new(), names: BTreeMap::new(), next: 0 }
    }
}

impl<V> Bounded<V> {
    fn get(&mut self, now_micros: u64, name: &str) -> Option<&V> {
        if self.by_name.get(name)?.until_micros <= now_micros {
            self.forget(name);
        }
        self.by_name.get(name).map(|entry| &entry.value)
    }

    fn insert(&mut self, now_micros: u64, name: Arc<str>, value: V, (secs, max): (u32, usize)) {
        self.forget(&name);
        if secs == 0 || max == 0 {
            return;
        }
        while self.names.len() >= max
            && let Some((_, oldest)) = self.names.pop_first()
        {
            self.by_name.remove(&oldest);
        }
        let age = self.next;
        self.next += 1;
        self.names.insert(age, Arc::clone(&name));
        let until_micros = now_micros.saturating_add(u64::from(secs) * SECOND);
        self.by_name.insert(name, Entry { value, age, until_micros });
    }

    fn forget(&mut self, name: &str) {
        if let Some(entry) = self.by_name.remove(name) {
            self.names.remove(&entry.age);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_bounded_forgotten_in_time_and_replaced() {
        let mut kept = Bounded::default();
        for n in 0..100_u32 {
            kept.insert(0, n.to_string().into(), n, (10, 20));
        }
        assert_eq!((kept.by_name.len(), kept.names.len()), (20, 20));
        let of = |kept: &mut Bounded<u32>, micros, name| kept.get(micros, name).copied();
        assert_eq!((of(&mut kept, 0, "79"), of(&mut kept, 0, "80")), (None, Some(80)));
        kept.insert(5 * SECOND, "80".into(), 800, (10, 20));
        kept.insert(5 * SECOND, "new".into(), 1, (10, 20));
        assert_eq!((of(&mut kept, 14 * SECOND, "81"), of(&mut kept, 14 * SECOND, "80")), (None, Some(800)));
        assert_eq!((of(&mut kept, 10 * SECOND, "99"), of(&mut kept, 15 * SECOND, "80")), (None, None));
        assert_eq!(kept.by_name.len(), kept.names.len());
        kept.insert(0, "never".into(), 1, (0, 20));
        assert_eq!(of(&mut kept, 0, "never"), None);
    }
}
