//! Running the server as a service: start, logs, signals, reload, drain, metrics.

mod addresses;
mod admin;
mod certificates;
mod drain;
mod endpoint;
mod exposition;
pub mod host;
mod http;
mod listeners;
pub mod log;
mod metrics;
mod notify;
mod reload;
pub mod run;
mod seats;
mod status;
pub(crate) mod terminal;
mod web_page;
