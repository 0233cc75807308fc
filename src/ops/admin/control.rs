//! Changing the running server: reload, drain and the log's level. The supervisor, which alone has them, carries the orders out
//! between two of its own tasks.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use super::AdminApi;
use super::error::Refused;
use super::input::{Query, wrong};
use crate::config::{Change, Effect, Problem, check_log_filter};
use crate::ops::log::LogError;
use crate::ops::reload::{Judged, Unjudged};
use crate::ops::run::{Hooks, RunningServer};
use crate::turn::Judgement;

pub(super) const RELOAD_KEYS: &[&str] = &["dry_run"];

/// Orders that may wait.
const WAITING_MAX: usize = 16;
/// The longest deadline of a drain, as in [drain].
const DEADLINE_SECS_MAX: u64 = 86_400;

/// What the supervisor is asked or told, and where its answer goes.
pub(in crate::ops) enum Order {
    /// Say what only you know of the server's state.
    Overview(oneshot::Sender<Overview>),
    /// Say which configuration is in force.
    Config(oneshot::Sender<ConfigView>),
    /// Read the configuration again; only judge it if `dry_run`.
    Reload { dry_run: bool, answer: oneshot::Sender<Result<Reloaded, String>> },
    /// Drain, or change the deadline of the drain.
    Drain { deadline: DrainDeadline, answer: oneshot::Sender<Option<u64>> },
    /// Replace the log's filter.
    LogFilter { filter: String, answer: oneshot::Sender<Result<(), LogError>> },
}

/// The supervisor's end.
pub(in crate::ops) type Orders = mpsc::Receiver<Order>;

/// What only the supervisor knows.
pub(in crate::ops) struct Overview {
    pub(super) config_file: Option<String>,
    pub(super) log_filter: String,
    pub(super) drain: Option<DrainView>,
}

/// A drain under way.
pub(in crate::ops) struct DrainView {
    pub(super) deadline_unix: Option<u64>,
}

/// The configuration in force, without secrets.
pub(in crate::ops) struct ConfigView {
    generation: u64,
    toml: String,
}

/// What a reload changed, or would change.
pub(in crate::ops) struct Reloaded {
    generation: u64,
    changes: Vec<Change>,
    warnings: Vec<Problem>,
    /// What came of it for the allocations there were; unknown of a dry run.
    judgement: Option<Judgement>,
}

/// How long a drain may last.
#[derive(Clone, Copy)]
pub(in crate::ops) enum DrainDeadline {
    Configured,
    None,
    After(Duration),
}

pub(super) fn channel() -> (mpsc::Sender<Order>, Orders) {
    mpsc::channel(WAITING_MAX)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LogLevel {
    level: String,
}

impl AdminApi {
    /// `GET /v1/config`
    pub(super) async fn show_config(&self) -> Result<Value, Refused> {
        let ConfigView { generation, toml } = self.order(Order::Config).await?;
        Ok(json!({ "generation": generation, "toml": toml }))
    }

    /// `POST /v1/reload`
    pub(super) async fn reload(&self, query: &Query) -> Result<Value, Refused> {
        let dry_run = query.one_of("dry_run", &[("true", true), ("false", false)])?.unwrap_or(false);
        let reloaded =
            self.order(|answer| Order::Reload { dry_run, answer }).await?.map_err(Refused::config_invalid)?;
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
            })
        });
        Ok(json!({
            "applied": !dry_run,
            "dry_run": dry_run,
            "generation": reloaded.generation,
            "changes": changes.collect::<Vec<_>>(),
            "warnings": warnings,
            "sessions": sessions,
        }))
    }

    /// `POST /v1/drain`
    pub(super) async fn drain(&self, body: Option<Value>) -> Result<Value, Refused> {
        let deadline = drain_deadline(body)?;
        let deadline_unix = self.order(|answer| Order::Drain { deadline, answer }).await?;
        Ok(json!({ "state": "draining", "deadline_unix": deadline_unix }))
    }

    /// `GET /v1/log-level`
    pub(super) async fn show_log_level(&self) -> Result<Value, Refused> {
        let overview = self.order(Order::Overview).await?;
        Ok(json!({ "level": overview.log_filter }))
    }

    /// `PUT /v1/log-level`
    pub(super) async fn set_log_level(&self, body: Option<Value>) -> Result<Value, Refused> {
        let expected = r#"expected {"level": "info"}"#;
        let body = body.ok_or_else(|| Refused::bad_request(format!("there is no body; {expected}")))?;
        let LogLevel { level: filter } =
            serde_json::from_value(body).map_err(|error| Refused::bad_request(format!("{error}; {expected}")))?;
        check_log_filter(&filter).map_err(|problem| Refused::bad_request(format!("level: {problem}")))?;
        let shown = filter.clone();
        self.order(|answer| Order::LogFilter { filter, answer }).await?.map_err(Refused::bad_request)?;
        Ok(json!({ "level": shown }))
    }

    /// The supervisor's answer.
    pub(super) async fn order<T>(&self, order: impl FnOnce(oneshot::Sender<T>) -> Order) -> Result<T, Refused> {
        let (send, answer) = oneshot::channel();
        self.orders.send(order(send)).await.map_err(|_| Refused::stopping())?;
        answer.await.map_err(|_| Refused::stopping())
    }
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

