//! Credentials that are good no longer, though nothing in them says so: by username, by user, by key, by when they were issued.
//!
//! A time-limited credential is good until it expires, whoever has it. What is revoked is kept here, and only for as long as a credential
//! that it matches could still be good. All workers look it up, once for each request that has authenticated and never for a packet; as
//! long as nothing is revoked, that is one load.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::identity::{Identity, KeyId};

/// Something that is revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// Its realm, if it is not the default one.
    pub realm: Option<Arc<str>>,
    /// Which credentials.
    pub whose: Revoked,
    /// Of these, only those issued before this.
    pub issued_before: Option<IssuedBefore>,
    /// When it is forgotten, in Unix seconds.
    pub until_unix: u64,
}

/// Which credentials are revoked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Revoked {
    /// That of this whole username, such as `1735689600:alice`.
    Username(Arc<str>),
    /// All of this user, however the user is known.
    User(Arc<str>),
    /// All that were made with the shared secret of this id, or with the key of access tokens of this id.
    Key(Arc<str>),
    /// All of the realm.
    Everybody,
}

/// A moment before which credentials were issued.
///
/// An access token says when it was made. A time-limited username says only when it expires: it counts as issued `lifetime_secs` before
/// that, as does a credential that was asked for and has an expiry. A credential without one, such as that of a static user, has no time of
/// issue and is never issued before anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IssuedBefore {
    /// The moment, in Unix seconds.
    pub unix: u64,
    /// For how long credentials are good that are issued.
    pub lifetime_secs: u64,
}

impl IssuedBefore {
    /// When the last credential that was issued before has expired.
    pub fn is_over_unix(self) -> u64 {
        self.unix.saturating_add(self.lifetime_secs)
    }

    fn covers(self, identity: &Identity) -> bool {
        match (identity.issued_unix(), identity.expires_unix()) {
            (Some(issued), _) => issued < self.unix,
            (None, Some(expires)) => expires < self.is_over_unix(),
            (None, None) => false,
        }
    }
}

/// There is no room for more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "as many credentials, users and keys are revoked as may be; undo some of them (turnstone revoke --list shows them)"
)]
pub struct TooManyRevocations;

/// What is revoked, shared by all workers: what somebody has asked for, what a file lists, and what is known from elsewhere, such as a store
/// that servers share. The latter two change as a whole.
#[derive(Debug, Default)]
pub struct Revocations {
    /// Nothing else is looked at while this is zero.
    len: AtomicUsize,
    lists: RwLock<Lists>,
}

#[derive(Debug, Default)]
struct Lists {
    asked_for: List,
    of_file: List,
    stored: List,
}

impl Revocations {
    /// What may be asked for at once, and listed in the file.
    pub const MAX: usize = 65_536;
    /// What may be known from elsewhere, and be in force, at once.
    pub const STORED_MAX: usize = 4 * Self::MAX;

    /// Whether a credential is revoked.
    #[inline]
    pub fn covers(&self, identity: &Identity, now_unix: u64) -> bool {
        self.len.load(Ordering::Acquire) > 0 && self.looks_up(identity, now_unix)
    }

    #[cold]
    fn looks_up(&self, identity: &Identity, now_unix: u64) -> bool {
        let lists = self.read();
        let Lists { asked_for, of_file, stored } = &*lists;
        [asked_for, of_file, stored].into_iter().any(|list| list.covers(identity, now_unix))
    }

    /// Revokes something, beside what is revoked of the same already: of two times the later one counts. Returns what is in force then.
    ///
    /// # Errors
    /// There is no room.
    pub fn add(&self, revocation: &Revocation) -> Result<Revocation, TooManyRevocations> {
        let mut lists = self.write();
        let added = lists.asked_for.add(revocation, Self::MAX);
        self.count(&lists);
        added
    }

    /// Undoes what was asked for, both with a time of issue and without. Returns how much that was.
    pub fn remove(&self, realm: Option<&str>, whose: &Revoked) -> usize {
        let mut lists = self.write();
        let before = lists.asked_for.len;
        lists.asked_for.remove(realm, whose);
        self.count(&lists);
        before - lists.asked_for.len
    }

