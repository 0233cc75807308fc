//! What is asked of the store about one user, and what it answers. `script.lua` is the store's side.

use std::fmt::Write;

use crate::user::User;

/// A call of the script: this server's share of a user's limit from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Call {
    /// Whose share it is.
    pub(super) user: User,
    /// Grows from call to call of a server. The store carries out no call after a later one.
    pub(super) id: u64,
    /// What this server counts on in any case: it may be used already. The store notes no less.
    pub(super) floor: u32,
    /// What it needs; more than `floor` by one, if an Allocate waits.
    pub(super) need: u32,
    /// What it would like to have, so as not to ask soon again.
    pub(super) wish: u32,
    /// The limit over all servers.
    pub(super) limit: u32,
}

/// What the store has noted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Noted {
    /// The share of this server.
    pub(super) share: u32,
    /// The call that it is by: a later one than the call that this answers, if that came too late.
    pub(super) id: u64,
    /// The shares of all other servers.
    pub(super) others: u64,
    /// There was something under the key that is none of ours, and is gone.
    pub(super) was_mended: bool,
}

impl Call {
    /// The key of the user, without the prefix of all. No two users have the same. `default_realm` is the name of that of `[auth]`, which
    /// users of it do not have with them: another server may have it as a `[[realm]]`, and another one in its `[auth]`.
    pub(super) fn key(&self, default_realm: &str) -> String {
        let realm = self.user.realm().map_or(default_realm, |realm| realm);
        let mut key = format!("q:{}:", self.user.kind().name());
        for char in realm.chars() {
            match char {
                ':' | '%' => drop(write!(key, "%{:02x}", u32::from(char))),
                _ => key.push(char),
            }
        }
        key.push(':');
        key.push_str(self.user.name());
        key
    }

    /// Who has the share, as the script is told. A realm of `[auth]` may be given the name of one that was a `[[realm]]`, whose allocations
    /// have not all ended: then two users of this server have one key, and neither may be taken for what the other has.
    pub(super) fn holder(&self, server: &str) -> String {
        match self.user.realm() {
            None => server.to_owned(),
            Some(_) => format!("{server}:r"),
        }
    }

    /// The arguments of the script, after the server's name.
    pub(super) fn arguments(&self, term_millis: u64) -> [u64; 6] {
        [self.id, self.floor.into(), self.need.into(), self.wish.into(), self.limit.into(), term_millis]
    }
}

impl Noted {
    /// Reads the script's answer; `None` if it is not by this script.
    pub(super) fn read(answer: &[i64]) -> Option<Self> {
        let [share, id, others, _now_millis, mended] = *answer else { return None };
        let (share, id, others) = (share.try_into().ok()?, id.try_into().ok()?, others.try_into().ok()?);
        Some(Self { share, id, others, was_mended: mended != 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key_of(user: User, default_realm: &str) -> String {
        Call { user, id: 1, floor: 0, need: 0, wish: 0, limit: 1 }.key(default_realm)
    }

    #[test]
    fn no_two_users_have_the_same_key() {
        let key = |user: User| key_of(user, "example.org");
        let realm = |name: &str| Some(name.into());
        let users = [
            User::fixed("a"),
            User::time_limited("a"),
            User::fixed("a").in_realm(realm("b")),
            User::fixed("b:a"),
            User::fixed(":b:a"),
            User::fixed("a").in_realm(realm(":b")),
            User::fixed("a").in_realm(realm("%3ab")),
        ];
        let keys: std::collections::BTreeSet<_> = users.iter().cloned().map(key).collect();
        assert_eq!(keys.len(), users.len(), "{keys:?}");
        assert_eq!(key(User::fixed("a").in_realm(realm("b.example"))), "q:static:b.example:a");
    }

    #[test]
    fn users_of_a_realm_have_the_same_key_wherever_it_is_configured_and_those_of_another_one_do_not() {
        let ann = User::time_limited("ann");
        let of_auth = key_of(ann.clone(), "example.org");
        assert_eq!(of_auth, "q:time-limited:example.org:ann");
        assert_eq!(of_auth, key_of(ann.in_realm(Some("example.org".into())), "other.org"));
        assert_ne!(of_auth, key_of(User::time_limited("ann"), "other.org"));
    }
}
