//! The keys of `[credentials]`.

use std::time::Duration;

use super::super::credentials::{ApiKey, CredentialsApi, Origin, Shape};
use super::super::key::{Key, Kind};
use super::super::shown::{boolean, limit, text, texts};
use super::super::snapshot::Config;
use super::super::units::duration_text;
use super::super::value::{name_of, quoted};

pub(super) static KEYS: &[Key] = &[
    Key::new(
        "credentials.listen",
        Kind::Text(
            r#"ADDRESS:PORT such as "0.0.0.0:8443" or "127.0.0.1:9643", or "unix:/run/turnstone/credentials.sock""#,
        ),
    )
    .shown(|c| text(api(c)?.listen.to_string()))
    .after_restart(keep),
    Key::new("credentials.tls", Kind::Boolean).default("true").shown(|c| boolean(api(c)?.tls)).after_restart(keep),
    Key::new("credentials.allow-plain-http", Kind::Boolean)
        .default("false")
        .shown(|c| boolean(api(c)?.allow_plain_http))
        .after_restart(keep),
    Key::new("credentials.forwarded-for", Kind::Boolean).default("false").shown(|c| boolean(api(c)?.forwarded_for)),
    Key::new(
        "credentials.requests-per-network-per-second",
        Kind::Limit(1..=1_000_000, r#"a whole number from 1 to 1000000, or "unlimited""#),
    )
    .default("50")
    .shown(|c| limit(api(c)?.per_network.map(|rate| rate.per_second))),
    Key::new("credentials.shapes", Kind::Texts(r#""cloudflare", "twilio", "metered", "turn-rest" or "stunner""#))
        .shown(|c| {
            let names = api(c)?.shapes.iter().filter_map(|shape| name_of(Shape::NAMES, shape));
            texts(&names.collect::<Vec<_>>())
        }),
    Key::new("credentials.test-page", Kind::Boolean).default("false").shown(|c| boolean(api(c)?.test_page)),
    Key::new("credentials.keys", Kind::Tables).unshown(keys_lines, keys_change),
    Key::new("credentials.keys.id", Kind::Text("a name of at most 64 letters, digits, dots, dashes and underscores")),
    Key::new("credentials.keys.sha256", Kind::Text("64 hexadecimal digits")),
    Key::new("credentials.keys.max-ttl", Kind::Duration(Duration::from_secs(60)..=Duration::from_secs(366 * 86_400)))
        .default("1d"),
    Key::new("credentials.keys.user-prefix", Kind::Text("what user names begin with")).default(""),
    Key::new("credentials.keys.origins", Kind::Texts(r#"origins such as "https://app.example.org", or "*""#)),
    Key::new("credentials.keys.realms", Kind::Texts("names of realms")),
    Key::new(
        "credentials.keys.requests-per-second",
        Kind::Limit(1..=1_000_000, r#"a whole number from 1 to 1000000, or "unlimited""#),
    )
    .default("50"),
];

fn api(config: &Config) -> Option<&CredentialsApi> {
    config.credentials.as_ref()
}

fn keep(new: &mut Config, running: &Config) {
    CredentialsApi::keep_until_restart(&mut new.credentials, &running.credentials);
}

/// A key is shown without its hash, which nobody but the file needs.
fn keys_lines(config: &Config) -> String {
    let keys = config.credentials.iter().flat_map(|api| &api.keys);
    keys.map(|key| format!("# [[credentials.keys]] {}\n", key_text(key))).collect()
}

fn key_text(key: &ApiKey) -> String {
    let ApiKey { id, ttl_max, user_prefix, origins, realms, rate, .. } = key;
    let list = |texts: Vec<&str>| texts.into_iter().map(quoted).collect::<Vec<_>>().join(", ");
    let origins = origins.iter().map(|origin| match origin {
        Origin::Any => "*",
        Origin::One(origin) => origin,
    });
    format!(
        "id = {}, max-ttl = {}, user-prefix = {}, origins = [{}], realms = [{}], requests-per-second = {}",
        quoted(id),
        quoted(&duration_text(*ttl_max)),
        quoted(user_prefix),
        list(origins.collect()),
        list(realms.iter().map(String::as_str).collect()),
        rate.map_or_else(|| quoted("unlimited"), |rate| rate.per_second.to_string()),
    )
}

/// Keys are told by their ids.
fn keys_change(old: &Config, new: &Config) -> Option<(String, String)> {
    let keys = |config: &Config| config.credentials.as_ref().map(|api| api.keys.clone()).unwrap_or_default();
    let ids = |keys: &[ApiKey]| match keys {
        [] => "-".to_owned(),
        keys => keys.iter().map(|key| key.id.as_str()).collect::<Vec<_>>().join(" "),
    };
    let (old, new) = (keys(old), keys(new));
    if old == new {
        return None;
    }
    let (before, after) = (ids(&old), ids(&new));
    let note = if before == after { " (another key, or other bounds, under the same id)" } else { "" };
    Some((before, format!("{after}{note}")))
}
