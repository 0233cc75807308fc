//! Revocations: what is revoked, revoking something, and undoing it.

use std::cmp::Reverse;
use std::sync::Arc;

use serde_json::{Value, json};

use super::super::orders::Order;
use super::super::revocations::Kept;
use super::api::Api;
use super::error::Refused;
use super::input::Query;
use super::realms::{Realm, asked};
use crate::auth::{Revocation, Revoked, TimeLimited, UsernameLimits};
use crate::config::WrittenRevocation;
use crate::store::Asker;
use crate::user::RealmId;
use crate::worker::Command;

pub(super) const LIST_KEYS: &[&str] = &["name", "of", "realm", "limit"];
pub(super) const UNDO_KEYS: &[&str] = &["username", "user", "key", "everybody", "realm"];

const LIMIT_DEFAULT: usize = 100;
const LIMIT_MAX: usize = 1000;

/// `GET /v1/revocations`: what goes first, first.
pub(super) fn list(api: &Api, query: &Query) -> Result<Value, Refused> {
    let limit = query.limit(LIMIT_DEFAULT, LIMIT_MAX)?;
    let name = query.text("name")?;
    let realm = asked(api, query)?.as_ref().map(Realm::id);
    let of = query.text("of")?;
    let mut all = all(api);
    all.retain(|(revocation, _)| {
        name.is_none_or(|name| name_of(&revocation.whose) == Some(name))
            && realm.is_none_or(|realm| realm == realm_of(revocation))
            && of.is_none_or(|of| concerns(revocation, of) || matches!(revocation.whose, Revoked::Key(_)))
    });
    let total = all.len();
    let order = |one: &(Revocation, &str), other: &(Revocation, &str)| {
        let key = |of: &(Revocation, _)| (of.0.until_unix, name_of(&of.0.whose).map(str::to_owned));
        key(one).cmp(&key(other))
    };
    all.sort_unstable_by(order);
    let shown = all.iter().take(limit).map(|(revocation, source)| show(revocation, Some(source)));
    Ok(json!({ "revocations": shown.collect::<Vec<_>>(), "total": total }))
}

/// Everything that is revoked, and by what.
fn all(api: &Api) -> Vec<(Revocation, &'static str)> {
    let revocations = &api.revoker.revocations;
    let asked_for = revocations.asked_for().into_iter().map(|revocation| (revocation, "api"));
    let elsewhere = revocations.listed().into_iter().map(|of| (of, "file"));
    let elsewhere = elsewhere.chain(revocations.stored().into_iter().map(|of| (of, "store")));
    asked_for.chain(elsewhere).collect()
}

/// What revokes credentials of a user or username, or some of them: what is forgotten last, first. Of keys it is not known whose are
/// made with them.
pub(super) fn of(api: &Api, name: &str, realm: Option<RealmId>, limit: usize) -> Value {
    let mut found = all(api);
    found.retain(|(revocation, _)| {
        concerns(revocation, name) && realm.is_none_or(|realm| realm == realm_of(revocation))
    });
    found.sort_by_key(|(revocation, _)| Reverse(revocation.until_unix));
    found.iter().take(limit).map(|(revocation, source)| show(revocation, Some(source))).collect()
}

fn concerns(revocation: &Revocation, name: &str) -> bool {
    match &revocation.whose {
        Revoked::Username(username) => is_of(username, name),
        Revoked::User(user) => is_of(name, user),
        Revoked::Key(_) => false,
        Revoked::Everybody => true,
    }
}

/// Whether a username is this one, or that of a credential of this user, whether limits are read in it or not.
fn is_of(username: &str, name: &str) -> bool {
    let is_user = |username| TimeLimited::parse(username).is_some_and(|parsed| parsed.user == name);
    username == name || is_user(username) || is_user(UsernameLimits::plain(username))
}

fn realm_of(revocation: &Revocation) -> RealmId {
    revocation.realm.as_deref().map(RealmId::of).unwrap_or_default()
}

