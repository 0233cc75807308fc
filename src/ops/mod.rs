//! Running the server as a service: start, logs, signals, reload, drain, metrics.

mod addresses;
mod admin;
mod certificates;
mod drain;
mod error;
mod exposition;
mod hooks;
pub mod host;
mod listeners;
pub mod log;
mod metrics;
mod monitor;
mod notify;
mod orders;
mod reload;
mod run;
mod server;
mod start;
mod status;
pub(crate) mod terminal;
mod web_page;
mod workers;

pub use certificates::CertificateError;
pub use error::{RunError, Unread, WorkerEnd};
pub use hooks::Hooks;
pub use listeners::Bound;
pub use run::run;
