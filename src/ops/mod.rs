//! Running the server as a service: start, logs, signals.

pub mod counters;
pub mod host;
pub mod log;
mod notify;
pub mod run;