impl RunningServer {
    /// Carries out an order, whose giver may have gone away. Returns whether it was about a drain.
    pub(in crate::ops) fn obey(&mut self, order: Order, hooks: &Hooks<'_>) -> bool {
        let is_drain = matches!(order, Order::Drain { .. });
        match order {
            Order::Overview(answer) => {
                let drain =
                    self.draining.as_ref().map(|draining| DrainView { deadline_unix: draining.deadline_unix() });
                let (config_file, log_filter) = (hooks.config_file.clone(), hooks.log.filter());
                let _ = answer.send(Overview { config_file, log_filter, drain });
            }
            Order::Config(answer) => {
                let _ = answer.send(ConfigView { generation: self.status.generation(), toml: self.config.to_toml() });
            }
            Order::Reload { dry_run: true, answer } => {
                let generation = self.status.generation();
                let reloaded = self.judge(hooks).map(|Judged { changes, warnings, .. }| Reloaded {
                    generation,
                    changes,
                    warnings,
                    judgement: None,
                });
                let _ = answer.send(reloaded);
            }
            Order::Reload { dry_run: false, answer } => {
                self.reload_and_notify(hooks, move |reloaded| drop(answer.send(reloaded)));
            }
            Order::Drain { deadline, answer } => {
                let deadline = match deadline {
                    DrainDeadline::Configured => self.configured_deadline(),
                    DrainDeadline::None => None,
                    DrainDeadline::After(time) => Some(time),
                };
                let _ = answer.send(self.drain_until(deadline));
            }
            Order::LogFilter { filter, answer } => {
                let result = hooks.log.set_filter(&filter);
                if result.is_ok() {
                    tracing::info!(?filter, "the log's filter was changed by the admin API");
                }
                let _ = answer.send(result);
            }
        }
        is_drain
    }

    /// A reload that the service manager hears of. It is over, and `then` is given what came of it, when the allocations there are
    /// have been judged by it; the server is not held up by that.
    pub(in crate::ops) fn reload_and_notify(
        &mut self,
        hooks: &Hooks<'_>,
        then: impl FnOnce(Result<Reloaded, String>) + Send + 'static,
    ) {
        let end = self.announce_reload();
        let (Judged { changes, warnings, .. }, judging) = match self.reload(hooks) {
            Ok(applied) => applied,
            Err(problem) => {
                end();
                return then(Err(problem));
            }
        };
        let generation = self.status.generation();
        tokio::spawn(async move {
            let judgement = match judging.end().await {
                Ok(judgement) => {
                    tracing::info!(
                        allocations = judgement.allocations,
                        allocations_ended = judgement.allocations_ended,
                        permissions_ended = judgement.permissions_ended,
                        channels_ended = judgement.channels_ended,
                        "the live allocations have been judged by the new configuration"
                    );
                    Some(judgement)
                }
                Err(Unjudged::Late) => {
                    tracing::warn!("a worker has not yet judged all its allocations by the new configuration");
                    None
                }
                Err(Unjudged::Stopping) => return,
            };
            end();
            then(Ok(Reloaded { generation, changes, warnings, judgement }));
        });
    }
}
