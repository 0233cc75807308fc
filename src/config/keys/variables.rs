//! Variables of the environment: each key that is in no array of tables has one, and so a container needs no file.

use std::sync::LazyLock;

use super::super::key::{INLINE_TEXT, Key, Kind, Overridable};
use super::{all, find};

/// What the names of all variables begin with.
const PREFIX: &str = "TURNSTONE_";

/// What sets a key from outside of the file: what the table says, or else the variable that has the key's own name.
fn set_by(key: &'static Key) -> Option<&'static Overridable> {
    key.overridable.as_ref().or_else(|| NAMED_ALIKE.iter().find(|set| set.key == key.name))
}

/// Every setting that something can set from outside of the file.
pub(in crate::config) fn settable() -> impl Iterator<Item = &'static Overridable> {
    all().filter_map(set_by)
}

/// `quota.allocations-per-user` is `TURNSTONE_QUOTA_ALLOCATIONS_PER_USER`.
static NAMED_ALIKE: LazyLock<Vec<Overridable>> = LazyLock::new(|| {
    let named = all().filter(|key| key.overridable.is_none() && may_be_set(key)).map(|key| {
        let env = format!("{PREFIX}{}", key.name.to_ascii_uppercase().replace(['.', '-'], "_"));
        Overridable {
            key: key.name,
            // Once for the whole run.
            env: env.leak(),
            flag: None,
            list: matches!(key.kind, Kind::Texts(_) | Kind::Numbers(..)),
            value_name: "VALUE",
            help: "",
        }
    });
    named.collect()
});

fn may_be_set(key: &Key) -> bool {
    let mut above = key.name;
    while let Some((section, _)) = above.rsplit_once('.') {
        if find(section).is_some_and(|key| matches!(key.kind, Kind::Tables)) {
            return false;
        }
        above = section;
    }
    // A secret that is no variable's whole purpose comes from a file, or from a variable that is named for it (`-env`).
    !matches!(key.kind, Kind::Tables | Kind::Outside | Kind::Text(INLINE_TEXT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_arrays_of_tables_and_secrets_have_no_variable_and_all_others_have_one() {
        let env = |name: &str| find(name).and_then(set_by).map(|set| set.env);
        assert_eq!(env("quota.allocations-per-user"), Some("TURNSTONE_QUOTA_ALLOCATIONS_PER_USER"));
        assert_eq!(env("auth.realm"), Some("TURNSTONE_REALM"));
        assert_eq!(env("turn"), Some("TURNSTONE_TURN"));
        for name in ["admin.token", "hook.token", "usage.webhook-token", "realm.name", "realm.quota.allocations-total"]
        {
            assert_eq!(env(name), None, "{name}");
        }
        for key in all().filter(|key| may_be_set(key)) {
            assert!(env(key.name).is_some_and(|env| env.starts_with(PREFIX)), "{}", key.name);
        }
    }
}
