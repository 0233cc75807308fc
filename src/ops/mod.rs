//! Running the server as a service: start, logs, signals, reload, drain, metrics.

mod certificates;
pub mod counters;
mod drain;
pub mod host;
mod http;
mod listeners;
pub mod log;
mod metrics;
mod notify;
mod reload;
pub mod run;
mod status;
