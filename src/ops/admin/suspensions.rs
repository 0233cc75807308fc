//! Who is suspended by the abuse guard, and the end of that.

use serde_json::{Value, json};

use super::api::Api;
use super::error::Refused;
use super::input::Query;
use super::realms::{Realm, asked};
use crate::net::sys;
use crate::user::User;

pub(super) const LIST_KEYS: &[&str] = &["limit"];
pub(super) const LIFT_KEYS: &[&str] = &["user", "realm"];

const LIMIT_DEFAULT: usize = 100;
const LIMIT_MAX: usize = 1000;

/// `GET /v1/suspensions`: whose suspension ends last, first.
pub(super) fn list(api: &Api, query: &Query) -> Result<Value, Refused> {
    let limit = query.limit(LIMIT_DEFAULT, LIMIT_MAX)?;
    let now_micros = sys::clocks().0;
    let (mut suspended, total) = api.guard.suspended(now_micros, limit);
    suspended.sort_by_key(|suspension| std::cmp::Reverse(suspension.until_micros));
    let shown = suspended.iter().map(|suspension| {
        json!({
            "user": &**suspension.user.name(),
            "realm": suspension.user.realm().map(|realm| &**realm),
            "credential": suspension.user.kind().name(),
            "until_unix": api.clock.unix_secs(suspension.until_micros),
            "left_secs": suspension.until_micros.saturating_sub(now_micros) / 1_000_000,
        })
    });
    Ok(json!({ "suspensions": shown.collect::<Vec<_>>(), "total": total }))
}

/// `DELETE /v1/suspensions`
pub(super) fn lift(api: &Api, query: &Query) -> Result<Value, Refused> {
    let Some(user) = query.text("user")? else {
        return Err(Refused::bad_request("whose suspension is to end? expected user=NAME"));
    };
    let realm = asked(api, query)?;
    let is_meant =
        |of: &User| **of.name() == *user && realm.as_ref().is_none_or(|Realm(name)| of.is_in_realm(name.as_deref()));
    let lifted = api.guard.lift(is_meant, sys::clocks().0);
    tracing::info!(?user, realm = query.text("realm")?, lifted, "the suspension of a user was lifted by the admin API");
    Ok(json!({ "lifted": lifted }))
}
