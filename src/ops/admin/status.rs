//! The server at a glance.

use serde_json::{Map, Value, json};

use super::super::orders::{Order, Overview};
use super::api::Api;
use super::error::Refused;
use super::sessions::traffic;
use crate::addr::{Family, Transport};
use crate::counters::{Counter, Counters, Direction};
use crate::net::sys;
use crate::reject::{Dropped, Reason};

/// `GET /v1/status`
pub(super) async fn show(api: &Api) -> Result<Value, Refused> {
    let Overview { config_file, log_filter, drain } = api.order(Order::Overview).await?;
    let status = &api.status;
    let by_transport = Transport::ALL.map(|transport| {
        // The end first: nothing counts below zero.
        let ended = api.sum(|counters| at(&counters.ended, transport as usize));
        let made = api.sum(|counters| at(&counters.allocated, transport as usize));
        (transport.name(), made.saturating_sub(ended))
    });
    let allocations: u64 = by_transport.iter().map(|(_, count)| count).sum();
    let refused =
        Reason::ALL.iter().map(|reason| (reason.label(), api.sum(|counters| at(&counters.refused, *reason as usize))));
    let dropped =
        Dropped::ALL.iter().map(|reason| (reason.label(), api.sum(|counters| at(&counters.dropped, *reason as usize))));
    let listeners = api
        .bound
        .listeners
        .iter()
        .map(|(transport, address)| json!({ "transport": transport.name(), "address": address.to_string() }));
    let drain = drain.map(|drain| json!({ "deadline_unix": drain.deadline_unix, "allocations_left": allocations }));
    let relayed = |direction| {
        let of = |counters: &Counters| counters.payload.total(direction);
        traffic((api.sum(|counters| of(counters).0), api.sum(|counters| of(counters).1)))
    };
    let own_relayed =
        (api.sum(|counters| counters.own_relayed.packets.get()), api.sum(|counters| counters.own_relayed.bytes.get()));
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
        "config_file": config_file,
        "workers": api.workers.count(),
        "listeners": listeners.collect::<Vec<_>>(),
        "allocations": allocations,
        "allocations_by_transport": object(by_transport),
        "ports": ports(api),
        "traffic": {
            "to_peers": relayed(Direction::ToPeers),
            "to_clients": relayed(Direction::ToClients),
            "own_relayed": traffic(own_relayed),
        },
        "refused": object(refused.filter(|(_, count)| *count > 0)),
        "dropped": object(dropped.filter(|(_, count)| *count > 0)),
        "connections": api.sum(|counters| counters.connections.get()),
        "certificate_not_after_unix": status.certificate_not_after(),
        "log_level": log_filter,
    }))
}

/// Relay ports of each family that is offered.
fn ports(api: &Api) -> Value {
    let families = [(Family::V4, "ipv4"), (Family::V6, "ipv6")];
    let offered = families.into_iter().filter(|(family, _)| api.relay_ports.supports(*family));
    let ports = offered.map(|(family, name)| {
        let ports = json!({ "used": api.relay_ports.used(family), "total": api.relay_ports.capacity() });
        (name.to_owned(), ports)
    });
    Value::Object(ports.collect())
}

fn at(list: &[Counter], index: usize) -> u64 {
    list.get(index).map_or(0, Counter::get)
}

fn object<'n>(counts: impl IntoIterator<Item = (&'n str, u64)>) -> Value {
    let fields: Map<String, Value> = counts.into_iter().map(|(name, count)| (name.to_owned(), count.into())).collect();
    Value::Object(fields)
}
