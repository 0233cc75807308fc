//! This server as a node of a fleet: what it says of itself, and what other nodes and operators of all of them may ask it. They only read.

use hyper::body::Incoming;
use hyper::header::ORIGIN;
use hyper::{Method, Request, StatusCode};
use serde_json::Value;

use std::net::IpAddr;
use std::sync::Arc;

use super::access;
use super::api::Api;
use super::error::Refused;
use super::input::{Query, query};
use super::{refusals, sessions, users};
use crate::addr::Family;
use crate::config::AdminToken;
use crate::fleet::{ClientAddress, Named, Names, NodeReport};
use crate::hook::Health;
use crate::http::{Answer, Caller, Handler, json};
use crate::net::sys;
use crate::policy::{RateLimit, RateLimiter};
use crate::store::{StoreStats, StoreView};

pub(super) const KEYS: &[&str] = &["room", "samples"];

/// Connections of one network: more than a whole fleet in it makes while somebody looks at its page.
const PER_NETWORK: RateLimit = RateLimit { per_second: 300, burst: 1200 };
/// A certificate that is good for less than this is what an operator should know of.
const CERTIFICATE_LEFT_SECS: i64 = 7 * 86_400;
const YES: &[(&str, bool)] = &[("true", true), ("false", false)];

const SESSION: &str = "/v1/sessions/";
const PATHS: &[&str] = &["/v1/node", "/v1/node/names", "/v1/sessions", "/v1/users", "/v1/refusals"];

/// What `[fleet] listen` answers.
pub(in crate::ops) struct NodeApi {
    token: Option<AdminToken>,
    api: Arc<Api>,
    connections: RateLimiter,
}

impl NodeApi {
    pub(in crate::ops) fn new(token: Option<AdminToken>, api: Arc<Api>) -> Self {
        Self { token, api, connections: RateLimiter::new(Some(PER_NETWORK), Arc::default()) }
    }

    async fn answer(&self, request: Request<Incoming>, caller: &Caller) -> Result<Answer, Refused> {
        // At a socket there may be no token; no page has a reason to ask here.
        if request.headers().contains_key(ORIGIN) {
            return Err(Refused::forbidden("requests of web pages (with an Origin header) are refused"));
        }
        access::check_token(&request, self.token.as_ref(), (&self.api.status.wrong_tokens, caller.address))?;
        caller.has_shown_token();
        let (head, _) = request.into_parts();
        let path = head.uri.path();
        let id = path.strip_prefix(SESSION).filter(|id| !id.is_empty() && !id.contains('/'));
        if id.is_none() && !PATHS.contains(&path) {
            return Err(Refused::not_found(format!("no path {path} here, where nodes of a fleet ask each other")));
        }
        if head.method != Method::GET {
            return Err(Refused::method(&head.method, &[Method::GET]));
        }
        let api = &*self.api;
        let query = |known: &[&str]| query(head.uri.query(), known);
        let value = match (id, path) {
            (Some(id), _) => {
                query(&[])?;
                sessions::show(api, id).await?
            }
            (None, "/v1/node/names") => {
                query(&[])?;
                serde_json::to_value(names(api)).unwrap_or_default()
            }
            (None, "/v1/sessions") => return sessions::list(api, &query(sessions::LIST_KEYS)?).await,
            (None, "/v1/users") => return users::list(api, &query(users::KEYS)?).await,
            (None, "/v1/refusals") => refusals::list(api, &query(refusals::KEYS)?).await?,
            _ => show(api, &query(KEYS)?)?,
        };
        Ok(json(StatusCode::OK, &value))
    }
}

impl Handler for NodeApi {
    fn admits(&self, from: Option<IpAddr>) -> bool {
        from.is_none_or(|from| self.connections.allow(sys::clocks().0, from))
    }

    fn expects(&self, from: IpAddr) -> bool {
        self.api.fleet.as_ref().is_some_and(|fleet| fleet.leads_to(from))
    }

    async fn respond(&self, request: Request<Incoming>, caller: &Caller) -> Answer {
        caller.has_asked();
        self.answer(request, caller).await.unwrap_or_else(|refused| refused.answer())
    }
}

/// `GET /v1/node`
pub(super) fn show(api: &Api, query: &Query) -> Result<Value, Refused> {
    let asked = |key: &str| Ok(query.one_of(key, YES)?.unwrap_or(false));
    let (room, samples) = (asked("room")?, asked("samples")?);
    let mut report = report(api);
    report.room = room && api.fleet.as_ref().is_some_and(|fleet| fleet.promise_room());
    report.samples = api.history.as_ref().filter(|_| samples).map(|history| history.samples());
    Ok(serde_json::to_value(report).unwrap_or_default())
}

/// `GET /v1/node/names`: what other nodes are called that this one has heard of, for who asks while one of them is silent.
fn names(api: &Api) -> Names {
    let nodes = api.fleet.iter().flat_map(|fleet| fleet.nodes());
    let named = nodes.filter_map(|node| {
        let (report, _) = node.seen().report?;
        Some(Named { url: node.asker.url().to_string(), name: report.name.clone() })
    });
    Names { names: named.collect() }
}

