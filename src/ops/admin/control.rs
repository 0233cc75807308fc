//! Changing the running server: reload, drain and the log's level.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::super::error::ReloadError;
use super::super::orders::{ConfigView, DrainDeadline, Order};
use super::api::Api;
use super::certificates::acme_name;
use super::error::Refused;
use super::input::{Query, wrong};
use crate::config::{Effect, check_log_filter};

pub(super) const RELOAD_KEYS: &[&str] = &["dry_run"];

/// The longest deadline of a drain, as in [drain].
const DEADLINE_SECS_MAX: u64 = 86_400;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LogLevel {
    level: String,
}

/// `GET /v1/config`
pub(super) async fn show_config(api: &Api) -> Result<Value, Refused> {
    let ConfigView { generation, toml } = api.order(Order::Config).await?;
    Ok(json!({ "generation": generation, "toml": toml }))
}

/// `POST /v1/reload`
pub(super) async fn reload(api: &Api, query: &Query) -> Result<Value, Refused> {
    let dry_run = query.one_of("dry_run", &[("true", true), ("false", false)])?.unwrap_or(false);
    let reloaded = api.order(|answer| Order::Reload { dry_run, answer }).await?.map_err(|error| match error {
        ReloadError::NotRead(error) => {
            Refused::not_now(format_args!("no reload now: the files of the configuration: {error}"))
        }
        error => Refused::config_invalid(error),
    });
    let reloaded = reloaded?;
    let changes = reloaded.changes.iter().map(|change| {
        let effect = match change.effect {
            Effect::Applied => "applied",
            Effect::NeedsRestart => "needs-restart",
        };
        json!({ "key": change.key, "before": change.before, "after": change.after, "effect": effect })
    });
    let warnings: Vec<_> = reloaded.warnings.iter().map(ToString::to_string).collect();
    let sessions = reloaded.judgement.map(|judgement| {
        json!({
            "judged": judgement.allocations,
            "ended": judgement.allocations_ended,
            "permissions_ended": judgement.permissions_ended,
            "channels_ended": judgement.channels_ended,
            "connections_ended": judgement.connections_ended,
        })
    });
    Ok(json!({
        "applied": !dry_run,
        "dry_run": dry_run,
        "generation": reloaded.generation,
        "changes": changes.collect::<Vec<_>>(),
        "warnings": warnings,
        "sessions": sessions,
        "acme": reloaded.acme.iter().map(acme_name).collect::<Vec<_>>(),
    }))
}

/// `POST /v1/drain`
pub(super) async fn drain(api: &Api, body: Option<Value>) -> Result<Value, Refused> {
    let deadline = drain_deadline(body)?;
    let deadline_unix = api.order(|answer| Order::Drain { deadline, answer }).await?;
    Ok(json!({ "state": "draining", "deadline_unix": deadline_unix }))
}

/// `GET /v1/log-level`
pub(super) async fn show_log_level(api: &Api) -> Result<Value, Refused> {
    let overview = api.order(Order::Overview).await?;
    Ok(json!({ "level": overview.log_filter }))
}

/// `PUT /v1/log-level`
pub(super) async fn set_log_level(api: &Api, body: Option<Value>) -> Result<Value, Refused> {
    let expected = r#"expected {"level": "info"}"#;
    let body = body.ok_or_else(|| Refused::bad_request(format!("there is no body; {expected}")))?;
    let LogLevel { level: filter } =
        serde_json::from_value(body).map_err(|error| Refused::bad_request(format!("{error}; {expected}")))?;
    check_log_filter(&filter).map_err(|problem| Refused::bad_request(format!("level: {problem}")))?;
    let shown = filter.clone();
    api.order(|answer| Order::LogFilter { filter, answer }).await?.map_err(Refused::bad_request)?;
    Ok(json!({ "level": shown }))
}

/// `{"deadline_secs": 3600}`, or `null` there for none; nothing for the configured one.
fn drain_deadline(body: Option<Value>) -> Result<DrainDeadline, Refused> {
    let expected = "a whole number up to 86400, or null";
    let fields = match body {
        None => return Ok(DrainDeadline::Configured),
        Some(Value::Object(fields)) => fields,
        Some(_) => return Err(Refused::bad_request(r#"expected {"deadline_secs": 3600}"#)),
    };
    if let Some(key) = fields.keys().find(|key| *key != "deadline_secs") {
        return Err(Refused::bad_request(format!("unknown field {key:?}; expected deadline_secs")));
    }
    match fields.get("deadline_secs") {
        None => Ok(DrainDeadline::Configured),
        Some(Value::Null) => Ok(DrainDeadline::None),
        Some(value) => match value.as_u64().filter(|secs| *secs <= DEADLINE_SECS_MAX) {
            Some(secs) => Ok(DrainDeadline::After(Duration::from_secs(secs))),
            None => Err(wrong("deadline_secs", value, expected)),
        },
    }
}
