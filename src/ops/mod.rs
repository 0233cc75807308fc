//! Running the server as a service: start, logs, signals, reload, drain, metrics.

mod addresses;
mod admin;
mod certificates;
mod drain;
mod error;
mod exposition;
mod file_watch;
mod history;
mod hooks;
pub mod host;
mod leases;
mod listeners;
pub mod log;
mod log_budget;
mod metrics;
mod monitor;
mod notify;
mod orders;
mod public_address;
mod reload;
mod revocations;
mod revoke_orders;
mod run;
mod self_test;
mod server;
mod start;
mod status;
mod stored;
pub(crate) mod terminal;
mod web_page;
mod workers;

pub use certificates::CertificateError;
pub use error::{RunError, Unread, WorkerEnd};
pub use hooks::{Hooks, PagePort};
pub use listeners::Bound;
pub use run::run;
