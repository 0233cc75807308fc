//! The keys of `[store]`.

use std::time::Duration;

use super::super::key::{Key, Kind};
use super::super::shown::{boolean, text};
use super::super::snapshot::Config;
use super::super::store::{ON_LOSS, StoreConfig, StoreLayout};
use super::super::unshown::there;
use super::super::value::{Value, name_of};

pub(super) static KEYS: &[Key] = &[
    Key::new(
        "store.url",
        Kind::Text(
            r#"a URL such as "redis://127.0.0.1:6379" or "rediss://USER@HOST:PORT/0", redis-sentinel:// or redis-cluster:// with several hosts, or "unix:/path/of/a/socket""#,
        ),
    )
    .shown(|c| text(store(c)?.url.to_string()))
    .after_restart(keep)
    .set_by("TURNSTONE_STORE_URL", Some("store-url"), "URL", "Redis or Valkey that the servers of a fleet share"),
    Key::new("store.password-credential", Kind::Text("the name of a systemd credential")),
    Key::new("store.password-file", Kind::Text("the path of a file")),
    Key::new("store.password-env", Kind::Text("the name of an environment variable")),
    Key::new("store.password", Kind::Text("a text")).unshown(password_lines, password_change),
    Key::new("store.ca", Kind::Text("the path of a PEM file"))
        .shown(|c| text(store(c)?.ca.as_ref()?.to_string_lossy()))
        .after_restart(keep),
    Key::new("store.certificate", Kind::Text("the path of a PEM file"))
        .shown(|c| text(store(c)?.certificate.as_ref()?.certificate.to_string_lossy()))
        .after_restart(keep),
    Key::new("store.key", Kind::Text("the path of a PEM file"))
        .shown(|c| text(store(c)?.certificate.as_ref()?.key.to_string_lossy()))
        .after_restart(keep),
    Key::new("store.prefix", Kind::Text("at most 64 visible ASCII characters without braces, brackets, * ? and \\"))
        .default("turnstone")
        .shown(|c| text(&*store(c)?.prefix))
        .after_restart(keep),
    Key::new("store.node", Kind::Text("a name of at most 64 letters, digits, dots, dashes and underscores"))
        .shown(|c| text(store(c)?.node.as_deref()?))
        .after_restart(keep)
        .set_by("TURNSTONE_STORE_NODE", None, "NAME", "what this server is called among those that share a store"),
    Key::new("store.timeout", Kind::Duration(Duration::from_millis(50)..=Duration::from_secs(4)))
        .default("500ms")
        .shown(|c| Some(Value::Duration(store(c)?.timeout)))
        .after_restart(keep),
    Key::new("store.on-loss", Kind::Text(r#""local-share", "refuse" or "allow""#))
        .default("local-share")
        .shown(|c| text(name_of(ON_LOSS, &store(c)?.on_loss)?))
        .after_restart(keep),
    Key::new("store.lease", Kind::Duration(Duration::from_secs(3)..=Duration::from_secs(600)))
        .default("60s")
        .shown(|c| Some(Value::Duration(store(c)?.lease)))
        .after_restart(keep),
    Key::new("store.layout", Kind::Text(r#""turnstone" or "coturn""#))
        .default("turnstone")
        .shown(|c| text(name_of(StoreLayout::NAMES, &store(c)?.layout)?))
        .after_restart(keep),
    Key::new("store.users", Kind::Boolean).default("true").shown(|c| boolean(store(c)?.users)).after_restart(keep),
    Key::new("store.known-for", Kind::Duration(Duration::from_secs(1)..=Duration::from_secs(3600)))
        .default("1m")
        .shown(|c| Some(Value::Duration(store(c)?.known_for)))
        .after_restart(keep),
    Key::new("store.unknown-for", Kind::Duration(Duration::from_secs(1)..=Duration::from_secs(3600)))
        .default("5s")
        .shown(|c| Some(Value::Duration(store(c)?.unknown_for)))
        .after_restart(keep),
];

fn store(config: &Config) -> Option<&StoreConfig> {
    config.store.as_ref()
}

fn keep(new: &mut Config, running: &Config) {
    StoreConfig::keep_until_restart(&mut new.store, &running.store);
}

fn password_lines(config: &Config) -> String {
    let has_password = store(config).is_some_and(|store| store.password.is_some());
    if has_password { "# password: there is one\n".to_owned() } else { String::new() }
}

fn password_change(old: &Config, new: &Config) -> Option<(String, String)> {
    let (old, new) = (store(old)?, store(new)?);
    there(old.password.clone(), new.password.clone(), ["a password", "another password"])
}
