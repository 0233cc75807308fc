//! How the last sessions of somebody ended, in words: what a user asks about who was in a call and is not any more.

use std::cmp::Reverse;
use std::net::IpAddr;

use serde_json::{Value, json};

use super::api::Api;
use super::error::Refused;
use crate::turn::EndReason;
use crate::user::RealmId;
use crate::worker::{Command, LastEnd};

/// Those of this user or username, of clients at this address, and in this realm, the newest first.
pub(super) async fn of(
    api: &Api,
    user: Option<&str>,
    ip: Option<IpAddr>,
    realm: Option<RealmId>,
) -> Result<Vec<LastEnd>, Refused> {
    let mut found: Vec<LastEnd> = api.workers.ask_all(Command::LastEnds).await?.into_iter().flatten().collect();
    found.retain(|end| {
        user.is_none_or(|user| is_of(end, user))
            && ip.is_none_or(|ip| end.client.get().ip() == ip)
            && realm.is_none_or(|realm| realm == realm_of(end))
    });
    found.sort_by_key(|end| Reverse(end.at_micros));
    Ok(found)
}

fn is_of(end: &LastEnd, wanted: &str) -> bool {
    *end.username == *wanted || **end.user.name() == *wanted
}

pub(super) fn realm_of(end: &LastEnd) -> RealmId {
    end.user.realm().map(|name| RealmId::of(name)).unwrap_or_default()
}

pub(super) fn shown(api: &Api, end: &LastEnd) -> Value {
    json!({
        "at_unix": api.clock.unix_secs(end.at_micros),
        "reason": end.reason.label(),
        "explanation": explanation(end.reason),
        "times": end.times,
        "client": end.client.to_string(),
        "transport": end.transport.name(),
        "realm": end.user.realm().map(|name| &**name),
        "username": &*end.username,
        "user": &**end.user.name(),
    })
}

/// Why a session ended, for who reads it later.
pub(super) fn explanation(reason: EndReason) -> &'static str {
    match reason {
        EndReason::Released => "the client ended it",
        EndReason::Expired => "the client did not refresh it in time, so that its lifetime ran out",
        EndReason::ClientGone => "the client's connection closed",
        EndReason::CredentialExpired => "its credential expired, and on-expiry in [auth] is \"cut\"",
        EndReason::MoveFailed => {
            "its client came back to another worker, which had no descriptor or place for it; look at LimitNOFILE"
        }
        EndReason::Kicked => "an operator ended it: turnstone kick, or the admin API",
        EndReason::Revoked => "its credential was revoked; turnstone revoke --list shows by what",
        EndReason::HookRefused => "the application of [hook] was told of it and answered that it is to end",
        EndReason::RealmRemoved => "its realm was taken out of the configuration",
        EndReason::Shutdown => "the server stopped",
    }
}