/// What this node says of itself.
pub(super) fn report(api: &Api) -> NodeReport {
    let (status, fleet) = (&api.status, api.fleet.as_ref());
    let clients = fleet.map(|fleet| fleet.clients()).unwrap_or_default();
    let clients = clients
        .into_iter()
        .map(|(transport, address)| ClientAddress { transport: transport.name().to_owned(), address });
    let report = NodeReport {
        name: fleet.and_then(|fleet| fleet.name()).unwrap_or_else(crate::store::host_name),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        instance: format!("{:08x}", status.instance()),
        started_unix: status.started_unix_secs() as u64,
        state: if status.draining() { "draining" } else { "serving" }.to_owned(),
        ready: status.not_ready().is_none(),
        sessions: crate::counters::sum(&api.counters, |counters| counters.allocations.get()),
        bytes_per_sec: status.lately.bytes_per_sec(),
        refused_last_minute: status.lately.refused_last_minute(),
        redirected_last_minute: status.lately.redirected_last_minute(),
        now_unix: Some(sys::clocks().1),
        load_percent: fleet.and_then(|fleet| fleet.load_percent()),
        room: false,
        clients: clients.collect(),
        problems: problems(api),
        samples: None,
    };
    report.bounded()
}

/// What is wrong with this node, the worst first.
fn problems(api: &Api) -> Vec<String> {
    let status = &api.status;
    let mut problems: Vec<String> = status.not_ready().iter().map(|reason| format!("not ready: {reason}")).collect();
    let now_unix = i64::try_from(sys::clocks().1).unwrap_or(i64::MAX);
    for certificate in status.certificates().iter() {
        let left = certificate.not_after_unix.saturating_sub(now_unix);
        let name = certificate.names.first().unwrap_or(&certificate.subject);
        match left {
            ..0 => problems.push(format!("the certificate of {name} has expired")),
            0..CERTIFICATE_LEFT_SECS => {
                problems.push(format!("the certificate of {name} expires within {} days", left / 86_400 + 1));
            }
            _ => {}
        }
    }
    if let Some(store) = status.store.get() {
        let view = store.stats().view();
        problems.extend(store_problems(store.stats(), &view));
    }
    let why = |health: &Health| {
        health.view().and_then(|view| view.problem).map(|of| format!(": {}", of.text)).unwrap_or_default()
    };
    if status.hook.is_broken() {
        let why = why(status.hook.health());
        problems.push(format!("the application of [hook] does not answer for clients of some network{why}"));
    }
    if status.events.is_broken() {
        problems.push(format!("the application of [hook] takes no events{}", why(status.events.health())));
    }
    for family in [Family::V4, Family::V6] {
        let (used, total) = (api.relay_ports.used(family) as u64, api.relay_ports.capacity(family) as u64);
        if total > 0 && used.saturating_mul(10) >= total.saturating_mul(9) {
            problems.push(format!("{used} of {total} relay ports of {} are taken", family.name()));
        }
    }
    problems.extend(status.relays().iter().filter_map(|relay| {
        let failure = relay.failure.as_ref().filter(|_| relay.external.is_none())?;
        Some(format!("no public address for {}: {failure}", relay.bind))
    }));
    let names = status.acme.names();
    problems.extend(names.iter().filter_map(|name| Some(format!("ACME, {}: {}", name.name, name.failure.as_ref()?))));
    problems
}

/// What is wrong with the store.
fn store_problems(stats: &StoreStats, view: &StoreView) -> Vec<String> {
    let mut problems = Vec::new();
    let refused = stats.refused();
    if !view.is_connected {
        problems.push(format!("the store: {}", view.problem.as_deref().unwrap_or("not connected yet")));
    } else if !refused.is_empty() {
        let parts: Vec<_> = refused.keys().map(|part| part.label()).collect();
        problems.push(format!("the store refuses {}", parts.join(", ")));
    }
    problems.extend(stats.differing_clocks());
    problems.extend(stats.no_secret());
    problems.extend(stats.unusable_user().map(|problem| format!("in the store, {problem}")));
    problems
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::store::{Part, StoreError};

    #[test]
    fn what_a_connected_store_refuses_and_that_it_has_no_secret_are_problems_of_the_node() {
        let stats = StoreStats::default();
        let view = |is_connected| StoreView {
            is_connected,
            since_unix: 1,
            connections: 1,
            latency: Duration::ZERO,
            problem: Some("broken pipe".to_owned()),
        };
        assert!(store_problems(&stats, &view(true)).is_empty());
        stats.trouble(Part::Secrets, &StoreError::Refused("NOPERM".to_owned()));
        stats.trouble(Part::Quotas, &StoreError::Refused("OOM".to_owned()));
        assert_eq!(store_problems(&stats, &view(true)), ["the store refuses quotas, secrets"]);
        assert_eq!(store_problems(&stats, &view(false)), ["the store: broken pipe"]);
        stats.is_well(Part::Secrets);
        stats.is_well(Part::Quotas);
        stats.set_without_secrets(vec!["example.org".to_owned()]);
        let told = "no secret is in force: the store has none for the realm \"example.org\"";
        assert_eq!(store_problems(&stats, &view(true)), [told]);
    }
}
