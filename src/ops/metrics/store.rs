//! What is counted of the store.

use std::fmt;

use prometheus_client::metrics::MetricType;

use super::out::Out;
use crate::store::{CommandResult, Store};

pub(super) fn encode(store: &Store, out: &mut Out<'_>) -> fmt::Result {
    let (stats, view) = (store.stats(), store.stats().view());
    out.gauge("turnstone_store_connected", "1 while the store of [store] answers.", view.is_connected.into())?;
    out.counter("turnstone_store_connections", "Connections made with the store of [store].", view.connections)?;
    let help = "How long the store of [store] took to answer when it was last asked whether it does.";
    let mut metric = out.0.encode_descriptor("turnstone_store_latency_seconds", help, None, MetricType::Gauge)?;
    metric.encode_gauge(&view.latency.as_secs_f64())?;
    let commands = CommandResult::ALL.map(|result| (result.label(), stats.commands(result)));
    let help = "Commands for the store of [store], by what came of them.";
    out.counters("turnstone_store_commands", help, "result", commands)
}
