//! What the live allocations of each user come to.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use hyper::StatusCode;
use serde_json::{Value, json};
use tokio::task::spawn_blocking;

use super::api::Api;
use super::error::Refused;
use super::input::Query;
use crate::http::{Answer, json as json_answer};
use crate::turn::UserTotal;
use crate::worker::Command;

pub(super) const KEYS: &[&str] = &["sort", "limit"];

const LIMIT_DEFAULT: usize = 20;
const LIMIT_MAX: usize = 1000;

type By = fn(&UserTotal) -> u64;

const BY_BYTES: By = |total| total.to_peers.bytes.saturating_add(total.to_client.bytes);
const ORDERS: &[(&str, By)] = &[
    ("bytes", BY_BYTES),
    ("packets", |total| total.to_peers.packets.saturating_add(total.to_client.packets)),
    ("sessions", |total| total.allocations),
];

/// `GET /v1/users`: the users with the most first.
pub(super) async fn list(api: &Api, query: &Query) -> Result<Answer, Refused> {
    let by = query.one_of("sort", ORDERS)?.unwrap_or(BY_BYTES);
    let limit = query.limit(LIMIT_DEFAULT, LIMIT_MAX)?;
    let of_workers = api.workers.ask_all(Command::Users).await?;
    // A hundred thousand users take a while, and so does giving them back: nobody else of this thread is to wait for it.
    let written = spawn_blocking(move || json_answer(StatusCode::OK, &shown(most(of_workers, by, limit))));
    written.await.map_err(|_| Refused::stopping())
}

fn shown((users, total_users): (Vec<UserTotal>, usize)) -> Value {
    let shown = users.iter().map(|total| {
        json!({
            "user": &*total.user,
            "realm": total.realm.as_deref(),
            "sessions": total.allocations,
            "to_peers": total.to_peers,
            "to_client": total.to_client,
        })
    });
    json!({ "users": shown.collect::<Vec<_>>(), "total_users": total_users })
}

/// So many of them that have the most, in order, and how many there are.
fn most(of_workers: Vec<Vec<UserTotal>>, by: By, limit: usize) -> (Vec<UserTotal>, usize) {
    let mut totals: HashMap<(Option<Arc<str>>, Arc<str>), UserTotal> = HashMap::new();
    for more in of_workers.into_iter().flatten() {
        let key = (more.realm.clone(), Arc::clone(&more.user));
        match totals.get_mut(&key) {
            Some(total) => add(total, &more),
            None => drop(totals.insert(key, more)),
        }
    }
    let mut users: Vec<_> = totals.into_values().collect();
    let total_users = users.len();
    let order =
        |a: &UserTotal, b: &UserTotal| (Reverse(by(a)), &a.user, &a.realm).cmp(&(Reverse(by(b)), &b.user, &b.realm));
    if limit < users.len() {
        // Only what is shown needs an order: this thread may share its CPU with a worker.
        users.select_nth_unstable_by(limit, order);
        users.truncate(limit);
    }
    users.sort_unstable_by(order);
    (users, total_users)
}

fn add(total: &mut UserTotal, more: &UserTotal) {
    total.allocations = total.allocations.saturating_add(more.allocations);
    total.to_peers += more.to_peers;
    total.to_client += more.to_client;
}
