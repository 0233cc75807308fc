//! The server at a glance.

use serde_json::{Map, Value, json};

use super::super::orders::{Order, Overview};
use super::super::status::Status;
use super::api::Api;
use super::certificates::acme_names;
use super::error::Refused;
use super::store;
use crate::addr::{Family, Transport};
use crate::counters;
use crate::hook::HealthView;
use crate::net::sys;
use crate::reject::{Dropped, Reason};
use crate::traffic::Direction;

/// `GET /v1/status`
pub(super) async fn show(api: &Api) -> Result<Value, Refused> {
    let Overview { config_file, log_filter, drain } = api.order(Order::Overview).await?;
    let status = &api.status;
    let workers = &api.counters;
    let by_transport =
        Transport::ALL.map(|transport| (transport.name(), counters::live_allocations(workers, transport)));
    let allocations: u64 = by_transport.iter().map(|(_, count)| count).sum();
    let refused = Reason::ALL
        .iter()
        .map(|reason| (reason.label(), counters::sum_at(workers, |counters| &counters.refused, *reason as usize)));
    let dropped = Dropped::ALL
        .iter()
        .map(|reason| (reason.label(), counters::sum_at(workers, |counters| &counters.dropped, *reason as usize)));
    let listeners = api
        .bound
        .listeners
        .iter()
        .map(|(transport, address)| json!({ "transport": transport.name(), "address": address.to_string() }));
    let drain = drain.map(|drain| json!({ "deadline_unix": drain.deadline_unix, "allocations_left": allocations }));
    let relayed = |direction| counters::sum_traffic(workers, |counters| counters.payload.total(direction));
    let own_relayed = counters::sum_traffic(workers, |counters| counters.own_relayed.get());
    let started_unix = status.started_unix_secs() as u64;
    let now_unix = sys::clocks().1;
    Ok(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "instance": format!("{:08x}", status.instance()),
        "pid": std::process::id(),
        "started_unix": started_unix,
        "uptime_secs": now_unix.saturating_sub(started_unix),
        "state": if drain.is_some() { "draining" } else { "serving" },
        "not_ready": status.not_ready().as_deref(),
        "drain": drain,
        "config_generation": status.generation(),
        "config_refused": status.config_reloads.is_last_refused(),
        "config_file": config_file,
        "workers": api.workers.count(),
        "listeners": listeners.collect::<Vec<_>>(),
        "allocations": allocations,
        "allocations_by_transport": object(by_transport),
        "ports": ports(api),
        "relay_addresses": relay_addresses(api),
        "traffic": {
            "to_peers": relayed(Direction::ToPeers),
            "to_clients": relayed(Direction::ToClients),
            "own_relayed": own_relayed,
        },
        "refused": object(refused.filter(|(_, count)| *count > 0)),
        "dropped": object(dropped.filter(|(_, count)| *count > 0)),
        "connections": counters::sum(workers, |counters| counters.connections.get()),
        "certificate_not_after_unix": status.certificate_not_after(),
        "fleet": api.fleet.is_some(),
        "store": status.store.get().map(store::glance),
        "hook": hook(status),
        "acme": acme_names(status),
        "wrong_tokens": status.wrong_tokens.shown(),
        "log_level": log_filter,
    }))
}

/// The application of `[hook]`: as it is asked, and as it is told of allocations.
fn hook(status: &Status) -> Value {
    let (asked, told) = (status.hook.health().view(), status.events.health().view());
    if asked.is_none() && told.is_none() {
        return Value::Null;
    }
    json!({ "questions": asked.map(health), "events": told.map(health), "events_waiting": status.events.waiting() })
}

fn health(view: HealthView) -> Value {
    let problem = view.problem.map(|problem| {
        json!({ "at_unix": problem.at_unix, "username": problem.username.as_deref(), "message": problem.text })
    });
    json!({
        "url": view.url,
        "answered_unix": view.answered_unix,
        "silent_since_unix": view.silent_since_unix,
        "unanswered": view.unanswered,
        "problem": problem,
    })
}

/// Relay ports of each family that is offered.
fn ports(api: &Api) -> Value {
    let families = [(Family::V4, "ipv4"), (Family::V6, "ipv6")];
    let offered = families.into_iter().filter(|(family, _)| api.relay_ports.supports(*family));
    let ports = offered.map(|(family, name)| {
        let ports = json!({ "used": api.relay_ports.used(family), "total": api.relay_ports.capacity(family) });
        (name.to_owned(), ports)
    });
    Value::Object(ports.collect())
}

/// The relay addresses, and where those outside are from.
fn relay_addresses(api: &Api) -> Vec<Value> {
    let relays = api.status.relays();
    let shown = relays.iter().map(|facts| {
        json!({
            "family": facts.family.name(),
            "bind": facts.bind.to_string(),
            "external": facts.external.map(|ip| ip.to_string()),
            "source": facts.source,
            "confirmed_unix": facts.confirmed_unix,
            "failure": facts.failure,
        })
    });
    shown.collect()
}

fn object<'n>(counts: impl IntoIterator<Item = (&'n str, u64)>) -> Value {
    let fields: Map<String, Value> = counts.into_iter().map(|(name, count)| (name.to_owned(), count.into())).collect();
    Value::Object(fields)
}