/// `POST /v1/revocations`
pub(super) async fn revoke(api: &Api, body: Option<Value>) -> Result<Value, Refused> {
    let expected = r#"expected an object such as {"user": "alice"}"#;
    let body = body.ok_or_else(|| Refused::bad_request(format!("there is no body; {expected}")))?;
    let written: WrittenRevocation =
        serde_json::from_value(body).map_err(|error| Refused::bad_request(format!("{error}; {expected}")))?;
    let checked = api.order(|answer| Order::CheckRevocation { written: Box::new(written), answer }).await?;
    let revocation = checked.map_err(Refused::bad_request)?;
    let in_force = api.revoker.revoke(&revocation, Asker::Operator).map_err(Refused::full)?;
    // Neither waits for the other.
    let (kept, ended) = tokio::join!(api.revoker.keep(), api.workers.ask_all(Command::EndRevoked));
    let is_shared = api.revoker.is_shared(revocation.realm.as_deref(), &revocation.whose);
    let (whose, realm) = (&in_force.whose, &in_force.realm);
    let unknown = |_: &Refused| {
        tracing::warn!(?whose, ?realm, "revoked by the admin API; not every worker has ended allocations yet");
    };
    let ended: usize = ended.inspect_err(unknown)?.into_iter().sum();
    tracing::info!(?whose, ?realm, issued_before = ?in_force.issued_before, ended, "revoked by the admin API");
    let is_kept = outlives(kept, "it is in force, but is forgotten at a restart")?;
    Ok(json!({ "revocation": show(&in_force, None), "ended": ended, "kept": is_kept, "shared": is_shared }))
}

/// `DELETE /v1/revocations`
pub(super) async fn undo(api: &Api, query: &Query) -> Result<Value, Refused> {
    let text = |key| Ok::<_, Refused>(query.text(key)?.map(str::to_owned));
    let written = WrittenRevocation {
        username: text("username")?,
        user: text("user")?,
        key: text("key")?,
        everybody: query.one_of("everybody", &[("true", true)])?,
        ..WrittenRevocation::default()
    };
    let whose = written.whose().map_err(Refused::bad_request)?;
    let realm = match text("realm")? {
        Some(name) => api.order(|answer| Order::Realm { name, answer }).await?.map_err(Refused::bad_request)?,
        None => None,
    };
    let removed = api.revoker.undo(realm.as_deref(), &whose);
    let listed = api.revoker.revocations.listed();
    let still_listed = listed.iter().filter(|of| of.whose == whose && of.realm == realm).count();
    let kept = match removed {
        0 => Kept::Yes,
        _ => api.revoker.keep().await,
    };
    tracing::info!(?whose, ?realm, removed, "a revocation was undone by the admin API");
    let is_kept = outlives(kept, "it is undone, but is back after a restart")?;
    let is_shared = api.revoker.is_shared(realm.as_deref(), &whose);
    Ok(json!({ "removed": removed, "listed": still_listed, "kept": is_kept, "shared": is_shared }))
}

fn outlives(kept: Kept, otherwise: &str) -> Result<bool, Refused> {
    match kept {
        Kept::Yes => Ok(true),
        Kept::Nowhere => Ok(false),
        Kept::Failed(problem) => {
            tracing::error!(%problem, "the change of what is revoked is not kept over a restart");
            Err(Refused::not_kept(format!("{otherwise}: cannot write {problem}")))
        }
    }
}

fn show(revocation: &Revocation, source: Option<&str>) -> Value {
    let Revocation { realm, whose, issued_before, until_unix } = revocation;
    let name = |of: fn(&Revoked) -> Option<&Arc<str>>| of(whose).map(|name| &**name);
    let mut shown = json!({
        "username": name(|of| match of { Revoked::Username(name) => Some(name), _ => None }),
        "user": name(|of| match of { Revoked::User(name) => Some(name), _ => None }),
        "key": name(|of| match of { Revoked::Key(id) => Some(id), _ => None }),
        "everybody": matches!(whose, Revoked::Everybody),
        "realm": realm.as_deref(),
        "issued_before_unix": issued_before.map(|issued| issued.unix),
        "lifetime_secs": issued_before.map(|issued| issued.lifetime_secs),
        "until_unix": Some(until_unix).filter(|until| **until < u64::MAX),
    });
    if let (Some(source), Value::Object(fields)) = (source, &mut shown) {
        fields.insert("source".to_owned(), source.into());
    }
    shown
}

fn name_of(whose: &Revoked) -> Option<&str> {
    match whose {
        Revoked::Username(name) | Revoked::User(name) | Revoked::Key(name) => Some(name),
        Revoked::Everybody => None,
    }
}
