//! The store of `[store]`: whether it answers, and what of it is known here.

use serde_json::{Map, Value, json};

use super::api::Api;
use super::error::Refused;
use crate::store::leases::LeaseView;
use crate::store::{CommandResult, Store, UserResult};

/// `GET /v1/store`
pub(super) fn show(api: &Api) -> Result<Value, Refused> {
    let store = api.status.store.get();
    store
        .map(|store| whole(store, api.status.leases.view()))
        .ok_or_else(|| Refused::not_found("this server has no [store]"))
}

fn whole(store: &Store, leases: LeaseView) -> Value {
    let (config, stats) = (store.config(), store.stats());
    let commands = CommandResult::ALL.map(|result| (result.label().to_owned(), stats.commands(result).into()));
    let own = json!({
        "node": store.node(),
        "prefix": config.prefix,
        "layout": config.layout.name(),
        "latency_micros": u64::try_from(stats.view().latency.as_micros()).unwrap_or(u64::MAX),
        "commands": Map::from_iter(commands),
        "leases": {
            "users": leases.users,
            "allocations": leases.allocations,
            "servers": leases.servers,
            "lost": leases.is_lost,
            "wanted": leases.is_wanted,
        },
        "secrets": stats.secrets(),
        "revocations": stats.revocations(),
        "users": Map::from_iter(UserResult::ALL.map(|of| (of.label().to_owned(), stats.users(of).into()))),
    });
    let mut shown = glance(store);
    if let (Value::Object(shown), Value::Object(own)) = (&mut shown, own) {
        shown.extend(own);
    }
    shown
}

/// What `/v1/status` has of it.
pub(super) fn glance(store: &Store) -> Value {
    let view = store.stats().view();
    let problems = store.stats().problems().into_iter();
    let problems = problems.map(|(part, problem)| (part.label().to_owned(), problem.into()));
    json!({
        "url": store.config().url.to_string(),
        "connected": view.is_connected,
        "since_unix": Some(view.since_unix).filter(|since| *since > 0),
        "connections": view.connections,
        "problem": view.problem,
        "problems": Map::from_iter(problems),
    })
}
