//! Running the server as a service: start, logs, signals.

pub mod host;
pub mod log;
pub mod run;
