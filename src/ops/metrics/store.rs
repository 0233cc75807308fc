//! What is counted of the store.

use std::fmt;

use prometheus_client::metrics::MetricType;

use super::out::Out;
use crate::store::leases::LeaseView;
use crate::store::{CommandResult, Part, Store, UserResult};

pub(super) fn encode(store: &Store, (leases, made_without): (LeaseView, u64), out: &mut Out<'_>) -> fmt::Result {
    let (stats, view) = (store.stats(), store.stats().view());
    out.gauge("turnstone_store_connected", "1 while the store of [store] answers.", view.is_connected.into())?;
    out.counter("turnstone_store_connections", "Connections made with the store of [store].", view.connections)?;
    let help = "How long the store of [store] took to answer when it was last asked whether it does.";
    let mut metric = out.0.encode_descriptor("turnstone_store_latency_seconds", help, None, MetricType::Gauge)?;
    metric.encode_gauge(&view.latency.as_secs_f64())?;
    let commands = CommandResult::ALL.map(|result| (result.label(), stats.commands(result)));
    let help = "Commands for the store of [store], by what came of them.";
    out.counters("turnstone_store_commands", help, "result", commands)?;
    let problems = stats.problems();
    let help = "1 while the store of [store] answers and refuses what it is used for, or holds something else than is expected.";
    let of_parts = Part::ALL.map(|part| (part.label(), problems.contains_key(&part).into()));
    out.gauges("turnstone_store_problem", help, "part", of_parts)?;
    out.gauge("turnstone_store_secrets", "Shared secrets of the store of [store] that are in force.", stats.secrets())?;
    let help = "What the store of [store] says is revoked, and is in force.";
    out.gauge("turnstone_store_revocations", help, stats.revocations())?;
    let users = UserResult::ALL.map(|result| (result.label(), stats.users(result)));
    out.counters(
        "turnstone_store_users",
        "Questions about users to the store of [store], by what came of them.",
        "result",
        users,
    )?;
    let LeaseView { asked, refused, kept, failed, late, users, allocations, servers, is_lost, is_wanted: _ } = leases;
    let calls = [("granted", asked.saturating_sub(refused)), ("refused", refused), ("kept", kept), ("failed", failed)];
    let help = "Calls of the store about users' shares of quotas over all servers: asked for and granted, or refused because the quota is used up; \
                kept, renewed or given back; without an answer.";
    out.counters("turnstone_lease_calls", help, "result", calls)?;
    let help = "Allocates that waited 200 ms for a share in vain although the store answers: it is too far away for so many, or has too much to do.";
    out.counter("turnstone_lease_allocates_late", help, late)?;
    out.gauge(
        "turnstone_lease_users",
        "Users of whose quota over all servers this one has a share, or asks for one.",
        users,
    )?;
    out.gauge("turnstone_lease_allocations", "Allocations in all of these shares, made or not.", allocations)?;
    out.gauge(
        "turnstone_lease_servers",
        "Servers that share quotas, this one included; 0 before the store has said it.",
        servers,
    )?;
    let help = "1 while shares of quotas over all servers cannot be asked for: on-loss in [store] holds.";
    out.gauge("turnstone_lease_lost", help, is_lost.into())?;
    let help = "Allocations made without a share of the user's quota, as on-loss in [store] allows while the store cannot be asked.";
    out.counter("turnstone_lease_allocations_without", help, made_without)
}
