//! Sessions: the live allocations, one with its peers, and the end of some.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use hyper::StatusCode;
use serde_json::{Value, json};
use tokio::task::spawn_blocking;

use super::api::{Api, Clock};
use super::error::Refused;
use super::input::{Query, wrong};
use super::realms::{Realm, asked};
use crate::addr::Transport;
use crate::auth::UsernameLimits;
use crate::http::{Answer, json as json_answer};
use crate::net::sys;
use crate::turn::{AllocationFilter, AllocationId, AllocationView};
use crate::worker::Command;

pub(super) const FILTER_KEYS: &[&str] = &["user", "realm", "client", "peer", "relayed", "transport"];
pub(super) const LIST_KEYS: &[&str] = &["user", "realm", "client", "peer", "relayed", "transport", "limit", "cursor"];

const LIMIT_DEFAULT: usize = 100;
const LIMIT_MAX: usize = 1000;

/// `GET /v1/sessions`
pub(super) async fn list(api: &Api, query: &Query) -> Result<Answer, Refused> {
    page(api, query, |page| json_answer(StatusCode::OK, &page)).await
}

/// The same as a value, in another form.
pub(super) async fn page<T>(
    api: &Api,
    query: &Query,
    form: impl FnOnce(Value) -> T + Send + 'static,
) -> Result<T, Refused>
where
    T: Send + 'static,
{
    let filter = filter(api, query)?;
    let limit = query.limit(LIMIT_DEFAULT, LIMIT_MAX)?;
    let cursor: Option<Cursor> = query.parsed("cursor", "the next_cursor of an earlier answer")?;
    let first = cursor.map_or(0, |cursor| cursor.worker);
    let mut found: Vec<(usize, AllocationView)> = Vec::new();
    for worker in first..api.workers.count() {
        let after = cursor.filter(|cursor| cursor.worker == worker).map(|cursor| cursor.after);
        // One more than is shown tells whether there is a next page.
        let missing = (limit + 1).saturating_sub(found.len());
        if missing == 0 {
            break;
        }
        let filter = filter.clone();
        let question = |reply| Command::List { filter, after, limit: missing, reply };
        let views = api.workers.ask(worker, question).await?.unwrap_or_default();
        found.extend(views.into_iter().map(|view| (worker, view)));
    }
    let has_more = found.len() > limit;
    found.truncate(limit);
    let last = found.last().map(|(worker, view)| Cursor { worker: *worker, after: view.id });
    let next_cursor = last.filter(|_| has_more).map(|cursor| cursor.to_string());
    written(found.into_iter().map(|(_, view)| view).collect(), next_cursor, Shown::of(api), form).await
}

/// A page, in its form. A thousand sessions take a while, and so does giving them back: nobody else of this thread is to wait for it.
async fn written<T: Send + 'static>(
    found: Vec<AllocationView>,
    next_cursor: Option<String>,
    shown: Shown,
    form: impl FnOnce(Value) -> T + Send + 'static,
) -> Result<T, Refused> {
    let write = move || {
        let sessions: Vec<_> = found.iter().map(|view| shown.session(view)).collect();
        form(json!({ "sessions": sessions, "next_cursor": next_cursor }))
    };
    spawn_blocking(write).await.map_err(|_| Refused::stopping())
}

/// `GET /v1/sessions/{id}`
pub(super) async fn show(api: &Api, id: &str) -> Result<Value, Refused> {
    let SessionId { allocation, .. } = own(api, id)?;
    let mut shown = None;
    for worker in holders(api, allocation) {
        shown = api.workers.ask(worker, |reply| Command::Show(allocation, reply)).await?.flatten();
        if shown.is_some() {
            break;
        }
    }
    let detail = shown.ok_or_else(|| no_session(id))?;
    let now_micros = sys::clocks().0;
    let mut session = Shown::of(api).session(&detail.allocation);
    let permissions = detail.permissions.iter().map(|(ip, until_micros)| {
        json!({ "address": ip.to_string(), "expires_in_secs": secs_until(*until_micros, now_micros) })
    });
    let channels = detail.channels.iter().map(|(number, peer, until_micros)| {
        json!({
            "number": number,
            "peer": peer.get().to_string(),
            "expires_in_secs": secs_until(*until_micros, now_micros),
        })
    });
    let connections =
        detail.connections.iter().map(|(peer, stage)| json!({ "peer": peer.get().to_string(), "state": stage.name() }));
    if let Value::Object(fields) = &mut session {
        fields.insert("permissions".to_owned(), permissions.collect());
        fields.insert("channels".to_owned(), channels.collect());
        if detail.allocation.connections.is_some() {
            fields.insert("connections".to_owned(), connections.collect());
        }
    }
    Ok(session)
}

