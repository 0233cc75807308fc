//! The keys of `[usage]`.

use std::time::Duration;

use super::super::key::{Key, Kind};
use super::super::shown::{limit, or_off, text};
use super::super::snapshot::Config;
use super::super::unshown;
use super::super::usage::{Usage, UsageFile, Webhook};
use super::super::value::Value;

pub(super) static KEYS: &[Key] = &[
    Key::new("usage.interim", Kind::DurationOrOff(Duration::from_secs(10)..=Duration::from_secs(86_400)))
        .default("5m")
        .shown(|c| or_off(c.usage.as_ref()?.interim.map(Value::Duration))),
    Key::new("usage.file", Kind::Text("the path of a file"))
        .shown(|c| text(usage_file(c)?.path.to_string_lossy()))
        .after_restart(keep_usage),
    Key::new("usage.rotate-bytes", Kind::SizeOrOff(64 << 10..=1 << 40))
        .default("100MiB")
        .shown(|c| or_off(usage_file(c)?.rotate_bytes.map(Value::Size))),
    Key::new("usage.rotate-interval", Kind::DurationOrOff(Duration::from_secs(60)..=Duration::from_secs(30 * 86_400)))
        .default("1d")
        .shown(|c| or_off(usage_file(c)?.rotate_interval.map(Value::Duration))),
    Key::new("usage.keep", Kind::Limit(1..=100_000, r#"a whole number from 1 to 100000, or "unlimited""#))
        .default("14")
        .shown(|c| limit(usage_file(c)?.keep.map(|keep| keep as u64))),
    Key::new(
        "usage.webhook",
        Kind::Text(r#"a URL such as "https://billing.example.org/turn", or http:// to a loopback address"#),
    )
    .shown(|c| text(webhook(c)?.url.to_string()))
    .unshown(unshown::webhook_query_lines, unshown::webhook_query_change)
    .after_restart(keep_usage),
    Key::new("usage.webhook-timeout", Kind::Duration(Duration::from_secs(1)..=Duration::from_secs(60)))
        .default("10s")
        .shown(|c| Some(Value::Duration(webhook(c)?.timeout)))
        .after_restart(keep_usage),
    Key::new("usage.webhook-token-credential", Kind::Text("the name of a systemd credential")),
    Key::new("usage.webhook-token-file", Kind::Text("the path of a file")),
    Key::new("usage.webhook-token-env", Kind::Text("the name of an environment variable")),
    Key::new("usage.webhook-token", Kind::Text("a text"))
        .unshown(unshown::webhook_token_lines, unshown::webhook_token_change),
    Key::new("usage.spool-directory", Kind::Text("the path of a directory"))
        .shown(|c| text(webhook(c)?.spool_directory.to_string_lossy()))
        .after_restart(keep_usage),
    Key::new("usage.spool-bytes-max", Kind::Size(256 << 10..=1 << 40))
        .default("256MiB")
        .shown(|c| Some(Value::Size(webhook(c)?.spool_bytes_max)))
        .after_restart(keep_usage),
];

fn keep_usage(new: &mut Config, running: &Config) {
    Usage::keep_until_restart(&mut new.usage, &running.usage);
}

fn usage_file(config: &Config) -> Option<&UsageFile> {
    config.usage.as_ref()?.file.as_ref()
}

fn webhook(config: &Config) -> Option<&Webhook> {
    config.usage.as_ref()?.webhook.as_ref()
}
