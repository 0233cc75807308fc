//! The keys of `[hook]`.

use std::time::Duration;

use super::super::hook::{HOOK_EVENTS, Hook, HookEvents};
use super::super::key::{CREDENTIAL, FILE, INLINE, Key, Kind, VARIABLE};
use super::super::shown::{number, text};
use super::super::snapshot::Config;
use super::super::unshown;
use super::super::value::{Value, name_of};
use super::spans::{HOUR, SECOND};

const URL: Kind = Kind::Text(r#"an https URL, http to loopback, or "unix:/path/of/a/socket""#);

pub(super) static KEYS: &[Key] = &[
    Key::new("hook.url", URL)
        .shown(|c| text(c.hook.as_ref()?.url.to_string()))
        .unshown(unshown::hook_lines, unshown::hook_change)
        .after_restart(|new, running| Hook::keep_until_restart(&mut new.hook, &running.hook)),
    Key::new("hook.token-credential", CREDENTIAL),
    Key::new("hook.token-file", FILE),
    Key::new("hook.token-env", VARIABLE),
    Key::new("hook.token", INLINE),
    Key::new("hook.timeout", Kind::Duration(Duration::from_millis(100)..=Duration::from_secs(4)))
        .default("2s")
        .shown(|c| Some(Value::Duration(of_hook(c, |hook| hook.timeout, |events| events.timeout)?))),
    Key::new("hook.concurrency", Kind::Number(1..=256, "a whole number from 1 to 256"))
        .default("16")
        .shown(|c| number(of_hook(c, |hook| hook.concurrency, |events| events.concurrency)?)),
    Key::new("hook.known-for", Kind::Duration(SECOND..=HOUR))
        .default("1m")
        .shown(|c| Some(Value::Duration(c.hook.as_ref()?.known_for))),
    Key::new("hook.unknown-for", Kind::Duration(SECOND..=HOUR))
        .default("5s")
        .shown(|c| Some(Value::Duration(c.hook.as_ref()?.unknown_for))),
    Key::new("hook.events", Kind::Texts(r#""start", "stop" or both, as ["start", "stop"]"#))
        .shown(|c| {
            let wanted = c.hook_events.as_ref()?.wanted.iter();
            Some(Value::List(wanted.filter_map(|event| text(name_of(HOOK_EVENTS, event)?)).collect()))
        })
        .after_restart(|new, running| HookEvents::keep_until_restart(&mut new.hook_events, &running.hook_events)),
    Key::new("hook.events-url", URL)
        .shown(|c| text(c.hook_events.as_ref().filter(|events| events.is_elsewhere)?.url.to_string()))
        .unshown(unshown::hook_events_lines, unshown::hook_events_change),
];

/// What those who are asked and those who are told have in common.
fn of_hook<T>(config: &Config, asked: fn(&Hook) -> T, told: fn(&HookEvents) -> T) -> Option<T> {
    config.hook.as_ref().map(asked).or_else(|| config.hook_events.as_ref().map(told))
}