/// `DELETE /v1/sessions/{id}`
pub(super) async fn end(api: &Api, id: &str) -> Result<Value, Refused> {
    let SessionId { allocation, .. } = own(api, id)?;
    let unknown = |_: &Refused| tracing::warn!(id, "the admin API ends an allocation; its worker has not answered yet");
    for worker in holders(api, allocation) {
        let kick = |reply| Command::Kick(AllocationFilter::default(), Some(allocation), reply);
        let ended = api.workers.ask(worker, kick).await.inspect_err(unknown)?.unwrap_or_default();
        if ended > 0 {
            tracing::info!(id, "an allocation was ended by the admin API");
            return Ok(json!({ "ended": ended }));
        }
    }
    Err(no_session(id))
}

/// `DELETE /v1/sessions`
pub(super) async fn end_all(api: &Api, query: &Query) -> Result<Value, Refused> {
    let filter = filter(api, query)?;
    let Some(user) = &filter.user else {
        return Err(Refused::bad_request("whose sessions are to end? expected user=NAME; the other filters narrow it"));
    };
    let kick = |reply| Command::Kick(filter.clone(), None, reply);
    let unknown = |_: &Refused| {
        tracing::warn!(?user, "the admin API ends a user's allocations; not every worker has answered yet")
    };
    let ended: usize = api.workers.ask_all(kick).await.inspect_err(unknown)?.into_iter().sum();
    tracing::info!(?user, realm = query.text("realm")?, ended, "allocations of a user were ended by the admin API");
    Ok(json!({ "ended": ended }))
}

/// The workers that may have an allocation: first the one that made it, then those that it may have moved to.
fn holders(api: &Api, allocation: AllocationId) -> impl Iterator<Item = usize> + use<> {
    let maker = usize::from(allocation.worker());
    std::iter::once(maker).chain((0..api.workers.count()).filter(move |worker| *worker != maker))
}

/// The id taken apart, if it is one of this run of the server.
fn own(api: &Api, id: &str) -> Result<SessionId, Refused> {
    let parsed: SessionId =
        id.parse().map_err(|()| wrong("session", format_args!("{id:?}"), "an id such as 5f3a9c1e-0-17"))?;
    match parsed.instance == api.status.instance() {
        true => Ok(parsed),
        false => Err(Refused::not_found(format!("allocation {id} was one of an earlier run of the server"))),
    }
}

/// What sessions are shown by.
#[derive(Clone, Copy)]
struct Shown {
    instance: u32,
    clock: Clock,
}

impl Shown {
    fn of(api: &Api) -> Self {
        Self { instance: api.status.instance(), clock: api.clock }
    }

    fn session(self, view: &AllocationView) -> Value {
        let now_micros = sys::clocks().0;
        let id = SessionId { instance: self.instance, allocation: view.id };
        let relayed = view.relayed.iter().map(|(address, until_micros)| {
        json!({ "address": address.get().to_string(), "expires_in_secs": secs_until(*until_micros, now_micros) })
    });
        json!({
            "id": id.to_string(),
            "transport": view.five_tuple.transport.name(),
            "client": view.five_tuple.client.to_string(),
            "server": view.five_tuple.server.to_string(),
            "username": &*view.username,
            "user": &**view.user.name(),
            "realm": view.user.realm().map(|realm| &**realm),
            "limits": UsernameLimits::text_of(&view.username, view.user.name()),
            "credential_expires_unix": view.credential_expires_unix,
            "relayed": relayed.collect::<Vec<_>>(),
            "started_unix": self.clock.unix_secs(view.made_micros),
            "age_secs": now_micros.saturating_sub(view.made_micros) / 1_000_000,
            "to_peers": view.to_peers,
            "to_client": view.to_client,
            "throttled_packets": view.throttled,
            "permissions": view.permissions,
            "channels": view.channels,
            "connections": view.connections,
        })
    }
}