    /// Puts what a file lists in place of what it listed before.
    ///
    /// # Errors
    /// There is no room; what it listed before stays.
    pub fn replace_listed(&self, listed: &[Revocation]) -> Result<(), TooManyRevocations> {
        self.replace(listed, |lists| &mut lists.of_file)
    }

    /// Puts what is known from elsewhere in place of what was known before.
    ///
    /// # Errors
    /// There is no room for all of it; as much as there is room for is in force, the first before the others.
    pub fn replace_stored(&self, stored: &[Revocation]) -> Result<(), TooManyRevocations> {
        let mut list = List::default();
        let added = stored.iter().try_for_each(|revocation| list.add(revocation, Self::STORED_MAX).map(drop));
        self.put(list, |lists| &mut lists.stored);
        added
    }

    /// Adds something to what is known from elsewhere. Returns what is in force then.
    ///
    /// # Errors
    /// There is no room.
    pub fn add_stored(&self, revocation: &Revocation) -> Result<Revocation, TooManyRevocations> {
        let mut lists = self.write();
        let added = lists.stored.add(revocation, Self::STORED_MAX);
        self.count(&lists);
        added
    }

    /// Puts this in place of all that is known from elsewhere of the same.
    ///
    /// # Errors
    /// There is no room; as much of it as there is room for is in force.
    pub fn renew_stored(
        &self,
        realm: Option<&str>,
        whose: &Revoked,
        with: &[Revocation],
    ) -> Result<(), TooManyRevocations> {
        let mut lists = self.write();
        lists.stored.remove(realm, whose);
        let added = with.iter().try_for_each(|revocation| lists.stored.add(revocation, Self::STORED_MAX).map(drop));
        self.count(&lists);
        added
    }

    /// The default realm has another name: what was asked for is in force in the realm that it was asked for.
    pub fn rename_default(&self, before: &str, name: &str) {
        let mut lists = self.write();
        let List { default, realms, .. } = &mut lists.asked_for;
        let was_default = std::mem::replace(default, realms.remove(name).unwrap_or_default());
        if was_default.len() > 0 {
            realms.insert(before.into(), was_default);
        }
    }

    fn replace(&self, with: &[Revocation], which: fn(&mut Lists) -> &mut List) -> Result<(), TooManyRevocations> {
        let mut list = List::default();
        with.iter().try_for_each(|revocation| list.add(revocation, Self::MAX).map(drop))?;
        self.put(list, which);
        Ok(())
    }

    fn put(&self, list: List, which: fn(&mut Lists) -> &mut List) {
        let mut lists = self.write();
        let before = std::mem::replace(which(&mut lists), list);
        self.count(&lists);
        drop(lists);
        // Nobody waits for that.
        drop(before);
    }

    /// Forgets what no credential needs any more. Returns whether that was something somebody had asked for.
    pub fn forget_what_is_over(&self, now_unix: u64) -> bool {
        if self.is_empty() {
            return false;
        }
        let mut lists = self.write();
        let before = lists.asked_for.len;
        let Lists { asked_for, of_file, stored } = &mut *lists;
        [asked_for, of_file, stored].into_iter().for_each(|list| list.forget_what_is_over(now_unix));
        self.count(&lists);
        before != lists.asked_for.len
    }

    /// What was asked for, in no order.
    pub fn asked_for(&self) -> Vec<Revocation> {
        self.read().asked_for.all().collect()
    }

    /// What the file lists, in no order.
    pub fn listed(&self) -> Vec<Revocation> {
        self.read().of_file.all().collect()
    }

    /// What is known from elsewhere, in no order.
    pub fn stored(&self) -> Vec<Revocation> {
        self.read().stored.all().collect()
    }

    /// How much is known from elsewhere.
    pub fn stored_len(&self) -> usize {
        self.read().stored.len
    }