fn filter(api: &Api, query: &Query) -> Result<AllocationFilter, Refused> {
    let address = "ADDRESS:PORT";
    Ok(AllocationFilter {
        user: query.text("user")?.map(str::to_owned),
        realm: asked(api, query)?.map(|Realm(name)| name),
        client: query.parsed::<IpAddr>("client", "an IP address")?,
        peer: query.parsed::<IpAddr>("peer", "an IP address")?,
        relayed: query.parsed::<SocketAddr>("relayed", address)?,
        transport: query.one_of("transport", &Transport::ALL.map(|transport| (transport.name(), transport)))?,
    })
}

fn secs_until(until_micros: u64, now_micros: u64) -> u64 {
    until_micros.saturating_sub(now_micros) / 1_000_000
}

fn no_session(id: &str) -> Refused {
    Refused::not_found(format!("no allocation {id}"))
}

/// `INSTANCE-WORKER-NUMBER`: the run of the server in 8 hexadecimal digits, and the allocation, by the worker that made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct SessionId {
    instance: u32,
    allocation: AllocationId,
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}-{}", self.instance, self.allocation)
    }
}

impl FromStr for SessionId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (instance, allocation) = text.split_once('-').ok_or(())?;
        let is_hex = instance.len() == 8 && instance.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if !is_hex {
            return Err(());
        }
        Ok(Self {
            instance: u32::from_str_radix(instance, 16).map_err(drop)?,
            allocation: allocation.parse().map_err(drop)?,
        })
    }
}

/// Where a page ended: the worker that was asked last, and the allocation that it named last. `WORKER-NUMBER`, or
/// `WORKER-WORKER-NUMBER` where another one made that allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cursor {
    worker: usize,
    after: AllocationId,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match usize::from(self.after.worker()) == self.worker {
            true => self.after.fmt(f),
            false => write!(f, "{}-{}", self.worker, self.after),
        }
    }
}

impl FromStr for Cursor {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        if let Ok(after) = text.parse::<AllocationId>() {
            return Ok(Self { worker: usize::from(after.worker()), after });
        }
        let (worker, after) = text.split_once('-').ok_or(())?;
        // `parse` alone would also take a sign.
        let is_number = worker.bytes().all(|byte| byte.is_ascii_digit());
        let worker = worker.parse().ok().filter(|_| is_number).ok_or(())?;
        Ok(Self { worker, after: after.parse().map_err(drop)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_page_is_written_where_it_holds_up_no_other_answer() {
        let shown = Shown { instance: 1, clock: Clock::new() };
        let form = |page: Value| (page, std::thread::current().id());
        let (page, thread) = written(Vec::new(), Some("0-17".to_owned()), shown, form).await.unwrap();
        assert_eq!(page, json!({ "sessions": [], "next_cursor": "0-17" }));
        assert_ne!(thread, std::thread::current().id());
    }

    #[test]
    fn ids_are_read_as_they_are_written_and_nothing_else_is_one() {
        let id = SessionId { instance: 0x0f3a_9c1e, allocation: AllocationId::new(1, 17).unwrap() };
        assert_eq!(id.to_string(), "0f3a9c1e-1-17");
        assert_eq!(id.to_string().parse(), Ok(id));
        for text in [
            "",
            "-",
            "--",
            "f3a9c1e-1-17",
            "0F3A9C1E-1-17",
            "0f3a9c1e-1",
            "0f3a9c1e-+1-17",
            "0f3a9c1e--17",
            "0f3a9c1e-1-17-2",
        ] {
            assert_eq!(text.parse::<SessionId>(), Err(()), "{text}");
        }
        for (text, worker) in [("1-17", 1), ("0-1-17", 0), ("2-1-17", 2)] {
            let cursor = Cursor { worker, after: AllocationId::new(1, 17).unwrap() };
            assert_eq!((cursor.to_string().as_str(), text.parse()), (text, Ok(cursor)));
        }
        for text in ["1", "1-", "+1-17", "+1-0-17", "-0-17", "1-0-99999999999999999999"] {
            assert_eq!(text.parse::<Cursor>(), Err(()), "{text}");
        }
    }
}