    /// How much was asked for, in all and in a realm.
    pub fn asked_for_len(&self, realm: Option<&str>) -> (usize, usize) {
        let list = &self.read().asked_for;
        let of_realm = match realm {
            None => Some(&list.default),
            Some(realm) => list.realms.get(realm),
        };
        (list.len, of_realm.map_or(0, OfRealm::len))
    }

    /// How much is revoked.
    pub fn len(&self) -> usize {
        self.len.load(Ordering::Acquire)
    }

    /// Whether nothing is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Written while the lock is held, so that the count is never behind the lists for long.
    fn count(&self, lists: &Lists) {
        let Lists { asked_for, of_file, stored } = lists;
        self.len.store(asked_for.len + of_file.len + stored.len, Ordering::Release);
    }

    fn read(&self) -> RwLockReadGuard<'_, Lists> {
        self.lists.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Lists> {
        self.lists.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One list, by realm.
#[derive(Debug, Default)]
struct List {
    default: OfRealm,
    realms: HashMap<Arc<str>, OfRealm>,
    len: usize,
}

#[derive(Debug, Default)]
struct OfRealm {
    usernames: HashMap<Arc<str>, Terms>,
    users: HashMap<Arc<str>, Terms>,
    keys: HashMap<KeyId, (Arc<str>, Terms)>,
    everybody: Terms,
}

/// How something is revoked: all of it, up to some moment, and what was issued before another one.
#[derive(Clone, Copy, Debug, Default)]
struct Terms {
    all_until_unix: Option<u64>,
    issued_before: Option<(IssuedBefore, u64)>,
}

impl List {
    fn covers(&self, identity: &Identity, now_unix: u64) -> bool {
        let of_realm = match identity.user.realm() {
            None => Some(&self.default),
            Some(realm) => self.realms.get(realm),
        };
        self.len > 0 && of_realm.is_some_and(|of_realm| of_realm.covers(identity, now_unix))
    }

    fn add(&mut self, revocation: &Revocation, most: usize) -> Result<Revocation, TooManyRevocations> {
        if self.len >= most {
            return Err(TooManyRevocations);
        }
        let Revocation { realm, whose, issued_before, until_unix } = revocation;
        let of_realm = match realm {
            None => &mut self.default,
            Some(realm) => self.realms.entry(Arc::clone(realm)).or_default(),
        };
        let terms = of_realm.terms_mut(whose);
        let before = terms.len();
        terms.add(*issued_before, *until_unix);
        self.len += terms.len() - before;
        let (issued_before, until_unix) = match (issued_before, terms.issued_before, terms.all_until_unix) {
            (Some(_), Some((issued_before, until_unix)), _) => (Some(issued_before), until_unix),
            (_, _, all_until_unix) => (None, all_until_unix.unwrap_or(*until_unix)),
        };
        Ok(Revocation { realm: realm.clone(), whose: whose.clone(), issued_before, until_unix })
    }

    fn remove(&mut self, realm: Option<&str>, whose: &Revoked) {
        let of_realm = match realm {
            None => Some(&mut self.default),
            Some(realm) => self.realms.get_mut(realm),
        };
        let removed = of_realm.map_or(0, |of_realm| of_realm.remove(whose));
        self.len -= removed;
    }

    fn forget_what_is_over(&mut self, now_unix: u64) {
        std::iter::once(&mut self.default).chain(self.realms.values_mut()).for_each(|of| of.forget(now_unix));
        self.recount();
        self.realms.retain(|_, of_realm| of_realm.len() > 0);
    }

    fn recount(&mut self) {
        self.len = std::iter::once(&self.default).chain(self.realms.values()).map(OfRealm::len).sum();
    }

    fn all(&self) -> impl Iterator<Item = Revocation> {
        let default = self.default.all().map(|(whose, terms)| (None, whose, terms));
        let others = self.realms.iter();
        let others = others.flat_map(|(realm, of)| of.all().map(move |(whose, terms)| (Some(realm), whose, terms)));
        default.chain(others).flat_map(|(realm, whose, terms)| {
            let of = move |issued_before, until_unix| Revocation {
                realm: realm.cloned(),
                whose: whose.clone(),
                issued_before,
                until_unix,
            };
            let issued = terms.issued_before.map(|(issued_before, until_unix)| (Some(issued_before), until_unix));
            let all = terms.all_until_unix.map(|until_unix| (None, until_unix));
            all.into_iter().chain(issued).map(move |(issued_before, until_unix)| of(issued_before, until_unix))
        })
    }
}

impl OfRealm {
    fn covers(&self, identity: &Identity, now_unix: u64) -> bool {
        let is_in = |terms: Option<&Terms>| terms.is_some_and(|terms| terms.covers(identity, now_unix));
        let key = || identity.key_id().and_then(|id| self.keys.get(&id)).map(|(_, terms)| terms);
        is_in(Some(&self.everybody))
            || is_in(self.usernames.get(&identity.username))
            || is_in(self.users.get(identity.user.name()))
            || !self.keys.is_empty() && is_in(key())
    }

    fn terms_mut(&mut self, whose: &Revoked) -> &mut Terms {
        match whose {
            Revoked::Username(name) => self.usernames.entry(Arc::clone(name)).or_default(),
            Revoked::User(name) => self.users.entry(Arc::clone(name)).or_default(),
            Revoked::Key(id) => {
                &mut self.keys.entry(KeyId::of(id)).or_insert_with(|| (Arc::clone(id), Terms::default())).1
            }
            Revoked::Everybody => &mut self.everybody,
        }
    }

    /// Returns how much that was.
    fn remove(&mut self, whose: &Revoked) -> usize {
        let removed = match whose {
            Revoked::Username(name) => self.usernames.remove(name),
            Revoked::User(name) => self.users.remove(name),
            Revoked::Key(id) => self.keys.remove(&KeyId::of(id)).map(|(_, terms)| terms),
            Revoked::Everybody => Some(std::mem::take(&mut self.everybody)),
        };
        removed.map_or(0, |terms| terms.len())
    }

    fn forget(&mut self, now_unix: u64) {
        let keep = |terms: &mut Terms| terms.forget(now_unix) > 0;
        self.usernames.retain(|_, terms| keep(terms));
        self.users.retain(|_, terms| keep(terms));
        self.keys.retain(|_, (_, terms)| keep(terms));
        self.everybody.forget(now_unix);
        for names in [&mut self.usernames, &mut self.users] {
            names.shrink_to(names.len() * 2);
        }
    }

    fn len(&self) -> usize {
        let keys = self.keys.values().map(|(_, terms)| terms);
        let all = self.usernames.values().chain(self.users.values()).chain(keys).chain([&self.everybody]);
        all.map(Terms::len).sum()
    }

    fn all(&self) -> impl Iterator<Item = (Revoked, Terms)> {
        let usernames = self.usernames.iter().map(|(name, terms)| (Revoked::Username(Arc::clone(name)), *terms));
        let users = self.users.iter().map(|(name, terms)| (Revoked::User(Arc::clone(name)), *terms));
        let keys = self.keys.values().map(|(id, terms)| (Revoked::Key(Arc::clone(id)), *terms));
        usernames.chain(users).chain(keys).chain([(Revoked::Everybody, self.everybody)])
    }
}

impl Terms {
    fn covers(&self, identity: &Identity, now_unix: u64) -> bool {
        let is_now = |until_unix: u64| now_unix < until_unix;
        self.all_until_unix.is_some_and(is_now)
            || self.issued_before.is_some_and(|(issued, until)| is_now(until) && issued.covers(identity))
    }

    fn add(&mut self, issued_before: Option<IssuedBefore>, until_unix: u64) {
        match (issued_before, &mut self.issued_before) {
            (None, _) => self.all_until_unix = self.all_until_unix.max(Some(until_unix)),
            (Some(new), Some((known, until))) => {
                known.unix = known.unix.max(new.unix);
                known.lifetime_secs = known.lifetime_secs.max(new.lifetime_secs);
                *until = until_unix.max(*until).max(known.is_over_unix());
            }
            (Some(new), none) => *none = Some((new, until_unix)),
        }
    }

    /// Forgets what is over; returns how much is left.
    fn forget(&mut self, now_unix: u64) -> usize {
        self.all_until_unix = self.all_until_unix.filter(|until| *until > now_unix);
        self.issued_before = self.issued_before.filter(|(_, until)| *until > now_unix);
        self.len()
    }

    fn len(&self) -> usize {
        usize::from(self.all_until_unix.is_some()) + usize::from(self.issued_before.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::super::identity::Origin;
    use super::*;
    use crate::user::User;

    const NOW: u64 = 1_700_000_000;

    fn guest(name: &str, expires_unix: u64) -> Identity {
        let identity = Identity::new(format!("{expires_unix}:{name}").into(), User::time_limited(name));
        identity.expiring(expires_unix).made_by(Origin::secret(KeyId::of("main")))
    }

    fn all(whose: Revoked, until_unix: u64) -> Revocation {
        Revocation { realm: None, whose, issued_before: None, until_unix }
    }

    fn issued(whose: Revoked, unix: u64, lifetime_secs: u64) -> Revocation {
        let issued_before = IssuedBefore { unix, lifetime_secs };
        Revocation { realm: None, whose, issued_before: Some(issued_before), until_unix: issued_before.is_over_unix() }
    }

    #[test]
    fn what_is_known_from_elsewhere_changes_one_by_one_and_as_a_whole() {
        let revocations = Revocations::default();
        let alice = || Revoked::User("alice".into());
        let longer = all(alice(), NOW + 90);
        assert_eq!(revocations.add_stored(&longer), Ok(longer.clone()));
        assert_eq!(revocations.add_stored(&all(alice(), NOW + 50)), Ok(longer.clone()), "the later one counts");
        revocations.add_stored(&issued(alice(), NOW, 100)).unwrap();
        assert_eq!((revocations.len(), revocations.stored_len(), revocations.asked_for_len(None)), (2, 2, (0, 0)));
        revocations.renew_stored(None, &alice(), std::slice::from_ref(&longer)).unwrap();
        assert_eq!((revocations.stored(), revocations.asked_for()), (vec![longer], vec![]));
        revocations.replace_stored(&[all(Revoked::User("bob".into()), NOW + 10)]).unwrap();
        assert!(
            revocations.covers(&guest("bob", NOW + 60), NOW) && !revocations.covers(&guest("bob", NOW + 60), NOW + 10)
        );
        assert!(!revocations.forget_what_is_over(NOW + 20), "nobody here had asked for it");
        assert_eq!(revocations.stored(), []);
    }

    #[test]
    fn what_was_asked_for_stays_in_its_realm_when_another_one_is_the_default() {
        let revocations = Revocations::default();
        let of = |realm: Option<&str>, user: &str| Revocation {
            realm: realm.map(Arc::from),
            ..all(Revoked::User(user.into()), NOW + 50)
        };
        revocations.add(&of(None, "kim")).unwrap();
        revocations.add(&of(Some("b.example"), "lou")).unwrap();
        revocations.rename_default("a.example", "b.example");
        assert_eq!(revocations.len(), 2);
        assert_eq!(revocations.asked_for(), [of(None, "lou"), of(Some("a.example"), "kim")]);
        revocations.rename_default("b.example", "c.example");
        assert_eq!(revocations.remove(None, &Revoked::User("lou".into())), 0);
        assert_eq!(revocations.remove(Some("b.example"), &Revoked::User("lou".into())), 1);
    }

    #[test]
    fn of_two_that_are_alike_the_later_counts_and_undoing_takes_both_kinds_away() {
        let revocations = Revocations::default();
        let alice = || Revoked::User("alice".into());
        for revocation in [all(alice(), NOW + 50), all(alice(), NOW + 20), issued(alice(), NOW, 100)] {
            revocations.add(&revocation).unwrap();
        }
        let in_force = revocations.add(&issued(alice(), NOW - 10, 300)).unwrap();
        assert_eq!(in_force.issued_before, Some(IssuedBefore { unix: NOW, lifetime_secs: 300 }));
        assert_eq!((in_force.until_unix, revocations.len()), (NOW + 300, 2));
        assert_eq!((revocations.asked_for_len(None), revocations.asked_for_len(Some("other"))), ((2, 2), (2, 0)));
        assert!(revocations.covers(&guest("alice", NOW + 1000), NOW + 49));
        assert!(!revocations.covers(&guest("alice", NOW + 1000), NOW + 50));
        assert!(revocations.covers(&guest("alice", NOW + 299), NOW + 50));
        assert!(!revocations.covers(&guest("alice", NOW + 300), NOW + 50));
        assert!(!revocations.forget_what_is_over(NOW + 49) && revocations.forget_what_is_over(NOW + 50));
        assert_eq!((revocations.len(), revocations.asked_for().len()), (1, 1));
        assert_eq!((revocations.remove(None, &alice()), revocations.remove(None, &alice())), (1, 0));
        assert!(revocations.is_empty() && !revocations.covers(&guest("alice", NOW + 299), NOW + 50));
    }

    #[test]
    fn a_file_s_list_changes_as_a_whole_and_leaves_what_was_asked_for() {
        let revocations = Revocations::default();
        revocations.add(&all(Revoked::User("alice".into()), u64::MAX)).unwrap();
        let listed = [all(Revoked::User("bob".into()), u64::MAX), all(Revoked::Key("old".into()), u64::MAX)];
        revocations.replace_listed(&listed).unwrap();
        let names = |of: &str| revocations.covers(&guest(of, NOW + 60), NOW);
        assert_eq!((names("alice"), names("bob"), names("carol"), revocations.len()), (true, true, false, 3));
        let of_old_key = guest("carol", NOW + 60).made_by(Origin::secret(KeyId::of("old")));
        assert!(revocations.covers(&of_old_key, NOW));
        revocations.replace_listed(&listed[1..]).unwrap();
        assert_eq!((names("alice"), names("bob")), (true, false));
        assert_eq!(revocations.remove(None, &Revoked::Key("old".into())), 0, "it is the file's");
    }

    #[test]
    fn lists_are_bounded_and_what_does_not_fit_changes_nothing() {
        let revocations = Revocations::default();
        let listed: Vec<_> =
            (0..=Revocations::MAX).map(|n| all(Revoked::User(n.to_string().into()), u64::MAX)).collect();
        assert_eq!(revocations.replace_listed(&listed), Err(TooManyRevocations));
        assert!(revocations.is_empty());
        for revocation in &listed[..Revocations::MAX] {
            revocations.add(revocation).unwrap();
        }
        assert_eq!(revocations.add(&listed[Revocations::MAX]), Err(TooManyRevocations));
        assert_eq!(revocations.len(), Revocations::MAX);
        assert_eq!(revocations.remove(None, &listed[0].whose), 1);
        revocations.add(&listed[Revocations::MAX]).unwrap();
    }

    #[test]
    fn of_what_is_known_from_elsewhere_as_much_is_in_force_as_there_is_room_for() {
        let revocations = Revocations::default();
        let stored: Vec<_> =
            (0..Revocations::STORED_MAX + 2).map(|n| all(Revoked::User(n.to_string().into()), u64::MAX)).collect();
        assert_eq!(revocations.replace_stored(&stored), Err(TooManyRevocations));
        assert_eq!(revocations.len(), Revocations::STORED_MAX);
        let names = |n: usize| revocations.covers(&guest(&n.to_string(), NOW + 60), NOW);
        let last = Revocations::STORED_MAX - 1;
        assert_eq!((names(0), names(last), names(last + 1)), (true, true, false));
        revocations.replace_stored(&stored[1..2]).unwrap();
        assert_eq!((names(0), names(1), revocations.len()), (false, true, 1));
    }
}
